// SPDX-License-Identifier: GPL-2.0-or-later
/* test-conn.c - offer, accept, close (M5, M8, M19, M26) */
#include "fixture.h"

#define MANY 3000

START_TEST(offer_and_accept)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1), *s = e->peer;
	struct vmcomm_conn_names names;
	u32 l, r;

	ck_assert_int_eq(vmcomm_offer_read(&f->vm[1].node, 0, 0, &l, &r), -ENOENT);
	ck_assert_int_eq(vmcomm_offer_names(&f->vm[1].node, 0, 0, &names), -ENOENT);
	ck_assert_int_eq(fend_accept(s), -ENOENT);
	ck_assert_uint_eq(s->conn.reason, VMCOMM_REASON_NO_OFFER);
	ck_assert_int_eq(fend_offer(e, false), 0);
	ck_assert_uint_eq(e->conn.mine->state, VMCOMM_CCB_OFFERED);
	ck_assert_int_eq(vmcomm_offer_read(&f->vm[1].node, 0, e->conn.idx, &l, &r), 0);
	ck_assert_uint_eq(l, s->conn.seq_local);
	ck_assert_uint_eq(r, s->conn.seq_remote);
	ck_assert_int_eq(vmcomm_offer_names(&f->vm[1].node, 0, e->conn.idx, &names), 0);
	ck_assert_uint_eq(names.lport, 80);
	ck_assert_uint_eq(names.rport, 40000);
	ck_assert_int_eq(vmcomm_offer_read(&f->vm[1].node, 0, ~0u, &l, &r), -ENOENT);
	ck_assert_int_eq(fend_accept(s), 0);
	ck_assert_uint_eq(s->conn.mine->state, VMCOMM_CCB_OPEN);
	/* No doorbell for that; the first look finds it. */
	ck_assert_ptr_null(e->conn.theirs);
	vmcomm_conn_resolve(&e->conn);
	ck_assert_ptr_nonnull(e->conn.theirs);
	ck_assert_uint_eq(e->conn.mine->peer_idx, s->conn.idx);
	ck_assert_uint_eq(e->conn.mine->peer_gen, s->conn.gen);
	ck_assert_uint_eq(s->conn.mine->peer_idx, e->conn.idx);
	ck_assert_uint_eq(e->conn.mine->lport, 40000);
	/* The offer is gone: another one with this key finds nothing. */
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(doorbells_of_setting_up)
{
	struct fix *f = fix_up(2);
	struct fend *e;
	u32 a = f->vm[0].doorbells, b = f->vm[1].doorbells;

	e = fend_open(f, 0, 1);
	ck_assert_uint_eq(f->vm[0].doorbells, a);
	ck_assert_uint_eq(f->vm[1].doorbells, b);
	/* Request and answer: one each, as the readers sleep. */
	fend_send(e, 10, 0);
	ck_assert_uint_eq(e->by_ring, 10);
	fend_recv_all(e->peer);
	fend_send(e->peer, 10, 0);
	ck_assert_uint_eq(f->vm[0].doorbells, a + 1);
	ck_assert_uint_eq(f->vm[1].doorbells, b + 1);
	/* Closing needs none: TCP tells. */
	fend_recv_all(e);
	fend_free(e);
	ck_assert_uint_eq(f->vm[0].doorbells, a + 1);
	ck_assert_uint_eq(f->vm[1].doorbells, b + 1);
	fix_free(f);
}
END_TEST

START_TEST(wrong_key)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1), *s = e->peer;
	u32 i;

	ck_assert_int_eq(fend_offer(e, false), 0);
	for (i = 0; i < 32; i++) {
		s->conn.seq_local ^= 1u << i;
		ck_assert_int_eq(fend_accept(s), -ENOENT);
		s->conn.seq_local ^= 1u << i;
		s->conn.seq_remote ^= 1u << i;
		ck_assert_int_eq(fend_accept(s), -ENOENT);
		s->conn.seq_remote ^= 1u << i;
	}
	ck_assert(!vmcomm_conn_attached(&s->conn));
	ck_assert_int_eq(fend_accept(s), 0);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* An accept is believed only if all of it fits. */
