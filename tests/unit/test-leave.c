// SPDX-License-Identifier: GPL-2.0-or-later
/* test-leave.c - leaving, with a peer that answers, does not, leaves too, died (M16, M17, M19) */
#include "fixture.h"

static void leave_begin(struct fix *f, u32 slot)
{
	struct fend *e;

	vmcomm_node_leave_begin(&f->vm[slot].node);
	for (e = f->vm[slot].ends; e; e = e->next)
		vmcomm_conn_freeze(&e->conn);
	vmcomm_node_leave_publish(&f->vm[slot].node);
}

static void both(struct fend *e)
{
	fend_recv_all(e);
	fend_recv_all(e->peer);
	ck_assert(!e->broken && !e->peer->broken);
	ck_assert(fend_same(e));
	ck_assert(fend_same(e->peer));
}

START_TEST(both_read_everything)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);

	fend_send(e, 5000, 0);
	fend_send(e->peer, 6000, 0);
	fend_recv(e, 10);
	fend_recv(e->peer, 20);
	fix_leave_all(f, 0);
	ck_assert(vmcomm_node_leave_answered(&f->vm[0].node));
	ck_assert(!vmcomm_conn_attached(&e->conn) && !vmcomm_conn_attached(&e->peer->conn));
	ck_assert_uint_eq(f->vm[0].node.pair[1]->theirs->leave_ack, f->vm[0].node.incarnation);
	/* From now on everything is TCP, behind the held bytes. */
	fend_send(e, 100, 0);
	fend_send(e->peer, 100, 0);
	ck_assert_uint_eq(e->by_tcp, 100);
	fix_stop(f, 0);
	both(e);
	ck_assert_uint_eq(e->by_held, 5990);
	ck_assert_uint_eq(e->peer->by_held, 4980);
	ck_assert_uint_eq(f->vm[1].node.heap.used, 0);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Held bytes keep their place: after what was on TCP before them, before what came after. */
START_TEST(held_bytes_have_a_position)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1);
	u32 n;

	f->slow_tcp = true;
	fend_send(e, 1000, 0); /* on its way */
	fend_offer(e, false);
	fend_accept(e->peer);
	vmcomm_conn_ready(&e->peer->conn);
	fend_send(e, 2000, 0);
	ck_assert_uint_eq(e->by_ring, 2000);
	fix_leave_all(f, 0);
	fend_send(e, 500, 0);
	ck_assert_uint_eq(fend_recv(e->peer, 10000), 0);
	fend_arrive(e, 999);
	ck_assert_uint_eq(fend_recv(e->peer, 10000), 999);
	ck_assert_uint_eq(vmcomm_rx_readable(&e->peer->conn, fend_copied_seq(e->peer)), 0);
	ck_assert_uint_eq(vmcomm_rx_unread(&e->peer->conn), 2000);
	fend_arrive(e, 501);
	ck_assert_uint_eq(fend_recv(e->peer, 1), 1);
	ck_assert_uint_eq(vmcomm_rx_readable(&e->peer->conn, fend_copied_seq(e->peer)), 2000);
	/* A peek does not move it, several windows do not either. */
	ck_assert_ptr_nonnull(vmcomm_rx_window(&e->peer->conn, 1999, &n));
	ck_assert_uint_eq(n, 1);
	vmcomm_rx_window(&e->peer->conn, 2000, &n);
	ck_assert_uint_eq(n, 0);
	ck_assert_uint_eq(fend_recv(e->peer, 700), 700);
	ck_assert_uint_eq(fend_recv(e->peer, 10000), 1800);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* With held bytes unread it may arrive again: the peer keeps to TCP until they are read. */
START_TEST(arrive_with_held_bytes)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);

	fend_send(e, 3000, 0);
	fix_leave_all(f, 0);
	fix_stop(f, 0);
	ck_assert_int_eq(fix_start(f, 0), 0);
	fix_run(f);
	vmcomm_conn_ready(&e->conn);
	vmcomm_conn_ready(&e->peer->conn);
	f->vm[1].adopt = true;
	ck_assert_int_eq(fend_offer(e, true), 0);
	fix_run(f);
	ck_assert(vmcomm_conn_attached(&e->peer->conn));
	fend_send(e, 100, 0);
	ck_assert_uint_eq(e->by_tcp, 100);
	fend_recv_all(e->peer);
	ck_assert(fend_same(e));
	fend_send(e, 100, 0);
	ck_assert_uint_eq(e->by_tcp, 100);
	ck_assert_uint_eq(e->by_ring, 3100);
	/* And away again, twice, with bytes everywhere. */
	fend_send(e->peer, 777, 0);
	fix_leave_all(f, 0);
	fend_send(e, 50, 0);
	both(e);
	fend_free(e);
	fix_free(f);
}
END_TEST

