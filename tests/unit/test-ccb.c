// SPDX-License-Identifier: GPL-2.0-or-later
/* test-ccb.c - the table of blocks: growth, trim, generations, zombies (M5, M8, M26) */
#include "fixture.h"

static void lock(struct fix *f, u32 slot)
{
	vmcomm_lock(&f->vm[slot].node.lock);
}

static void unlock(struct fix *f, u32 slot)
{
	vmcomm_unlock(&f->vm[slot].node.lock);
}

START_TEST(grow_and_trim)
{
	static u32 idx[2000];
	struct fix *f = fix_up(2);
	struct vmcomm_pair *p = fix_pair(f, 0, 1);
	u32 i, k, per = 1u << 8;

	lock(f, 0);
	for (i = 0; i < 2000; i++) {
		ck_assert_int_eq(vmcomm_ccb_alloc(p, &idx[i]), 0);
		ck_assert_uint_eq(vmcomm_ccb_at(p, idx[i])->use, VMCOMM_CCB_LIVE);
		vmcomm_ccb_at(p, idx[i])->use = VMCOMM_CCB_ZOMBIE; /* no connection */
		p->zombies++;
	}
	ck_assert_uint_eq(p->ccb_chunks, 8);
	for (i = 0; i < 8; i++)
		ck_assert_uint_eq(p->mine->ccb_chunk[i], p->ccb_chunk[i] + 1);
	ck_assert_ptr_null(vmcomm_ccb_at(p, 8 * per));
	ck_assert_ptr_null(vmcomm_ccb_at(p, ~0u));
	/* One at the end keeps all. */
	for (i = 0; i < 1999; i++)
		vmcomm_ccb_free(p, idx[i]);
	vmcomm_ccb_trim(p);
	ck_assert_uint_eq(p->ccb_chunks, 1999 / per + 1);
	vmcomm_ccb_free(p, idx[1999]);
	vmcomm_ccb_trim(p);
	ck_assert_uint_eq(p->ccb_chunks, 1);
	ck_assert_uint_eq(p->mine->ccb_chunk[0], p->ccb_chunk[0] + 1);
	for (i = 1; i < 8; i++)
		ck_assert_uint_eq(p->mine->ccb_chunk[i], 0);
	ck_assert_uint_eq(f->vm[0].node.heap.used, 1);
	/* The free list holds exactly what is left, once each. */
	for (i = 0; i < per; i++) {
		ck_assert_int_eq(vmcomm_ccb_alloc(p, &idx[i]), 0);
		ck_assert_uint_lt(idx[i], per);
		for (k = 0; k < i; k++)
			ck_assert_uint_ne(idx[k], idx[i]);
	}
	ck_assert_uint_eq(p->ccb_chunks, 1);
	ck_assert_uint_eq(p->ccb_free, VMCOMM_CCB_NONE);
	for (i = 0; i < per; i++)
		vmcomm_ccb_free(p, idx[i]);
	ck_assert_uint_eq(p->ccb_used, 0);
	ck_assert_uint_eq(p->zombies, 0);
	unlock(f, 0);
	fix_free(f);
}
END_TEST

START_TEST(generations)
{
	struct fix *f = fix_up(2);
	struct vmcomm_pair *p = fix_pair(f, 0, 1);
	u32 idx, gen;

	lock(f, 0);
	ck_assert_int_eq(vmcomm_ccb_alloc(p, &idx), 0);
	gen = vmcomm_ccb_at(p, idx)->gen;
	vmcomm_ccb_free(p, idx);
	ck_assert_int_eq(vmcomm_ccb_alloc(p, &idx), 0);
	ck_assert_uint_eq(vmcomm_ccb_at(p, idx)->gen, gen + 1);
	/* 0 means nobody. */
	vmcomm_ccb_at(p, idx)->gen = ~0u;
	vmcomm_ccb_free(p, idx);
	ck_assert_int_eq(vmcomm_ccb_alloc(p, &idx), 0);
	ck_assert_uint_eq(vmcomm_ccb_at(p, idx)->gen, 1);
	vmcomm_ccb_free(p, idx);
	unlock(f, 0);
	fix_free(f);
}
END_TEST

