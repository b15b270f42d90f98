// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * socket.c - what the guest module does between applications, TCP and the core
 *
 * An application that sleeps in its calls has a thread that sends and one that receives (poll.c has
 * the others); each byte is a function of the connection, the direction and the position.
 */
#include "sim.h"

/* Bytes on TCP while the peer has not followed out of a ring (vmcomm_tx_detour()). */
#define SIM_DETOUR 2048

u8 sim_byte(const struct sim_sock *sender, u64 pos)
{
	u64 z = ((pos >> 3) + 1) * 0x9e3779b97f4a7c15ULL + (u64)sender->id * 0xbf58476d1ce4e5b9ULL;

	z ^= z >> 29;
	z *= 0x94d049bb133111ebULL;
	return (u8)(z >> (8 * (pos & 7)));
}

void sim_sock_lock(struct sim_sock *s)
{
	sim_yield();
	if (sim.cur->locks)
		sim_fail("%s: socket lock inside a spinlock", sim.cur->name);
	while (s->owner)
		sim_sleep(&s->owner, 0, "socket lock");
	s->owner = sim.cur;
	if (sim.cur->cpu)
		sim_rmb();
}

void sim_sock_unlock(struct sim_sock *s)
{
	struct sim_cpu *cpu = sim.cur->cpu;

	/* The next owner may be on another CPU and sees all that we did. */
	if (cpu && s->vm->ncpu > 1)
		sim_cpu_drain(cpu, SIM_NEVER);
	s->owner = NULL;
	sim_wake(&s->owner);
	sim_yield();
}

void sim_sock_wake(struct sim_sock *s)
{
	s->wakes++;
	sim_wake(&s->wakes);
}

void sim_sock_ready(struct sim_sock *s)
{
	s->edge = true;
	sim_sock_wake(s);
}

void sim_sock_reset(struct sim_sock *s)
{
	if (s->closed || s->reset)
		return;
	s->reset = true;
	s->refused = true;
	sim_tcp_reset(s);
	sim_sock_ready(s);
}

void sim_sock_broken(struct sim_sock *s)
{
	s->broken = true;
	sim.count.found += s->conn.reason == VMCOMM_REASON_REVERTED;
	/* Where nobody lies only the memory of a VM that died may look wrong. */
	if (!s->peer->vm->crashed && !s->peer->closed && !s->peer->lost && !sim_spoiled(s))
		sim_fail("%s: the core calls connection %u broken", s->vm->name, s->id);
	sim_sock_reset(s);
}

/* The socket lock is held; gives it up until the wait queue has been woken since @seq. */
void sim_sock_wait(struct sim_sock *s, u64 seq, bool *asleep, u64 timeout, const char *what)
{
	sim_sock_unlock(s);
	if (s->wakes == seq) {
		*asleep = true;
		sim_sleep(&s->wakes, timeout, what);
		*asleep = false;
	}
	sim_sock_lock(s);
}

bool sim_sock_over(const struct sim_sock *s)
{
	return s->reset || s->want_close;
}

/* All that TCP is given is on its way at once. */
static enum vmcomm_next sim_tx_next(struct sim_sock *s, u32 flags)
{
	return vmcomm_tx_next(&s->conn, s->out->write_seq, s->out->write_seq, s->out->una, flags);
}

static void sim_sock_stale(struct sim_sock *s)
{
	if (s->conn.pair && vmcomm_node_stale(s->conn.node))
		vmcomm_node_refresh(s->conn.node);
}

/*
 * Put pending bytes on TCP, or wait until it is known which there are. The socket lock is held.
 * Return: false: it would have to wait, and @wait says not to.
 */
