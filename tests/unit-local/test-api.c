// SPDX-License-Identifier: GPL-2.0-or-later
/* test-api.c - every function and flag, two members in one process (M5-M10) */
#include "local-test.h"

#include <sys/socket.h>

#define RING 65536

START_TEST(texts)
{
	int i;

	ck_assert_str_eq(vmcomm_strerror(-ECONNREFUSED), vmcomm_strerror(ECONNREFUSED));
	for (i = 0; i < 140; i++)
		ck_assert_uint_gt(strlen(vmcomm_strerror(-i)), 5);
	ck_assert_uint_ge(strlen(vmcomm_version()), 5);
}
END_TEST

START_TEST(hub_arguments)
{
	struct vmcomm_hub_config hc = {.size = sizeof(hc)};
	struct vmcomm_hub *hub;
	int fd;

	hc.slots = 65;
	ck_assert_int_eq(vmcomm_hub_new(&hub, &hc), -EINVAL);
	hc.slots = 1;
	ck_assert_int_eq(vmcomm_hub_new(&hub, &hc), -EINVAL);
	hc.slots = 64;
	hc.memory = 5 << 20;
	ck_assert_int_eq(vmcomm_hub_new(&hub, &hc), -EINVAL);
	hc.memory = 4 << 20;
	ck_assert_int_eq(vmcomm_hub_new(&hub, &hc), -ENOSPC);
	hc.size = 3;
	ck_assert_int_eq(vmcomm_hub_new(&hub, &hc), -EINVAL);
	ok(vmcomm_hub_new(&hub, NULL));
	ck_assert_int_eq(vmcomm_hub_open(hub, 8, NULL), -EINVAL);
	ck_assert_int_eq(vmcomm_hub_open(hub, 0, "192.0.2.1,nonsense"), -EINVAL);
	fd = vmcomm_hub_open(hub, 0, "192.0.2.1");
	ok(fd);
	ck_assert_int_eq(vmcomm_hub_open(hub, 0, NULL), -EBUSY);
	/* The last copy gone: the slot can be had again. */
	close(fd);
	while ((fd = vmcomm_hub_open(hub, 0, NULL)) == -EBUSY)
		usleep(1000);
	ok(fd);
	close(fd);
	vmcomm_hub_free(hub);
}
END_TEST

START_TEST(join_arguments)
{
	struct vmcomm_member_config mc = {.size = sizeof(mc), .ring_size = 5000};
	struct vmcomm_member *m;
	struct vmcomm_hub *hub;
	char path[200];
	int fd[2];

	memset(path, 'x', sizeof(path) - 1);
	path[199] = 0;
	ck_assert_int_eq(vmcomm_join(&m, path, NULL), -ENAMETOOLONG);
	ck_assert_int_eq(vmcomm_join(&m, "/nonexistent/slot-0.sock", NULL), -ENOENT);
	ok(vmcomm_hub_new(&hub, NULL));
	ck_assert_int_eq(vmcomm_join_fd(&m, vmcomm_hub_open(hub, 0, NULL), &mc), -EINVAL);
	/* Somebody who talks nonsense, and somebody who says nothing. */
	ck_assert(!pipe(fd));
	close(fd[1]);
	ck_assert_int_eq(vmcomm_join_fd(&m, fd[0], NULL), -ENOTSOCK);
	mc.ring_size = 0;
	mc.timeout_ms = 50;
	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	ck_assert_int_eq(vmcomm_join_fd(&m, fd[0], &mc), -ETIMEDOUT);
	close(fd[1]);
	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	ck_assert_int_eq(write(fd[1], "nonsense", 8), 8);
	ck_assert_int_eq(vmcomm_join_fd(&m, fd[0], NULL), -EPROTO);
	close(fd[1]);
	vmcomm_hub_free(hub);
}
END_TEST

