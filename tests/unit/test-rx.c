// SPDX-License-Identifier: GPL-2.0-or-later
/* test-rx.c - receiving: caps on TCP, entry, exit, FIN, nonsense (M7, M16, M17, M26) */
#include "fixture.h"

static enum vmcomm_next next(struct fend *e, u32 *n)
{
	return vmcomm_rx_next(&e->conn, fend_copied_seq(e), fend_rcv_nxt(e), n);
}

/* TCP is read up to x_seq once there is one, else up to what had arrived. */
START_TEST(reads_are_capped)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = e->peer;
	u32 n;

	f->slow_tcp = true;
	fend_send(e, 300, VMCOMM_TX_TCP);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_TCP);
	ck_assert_uint_eq(n, 0);
	fend_arrive(e, 100);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_TCP);
	ck_assert_uint_eq(n, 100);
	fend_send(e, 50, 0); /* in the ring, at 300 */
	ck_assert_uint_eq(e->by_ring, 50);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_TCP);
	ck_assert_uint_eq(n, 100);
	fend_arrive(e, 200);
	/* Back on TCP before anybody read: these 40 come after the ring. */
	fend_send(e, 40, VMCOMM_TX_TCP);
	fend_arrive(e, 40);
	ck_assert_uint_eq(fend_rcv_nxt(r) - fend_copied_seq(r), 340);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_TCP);
	ck_assert_uint_eq(n, 300);
	/* The snapshot of rcv_nxt may be an old one. */
	ck_assert_int_eq(vmcomm_rx_next(&r->conn, fend_copied_seq(r), fend_copied_seq(r) + 7, &n),
			 VMCOMM_NEXT_TCP);
	ck_assert_uint_eq(n, 7);
	fend_recv(r, 299);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_TCP);
	ck_assert_uint_eq(n, 1);
	ck_assert_uint_eq(vmcomm_rx_readable(&r->conn, fend_copied_seq(r)), 0);
	fend_recv(r, 1);
	ck_assert_uint_eq(vmcomm_rx_readable(&r->conn, fend_copied_seq(r)), 50);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_RING);
	ck_assert_uint_eq(n, 50);
	fend_recv(r, 49);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_RING);
	ck_assert_uint_eq(n, 1);
	fend_recv_all(r);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* After an exit the bound is what was known before it: the next entry cannot be passed. */
START_TEST(old_snapshot_after_exit)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = e->peer;
	u32 n, copied, old;

	fend_send(e, 10, 0);
	fend_recv_all(r);
	copied = fend_copied_seq(r);
	old = fend_rcv_nxt(r);
	fend_send(e, 20, VMCOMM_TX_TCP);
	ck_assert_int_eq(vmcomm_rx_next(&r->conn, copied, old, &n), VMCOMM_NEXT_TCP);
	ck_assert_uint_eq(n, 0);
	/* It was followed: the sender enters again at 20. */
	fend_send(e, 5, 0);
	ck_assert_uint_eq(e->by_ring, 15);
	fend_recv_all(r);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Not yet resolved: the accept is in the queue, its bytes come before those on TCP. */
START_TEST(accept_is_found_before_tcp)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1), *s = e->peer;

	f->vm[0].deaf = true;
	ck_assert_int_eq(fend_offer(e, false), 0);
	vmcomm_conn_ready(&e->conn);
	ck_assert_int_eq(fend_accept(s), 0);
	fend_send(s, 100, 0);
	fend_send(s, 100, VMCOMM_TX_TCP);
	ck_assert_uint_eq(s->by_ring, 100);
	fend_recv_all(e);
	ck_assert(fend_same(s));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* The same for one who only looks. */