START_TEST(no_room)
{
	struct fix *f = fix_up(2);
	struct vmcomm_pair *p = fix_pair(f, 0, 1);
	struct fend *e = fend_pair(f, 0, 1);

	f->vm[0].node.heap.quota = 0;
	ck_assert_int_eq(fend_offer(e, false), -EDQUOT);
	ck_assert_uint_eq(e->conn.reason, VMCOMM_REASON_QUOTA);
	f->vm[0].node.heap.quota = f->lay.chunks;
	p->ccb_chunks = VMCOMM_CCB_CHUNKS_MAX;
	ck_assert_int_eq(fend_offer(e, false), -ENOSPC);
	ck_assert_uint_eq(e->conn.reason, VMCOMM_REASON_NO_CCB);
	p->ccb_chunks = 0;
	ck_assert_int_eq(fend_offer(e, false), 0);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* A number of the peer's that leads nowhere. */
START_TEST(their_numbers)
{
	static const u32 bad[] = {0xffffffff, 0x80000000, 0x7fffffff, 0x10000, 5000, 100};
	struct fix *f = fix_up(2);
	struct vmcomm_pair *p = fix_pair(f, 0, 1);
	u32 i;

	lock(f, 0);
	ck_assert_ptr_null(vmcomm_ccb_theirs(p, 0));
	ck_assert_ptr_null(vmcomm_ccb_theirs(p, ~0u));
	ck_assert_ptr_null(vmcomm_ccb_theirs(p, VMCOMM_CCB_CHUNKS_MAX << 8));
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		p->theirs->ccb_chunk[1] = bad[i];
		if (bad[i] > f->lay.chunks)
			ck_assert_ptr_null(vmcomm_ccb_theirs(p, 256));
	}
	p->theirs->ccb_chunk[1] = f->lay.chunks;
	ck_assert_ptr_nonnull(vmcomm_ccb_theirs(p, 511));
	memset(vmcomm_ccb_theirs(p, 511), 0, 256);
	p->theirs->ccb_chunk[1] = f->lay.chunks + 1;
	ck_assert_ptr_null(vmcomm_ccb_theirs(p, 511));
	unlock(f, 0);
	fix_free(f);
}
END_TEST

/* A closed block stays while the other end may read its ring, and not longer. */
START_TEST(zombies)
{
	struct fix *f = fix_up(2);
	struct vmcomm_pair *p = fix_pair(f, 0, 1);
	struct fend *a = fend_open(f, 0, 1), *b = fend_open(f, 0, 1), *c = fend_open(f, 0, 1);

	fix_run(f);
	vmcomm_conn_resolve(&a->conn);
	fend_send(a, 10, 0);
	vmcomm_conn_close(&a->conn);
	vmcomm_conn_close(&b->conn);
	vmcomm_conn_close(&c->conn);
	ck_assert_uint_eq(p->zombies, 3);
	/* Let go by the peer: seen by its event. */
	fend_recv_all(a->peer);
	vmcomm_conn_close(&a->peer->conn);
	fix_tick(f);
	ck_assert_uint_eq(p->zombies, 2);
	/* A half of another generation is nobody's. */
	b->peer->conn.mine->gen ^= 1;
	fix_tick(f);
	ck_assert_uint_eq(p->zombies, 1);
	b->peer->conn.mine->gen ^= 1;
	/* A table that went away, too. */
	p->theirs->ccb_chunk[0] = 0;
	fix_tick(f);
	ck_assert_uint_eq(p->zombies, 0);
	ck_assert_uint_eq(f->vm[0].node.heap.used, 1);
	fend_free(a);
	fend_free(b);
	fend_free(c);
	fix_free(f);
}
END_TEST

UNIT_MAIN("ccb", grow_and_trim, generations, no_room, their_numbers, zombies)
