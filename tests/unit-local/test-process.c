// SPDX-License-Identifier: GPL-2.0-or-later
/* test-process.c - members in several processes, keepers, deaths (M8, M12, M13, M26) */
#include "local-test.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

static struct vmcomm_hub *hub;
static struct vmcomm_member *me;

/* A hub here, member 0 here, member 1 in another process. */
static void start(struct peer *p, const char *mode, const char *arg, unsigned int ring)
{
	const struct vmcomm_member_config mc = {.size = sizeof(mc), .ring_size = ring};
	int fd;

	if (!hub) {
		ok(vmcomm_hub_new(&hub, NULL));
		ok(vmcomm_join_fd(&me, vmcomm_hub_open(hub, 0, NULL), &mc));
	}
	while ((fd = vmcomm_hub_open(hub, 1, NULL)) == -EBUSY)
		usleep(1000);
	ok(fd);
	peer_start(p, fd, NULL, mode, arg);
	peer_ready(p);
}

static void stop(void)
{
	vmcomm_leave(me);
	vmcomm_hub_free(hub);
}

START_TEST(echo)
{
	static const size_t piece[] = {1, 64, 1000, 4096, 65536, 100000};
	struct vmcomm_stream *s;
	struct peer p;
	size_t i;

	start(&p, "echo", NULL, 0);
	for (i = 0; i < 6; i++) {
		ok(vmcomm_connect(&s, me, "1", 7, 0));
		echo_check(s, i, piece[i] * 100 + 7, piece[i]);
		vmcomm_close(s);
	}
	peer_end(&p);
	stop();
}
END_TEST

/* 1000 connections at once, three times, with bytes in both directions on each. */
START_TEST(thousand)
{
	static struct vmcomm_stream *s[1000];
	unsigned char buf[100];
	struct peer p;
	int i, round;

	start(&p, "echo", NULL, 4096);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < 1000; i++)
			ok(vmcomm_connect(&s[i], me, "1", 7, 60000));
		for (i = 0; i < 1000; i++) {
			pattern_fill(buf, (uint64_t)i, 100);
			ck_assert_int_eq(vmcomm_send(s[i], buf, 100, 0), 100);
		}
		for (i = 999; i >= 0; i--) {
			ck_assert_int_eq(vmcomm_recv(s[i], buf, 100, VMCOMM_WAITALL), 100);
			ck_assert_uint_eq(pattern_check(buf, (uint64_t)i, 100), 100);
		}
		for (i = 0; i < 1000; i++)
			vmcomm_close(s[i]);
	}
	peer_end(&p);
	stop();
}
END_TEST

/* Many threads connect at once: more offers than the event queue has room for. */
static void *connecting(void *arg)
{
	struct vmcomm_stream *s;
	int i;

	for (i = 0; i < 60; i++) {
		ok(vmcomm_connect(&s, me, "1", 7, 60000));
		echo_check(s, (uint64_t)i, 10, 10);
		vmcomm_close(s);
	}
	return NULL;
}

START_TEST(storm)
{
	pthread_t thread[16];
	struct peer p;
	int i;

	start(&p, "echo", NULL, 4096);
	for (i = 0; i < 16; i++)
		ck_assert(!pthread_create(&thread[i], NULL, connecting, NULL));
	for (i = 0; i < 16; i++)
		pthread_join(thread[i], NULL);
	peer_end(&p);
	stop();
}
END_TEST

static void read_then_reset(struct vmcomm_stream *s, size_t n)
{
	unsigned char *buf = malloc(n + 1);

	ck_assert_int_eq(vmcomm_recv(s, buf, n, VMCOMM_WAITALL), (ssize_t)n);
	ck_assert_uint_eq(pattern_check(buf, 0, n), n);
	ck_assert_int_eq(vmcomm_recv(s, buf, 1, 0), -ECONNRESET);
	ck_assert_int_lt(vmcomm_send(s, buf, 1, 0), 0);
	free(buf);
}

