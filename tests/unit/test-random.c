// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test-random.c - honest VMs, everything in any order: streams byte for byte (M6-M9, M16-M19)
 *
 * Three VMs with slow TCP send, receive, resize, fall idle, close and leave, in steps that mix with
 * everybody else's. One seed is one schedule.
 */
#include "fixture.h"

#define ENDS 16

enum phase { UP, FROZEN, PUBLISHED, EVICTED, DONE, AWAY };

/* What happened at all, so that a schedule in which nothing happens does not pass. */
static u64 ring_bytes, held_bytes, again_bytes, leaves;

struct vmstate {
	enum phase phase;
	u32 since;
};

static void step_end(struct fend *x)
{
	struct fix *f = x->vm->fix;
	struct vmcomm_rx_plan plan;
	u32 n;

	switch (random() % 14) {
	case 0:
	case 1:
	case 2:
		fend_send(x, (u32)random() % (random() % 8 ? 3000 : 70000),
			  random() % 6 ? 0 : VMCOMM_TX_TCP);
		break;
	case 3:
	case 4:
	case 5:
		fend_recv(x, (u32)random() % (random() % 4 ? 3000 : 90000));
		break;
	case 6:
	case 7:
		n = x->out.written - x->out.arrived;
		if (n)
			fend_arrive(x, random() % 2 ? n : (u32)random() % n);
		break;
	case 8:
		vmcomm_tx_idle(&x->conn);
		break;
	case 9:
		vmcomm_conn_poll(&x->conn);
		break;
	case 10:
		if (!vmcomm_tx_arm(&x->conn, (u32)random() % 9000))
			ck_assert(fend_in_ring(x));
		vmcomm_rx_arm(&x->conn, fend_copied_seq(x));
		break;
	case 11:
		vmcomm_rx_plan(&x->conn, fend_copied_seq(x), fend_rcv_nxt(x), &plan);
		ck_assert_uint_le((u64)x->got + plan.before + plan.outside + plan.after,
				  x->peer->sent);
		break;
	case 12:
		if (random() % 4)
			vmcomm_conn_ready(&x->conn);
		else
			vmcomm_conn_unready(&x->conn);
		break;
	default:
		if (!x->conn.client || vmcomm_conn_attached(&x->conn))
			break;
		if (x->vm->up && vmcomm_node_pair_up(&x->vm->node, x->peer->vm->slot))
			fend_offer(x, true);
	}
	ck_assert(!x->broken);
	ck_assert_uint_le(x->got, x->peer->sent);
	if (random() % 3 == 0)
		fix_work(f, x->vm);
}

static void leave_step(struct fix *f, u32 v, struct vmstate *s)
{
	struct fvm *vm = &f->vm[v];
	struct fend *x;
	u32 i;
	bool all = true;

	switch (s->phase) {
	case UP:
		if (random() % 500)
			return;
		vmcomm_node_leave_begin(&vm->node);
		for (x = vm->ends; x; x = x->next)
			vmcomm_conn_freeze(&x->conn);
		s->phase = FROZEN;
		break;
	case FROZEN:
		vmcomm_node_leave_publish(&vm->node);
		s->phase = PUBLISHED;
		break;
	case PUBLISHED:
		/* One connection at a time, others' steps in between. */
		for (x = vm->ends; x; x = x->next) {
			if (!vmcomm_conn_attached(&x->conn))
				continue;
			all = false;
			if (random() % 3)
				continue;
			i = (u32)vmcomm_conn_evict(&x->conn, fend_copied_seq(x), false);
			ck_assert(!i || (int)i == -EAGAIN);
		}
		if (all)
			s->phase = EVICTED;
		break;
	case EVICTED:
		vmcomm_node_leave_done(&vm->node);
		s->phase = DONE;
		s->since = 0;
		break;
	case DONE:
		/* Some do not wait for their peers. */
		if (!vmcomm_node_leave_answered(&vm->node) && s->since++ < 20)
			return;
		vm->news_count = 0;
		fix_stop(f, v);
		fix_row(f, v, VMCOMM_SLOT_LEFT, f->generation);
		s->phase = AWAY;
		leaves++;
		break;
	case AWAY:
		if (random() % 20)
			return;
		fix_row(f, v, VMCOMM_SLOT_LIVE, ++f->generation);
		if (fix_start(f, v)) {
			fix_row(f, v, VMCOMM_SLOT_LEFT, f->generation);
			return;
		}
		for (x = vm->ends; x; x = x->next)
			vmcomm_conn_ready(&x->conn);
		s->phase = UP;
	}
}

