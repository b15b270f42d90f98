// SPDX-License-Identifier: GPL-2.0-or-later
/* vmcomm-verify: the event loop for non-blocking connections, two threads for each blocking one. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <unistd.h>

#include "verify.h"

static __thread unsigned char iobuf[VERIFY_IO_MAX];

/* A reader that is slow on purpose stops reading until pause_rx_ms. */
static bool rx_paused(struct conn *c, uint64_t now)
{
	const struct verify_plan *p = &c->session->plan;

	if (c->pause_rx_ms > now)
		return true;
	if (p->sleep_ms && c->rx - c->paused_rx_at >= p->sleep_bytes) {
		c->paused_rx_at = c->rx;
		c->pause_rx_ms = now + p->sleep_ms;
		return true;
	}
	return false;
}

/* Sends one piece; false when it would have to wait. */
static bool conn_send(struct conn *c, uint64_t now, int flags)
{
	const struct verify_plan *p = &c->session->plan;
	int64_t room = conn_tx_room(c, now);
	uint32_t n;
	ssize_t r;

	if (room < 0) {
		conn_tx_done(c);
		return false;
	}
	if (!room)
		return false;
	n = conn_random(c, p->write_max);
	if (n > room)
		n = (uint32_t)room;
	stream_fill(c->tx_seed, c->tx, iobuf, n);
	r = send(c->fd, iobuf, n, flags | MSG_NOSIGNAL);
	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (r < 0) {
		session_error(c->session, c, "send after %llu bytes: %s", (unsigned long long)c->tx,
			      strerror(errno));
		c->tx_shut = true;
		conn_rx_end(c, 0);
		return false;
	}
	c->tx += (uint64_t)r;
	/* Idle then active: now and then, and not too often, a pause. */
	if (c->kind == KIND_IDLE && conn_random(c, 16) == 1)
		c->pause_tx_ms = now + conn_random(c, p->idle_ms);
	return r == (ssize_t)n;
}

static bool conn_recv(struct conn *c, uint64_t now, int flags)
{
	ssize_t r;

	if (c->rx_end || rx_paused(c, now))
		return false;
	r = recv(c->fd, iobuf, conn_random(c, c->session->plan.read_max), flags);
	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (r <= 0) {
		conn_rx_end(c, r < 0 ? errno : 0);
		return false;
	}
	conn_progress(c);
	conn_check(c, iobuf, (size_t)r);
	return true;
}

static void conn_interest(struct session *v, struct conn *c, uint64_t now)
{
	struct epoll_event ev = {.data.u32 = c->index};

	if (!c->open)
		return;
	if (!c->rx_end && c->pause_rx_ms <= now)
		ev.events |= EPOLLIN;
	if (!c->tx_shut && conn_tx_room(c, now) > 0)
		ev.events |= EPOLLOUT;
	if (ev.events == c->events)
		return;
	c->events = ev.events;
	if (epoll_ctl(v->ep, EPOLL_CTL_MOD, c->fd, &ev))
		die_errno("epoll_ctl");
}

/* A few pieces each way, so that one connection does not keep the others waiting. */
static void conn_visit(struct session *v, struct conn *c, uint64_t now)
{
	int i;

	for (i = 0; i < 4 && c->open && conn_recv(c, now, MSG_DONTWAIT); i++)
		;
	for (i = 0; i < 4 && c->open && !c->tx_shut && conn_send(c, now, MSG_DONTWAIT); i++)
		;
	conn_interest(v, c, now);
}

void engine_add(struct session *v, struct conn *c)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.u32 = c->index};

	if (c->kind == KIND_BLOCK) {
		block_start(c);
		return;
	}
	set_nonblock(c->fd, true);
	set_nodelay(c->fd);
	c->events = ev.events;
	if (epoll_ctl(v->ep, EPOLL_CTL_ADD, c->fd, &ev))
		die_errno("epoll_ctl");
}

