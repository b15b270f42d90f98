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
#define VMCOMM_SPIN_YOUNG 2   /* first waits of a socket: for a response, for the end */

/* Does nobody else want this CPU? A task that was made ready here does not always preempt. */
static bool vmcomm_spin_alone(void)
{
	return !need_resched() && single_task_running();
}

/* Return: true if @ready(). @stop: ends it, too; or NULL. */
static bool vmcomm_spin_for(struct vmcomm_sock *vs, u32 max, struct vmcomm_spin *spin,
			    bool (*ready)(struct vmcomm_sock *vs), const int *stop)
{
	u32 limit = READ_ONCE(spin->ns), i;
	u64 start, spent = 0;
	bool hit = false;

	if (limit < VMCOMM_SPIN_MIN) {
		WRITE_ONCE(spin->skip, READ_ONCE(spin->skip) + 1);
		if (READ_ONCE(spin->skip) < VMCOMM_SPIN_SKIP)
			return false;
		WRITE_ONCE(spin->skip, 0);
		limit = max;
	}
	limit = min(limit, max);
	start = local_clock();
	do {
		cpu_relax();
		for (i = 0; i < VMCOMM_SPIN_LOOKS && !hit; i++)
			hit = ready(vs);
		spent = local_clock() - start;
	} while (!hit && vmcomm_spin_alone() && !signal_pending(current) && spent < limit &&
		 !(stop && READ_ONCE(*stop)));
	if (hit)
		WRITE_ONCE(spin->ns, min_t(u64, max, max_t(u64, 8 * spent + VMCOMM_SPIN_SLACK,
							   limit / 4 * 3)));
	else
		WRITE_ONCE(spin->ns, limit / 2);
	vmcomm_node_count(&vs->link->node, hit ? VMCOMM_STAT_SPIN_HITS : VMCOMM_STAT_SPIN_MISSES,
			  1);
	return hit;
}

/*
 * Called without the socket lock. @spin: the socket's memory for this kind of wait. The first waits
 * of a socket do not count: many live for one request only, and what they wait for is on its way
 * over the NIC, which may need the CPU that spinning would take from it.
 * Return: true if @ready().
 */
bool vmcomm_spin(struct vmcomm_sock *vs, struct vmcomm_spin *spin,
		 bool (*ready)(struct vmcomm_sock *vs))
{
	u32 max = READ_ONCE(vmcomm_spin_us) * 1000, waits = READ_ONCE(vs->waits);

	if (waits < VMCOMM_SPIN_YOUNG) {
		WRITE_ONCE(vs->waits, waits + 1);
		return false;
	}
	return max && vmcomm_conn_attached(&vs->conn) && vmcomm_spin_alone() &&
	       vmcomm_spin_for(vs, max, spin, ready, NULL);
}

/*
 * As vmcomm_spin(), in a call that waits for other things, too: not longer than @max ns, and not
 * after one of them happened, which makes *@stop true. A socket begins without looking.
 */
bool vmcomm_spin_poll(struct vmcomm_sock *vs, struct vmcomm_spin *spin, u32 max,
		      bool (*ready)(struct vmcomm_sock *vs), const int *stop)
{
	max = min(max, READ_ONCE(vmcomm_spin_us) * 1000);
	return max && !READ_ONCE(*stop) && vmcomm_spin_alone() &&
	       vmcomm_spin_for(vs, max, spin, ready, stop);
}