static void back_again(struct fix *f, struct fend *e)
{
	fix_leave_all(f, 0);
	fix_stop(f, 0);
	ck_assert_int_eq(fix_start(f, 0), 0);
	fix_run(f);
	vmcomm_conn_ready(&e->conn);
	vmcomm_conn_ready(&e->peer->conn);
	f->vm[1].adopt = true;
}

/* Memory was short before: what there is now is asked for at once, not after so many writes. */
START_TEST(arrive_after_shortage)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 i;

	f->vm[0].node.heap.used += f->vm[0].node.heap.chunks;
	for (i = 0; i < 10 && !e->conn.tx.backoff; i++) {
		fend_send(e, 1u << 19, 0);
		fend_recv_all(e->peer);
	}
	ck_assert_uint_gt(e->conn.tx.backoff, 0);
	f->vm[0].node.heap.used -= f->vm[0].node.heap.chunks;
	back_again(f, e);
	ck_assert_int_eq(fend_offer(e, true), 0);
	fix_run(f);
	ck_assert(vmcomm_conn_attached(&e->peer->conn));
	e->by_ring = 0;
	fend_send(e, 100, 0);
	fend_recv_all(e->peer);
	fend_send(e, 100, 0);
	ck_assert_uint_eq(e->by_ring, 100);
	both(e);
	fend_free(e);
	fix_free(f);
}
END_TEST

/*
 * A VM that was set back to a moment at which it was away, while the other one went on: TCP's numbers
 * agree, but bytes that went through rings since are missing or would come twice.
 */
START_TEST(set_back)
{
	struct fix *f = fix_up(2);
	struct fend *e;
	u32 i;

	for (i = 0; i < 4; i++) {
		struct fend *old;

		e = fend_open(f, 0, 1);
		old = i & 1 ? e : e->peer;
		fend_send(e, 3000, 0);
		fend_send(e->peer, 300, 0);
		both(e);
		back_again(f, e);
		if (i & 2)
			old->conn.ring_sent -= 5;
		else
			old->conn.ring_received -= 5;
		ck_assert_int_eq(fend_offer(e, true), 0);
		fix_run(f);
		ck_assert(e->peer->conn.broken);
		ck_assert_uint_eq(e->peer->conn.reason, VMCOMM_REASON_REVERTED);
		vmcomm_conn_resolve(&e->conn);
		ck_assert(e->conn.broken);
		ck_assert_int_eq(fend_next(e), VMCOMM_NEXT_BROKEN);
		fend_free(e);
	}
	/* A context that is new, as after a module was loaded again, knows of no earlier bytes. */
	e = fend_open(f, 0, 1);
	fend_send(e, 3000, 0);
	both(e);
	back_again(f, e);
	e->conn.met = false;
	e->conn.ring_sent = 0;
	ck_assert_int_eq(fend_offer(e, true), 0);
	fix_run(f);
	fend_send(e, 10, 0);
	fend_send(e, 100, 0);
	ck_assert(fend_in_ring(e));
	both(e);
	back_again(f, e);
	ck_assert_int_eq(vmcomm_pair_released(&f->vm[0].node, 0), 0); /* oneself */
	ck_assert_int_eq(fend_offer(e, true), 0);
	fix_run(f);
	/* TCP's numbers move on before the ring is entered, whoever sends. */
	ck_assert_int_eq(fend_next(e), VMCOMM_NEXT_TCP);
	ck_assert(vmcomm_tx_first(&e->conn, fend_write_seq(e)));
	f->slow_tcp = true;
	ck_assert(vmcomm_tx_detour(&e->conn));
	fend_send(e, 10, 0);
	ck_assert(!fend_in_ring(e) && !vmcomm_tx_first(&e->conn, fend_write_seq(e)));
	/* Sent is not enough: a peer that was set back never has it. */
	fend_send(e, 10, 0);
	ck_assert(!fend_in_ring(e));
	ck_assert(vmcomm_tx_detour(&e->conn));
	fend_arrive(e, 1);
	fend_send(e, 10, 0);
	ck_assert(fend_in_ring(e));
	ck_assert(!vmcomm_tx_detour(&e->conn));
	fend_arrive(e, 19);
	f->slow_tcp = false;
	both(e);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* What waits in TCP's queue and was not sent before they met counts as sent since. */
START_TEST(moved_on_with_much_waiting)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 nxt;

	fend_send(e, 3000, 0);
	both(e);
	back_again(f, e);
	f->slow_tcp = true;
	/* While they are apart; 100 of them are on their way when they meet. */
	fend_send(e, 5000, 0);
	nxt = fend_una(e) + 100;
	ck_assert_int_eq(fend_offer(e, true), 0);
	fix_run(f);
	ck_assert_int_eq(vmcomm_tx_next(&e->conn, fend_write_seq(e), nxt, fend_una(e), 0),
			 VMCOMM_NEXT_TCP);
	ck_assert(!vmcomm_tx_first(&e->conn, fend_write_seq(e)));
	fend_arrive(e, 100);
	ck_assert(!vmcomm_tx_moved(&e->conn, fend_una(e)));
	ck_assert_int_eq(fend_next(e), VMCOMM_NEXT_TCP);
	/* More than the peer had when they met; it says so. */
	e->peer->conn.mine->flags |= VMCOMM_CCB_F_HAD;
	e->peer->conn.mine->tcp_had = fend_una(e) + 1;
	fend_arrive(e, 1);
	ck_assert(!vmcomm_tx_moved(&e->conn, fend_una(e)));
	ck_assert_int_eq(fend_next(e), VMCOMM_NEXT_TCP);
	fend_arrive(e, 1);
	ck_assert(vmcomm_tx_moved(&e->conn, fend_una(e)));
	ck_assert_int_eq(fend_next(e), VMCOMM_NEXT_RING);
	ck_assert(!vmcomm_tx_moved(&e->conn, fend_una(e)));
	fend_arrive(e, (u32)(e->out.written - e->out.arrived));
	f->slow_tcp = false;
	both(e);
	fend_free(e);
	fix_free(f);
}
END_TEST

