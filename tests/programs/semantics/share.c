// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: one socket in several threads, processes, descriptors. */
#include "sem.h"

/*
 * Bytes whose place can be told from any seven of them in a row: groups of four with 28 bits of
 * counter, the first of each group with the high bit set.
 */
#define MARK_LEN (1u << 20)
#define MARK_MIN 7

static unsigned char mark_byte(size_t pos)
{
	unsigned int shift = 21 - 7 * (unsigned int)(pos % 4);

	return (unsigned char)((pos / 4 >> shift & 0x7f) | (pos % 4 ? 0 : 0x80));
}

static ssize_t mark_locate(const unsigned char *p, size_t n)
{
	size_t i;

	for (i = 0; i < 4 && i + 4 <= n; i++)
		if (p[i] & 0x80)
			return (ssize_t)((((size_t)p[i] & 0x7f) << 21 | (size_t)p[i + 1] << 14 |
					  (size_t)p[i + 2] << 7 | p[i + 3]) * 4 - i);
	return -1;
}

/* What the readers of one socket have got between them. In shared memory: readers may be processes. */
struct tally {
	int fd;
	pthread_mutex_t lock;
	size_t bytes, wrong, twice, tiny;
	uint64_t tiny_sum, placed_sum;
	unsigned char seen[MARK_LEN];
};

static struct tally *tally_new(int fd)
{
	struct tally *t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			       -1, 0);
	pthread_mutexattr_t a;

	if (t == MAP_FAILED)
		die_errno("mmap");
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&t->lock, &a);
	t->fd = fd;
	return t;
}

static void tally_add(struct tally *t, const unsigned char *p, size_t n)
{
	ssize_t pos = mark_locate(p, n);
	size_t i;

	pthread_mutex_lock(&t->lock);
	t->bytes += n;
	if (n < MARK_MIN) {
		/* Too short to place: its bytes must fill what stays open, by number and sum. */
		t->tiny += n;
		for (i = 0; i < n; i++)
			t->tiny_sum += p[i];
	} else if (pos < 0) {
		t->wrong += n;
	} else {
		for (i = 0; i < n; i++) {
			size_t at = (size_t)pos + i;

			if (at >= MARK_LEN || p[i] != mark_byte(at)) {
				t->wrong++;
				continue;
			}
			t->twice += t->seen[at];
			t->seen[at] = 1;
		}
	}
	pthread_mutex_unlock(&t->lock);
}

static void tally_say(struct sem *s, const char *what, struct tally *t)
{
	uint64_t open = 0, open_sum = 0;
	size_t i;

	for (i = 0; i < MARK_LEN; i++) {
		if (t->seen[i])
			continue;
		open++;
		open_sum += mark_byte(i);
	}
	sem_say(s, "%s: %s bytes, wrong %zu, twice %zu, missing %s", what,
		t->bytes == MARK_LEN ? "all" : "NOT ALL", t->wrong, t->twice,
		open == t->tiny && open_sum == t->tiny_sum ? "none" : "SOME");
}

static void *tally_read(void *arg)
{
	struct tally *t = arg;
	unsigned char buf[1000];
	ssize_t r;

	while ((r = recv(t->fd, buf, sizeof(buf), 0)) > 0)
		tally_add(t, buf, (size_t)r);
	return NULL;
}

static void mark_send(int fd)
{
	static unsigned char all[MARK_LEN];
	size_t i, n;

	for (i = 0; i < MARK_LEN; i++)
		all[i] = mark_byte(i);
	for (i = 0; i < MARK_LEN; i += n) {
		n = i % 7 ? 777 : 5000;
		n = n < MARK_LEN - i ? n : MARK_LEN - i;
		if (write_all(fd, all + i, n))
			return;
	}
}

static void fork_read_client(struct sem *s)
{
	struct tally *t = tally_new(s->fd);
	pid_t pid = sem_fork();

	tally_read(t);
	if (!pid)
		_exit(0);
	sem_say(s, "other reader: %s", sem_wait_child(pid));
	tally_say(s, "both", t);
}

static void fork_read_server(struct sem *s)
{
	mark_send(s->fd);
}

/* Two writers: each sends a stream of its own, told apart by the high bit of each byte. */
#define DUAL_LEN (512u << 10)

struct dual {
	int fd;
	unsigned int id;
};