START_TEST(connect_errors)
{
	struct vmcomm_stream *s;
	struct vmcomm_listener *l;
	struct two t;

	two_up(&t, 16 << 20, 0);
	ck_assert_uint_eq(vmcomm_member_slot(t.a), 0);
	ck_assert_uint_eq(vmcomm_member_slot(t.b), 1);
	ck_assert_int_eq(vmcomm_connect(&s, t.a, "1", 8, 0), -ECONNREFUSED);
	ck_assert_int_eq(vmcomm_connect(&s, t.a, "1", 0, 0), -EINVAL);
	ck_assert_int_eq(vmcomm_connect(&s, t.a, "0", 7, 0), -EINVAL); /* itself */
	ck_assert_int_eq(vmcomm_connect(&s, t.a, "2", 7, 0), -EINVAL);
	ck_assert_int_eq(vmcomm_connect(&s, t.a, "", 7, 0), -EINVAL);
	ck_assert_int_eq(vmcomm_connect(&s, t.a, "host", 7, 0), -EINVAL);
	ck_assert_int_eq(vmcomm_connect(&s, t.a, "192.0.2.3", 7, 0), -EHOSTUNREACH);
	ck_assert_int_eq(vmcomm_listen(&l, t.b, 7, 0), -EADDRINUSE);
	ok(vmcomm_listen(&l, t.b, 0, 0));
	ck_assert_uint_ge(vmcomm_listener_port(l), 1024);
	ck_assert_int_eq(vmcomm_accept(&s, l, 99), -EINVAL);
	ck_assert_int_eq(vmcomm_accept(&s, l, VMCOMM_DONTWAIT), -EAGAIN);
	vmcomm_listener_close(l);
	two_down(&t);
}
END_TEST

START_TEST(addresses_and_options)
{
	static const char *const to[] = {"1", "192.0.2.2", "fd00::2", "::ffff:192.0.2.2"};
	struct two t;
	unsigned int i;
	long v;

	two_up(&t, 16 << 20, RING);
	for (i = 0; i < 4; i++) {
		ok(vmcomm_connect(&t.x, t.a, to[i], 7, 0));
		ok(vmcomm_accept(&t.y, t.listener, 0));
		ok(vmcomm_get(t.x, VMCOMM_OPT_PEER_PORT, &v));
		ck_assert_int_eq(v, 7);
		ok(vmcomm_get(t.x, VMCOMM_OPT_PEER_SLOT, &v));
		ck_assert_int_eq(v, 1);
		ok(vmcomm_get(t.y, VMCOMM_OPT_LOCAL_PORT, &v));
		ck_assert_int_eq(v, 7);
		ok(vmcomm_get(t.x, VMCOMM_OPT_RING_SIZE, &v));
		ck_assert_int_eq(v, RING);
		ck_assert_int_eq(vmcomm_send(t.x, "hello", 5, 0), 5);
		ok(vmcomm_get(t.x, VMCOMM_OPT_SEND_QUEUED, &v));
		ck_assert_int_eq(v, 5);
		ok(vmcomm_get(t.y, VMCOMM_OPT_RECV_QUEUED, &v));
		ck_assert_int_eq(v, 5);
		ck_assert_int_eq(vmcomm_set(t.x, VMCOMM_OPT_SPIN_US, -1), -EINVAL);
		ck_assert_int_eq(vmcomm_set(t.x, VMCOMM_OPT_RING_SIZE, RING), -EINVAL);
		ck_assert_int_eq(vmcomm_get(t.x, 99, &v), -EINVAL);
		vmcomm_close(t.x);
		vmcomm_close(t.y);
	}
	t.x = t.y = NULL;
	two_down(&t);
}
END_TEST