/*
 * What the stayer puts while the leaver stops, before and after the leaver looks at head: taken,
 * or sent over TCP, in order, once.
 */
START_TEST(put_runs_against_left)
{
	u32 late, one, len;
	struct fix *f;
	struct fend *e, *s;
	u8 *p;

	for (late = 0; late < 2; late++) {
		for (one = 0; one < 2; one++) {
			f = fix_up(2);
			f->keep_news = true;
			e = fend_open(f, 0, 1);
			s = e->peer;
			fend_send(s, 1000, 0);
			fend_recv(e, 300);
			ck_assert_int_eq(fend_next(s), VMCOMM_NEXT_RING);
			p = vmcomm_tx_window(&s->conn, &len);
			ck_assert_uint_ge(len, 50);
			fend_fill(s, p, 50);
			/* All connections go, or this one alone. */
			if (!one)
				leave_begin(f, 0);
			if (late)
				ck_assert_int_eq(vmcomm_conn_evict(&e->conn, fend_copied_seq(e),
								   false), 0);
			else if (one)
				e->conn.mine->final_valid = VMCOMM_FINAL_STOP;
			vmcomm_tx_commit(&s->conn, 50);
			ck_assert(s->conn.tx.unsettled);
			/* Who polls comes as soon as there is an answer, and then it is settled. */
			ck_assert(vmcomm_tx_writable(&s->conn) == late);
			if (!late) {
				/* It has not said how far it read: nothing may be sent. */
				ck_assert_uint_eq(fend_send(s, 10, 0), 0);
				ck_assert(s->waited);
				if (!one)
					ck_assert_int_eq(vmcomm_conn_evict(&s->conn,
							 fend_copied_seq(s), false), -EAGAIN);
				ck_assert_int_eq(vmcomm_conn_evict(&e->conn, fend_copied_seq(e),
								   false), 0);
			}
			ck_assert_uint_eq(fend_send(s, 10, 0), 10);
			ck_assert_uint_eq(s->tcp_again, late ? 50 : 0);
			ck_assert_int_eq(vmcomm_conn_evict(&s->conn, fend_copied_seq(s), false), 0);
			both(e);
			ck_assert_uint_eq(e->by_held, late ? 700 : 750);
			fend_free(e);
			fix_free(f);
		}
	}
}
END_TEST

/* One connection goes, and its peer puts while the reader has seen head but not said final. */
static struct fend *late_end;
static u32 late_bytes;

static void late_put(struct fix *f)
{
	struct fend *s = late_end;

	late_end = NULL;
	if (s)
		vmcomm_tx_commit(&s->conn, late_bytes);
}

