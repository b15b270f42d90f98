// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: shutdown, half close, linger, close with data left, resets. */
#include <linux/sockios.h>

#include "sem.h"

static void set_linger(int fd, int seconds)
{
	struct linger l = {.l_onoff = 1, .l_linger = seconds};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

static void shut_wr_client(struct sem *s)
{
	sem_say(s, "send: %s", RC(send(s->fd, "before", 6, 0)));
	sem_say(s, "shutdown: %s", RC(shutdown(s->fd, SHUT_WR)));
	sem_say(s, "shutdown again: %s", RC(shutdown(s->fd, SHUT_WR)));
	sem_say(s, "send after it: %s", RC(send(s->fd, "x", 1, MSG_NOSIGNAL)));
	sem_say_recv(s, "recv", s->fd, 5, MSG_WAITALL);
	sem_expect_stream(s, "and much more", s->fd, 0, 1 << 20);
	sem_say_recv(s, "end", s->fd, 32, 0);
	sem_say_poll(s, "poll", s->fd);
}

static void shut_wr_server(struct sem *s)
{
	sem_say_recv(s, "recv", s->fd, 6, MSG_WAITALL);
	sem_say_recv(s, "end", s->fd, 32, 0);
	sem_say_recv(s, "end again", s->fd, 32, 0);
	sem_say(s, "send after the peer's end: %s", RC(send(s->fd, "after", 5, 0)));
	sleep_ms(50);
	sem_say(s, "send: %s", sem_amount(sem_send_stream(s->fd, 0, 1 << 20), 1 << 20));
	shutdown(s->fd, SHUT_WR);
	sem_wait_events(s, s->fd, POLLHUP);
	sem_say_poll(s, "poll", s->fd);
}

/* Both have data on the way when they end their direction. */
static void shut_full_client(struct sem *s)
{
	size_t n = sem_stuff(s->fd, 0);

	sem_put(s, n);
	sem_say(s, "shutdown with a full send buffer: %s", RC(shutdown(s->fd, SHUT_WR)));
	n = sem_get(s);
	sem_barrier(s);
	sem_expect_stream(s, "read", s->fd, 0, n);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

#define shut_full_server shut_full_client

static void shut_rd_client(struct sem *s)
{
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sem_say(s, "shutdown: %s", RC(shutdown(s->fd, SHUT_RD)));
	sem_say_poll(s, "poll with data", s->fd);
	sem_say_recv(s, "data that was there", s->fd, 32, 0);
	sem_say_recv(s, "end", s->fd, 32, 0);
	sem_say_poll(s, "poll", s->fd);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sem_say_recv(s, "data that came later", s->fd, 32, 0);
	sem_say_recv(s, "end again", s->fd, 32, 0);
	sem_say(s, "send: %s", RC(send(s->fd, "still", 5, 0)));
}

static void shut_rd_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "first", 5, 0);
	sem_barrier(s);
	sem_say(s, "send to a peer that does not read: %s", RC(send(s->fd, "later", 5, MSG_NOSIGNAL)));
	sem_say_recv(s, "recv", s->fd, 32, 0);
}

static void shut_rdwr_client(struct sem *s)
{
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	send(s->fd, "pending", 7, 0);
	sem_say(s, "shutdown: %s", RC(shutdown(s->fd, SHUT_RDWR)));
	sem_say_recv(s, "data that was there", s->fd, 32, 0);
	sem_say_recv(s, "end", s->fd, 32, 0);
	sem_say(s, "send: %s", RC(send(s->fd, "x", 1, MSG_NOSIGNAL)));
	sem_say_poll(s, "poll", s->fd);
	sem_barrier(s);
	sem_barrier(s);
	sem_wait_tcp_state(s, s->fd, TCP_CLOSE);
	sem_say(s, "shutdown again: %s", RC(shutdown(s->fd, SHUT_RDWR)));
}

static void shut_rdwr_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "first", 5, 0);
	sem_barrier(s);
	sem_say_recv(s, "recv", s->fd, 7, MSG_WAITALL);
	sem_say_recv(s, "end", s->fd, 32, 0);
	shutdown(s->fd, SHUT_WR);
	sem_wait_events(s, s->fd, POLLHUP);
	sem_barrier(s);
}