START_TEST(plan_finds_accept)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1), *s = e->peer;
	struct vmcomm_rx_plan plan;

	f->vm[0].deaf = true;
	ck_assert_int_eq(fend_offer(e, false), 0);
	vmcomm_conn_ready(&e->conn);
	ck_assert_int_eq(fend_accept(s), 0);
	fend_send(s, 100, 0);
	fend_send(s, 70, VMCOMM_TX_TCP);
	vmcomm_rx_plan(&e->conn, fend_copied_seq(e), fend_rcv_nxt(e), &plan);
	ck_assert_uint_eq(plan.before, 0);
	ck_assert_uint_eq(plan.outside, 100);
	ck_assert_uint_eq(plan.after, 70);
	fend_recv_all(e);
	ck_assert(fend_same(s));
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(plan_of_all)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = e->peer;
	struct vmcomm_rx_plan plan;
	u32 len;

	fend_send(e, 30, VMCOMM_TX_TCP);
	fend_send(e, 40, 0);
	fend_send(e, 50, VMCOMM_TX_TCP);
	vmcomm_rx_plan(&r->conn, fend_copied_seq(r), fend_rcv_nxt(r), &plan);
	ck_assert_uint_eq(plan.before, 30);
	ck_assert_uint_eq(plan.outside, 40);
	ck_assert_uint_eq(plan.after, 50);
	ck_assert_uint_eq(r->conn.rx.epoch, 0);
	vmcomm_rx_window(&r->conn, 0, &len);
	ck_assert_uint_eq(len, 40);
	fend_recv(r, 35);
	vmcomm_rx_plan(&r->conn, fend_copied_seq(r), fend_rcv_nxt(r), &plan);
	ck_assert_uint_eq(plan.before, 0);
	ck_assert_uint_eq(plan.outside, 35);
	ck_assert_uint_eq(plan.after, 50);
	fix_leave_all(f, 0);
	fend_send(e, 7, 0);
	vmcomm_rx_plan(&r->conn, fend_copied_seq(r), fend_rcv_nxt(r), &plan);
	ck_assert_uint_eq(plan.before, 0);
	ck_assert_uint_eq(plan.outside, 35);
	ck_assert_uint_eq(plan.after, 57);
	fend_recv_all(r);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* FIN stands at x_seq: one more than there are bytes, and no error. */
START_TEST(fin_at_x_seq)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = e->peer;
	u32 n;

	fend_send(e, 10, VMCOMM_TX_TCP);
	fend_send(e, 20, 0);
	e->out.fin = e->out.fin_arrived = true;
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_TCP);
	ck_assert_uint_eq(n, 10);
	fend_recv(r, 10);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_RING);
	fend_recv_all(r);
	ck_assert(fend_same(e));
	ck_assert(!r->broken);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_WAIT);
	/* The sender's process is gone; what it wrote before was all there. */
	vmcomm_conn_close(&e->conn);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_WAIT);
	fend_free(e);

	/* Exit, bytes, FIN: all on TCP. */
	e = fend_open(f, 0, 1);
	r = e->peer;
	fend_send(e, 20, 0);
	fend_send(e, 10, VMCOMM_TX_TCP);
	e->out.fin = e->out.fin_arrived = true;
	fend_recv(r, 20);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_TCP);
	ck_assert_uint_eq(n, 11);
	fend_recv_all(r);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A byte of data beyond x_seq while the sender is in its ring: a peer that was set back. */