/* What a killed peer had written can be read; then its death shows. */
START_TEST(peer_killed)
{
	struct vmcomm_stream *s, *again;
	struct peer p;
	struct pollfd pfd = {.events = POLLIN};

	start(&p, "talk", "10000", 0);
	ok(vmcomm_connect(&s, me, "1", 7, 0));
	peer_ready(&p);
	peer_kill(&p);
	read_then_reset(s, 10000);
	pfd.fd = vmcomm_stream_fd(s);
	ck_assert_int_eq(poll(&pfd, 1, -1), 1);
	ck_assert(pfd.revents & POLLHUP);

	/* Another one in the same slot does not take it over. */
	start(&p, "echo", NULL, 0);
	connect_retry(&again, me, "1");
	echo_check(again, 0, 100000, 1000);
	ck_assert_int_eq(vmcomm_recv(s, &pfd, 1, 0), -ECONNRESET);
	vmcomm_close(again);
	vmcomm_close(s);
	peer_end(&p);
	stop();
}
END_TEST

static void *kill_soon(void *arg)
{
	usleep(100000);
	peer_kill(arg);
	return NULL;
}

/* ... also to those who sleep. */
START_TEST(reader_killed)
{
	static unsigned char big[1 << 20];
	struct vmcomm_stream *s;
	pthread_t thread;
	struct peer p;
	ssize_t n;

	start(&p, "stall", NULL, 65536);
	ok(vmcomm_connect(&s, me, "1", 7, 0));
	ck_assert(!pthread_create(&thread, NULL, kill_soon, &p));
	n = vmcomm_send(s, big, sizeof(big), 0);
	ck_assert_int_ge(n, 65536);
	ck_assert_int_lt(n, (ssize_t)sizeof(big));
	ck_assert_int_eq(vmcomm_send(s, big, 1, 0), -ECONNRESET);
	pthread_join(thread, NULL);
	vmcomm_close(s);

	start(&p, "stall", NULL, 65536);
	connect_retry(&s, me, "1");
	ck_assert(!pthread_create(&thread, NULL, kill_soon, &p));
	ck_assert_int_eq(vmcomm_recv(s, big, 1, 0), -ECONNRESET);
	pthread_join(thread, NULL);
	vmcomm_close(s);
	stop();
}
END_TEST

/* A peer that closes, leaves and ends at once: nothing is lost. */
START_TEST(peer_leaves)
{
	unsigned char *buf = malloc(200000);
	struct vmcomm_stream *s;
	struct peer p;
	int i;

	for (i = 0; i < 20; i++) {
		start(&p, "quit", "200000", 0);
		connect_retry(&s, me, "1");
		peer_ready(&p);
		peer_end(&p);
		ck_assert_int_eq(vmcomm_recv(s, buf, 200000, VMCOMM_WAITALL), 200000);
		ck_assert_uint_eq(pattern_check(buf, 0, 200000), 200000);
		ck_assert_int_eq(vmcomm_recv(s, buf, 1, 0), 0);
		vmcomm_close(s);
	}
	free(buf);
	stop();
}
END_TEST

/* The peer that runs and ends while this thread sleeps in its next epoll_wait(). */
static _Thread_local struct peer *meanwhile;

/* Instead of libc's, for the library too: how late a sleeper wakes up is up to the test. */
__attribute__((visibility("default"))) int epoll_wait(int ep, struct epoll_event *ev, int n, int ms)
{
	struct peer *p = meanwhile;
	int fd;

	if (p) {
		meanwhile = NULL;
		kill(p->pid, SIGCONT);
		peer_end(p);
		/* Its slot is free: the service thread has taken our streams out of its memory. */
		while ((fd = vmcomm_hub_open(hub, 1, NULL)) == -EBUSY)
			usleep(1000);
		ok(fd);
		close(fd);
	}
	return epoll_pwait(ep, ev, n, ms, NULL);
}

