// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: socket options, TCP_INFO, urgent data. */
#include <linux/sockios.h>

#include "sem.h"

static void say_int(struct sem *s, const char *what, int fd, int level, int name)
{
	int v = sem_get_int(fd, level, name);

	sem_say(s, "%s: %d", what, v);
}

static void set_say(struct sem *s, const char *what, int fd, int level, int name, int value)
{
	int r = sem_set_int(fd, level, name, value);

	sem_say(s, "%s := %d: %s, then %d", what, value, RC(r), sem_get_int(fd, level, name));
}

#define SAY(o, level)	      say_int(s, #o, s->fd, level, o)
#define SET(o, level, value)  set_say(s, #o, s->fd, level, o, value)

static void options_client(struct sem *s)
{
	char cc[16] = "";
	socklen_t len = sizeof(cc);
	struct linger l = {0};

	SAY(SO_TYPE, SOL_SOCKET);
	SAY(SO_PROTOCOL, SOL_SOCKET);
	SAY(SO_ACCEPTCONN, SOL_SOCKET);
	SAY(SO_ERROR, SOL_SOCKET);
	SAY(SO_KEEPALIVE, SOL_SOCKET);
	SAY(SO_RCVLOWAT, SOL_SOCKET);
	SAY(SO_SNDLOWAT, SOL_SOCKET);
	SET(SO_KEEPALIVE, SOL_SOCKET, 1);
	SAY(TCP_KEEPIDLE, IPPROTO_TCP);
	SAY(TCP_KEEPINTVL, IPPROTO_TCP);
	SAY(TCP_KEEPCNT, IPPROTO_TCP);
	SET(TCP_KEEPIDLE, IPPROTO_TCP, 77);
	SET(TCP_KEEPINTVL, IPPROTO_TCP, 7);
	SET(TCP_KEEPCNT, IPPROTO_TCP, 5);
	SET(SO_KEEPALIVE, SOL_SOCKET, 0);
	SET(TCP_USER_TIMEOUT, IPPROTO_TCP, 12345);
	SET(TCP_LINGER2, IPPROTO_TCP, 20);
	SET(TCP_SYNCNT, IPPROTO_TCP, 3);
	SET(TCP_NODELAY, IPPROTO_TCP, 1);
	SET(TCP_NODELAY, IPPROTO_TCP, 0);
	SET(TCP_CORK, IPPROTO_TCP, 1);
	SET(TCP_CORK, IPPROTO_TCP, 0);
	SET(TCP_QUICKACK, IPPROTO_TCP, 1);
	SET(TCP_NOTSENT_LOWAT, IPPROTO_TCP, 65536);
	SET(SO_RCVBUF, SOL_SOCKET, 50000);
	SET(SO_SNDBUF, SOL_SOCKET, 60000);
	SET(SO_PRIORITY, SOL_SOCKET, 4);
	SET(SO_OOBINLINE, SOL_SOCKET, 1);
	SET(SO_REUSEADDR, SOL_SOCKET, 1);
	sem_say(s, "congestion control reno: %s",
		RC(setsockopt(s->fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)));
	sem_say(s, "reads: %s %s", RC(getsockopt(s->fd, IPPROTO_TCP, TCP_CONGESTION, cc, &len)), cc);
	len = sizeof(l);
	sem_say(s, "linger: %s", RC(getsockopt(s->fd, SOL_SOCKET, SO_LINGER, &l, &len)));
	sem_say(s, "on %d, seconds %d", l.l_onoff, l.l_linger);
	sem_say(s, "unknown option: %s", RC(sem_set_int(s->fd, IPPROTO_TCP, 9999, 1)));
	sem_say(s, "unknown level: %s", RC(sem_set_int(s->fd, 9999, 1, 1)));
	sem_say(s, "TCP option too short: %s", RC(setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, "", 1)));
	/* After all of that the connection still works, both ways. */
	sem_say(s, "send: %s", sem_amount(sem_send_stream(s->fd, 0, 300000), 300000));
	sem_expect_stream(s, "read", s->fd, 0, 300000);
}

