// SPDX-License-Identifier: GPL-2.0-or-later
/* fixture.c - VMs, doorbells and TCP for the tests of the core */
#include "fixture.h"

bool (*fix_alloc)(size_t n);

/* Weak: not there in programs that are linked without --wrap. */
void *__real_calloc(size_t n, size_t size) __attribute__((weak));
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
	return fix_alloc && !fix_alloc(n * size) ? NULL : __real_calloc(n, size);
}

static struct fvm *fvm_of(struct vmcomm_node *node)
{
	return node->priv;
}

/* The contract of backend.h: called with the node's lock held ... */
static void must_lock(struct vmcomm_node *node)
{
	int err;

	if (fvm_of(node)->fix->threads)
		return;
	err = pthread_mutex_trylock(&node->lock.mutex);
	/* Before vmcomm_node_init() returned nobody else knows the node. */
	if (node->up)
		ck_assert_msg(err == EBUSY, "backend called without the node's lock");
	if (!err)
		pthread_mutex_unlock(&node->lock.mutex);
}

/* ... and of struct vmcomm_conn_ops: called without it. */
static void must_unlock(struct vmcomm_node *node)
{
	if (fvm_of(node)->fix->threads)
		return;
	ck_assert_msg(!pthread_mutex_trylock(&node->lock.mutex), "called with the node's lock");
	pthread_mutex_unlock(&node->lock.mutex);
}

static struct vmcomm_abi_pair *back_pair_page(struct vmcomm_node *node, u32 owner, u32 peer)
{
	struct fix *f = fvm_of(node)->fix;

	if (f->late_pages && owner != node->slot)
		return NULL;
	return vmcomm_region_pair_page(&f->region, owner, peer);
}

static int back_map(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count, void **mem)
{
	struct fix *f = fvm_of(node)->fix;

	if (f->mapping)
		f->mapping(f);
	return vmcomm_region_map(&f->region, owner, chunk, count, mem);
}

static int strict_map(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count,
		      void **mem)
{
	struct fvm *vm = fvm_of(node);
	int err;

	must_lock(node);
	if (owner == node->slot)
		return back_map(node, owner, peer, chunk, count, mem);
	if (vm->fail_map) {
		vm->fail_map--;
		return -EAGAIN;
	}
	err = back_map(node, owner, peer, chunk, count, mem);
	vm->maps += !err;
	return err;
}

static int strict_prepare(struct vmcomm_node *node)
{
	must_unlock(node);
	fvm_of(node)->prepares++;
	return 0;
}

static void strict_unmap(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count)
{
	must_lock(node);
	ck_assert_uint_ne(owner, node->slot);
	fvm_of(node)->maps--;
	fvm_of(node)->unmaps++;
}

static int strict_share(struct vmcomm_node *node, u32 peer, u32 chunk, u32 count)
{
	struct fvm *vm = fvm_of(node);
	u32 i;

	must_lock(node);
	if (vm->fail_share)
		return vm->fail_share;
	for (i = chunk; i < chunk + count; i++) {
		/* Small rings share a chunk, for one peer. */
		if (!vm->shared[peer][i])
			vm->shares++;
		vm->shared[peer][i] = 1;
	}
	return 0;
}

static void strict_unshare(struct vmcomm_node *node, u32 peer, u32 chunk, u32 count)
{
	struct fvm *vm = fvm_of(node);
	u32 i;

	must_lock(node);
	for (i = chunk; i < chunk + count; i++) {
		ck_assert_msg(vm->shared[peer][i], "chunk %u was not shared with %u", i, peer);
		vm->shared[peer][i] = 0;
		vm->shares--;
	}
}

static int back_location(struct vmcomm_node *node, u32 slot, struct vmcomm_location *loc)
{
	must_lock(node);
	fvm_of(node)->fix->rows_read++;
	return vmcomm_region_location(&fvm_of(node)->fix->region, slot, loc);
}

static void back_doorbell(struct vmcomm_node *node, u32 slot, u32 vector)
{
	struct fvm *vm = &fvm_of(node)->fix->vm[slot];

	ck_assert_uint_lt(slot, FIX_VMS);
	ck_assert_uint_eq(vector, VMCOMM_VECTOR_EVENT);
	__atomic_fetch_add(&vm->doorbells, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&vm->irq, true, __ATOMIC_RELEASE);
}

static const struct vmcomm_backend_ops plain_ops = {
	.pair_page = back_pair_page,
	.map = back_map,
	.location = back_location,
	.doorbell = back_doorbell,
};