/* ... also if it did all of that before vmcomm_connect() noticed that it had accepted. */
START_TEST(peer_leaves_early)
{
	struct vmcomm_stream *s;
	unsigned char buf[1000];
	struct peer p;

	start(&p, "quit", "1000", 0);
	/* The pair is up ... */
	ck_assert_int_eq(vmcomm_connect(&s, me, "1", 9, 0), -ECONNREFUSED);
	kill(p.pid, SIGSTOP);
	ck_assert_int_eq(waitpid(p.pid, NULL, WUNTRACED), p.pid);
	meanwhile = &p;
	/* ... so what it sleeps for is the answer. */
	ok(vmcomm_connect(&s, me, "1", 7, 0));
	ck_assert_ptr_null(meanwhile);
	ck_assert_int_eq(vmcomm_recv(s, buf, 1000, VMCOMM_WAITALL), 1000);
	ck_assert_uint_eq(pattern_check(buf, 0, 1000), 1000);
	ck_assert_int_eq(vmcomm_recv(s, buf, 1, 0), 0);
	vmcomm_close(s);
	stop();
}
END_TEST

/* A peer that stands still is not dead. */
START_TEST(peer_stopped)
{
	struct vmcomm_stream *s;
	struct peer p;
	char c;

	start(&p, "echo", NULL, 0);
	ok(vmcomm_connect(&s, me, "1", 7, 0));
	echo_check(s, 0, 1000, 100);
	kill(p.pid, SIGSTOP);
	ck_assert_int_eq(vmcomm_send(s, "x", 1, 0), 1);
	ok(vmcomm_set(s, VMCOMM_OPT_RECV_TIMEOUT, 2500));
	ck_assert_int_eq(vmcomm_recv(s, &c, 1, 0), -EAGAIN);
	kill(p.pid, SIGCONT);
	ok(vmcomm_set(s, VMCOMM_OPT_RECV_TIMEOUT, 0));
	ck_assert_int_eq(vmcomm_recv(s, &c, 1, 0), 1);
	echo_check(s, 0, 100000, 1000);
	vmcomm_close(s);
	peer_end(&p);
	stop();
}
END_TEST

/* A child of the peer's lives on with copies of its descriptors: it is dead all the same. */
START_TEST(peer_forked)
{
	struct vmcomm_stream *s;
	struct peer p;
	char c;

	start(&p, "fork", NULL, 0);
	ok(vmcomm_connect(&s, me, "1", 7, 0));
	echo_check(s, 0, 1000, 100);
	kill(p.pid, SIGKILL);
	ck_assert_int_eq(vmcomm_recv(s, &c, 1, 0), -ECONNRESET);
	vmcomm_close(s);
	/* Its child ends with its standard input. */
	waitpid(p.pid, NULL, 0);
	close(p.in);
	close(p.out);
	stop();
}
END_TEST

/* Our own child: it may free what it has, and that is not our end. */
START_TEST(own_fork)
{
	struct vmcomm_stream *s;
	struct peer p;
	int status;
	pid_t pid;
	char c;

	start(&p, "echo", NULL, 0);
	ok(vmcomm_connect(&s, me, "1", 7, 0));
	echo_check(s, 0, 1000, 100);
	pid = fork();
	if (!pid) {
		if (vmcomm_send(s, "x", 1, 0) != -ENOTCONN || vmcomm_recv(s, &c, 1, 0) != -ENOTCONN)
			_exit(1);
		vmcomm_close(s);
		vmcomm_leave(me);
		vmcomm_hub_free(hub);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && !WEXITSTATUS(status));
	echo_check(s, 0, 100000, 1000);
	vmcomm_close(s);
	peer_end(&p);
	stop();
}
END_TEST