START_TEST(put_inside_evict)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *s = e->peer;
	u32 len;

	f->keep_news = true;
	vmcomm_conn_resolve(&e->conn);
	fend_send(s, 1000, 0);
	ck_assert_int_eq(fend_next(s), VMCOMM_NEXT_RING);
	fend_fill(s, vmcomm_tx_window(&s->conn, &len), 30);
	late_end = s;
	late_bytes = 30;
	f->mapping = late_put;
	ck_assert_int_eq(vmcomm_conn_evict(&e->conn, fend_copied_seq(e), false), 0);
	ck_assert_ptr_null(late_end);
	ck_assert(s->conn.tx.unsettled);
	fend_send(s, 10, 0);
	ck_assert_uint_eq(s->tcp_again, 30);
	both(e);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Bytes that were settled are not sent again when the peer turns out to be gone. */
START_TEST(settled_once)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *s = e->peer;
	u32 len;

	f->keep_news = true;
	fend_send(s, 1010, 0);
	leave_begin(f, 0);
	s->conn.tx.unsettled = true;
	/* The leaver took 600 of 1010. */
	e->conn.mine->final = 600;
	e->conn.mine->final_valid = VMCOMM_FINAL_VALID;
	ck_assert_int_eq(fend_next(s), VMCOMM_NEXT_HELD);
	vmcomm_tx_pending(&s->conn, &len);
	ck_assert_uint_eq(len, 410);
	ck_assert_uint_eq(vmcomm_tx_unread(&s->conn), 410);
	fend_pending(s);
	/* Who lingers does not wait for bytes that nobody will read from the ring. */
	ck_assert_uint_eq(vmcomm_tx_unread(&s->conn), 0);
	ck_assert_uint_eq(fend_send(s, 5, 0), 5);
	ck_assert_int_eq(vmcomm_conn_evict(&s->conn, fend_copied_seq(s), true), 0);
	ck_assert_uint_eq(s->conn.tx.pend_len, 0);
	ck_assert_uint_eq(s->tcp_again, 410);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A final that cannot be ends the connection. */
START_TEST(hostile_final)
{
	static const u64 bad[] = {1011, 1ULL << 20, 1ULL << 63, ~0ULL};
	struct fix *f;
	struct fend *e;
	u32 i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		f = fix_up(2);
		f->keep_news = true;
		e = fend_open(f, 0, 1);
		fend_send(e->peer, 1010, 0);
		leave_begin(f, 0);
		e->peer->conn.tx.unsettled = true;
		e->conn.mine->final = bad[i];
		e->conn.mine->final_valid = VMCOMM_FINAL_VALID;
		ck_assert_int_eq(vmcomm_conn_evict(&e->peer->conn, fend_copied_seq(e->peer), false),
				 -EPROTO);
		ck_assert(!vmcomm_conn_attached(&e->peer->conn));
		fend_free(e);
		fix_free(f);
	}
}
END_TEST

START_TEST(both_leave)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 i, done;

	f->keep_news = true;
	fend_send(e, 4000, 0);
	fend_send(e->peer, 3000, 0);
	leave_begin(f, 0);
	leave_begin(f, 1);
	/* Each waits for the other's final and has published its own. */
	e->conn.tx.unsettled = true;
	e->peer->conn.tx.unsettled = true;
	for (i = 0, done = 0; i < 5 && done != 3; i++) {
		if (fix_evict(f, 0, 1, false))
			done |= 1;
		if (fix_evict(f, 1, 0, false))
			done |= 2;
	}
	ck_assert_uint_eq(done, 3);
	vmcomm_node_leave_done(&f->vm[0].node);
	vmcomm_node_leave_done(&f->vm[1].node);
	/* Both said that they are through: nobody has to wait for an answer. */
	fix_run(f);
	ck_assert(vmcomm_node_leave_answered(&f->vm[0].node));
	ck_assert(vmcomm_node_leave_answered(&f->vm[1].node));
	fix_stop(f, 0);
	fix_stop(f, 1);
	fend_send(e, 10, 0);
	fend_send(e->peer, 10, 0);
	both(e);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* The peer does not move: the leaver does not need it. */
START_TEST(peer_is_deaf)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u64 left = fix_pair(f, 0, 1)->node->incarnation;

	fend_send(e, 4000, 0);
	fend_send(e->peer, 3000, 0);
	f->vm[1].deaf = true;
	fix_leave_all(f, 0);
	ck_assert(!vmcomm_node_leave_answered(&f->vm[0].node));
	fix_stop(f, 0);
	fix_row(f, 0, VMCOMM_SLOT_LEFT, 1);
	/* Nobody may move in while the peer holds on to what is there. */
	fix_row(f, 0, VMCOMM_SLOT_LIVE, 2);
	ck_assert_int_eq(fix_start(f, 0), -EAGAIN);
	fix_row(f, 0, VMCOMM_SLOT_LEFT, 1);
	f->vm[1].deaf = false;
	f->vm[1].irq = true;
	fix_run(f);
	ck_assert_uint_eq(fix_pair(f, 1, 0)->mine->leave_ack, left);
	fend_send(e->peer, 10, 0);
	both(e);
	fix_row(f, 0, VMCOMM_SLOT_LIVE, 2);
	ck_assert_int_eq(fix_start(f, 0), 0);
	fix_run(f);
	ck_assert(vmcomm_node_pair_up(&f->vm[1].node, 0));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* It never comes back to answer, the host says that it is dead. */