static bool sim_sock_settle(struct sim_sock *s, enum vmcomm_next next, u64 seq, bool wait)
{
	const u8 *p;
	u32 n;

	s->tx_room = 0;
	if (next == VMCOMM_NEXT_WAIT) {
		if (!wait)
			return false;
		sim_sock_wait(s, seq, &s->tx_asleep, 2000, "the peer's final position");
		return true;
	}
	p = vmcomm_tx_pending(&s->conn, &n);
	if (!n)
		sim_fail("HELD without pending bytes");
	n = sim_tcp_send(s->out, p, n);
	sim.count.pended += n;
	if (n)
		vmcomm_tx_pended(&s->conn, n);
	else if (wait)
		sim_sock_wait(s, seq, &s->tx_asleep, 0, "room in TCP for pending bytes");
	return n || wait;
}

/* The two ends met and do not agree: nobody may be reading or writing, so end it. Socket lock held. */
void sim_sock_reverted(struct sim_sock *s)
{
	if (s->conn.broken && s->conn.reason == VMCOMM_REASON_REVERTED && !sim_sock_over(s))
		sim_sock_broken(s);
}

/*
 * Bytes that the peer may not have taken go over TCP as soon as that is known, whether or not there
 * are more: somebody may wait for just these. The socket lock is held.
 */
void sim_sock_doubt(struct sim_sock *s, bool wait)
{
	enum vmcomm_next next;
	u64 seq;

	while ((s->conn.tx.unsettled || s->conn.tx.pend_len) && !sim_sock_over(s) && !s->closed &&
	       !s->out->fin_sent) {
		seq = s->wakes;
		next = sim_tx_next(s, VMCOMM_TX_TCP);
		if (next == VMCOMM_NEXT_BROKEN)
			sim_sock_broken(s);
		else if (next == VMCOMM_NEXT_TCP || !sim_sock_settle(s, next, seq, wait))
			break;
	}
}

/*
 * The ring is full, and the call does not sleep. Who polls asks for room then; an edge-triggered
 * waiter will not. Return: true: the call ends.
 */
static bool sim_sock_full(struct sim_sock *s)
{
	if (vmcomm_tx_grows(&s->conn))
		return false;
	s->tx_room = (1u << s->conn.tx.shift) / 3;
	return s->app != SIM_APP_EDGE || !vmcomm_tx_arm(&s->conn, s->tx_room);
}

/* Sleep until a third of the ring is free. */
static void sim_sock_wait_room(struct sim_sock *s, u64 seq)
{
	u32 room = (1u << s->conn.tx.shift) / 3;
	bool there, outside = sim_chance(2);

	s->tx_room = room;
	if (outside) {
		s->vm->lockless++;
		sim_sock_unlock(s);
	}
	there = vmcomm_tx_arm(&s->conn, room);
	if (outside) {
		s->vm->lockless--;
		if (!there && s->wakes == seq) {
			s->tx_asleep = true;
			sim_sleep(&s->wakes, 0, "room in the ring");
			s->tx_asleep = false;
		}
		sim_sock_lock(s);
	} else if (!there) {
		sim_sock_wait(s, seq, &s->tx_asleep, 0, "room in the ring");
	}
}

