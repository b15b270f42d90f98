// SPDX-License-Identifier: GPL-2.0-or-later
/* Helpers of the test and bench programs: see common.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define STREAM_STEP	    0x9e3779b97f4a7c15ull
#define STREAM_STEP_INVERSE 0xf1de83e19937733dull
/* Positions beyond this cannot occur; a decoded word that claims one is not from the stream. */
#define STREAM_WORDS_MAX (1ull << 45)

void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

void die_errno(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(err));
	exit(1);
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		die("out of memory (%zu x %zu bytes)", n, size);
	return p;
}

uint64_t parse_u64(const char *name, const char *text, uint64_t max)
{
	char *end;
	unsigned long long v;
	unsigned int shift = 0;

	errno = 0;
	v = strtoull(text, &end, 0);
	if (*end == 'k' || *end == 'K')
		shift = 10;
	else if (*end == 'm' || *end == 'M')
		shift = 20;
	else if (*end == 'g' || *end == 'G')
		shift = 30;
	if (shift)
		end++;
	if (errno || end == text || *end || text[0] == '-' || v > max >> shift)
		die("%s: '%s' is not a number from 0 to %llu", name, text, (unsigned long long)max);
	return v << shift;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

void sleep_ms(unsigned int ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

uint64_t cpu_ns(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000u +
	       ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

static int addr_parse_v6(struct addr *a, const char *host, uint16_t port)
{
	struct sockaddr_in6 *s6 = (struct sockaddr_in6 *)&a->ss;
	char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 2];
	char *scope;

	s6->sin6_family = AF_INET6;
	s6->sin6_port = htons(port);
	a->len = sizeof(*s6);
	if (!host)
		return 0;
	snprintf(text, sizeof(text), "%s", host);
	scope = strchr(text, '%');
	if (scope) {
		*scope++ = '\0';
		s6->sin6_scope_id = if_nametoindex(scope);
		if (!s6->sin6_scope_id)
			return -EINVAL;
	}
	return inet_pton(AF_INET6, text, &s6->sin6_addr) == 1 ? 0 : -EINVAL;
}

int addr_parse(struct addr *a, const char *host, uint16_t port, int family)
{
	struct sockaddr_in *s4 = (struct sockaddr_in *)&a->ss;

	memset(a, 0, sizeof(*a));
	if (host && !strcmp(host, "localhost"))
		host = family == AF_INET6 ? "::1" : "127.0.0.1";
	if (family == AF_UNSPEC)
		family = host && strchr(host, ':') ? AF_INET6 : AF_INET;
	if (family == AF_INET6)
		return addr_parse_v6(a, host, port);
	s4->sin_family = AF_INET;
	s4->sin_port = htons(port);
	a->len = sizeof(*s4);
	if (!host)
		return 0;
	return inet_pton(AF_INET, host, &s4->sin_addr) == 1 ? 0 : -EINVAL;
}

void addr_set_port(struct addr *a, uint16_t port)
{
	if (a->ss.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&a->ss)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)&a->ss)->sin_port = htons(port);
}

uint16_t addr_port(const struct addr *a)
{
	if (a->ss.ss_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)&a->ss)->sin6_port);
	if (a->ss.ss_family == AF_INET)
		return ntohs(((const struct sockaddr_in *)&a->ss)->sin_port);
	return 0;
}

uint16_t sock_port(int fd)
{
	struct addr a = {.len = sizeof(a.ss)};

	if (getsockname(fd, (struct sockaddr *)&a.ss, &a.len))
		return 0;
	return addr_port(&a);
}

int tcp_listen(const struct addr *a, int backlog)
{
	int one = 1, err, fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)&a->ss, a->len) || listen(fd, backlog)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int tcp_connect(const struct addr *a)
{
	int err, fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&a->ss, a->len)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

void set_nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

void set_nodelay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

void need_files(uint64_t need)
{
	struct rlimit rl;

	getrlimit(RLIMIT_NOFILE, &rl);
	if (rl.rlim_max < need) {
		/* Only a privileged caller may do this; the check below speaks for the others. */
		struct rlimit more = {.rlim_cur = need, .rlim_max = need};

		setrlimit(RLIMIT_NOFILE, &more);
		getrlimit(RLIMIT_NOFILE, &rl);
	}
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	if (rl.rlim_cur < need)
		die("%llu file descriptors are needed, the limit is %llu: raise it with ulimit -n",
		    (unsigned long long)need, (unsigned long long)rl.rlim_cur);
}

int write_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;
	ssize_t r;

	while (len) {
		r = send(fd, p, len, MSG_NOSIGNAL);
		if (r < 0 && errno == ENOTSOCK)
			r = write(fd, p, len);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		p += r;
		len -= (size_t)r;
	}
	return 0;
}

