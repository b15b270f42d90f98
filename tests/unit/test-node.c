// SPDX-License-Identifier: GPL-2.0-or-later
/* test-node.c - joining, pairs that come up and go, ticks, addresses (M3, M11, M14) */
#include "fixture.h"

static const u8 addr_of_1[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 2};

START_TEST(refusals)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	struct vmcomm_abi_location *row = vmcomm_layout_location(&f->lay, f->mem, 0);
	struct vmcomm_node_config config = {.lay = &f->lay, .slot = 2};
	struct vmcomm_node node = {0};

	ck_assert_int_eq(vmcomm_node_init(&node, &config), -EINVAL);
	fix_row(f, 0, VMCOMM_SLOT_FREE, 1);
	ck_assert_int_eq(fix_start(f, 0), -EAGAIN);
	fix_row(f, 0, VMCOMM_SLOT_GONE, 1);
	ck_assert_int_eq(fix_start(f, 0), -EAGAIN);
	row->seq |= 1;
	ck_assert_int_eq(fix_start(f, 0), -EAGAIN);
	row->state = 99;
	row->seq++;
	ck_assert_int_eq(fix_start(f, 0), -EBADMSG);
	fix_row(f, 0, VMCOMM_SLOT_JOINING, 1);
	ck_assert_int_eq(fix_start(f, 0), 0);
	ck_assert_uint_ne(f->vm[0].node.page->incarnation, 0);
	ck_assert_uint_eq(f->vm[0].node.page->state, VMCOMM_VM_UP);
	ck_assert_str_eq((char *)f->vm[0].node.page->system, "unit test");
	fix_stop(f, 0);
	ck_assert_uint_eq(f->vm[0].node.page->state, VMCOMM_VM_DOWN);
	fix_free(f);
}
END_TEST

/* In whatever order they start and look. */
START_TEST(all_orders)
{
	struct fix *f;
	u32 seed, i, k, who;

	for (seed = 0; seed < unit_seeds(40); seed++) {
		srandom(seed);
		f = fix_new(4, 1u << 22, 16);
		for (i = 0; i < 100; i++) {
			who = (u32)random() % 4;
			if (!f->vm[who].up)
				ck_assert_int_eq(fix_start(f, who), 0);
			else if (random() % 4)
				vmcomm_node_event(&f->vm[who].node);
			else
				vmcomm_node_refresh(&f->vm[who].node);
		}
		for (i = 0; i < 4; i++)
			if (!f->vm[i].up)
				ck_assert_int_eq(fix_start(f, i), 0);
		/* By doorbells alone. */
		fix_run(f);
		for (i = 0; i < 4; i++)
			for (k = 0; k < 4; k++)
				ck_assert(i == k || vmcomm_node_pair_up(&f->vm[i].node, k));
		ck_assert(!vmcomm_node_pair_up(&f->vm[0].node, 0));
		ck_assert(!vmcomm_node_pair_up(&f->vm[0].node, 4));
		ck_assert(!vmcomm_node_pair_up(&f->vm[0].node, ~0u));
		fix_free(f);
	}
}
END_TEST

/* Events that came before we knew that the peer is up are looked at when we do. */
START_TEST(events_before_up)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	struct fend *e;

	fix_start(f, 0);
	fix_start(f, 1);
	vmcomm_node_event(&f->vm[1].node);
	vmcomm_node_event(&f->vm[0].node);
	ck_assert_uint_eq(fix_pair(f, 0, 1)->state, VMCOMM_PEER_UP);
	ck_assert_uint_eq(fix_pair(f, 1, 0)->state, VMCOMM_PEER_HELLO);
	f->vm[1].adopt = true;
	e = fend_pair(f, 0, 1);
	ck_assert_int_eq(fend_offer(e, true), 0);
	/* One interrupt for both. */
	f->vm[1].irq = false;
	vmcomm_node_event(&f->vm[1].node);
	ck_assert_uint_eq(fix_pair(f, 1, 0)->state, VMCOMM_PEER_UP);
	ck_assert_uint_eq(f->vm[1].offered, 1);
	fend_free(e);
	fix_free(f);
}
END_TEST