START_TEST(hostile_accept)
{
	static const u8 word[] = {
		offsetof(struct vmcomm_abi_ccb, state), offsetof(struct vmcomm_abi_ccb, peer_idx),
		offsetof(struct vmcomm_abi_ccb, peer_gen),
		offsetof(struct vmcomm_abi_ccb, seq_local),
		offsetof(struct vmcomm_abi_ccb, seq_remote)};
	struct fix *f = fix_up(2);
	struct fend *e, *other = fend_open(f, 0, 1);
	u32 i, *w;

	for (i = 0; i < sizeof(word); i++) {
		e = fend_pair(f, 0, 1);
		ck_assert_int_eq(fend_offer(e, false), 0);
		ck_assert_int_eq(fend_accept(e->peer), 0);
		w = (u32 *)((u8 *)e->peer->conn.mine + word[i]);
		*w ^= 5;
		vmcomm_conn_resolve(&e->conn);
		ck_assert_ptr_null(e->conn.theirs);
		ck_assert_int_eq(vmcomm_tx_next(&e->conn, 0, 0, 0, 0), VMCOMM_NEXT_TCP);
		fend_free(e);
	}
	/* A second half with the same key, in the middle of the stream. */
	fend_send(other, 10, 0);
	e = fend_open(f, 1, 0);
	memcpy(e->conn.mine, other->peer->conn.mine, sizeof(*e->conn.mine));
	vmcomm_pair_notify(fix_pair(f, 1, 0), VMCOMM_EVENT(VMCOMM_EVENT_ACCEPT, other->conn.idx,
							   e->conn.idx), true);
	fix_run(f);
	ck_assert_ptr_eq(other->conn.theirs, other->peer->conn.mine);
	ck_assert_uint_eq(other->conn.peer_idx, other->peer->conn.idx);
	fend_free(e);
	/* Events about blocks that are not there, not ours, not waiting. */
	for (i = 0; i < 1000; i++) {
		vmcomm_pair_notify(fix_pair(f, 1, 0),
				   VMCOMM_EVENT(random() % 8, random(), random()), true);
		vmcomm_pair_notify(fix_pair(f, 1, 0), VMCOMM_EVENT(VMCOMM_EVENT_ACCEPT,
								   i % 4, i % 1000), true);
		fix_run(f);
	}
	fend_send(other, 10, 0);
	fend_recv_all(other->peer);
	ck_assert(fend_same(other));
	fend_free(other);
	fix_free(f);
}
END_TEST

/* A peer that offers again what was accepted: nothing is attached twice. */
START_TEST(attached_once)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 i, off;

	vmcomm_conn_resolve(&e->conn);
	ck_assert_int_eq(fend_offer(e, false), -EALREADY);
	for (i = 0; i < 3; i++) {
		/* The client's half as it was before. */
		off = vmcomm_ccb_at(fix_pair(f, 0, 1), e->conn.idx)->offer;
		ck_assert_uint_eq(off, 0);
		for (off = 0; off < VMCOMM_OFFERS; off++)
			fix_pair(f, 0, 1)->mine->offer[off] = e->conn.idx + 1;
		e->conn.mine->state = VMCOMM_CCB_OFFERED;
		ck_assert_int_eq(fend_accept(e->peer), -EALREADY);
	}
	ck_assert_uint_eq(fix_pair(f, 1, 0)->conns, 1);
	ck_assert_uint_eq(fix_pair(f, 1, 0)->ccb_used, 1);
	fend_free(e);
	ck_assert_uint_eq(fix_pair(f, 1, 0)->conns, 0);
	fix_free(f);
}
END_TEST

