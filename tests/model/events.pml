/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event queue from a producer VM P to a consumer VM C.  What happened is level-triggered: one
 * pending word per connection, by P, counts up.  The queue only says where to look.
 *
 *	P:	pending[ccb]++; then, by the tail it sees,
 *		room:	entry; head; mb; w = wake_at; w in [old, new): doorbell
 *		full:	overflow++; mb; doorbell, always
 *	quiet:	an entry that wakes nobody: entry; head.  The next loud one compares wake_at with
 *		all positions since the last comparison, not only with its own.
 *	C:	overflow != seen: seen = overflow; tail = head; look at all connections
 *		else: [tail, head): look at each entry's connection
 *		tail; wake_at = tail; mb; head == tail and overflow == seen: sleep
 *
 * A doorbell does not drain the store buffer here (on x86 the MMIO write and the hypercall do; an
 * eventfd in another process need not), so the mb in the overflow branch is part of the protocol.
 *
 * Checked: when nothing moves any more, C has seen each connection's last loud event.
 */
#ifndef Q
#define Q	2
#endif
#ifndef EVENTS
#define EVENTS	4
#endif
#define CCBS	2

#define HEAD	0
#define OVERFLOW 1
#define TAIL	2
#define WAKE_AT	3
#define PENDING(c) (4 + (c))
#define ENTRY(p) (4 + CCBS + (p) % Q)
#define NWORDS	(4 + CCBS + Q)
#define P	0
#define C	1
#define NCPU	2
#define SBMAX	4

#include "tso.pml"

bool bell, woken;
byte pending[CCBS], seen[CCBS];
byte loud[CCBS];	/* what C must have seen: quiet events may wait for the next loud one */

active proctype irq() { end: do :: d_step { bell -> bell = 0; woken = 1 } od }

active proctype producer()
{
	byte sent, head, rung, overflow, t, w, c;

	do
	:: sent < EVENTS ->
		sent++;
		if
		:: c = 0
		:: c = 1
		fi;
#ifdef MUT_PENDING_LATE
		atomic {
#else
		atomic {
			pending[c]++;
			store(P, PENDING(c), pending[c])
		}
		atomic {
#endif
			load(P, TAIL, t)
		}
		if
		:: head - t < Q ->
			store(P, ENTRY(head), c);
			head++;
			store(P, HEAD, head);
#ifdef MUT_PENDING_LATE
			atomic { pending[c]++; store(P, PENDING(c), pending[c]) }
#endif
			if
			:: head - rung < Q -> goto next		/* quiet */
			:: true
			fi;
#ifndef MUT_NO_MB_PUSH
			mb(P);
#endif
			atomic {
				load(P, WAKE_AT, w);
				if
#ifdef MUT_OWN_POSITION
				:: CROSSED(w, head - 1, head) -> bell = 1
#else
				:: CROSSED(w, rung, head) -> bell = 1
#endif
				:: else
				fi;
				loud[c] = pending[c];
				rung = head
			}
		:: else ->
#ifdef MUT_PENDING_LATE
			atomic { pending[c]++; store(P, PENDING(c), pending[c]) }
#endif
#ifndef MUT_NO_OVERFLOW
			overflow++;
			store(P, OVERFLOW, overflow);
#endif
#ifndef MUT_NO_MB_OVERFLOW
			mb(P);
#endif
			loud[c] = pending[c];
			bell = 1
		fi;
next:
		skip;
		d_step { t = 0; w = 0; c = 0 }
	:: break
	od
}

inline look(c)
{
	load(C, PENDING(c), seen[c])
}

active proctype consumer()
{
	byte tail, overflow_seen, h, o, c;

	do
	:: load(C, OVERFLOW, o);
		if
		:: o != overflow_seen ->
#ifdef MUT_SCAN_FIRST
			load(C, HEAD, h);
			look(0);
			look(1);
			load(C, OVERFLOW, o);
			overflow_seen = o;
#else
			overflow_seen = o;
			load(C, HEAD, h);
			look(0);
			look(1);
#endif
			tail = h
		:: else ->
			load(C, HEAD, h);
			do
			:: tail != h ->
				load(C, ENTRY(tail), c);
				look(c);
				tail++
			:: else -> break
			od
		fi;
		store(C, TAIL, tail);
		woken = 0;
		store(C, WAKE_AT, tail);
#ifndef MUT_NO_MB_ARM
		mb(C);
#endif
#ifndef MUT_NO_RECHECK
		load(C, HEAD, h);
#endif
		o = overflow_seen;
#ifndef MUT_NO_OVERFLOW_RECHECK
		load(C, OVERFLOW, o);
#endif
		if
		:: h == tail && o == overflow_seen ->
			d_step { h = 0; o = 0; c = 0 }
			woken
		:: else -> d_step { h = 0; o = 0; c = 0 }
		fi
	od
}

active proctype judge()
{
	timeout -> assert(seen[0] >= loud[0] && seen[1] >= loud[1])
}
