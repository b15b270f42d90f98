/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One direction of one connection, switching between TCP and the ring; a reader that sleeps.
 * An even epoch means TCP, an odd one means ring.
 *
 * S	enter:	only if rx_epoch == epoch.  x_seq = write_seq; epoch++
 *	put:	data; head; mb; doorbell if rcv_wake_at was crossed (ring.pml)
 *	leave:	at any time, nobody is asked.  p_pos = head; epoch++; TCP from here on
 * R	TCP:	n = rcv_nxt, FIN; then e = epoch.  e == rx_epoch: read up to n; EOF only if FIN and all
 *		of n is read.  Else x = x_seq: copied == x: rx_epoch++ and ring; else read up to x.
 *	ring:	FIN; then h = head; read [tail, h).  Empty: e = epoch.  e == rx_epoch: EOF if FIN.
 *		Else and tail == p_pos: rx_epoch++ and TCP (a rcv_nxt from before it all is a bound).
 *	sleep:	in both modes: rcv_wake_at = tail; mb; look again; sleep.  Woken by the doorbell
 *		and by whatever arrives on TCP.
 *
 * A TCP segment arrives late by any time, never before its sender's earlier stores.
 *
 * S may fall silent after any unit.  Checked: each unit once and in order, EOF after the last;
 * when nothing moves any more R has read all that S wrote, so no wake-up was lost.
 */
#ifndef N
#define N	2
#endif
#ifndef UNITS
#define UNITS	4
#endif
#ifndef EPOCHS
#define EPOCHS	3	/* a ring may be entered below this epoch */
#endif

#define HEAD	0
#define EPOCH	1
#define X_SEQ	2
#define P_POS	3
#define TAIL	4
#define RX_EPOCH 5
#define RCV_WAKE 6
#define DATA(p)	(7 + (p) % N)
#define NWORDS	(7 + N)
#define S	0
#define R	1
#define NCPU	2
#define SBMAX	4

#include "tso.pml"

byte seg[UNITS], write_seq, rcv_nxt;
byte next, got;		/* units that S sent, that R read */
bool fin, fin_in, bell, woken, eof;

active proctype net()
{
end:
	do
	:: d_step { rcv_nxt < write_seq -> rcv_nxt++; woken = 1 }
	:: d_step { fin && !fin_in && rcv_nxt == write_seq -> fin_in = 1; woken = 1 }
	od
}

active proctype irq() { end: do :: d_step { bell -> bell = 0; woken = 1 } od }

#ifdef MUT_NO_ACK
#define MAY_ENTER	true
#else
#define MAY_ENTER	(mem[RX_EPOCH] == epoch)
#endif

active proctype sender()
{
	byte head, epoch, w;

	do
	:: d_step { w = 0 }
	if
	:: next < UNITS && epoch % 2 == 0 -> atomic {
#ifndef MUT_SEGMENT_NO_MB
		mb(S);
#endif
		seg[write_seq] = next;
		write_seq++;
		next++ }
	:: atomic { next < UNITS && epoch % 2 == 0 && epoch < EPOCHS && MAY_ENTER ->
		epoch++ }
#ifdef MUT_X_SEQ_LATE
		store(S, EPOCH, epoch);
		store(S, X_SEQ, write_seq)
#else
		store(S, X_SEQ, write_seq);
		store(S, EPOCH, epoch)
#endif
	:: atomic { next < UNITS && epoch % 2 == 1 && head - mem[TAIL] < N ->
		store(S, DATA(head), next);
		next++; head++ }
		store(S, HEAD, head);
#ifndef MUT_NO_MB_PUT
		mb(S);
#endif
		atomic {
			load(S, RCV_WAKE, w);
			if
			:: CROSSED(w, head - 1, head) -> bell = 1
			:: else
			fi
		}
	:: atomic { epoch % 2 == 1 -> epoch++ }
#ifdef MUT_P_POS_LATE
		store(S, EPOCH, epoch);
		store(S, P_POS, head)
#else
		store(S, P_POS, head);
		store(S, EPOCH, epoch)
#endif
	:: next == UNITS && !fin ->
		atomic { mb(S); fin = 1 }
	:: next == UNITS && fin -> break
	:: break	/* the program writes no more and does not close */
	fi
	od
}