static struct vmstate state[3];

/* The VM at the other end goes on with its leave on its own CPU. */
static void other_cpu(struct fend *e)
{
	u32 v = e->peer->vm->slot, n;

	for (n = (u32)random() % 4; n; n--)
		leave_step(e->vm->fix, v, &state[v]);
}

static void run(u32 seed, u32 steps, bool leaving_too)
{
	struct fix *f = fix_up(3);
	struct fend *e[ENDS], *x;
	u32 step, i, v, round;

	srandom(seed);
	memset(state, 0, sizeof(state));
	f->between = leaving_too ? other_cpu : NULL;
	f->slow_tcp = true;
	for (i = 0; i < 3; i++)
		f->vm[i].adopt = true;
	for (i = 0; i < ENDS; i++) {
		e[i] = fend_pair(f, i % 3, (i + 1 + i / 3 % 2) % 3);
		vmcomm_conn_ready(&e[i]->conn);
		vmcomm_conn_ready(&e[i]->peer->conn);
	}
	for (step = 0; step < steps; step++) {
		x = e[(u32)random() % ENDS];
		x = random() % 2 ? x : x->peer;
		step_end(x);
		v = (u32)random() % 3;
		if (f->vm[v].up) {
			if (random() % 4 == 0)
				vmcomm_node_event(&f->vm[v].node);
			if (random() % 50 == 0)
				vmcomm_node_tick(&f->vm[v].node);
			fix_work(f, &f->vm[v]);
		}
		if (leaving_too)
			leave_step(f, v, &state[v]);
	}
	/* Whoever is on the way gets there; then all bytes arrive. */
	for (round = 0; round < 3000; round++) {
		for (v = 0; v < 3; v++) {
			if (state[v].phase != UP)
				leave_step(f, v, &state[v]);
			if (f->vm[v].up)
				vmcomm_node_event(&f->vm[v].node);
			fix_work(f, &f->vm[v]);
		}
		for (i = 0; i < 2 * ENDS; i++) {
			x = i % 2 ? e[i / 2] : e[i / 2]->peer;
			fend_arrive(x, x->out.written - x->out.arrived);
			fend_send(x, 0, 0);
			if (x->conn.tx.pend_len || x->conn.tx.unsettled)
				fend_send(x, 1, 0);
			fend_recv(x, 100000);
		}
	}
	for (i = 0; i < ENDS; i++) {
		ck_assert_msg(fend_same(e[i]) && fend_same(e[i]->peer), "seed %u, end %u", seed, i);
		ring_bytes += e[i]->by_ring + e[i]->peer->by_ring;
		held_bytes += e[i]->by_held + e[i]->peer->by_held;
		again_bytes += e[i]->tcp_again + e[i]->peer->tcp_again;
		fend_free(e[i]);
	}
	for (i = 0; i < 10; i++)
		fix_tick(f);
	for (v = 0; v < 3; v++) {
		ck_assert_uint_le(f->vm[v].node.heap.used, 2);
		ck_assert_uint_eq(f->vm[v].node.stat[VMCOMM_STAT_PEER_ERRORS], 0);
	}
	fix_free(f);
}

START_TEST(staying)
{
	u32 seed;

	for (seed = 1; seed <= unit_seeds(10); seed++)
		run(seed, 6000, false);
	ck_assert_uint_gt(ring_bytes, 1u << 20);
}
END_TEST

START_TEST(leaving)
{
	u32 seed;

	for (seed = 1000; seed < 1000 + unit_seeds(40); seed++)
		run(seed, 6000, true);
	ck_assert_uint_gt(ring_bytes, 1u << 20);
	ck_assert_uint_gt(held_bytes, 1u << 20);
	ck_assert_uint_gt(again_bytes, 1000);
	ck_assert_uint_gt(leaves, 100);
}
END_TEST

UNIT_MAIN("random", staying, leaving)