void sim_sock_send(struct sim_sock *s, u32 n, u32 flags)
{
	bool wait = !(flags & SIM_SEND_NOWAIT), again = false;
	u8 data[8192];
	u32 done = 0, len, room, used, i;
	u64 seq;
	u8 *p;

	for (i = 0; i < n; i++)
		data[i] = sim_byte(s, s->sent + i);
	sim_sock_lock(s);
	while (done < n && !again && !sim_sock_over(s)) {
		enum vmcomm_next next;

		seq = s->wakes;
		sim_sock_stale(s);
		next = sim_tx_next(s, flags & VMCOMM_TX_TCP);
		switch (next) {
		case VMCOMM_NEXT_RING:
			if (!vmcomm_tx_room(&s->conn)) {
				if (s->conn.broken)
					sim_sock_broken(s);
				else if (wait)
					sim_sock_wait_room(s, seq);
				else
					again = sim_sock_full(s);
				break;
			}
			p = vmcomm_tx_window(&s->conn, &len);
			if (!len)
				sim_fail("room in the ring, but no window");
			if (len > n - done)
				len = n - done;
			if (sim_chance(4))
				len = 1 + sim_below(len);
			vmcomm_copy_to_shared(p, data + done, len);
			done += len;
			s->sent += len;
			sim.count.ring_bytes += len;
			vmcomm_tx_commit(&s->conn, len);
			break;
		case VMCOMM_NEXT_TCP:
			len = n - done;
			if (sim_chance(4))
				len = 1 + sim_below(len);
			room = sim_tcp_room(s->out);
			if (!(flags & VMCOMM_TX_TCP) && vmcomm_tx_detour(&s->conn)) {
				used = s->out->size - room;
				room = used < SIM_DETOUR ? SIM_DETOUR - used : 0;
			}
			len = sim_tcp_send(s->out, data + done, len < room ? len : room);
			if (!len) {
				s->tx_room = 0;
				again = !wait;
				if (wait)
					sim_sock_wait(s, seq, &s->tx_asleep, 0, "room in TCP");
			}
			done += len;
			s->sent += len;
			break;
		case VMCOMM_NEXT_HELD:
		case VMCOMM_NEXT_WAIT:
			again = !sim_sock_settle(s, next, seq, wait);
			break;
		default:
			sim_sock_broken(s);
		}
	}
	sim_sock_doubt(s, wait);
	sim_sock_unlock(s);
	sim.count.bytes += done;
}

/*
 * Before a FIN, or before the socket goes: nothing may be left that TCP has to carry. Return: false:
 * something is, and @wait says not to wait.
 */
static bool sim_sock_flush(struct sim_sock *s, bool wait)
{
	enum vmcomm_next next;
	u64 seq;

	while (!s->reset && !s->out->fin_sent) {
		seq = s->wakes;
		sim_sock_stale(s);
		next = sim_tx_next(s, VMCOMM_TX_TCP * sim_below(2));
		if (next == VMCOMM_NEXT_BROKEN)
			sim_sock_broken(s);
		else if (next != VMCOMM_NEXT_WAIT && next != VMCOMM_NEXT_HELD)
			return true;
		else if (!sim_sock_settle(s, next, seq, wait))
			return false;
	}
	return true;
}

bool sim_sock_shutdown(struct sim_sock *s, bool wait)
{
	bool done;

	sim_sock_lock(s);
	done = sim_sock_flush(s, wait);
	if (done && !s->reset) {
		sim_trace("%s socket %u: FIN after %llu bytes", s->vm->name, s->id,
			  (unsigned long long)s->sent);
		s->sent_fin = true;
		sim_tcp_fin(s->out);
	}
	sim_sock_unlock(s);
	return done;
}

/* Compare what came with what was sent. */
static void sim_sock_take(struct sim_sock *s, const u8 *data, u32 n, const char *path)
{
	u32 i;

	sim_late_settle();
	if (s->peer->turns)
		sim_sock_wake(s->peer);
	if (sim_garbled(s)) {
		s->received += n;
		sim.count.progress++;
		return;
	}
	for (i = 0; i < n; i++)
		if (data[i] != sim_byte(s->peer, s->received + i))
			sim_fail("%s socket %u: byte %llu is wrong (read from %s, %u bytes, offset %u in "
				 "this read; sent so far %llu)",
				 s->vm->name, s->id, (unsigned long long)s->received + i, path, n, i,
				 (unsigned long long)s->peer->sent);
	s->received += n;
	sim.count.progress++;
	if (s->received > s->peer->sent && !s->set_back)
		sim_fail("%s socket %u: more bytes came than were sent", s->vm->name, s->id);
}