static const struct vmcomm_backend_ops strict_ops = {
	.pair_page = back_pair_page,
	.map = strict_map,
	.unmap = strict_unmap,
	.prepare = strict_prepare,
	.share = strict_share,
	.unshare = strict_unshare,
	.location = back_location,
	.doorbell = back_doorbell,
};

static struct fend *fend_of(struct vmcomm_conn *conn)
{
	return (struct fend *)((char *)conn - offsetof(struct fend, conn));
}

static bool end_hold(struct vmcomm_conn *conn)
{
	if (fend_of(conn)->going)
		return false;
	__atomic_fetch_add(&fend_of(conn)->held, 1, __ATOMIC_RELAXED);
	return true;
}

static void end_drop(struct vmcomm_conn *conn)
{
	ck_assert_int_gt(__atomic_fetch_sub(&fend_of(conn)->held, 1, __ATOMIC_RELAXED), 0);
}

static void end_wake(struct vmcomm_conn *conn)
{
	must_unlock(&fend_of(conn)->vm->node);
	__atomic_fetch_add(&fend_of(conn)->wakes, 1, __ATOMIC_RELAXED);
}

static void vm_news(struct vmcomm_node *node, u32 slot, enum vmcomm_pair_news news)
{
	struct fvm *vm = fvm_of(node);

	must_unlock(node);
	ck_assert_uint_lt(vm->news_count, 64);
	vm->news[vm->news_count].slot = slot;
	vm->news[vm->news_count++].news = news;
}

static void vm_offered(struct vmcomm_node *node, u32 slot, u32 idx)
{
	struct fvm *vm = fvm_of(node);
	struct fend *e;
	u32 l, r;

	must_unlock(node);
	vm->offered++;
	vm->offered_idx = idx;
	if (!vm->adopt || vmcomm_offer_read(node, slot, idx, &l, &r))
		return;
	for (e = vm->ends; e; e = e->next)
		if (!e->conn.client && e->conn.seq_local == l && e->conn.seq_remote == r &&
		    e->peer->vm->slot == slot && !vmcomm_conn_attached(&e->conn))
			vmcomm_conn_accept(node, slot, &e->conn, &e->names);
}

static const struct vmcomm_conn_ops conn_ops = {
	.hold = end_hold,
	.drop = end_drop,
	.wake = end_wake,
	.pair_news = vm_news,
	.offered = vm_offered,
};

void fix_row(struct fix *f, u32 slot, u32 state, u64 generation)
{
	struct vmcomm_location loc = {
		.state = state,
		.vectors = state == VMCOMM_SLOT_FREE ? 0 : 2,
		.generation = generation,
		.number = 100 + slot + 1000 * generation,
		.addr_count = 1,
	};

	loc.addr[0][10] = loc.addr[0][11] = 0xff;
	loc.addr[0][12] = 10;
	loc.addr[0][15] = (u8)(slot + 1);
	vmcomm_location_write(vmcomm_layout_location(&f->lay, f->mem, slot), &loc);
}

struct fix *fix_new(u32 vms, u64 size, u32 chunk_shift)
{
	struct fix *f = calloc(1, sizeof(*f));
	u32 i;

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_le(vms, FIX_VMS);
	ck_assert_int_eq(vmcomm_layout_compute(&f->lay, size, vms, chunk_shift), 0);
	ck_assert_uint_le(f->lay.chunks, FIX_CHUNKS);
	f->mem = aligned_alloc(VMCOMM_PAGE, size);
	ck_assert_ptr_nonnull(f->mem);
	memset(f->mem, 0, size);
	vmcomm_layout_write(&f->lay, f->mem, "unit", 1);
	ck_assert_int_eq(vmcomm_region_init(&f->region, f->mem, size), 0);
	f->vms = vms;
	f->generation = 1;
	for (i = 0; i < vms; i++) {
		f->vm[i].fix = f;
		f->vm[i].slot = i;
		fix_row(f, i, VMCOMM_SLOT_LIVE, f->generation);
	}
	return f;
}

void fix_free(struct fix *f)
{
	u32 i;

	for (i = 0; i < f->vms; i++)
		if (f->vm[i].up)
			fix_stop(f, i);
	free(f->mem);
	free(f);
}

