// SPDX-License-Identifier: GPL-2.0-or-later
/* test-event.c - queues, doorbells that are spared, overflow (M9, M13, M26) */
#include "fixture.h"

static void notify(struct fix *f, u32 from, u32 to, u64 ev, bool ring)
{
	vmcomm_pair_notify(fix_pair(f, from, to), ev, ring);
}

static u64 look(struct fend *e)
{
	return VMCOMM_EVENT(VMCOMM_EVENT_CONN, e->conn.idx, 0);
}

START_TEST(encoding)
{
	u64 ev = VMCOMM_EVENT(VMCOMM_EVENT_ACCEPT, 0xffffffff, 0xfedcba98);

	ck_assert_uint_eq(VMCOMM_EVENT_KIND(ev), VMCOMM_EVENT_ACCEPT);
	ck_assert_uint_eq(VMCOMM_EVENT_IDX(ev), 0xffffff);
	ck_assert_uint_eq(VMCOMM_EVENT_ARG(ev), 0xfedcba98);
}
END_TEST

START_TEST(passed)
{
	u32 at, from, to;

	/* All of a small circle, also around the end. */
	for (from = 0xfffffff8; from != 8; from++) {
		for (to = from; to != from + 8; to++) {
			for (at = from - 8; at != to + 8; at++) {
				bool want = (u32)(at - from) < (u32)(to - from);

				ck_assert_int_eq(vmcomm_passed32(at, from, to), want);
				ck_assert_int_eq(vmcomm_passed64((u64)(s32)at, (u64)(s32)from,
								 (u64)(s32)to), want);
			}
		}
	}
	ck_assert(!vmcomm_passed64(~0ULL, 0, 1ULL << 40));
}
END_TEST

/* One doorbell for as many events as come before the other one looks. */
START_TEST(one_doorbell)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 i, before, round;

	fix_run(f);
	for (round = 0; round < 10; round++) {
		before = f->vm[1].doorbells;
		for (i = 0; i < 100; i++)
			notify(f, 0, 1, look(e->peer), true);
		ck_assert_uint_eq(f->vm[1].doorbells, before + 1);
		e->peer->wakes = 0;
		fix_run(f);
		ck_assert_uint_eq(e->peer->wakes, 100);
		ck_assert_uint_eq(f->vm[1].doorbells, before + 1);
	}
	fend_free(e);
	fix_free(f);
}
END_TEST

/* What need not hurry does not ring, and comes along with what does. */
START_TEST(quiet_events)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 before;

	fix_run(f);
	before = f->vm[1].doorbells;
	e->peer->wakes = 0;
	notify(f, 0, 1, look(e->peer), false);
	notify(f, 0, 1, look(e->peer), false);
	ck_assert_uint_eq(f->vm[1].doorbells, before);
	notify(f, 0, 1, look(e->peer), true);
	ck_assert_uint_eq(f->vm[1].doorbells, before + 1);
	fix_run(f);
	ck_assert_uint_eq(e->peer->wakes, 3);
	/* Alone they are found by the tick. */
	notify(f, 0, 1, look(e->peer), false);
	ck_assert_uint_eq(f->vm[1].doorbells, before + 1);
	fix_tick(f);
	ck_assert_uint_eq(e->peer->wakes, 4);
	/* That one was looked at without a doorbell: the next one rings. */
	notify(f, 0, 1, look(e->peer), true);
	ck_assert_uint_eq(f->vm[1].doorbells, before + 2);
	fix_run(f);
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(positions_wrap)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	struct vmcomm_pair *tx = fix_pair(f, 0, 1), *rx = fix_pair(f, 1, 0);
	u32 start = 0xffffff80, i, n, before, sum = 0;

	fix_run(f);
	tx->ev_head = tx->ev_rung = rx->ev_tail = start;
	tx->mine->ev_head = rx->mine->ev_tail = rx->mine->ev_wake_at = start;
	e->peer->wakes = 0;
	for (i = 0; i < 100; i++) {
		before = f->vm[1].doorbells;
		for (n = 0; n < 1 + i % 9; n++)
			notify(f, 0, 1, look(e->peer), true);
		sum += n;
		ck_assert_uint_eq(f->vm[1].doorbells, before + 1);
		fix_run(f);
		ck_assert_uint_eq(e->peer->wakes, sum);
	}
	ck_assert_uint_lt(tx->ev_head, 0x1000);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* More events than the queue has room for: everybody is looked at. */
START_TEST(overflow)
{
	struct fix *f = fix_up(2);
	struct fend *e[20];
	u32 i;

	for (i = 0; i < 20; i++)
		e[i] = fend_open(f, 0, 1);
	fix_run(f);
	f->vm[1].deaf = true;
	for (i = 0; i < VMCOMM_EVENTS; i++)
		notify(f, 0, 1, look(e[0]->peer), true);
	ck_assert_uint_eq(f->vm[0].node.stat[VMCOMM_STAT_EVENT_OVERFLOWS], 0);
	for (i = 1; i < 20; i++) {
		e[i]->peer->wakes = 0;
		notify(f, 0, 1, look(e[i]->peer), true);
	}
	ck_assert_uint_eq(f->vm[0].node.stat[VMCOMM_STAT_EVENT_OVERFLOWS], 19);
	f->vm[1].deaf = false;
	fix_run(f);
	for (i = 1; i < 20; i++)
		ck_assert_uint_ge(e[i]->peer->wakes, 1);
	for (i = 0; i < 20; i++)
		fend_free(e[i]);
	fix_free(f);
}
END_TEST

