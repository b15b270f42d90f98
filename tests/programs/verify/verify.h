/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmcomm-verify: many connections whose every byte is known.
 *
 * A control connection describes the session to the server, which answers with the port of the
 * session's data listener. Each data connection starts with a hello. Both ends then run the same
 * engine; at the end the server sends what it counted for each connection, and the client compares.
 */
#ifndef VMCOMM_VERIFY_H
#define VMCOMM_VERIFY_H

#include <pthread.h>
#include <signal.h>

#include "../common.h"

#define VERIFY_MAGIC	   0x76666d6376657231ull
#define VERIFY_CONNS_MAX   20000u
#define VERIFY_BLOCKS_MAX  256u /* connections with threads of their own */
#define VERIFY_ERRORS_KEPT 20u
#define VERIFY_IO_MAX	   (1u << 20)

enum verify_kind { KIND_BULK, KIND_RR, KIND_IDLE, KIND_HALF, KIND_BLOCK, KINDS };

/* What a session does; sent as it is, so both ends must be of one byte order and version. */
struct verify_plan {
	uint64_t magic;
	uint64_t seed;
	uint64_t bytes;	     /* per direction and connection; 0: until the time is over */
	uint64_t ms;	     /* active time when bytes is 0 */
	uint64_t sleep_bytes; /* slow reader: pauses sleep_ms after each sleep_bytes */
	uint32_t sleep_ms;
	uint32_t idle_ms; /* kind idle: longest pause */
	uint32_t connections;
	uint32_t write_max;
	uint32_t read_max;
	uint32_t hold;	/* stay open until told */
	uint32_t kinds; /* bit mask of enum verify_kind */
};

struct verify_hello {
	uint64_t magic;
	uint32_t index;
	uint32_t kind;
};

/* What one end counted for one connection. */
struct verify_count {
	uint64_t tx, rx, rx_digest;
	uint64_t max_gap_ms;
	uint32_t errors, kind;
};

struct conn {
	int fd;
	uint32_t index;
	enum verify_kind kind;
	bool open, connecting, tx_shut, rx_end, held, tail_sent, extra_turn;
	uint64_t tx_seed, rx_seed, random;
	uint64_t tx, rx, tx_goal, rx_digest;
	uint64_t rx_end_ms;
	uint64_t last_rx_ms, max_gap_ms; /* gap: silence while the peer ought to send */
	uint64_t turn_tx, turn_rx;	 /* rr: positions at which the turns change */
	uint64_t pause_tx_ms, pause_rx_ms; /* idle and slow reader: not before this time */
	uint64_t paused_rx_at;
	uint64_t end_ms; /* of sending, when the session goes by time */
	uint32_t events, errors;
	pthread_t rx_thread, tx_thread;
	pthread_mutex_t lock; /* kind block: rx and tx threads share the flags */
	struct session *session;
};

struct session {
	bool client;
	struct verify_plan plan;
	int ctl;
	struct conn *conns;
	uint32_t n;	  /* connections that exist */
	uint32_t open;	  /* not yet finished */
	int ep;
	uint64_t start_ms;
	volatile sig_atomic_t stop;    /* end sending now */
	volatile sig_atomic_t release; /* held connections may end */
	uint32_t errors;
	char error_text[VERIFY_ERRORS_KEPT][200];
	pthread_mutex_t lock; /* errors and open, which block's threads touch too */
	uint64_t last_any_ms, max_any_gap_ms;
};

extern const char *const verify_kind_names[KINDS];

void session_error(struct session *v, struct conn *c, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void conn_start(struct session *v, struct conn *c, int fd, uint32_t index, enum verify_kind kind);
/* Number from 1 to max, the next of the connection's own sequence. */
uint32_t conn_random(struct conn *c, uint32_t max);
/* Checks bytes that came, counts them; reports the first wrong one. */
void conn_check(struct conn *c, const void *buf, size_t len);
/* The amount that may be sent now: 0 nothing yet, -1 all has been sent. */
int64_t conn_tx_room(struct conn *c, uint64_t now);
/* Notes that this end has no more to send or to receive. */
void conn_tx_done(struct conn *c);
void conn_rx_end(struct conn *c, int err);
/* Whether bytes are due: only then does silence count as a gap. */
bool conn_expects(const struct conn *c, uint64_t now);
void conn_progress(struct conn *c);

/* One round of the event loop, at most ms long. */
void engine_run(struct session *v, int ms);
void engine_add(struct session *v, struct conn *c);
void block_start(struct conn *c);

#endif
