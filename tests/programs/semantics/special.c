// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: what few programs use and every TCP has to survive. */
#include <time.h> /* before linux/errqueue.h, which needs it */

#include <linux/bpf.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/tls.h>
#include <sys/syscall.h>

#include "sem.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif

/* glibc's netinet/tcp.h and linux/tcp.h cannot both be included; these are the kernel's. */
struct zerocopy_receive {
	uint64_t address;
	uint32_t length;
	uint32_t recv_skip_hint;
	uint32_t inq;
	int32_t err;
	uint64_t copybuf_address;
	int32_t copybuf_len;
	uint32_t flags;
	uint64_t msg_control;
	uint64_t msg_controllen;
	uint32_t msg_flags;
	uint32_t reserved;
};

#define REPAIR_SEND_QUEUE 2
#define REPAIR_RECV_QUEUE 1
#define REPAIR_OFF_NO_WP  (-1)

static void zerocopy_client(struct sem *s)
{
	size_t len = 200000, i;
	char *buf = xcalloc(1, len), control[256];
	uint32_t next = 0;
	int r = sem_set_int(s->fd, SOL_SOCKET, SO_ZEROCOPY, 1);
	bool in_order = true;

	sem_say(s, "SO_ZEROCOPY: %s", RC(r));
	sem_fill_buf(buf, 0, len);
	for (i = 0; i < 4; i++)
		sem_say(s, "send: %s", sem_amount(send(s->fd, buf, len, MSG_ZEROCOPY), len));
	sem_barrier(s);
	while (next < 4) {
		struct pollfd p = {.fd = s->fd};
		struct msghdr m = {.msg_control = control, .msg_controllen = sizeof(control)};
		struct sock_extended_err *e;
		struct cmsghdr *c;

		if (poll(&p, 1, SEM_WAIT_MS) <= 0) {
			sem_say(s, "NO COMPLETION after %u", next);
			break;
		}
		if (recvmsg(s->fd, &m, MSG_ERRQUEUE) < 0)
			continue;
		c = CMSG_FIRSTHDR(&m);
		if (!c)
			continue;
		e = (struct sock_extended_err *)CMSG_DATA(c);
		if (e->ee_origin != SO_EE_ORIGIN_ZEROCOPY || e->ee_errno)
			sem_say(s, "unexpected: origin %u errno %u", e->ee_origin, e->ee_errno);
		in_order = in_order && e->ee_info == next;
		next = e->ee_data + 1;
	}
	sem_say(s, "completions: %u, in order: %s", next, sem_bool(in_order));
	sem_say(s, "error queue then: %s", RC(recv(s->fd, control, 1, MSG_ERRQUEUE)));
	sem_say(s, "plain send: %s", RC(send(s->fd, buf, 10, 0)));
	free(buf);
}

static void zerocopy_server(struct sem *s)
{
	int i;

	for (i = 0; i < 4; i++)
		sem_expect_stream(s, "read", s->fd, 0, 200000);
	sem_barrier(s);
	sem_expect_stream(s, "read", s->fd, 0, 10);
}

static void zc_receive_client(struct sem *s)
{
	size_t len = 1 << 20, got = 0, map = 256 << 10;
	static char copy[65536];
	bool good = true, supported = true;
	char *p = mmap(NULL, map, PROT_READ, MAP_SHARED, s->fd, 0);

	sem_say(s, "mmap: %s", p == MAP_FAILED ? sem_rc(-1) : "ok");
	while (got < len) {
		struct zerocopy_receive z = {.address = (uintptr_t)p, .length = (uint32_t)map,
					     .copybuf_address = (uintptr_t)copy,
					     .copybuf_len = sizeof(copy)};
		socklen_t zl = sizeof(z);
		struct pollfd pf = {.fd = s->fd, .events = POLLIN};
		ssize_t r;

		if (poll(&pf, 1, SEM_WAIT_MS) <= 0) {
			sem_say(s, "STUCK at %s", sem_amount((ssize_t)got, len));
			break;
		}
		if (p == MAP_FAILED || getsockopt(s->fd, IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, &z, &zl)) {
			supported = false;
			z.length = 0;
			z.copybuf_len = 0;
		}
		if (z.length) {
			good = good && sem_check_buf(p, got, z.length);
			got += z.length;
			madvise(p, map, MADV_DONTNEED);
		}
		if (z.copybuf_len > 0) {
			good = good && sem_check_buf(copy, got, (size_t)z.copybuf_len);
			got += (size_t)z.copybuf_len;
		}
		if (!z.length && z.copybuf_len <= 0) {
			r = recv(s->fd, copy, sizeof(copy), 0);
			if (r <= 0)
				break;
			good = good && sem_check_buf(copy, got, (size_t)r);
			got += (size_t)r;
		}
	}
	sem_say(s, "TCP_ZEROCOPY_RECEIVE: %s, read: %s, content %s",
		supported ? "supported" : "unsupported", sem_amount((ssize_t)got, len),
		good ? "good" : "WRONG");
	sem_barrier(s);
	sem_say_recv(s, "plain recv", s->fd, 5, MSG_WAITALL);
	munmap(p, map);
}