int fix_start(struct fix *f, u32 slot)
{
	struct fvm *vm = &f->vm[slot];
	struct vmcomm_node_config config = {
		.backend = f->strict_share ? &strict_ops : &plain_ops,
		.conn_ops = &conn_ops,
		.priv = vm,
		.lay = &f->lay,
		.slot = slot,
		.location_word = &vmcomm_layout_location(&f->lay, f->mem, slot)->location,
		.page = vmcomm_layout_slot(&f->lay, f->mem, slot),
		.reclaim_ask = vmcomm_layout_reclaim(&f->lay, f->mem, slot, 0),
		.reclaim_ack = vmcomm_layout_reclaim_ack(&f->lay, f->mem, slot, 0),
		.has_tcp = !f->no_tcp,
		.system = "unit test",
		.version = "0",
	};
	int err;

	ck_assert(!vm->up);
	memset(&vm->node, 0, sizeof(vm->node));
	err = vmcomm_node_init(&vm->node, &config);
	vm->up = !err;
	return err;
}

void fix_stop(struct fix *f, u32 slot)
{
	ck_assert(f->vm[slot].up);
	f->vm[slot].up = false;
	vmcomm_node_deinit(&f->vm[slot].node);
}

struct vmcomm_pair *fix_pair(struct fix *f, u32 slot, u32 peer)
{
	return f->vm[slot].node.pair[peer];
}

bool fix_evict(struct fix *f, u32 slot, u32 peer, bool gone)
{
	struct fvm *vm = &f->vm[slot];
	bool all = true;
	struct fend *e;
	int err;

	for (e = vm->ends; e; e = e->next) {
		if (e->peer->vm->slot != peer || !vmcomm_conn_attached(&e->conn))
			continue;
		err = vmcomm_conn_evict(&e->conn, fend_copied_seq(e), gone);
		if (err == -EPROTO)
			e->broken = true;
		else if (err)
			all = false;
	}
	return all;
}

bool fix_work(struct fix *f, struct fvm *vm)
{
	struct fnews *n = &vm->news[0];

	if (f->keep_news || !vm->news_count || !vm->up)
		return false;
	if (n->news != VMCOMM_NEWS_UP) {
		if (!fix_evict(f, vm->slot, n->slot, n->news == VMCOMM_NEWS_GONE)) {
			/* A peer that died while it left is not waited for. */
			if (vm->news_count < 2)
				return false;
		} else if (vmcomm_pair_released(&vm->node, n->slot) && vm->news_count < 2) {
			return false;
		}
	}
	vm->news_count--;
	memmove(n, n + 1, vm->news_count * sizeof(*n));
	return true;
}

void fix_run(struct fix *f)
{
	u32 i, rounds = 0;
	bool moved;

	do {
		moved = false;
		for (i = 0; i < f->vms; i++) {
			struct fvm *vm = &f->vm[i];

			if (vm->irq && vm->up && !vm->deaf) {
				vm->irq = false;
				moved = true;
				if (vmcomm_node_event(&vm->node))
					vm->irq = true;
			}
			moved |= fix_work(f, vm);
		}
		ck_assert_msg(++rounds < 10000, "doorbells without end");
	} while (moved);
}

/* Take the pages that were asked for, as the host does. */
static void fix_host(struct fix *f, u32 slot)
{
	vmcomm_le32 *ask = vmcomm_layout_reclaim(&f->lay, f->mem, slot, 0);
	vmcomm_le32 *ack = vmcomm_layout_reclaim_ack(&f->lay, f->mem, slot, 0);
	void *mem;
	u32 i;

	for (i = 0; i < f->lay.chunks; i++) {
		if (ack[i] == ask[i])
			continue;
		ck_assert_int_eq(vmcomm_region_map(&f->region, slot, i, 1, &mem), 0);
		memset(mem, 0, 1u << f->lay.chunk_shift);
		ack[i] = ask[i];
	}
}

void fix_tick(struct fix *f)
{
	u32 i;

	for (i = 0; i < f->vms && !f->no_host; i++)
		fix_host(f, i);
	for (i = 0; i < f->vms; i++)
		if (f->vm[i].up && !f->vm[i].deaf)
			vmcomm_node_tick(&f->vm[i].node);
	fix_run(f);
}

struct fix *fix_up(u32 vms)
{
	struct fix *f = fix_new(vms, 1u << 24, 16);
	u32 i, k;

	for (i = 0; i < vms; i++)
		ck_assert_int_eq(fix_start(f, i), 0);
	fix_run(f);
	for (i = 0; i < vms; i++)
		for (k = 0; k < vms; k++)
			ck_assert(i == k || vmcomm_node_pair_up(&f->vm[i].node, k));
	return f;
}

