// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: splice, tee, sendfile, vmsplice. */
#include <sys/sendfile.h>

#include "sem.h"

#define FILE_LEN (1u << 20)

static int stream_file(size_t len)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);
	char *buf = xcalloc(1, len);

	sem_fill_buf(buf, 0, len);
	if (fd < 0 || write_all(fd, buf, len))
		die_errno("memfd");
	free(buf);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static void make_pipe(int p[2])
{
	if (pipe(p))
		die_errno("pipe");
}

/* Moves len bytes from a pipe to a file or socket; returns how many it could. */
static size_t pipe_empty(int from, int to, size_t len)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = splice(from, NULL, to, NULL, len - done, 0);
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return done;
}

static void splice_in_client(struct sem *s)
{
	static char buf[FILE_LEN];
	int p[2], file = memfd_create("sink", 0);
	size_t done = 0;
	ssize_t r = 1;

	make_pipe(p);
	/* SPLICE_F_NONBLOCK is about the pipe; the socket's own flag is what counts. */
	set_nonblock(s->fd, true);
	sem_say(s, "not waiting, on empty: %s", RC(splice(s->fd, NULL, p[1], NULL, 100, 0)));
	set_nonblock(s->fd, false);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sem_say(s, "splice: %s", RC(splice(s->fd, NULL, p[1], NULL, 100, 0)));
	r = read(p[0], buf, sizeof(buf));
	sem_say(s, "from the pipe: %s '%.5s'", RC(r), buf);
	sem_barrier(s);
	while (done < FILE_LEN && r > 0) {
		r = splice(s->fd, NULL, p[1], NULL, FILE_LEN - done, SPLICE_F_MOVE | SPLICE_F_MORE);
		done += r > 0 ? pipe_empty(p[0], file, (size_t)r) : 0;
	}
	sem_say(s, "1 MiB into a file: %s, content %s", sem_amount((ssize_t)done, FILE_LEN),
		pread(file, buf, FILE_LEN, 0) == FILE_LEN && sem_check_buf(buf, 0, FILE_LEN) ?
			"good" : "WRONG");
	sem_say(s, "at end: %s", RC(splice(s->fd, NULL, p[1], NULL, 100, 0)));
}

static void splice_in_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	sleep_ms(50);
	sem_send_stream(s->fd, 0, FILE_LEN);
}

static void splice_out_client(struct sem *s)
{
	int p[2], file = stream_file(FILE_LEN);
	size_t done = 0;
	ssize_t r;

	make_pipe(p);
	while ((r = splice(file, NULL, p[1], NULL, 30000, 0)) > 0)
		done += pipe_empty(p[0], s->fd, (size_t)r);
	sem_say(s, "file to socket: %s", sem_amount((ssize_t)done, FILE_LEN));
	shutdown(s->fd, SHUT_WR);
	if (write(p[1], "x", 1) != 1)
		die_errno("pipe");
	signal(SIGPIPE, SIG_IGN);
	sem_say(s, "after shutdown: %s", RC(splice(p[0], NULL, s->fd, NULL, 1, 0)));
	sem_barrier(s);
}

static void splice_out_server(struct sem *s)
{
	sem_expect_stream(s, "read", s->fd, 0, FILE_LEN);
	sem_say_recv(s, "end", s->fd, 1, 0);
	sem_barrier(s);
}

/* Through without a copy in user space: socket, pipe, the same socket. */
static void splice_echo_client(struct sem *s)
{
	sem_send_stream(s->fd, 0, 40000);
	sem_expect_stream(s, "echo", s->fd, 0, 40000);
	sem_send_stream(s->fd, 40000, 40000);
	sem_expect_stream(s, "echo", s->fd, 40000, 40000);
}

static void splice_echo_server(struct sem *s)
{
	ssize_t r;
	int p[2];

	make_pipe(p);
	while ((r = splice(s->fd, NULL, p[1], NULL, 65536, SPLICE_F_MOVE)) > 0)
		if (pipe_empty(p[0], s->fd, (size_t)r) != (size_t)r)
			break;
	sem_say(s, "last: %s", RC(r));
}

