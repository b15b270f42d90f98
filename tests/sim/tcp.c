// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tcp.c - TCP as the guests' kernels would do it: reliable, in order, with a window
 *
 * A segment arrives after some time; by then, but perhaps not earlier, all that its sender's CPU
 * stored before it is in memory. Loss and reordering on the wire show only as time.
 */
#include "sim.h"

struct sim_ack {
	struct sim_tcp *tcp;
	u32 seq, edge, ts;
};

struct sim_segment {
	struct sim_segment *next;
	u32 seq;
	u32 n;
	u32 ts; /* time stamp: the sender's clock */
	bool fin;
	struct sim_cpu *cpu;
	u64 mark;
	u8 data[];
};

void sim_tcp_init(struct sim_tcp *t, struct sim_sock *from, struct sim_sock *to, u32 isn)
{
	memset(t, 0, sizeof(*t));
	t->from = from;
	t->to = to;
	t->size = 1;
	while (t->size < sim.p.window)
		t->size *= 2;
	t->buf = malloc(t->size);
	if (!t->buf)
		abort();
	t->write_seq = t->una = t->rcv_nxt = t->copied_seq = isn;
	t->edge = isn + t->size;
}

static u64 sim_tcp_delay(void)
{
	u64 d = 1 + sim_below(sim.p.tcp_delay);

	return sim_chance(16) ? d * 10 : d;
}

/* The clock of a VM that was set back; it never catches up. */
static u32 sim_tcp_clock(const struct sim_sock *s)
{
	return s->ts_frozen ? s->ts_frozen : (u32)sim.now;
}

/* How far the sender is: to be called when an acknowledgement of @seq arrives. */
void sim_tcp_acked(struct sim_tcp *t, u32 seq, u32 edge)
{
	/* It may be too old, or about what a VM that was set back has not sent yet: then it says nothing. */
	if ((s32)(seq - t->una) < 0 || (s32)(seq - t->write_seq) > 0)
		return;
	t->una = seq;
	if ((s32)(edge - t->edge) > 0)
		t->edge = edge;
}

static void sim_tcp_ack_arrives(void *a, u64 b)
{
	struct sim_ack *ack = a;
	struct sim_tcp *t = ack->tcp;

	t->flying--;
	if (!ack->ts || ack->ts >= t->from->in->ts_recent)
		sim_tcp_acked(t, ack->seq, ack->edge);
	sim_sock_wake(t->from);
	free(ack);
}

static void sim_tcp_ack(struct sim_tcp *t)
{
	struct sim_ack *ack = malloc(sizeof(*ack));

	if (!ack)
		abort();
	ack->tcp = t;
	ack->seq = t->rcv_nxt - t->fin_in;
	ack->edge = t->copied_seq + t->size;
	ack->ts = t->to->ts_frozen;
	t->flying++;
	sim_at(sim_tcp_delay(), sim_tcp_ack_arrives, ack, 0);
}

/*
 * Only a VM that was set back sends what was there before, or something after a hole. Its segments are
 * too old if the peer has had newer ones (PAWS).
 */
static bool sim_tcp_take(struct sim_tcp *t, const struct sim_segment *seg)
{
	u32 skip = t->rcv_nxt - seg->seq, i;

	if (seg->ts < t->ts_recent || (s32)skip < 0 || skip > seg->n || t->fin_in ||
	    t->rcv_nxt - t->copied_seq + seg->n - skip > t->size)
		return false;
	t->ts_recent = seg->ts;
	for (i = skip; i < seg->n; i++)
		t->buf[(seg->seq + i) & (t->size - 1)] = seg->data[i];
	t->rcv_nxt += seg->n - skip + seg->fin;
	t->fin_in = seg->fin;
	return true;
}

static void sim_tcp_arrive(void *a, u64 b)
{
	struct sim_tcp *t = a;
	struct sim_segment *seg = t->first;

	if (!t->to->closed && (t->to->vm->paused || !t->to->established)) {
		sim_at(sim_tcp_delay(), sim_tcp_arrive, a, b);
		return;
	}
	/* Whichever event comes first brings the segment that was sent first. */
	t->first = seg->next;
	sim_cpu_drain(seg->cpu, seg->mark);
	t->flying--;
	if (t->to->closed) {
		/* Data for a socket that is not there any more. */
		if (!seg->fin && !t->to->vm->crashed) {
			t->to->refused = true;
			sim_tcp_reset(t->to);
		}
	} else {
		if (sim_tcp_take(t, seg))
			sim_sock_ready(t->to);
		else if (!t->to->set_back)
			sim_fail("%s socket %u: a segment comes twice, or too early",
				 t->to->vm->name, t->to->id);
		sim_tcp_ack(t);
	}
	free(seg);
}

/* @n bytes that end at write_seq. */
static void sim_tcp_segment(struct sim_tcp *t, const u8 *data, u32 n, bool fin)
{
	struct sim_segment *seg = malloc(sizeof(*seg) + n);
	u64 when = sim.now + sim_tcp_delay();

	if (!seg)
		abort();
	seg->next = NULL;
	if (t->first)
		t->last->next = seg;
	else
		t->first = seg;
	t->last = seg;
	seg->fin = fin;
	seg->seq = t->write_seq - n;
	seg->n = n;
	seg->ts = sim_tcp_clock(t->from);
	if (n)
		memcpy(seg->data, data, n);
	seg->cpu = sim.cur->cpu;
	seg->mark = seg->cpu->nr;
	if (when < t->last_arrival)
		when = t->last_arrival;
	t->last_arrival = when;
	t->flying++;
	sim_at(when - sim.now, sim_tcp_arrive, t, 0);
}

u32 sim_tcp_room(struct sim_tcp *t)
{
	return t->edge - t->write_seq;
}

u32 sim_tcp_send(struct sim_tcp *t, const u8 *data, u32 n)
{
	u32 room = sim_tcp_room(t);

	if (t->fin_sent)
		sim_fail("bytes are given to TCP after a FIN");
	if (n > room)
		n = room;
	t->write_seq += n;
	if (n)
		sim_tcp_segment(t, data, n, false);
	return n;
}

void sim_tcp_fin(struct sim_tcp *t)
{
	if (t->fin_sent)
		return;
	t->fin_sent = true;
	sim_tcp_segment(t, NULL, 0, true);
}

/* @off bytes after the next one, without taking them. Bytes, not the FIN. */
u32 sim_tcp_peek(const struct sim_tcp *t, u32 off, u8 *data, u32 n)
{
	u32 avail = t->rcv_nxt - t->fin_in - t->copied_seq, i;

	avail = off < avail ? avail - off : 0;
	if (n > avail)
		n = avail;
	for (i = 0; i < n; i++)
		data[i] = t->buf[(t->copied_seq + off + i) & (t->size - 1)];
	return n;
}

u32 sim_tcp_recv(struct sim_tcp *t, u8 *data, u32 n)
{
	n = sim_tcp_peek(t, 0, data, n);
	t->copied_seq += n;
	if (n)
		sim_tcp_ack(t);
	return n;
}

static void sim_tcp_rst_arrives(void *a, u64 b)
{
	struct sim_sock *s = a;

	(void)b;
	if (!s->closed && !s->reset) {
		sim_trace("%s socket %u: reset by peer", s->vm->name, s->id);
		s->reset = true;
		sim_sock_ready(s);
	}
}

void sim_tcp_reset(struct sim_sock *from)
{
	sim_at(sim_tcp_delay(), sim_tcp_rst_arrives, from->peer, 0);
}
