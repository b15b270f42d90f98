/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two VMs with one connection.  VM 0 leaves its host at any time; with -DLEAVE1 VM 1 does, too,
 * perhaps at the same moment.  U0 units flow from VM 0 to VM 1, U1 the other way, each followed by
 * a FIN.  Which path a unit takes (TCP or ring) is the sender's free choice, as in stream.pml.
 *
 * Sender	put:	data; head; mb; load peer's LEFT.  0: the peer will see this head.
 *			1: state WAIT: nothing more is sent, FIN included, until the peer's final is
 *			valid (or the host says GONE); then p_pos = head; epoch++; units [final, head)
 *			go over TCP.
 *		notice:	LEFT seen without a put (ring full, wake-up, before a put): every earlier put
 *			has seen LEFT == 0, so nothing is lost: p_pos = head; epoch++; TCP at once.
 * Leaver	freeze:	if in the ring: p_pos = head; epoch++.  LEFT = 1; mb.
 *		evict:	h = peer's head; then x = peer's x_seq; [tail, h) goes to a private buffer, read at
 *			position x; final = h; final_valid = 1.  From here on it reads only TCP and its buffer.
 *		go:	any time after it, unless in state WAIT; mb; unplugged.
 * Stayer	drains the leaver's ring by the ordinary rules (the memory stays readable).  Releases
 *		the leaver's memory and frees its own half when three things are true: that ring is
 *		drained, its own sender is not in WAIT, and the leaver's final is valid (until then
 *		the leaver reads the stayer's ring).
 *
 * -DPAUSE: one VM stops for ever at any point.  -DCRASH: VM 0 stops and the host sets GONE.
 * -DRECHECK: the leaver also loads the peer's LEFT after its own mb and waits for its final.
 *
 * Checked: each unit once, in order, no FIN before data; no word of released memory is read; when
 * nothing moves any more, everything was delivered and the leavers have gone.  With a stopped VM:
 * the other is only stuck if it waits for a final and was stopped between LEFT and final_valid.
 */
#ifndef N
#define N	2
#endif
#ifndef U0
#define U0	0
#endif
#ifndef U1
#define U1	3
#endif
#ifndef EPOCHS
#define EPOCHS	2	/* a ring may be entered below this epoch */
#endif
#define TOTAL(v)	((v) == 0 -> U0 : U1)

#define HEAD		0
#define EPOCH		1
#define X_SEQ		2
#define P_POS		3
#define TAIL		4
#define RX_EPOCH	5
#define LEFT		6
#define FINAL		7
#define FINAL_VALID	8
#define DATA(p)		(9 + (p) % N)
#define VMWORDS		(9 + N)
#define W(v, x)		((v) * VMWORDS + (x))
#define NWORDS		(2 * VMWORDS)
#define NCPU		2
#define SBMAX		4

#include "tso.pml"

#define O		(1 - me)
#define SEG(v, i)	seg[(v) * U0 + (i)]

/* TCP, by sender: what was sent, how much of it arrived, FIN sent and arrived. */
byte seg[U0 + U1];
byte write_seq[2], rcv_nxt[2];
bool fin[2], fin_in[2];

mtype = { TCP, RING, WAIT };
mtype state[2] = TCP;
bool eof[2], gone[2], released[2], stopped[2], host_gone[2];

/* Conditions that mutations switch off. */
#ifdef MUT_FIN_EARLY
#define FIN_ALLOWED	true
#else
#define FIN_ALLOWED	(state[me] != WAIT)
#endif
#if defined(MUT_RELEASE_UNSETTLED)
#define RELEASE_ALLOWED	(mem[W(O, FINAL_VALID)])
#elif defined(MUT_RELEASE_EARLY)
#define RELEASE_ALLOWED	(state[me] == TCP)
#else
#define RELEASE_ALLOWED	(state[me] == TCP && mem[W(O, FINAL_VALID)])
#endif
/* The word by which a sender learns that its peer takes nothing more. */
#ifdef MUT_NO_LEFT_WORD
#define STOP		FINAL_VALID
#else
#define STOP		LEFT
#endif

/*
 * Loads of the peer's words: never after one's own unplug, never from a leaver's memory that was
 * released, never from a stayer's after it released ours (it uses its own anew).
 */
inline peek(w, var)
{
	d_step {
		assert(!gone[me]);
		assert(!(gone[O] && released[O]));
		assert(!released[me])
	}
	load(me, W(O, w), var)
}

/* A segment is a full barrier, and it is the only way by which units appear on TCP. */
inline tcp_send(unit)
{
	atomic {
		mb(me);
		SEG(me, write_seq[me]) = unit;
		write_seq[me]++
	}
}

inline take(unit)
{
	d_step { assert(unit == got); got++ }
}

inline take_tcp()
{
	d_step { assert(SEG(O, copied) == got); got++; copied++ }
}