struct blocked {
	int fd;
	bool send;
	volatile pid_t tid;
	char text[32];
	size_t got;
};

static void *blocked_run(void *arg)
{
	struct blocked *b = arg;
	static char big[8 << 20];
	ssize_t r;

	signal(SIGPIPE, SIG_IGN);
	b->tid = gettid();
	if (!b->send) {
		r = recv(b->fd, b->text + 16, 8, 0);
	} else {
		do
			r = send(b->fd, big, sizeof(big), MSG_NOSIGNAL);
		while (r > 0);
	}
	snprintf(b->text, sizeof(b->text), "%s", RC(r));
	return NULL;
}

static pthread_t blocked_start(struct blocked *b, int fd, bool send)
{
	pthread_t t;

	*b = (struct blocked){.fd = fd, .send = send};
	pthread_create(&t, NULL, blocked_run, b);
	while (!b->tid || !sem_sleeps(b->tid))
		sleep_ms(5);
	return t;
}

static void shut_blocked_client(struct sem *s)
{
	struct blocked b;
	pthread_t t = blocked_start(&b, s->fd, false);
	int fd2;

	shutdown(s->fd, SHUT_RD);
	pthread_join(t, NULL);
	sem_say(s, "blocked recv, shutdown of reading: %s", b.text);
	t = blocked_start(&b, s->fd, true);
	shutdown(s->fd, SHUT_WR);
	pthread_join(t, NULL);
	sem_say(s, "blocked send, shutdown of writing: %s", b.text);
	fd2 = sem_pair(s);
	t = blocked_start(&b, fd2, false);
	shutdown(fd2, SHUT_RDWR);
	pthread_join(t, NULL);
	sem_say(s, "blocked recv, shutdown of both: %s", b.text);
	sem_barrier(s);
}

static void shut_blocked_server(struct sem *s)
{
	int fd2 = sem_pair(s);

	sem_barrier(s);
	sem_say_recv(s, "end", fd2, 1, 0);
}

static void half_close_client(struct sem *s)
{
	char buf[1024];
	ssize_t r;

	sem_send_stream(s->fd, 0, 300000);
	shutdown(s->fd, SHUT_WR);
	sem_expect_stream(s, "answer after the end", s->fd, 300000, 300000);
	r = recv(s->fd, buf, sizeof(buf), 0);
	sem_say(s, "end: %s", RC(r));
	close(s->fd);
	/* The same from the other side. */
	s->fd = sem_pair(s);
	sem_expect_stream(s, "question", s->fd, 0, 300000);
	sem_say_recv(s, "end", s->fd, 32, 0);
	sleep_ms(100);
	sem_send_stream(s->fd, 300000, 300000);
}