static void zc_receive_server(struct sem *s)
{
	sem_send_stream(s->fd, 0, 1 << 20);
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static uint32_t queue_seq(int fd, int queue)
{
	uint32_t seq = 0;
	socklen_t len = sizeof(seq);

	sem_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
	getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, &len);
	return seq;
}

static void repair_client(struct sem *s)
{
	uint32_t tx, rx;
	bool ok;

	sem_send_stream(s->fd, 0, 1000);
	sem_expect_stream(s, "read", s->fd, 0, 1000);
	sem_wait_outq_empty(s, s->fd);
	ok = !sem_set_int(s->fd, IPPROTO_TCP, TCP_REPAIR, 1);
	sem_say(s, "TCP_REPAIR: %s", ok ? "on" : RC(-1));
	tx = queue_seq(s->fd, REPAIR_SEND_QUEUE);
	rx = queue_seq(s->fd, REPAIR_RECV_QUEUE);
	sem_say(s, "off: %s", ok ? RC(sem_set_int(s->fd, IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_NO_WP)) :
				   "not on");
	sem_send_stream(s->fd, 1000, 500);
	sem_barrier(s);
	sem_wait_outq_empty(s, s->fd);
	sem_expect_stream(s, "read", s->fd, 1000, 700);
	if (ok) {
		sem_set_int(s->fd, IPPROTO_TCP, TCP_REPAIR, 1);
		sem_say(s, "sent since: %u", queue_seq(s->fd, REPAIR_SEND_QUEUE) - tx);
		sem_say(s, "received since: %u", queue_seq(s->fd, REPAIR_RECV_QUEUE) - rx);
		sem_say(s, "off: %s", RC(sem_set_int(s->fd, IPPROTO_TCP, TCP_REPAIR, 0)));
	}
	sem_send_stream(s->fd, 1500, 500);
}