/* The offer table is full: connections stay on TCP with a reason, and later ones are fine. */
START_TEST(offers_full)
{
	static struct fend *e[VMCOMM_OFFERS + 200];
	struct fix *f = fix_up(2);
	u32 i, full = 0;

	for (i = 0; i < VMCOMM_OFFERS + 200; i++) {
		e[i] = fend_pair(f, 0, 1);
		if (fend_offer(e[i], false)) {
			full++;
			ck_assert_uint_eq(e[i]->conn.reason, VMCOMM_REASON_OFFERS_FULL);
			ck_assert(!vmcomm_conn_attached(&e[i]->conn));
		}
	}
	ck_assert_uint_ge(full, 200);
	ck_assert_uint_eq(f->vm[0].node.reason[VMCOMM_REASON_OFFERS_FULL], full);
	/* Each that is in the table is found there. */
	for (i = 0; i < VMCOMM_OFFERS + 200; i++)
		ck_assert_int_eq(fend_accept(e[i]->peer),
				 vmcomm_conn_attached(&e[i]->conn) ? 0 : -ENOENT);
	fix_tick(f);
	for (i = 0; i < VMCOMM_OFFERS; i++) {
		ck_assert_uint_eq(fix_pair(f, 0, 1)->mine->offer[i], 0);
		ck_assert_uint_eq(fix_pair(f, 0, 1)->offer[i], 0);
	}
	for (i = 0; i < VMCOMM_OFFERS + 200; i++)
		if (!vmcomm_conn_attached(&e[i]->conn))
			ck_assert_int_eq(fend_offer(e[i], false), 0);
	for (i = 0; i < VMCOMM_OFFERS + 200; i++)
		fend_free(e[i]);
	fix_tick(f);
	ck_assert_uint_eq(fix_pair(f, 0, 1)->ccb_used, 0);
	fix_free(f);
}
END_TEST

/* Thousands between one pair, and nothing left of them. */
START_TEST(many)
{
	static struct fend *e[MANY];
	struct fix *f = fix_new(2, 1u << 26, 16);
	u32 i, round, used;

	fix_start(f, 0);
	fix_start(f, 1);
	fix_run(f);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < MANY; i++) {
			e[i] = fend_open(f, i & 1, !(i & 1));
			fix_run(f); /* the queue that runs over rings */
		}
		for (i = 0; i < MANY; i++) {
			ck_assert_uint_eq(fend_send(e[i], 100 + i % 50, 0), 100 + i % 50);
			ck_assert_uint_eq(fend_send(e[i]->peer, 100 + i % 50, 0), 100 + i % 50);
		}
		fix_tick(f);
		for (i = 0; i < MANY; i++) {
			fend_recv_all(e[i]);
			fend_recv_all(e[i]->peer);
			ck_assert(fend_same(e[i]) && fend_same(e[i]->peer));
			ck_assert_msg(e[i]->by_ring, "%u: %s", i,
				      vmcomm_reason_name(e[i]->conn.reason));
		}
		used = f->vm[0].node.heap.used;
		ck_assert_uint_gt(used, MANY / 256);
		for (i = 0; i < MANY; i++)
			fend_free(e[i]);
		for (i = 0; i < 20; i++)
			fix_tick(f);
		ck_assert_uint_eq(fix_pair(f, 0, 1)->ccb_used, 0);
		ck_assert_uint_eq(fix_pair(f, 1, 0)->zombies, 0);
		/* The first chunk of CCBs stays. */
		ck_assert_uint_eq(f->vm[0].node.heap.used, 1);
		ck_assert_uint_eq(f->vm[1].node.heap.used, 1);
		/* The host has all other pages back. */
		for (i = 0; i < f->lay.chunks; i++)
			ck_assert(f->vm[0].node.heap.chunk[i].state == VMCOMM_CHUNK_CLEAN ||
				  f->vm[0].node.heap.chunk[i].state == VMCOMM_CHUNK_HEAD);
	}
	ck_assert_uint_eq(f->vm[0].node.stat[VMCOMM_STAT_CONN_OPEN], 0);
	fix_free(f);
}
END_TEST

/* What was written before close is read; then both halves and the ring go. */
START_TEST(close_with_data)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *s = e->peer;
	struct vmcomm_pair *p = fix_pair(f, 0, 1);

	fend_send(e, 5000, 0);
	ck_assert(!vmcomm_conn_close(&e->conn));
	ck_assert_uint_eq(p->zombies, 1);
	fix_tick(f);
	ck_assert_uint_eq(p->zombies, 1);
	ck_assert_uint_gt(f->vm[0].node.heap.used, 1);
	fend_recv_all(s);
	ck_assert(fend_same(e));
	/* The peer writes into TCP: nobody takes it from a ring. */
	fend_send(s, 10, 0);
	ck_assert_uint_eq(s->by_ring, 0);
	ck_assert(!vmcomm_conn_close(&s->conn));
	fix_tick(f);
	ck_assert_uint_eq(p->zombies, 0);
	ck_assert_uint_eq(f->vm[0].node.heap.used, 1);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Closed with bytes unread: the owner is told, to send a reset as TCP would. */