inline take(unit)
{
	d_step { assert(unit == got); got++ }
}

active proctype receiver()
{
	byte tail, rx_epoch, copied, n, e, h, x, v;
	bool f;

	do
	:: d_step { n = 0; e = 0; h = 0; x = 0; v = 0; f = 0 }
	if
	:: rx_epoch % 2 == 0 ->
#ifdef MUT_EPOCH_FIRST
		load(R, EPOCH, e);
		d_step { n = rcv_nxt; f = fin_in }
#else
		d_step { n = rcv_nxt; f = fin_in }
		load(R, EPOCH, e);
#endif
		if
		:: e == rx_epoch && copied < n ->
			take(seg[copied]); copied++
		:: e == rx_epoch && copied == n && f -> eof = 1; break
		:: e == rx_epoch && copied == n && !f ->
			goto sleep
		:: e != rx_epoch ->
			load(R, X_SEQ, x);
			if
			:: copied == x ->
				rx_epoch++;
				store(R, RX_EPOCH, rx_epoch)
			:: copied != x && copied < rcv_nxt ->
				assert(copied < x);
				take(seg[copied]); copied++
#ifdef MUT_UNCAPPED
				;
				do
				:: copied < rcv_nxt -> take(seg[copied]); copied++
				:: else -> break
				od
#endif
			:: else -> goto sleep
			fi
		fi
	:: rx_epoch % 2 == 1 ->
		n = rcv_nxt;
#ifndef MUT_FIN_LATE
		f = fin_in;
#endif
		load(R, HEAD, h);
#ifdef MUT_FIN_LATE
		f = fin_in;
#endif
		if
		:: h != tail -> atomic {
			load(R, DATA(tail), v);
			take(v);
			tail++;
			store(R, TAIL, tail) }
		:: else ->
			load(R, EPOCH, e);
			if
			:: e == rx_epoch && f -> eof = 1; break
			:: e == rx_epoch && !f -> goto sleep
			:: e != rx_epoch ->
				assert(e == rx_epoch + 1);
				load(R, P_POS, x);
				if
#ifdef MUT_NO_P_POS
				:: true ->
#else
				:: tail == x ->
#endif
					rx_epoch++;
					store(R, RX_EPOCH, rx_epoch);
					/* what had come before all this is still a bound */
					if
					:: copied < n -> take(seg[copied]); copied++
					:: else
					fi
				:: else
				fi
			fi
		fi
	fi;
	goto again;

sleep:
	woken = 0;
#ifdef MUT_NO_ARM_TCP
	if
	:: rx_epoch % 2 == 1 -> store(R, RCV_WAKE, tail)
	:: else
	fi;
#else
	store(R, RCV_WAKE, tail);
#endif
#ifndef MUT_NO_MB_ARM
	mb(R);
#endif
	/* Look again: the same conditions, nothing is changed. */
	d_step { n = rcv_nxt; f = fin_in; x = 255 }
	load(R, EPOCH, e);
	if
	:: rx_epoch % 2 == 0 && e != rx_epoch -> load(R, X_SEQ, x)
	:: rx_epoch % 2 == 1 -> load(R, HEAD, h)
	:: else
	fi;
	if
	:: rx_epoch % 2 == 0 && e == rx_epoch && copied == n && !f -> woken
	:: rx_epoch % 2 == 0 && e != rx_epoch && copied != x && copied == n -> woken
	:: rx_epoch % 2 == 1 && e == rx_epoch && h == tail && !f -> woken
	:: else
	fi;
again:
	skip
	od
}

/* When nothing moves any more, R has read all that S sent; and EOF if S closed. */
active proctype judge()
{
	timeout -> assert(got == next && eof == fin)
}
