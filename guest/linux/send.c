// SPDX-License-Identifier: GPL-2.0-only
/* send.c - sendmsg on a wrapped socket (M6, M10) */
#include <linux/sched/signal.h>
#include <linux/uio.h>

#include "module.h"

/* A thread inside TCP's sendmsg keeps the socket off the ring: not for more than this at a time. */
#define VMCOMM_TCP_PIECE (256 * 1024)
/* On the way at most, over TCP, while the peer has not followed out of the last ring. */
#define VMCOMM_TCP_DETOUR (256 * 1024)
/* What is sent over TCP before the ring is entered, when the VM came to this host. */
#define VMCOMM_TCP_FIRST 4096
/*
 * A reader that took nothing for so long does not read at the moment. It may also be slow, or its
 * VM gets no CPU: then TCP gets full as well, and all that it took on the way has to come over the
 * network before the ring is read again. So the patience doubles whenever TCP got full, too, and
 * is halved when that was what the writer needed.
 */
#define VMCOMM_FULL_TIME (HZ / 50 + 1)
#define VMCOMM_FULL_SHIFT_MAX 7
/* The reader may start on what is there while the rest is copied. */
#define VMCOMM_RING_PIECE (32 * 1024)

static int vmcomm_send_error(struct sock *sk, int flags, int err)
{
	if (err == -EPIPE) {
		err = sock_error(sk) ?: -EPIPE;
		if (err == -EPIPE && !(flags & MSG_NOSIGNAL))
			send_sig(SIGPIPE, current, 0);
	}
	return err;
}

/* These bytes cannot go into a ring. */
static bool vmcomm_send_needs_tcp(struct vmcomm_sock *vs, const struct msghdr *msg)
{
	struct sock *sk = vs->sk;
	u32 reason = 0;

	if (vs->no_ring)
		return true;
	if (msg->msg_flags & MSG_OOB)
		reason = VMCOMM_REASON_URGENT;
	else if (msg->msg_flags & MSG_ZEROCOPY && sock_flag(sk, SOCK_ZEROCOPY))
		reason = VMCOMM_REASON_ZEROCOPY;
	else if (msg->msg_flags & MSG_FASTOPEN)
		reason = VMCOMM_REASON_FASTOPEN;
	else if (vmcomm_tsflags(sk) & SOF_TIMESTAMPING_TX_RECORD_MASK)
		reason = VMCOMM_REASON_TIMESTAMPING;
	else if (tcp_sk(sk)->repair)
		reason = VMCOMM_REASON_REPAIR;
	if (reason) {
		if (vs->conn.reason != reason && vs->link)
			vmcomm_node_reason(&vs->link->node, reason);
		vs->conn.reason = reason;
		return true;
	}
	return false;
}

/* Does TCP keep bytes back for more to come? Those in a ring are always sent at once. */
static bool vmcomm_send_corked(const struct vmcomm_sock *vs)
{
	const struct tcp_sock *tp = tcp_sk(vs->sk);

	return !vmcomm_tx_in_ring(&vs->conn) && (vs->more || tp->nonagle & TCP_NAGLE_CORK) &&
	       READ_ONCE(tp->write_seq) != READ_ONCE(tp->snd_nxt);
}

/*
 * They would be overtaken by bytes in a ring, if one can be entered now. So take the cork out for
 * a moment; what then still waits, waits for the peer. Socket lock held, dropped in between.
 * Return: false: they stay.
 */
static bool vmcomm_send_uncork(struct vmcomm_sock *vs)
{
	const struct vmcomm_abi_ccb *theirs = vs->conn.theirs;
	struct sock *sk = vs->sk;
	int off = 0, corked;
	u32 corks;

	if (!vmcomm_conn_attached(&vs->conn) || !theirs || !vs->conn.node->enabled ||
	    !vmcomm_load32(&theirs->rx_ready) ||
	    vmcomm_load32(&theirs->rx_epoch) != vs->conn.tx.epoch)
		return false;
	corked = tcp_sk(sk)->nonagle & TCP_NAGLE_CORK;
	corks = READ_ONCE(vs->corks);
	vs->more = false;
	release_sock(sk);
	vs->orig->setsockopt(sk, SOL_TCP, TCP_CORK, KERNEL_SOCKPTR(&off), sizeof(off));
	lock_sock(sk);
	if (corked && READ_ONCE(vs->corks) == corks)
		tcp_sk(sk)->nonagle |= TCP_NAGLE_CORK;
	return !vs->more;
}