START_TEST(find)
{
	struct fix *f = fix_new(3, 1u << 24, 16);
	u8 addr[16];

	fix_start(f, 0);
	memcpy(addr, addr_of_1, 16);
	/* A member, though it does not answer. */
	ck_assert_int_eq(vmcomm_node_find(&f->vm[0].node, addr), 1);
	fix_row(f, 1, VMCOMM_SLOT_GONE, 1);
	ck_assert_int_eq(vmcomm_node_find(&f->vm[0].node, addr), -ENOENT);
	fix_row(f, 1, VMCOMM_SLOT_LIVE, 1);
	fix_start(f, 1);
	fix_run(f);
	ck_assert_int_eq(vmcomm_node_find(&f->vm[0].node, addr), 1);
	addr[15] = 1; /* our own */
	ck_assert_int_eq(vmcomm_node_find(&f->vm[0].node, addr), -ENOENT);
	addr[15] = 9;
	ck_assert_int_eq(vmcomm_node_find(&f->vm[0].node, addr), -ENOENT);
	/* The host changes its address. */
	vmcomm_layout_location(&f->lay, f->mem, 1)->addr[0][15] = 9;
	fix_tick(f);
	ck_assert_int_eq(vmcomm_node_find(&f->vm[0].node, addr), 1);
	fix_free(f);
}
END_TEST

/* Each connection of the VM is looked up: free slots, and peers that are up, cost no look at the table. */
START_TEST(find_reads_no_row)
{
	struct fix *f = fix_new(3, 1u << 24, 16);
	u8 addr[16] = {[15] = 77};
	unsigned int before;

	fix_row(f, 2, VMCOMM_SLOT_FREE, 0);
	fix_start(f, 0);
	fix_start(f, 1);
	fix_run(f);
	ck_assert(vmcomm_node_pair_up(&f->vm[0].node, 1));
	before = f->rows_read;
	ck_assert_int_eq(vmcomm_node_find(&f->vm[0].node, addr), -ENOENT);
	ck_assert_uint_eq(f->rows_read, before);
	fix_row(f, 2, VMCOMM_SLOT_LIVE, 1);
	fix_tick(f);
	before = f->rows_read;
	ck_assert_int_eq(vmcomm_node_find(&f->vm[0].node, addr), -ENOENT);
	ck_assert_uint_eq(f->rows_read, before + 1);
	fix_free(f);
}
END_TEST

START_TEST(stale_location)
{
	struct fix *f = fix_up(2);
	struct vmcomm_node *node = &f->vm[0].node;

	ck_assert(!vmcomm_node_stale(node));
	vmcomm_layout_location(&f->lay, f->mem, 0)->location++;
	ck_assert(vmcomm_node_stale(node));
	vmcomm_node_refresh(node);
	ck_assert(!vmcomm_node_stale(node));
	ck_assert_uint_eq(node->page->location, node->location);
	fix_free(f);
}
END_TEST