START_TEST(close_unread)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1), *s = e->peer;

	fend_send(e, 10, 0);
	fend_recv(s, 9);
	ck_assert(vmcomm_conn_close(&s->conn));
	fend_free(e);
	/* Not even entered. */
	e = fend_open(f, 0, 1);
	fend_send(e, 10, 0);
	ck_assert(vmcomm_conn_close(&e->peer->conn));
	fend_free(e);
	/* Held bytes count, too. */
	e = fend_open(f, 0, 1);
	fend_send(e, 10, 0);
	fix_leave_all(f, 0);
	ck_assert(vmcomm_conn_close(&e->peer->conn));
	fend_recv_all(e->peer);
	ck_assert(!vmcomm_conn_close(&e->peer->conn));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* The client closes before it has seen the accept, with the server's bytes in the ring. */
START_TEST(close_before_accept_is_seen)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1);

	f->vm[0].deaf = true;
	ck_assert_int_eq(fend_offer(e, false), 0);
	vmcomm_conn_ready(&e->conn);
	ck_assert_int_eq(fend_accept(e->peer), 0);
	fend_send(e->peer, 10, 0);
	ck_assert_uint_eq(e->peer->by_ring, 10);
	ck_assert(vmcomm_conn_close(&e->conn));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* The server closes before the client has seen the accept: its bytes are read all the same. */
START_TEST(accept_write_close)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1);

	f->vm[0].deaf = true;
	ck_assert_int_eq(fend_offer(e, false), 0);
	vmcomm_conn_ready(&e->conn);
	ck_assert_int_eq(fend_accept(e->peer), 0);
	fend_send(e->peer, 10, 0);
	ck_assert(!vmcomm_conn_close(&e->peer->conn));
	f->vm[0].deaf = false;
	fix_tick(f);
	fix_tick(f);
	fend_recv_all(e);
	ck_assert(fend_same(e->peer));
	fend_free(e);
	fix_tick(f);
	ck_assert_uint_eq(fix_pair(f, 1, 0)->ccb_used, 0);
	fix_free(f);
}
END_TEST

/*
 * The client's half is closed and used again before the server looks: the server's words for the
 * old connection must not reach the new one, nor the other way round.
 */
START_TEST(half_used_again)
{
	struct fix *f = fix_up(2);
	struct fend *old = fend_pair(f, 0, 1), *e;
	u32 idx, len;
	u8 *p;

	ck_assert_int_eq(fend_offer(old, false), 0);
	vmcomm_conn_ready(&old->conn);
	f->vm[0].deaf = true;
	idx = old->conn.idx;
	/* Withdrawn by the client ... */
	vmcomm_conn_close(&old->conn);
	ck_assert_int_eq(fend_accept(old->peer), -ENOENT);
	fend_free(old);
	/* ... or accepted at the same moment: the server has the half, the client lets go of it. */
	old = fend_pair(f, 0, 1);
	ck_assert_int_eq(fend_offer(old, false), 0);
	ck_assert_uint_eq(old->conn.idx, idx);
	vmcomm_conn_ready(&old->conn);
	ck_assert_int_eq(fend_accept(old->peer), 0);
	ck_assert_int_eq(vmcomm_tx_next(&old->peer->conn, 0, 0, 0, 0), VMCOMM_NEXT_RING);
	p = vmcomm_tx_window(&old->peer->conn, &len);
	fend_fill(old->peer, p, 10);
	/* As if the accept had not been there yet when the client closed. */
	vmcomm_ccb_free(fix_pair(f, 0, 1), idx);
	fix_pair(f, 0, 1)->conns--;
	old->conn.pair = NULL;
	e = fend_open(f, 0, 1);
	ck_assert_uint_eq(e->conn.idx, idx);
	ck_assert_uint_ne(e->conn.gen, old->peer->conn.peer_gen);
	f->vm[0].deaf = false;
	f->vm[0].irq = true;
	fix_run(f);
	fend_send(e->peer, 3000, 0);
	fend_recv(e, 2000);
	/* The late put: not read by anybody, and the sender knows. */
	vmcomm_tx_commit(&old->peer->conn, 10);
	ck_assert(old->peer->conn.tx.unsettled);
	fend_send(old->peer, 10, 0);
	ck_assert(!old->peer->broken);
	ck_assert_uint_eq(old->peer->tcp_again, 10);
	ck_assert(!vmcomm_conn_close(&old->peer->conn));
	fend_recv_all(e);
	ck_assert(fend_same(e->peer));
	fend_free(old);
	fend_free(e);
	fix_tick(f);
	ck_assert_uint_eq(fix_pair(f, 1, 0)->ccb_used, 0);
	fix_free(f);
}
END_TEST

