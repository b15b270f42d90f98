// SPDX-License-Identifier: GPL-2.0-or-later
/* vmcomm-verify: what a connection has to send, and whether what came is right. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "verify.h"

#define TAIL_BYTES 4096u /* sent when a held connection is released: proof that it lives */

const char *const verify_kind_names[KINDS] = {"bulk", "rr", "idle", "half", "block"};

void session_error(struct session *v, struct conn *c, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&v->lock);
	if (v->errors < VERIFY_ERRORS_KEPT)
		snprintf(v->error_text[v->errors], sizeof(v->error_text[0]), "%s connection %u (%s): %s",
			 v->client ? "client" : "server", c->index, verify_kind_names[c->kind], text);
	v->errors++;
	pthread_mutex_unlock(&v->lock);
	c->errors++;
}

uint32_t conn_random(struct conn *c, uint32_t max)
{
	c->random += 0x9e3779b97f4a7c15ull;
	return (uint32_t)(mix64(c->random) % max) + 1;
}

/* Length of turn number n of a request/response connection, known at both ends. */
static uint32_t turn_len(const struct conn *c, uint64_t position)
{
	uint32_t max = c->session->plan.write_max;

	return (uint32_t)(mix64(c->session->plan.seed ^ mix64(position + c->index)) % max) + 1;
}

void conn_start(struct session *v, struct conn *c, int fd, uint32_t index, enum verify_kind kind)
{
	uint64_t now = now_ms();

	memset(c, 0, sizeof(*c));
	c->session = v;
	c->fd = fd;
	c->index = index;
	c->kind = kind;
	c->open = true;
	c->tx_seed = stream_seed(v->plan.seed, index, v->client ? 0 : 1);
	c->rx_seed = stream_seed(v->plan.seed, index, v->client ? 1 : 0);
	c->random = mix64(c->tx_seed);
	c->tx_goal = v->plan.bytes;
	c->last_rx_ms = now;
	c->end_ms = now + v->plan.ms;
	pthread_mutex_init(&c->lock, NULL);
	if (kind == KIND_RR) {
		c->turn_tx = v->client ? turn_len(c, 0) : 0;
		c->turn_rx = v->client ? 0 : turn_len(c, 0);
	}
}

/* Half-close: the end that starts is told by the index, the other one waits for its end of file. */
static bool half_starts(const struct conn *c)
{
	return c->session->client == !(c->index / KINDS & 1);
}

bool conn_expects(const struct conn *c, uint64_t now)
{
	const struct verify_plan *p = &c->session->plan;

	if (c->rx_end || c->held)
		return false;
	/* A peer that has sent its share holds the connection until it is told. */
	if (p->hold && (p->bytes ? c->rx >= p->bytes : now >= c->end_ms))
		return false;
	if (c->kind == KIND_HALF)
		return half_starts(c) ? c->tx_shut : true;
	return true;
}

void conn_progress(struct conn *c)
{
	uint64_t now = now_ms(), gap = now - c->last_rx_ms;

	if (conn_expects(c, now))
		c->max_gap_ms = gap > c->max_gap_ms ? gap : c->max_gap_ms;
	c->last_rx_ms = now;
}

/* Names what is wrong with buf, which should be the stream at c->rx + at. */
static void conn_blame(struct conn *c, const unsigned char *buf, size_t len, size_t at)
{
	uint64_t pos = c->rx + at;
	int64_t from = stream_locate(c->rx_seed, buf + at, len - at);
	struct session *v = c->session;
	uint32_t i;

	if (from > (int64_t)pos) {
		session_error(v, c, "offset %llu: %llu bytes missing (lost or overtaken)", (unsigned long long)pos,
			      (unsigned long long)from - pos);
		return;
	}
	if (from >= 0) {
		session_error(v, c, "offset %llu: bytes of offset %llu again (duplicated or reordered)",
			      (unsigned long long)pos, (unsigned long long)from);
		return;
	}
	for (i = 0; i < v->plan.connections * 2 && len - at >= 15; i++) {
		from = stream_locate(stream_seed(v->plan.seed, i / 2, i & 1), buf + at, len - at);
		if (from >= 0) {
			session_error(v, c, "offset %llu: bytes of connection %u, direction %u, offset %lld",
				      (unsigned long long)pos, i / 2, i & 1, (long long)from);
			return;
		}
	}
	session_error(v, c, "offset %llu: byte %#x is of no stream%s", (unsigned long long)pos, buf[at],
		      len - at < 15 ? " (too few bytes to tell)" : "");
}

