// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tcp.c - TCP as the guests' kernels would do it: reliable, in order, with a window
 *
 * A segment arrives after some time; by then, but perhaps not earlier, all that its sender's CPU
 * stored before it is in memory. Loss and reordering on the wire show only as time.
 */
#include "sim.h"

struct sim_segment {
	struct sim_segment *next;
	u32 end;
	bool fin;
	struct sim_cpu *cpu;
	u64 mark;
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
}

static u64 sim_tcp_delay(void)
{
	u64 d = 1 + sim_below(sim.p.tcp_delay);

	return sim_chance(16) ? d * 10 : d;
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
		t->rcv_nxt = seg->end;
		t->fin_in |= seg->fin;
		sim_sock_ready(t->to);
	}
	free(seg);
}

static void sim_tcp_segment(struct sim_tcp *t, bool fin)
{
	struct sim_segment *seg = malloc(sizeof(*seg));
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
	seg->end = t->write_seq + fin;
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
	return t->size - (t->write_seq - t->una);
}

u32 sim_tcp_send(struct sim_tcp *t, const u8 *data, u32 n)
{
	u32 room = sim_tcp_room(t), i;

	if (t->fin_sent)
		sim_fail("bytes are given to TCP after a FIN");
	if (n > room)
		n = room;
	for (i = 0; i < n; i++)
		t->buf[(t->write_seq + i) & (t->size - 1)] = data[i];
	t->write_seq += n;
	if (n)
		sim_tcp_segment(t, false);
	return n;
}

void sim_tcp_fin(struct sim_tcp *t)
{
	if (t->fin_sent)
		return;
	t->fin_sent = true;
	sim_tcp_segment(t, true);
}

static void sim_tcp_acked(void *a, u64 b)
{
	struct sim_tcp *t = a;

	t->flying--;
	if ((s32)((u32)b - t->una) > 0)
		t->una = (u32)b;
	sim_sock_wake(t->from);
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
	if (n) {
		t->flying++;
		sim_at(sim_tcp_delay(), sim_tcp_acked, t, t->copied_seq);
	}
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
