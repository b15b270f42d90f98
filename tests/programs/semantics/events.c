// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: poll, select, epoll in all its modes. */
#include <sys/epoll.h>
#include <sys/select.h>

#include "sem.h"

#define IN_ALL (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP)

static void poll_states_client(struct sem *s)
{
	struct pollfd p = {.fd = s->fd, .events = POLLIN};

	sem_say_poll(s, "fresh", s->fd);
	sem_say(s, "poll for IN: %s", RC(poll(&p, 1, SEM_QUIET_MS)));
	sem_post(s);
	sem_say(s, "poll that has to wait: %s", RC(poll(&p, 1, -1)));
	sem_say(s, "events: %s", sem_events_text((unsigned short)p.revents));
	sem_say_poll(s, "with data", s->fd);
	p.events = POLLRDNORM | POLLWRNORM | POLLRDBAND;
	poll(&p, 1, 0);
	sem_say(s, "with data, old names: %s", sem_events_text((unsigned short)p.revents));
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_poll(s, "after recv", s->fd);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLRDHUP);
	sem_say_poll(s, "peer has shut down", s->fd);
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	sem_wait_events(s, s->fd, POLLHUP);
	sem_say_poll(s, "both have shut down", s->fd);
	sem_barrier(s);
}

static void poll_states_server(struct sem *s)
{
	sem_wait_post(s);
	sleep_ms(SEM_QUIET_MS);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	sem_say_poll(s, "has shut down", s->fd);
	sem_barrier(s);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLHUP);
	sem_say_poll(s, "both have shut down", s->fd);
}

static void poll_out_client(struct sem *s)
{
	struct pollfd p = {.fd = s->fd, .events = POLLOUT};
	size_t n = sem_stuff(s->fd, 0);

	sem_say_poll(s, "full", s->fd);
	sem_put(s, n);
	sem_say(s, "poll until there is room: %s", RC(poll(&p, 1, SEM_WAIT_MS)));
	sem_say(s, "send: %s", RC(send(s->fd, "x", 1, MSG_DONTWAIT)));
}

static void poll_out_server(struct sem *s)
{
	size_t n = sem_get(s);

	sleep_ms(SEM_QUIET_MS);
	sem_expect_stream(s, "read", s->fd, 0, n);
	sem_say_recv(s, "last", s->fd, 1, MSG_WAITALL);
}

static void poll_rst_client(struct sem *s)
{
	struct pollfd p = {.fd = s->fd, .events = POLLIN};
	struct epoll_event ev = {.events = EPOLLET};
	int ep = epoll_create1(0);

	epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &ev);
	sem_post(s);
	sem_say(s, "poll for IN: %s", RC(poll(&p, 1, -1)));
	sem_wait_events(s, s->fd, POLLHUP);
	sem_say_poll(s, "after reset", s->fd);
	sem_say(s, "epoll asked for nothing: %s", RC(epoll_wait(ep, &ev, 1, SEM_WAIT_MS)));
	sem_say(s, "its events: %s", sem_events_text(ev.events & ~EPOLLET));
	sem_say(s, "SO_ERROR: %s", strerrorname_np(sem_get_int(s->fd, SOL_SOCKET, SO_ERROR)) ?: "0");
	sem_say(s, "SO_ERROR again: %d", sem_get_int(s->fd, SOL_SOCKET, SO_ERROR));
	sem_say_poll(s, "after SO_ERROR", s->fd);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say(s, "send: %s", RC(send(s->fd, "x", 1, MSG_NOSIGNAL)));
}

static void poll_rst_server(struct sem *s)
{
	struct linger l = {.l_onoff = 1};

	sem_wait_post(s);
	sleep_ms(SEM_QUIET_MS);
	setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(s->fd);
}

static void say_select(struct sem *s, const char *what, int ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	fd_set in, out, ex;
	int r;

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_ZERO(&ex);
	FD_SET(s->fd, &in);
	FD_SET(s->fd, &out);
	FD_SET(s->fd, &ex);
	r = select(s->fd + 1, &in, ms ? NULL : &out, &ex, &tv);
	sem_say(s, "%s: %s%s%s%s", what, RC(r), r > 0 && FD_ISSET(s->fd, &in) ? " in" : "",
		r > 0 && !ms && FD_ISSET(s->fd, &out) ? " out" : "",
		r > 0 && FD_ISSET(s->fd, &ex) ? " except" : "");
}