void conn_check(struct conn *c, const void *buf, size_t len)
{
	ssize_t bad = stream_check(c->rx_seed, c->rx, buf, len);

	/* The first wrong byte tells; what follows it would only repeat the news. */
	if (bad >= 0 && !c->errors)
		conn_blame(c, buf, len, (size_t)bad);
	c->rx_digest = stream_digest(c->rx_digest, c->rx, buf, len);
	c->rx += len;
}

/* True when the connection's own sending has reached its end: bytes, time or order to stop. */
static bool conn_tx_over(struct conn *c, uint64_t now)
{
	struct session *v = c->session;

	if (v->stop)
		return true;
	if (c->tx_goal)
		return c->tx >= c->tx_goal;
	return now >= c->end_ms;
}

static int64_t rr_room(struct conn *c, uint64_t now)
{
	struct session *v = c->session;

	if (c->tx < c->turn_tx)
		return (int64_t)(c->turn_tx - c->tx);
	/* This end's turn is over; when the answer is complete the next begins. */
	if (c->rx < c->turn_rx)
		return 0;
	if (v->client) {
		if (c->turn_rx < c->turn_tx) {
			/* The request is out: its answer is as long as the request. */
			c->turn_rx = c->turn_tx;
			return 0;
		}
		if (conn_tx_over(c, now)) {
			/* A held connection proves by one more turn that it lives. */
			if (!v->plan.hold || !v->release || c->extra_turn)
				return -1;
			c->extra_turn = true;
			c->held = false;
		}
		c->turn_tx += turn_len(c, c->turn_tx);
		return (int64_t)(c->turn_tx - c->tx);
	}
	if (c->turn_tx < c->turn_rx) {
		c->turn_tx = c->turn_rx;
		c->turn_rx += turn_len(c, c->turn_rx);
		return (int64_t)(c->turn_tx - c->tx);
	}
	return 0;
}

int64_t conn_tx_room(struct conn *c, uint64_t now)
{
	struct session *v = c->session;
	int64_t room;

	if (c->tx_shut)
		return -1;
	if (c->tail_sent)
		return c->tx < c->tx_goal ? (int64_t)(c->tx_goal - c->tx) : -1;
	if (c->kind == KIND_HALF && !half_starts(c)) {
		if (!c->rx_end)
			return 0;
		if (!c->tx_goal && c->end_ms < c->rx_end_ms + 1000)
			c->end_ms = c->rx_end_ms + 1000;
	}
	if (c->kind == KIND_RR) {
		room = rr_room(c, now);
		/* A server has nothing of its own to say: it ends when the client has. */
		if (!v->client && c->rx_end && room <= 0)
			return -1;
		if (room >= 0)
			return room;
	} else if (!conn_tx_over(c, now)) {
		if (c->pause_tx_ms > now)
			return 0;
		return c->tx_goal ? (int64_t)(c->tx_goal - c->tx) : VERIFY_IO_MAX;
	}
	if (!v->plan.hold || c->kind == KIND_RR || (c->kind == KIND_HALF && !half_starts(c))) {
		if (!v->plan.hold || v->release || c->rx_end)
			return -1;
		c->held = true;
		return 0;
	}
	if (!v->release && !c->rx_end) {
		c->held = true;
		return 0;
	}
	c->held = false;
	c->tail_sent = true;
	c->tx_goal = c->tx + TAIL_BYTES;
	return TAIL_BYTES;
}

/* Ends the connection's descriptor once nobody uses it; threads of kind block may still look. */
static void conn_close(struct conn *c)
{
	struct session *v = c->session;

	if (!c->open || !c->tx_shut || !c->rx_end)
		return;
	c->open = false;
	if (c->kind != KIND_BLOCK)
		close(c->fd);
	pthread_mutex_lock(&v->lock);
	v->open--;
	pthread_mutex_unlock(&v->lock);
}

void conn_tx_done(struct conn *c)
{
	if (c->tx_shut)
		return;
	if (shutdown(c->fd, SHUT_WR) && errno != ENOTCONN)
		session_error(c->session, c, "shutdown after %llu bytes: %s", (unsigned long long)c->tx,
			      strerror(errno));
	c->tx_shut = true;
	c->held = false;
	/* The half that waited for this end now sends: its silence counts from here. */
	if (c->kind == KIND_HALF)
		c->last_rx_ms = now_ms();
	conn_close(c);
}

void conn_rx_end(struct conn *c, int err)
{
	if (c->rx_end)
		return;
	if (err)
		session_error(c->session, c, "receive after %llu bytes: %s", (unsigned long long)c->rx,
			      strerror(err));
	c->rx_end = true;
	c->rx_end_ms = now_ms();
	if (err)
		c->tx_shut = true;
	conn_close(c);
}