/* An accept, an offer and a close that got lost in an overflow. */
START_TEST(overflow_finds_all_kinds)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *n = fend_pair(f, 1, 0), *o = fend_pair(f, 0, 1);
	struct fend *z = fend_open(f, 0, 1);
	u32 i;

	fix_run(f);
	fend_send(z, 1000, 0);
	fix_run(f);
	f->vm[1].deaf = true;
	f->vm[1].adopt = true;
	for (i = 0; i < VMCOMM_EVENTS; i++)
		notify(f, 0, 1, look(e->peer), true);
	ck_assert_int_eq(fend_offer(n, false), 0);
	ck_assert_int_eq(fend_accept(n->peer), 0);
	ck_assert_int_eq(fend_offer(o, true), 0);
	vmcomm_conn_close(&z->conn);
	ck_assert_uint_ge(f->vm[0].node.stat[VMCOMM_STAT_EVENT_OVERFLOWS], 3);
	f->vm[1].deaf = false;
	fix_run(f);
	ck_assert_ptr_nonnull(n->conn.theirs);
	ck_assert(vmcomm_conn_attached(&o->peer->conn));
	fend_recv_all(z->peer);
	ck_assert(fend_same(z));
	fend_free(z);
	fend_free(o);
	fend_free(n);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* After a scan began, another CPU must not believe that its accept was looked at. */
static struct fend *race_end;
static enum vmcomm_next race_next;
static u32 race_n;
static void (*race_offered)(struct vmcomm_node *node, u32 slot, u32 idx);

static void race_look(struct vmcomm_node *node, u32 slot, u32 idx)
{
	if (race_end && !race_end->conn.theirs)
		race_next = vmcomm_rx_next(&race_end->conn, fend_copied_seq(race_end),
					   fend_rcv_nxt(race_end), &race_n);
}