START_TEST(set_back)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = e->peer;
	u32 n;

	fend_send(e, 10, VMCOMM_TX_TCP);
	fend_send(e, 20, 0);
	e->conn.mine->x_seq -= 2;
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_BROKEN);
	ck_assert_uint_eq(n, 0);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_BROKEN);
	fend_free(e);

	e = fend_open(f, 0, 1);
	r = e->peer;
	fend_send(e, 10, VMCOMM_TX_TCP);
	fend_recv(r, 5);
	fend_send(e, 20, 0);
	e->conn.mine->epoch = 2;
	e->conn.mine->x_seq = fend_copied_seq(r) - 1;
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_BROKEN);
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(windows)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = e->peer;
	u32 size = 1u << 14, n, len, i;
	const u8 *p, *q;

	/* Over the end of the ring: two pieces. */
	fend_send(e, size - 100, 0);
	fend_recv_all(r);
	fend_send(e, 250, 0);
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_RING);
	ck_assert_uint_eq(n, 250);
	p = vmcomm_rx_window(&r->conn, 0, &len);
	ck_assert_uint_eq(len, 100);
	q = vmcomm_rx_window(&r->conn, 100, &len);
	ck_assert_uint_eq(len, 150);
	ck_assert_ptr_eq(q + size - 100, p);
	for (i = 0; i < 250; i++)
		vmcomm_rx_window(&r->conn, i, &len);
	vmcomm_rx_window(&r->conn, 250, &len);
	ck_assert_uint_eq(len, 0);
	vmcomm_rx_window(&r->conn, ~0u, &len);
	ck_assert_uint_eq(len, 0);
	fend_recv_all(r);
	ck_assert(fend_same(e));
	ck_assert_ptr_nonnull(vmcomm_rx_window(&e->conn, 0, &len) ? NULL : "no ring");
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Who sleeps is woken by the first byte, by each for edge triggers, and by no other. */
START_TEST(arming)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = e->peer;
	u32 wakes;

	fix_run(f);
	wakes = r->wakes;
	ck_assert(!vmcomm_rx_arm(&r->conn, fend_copied_seq(r)));
	fend_send(e, 1, 0);
	fix_run(f);
	ck_assert_uint_eq(r->wakes, wakes + 1);
	fend_send(e, 1, 0);
	fix_run(f);
	ck_assert_uint_eq(r->wakes, wakes + 1);
	ck_assert(vmcomm_rx_arm(&r->conn, fend_copied_seq(r)));
	/* Unread bytes, and the next one is heard of all the same. */
	ck_assert(!vmcomm_rx_arm_edge(&r->conn));
	fend_send(e, 1, 0);
	fix_run(f);
	ck_assert_uint_eq(r->wakes, wakes + 2);
	fend_recv_all(r);
	/* The sender has nothing to hear of all this. */
	ck_assert(!vmcomm_rx_fin(&r->conn));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A wake-up for bytes that came while the ring waits behind TCP is not lost. */
START_TEST(armed_behind_tcp)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = e->peer;

	f->slow_tcp = true;
	fend_send(e, 10, VMCOMM_TX_TCP);
	ck_assert(!vmcomm_rx_arm(&r->conn, fend_copied_seq(r)));
	fend_send(e, 10, 0);
	fix_run(f);
	/* Bytes in the ring, not readable yet: TCP will wake the reader. */
	ck_assert(!vmcomm_rx_arm(&r->conn, fend_copied_seq(r)));
	ck_assert_uint_eq(vmcomm_rx_unread(&r->conn), 10);
	fend_arrive(e, 10);
	fend_recv(r, 10);
	ck_assert(vmcomm_rx_arm(&r->conn, fend_copied_seq(r)));
	fend_recv_all(r);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Each word of the sender's with values that hurt. */