START_TEST(tick_publishes)
{
	struct fix *f = fix_up(2);
	struct vmcomm_node *node = &f->vm[0].node;
	u64 beat = node->page->heartbeat;
	struct fend *e = fend_open(f, 0, 1);

	fend_send(e, 10, 0);
	fix_tick(f);
	ck_assert_uint_eq(node->page->heartbeat, beat + 1);
	ck_assert_uint_eq(node->page->stat[VMCOMM_STAT_CONN_OPENED], 1);
	ck_assert_uint_eq(node->page->stat[VMCOMM_STAT_CONN_OPEN], 1);
	ck_assert_uint_eq(node->page->stat[VMCOMM_STAT_HEAP_USED], 2);
	ck_assert_uint_eq(f->vm[1].node.page->stat[VMCOMM_STAT_CONN_ACCEPTED], 1);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Lost doorbells: the tick finds everything. */
START_TEST(backstop)
{
	struct fix *f = fix_up(2);
	struct fend *e = fend_open(f, 0, 1);
	u32 wakes, i;

	vmcomm_conn_resolve(&e->conn);
	/* A reader that nobody told, as its peer saw another wake position. */
	e->peer->conn.mine->rcv_wake_at = ~0ULL;
	fend_send(e, 100, 0);
	wakes = e->peer->wakes;
	fix_tick(f);
	ck_assert_uint_eq(e->peer->wakes, wakes + 1);
	fend_recv_all(e->peer);
	wakes = e->peer->wakes;
	fix_tick(f);
	ck_assert_uint_eq(e->peer->wakes, wakes);
	/* A sender. */
	f->vm[0].node.ring_shift_max = 14;
	fend_send(e, 1u << 20, 0);
	ck_assert(!vmcomm_tx_arm(&e->conn, 1));
	fend_recv_all(e->peer);
	f->vm[0].irq = false;
	wakes = e->wakes;
	vmcomm_node_tick(&f->vm[0].node);
	ck_assert_uint_ge(e->wakes, wakes + 1);
	/* Once it was told, idle connections cost nothing. */
	wakes = e->wakes;
	for (i = 0; i < 10; i++)
		fix_tick(f);
	ck_assert_uint_eq(e->wakes, wakes);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* One peer may use all of the heap, of two each a half. */
START_TEST(quota)
{
	struct fix *f = fix_new(3, 1u << 24, 16);

	fix_start(f, 0);
	fix_start(f, 1);
	fix_run(f);
	ck_assert_uint_eq(f->vm[0].node.heap.quota, f->lay.chunks);
	fix_start(f, 2);
	fix_run(f);
	ck_assert_uint_eq(f->vm[0].node.heap.quota, f->lay.chunks / 2);
	fix_row(f, 2, VMCOMM_SLOT_GONE, 1);
	fix_tick(f);
	ck_assert_uint_eq(f->vm[0].node.heap.quota, f->lay.chunks);
	fix_free(f);
}
END_TEST

/* Peers' words about themselves with anything in them. */
START_TEST(hostile_pair_words)
{
	struct fix *f;
	struct vmcomm_abi_pair *p;
	u32 i, seed;

	for (seed = 0; seed < unit_seeds(40); seed++) {
		srandom(seed);
		f = fix_up(3);
		p = fix_pair(f, 0, 1)->theirs;
		for (i = 0; i < 50; i++) {
			switch (random() % 7) {
			case 0:
				p->incarnation = random() % 3 ? (u64)random() : 0;
				break;
			case 1:
				p->peer_incarnation = random() % 2 ? f->vm[0].node.incarnation :
								     (u64)random();
				break;
			case 2:
				p->state = (u32)random() % 5;
				break;
			case 3:
				p->leave_done = (u32)random() % 3;
				break;
			case 4:
				p->leave_ack = f->vm[0].node.incarnation;
				break;
			case 5:
				fix_row(f, 1, (u32)random() % 6, 1 + (u64)random() % 2);
				break;
			default:
				p->ev_head = (u32)random();
			}
			vmcomm_node_event(&f->vm[0].node);
			if (random() % 4 == 0)
				vmcomm_node_tick(&f->vm[0].node);
			f->vm[1].irq = false; /* does not answer */
			f->vm[0].irq = false;
			f->vm[1].deaf = true;
			fix_run(f);
		}
		/* The third one never noticed. */
		ck_assert(vmcomm_node_pair_up(&f->vm[0].node, 2));
		vmcomm_node_leave_begin(&f->vm[0].node);
		vmcomm_node_leave_publish(&f->vm[0].node);
		vmcomm_node_leave_done(&f->vm[0].node);
		fix_run(f);
		fix_free(f);
	}
}
END_TEST

/* A request to take pages that an earlier life made, and that is not answered. */
START_TEST(old_reclaim_request)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	vmcomm_le32 *ask = vmcomm_layout_reclaim(&f->lay, f->mem, 0, 3);
	vmcomm_le32 *ack = vmcomm_layout_reclaim_ack(&f->lay, f->mem, 0, 3);

	*ask = 7;
	*ack = 5;
	f->no_host = true;
	fix_start(f, 0);
	ck_assert_uint_eq(f->vm[0].node.heap.chunk[3].state, VMCOMM_CHUNK_ASKED);
	fix_tick(f);
	ck_assert_uint_eq(f->vm[0].node.heap.chunk[3].state, VMCOMM_CHUNK_ASKED);
	*ack = 7;
	fix_tick(f);
	ck_assert_uint_eq(f->vm[0].node.heap.chunk[3].state, VMCOMM_CHUNK_CLEAN);
	fix_free(f);
}
END_TEST

/* What an earlier life left in the heap goes back to the host, and is nobody else's to read. */
START_TEST(heap_of_an_earlier_life)
{
	struct fix *f = fix_new(2, 1u << 22, 16);
	u32 i, k, ticks;
	u64 *mem;

	fix_start(f, 0);
	for (i = 0; i < f->lay.chunks; i++)
		ck_assert_uint_eq(f->vm[0].node.heap.chunk[i].state, VMCOMM_CHUNK_CLEAN);
	ck_assert_int_eq(vmcomm_region_map(&f->region, 0, 0, f->lay.chunks, (void **)&mem), 0);
	memset(mem, 0x5a, (size_t)f->lay.chunks << f->lay.chunk_shift);
	fix_stop(f, 0);
	fix_start(f, 0);
	fix_start(f, 1);
	fix_run(f);
	/* At once somebody needs a chunk: without the old bytes. */
	fend_free(fend_pair(f, 0, 1));
	for (ticks = 0; ticks < 20; ticks++)
		fix_tick(f);
	for (i = k = 0; i < f->lay.chunks; i++)
		k += f->vm[0].node.heap.chunk[i].state == VMCOMM_CHUNK_CLEAN;
	ck_assert_uint_ge(k + f->vm[0].node.heap.used, f->lay.chunks);
	for (i = 0; i < f->lay.chunks << (f->lay.chunk_shift - 3); i++)
		ck_assert_uint_ne(mem[i], 0x5a5a5a5a5a5a5a5aULL);
	fix_free(f);
}
END_TEST

/* A VM whose module is unloaded holds nobody's slot, though its device stays. */
START_TEST(unloaded_holds_nothing)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	struct vmcomm_abi_pair *page = vmcomm_region_pair_page(&f->region, 0, 1);

	fix_start(f, 0);
	fix_start(f, 1);
	fix_run(f);
	/* The word that the host's vmcomm_group_holder() looks at. */
	ck_assert_uint_eq(page->peer_incarnation, f->vm[1].node.incarnation);
	fix_stop(f, 0);
	ck_assert_uint_eq(page->peer_incarnation, 0);
	fix_free(f);
}
END_TEST