START_TEST(answered_by_the_host)
{
	struct fix *f = fix_up(3);

	f->vm[1].deaf = true;
	vmcomm_node_leave_begin(&f->vm[0].node);
	vmcomm_node_leave_publish(&f->vm[0].node);
	vmcomm_node_leave_done(&f->vm[0].node);
	fix_run(f);
	ck_assert(!vmcomm_node_leave_answered(&f->vm[0].node));
	fix_row(f, 1, VMCOMM_SLOT_GONE, 1);
	ck_assert(vmcomm_node_leave_answered(&f->vm[0].node));
	fix_free(f);
}
END_TEST

/* A peer that had only said hello has nothing to read: no wait for it. */
START_TEST(hello_only)
{
	struct fix *f = fix_new(2, 1u << 24, 16);

	fix_start(f, 0);
	fix_start(f, 1);
	/* 1 accepts 0; 0 has not seen that 1 is there */
	vmcomm_node_event(&f->vm[1].node);
	vmcomm_node_event(&f->vm[0].node);
	ck_assert_uint_eq(fix_pair(f, 0, 1)->state, VMCOMM_PEER_UP);
	ck_assert_uint_eq(fix_pair(f, 1, 0)->state, VMCOMM_PEER_HELLO);
	vmcomm_node_leave_begin(&f->vm[0].node);
	vmcomm_node_leave_publish(&f->vm[0].node);
	vmcomm_node_leave_done(&f->vm[0].node);
	fix_run(f);
	ck_assert(vmcomm_node_leave_answered(&f->vm[0].node));
	fix_free(f);
}
END_TEST

/* The peer dies: what it had put is read, what it did not read goes to TCP once. */
START_TEST(gone)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);

	fend_send(e, 4000, 0);
	fend_recv(e->peer, 1000);
	fend_send(e->peer, 3000, 0);
	f->vm[1].deaf = true;
	fix_row(f, 1, VMCOMM_SLOT_GONE, 1);
	vmcomm_node_tick(&f->vm[0].node);
	ck_assert_uint_eq(f->vm[0].news_count, 1);
	ck_assert_int_eq(f->vm[0].news[0].news, VMCOMM_NEWS_GONE);
	/* The sender is quicker than the worker. */
	ck_assert_uint_eq(fend_send(e, 10, 0), 10);
	ck_assert_uint_eq(e->tcp_again, 3000);
	fix_run(f);
	ck_assert(!vmcomm_conn_attached(&e->conn));
	fend_pending(e);
	ck_assert_uint_eq(e->tcp_again, 3000);
	fend_recv_all(e);
	ck_assert_uint_eq(e->got, 3000);
	ck_assert(!e->broken);
	ck_assert_uint_eq(f->vm[0].node.heap.used, 0);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Bytes in the ring, bytes on TCP behind them, and then it dies: no order can be kept. */
START_TEST(gone_after_exit)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = fend_open(f, 0, 1);

	fend_send(e, 1000, 0);
	fend_send(e, 1000, VMCOMM_TX_TCP);
	fend_send(r, 1000, 0);
	fend_recv_all(r->peer);
	fend_send(r, 1000, VMCOMM_TX_TCP);
	f->vm[1].deaf = true;
	fix_row(f, 1, VMCOMM_SLOT_GONE, 1);
	fix_tick(f);
	ck_assert(e->broken);
	ck_assert_uint_eq(e->conn.tx.pend_len, 0);
	ck_assert(!r->broken);
	ck_assert_uint_eq(r->conn.tx.pend_len, 0);
	fend_free(e);
	fend_free(r);
	fix_free(f);
}
END_TEST