static void repair_server(struct sem *s)
{
	sem_expect_stream(s, "read", s->fd, 0, 1000);
	sem_send_stream(s->fd, 0, 1000);
	sem_expect_stream(s, "read", s->fd, 1000, 500);
	sem_send_stream(s->fd, 1000, 700);
	sem_barrier(s);
	sem_expect_stream(s, "read", s->fd, 1500, 500);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void fastopen_client(struct sem *s)
{
	struct addr a = s->peer;
	int i, fd;

	addr_set_port(&a, (uint16_t)sem_get(s));
	for (i = 0; i < 2; i++) {
		/* The first fetches a cookie, the second may have its data in the SYN. */
		fd = socket(a.ss.ss_family, SOCK_STREAM, 0);
		sem_say(s, "sendto: %s", RC(sendto(fd, "hello", 5, MSG_FASTOPEN,
						   (struct sockaddr *)&a.ss, a.len)));
		sem_say(s, "send: %s", RC(send(fd, "world", 5, 0)));
		sem_say_recv(s, "recv", fd, 10, MSG_WAITALL);
		close(fd);
		sem_barrier(s);
	}
	fd = socket(a.ss.ss_family, SOCK_STREAM, 0);
	sem_say(s, "TCP_FASTOPEN_CONNECT: %s",
		RC(sem_set_int(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)));
	sem_say(s, "connect: %s", RC(connect(fd, (struct sockaddr *)&a.ss, a.len)));
	sem_say(s, "send: %s", RC(send(fd, "helloworld", 10, 0)));
	sem_say_recv(s, "recv", fd, 10, MSG_WAITALL);
	close(fd);
	sem_barrier(s);
}

static void fastopen_server(struct sem *s)
{
	int l = sem_listener(s, 8), i, fd;

	sem_set_int(l, IPPROTO_TCP, TCP_FASTOPEN, 8);
	sem_put(s, sock_port(l));
	for (i = 0; i < 3; i++) {
		fd = accept(l, NULL, NULL);
		sem_say_recv(s, "recv", fd, 10, MSG_WAITALL);
		send(fd, "answer-ten", 10, 0);
		sem_say_recv(s, "end", fd, 10, 0);
		close(fd);
		sem_barrier(s);
	}
}

static void timestamping_client(struct sem *s)
{
	int flags = SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_RX_SOFTWARE |
		    SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID |
		    SOF_TIMESTAMPING_OPT_TSONLY;
	char control[512], b[64];
	struct iovec v = {b, sizeof(b)};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
			   .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = s->fd};
	struct cmsghdr *c;
	bool stamp = false;
	ssize_t r;

	/* The bytes before it do not count in the ids. */
	sem_send_stream(s->fd, 0, 100);
	sem_barrier(s);
	sem_wait_outq_empty(s, s->fd);
	sem_say(s, "SO_TIMESTAMPING: %s", RC(sem_set_int(s->fd, SOL_SOCKET, SO_TIMESTAMPING, flags)));
	sleep_ms(SEM_QUIET_MS);
	sem_say(s, "send: %s", RC(send(s->fd, "0123456789", 10, 0)));
	poll(&p, 1, SEM_WAIT_MS);
	r = recvmsg(s->fd, &m, MSG_ERRQUEUE);
	sem_say(s, "error queue: %s", RC(r));
	for (c = r >= 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c)) {
		struct sock_extended_err *e = (struct sock_extended_err *)CMSG_DATA(c);

		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPING)
			stamp = true;
		else if (e->ee_origin == SO_EE_ORIGIN_TIMESTAMPING)
			sem_say(s, "kind %u, byte %u", e->ee_info, e->ee_data);
	}
	sem_say(s, "stamp: %s", sem_bool(stamp));
	sem_barrier(s);
	m.msg_control = control;
	m.msg_controllen = sizeof(control);
	stamp = false;
	r = recvmsg(s->fd, &m, 0);
	for (c = r >= 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c))
		stamp |= c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPING;
	sem_say(s, "recvmsg: %s, stamp: %s", RC(r), sem_bool(stamp));
}