START_TEST(scan_takes_accepts_first)
{
	struct fix *f = fix_up(2);
	struct fend *e, *o;
	struct vmcomm_conn_ops ops = *f->vm[0].node.conn_ops;
	u32 i;

	race_offered = ops.offered;
	ops.offered = race_look;
	f->vm[0].node.conn_ops = &ops;
	o = fend_pair(f, 1, 0);
	e = fend_pair(f, 0, 1);
	ck_assert_int_eq(fend_offer(o, false), 0);
	ck_assert_int_eq(fend_offer(e, false), 0);
	f->vm[0].deaf = true;
	for (i = 0; i < VMCOMM_EVENTS; i++)
		notify(f, 1, 0, VMCOMM_EVENT(VMCOMM_EVENT_PAIR, 0, 0), true);
	ck_assert_int_eq(fend_accept(e->peer), 0);
	vmcomm_conn_ready(&e->conn);
	/* Ring, then TCP: the bytes on TCP come second. */
	ck_assert_uint_eq(fend_send(e->peer, 10, 0), 10);
	ck_assert_uint_eq(fend_send(e->peer, 10, VMCOMM_TX_TCP), 10);
	race_end = e;
	race_next = VMCOMM_NEXT_WAIT;
	f->vm[0].deaf = false;
	fix_run(f);
	/* In the middle of the scan nobody may read these ten bytes from TCP. */
	ck_assert(race_next != VMCOMM_NEXT_TCP || !race_n);
	fend_recv_all(e);
	ck_assert(fend_same(e->peer));
	fend_free(o);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A peer whose ev_tail is nonsense costs us doorbells and nothing else. */
START_TEST(hostile_consumer)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	static const u32 bad[] = {1, 0x100, 0x7fffffff, 0x80000000, 0xffffffff};
	u32 i, k;

	fix_run(f);
	for (i = 0; i < 5; i++) {
		fix_pair(f, 0, 1)->theirs->ev_tail = fix_pair(f, 0, 1)->ev_head + bad[i];
		for (k = 0; k < 10; k++)
			notify(f, 0, 1, look(e->peer), true);
	}
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A peer whose ev_head jumps: bounded work, and honest events are seen again afterwards. */
START_TEST(hostile_producer)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	struct vmcomm_pair *rx = fix_pair(f, 1, 0);
	u32 i;

	fix_run(f);
	for (i = 0; i < 1000; i++) {
		rx->theirs->ev_head = (u32)random();
		rx->theirs->ev_overflow = (u32)random();
		rx->theirs->ev[random() % VMCOMM_EVENTS] =
			(u64)random() << 33 ^ (u64)random() << 8 ^ (u64)random();
		vmcomm_node_event(&f->vm[1].node);
	}
	ck_assert_uint_gt(f->vm[1].node.stat[VMCOMM_STAT_PEER_ERRORS], 0);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A producer that always has more: one call ends, and says that there is more. */
static struct vmcomm_pair *flood_pair;
static u64 flood_calls;

static bool flood_hold(struct vmcomm_conn *conn)
{
	flood_calls++;
	flood_pair->theirs->ev_head++;
	flood_pair->theirs->ev_overflow++;
	ck_assert_uint_lt(flood_calls, 1000000);
	return false;
}

START_TEST(flood_is_bounded)
{
	struct fix *f = fix_up(2);
	struct vmcomm_conn_ops ops = *f->vm[1].node.conn_ops;
	struct fend *e[200];
	u32 i;

	for (i = 0; i < 200; i++)
		e[i] = fend_open(f, 0, 1);
	fix_run(f);
	ops.hold = flood_hold;
	f->vm[1].node.conn_ops = &ops;
	flood_pair = fix_pair(f, 1, 0);
	for (i = 0; i < VMCOMM_EVENTS; i++)
		flood_pair->theirs->ev[i] = look(e[0]->peer);
	flood_pair->theirs->ev_head++;
	ck_assert(vmcomm_node_event(&f->vm[1].node));
	/* Not more than a queue and a look at everybody. */
	ck_assert_uint_le(flood_calls, 2 * VMCOMM_EVENTS + 200);
	for (i = 0; i < 200; i++)
		fend_free(e[i]);
	fix_free(f);
}
END_TEST

/* Events that are lost while a scan runs are another scan's. */
static struct fend *again_end;

static bool again_hold(struct vmcomm_conn *conn)
{
	struct fend *e = again_end;
	u32 i;

	again_end = NULL;
	if (!e)
		return false;
	/* Its table of blocks was looked at already, its event does not fit. */
	for (i = 0; i < VMCOMM_EVENTS; i++)
		notify(e->vm->fix, 1, 0, VMCOMM_EVENT(VMCOMM_EVENT_PAIR, 0, 0), true);
	ck_assert_int_eq(fend_accept(e->peer), 0);
	return false;
}

/* The guest tells by node->found whether doorbells were of use. */
START_TEST(what_is_of_use)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u64 before;

	before = f->vm[0].node.found;
	fix_run(f);
	vmcomm_node_event(&f->vm[0].node); /* accepts do not ring */
	ck_assert_uint_eq(f->vm[0].node.found, before + 1);

	before = f->vm[1].node.found;
	notify(f, 0, 1, VMCOMM_EVENT(VMCOMM_EVENT_CONN, e->peer->conn.idx + 1, 0), true);
	notify(f, 0, 1, VMCOMM_EVENT(VMCOMM_EVENT_CONN, 0xffffff, 0), true);
	notify(f, 0, 1, VMCOMM_EVENT(VMCOMM_EVENT_ACCEPT, 0, 0), true);
	notify(f, 0, 1, VMCOMM_EVENT(VMCOMM_EVENT_OFFER, 0, 0), true);
	notify(f, 0, 1, VMCOMM_EVENT(VMCOMM_EVENT_PAIR, 0, 0), true);
	notify(f, 0, 1, VMCOMM_EVENT(77, 0, 0), true);
	fix_run(f);
	ck_assert_uint_eq(f->vm[1].node.found, before);

	notify(f, 0, 1, look(e->peer), true);
	fix_run(f);
	ck_assert_uint_eq(f->vm[1].node.found, before + 1);
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(overflow_during_scan)
{
	struct fix *f = fix_up(2);
	struct vmcomm_conn_ops ops = *f->vm[0].node.conn_ops;
	struct fend *e = fend_open(f, 0, 1), *n = fend_pair(f, 0, 1);
	u32 i;

	fix_run(f);
	ck_assert_int_eq(fend_offer(n, false), 0);
	f->vm[0].deaf = true;
	for (i = 0; i <= VMCOMM_EVENTS; i++)
		notify(f, 1, 0, look(e), true);
	ops.hold = again_hold;
	f->vm[0].node.conn_ops = &ops;
	again_end = n;
	f->vm[0].deaf = false;
	fix_run(f);
	ck_assert_ptr_nonnull(n->conn.theirs);
	fend_free(n);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* An end that is going away is left alone. */
START_TEST(hold_refuses)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);

	fix_run(f);
	e->peer->wakes = 0;
	e->peer->going = true;
	notify(f, 0, 1, look(e->peer), true);
	fix_run(f);
	fix_tick(f);
	ck_assert_uint_eq(e->peer->wakes, 0);
	fend_free(e);
	fix_free(f);
}
END_TEST

UNIT_MAIN("event", encoding, passed, one_doorbell, quiet_events, positions_wrap, overflow,
	  overflow_finds_all_kinds, scan_takes_accepts_first, hostile_consumer, hostile_producer,
	  flood_is_bounded, what_is_of_use, overflow_during_scan, hold_refuses)
