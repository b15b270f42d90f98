// SPDX-License-Identifier: GPL-2.0-only
/*
 * pace.c - how much of this VM's time peers may take by doorbells and events (M26)
 *
 * A peer that floods would otherwise keep a CPU in interrupts, and its softirq in event queues, at
 * the cost of everything else that runs there. So what doorbells cost is added up in ns, and
 * forgiven at half of real time:
 *
 *   a run that found something about our connections   three quarters of what it took
 *   a run that found nothing, or nearly nothing	       twice what it took, and
 *							       VMCOMM_PACE_USELESS for each doorbell
 *
 * What a call of ours found since the last run counts for the next one, and a single doorbell after a
 * run that found something costs no more than such a run: a peer may ring for what we take just
 * before, a spinning reader for instance, and on a fast machine that happens often.
 *
 * Good peers ring for a reason and stay far below that. Above VMCOMM_PACE_LIMIT doorbells are shut
 * out, and at the end of a pause everything is looked at without one. Events and bytes wait in
 * shared memory meanwhile, so nothing is lost, and the other peers wait for some milliseconds.
 *
 * The debt belongs to the tasklet, which runs on one CPU at a time.
 */
#include <linux/ratelimit.h>

#include "module.h"

#define VMCOMM_PACE_USELESS 100000	/* ns: more than an interrupt costs, by far */
#define VMCOMM_PACE_LIMIT   8000000	/* ns */
#define VMCOMM_PACE_DEBT    16000000	/* ns: the longest pause is as long */
#define VMCOMM_PACE_ROW	    3		/* pauses in a row that make a flood */

static struct ratelimit_state vmcomm_pace_limit =
	RATELIMIT_STATE_INIT_FLAGS(vmcomm_pace_limit, 10 * HZ, 1, RATELIMIT_MSG_ON_RELEASE);

static enum hrtimer_restart vmcomm_pace_timer(struct hrtimer *timer)
{
	struct vmcomm_link *link = container_of(timer, struct vmcomm_link, pace.timer);

	tasklet_schedule(&link->tasklet);
	return HRTIMER_NORESTART;
}

void vmcomm_pace_init(struct vmcomm_link *link)
{
	hrtimer_init(&link->pace.timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	link->pace.timer.function = vmcomm_pace_timer;
}

/* From an interrupt. Return: false: not now, the end of the pause will see to it. */
bool vmcomm_pace_doorbell(struct vmcomm_link *link)
{
	atomic_inc(&link->pace.rung);
	/* What it was rung for is there; with vmcomm_pace_begin(). */
	smp_mb();
	return !READ_ONCE(link->pace.paused);
}

static void vmcomm_pace_open(struct vmcomm_link *link)
{
	if (!link->pace.paused)
		return;
	WRITE_ONCE(link->pace.paused, false);
	if (link->mask)
		link->mask(link, false);
	smp_mb();
}

/* The tasklet begins. */
void vmcomm_pace_begin(struct vmcomm_link *link)
{
	struct vmcomm_pace *pace = &link->pace;
	u64 now = ktime_get_ns();

	if (pace->paused)
		pace->opened = now;
	vmcomm_pace_open(link);
	pace->debt -= min(pace->debt, (now - pace->last) / 2);
	pace->last = now;
}

/* The tasklet ends. @more: it did not get to the end. Return: true: go on at once. */
bool vmcomm_pace_end(struct vmcomm_link *link, bool more)
{
	struct vmcomm_pace *pace = &link->pace;
	u64 took = ktime_get_ns() - pace->last, rung = atomic_xchg(&pace->rung, 0);
	u64 found = READ_ONCE(link->node.found) - pace->found;
	u64 seen = READ_ONCE(link->node.stat[VMCOMM_STAT_EVENTS_SEEN]) - pace->seen;
	u64 scans = READ_ONCE(link->node.scans) - pace->scans;
	bool vain = !found || found < seen / 4;
	bool late = vain && !seen && !scans && rung <= 1 && pace->useful;

	/* It looked at a few words: if that took long, the host had taken the CPU away. */
	if (!seen && !scans && !more)
		took = min_t(u64, took, VMCOMM_PACE_USELESS);
	pace->found += found;
	pace->seen += seen;
	pace->scans += scans;
	pace->useful = !vain;
	if (vain && !late)
		pace->debt += 2 * took + rung * VMCOMM_PACE_USELESS;
	else
		pace->debt += took / 4 * 3;
	if (pace->debt < VMCOMM_PACE_LIMIT)
		return more;
	pace->debt = min_t(u64, pace->debt, VMCOMM_PACE_DEBT);
	WRITE_ONCE(pace->paused, true);
	if (link->mask)
		link->mask(link, true);
	vmcomm_node_count(&link->node, VMCOMM_STAT_PAUSES, 1);
	pace->row = pace->last - pace->opened < 2 * VMCOMM_PACE_DEBT ? pace->row + 1 : 1;
	/* One alone may be a busy host's doing. */
	if (vain && pace->row >= VMCOMM_PACE_ROW) {
		vmcomm_node_reason(&link->node, VMCOMM_REASON_FLOOD);
		if (__ratelimit(&vmcomm_pace_limit))
			pr_warn("vmcomm: %s: peers ring or queue events without need (reason flood): doorbells wait for up to %u ms\n",
				link->name, VMCOMM_PACE_DEBT / 1000000);
	}
	hrtimer_start(&pace->timer, ns_to_ktime(pace->debt), HRTIMER_MODE_REL);
	return false;
}

/* No tasklet runs or comes any more, but by the timer. */
void vmcomm_pace_stop(struct vmcomm_link *link)
{
	hrtimer_cancel(&link->pace.timer);
	tasklet_kill(&link->tasklet);
	vmcomm_pace_open(link);
	link->pace.debt = 0;
	/* The next node counts from 0. */
	link->pace.found = 0;
	link->pace.seen = 0;
	link->pace.scans = 0;
}
