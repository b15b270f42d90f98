// SPDX-License-Identifier: GPL-2.0-or-later
/* test-tx.c - the sending direction: enter, exit, resize, give back, wake (M5, M6, M16, M17) */
#include "fixture.h"

static u32 rings(struct fvm *vm, u32 peer)
{
	struct vmcomm_pair *pair = vm->node.pair[peer];
	u32 i, n = 0, per = 1u << (vm->node.lay.chunk_shift - VMCOMM_CCB_SHIFT);

	for (i = 0; i < pair->ccb_chunks * per; i++)
		n += vmcomm_ccb_at(pair, i)->ring_shift != 0;
	return n;
}

START_TEST(first_bytes_use_tcp)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1);

	ck_assert_uint_eq(fend_send(e, 10, 0), 10);
	ck_assert_int_eq(fend_offer(e, false), 0);
	ck_assert_uint_eq(fend_send(e, 10, 0), 10);
	ck_assert_int_eq(fend_accept(e->peer), 0);
	/* Not ready: still TCP, and the reason says so. */
	ck_assert_uint_eq(fend_send(e, 10, 0), 10);
	ck_assert_uint_eq(e->by_tcp, 30);
	ck_assert_uint_eq(e->conn.reason, VMCOMM_REASON_NEW);
	vmcomm_conn_ready(&e->peer->conn);
	ck_assert_uint_eq(fend_send(e, 10, 0), 10);
	ck_assert_uint_eq(e->by_ring, 10);
	ck_assert_uint_eq(e->conn.reason, VMCOMM_REASON_NONE);
	/* x_seq is TCP's position, whatever had been sent before. */
	ck_assert_uint_eq(e->conn.mine->x_seq, e->out.iss + 30);
	ck_assert_uint_eq(e->conn.mine->epoch, 1);
	fend_recv_all(e->peer);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Back to TCP needs nobody; into the ring again needs the peer's word. */
START_TEST(reentry_needs_acknowledgement)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 i;

	fend_send(e, 100, 0);
	ck_assert_uint_eq(e->by_ring, 100);
	fend_send(e, 50, VMCOMM_TX_TCP);
	ck_assert_uint_eq(e->conn.mine->p_pos, 100);
	ck_assert_uint_eq(e->conn.mine->epoch, 2);
	for (i = 0; i < 10; i++)
		fend_send(e, 50, 0);
	ck_assert_uint_eq(e->by_tcp, 550);
	/* Reading all of the ring is not yet following the exit. */
	ck_assert_uint_eq(fend_recv(e->peer, 100), 100);
	ck_assert_uint_eq(e->peer->conn.rx.epoch, 1);
	fend_send(e, 50, 0);
	ck_assert_uint_eq(e->by_tcp, 600);
	ck_assert_uint_eq(fend_recv(e->peer, 1), 1);
	fend_send(e, 50, 0);
	ck_assert_uint_eq(e->by_tcp, 600);
	ck_assert_uint_eq(e->by_ring, 150);
	ck_assert_uint_eq(e->conn.mine->x_seq, e->out.iss + 600);
	fend_recv_all(e->peer);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* The peer may acknowledge without anybody who reads. */
