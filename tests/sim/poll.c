// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * poll.c - applications that poll, peek and never sleep in a call (M10)
 *
 * What the guest module's poll.c does, and three kinds of programs on top of it: poll() for each
 * direction, one loop for both, and edge-triggered epoll, where a wake-up that does not come for
 * bytes that do is for ever.
 */
#include "sim.h"

/* Lockless: can bytes, or an end, be read? If not, the next ones wake. */
static bool sim_poll_in(struct sim_sock *s)
{
	u32 at = s->in->copied_seq, n;

	s->vm->lockless++;
	n = vmcomm_rx_readable(&s->conn, at);
	if (!n) {
		vmcomm_rx_arm(&s->conn, at);
		n = vmcomm_rx_readable(&s->conn, at);
	}
	if (!n && vmcomm_rx_unread(&s->conn) && s->in->rcv_nxt != at)
		n = 1; /* bytes on TCP come first */
	s->vm->lockless--;
	return n || s->in->rcv_nxt != s->in->copied_seq || sim_sock_over(s);
}

/* Lockless: is there room for a third of what takes the next bytes? */
static bool sim_poll_out(struct sim_sock *s)
{
	u32 room = (1u << VMCOMM_READ_ONCE(s->conn.tx.shift)) / 3;
	bool ready;

	s->tx_room = 0;
	s->vm->lockless++;
	if (vmcomm_tx_in_ring(&s->conn) && !vmcomm_tx_grows(&s->conn)) {
		ready = vmcomm_tx_writable(&s->conn);
		if (!ready)
			ready = vmcomm_tx_arm(&s->conn, room) && vmcomm_tx_writable(&s->conn);
		s->tx_room = room;
	} else {
		ready = sim_tcp_room(s->out) >= s->out->size / 3;
	}
	s->vm->lockless--;
	return ready || sim_sock_over(s);
}

static u32 sim_sock_left(struct sim_sock *s)
{
	return s->in->rcv_nxt - s->in->copied_seq + vmcomm_rx_unread(&s->conn);
}

static void sim_peek_compare(struct sim_sock *s, const u8 *data, u32 n, u64 pos, const char *path)
{
	u32 i;

	sim_late_settle();
	for (i = 0; i < n && !sim_garbled(s); i++)
		if (data[i] != sim_byte(s->peer, pos + i))
			sim_fail("%s socket %u: byte %llu, peeked at in %s, is wrong", s->vm->name, s->id,
				 (unsigned long long)pos + i, path);
	if (pos + n > s->peer->sent && !sim_garbled(s) && !s->set_back)
		sim_fail("%s socket %u: more bytes are seen than were sent", s->vm->name, s->id);
}

/* One look at all that can be seen. The socket lock is held. */
static u32 sim_peek_all(struct sim_sock *s, u32 max)
{
	u32 copied = s->in->copied_seq, rcv_nxt = s->in->rcv_nxt, tcp, n, done, off, len;
	struct vmcomm_rx_plan plan;
	u8 data[8192];
	const u8 *p;

	tcp = rcv_nxt - s->in->fin_in - copied;
	if (vmcomm_rx_next(&s->conn, copied, rcv_nxt, &n) == VMCOMM_NEXT_BROKEN) {
		sim_sock_broken(s);
		return 0;
	}
	vmcomm_rx_plan(&s->conn, copied, rcv_nxt, &plan);
	n = plan.before < tcp ? plan.before : tcp;
	done = sim_tcp_peek(s->in, 0, data, n < max ? n : max);
	sim_peek_compare(s, data, done, s->received, "TCP");
	if (done == max || !plan.outside)
		return done;
	for (off = 0; off < plan.outside && done < max; off += len) {
		p = vmcomm_rx_window(&s->conn, off, &len);
		if (!len)
			break;
		len = len < max - done ? len : max - done;
		if (s->conn.rx.held_len)
			memcpy(data, p, len);
		else
			vmcomm_copy_from_shared(data, p, len);
		if (!vmcomm_rx_intact(&s->conn)) {
			sim_sock_reset(s);
			return done;
		}
		sim_peek_compare(s, data, len, s->received + done, "the ring");
		done += len;
	}
	if (off < plan.outside || done == max)
		return done;
	off = plan.before;
	n = plan.after < tcp - off ? plan.after : tcp - off;
	n = sim_tcp_peek(s->in, off, data, n < max - done ? n : max - done);
	sim_peek_compare(s, data, n, s->received + done, "TCP behind the ring");
	return done + n;
}