/* An offer that is taken away and replaced while the other one reads it. */
START_TEST(offer_generation)
{
	struct fix *f = fix_up(2);
	struct fend *first = fend_pair(f, 0, 1), *e = fend_pair(f, 0, 1);
	u32 gen;

	/* Block 0 in generation 0 is what a connection had that had none yet: not this one. */
	ck_assert_int_eq(fend_offer(first, false), 0);
	ck_assert_int_eq(fend_offer(e, false), 0);
	ck_assert_uint_ne(e->conn.idx, 0);
	gen = e->conn.gen;
	e->conn.mine->gen = 0;
	ck_assert_int_eq(fend_accept(e->peer), -ENOENT);
	e->conn.mine->gen = gen;
	ck_assert_int_eq(fend_accept(e->peer), 0);
	ck_assert_uint_eq(e->peer->conn.peer_gen, gen);
	fend_free(e);
	fend_free(first);
	fix_free(f);
}
END_TEST

/* Offers that nobody takes do not fill the table for ever. */
START_TEST(old_offers_make_room)
{
	static struct fend *e[VMCOMM_OFFERS * 2], *n;
	struct fix *f = fix_up(2);
	u32 i;

	for (i = 0; i < VMCOMM_OFFERS * 2; i++) {
		e[i] = fend_pair(f, 0, 1);
		fend_offer(e[i], false);
	}
	n = fend_pair(f, 0, 1);
	for (i = 0; i < 100; i++)
		fix_tick(f);
	ck_assert_int_eq(fend_offer(n, false), 0);
	ck_assert_int_eq(fend_accept(n->peer), 0);
	for (i = 0; i < VMCOMM_OFFERS * 2; i++)
		fend_free(e[i]);
	fend_free(n);
	fix_tick(f);
	ck_assert_uint_eq(fix_pair(f, 0, 1)->ccb_used, 0);
	fix_free(f);
}
END_TEST

START_TEST(announced)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1);
	u32 n;

	f->vm[1].adopt = true;
	n = f->vm[1].doorbells;
	ck_assert_int_eq(fend_offer(e, true), 0);
	ck_assert_uint_eq(f->vm[1].doorbells, n + 1);
	fix_run(f);
	ck_assert_uint_eq(f->vm[1].offered, 1);
	ck_assert_uint_eq(f->vm[1].offered_idx, e->conn.idx);
	ck_assert(vmcomm_conn_attached(&e->peer->conn));
	fend_free(e);
	fix_free(f);
}
END_TEST

/* An owner that could not take an offer asks for it again. */
START_TEST(announced_again)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_pair(f, 0, 1);

	ck_assert_int_eq(fend_offer(e, true), 0);
	fix_run(f);
	ck_assert_uint_eq(f->vm[1].offered, 1);
	ck_assert(!vmcomm_conn_attached(&e->peer->conn));
	vmcomm_node_offers(&f->vm[1].node, 0);
	ck_assert_uint_eq(f->vm[1].offered, 2);
	ck_assert_uint_eq(f->vm[1].offered_idx, e->conn.idx);
	/* Nobody at all, and oneself. */
	vmcomm_node_offers(&f->vm[1].node, VMCOMM_SLOTS_MAX);
	vmcomm_node_offers(&f->vm[1].node, 1);
	ck_assert_uint_eq(f->vm[1].offered, 2);
	ck_assert_int_eq(fend_accept(e->peer), 0);
	fix_run(f);
	fend_send(e, 1, 0); /* it sees the accept */
	vmcomm_node_offers(&f->vm[1].node, 0);
	ck_assert_uint_eq(f->vm[1].offered, 2);
	fend_recv_all(e->peer);
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(no_pair)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	struct fend *e;
	u32 l;

	fix_start(f, 0);
	e = fend_pair(f, 0, 1);
	ck_assert_int_eq(fend_offer(e, false), -ENOTCONN);
	ck_assert_uint_eq(e->conn.reason, VMCOMM_REASON_NO_PAIR);
	ck_assert_int_eq(vmcomm_offer_read(&f->vm[0].node, 1, 0, &l, &l), -ENOENT);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Evicted alone before the client saw the accept: its offer is still there, and used up. */