/* Read once; sleeps if there is nothing, unless @flags says not to. Return: bytes. */
u32 sim_sock_recv(struct sim_sock *s, u32 max, u32 flags)
{
	u32 n = 0, len, copied, rcv_nxt, got = 0, all = 0;
	enum vmcomm_next next;
	u8 data[8192];
	const u8 *p;
	bool fin, there, outside;
	u64 seq;

	sim_sock_lock(s);
	if (!s->ready) {
		s->ready = true;
		if (s->vm->enabled)
			vmcomm_conn_ready(&s->conn);
	}
	while (all < max && !s->eof && !sim_sock_over(s)) {
		got = 0;
		seq = s->wakes;
		sim_sock_stale(s);
		copied = s->in->copied_seq;
		fin = s->in->fin_in;
		rcv_nxt = s->in->rcv_nxt;
		next = vmcomm_rx_next(&s->conn, copied, rcv_nxt, &n);
		switch (next) {
		case VMCOMM_NEXT_TCP:
			if (n > rcv_nxt - copied)
				sim_fail("the core allows to read more from TCP than there is");
			if (n) {
				got = sim_tcp_recv(s->in, data, n < max - all ? n : max - all);
				if (got)
					sim_sock_take(s, data, got, "TCP");
				else
					s->eof = true;
			}
			break;
		case VMCOMM_NEXT_RING:
		case VMCOMM_NEXT_HELD:
			if (!n)
				sim_fail("RING or HELD with nothing in it");
			p = vmcomm_rx_window(&s->conn, 0, &len);
			if (!p || !len) {
				if (!sim_spoiled(s))
					sim_fail("bytes in the ring, but no window");
				sim_sock_reset(s);
				break;
			}
			if (len > max - all)
				len = max - all;
			if (next == VMCOMM_NEXT_HELD)
				memcpy(data, p, len);
			else
				vmcomm_copy_from_shared(data, p, len);
			if (!vmcomm_rx_intact(&s->conn)) {
				sim_sock_reset(s);
				break;
			}
			vmcomm_rx_consume(&s->conn, len);
			sim_sock_take(s, data, len, next == VMCOMM_NEXT_HELD ? "held" : "ring");
			if (next == VMCOMM_NEXT_HELD)
				sim.count.held += len;
			got = len;
			break;
		case VMCOMM_NEXT_WAIT:
			if (fin && copied + 1 == rcv_nxt)
				s->eof = true;
			break;
		default:
			sim_sock_broken(s);
		}
		all += got;
		if (got && flags & SIM_RECV_FULL)
			continue;
		if (all || s->eof || sim_sock_over(s) || flags & SIM_RECV_NOWAIT)
			break;
		outside = sim_chance(2);
		if (outside) {
			s->vm->lockless++;
			sim_sock_unlock(s);
		}
		there = vmcomm_rx_arm(&s->conn, copied);
		if (outside) {
			s->vm->lockless--;
			if (!there && s->wakes == seq) {
				s->rx_asleep = true;
				sim_sleep(&s->wakes, 0, "bytes");
				s->rx_asleep = false;
			}
			sim_sock_lock(s);
		} else if (!there) {
			sim_sock_wait(s, seq, &s->rx_asleep, 0, "bytes");
		}
	}
	if (s->eof && s->received != s->peer->sent && !sim_garbled(s) && !s->set_back)
		sim_fail("%s socket %u: end of file after %llu bytes, %llu were sent", s->vm->name,
			 s->id, (unsigned long long)s->received,
			 (unsigned long long)s->peer->sent);
	sim_sock_rearm(s, !got);
	sim_sock_unlock(s);
	return all;
}