/*
 * Put pending bytes on TCP; socket lock held, dropped in between. With force they go into TCP's
 * queue whatever its limit. Return: 0: none left; -EAGAIN.
 */
int vmcomm_pend_flush(struct vmcomm_sock *vs, bool force)
{
	struct sock *sk = vs->sk;
	struct msghdr msg;
	struct kvec vec;
	int sndbuf, n;
	u32 len;

	while (vs->conn.tx.pend_len) {
		if (vs->tcp_send)
			return -EAGAIN; /* another thread is at it */
		vec.iov_base = (void *)vmcomm_tx_pending(&vs->conn, &len);
		vec.iov_len = len;
		memset(&msg, 0, sizeof(msg));
		msg.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
		iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, &vec, 1, len);
		sndbuf = READ_ONCE(sk->sk_sndbuf);
		if (force)
			WRITE_ONCE(sk->sk_sndbuf, max_t(int, sndbuf, sk->sk_wmem_queued +
								      2 * len + (256 << 10)));
		vs->tcp_send++;
		release_sock(sk);
		n = vs->orig->sendmsg(sk, &msg, len);
		lock_sock(sk);
		vs->tcp_send--;
		if (force)
			WRITE_ONCE(sk->sk_sndbuf, sndbuf);
		if (n == -EAGAIN || n == -ENOBUFS || n == -ENOMEM)
			return -EAGAIN;
		/* The ring's count is without them (vmcomm_tx_settle()). */
		if (n > 0) {
			vs->conn.tcp_sent += n;
			if (vmcomm_conn_attached(&vs->conn))
				vmcomm_store64(&vs->conn.mine->tcp_sent, vs->conn.tcp_sent);
		}
		/* A connection that is dead takes its bytes with it, as TCP's own queue does. */
		vmcomm_tx_pended(&vs->conn, n < 0 ? len : (u32)n);
	}
	return 0;
}

/* Sleep until *cond may have changed; 0 or -errno. */
#define vmcomm_send_wait(vs, timeo, cond)                                                          \
	({                                                                                         \
		DEFINE_WAIT_FUNC(wait_, woken_wake_function);                                      \
		int err_ = 0;                                                                      \
                                                                                                   \
		/* Edge-triggered waiters are told only with this. */                              \
		if (!*(timeo)) {                                                                   \
			set_bit(SOCK_NOSPACE, &(vs)->sk->sk_socket->flags);                            \
			err_ = -EAGAIN;                                                            \
		}                                                                                  \
		if (!err_ && signal_pending(current))                                              \
			err_ = sock_intr_errno(*(timeo));                                          \
		if (!err_) {                                                                       \
			vmcomm_sleep_begin(vs, &wait_);                                            \
			set_bit(SOCK_NOSPACE, &(vs)->sk->sk_socket->flags);                            \
			sk_wait_event((vs)->sk, timeo, cond, &wait_);                                 \
			vmcomm_sleep_end(vs, &wait_);                                              \
		}                                                                                  \
		err_;                                                                              \
	})

static bool vmcomm_send_stop(struct vmcomm_sock *vs)
{
	return READ_ONCE(vs->sk->sk_err) || READ_ONCE(vs->sk->sk_shutdown) & SEND_SHUTDOWN ||
	       READ_ONCE(vs->gone);
}

static bool vmcomm_send_ring_ready(struct vmcomm_sock *vs)
{
	bool ready;

	rcu_read_lock();
	ready = vmcomm_tx_arm(&vs->conn, (1u << READ_ONCE(vs->conn.tx.shift)) / 3);
	rcu_read_unlock();
	return ready || vmcomm_send_stop(vs);
}