START_TEST(flags)
{
	unsigned char buf[RING], big[RING];
	struct two t;
	ssize_t n;

	two_up(&t, 16 << 20, RING);
	two_connect(&t);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 1, VMCOMM_DONTWAIT), -EAGAIN);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 0, 0), 0);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 1, 64), -EINVAL);
	ck_assert_int_eq(vmcomm_send(t.x, buf, 1, VMCOMM_PEEK), -EINVAL);
	ck_assert_int_eq(vmcomm_send(t.x, buf, 0, 0), 0);

	ck_assert_int_eq(vmcomm_send(t.x, "abcdef", 6, 0), 6);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 4, VMCOMM_PEEK), 4);
	ck_assert(!memcmp(buf, "abcd", 4));
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 100, VMCOMM_PEEK), 6);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 2, 0), 2);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 100, VMCOMM_PEEK), 4);
	ck_assert(!memcmp(buf, "cdef", 4));
	/* All that can be had without waiting is less than all. */
	n = vmcomm_recv(t.y, buf, 100, VMCOMM_WAITALL | VMCOMM_DONTWAIT);
	ck_assert_int_eq(n, 4);

	/* A full ring: a part is taken, then nothing; after reading there is room again. */
	pattern_fill(big, 0, sizeof(big));
	ck_assert_int_eq(vmcomm_send(t.x, big, 100, 0), 100);
	ck_assert_int_eq(vmcomm_send(t.x, big + 100, RING - 100, VMCOMM_DONTWAIT), RING - 100);
	ck_assert_int_eq(vmcomm_send(t.x, big, 1, VMCOMM_DONTWAIT), -EAGAIN);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 7, 0), 7);
	ck_assert_int_eq(vmcomm_send(t.x, big, 100, VMCOMM_DONTWAIT), 7);
	n = vmcomm_recv(t.y, buf, RING, VMCOMM_PEEK | VMCOMM_WAITALL);
	ck_assert_int_eq(n, RING);
	ck_assert_uint_eq(pattern_check(buf, 7, RING - 7), RING - 7);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, RING, VMCOMM_WAITALL), RING);
	ck_assert_uint_eq(pattern_check(buf, 7, RING - 7), RING - 7);
	two_down(&t);
}
END_TEST

static void *send_slowly(void *arg)
{
	struct vmcomm_stream *s = arg;
	unsigned char buf[1000];
	int i;

	for (i = 0; i < 100; i++) {
		pattern_fill(buf, (uint64_t)i * 1000, 1000);
		ck_assert_int_eq(vmcomm_send(s, buf, 1000, 0), 1000);
		if (!(i % 10))
			usleep(1000);
	}
	return NULL;
}

START_TEST(waitall)
{
	static unsigned char buf[200000];
	pthread_t thread;
	struct two t;

	two_up(&t, 16 << 20, RING);
	two_connect(&t);
	ck_assert(!pthread_create(&thread, NULL, send_slowly, t.x));
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 50000, VMCOMM_PEEK | VMCOMM_WAITALL), 50000);
	ck_assert_uint_eq(pattern_check(buf, 0, 50000), 50000);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 80000, VMCOMM_WAITALL), 80000);
	ck_assert_uint_eq(pattern_check(buf, 0, 80000), 80000);
	pthread_join(thread, NULL);
	/* Cut short by the end. */
	ok(vmcomm_shutdown(t.x, VMCOMM_SHUT_WR));
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 80000, VMCOMM_PEEK | VMCOMM_WAITALL), 20000);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 80000, VMCOMM_WAITALL), 20000);
	ck_assert_uint_eq(pattern_check(buf, 80000, 20000), 20000);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 80000, VMCOMM_WAITALL), 0);
	two_down(&t);
}
END_TEST

START_TEST(half_close)
{
	char buf[16];
	struct two t;

	two_up(&t, 16 << 20, RING);
	two_connect(&t);
	ck_assert_int_eq(vmcomm_send(t.x, "question", 8, 0), 8);
	ok(vmcomm_shutdown(t.x, VMCOMM_SHUT_WR));
	ok(vmcomm_shutdown(t.x, VMCOMM_SHUT_WR));
	ck_assert_int_eq(vmcomm_shutdown(t.x, 0), -EINVAL);
	ck_assert_int_eq(vmcomm_send(t.x, "more", 4, 0), -EPIPE);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 16, VMCOMM_WAITALL), 8);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 16, 0), 0);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 16, 0), 0);
	ck_assert_int_eq(vmcomm_send(t.y, "answer", 6, 0), 6);
	ck_assert_int_eq(vmcomm_recv(t.x, buf, 16, 0), 6);
	ok(vmcomm_shutdown(t.x, VMCOMM_SHUT_RD));
	ck_assert_int_eq(vmcomm_recv(t.x, buf, 16, 0), 0);
	two_down(&t);
}
END_TEST