static unsigned char dual_byte(unsigned int id, size_t pos)
{
	return (unsigned char)((mix64(pos / 8 + id) >> 8 * (pos % 8) & 0x7f) | id << 7);
}

static void *dual_write(void *arg)
{
	struct dual *d = arg;
	unsigned char buf[3001];
	size_t done = 0, n, i;

	while (done < DUAL_LEN) {
		n = done % 2 ? 1000 : sizeof(buf);
		n = n < DUAL_LEN - done ? n : DUAL_LEN - done;
		for (i = 0; i < n; i++)
			buf[i] = dual_byte(d->id, done + i);
		if (write_all(d->fd, buf, n))
			break;
		done += n;
	}
	return NULL;
}

static void dual_expect(struct sem *s, const char *what, int fd)
{
	unsigned char buf[5000];
	size_t at[2] = {0, 0}, wrong = 0, i;
	ssize_t r;

	while (at[0] + at[1] < 2 * DUAL_LEN && (r = recv(fd, buf, sizeof(buf), 0)) > 0)
		for (i = 0; i < (size_t)r; i++) {
			unsigned int id = buf[i] >> 7;

			wrong += buf[i] != dual_byte(id, at[id]++);
		}
	sem_say(s, "%s: first %s, second %s, wrong %zu", what, at[0] == DUAL_LEN ? "all" : "NOT ALL",
		at[1] == DUAL_LEN ? "all" : "NOT ALL", wrong);
}

static void fork_write_client(struct sem *s)
{
	struct dual d = {.fd = s->fd, .id = 0};
	pid_t pid = sem_fork();

	if (!pid) {
		d.id = 1;
		dual_write(&d);
		_exit(0);
	}
	dual_write(&d);
	sem_say(s, "other writer: %s", sem_wait_child(pid));
}