unsigned long vmcomm_send_patience(const struct vmcomm_sock *vs)
{
	const struct tcp_sock *tp = tcp_sk(vs->sk);

	/* What was sent before the ring was entered has not even arrived. */
	if (READ_ONCE(tp->snd_una) != READ_ONCE(tp->write_seq))
		return VMCOMM_FULL_TIME << VMCOMM_FULL_SHIFT_MAX;
	return VMCOMM_FULL_TIME << vs->full_shift;
}

/* The ring has been full for that long: the next bytes go to TCP. Socket lock held. */
void vmcomm_send_stalled(struct vmcomm_sock *vs)
{
	vmcomm_tx_exit(&vs->conn, VMCOMM_REASON_STALLED);
	vs->full_since = 0;
	vs->full_left = true;
}

/* After that: TCP took all that there was to send (@took), or got full, too. Socket lock held. */
static void vmcomm_send_unstalled(struct vmcomm_sock *vs, bool took)
{
	if (likely(!vs->full_left))
		return;
	vs->full_left = false;
	if (!took && vs->full_shift < VMCOMM_FULL_SHIFT_MAX)
		vs->full_shift++;
	else if (took && vs->full_shift)
		vs->full_shift--;
}

/* Who gets -EAGAIN hears of room, by poll() or SIGIO. Before the last look whether there is none. */
static void vmcomm_send_no_space(struct sock *sk)
{
	sk_set_bit(SOCKWQ_ASYNC_NOSPACE, sk);
	set_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
}

/* Nobody is on the wait queue; who comes later asks for room himself (poll.c). Socket lock held. */
static bool vmcomm_send_unwatched(const struct sock *sk)
{
	return !sock_flag(sk, SOCK_FASYNC) &&
	       !skwq_has_sleeper(rcu_dereference_protected(sk->sk_wq, lockdep_sock_is_held(sk)));
}

/*
 * The ring is full, and a waiter will hear when it is not. When the reader takes nothing at all the
 * bytes go to TCP: it takes as many as it always does before a writer has to wait, and until it is
 * full, too, a socket that was full does not stop being so by itself. @wait: the caller waits for
 * room. Socket lock held. Return: true if it is still full.
 */
static bool vmcomm_send_full(struct vmcomm_sock *vs, bool wait)
{
	unsigned long *flags = &vs->sk->sk_socket->flags;
	u64 taken = vmcomm_tx_taken(&vs->conn);

	if (vs->full_taken != taken || !vs->full_since) {
		vs->full_taken = taken;
		vs->full_since = jiffies | 1;
	} else if (time_after(jiffies, vs->full_since + vmcomm_send_patience(vs))) {
		vmcomm_send_stalled(vs);
		return false;
	}

	/* Before arming: the event may come at once, and looks for the flag. */
	vmcomm_send_no_space(vs->sk);
	if ((!wait && vmcomm_send_unwatched(vs->sk)) || !vmcomm_send_ring_ready(vs))
		return true;
	clear_bit(SOCK_NOSPACE, flags);
	return false;
}

bool vmcomm_send_spin_ready(struct vmcomm_sock *vs)
{
	bool ready;

	rcu_read_lock();
	ready = vmcomm_tx_writable(&vs->conn);
	rcu_read_unlock();
	return ready || vmcomm_send_stop(vs);
}

/* Socket lock held, dropped in between. */
static bool vmcomm_send_spin(struct vmcomm_sock *vs)
{
	bool hit;

	release_sock(vs->sk);
	hit = vmcomm_spin(vs, &vs->tx_spin, vmcomm_send_spin_ready);
	lock_sock(vs->sk);
	return hit;
}

/*
 * How many bytes TCP may be given now: on a detour between two rings no more than VMCOMM_TCP_DETOUR on
 * the way; all that it takes when a program has set SO_SNDBUF. Lockless.
 */