static void options_server(struct sem *s)
{
	sem_expect_stream(s, "read", s->fd, 0, 300000);
	sem_send_stream(s->fd, 0, 300000);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

/* Options set on a listener are those of the accepted socket. */
static void options_inherit_client(struct sem *s)
{
	int fd = sem_dial(s);

	send(fd, "hello", 5, 0);
	sem_barrier(s);
}

static void options_inherit_server(struct sem *s)
{
	int l = sem_listener(s, 4);

	sem_set_int(l, SOL_SOCKET, SO_KEEPALIVE, 1);
	sem_set_int(l, SOL_SOCKET, SO_RCVLOWAT, 3);
	sem_set_int(l, SOL_SOCKET, SO_OOBINLINE, 1);
	sem_set_int(l, IPPROTO_TCP, TCP_NODELAY, 1);
	sem_set_int(l, IPPROTO_TCP, TCP_USER_TIMEOUT, 4321);
	sem_put(s, sock_port(l));
	sem_barrier(s);
	s->fd = accept(l, NULL, NULL);
	SAY(SO_KEEPALIVE, SOL_SOCKET);
	SAY(SO_RCVLOWAT, SOL_SOCKET);
	SAY(SO_OOBINLINE, SOL_SOCKET);
	SAY(TCP_NODELAY, IPPROTO_TCP);
	SAY(TCP_USER_TIMEOUT, IPPROTO_TCP);
	sem_say_recv(s, "recv", s->fd, 32, 0);
}

static void cork_client(struct sem *s)
{
	int i;

	sem_set_int(s->fd, IPPROTO_TCP, TCP_CORK, 1);
	for (i = 0; i < 10; i++)
		sem_send_stream(s->fd, 100 * (uint64_t)i, 100);
	sem_set_int(s->fd, IPPROTO_TCP, TCP_CORK, 0);
	sem_barrier(s);
	sem_set_int(s->fd, IPPROTO_TCP, TCP_CORK, 1);
	sem_send_stream(s->fd, 0, 100);
	sem_barrier(s); /* still corked: it must come nevertheless */
	sem_send_stream(s->fd, 100, 100);
	shutdown(s->fd, SHUT_WR);
	sem_barrier(s);
}

static void cork_server(struct sem *s)
{
	sem_expect_stream(s, "after uncorking", s->fd, 0, 1000);
	sem_barrier(s);
	sem_expect_stream(s, "corked", s->fd, 0, 100);
	sem_barrier(s);
	sem_expect_stream(s, "corked, then shut down", s->fd, 100, 100);
	sem_say_recv(s, "end", s->fd, 1, 0);
	sem_barrier(s);
}

static void tcp_info_client(struct sem *s)
{
	sem_say(s, "connected: %d", sem_tcp_state(s->fd));
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	sem_wait_tcp_state(s, s->fd, TCP_FIN_WAIT2);
	sem_say(s, "shut down: %d", sem_tcp_state(s->fd));
	sem_barrier(s);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_recv(s, "end", s->fd, 32, 0);
	sem_wait_tcp_state(s, s->fd, TCP_CLOSE);
	sem_say(s, "both shut down: %d", sem_tcp_state(s->fd));
	sem_barrier(s);
}

static void tcp_info_server(struct sem *s)
{
	sem_say(s, "accepted: %d", sem_tcp_state(s->fd));
	sem_barrier(s);
	sem_wait_tcp_state(s, s->fd, TCP_CLOSE_WAIT);
	sem_say(s, "peer has shut down: %d", sem_tcp_state(s->fd));
	sem_barrier(s);
	send(s->fd, "late", 4, 0);
	shutdown(s->fd, SHUT_WR);
	sem_wait_tcp_state(s, s->fd, TCP_CLOSE);
	sem_say(s, "both shut down: %d", sem_tcp_state(s->fd));
	sem_barrier(s);
}

static void say_mark(struct sem *s, const char *what, int fd)
{
	int at = -1, r = ioctl(fd, SIOCATMARK, &at);

	sem_say(s, "%s, at mark: %s %d", what, RC(r), at);
}

static void oob_client(struct sem *s)
{
	say_mark(s, "fresh", s->fd);
	sem_say(s, "none there: %s", RC(recv(s->fd, (char[1]){0}, 1, MSG_OOB)));
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLPRI);
	sem_wait_inq(s, s->fd, 3);
	sem_say_poll(s, "poll", s->fd);
	say_mark(s, "before", s->fd);
	sem_say_recv(s, "peek urgent", s->fd, 1, MSG_OOB | MSG_PEEK);
	sem_say_recv(s, "urgent", s->fd, 1, MSG_OOB);
	sem_say_recv(s, "urgent again", s->fd, 1, MSG_OOB);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 3); /* those before the mark */
	sem_say_recv(s, "stops at the mark", s->fd, 32, 0);
	say_mark(s, "there", s->fd);
	sem_say_recv(s, "goes on", s->fd, 32, 0);
	say_mark(s, "after", s->fd);
	sem_say_poll(s, "poll", s->fd);
	/* The urgent byte in its place in the stream. */
	sem_set_int(s->fd, SOL_SOCKET, SO_OOBINLINE, 1);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLPRI);
	sem_wait_inq(s, s->fd, 7);
	sem_say(s, "inline, by MSG_OOB: %s", RC(recv(s->fd, (char[1]){0}, 1, MSG_OOB)));
	sem_say_recv(s, "stops at the mark", s->fd, 32, 0);
	say_mark(s, "there", s->fd);
	sem_say_recv(s, "with the urgent byte", s->fd, 32, 0);
	say_mark(s, "after", s->fd);
	sem_barrier(s);
	sem_say_recv(s, "plain data goes on", s->fd, 5, MSG_WAITALL);
}

