// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vmcomm-etecho: an echo server that lives by edge-triggered epoll alone, and a client that checks
 * every byte. A lost edge shows as a connection that stands still: the client then ends with 1.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common.h"

#define NO_PORT	    UINT64_MAX
#define BUF_LEN	    65536
#define STANDSTILL_MS 120000 /* long enough for a machine that moves house meanwhile */

/* An echo connection: bytes [out, in) of its buffer wait to go back. */
struct echo {
	int fd;
	size_t in, out;
	bool end;
	unsigned char buf[BUF_LEN];
};

/* Moves bytes until neither direction can go on; true while the connection lives. */
static bool echo_turn(struct echo *e)
{
	ssize_t r, w;

	for (;;) {
		r = w = 0;
		if (!e->end && e->in < BUF_LEN) {
			r = read(e->fd, e->buf + e->in, BUF_LEN - e->in);
			if (r > 0)
				e->in += (size_t)r;
			else if (!r)
				e->end = true;
			else if (errno != EAGAIN && errno != EINTR)
				return false;
		}
		if (e->out < e->in) {
			w = send(e->fd, e->buf + e->out, e->in - e->out, MSG_NOSIGNAL);
			if (w > 0)
				e->out += (size_t)w;
			else if (errno != EAGAIN && errno != EINTR)
				return false;
		}
		if (e->out == e->in)
			e->out = e->in = 0;
		if (e->end && !e->in)
			return false;
		/* Only EAGAIN on both sides, or on one with nothing for the other, means to wait. */
		if (r <= 0 && w <= 0)
			return true;
	}
}

static int server_main(const struct addr *a)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET}, evs[128];
	int ep = epoll_create1(EPOLL_CLOEXEC), l = tcp_listen(a, 1024), i, n, fd;
	struct echo *e;

	if (l < 0)
		die("listen on port %u: %s", addr_port(a), strerror(-l));
	set_nonblock(l, true);
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev))
		die_errno("epoll");
	fprintf(stderr, "listening on port %u\n", sock_port(l));
	for (;;) {
		n = epoll_wait(ep, evs, 128, -1);
		for (i = 0; i < n; i++) {
			e = evs[i].data.ptr;
			if (e) {
				if (!echo_turn(e)) {
					close(e->fd);
					free(e);
				}
				continue;
			}
			while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
				e = xcalloc(1, sizeof(*e));
				e->fd = fd;
				ev.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
				ev.data.ptr = e;
				if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev))
					die_errno("epoll_ctl");
			}
		}
	}
}

struct talk {
	int fd;
	uint64_t seed, tx, rx;
	bool done;
};

/* Sends what fits and checks what has come back; true when this connection is through. */
static bool talk_turn(struct talk *t, uint32_t index, uint64_t bytes)
{
	static unsigned char buf[32768];
	ssize_t r = 1, w = 1;
	size_t n;

	while (r > 0 || w > 0) {
		w = 0;
		if (t->tx < bytes) {
			n = mix64(t->seed + t->tx) % sizeof(buf) + 1;
			if (n > bytes - t->tx)
				n = bytes - t->tx;
			stream_fill(t->seed, t->tx, buf, n);
			w = send(t->fd, buf, n, MSG_NOSIGNAL);
			if (w < 0 && errno != EAGAIN)
				die_errno("connection %u: send after %" PRIu64 " bytes", index, t->tx);
			t->tx += w > 0 ? (uint64_t)w : 0;
			if (t->tx == bytes)
				shutdown(t->fd, SHUT_WR);
		}
		r = recv(t->fd, buf, sizeof(buf), 0);
		if (r < 0 && errno != EAGAIN)
			die_errno("connection %u: receive after %" PRIu64 " bytes", index, t->rx);
		if (r > 0 && stream_check(t->seed, t->rx, buf, (size_t)r) >= 0)
			die("connection %u: wrong byte at or after offset %" PRIu64, index, t->rx);
		if (!r && t->rx != bytes)
			die("connection %u: ended after %" PRIu64 " of %" PRIu64 " bytes", index, t->rx,
			    bytes);
		if (!r)
			return true;
		t->rx += r > 0 ? (uint64_t)r : 0;
	}
	return false;
}