/* It crashed and booted again: only its incarnation tells. */
START_TEST(rebooted)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 i;

	fend_send(e, 400, 0);
	fend_send(e->peer, 300, 0);
	f->vm[1].up = false; /* no word of goodbye */
	vmcomm_conn_close(&e->peer->conn);
	vmcomm_node_deinit(&f->vm[1].node);
	fend_recv_all(e);
	ck_assert(fend_same(e->peer));
	for (i = 0; i < 10; i++) {
		if (!fix_start(f, 1))
			break;
		fix_run(f);
	}
	ck_assert_uint_lt(i, 10);
	fix_run(f);
	ck_assert(!vmcomm_conn_attached(&e->conn));
	ck_assert(vmcomm_node_pair_up(&f->vm[0].node, 1));
	fend_free(e);
	e = fend_open(f, 1, 0);
	fend_send(e, 1000, 0);
	both(e);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* The daemon died in the middle of the peer's row: it may still hold on to the old memory. */
START_TEST(rebooted_without_daemon)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	struct vmcomm_abi_location *row = vmcomm_layout_location(&f->lay, f->mem, 0);
	u32 i;

	f->vm[1].up = false;
	vmcomm_conn_close(&e->peer->conn);
	vmcomm_node_deinit(&f->vm[1].node);
	row->seq |= 1;
	ck_assert_int_eq(fix_start(f, 1), -EAGAIN);
	ck_assert_uint_eq(fix_pair(f, 0, 1)->state, VMCOMM_PEER_UP);
	fix_row(f, 0, VMCOMM_SLOT_LIVE, f->generation);
	for (i = 0; i < 10 && fix_start(f, 1); i++)
		fix_run(f);
	ck_assert(f->vm[1].up);
	fix_run(f);
	ck_assert(vmcomm_node_pair_up(&f->vm[0].node, 1));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* It crashed between LEFT and its last final, and booted again: nobody waits for ever. */
START_TEST(rebooted_while_leaving)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 i;

	fend_send(e, 400, 0);
	leave_begin(f, 1);
	e->conn.tx.unsettled = true;
	fix_run(f);
	ck_assert_uint_eq(fix_pair(f, 0, 1)->state, VMCOMM_PEER_LEAVING);
	ck_assert(vmcomm_conn_attached(&e->conn));
	f->vm[1].up = false;
	vmcomm_node_deinit(&f->vm[1].node);
	e->peer->conn.pair = NULL;
	for (i = 0; i < 10; i++) {
		if (!fix_start(f, 1))
			break;
		fix_run(f);
	}
	ck_assert_uint_lt(i, 10);
	fix_run(f);
	ck_assert(!vmcomm_conn_attached(&e->conn));
	ck_assert(vmcomm_node_pair_up(&f->vm[0].node, 1));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Crashed while leaving; this time the host knows. */
START_TEST(died_while_leaving)
{
	static const u32 states[] = {VMCOMM_SLOT_GONE, VMCOMM_SLOT_LEFT, VMCOMM_SLOT_FREE};
	struct fix *f;
	struct fend *e;
	u32 i;

	for (i = 0; i < 3; i++) {
		f = fix_up(2);
		e = fend_open(f, 0, 1);
		fend_send(e, 400, 0);
		leave_begin(f, 1);
		e->conn.tx.unsettled = true;
		fix_run(f);
		ck_assert(vmcomm_conn_attached(&e->conn));
		f->vm[1].deaf = true;
		fix_row(f, 1, states[i], 1);
		fix_tick(f);
		ck_assert(!vmcomm_conn_attached(&e->conn));
		ck_assert(!e->broken);
		ck_assert_uint_eq(fix_pair(f, 0, 1)->state, VMCOMM_PEER_DOWN);
		fend_free(e);
		fix_free(f);
	}
}
END_TEST

/* The peer accepted and wrote, and the leaver had not looked yet. */
START_TEST(leave_before_accept_is_seen)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1);
	u32 died;

	fend_free(e);
	fix_free(f);
	for (died = 0; died < 2; died++) {
		f = fix_up(2);
		e = fend_pair(f, 0, 1);
		f->vm[0].deaf = true;
		ck_assert_int_eq(fend_offer(e, false), 0);
		vmcomm_conn_ready(&e->conn);
		ck_assert_int_eq(fend_accept(e->peer), 0);
		fend_send(e->peer, 100, 0);
		ck_assert_uint_eq(e->peer->by_ring, 100);
		ck_assert_ptr_null(e->conn.theirs);
		if (died) {
			f->vm[1].deaf = true;
			f->vm[0].deaf = false;
			f->vm[0].irq = false;
			fix_pair(f, 0, 1)->state = VMCOMM_PEER_DYING;
			fix_evict(f, 0, 1, true);
		} else {
			fix_leave_all(f, 0);
		}
		fend_recv_all(e);
		ck_assert(fend_same(e->peer));
		fend_free(e);
		fix_free(f);
	}
}
END_TEST

