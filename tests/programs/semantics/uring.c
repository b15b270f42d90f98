// SPDX-License-Identifier: GPL-2.0-or-later
/* Case: io_uring, by its system calls: receive that has to wait, send, poll, cancel. */
#include <linux/io_uring.h>
#include <sys/syscall.h>

#include "sem.h"

#define ENTRIES 8

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static bool ring_init(struct ring *r)
{
	struct io_uring_params p = {0};
	char *sq, *cq;

	r->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
	if (r->fd < 0)
		return false;
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(unsigned int), PROT_READ | PROT_WRITE,
		  MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
		  PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
		       MAP_SHARED, r->fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || r->sqes == MAP_FAILED)
		return false;
	r->sq_tail = (unsigned int *)(sq + p.sq_off.tail);
	r->sq_mask = (unsigned int *)(sq + p.sq_off.ring_mask);
	r->sq_array = (unsigned int *)(sq + p.sq_off.array);
	r->cq_head = (unsigned int *)(cq + p.cq_off.head);
	r->cq_tail = (unsigned int *)(cq + p.cq_off.tail);
	r->cq_mask = (unsigned int *)(cq + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	return true;
}

static void ring_submit(struct ring *r, unsigned int op, int fd, const void *buf, size_t len,
			uint64_t id)
{
	unsigned int tail = *r->sq_tail, i = tail & *r->sq_mask;

	memset(&r->sqes[i], 0, sizeof(r->sqes[i]));
	r->sqes[i].opcode = (uint8_t)op;
	r->sqes[i].fd = fd;
	r->sqes[i].addr = (uintptr_t)buf;
	r->sqes[i].len = (uint32_t)len;
	r->sqes[i].user_data = id;
	if (op == IORING_OP_POLL_ADD)
		r->sqes[i].poll32_events = POLLIN;
	r->sq_array[i] = i;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	syscall(SYS_io_uring_enter, r->fd, 1, 0, 0, NULL, 0);
}

/* The result of the next completion as sem_rc() tells it; *id says whose it is. */
static const char *ring_wait(struct ring *r, uint64_t *id, int *res)
{
	unsigned int head = *r->cq_head;
	struct io_uring_cqe *c;

	while (__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) == head)
		syscall(SYS_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	c = &r->cqes[head & *r->cq_mask];
	*id = c->user_data;
	*res = c->res;
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
	if (*res < 0)
		errno = -*res;
	return sem_rc(*res < 0 ? -1 : *res);
}

static void uring_client(struct sem *s)
{
	size_t len = 300000, done = 0;
	char *buf = xcalloc(1, len), small[16];
	struct ring r;
	const char *t;
	uint64_t id;
	bool ok = ring_init(&r), good;
	int res;

	sem_put(s, ok);
	if (!ok) {
		sem_say(s, "unsupported");
		free(buf);
		return;
	}
	ring_submit(&r, IORING_OP_RECV, s->fd, small, 5, 1);
	sem_post(s);
	t = ring_wait(&r, &id, &res);
	sem_say(s, "receive that has to wait: %s '%.*s'", t, res > 0 ? res : 0, small);
	ring_submit(&r, IORING_OP_POLL_ADD, s->fd, NULL, 0, 2);
	sem_post(s);
	t = ring_wait(&r, &id, &res);
	sem_say(s, "poll that has to wait: %s", res > 0 && res & POLLIN ? "IN" : t);
	ring_submit(&r, IORING_OP_RECV, s->fd, small, 5, 3);
	t = ring_wait(&r, &id, &res);
	sem_say(s, "receive that finds data: %s '%.*s'", t, res > 0 ? res : 0, small);
	sem_fill_buf(buf, 0, len);
	while (done < len) {
		ring_submit(&r, IORING_OP_SEND, s->fd, buf + done, len - done, 4);
		t = ring_wait(&r, &id, &res);
		if (res <= 0)
			break;
		done += (size_t)res;
	}
	sem_say(s, "send: %s", done == len ? "all" : t);
	/* A receive that is taken back takes no byte with it. */
	ring_submit(&r, IORING_OP_RECV, s->fd, small, 5, 5);
	ring_submit(&r, IORING_OP_ASYNC_CANCEL, -1, (void *)(uintptr_t)5, 0, 6);
	for (done = 0; done < 2; done++) {
		t = ring_wait(&r, &id, &res);
		if (id == 5)
			sem_say(s, "cancelled receive: %s", t);
	}
	sem_post(s);
	for (done = 0, good = true; done < len; done += (size_t)res) {
		ring_submit(&r, IORING_OP_RECV, s->fd, buf, len - done, 7);
		t = ring_wait(&r, &id, &res);
		if (res <= 0)
			break;
		good = good && sem_check_buf(buf, done, (size_t)res);
	}
	sem_say(s, "receive: %s, content %s", done == len ? "all" : t, good ? "good" : "WRONG");
	ring_submit(&r, IORING_OP_RECV, s->fd, small, 5, 8);
	sem_post(s);
	t = ring_wait(&r, &id, &res);
	sem_say(s, "receive when the end comes: %s", t);
	close(r.fd);
	free(buf);
}

static void uring_server(struct sem *s)
{
	if (!sem_get(s)) {
		sem_say(s, "the client has no io_uring");
		return;
	}
	sem_wait_post(s);
	sleep_ms(SEM_QUIET_MS);
	send(s->fd, "hello", 5, 0);
	sem_wait_post(s);
	sleep_ms(SEM_QUIET_MS);
	send(s->fd, "world", 5, 0);
	sem_expect_stream(s, "read", s->fd, 0, 300000);
	sem_wait_post(s);
	sem_send_stream(s->fd, 0, 300000);
	sem_wait_post(s);
	sleep_ms(50);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static const struct sem_case cases[] = {
	SEM_CASE(uring, SEM_CONN),
};

const struct sem_group sem_uring = {cases, ARRAY_SIZE(cases)};
