// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: blocking, non-blocking, timeouts, sizes, vectors, bad buffers. */
#include <linux/sockios.h>

#include "sem.h"

#define BIG (64u << 20) /* more than any pair of socket buffers takes */

static void blocking_client(struct sem *s)
{
	sem_say_recv(s, "recv that has to wait", s->fd, 32, 0);
	sem_say(s, "send 4 MiB to a late reader: %s",
		sem_amount(sem_send_stream(s->fd, 0, 4 << 20), 4 << 20));
}

static void blocking_server(struct sem *s)
{
	sleep_ms(SEM_QUIET_MS);
	sem_say(s, "send %s", RC(send(s->fd, "hello", 5, 0)));
	sleep_ms(SEM_QUIET_MS);
	sem_expect_stream(s, "read", s->fd, 0, 4 << 20);
}

static void nonblock_common(struct sem *s, int flags)
{
	size_t n;

	sem_say_recv(s, "recv on empty", s->fd, 32, flags);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sem_say_recv(s, "recv", s->fd, 32, flags);
	sem_say_recv(s, "recv again", s->fd, 32, flags);
	n = sem_stuff(s->fd, 0);
	sem_say(s, "send until full: %s", n > 0 ? "some" : "none");
	sem_say(s, "send when full: %s", RC(send(s->fd, "x", 1, flags)));
	sem_put(s, n);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLOUT);
	sem_say(s, "send after room: %s", RC(send(s->fd, "x", 1, flags)));
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLIN);
	sem_say_recv(s, "recv at end", s->fd, 32, flags);
}

static void nonblock_client(struct sem *s)
{
	set_nonblock(s->fd, true);
	nonblock_common(s, 0);
}

static void nonblock_server(struct sem *s)
{
	size_t n;

	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	n = sem_get(s);
	sem_barrier(s);
	sem_expect_stream(s, "read", s->fd, 0, n);
	sem_say_recv(s, "last", s->fd, 1, MSG_WAITALL);
	sem_barrier(s);
	close(s->fd);
}

static void dontwait_client(struct sem *s)
{
	nonblock_common(s, MSG_DONTWAIT);
}

#define dontwait_server nonblock_server

static void rcvtimeo_client(struct sem *s)
{
	uint64_t t;

	sem_set_timeout(s->fd, SO_RCVTIMEO, 200);
	t = now_ms();
	sem_say_recv(s, "recv on empty", s->fd, 32, 0);
	sem_say(s, "waited: %s", sem_bool(now_ms() - t >= 190));
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	t = now_ms();
	sem_say_recv(s, "recv on empty again", s->fd, 32, 0);
	sem_say(s, "waited: %s", sem_bool(now_ms() - t >= 190));
	sem_set_timeout(s->fd, SO_RCVTIMEO, 20000);
	sem_barrier(s);
	sem_say_recv(s, "recv with a long timeout", s->fd, 32, 0);
}

static void rcvtimeo_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	sleep_ms(SEM_QUIET_MS);
	send(s->fd, "late", 4, 0);
}

static void sndtimeo_client(struct sem *s)
{
	char *buf = xcalloc(1, BIG);
	size_t n = 0;
	ssize_t r = 0;
	uint64_t t = 0;
	int i;

	sem_set_timeout(s->fd, SO_SNDTIMEO, 200);
	sem_fill_buf(buf, 0, BIG);
	r = send(s->fd, buf, BIG, 0);
	sem_say(s, "send that cannot fit: %s", sem_amount(r, BIG));
	for (i = 0; i < 50 && r > 0; i++) {
		n += (size_t)r;
		t = now_ms();
		r = send(s->fd, buf + n, BIG - n, 0);
	}
	sem_say(s, "send at last: %s, waited: %s", RC(r), sem_bool(now_ms() - t >= 190));
	sem_put(s, n);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLOUT);
	sem_say(s, "send after room: %s", RC(send(s->fd, buf, 10, 0)));
	free(buf);
}

static void sndtimeo_server(struct sem *s)
{
	size_t n = sem_get(s);

	sem_barrier(s);
	sem_expect_stream(s, "read", s->fd, 0, n);
	sem_expect_stream(s, "read on", s->fd, 0, 10);
}