void engine_run(struct session *v, int ms)
{
	static uint64_t last_scan;
	struct epoll_event ev[256];
	int i, n = epoll_wait(v->ep, ev, 256, ms);
	uint64_t now = now_ms();
	uint32_t k;

	for (i = 0; i < n; i++)
		if (v->conns[ev[i].data.u32].open)
			conn_visit(v, &v->conns[ev[i].data.u32], now);
	/* Pauses that are over, time that is over, turns that nothing announces. */
	if (now < last_scan + 5)
		return;
	last_scan = now;
	for (k = 0; k < v->plan.connections; k++) {
		struct conn *c = &v->conns[k];

		if (!c->session || !c->open || c->kind == KIND_BLOCK)
			continue;
		if (!c->tx_shut && conn_tx_room(c, now) < 0)
			conn_tx_done(c);
		conn_interest(v, c, now);
	}
}

/* The timeouts only serve to look at the flags again; a blocked call is what is tested. */
static void block_timeout(struct conn *c)
{
	struct timeval tv = {.tv_sec = 1};

	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

static void *block_tx(void *arg)
{
	struct conn *c = arg;
	int64_t room;
	uint32_t n;
	uint64_t random = c->random ^ 1;
	ssize_t r;

	for (;;) {
		pthread_mutex_lock(&c->lock);
		room = c->tx_shut ? -1 : conn_tx_room(c, now_ms());
		if (room < 0)
			conn_tx_done(c);
		pthread_mutex_unlock(&c->lock);
		if (room < 0)
			return NULL;
		if (!room) {
			sleep_ms(2);
			continue;
		}
		random += 0x9e3779b97f4a7c15ull;
		n = (uint32_t)(mix64(random) % c->session->plan.write_max) + 1;
		if (n > room)
			n = (uint32_t)room;
		stream_fill(c->tx_seed, c->tx, iobuf, n);
		r = send(c->fd, iobuf, n, MSG_NOSIGNAL);
		pthread_mutex_lock(&c->lock);
		if (r > 0) {
			c->tx += (uint64_t)r;
		} else if (errno != EAGAIN && errno != EINTR && !c->tx_shut) {
			session_error(c->session, c, "send after %llu bytes: %s",
				      (unsigned long long)c->tx, strerror(errno));
			c->tx_shut = true;
			conn_rx_end(c, 0);
		}
		pthread_mutex_unlock(&c->lock);
	}
}

static void *block_rx(void *arg)
{
	struct conn *c = arg;
	const struct verify_plan *p = &c->session->plan;
	uint64_t since_sleep = 0;
	ssize_t r;
	bool end = false;

	while (!end) {
		r = recv(c->fd, iobuf, p->read_max, 0);
		pthread_mutex_lock(&c->lock);
		if (r > 0) {
			conn_progress(c);
			conn_check(c, iobuf, (size_t)r);
		} else if (!r || (errno != EAGAIN && errno != EINTR)) {
			conn_rx_end(c, r < 0 ? errno : 0);
		}
		end = c->rx_end;
		pthread_mutex_unlock(&c->lock);
		since_sleep += r > 0 ? (uint64_t)r : 0;
		if (p->sleep_ms && since_sleep >= p->sleep_bytes) {
			since_sleep = 0;
			sleep_ms(p->sleep_ms);
		}
	}
	return NULL;
}

void block_start(struct conn *c)
{
	pthread_attr_t a;

	pthread_attr_init(&a);
	/* The buffer lives in thread-local storage, which is taken from the stack. */
	pthread_attr_setstacksize(&a, VERIFY_IO_MAX + (128 << 10));
	set_nonblock(c->fd, false);
	block_timeout(c);
	if (pthread_create(&c->rx_thread, &a, block_rx, c) ||
	    pthread_create(&c->tx_thread, &a, block_tx, c))
		die("cannot start threads for connection %u", c->index);
	pthread_attr_destroy(&a);
}
