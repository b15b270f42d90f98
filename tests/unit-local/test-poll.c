// SPDX-License-Identifier: GPL-2.0-or-later
/* test-poll.c - poll descriptors; several threads (M10) */
#include "local-test.h"

#define RING	65536
#define STREAMS 8

static short look(int fd, int timeout)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN | POLLOUT};

	return poll(&pfd, 1, timeout) > 0 ? pfd.revents : 0;
}

/* Wait until the descriptor says something; what hangs is ended by Check. */
static void until(int fd, short want)
{
	while (look(fd, 0) != want)
		usleep(100);
}

START_TEST(levels)
{
	unsigned char buf[RING];
	struct two t;
	int x, y, l;

	two_up(&t, 16 << 20, RING);
	l = vmcomm_listener_fd(t.listener);
	ok(l);
	ck_assert_int_eq(look(l, 0) & POLLIN, 0);
	ok(vmcomm_connect(&t.x, t.a, "1", 7, 0));
	until(l, POLLIN | POLLOUT);
	ok(vmcomm_accept(&t.y, t.listener, 0));
	ck_assert_int_eq(look(l, 0) & POLLIN, 0);
	x = vmcomm_stream_fd(t.x);
	y = vmcomm_stream_fd(t.y);
	ok(x);
	ok(y);
	ck_assert_int_eq(vmcomm_stream_fd(t.x), x);
	ck_assert_int_eq(look(x, 0), POLLOUT);
	ck_assert_int_eq(look(y, 0), POLLOUT);

	ck_assert_int_eq(vmcomm_send(t.x, "abc", 3, 0), 3);
	until(y, POLLIN | POLLOUT);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 1, 0), 1);
	ck_assert_int_eq(look(y, 0), POLLIN | POLLOUT);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 2, VMCOMM_PEEK), 2);
	ck_assert_int_eq(look(y, 0), POLLIN | POLLOUT);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 2, 0), 2);
	ck_assert_int_eq(look(y, 0), POLLOUT);

	memset(buf, 0, sizeof(buf));
	ck_assert_int_eq(vmcomm_send(t.x, buf, RING, VMCOMM_DONTWAIT), RING);
	ck_assert_int_eq(look(x, 0), 0);
	until(y, POLLIN | POLLOUT);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, RING, VMCOMM_WAITALL), RING);
	until(x, POLLOUT);
	ck_assert_int_eq(look(y, 0), POLLOUT);

	ok(vmcomm_shutdown(t.x, VMCOMM_SHUT_WR));
	until(y, POLLIN | POLLOUT);
	ck_assert_int_eq(vmcomm_recv(t.y, buf, 1, 0), 0);
	ck_assert_int_eq(look(y, 0), POLLIN | POLLOUT);
	vmcomm_close(t.y);
	t.y = NULL;
	until(x, POLLIN | POLLOUT | POLLHUP);
	ck_assert_int_eq(vmcomm_recv(t.x, buf, 1, 0), 0);
	two_down(&t);
}
END_TEST

/* A poll descriptor on one stream, threads that sleep in others: everybody is woken. */
static void *echo_blocking(void *arg)
{
	struct vmcomm_stream *s = arg;
	unsigned char buf[3000];
	ssize_t n;

	while ((n = vmcomm_recv(s, buf, sizeof(buf), 0)) > 0)
		ck_assert_int_eq(vmcomm_send(s, buf, (size_t)n, 0), n);
	ck_assert_int_eq(n, 0);
	return NULL;
}

static void *drive(void *arg)
{
	echo_check(arg, 0, 2000000, 3000);
	return NULL;
}

static void many_threads(bool with_fd)
{
	struct vmcomm_stream *c[STREAMS], *s[STREAMS];
	pthread_t echo[STREAMS], driver[STREAMS];
	struct two t;
	int i;

	two_up(&t, 16 << 20, 4096);
	for (i = 0; i < STREAMS; i++) {
		ok(vmcomm_connect(&c[i], t.a, "1", 7, 0));
		ok(vmcomm_accept(&s[i], t.listener, 0));
		ck_assert(!pthread_create(&echo[i], NULL, echo_blocking, s[i]));
	}
	if (with_fd) {
		ok(vmcomm_stream_fd(s[0]));
		ok(vmcomm_stream_fd(c[1]));
	}
	for (i = 0; i < STREAMS; i++)
		ck_assert(!pthread_create(&driver[i], NULL, drive, c[i]));
	for (i = 0; i < STREAMS; i++) {
		pthread_join(driver[i], NULL);
		vmcomm_close(c[i]);
		pthread_join(echo[i], NULL);
		vmcomm_close(s[i]);
	}
	two_down(&t);
}

