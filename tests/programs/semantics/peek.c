// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: MSG_PEEK, SO_PEEK_OFF, MSG_WAITALL, MSG_TRUNC. */
#include "sem.h"

static void peek_client(struct sem *s)
{
	sem_say_recv(s, "peek on empty", s->fd, 32, MSG_PEEK | MSG_DONTWAIT);
	sem_post(s);
	sem_say_recv(s, "peek that has to wait", s->fd, 5, MSG_PEEK);
	sem_say_recv(s, "peek again", s->fd, 5, MSG_PEEK);
	sem_say_recv(s, "peek less", s->fd, 2, MSG_PEEK);
	sem_say_recv(s, "recv less", s->fd, 2, 0);
	sem_say_recv(s, "peek the rest", s->fd, 32, MSG_PEEK);
	sem_say_recv(s, "peek the rest again", s->fd, 32, MSG_PEEK);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 8);
	sem_say_recv(s, "peek across two sends", s->fd, 32, MSG_PEEK);
	sem_say_recv(s, "peek all of it with MSG_WAITALL", s->fd, 8, MSG_PEEK | MSG_WAITALL);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_recv(s, "peek on empty again", s->fd, 32, MSG_PEEK | MSG_DONTWAIT);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLRDHUP);
	sem_say_recv(s, "peek with the end behind it", s->fd, 32, MSG_PEEK);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_recv(s, "peek at end", s->fd, 32, MSG_PEEK);
	sem_say_recv(s, "peek at end again", s->fd, 32, MSG_PEEK);
	sem_say_recv(s, "recv at end", s->fd, 32, 0);
}

static void peek_server(struct sem *s)
{
	sem_wait_post(s);
	sleep_ms(SEM_QUIET_MS);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	sleep_ms(50);
	send(s->fd, "world", 5, 0);
	sem_barrier(s);
	send(s->fd, "last", 4, 0);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

/* Peeks at more than one segment or ring lap holds, again and again, with reads in between. */
static void peek_long_client(struct sem *s)
{
	size_t len = 48000, pos = 0;
	char *buf = xcalloc(1, len);
	bool good = true;
	ssize_t r = 0;
	int i;

	for (i = 0; i < 12; i++, pos += 4000) {
		sem_wait_inq(s, s->fd, (int)(len - pos));
		memset(buf, 0, len);
		r = recv(s->fd, buf, len - pos, MSG_PEEK);
		good = good && r == (ssize_t)(len - pos) && sem_check_buf(buf, pos, len - pos);
		r = recv(s->fd, buf, 4000, 0);
		good = good && r == 4000 && sem_check_buf(buf, pos, 4000);
	}
	sem_say(s, "peeks and reads: %s", good ? "good" : "WRONG");
	free(buf);
}

static void peek_long_server(struct sem *s)
{
	int i;

	for (i = 0; i < 12; i++)
		sem_send_stream(s->fd, 4000 * (uint64_t)i, 4000);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void peek_off_client(struct sem *s)
{
	int r = sem_set_int(s->fd, SOL_SOCKET, SO_PEEK_OFF, 0);

	sem_say(s, "set SO_PEEK_OFF: %s", RC(r));
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 10);
	if (!r) {
		sem_say_recv(s, "peek", s->fd, 3, MSG_PEEK);
		sem_say_recv(s, "peek on", s->fd, 3, MSG_PEEK);
		sem_say_recv(s, "recv", s->fd, 2, 0);
		sem_say(s, "get SO_PEEK_OFF: %d", sem_get_int(s->fd, SOL_SOCKET, SO_PEEK_OFF));
		sem_say_recv(s, "peek on", s->fd, 32, MSG_PEEK);
		sem_say_recv(s, "peek beyond", s->fd, 32, MSG_PEEK | MSG_DONTWAIT);
		sem_say(s, "switch off: %s", RC(sem_set_int(s->fd, SOL_SOCKET, SO_PEEK_OFF, -1)));
	}
	sem_say_recv(s, "plain peek", s->fd, 32, MSG_PEEK);
	sem_say_recv(s, "recv", s->fd, 32, 0);
}

static void peek_off_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "0123456789", 10, 0);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void waitall_client(struct sem *s)
{
	sem_barrier(s);
	sem_say_recv(s, "recv of three pieces", s->fd, 15, MSG_WAITALL);
	sem_say_recv(s, "not waiting, on empty", s->fd, 15, MSG_WAITALL | MSG_DONTWAIT);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sem_say_recv(s, "not waiting, with a part", s->fd, 15, MSG_WAITALL | MSG_DONTWAIT);
	sem_barrier(s);
	sem_say_recv(s, "end in the middle", s->fd, 15, MSG_WAITALL);
	sem_say_recv(s, "at end", s->fd, 15, MSG_WAITALL);
}