static u32 vmcomm_send_tcp_room(const struct sock *sk, struct vmcomm_sock *vs)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	bool detour;
	u32 out;

	if (READ_ONCE(vs->no_ring) || sk->sk_userlocks & SOCK_SNDBUF_LOCK)
		return ~0U;
	rcu_read_lock();
	detour = vmcomm_tx_detour(&vs->conn);
	rcu_read_unlock();
	if (likely(!detour))
		return ~0U;
	out = READ_ONCE(tp->write_seq) - READ_ONCE(tp->snd_una);
	return out < VMCOMM_TCP_DETOUR ? VMCOMM_TCP_DETOUR - out : 0;
}

/* Is it worth it to wake somebody? As for TCP's own queue: when a third is free. */
static bool vmcomm_send_tcp_wakes(const struct sock *sk, struct vmcomm_sock *vs)
{
	return vmcomm_send_tcp_room(sk, vs) >= VMCOMM_TCP_DETOUR / 3;
}

static bool vmcomm_send_tcp_ready(struct vmcomm_sock *vs)
{
	return (sk_stream_wspace(vs->sk) > 0 && vs->orig->stream_memory_free(vs->sk, 1) &&
		vmcomm_send_tcp_wakes(vs->sk, vs)) ||
	       vmcomm_sock_may_enter(vs) || vmcomm_send_stop(vs);
}

/* A part of *timeo, after which to look whether the reader reads at all. 0 or -errno. */
static int vmcomm_send_wait_ring(struct vmcomm_sock *vs, long *timeo)
{
	long slice = min_t(long, *timeo, vmcomm_send_patience(vs) + 1), left = slice;
	int err = vmcomm_send_wait(vs, &left, vmcomm_send_ring_ready(vs));

	if (*timeo != MAX_SCHEDULE_TIMEOUT)
		*timeo -= slice - left;
	return err;
}

/* One ring's worth of bytes at most. Return: bytes, 0 when it is full, or -EFAULT. */
static int vmcomm_send_ring(struct vmcomm_sock *vs, struct msghdr *msg, size_t len)
{
	u32 room, piece, copied;
	int done = 0;
	u8 *to;

	room = vmcomm_tx_room(&vs->conn);
	while (room && len) {
		to = vmcomm_tx_window(&vs->conn, &piece);
		piece = min_t(size_t, min(piece, (u32)VMCOMM_RING_PIECE), len);
		if (!piece)
			break;
		copied = vmcomm_copy_in(to, piece, &msg->msg_iter);
		if (copied < piece) {
			/* A piece goes as a whole or not at all, as TCP does with its own. */
			iov_iter_revert(&msg->msg_iter, copied);
			if (!done)
				return -EFAULT;
			break;
		}
		vmcomm_tx_commit(&vs->conn, piece);
		done += piece;
		len -= piece;
		room -= min(room, piece);
		if (vs->conn.tx.unsettled)
			break;
	}
	if (done) {
		vs->active = jiffies;
		vmcomm_node_count(vs->conn.node, VMCOMM_STAT_TX_RING_BYTES, done);
	}
	return done;
}

/*
 * One piece through TCP's own sendmsg, which does not sleep. The first bytes after an arrival go
 * over TCP (vmcomm_tx_enter()), also when its queue is full, so that the ring need not wait for
 * that. @must: these bytes cannot go into a ring. Socket lock held, dropped.
 */