START_TEST(poll_acknowledges)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);

	fend_send(e, 100, 0);
	fend_recv_all(e->peer);
	vmcomm_conn_poll(&e->peer->conn);
	ck_assert_uint_eq(e->peer->conn.rx.epoch, 1);
	vmcomm_tx_exit(&e->conn, VMCOMM_REASON_URGENT);
	vmcomm_conn_poll(&e->peer->conn);
	ck_assert_uint_eq(e->peer->conn.rx.epoch, 2);
	fend_send(e, 100, 0);
	ck_assert_uint_eq(e->by_ring, 200);
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(unready_and_disabled)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);

	f->vm[0].node.enabled = 0;
	fend_send(e, 10, 0);
	ck_assert_uint_eq(e->by_tcp, 10);
	ck_assert_uint_eq(e->conn.reason, VMCOMM_REASON_DISABLED);
	f->vm[0].node.enabled = 1;
	fend_send(e, 10, 0);
	ck_assert_uint_eq(e->by_ring, 10);
	f->vm[0].node.enabled = 0;
	fend_send(e, 10, 0);
	ck_assert_uint_eq(e->by_tcp, 20);
	f->vm[0].node.enabled = 1;
	fend_recv_all(e->peer);
	vmcomm_conn_unready(&e->peer->conn);
	fend_send(e, 10, 0);
	ck_assert_uint_eq(e->by_tcp, 30);
	fend_recv_all(e->peer);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(full_ring_and_room)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 size = 1u << 14, wakes;

	f->vm[0].node.ring_shift_max = 14; /* it stays full */
	ck_assert(vmcomm_tx_writable(&e->conn));
	ck_assert_uint_eq(fend_send(e, 2 * size, 0), size);
	ck_assert(!vmcomm_tx_writable(&e->conn));
	ck_assert_uint_eq(vmcomm_tx_unread(&e->conn), size);
	ck_assert(!vmcomm_tx_arm(&e->conn, 1));
	fix_run(f);
	wakes = e->wakes;
	ck_assert_uint_eq(fend_recv(e->peer, 1), 1);
	fix_run(f);
	ck_assert_uint_eq(e->wakes, wakes + 1);
	ck_assert_uint_eq(fend_send(e, 100, 0), 1);
	/* An eighth free makes it writable; who asked for more is woken when that is there, exactly once. */
	ck_assert(!vmcomm_tx_arm(&e->conn, size / 3 + 1));
	wakes = e->wakes;
	fend_recv(e->peer, size / 8 - 1);
	ck_assert(!vmcomm_tx_writable(&e->conn));
	fend_recv(e->peer, 1);
	ck_assert(vmcomm_tx_writable(&e->conn));
	fend_recv(e->peer, size / 3 - size / 8);
	fix_run(f);
	ck_assert_uint_eq(e->wakes, wakes);
	fend_recv(e->peer, 1);
	fix_run(f);
	ck_assert_uint_eq(e->wakes, wakes + 1);
	ck_assert(vmcomm_tx_writable(&e->conn));
	ck_assert(vmcomm_tx_arm(&e->conn, 1));
	/* More than the ring is the ring. */
	ck_assert(!vmcomm_tx_arm(&e->conn, 10 * size));
	fend_recv_all(e->peer);
	ck_assert(vmcomm_tx_arm(&e->conn, 10 * size));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* What the peer's program takes, out of the ring or from TCP, shows that it reads. */
START_TEST(taken)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u64 before = vmcomm_tx_taken(&e->conn);

	fend_send(e, 100, 0);
	ck_assert_uint_eq(vmcomm_tx_taken(&e->conn), before);
	fend_recv(e->peer, 10);
	ck_assert_uint_eq(vmcomm_tx_taken(&e->conn), before + 10);
	vmcomm_store64(&e->peer->conn.mine->tcp_received, 5); /* the owner counts these */
	ck_assert_uint_eq(vmcomm_tx_taken(&e->conn), before + 15);
	fend_recv_all(e->peer);
	fend_free(e);
	e = fend_pair(f, 0, 1);
	ck_assert_uint_eq(vmcomm_tx_taken(&e->conn), 0);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A sender that waits for TCP asks whether the next bytes would enter a ring. */
START_TEST(enters)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1);

	ck_assert(!vmcomm_tx_enters(&e->conn));
	fend_free(e);
	e = fend_open(f, 0, 1);
	fend_send(e, 100, 0);
	ck_assert(!vmcomm_tx_enters(&e->conn)); /* it has */
	fend_send(e, 1, VMCOMM_TX_TCP);
	ck_assert(!vmcomm_tx_enters(&e->conn)); /* the peer has not followed */
	fend_recv_all(e->peer);
	ck_assert(vmcomm_tx_enters(&e->conn));
	f->vm[0].node.enabled = false;
	ck_assert(!vmcomm_tx_enters(&e->conn));
	f->vm[0].node.enabled = true;
	vmcomm_conn_unready(&e->peer->conn);
	ck_assert(!vmcomm_tx_enters(&e->conn));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* From leaving a ring until the peer has followed; then who waits for that is woken. */
