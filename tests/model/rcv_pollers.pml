/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ring's receiving VM with two threads that wait on one socket: a blocked reader, which moves
 * the private tail, and a poll()er, which only looks.  Both arm the one word rcv_wake_at:
 *
 *	lock; rcv_wake_at = private tail; mb; unlock; head == that tail: sleep
 *
 * One doorbell wakes both.  The reader may stop reading at any time.  The lock is a local
 * spinlock: taking it is a full barrier, releasing it is a plain store.
 *
 * Checked: when nothing moves any more, nobody sleeps while the ring holds a unit.
 */
#ifndef UNITS
#define UNITS	3
#endif

#define HEAD	0
#define RCV_WAKE 1
#define TAIL	2	/* private to R, yet written through the reader's store buffer */
#define LOCK	3
#define NWORDS	4
#define S	0
#define READER	1
#define POLLER	2
#define NCPU	3
#define SBMAX	3

#include "tso.pml"

bool bell, woken[NCPU], asleep[NCPU];

active proctype irq()
{
end:
	do
	:: d_step { bell -> bell = 0; woken[READER] = 1; woken[POLLER] = 1 }
	od
}

active proctype sender()
{
	byte head, w;

	do
	:: head < UNITS ->
		head++;
		store(S, HEAD, head);
		mb(S);
		load(S, RCV_WAKE, w);
		if
		:: CROSSED(w, head - 1, head) -> bell = 1
		:: else
		fi
	:: break
	od
}

inline lock(cpu)
{
#ifdef MUT_NO_LOCK
	skip
#else
	atomic { mb(cpu); mem[LOCK] == 0 -> mem[LOCK] = 1 }
#endif
}

inline unlock(cpu)
{
#ifdef MUT_NO_LOCK
	skip
#else
	store(cpu, LOCK, 0)
#endif
}

/* Sleeps, or finds that there is something to read. */
inline arm_and_sleep(cpu)
{
	woken[cpu] = 0;
#ifdef MUT_TAIL_UNLOCKED
	load(cpu, TAIL, t);
	lock(cpu);
#else
	lock(cpu);
	load(cpu, TAIL, t);
#endif
	store(cpu, RCV_WAKE, t);
#ifndef MUT_NO_MB
	mb(cpu);
#endif
	unlock(cpu);
	load(cpu, HEAD, h);
	if
	:: h == t ->
		asleep[cpu] = 1;
		d_step { woken[cpu] -> asleep[cpu] = 0 }
	:: else
	fi
}

active proctype reader()
{
	byte tail, t, h;

	do
	:: load(READER, HEAD, h);
		if
		:: h == tail -> arm_and_sleep(READER)
		:: else ->
			tail++;
			store(READER, TAIL, tail)
		fi
	:: break
	od
}

active proctype poller()
{
	byte t, h;

	do
	:: arm_and_sleep(POLLER);
		if
		:: h != t -> break	/* poll() returns POLLIN */
		:: else
		fi
	od
}

active proctype judge()
{
	timeout -> assert((!asleep[READER] && !asleep[POLLER]) || mem[HEAD] == mem[TAIL])
}