START_TEST(threads_and_fd)
{
	many_threads(true);
}
END_TEST

START_TEST(threads)
{
	many_threads(false);
}
END_TEST

/* Two threads write one stream, two read it: each byte arrives once. */
static uint64_t sum;

static void *write_some(void *arg)
{
	unsigned char buf[777];
	int i;

	for (i = 0; i < 5000; i++) {
		memset(buf, i & 0xff, sizeof(buf));
		ck_assert_int_eq(vmcomm_send(arg, buf, sizeof(buf), 0), sizeof(buf));
	}
	return NULL;
}

static void *read_some(void *arg)
{
	unsigned char buf[1234];
	uint64_t mine = 0;
	ssize_t n, k;

	while ((n = vmcomm_recv(arg, buf, sizeof(buf), 0)) > 0)
		for (k = 0; k < n; k++)
			mine += buf[k] + 1u;
	ck_assert_int_eq(n, 0);
	__atomic_add_fetch(&sum, mine, __ATOMIC_RELAXED);
	return NULL;
}

START_TEST(shared_stream)
{
	pthread_t thread[4];
	uint64_t want = 0;
	struct two t;
	int i;

	two_up(&t, 16 << 20, 4096);
	two_connect(&t);
	for (i = 0; i < 4; i++)
		ck_assert(!pthread_create(&thread[i], NULL, i < 2 ? write_some : read_some,
					  i < 2 ? t.x : t.y));
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	ok(vmcomm_shutdown(t.x, VMCOMM_SHUT_WR));
	pthread_join(thread[2], NULL);
	pthread_join(thread[3], NULL);
	for (i = 0; i < 5000; i++)
		want += 2 * 777u * ((i & 0xff) + 1u);
	ck_assert_uint_eq(sum, want);
	two_down(&t);
}
END_TEST

static void *recv_closed(void *arg)
{
	char c;

	ck_assert_int_eq(vmcomm_recv(arg, &c, 1, 0), -EBADF);
	return NULL;
}

static void *accept_closed(void *arg)
{
	struct vmcomm_stream *s;

	ck_assert_int_eq(vmcomm_accept(&s, arg, 0), -EINVAL);
	return NULL;
}

/* Closing wakes who sleeps there, be it as leader, as follower or with poll descriptors about. */
START_TEST(close_wakes)
{
	struct vmcomm_stream *c[3], *s[3];
	pthread_t thread[3], accepting;
	struct two t;
	int i, round;

	for (round = 0; round < 2; round++) {
		two_up(&t, 16 << 20, 0);
		for (i = 0; i < 3; i++) {
			ok(vmcomm_connect(&c[i], t.a, "1", 7, 0));
			ok(vmcomm_accept(&s[i], t.listener, 0));
		}
		if (round)
			ok(vmcomm_stream_fd(s[0]));
		for (i = 0; i < 3; i++)
			ck_assert(!pthread_create(&thread[i], NULL, recv_closed, s[i]));
		ck_assert(!pthread_create(&accepting, NULL, accept_closed, t.listener));
		usleep(50000);
		for (i = 0; i < 3; i++) {
			vmcomm_close(s[i]);
			pthread_join(thread[i], NULL);
			vmcomm_close(c[i]);
		}
		vmcomm_listener_close(t.listener);
		t.listener = NULL;
		pthread_join(accepting, NULL);
		two_down(&t);
	}
}
END_TEST

START_TEST(spinning)
{
	pthread_t thread;
	struct two t;

	two_up(&t, 16 << 20, 0);
	two_connect(&t);
	ok(vmcomm_set(t.x, VMCOMM_OPT_SPIN_US, 50));
	ok(vmcomm_set(t.y, VMCOMM_OPT_SPIN_US, 50));
	ck_assert(!pthread_create(&thread, NULL, echo_blocking, t.y));
	echo_check(t.x, 0, 1000000, 500);
	vmcomm_close(t.x);
	t.x = NULL;
	pthread_join(thread, NULL);
	two_down(&t);
}
END_TEST

LOCAL_MAIN("local-poll", levels, threads, threads_and_fd, shared_stream, close_wakes, spinning)
