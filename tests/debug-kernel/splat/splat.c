// SPDX-License-Identifier: GPL-2.0-only
/*
 * splat.c - does what a debug kernel must complain of: "insmod splat.ko kind=..." always fails
 *
 * At the end of a clean run it shows that the detectors were on and that the suite hears them.
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

static char *kind = "";
module_param(kind, charp, 0);

static DEFINE_SPINLOCK(splat_a);
static DEFINE_SPINLOCK(splat_b);
static int __rcu *splat_rcu;

static noinline void splat_order(void)
{
	spin_lock(&splat_a);
	spin_lock(&splat_b);
	spin_unlock(&splat_b);
	spin_unlock(&splat_a);
	spin_lock(&splat_b);
	spin_lock(&splat_a);
	spin_unlock(&splat_a);
	spin_unlock(&splat_b);
}

static noinline void splat_atomic(void)
{
	spin_lock(&splat_a);
	/* To sleep really would, on another CPU, be a lock's complaint, too, and end lock checking. */
	might_sleep();
	spin_unlock(&splat_a);
}

static noinline void splat_freed(void)
{
	char *p = kmalloc(64, GFP_KERNEL);

	if (!p)
		return;
	kfree(p);
	pr_info("splat: %d\n", READ_ONCE(p[3]));
}

static int __init splat_init(void)
{
	if (!strcmp(kind, "rcu"))
		pr_info("splat: %d\n", !!rcu_dereference(splat_rcu));
	else if (!strcmp(kind, "atomic"))
		splat_atomic();
	else if (!strcmp(kind, "order"))
		splat_order();
	else if (!strcmp(kind, "freed"))
		splat_freed();
	return -EAGAIN;
}

module_init(splat_init);
MODULE_DESCRIPTION("Mistakes that debug kernels must find");
MODULE_LICENSE("GPL");