/* MSG_PEEK; with MSG_WAITALL for @want bytes. Return: bytes. */
static u32 sim_sock_peek(struct sim_sock *s, u32 max, u32 want)
{
	u32 n, seen;
	bool fin, more;
	u64 seq;

	sim_sock_lock(s);
	for (;;) {
		seq = s->wakes;
		seen = sim_sock_left(s);
		fin = s->in->fin_in;
		n = sim_peek_all(s, max);
		if (n >= want || fin || s->eof || sim_sock_over(s))
			break;
		more = (s->conn.pair && vmcomm_rx_arm_edge(&s->conn)) || sim_sock_left(s) != seen;
		if (!more) {
			s->rx_seen = n;
			sim_sock_wait(s, seq, &s->rx_asleep, 0, "more bytes than were seen");
			s->rx_seen = 0;
		}
	}
	sim_sock_unlock(s);
	return n;
}

/* Peek now and then before a read. @wait: programs that peek may also sleep for more. */
void sim_sock_peeks(struct sim_sock *s, bool wait)
{
	u32 n, max = sim_size(8192);

	if (!sim_chance(s->peek) || s->eof || sim_sock_over(s))
		return;
	sim.count.peeks++;
	n = sim_sock_peek(s, max, wait && !s->peer->turns ? sim_size(max < 64 ? max : 64) : 0);
	/* What was seen can be read. While something cannot be mapped there may be a moment without. */
	if (!n || sim.p.late || s->lost || sim_sock_over(s))
		return;
	if (!sim_sock_recv(s, sim_size(s->piece_max), SIM_RECV_NOWAIT) && !sim_spoiled(s) &&
	    !s->lost && !sim_sock_over(s))
		sim_fail("%s socket %u: %u bytes were seen, and none can be read", s->vm->name, s->id, n);
}

/* Edge-triggered waiters hear of each arrival, of the same bytes once. Lockless or socket lock. */
void sim_sock_tell(struct sim_sock *s)
{
	u64 head = vmcomm_rx_head(&s->conn);

	if (s->told == head && s->told_gen == s->conn.gen)
		return;
	s->told = head;
	s->told_gen = s->conn.gen;
	sim_sock_ready(s);
}

/* At the end of each read. Socket lock held. @all: nothing was left when the read looked last. */
void sim_sock_rearm(struct sim_sock *s, bool all)
{
	bool moved;

	if (s->app != SIM_APP_EDGE || !s->conn.pair)
		return;
	moved = vmcomm_rx_arm_edge(&s->conn);
	/* They came between the read's last look and this one: whoever sent them did not ring. */
	if (!moved && all)
		moved = vmcomm_rx_readable(&s->conn, s->in->copied_seq) != 0;
	if (moved)
		sim_sock_tell(s);
}

static void sim_poll_sleep(struct sim_sock *s, u64 seq, bool in, bool out, u64 timeout)
{
	if (s->wakes != seq)
		return;
	sim.count.polls++;
	s->rx_asleep |= in;
	s->tx_asleep |= out;
	sim_sleep(&s->wakes, timeout, "poll");
	s->rx_asleep &= !in;
	s->tx_asleep &= !out;
}

/* poll() said so, and a moment later it was not true: programs try again. */
static void sim_poll_spurious(void)
{
	sim.count.spurious++;
	sim_pause(sim_between(1, 100));
}