START_TEST(detour)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 wakes;

	ck_assert(!vmcomm_tx_detour(&e->conn));
	fend_send(e, 100, 0);
	ck_assert(!vmcomm_tx_detour(&e->conn));
	fend_send(e, 50, VMCOMM_TX_TCP);
	ck_assert(vmcomm_tx_detour(&e->conn));
	/* Reading all of the ring is not following. */
	fend_recv(e->peer, 100);
	fix_run(f);
	ck_assert(vmcomm_tx_detour(&e->conn));
	wakes = e->wakes;
	fend_recv(e->peer, 1);
	fix_run(f);
	ck_assert_uint_eq(e->wakes, wakes + 1);
	ck_assert(!vmcomm_tx_detour(&e->conn));
	fend_recv_all(e->peer);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A peer that reads no further in the ring does not follow. */
START_TEST(detour_without_peer)
{
	u32 how;

	for (how = 0; how < 4; how++) {
		struct fix *f = fix_up(2);
		struct fend *e = fend_open(f, 0, 1);

		fend_send(e, 100, 0);
		fend_send(e, 50, VMCOMM_TX_TCP);
		ck_assert(vmcomm_tx_detour(&e->conn));
		if (how == 0)
			vmcomm_conn_close(&e->peer->conn);
		else if (how == 1)
			vmcomm_conn_evict(&e->peer->conn, fend_copied_seq(e->peer), false);
		else if (how == 2)
			vmcomm_store32(&fix_pair(f, 1, 0)->mine->state, VMCOMM_PAIR_LEFT);
		else
			f->vm[0].node.leaving = 1;
		ck_assert(!vmcomm_tx_detour(&e->conn));
		fend_free(e);
		fix_free(f);
	}
}
END_TEST

/* Doorbells of a stream whose reader does not sleep: none but the first. */
START_TEST(no_doorbell_without_sleeper)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 i, rx, tx;

	fend_send(e, 1, 0);
	fend_recv_all(e->peer);
	fix_run(f);
	rx = f->vm[1].doorbells;
	tx = f->vm[0].doorbells;
	for (i = 0; i < 1000; i++) {
		ck_assert_uint_eq(fend_send(e, 1000, 0), 1000);
		fend_recv_all(e->peer);
	}
	ck_assert_uint_eq(f->vm[1].doorbells, rx);
	ck_assert_uint_eq(f->vm[0].doorbells, tx);
	/* A sleeper costs one for each time that it sleeps. */
	for (i = 0; i < 100; i++) {
		ck_assert(!vmcomm_rx_arm(&e->peer->conn, fend_copied_seq(e->peer)));
		fend_send(e, 10, 0);
		fend_send(e, 10, 0);
		fend_send(e, 10, 0);
		ck_assert_uint_eq(f->vm[1].doorbells, rx + i + 1);
		fix_run(f);
		fend_recv_all(e->peer);
	}
	ck_assert_uint_eq(f->vm[0].doorbells, tx);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A sender that finds its ring full again and again gets a larger one, with the same machine. */
START_TEST(grows)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 i, tcp;

	for (i = 0; i < 100 && e->conn.tx.shift < 18; i++) {
		fend_send(e, 1u << 19, 0);
		fend_recv_all(e->peer);
	}
	ck_assert_uint_eq(e->conn.tx.shift, 18);
	/* In one step, as memory is plenty. */
	ck_assert_uint_eq(f->vm[0].node.stat[VMCOMM_STAT_RING_GROWN], 1);
	tcp = e->by_tcp;
	for (i = 0; i < 100; i++) {
		fend_send(e, 1u << 19, 0);
		fend_recv_all(e->peer);
	}
	ck_assert_uint_eq(e->by_tcp, tcp);
	ck_assert(fend_same(e));
	/* Idle: it leaves the ring, then the memory goes. */
	ck_assert(vmcomm_tx_idle(&e->conn));
	ck_assert(!fend_in_ring(e));
	ck_assert(!vmcomm_tx_idle(&e->conn));
	ck_assert_uint_eq(rings(&f->vm[0], 1), 1);
	vmcomm_conn_poll(&e->peer->conn);
	ck_assert(vmcomm_tx_idle(&e->conn));
	ck_assert_uint_eq(rings(&f->vm[0], 1), 0);
	ck_assert_uint_eq(e->conn.tx.want_shift, 14);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* No detour over TCP for a ring that will not be larger. */
