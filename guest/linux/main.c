// SPDX-License-Identifier: GPL-2.0-only
/* main.c - the module comes and goes (M2, M3) */
#include <linux/delay.h>
#include <linux/module.h>
#ifdef CONFIG_X86
#include <asm/processor.h>
#endif

#include "module.h"

bool vmcomm_enabled = true;
bool vmcomm_emulated;

static int vmcomm_enabled_set(const char *val, const struct kernel_param *kp)
{
	int err = param_set_bool(val, kp);

	if (!err)
		vmcomm_links_enable();
	return err;
}

static const struct kernel_param_ops vmcomm_enabled_ops = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = vmcomm_enabled_set,
	.get = param_get_bool,
};
module_param_cb(enabled, &vmcomm_enabled_ops, &vmcomm_enabled, 0644);
MODULE_PARM_DESC(enabled, "use shared memory; 0: connections go (back) to TCP");

bool vmcomm_adopt = true;
module_param_named(adopt, vmcomm_adopt, bool, 0644);
MODULE_PARM_DESC(adopt, "also take over connections that are older than the module or the peer's arrival");

unsigned int vmcomm_spin_us = 500;
module_param_named(spin_us, vmcomm_spin_us, uint, 0644);
MODULE_PARM_DESC(spin_us, "longest time in microseconds that a reader or writer spins before it sleeps; adapts; 0: never");

unsigned int vmcomm_leave_ms = 2000;
module_param_named(leave_ms, vmcomm_leave_ms, uint, 0644);
MODULE_PARM_DESC(leave_ms, "how long to wait for peers when leaving, in milliseconds");

unsigned int vmcomm_keepalive_s = 120;
module_param_named(keepalive_s, vmcomm_keepalive_s, uint, 0644);
MODULE_PARM_DESC(keepalive_s, "seconds without a TCP segment after which one is sent, for conntrack and NAT; 0: never");

unsigned int vmcomm_ring_first = 14;
module_param_named(ring_first, vmcomm_ring_first, uint, 0644);
MODULE_PARM_DESC(ring_first, "log2 of the size of a connection's first ring, 12 to 22");

unsigned int vmcomm_ring_max = 18;
module_param_named(ring_max, vmcomm_ring_max, uint, 0644);
MODULE_PARM_DESC(ring_max, "log2 of the size that a busy ring may grow to, 12 to 22");

static unsigned int vmcomm_loop_mb;
module_param_named(loop, vmcomm_loop_mb, uint, 0444);
MODULE_PARM_DESC(loop, "MiB of memory for loopback connections through rings; 0: none (for tests)");

struct workqueue_struct *vmcomm_wq;
/* threads in callbacks that sleep inside TCP's own code and outlive their context */
atomic_t vmcomm_callers;
u64 vmcomm_reasons[VMCOMM_REASON_COUNT];
u64 vmcomm_stats[VMCOMM_STAT_COUNT];

/* Nobody wraps any more, no device is there: sockets go on over TCP, then the contexts go. */
static void vmcomm_end(void)
{
	vmcomm_give_back_all();
	/* Work that frees contexts queues no other work: one flush is enough. */
	flush_workqueue(vmcomm_wq);
	destroy_workqueue(vmcomm_wq);
	while (atomic_read(&vmcomm_callers))
		msleep(10);
	/* kfree_rcu(), and threads on their last instructions in this module's text. */
	rcu_barrier();
	synchronize_rcu_tasks();
}

static bool __init vmcomm_is_emulated(void)
{
#ifdef CONFIG_X86
	return boot_cpu_has(X86_FEATURE_HYPERVISOR) && hypervisor_cpuid_base("TCGTCGTCGTCG", 0);
#else
	return false;
#endif
}

static int __init vmcomm_init(void)
{
	int err;

	vmcomm_emulated = vmcomm_is_emulated();
	vmcomm_poll_init();

	vmcomm_wq = alloc_workqueue("vmcomm", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!vmcomm_wq)
		return -ENOMEM;
	err = vmcomm_templates_init();
	if (err)
		goto err_wq;
	err = vmcomm_proc_init();
	if (err)
		goto err_wq;
	err = vmcomm_loop_init(vmcomm_loop_mb);
	if (err)
		goto err_proc;
	err = vmcomm_ivshmem_init();
	if (err)
		goto err_loop;
	err = vmcomm_xen_init();
	if (err)
		goto err_ivshmem;
	err = vmcomm_hook_init();
	if (err)
		goto err_xen;
	return 0;

err_xen:
	vmcomm_xen_deinit();
err_ivshmem:
	vmcomm_ivshmem_deinit();
err_loop:
	vmcomm_loop_deinit();
err_proc:
	vmcomm_proc_deinit();
err_wq:
	/* Connections may have been adopted by now. */
	vmcomm_end();
	return err;
}

static void __exit vmcomm_exit(void)
{
	/* No new contexts; then memory goes, connections go on over TCP; then the contexts go. */
	vmcomm_hook_deinit();
	vmcomm_xen_deinit();
	vmcomm_ivshmem_deinit();
	vmcomm_loop_deinit();
	vmcomm_proc_deinit();
	vmcomm_end();
}

module_init(vmcomm_init);
module_exit(vmcomm_exit);
MODULE_DESCRIPTION("TCP between VMs on one host through shared memory");
MODULE_LICENSE("GPL");
MODULE_VERSION(VMCOMM_VERSION);