static void zerolen_client(struct sem *s)
{
	char b[4];

	sem_say(s, "send 0: %s", RC(send(s->fd, "", 0, 0)));
	sem_say(s, "write 0: %s", RC(write(s->fd, "", 0)));
	sem_say(s, "read 0 on empty: %s", RC(read(s->fd, b, 0)));
	sem_say(s, "recv 0 on empty, not waiting: %s", RC(recv(s->fd, b, 0, MSG_DONTWAIT)));
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sem_say(s, "recv 0 with data: %s", RC(recv(s->fd, b, 0, 0)));
	sem_say(s, "peek 0 with data: %s", RC(recv(s->fd, b, 0, MSG_PEEK)));
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLRDHUP);
	sem_say(s, "recv 0 at end: %s", RC(recv(s->fd, b, 0, 0)));
	sem_say(s, "send 0 at end: %s", RC(send(s->fd, "", 0, 0)));
	shutdown(s->fd, SHUT_WR);
	sem_say(s, "send 0 after shutdown: %s", RC(send(s->fd, "", 0, MSG_NOSIGNAL)));
	sem_barrier(s);
}

static void zerolen_server(struct sem *s)
{
	sem_barrier(s);
	sem_say_recv(s, "nothing came of it", s->fd, 32, MSG_DONTWAIT);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	sem_barrier(s);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

/* Two pages of which only the first is mapped. */
static char *half_mapped(size_t mapped)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t whole = (mapped + page - 1) / page * page;
	char *p = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die_errno("mmap");
	munmap(p + whole, page);
	return p + whole - mapped;
}

static void efault_client(struct sem *s)
{
	char *p = half_mapped(100), good[256];
	struct iovec v[2] = {{.iov_base = good, .iov_len = 50}, {.iov_base = p, .iov_len = 200}};
	ssize_t r;

	sem_say(s, "send from nowhere: %s", RC(send(s->fd, p + 100, 10, 0)));
	sem_fill_buf(p, 0, 100);
	sem_say(s, "send half mapped: %s", RC(send(s->fd, p, 200, 0)));
	sem_say(s, "send mapped part: %s", RC(send(s->fd, p, 100, 0)));
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 200);
	sem_say(s, "recv into nowhere: %s", RC(recv(s->fd, p + 100, 50, 0)));
	sem_say(s, "peek into nowhere: %s", RC(recv(s->fd, p + 100, 50, MSG_PEEK)));
	sem_say(s, "recv half mapped: %s", RC(recv(s->fd, p, 200, 0)));
	r = readv(s->fd, v, 2);
	sem_say(s, "readv second half mapped: %s", RC(r));
	r = recv(s->fd, good, sizeof(good), MSG_DONTWAIT);
	sem_say(s, "recv after it: %s, content %s", RC(r),
		r > 0 && sem_check_buf(good, 0, (size_t)r) ? "good" : "WRONG");
}

static void efault_server(struct sem *s)
{
	sem_expect_stream(s, "read", s->fd, 0, 100);
	sem_say_recv(s, "no more", s->fd, 1, MSG_DONTWAIT);
	sem_barrier(s);
	sem_send_stream(s->fd, 0, 200);
}

/* How far a big faulting send gets depends on page sizes; that the peer gets just that much does not. */
static void efault_big_client(struct sem *s)
{
	size_t mapped = 1 << 20;
	char *p = half_mapped(mapped);
	ssize_t r;

	sem_fill_buf(p, 0, mapped);
	r = send(s->fd, p, mapped + 4096, 0);
	sem_say(s, "send 1 MiB and then a hole: %s", r > 0 ? "some" : RC(r));
	sem_send_stream(s->fd, r > 0 ? (uint64_t)r : 0, 1000);
	shutdown(s->fd, SHUT_WR);
	sem_put(s, r > 0 ? (uint64_t)r : 0);
}

static void efault_big_server(struct sem *s)
{
	bool good;
	int err;
	size_t n = sem_read_all(s->fd, 0, &good, &err);

	sem_say(s, "read what was sent and more: %s, content %s",
		n == sem_get(s) + 1000 && !err ? "all" : "NOT ALL", good ? "good" : "WRONG");
}

static void large_client(struct sem *s)
{
	size_t len = 8 << 20;
	char *buf = xcalloc(1, len);
	ssize_t r;

	sem_fill_buf(buf, 0, len);
	sem_say(s, "send 8 MiB at once: %s", sem_amount(send(s->fd, buf, len, 0), len));
	memset(buf, 0, len);
	r = recv(s->fd, buf, len, MSG_WAITALL);
	sem_say(s, "recv 8 MiB at once: %s, content %s", sem_amount(r, len),
		sem_check_buf(buf, 0, len) ? "good" : "WRONG");
	free(buf);
}

static void large_server(struct sem *s)
{
	size_t len = 8 << 20;
	char *buf = xcalloc(1, len);

	sem_expect_stream(s, "read", s->fd, 0, len);
	sem_fill_buf(buf, 0, len);
	sem_say(s, "send 8 MiB at once: %s", sem_amount(send(s->fd, buf, len, 0), len));
	free(buf);
}