/* What was written before close arrives, also when nobody had looked at the connection yet. */
START_TEST(close_keeps_bytes)
{
	unsigned char *buf = malloc(RING);
	struct two t;
	int i;

	two_up(&t, 16 << 20, RING);
	for (i = 0; i < 200; i++) {
		two_connect(&t);
		pattern_fill(buf, (uint64_t)i, RING);
		ck_assert_int_eq(vmcomm_send(t.y, buf, RING, 0), RING);
		vmcomm_close(t.y);
		ck_assert_int_eq(vmcomm_send(t.x, buf, 1, 0), -EPIPE);
		memset(buf, 0, RING);
		ck_assert_int_eq(vmcomm_recv(t.x, buf, RING, VMCOMM_WAITALL), RING);
		ck_assert_uint_eq(pattern_check(buf, (uint64_t)i, RING), RING);
		ck_assert_int_eq(vmcomm_recv(t.x, buf, RING, 0), 0);
		vmcomm_close(t.x);
	}
	t.x = t.y = NULL;
	two_down(&t);
	free(buf);
}
END_TEST

/* Thrown away bytes are no orderly end. */
START_TEST(close_with_unread)
{
	char buf[16];
	struct two t;

	two_up(&t, 16 << 20, RING);
	two_connect(&t);
	ck_assert_int_eq(vmcomm_send(t.x, "lost", 4, 0), 4);
	ck_assert_int_eq(vmcomm_send(t.y, "seen", 4, 0), 4);
	vmcomm_close(t.y);
	t.y = NULL;
	ck_assert_int_eq(vmcomm_recv(t.x, buf, 16, 0), 4);
	ck_assert_int_eq(vmcomm_recv(t.x, buf, 16, 0), -ECONNRESET);
	ck_assert_int_eq(vmcomm_send(t.x, "x", 1, 0), -EPIPE);
	two_down(&t);
}
END_TEST

START_TEST(timeouts)
{
	char buf[RING];
	struct two t;

	two_up(&t, 16 << 20, RING);
	two_connect(&t);
	ok(vmcomm_set(t.x, VMCOMM_OPT_RECV_TIMEOUT, 20));
	ok(vmcomm_set(t.x, VMCOMM_OPT_SEND_TIMEOUT, 20));
	ck_assert_int_eq(vmcomm_recv(t.x, buf, 1, 0), -EAGAIN);
	memset(buf, 0, sizeof(buf));
	ck_assert_int_eq(vmcomm_send(t.x, buf, RING, 0), RING);
	ck_assert_int_eq(vmcomm_send(t.x, buf, RING, 0), -EAGAIN);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, RING / 2, 0), RING / 2);
	ck_assert_int_eq(vmcomm_send(t.x, buf, RING, 0), RING / 2);
	two_down(&t);
}
END_TEST

START_TEST(backlog)
{
	struct vmcomm_stream *c[4], *s[4];
	struct vmcomm_listener *l;
	struct two t;
	char buf[8];
	int i;

	two_up(&t, 16 << 20, 0);
	ok(vmcomm_listen(&l, t.b, 9, 2));
	/* One thread does both: connections are made before they are accepted. */
	ok(vmcomm_connect(&c[0], t.a, "1", 9, 0));
	ok(vmcomm_connect(&c[1], t.a, "1", 9, 0));
	ck_assert_int_eq(vmcomm_send(c[1], "1", 1, 0), 1);
	/* The third has to wait. */
	ck_assert_int_eq(vmcomm_connect(&c[2], t.a, "1", 9, 100), -ETIMEDOUT);
	ok(vmcomm_accept(&s[0], l, 0));
	ok(vmcomm_connect(&c[2], t.a, "1", 9, 0));
	ok(vmcomm_accept(&s[1], l, 0));
	ck_assert_int_eq(vmcomm_recv(s[1], buf, 8, 0), 1);
	ok(vmcomm_connect(&c[3], t.a, "1", 9, 0));
	for (i = 0; i < 2; i++) {
		vmcomm_close(c[i]);
		vmcomm_close(s[i]);
	}
	/* Two wait for accept: they are reset, and nobody is taken any more. */
	vmcomm_listener_close(l);
	ck_assert_int_eq(vmcomm_recv(c[2], buf, 8, 0), -ECONNRESET);
	ck_assert_int_eq(vmcomm_recv(c[3], buf, 8, 0), -ECONNRESET);
	vmcomm_close(c[2]);
	vmcomm_close(c[3]);
	ck_assert_int_eq(vmcomm_connect(&c[0], t.a, "1", 9, 0), -ECONNREFUSED);
	two_down(&t);
}
END_TEST