static void waitall_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "first", 5, 0);
	sleep_ms(60);
	send(s->fd, "secon", 5, 0);
	sleep_ms(60);
	send(s->fd, "third", 5, 0);
	sem_barrier(s);
	send(s->fd, "parts", 5, 0);
	sem_barrier(s);
	send(s->fd, "final", 5, 0);
	sleep_ms(60);
	close(s->fd);
}

static void waitall_timeo_client(struct sem *s)
{
	uint64_t t;

	sem_set_timeout(s->fd, SO_RCVTIMEO, 300);
	sem_wait_inq(s, s->fd, 5);
	t = now_ms();
	sem_say_recv(s, "a part until the timeout", s->fd, 15, MSG_WAITALL);
	sem_say(s, "waited: %s", sem_bool(now_ms() - t >= 290));
	sem_say_recv(s, "nothing until the timeout", s->fd, 15, MSG_WAITALL);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sem_say_recv(s, "peek a part until the timeout", s->fd, 15, MSG_WAITALL | MSG_PEEK);
	sem_say_recv(s, "it is still there", s->fd, 15, 0);
}

static void waitall_timeo_server(struct sem *s)
{
	send(s->fd, "first", 5, 0);
	sem_barrier(s);
	send(s->fd, "secon", 5, 0);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void waitall_rst_client(struct sem *s)
{
	sem_barrier(s);
	sem_say_recv(s, "reset in the middle", s->fd, 15, MSG_WAITALL);
	sem_say_recv(s, "after it", s->fd, 15, MSG_WAITALL);
	sem_say_recv(s, "and after that", s->fd, 15, MSG_WAITALL);
}

static void waitall_rst_server(struct sem *s)
{
	struct linger l = {.l_onoff = 1};

	sem_barrier(s);
	send(s->fd, "first", 5, 0);
	sem_wait_outq_empty(s, s->fd);
	sleep_ms(SEM_QUIET_MS);
	setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(s->fd);
}

static void trunc_client(struct sem *s)
{
	char b[8] = "unmoved";

	sem_barrier(s);
	sem_wait_inq(s, s->fd, 10);
	sem_say(s, "peek MSG_TRUNC: %s", RC(recv(s->fd, b, 4, MSG_TRUNC | MSG_PEEK)));
	sem_say(s, "throw away 4: %s, buffer %s", RC(recv(s->fd, b, 4, MSG_TRUNC)), b);
	sem_say(s, "throw away 2 to NULL: %s", RC(recv(s->fd, NULL, 2, MSG_TRUNC)));
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say(s, "throw away, on empty: %s", RC(recv(s->fd, NULL, 2, MSG_TRUNC | MSG_DONTWAIT)));
	sem_barrier(s);
	sem_say(s, "throw away 1 MiB: %s", RC(recv(s->fd, NULL, 1 << 20, MSG_TRUNC | MSG_WAITALL)));
	sem_expect_stream(s, "what follows", s->fd, 1 << 20, 1000);
}

static void trunc_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "0123456789", 10, 0);
	sem_barrier(s);
	sem_send_stream(s->fd, 0, (1 << 20) + 1000);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static const struct sem_case cases[] = {
	SEM_CASE(peek, SEM_CONN),
	SEM_CASE(peek_long, SEM_CONN),
	SEM_CASE(peek_off, SEM_CONN),
	SEM_CASE(waitall, SEM_CONN),
	SEM_CASE(waitall_timeo, SEM_CONN),
	SEM_CASE(waitall_rst, SEM_CONN),
	SEM_CASE(trunc, SEM_CONN),
};

const struct sem_group sem_peek = {cases, ARRAY_SIZE(cases)};