/* --- connections --- */

static u8 stream_byte(u32 seed, u64 pos)
{
	u64 h = (pos / 8 + seed) * 0x9e3779b97f4a7c15ULL;

	return (u8)(h >> (8 * (pos % 8)));
}

static void pipe_put(struct fend *e, const u8 *data, u32 n)
{
	struct fpipe *p = &e->out;

	ck_assert_msg(!p->fin, "bytes after FIN");
	if (p->written + n > p->size) {
		ck_assert_msg(!e->vm->fix->threads || !p->data, "queue too small");
		p->size = e->vm->fix->threads ? 64u << 20 : (p->written + n) * 2;
		p->data = realloc(p->data, p->size);
		ck_assert_ptr_nonnull(p->data);
	}
	memcpy(p->data + p->written, data, n);
	p->written += n;
	if (!e->vm->fix->slow_tcp)
		__atomic_store_n(&p->arrived, p->written, __ATOMIC_RELEASE);
}

void fend_arrive(struct fend *e, u32 n)
{
	ck_assert_uint_le(e->out.arrived + n, e->out.written);
	e->out.arrived += n;
}

static struct fend *fend_one(struct fix *f, u32 slot, u32 seed, bool client)
{
	struct fend *e = calloc(1, sizeof(*e));

	ck_assert_ptr_nonnull(e);
	e->vm = &f->vm[slot];
	e->seed = seed;
	e->out.iss = seed * 2654435761u;
	e->names.lport = client ? 40000 : 80;
	e->names.rport = client ? 80 : 40000;
	e->next = e->vm->ends;
	e->vm->ends = e;
	return e;
}

struct fend *fend_pair(struct fix *f, u32 a, u32 b)
{
	static u32 seed;
	struct fend *c = fend_one(f, a, ++seed, true), *s = fend_one(f, b, ++seed, false);

	c->peer = s;
	s->peer = c;
	vmcomm_conn_init(&c->conn, c->out.iss, s->out.iss, true);
	vmcomm_conn_init(&s->conn, s->out.iss, c->out.iss, false);
	return c;
}

int fend_offer(struct fend *e, bool announce)
{
	return vmcomm_conn_offer(&e->vm->node, e->peer->vm->slot, &e->conn, &e->names, announce);
}

int fend_accept(struct fend *e)
{
	return vmcomm_conn_accept(&e->vm->node, e->peer->vm->slot, &e->conn, &e->names);
}

struct fend *fend_open(struct fix *f, u32 a, u32 b)
{
	struct fend *c = fend_pair(f, a, b);

	ck_assert_int_eq(fend_offer(c, false), 0);
	ck_assert_int_eq(fend_accept(c->peer), 0);
	vmcomm_conn_ready(&c->conn);
	vmcomm_conn_ready(&c->peer->conn);
	return c;
}

static void fend_free_one(struct fend *e)
{
	struct fend **link;

	if (e->vm->up)
		vmcomm_conn_close(&e->conn);
	vmcomm_conn_deinit(&e->conn);
	ck_assert_int_eq(e->held, 0);
	for (link = &e->vm->ends; *link != e; link = &(*link)->next)
		;
	*link = e->next;
	free(e->out.data);
	free(e);
}

void fend_free(struct fend *client)
{
	struct fend *peer = client->peer;

	fend_free_one(client);
	fend_free_one(peer);
}

void fend_pending(struct fend *e)
{
	const u8 *p;
	u32 len;

	while (e->conn.tx.pend_len) {
		p = vmcomm_tx_pending(&e->conn, &len);
		ck_assert_uint_gt(len, 0);
		if (len > 700)
			len = 700;
		pipe_put(e, p, len);
		e->tcp_again += len;
		vmcomm_tx_pended(&e->conn, len);
	}
}

void fend_fill(struct fend *e, u8 *p, u32 n)
{
	u32 i;

	for (i = 0; i < n; i++)
		p[i] = stream_byte(e->seed, e->sent + i);
	e->sent += n;
}