START_TEST(hostile_words)
{
	static const u64 bad[] = {0, 1, 2, 3, 4, 11, 12, 13, 14, 15, 16, 22, 23, 31, 32, 63, 64,
				  4095, 4096, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff,
				  1ULL << 32, 1ULL << 62, 1ULL << 63, ~0ULL};
	static const u8 word[] = {
		offsetof(struct vmcomm_abi_ccb, gen), offsetof(struct vmcomm_abi_ccb, head),
		offsetof(struct vmcomm_abi_ccb, p_pos), offsetof(struct vmcomm_abi_ccb, epoch),
		offsetof(struct vmcomm_abi_ccb, x_seq), offsetof(struct vmcomm_abi_ccb, ring_chunk),
		offsetof(struct vmcomm_abi_ccb, ring_off),
		offsetof(struct vmcomm_abi_ccb, ring_shift)};
	struct fix *f = fix_up(2);
	struct fend *e, *r;
	u32 w, i, when, n, len, k;

	for (w = 0; w < sizeof(word); w++) {
		for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			for (when = 0; when < 3; when++) {
				e = fend_open(f, 0, 1);
				r = e->peer;
				fend_send(e, 100, 0);
				if (when)
					fend_recv(r, 10);
				if (when == 2)
					fend_send(e, 10, VMCOMM_TX_TCP);
				memcpy((u8 *)e->conn.mine + word[w], &bad[i],
				       word[w] == offsetof(struct vmcomm_abi_ccb, head) ||
				       word[w] == offsetof(struct vmcomm_abi_ccb, p_pos) ? 8 : 4);
				for (k = 0; k < 20; k++) {
					u32 sum = 0;
					const u8 *p;

					vmcomm_rx_readable(&r->conn, fend_copied_seq(r));
					vmcomm_rx_unread(&r->conn);
					vmcomm_rx_arm(&r->conn, fend_copied_seq(r));
					vmcomm_conn_poll(&r->conn);
					if (next(r, &n) != VMCOMM_NEXT_RING)
						break;
					p = vmcomm_rx_window(&r->conn, 0, &len);
					while (len)
						sum += p[--len];
					ck_assert_uint_ne(sum, ~0u);
					vmcomm_rx_consume(&r->conn, 1);
				}
				vmcomm_conn_evict(&r->conn, fend_copied_seq(r), i & 1);
				fend_free(e);
			}
		}
	}
	fix_free(f);
}
END_TEST

/* Where the reader must not go, though it is inside of the region. */
/*
 * The peer's half is another connection's by now, with bytes in a ring: nothing of it is ours. A reader
 * at the end of file that believed otherwise looked for these bytes for ever.
 */
START_TEST(readable_of_another)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = e->peer;
	u32 n;

	fend_send(e, 50, 0);
	ck_assert_uint_eq(vmcomm_rx_readable(&r->conn, fend_copied_seq(r)), 50);
	e->conn.mine->gen++;
	ck_assert_int_eq(next(r, &n), VMCOMM_NEXT_TCP);
	ck_assert_uint_eq(n, 0);
	ck_assert_uint_eq(vmcomm_rx_readable(&r->conn, fend_copied_seq(r)), 0);
	e->conn.mine->gen--;
	fend_recv_all(r);
	ck_assert(fend_same(e));
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(hostile_ring)
{
	static const struct {
		u32 chunk, off, shift;
	} bad[] = {{0, 1u << 16, 14}, {0, 4096, 14}, {0, 1, 12}, {0, 0, 11}, {0, 0, 23}, {0, 0, 36},
		   {~0u, 0, 14}, {1u << 30, 0, 14}, {0, 1u << 16, 17}, {0, 1u << 14, 17}};
	struct fix *f = fix_up(2);
	struct fend *e;
	u32 i, n, len;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		e = fend_open(f, 0, 1);
		fend_send(e, 100, 0);
		e->conn.mine->ring_chunk = bad[i].chunk;
		e->conn.mine->ring_off = bad[i].off;
		e->conn.mine->ring_shift = bad[i].shift;
		ck_assert_int_eq(next(e->peer, &n), VMCOMM_NEXT_BROKEN);
		fend_free(e);
	}
	/* A run that begins inside of the slice and ends behind it. */
	e = fend_open(f, 0, 1);
	fend_send(e, 100, 0);
	e->conn.mine->ring_chunk = f->lay.chunks - 1;
	e->conn.mine->ring_shift = 17;
	ck_assert_int_eq(next(e->peer, &n), VMCOMM_NEXT_BROKEN);
	fend_free(e);
	/* More in the ring than it holds, before and after it was looked at. */
	e = fend_open(f, 0, 1);
	fend_send(e, 100, 0);
	ck_assert_int_eq(next(e->peer, &n), VMCOMM_NEXT_RING);
	e->conn.mine->head = (1u << 14) + 1;
	vmcomm_rx_window(&e->peer->conn, 0, &len);
	ck_assert_uint_eq(len, 0);
	ck_assert_int_eq(next(e->peer, &n), VMCOMM_NEXT_BROKEN);
	ck_assert_int_eq(vmcomm_conn_evict(&e->peer->conn, fend_copied_seq(e->peer), false), -EPROTO);
	fend_free(e);
	e = fend_open(f, 0, 1);
	fend_send(e, 100, 0);
	e->conn.mine->head = (1u << 14) + 1;
	ck_assert_int_eq(vmcomm_conn_evict(&e->peer->conn, fend_copied_seq(e->peer), false), -EPROTO);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A head that never rests: vmcomm_rx_next() comes back. */