/* Leave the ring, then units [n, head) of it over TCP, before anything later. */
inline send_again()
{
	if
	:: epoch % 2 == 1 ->
		atomic { epoch++; store(me, W(me, P_POS), head) }
		store(me, W(me, EPOCH), epoch)
	:: else
	fi;
	do
	:: n < head ->
		assert(head - n <= N);
		atomic { load(me, W(me, DATA(n)), v); tcp_send(v); n++ }
	:: else -> break
	od;
	atomic { peer_left = 1; state[me] = TCP }
}

proctype net()
{
end:
	do
	:: d_step { rcv_nxt[0] < write_seq[0] -> rcv_nxt[0]++ }
	:: d_step { rcv_nxt[1] < write_seq[1] -> rcv_nxt[1]++ }
	:: d_step { fin[0] && !fin_in[0] && rcv_nxt[0] == write_seq[0] -> fin_in[0] = 1 }
	:: d_step { fin[1] && !fin_in[1] && rcv_nxt[1] == write_seq[1] -> fin_in[1] = 1 }
	od
}

proctype vm(byte me)
#if defined(PAUSE) || defined(CRASH)
	provided (!stopped[me])
#endif
{
	byte head, epoch, next;			/* sender */
	bool peer_left;
	byte tail, rx_epoch, got, copied;	/* receiver */
	bool alone;				/* reads TCP and the private buffer only */
	bool leaving, left, may_leave;
	byte buf[N], nbuf, ibuf, buf_x;
	byte n, e, x, v;
	bool f;

#ifdef LEAVE1
	may_leave = 1;
#else
	may_leave = (me == 0);
#endif
	do
	:: d_step { n = 0; e = 0; x = 0; v = 0; f = 0 }
	if
	/* ---- sender ---- */
	:: next < TOTAL(me) && state[me] == TCP ->
		atomic { tcp_send(next); next++ }
	:: atomic { next < TOTAL(me) && state[me] == TCP && !leaving && !peer_left &&
	   epoch < EPOCHS && mem[W(O, RX_EPOCH)] == epoch ->
		state[me] = RING;
		epoch++;
		store(me, W(me, X_SEQ), write_seq[me]) }
		store(me, W(me, EPOCH), epoch)
	:: atomic { next < TOTAL(me) && state[me] == RING && head - mem[W(O, TAIL)] < N ->
		store(me, W(me, DATA(head)), next);
		next++; head++ }
		store(me, W(me, HEAD), head);
#ifndef MUT_NO_MB_PUT
		mb(me);
#endif
		atomic {
			peek(STOP, v);
			if
			:: v -> state[me] = WAIT
			:: else
			fi
		}
	:: atomic { state[me] == RING ->
		state[me] = TCP;
		epoch++;
		store(me, W(me, P_POS), head) }
		store(me, W(me, EPOCH), epoch)
	:: atomic { state[me] == RING && !peer_left && mem[W(O, STOP)] ->
		peer_left = 1;
#ifdef WAIT_ON_NOTICE
		state[me] = WAIT }
#else
		state[me] = TCP;
		epoch++;
		store(me, W(me, P_POS), head) }
		store(me, W(me, EPOCH), epoch)
#endif
	:: state[me] == RING && host_gone[O] ->
		state[me] = WAIT
	:: state[me] == WAIT && (mem[W(O, FINAL_VALID)] || host_gone[O]) ->
		peek(FINAL_VALID, v);
		if
#ifndef MUT_RESEND_TAIL
		:: v -> peek(FINAL, n)
		:: else -> peek(TAIL, n)
#else
		:: peek(TAIL, n)
#endif
		fi;
		send_again()
#ifdef MUT_GUESS
	/* The deadline ends the wait: send again what the peer's tail leaves open. */
	:: state[me] == WAIT && left ->
		peek(TAIL, n);
		send_again()
