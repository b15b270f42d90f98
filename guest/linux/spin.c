// SPDX-License-Identifier: GPL-2.0-only
/*
 * spin.c - looking for a while before going to sleep
 *
 * A wake-up costs a doorbell, an interrupt and a context switch: look first, as long as that pays
 * and nobody else wants the CPU. The time adapts to how long it took the last times: several times
 * that while it pays; it halves when nothing came, down to not at all, with a new try of the
 * whole time now and then, as a peer that had to be woken answers late once, and soon from then on.
 * So a host with more virtual than real CPUs, where the peer does not run while one spins, ends up
 * without spinning.
 */
#include <linux/sched/clock.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>

#include "module.h"

#define VMCOMM_SPIN_MIN	 2000 /* ns */
#define VMCOMM_SPIN_SLACK 50000 /* ns; one late answer must not end it */
#define VMCOMM_SPIN_LOOKS 8    /* between two pauses and looks at the clock, which may be dear */
#define VMCOMM_SPIN_SKIP 16   /* sleeps without a spin after spinning did not pay */

/* Does nobody else want this CPU? A task that was made ready here does not always preempt. */
static bool vmcomm_spin_alone(void)
{
	return !need_resched() && single_task_running();
}

/*
 * Called without the socket lock. @spin, @skip: the socket's memory for this kind of wait.
 * Return: true if @ready().
 */
bool vmcomm_spin(struct vmcomm_sock *vs, u32 *spin, u32 *skip, bool (*ready)(struct vmcomm_sock *vs))
{
	u32 max = READ_ONCE(vmcomm_spin_us) * 1000;
	u64 start, spent = 0;
	bool hit = false;
	u32 i;

	if (!max || !vmcomm_conn_attached(&vs->conn) || !vmcomm_spin_alone())
		return false;
	if (*spin < VMCOMM_SPIN_MIN) {
		if (++*skip < VMCOMM_SPIN_SKIP)
			return false;
		*skip = 0;
		*spin = max;
	}
	start = local_clock();
	do {
		cpu_relax();
		for (i = 0; i < VMCOMM_SPIN_LOOKS && !hit; i++)
			hit = ready(vs);
		spent = local_clock() - start;
	} while (!hit && vmcomm_spin_alone() && !signal_pending(current) &&
		 spent < min(*spin, max));
	if (hit)
		*spin = min_t(u64, max, max_t(u64, 8 * spent + VMCOMM_SPIN_SLACK, *spin / 4 * 3));
	else
		*spin /= 2;
	vmcomm_node_count(&vs->link->node, hit ? VMCOMM_STAT_SPIN_HITS : VMCOMM_STAT_SPIN_MISSES,
			  1);
	return hit;
}
