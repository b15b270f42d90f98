// SPDX-License-Identifier: GPL-2.0-only
/* recv.c - recvmsg on a wrapped socket (M7, M10) */
#include <linux/sched/signal.h>
#include <linux/uio.h>

#include "module.h"

/* Bytes that can be read without waiting, on TCP or outside. Lockless; a hint. */
static bool vmcomm_recv_ready(struct vmcomm_sock *vs)
{
	u32 copied_seq = vmcomm_copied_seq(vs->sk);
	bool ready;

	rcu_read_lock();
	ready = vmcomm_rx_readable(&vs->conn, copied_seq) ||
		vmcomm_rcv_nxt(vs->sk) != copied_seq || vmcomm_front_bytes(vs);
	rcu_read_unlock();
	return ready;
}

/* How often a receive at the end of the stream looks into the ring again. */
#define VMCOMM_RECV_LOOKS 16

static bool vmcomm_recv_stop(struct vmcomm_sock *vs)
{
	struct sock *sk = vs->sk;

	return READ_ONCE(sk->sk_err) || READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN ||
	       READ_ONCE(sk->sk_state) == TCP_CLOSE || READ_ONCE(vs->gone);
}

static bool vmcomm_recv_arm(struct vmcomm_sock *vs)
{
	bool ready;

	rcu_read_lock();
	ready = vmcomm_rx_arm(&vs->conn, vmcomm_copied_seq(vs->sk));
	rcu_read_unlock();
	return ready || vmcomm_recv_ready(vs) || vmcomm_recv_stop(vs);
}

/* What is left to read, counted as TCP_INQ does. Lockless. */
static int vmcomm_recv_left(struct vmcomm_sock *vs)
{
	const struct tcp_sock *tp = tcp_sk(vs->sk);
	int inq;

	rcu_read_lock();
	inq = READ_ONCE(tp->rcv_nxt) - READ_ONCE(tp->copied_seq) + vmcomm_front_bytes(vs) +
	      vmcomm_rx_unread(&vs->conn);
	rcu_read_unlock();
	/* An end is worth a read, too. */
	return inq == 0 && sock_flag(vs->sk, SOCK_DONE) ? 1 : inq;
}

/* More than @seen bytes to look at? */
static bool vmcomm_recv_more(struct vmcomm_sock *vs, int seen)
{
	bool moved;

	rcu_read_lock();
	moved = vmcomm_conn_attached(&vs->conn) && vmcomm_rx_arm_edge(&vs->conn);
	rcu_read_unlock();
	return moved || vmcomm_recv_left(vs) != seen || vmcomm_recv_stop(vs);
}

bool vmcomm_recv_spin_ready(struct vmcomm_sock *vs)
{
	return vmcomm_recv_ready(vs) || vmcomm_recv_stop(vs);
}

/* Copy what the window has; peek: from @off on, without taking it. Bytes or -EFAULT. */
static int vmcomm_recv_ring(struct vmcomm_sock *vs, struct msghdr *msg, u32 off, size_t len,
			    int flags)
{
	const u8 *from;
	u32 n, copied;
	int done = 0;

	while (len) {
		from = vmcomm_rx_window(&vs->conn, off, &n);
		if (!n)
			break;
		n = min_t(size_t, n, len);
		copied = flags & MSG_TRUNC ? n : vmcomm_copy_out(from, n, &msg->msg_iter);
		if (copied < n) {
			/* A piece is taken as a whole or not at all, as TCP does with a segment. */
			iov_iter_revert(&msg->msg_iter, copied);
			if (!done)
				return -EFAULT;
			break;
		}
		if (unlikely(!vmcomm_rx_intact(&vs->conn))) {
			if (!(flags & MSG_TRUNC))
				iov_iter_revert(&msg->msg_iter, copied);
			if (!done)
				return -ECONNRESET;
			break;
		}
		if (flags & MSG_PEEK)
			off += n;
		else
			vmcomm_rx_consume(&vs->conn, n);
		done += n;
		len -= n;
	}
	if (!(flags & MSG_PEEK))
		vmcomm_node_count(&vs->link->node, VMCOMM_STAT_RX_RING_BYTES, done);
	return done;
}