static void sim_sock_close(struct sim_sock *s)
{
	bool unread;

	sim_sock_lock(s);
	sim_sock_flush(s, true);
	unread = vmcomm_conn_close(&s->conn);
	unread |= s->in->rcv_nxt - s->in->fin_in != s->in->copied_seq;
	sim_trace("%s socket %u: closed%s%s, %llu bytes sent, %llu received", s->vm->name, s->id,
		  unread ? ", unread bytes" : "", s->reset ? ", reset" : "",
		  (unsigned long long)s->sent, (unsigned long long)s->received);
	s->closed = true;
	sim.count.progress++;
	if (!s->reset) {
		if (unread) {
			s->refused = true;
			sim_tcp_reset(s);
		} else {
			sim_tcp_fin(s->out);
		}
	}
	sim_sock_unlock(s);
	while (s->holds)
		sim_pause(10);
	if (s->eof)
		sim.count.eofs++;
	if (s->reset)
		sim.count.resets++;
	vmcomm_conn_deinit(&s->conn);
}

static void sim_sock_thread_ends(struct sim_sock *s)
{
	if (!--s->threads)
		sim_sock_close(s);
}

/* Is it this end's turn, as its peer's program has read all? */
bool sim_sock_turn(const struct sim_sock *s)
{
	return !s->turns || s->peer->closed || s->peer->received >= s->sent;
}

/* Programs that do not wait for the end. */
void sim_sock_early_close(struct sim_sock *s)
{
	if (s->sent >= s->stop_at && !s->want_close) {
		s->want_close = true;
		sim_sock_ready(s);
	}
}

static void sim_sender(void *arg)
{
	struct sim_sock *s = arg;
	u64 left;
	u32 n;

	if (s->app != SIM_APP_BLOCK)
		sim_poll_sender(s);
	while (s->sent < s->total && !sim_sock_over(s)) {
		n = sim_size(s->piece_max);
		left = s->total - s->sent;
		sim_sock_send(s, n < left ? n : (u32)left, sim_chance(s->oob) ? VMCOMM_TX_TCP : 0);
		sim_sock_early_close(s);
		while (!sim_sock_turn(s) && !sim_sock_over(s))
			sim_sleep(&s->wakes, 0, "its turn");
		if (s->think && sim_chance(8))
			sim_pause(sim_size(s->think));
	}
	if (!sim_sock_over(s))
		sim_sock_shutdown(s, true);
	sim_sock_thread_ends(s);
}

static void sim_looper(void *arg)
{
	sim_poll_loop(arg);
	sim_sock_thread_ends(arg);
}

static void sim_receiver(void *arg)
{
	struct sim_sock *s = arg;

	if (s->app != SIM_APP_BLOCK)
		sim_poll_receiver(s);
	while (!s->eof && !sim_sock_over(s)) {
		sim_sock_peeks(s, true);
		sim_sock_recv(s, sim_size(s->piece_max), 0);
		if (s->think && sim_chance(16))
			sim_pause(sim_size(s->think));
	}
	sim_sock_thread_ends(s);
}

void sim_sock_run(struct sim_sock *s)
{
	struct sim_vm *vm = s->vm;
	char name[32];

	s->established = true;
	s->threads = s->app == SIM_APP_LOOP ? 1 : 2;
	if (s->app == SIM_APP_LOOP) {
		snprintf(name, sizeof(name), "loop %u", s->id);
		sim_spawn(vm, &vm->cpu[sim_below(vm->ncpu)], name, sim_looper, s);
		return;
	}
	snprintf(name, sizeof(name), "send %u", s->id);
	sim_spawn(vm, &vm->cpu[sim_below(vm->ncpu)], name, sim_sender, s);
	snprintf(name, sizeof(name), "recv %u", s->id);
	sim_spawn(vm, &vm->cpu[sim_below(vm->ncpu)], name, sim_receiver, s);
}

static void sim_sock_names(struct sim_sock *s, struct vmcomm_conn_names *names)
{
	memcpy(names->laddr, s->vm->addr, 16);
	memcpy(names->raddr, s->peer->vm->addr, 16);
	names->lport = (u16)(s->client ? 1024 + s->id : 80);
	names->rport = (u16)(s->client ? 80 : 1024 + s->id);
}

