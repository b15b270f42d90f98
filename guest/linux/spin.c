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

/* Return: true if @ready(). @spin, @skip: the memory for this kind of wait. */
static bool vmcomm_spin_for(struct vmcomm_sock *vs, u32 max, u32 *spin, u32 *skip,
			    bool (*ready)(struct vmcomm_sock *vs))
{
	u32 limit = READ_ONCE(*spin), i;
	u64 start, spent = 0;
	bool hit = false;

	if (limit < VMCOMM_SPIN_MIN) {
		WRITE_ONCE(*skip, READ_ONCE(*skip) + 1);
		if (READ_ONCE(*skip) < VMCOMM_SPIN_SKIP)
			return false;
		WRITE_ONCE(*skip, 0);
		limit = max;
	}
	limit = min(limit, max);
	start = local_clock();
	do {
		cpu_relax();
		for (i = 0; i < VMCOMM_SPIN_LOOKS && !hit; i++)
			hit = ready(vs);
		spent = local_clock() - start;
	} while (!hit && vmcomm_spin_alone() && !signal_pending(current) && spent < limit);
	if (hit)
		WRITE_ONCE(*spin, min_t(u64, max, max_t(u64, 8 * spent + VMCOMM_SPIN_SLACK,
							limit / 4 * 3)));
	else
		WRITE_ONCE(*spin, limit / 2);
	vmcomm_node_count(&vs->link->node, hit ? VMCOMM_STAT_SPIN_HITS : VMCOMM_STAT_SPIN_MISSES,
			  1);
	return hit;
}

/*
 * Called without the socket lock. @spin, @skip: the socket's memory for this kind of wait. A socket
 * that has not waited yet has no memory: that of all such sockets of the link counts, as many live
 * for one request only.
 * Return: true if @ready().
 */
bool vmcomm_spin(struct vmcomm_sock *vs, u32 *spin, u32 *skip, bool (*ready)(struct vmcomm_sock *vs))
{
	u32 max = READ_ONCE(vmcomm_spin_us) * 1000;
	struct vmcomm_link *link = vs->link;
	bool hit;

	if (!max || !vmcomm_conn_attached(&vs->conn) || !vmcomm_spin_alone())
		return false;
	if (spin != &vs->spin || vs->spun)
		return vmcomm_spin_for(vs, max, spin, skip, ready);
	vs->spun = true;
	hit = vmcomm_spin_for(vs, max, &link->spin, &link->spin_skip, ready);
	vs->spin = max_t(u32, READ_ONCE(link->spin), VMCOMM_SPIN_SLACK);
	return hit;
}