static void bytewise_client(struct sem *s)
{
	unsigned char b;
	int i, bad = 0;

	set_nodelay(s->fd);
	for (i = 0; i < 10000; i++) {
		sem_fill_buf(&b, (uint64_t)i, 1);
		bad += send(s->fd, &b, 1, 0) != 1;
	}
	sem_say(s, "10000 sends of 1 byte, failed: %d", bad);
	bad = 0;
	for (i = 0; i < 10000; i++)
		bad += recv(s->fd, &b, 1, 0) != 1 || !sem_check_buf(&b, (uint64_t)i, 1);
	sem_say(s, "10000 receives of 1 byte, wrong: %d", bad);
}

static void bytewise_server(struct sem *s)
{
	sem_expect_stream(s, "read", s->fd, 0, 10000);
	sem_send_stream(s->fd, 0, 10000);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void vectors_client(struct sem *s)
{
	char a[4], b[8], c[1];
	struct iovec out[4] = {{(void *)"ab", 2}, {NULL, 0}, {(void *)"cdefg", 5}, {(void *)"h", 1}};
	struct iovec in[4] = {{a, 3}, {NULL, 0}, {b, 4}, {c, 1}};
	struct iovec many[1100];
	char bytes[1100];
	size_t i;

	sem_say(s, "writev: %s", RC(writev(s->fd, out, 4)));
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 8);
	sem_say(s, "readv: %s", RC(readv(s->fd, in, 4)));
	sem_say(s, "got '%.3s' '%.4s' '%.1s'", a, b, c);
	sem_fill_buf(bytes, 0, sizeof(bytes));
	for (i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (struct iovec){bytes + i, 1};
	sem_say(s, "writev of 1024: %s", RC(writev(s->fd, many, 1024)));
	sem_say(s, "writev of 1025: %s", RC(writev(s->fd, many, 1025)));
	sem_say(s, "writev of 0: %s", RC(writev(s->fd, many, 0)));
}

static void vectors_server(struct sem *s)
{
	sem_wait_inq(s, s->fd, 8);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_barrier(s);
	send(s->fd, "ijklmnop", 8, 0);
	sem_expect_stream(s, "read", s->fd, 0, 1024);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void mmsg_client(struct sem *s)
{
	static char text[] = "abcdefghijklmno";
	struct mmsghdr m[5] = {0};
	struct iovec v[5];
	char in[5][4];
	int i, r;

	for (i = 0; i < 5; i++) {
		v[i] = (struct iovec){text + 3 * i, 3};
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	r = sendmmsg(s->fd, m, 5, 0);
	sem_say(s, "sendmmsg: %s, lengths %u %u %u %u %u", RC(r), m[0].msg_len, m[1].msg_len,
		m[2].msg_len, m[3].msg_len, m[4].msg_len);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 10);
	memset(in, 0, sizeof(in));
	for (i = 0; i < 5; i++) {
		v[i] = (struct iovec){in[i], 3};
		m[i].msg_len = 0;
	}
	/* 10 bytes into buffers of 3: three full ones, one with the rest, then it would have to wait. */
	r = recvmmsg(s->fd, m, 5, MSG_WAITFORONE, NULL);
	sem_say(s, "recvmmsg: %s, '%s' '%s' '%s' '%s' '%s'", RC(r), in[0], in[1], in[2], in[3], in[4]);
	r = recvmmsg(s->fd, m, 5, MSG_DONTWAIT, NULL);
	sem_say(s, "recvmmsg on empty: %s", RC(r));
}

static void mmsg_server(struct sem *s)
{
	sem_wait_inq(s, s->fd, 15);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_barrier(s);
	send(s->fd, "0123456789", 10, 0);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void more_client(struct sem *s)
{
	sem_say(s, "send with MSG_MORE: %s", RC(send(s->fd, "head", 4, MSG_MORE)));
	sem_say(s, "send without: %s", RC(send(s->fd, "tail", 4, 0)));
	sem_barrier(s);
	sem_say(s, "send with MSG_MORE, none after it: %s", RC(send(s->fd, "lone", 4, MSG_MORE)));
	sem_barrier(s);
	sem_say(s, "send with MSG_MORE, then close: %s", RC(send(s->fd, "bye", 3, MSG_MORE)));
	close(s->fd);
}

static void more_server(struct sem *s)
{
	sem_wait_inq(s, s->fd, 8);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 4);
	sem_say_recv(s, "it came in the end", s->fd, 32, 0);
	sem_barrier(s);
	sem_say_recv(s, "recv", s->fd, 3, MSG_WAITALL);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

static void eor_client(struct sem *s)
{
	sem_say(s, "send: %s", RC(send(s->fd, "one", 3, MSG_EOR)));
	sem_say(s, "send: %s", RC(send(s->fd, "two", 3, MSG_EOR)));
	sem_barrier(s);
}

static void eor_server(struct sem *s)
{
	char buf[32], control[64];
	struct sockaddr_storage name;
	struct iovec v = {buf, sizeof(buf)};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_name = &name,
			   .msg_namelen = sizeof(name), .msg_control = control,
			   .msg_controllen = sizeof(control)};
	ssize_t r;

	sem_wait_inq(s, s->fd, 6);
	r = recvmsg(s->fd, &m, 0);
	sem_say(s, "recvmsg: %s, flags %#x, name length %u, control length %zu", RC(r), m.msg_flags,
		m.msg_namelen, m.msg_controllen);
	sem_barrier(s);
}

static void inq_outq_client(struct sem *s)
{
	int n = -1;
	size_t sent;

	sem_say(s, "FIONREAD: %s", RC(ioctl(s->fd, FIONREAD, &n)));
	sem_say(s, "nothing to read: %d", n);
	ioctl(s->fd, SIOCOUTQ, &n);
	sem_say(s, "nothing to send: %d", n);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 100);
	ioctl(s->fd, SIOCINQ, &n);
	sem_say(s, "to read: %d", n);
	sem_expect_stream(s, "read 40", s->fd, 0, 40);
	ioctl(s->fd, SIOCINQ, &n);
	sem_say(s, "left to read: %d", n);
	sem_expect_stream(s, "read 60", s->fd, 40, 60);
	sent = sem_stuff(s->fd, 0);
	ioctl(s->fd, SIOCOUTQ, &n);
	sem_say(s, "to send when full: %s", n > 0 ? "some" : "none");
	sem_say(s, "SIOCOUTQNSD: %s", RC(ioctl(s->fd, SIOCOUTQNSD, &n)));
	sem_put(s, sent);
	sem_wait_outq_empty(s, s->fd);
	ioctl(s->fd, SIOCOUTQ, &n);
	sem_say(s, "to send after the peer read: %d", n);
	sem_barrier(s);
	sem_wait_events(s, s->fd, POLLRDHUP);
	ioctl(s->fd, SIOCINQ, &n);
	sem_say(s, "to read at end with data: %d", n);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	ioctl(s->fd, SIOCINQ, &n);
	sem_say(s, "to read at end: %d", n);
	sem_say(s, "unknown ioctl: %s", RC(ioctl(s->fd, _IO('z', 99), &n)));
}

static void inq_outq_server(struct sem *s)
{
	sem_barrier(s);
	sem_send_stream(s->fd, 0, 100);
	sem_expect_stream(s, "read", s->fd, 0, sem_get(s));
	sem_barrier(s);
	send(s->fd, "last", 4, 0);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void lowat_client(struct sem *s)
{
	struct pollfd p = {.fd = s->fd, .events = POLLIN};
	char big[64];
	ssize_t r;

	sem_say(s, "set SO_RCVLOWAT: %s", RC(sem_set_int(s->fd, SOL_SOCKET, SO_RCVLOWAT, 10)));
	sem_say(s, "get SO_RCVLOWAT: %d", sem_get_int(s->fd, SOL_SOCKET, SO_RCVLOWAT));
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sem_say(s, "poll with 5 of 10: %s", RC(poll(&p, 1, SEM_QUIET_MS)));
	sem_set_timeout(s->fd, SO_RCVTIMEO, 200);
	sem_say_recv(s, "recv with 5 of 10 times out with", s->fd, 32, 0);
	sem_set_timeout(s->fd, SO_RCVTIMEO, 0);
	sem_barrier(s);
	r = recv(s->fd, big, sizeof(big), 0);
	sem_say(s, "recv waited for 10: %s", sem_bool(r >= 10));
	sem_barrier(s);
	sem_say(s, "poll for 10: %s", RC(poll(&p, 1, SEM_WAIT_MS)));
	sem_say_recv(s, "short recv needs less", s->fd, 4, 0);
	sem_wait_inq(s, s->fd, 6);
	sem_say(s, "poll with 6 of 10: %s", RC(poll(&p, 1, SEM_QUIET_MS)));
	sem_barrier(s);
	sem_say(s, "poll at end: %s", RC(poll(&p, 1, SEM_WAIT_MS)));
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say_recv(s, "end", s->fd, 32, 0);
}

static void lowat_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "12345", 5, 0);
	sem_barrier(s);
	/* In one piece: TCP itself may sleep on when a part was taken before the rest came. */
	sleep_ms(SEM_QUIET_MS);
	send(s->fd, "1234567890", 10, 0);
	sem_barrier(s);
	send(s->fd, "abcdefghij", 10, 0);
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
}