/* Is the next byte on TCP the urgent one? A read that has something already stops there. */
bool vmcomm_recv_at_mark(const struct vmcomm_sock *vs)
{
	const struct tcp_sock *tp = tcp_sk(vs->sk);

	return unlikely(READ_ONCE(tp->urg_data)) &&
	       READ_ONCE(tp->urg_seq) == READ_ONCE(tp->copied_seq);
}

/* For SIOCINQ: up to the urgent mark, if it is before what is in the ring. Socket lock held. */
int vmcomm_recv_queued(struct vmcomm_sock *vs)
{
	const struct sock *sk = vs->sk;
	const struct tcp_sock *tp = tcp_sk(sk);

	if (!sock_flag(sk, SOCK_URGINLINE) && tp->urg_data && !before(tp->urg_seq, tp->copied_seq) &&
	    before(tp->urg_seq, tp->rcv_nxt) && !vmcomm_rx_readable(&vs->conn, vmcomm_copied_seq(sk)))
		return tcp_inq(vs->sk);
	return tcp_inq(vs->sk) + vmcomm_rx_unread(&vs->conn);
}

/* The urgent byte is the only one that may be taken now, and it is not part of the stream: TCP's
 * recvmsg would go on behind it. Socket lock held.
 */
static void vmcomm_recv_skip_urgent(struct sock *sk)
{
	struct tcp_sock *tp = tcp_sk(sk);
	struct sk_buff *skb = skb_peek(&sk->sk_receive_queue);

	WRITE_ONCE(tp->copied_seq, tp->copied_seq + 1);
	tp->urg_data = 0;
	if (skb && !(TCP_SKB_CB(skb)->tcp_flags & TCPHDR_FIN) &&
	    !before(tp->copied_seq, TCP_SKB_CB(skb)->end_seq)) {
		__skb_unlink(skb, &sk->sk_receive_queue);
		__kfree_skb(skb);
	}
}

/*
 * One read from TCP, bounded as the core says. Socket lock held; dropped, so that TCP can take it.
 * Return: bytes; 0: end of file; -EAGAIN: look again; another error.
 */
static int vmcomm_recv_tcp(struct vmcomm_sock *vs, struct msghdr *msg, size_t len, int flags,
			   int *addr_len)
{
	struct sock *sk = vs->sk;
	const struct tcp_sock *tp = tcp_sk(sk);
	int ret = -EAGAIN;
	u32 n, urg;

	vs->tcp_reading = true;
	release_sock(sk);
	mutex_lock(&vs->tcp_read);
	lock_sock(sk);
	if (vmcomm_rx_next(&vs->conn, vmcomm_copied_seq(sk), vmcomm_rcv_nxt(sk), &n) ==
		    VMCOMM_NEXT_TCP && n) {
		urg = READ_ONCE(tp->urg_seq) - tp->copied_seq;
		if (unlikely(tp->urg_data) && urg < n && !sock_flag(sk, SOCK_URGINLINE)) {
			/* It is skipped, not counted: stay within the bound. */
			n--;
			if (!n)
				vmcomm_recv_skip_urgent(sk);
		}
	} else {
		n = 0;
	}
	if (n) {
		release_sock(sk);
		ret = vs->orig->recvmsg(sk, msg, min_t(size_t, len, n),
					(flags & ~MSG_WAITALL) | MSG_DONTWAIT, addr_len);
		lock_sock(sk);
	}
	vs->tcp_reading = false;
	mutex_unlock(&vs->tcp_read);
	if (ret > 0) {
		vs->conn.tcp_received += ret;
		if (vmcomm_conn_attached(&vs->conn))
			vmcomm_store64(&vs->conn.mine->tcp_received, vs->conn.tcp_received);
		vmcomm_node_count(&vs->link->node, VMCOMM_STAT_RX_TCP_BYTES, ret);
	}
	return ret;
}

/*
 * A reader that dropped the socket lock to read from TCP goes on where it was: what one call returns
 * is one piece of the stream, even if others read the same socket. Then TCP's bytes are where they
 * belong. Socket lock held, dropped.
 */
static void vmcomm_recv_turn(struct vmcomm_sock *vs)
{
	while (unlikely(vs->tcp_reading)) {
		release_sock(vs->sk);
		mutex_lock(&vs->tcp_read);
		mutex_unlock(&vs->tcp_read);
		lock_sock(vs->sk);
	}
	vmcomm_front_put(vs);
}

