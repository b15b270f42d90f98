/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Helpers that the test and bench programs share: sockets by numeric address, time, and a seeded
 * stream whose every byte is known from its position.
 */
#ifndef VMCOMM_PROGRAMS_COMMON_H
#define VMCOMM_PROGRAMS_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A socket address of either family, with its length. */
struct addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

/* Prints "program: message" to stderr and exits with 1. */
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* As die(), with the text of errno after the message. */
void die_errno(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* malloc that dies instead of returning NULL; memory is zeroed. */
void *xcalloc(size_t n, size_t size);
/* Parses an unsigned number with an optional suffix k, m, g (powers of 1024); dies on anything else. */
uint64_t parse_u64(const char *name, const char *text, uint64_t max);

uint64_t now_ns(void);
uint64_t now_ms(void);
void sleep_ms(unsigned int ms);
/* Nanoseconds of CPU time (user and system) that this process has used. */
uint64_t cpu_ns(void);

/*
 * Fills *a from a numeric address ("10.0.0.1", "fe80::1%eth0", NULL for the wildcard); family is
 * AF_INET, AF_INET6 or AF_UNSPEC (taken from the text). Returns 0 or -EINVAL.
 */
int addr_parse(struct addr *a, const char *host, uint16_t port, int family);
void addr_set_port(struct addr *a, uint16_t port);
uint16_t addr_port(const struct addr *a);
/* The local port of a socket, 0 if it has none. */
uint16_t sock_port(int fd);
/* A listening TCP socket (SO_REUSEADDR) or -errno. A wildcard AF_INET6 address is dual-stack. */
int tcp_listen(const struct addr *a, int backlog);
/* A connected blocking TCP socket or -errno. */
int tcp_connect(const struct addr *a);
void set_nonblock(int fd, bool on);
void set_nodelay(int fd);
/* Raises RLIMIT_NOFILE as far as allowed; dies when fewer than need descriptors are to be had. */
void need_files(uint64_t need);

/* Both return 0, or -errno (-ECONNABORTED: end of file before len bytes). */
int write_all(int fd, const void *buf, size_t len);
int read_all(int fd, void *buf, size_t len);

/*
 * Accept control connections at *a for ever; session() runs for each in a child of its own, which then
 * ends. Dies when it cannot listen.
 */
void serve(const struct addr *a, void (*session)(int ctl)) __attribute__((noreturn));
/*
 * For a session: listen at the address of the control connection, on any port, and tell the client the
 * port. *a becomes the listener's address. Returns the listener, or -errno when the client is gone.
 */
int serve_data(int ctl, struct addr *a, int backlog);
/* The address that a server is to listen at: --bind's, or the wildcard of both families. Dies. */
void addr_parse_bind(struct addr *a, const char *bind_to, uint16_t port);

/*
 * The stream: 64-bit word i of the stream with this seed is a bijective mix of seed and i, so that
 * any aligned word of it tells the position that it came from.
 */
uint64_t mix64(uint64_t x);
uint64_t stream_seed(uint64_t seed, uint32_t conn, unsigned int direction);
void stream_fill(uint64_t seed, uint64_t pos, void *buf, size_t len);
/* Offset in buf of the first byte that differs from the stream at pos, or -1 when all agree. */
ssize_t stream_check(uint64_t seed, uint64_t pos, const void *buf, size_t len);
/* The stream position at which buf's first byte belongs, or -1 (needs at least 15 bytes). */
int64_t stream_locate(uint64_t seed, const void *buf, size_t len);
/* Adds bytes of position pos to a digest; independent of how the stream is cut into pieces. */
uint64_t stream_digest(uint64_t digest, uint64_t pos, const void *buf, size_t len);

#endif