static void errors_client(struct sem *s)
{
	struct sockaddr_storage name;
	socklen_t len = sizeof(name);
	int fd = socket(s->peer.ss.ss_family, SOCK_STREAM, 0);
	char b[8];

	sem_say(s, "recv unconnected: %s", RC(recv(fd, b, 1, 0)));
	sem_say(s, "send unconnected: %s", RC(send(fd, b, 1, MSG_NOSIGNAL)));
	sem_say(s, "shutdown unconnected: %s", RC(shutdown(fd, SHUT_WR)));
	sem_say(s, "getpeername unconnected: %s", RC(getpeername(fd, (struct sockaddr *)&name, &len)));
	sem_say(s, "accept unconnected: %s", RC(accept(fd, NULL, NULL)));
	sem_say_poll(s, "poll unconnected", fd);
	close(fd);
	sem_say(s, "connect connected: %s",
		RC(connect(s->fd, (struct sockaddr *)&s->peer.ss, s->peer.len)));
	sem_say(s, "listen connected: %s", RC(listen(s->fd, 1)));
	sem_say(s, "accept connected: %s", RC(accept(s->fd, NULL, NULL)));
	sem_say(s, "bind connected: %s", RC(bind(s->fd, (struct sockaddr *)&s->self.ss, s->self.len)));
	sem_say(s, "shutdown how 9: %s", RC(shutdown(s->fd, 9)));
	sem_say(s, "recv error queue: %s", RC(recv(s->fd, b, 1, MSG_ERRQUEUE)));
	sem_say(s, "recv out of band: %s", RC(recv(s->fd, b, 1, MSG_OOB)));
	sem_say(s, "sendto with a name: %s",
		RC(sendto(s->fd, "x", 1, 0, (struct sockaddr *)&s->peer.ss, s->peer.len)));
	sem_say(s, "lseek: %s", RC(lseek(s->fd, 0, SEEK_CUR)));
	sem_say(s, "pread: %s", RC(pread(s->fd, b, 1, 0)));
	sem_barrier(s);
}