/* Receive time stamps are of packets: such a socket reads TCP only. Socket lock held. */
void vmcomm_recv_check_options(struct vmcomm_sock *vs)
{
	struct sock *sk = vs->sk;

	if (vs->conn.rx_want && !vs->no_ring &&
	    (sock_flag(sk, SOCK_RCVTSTAMP) || vmcomm_tsflags(sk) & SOF_TIMESTAMPING_RX_SOFTWARE)) {
		vmcomm_conn_unready(&vs->conn);
		vmcomm_node_reason(&vs->link->node, VMCOMM_REASON_TIMESTAMPING);
	}
}

/*
 * Nothing more to read now: sleep until that may have changed. @peek: the @seen bytes that are
 * there do not count. @looks: how often the stream's end was put off for bytes in the ring. Socket
 * lock held, dropped in between. Return: false: the call ends, with *err if it has copied nothing.
 * The order of the checks is tcp_recvmsg()'s.
 */
static bool vmcomm_recv_wait(struct vmcomm_sock *vs, size_t copied, bool enough, bool peek,
			     int seen, u32 *looks, long *timeo, int *err)
{
	struct sock *sk = vs->sk;
	DEFINE_WAIT_FUNC(wait, woken_wake_function);

	*err = 0;
	if (copied) {
		if (enough || sk->sk_err || sk->sk_state == TCP_CLOSE ||
		    sk->sk_shutdown & RCV_SHUTDOWN || !*timeo || signal_pending(current) || vs->gone)
			return false;
	} else {
		/*
		 * Bytes that were put into the ring before the FIN was sent count. A peer may say that
		 * there are some whenever we ask, and none whenever we read.
		 */
		if (vmcomm_recv_stop(vs) && !vs->conn.broken && *looks < VMCOMM_RECV_LOOKS &&
		    vmcomm_rx_readable(&vs->conn, vmcomm_copied_seq(sk))) {
			++*looks;
			return true;
		}
		if (sock_flag(sk, SOCK_DONE))
			return false;
		if (sk->sk_err) {
			*err = sock_error(sk);
			return false;
		}
		if (sk->sk_shutdown & RCV_SHUTDOWN)
			return false;
		if (sk->sk_state == TCP_CLOSE) {
			*err = -ENOTCONN;
			return false;
		}
		if (vs->gone) {
			*err = -ERESTARTNOINTR; /* vmcomm_recvmsg() knows how */
			return false;
		}
		if (!*timeo) {
			*err = -EAGAIN;
			return false;
		}
		if (signal_pending(current)) {
			*err = sock_intr_errno(*timeo);
			return false;
		}
	}
	if (!peek) {
		bool hit;

		release_sock(sk);
		hit = vmcomm_spin(vs, &vs->rx_spin, vmcomm_recv_spin_ready);
		lock_sock(sk);
		if (hit)
			return true;
	}
	if (vmcomm_conn_attached(&vs->conn))
		vmcomm_node_count(vs->conn.node, VMCOMM_STAT_SLEEPS_RX, 1);
	vmcomm_sleep_begin(vs, &wait);
	sk_set_bit(SOCKWQ_ASYNC_WAITDATA, sk);
	if (peek)
		sk_wait_event(sk, timeo, vmcomm_recv_more(vs, seen), &wait);
	else
		sk_wait_event(sk, timeo, vmcomm_recv_arm(vs), &wait);
	sk_clear_bit(SOCKWQ_ASYNC_WAITDATA, sk);
	vmcomm_sleep_end(vs, &wait);
	return true;
}