START_TEST(grows_not_in_vain)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	struct vmcomm_node *node = &f->vm[0].node;
	u32 used, size = 1u << 14, i;

	fend_send(e, 1, 0);
	ck_assert_uint_eq(e->conn.tx.shift, 14);
	used = node->heap.used;
	node->heap.used = node->heap.chunks / 2 + 1;
	for (i = 0; i < 5; i++) {
		fend_send(e, 2 * size, 0);
		fend_recv_all(e->peer);
	}
	ck_assert_uint_eq(node->stat[VMCOMM_STAT_RING_GROWN], 0);
	ck_assert_uint_eq(e->by_tcp, 0);
	ck_assert(!vmcomm_tx_grows(&e->conn));
	node->heap.used = used;
	ck_assert(vmcomm_tx_grows(&e->conn));
	fend_send(e, 2 * size, 0);
	ck_assert_uint_eq(node->stat[VMCOMM_STAT_RING_GROWN], 1);
	fend_recv_all(e->peer);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* The first ring is made for the first write, unless memory is scarce. */
START_TEST(expects)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *e2 = fend_open(f, 0, 1), *e3 = fend_open(f, 0, 1);
	u32 used;

	vmcomm_tx_expect(&e->conn, 20000);
	fend_send(e, 20000, 0);
	ck_assert_uint_eq(e->conn.tx.shift, 17);
	/* It has one now. */
	vmcomm_tx_expect(&e->conn, 1u << 20);
	ck_assert_uint_eq(e->conn.tx.want_shift, 17);
	vmcomm_tx_expect(&e2->conn, 1u << 30);
	ck_assert_uint_eq(e2->conn.tx.want_shift, f->vm[0].node.ring_shift_max);
	used = f->vm[0].node.heap.used;
	f->vm[0].node.heap.used = f->vm[0].node.heap.chunks / 4;
	vmcomm_tx_expect(&e3->conn, 20000);
	ck_assert_uint_eq(e3->conn.tx.want_shift, 14);
	f->vm[0].node.heap.used = used;
	fend_free(e);
	fend_free(e2);
	fend_free(e3);
	fix_free(f);
}
END_TEST