u32 fend_send(struct fend *e, u32 n, u32 flags)
{
	u32 done = 0, len, i, loops = 0;
	u8 *p, piece[4096];

	e->waited = false;
	while (done < n && !e->broken) {
		ck_assert_uint_lt(++loops, 100000);
		switch (vmcomm_tx_next(&e->conn, fend_write_seq(e), fend_write_seq(e), fend_una(e),
				       flags)) {
		case VMCOMM_NEXT_TCP:
			len = n - done < sizeof(piece) ? n - done : sizeof(piece);
			for (i = 0; i < len; i++)
				piece[i] = stream_byte(e->seed, e->sent + i);
			pipe_put(e, piece, len);
			e->by_tcp += len;
			break;
		case VMCOMM_NEXT_RING:
			if (!vmcomm_tx_room(&e->conn)) {
				if (e->conn.broken)
					continue;
				return done;
			}
			p = vmcomm_tx_window(&e->conn, &len);
			ck_assert_uint_gt(len, 0);
			if (len > n - done)
				len = n - done;
			for (i = 0; i < len; i++)
				p[i] = stream_byte(e->seed, e->sent + i);
			if (e->vm->fix->between)
				e->vm->fix->between(e);
			vmcomm_tx_commit(&e->conn, len);
			e->by_ring += len;
			break;
		case VMCOMM_NEXT_HELD:
			fend_pending(e);
			continue;
		case VMCOMM_NEXT_WAIT:
			e->waited = true;
			return done;
		default:
			e->broken = true;
			return done;
		}
		e->sent += len;
		done += len;
	}
	return done;
}

static void fend_compare(struct fend *e, const u8 *p, u32 n)
{
	u32 i;

	for (i = 0; i < n && !e->vm->fix->hostile; i++)
		ck_assert_msg(p[i] == stream_byte(e->peer->seed, e->got + i),
			      "byte %llu of the stream is wrong",
			      (unsigned long long)(e->got + i));
	e->got += n;
}

u32 fend_recv(struct fend *e, u32 n)
{
	struct fpipe *in = &e->peer->out;
	u32 done = 0, len, rcv_nxt, avail, loops = 0;
	enum vmcomm_next next;
	const u8 *p;

	while (done < n && !e->broken) {
		ck_assert_uint_lt(++loops, 100000);
		rcv_nxt = fend_rcv_nxt(e);
		next = vmcomm_rx_next(&e->conn, fend_copied_seq(e), rcv_nxt, &avail);
		if (next == VMCOMM_NEXT_BROKEN) {
			e->broken = true;
			break;
		}
		if (next == VMCOMM_NEXT_WAIT)
			break;
		if (next == VMCOMM_NEXT_TCP) {
			len = rcv_nxt - in->iss - in->fin_arrived - in->copied;
			ck_assert_uint_le(avail, len + in->fin_arrived);
			if (len > avail)
				len = avail;
			if (len > n - done)
				len = n - done;
			if (!len)
				break;
			fend_compare(e, in->data + in->copied, len);
			in->copied += len;
			done += len;
			continue;
		}
		ck_assert(next == VMCOMM_NEXT_RING || next == VMCOMM_NEXT_HELD);
		ck_assert_uint_gt(avail, 0);
		p = vmcomm_rx_window(&e->conn, 0, &len);
		if (!len) {
			/* Only a peer that changes its words under us gets us here. */
			ck_assert(e->vm->fix->hostile);
			break;
		}
		ck_assert(len <= avail || e->vm->fix->threads || e->vm->fix->hostile);
		if (len > n - done)
			len = n - done;
		fend_compare(e, p, len);
		if (next == VMCOMM_NEXT_HELD)
			e->by_held += len;
		vmcomm_rx_consume(&e->conn, len);
		done += len;
	}
	return done;
}

void fend_recv_all(struct fend *e)
{
	while (fend_recv(e, 1u << 20))
		;
}

bool fend_same(struct fend *e)
{
	return e->peer->got == e->sent;
}

void fix_leave_all(struct fix *f, u32 slot)
{
	struct fvm *vm = &f->vm[slot];
	struct fend *e;
	u32 i, tries = 0;
	bool all;

	vmcomm_node_leave_begin(&vm->node);
	for (e = vm->ends; e; e = e->next)
		vmcomm_conn_freeze(&e->conn);
	vmcomm_node_leave_publish(&vm->node);
	do {
		all = true;
		for (i = 0; i < f->vms; i++)
			if (i != slot)
				all &= fix_evict(f, slot, i, false);
		if (!all)
			fix_run(f);
		ck_assert_uint_lt(++tries, 100);
	} while (!all);
	vmcomm_node_leave_done(&vm->node);
	fix_run(f);
}