static void fork_write_server(struct sem *s)
{
	dual_expect(s, "both", s->fd);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

/* Two readers and two writers on each end, all at once. */
static void threads_client(struct sem *s)
{
	struct dual d[2] = {{s->fd, 0}, {s->fd, 1}};
	struct tally *t = tally_new(s->fd);
	pthread_t w[2], r[2];
	int i;

	for (i = 0; i < 2; i++) {
		pthread_create(&w[i], NULL, dual_write, &d[i]);
		pthread_create(&r[i], NULL, tally_read, t);
	}
	for (i = 0; i < 2; i++)
		pthread_join(w[i], NULL);
	shutdown(s->fd, SHUT_WR);
	for (i = 0; i < 2; i++)
		pthread_join(r[i], NULL);
	tally_say(s, "two readers", t);
}

static void *mark_thread(void *arg)
{
	struct sem *s = arg;

	mark_send(s->fd);
	shutdown(s->fd, SHUT_WR);
	return NULL;
}

static void threads_server(struct sem *s)
{
	pthread_t t;

	pthread_create(&t, NULL, mark_thread, s);
	dual_expect(s, "two writers", s->fd);
	sem_say_recv(s, "end", s->fd, 1, 0);
	pthread_join(t, NULL);
}

static void fork_close_client(struct sem *s)
{
	pid_t pid;

	fflush(NULL);
	pid = sem_fork();
	if (!pid) {
		sem_wait_post(s);
		_exit(write_all(s->fd, "from the child", 14) ? 1 : 0);
	}
	sem_say(s, "close in the parent: %s", RC(close(s->fd)));
	s->fd = -1;
	sem_post(s);
	sem_say(s, "child: %s", sem_wait_child(pid));
}

static void fork_close_server(struct sem *s)
{
	sem_wait_post(s);
	sleep_ms(50);
	sem_say_recv(s, "nothing happened", s->fd, 32, MSG_DONTWAIT);
	sem_post(s);
	sem_say_recv(s, "recv", s->fd, 14, MSG_WAITALL);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

static void dup_client(struct sem *s)
{
	int d = dup(s->fd), e = fcntl(s->fd, F_DUPFD_CLOEXEC, 100);

	send(s->fd, "one", 3, 0);
	close(s->fd);
	send(d, "two", 3, 0);
	sem_barrier(s);
	sem_say_recv(s, "recv by the duplicate", d, 5, MSG_WAITALL);
	set_nonblock(d, true);
	sem_say_recv(s, "O_NONBLOCK is shared", e, 5, 0);
	sem_say(s, "shutdown by one: %s", RC(shutdown(d, SHUT_WR)));
	sem_say(s, "send by the other: %s", RC(send(e, "x", 1, MSG_NOSIGNAL)));
	dup2(e, d);
	close(e);
	sem_barrier(s);
	sem_wait_inq(s, d, 4);
	sem_say_recv(s, "recv after dup2", d, 32, 0);
	s->fd = d;
}

static void dup_server(struct sem *s)
{
	sem_say_recv(s, "recv", s->fd, 6, MSG_WAITALL);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	sem_say_recv(s, "end", s->fd, 32, 0);
	sem_barrier(s);
	send(s->fd, "last", 4, 0);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

static void fd_pass(int unix_fd, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec v = {(void *)"f", 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(unix_fd, &m, 0) != 1)
		die_errno("SCM_RIGHTS");
}

static int fd_take(int unix_fd)
{
	char control[CMSG_SPACE(sizeof(int))], b;
	struct iovec v = {&b, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
			   .msg_controllen = sizeof(control)};
	int fd = -1;

	if (recvmsg(unix_fd, &m, 0) == 1 && CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

static void scm_rights_client(struct sem *s)
{
	int u[2], r;
	pid_t pid;

	/* The child starts without the connection and gets it by message, used and with data. */
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 10);
	sem_say_recv(s, "recv a part", s->fd, 4, 0);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, u))
		die_errno("socketpair");
	pid = sem_fork();
	if (!pid) {
		char b[32];

		close(s->fd);
		close(u[0]);
		s->fd = fd_take(u[1]);
		r = recv(s->fd, b, 6, MSG_WAITALL) == 6 && !memcmp(b, "456789", 6) ? 0 : 1;
		r |= write_all(s->fd, "from another process", 20) ? 2 : 0;
		_exit(r);
	}
	close(u[1]);
	fd_pass(u[0], s->fd);
	close(s->fd);
	close(u[0]);
	s->fd = -1;
	sem_say(s, "child: %s", sem_wait_child(pid));
}

static void scm_rights_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "0123456789", 10, 0);
	sem_say_recv(s, "recv", s->fd, 20, MSG_WAITALL);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

/* Only a message in a socket holds the connection for a while. */
static void scm_in_flight_client(struct sem *s)
{
	int u[2], fd;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, u))
		die_errno("socketpair");
	fd_pass(u[0], s->fd);
	close(s->fd);
	sem_barrier(s);
	sleep_ms(50);
	fd = fd_take(u[1]);
	sem_say_recv(s, "recv", fd, 5, MSG_WAITALL);
	fd_pass(u[0], fd);
	close(fd);
	close(u[0]);
	close(u[1]); /* with the message still in it: closes the connection */
	s->fd = -1;
}

static void scm_in_flight_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

/* The program that has the socket replaces itself. */
static void exec_client(struct sem *s)
{
	pid_t pid = sem_fork();

	if (!pid) {
		dup2(s->fd, 0);
		dup2(s->fd, 1);
		execl("/bin/cat", "cat", (char *)NULL);
		_exit(127);
	}
	close(s->fd);
	s->fd = -1;
	sem_say(s, "cat: %s", sem_wait_child(pid));
}

static void *exec_send(void *arg)
{
	struct sem *s = arg;

	sem_send_stream(s->fd, 0, 500000);
	shutdown(s->fd, SHUT_WR);
	return NULL;
}

static void exec_server(struct sem *s)
{
	pthread_t t;

	pthread_create(&t, NULL, exec_send, s);
	sem_expect_stream(s, "echo by cat", s->fd, 0, 500000);
	sem_say_recv(s, "end", s->fd, 32, 0);
	pthread_join(t, NULL);
}

static const struct sem_case cases[] = {
	SEM_CASE(fork_read, SEM_CONN),	SEM_CASE(fork_write, SEM_CONN),
	SEM_CASE(threads, SEM_CONN),	SEM_CASE(fork_close, SEM_CONN),
	SEM_CASE(dup, SEM_CONN),	SEM_CASE(scm_rights, SEM_CONN),
	SEM_CASE(scm_in_flight, SEM_CONN), SEM_CASE(exec, SEM_CONN),
};

const struct sem_group sem_share = {cases, ARRAY_SIZE(cases)};