static void errors_server(struct sem *s)
{
	int l = sem_listen(s, 1);
	char b[8];
	int n;

	sem_say(s, "recv on listener: %s", RC(recv(l, b, 1, 0)));
	sem_say(s, "send on listener: %s", RC(send(l, b, 1, MSG_NOSIGNAL)));
	sem_say(s, "FIONREAD on listener: %s", RC(ioctl(l, FIONREAD, &n)));
	sem_say(s, "SIOCOUTQ on listener: %s", RC(ioctl(l, SIOCOUTQ, &n)));
	sem_say_poll(s, "poll on listener", l);
	sem_say(s, "shutdown of listener: %s", RC(shutdown(l, SHUT_RD)));
	sem_say(s, "accept after it: %s", RC(accept(l, NULL, NULL)));
	sem_wait_post(s);
	sem_post(s);
	sem_say_recv(s, "recv", s->fd, 1, 0);
}

static void errors_client_wrap(struct sem *s)
{
	sem_get(s); /* the port of the server's listener is of no use here */
	errors_client(s);
}

static const struct sem_case cases[] = {
	SEM_CASE(blocking, SEM_CONN),
	SEM_CASE(nonblock, SEM_CONN),
	SEM_CASE(dontwait, SEM_CONN),
	SEM_CASE(rcvtimeo, SEM_CONN),
	SEM_CASE(sndtimeo, SEM_CONN),
	SEM_CASE(zerolen, SEM_CONN),
	SEM_CASE(efault, SEM_CONN),
	SEM_CASE(efault_big, SEM_CONN),
	SEM_CASE(large, SEM_CONN),
	SEM_CASE(bytewise, SEM_CONN),
	SEM_CASE(vectors, SEM_CONN),
	SEM_CASE(mmsg, SEM_CONN),
	SEM_CASE(more, SEM_CONN),
	SEM_CASE(eor, SEM_CONN),
	SEM_CASE(inq_outq, SEM_CONN),
	SEM_CASE(lowat, SEM_CONN),
	{"errors", SEM_CONN, errors_client_wrap, errors_server},
};

const struct sem_group sem_io = {cases, ARRAY_SIZE(cases)};
