/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One byte ring between a sender VM S and a receiver VM R, and when a doorbell may be left out.
 *
 *	S commits:	data; head = new; mb; w = rcv_wake_at; w in [old, new): doorbell to R
 *	R sleeps:	rcv_wake_at = tail; mb; head still == tail: sleep until the doorbell
 *	R consumes:	data; tail = new; mb; w = snd_wake_at; w in [old, new): doorbell to S
 *	S sleeps:	snd_wake_at = tail it saw + K; mb; tail still not beyond it: sleep
 *
 * K = 0 wakes S at the first free unit, K = NEED - 1 when NEED units are free.  Positions start
 * just below the wrap of the counter.  Doorbells coalesce and are late by any time, never lost.
 *
 * -DLEAVE: R's VM leaves at any time instead of reading on:  LEFT = 1; mb; doorbell to S, asked for
 * or not.  S, asleep or about to sleep, must look at LEFT, too.  (-DLEAVE stands for each word by
 * which a VM releases a sleeper of the other: LEFT, final_valid, the host's GONE.)
 *
 * Checked: units arrive in order; S and R come to their end (a lost wake-up is a deadlock).
 */
#ifndef N
#define N	2
#endif
#ifndef UNITS
#define UNITS	5
#endif
#ifndef K
#define K	0
#endif
#define START	254

#define HEAD	0
#define TAIL	1
#define RCV_WAKE 2
#define SND_WAKE 3
#define LEFT	4
#define DATA(p)	(5 + ((p) & 255) % N)
#define NWORDS	(5 + N)
#define S	0
#define R	1
#define NCPU	2
#define SBMAX	(N + 3)
#if (256 % N)
#error N must divide 256: positions wrap
#endif

#include "tso.pml"

bool bell[2], woken[2];

active proctype irq_s() { end: do :: d_step { bell[S] -> bell[S] = 0; woken[S] = 1 } od }
active proctype irq_r() { end: do :: d_step { bell[R] -> bell[R] = 0; woken[R] = 1 } od }

proctype sender()
{
	byte head = START, sent, t, w, n;

	do
	:: sent == UNITS -> break
	:: else ->
		load(S, TAIL, t);
		if
		:: DIFF(head, t) == N ->
			woken[S] = 0;
			store(S, SND_WAKE, (t + K) & 255);
			w = t + K;
#ifndef MUT_NO_MB_SND_ARM
			mb(S);
#endif
#ifndef MUT_NO_SND_RECHECK
			load(S, TAIL, t);
#endif
#if defined(LEAVE) && !defined(MUT_NO_LEFT_RECHECK)
			load(S, LEFT, n);
#else
			n = 0;
#endif
			if
			:: n == 0 && DIFF(head, t) >= DIFF(head, w) -> woken[S]
			:: else
			fi;
#ifdef LEAVE
			load(S, LEFT, n);
			if
			:: n -> break
			:: else
			fi
#endif
		:: else ->
			n = 0;
			do
			:: n < N - DIFF(head, t) && sent < UNITS ->
				store(S, DATA(head + n), sent);
				n++; sent++;
				if
				:: break
				:: skip
				fi
			:: else -> break
			od;
			store(S, HEAD, (head + n) & 255);
#ifndef MUT_NO_MB_SND
			mb(S);
#endif
			load(S, RCV_WAKE, w);
			if
			:: CROSSED(w, head, head + n) -> bell[R] = 1
			:: else
			fi;
			head = head + n
		fi
	od
}

proctype receiver()
{
	byte tail = START, got, h, w, n, v;

	do
	:: got == UNITS -> break
#ifdef LEAVE
	:: got < UNITS ->
		store(R, LEFT, 1);
#ifndef MUT_NO_MB_LEFT
		mb(R);
#endif
		bell[S] = 1;
		break
#endif
	:: got < UNITS ->
		load(R, HEAD, h);
		if
		:: h == tail ->
			woken[R] = 0;
			store(R, RCV_WAKE, tail);
#ifndef MUT_NO_MB_RCV_ARM
			mb(R);
#endif
#ifndef MUT_NO_RCV_RECHECK
			load(R, HEAD, h);
#endif
			if
			:: h == tail -> woken[R]
			:: else
			fi
		:: else ->
			n = 0;
			do
			:: n < DIFF(h, tail) ->
				load(R, DATA(tail + n), v);
				assert(v == got);
				n++; got++;
				if
				:: break
				:: skip
				fi
			:: else -> break
			od;
			store(R, TAIL, (tail + n) & 255);
#ifndef MUT_NO_MB_RCV
			mb(R);
#endif
			load(R, SND_WAKE, w);
			if
#ifdef MUT_EQUAL
			:: w == tail -> bell[S] = 1
#else
			:: CROSSED(w, tail, tail + n) -> bell[S] = 1
#endif
			:: else
			fi;
			tail = tail + n
		fi
	od
}

init
{
	d_step {
		mem[HEAD] = START; mem[TAIL] = START;
		mem[RCV_WAKE] = START - 1; mem[SND_WAKE] = START - 1
	}
	atomic { run sender(); run receiver() }
}