static void timestamping_server(struct sem *s)
{
	sem_expect_stream(s, "read", s->fd, 0, 100);
	sem_barrier(s);
	sem_say_recv(s, "recv", s->fd, 10, MSG_WAITALL);
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static int ktls_start(struct sem *s)
{
	struct tls12_crypto_info_aes_gcm_128 k = {
		.info = {.version = TLS_1_2_VERSION, .cipher_type = TLS_CIPHER_AES_GCM_128},
		.key = "vmcomm test key", .iv = "iv of 8", .salt = "sal", .rec_seq = {0}};
	int r = setsockopt(s->fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls"));

	if (!r)
		r = setsockopt(s->fd, SOL_TLS, TLS_TX, &k, sizeof(k));
	if (!r)
		r = setsockopt(s->fd, SOL_TLS, TLS_RX, &k, sizeof(k));
	return r;
}

/* Plain bytes first, as in a handshake, then records: the switch is in mid-stream. */
static void ktls_client(struct sem *s)
{
	char name[16] = "";
	socklen_t len = sizeof(name);
	int i, r;

	sem_send_stream(s->fd, 0, 5000);
	sem_expect_stream(s, "plain", s->fd, 0, 5000);
	r = ktls_start(s);
	sem_put(s, r ? 0 : 1);
	if (sem_get(s) != 1 || r) {
		sem_say(s, "unsupported");
		return;
	}
	getsockopt(s->fd, IPPROTO_TCP, TCP_ULP, name, &len);
	sem_say(s, "layer: %s", name);
	for (i = 0; i < 3; i++) {
		sem_send_stream(s->fd, 0, 100000);
		sem_expect_stream(s, "echo", s->fd, 0, 100000);
	}
	sem_say_recv(s, "on empty", s->fd, 10, MSG_DONTWAIT);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 10, 0);
}

static void ktls_server(struct sem *s)
{
	uint64_t peer;
	int i, r;

	sem_expect_stream(s, "plain", s->fd, 0, 5000);
	sem_send_stream(s->fd, 0, 5000);
	peer = sem_get(s);
	r = ktls_start(s);
	sem_put(s, r ? 0 : 1);
	if (r || peer != 1) {
		sem_say(s, "unsupported");
		return;
	}
	for (i = 0; i < 3; i++) {
		sem_expect_stream(s, "read", s->fd, 0, 100000);
		sem_send_stream(s->fd, 0, 100000);
	}
	sem_say_recv(s, "end", s->fd, 10, 0);
}

/* MPTCP at the client; the server is plain TCP in the first round and MPTCP in the second. */
static void mptcp_client(struct sem *s)
{
	int i;

	for (i = 0; i < 2; i++) {
		struct addr a = s->peer;
		int fd = socket(a.ss.ss_family, SOCK_STREAM, IPPROTO_MPTCP);

		addr_set_port(&a, (uint16_t)sem_get(s));
		sem_say(s, "socket: %s", fd < 0 ? RC(fd) : "ok");
		if (fd < 0)
			fd = socket(a.ss.ss_family, SOCK_STREAM, 0);
		sem_say(s, "connect: %s", RC(connect(fd, (struct sockaddr *)&a.ss, a.len)));
		sem_send_stream(fd, 0, 300000);
		sem_expect_stream(s, "echo", fd, 0, 300000);
		shutdown(fd, SHUT_WR);
		sem_say_recv(s, "end", fd, 8, 0);
		close(fd);
	}
}

static void mptcp_server(struct sem *s)
{
	int i;

	for (i = 0; i < 2; i++) {
		struct addr a;
		int l, fd;

		if (!i) {
			l = sem_listen(s, 4);
		} else {
			addr_parse(&a, NULL, 0, s->self.ss.ss_family);
			l = socket(a.ss.ss_family, SOCK_STREAM, IPPROTO_MPTCP);
			sem_say(s, "socket: %s", l < 0 ? RC(l) : "ok");
			if (l < 0)
				l = socket(a.ss.ss_family, SOCK_STREAM, 0);
			bind(l, (struct sockaddr *)&a.ss, a.len);
			listen(l, 4);
			sem_put(s, sock_port(l));
		}
		fd = accept(l, NULL, NULL);
		sem_expect_stream(s, "read", fd, 0, 300000);
		sem_send_stream(fd, 0, 300000);
		sem_say_recv(s, "end", fd, 8, 0);
		close(fd);
		close(l);
	}
}

static long bpf(int cmd, union bpf_attr *attr)
{
	return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

/* The socket becomes an entry of a BPF sockmap in mid-stream, and leaves it again. */
static void sockmap_client(struct sem *s)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_SOCKMAP, .key_size = 4, .value_size = 4,
			       .max_entries = 4};
	uint32_t key = 0, value = (uint32_t)s->fd;
	long map;

	sem_send_stream(s->fd, 0, 1000);
	sem_expect_stream(s, "echo", s->fd, 0, 1000);
	map = bpf(BPF_MAP_CREATE, &attr);
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)map;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&value;
	if (map < 0 || bpf(BPF_MAP_UPDATE_ELEM, &attr))
		sem_say(s, "unsupported");
	else
		sem_say(s, "in the map");
	sem_send_stream(s->fd, 1000, 100000);
	sem_expect_stream(s, "echo", s->fd, 1000, 100000);
	if (map >= 0)
		bpf(BPF_MAP_DELETE_ELEM, &attr);
	sem_send_stream(s->fd, 101000, 100000);
	sem_expect_stream(s, "echo", s->fd, 101000, 100000);
	close((int)map);
}

static void sockmap_server(struct sem *s)
{
	static const size_t parts[] = {1000, 100000, 100000};
	size_t i, pos = 0;

	for (i = 0; i < ARRAY_SIZE(parts); pos += parts[i++]) {
		sem_expect_stream(s, "read", s->fd, pos, parts[i]);
		sem_send_stream(s->fd, pos, parts[i]);
	}
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static const struct sem_case cases[] = {
	SEM_CASE(zerocopy, SEM_CONN), SEM_CASE(zc_receive, SEM_CONN),	SEM_CASE(repair, SEM_CONN),
	SEM_CASE(fastopen, 0),	      SEM_CASE(timestamping, SEM_CONN), SEM_CASE(ktls, SEM_CONN),
	SEM_CASE(mptcp, 0),	      SEM_CASE(sockmap, SEM_CONN),
};

const struct sem_group sem_special = {cases, ARRAY_SIZE(cases)};
