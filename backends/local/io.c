// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * io.c - sending and receiving (M6, M7, M10)
 *
 * There is no TCP underneath: every byte goes through the ring, which is entered once, when the
 * connection is made, with all positions in TCP at 0.
 */
#include <limits.h>

#include "local.h"

/*
 * Bytes copied between two publications: small enough that the other end copies them out while we
 * copy the next ones in, large enough to be worth the exchange of two cache lines.
 */
#define LOCAL_PIECE (64u << 10)

/* Sleeps without a spin, after spinning was given up, until it is tried again. */
#define LOCAL_SPIN_SKIP 128

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#endif
}

/* Enter the ring for the life of the connection. Return: 0 or -ENOBUFS. */
int local_stream_enter(struct vmcomm_stream *s)
{
	return vmcomm_tx_next(&s->conn, 0, 0, 0, 0) == VMCOMM_NEXT_RING ? 0 : -ENOBUFS;
}

/* Nothing more will come, or can be sent. Lockless. */
bool local_stream_over(struct vmcomm_stream *s)
{
	return __atomic_load_n(&s->evicted, __ATOMIC_ACQUIRE) || vmcomm_conn_peer_closed(&s->conn);
}

/* s->lock held: has the peer said that nothing follows what is in its ring? */
static bool peer_fin(struct vmcomm_stream *s)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_READ_ONCE(s->conn.theirs);

	return s->peer_fin || (vmcomm_conn_attached(&s->conn) && theirs &&
			       vmcomm_load_acquire32(&theirs->fin));
}

/* Return: bytes, 0: end of the stream, -EAGAIN, -ECONNRESET, -ENOTCONN, -EBADF. */
static ssize_t stream_read(struct vmcomm_stream *s, u8 *buf, size_t len, bool peek)
{
	struct vmcomm_conn *conn = &s->conn;
	u32 w, n, off = 0, avail;
	size_t done = 0;
	const u8 *src;
	bool over;

	if (s->closed)
		return -EBADF;
	/* First this, then the ring: what was written before the end is visible with it. */
	over = local_stream_over(s);
	switch (vmcomm_rx_next(conn, 0, 0, &avail)) {
	case VMCOMM_NEXT_RING:
	case VMCOMM_NEXT_HELD:
		break;
	case VMCOMM_NEXT_BROKEN:
		return -ECONNRESET;
	default:
		if (vmcomm_rx_fin(conn) || s->peer_fin || s->rd_shut)
			return 0;
		if (s->left)
			return -ENOTCONN;
		return over ? -ECONNRESET : -EAGAIN;
	}
	while (done < len) {
		src = vmcomm_rx_window(conn, off, &w);
		if (!w)
			break;
		n = w < len - done ? w : (u32)(len - done);
		if (n > LOCAL_PIECE)
			n = LOCAL_PIECE;
		vmcomm_copy_from_shared(buf + done, src, n);
		done += n;
		if (peek)
			off += n;
		else
			vmcomm_rx_consume(conn, n);
		/* Held bytes are freed when they are read. */
		if (!peek && !vmcomm_conn_attached(conn) && !conn->rx.held_len)
			break;
	}
	return (ssize_t)done;
}

/* Return: bytes, -EAGAIN, -EPIPE, -ECONNRESET, -ENOTCONN, -EBADF. */
static ssize_t stream_write(struct vmcomm_stream *s, const u8 *buf, size_t len)
{
	struct vmcomm_conn *conn = &s->conn;
	size_t done = 0;
	u32 w, n;
	u8 *dst;

	if (s->closed)
		return -EBADF;
	if (s->wr_shut)
		return -EPIPE;
	if (s->left)
		return -ENOTCONN;
	if (local_stream_over(s))
		return s->evicted ? -ECONNRESET : -EPIPE;
	switch (vmcomm_tx_next(conn, 0, 0, 0, 0)) {
	case VMCOMM_NEXT_RING:
		break;
	case VMCOMM_NEXT_BROKEN:
		return -ECONNRESET;
	default:
		return -EPIPE;
	}
	while (done < len) {
		dst = vmcomm_tx_window(conn, &w);
		if (!w)
			break;
		n = w < len - done ? w : (u32)(len - done);
		if (n > LOCAL_PIECE)
			n = LOCAL_PIECE;
		vmcomm_copy_to_shared(dst, buf + done, n);
		vmcomm_tx_commit(conn, n);
		done += n;
	}
	return done ? (ssize_t)done : conn->broken ? -ECONNRESET : -EAGAIN;
}