int read_all(int fd, void *buf, size_t len)
{
	char *p = buf;
	ssize_t r;

	while (len) {
		r = read(fd, p, len);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r)
			return -ECONNABORTED;
		p += r;
		len -= (size_t)r;
	}
	return 0;
}

void addr_parse_bind(struct addr *a, const char *bind_to, uint16_t port)
{
	/* The wildcard of IPv6 takes IPv4 clients too. */
	if (addr_parse(a, bind_to, port, bind_to ? AF_UNSPEC : AF_INET6))
		die("--bind: '%s' is not a numeric address", bind_to);
}

void serve(const struct addr *a, void (*session)(int ctl))
{
	int ctl, l = tcp_listen(a, 64);

	if (l < 0)
		die("listen on port %u: %s", addr_port(a), strerror(-l));
	fprintf(stderr, "listening on port %u\n", sock_port(l));
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		ctl = accept4(l, NULL, NULL, SOCK_CLOEXEC);
		if (ctl < 0)
			continue;
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(l);
			set_nodelay(ctl);
			session(ctl);
			_exit(0);
		}
		close(ctl);
	}
}

int serve_data(int ctl, struct addr *a, int backlog)
{
	uint16_t port;
	int l, r;

	a->len = sizeof(a->ss);
	getsockname(ctl, (struct sockaddr *)&a->ss, &a->len);
	addr_set_port(a, 0);
	l = tcp_listen(a, backlog);
	if (l < 0)
		die("data listener: %s", strerror(-l));
	port = sock_port(l);
	r = write_all(ctl, &port, sizeof(port));
	if (!r)
		return l;
	close(l);
	return r;
}

/* The finaliser of splitmix64: a bijection of the 64-bit numbers. */
uint64_t mix64(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static uint64_t unmix64(uint64_t x)
{
	x = (x ^ (x >> 31) ^ (x >> 62)) * 0x319642b2d24d8ec3ull;
	x = (x ^ (x >> 27) ^ (x >> 54)) * 0x96de1b173f119089ull;
	return x ^ (x >> 30) ^ (x >> 60);
}

static inline uint64_t stream_word(uint64_t seed, uint64_t i)
{
	return mix64(seed + i * STREAM_STEP);
}

uint64_t stream_seed(uint64_t seed, uint32_t conn, unsigned int direction)
{
	return mix64(seed ^ mix64(((uint64_t)conn << 1 | (direction & 1)) + 1));
}

void stream_fill(uint64_t seed, uint64_t pos, void *buf, size_t len)
{
	unsigned char *p = buf;
	uint64_t i = pos / 8, w;
	size_t skip = pos % 8, n;

	while (len) {
		w = stream_word(seed, i++);
		n = 8 - skip < len ? 8 - skip : len;
		memcpy(p, (unsigned char *)&w + skip, n);
		p += n;
		len -= n;
		skip = 0;
	}
}

ssize_t stream_check(uint64_t seed, uint64_t pos, const void *buf, size_t len)
{
	const unsigned char *p = buf;
	uint64_t i = pos / 8, w, got;
	size_t skip = pos % 8, n, k;

	while (len) {
		w = stream_word(seed, i++);
		if (!skip && len >= 8) {
			memcpy(&got, p, 8);
			if (got == w) {
				p += 8;
				len -= 8;
				continue;
			}
		}
		n = 8 - skip < len ? 8 - skip : len;
		for (k = 0; k < n; k++)
			if (p[k] != ((unsigned char *)&w)[skip + k])
				return p + k - (const unsigned char *)buf;
		p += n;
		len -= n;
		skip = 0;
	}
	return -1;
}

int64_t stream_locate(uint64_t seed, const void *buf, size_t len)
{
	const unsigned char *p = buf;
	uint64_t w, i;
	size_t a;

	for (a = 0; a < 8 && a + 8 <= len; a++) {
		memcpy(&w, p + a, 8);
		i = (unmix64(w) - seed) * STREAM_STEP_INVERSE;
		if (i < STREAM_WORDS_MAX && i * 8 >= a)
			return (int64_t)(i * 8 - a);
	}
	return -1;
}

uint64_t stream_digest(uint64_t digest, uint64_t pos, const void *buf, size_t len)
{
	const unsigned char *p = buf;
	uint64_t i = pos / 8, w;
	size_t skip = pos % 8, n;
	unsigned int r;

	while (len) {
		n = 8 - skip < len ? 8 - skip : len;
		w = 0;
		memcpy((unsigned char *)&w + skip, p, n);
		r = i++ % 63 + 1;
		digest ^= w << r | w >> (64 - r);
		p += n;
		len -= n;
		skip = 0;
	}
	return digest;
}