START_TEST(accepted_once)
{
	struct fix *f = fix_up(2);
	struct fend *c = fend_pair(f, 0, 1), *s = c->peer;

	f->vm[0].deaf = true;
	ck_assert_int_eq(fend_offer(c, false), 0);
	ck_assert_int_eq(fend_accept(s), 0);
	vmcomm_conn_ready(&c->conn);
	vmcomm_conn_ready(&s->conn);
	ck_assert_int_eq(vmcomm_conn_evict(&s->conn, fend_copied_seq(s), false), 0);
	ck_assert_int_eq(fend_accept(s), -ENOENT);
	ck_assert(!vmcomm_conn_attached(&s->conn));
	f->vm[0].deaf = false;
	fix_run(f);
	ck_assert_uint_eq(fend_send(s, 1000, 0), 1000);
	ck_assert_uint_eq(s->by_tcp, 1000);
	fend_recv_all(c);
	ck_assert(fend_same(s));
	/* A new offer is another one. */
	vmcomm_conn_close(&c->conn);
	ck_assert_int_eq(fend_offer(c, false), 0);
	ck_assert_int_eq(fend_accept(s), 0);
	fend_free(c);
	fix_free(f);
}
END_TEST

/* A backend that cannot map at once: nothing is lost, only later. */
START_TEST(mapped_late)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	struct fend *c, *s;

	f->strict_share = true;
	fix_start(f, 0);
	fix_start(f, 1);
	fix_run(f);
	c = fend_pair(f, 0, 1);
	s = c->peer;
	/* The server cannot see the offer, later it can. */
	ck_assert_int_eq(fend_offer(c, false), 0);
	f->vm[1].fail_map = 2;
	ck_assert_int_eq(fend_accept(s), -EAGAIN);
	ck_assert_uint_eq(s->conn.reason, VMCOMM_REASON_NOT_MAPPED);
	f->vm[1].adopt = true;
	vmcomm_node_event(&f->vm[1].node);
	ck_assert(!vmcomm_conn_attached(&s->conn));
	/* Neither can the client see the accept. */
	f->vm[0].fail_map = 1;
	vmcomm_node_event(&f->vm[1].node);
	ck_assert(vmcomm_conn_attached(&s->conn));
	vmcomm_node_event(&f->vm[0].node);
	ck_assert_ptr_null(c->conn.theirs);
	vmcomm_node_event(&f->vm[0].node);
	ck_assert_ptr_nonnull(c->conn.theirs);
	vmcomm_conn_ready(&c->conn);
	vmcomm_conn_ready(&s->conn);
	/* The reader may sleep for its ring. */
	fend_send(c, 1000, 0);
	ck_assert_uint_eq(c->by_ring, 1000);
	f->vm[1].fail_map = 3;
	fend_recv_all(s);
	ck_assert_uint_eq(f->vm[1].prepares, 3);
	ck_assert(fend_same(c));
	/* A closed half of ours waits until one can see what the peer says. */
	vmcomm_conn_close(&s->conn);
	f->vm[0].fail_map = 1;
	vmcomm_conn_close(&c->conn);
	ck_assert_uint_eq(fix_pair(f, 0, 1)->zombies, 1);
	fix_tick(f);
	ck_assert_uint_eq(fix_pair(f, 0, 1)->zombies, 0);
	ck_assert_int_eq(f->vm[0].maps, 0);
	ck_assert_int_eq(f->vm[1].maps, 0);
	fend_free(c);
	fix_free(f);
}
END_TEST

UNIT_MAIN("conn", mapped_late, offer_and_accept, doorbells_of_setting_up, wrong_key, hostile_accept,
	  attached_once, offers_full, many, close_with_data, close_unread,
	  close_before_accept_is_seen, accept_write_close, half_used_again, offer_generation,
	  old_offers_make_room, announced, announced_again, no_pair, accepted_once)