static int take_fd(int sock)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char c;
	struct iovec iov = {.iov_base = &c, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	int fd;

	ck_assert_int_eq(recvmsg(sock, &msg, 0), 1);
	ck_assert_ptr_nonnull(CMSG_FIRSTHDR(&msg));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

/* The hub dies with its process, which was a member too; the others go on with each other. */
START_TEST(hub_killed)
{
	struct vmcomm_stream *s, *h;
	struct peer owner, other;
	int sv[2], fd;
	char c;

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	fcntl(sv[0], F_SETFD, FD_CLOEXEC);
	peer_start(&owner, sv[1], NULL, "hub", NULL);
	fd = take_fd(sv[0]);
	ok(vmcomm_join_fd(&me, fd, NULL));
	peer_start(&other, take_fd(sv[0]), NULL, "echo", NULL);
	close(sv[0]);
	peer_ready(&owner);
	peer_ready(&other);
	connect_retry(&h, me, "2");
	connect_retry(&s, me, "1");
	echo_check(h, 0, 1000, 100);
	echo_check(s, 0, 1000, 100);
	peer_kill(&owner);
	ck_assert_int_eq(vmcomm_recv(h, &c, 1, 0), -ECONNRESET);
	echo_check(s, 0, 100000, 1000);
	/* ... and now there is no hub to tell of this one. */
	peer_kill(&other);
	ck_assert_int_eq(vmcomm_recv(s, &c, 1, 0), -ECONNRESET);
	vmcomm_close(s);
	vmcomm_close(h);
	vmcomm_leave(me);
}
END_TEST

static pid_t keeper_start(const char *dir)
{
	const char *program = getenv("VMCOMM_KEEPER");
	char path[200];
	struct stat st;
	pid_t pid;
	int i;

	ck_assert_msg(program, "set VMCOMM_KEEPER to the program vmcomm-keeper");
	pid = fork();
	if (!pid) {
		execl(program, program, "--gid", "test", "--slots", "2", "--memory", "16M",
		      "--dir", dir, "--open", "0=192.0.2.1", "--open", "1=192.0.2.2", NULL);
		_exit(127);
	}
	snprintf(path, sizeof(path), "%s/keeper.sock", dir);
	for (i = 0; stat(path, &st) && i < 30000; i++) {
		ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
		usleep(1000);
	}
	return pid;
}

START_TEST(keeper)
{
	char dir[] = "/tmp/vmcomm-test-XXXXXX", path[2][64], command[64];
	struct vmcomm_member *m;
	struct vmcomm_stream *s;
	struct stat st;
	struct peer p;
	pid_t pid;
	int i;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	for (i = 0; i < 2; i++)
		snprintf(path[i], sizeof(path[i]), "%s/slot-%d.sock", dir, i);
	pid = keeper_start(dir);
	ok(vmcomm_join(&me, path[0], NULL));
	ck_assert_int_eq(vmcomm_join(&m, path[0], NULL), -ENOENT); /* taken */
	for (i = 0; i < 2; i++) {
		while (stat(path[1], &st))
			usleep(1000);
		peer_start(&p, -1, path[1], "echo", NULL);
		peer_ready(&p);
		connect_retry(&s, me, "192.0.2.2");
		echo_check(s, 0, 1000000, 10000);
		peer_kill(&p);
		ck_assert_int_eq(vmcomm_recv(s, path, 1, 0), -ECONNRESET);
		vmcomm_close(s);
	}
	/* The keeper's own death is no event for its members. */
	while (stat(path[1], &st))
		usleep(1000);
	peer_start(&p, -1, path[1], "echo", NULL);
	peer_ready(&p);
	connect_retry(&s, me, "1");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	echo_check(s, 0, 1000000, 10000);
	peer_kill(&p);
	ck_assert_int_eq(vmcomm_recv(s, path, 1, 0), -ECONNRESET);
	vmcomm_close(s);
	vmcomm_leave(me);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

LOCAL_MAIN("local-process", echo, thousand, storm, peer_killed, reader_killed, peer_leaves,
	  peer_leaves_early, peer_stopped, peer_forked, own_fork, hub_killed, keeper)