static int vmcomm_send_tcp(struct vmcomm_sock *vs, struct msghdr *msg, size_t len, bool must)
{
	struct sock *sk = vs->sk;
	unsigned int flags = msg->msg_flags;
	size_t all = iov_iter_count(&msg->msg_iter), piece = min_t(size_t, len, VMCOMM_TCP_PIECE);
	bool force = unlikely(vmcomm_tx_first(&vs->conn, tcp_sk(sk)->write_seq)) && !vs->tcp_send;
	int sndbuf = READ_ONCE(sk->sk_sndbuf), n;
	u32 room = must || force ? ~0U : vmcomm_send_tcp_room(sk, vs);

	if (!room) {
		vmcomm_send_no_space(sk);
		room = vmcomm_send_tcp_room(sk, vs);
		if (!room)
			return -EAGAIN;
	}
	piece = min_t(size_t, piece, room);
	if (force) {
		piece = min_t(size_t, piece, VMCOMM_TCP_FIRST);
		WRITE_ONCE(sk->sk_sndbuf, max_t(int, sndbuf, sk->sk_wmem_queued + (256 << 10)));
	}
	iov_iter_truncate(&msg->msg_iter, piece);
	msg->msg_flags |= MSG_DONTWAIT;
	vs->tcp_send++;
	release_sock(sk);
	n = vs->orig->sendmsg(sk, msg, piece);
	lock_sock(sk);
	vs->tcp_send--;
	if (force)
		WRITE_ONCE(sk->sk_sndbuf, sndbuf);
	msg->msg_flags = flags;
	iov_iter_reexpand(&msg->msg_iter, all - (n > 0 ? n : 0));
	vs->more = flags & MSG_MORE && n > 0;
	if (n > 0) {
		vs->conn.tcp_sent += n;
		if (vmcomm_conn_attached(&vs->conn))
			vmcomm_store64(&vs->conn.mine->tcp_sent, vs->conn.tcp_sent);
		vmcomm_node_count(&vs->link->node, VMCOMM_STAT_TX_TCP_BYTES, n);
	}
	return n;
}

static int vmcomm_send_locked(struct vmcomm_sock *vs, struct msghdr *msg, size_t len)
{
	struct sock *sk = vs->sk;
	long timeo = sock_sndtimeo(sk, msg->msg_flags & MSG_DONTWAIT), nap;
	u32 flags;
	int done = 0, err = 0, n;

	vmcomm_sock_ops(vs);
	if (!vs->conn.tx.ring)
		vmcomm_tx_expect(&vs->conn, len);
	do {
		if (READ_ONCE(vs->gone)) {
			err = -ERESTARTNOINTR; /* vmcomm_sendmsg() knows how */
			break;
		}
		WRITE_ONCE(vs->enter, false);
		flags = vmcomm_send_needs_tcp(vs, msg) ||
				(vmcomm_send_corked(vs) && !vmcomm_send_uncork(vs)) ||
				vs->tcp_send ? VMCOMM_TX_TCP : 0;
		switch (vmcomm_send_next(vs, flags)) {
		case VMCOMM_NEXT_RING:
			if (sk->sk_err || sk->sk_shutdown & SEND_SHUTDOWN) {
				err = sk->sk_err && !(sk->sk_shutdown & SEND_SHUTDOWN) ?
					      sock_error(sk) : -EPIPE;
				break;
			}
			vmcomm_send_unstalled(vs, true);
			n = vmcomm_send_ring(vs, msg, len - done);
			if (n < 0)
				err = n;
			else if (n > 0)
				done += n;
			else if (vs->conn.broken || vmcomm_tx_grows(&vs->conn))
				continue;
			else if (timeo && vmcomm_send_spin(vs))
				continue;
			else if (!vmcomm_send_full(vs, timeo))
				continue;
			else
				err = vmcomm_send_wait_ring(vs, &timeo);
			break;
		case VMCOMM_NEXT_TCP:
			n = vmcomm_send_tcp(vs, msg, len - done, flags);
			if (n > 0)
				done += n;
			else if (n == -EAGAIN)
				vmcomm_send_unstalled(vs, false);
			if (n == -EAGAIN && timeo)
				err = vmcomm_send_wait(vs, &timeo, vmcomm_send_tcp_ready(vs));
			else if (n <= 0)
				err = n ?: (len ? -EAGAIN : 0);
			break;
		case VMCOMM_NEXT_HELD:
			if (vmcomm_pend_flush(vs, true)) {
				nap = min_t(long, timeo, HZ / 50 + 1);
				err = vmcomm_send_wait(vs, &nap, false);
				if (err == -EAGAIN && timeo)
					err = 0;
			}
			break;
		case VMCOMM_NEXT_WAIT:
			/* A peer is leaving and will say in a moment how far it read. */
			nap = min_t(long, timeo, HZ / 50 + 1);
			err = vmcomm_send_wait(vs, &nap, false);
			break;
		case VMCOMM_NEXT_BROKEN:
			err = -ECONNRESET;
			break;
		}
	} while (!err && done < (int)len);

	/* Somebody at the other end may wait for just these bytes before anything else happens. */
	if (unlikely(vs->conn.tx.unsettled))
		vmcomm_settle(vs);
	if (done)
		return done;
	if (err == -EPIPE)
		err = vmcomm_send_error(sk, msg->msg_flags, err);
	return err;
}

