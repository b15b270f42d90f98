// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test-hostile.c - any word of shared memory changes to anything at any time (M26)
 *
 * Two VMs go on with what they do while a third party with the whole region mapped writes into it,
 * their own words included. Whatever becomes of the streams: no access outside of the region, no
 * loop without end, nothing leaked, and TCP is never read further than it has come.
 */
#include "fixture.h"

#define ENDS 24

static u64 rnd(void)
{
	return (u64)random() << 32 ^ (u64)random() << 16 ^ (u64)random();
}

static u64 nasty(u64 old)
{
	static const u64 edge[] = {0, 1, 2, 3, 4, 12, 14, 16, 18, 22, 23, 31, 32, 63, 64, 255, 256,
				   257, 1023, 1024, 4095, 4096, 16384, 65535, 65536, 0xffffff,
				   0x7fffffff, 0x80000000, 0xffffffff, 1ULL << 32, 1ULL << 62,
				   1ULL << 63, ~0ULL};

	switch (random() % 6) {
	case 0:
		return rnd();
	case 1:
		return old + (u64)random() % 5 - 2;
	case 2:
		return old ^ 1ULL << random() % 64;
	case 3:
		return old + (1ULL << random() % 20);
	default:
		return edge[(u64)random() % (sizeof(edge) / sizeof(edge[0]))];
	}
}

static void poke(void *at)
{
	u64 v;

	if (random() % 2) {
		memcpy(&v, at, 4);
		v = nasty((u32)v);
		memcpy(at, &v, 4);
	} else {
		at = (void *)((uintptr_t)at & ~7UL);
		memcpy(&v, at, 8);
		v = nasty(v);
		memcpy(at, &v, 8);
	}
}

/* One word, most of the time one that matters. */
static void attack(struct fix *f, struct fend **e)
{
	u32 a = (u32)random() % 2, what = (u32)random() % 16, word;
	struct vmcomm_abi_pair *p = vmcomm_layout_pair(&f->lay, f->mem, a, !a);
	struct fend *x = e[(u32)random() % ENDS];

	if (x && random() % 2)
		x = x->peer;
	if (what < 9 && x && vmcomm_conn_attached(&x->conn)) {
		word = (u32)random() % 48;
		poke((u8 *)x->conn.mine + 4 * word);
	} else if (what < 12) {
		poke((u8 *)p + 4 * (random() % 64));
	} else if (what == 12) {
		poke(&p->ccb_chunk[random() % 8]);
	} else if (what == 13) {
		poke(&p->ev[random() % VMCOMM_EVENTS]);
	} else if (what == 14) {
		poke(&p->offer[random() % VMCOMM_OFFERS]);
	} else {
		poke((u8 *)f->mem + ((rnd() % f->lay.size) & ~7ULL));
	}
}

static void use(struct fix *f, struct fend *x)
{
	struct vmcomm_rx_plan plan;
	struct fvm *vm = x->vm;
	enum vmcomm_next next;
	u32 len;

	switch (random() % 16) {
	case 0:
	case 1:
	case 2:
		fend_send(x, (u32)random() % 40000, random() % 5 ? 0 : VMCOMM_TX_TCP);
		break;
	case 3:
	case 4:
	case 5:
		fend_recv(x, (u32)random() % 40000);
		break;
	case 6:
		vmcomm_rx_plan(&x->conn, fend_copied_seq(x), fend_rcv_nxt(x), &plan);
		ck_assert_uint_le((u64)plan.before + plan.after,
				  fend_rcv_nxt(x) - fend_copied_seq(x));
		break;
	case 7:
		/* What is said to be readable can be read: a reader at the end of file relies on it. */
		if (vmcomm_rx_readable(&x->conn, fend_copied_seq(x))) {
			next = vmcomm_rx_next(&x->conn, fend_copied_seq(x), fend_rcv_nxt(x), &len);
			ck_assert(next != VMCOMM_NEXT_WAIT && (next != VMCOMM_NEXT_TCP || len));
		}
		vmcomm_rx_unread(&x->conn);
		vmcomm_rx_arm(&x->conn, fend_copied_seq(x));
		vmcomm_rx_arm_edge(&x->conn);
		vmcomm_rx_fin(&x->conn);
		vmcomm_conn_peer_closed(&x->conn);
		break;
	case 8:
		vmcomm_tx_arm(&x->conn, (u32)random());
		vmcomm_tx_writable(&x->conn);
		vmcomm_tx_unread(&x->conn);
		break;
	case 9:
		vmcomm_tx_idle(&x->conn);
		vmcomm_conn_poll(&x->conn);
		break;
	case 10:
		if (vmcomm_conn_attached(&x->conn) && random() % 8 == 0)
			vmcomm_conn_evict(&x->conn, fend_copied_seq(x), random() & 1);
		break;
	case 11:
		if (random() % 8 == 0)
			vmcomm_conn_close(&x->conn);
		break;
	case 12:
		vmcomm_node_event(&vm->node);
		break;
	case 13:
		vmcomm_node_tick(&vm->node);
		break;
	case 14:
		vmcomm_tx_exit(&x->conn, VMCOMM_REASON_URGENT);
		vmcomm_rx_window(&x->conn, (u32)random(), &len);
		break;
	default:
		vmcomm_node_refresh(&vm->node);
		vmcomm_node_leave_answered(&vm->node);
	}
	fix_work(f, vm);
}