static void oob_server(struct sem *s)
{
	sem_barrier(s);
	sem_say(s, "send: %s", RC(send(s->fd, "abc", 3, 0)));
	sem_say(s, "send urgent: %s", RC(send(s->fd, "!", 1, MSG_OOB)));
	sem_barrier(s);
	send(s->fd, "def", 3, 0);
	sem_barrier(s);
	send(s->fd, "ghi", 3, 0);
	/* Of several bytes the last is the urgent one. */
	sem_say(s, "send urgent: %s", RC(send(s->fd, "j?", 2, MSG_OOB)));
	send(s->fd, "kl", 2, 0);
	sem_barrier(s);
	send(s->fd, "plain", 5, 0);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void tcp_inq_client(struct sem *s)
{
	char b[64], control[256];
	struct iovec v = {b, 4};
	struct msghdr m;
	struct cmsghdr *c;
	int i, n, r = sem_set_int(s->fd, IPPROTO_TCP, TCP_INQ, 1);
	ssize_t got;

	sem_say(s, "TCP_INQ: %s", RC(r));
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 10);
	for (i = 0; i < 4; i++) {
		m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
				    .msg_controllen = sizeof(control)};
		if (i == 3) {
			sem_barrier(s);
			sem_wait_events(s, s->fd, POLLRDHUP);
		}
		got = recvmsg(s->fd, &m, 0);
		n = -1;
		for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
			if (c->cmsg_level == IPPROTO_TCP && c->cmsg_type == TCP_CM_INQ)
				memcpy(&n, CMSG_DATA(c), sizeof(n));
		sem_say(s, "recvmsg: %s, left %d", RC(got), n);
	}
}

static void tcp_inq_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "0123456789", 10, 0);
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static const struct sem_case cases[] = {
	SEM_CASE(options, SEM_CONN),  SEM_CASE(options_inherit, 0), SEM_CASE(cork, SEM_CONN),
	SEM_CASE(tcp_info, SEM_CONN), SEM_CASE(oob, SEM_CONN),	    SEM_CASE(tcp_inq, SEM_CONN),
};

const struct sem_group sem_options = {cases, ARRAY_SIZE(cases)};