#endif
	:: next == TOTAL(me) && !fin[me] && FIN_ALLOWED ->
		atomic { mb(me); fin[me] = 1 }

	/* ---- receiver, by the rules of stream.pml ---- */
	:: atomic { !eof[me] && !alone && rx_epoch % 2 == 0 &&
	   (rcv_nxt[O] > copied || fin_in[O] || mem[W(O, EPOCH)] != rx_epoch) ->
		n = rcv_nxt[O]; f = fin_in[O] }
		atomic {
			peek(EPOCH, e);
			if
			:: e != rx_epoch
			:: e == rx_epoch && copied < n -> take_tcp()
			:: e == rx_epoch && copied == n && f ->
				assert(got == TOTAL(O));
				eof[me] = 1
			:: else
			fi
		}
		if
		:: e != rx_epoch -> atomic {
			peek(X_SEQ, x);
			if
			:: copied == x ->
				rx_epoch++;
				store(me, W(me, RX_EPOCH), rx_epoch)
			:: copied < x && rcv_nxt[O] > copied -> take_tcp()
			:: else
			fi }
		:: else
		fi
	:: atomic { !eof[me] && !alone && rx_epoch % 2 == 1 &&
	   (mem[W(O, HEAD)] != tail || mem[W(O, EPOCH)] != rx_epoch || fin_in[O]) ->
		f = fin_in[O] }
		peek(HEAD, n);
		if
		:: n != tail -> atomic {
			peek(DATA(tail), v);
			take(v);
			tail++;
			store(me, W(me, TAIL), tail) }
		:: else ->
			atomic {
				peek(EPOCH, e);
				if
				:: e == rx_epoch && f ->
					assert(got == TOTAL(O));
					eof[me] = 1
				:: else
				fi
			}
			if
			:: e != rx_epoch -> atomic {
				peek(P_POS, x);
				if
				:: tail == x ->
					rx_epoch++;
					store(me, W(me, RX_EPOCH), rx_epoch)
				:: else
				fi }
			:: else
			fi
		fi
	/* ... and after leaving, or when the peer's memory was released */
	:: atomic { !eof[me] && alone && ibuf < nbuf && copied == buf_x ->
		take(buf[ibuf]);
		ibuf++ }
	:: atomic { !eof[me] && alone && copied < rcv_nxt[O] &&
	   (ibuf == nbuf || copied < buf_x) ->
		take_tcp() }
	:: atomic { !eof[me] && alone && ibuf == nbuf && fin_in[O] && copied == rcv_nxt[O] ->
		assert(got == TOTAL(O));
		eof[me] = 1 }
	/* the stayer releases the leaver's memory */
	:: atomic { !leaving && !released[O] && mem[W(O, LEFT)] && rx_epoch % 2 == 0 &&
	   rx_epoch == mem[W(O, EPOCH)] && RELEASE_ALLOWED ->
		peer_left = 1;
		alone = 1;
		released[O] = 1 }

	/* ---- leaving ---- */
	:: may_leave && !leaving ->
#ifdef MUT_FINAL_EARLY
		peek(HEAD, n);
		store(me, W(me, FINAL), n);
#endif
		if
		:: state[me] == RING ->
			atomic {
				state[me] = TCP;
				f = 1;
				epoch++;
				store(me, W(me, P_POS), head)
			}
			store(me, W(me, EPOCH), epoch)
		:: else
		fi;
		store(me, W(me, LEFT), 1);
#ifndef MUT_NO_MB_LEFT
		mb(me);
#endif
#ifdef RECHECK
		if
		:: f && !released[O] ->
			atomic {
				peek(LEFT, v);
				if
				:: v -> state[me] = WAIT
				:: else
				fi
			}
		:: else
		fi;
#endif
		f = 0;
		leaving = 1
	/* LEFT is one word for all connections: this one may be read from until its turn comes */
	:: leaving && !left ->
		if
		:: !alone ->
#ifdef MUT_X_FIRST
			peek(X_SEQ, buf_x);
#endif
			peek(HEAD, n);
#ifndef MUT_X_FIRST
			peek(X_SEQ, buf_x);
#endif
			do
			:: tail < n ->
				assert(nbuf < N);
				atomic { peek(DATA(tail), buf[nbuf]); nbuf++; tail++ }
			:: else -> break
			od;
			alone = 1
		:: else
		fi;
#ifndef MUT_FINAL_EARLY
		store(me, W(me, FINAL), tail);
#endif
		store(me, W(me, FINAL_VALID), 1);
		left = 1
	:: atomic { left && !gone[me] && state[me] != WAIT ->
#ifndef MUT_NO_MB_GO
		mb(me);
#endif
		d_step {
			gone[me] = 1;
			sb[me].n = 0	/* what has not drained is lost */
		} }
	:: eof[me] && fin[me] && state[me] != WAIT && (gone[me] || !may_leave) ->
		break
	fi
	od
}

#if defined(PAUSE) || defined(CRASH)
proctype chaos()
{
	if
	:: skip
#ifdef PAUSE
	:: stopped[0] = 1
	:: stopped[1] = 1
#endif
#ifdef CRASH
	:: atomic { !gone[0] -> stopped[0] = 1 }; host_gone[0] = 1
#endif
	fi
}
#endif

#define MID_LEAVE(v)	(stopped[v] && !host_gone[v] && \
			 mem[W(v, LEFT)] && !mem[W(v, FINAL_VALID)])

proctype judge()
{
end:
	timeout ->
	if
	:: !stopped[0] && !stopped[1] ->
		assert(eof[0] && eof[1] && gone[0]);
#ifdef LEAVE1
		assert(gone[1])
#endif
	:: stopped[1] ->
		assert(gone[0] || (state[0] == WAIT && MID_LEAVE(1)))
	:: stopped[0] ->
		assert(state[1] != WAIT || MID_LEAVE(0));
#ifdef LEAVE1
		assert(gone[1] || (state[1] == WAIT && MID_LEAVE(0)))
#endif
	fi
}

init
{
	atomic {
		run vm(0); run vm(1); run net(); run judge();
#if defined(PAUSE) || defined(CRASH)
		run chaos()
#endif
	}
}