static void sim_sock_attached(struct sim_sock *s)
{
	sim.count.attached++;
	s->lost |= s->vm->lost;
}

/* The end of the handshake at this end, in softirq; nobody else knows the socket yet. */
void sim_sock_establish(struct sim_sock *s)
{
	struct vmcomm_conn_names names;
	struct sim_vm *vm = s->vm;
	int slot, err;

	vmcomm_conn_init(&s->conn, s->out->write_seq, s->in->rcv_nxt, s->client);
	if (!sim_vm_get(vm))
		return;
	slot = vmcomm_node_find(&vm->node, s->peer->vm->addr);
	if (slot >= 0) {
		sim_sock_names(s, &names);
		vmcomm_conn_had(&s->conn, s->in->rcv_nxt - s->in->fin_in);
		if (s->client)
			err = vmcomm_conn_offer(&vm->node, (u32)slot, &s->conn, &names, false);
		else
			err = vmcomm_conn_accept(&vm->node, (u32)slot, &s->conn, &names);
		if (!err)
			sim_sock_attached(s);
		sim_trace("%s socket %u: %s %d", vm->name, s->id, s->client ? "offer" : "accept", err);
	}
	sim_vm_put(vm);
}

/* In process context, after the pair came up: shared memory for an old connection. */
static void sim_sock_attach(struct sim_sock *s)
{
	struct vmcomm_conn_names names;
	struct sim_vm *vm = s->vm;
	int slot, err;

	sim_sock_lock(s);
	if (!s->closed && !s->reset && s->established && !s->conn.pair) {
		slot = vmcomm_node_find(&vm->node, s->peer->vm->addr);
		if (slot >= 0) {
			sim_sock_names(s, &names);
			vmcomm_conn_had(&s->conn, s->in->rcv_nxt - s->in->fin_in);
			if (s->client)
				err = vmcomm_conn_offer(&vm->node, (u32)slot, &s->conn, &names, true);
			else
				err = vmcomm_conn_accept(&vm->node, (u32)slot, &s->conn, &names);
			if (!err)
				sim_sock_attached(s);
			sim_sock_reverted(s);
			sim_trace("%s socket %u: late %s %d", vm->name, s->id,
				  s->client ? "offer" : "accept", err);
		}
	}
	sim_sock_unlock(s);
}

void sim_sock_reoffer(struct sim_sock *s)
{
	sim_sock_attach(s);
}

void sim_sock_accept(struct sim_sock *s)
{
	sim_sock_attach(s);
}

/* Evict until it is done. Return: the last result. */
int sim_sock_evict(struct sim_sock *s, u32 slot)
{
	u32 tries = 0;
	int err = 0;

	for (;;) {
		sim_sock_lock(s);
		if (!s->conn.pair || s->conn.pair->slot != slot)
			break;
		err = vmcomm_conn_evict(&s->conn, s->in->copied_seq,
					s->conn.pair->state == VMCOMM_PEER_DYING);
		if (err != -EAGAIN && err != -ENOMEM)
			break;
		/* A liar could keep it waiting for ever: give the connection up. */
		if (err == -EAGAIN && sim_spoiled(s) && ++tries > 100) {
			vmcomm_conn_close(&s->conn);
			err = -EPROTO;
			break;
		}
		sim_sock_unlock(s);
		sim_pause(sim_between(10, 300));
	}
	if (err == -EPROTO)
		sim_sock_broken(s);
	sim_sock_doubt(s, false);
	sim.count.evicts++;
	sim_sock_unlock(s);
	sim_sock_ready(s);
	return err;
}

void sim_sock_idle(struct sim_sock *s)
{
	sim_sock_lock(s);
	if (!s->closed && s->established) {
		vmcomm_tx_idle(&s->conn);
		/* TCP had no room for them when they were given back, and the program sends no more. */
		sim_sock_doubt(s, false);
	}
	sim_sock_unlock(s);
}