static void run(u32 seed, u32 steps, u32 mean)
{
	struct fix *f = fix_up(2);
	struct fend *e[ENDS] = {NULL};
	u32 step, i, a;

	srandom(seed);
	f->hostile = true;
	f->vm[0].adopt = f->vm[1].adopt = true;
	for (step = 0; step < steps; step++) {
		i = (u32)random() % ENDS;
		if (!e[i]) {
			a = (u32)random() % 2;
			e[i] = fend_pair(f, a, !a);
			if (!fend_offer(e[i], random() & 1) && random() % 4)
				fend_accept(e[i]->peer);
			vmcomm_conn_ready(&e[i]->conn);
			vmcomm_conn_ready(&e[i]->peer->conn);
		}
		use(f, random() % 2 ? e[i] : e[i]->peer);
		if ((u32)random() % mean == 0)
			attack(f, e);
		if (e[i]->broken || e[i]->peer->broken || random() % 200 == 0) {
			fend_free(e[i]);
			e[i] = NULL;
		}
		/* One of the two starts anew, now and then. */
		if (random() % 3000 == 0) {
			a = (u32)random() % 2;
			vmcomm_node_leave_begin(&f->vm[a].node);
			for (i = 0; i < ENDS; i++) {
				struct fend *x = e[i] && e[i]->vm->slot != a ? e[i]->peer : e[i];

				if (!x)
					continue;
				vmcomm_conn_freeze(&x->conn);
				if (vmcomm_conn_evict(&x->conn, fend_copied_seq(x), false))
					vmcomm_conn_close(&x->conn);
			}
			vmcomm_node_leave_publish(&f->vm[a].node);
			vmcomm_node_leave_done(&f->vm[a].node);
			f->vm[a].news_count = 0;
			fix_stop(f, a);
			for (i = 0; i < 100 && !f->vm[a].up; i++) {
				fix_row(f, 0, VMCOMM_SLOT_LIVE, 1);
				fix_row(f, 1, VMCOMM_SLOT_LIVE, 1);
				if (fix_start(f, a) == -EAGAIN) {
					vmcomm_node_event(&f->vm[!a].node);
					while (fix_work(f, &f->vm[!a]))
						;
					/* nobody else knows what is in there */
					if (i > 50)
						memset(vmcomm_layout_pair(&f->lay, f->mem, !a, a), 0,
						       sizeof(struct vmcomm_abi_pair));
				}
			}
			ck_assert(f->vm[a].up);
		}
	}
	for (i = 0; i < ENDS; i++)
		if (e[i])
			fend_free(e[i]);
	for (a = 0; a < 2; a++) {
		ck_assert_uint_eq(fix_pair(f, a, !a)->conns, 0);
		ck_assert_uint_le(f->vm[a].node.heap.used, f->lay.chunks);
	}
	fix_free(f);
}

START_TEST(every_word)
{
	u32 seed;

	for (seed = 1; seed <= unit_seeds(20); seed++)
		run(seed, 4000, 10);
}
END_TEST

START_TEST(rare)
{
	u32 seed;

	for (seed = 1000; seed < 1000 + unit_seeds(8); seed++)
		run(seed, 10000, 300);
}
END_TEST

START_TEST(dense)
{
	u32 seed;

	for (seed = 2000; seed < 2000 + unit_seeds(10); seed++)
		run(seed, 3000, 1);
}
END_TEST

UNIT_MAIN("hostile", every_word, rare, dense)