static int client_main(const struct addr *a, uint32_t conns, uint64_t bytes, uint64_t seed)
{
	struct talk *talks = xcalloc(conns, sizeof(*talks));
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET}, evs[128];
	int ep = epoll_create1(EPOLL_CLOEXEC), n, k;
	uint32_t i, open = conns;
	uint64_t start = now_ms();

	need_files(conns + 16);
	for (i = 0; i < conns; i++) {
		talks[i].fd = tcp_connect(a);
		if (talks[i].fd < 0)
			die("connection %u: %s", i, strerror(-talks[i].fd));
		talks[i].seed = stream_seed(seed, i, 0);
		set_nonblock(talks[i].fd, true);
		ev.data.u32 = i;
		if (epoll_ctl(ep, EPOLL_CTL_ADD, talks[i].fd, &ev))
			die_errno("epoll_ctl");
	}
	while (open) {
		n = epoll_wait(ep, evs, 128, STANDSTILL_MS);
		if (!n)
			die("%u connections stand still: an edge was lost", open);
		for (k = 0; k < n; k++) {
			struct talk *t = &talks[evs[k].data.u32];

			if (t->done || !talk_turn(t, evs[k].data.u32, bytes))
				continue;
			t->done = true;
			close(t->fd);
			open--;
		}
	}
	printf("{\"program\": \"vmcomm-etecho\", \"ok\": true, \"connections\": %u, \"bytes\": %" PRIu64
	       ", \"ms\": %" PRIu64 "}\n",
	       conns, bytes, now_ms() - start);
	free(talks);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"port", required_argument, NULL, 'p'},	  {"bind", required_argument, NULL, 'b'},
		{"bytes", required_argument, NULL, 'n'},  {"connections", required_argument, NULL, 'c'},
		{"seed", required_argument, NULL, 's'},	  {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	uint64_t port = NO_PORT, conns = 8, bytes = 1 << 20, seed = 1;
	const char *bind_to = NULL;
	struct addr a;
	int o;

	while ((o = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		switch (o) {
		case 'p':
			port = parse_u64("--port", optarg, 65535);
			break;
		case 'b':
			bind_to = optarg;
			break;
		case 'n':
			bytes = parse_u64("--bytes", optarg, 1ull << 40);
			break;
		case 'c':
			conns = parse_u64("--connections", optarg, 20000);
			break;
		case 's':
			seed = parse_u64("--seed", optarg, UINT64_MAX);
			break;
		default:
			fprintf(o == 'h' ? stdout : stderr,
				"usage: %s server --port P [--bind ADDRESS]     (P 0: any, it is told)\n"
				"       %s client HOST --port P [--connections N] [--bytes N] [--seed N]\n",
				argv[0], argv[0]);
			return o == 'h' ? 0 : 2;
		}
	}
	if (argc - optind == 1 && !strcmp(argv[optind], "server") && port != NO_PORT) {
		if (addr_parse(&a, bind_to, (uint16_t)port, bind_to ? AF_UNSPEC : AF_INET6))
			die("--bind: '%s' is not a numeric address", bind_to);
		need_files(4096);
		return server_main(&a);
	}
	if (argc - optind != 2 || strcmp(argv[optind], "client") || !port || port == NO_PORT ||
	    !conns || !bytes)
		die("say 'server --port P' or 'client HOST --port P', --help tells more");
	if (addr_parse(&a, argv[optind + 1], (uint16_t)port, AF_UNSPEC))
		die("'%s' is not a numeric address", argv[optind + 1]);
	return client_main(&a, (uint32_t)conns, bytes, seed);
}