static int vmcomm_recv_locked(struct vmcomm_sock *vs, struct msghdr *msg, size_t len, int flags,
			      int *addr_len)
{
	struct sock *sk = vs->sk;
	long timeo = sock_rcvtimeo(sk, flags & MSG_DONTWAIT);
	int target = sock_rcvlowat(sk, flags & MSG_WAITALL, len);
	size_t control_len = msg->msg_controllen;
	void *control = msg->msg_control;
	int copied = 0, err = 0, r;
	u32 n, looks = 0;

	for (;;) {
		vmcomm_recv_turn(vs);
		r = -EAGAIN;
		/* A read of nothing waits for something, as with TCP. */
		if (!len && (vmcomm_recv_ready(vs) || vs->conn.broken))
			return 0;
		switch (vmcomm_rx_next(&vs->conn, vmcomm_copied_seq(sk), vmcomm_rcv_nxt(sk), &n)) {
		case VMCOMM_NEXT_RING:
		case VMCOMM_NEXT_HELD:
			r = vmcomm_recv_ring(vs, msg, 0, len - copied, flags);
			break;
		case VMCOMM_NEXT_TCP:
			if (!n)
				break;
			if (copied && vmcomm_recv_at_mark(vs))
				return copied;
			/* Of several reads from TCP the last one's control messages count. */
			msg->msg_control = control;
			msg->msg_controllen = control_len;
			r = vmcomm_recv_tcp(vs, msg, len - copied, flags, addr_len);
			if (!r)
				return copied;
			break;
		case VMCOMM_NEXT_BROKEN:
			return copied ?: -ECONNRESET;
		default:
			break;
		}
		if (r > 0) {
			copied += r;
			if (copied >= len)
				return copied;
		} else if (r != -EAGAIN) {
			return copied ?: r;
		} else if (!vmcomm_recv_wait(vs, copied, copied >= target, false, 0, &looks, &timeo,
					     &err)) {
			return copied ?: err;
		}
	}
}

/*
 * Copy bytes from TCP's receive queue, without taking them, from *@seq to @end, at most @len.
 * @some: bytes were copied before, so it ends at the urgent mark. Return: bytes or -EFAULT.
 */
static int vmcomm_peek_tcp(struct sock *sk, struct msghdr *msg, u32 *seq, u32 end, size_t len,
			   int flags, bool some, bool *mark)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	struct sk_buff *skb;
	u32 off, used, urg;
	int done = 0;

	skb_queue_walk(&sk->sk_receive_queue, skb) {
		if (before(*seq, TCP_SKB_CB(skb)->seq))
			break;
		while (len && before(*seq, end)) {
			off = *seq - TCP_SKB_CB(skb)->seq;
			if (off >= skb->len)
				break;
			used = min(skb->len - off, end - *seq);
			used = min_t(size_t, used, len);
			urg = READ_ONCE(tp->urg_seq) - *seq;
			if (unlikely(tp->urg_data) && urg < used) {
				if (!urg && (some || done)) {
					*mark = true;
					return done;
				}
				if (!urg && !sock_flag(sk, SOCK_URGINLINE)) {
					++*seq;
					continue;
				}
				if (urg)
					used = urg;
			}
			if (!(flags & MSG_TRUNC) && skb_copy_datagram_msg(skb, off, msg, used))
				return done ?: -EFAULT;
			*seq += used;
			len -= used;
			done += used;
		}
	}
	return done;
}

/* One look at all that can be seen, over the edges between TCP and ring. Bytes or -errno. */
static int vmcomm_peek_all(struct vmcomm_sock *vs, struct msghdr *msg, size_t len, int flags,
			   bool *mark)
{
	struct sock *sk = vs->sk;
	u32 seq = vmcomm_copied_seq(sk), rcv_nxt = vmcomm_rcv_nxt(sk), n;
	struct vmcomm_rx_plan plan;
	int done, r;

	*mark = false;
	if (vmcomm_rx_next(&vs->conn, seq, rcv_nxt, &n) == VMCOMM_NEXT_BROKEN)
		return -ECONNRESET;
	vmcomm_rx_plan(&vs->conn, seq, rcv_nxt, &plan);
	done = vmcomm_peek_tcp(sk, msg, &seq, seq + plan.before, len, flags, false, mark);
	if (done < 0 || *mark || done == len || !plan.outside)
		return done;
	seq = vmcomm_copied_seq(sk) + plan.before;
	r = vmcomm_recv_ring(vs, msg, 0, min_t(size_t, len - done, plan.outside), flags);
	if (r < 0)
		return done ?: r;
	done += r;
	if (r < plan.outside || done == len)
		return done;
	r = vmcomm_peek_tcp(sk, msg, &seq, seq + plan.after, len - done, flags, true, mark);
	return r < 0 ? done : done + r;
}