static void select_client(struct sem *s)
{
	say_select(s, "fresh", 0);
	say_select(s, "nothing comes", SEM_QUIET_MS);
	sem_post(s);
	say_select(s, "data comes", SEM_WAIT_MS);
	say_select(s, "with data", 0);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	say_select(s, "after recv", 0);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLPRI);
	say_select(s, "urgent byte", 0);
	sem_say_recv(s, "urgent byte", s->fd, 1, MSG_OOB);
	say_select(s, "after it", 0);
	sem_barrier(s);
	say_select(s, "end comes", SEM_WAIT_MS);
	say_select(s, "at end", 0);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	say_select(s, "still at end", 0);
}

static void select_server(struct sem *s)
{
	sem_wait_post(s);
	sleep_ms(SEM_QUIET_MS);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	send(s->fd, "!", 1, MSG_OOB);
	sem_barrier(s);
	sleep_ms(50);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static int ep_new(int fd, unsigned int events)
{
	struct epoll_event ev = {.events = events, .data.fd = fd};
	int ep = epoll_create1(EPOLL_CLOEXEC);

	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev))
		die_errno("epoll");
	return ep;
}

static void ep_mod(int ep, int fd, unsigned int events)
{
	struct epoll_event ev = {.events = events, .data.fd = fd};

	epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev);
}

static void ep_say(struct sem *s, const char *what, int ep, int ms)
{
	struct epoll_event ev[4];
	int r = epoll_wait(ep, ev, 4, ms);

	if (r < 0)
		sem_say(s, "%s: %s", what, RC(r));
	else
		sem_say(s, "%s: %s", what, r ? sem_events_text(ev[0].events) : "none");
}

static void epoll_level_client(struct sem *s)
{
	int ep = ep_new(s->fd, IN_ALL);

	ep_say(s, "fresh", ep, 0);
	ep_mod(ep, s->fd, EPOLLIN);
	ep_say(s, "nothing comes", ep, SEM_QUIET_MS);
	sem_post(s);
	ep_say(s, "data comes", ep, SEM_WAIT_MS);
	ep_say(s, "still there", ep, 0);
	sem_say_recv(s, "recv a part", s->fd, 2, 0);
	ep_say(s, "a part is left", ep, 0);
	sem_say_recv(s, "recv the rest", s->fd, 32, 0);
	ep_say(s, "nothing left", ep, 0);
	ep_mod(ep, s->fd, EPOLLIN | EPOLLRDHUP);
	sem_barrier(s);
	ep_say(s, "end comes", ep, SEM_WAIT_MS);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	ep_say(s, "still at end", ep, 0);
	sem_say(s, "remove: %s", RC(epoll_ctl(ep, EPOLL_CTL_DEL, s->fd, NULL)));
	ep_say(s, "removed", ep, 0);
}