START_TEST(leaving)
{
	struct two t;
	char buf[16];
	int fd;

	two_up(&t, 16 << 20, 0);
	two_connect(&t);
	ck_assert_int_eq(vmcomm_send(t.y, "bye", 3, 0), 3);
	vmcomm_leave(t.b);
	t.b = NULL;
	ck_assert_int_eq(vmcomm_send(t.y, "x", 1, 0), -ENOTCONN);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 1, 0), -ENOTCONN);
	ck_assert_int_eq(vmcomm_accept(&t.y, t.listener, 0), -ECONNABORTED);
	ck_assert_int_eq(vmcomm_recv(t.x, buf, 16, 0), 3);
	ck_assert_int_eq(vmcomm_recv(t.x, buf, 16, 0), -ECONNRESET);
	/* Somebody else in the same slot. */
	vmcomm_close(t.y);
	vmcomm_listener_close(t.listener);
	while ((fd = vmcomm_hub_open(t.hub, 1, NULL)) == -EBUSY)
		usleep(1000);
	ok(vmcomm_join_fd(&t.b, fd, NULL));
	ok(vmcomm_listen(&t.listener, t.b, 7, 0));
	vmcomm_close(t.x);
	two_connect(&t);
	ck_assert_int_eq(vmcomm_send(t.x, "again", 5, 0), 5);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 16, 0), 5);
	two_down(&t);
}
END_TEST

/* Memory runs out: connections fail with a reason, others go on, and it comes back. */
START_TEST(quota)
{
	struct vmcomm_stream *c[600], *s[600];
	int i, n, round, first = 0, err = 0;
	unsigned char buf[4096];
	struct two t;

	two_up(&t, 4 << 20, 1 << 20);
	for (round = 0; round < 3; round++) {
		for (n = 0; n < 600; n++) {
			err = vmcomm_connect(&c[n], t.a, "1", 7, 0);
			if (err)
				break;
			ok(vmcomm_accept(&s[n], t.listener, 0));
		}
		ck_assert_int_eq(err, -ENOBUFS);
		ck_assert_int_gt(n, 50);
		if (!round)
			first = n;
		/* Not all: pages on their way to the host are out of use for a moment. */
		ck_assert_int_ge(n * 2, first);
		for (i = 0; i < n; i++) {
			pattern_fill(buf, (uint64_t)i, 4096);
			ck_assert_int_eq(vmcomm_send(c[i], buf, 4096, 0), 4096);
			ck_assert_int_eq(vmcomm_recv(s[i], buf, 4096, VMCOMM_WAITALL), 4096);
			ck_assert_uint_eq(pattern_check(buf, (uint64_t)i, 4096), 4096);
		}
		for (i = 0; i < n; i++) {
			vmcomm_close(c[i]);
			vmcomm_close(s[i]);
		}
		/* One round trip after the last close: all events have been seen. */
		while ((err = vmcomm_connect(&c[0], t.a, "1", 7, 0)) == -ENOBUFS)
			usleep(1000);
		ok(err);
		ok(vmcomm_accept(&s[0], t.listener, 0));
		vmcomm_close(c[0]);
		vmcomm_close(s[0]);
		usleep(20000);
	}
	two_down(&t);
}
END_TEST

LOCAL_MAIN("local-api", texts, hub_arguments, join_arguments, connect_errors, addresses_and_options,
	  flags, waitall, half_close, close_keeps_bytes, close_with_unread, timeouts, backlog,
	  leaving, quota)