/*
 * Look for a while before going to sleep, for at most as long as configured. When that was in vain,
 * half as long the next time: the other end may need this very core. When nothing is left of it, a
 * full try now and then finds out whether times have changed.
 */
static bool spin_try(struct vmcomm_stream *s, bool send, long us)
{
	u64 end = vmcomm_now() + (u64)us * 1000u;
	unsigned int i;

	do {
		for (i = 0; i < 32; i++) {
			if (send ? vmcomm_tx_writable(&s->conn) :
				   vmcomm_rx_readable(&s->conn, 0) || vmcomm_rx_fin(&s->conn))
				return true;
			cpu_relax();
		}
		if (local_stream_over(s))
			return true;
	} while (vmcomm_now() < end);
	return false;
}

/* s->lock is held, and dropped meanwhile. Return: true if it helped. */
static bool spin(struct vmcomm_stream *s, bool send)
{
	long us = s->spin_now;
	bool hit;

	if (us > s->spin_us)
		us = s->spin_us;
	if (!us && ++s->spin_skipped < LOCAL_SPIN_SKIP)
		return false;
	s->spin_skipped = 0;
	if (!us)
		us = s->spin_us;
	pthread_mutex_unlock(&s->lock);
	hit = spin_try(s, send, us);
	vmcomm_node_count(&s->member->node,
			  hit ? VMCOMM_STAT_SPIN_HITS : VMCOMM_STAT_SPIN_MISSES, 1);
	pthread_mutex_lock(&s->lock);
	s->spin_now = hit ? s->spin_us : us / 2;
	return hit;
}

/* Before s->lock is dropped: another thread may close the stream. */
static void stream_hold(struct vmcomm_stream *s, bool *held)
{
	if (!*held)
		__atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
	*held = true;
}

/*
 * s->lock is held, and dropped for sleeping. Return: 0: look again; -EAGAIN: the time is over.
 */
static int stream_wait(struct vmcomm_stream *s, u32 seen, u64 deadline, bool *held)
{
	int err;

	stream_hold(s, held);
	pthread_mutex_unlock(&s->lock);
	err = local_wait(s->member, &s->event, seen, deadline);
	pthread_mutex_lock(&s->lock);
	return err ? -EAGAIN : 0;
}

static bool is_down(struct vmcomm_stream *s)
{
	return __atomic_load_n(&s->member->down, __ATOMIC_ACQUIRE) &&
	       !__atomic_load_n(&s->left, __ATOMIC_RELAXED);
}

