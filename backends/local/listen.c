// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * listen.c - listening, and taking offers (M5)
 *
 * Without TCP the offer itself is the connection request: the port is in its names, an event
 * announces it. It is accepted when it comes, as a SYN is, and waits in the listener's queue; if
 * that is full the offer waits, and its vmcomm_connect() with it. A connection request that nobody
 * wants is accepted and closed at once, with the reason in the control block.
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "local.h"

/* member->lock held */
static struct vmcomm_listener *find_listener(struct vmcomm_member *m, u16 port)
{
	struct vmcomm_listener *l;

	for (l = m->listeners; l; l = l->next)
		if (l->port == port)
			return l;
	return NULL;
}

static bool known(struct vmcomm_member *m, u32 slot, u32 seq_local, u32 seq_remote)
{
	struct vmcomm_stream *s = m->hash[(seq_local ^ seq_remote) % LOCAL_HASH];

	for (; s; s = s->hash_next)
		if (s->slot == slot && s->conn.seq_local == seq_local &&
		    s->conn.seq_remote == seq_remote)
			return true;
	return false;
}

static void listener_put(struct vmcomm_listener *l)
{
	struct vmcomm_member *m = l->member;

	if (__atomic_sub_fetch(&l->refs, 1, __ATOMIC_ACQ_REL))
		return;
	if (l->poll_fd >= 0) {
		close(l->poll_fd);
		local_pollers_add(m, -1);
	}
	vmcomm_free(l->offer);
	vmcomm_free(l);
	local_member_put(m);
}

/* member->lock held: readable while the queue is not empty */
static void listener_poll(struct vmcomm_listener *l)
{
	u64 n = 1;

	if (l->poll_fd < 0)
		return;
	if (l->first || l->closed) {
		if (write(l->poll_fd, &n, sizeof(n)) < 0)
			return;
	} else if (read(l->poll_fd, &n, sizeof(n)) < 0) {
		return;
	}
}

static void offer_keep(struct vmcomm_listener *l, u32 slot, u32 idx)
{
	struct local_offer *bigger;
	u32 i, n = l->offer_tail - l->offer_head;

	for (i = l->offer_head; i != l->offer_tail; i++)
		if (l->offer[i % l->offer_size].slot == slot &&
		    l->offer[i % l->offer_size].idx == idx)
			return;
	/* Bounded by the peers' offer tables, unless a peer lies. */
	if (n >= VMCOMM_OFFERS * VMCOMM_SLOTS_MAX)
		return;
	if (n == l->offer_size) {
		bigger = vmcomm_alloc((l->offer_size * 2 + 16) * sizeof(*bigger));
		if (!bigger)
			return;
		for (i = 0; i < n; i++)
			bigger[i] = l->offer[(l->offer_head + i) % l->offer_size];
		vmcomm_free(l->offer);
		l->offer = bigger;
		l->offer_size = l->offer_size * 2 + 16;
		l->offer_head = 0;
		l->offer_tail = n;
	}
	l->offer[l->offer_tail++ % l->offer_size] = (struct local_offer){slot, idx};
}

/* member->lock held. Return: 0: accepted or refused, -EAGAIN: keep the offer, there is no room. */
static int offer_take(struct vmcomm_member *m, struct vmcomm_listener *l, u32 slot,
		      const u32 seq[2], const struct vmcomm_conn_names *names)
{
	struct vmcomm_node *node = &m->node;
	struct vmcomm_stream *s;
	u32 reason = VMCOMM_REASON_NO_ACCEPT;
	int err;

	s = local_stream_new(m, slot, seq[0], seq[1], false);
	if (!s)
		return -EAGAIN;
	s->lport = names->lport;
	s->rport = names->rport;
	err = vmcomm_conn_accept(node, slot, &s->conn, names);
	if (err) {
		/* No block free: later. Withdrawn, or the peer is gone: never. */
		err = err == -ENOENT || err == -ENOTCONN ? 0 : -EAGAIN;
		goto err_stream;
	}
	if (l && local_stream_enter(s)) {
		reason = s->conn.reason;
		l = NULL;
	}
	if (!l) {
		vmcomm_store32(&s->conn.mine->reason, reason);
		vmcomm_conn_close(&s->conn);
		goto err_stream;
	}
	/* The peer's vmcomm_connect() waits until we are in the ring. */
	vmcomm_pair_notify(s->conn.pair, VMCOMM_EVENT(VMCOMM_EVENT_CONN, s->conn.peer_idx, 0),
			   true);
	*l->last = s;
	l->last = &s->queue_next;
	l->queued++;
	listener_poll(l);
	local_wake(m, &l->event);
	return 0;

err_stream:
	local_stream_unlist(s);
	local_stream_put(s);
	return err;
}

/* member->lock held */
static void offer_look(struct vmcomm_member *m, u32 slot, u32 idx)
{
	struct vmcomm_conn_names names;
	struct vmcomm_listener *l;
	u32 seq[2];

	if (vmcomm_offer_read(&m->node, slot, idx, &seq[0], &seq[1]) ||
	    vmcomm_offer_names(&m->node, slot, idx, &names) || known(m, slot, seq[0], seq[1]))
		return;
	l = find_listener(m, names.lport);
	if (!l || l->queued < l->backlog) {
		if (!offer_take(m, l, slot, seq, &names))
			return;
	}
	if (l)
		offer_keep(l, slot, idx);
}

void local_offered(struct vmcomm_node *node, u32 slot, u32 idx)
{
	struct vmcomm_member *m = node->priv;

	pthread_mutex_lock(&m->lock);
	offer_look(m, slot, idx);
	pthread_mutex_unlock(&m->lock);
}