static void half_close_server(struct sem *s)
{
	sem_expect_stream(s, "question", s->fd, 0, 300000);
	sem_say_recv(s, "end", s->fd, 32, 0);
	sleep_ms(100);
	sem_send_stream(s->fd, 300000, 300000);
	close(s->fd);
	s->fd = sem_pair(s);
	sem_send_stream(s->fd, 0, 300000);
	shutdown(s->fd, SHUT_WR);
	sem_expect_stream(s, "answer after the end", s->fd, 300000, 300000);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

static void linger0_client(struct sem *s)
{
	int fd2 = sem_pair(s);

	set_linger(s->fd, 0);
	sem_say(s, "close: %s", RC(close(s->fd)));
	/* Data that has reached the peer is there to read in spite of the reset. */
	send(fd2, "arrived", 7, 0);
	sem_barrier(s);
	set_linger(fd2, 0);
	sem_say(s, "close with data unread at the peer: %s", RC(close(fd2)));
	s->fd = -1;
}

static void linger0_server(struct sem *s)
{
	int fd2 = sem_pair(s);

	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_recv(s, "recv again", s->fd, 32, 0);
	sem_say(s, "send: %s", RC(send(s->fd, "x", 1, MSG_NOSIGNAL)));
	sem_wait_inq(s, fd2, 7);
	sem_barrier(s);
	sem_wait_events(s, fd2, POLLHUP);
	sem_say_poll(s, "poll", fd2);
	sem_say_recv(s, "recv", fd2, 32, 0);
	sem_say_recv(s, "recv again", fd2, 32, 0);
	sem_say_recv(s, "recv a third time", fd2, 32, 0);
}

static const char *waited(uint64_t since, unsigned int low, unsigned int high)
{
	uint64_t t = now_ms() - since;

	return t < low ? "too short" : t > high ? "too long" : "as long as it should";
}

static void linger_wait_client(struct sem *s)
{
	size_t n = sem_stuff(s->fd, 0);
	uint64_t t;

	sem_put(s, n);
	set_linger(s->fd, 30);
	t = now_ms();
	sem_say(s, "close: %s", RC(close(s->fd)));
	sem_say(s, "waited for the reader %s", waited(t, 900, 20000));
	s->fd = -1;
}

static void linger_wait_server(struct sem *s)
{
	size_t n = sem_get(s);

	sleep_ms(1000);
	sem_expect_stream(s, "read", s->fd, 0, n);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

static void linger_timeout_client(struct sem *s)
{
	size_t n = sem_stuff(s->fd, 0);
	uint64_t t;

	sem_put(s, n);
	set_linger(s->fd, 1);
	t = now_ms();
	sem_say(s, "close: %s", RC(close(s->fd)));
	sem_say(s, "waited for the timeout %s", waited(t, 950, 10000));
	s->fd = -1;
	sem_barrier(s);
}

static void linger_timeout_server(struct sem *s)
{
	size_t n = sem_get(s);

	sem_barrier(s);
	sem_expect_stream(s, "read", s->fd, 0, n);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

/* Little data that the peer's socket has taken but its program has not read. */
static void linger_small_client(struct sem *s)
{
	uint64_t t;

	send(s->fd, "small", 5, 0);
	set_linger(s->fd, 3);
	t = now_ms();
	sem_say(s, "close: %s", RC(close(s->fd)));
	sem_say(s, "waited: %s", now_ms() - t < 1500 ? "hardly" : "for the reader");
	s->fd = -1;
	sem_barrier(s);
}

static void linger_small_server(struct sem *s)
{
	sem_barrier(s);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

static void close_data_client(struct sem *s)
{
	sem_say(s, "send: %s", sem_amount(sem_send_stream(s->fd, 0, 1 << 20), 1 << 20));
	close(s->fd);
	s->fd = sem_pair(s);
	send(s->fd, "short", 5, 0);
	close(s->fd);
	s->fd = sem_pair(s);
	close(s->fd);
	s->fd = -1;
}

static void close_data_server(struct sem *s)
{
	sleep_ms(50);
	sem_expect_stream(s, "read", s->fd, 0, 1 << 20);
	sem_say_recv(s, "end", s->fd, 32, 0);
	close(s->fd);
	s->fd = sem_pair(s);
	sleep_ms(50);
	sem_say_recv(s, "short", s->fd, 32, 0);
	sem_say_recv(s, "end", s->fd, 32, 0);
	close(s->fd);
	s->fd = sem_pair(s);
	sem_say_recv(s, "nothing, end", s->fd, 32, 0);
}

static void close_unread_client(struct sem *s)
{
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sem_say(s, "close with data unread: %s", RC(close(s->fd)));
	s->fd = sem_pair(s);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	send(s->fd, "parting", 7, 0);
	sem_barrier(s);
	close(s->fd);
	s->fd = -1;
}

static void close_unread_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_wait_events(s, s->fd, POLLHUP);
	sem_say_poll(s, "poll", s->fd);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_recv(s, "recv again", s->fd, 32, 0);
	sem_say(s, "send: %s", RC(send(s->fd, "x", 1, MSG_NOSIGNAL)));
	close(s->fd);
	/* Both have unread data: what has arrived here can still be read. */
	s->fd = sem_pair(s);
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_wait_inq(s, s->fd, 7);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLHUP);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_recv(s, "recv again", s->fd, 32, 0);
}

/* A close in one thread does not end the call of another; the call does when the peer sends. */
static void close_blocked_client(struct sem *s)
{
	struct blocked b;
	pthread_t t = blocked_start(&b, s->fd, false);

	sem_say(s, "close: %s", RC(close(s->fd)));
	sem_barrier(s);
	pthread_join(t, NULL);
	sem_say(s, "blocked recv: %s", b.text);
	s->fd = sem_pair(s);
	t = blocked_start(&b, s->fd, false);
	close(s->fd);
	sem_barrier(s);
	pthread_join(t, NULL);
	sem_say(s, "blocked recv, end comes: %s", b.text);
	s->fd = -1;
}

static void close_blocked_server(struct sem *s)
{
	sem_barrier(s);
	sem_say(s, "send: %s", RC(send(s->fd, "hello", 5, 0)));
	sem_say_recv(s, "end", s->fd, 32, 0);
	close(s->fd);
	s->fd = sem_pair(s);
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

static void rst_blocked_client(struct sem *s)
{
	struct blocked b;
	pthread_t t = blocked_start(&b, s->fd, false);

	sem_barrier(s);
	pthread_join(t, NULL);
	sem_say(s, "blocked recv: %s", b.text);
	close(s->fd);
	s->fd = sem_pair(s);
	t = blocked_start(&b, s->fd, true);
	sem_barrier(s);
	pthread_join(t, NULL);
	sem_say(s, "blocked send: %s",
		strstr(b.text, "ECONNRESET") || strstr(b.text, "EPIPE") ? "reset" : b.text);
}

static void rst_blocked_server(struct sem *s)
{
	sem_barrier(s);
	set_linger(s->fd, 0);
	close(s->fd);
	s->fd = sem_pair(s);
	sem_barrier(s);
	set_linger(s->fd, 0);
	close(s->fd);
	s->fd = -1;
}

static volatile sig_atomic_t pipes;

static void on_pipe(int sig)
{
	pipes++;
}

static void epipe_client(struct sem *s)
{
	struct sigaction sa = {.sa_handler = on_pipe};

	sigaction(SIGPIPE, &sa, NULL);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLRDHUP);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say(s, "first send after the peer closed: %s", RC(send(s->fd, "hello", 5, 0)));
	sem_wait_events(s, s->fd, POLLHUP);
	sem_say(s, "second send: %s", RC(send(s->fd, "hello", 5, 0)));
	sem_say(s, "signals: %d", (int)pipes);
	sem_say(s, "write: %s", RC(write(s->fd, "hello", 5)));
	sem_say(s, "signals: %d", (int)pipes);
	sem_say(s, "with MSG_NOSIGNAL: %s", RC(send(s->fd, "hello", 5, MSG_NOSIGNAL)));
	sem_say(s, "signals: %d", (int)pipes);
	sem_say_recv(s, "recv at last", s->fd, 32, 0);
}

static void epipe_server(struct sem *s)
{
	close(s->fd);
	s->fd = -1;
	sem_barrier(s);
}

static const struct sem_case cases[] = {
	SEM_CASE(shut_wr, SEM_CONN),	   SEM_CASE(shut_full, SEM_CONN),
	SEM_CASE(shut_rd, SEM_CONN),	   SEM_CASE(shut_rdwr, SEM_CONN),
	SEM_CASE(shut_blocked, SEM_CONN),  SEM_CASE(half_close, SEM_CONN),
	SEM_CASE(linger0, SEM_CONN),	   SEM_CASE(linger_wait, SEM_CONN),
	SEM_CASE(linger_timeout, SEM_CONN), SEM_CASE(linger_small, SEM_CONN),
	SEM_CASE(close_data, SEM_CONN),	   SEM_CASE(close_unread, SEM_CONN),
	SEM_CASE(close_blocked, SEM_CONN), SEM_CASE(rst_blocked, SEM_CONN),
	SEM_CASE(epipe, SEM_CONN),
};

const struct sem_group sem_closing = {cases, ARRAY_SIZE(cases)};
