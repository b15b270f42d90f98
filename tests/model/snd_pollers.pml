/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ring's sending VM with two threads that wait for room on one socket: a blocked writer, which
 * moves the private head, and a poll()er for POLLOUT.  Both want NEED free units (half the ring)
 * and arm the one word snd_wake_at:
 *
 *	lock; w = head + NEED - N - 1; snd_wake_at = w; mb; unlock; tail not beyond w: sleep
 *
 * that is, the wake-up comes when the tail moves beyond w, which is when NEED units are free.
 * -DMUT_FROM_TAIL has w = tail seen + NEED - 1 instead, which is right for one thread that finds
 * the ring quite full, and wrong for two, or when some units are free.
 *
 * One doorbell wakes both.  The receiver may stop reading at any time.
 *
 * Checked: when nothing moves any more, nobody sleeps while NEED units are free.
 */
#ifndef UNITS
#define UNITS	6
#endif
#define N	4
#define NEED	2
#define START	254

#define HEAD	0	/* written by the writer; the ring's word and the private one */
#define TAIL	1
#define SND_WAKE 2
#define LOCK	3
#define NWORDS	4
#define WRITER	0
#define POLLER	1
#define R	2
#define NCPU	3
#define SBMAX	3

#include "tso.pml"

bool bell, woken[NCPU], asleep[NCPU];

proctype irq()
{
end:
	do
	:: d_step { bell -> bell = 0; woken[WRITER] = 1; woken[POLLER] = 1 }
	od
}

inline lock(cpu)
{
	atomic { mb(cpu); mem[LOCK] == 0 -> mem[LOCK] = 1 }
}

inline unlock(cpu)
{
	store(cpu, LOCK, 0)
}

/* Sleeps, or finds that NEED units are free. */
inline arm_and_sleep(cpu)
{
	woken[cpu] = 0;
	lock(cpu);
	load(cpu, HEAD, h);
#ifdef MUT_FROM_TAIL
	load(cpu, TAIL, t);
	w = t + NEED - 1;
#else
	w = h + NEED - N - 1;
#endif
	store(cpu, SND_WAKE, w);
#ifndef MUT_NO_MB
	mb(cpu);
#endif
	unlock(cpu);
	load(cpu, TAIL, t);
	if
	:: DIFF(t - w, 1) >= 128 ->
		asleep[cpu] = 1;
		d_step { woken[cpu] -> asleep[cpu] = 0 }
	:: else -> room = 1
	fi
}

proctype writer()
{
	byte sent, h, t, w;
	bool room;

	h = START;
	do
	:: sent < UNITS ->
		load(WRITER, TAIL, t);
		if
		:: DIFF(h, t) == N -> arm_and_sleep(WRITER)
		:: else ->
			sent++;
			h++;
			store(WRITER, HEAD, h)
		fi
	:: break
	od
}

proctype poller()
{
	byte h, t, w;
	bool room;

	do
	:: room -> break		/* poll() returns POLLOUT */
	:: else ->
		load(POLLER, HEAD, h);
		load(POLLER, TAIL, t);
		if
		:: DIFF(h, t) <= N - NEED -> room = 1
		:: else -> arm_and_sleep(POLLER)
		fi
	od
}

proctype receiver()
{
	byte tail = START, h, w;

	do
	:: load(R, HEAD, h);
		if
		:: h != tail ->
			tail++;
			store(R, TAIL, tail);
			mb(R);
			load(R, SND_WAKE, w);
			if
			:: CROSSED(w, tail - 1, tail) -> bell = 1
			:: else
			fi
		:: else -> mem[HEAD] != tail
		fi
	:: break
	od
}

proctype judge()
{
	timeout ->
		assert((!asleep[WRITER] && !asleep[POLLER]) || DIFF(mem[HEAD], mem[TAIL]) > N - NEED)
}

init
{
	d_step { mem[HEAD] = START; mem[TAIL] = START; mem[SND_WAKE] = START - N - 1 }
	atomic { run irq(); run writer(); run poller(); run receiver(); run judge() }
}