static struct fend *flip_end;
static volatile bool flip_stop;

static void *flip(void *arg)
{
	u64 a = flip_end->conn.tx.head;

	while (!flip_stop) {
		__atomic_store_n(&flip_end->conn.mine->head, a, __ATOMIC_RELAXED);
		__atomic_store_n(&flip_end->conn.mine->head, a + 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

START_TEST(restless_head)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *r = e->peer;
	pthread_t thread;
	u32 i, n;

	fend_send(e, 10, 0);
	fend_recv_all(r);
	flip_end = e;
	flip_stop = false;
	ck_assert_int_eq(pthread_create(&thread, NULL, flip, NULL), 0);
	for (i = 0; i < 100000; i++)
		next(r, &n);
	flip_stop = true;
	pthread_join(thread, NULL);
	e->conn.mine->head = e->conn.tx.head;
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Without TCP underneath the end of the stream is a word. */
START_TEST(fin_word)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	struct fend *e;
	u32 wakes;

	f->no_tcp = true;
	fix_start(f, 0);
	fix_start(f, 1);
	fix_run(f);
	e = fend_open(f, 0, 1);
	fix_run(f);
	fend_send(e, 10, 0);
	vmcomm_tx_fin(&e->conn);
	ck_assert(!vmcomm_rx_fin(&e->peer->conn));
	ck_assert(vmcomm_rx_arm(&e->peer->conn, fend_copied_seq(e->peer)));
	fend_recv_all(e->peer);
	ck_assert(vmcomm_rx_fin(&e->peer->conn));
	ck_assert(vmcomm_rx_arm(&e->peer->conn, fend_copied_seq(e->peer)));
	ck_assert(!vmcomm_conn_peer_closed(&e->peer->conn));
	wakes = e->peer->wakes;
	ck_assert(!vmcomm_conn_close(&e->conn));
	fix_run(f);
	ck_assert_uint_gt(e->peer->wakes, wakes);
	ck_assert(vmcomm_conn_peer_closed(&e->peer->conn));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* The half that accepted cannot be mapped yet: its ring's bytes come before those on TCP. */
START_TEST(accept_is_mapped_late)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	struct vmcomm_rx_plan plan;
	struct fend *e;

	f->strict_share = true;
	ck_assert_int_eq(fix_start(f, 0), 0);
	ck_assert_int_eq(fix_start(f, 1), 0);
	fix_run(f);
	e = fend_pair(f, 0, 1);
	ck_assert_int_eq(fend_offer(e, false), 0);
	vmcomm_conn_ready(&e->conn);
	ck_assert_int_eq(fend_accept(e->peer), 0);
	ck_assert_uint_eq(fend_send(e->peer, 10, 0), 10);
	ck_assert_uint_eq(fend_send(e->peer, 10, VMCOMM_TX_TCP), 10);
	ck_assert(e->peer->by_ring == 10 && e->peer->by_tcp == 10);
	f->vm[0].fail_map = 1;
	vmcomm_node_event(&f->vm[0].node);
	e->conn.atomic = true; /* else it makes room by itself */
	ck_assert_uint_eq(fend_recv(e, 100), 0);
	vmcomm_rx_plan(&e->conn, fend_copied_seq(e), fend_rcv_nxt(e), &plan);
	ck_assert_uint_eq(plan.before, 0);
	/* Now it can. */
	vmcomm_node_event(&f->vm[0].node);
	ck_assert_uint_ge(e->wakes, 1);
	fend_recv_all(e);
	ck_assert(fend_same(e->peer));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* The same for who closes: those bytes are unread, whether or not it can map the half. */
START_TEST(close_is_mapped_late)
{
	struct fix *f;
	struct fend *e;
	u32 atomic;

	for (atomic = 0; atomic < 2; atomic++) {
		f = fix_new(2, 1u << 24, 16);
		f->strict_share = true;
		ck_assert_int_eq(fix_start(f, 0), 0);
		ck_assert_int_eq(fix_start(f, 1), 0);
		fix_run(f);
		e = fend_pair(f, 0, 1);
		ck_assert_int_eq(fend_offer(e, false), 0);
		vmcomm_conn_ready(&e->conn);
		ck_assert_int_eq(fend_accept(e->peer), 0);
		ck_assert_uint_eq(fend_send(e->peer, 10, 0), 10);
		ck_assert_uint_eq(e->peer->by_ring, 10);
		f->vm[0].fail_map = 1;
		vmcomm_node_event(&f->vm[0].node);
		e->conn.atomic = atomic;
		ck_assert(vmcomm_conn_close(&e->conn));
		fend_free(e);
		fix_free(f);
	}
}
END_TEST

/*
 * A VM may have been saved while a connection was on TCP alone. Set back to that, it sees a hole where
 * bytes went through rings: some go over TCP before them.
 */
START_TEST(old_connection_begins_on_tcp)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1);

	ck_assert_int_eq(fend_offer(e, true), 0);
	fix_run(f);
	fend_accept(e->peer);
	ck_assert(vmcomm_conn_attached(&e->conn) && vmcomm_conn_attached(&e->peer->conn));
	vmcomm_conn_ready(&e->conn);
	vmcomm_conn_ready(&e->peer->conn);
	ck_assert_uint_eq(fend_send(e, 10, 0), 10);
	ck_assert_uint_eq(fend_send(e->peer, 10, 0), 10);
	ck_assert(e->by_tcp && e->peer->by_tcp);
	ck_assert_uint_eq(fend_send(e, 10, 0), 10);
	ck_assert_uint_eq(fend_send(e->peer, 10, 0), 10);
	ck_assert(fend_in_ring(e) && fend_in_ring(e->peer));
	fend_recv_all(e);
	fend_recv_all(e->peer);
	ck_assert(fend_same(e) && fend_same(e->peer));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* The device goes between the look at head and the end of the copy. */
START_TEST(lost_while_copied)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	struct vmcomm_rx_plan plan;
	vmcomm_le32 *gen = &e->conn.mine->gen, was = *gen;
	u32 n;

	ck_assert_uint_eq(fend_send(e->peer, 10, 0), 10);
	ck_assert_int_eq(vmcomm_rx_next(&e->conn, fend_copied_seq(e), fend_rcv_nxt(e), &n),
			 VMCOMM_NEXT_RING);
	ck_assert(vmcomm_rx_intact(&e->conn));
	*gen = VMCOMM_GEN_LOST;
	ck_assert(!vmcomm_rx_intact(&e->conn));
	vmcomm_rx_plan(&e->conn, fend_copied_seq(e), fend_rcv_nxt(e), &plan);
	ck_assert_uint_eq(plan.outside, 0);
	*gen = was;
	fend_free(e);
	fix_free(f);
}
END_TEST

UNIT_MAIN("rx", accept_is_mapped_late, close_is_mapped_late, lost_while_copied, old_connection_begins_on_tcp, readable_of_another, reads_are_capped, old_snapshot_after_exit, accept_is_found_before_tcp,
	  plan_finds_accept, plan_of_all, fin_at_x_seq, set_back, windows, arming, armed_behind_tcp,
	  hostile_words, hostile_ring, restless_head, fin_word)