/* Shared memory is used for nothing new while leaving. */
START_TEST(no_offers_while_leaving)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1), *n = fend_pair(f, 1, 0);

	ck_assert_int_eq(fend_offer(n, false), 0);
	vmcomm_node_leave_begin(&f->vm[0].node);
	ck_assert(!vmcomm_node_pair_up(&f->vm[0].node, 1));
	ck_assert_int_eq(fend_offer(e, false), -ENOTCONN);
	ck_assert_int_eq(fend_accept(n->peer), -ENOTCONN);
	ck_assert_uint_eq(e->conn.reason, VMCOMM_REASON_NO_PAIR);
	fend_free(e);
	fend_free(n);
	fix_free(f);
}
END_TEST

/* Released with connections left: refused, nothing is freed under them. */
START_TEST(release_is_checked)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);

	f->keep_news = true;
	fend_send(e, 10, 0);
	ck_assert_int_eq(vmcomm_pair_released(&f->vm[0].node, 1), -EAGAIN);
	ck_assert(vmcomm_node_pair_up(&f->vm[0].node, 1));
	leave_begin(f, 1);
	fix_run(f);
	ck_assert_int_eq(vmcomm_pair_released(&f->vm[0].node, 1), -EAGAIN);
	ck_assert(fix_evict(f, 0, 1, false));
	/* The leaver may still read our ring. */
	ck_assert_int_eq(vmcomm_pair_released(&f->vm[0].node, 1), -EAGAIN);
	ck_assert(fix_evict(f, 1, 0, false));
	vmcomm_node_leave_done(&f->vm[1].node);
	ck_assert_int_eq(vmcomm_pair_released(&f->vm[0].node, 1), 0);
	ck_assert_uint_eq(f->vm[0].node.heap.used, 0);
	both(e);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Many rounds of leave and return, many connections, memory goes back to nothing. */
START_TEST(rounds)
{
	struct fix *f = fix_up(3);
	struct fend *e[60];
	u32 round, i;

	for (i = 0; i < 60; i++)
		e[i] = fend_open(f, i % 2, i % 2 ? 0 : 1 + i % 4 / 2);
	for (round = 0; round < 8; round++) {
		for (i = 0; i < 60; i++) {
			fend_send(e[i], (u32)random() % 20000, random() % 3 ? 0 : VMCOMM_TX_TCP);
			fend_recv(e[i]->peer, (u32)random() % 9000);
			fend_send(e[i]->peer, (u32)random() % 20000, 0);
			fend_recv(e[i], (u32)random() % 9000);
			if (random() % 2)
				vmcomm_conn_poll(&e[i]->conn);
		}
		fix_leave_all(f, 0);
		ck_assert(vmcomm_node_leave_answered(&f->vm[0].node));
		ck_assert_uint_eq(f->vm[0].node.pair[1]->conns, 0);
		fix_stop(f, 0);
		for (i = 0; i < 60; i++) {
			fend_send(e[i], (u32)random() % 2000, 0);
			fend_send(e[i]->peer, (u32)random() % 2000, 0);
		}
		ck_assert_int_eq(fix_start(f, 0), 0);
		fix_run(f);
		f->vm[0].adopt = f->vm[1].adopt = f->vm[2].adopt = true;
		for (i = 0; i < 60; i++) {
			vmcomm_conn_ready(&e[i]->conn);
			vmcomm_conn_ready(&e[i]->peer->conn);
			if (!vmcomm_conn_attached(&e[i]->conn))
				ck_assert_int_eq(fend_offer(e[i], true), 0);
		}
		fix_run(f);
		for (i = 0; i < 60; i++)
			ck_assert(vmcomm_conn_attached(&e[i]->peer->conn));
	}
	for (i = 0; i < 60; i++)
		both(e[i]);
	for (i = 0; i < 60; i++)
		fend_free(e[i]);
	fix_tick(f);
	fix_tick(f);
	/* But for the first chunk of CCBs of each pair. */
	for (i = 0; i < 3; i++)
		ck_assert_uint_le(f->vm[i].node.heap.used, 2);
	fix_leave_all(f, 0);
	fix_leave_all(f, 1);
	fix_leave_all(f, 2);
	for (i = 0; i < 3; i++)
		ck_assert_uint_eq(f->vm[i].node.pair[(i + 1) % 3]->ccb_used, 0);
	fix_free(f);
}
END_TEST

