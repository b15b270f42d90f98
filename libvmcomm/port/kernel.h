/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* port/kernel.h - the core inside a Linux guest */
#ifndef VMCOMM_PORT_KERNEL_H
#define VMCOMM_PORT_KERNEL_H

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/delay.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/printk.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/vmalloc.h>
#include <asm/barrier.h>
#include <asm/byteorder.h>

extern bool vmcomm_emulated; /* instructions are translated, not run */

/*
 * With VMCOMM_CHECK_ACCESS (scripts/build.sh checked) the module looks at each access to shared
 * memory: guest/linux/access.c.
 */
#ifdef VMCOMM_CHECK_ACCESS
void vmcomm_access_check(const volatile void *p, size_t n, bool write);

#define vmcomm_checked(p, n, write)                                                                \
	({                                                                                         \
		typeof(&*(p)) vmcomm_p = (p);                                                      \
		vmcomm_access_check(vmcomm_p, n, write);                                           \
		vmcomm_p;                                                                          \
	})
#else
static inline void vmcomm_access_check(const volatile void *p, size_t n, bool write)
{
}

#define vmcomm_checked(p, n, write) (p)
#endif
#define vmcomm_read(p)	vmcomm_checked(p, sizeof(*(p)), false)
#define vmcomm_write(p) vmcomm_checked(p, sizeof(*(p)), true)

#define vmcomm_load32(p)	      le32_to_cpu(READ_ONCE(*vmcomm_read(p)))
#define vmcomm_load64(p)	      le64_to_cpu(READ_ONCE(*vmcomm_read(p)))
#define vmcomm_load_acquire32(p)      le32_to_cpu(virt_load_acquire(vmcomm_read(p)))
#define vmcomm_load_acquire64(p)      le64_to_cpu(virt_load_acquire(vmcomm_read(p)))
#define vmcomm_store32(p, v)	      WRITE_ONCE(*vmcomm_write(p), cpu_to_le32(v))
#define vmcomm_store64(p, v)	      WRITE_ONCE(*vmcomm_write(p), cpu_to_le64(v))
#define vmcomm_store_release32(p, v)  virt_store_release(vmcomm_write(p), cpu_to_le32(v))
#define vmcomm_store_release64(p, v)  virt_store_release(vmcomm_write(p), cpu_to_le64(v))
#define vmcomm_store16(p, v)	      WRITE_ONCE(*vmcomm_write(p), cpu_to_le16(v))
#define vmcomm_store8(p, v)	      WRITE_ONCE(*vmcomm_write(p), (u8)(v))
#define vmcomm_load16(p)	      le16_to_cpu(READ_ONCE(*vmcomm_read(p)))
#define vmcomm_load8(p)		      READ_ONCE(*vmcomm_read(p))
#define vmcomm_mb()		      virt_mb()
/*
 * QEMU before 8.0 translates no barrier at all for a guest with one virtual CPU (TCG). The seldom
 * side makes up for both: within a microsecond all stores are out, its own and the other side's.
 */
#define vmcomm_mb_seldom()                                                                         \
	do {                                                                                       \
		virt_mb();                                                                         \
		if (unlikely(vmcomm_emulated))                                                     \
			udelay(1);                                                                 \
	} while (0)
#define vmcomm_rmb()		      virt_rmb()
#define vmcomm_wmb()		      virt_wmb()

#define vmcomm_copy_to_shared(d, s, n)	 memcpy(vmcomm_checked((u8 *)(d), n, true), s, n)
#define vmcomm_copy_from_shared(d, s, n) memcpy(d, vmcomm_checked((const u8 *)(s), n, false), n)
#define vmcomm_zero_shared(d, n)	 memset(vmcomm_checked((u8 *)(d), n, true), 0, n)

#define VMCOMM_READ_ONCE(x)	READ_ONCE(x)
#define VMCOMM_WRITE_ONCE(x, v) WRITE_ONCE(x, v)
#define VMCOMM_LOAD_ACQUIRE(x)	    smp_load_acquire(&(x))
#define VMCOMM_STORE_RELEASE(x, v) smp_store_release(&(x), v)

struct vmcomm_lock {
	spinlock_t lock;
};

/* A macro, so that each lock of the core has a lockdep class of its own. */
#define vmcomm_lock_init(l) spin_lock_init(&(l)->lock)

static inline void vmcomm_lock(struct vmcomm_lock *l)
{
	spin_lock_bh(&l->lock);
}

static inline void vmcomm_unlock(struct vmcomm_lock *l)
{
	spin_unlock_bh(&l->lock);
}

static inline void *vmcomm_alloc(size_t n)
{
	return kzalloc(n, GFP_ATOMIC | __GFP_NOWARN);
}

static inline void vmcomm_free(void *p)
{
	kfree(p);
}

static inline void *vmcomm_alloc_large(size_t n)
{
	return kvzalloc(n, GFP_KERNEL);
}

static inline void vmcomm_free_large(void *p)
{
	kvfree(p);
}

static inline u64 vmcomm_now(void)
{
	return ktime_get_ns();
}

static inline u64 vmcomm_random64(void)
{
	return get_random_u64();
}

static inline void vmcomm_count(u64 *p, u64 n)
{
	atomic64_add(n, (atomic64_t *)p);
}

#define vmcomm_warn(fmt, ...) pr_warn_ratelimited("vmcomm: " fmt "\n", ##__VA_ARGS__)

#endif