ssize_t vmcomm_recv(struct vmcomm_stream *s, void *buf, size_t len, int flags)
{
	bool peek = flags & VMCOMM_PEEK, spun = false, last;
	u64 deadline = LOCAL_FOREVER;
	size_t done = 0, want;
	bool held = false;
	ssize_t n;
	u32 seen;

	if (flags & ~(VMCOMM_DONTWAIT | VMCOMM_PEEK | VMCOMM_WAITALL))
		return -EINVAL;
	if (is_down(s))
		return -ENOTCONN;
	if (!len)
		return 0;
	if (len > SSIZE_MAX)
		len = SSIZE_MAX;
	pthread_mutex_lock(&s->lock);
	for (;;) {
		seen = local_seen(&s->event);
		/* First this, then the ring: all that was written before is visible with it. */
		last = peer_fin(s) || local_stream_over(s);
		n = stream_read(s, (u8 *)buf + done, len - done, peek);
		if (n > 0 && peek) {
			done = (size_t)n;
			want = len < 1u << s->conn.rx.shift ? len : 1u << s->conn.rx.shift;
			if (!(flags & VMCOMM_WAITALL) || done >= want || last ||
			    (flags & VMCOMM_DONTWAIT))
				break;
			/* All that is there was seen: wait for what comes after it. */
			done = 0;
			if (vmcomm_rx_arm_edge(&s->conn) || vmcomm_rx_unread(&s->conn) > (u32)n)
				continue;
			goto sleep;
		}
		if (n > 0) {
			done += (size_t)n;
			spun = false;
			if (done == len || !(flags & VMCOMM_WAITALL))
				break;
			continue;
		}
		if (n != -EAGAIN || (flags & VMCOMM_DONTWAIT))
			break;
		if (s->spin_us && !spun) {
			spun = true;
			stream_hold(s, &held);
			if (spin(s, false) || s->closed)
				continue;
		}
		if (vmcomm_rx_arm(&s->conn, 0))
			continue;
sleep:
		if (deadline == LOCAL_FOREVER && s->recv_ms)
			deadline = local_deadline(s->recv_ms);
		vmcomm_node_count(&s->member->node, VMCOMM_STAT_SLEEPS_RX, 1);
		if (stream_wait(s, seen, deadline, &held)) {
			n = stream_read(s, (u8 *)buf + done, len - done, peek);
			if (n > 0)
				done += (size_t)n;
			break;
		}
		spun = false;
	}
	local_poll_sync(s);
	pthread_mutex_unlock(&s->lock);
	if (held)
		local_stream_put(s);
	return done ? (ssize_t)done : n;
}

ssize_t vmcomm_send(struct vmcomm_stream *s, const void *buf, size_t len, int flags)
{
	u64 deadline = LOCAL_FOREVER;
	bool spun = false, held = false;
	size_t done = 0;
	ssize_t n = 0;
	u32 seen, size, room;

	if (flags & ~VMCOMM_DONTWAIT)
		return -EINVAL;
	if (is_down(s))
		return -ENOTCONN;
	if (len > SSIZE_MAX)
		len = SSIZE_MAX;
	pthread_mutex_lock(&s->lock);
	while (done < len) {
		seen = local_seen(&s->event);
		n = stream_write(s, (const u8 *)buf + done, len - done);
		if (n > 0) {
			done += (size_t)n;
			spun = false;
			continue;
		}
		if (n != -EAGAIN || (flags & VMCOMM_DONTWAIT))
			break;
		if (s->spin_us && !spun) {
			spun = true;
			stream_hold(s, &held);
			if (spin(s, true) || s->closed)
				continue;
		}
		/* Half a ring at a time: one wake-up for many pieces. */
		size = 1u << s->conn.tx.shift;
		room = size / 2;
		if (vmcomm_tx_arm(&s->conn, room))
			continue;
		if (deadline == LOCAL_FOREVER && s->send_ms)
			deadline = local_deadline(s->send_ms);
		vmcomm_node_count(&s->member->node, VMCOMM_STAT_SLEEPS_TX, 1);
		if (stream_wait(s, seen, deadline, &held))
			break;
		spun = false;
	}
	local_poll_sync(s);
	pthread_mutex_unlock(&s->lock);
	if (held)
		local_stream_put(s);
	return done ? (ssize_t)done : n;
}

int vmcomm_shutdown(struct vmcomm_stream *s, int how)
{
	if (!how || (how & ~(VMCOMM_SHUT_RD | VMCOMM_SHUT_WR)))
		return -EINVAL;
	if (is_down(s))
		return -ENOTCONN;
	pthread_mutex_lock(&s->lock);
	if ((how & VMCOMM_SHUT_WR) && !s->wr_shut) {
		VMCOMM_WRITE_ONCE(s->wr_shut, true);
		vmcomm_tx_fin(&s->conn);
	}
	if (how & VMCOMM_SHUT_RD)
		VMCOMM_WRITE_ONCE(s->rd_shut, true);
	local_poll_sync(s);
	pthread_mutex_unlock(&s->lock);
	local_wake(s->member, &s->event);
	return 0;
}