/* The device went without a word: all reads are ones. What was in rings nobody will ever know. */
START_TEST(device_lost)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = fend_open(f, 0, 1), *c = fend_open(f, 0, 1);
	struct fvm *vm = &f->vm[0];

	fend_send(e, 100, 0);		 /* not read by the peer */
	fend_send(r->peer, 100, 0);	 /* not read by us */
	fend_send(c->peer, 100, 0);
	fend_recv(c, 100);
	e->conn.tx.unsettled = true;
	memset(f->mem, 0xff, f->lay.size);
	vm->deaf = f->vm[1].deaf = true;
	ck_assert_int_eq(vmcomm_tx_settle(&e->conn, false), -EPROTO);
	ck_assert_int_eq(vmcomm_tx_settle(&e->conn, true), -EPROTO);
	ck_assert_uint_eq(e->conn.tx.pend_len, 0);
	/* Its peer gets a reset, not an end of file. */
	ck_assert(vmcomm_conn_close(&c->conn));
	vmcomm_node_leave_begin(&vm->node);
	vmcomm_node_leave_publish(&vm->node);
	ck_assert_int_eq(vmcomm_conn_evict(&r->conn, fend_copied_seq(r), false), -EPROTO);
	ck_assert_int_eq(vmcomm_conn_evict(&e->conn, fend_copied_seq(e), true), -EPROTO);
	ck_assert(!vmcomm_conn_attached(&r->conn) && !vmcomm_conn_attached(&e->conn));
	vmcomm_node_leave_done(&vm->node);
	ck_assert(vmcomm_node_leave_answered(&vm->node));
	fix_stop(f, 0);
	fix_stop(f, 1);
	fend_free(e);
	fend_free(r);
	fend_free(c);
	fix_free(f);
}
END_TEST

static struct fix *losing;

/* The device goes after the last look at the peer's words and before the bytes are copied. */
static bool lose_device(size_t n)
{
	memset(losing->mem, 0xff, losing->lay.size);
	losing->vm[0].deaf = losing->vm[1].deaf = true;
	fix_alloc = NULL;
	return true;
}

static bool no_memory(size_t n)
{
	return false;
}

static bool lose_device_then_memory(size_t n)
{
	lose_device(n);
	fix_alloc = no_memory;
	return true;
}

/*
 * Bytes that were taken out of a ring as the device went are nobody's, not even while the rest of the
 * eviction waits for memory.
 */
START_TEST(lost_while_drained)
{
	struct fix *f = losing = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 n;

	fend_send(e->peer, 100, 0);
	fend_send(e, 100, 0);
	e->conn.tx.unsettled = true;
	fix_alloc = lose_device_then_memory;
	ck_assert_int_ne(vmcomm_conn_evict(&e->conn, fend_copied_seq(e), false), 0);
	ck_assert_int_eq(vmcomm_rx_next(&e->conn, fend_copied_seq(e), fend_rcv_nxt(e), &n),
			 VMCOMM_NEXT_BROKEN);
	fix_alloc = NULL;
	ck_assert_int_ne(vmcomm_conn_evict(&e->conn, fend_copied_seq(e), false), -ENOMEM);
	ck_assert(!vmcomm_conn_attached(&e->conn));
	fix_stop(f, 0);
	fix_stop(f, 1);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Bytes that the peer did not take go onto TCP as they were, or not at all. */
START_TEST(lost_while_settled)
{
	struct fix *f = losing = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);

	fend_send(e, 100, 0);
	f->vm[0].deaf = true;
	ck_assert_int_eq(vmcomm_conn_evict(&e->peer->conn, fend_copied_seq(e->peer), false), 0);
	/* It has taken them all; let it say that it took none. */
	e->conn.theirs->final = 0;
	e->conn.tx.unsettled = true;
	fix_alloc = lose_device;
	ck_assert_int_eq(fend_next(e), VMCOMM_NEXT_BROKEN);
	ck_assert_ptr_null(fix_alloc);
	ck_assert_uint_eq(e->conn.tx.pend_len, 0);
	fix_stop(f, 0);
	fix_stop(f, 1);
	fend_free(e);
	fix_free(f);
}
END_TEST

UNIT_MAIN("leave", device_lost, lost_while_drained, lost_while_settled, both_read_everything, held_bytes_have_a_position, arrive_with_held_bytes, arrive_after_shortage,
	  set_back, moved_on_with_much_waiting, put_runs_against_left, put_inside_evict, settled_once, hostile_final, both_leave, peer_is_deaf,
	  answered_by_the_host, hello_only, gone, gone_after_exit, rebooted, rebooted_without_daemon,
	  rebooted_while_leaving,
	  died_while_leaving, leave_before_accept_is_seen, no_offers_while_leaving,
	  release_is_checked, rounds)