static void tee_client(struct sem *s)
{
	int p[2], q[2];
	char b[64];
	ssize_t r;

	make_pipe(p);
	make_pipe(q);
	sem_wait_inq(s, s->fd, 10);
	sem_say(s, "splice: %s", RC(splice(s->fd, NULL, p[1], NULL, 10, 0)));
	sem_say(s, "tee: %s", RC(tee(p[0], q[1], 10, 0)));
	r = read(q[0], b, sizeof(b));
	sem_say(s, "copy: %.*s", (int)(r > 0 ? r : 0), b);
	sem_say(s, "original back: %s", RC(splice(p[0], NULL, s->fd, NULL, 10, 0)));
}

static void tee_server(struct sem *s)
{
	send(s->fd, "0123456789", 10, 0);
	sem_say_recv(s, "recv", s->fd, 10, MSG_WAITALL);
	sem_say_recv(s, "end", s->fd, 10, 0);
}

static void vmsplice_client(struct sem *s)
{
	static char buf[8192];
	struct iovec v = {buf, sizeof(buf)};
	int p[2];

	make_pipe(p);
	sem_fill_buf(buf, 0, sizeof(buf));
	sem_say(s, "vmsplice: %s", RC(vmsplice(p[1], &v, 1, 0)));
	sem_say(s, "splice: %s", RC(splice(p[0], NULL, s->fd, NULL, sizeof(buf), 0)));
	sem_barrier(s);
}

static void vmsplice_server(struct sem *s)
{
	sem_expect_stream(s, "read", s->fd, 0, 8192);
	sem_barrier(s);
}

static void sendfile_client(struct sem *s)
{
	int file = stream_file(FILE_LEN);
	off_t off = 1000;
	ssize_t r;
	size_t done = 0;

	r = sendfile(s->fd, file, &off, 500);
	sem_say(s, "500 from 1000: %s, offset then %lld", RC(r), (long long)off);
	sem_say(s, "the file's own offset: %lld", (long long)lseek(file, 0, SEEK_CUR));
	while ((r = sendfile(s->fd, file, NULL, 1 << 30)) > 0)
		done += (size_t)r;
	sem_say(s, "all of it: %s, then %s", sem_amount((ssize_t)done, FILE_LEN), RC(r));
	off = FILE_LEN - 10;
	sem_say(s, "beyond the end: %s", RC(sendfile(s->fd, file, &off, 100)));
	off = 0;
	sem_say(s, "nothing: %s", RC(sendfile(s->fd, file, &off, 0)));
	/* Non-blocking: a part, then EAGAIN, and no more than that has been sent. */
	set_nonblock(s->fd, true);
	done = 0;
	lseek(file, 0, SEEK_SET);
	for (;;) {
		r = sendfile(s->fd, file, NULL, FILE_LEN);
		if (r > 0)
			done += (size_t)r;
		else if (!r)
			lseek(file, 0, SEEK_SET);
		else
			break;
	}
	sem_say(s, "until full: %s, then %s", done ? "some" : "none", RC(r));
	sem_put(s, done);
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	signal(SIGPIPE, SIG_IGN);
	off = 0;
	sem_say(s, "after shutdown: %s", RC(sendfile(s->fd, file, &off, 10)));
}

static void sendfile_server(struct sem *s)
{
	size_t n, k, pos;

	sem_expect_stream(s, "read", s->fd, 1000, 500);
	sem_expect_stream(s, "read", s->fd, 0, FILE_LEN);
	sem_expect_stream(s, "read", s->fd, FILE_LEN - 10, 10);
	n = sem_get(s);
	for (pos = 0; n > FILE_LEN; n -= FILE_LEN) {
		char *buf = xcalloc(1, FILE_LEN);

		if (read_all(s->fd, buf, FILE_LEN) || !sem_check_buf(buf, 0, FILE_LEN))
			pos = 1;
		free(buf);
	}
	sem_say(s, "whole files: %s", pos ? "WRONG" : "good");
	k = n;
	sem_expect_stream(s, "the last part", s->fd, 0, k);
	sem_barrier(s);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static const struct sem_case cases[] = {
	SEM_CASE(splice_in, SEM_CONN), SEM_CASE(splice_out, SEM_CONN),
	SEM_CASE(splice_echo, SEM_CONN), SEM_CASE(tee, SEM_CONN),
	SEM_CASE(vmsplice, SEM_CONN), SEM_CASE(sendfile, SEM_CONN),
};

const struct sem_group sem_splice = {cases, ARRAY_SIZE(cases)};