/* MSG_PEEK. Each look starts at the front: what it copied before it copies again. */
static int vmcomm_peek_locked(struct vmcomm_sock *vs, struct msghdr *msg, size_t len, int flags)
{
	struct sock *sk = vs->sk;
	long timeo = sock_rcvtimeo(sk, flags & MSG_DONTWAIT);
	int target = sock_rcvlowat(sk, flags & MSG_WAITALL, len), n, seen, err;
	u32 looks = 0;
	bool mark;

	for (;;) {
		vmcomm_recv_turn(vs);
		seen = vmcomm_recv_left(vs);
		n = vmcomm_peek_all(vs, msg, len, flags, &mark);
		if (n < 0 || (n == len && (len || seen)) || mark)
			return n;
		if (!vmcomm_recv_wait(vs, n, n >= target, true, seen, &looks, &timeo, &err))
			return n ?: err;
		if (!(flags & MSG_TRUNC))
			iov_iter_revert(&msg->msg_iter, n);
	}
}

/*
 * Bytes that came through a ring before the sender learned that time stamps are wanted: they arrived
 * about now.
 */
static void vmcomm_recv_stamp(struct sock *sk, struct msghdr *msg)
{
	bool new = sock_flag(sk, SOCK_TSTAMP_NEW);
	struct scm_timestamping_internal tss = {};
	struct __kernel_sock_timeval stv;
	struct __kernel_old_timeval tv;
	struct __kernel_old_timespec ots;
	struct __kernel_timespec kts;
	struct timespec64 now;

	ktime_get_real_ts64(&now);
	if (sock_flag(sk, SOCK_RCVTSTAMP) && sock_flag(sk, SOCK_RCVTSTAMPNS) && new) {
		kts = (struct __kernel_timespec){now.tv_sec, now.tv_nsec};
		put_cmsg(msg, SOL_SOCKET, SO_TIMESTAMPNS_NEW, sizeof(kts), &kts);
	} else if (sock_flag(sk, SOCK_RCVTSTAMP) && sock_flag(sk, SOCK_RCVTSTAMPNS)) {
		ots = (struct __kernel_old_timespec){now.tv_sec, now.tv_nsec};
		put_cmsg(msg, SOL_SOCKET, SO_TIMESTAMPNS_OLD, sizeof(ots), &ots);
	} else if (sock_flag(sk, SOCK_RCVTSTAMP) && new) {
		stv = (struct __kernel_sock_timeval){now.tv_sec, now.tv_nsec / 1000};
		put_cmsg(msg, SOL_SOCKET, SO_TIMESTAMP_NEW, sizeof(stv), &stv);
	} else if (sock_flag(sk, SOCK_RCVTSTAMP)) {
		tv = (struct __kernel_old_timeval){now.tv_sec, now.tv_nsec / 1000};
		put_cmsg(msg, SOL_SOCKET, SO_TIMESTAMP_OLD, sizeof(tv), &tv);
	}
	if (!(vmcomm_tsflags(sk) & SOF_TIMESTAMPING_RX_SOFTWARE) ||
	    !(vmcomm_tsflags(sk) & SOF_TIMESTAMPING_SOFTWARE))
		return;
	tss.ts[0] = now;
	if (new)
		put_cmsg_scm_timestamping64(msg, &tss);
	else
		put_cmsg_scm_timestamping(msg, &tss);
}

static bool vmcomm_recv_stamps(const struct sock *sk)
{
	return sock_flag(sk, SOCK_RCVTSTAMP) || vmcomm_tsflags(sk) & SOF_TIMESTAMPING_RX_SOFTWARE;
}

/* The control messages that TCP would have added, or for TCP_INQ, in place of what it did add. */
static void vmcomm_recv_control(struct sock *sk, struct vmcomm_sock *vs, struct msghdr *msg,
				void *control, size_t control_len, bool bytes)
{
	bool tcps = msg->msg_controllen != control_len;
	int inq;

	if (bytes && !tcps && vmcomm_recv_stamps(sk))
		vmcomm_recv_stamp(sk, msg);
	if (!tcp_sk(sk)->recvmsg_inq && !msg->msg_get_inq)
		return;
	inq = vmcomm_recv_left(vs);
	if (msg->msg_get_inq)
		msg->msg_inq = inq;
	if (!tcp_sk(sk)->recvmsg_inq || (tcps && vmcomm_recv_stamps(sk)))
		return;
	if (tcps) {
		msg->msg_control = control;
		msg->msg_controllen = control_len;
	}
	put_cmsg(msg, SOL_TCP, TCP_CM_INQ, sizeof(inq), &inq);
}

