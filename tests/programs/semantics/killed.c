// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: the process at one end is killed. */
#include "sem.h"

/* A process that alone holds s->fd and runs f with it; it is killed by the caller. */
static pid_t holder(struct sem *s, void (*f)(struct sem *s))
{
	pid_t pid = sem_fork();

	if (!pid) {
		f(s);
		for (;;)
			pause();
	}
	close(s->fd);
	s->fd = -1;
	return pid;
}

static void hold_only(struct sem *s)
{
}

static void hold_send(struct sem *s)
{
	sem_send_stream(s->fd, 0, 64 << 20);
}

static void hold_recv(struct sem *s)
{
	static char buf[8192];

	while (recv(s->fd, buf, sizeof(buf), 0) > 0)
		;
}

static void killed_idle_client(struct sem *s)
{
	sem_barrier(s);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_recv(s, "recv again", s->fd, 32, 0);
}

static void killed_idle_server(struct sem *s)
{
	pid_t pid = holder(s, hold_only);

	sem_barrier(s);
	sleep_ms(50);
	kill(pid, SIGKILL);
	sem_say(s, "holder: %s", sem_wait_child(pid));
}

static void killed_unread_client(struct sem *s)
{
	send(s->fd, "hello", 5, 0);
	sem_wait_outq_empty(s, s->fd);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLHUP);
	sem_say_poll(s, "poll", s->fd);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_recv(s, "recv again", s->fd, 32, 0);
	sem_say(s, "send: %s", RC(send(s->fd, "x", 1, MSG_NOSIGNAL)));
}

static void killed_unread_server(struct sem *s)
{
	pid_t pid;

	sem_wait_inq(s, s->fd, 5);
	pid = holder(s, hold_only);
	sem_barrier(s);
	kill(pid, SIGKILL);
	sem_say(s, "holder: %s", sem_wait_child(pid));
}

/* What the killed process's sends had returned for is still delivered, then the end. */
static void killed_unsent_client(struct sem *s)
{
	bool good;
	size_t n;
	int err;

	sem_wait_inq(s, s->fd, 1);
	sem_barrier(s);
	sem_barrier(s);
	n = sem_read_all(s->fd, 0, &good, &err);
	sem_say(s, "read: %s, content %s, then %s", n > 0 ? "some" : "none", good ? "good" : "WRONG",
		err ? strerrorname_np(err) : "end");
}

static void killed_unsent_server(struct sem *s)
{
	pid_t pid = holder(s, hold_send);

	sem_barrier(s);
	sleep_ms(100);
	kill(pid, SIGKILL);
	sem_say(s, "holder: %s", sem_wait_child(pid));
	sem_barrier(s);
}

static void killed_exact_client(struct sem *s)
{
	bool good;
	size_t n, want = sem_get(s);
	int err;

	n = sem_read_all(s->fd, 0, &good, &err);
	sem_say(s, "read: %s, content %s, then %s", n == want ? "all that was sent" : "NOT ALL",
		good ? "good" : "WRONG", err ? strerrorname_np(err) : "end");
}

static void killed_exact_server(struct sem *s)
{
	pid_t pid;
	size_t n = sem_stuff(s->fd, 0);

	pid = holder(s, hold_only);
	kill(pid, SIGKILL);
	sem_say(s, "holder: %s", sem_wait_child(pid));
	sem_put(s, n);
}

static void killed_reader_client(struct sem *s)
{
	static char buf[65536];
	ssize_t r;

	do
		r = send(s->fd, buf, sizeof(buf), MSG_NOSIGNAL);
	while (r > 0);
	/* Which of the two depends on whether a send was under way. */
	sem_say(s, "send: %s", errno == EPIPE || errno == ECONNRESET ? "reset" : RC(r));
	sem_say(s, "send again: %s", RC(send(s->fd, buf, 1, MSG_NOSIGNAL)));
	sem_say_poll(s, "poll", s->fd);
}

static void killed_reader_server(struct sem *s)
{
	pid_t pid = holder(s, hold_recv);

	sleep_ms(200);
	kill(pid, SIGKILL);
	sem_say(s, "holder: %s", sem_wait_child(pid));
}

/* The reader sleeps in recv when it is killed: no data is left unread, so the peer sees an end. */
static void killed_blocked_client(struct sem *s)
{
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLRDHUP);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say(s, "first send: %s", RC(send(s->fd, "x", 1, MSG_NOSIGNAL)));
	sem_wait_events(s, s->fd, POLLHUP);
	sem_say(s, "second send: %s", RC(send(s->fd, "x", 1, MSG_NOSIGNAL)));
}

static void killed_blocked_server(struct sem *s)
{
	pid_t pid = holder(s, hold_recv);

	sleep_ms(SEM_SIGNAL_MS);
	kill(pid, SIGKILL);
	sem_say(s, "holder: %s", sem_wait_child(pid));
	sem_barrier(s);
}

/* The sender sleeps in send when it is killed and the other side reads on. */
static void killed_sender_client(struct sem *s)
{
	bool good;
	size_t n;
	int err;

	sem_wait_inq(s, s->fd, 1);
	sem_barrier(s);
	sem_barrier(s);
	n = sem_read_all(s->fd, 0, &good, &err);
	sem_say(s, "read: %s, content %s, then %s", n > 0 ? "some" : "none", good ? "good" : "WRONG",
		err ? strerrorname_np(err) : "end");
	/* The same while this side is reading all the time. */
	s->fd = sem_pair(s);
	sem_wait_inq(s, s->fd, 1);
	sem_post(s);
	n = sem_read_all(s->fd, 0, &good, &err);
	sem_say(s, "read: %s, content %s, then %s", n > 0 ? "some" : "none", good ? "good" : "WRONG",
		err ? strerrorname_np(err) : "end");
}

static void hold_send_big(struct sem *s)
{
	size_t len = 64 << 20;
	char *buf = xcalloc(1, len);

	sem_fill_buf(buf, 0, len);
	send(s->fd, buf, len, 0);
	while (send(s->fd, buf, 0, 0) == 0)
		pause();
}

static void hold_send_endless(struct sem *s)
{
	sem_send_stream(s->fd, 0, 1ull << 40);
}

static void killed_sender_server(struct sem *s)
{
	pid_t pid = holder(s, hold_send_big);

	sem_barrier(s);
	sleep_ms(100);
	kill(pid, SIGKILL);
	sem_say(s, "holder: %s", sem_wait_child(pid));
	sem_barrier(s);
	s->fd = sem_pair(s);
	pid = holder(s, hold_send_endless);
	sem_wait_post(s);
	sleep_ms(100);
	kill(pid, SIGKILL);
	sem_say(s, "holder: %s", sem_wait_child(pid));
}

static const struct sem_case cases[] = {
	SEM_CASE(killed_idle, SEM_CONN),   SEM_CASE(killed_unread, SEM_CONN),
	SEM_CASE(killed_unsent, SEM_CONN), SEM_CASE(killed_exact, SEM_CONN),
	SEM_CASE(killed_reader, SEM_CONN), SEM_CASE(killed_blocked, SEM_CONN),
	SEM_CASE(killed_sender, SEM_CONN),
};

const struct sem_group sem_killed = {cases, ARRAY_SIZE(cases)};