/* member->lock held: take offers that waited, each of them once */
static void offers_retry(struct vmcomm_listener *l)
{
	u32 n = l->offer_tail - l->offer_head;
	struct local_offer o;

	while (n-- && l->queued < l->backlog) {
		o = l->offer[l->offer_head++ % l->offer_size];
		offer_look(l->member, o.slot, o.idx);
	}
}

void local_offers_retry(struct vmcomm_member *m)
{
	struct vmcomm_listener *l;

	pthread_mutex_lock(&m->lock);
	for (l = m->listeners; l; l = l->next)
		offers_retry(l);
	pthread_mutex_unlock(&m->lock);
}

void local_listeners_wake(struct vmcomm_member *m)
{
	struct vmcomm_listener *l;

	pthread_mutex_lock(&m->lock);
	for (l = m->listeners; l; l = l->next)
		local_wake(m, &l->event);
	pthread_mutex_unlock(&m->lock);
}

int vmcomm_listen(struct vmcomm_listener **listener, struct vmcomm_member *m, uint16_t port,
		  unsigned int backlog)
{
	struct vmcomm_listener *l;
	u32 tries;

	if (__atomic_load_n(&m->down, __ATOMIC_ACQUIRE))
		return -ENOTCONN;
	l = vmcomm_alloc(sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->member = m;
	l->refs = 1;
	l->backlog = backlog ? backlog : LOCAL_BACKLOG;
	l->last = &l->first;
	l->poll_fd = -1;

	pthread_mutex_lock(&m->lock);
	for (tries = 0; !port && tries < 65536; tries++) {
		m->next_port = m->next_port >= 60999 || m->next_port < 32768 ?
				       32768 : (u16)(m->next_port + 1);
		if (!find_listener(m, m->next_port))
			port = m->next_port;
	}
	if (!port || find_listener(m, port)) {
		pthread_mutex_unlock(&m->lock);
		vmcomm_free(l);
		return -EADDRINUSE;
	}
	l->port = port;
	l->next = m->listeners;
	l->prev = &m->listeners;
	if (l->next)
		l->next->prev = &l->next;
	m->listeners = l;
	__atomic_add_fetch(&m->refs, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&m->lock);
	*listener = l;
	return 0;
}

uint16_t vmcomm_listener_port(const struct vmcomm_listener *l)
{
	return l->port;
}

int vmcomm_accept(struct vmcomm_stream **stream, struct vmcomm_listener *l, int flags)
{
	struct vmcomm_member *m = l->member;
	struct vmcomm_stream *s;
	bool looked = false;
	int err = 0;
	u32 seen;

	if (flags & ~VMCOMM_DONTWAIT)
		return -EINVAL;
	pthread_mutex_lock(&m->lock);
	l->refs++;
	for (;;) {
		seen = local_seen(&l->event);
		s = l->first;
		if (l->closed)
			err = -EINVAL;
		else if (!s && __atomic_load_n(&m->down, __ATOMIC_ACQUIRE))
			err = -ECONNABORTED;
		if (s || err)
			break;
		pthread_mutex_unlock(&m->lock);
		if (!looked) {
			/* There may be offers that nobody had to hurry to look at. */
			local_events(m);
			looked = true;
		} else if (flags & VMCOMM_DONTWAIT) {
			err = -EAGAIN;
		} else {
			local_wait(m, &l->event, seen, LOCAL_FOREVER);
		}
		pthread_mutex_lock(&m->lock);
		if (err)
			break;
	}
	if (!err) {
		l->first = s->queue_next;
		if (!l->first)
			l->last = &l->first;
		s->queue_next = NULL;
		l->queued--;
		if (!l->first)
			listener_poll(l);
		if (!__atomic_load_n(&m->down, __ATOMIC_ACQUIRE))
			offers_retry(l);
		*stream = s;
	}
	pthread_mutex_unlock(&m->lock);
	listener_put(l);
	return err;
}

void vmcomm_listener_close(struct vmcomm_listener *l)
{
	struct vmcomm_member *m;
	struct vmcomm_stream *s;
	u32 i;

	if (!l)
		return;
	m = l->member;
	pthread_mutex_lock(&m->lock);
	l->closed = true;
	*l->prev = l->next;
	if (l->next)
		l->next->prev = l->prev;
	s = l->first;
	l->first = NULL;
	l->last = &l->first;
	/* Nobody listens any more: those that waited are refused. */
	if (!__atomic_load_n(&m->down, __ATOMIC_ACQUIRE))
		for (i = l->offer_head; i != l->offer_tail; i++)
			offer_look(m, l->offer[i % l->offer_size].slot,
				   l->offer[i % l->offer_size].idx);
	listener_poll(l);
	pthread_mutex_unlock(&m->lock);
	local_wake(m, &l->event);
	while (s) {
		struct vmcomm_stream *next = s->queue_next;

		if (__atomic_load_n(&m->down, __ATOMIC_ACQUIRE))
			vmcomm_close(s);
		else
			local_stream_reset(s), local_stream_put(s);
		s = next;
	}
	listener_put(l);
}

int vmcomm_listener_fd(struct vmcomm_listener *l)
{
	struct vmcomm_member *m = l->member;
	int fd;

	pthread_mutex_lock(&m->lock);
	if (l->poll_fd < 0) {
		l->poll_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (l->poll_fd < 0) {
			fd = -errno;
			goto out;
		}
		local_pollers_add(m, 1);
		if (l->first)
			listener_poll(l);
	}
	fd = l->poll_fd;
out:
	pthread_mutex_unlock(&m->lock);
	return fd;
}