/*
 * Who is on the wait queue without being inside a call (epoll, SIGIO) has to hear of what comes
 * next: if nothing is left to read, in any case; edge-triggered waiters also when something is.
 * Level-triggered ones ask before they sleep. @all: the call took all that it saw, so that its program
 * will not read again before it is told: also of what came since, whose sender did not ring.
 */
static void vmcomm_recv_rearm(struct vmcomm_sock *vs, bool all)
{
	struct sock *sk = vs->sk;
	bool moved;

	if (!vmcomm_conn_attached(&vs->conn))
		return;
	if (!sock_flag(sk, SOCK_FASYNC) &&
	    !skwq_has_sleeper(rcu_dereference_protected(sk->sk_wq, lockdep_sock_is_held(sk))))
		return;
	rcu_read_lock();
	moved = (READ_ONCE(vs->edge) != VMCOMM_EDGE_LEVEL || sock_flag(sk, SOCK_FASYNC) ||
		 !vmcomm_rx_readable(&vs->conn, vmcomm_copied_seq(sk))) &&
		(vmcomm_rx_arm_edge(&vs->conn) ||
		 (all && vmcomm_rx_readable(&vs->conn, vmcomm_copied_seq(sk))));
	rcu_read_unlock();
	if (moved)
		vmcomm_sock_tell(vs);
}

/* TCP's own recvmsg, by whatever struct proto the socket has. It does not sleep for long. */
static int vmcomm_recv_plain(struct sock *sk, struct msghdr *msg, size_t len, int flags,
			     int *addr_len)
{
	struct vmcomm_sock *vs;
	struct proto *orig;
	int ret;

	atomic_inc(&vmcomm_callers);
	vs = vmcomm_sock_of(sk);
	orig = vs ? vs->orig : READ_ONCE(sk->sk_prot);
	ret = orig->recvmsg(sk, msg, len, flags, addr_len);
	atomic_dec(&vmcomm_callers);
	return ret;
}

/* The socket is TCP's own by now. */
static int vmcomm_recv_gone(struct sock *sk, struct msghdr *msg, size_t len, int flags,
			    int *addr_len)
{
	if (!(flags & MSG_DONTWAIT) && vmcomm_restarts())
		return vmcomm_restart();
	return vmcomm_recv_plain(sk, msg, len, flags, addr_len);
}

int vmcomm_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags, int *addr_len)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	size_t control_len = msg->msg_controllen;
	void *control = msg->msg_control;
	int ret;

	if (!vs)
		return vmcomm_recv_gone(sk, msg, len, flags, addr_len);
	if (flags & (MSG_OOB | MSG_ERRQUEUE))
		return vmcomm_recv_plain(sk, msg, len, flags, addr_len);
	atomic_inc(&vs->inflight);
	lock_sock(sk);
	if (sk->sk_state == TCP_LISTEN) {
		release_sock(sk);
		ret = vs->orig->recvmsg(sk, msg, len, flags, addr_len);
	} else if (READ_ONCE(vs->gone)) {
		ret = -ERESTARTNOINTR;
		release_sock(sk);
	} else {
		vmcomm_sock_ops(vs);
		vmcomm_recv_check_options(vs);
		if (flags & MSG_PEEK)
			ret = vmcomm_peek_locked(vs, msg, len, flags);
		else
			ret = vmcomm_recv_locked(vs, msg, len, flags, addr_len);
		if (ret >= 0)
			vmcomm_recv_control(sk, vs, msg, control, control_len, ret > 0);
		vmcomm_recv_rearm(vs, ret < 0 || ret < (int)len);
		release_sock(sk);
	}
	atomic_dec(&vs->inflight);
	/* Nothing was read: TCP's own call, with nothing of the context any more. */
	if (unlikely(ret == -ERESTARTNOINTR))
		ret = vmcomm_recv_gone(sk, msg, len, flags, addr_len);
	return ret;
}