/* A peer's pages may come, go and come back somewhere else. */
START_TEST(pages_come_late)
{
	struct fix *f = fix_new(2, 1u << 24, 16);
	struct vmcomm_abi_pair *page[2];
	u32 i, round;

	for (i = 0; i < 2; i++)
		page[i] = vmcomm_region_pair_page(&f->region, i, !i);
	f->late_pages = true;
	fix_start(f, 0);
	fix_start(f, 1);
	fix_run(f);
	for (round = 0; round < 2; round++) {
		ck_assert(!vmcomm_node_pair_up(&f->vm[0].node, 1));
		fix_tick(f);
		for (i = 0; i < 2; i++) {
			ck_assert_int_eq(vmcomm_node_place(&f->vm[i].node, !i, page[!i]), 0);
			f->vm[i].irq = true;
		}
		fix_run(f);
		ck_assert(vmcomm_node_pair_up(&f->vm[0].node, 1));
		ck_assert(vmcomm_node_pair_up(&f->vm[1].node, 0));
		ck_assert_int_eq(vmcomm_node_place(&f->vm[0].node, 1, NULL), -EBUSY);
		ck_assert(vmcomm_node_pair_up(&f->vm[0].node, 1));
		if (round)
			break;
		fix_leave_all(f, 1);
		ck_assert_int_eq(vmcomm_node_place(&f->vm[0].node, 1, NULL), 0);
		fix_stop(f, 1);
		/* The first one keeps looking at what the other left behind until told otherwise. */
		fix_tick(f);
		ck_assert_int_eq(fix_start(f, 1), 0);
		fix_run(f);
	}
	ck_assert_int_eq(vmcomm_node_place(&f->vm[0].node, 0, NULL), -EINVAL);
	ck_assert_int_eq(vmcomm_node_place(&f->vm[0].node, ~0u, NULL), -EINVAL);
	fix_free(f);
}
END_TEST