static void sim_poll_read(struct sim_sock *s)
{
	u64 before = s->received;

	sim_sock_peeks(s, false);
	if (!sim_sock_recv(s, sim_size(s->piece_max), SIM_RECV_NOWAIT) && !s->eof &&
	    s->received == before)
		sim_poll_spurious();
}

static void sim_level_receiver(struct sim_sock *s)
{
	u64 seq;

	while (!s->eof && !sim_sock_over(s)) {
		seq = s->wakes;
		if (sim_poll_in(s))
			sim_poll_read(s);
		else
			sim_poll_sleep(s, seq, true, false, 0);
		if (s->think && sim_chance(16))
			sim_pause(sim_size(s->think));
	}
}

static void sim_edge_receiver(struct sim_sock *s)
{
	bool until_short = sim_chance(2), moved;
	u32 got, max;

	s->edge = true; /* it is told of what is there when it is added */
	while (!s->eof && !sim_sock_over(s)) {
		if (!s->edge) {
			sim_poll_sleep(s, s->wakes, true, false, 0);
			continue;
		}
		s->edge = false;
		s->vm->lockless++;
		moved = vmcomm_conn_attached(&s->conn) && vmcomm_rx_arm_edge(&s->conn);
		s->vm->lockless--;
		if (!sim_poll_in(s) && !moved)
			continue;
		do {
			sim_sock_peeks(s, false);
			max = sim_size(s->piece_max);
			got = sim_sock_recv(s, max, SIM_RECV_NOWAIT | SIM_RECV_FULL);
		} while ((until_short ? got == max : got) && !s->eof && !sim_sock_over(s));
		if (s->think && sim_chance(16))
			sim_pause(sim_size(s->think));
	}
}

void sim_poll_receiver(struct sim_sock *s)
{
	if (s->app == SIM_APP_EDGE)
		sim_edge_receiver(s);
	else
		sim_level_receiver(s);
}

/* One send that does not sleep. Return: false: nothing went. */
static bool sim_poll_write(struct sim_sock *s)
{
	u64 left = s->total - s->sent, before = s->sent;
	u32 n = sim_size(s->piece_max);

	sim_sock_send(s, n < left ? n : (u32)left,
		      (sim_chance(s->oob) ? VMCOMM_TX_TCP : 0) | SIM_SEND_NOWAIT);
	return s->sent != before;
}

/* Until all is sent. Who is edge-triggered tries until nothing goes, others ask before each try. */
void sim_poll_sender(struct sim_sock *s)
{
	bool edge = s->app == SIM_APP_EDGE;
	u64 seq;

	while (s->sent < s->total && !sim_sock_over(s)) {
		seq = s->wakes;
		if (!sim_sock_turn(s))
			sim_poll_sleep(s, seq, false, false, 0);
		else if (!edge && !sim_poll_out(s))
			sim_poll_sleep(s, seq, false, true, 0);
		else if (sim_poll_write(s))
			sim_sock_early_close(s);
		else if (edge)
			sim_poll_sleep(s, seq, false, true, 0);
		else
			sim_poll_spurious();
		if (s->think && sim_chance(8))
			sim_pause(sim_size(s->think));
	}
}

/* Both directions in one thread. */
void sim_poll_loop(struct sim_sock *s)
{
	bool did, out;
	u64 seq;

	while (!sim_sock_over(s) && !(s->eof && s->sent_fin)) {
		seq = s->wakes;
		did = false;
		out = s->sent < s->total && sim_sock_turn(s);
		if (out && sim_poll_out(s)) {
			if (!sim_poll_write(s))
				sim_poll_spurious();
			sim_sock_early_close(s);
			did = true;
		} else if (s->sent >= s->total && !s->sent_fin) {
			did = sim_sock_shutdown(s, false);
		}
		if (!s->eof && sim_poll_in(s)) {
			sim_poll_read(s);
			did = true;
		}
		if (!did && !sim_sock_over(s))
			sim_poll_sleep(s, seq, !s->eof, out,
				       s->sent < s->total || s->sent_fin ? 0 : 2000);
		if (s->think && sim_chance(16))
			sim_pause(sim_size(s->think));
	}
}
