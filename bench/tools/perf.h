/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmcomm-perf: speed of a byte stream between two programs.
 *
 * Each round is a session: the client describes it on a control channel, the server answers with
 * where to connect, both do the round, and the server reports what it counted and what it cost.
 * On one host the server half is a child of the client, and the stream may be a unix socket or pipe.
 */
#ifndef VMCOMM_PERF_H
#define VMCOMM_PERF_H

#include "common.h"

#define PERF_MAGIC    0x766d637065726631ull
#define PERF_SIZE_MAX (64u << 20)

enum perf_mode { PERF_RR, PERF_STREAM, PERF_CRR, PERF_MEMCPY, PERF_MODES };
enum perf_transport { PERF_TCP, PERF_UNIX, PERF_PIPE, PERF_TRANSPORTS };

/* What a round does; sent as it is between programs of one version. */
struct perf_plan {
	uint64_t magic;
	uint32_t mode;
	uint32_t size;	    /* bytes of a request and of its response, or of one write */
	uint32_t read_size; /* stream: the receiver's buffer */
	uint32_t spin;	    /* poll without sleeping instead of blocking */
	uint32_t nodelay;
	uint32_t count;	    /* rr, crr: so many, however long that takes, when not 0 */
	uint64_t seconds_ms; /* how long, or */
	uint64_t bytes;	     /* stream: how much, when not 0 */
	uint64_t warmup_ms;
};

/* What one end counted in a round. */
struct perf_cost {
	uint64_t count; /* round trips or connections */
	uint64_t bytes;
	uint64_t cpu_ns;  /* of the process, user and system */
	uint64_t busy_ns; /* of its whole machine: all that was not idle */
};

/* One end of a stream; the same descriptor twice unless it is a pair of pipes. */
struct perf_end {
	int in, out;
};

/* Where the data connections of a session go to, or are accepted. */
struct perf_path {
	enum perf_transport transport;
	struct addr addr;
	int listener;	   /* server */
	struct perf_end pipes; /* PERF_PIPE */
};

#define PERF_SUB_BITS 7 /* buckets are within 1.6 % of their value */

struct perf_histogram {
	uint64_t n, max;
	uint32_t bucket[(64 - PERF_SUB_BITS + 1) << PERF_SUB_BITS];
};

struct perf_result {
	double seconds, value; /* value: us per round trip or connection, or MB/s */
	struct perf_cost client, server;
	struct perf_histogram *latency; /* rr and crr */
};

/* path.c: connections of a path; both die on failure. */
struct perf_end perf_connect(const struct perf_path *path, bool nodelay);
struct perf_end perf_accept(const struct perf_path *path, bool nodelay);
void perf_close(const struct perf_path *path, struct perf_end e);
/* Exactly len bytes; false at the end of the stream. They die on errors. */
bool perf_read(struct perf_end e, void *buf, size_t len, bool spin);
void perf_write(struct perf_end e, const void *buf, size_t len);

/* round.c: the two halves of a round. */
void perf_client_round(const struct perf_path *path, const struct perf_plan *plan,
		       struct perf_result *result);
void perf_server_round(const struct perf_path *path, const struct perf_plan *plan,
		       struct perf_cost *cost);
void perf_memcpy_round(const struct perf_plan *plan, struct perf_result *result);
/* Time that all processors of this machine have not been idle. */
uint64_t perf_busy_ns(void);

void perf_histogram_add(struct perf_histogram *h, uint64_t ns);
/* The value below which the given part (0 to 1) of the samples lies, in ns. */
uint64_t perf_histogram_at(const struct perf_histogram *h, double part);

#endif