/* A small ring after a large one: what the sender knew of the large one must not confuse it. */
START_TEST(shrinks)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 round;

	f->vm[0].node.ring_shift_max = 14;
	for (round = 0; round < 3; round++) {
		e->conn.tx.want_shift = 18;
		ck_assert_uint_eq(fend_send(e, 200000, 0), 200000);
		ck_assert_uint_eq(e->conn.tx.shift, 18);
		fend_recv_all(e->peer);
		ck_assert(vmcomm_tx_idle(&e->conn));
		vmcomm_conn_poll(&e->peer->conn);
		ck_assert(vmcomm_tx_idle(&e->conn));
		ck_assert_uint_eq(fend_send(e, 100000, 0), 1u << 14);
		ck_assert_uint_eq(e->conn.tx.shift, 14);
		ck_assert(!e->broken);
		fend_recv_all(e->peer);
		ck_assert(fend_same(e));
		vmcomm_tx_idle(&e->conn);
		vmcomm_conn_poll(&e->peer->conn);
		vmcomm_tx_idle(&e->conn);
	}
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(not_idle)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);

	ck_assert(!vmcomm_tx_idle(&e->conn));
	fend_send(e, 10, 0);
	ck_assert(!vmcomm_tx_idle(&e->conn));
	ck_assert(fend_in_ring(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* No memory: TCP with a reason, few attempts, and the ring as soon as there is some. */
START_TEST(heap_is_full)
{
	struct fix *f = fix_up(2);
	struct fvm *vm = &f->vm[0];
	struct fend *e = fend_open(f, 0, 1);
	u32 n = 0, i, off, chunk[FIX_CHUNKS];
	bool scrub;

	while (!vmcomm_heap_alloc(&vm->node.heap, 1, 16, &chunk[n], &off, &scrub))
		n++;
	fend_send(e, 100, 0);
	ck_assert_uint_eq(e->by_tcp, 100);
	ck_assert(e->conn.reason == VMCOMM_REASON_QUOTA ||
		  e->conn.reason == VMCOMM_REASON_NO_MEMORY);
	ck_assert_uint_gt(vm->node.reason[e->conn.reason], 0);
	while (n)
		vmcomm_heap_free(&vm->node.heap, chunk[--n], 0, 16);
	for (i = 0; i < 100 && !e->by_ring; i++)
		fend_send(e, 1, 0);
	ck_assert_uint_gt(e->by_ring, 0);
	fend_recv_all(e->peer);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A ring that could not grow once tries again later, though its sender never leaves it. */
START_TEST(grows_after_shortage)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 i;

	f->vm[0].node.heap.used = f->vm[0].node.heap.chunks;
	for (i = 0; i < 50; i++) {
		fend_send(e, 1u << 19, 0);
		fend_recv_all(e->peer);
	}
	ck_assert_uint_eq(e->conn.tx.shift, 12);
	f->vm[0].node.heap.used -= f->vm[0].node.heap.chunks;
	f->vm[0].node.heap.used += 2;
	for (i = 0; i < 500; i++) {
		fend_send(e, 1u << 19, 0);
		fend_recv_all(e->peer);
	}
	ck_assert_uint_gt(e->conn.tx.shift, 14);
	ck_assert(fend_same(e));
	f->vm[0].node.heap.used -= 2;
	/* Nor is a small one refused later as a large one was. */
	e->conn.tx.backoff = 60;
	ck_assert(vmcomm_tx_idle(&e->conn));
	vmcomm_conn_poll(&e->peer->conn);
	ck_assert(vmcomm_tx_idle(&e->conn));
	ck_assert(!e->conn.tx.ring);
	fend_send(e, 1, 0);
	ck_assert(fend_in_ring(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Nobody sees the bytes of another pair's rings in what a new ring brings along. */
START_TEST(new_ring_is_clean)
{
	struct fix *f = fix_up(3);
	struct fend *e = fend_open(f, 0, 1), *n = fend_open(f, 0, 2);
	struct vmcomm_ccb *c;
	u8 *ring, *chunk;
	void *mem;
	u32 i;

	fend_send(e, 1u << 14, 0);
	ring = e->conn.tx.ring;
	c = vmcomm_ccb_at(e->conn.pair, e->conn.idx);
	ck_assert_int_eq(vmcomm_region_map(&f->region, 0, c->ring_chunk, 1, &mem), 0);
	chunk = mem;
	fend_recv_all(e->peer);
	fend_free(e);
	fix_tick(f);
	fend_send(n, 1, 0);
	ck_assert_ptr_eq(n->conn.tx.ring, ring);
	for (i = 1; i < 1u << 16; i++)
		ck_assert_uint_eq(chunk[i], 0);
	fend_free(n);
	fix_free(f);
}
END_TEST

/* Words of the peer that cannot be: the sender ends the connection, without touching memory. */
START_TEST(hostile_tail)
{
	static const u64 bad[] = {11, 1ULL << 14, 1ULL << 40, 1ULL << 63, ~0ULL};
	struct fix *f = fix_up(2);
	struct fend *e;
	u32 i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		e = fend_open(f, 0, 1);
		fend_send(e, 10, 0);
		e->conn.theirs->tail = bad[i];
		/* Who polls or sleeps gets to know it, who writes is told. */
		ck_assert(vmcomm_tx_writable(&e->conn));
		ck_assert_uint_le(vmcomm_tx_unread(&e->conn), 1u << 22);
		fend_send(e, 1, 0);
		ck_assert(e->broken);
		ck_assert(vmcomm_tx_arm(&e->conn, 1));
		ck_assert_int_eq(vmcomm_tx_next(&e->conn, 0, 0, 0, 0), VMCOMM_NEXT_BROKEN);
		fend_free(e);
	}
	/* Back is as bad as forth. */
	e = fend_open(f, 0, 1);
	fend_send(e, 1000, 0);
	fend_recv_all(e->peer);
	vmcomm_tx_room(&e->conn);
	e->conn.theirs->tail = 999;
	fend_send(e, 10, 0);
	ck_assert(e->broken);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Grants follow the memory: none is left when nothing is in use, none is given twice. */
START_TEST(shares_are_balanced)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	struct fend *e;
	u32 round, i;

	f->strict_share = true;
	fix_start(f, 0);
	fix_start(f, 1);
	fix_run(f);
	for (round = 0; round < 3; round++) {
		e = fend_open(f, 0, 1);
		e->conn.tx.want_shift = 14 + 2 * round;
		for (i = 0; i < 100; i++) {
			fend_send(e, 1u << 18, 0);
			fend_recv_all(e->peer);
		}
		ck_assert(fend_same(e));
		ck_assert_uint_gt(f->vm[0].shares, 1);
		vmcomm_tx_idle(&e->conn);
		vmcomm_conn_poll(&e->peer->conn);
		vmcomm_tx_idle(&e->conn);
		/* The chunk of CCBs stays. */
		ck_assert_uint_eq(f->vm[0].shares, 1);
		fend_send(e, 100, 0);
		fend_free(e);
		fix_tick(f);
		ck_assert_uint_eq(f->vm[0].shares, 1);
		ck_assert_uint_gt(f->vm[1].unmaps, 0);
	}
	fix_leave_all(f, 0);
	ck_assert_uint_eq(f->vm[1].shares, 0);
	/* Each chunk of the peer's was given back as often as it was mapped. */
	ck_assert_int_eq(f->vm[0].maps, 0);
	ck_assert_int_eq(f->vm[1].maps, 0);
	fix_free(f);
}
END_TEST

START_TEST(share_fails)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	struct fend *e;
	u32 i;

	f->strict_share = true;
	fix_start(f, 0);
	fix_start(f, 1);
	fix_run(f);
	f->vm[0].fail_share = -EAGAIN;
	e = fend_pair(f, 0, 1);
	ck_assert_int_eq(fend_offer(e, false), -EAGAIN);
	ck_assert(!vmcomm_conn_attached(&e->conn));
	ck_assert_uint_eq(f->vm[0].node.heap.used, 0);
	fend_free(e);
	f->vm[0].fail_share = 0;
	e = fend_open(f, 0, 1);
	f->vm[0].fail_share = -EAGAIN;
	fend_send(e, 10, 0);
	ck_assert_uint_eq(e->by_tcp, 10);
	ck_assert_uint_eq(e->conn.reason, VMCOMM_REASON_NOT_MAPPED);
	ck_assert_uint_eq(f->vm[0].node.heap.used, 1);
	f->vm[0].fail_share = 0;
	for (i = 0; i < 100; i++)
		fend_send(e, 1, 0);
	ck_assert_uint_gt(e->by_ring, 0);
	fend_recv_all(e->peer);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Lockless calls while the connection has no CCB. */
START_TEST(detached)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1);

	ck_assert(vmcomm_tx_arm(&e->conn, 1));
	ck_assert(vmcomm_tx_writable(&e->conn));
	ck_assert_uint_eq(vmcomm_tx_unread(&e->conn), 0);
	ck_assert(!vmcomm_tx_idle(&e->conn));
	ck_assert(!vmcomm_tx_in_ring(&e->conn));
	vmcomm_tx_exit(&e->conn, VMCOMM_REASON_URGENT);
	vmcomm_tx_fin(&e->conn);
	vmcomm_conn_ready(&e->conn);
	vmcomm_conn_unready(&e->conn);
	vmcomm_conn_poll(&e->conn);
	ck_assert(!vmcomm_rx_arm(&e->conn, 0));
	ck_assert(!vmcomm_rx_arm_edge(&e->conn));
	ck_assert_uint_eq(vmcomm_rx_unread(&e->conn), 0);
	ck_assert(vmcomm_conn_peer_closed(&e->conn));
	ck_assert(!vmcomm_conn_close(&e->conn));
	ck_assert_int_eq(vmcomm_conn_evict(&e->conn, 0, true), 0);
	ck_assert_int_eq(vmcomm_tx_next(&e->conn, 0, 0, 0, 0), VMCOMM_NEXT_TCP);
	fend_free(e);
	fix_free(f);
}
END_TEST

UNIT_MAIN("tx", first_bytes_use_tcp, reentry_needs_acknowledgement, poll_acknowledges,
	  unready_and_disabled, full_ring_and_room, taken, enters, detour, detour_without_peer,
	  no_doorbell_without_sleeper, grows, grows_not_in_vain, expects, shrinks,
	  not_idle, heap_is_full, grows_after_shortage, new_ring_is_clean, hostile_tail,
	  shares_are_balanced, share_fails, detached)
