// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * image.c - a VM that is set back to a snapshot goes on from its old private memory (M11, M17)
 *
 * A VM is saved without the device (docs/migration.md, "Snapshots"), so what its connections are then
 * is in their private contexts, in what TCP has, and in its programs. An image is made when none of
 * its threads is inside a call: then programs that begin anew with these are programs that go on.
 */
#include "sim.h"

struct sim_image_sock {
	struct sim_sock *sock;
	struct sim_sock was;
	u8 *held, *pend, *queue;
	u32 write_seq, una, edge, rcv_nxt, copied_seq, ts_recent;
	bool fin_sent, fin_in;
};

struct sim_image {
	u64 when;
	u32 n;
	struct sim_image_sock sock[];
};

static u8 *sim_copy(const u8 *from, u32 n)
{
	u8 *p = malloc(n ? n : 1);

	if (!p)
		abort();
	if (n)
		memcpy(p, from, n);
	return p;
}

static void sim_image_sock(struct sim_image_sock *i, struct sim_sock *s)
{
	const struct sim_tcp *in = s->in;

	i->sock = s;
	i->was = *s;
	i->held = s->conn.rx.held ? sim_copy(s->conn.rx.held, s->conn.rx.held_len) : NULL;
	i->pend = s->conn.tx.pend ? sim_copy(s->conn.tx.pend, s->conn.tx.pend_len) : NULL;
	i->write_seq = s->out->write_seq;
	i->una = s->out->una;
	i->edge = s->out->edge;
	i->fin_sent = s->out->fin_sent;
	i->rcv_nxt = in->rcv_nxt;
	i->copied_seq = in->copied_seq;
	i->fin_in = in->fin_in;
	i->ts_recent = in->ts_recent;
	i->queue = sim_copy(NULL, 0);
	i->queue = realloc(i->queue, in->size);
	if (!i->queue)
		abort();
	sim_tcp_peek(in, 0, i->queue, in->size);
}

/* The clock of one that was set back stands still, so it is not there when its VM is once more. */
static bool sim_image_of(const struct sim_sock *s, const struct sim_vm *vm)
{
	return s->vm == vm && s->established && !s->closed && !s->reset && !s->ts_frozen;
}

/* Return: NULL: somebody is inside a call, ask again after a moment. */
struct sim_image *sim_image_take(struct sim_vm *vm)
{
	struct sim_image *image;
	u32 i, n = 0;

	if (vm->lockless || vm->plugged)
		return NULL;
	for (i = 0; i < sim.socks; i++) {
		if (sim.sock[i]->vm == vm && sim.sock[i]->owner)
			return NULL;
		n += sim_image_of(sim.sock[i], vm);
	}
	image = calloc(1, sizeof(*image) + n * sizeof(image->sock[0]));
	if (!image)
		abort();
	image->when = sim.now;
	for (i = 0; i < sim.socks; i++)
		if (sim_image_of(sim.sock[i], vm))
			sim_image_sock(&image->sock[image->n++], sim.sock[i]);
	sim_trace("%s: an image is made, with %u connections", vm->name, n);
	return image;
}

/* Have bytes gone through rings since, on a connection that is still there? */
bool sim_image_old(const struct sim_image *image)
{
	u32 i;

	for (i = 0; i < image->n; i++) {
		const struct vmcomm_conn *now = &image->sock[i].sock->conn;
		const struct vmcomm_conn *was = &image->sock[i].was.conn;

		if (!image->sock[i].sock->closed && !image->sock[i].sock->peer->closed &&
		    (now->ring_sent != was->ring_sent || now->ring_received != was->ring_received))
			return true;
	}
	return false;
}

void sim_image_free(struct sim_image *image)
{
	u32 i;

	for (i = 0; image && i < image->n; i++) {
		free(image->sock[i].held);
		free(image->sock[i].pend);
		free(image->sock[i].queue);
	}
	free(image);
}

static u8 *sim_image_block(struct sim_vm *vm, const u8 *from, u32 n)
{
	u8 *p = from ? sim_alloc_for(vm, n) : NULL;

	if (p)
		memcpy(p, from, n);
	return p;
}

/* TCP's state of this end alone; the network, and the peer, are where they are now. */
static void sim_image_tcp(struct sim_image_sock *i, struct sim_sock *s)
{
	struct sim_tcp *out = s->out, *in = s->in;
	u32 k;

	out->write_seq = i->write_seq;
	out->fin_sent = i->fin_sent;
	out->una = i->una;
	out->edge = i->edge;
	/* What the peer has of that is acknowledged when it is sent again. */
	sim_tcp_acked(out, out->rcv_nxt - out->fin_in, out->copied_seq + out->size);
	in->rcv_nxt = i->rcv_nxt;
	in->copied_seq = i->copied_seq;
	in->fin_in = i->fin_in;
	in->ts_recent = i->ts_recent;
	for (k = 0; k < i->rcv_nxt - i->fin_in - i->copied_seq; k++)
		in->buf[(i->copied_seq + k) & (in->size - 1)] = i->queue[k];
}

static void sim_image_sock_back(struct sim_vm *vm, struct sim_image *image, struct sim_image_sock *i)
{
	struct sim_sock *s = i->sock;
	u64 wakes = s->wakes;
	bool refused = s->refused;

	*s = i->was;
	s->wakes = wakes;
	s->refused = refused;
	s->set_back = s->peer->set_back = true;
	s->ts_frozen = (u32)image->when;
	sim.count.set_backs += !s->peer->closed;
	s->holds = 0;
	s->threads = 0;
	s->rx_asleep = s->tx_asleep = false;
	s->told_gen = 0;
	s->conn.arm_lock.owner = NULL;
	s->conn.arm_lock.waiters = 0;
	s->conn.rx.held = sim_image_block(vm, i->held, i->was.conn.rx.held_len);
	s->conn.tx.pend = sim_image_block(vm, i->pend, i->was.conn.tx.pend_len);
	sim_image_tcp(i, s);
}

/* From the world: the VM ends in the middle of anything, and one begins that is as it was then. */
void sim_image_restore(struct sim_vm *vm, struct sim_image *image)
{
	u32 i, k;

	sim_trace("%s: is set back to time %llu", vm->name, (unsigned long long)image->when);
	sim.count.restores++;
	sim.restores++;
	sim_vm_end(vm);
	for (i = 0; i < sim.socks; i++) {
		struct sim_sock *s = sim.sock[i];

		for (k = 0; k < image->n && image->sock[k].sock != s; k++)
			;
		if (s->vm != vm)
			continue;
		if (k < image->n)
			sim_image_sock_back(vm, image, &image->sock[k]);
		else
			sim_sock_dies(s);
	}
	vm->crashed = false;
	vm->paused = false;
	vm->plugged = false;
	vm->moving = true;
	sim_vm_boot(vm);
	for (k = 0; k < image->n; k++)
		sim_sock_run(image->sock[k].sock);
}