/* A third party wrote over what we published: a good peer that comes later must find us. */
START_TEST(own_words_are_repaired)
{
	struct fix *f = fix_up(3);
	struct vmcomm_abi_pair *mine = fix_pair(f, 0, 1)->mine;
	struct fend *e;
	u32 i;

	fend_free(fend_open(f, 0, 1));
	f->vm[0].node.page->incarnation = 5;
	f->vm[0].node.page->state = 77;
	for (i = 0; i < 256; i++)
		((vmcomm_le32 *)mine)[i] = 0x80000001;
	memset(mine->ccb_chunk, 0x11, sizeof(mine->ccb_chunk));
	fix_tick(f);
	fix_tick(f);
	ck_assert_uint_eq(f->vm[0].node.page->incarnation, f->vm[0].node.incarnation);
	ck_assert_uint_eq(f->vm[0].node.page->state, VMCOMM_VM_UP);
	ck_assert_uint_eq(mine->incarnation, f->vm[0].node.incarnation);
	ck_assert_uint_gt(f->vm[0].node.stat[VMCOMM_STAT_PEER_ERRORS], 0);
	/* The hostile one in slot 1 is replaced; nobody touched the pair with slot 2. */
	ck_assert(vmcomm_node_pair_up(&f->vm[0].node, 2));
	fix_stop(f, 1);
	fix_row(f, 1, VMCOMM_SLOT_GONE, 1);
	fix_tick(f);
	fix_row(f, 1, VMCOMM_SLOT_LIVE, 2);
	ck_assert_int_eq(fix_start(f, 1), 0);
	fix_run(f);
	fix_tick(f);
	ck_assert(vmcomm_node_pair_up(&f->vm[0].node, 1));
	e = fend_open(f, 0, 1);
	ck_assert_uint_eq(fend_send(e, 10000, 0), 10000);
	fend_recv_all(e->peer);
	ck_assert(fend_same(e));
	ck_assert_uint_gt(e->by_ring, 0);
	fend_free(e);
	fix_free(f);
}
END_TEST

/* Whoever lets go of us, or is somebody else now, is not the one that we were up with ... */
START_TEST(let_go_is_noticed)
{
	struct fix *f = fix_up(2);
	struct vmcomm_abi_pair *theirs = fix_pair(f, 0, 1)->theirs;

	f->vm[1].deaf = true;
	theirs->peer_incarnation = 0;
	f->vm[0].irq = true;
	fix_run(f);
	ck_assert(!vmcomm_node_pair_up(&f->vm[0].node, 1));
	ck_assert_uint_eq(fix_pair(f, 0, 1)->mine->peer_incarnation, 0);
	fix_free(f);

	f = fix_up(2);
	theirs = fix_pair(f, 0, 1)->theirs;
	f->vm[1].deaf = true;
	theirs->incarnation++; /* at once: we did not see the 0 in between */
	f->vm[0].irq = true;
	fix_run(f);
	ck_assert(!vmcomm_node_pair_up(&f->vm[0].node, 1));
	/* A new one is welcome. */
	vmcomm_node_tick(&f->vm[0].node);
	ck_assert_uint_eq(fix_pair(f, 0, 1)->mine->peer_incarnation, theirs->incarnation);
	fix_free(f);
}
END_TEST

/* ... and that one never comes back: what both knew of each other has been forgotten. */
START_TEST(let_go_for_good)
{
	struct fix *f = fix_up(2);
	struct vmcomm_pair *pair = fix_pair(f, 0, 1);

	f->vm[1].deaf = true;
	pair->theirs->peer_incarnation = 0;
	f->vm[0].irq = true;
	fix_run(f);
	pair->theirs->peer_incarnation = f->vm[0].node.incarnation;
	f->vm[0].irq = true;
	fix_run(f);
	vmcomm_node_tick(&f->vm[0].node);
	ck_assert_uint_eq(pair->state, VMCOMM_PEER_DOWN);
	ck_assert_uint_eq(pair->mine->peer_incarnation, 0);
	fix_free(f);
}
END_TEST

UNIT_MAIN("node", let_go_is_noticed, let_go_for_good, own_words_are_repaired, pages_come_late, refusals, all_orders, events_before_up, find,
	  find_reads_no_row, stale_location, tick_publishes,
	  backstop, quota, hostile_pair_words, old_reclaim_request, heap_of_an_earlier_life,
	  unloaded_holds_nothing)
