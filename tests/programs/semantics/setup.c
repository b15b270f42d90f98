// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: how connections come about: connect, bind, listen, accept, disconnect. */
#include "sem.h"

static int own_socket(struct sem *s)
{
	return socket(s->peer.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int connect_port(struct sem *s, int fd, uint16_t port)
{
	struct addr a = s->peer;

	addr_set_port(&a, port);
	return connect(fd, (struct sockaddr *)&a.ss, a.len);
}

/* A port at which nobody listens. */
static uint16_t closed_port(struct sem *s)
{
	struct addr a;
	uint16_t port;
	int fd;

	addr_parse(&a, NULL, 0, s->self.ss.ss_family);
	fd = tcp_listen(&a, 1);
	port = sock_port(fd);
	close(fd);
	return port;
}

static void echo_say(struct sem *s, const char *what, int fd)
{
	send(fd, what, strlen(what), 0);
	sem_say_recv(s, what, fd, strlen(what), MSG_WAITALL);
}

static void echo_one(int fd)
{
	char b[64];
	ssize_t r = recv(fd, b, sizeof(b), 0);

	if (r > 0)
		write_all(fd, b, (size_t)r);
}

static void connect_refused_client(struct sem *s)
{
	uint16_t port = (uint16_t)sem_get(s);
	int fd = own_socket(s);

	sem_say(s, "connect: %s", RC(connect_port(s, fd, port)));
	sem_say(s, "connect again: %s", RC(connect_port(s, fd, port)));
	sem_say_poll(s, "poll", fd);
	sem_say_recv(s, "recv", fd, 8, 0);
	close(fd);
	fd = own_socket(s);
	set_nonblock(fd, true);
	sem_say(s, "non-blocking: %s", RC(connect_port(s, fd, port)));
	sem_wait_events(s, fd, POLLHUP);
	sem_say_poll(s, "poll", fd);
	sem_say(s, "SO_ERROR: %s", strerrorname_np(sem_get_int(fd, SOL_SOCKET, SO_ERROR)) ?: "none");
}

static void connect_refused_server(struct sem *s)
{
	sem_put(s, closed_port(s));
}

static void connect_fail_listen_client(struct sem *s)
{
	uint16_t port = (uint16_t)sem_get(s);
	int fd = own_socket(s), c;

	sem_say(s, "connect: %s", RC(connect_port(s, fd, port)));
	sem_say(s, "listen: %s", RC(listen(fd, 4)));
	sem_put(s, sock_port(fd));
	c = accept(fd, NULL, NULL);
	sem_say(s, "accept: %s", c < 0 ? RC(c) : "ok");
	echo_one(c);
	close(c);
	sem_put(s, sock_port(fd));
	c = accept(fd, NULL, NULL);
	echo_one(c);
	sem_say(s, "listener's state: %d", sem_tcp_state(fd));
}

static void connect_fail_listen_server(struct sem *s)
{
	int fd;

	sem_put(s, closed_port(s));
	fd = sem_dial(s);
	echo_say(s, "to a socket that failed to connect", fd);
	close(fd);
	fd = sem_dial(s);
	echo_say(s, "once more", fd);
}

static void nonblock_connect_client(struct sem *s)
{
	uint16_t port = (uint16_t)sem_get(s);
	int fd = own_socket(s);

	set_nonblock(fd, true);
	sem_say(s, "connect: %s", RC(connect_port(s, fd, port)));
	sem_wait_events(s, fd, POLLOUT);
	sem_say(s, "SO_ERROR: %d", sem_get_int(fd, SOL_SOCKET, SO_ERROR));
	sem_say(s, "connect again: %s", RC(connect_port(s, fd, port)));
	sem_say(s, "and again: %s", RC(connect_port(s, fd, port)));
	sem_say_poll(s, "poll", fd);
	set_nonblock(fd, false);
	echo_say(s, "hello", fd);
}

static void nonblock_connect_server(struct sem *s)
{
	int l = sem_listen(s, 4);

	echo_one(accept(l, NULL, NULL));
}

static void disconnect_client(struct sem *s)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	int i, fd = -1, c;

	for (i = 0; i < 3; i++) {
		uint16_t port = (uint16_t)sem_get(s);

		if (!i)
			fd = own_socket(s);
		sem_say(s, "connect: %s", RC(connect_port(s, fd, port)));
		echo_say(s, "hello", fd);
		if (i == 1) {
			/* With data unread and a peer that waits. */
			sem_barrier(s);
			sem_wait_inq(s, fd, 6);
		}
		sem_say(s, "disconnect: %s", RC(connect(fd, &none, sizeof(none))));
		sem_say(s, "send: %s", RC(send(fd, "x", 1, MSG_NOSIGNAL)));
		sem_say_recv(s, "recv", fd, 8, MSG_DONTWAIT);
		sem_say(s, "state: %d", sem_tcp_state(fd));
		sem_barrier(s);
	}
	sem_say(s, "listen: %s", RC(listen(fd, 4)));
	sem_put(s, sock_port(fd));
	c = accept(fd, NULL, NULL);
	sem_say(s, "accept: %s", c < 0 ? RC(c) : "ok");
	echo_one(c);
	sem_say(s, "disconnect of a listener: %s", RC(connect(fd, &none, sizeof(none))));
	sem_say(s, "state: %d", sem_tcp_state(fd));
}

static void disconnect_server(struct sem *s)
{
	int i, l, fd;

	for (i = 0; i < 3; i++) {
		l = sem_listen(s, 4);
		fd = accept(l, NULL, NULL);
		close(l);
		echo_one(fd);
		if (i == 1) {
			sem_barrier(s);
			send(fd, "unread", 6, 0);
		}
		sem_say_recv(s, "recv after disconnect", fd, 8, 0);
		close(fd);
		sem_barrier(s);
	}
	fd = sem_dial(s);
	echo_say(s, "to a socket that was connected", fd);
}

static void bind0_client(struct sem *s)
{
	uint16_t port = (uint16_t)sem_get(s);
	struct addr a;
	int fd = own_socket(s);

	addr_parse(&a, NULL, 0, s->peer.ss.ss_family);
	sem_say(s, "port before: %u", sock_port(fd));
	sem_say(s, "bind: %s", RC(bind(fd, (struct sockaddr *)&a.ss, a.len)));
	sem_say(s, "has a port: %s", sem_bool(sock_port(fd) > 0));
	sem_put(s, sock_port(fd));
	sem_say(s, "connect: %s", RC(connect_port(s, fd, port)));
	echo_say(s, "hello", fd);
	sem_barrier(s);
}

static void bind0_server(struct sem *s)
{
	struct addr a = {.len = sizeof(a.ss)};
	int l = sem_listen(s, 4), fd;
	uint16_t port = (uint16_t)sem_get(s);

	fd = accept(l, (struct sockaddr *)&a.ss, &a.len);
	sem_say(s, "it comes from that port: %s", sem_bool(addr_port(&a) == port));
	echo_one(fd);
	sem_barrier(s);
}

static void accept4_client(struct sem *s)
{
	int fd;

	sem_wait_post(s);
	fd = sem_dial(s);
	sem_say_recv(s, "recv", fd, 8, 0);
}

static void accept4_server(struct sem *s)
{
	struct pollfd p = {.events = POLLIN};
	struct addr a;
	int l, fd;

	addr_parse(&a, NULL, 0, s->self.ss.ss_family);
	l = tcp_listen(&a, 4);
	set_nonblock(l, true);
	sem_say(s, "nobody there: %s", RC(accept4(l, NULL, NULL, SOCK_NONBLOCK)));
	sem_say_poll(s, "poll", l);
	sem_post(s);
	sem_put(s, sock_port(l));
	p.fd = l;
	sem_say(s, "poll: %s", RC(poll(&p, 1, SEM_WAIT_MS)));
	sem_say(s, "events: %s", sem_events_text((unsigned short)p.revents));
	fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	sem_say(s, "flags: %s %s", fcntl(fd, F_GETFL) & O_NONBLOCK ? "nonblock" : "block",
		fcntl(fd, F_GETFD) & FD_CLOEXEC ? "cloexec" : "inherit");
	sem_say_recv(s, "recv", fd, 8, 0);
	sem_say(s, "nobody else: %s", RC(accept4(l, NULL, NULL, 0)));
	sem_say(s, "bad flag: %s", RC(accept4(l, NULL, NULL, 0x4)));
	send(fd, "hello", 5, 0);
}

static void listener_closed_client(struct sem *s)
{
	int fd[3], i;

	for (i = 0; i < 3; i++)
		fd[i] = sem_dial(s);
	/* One has sent data, one has ended, one has done nothing. */
	send(fd[0], "hello", 5, 0);
	shutdown(fd[1], SHUT_WR);
	sem_wait_outq_empty(s, fd[0]);
	sem_wait_outq_empty(s, fd[1]);
	sem_barrier(s);
	for (i = 0; i < 3; i++) {
		sem_wait_events(s, fd[i], POLLHUP);
		sem_say_recv(s, i == 0 ? "with data" : i == 1 ? "ended" : "idle", fd[i], 8, 0);
	}
}

static void listener_closed_server(struct sem *s)
{
	int l = sem_listen(s, 8);

	sem_put(s, sock_port(l));
	sem_put(s, sock_port(l));
	sem_barrier(s);
	sleep_ms(50);
	sem_say(s, "close: %s", RC(close(l)));
}

static void accept_data_client(struct sem *s)
{
	int fd = sem_dial(s);

	send(fd, "early", 5, 0);
	sem_wait_outq_empty(s, fd);
	sem_barrier(s);
	sem_say_recv(s, "recv", fd, 32, 0);
	close(fd);
	fd = sem_dial(s);
	sem_send_stream(fd, 0, 20000);
	close(fd); /* all of it before the accept */
	sem_barrier(s);
}

static void accept_data_server(struct sem *s)
{
	int l = sem_listen(s, 8), fd;

	sem_barrier(s);
	sleep_ms(50);
	fd = accept(l, NULL, NULL);
	sem_wait_inq(s, fd, 5);
	sem_say_recv(s, "recv", fd, 32, 0);
	send(fd, "answer", 6, 0);
	sem_put(s, sock_port(l));
	sem_barrier(s);
	sleep_ms(50);
	fd = accept(l, NULL, NULL);
	sem_expect_stream(s, "read", fd, 0, 20000);
	sem_say_recv(s, "end", fd, 32, 0);
}

static void accept_rst_client(struct sem *s)
{
	struct linger l = {.l_onoff = 1};
	int fd = sem_dial(s);

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(fd);
	sem_barrier(s);
}

static void accept_rst_server(struct sem *s)
{
	int l = sem_listen(s, 8), fd;

	sem_barrier(s);
	sleep_ms(SEM_QUIET_MS);
	fd = accept(l, NULL, NULL);
	sem_say(s, "accept: %s", fd < 0 ? RC(fd) : "ok");
	sem_wait_events(s, fd, POLLHUP);
	sem_say_recv(s, "recv", fd, 8, 0);
	sem_say_recv(s, "recv again", fd, 8, 0);
}

#define MANY 50

static void accept_many_client(struct sem *s)
{
	uint16_t port = (uint16_t)sem_get(s);
	int fd[MANY], i, good = 0;
	char b[8];

	for (i = 0; i < MANY; i++) {
		fd[i] = own_socket(s);
		if (connect_port(s, fd[i], port))
			sem_say(s, "connect %d: %s", i, RC(-1));
		b[0] = (char)i;
		send(fd[i], b, 1, 0);
	}
	sem_barrier(s);
	for (i = 0; i < MANY; i++)
		good += recv(fd[i], b, 8, 0) == 1 && b[0] == i;
	sem_say(s, "own bytes back: %d", good);
}

static void accept_many_server(struct sem *s)
{
	int l = sem_listen(s, 128), fd[MANY], i;

	sem_barrier(s);
	for (i = 0; i < MANY; i++)
		fd[i] = accept(l, NULL, NULL);
	for (i = MANY - 1; i >= 0; i--) {
		echo_one(fd[i]);
		close(fd[i]);
	}
	sem_say(s, "served: %d", MANY);
}

static bool same_port_and_host(const struct addr *a, uint64_t port)
{
	return a->len >= sizeof(struct sockaddr_in) && addr_port(a) == port;
}

static void names_client(struct sem *s)
{
	struct addr me = {.len = sizeof(me.ss)}, other = {.len = sizeof(other.ss)};

	getsockname(s->fd, (struct sockaddr *)&me.ss, &me.len);
	getpeername(s->fd, (struct sockaddr *)&other.ss, &other.len);
	sem_put(s, addr_port(&me));
	sem_put(s, addr_port(&other));
	sem_say(s, "peer's port agrees: %s", sem_bool(same_port_and_host(&me, sem_get(s))));
	sem_say(s, "own port agrees: %s", sem_bool(same_port_and_host(&other, sem_get(s))));
	sem_say(s, "families: %s", sem_bool(me.ss.ss_family == other.ss.ss_family &&
					    me.len == other.len));
	sem_barrier(s);
	shutdown(s->fd, SHUT_RDWR);
	sem_wait_tcp_state(s, s->fd, TCP_CLOSE);
	sem_say(s, "getpeername after the end: %s",
		RC(getpeername(s->fd, (struct sockaddr *)&other.ss, &other.len)));
}

static void names_server(struct sem *s)
{
	struct addr me = {.len = sizeof(me.ss)}, other = {.len = sizeof(other.ss)};
	uint64_t peer = sem_get(s), own = sem_get(s);

	getsockname(s->fd, (struct sockaddr *)&me.ss, &me.len);
	getpeername(s->fd, (struct sockaddr *)&other.ss, &other.len);
	sem_put(s, addr_port(&other));
	sem_put(s, addr_port(&me));
	sem_say(s, "ports agree: %s", sem_bool(addr_port(&other) == peer && addr_port(&me) == own));
	sem_barrier(s);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

/* A listener of IPv6 with clients of both families, one of IPv6 only, one of the client's family. */
static void dual_stack_client(struct sem *s)
{
	int fd = sem_dial(s);

	echo_say(s, "to a dual-stack listener", fd);
	sem_barrier(s);
}

static void dual_stack_server(struct sem *s)
{
	struct addr a, p = {.len = sizeof(p.ss)};
	struct sockaddr_in6 *p6 = (struct sockaddr_in6 *)&p.ss;
	int l, fd;

	addr_parse(&a, NULL, 0, AF_INET6);
	l = tcp_listen(&a, 4);
	if (l < 0) {
		sem_say(s, "no IPv6 here");
		l = sem_listen(s, 4);
	} else {
		sem_put(s, sock_port(l));
	}
	fd = accept(l, (struct sockaddr *)&p.ss, &p.len);
	sem_say(s, "peer as %s%s", p.ss.ss_family == AF_INET6 ? "IPv6" : "IPv4",
		p.ss.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&p6->sin6_addr) ? ", mapped" : "");
	echo_one(fd);
	sem_barrier(s);
}

static void v6only_client(struct sem *s)
{
	uint16_t port = (uint16_t)sem_get(s);
	int fd = own_socket(s);
	bool v4 = s->peer.ss.ss_family == AF_INET;

	sem_say(s, "connect: %s", RC(connect_port(s, fd, port)));
	sem_say(s, "as this family should: %s", sem_bool(v4 == !(sem_tcp_state(fd) == TCP_ESTABLISHED)));
	sem_barrier(s);
}

static void v6only_server(struct sem *s)
{
	struct addr a;
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	addr_parse(&a, NULL, 0, AF_INET6);
	sem_set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	sem_say(s, "bind: %s", RC(bind(fd, (struct sockaddr *)&a.ss, a.len)));
	sem_say(s, "listen: %s", RC(listen(fd, 4)));
	sem_put(s, sock_port(fd));
	sem_barrier(s);
}

/* A socket that is connected to itself. */
static void self_connect_client(struct sem *s)
{
	struct addr a = s->self;
	int fd = socket(a.ss.ss_family, SOCK_STREAM, 0);
	char b[16];

	addr_set_port(&a, 0);
	bind(fd, (struct sockaddr *)&a.ss, a.len);
	addr_set_port(&a, sock_port(fd));
	sem_say(s, "connect: %s", RC(connect(fd, (struct sockaddr *)&a.ss, a.len)));
	sem_say(s, "send: %s", RC(send(fd, "narcissus", 9, 0)));
	sem_say_recv(s, "recv", fd, 9, MSG_WAITALL);
	sem_say(s, "on empty: %s", RC(recv(fd, b, 1, MSG_DONTWAIT)));
	shutdown(fd, SHUT_WR);
	sem_say_recv(s, "end", fd, 9, 0);
}

static void self_connect_server(struct sem *s)
{
}

/* A second connection of the same two ports, as soon as the first is gone. */
static void reuse_ports_client(struct sem *s)
{
	struct linger l = {.l_onoff = 1};
	uint16_t port = (uint16_t)sem_get(s);
	struct addr a = s->self;
	int i, fd, good = 0;
	uint16_t own = 0;

	addr_set_port(&a, 0);
	for (i = 0; i < 5; i++) {
		fd = socket(a.ss.ss_family, SOCK_STREAM, 0);
		sem_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
		addr_set_port(&a, own);
		if (bind(fd, (struct sockaddr *)&a.ss, a.len))
			sem_say(s, "bind: %s", RC(-1));
		own = sock_port(fd);
		if (connect_port(s, fd, port))
			sem_say(s, "connect: %s", RC(-1));
		echo_say(s, "hello", fd);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
		good += !close(fd);
		sem_barrier(s);
	}
	sem_say(s, "rounds: %d", good);
}

static void reuse_ports_server(struct sem *s)
{
	int l = sem_listen(s, 8), i, fd;

	for (i = 0; i < 5; i++) {
		fd = accept(l, NULL, NULL);
		echo_one(fd);
		sem_say_recv(s, "reset", fd, 1, 0);
		close(fd);
		sem_barrier(s);
	}
}

static const struct sem_case cases[] = {
	SEM_CASE(connect_refused, 0), SEM_CASE(connect_fail_listen, 0),
	SEM_CASE(nonblock_connect, 0), SEM_CASE(disconnect, 0),
	SEM_CASE(bind0, 0),	       SEM_CASE(accept4, 0),
	SEM_CASE(listener_closed, 0),  SEM_CASE(accept_data, 0),
	SEM_CASE(accept_rst, 0),       SEM_CASE(accept_many, 0),
	SEM_CASE(names, SEM_CONN),     SEM_CASE(dual_stack, 0),
	SEM_CASE(v6only, 0),	       SEM_CASE(self_connect, 0),
	SEM_CASE(reuse_ports, 0),
};

const struct sem_group sem_setup = {cases, ARRAY_SIZE(cases)};