/* The socket is TCP's own by now. */
static int vmcomm_send_gone(struct sock *sk, struct msghdr *msg, size_t len)
{
	struct vmcomm_sock *vs;
	int ret;

	if (!(msg->msg_flags & MSG_DONTWAIT) && vmcomm_restarts())
		return vmcomm_restart();
	atomic_inc(&vmcomm_callers);
	vs = vmcomm_sock_of(sk);
	ret = (vs ? vs->orig : READ_ONCE(sk->sk_prot))->sendmsg(sk, msg, len);
	atomic_dec(&vmcomm_callers);
	return ret;
}

int vmcomm_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	int ret;

	if (!vs)
		return vmcomm_send_gone(sk, msg, len);
	atomic_inc(&vs->inflight);
	lock_sock(sk);
	/* One call, one completion: TCP must see the call as a whole. */
	if (unlikely(msg->msg_flags & MSG_ZEROCOPY) && sock_flag(sk, SOCK_ZEROCOPY) &&
	    1 << sk->sk_state & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT))
		vmcomm_give_back(vs, VMCOMM_REASON_ZEROCOPY);
	if (READ_ONCE(vs->gone)) {
		ret = -ERESTARTNOINTR;
		release_sock(sk);
	} else if (!(1 << sk->sk_state & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT)) || !len) {
		/*
		 * Not connected (yet), or nothing to send: TCP knows what to say. It may wait in
		 * there until the connection is up, and then send.
		 */
		vs->tcp_send++;
		release_sock(sk);
		ret = vs->orig->sendmsg(sk, msg, len);
		lock_sock(sk);
		vs->tcp_send--;
		release_sock(sk);
	} else {
		ret = vmcomm_send_locked(vs, msg, len);
		release_sock(sk);
	}
	atomic_dec(&vs->inflight);
	/* Nothing was sent: TCP's own call, with nothing of the context any more. */
	if (unlikely(ret == -ERESTARTNOINTR))
		ret = vmcomm_send_gone(sk, msg, len);
	return ret;
}

bool vmcomm_memory_free(const struct sock *sk, int wake)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	bool ret;

	if (!vs)
		return READ_ONCE(sk->sk_prot)->stream_memory_free(sk, wake);
	/* It is TCP's own sendmsg that asks, on behalf of pending bytes for instance. */
	if (READ_ONCE(vs->tcp_send))
		return vs->orig->stream_memory_free(sk, wake);
	rcu_read_lock();
	if ((vmcomm_tx_in_ring(&vs->conn) && !vmcomm_tx_grows(&vs->conn)) ||
	    READ_ONCE(vs->conn.tx.pend_len)) {
		ret = vmcomm_tx_writable(&vs->conn);
		if (!ret && wake)
			ret = vmcomm_tx_arm(&vs->conn,
					    (1u << READ_ONCE(vs->conn.tx.shift)) / 3) &&
			      vmcomm_tx_writable(&vs->conn);
	} else {
		ret = vs->orig->stream_memory_free(sk, wake) &&
		      (wake ? vmcomm_send_tcp_wakes(sk, vs) : vmcomm_send_tcp_room(sk, vs) > 0);
	}
	rcu_read_unlock();
	return ret;
}