static void epoll_level_server(struct sem *s)
{
	sem_wait_post(s);
	sleep_ms(50);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void epoll_edge_client(struct sem *s)
{
	int ep = ep_new(s->fd, EPOLLIN | EPOLLRDHUP | EPOLLET), ep2;

	ep_say(s, "fresh", ep, SEM_QUIET_MS);
	sem_post(s);
	ep_say(s, "data comes", ep, SEM_WAIT_MS);
	ep_say(s, "the same data", ep, SEM_QUIET_MS);
	sem_say_recv(s, "recv a part", s->fd, 2, 0);
	ep_say(s, "a part is left", ep, SEM_QUIET_MS);
	ep_mod(ep, s->fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
	ep_say(s, "armed again with a part left", ep, 0);
	ep_say(s, "only once", ep, SEM_QUIET_MS);
	ep2 = ep_new(s->fd, EPOLLIN | EPOLLET);
	ep_say(s, "added with a part left", ep2, 0);
	ep_say(s, "only once", ep2, SEM_QUIET_MS);
	close(ep2);
	sem_barrier(s);
	ep_say(s, "more comes while a part is left", ep, SEM_WAIT_MS);
	sem_wait_inq(s, s->fd, 8);
	sem_say_recv(s, "recv without emptying", s->fd, 7, 0);
	ep_say(s, "one byte is left", ep, SEM_QUIET_MS);
	sem_say_recv(s, "recv until empty", s->fd, 32, 0);
	sem_say_recv(s, "empty", s->fd, 32, MSG_DONTWAIT);
	ep_say(s, "empty", ep, SEM_QUIET_MS);
	ep_mod(ep, s->fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
	ep_say(s, "armed again when empty", ep, SEM_QUIET_MS);
	sem_barrier(s);
	ep_say(s, "comes after empty", ep, SEM_WAIT_MS);
	sem_say_recv(s, "peek is no read", s->fd, 32, MSG_PEEK);
	ep_say(s, "after peek", ep, SEM_QUIET_MS);
	sem_say_recv(s, "recv exactly", s->fd, 5, 0);
	sem_barrier(s);
	ep_say(s, "comes after an exact read", ep, SEM_WAIT_MS);
	sem_wait_inq(s, s->fd, 5);
	sem_barrier(s);
	ep_say(s, "end comes while data is left", ep, SEM_WAIT_MS);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	/* TCP wakes twice for an end (its state, its data): one or two edges are both right. */
	epoll_wait(ep, &(struct epoll_event){0}, 1, SEM_QUIET_MS);
	ep_say(s, "end stays unread", ep, SEM_QUIET_MS);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

static void epoll_edge_server(struct sem *s)
{
	sem_wait_post(s);
	sleep_ms(50);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	send(s->fd, "world", 5, 0);
	sem_barrier(s);
	send(s->fd, "third", 5, 0);
	sem_barrier(s);
	send(s->fd, "forth", 5, 0);
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

/* Edge-triggered writability: one edge when a full socket gets room, none while it has room. */
static void epoll_edge_out_client(struct sem *s)
{
	int ep = ep_new(s->fd, EPOLLOUT | EPOLLET);
	size_t n, sum = 0;
	int i;

	ep_say(s, "fresh", ep, 0);
	ep_say(s, "only once", ep, SEM_QUIET_MS);
	for (i = 0; i < 3; i++) {
		n = sem_stuff(s->fd, sum);
		sum += n;
		/* Stuffing takes several goes: forget the edges that came meanwhile. */
		while (n && epoll_wait(ep, &(struct epoll_event){0}, 1, 0) > 0)
			;
		ep_say(s, "full", ep, SEM_QUIET_MS);
		sem_put(s, n);
		ep_say(s, "room comes", ep, SEM_WAIT_MS);
		sem_barrier(s);
		sem_wait_outq_empty(s, s->fd);
	}
	sem_say(s, "send: %s", RC(send(s->fd, "x", 1, MSG_DONTWAIT)));
	ep_mod(ep, s->fd, EPOLLOUT | EPOLLET);
	ep_say(s, "armed again with room", ep, 0);
}

static void epoll_edge_out_server(struct sem *s)
{
	size_t n, sum = 0;
	int i;

	for (i = 0; i < 3; i++) {
		n = sem_get(s);
		sem_expect_stream(s, "read", s->fd, sum, n);
		sum += n;
		sem_barrier(s);
	}
	sem_say_recv(s, "last", s->fd, 1, MSG_WAITALL);
}

/* A stream through two edge-triggered ends that trust every edge: a lost one ends in a timeout. */
static void edge_pump(struct sem *s, size_t len)
{
	int ep = ep_new(s->fd, EPOLLIN | EPOLLOUT | EPOLLET);
	static char buf[3000];
	size_t in = 0, out = 0, n;
	struct epoll_event ev;
	bool good = true, lost = false;
	ssize_t r;

	while ((in < len || out < len) && !lost) {
		lost = epoll_wait(ep, &ev, 1, SEM_WAIT_MS) != 1;
		while (in < len) {
			r = recv(s->fd, buf, sizeof(buf) < len - in ? sizeof(buf) : len - in,
				 MSG_DONTWAIT);
			if (r <= 0)
				break;
			good = good && sem_check_buf(buf, in, (size_t)r);
			in += (size_t)r;
		}
		while (out < len) {
			n = len - out < sizeof(buf) ? len - out : sizeof(buf);
			sem_fill_buf(buf, out, n);
			r = send(s->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (r <= 0)
				break;
			out += (size_t)r;
		}
	}
	sem_say(s, "edge lost: %s, content %s", sem_bool(lost), good ? "good" : "WRONG");
}

static void epoll_edge_stream_client(struct sem *s)
{
	edge_pump(s, 6 << 20);
	sem_barrier(s);
}

#define epoll_edge_stream_server epoll_edge_stream_client

/* Request and response of one byte with edges only. */
static void epoll_edge_rr_client(struct sem *s)
{
	int ep = ep_new(s->fd, EPOLLIN | EPOLLET), i, lost = 0;
	struct epoll_event ev;
	char b;

	set_nodelay(s->fd);
	for (i = 0; i < 300 && !lost; i++) {
		if (!s->server)
			send(s->fd, "q", 1, 0);
		while (recv(s->fd, &b, 1, MSG_DONTWAIT) != 1 && !lost)
			lost = epoll_wait(ep, &ev, 1, SEM_WAIT_MS) != 1;
		if (s->server)
			send(s->fd, "r", 1, 0);
	}
	sem_say(s, "edge lost: %s", sem_bool(lost));
	sem_barrier(s);
}

#define epoll_edge_rr_server epoll_edge_rr_client

static void epoll_oneshot_client(struct sem *s)
{
	int ep = ep_new(s->fd, EPOLLIN | EPOLLONESHOT);

	sem_post(s);
	ep_say(s, "data comes", ep, SEM_WAIT_MS);
	ep_say(s, "disarmed", ep, SEM_QUIET_MS);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 10);
	ep_say(s, "more came while disarmed", ep, SEM_QUIET_MS);
	ep_mod(ep, s->fd, EPOLLIN | EPOLLONESHOT);
	ep_say(s, "armed with data", ep, 0);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	ep_mod(ep, s->fd, EPOLLIN | EPOLLONESHOT | EPOLLET);
	ep_say(s, "armed with none", ep, SEM_QUIET_MS);
	sem_barrier(s);
	ep_say(s, "data comes", ep, SEM_WAIT_MS);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLRDHUP);
	ep_say(s, "end came while disarmed", ep, 0);
	ep_mod(ep, s->fd, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT);
	ep_say(s, "armed at end", ep, 0);
}

static void epoll_oneshot_server(struct sem *s)
{
	sem_wait_post(s);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	send(s->fd, "world", 5, 0);
	sem_barrier(s);
	send(s->fd, "third", 5, 0);
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

struct waiter {
	int ep;
	int result;
};

static void *waiter_run(void *arg)
{
	struct waiter *w = arg;
	struct epoll_event ev;

	w->result = epoll_wait(w->ep, &ev, 1, 2000);
	return NULL;
}

/* Four waiters with EPOLLEXCLUSIVE: at least one wakes; how many more is not promised. */
static void epoll_exclusive_client(struct sem *s)
{
	struct waiter w[4];
	pthread_t t[4];
	int i, woken = 0;

	for (i = 0; i < 4; i++) {
		w[i].ep = ep_new(s->fd, EPOLLIN | EPOLLEXCLUSIVE);
		pthread_create(&t[i], NULL, waiter_run, &w[i]);
	}
	sleep_ms(100);
	sem_barrier(s);
	for (i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		woken += w[i].result == 1;
	}
	sem_say(s, "woken: %s", woken ? "at least one" : "NONE");
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say(s, "modify is refused: %s",
		RC(epoll_ctl(w[0].ep, EPOLL_CTL_MOD, s->fd, &(struct epoll_event){.events = EPOLLIN})));
}

static void epoll_exclusive_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

/* Two epolls, an epoll in an epoll, a duplicate that keeps a closed descriptor's entry alive. */
static void epoll_nested_client(struct sem *s)
{
	int a = ep_new(s->fd, EPOLLIN), b = ep_new(s->fd, EPOLLIN | EPOLLET), c = ep_new(a, EPOLLIN);
	int d = dup(s->fd);

	sem_barrier(s);
	ep_say(s, "nested", c, SEM_WAIT_MS);
	ep_say(s, "level", a, SEM_WAIT_MS);
	ep_say(s, "edge", b, SEM_WAIT_MS);
	close(s->fd);
	ep_say(s, "closed, but there is a duplicate", a, 0);
	sem_say_recv(s, "recv by the duplicate", d, 32, 0);
	ep_say(s, "nothing left", c, 0);
	sem_barrier(s);
	ep_say(s, "nested again", c, SEM_WAIT_MS);
	close(d);
	ep_say(s, "all closed", a, 0);
	s->fd = -1;
}

static void epoll_nested_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	send(s->fd, "world", 5, 0);
	sem_wait_events(s, s->fd, POLLIN);
	sem_say_recv(s, "reset, as data was left", s->fd, 1, 0);
}

static const struct sem_case cases[] = {
	SEM_CASE(poll_states, SEM_CONN),     SEM_CASE(poll_out, SEM_CONN),
	SEM_CASE(poll_rst, SEM_CONN),	     SEM_CASE(select, SEM_CONN),
	SEM_CASE(epoll_level, SEM_CONN),     SEM_CASE(epoll_edge, SEM_CONN),
	SEM_CASE(epoll_edge_out, SEM_CONN),  SEM_CASE(epoll_edge_stream, SEM_CONN),
	SEM_CASE(epoll_edge_rr, SEM_CONN),   SEM_CASE(epoll_oneshot, SEM_CONN),
	SEM_CASE(epoll_exclusive, SEM_CONN), SEM_CASE(epoll_nested, SEM_CONN),
};

const struct sem_group sem_events = {cases, ARRAY_SIZE(cases)};
