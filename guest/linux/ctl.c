// SPDX-License-Identifier: GPL-2.0-only
/* ctl.c - everything on a wrapped socket that is not sending or receiving (M8, M10) */
#include <linux/net.h>
#include <linux/sched/signal.h>
#include <linux/sockios.h>
#include <asm/ioctls.h>
#include <net/ipv6.h>

#include "module.h"

/* How long close() and shutdown() wait for a peer that is in the middle of its own leave. */
#define VMCOMM_SETTLE_TIME (5 * HZ)

/*
 * Bytes whose fate a departing peer has yet to tell go before anything else, a FIN included.
 * Socket lock held, dropped in between. Return: 0 or -ETIMEDOUT.
 */
int vmcomm_settle_wait(struct vmcomm_sock *vs, long timeout)
{
	unsigned long end = jiffies + timeout;
	struct sock *sk = vs->sk;
	enum vmcomm_next next;

	while (vmcomm_conn_attached(&vs->conn) && vs->conn.tx.unsettled) {
		next = vmcomm_send_next(vs, VMCOMM_TX_TCP);
		if (next != VMCOMM_NEXT_WAIT)
			break;
		if (time_after(jiffies, end)) {
			vmcomm_node_reason(vs->conn.node, VMCOMM_REASON_LEAVE_STUCK);
			return -ETIMEDOUT;
		}
		release_sock(sk);
		msleep(2);
		lock_sock(sk);
	}
	return 0;
}

/*
 * The same without waiting: what the peer did not take goes over TCP as soon as that is known,
 * whether or not the program has more to send. Socket lock held, dropped in between.
 */
void vmcomm_settle(struct vmcomm_sock *vs)
{
	if (vmcomm_conn_attached(&vs->conn) && vs->conn.tx.unsettled)
		vmcomm_send_next(vs, VMCOMM_TX_TCP);
	if (vs->conn.tx.pend_len)
		vmcomm_pend_flush(vs, true);
}

/*
 * What was accepted from the program has to be in TCP's queue before a FIN is. Only memory can be
 * short, so it is waited for; then the stream must end in a reset, not in a FIN too early.
 * Socket lock held, dropped in between. Return: 0 or -ETIMEDOUT.
 */
static int vmcomm_finish_sending(struct vmcomm_sock *vs)
{
	unsigned long end = jiffies + VMCOMM_SETTLE_TIME;
	int err = vmcomm_settle_wait(vs, VMCOMM_SETTLE_TIME);

	while (!err && vmcomm_pend_flush(vs, true)) {
		if (time_after(jiffies, end)) {
			vmcomm_reason_count(VMCOMM_REASON_GUEST_MEMORY);
			err = -ETIMEDOUT;
			break;
		}
		release_sock(vs->sk);
		msleep(2);
		lock_sock(vs->sk);
	}
	return err;
}

/* TCP never sees what is still in the ring or held: as if it had been lost. Socket lock held. */
static void vmcomm_ctl_reset_on_close(struct sock *sk)
{
	sock_set_flag(sk, SOCK_LINGER);
	sk->sk_lingertime = 0;
}

/* Lockless, so the memory may be going. */
static u32 vmcomm_ctl_unread(struct vmcomm_sock *vs)
{
	u32 n;

	rcu_read_lock();
	n = vmcomm_tx_unread(&vs->conn);
	rcu_read_unlock();
	return n;
}

/* Linger counts bytes that the peer has not read, as TCP counts those not acknowledged. */
static long vmcomm_ctl_linger(struct vmcomm_sock *vs, long timeout)
{
	struct sock *sk = vs->sk;

	while (timeout > 0 && vmcomm_ctl_unread(vs) && !signal_pending(current) &&
	       !sk->sk_err && sk->sk_state != TCP_CLOSE &&
	       !vmcomm_conn_peer_closed(&vs->conn)) {
		DEFINE_WAIT_FUNC(wait, woken_wake_function);
		long nap = min_t(long, timeout, HZ / 50 + 1);

		timeout -= nap;
		vmcomm_sleep_begin(vs, &wait);
		sk_wait_event(sk, &nap, !vmcomm_ctl_unread(vs), &wait);
		vmcomm_sleep_end(vs, &wait);
		timeout += nap;
	}
	return max(timeout, 0L);
}

void vmcomm_close(struct sock *sk, long timeout)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	struct proto *orig;

	if (!vs) {
		atomic_inc(&vmcomm_callers);
		READ_ONCE(sk->sk_prot)->close(sk, timeout);
		atomic_dec(&vmcomm_callers);
		return;
	}
	orig = vs->orig;
	atomic_inc(&vs->inflight);
	lock_sock(sk);
	if (vmcomm_finish_sending(vs))
		vmcomm_ctl_reset_on_close(sk);
	if (sock_flag(sk, SOCK_LINGER) && timeout > 0)
		timeout = vmcomm_ctl_linger(vs, timeout);
	/* It is not offered again while TCP closes it. */
	vs->no_ring = true;
	vmcomm_front_put(vs);
	if (vmcomm_conn_close(&vs->conn) && sk->sk_state != TCP_CLOSE)
		vmcomm_ctl_reset_on_close(sk);
	release_sock(sk);
	/* The context may be gone when TCP returns, and TCP may linger: count this thread elsewhere. */
	atomic_inc(&vmcomm_callers);
	atomic_dec(&vs->inflight);
	orig->close(sk, timeout);
	atomic_dec(&vmcomm_callers);
}

/* Socket lock held. */
void vmcomm_shutdown(struct sock *sk, int how)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);

	if (!vs) {
		atomic_inc(&vmcomm_callers);
		READ_ONCE(sk->sk_prot)->shutdown(sk, how);
		atomic_dec(&vmcomm_callers);
		return;
	}
	atomic_inc(&vs->inflight);
	if (how & SEND_SHUTDOWN && vmcomm_finish_sending(vs))
		WRITE_ONCE(sk->sk_err, ECONNRESET); /* and no FIN: the peer must not take it for the end */
	else
		vs->orig->shutdown(sk, how);
	atomic_dec(&vs->inflight);
}

/* Socket lock held. connect(AF_UNSPEC), or a connect that failed: all bytes are given up. */
int vmcomm_disconnect(struct sock *sk, int flags)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	int ret;

	if (!vs) {
		atomic_inc(&vmcomm_callers);
		ret = READ_ONCE(sk->sk_prot)->disconnect(sk, flags);
		atomic_dec(&vmcomm_callers);
		return ret;
	}
	atomic_inc(&vs->inflight);
	vmcomm_conn_close(&vs->conn);
	vmcomm_front_put(vs);
	ret = vs->orig->disconnect(sk, flags);
	vmcomm_sock_unwrap(vs, VMCOMM_REASON_DISCONNECT);
	atomic_dec(&vs->inflight);
	return ret;
}

/* The socket is dead; any context. */
void vmcomm_destroy(struct sock *sk)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);

	if (!vs) {
		READ_ONCE(sk->sk_prot)->destroy(sk);
		return;
	}
	vs->conn.atomic = true;
	vmcomm_conn_close(&vs->conn);
	vmcomm_front_drop(vs);
	WRITE_ONCE(vs->gone, true);
	WRITE_ONCE(sk->sk_prot, vs->orig);
	vs->orig->destroy(sk);
	vmcomm_stat_count(VMCOMM_STAT_UNWRAPPED, 1);
	vmcomm_sock_forget(vs);
}

/*
 * Options after which TCP, or somebody on top of it, has to see all bytes. Return: 0 to go on;
 * the socket may be TCP's own now.
 */
static int vmcomm_ctl_give_up(struct sock *sk, enum vmcomm_reason reason)
{
	struct vmcomm_sock *vs;
	int err = 0;

	lock_sock(sk);
	vs = vmcomm_sock_of(sk);
	if (vs) {
		atomic_inc(&vs->inflight);
		err = vmcomm_give_back(vs, reason);
		atomic_dec(&vs->inflight);
	}
	release_sock(sk);
	return err;
}

/* Whose struct proto to call: the socket may have been given back a moment ago. */
static struct proto *vmcomm_ctl_orig(struct sock *sk)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);

	return vs ? vs->orig : READ_ONCE(sk->sk_prot);
}

int vmcomm_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
		      unsigned int optlen)
{
	enum vmcomm_reason reason = VMCOMM_REASON_NONE;
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	int ret = 0;

	if (vs && level == SOL_TCP && optname == TCP_CORK)
		WRITE_ONCE(vs->corks, vs->corks + 1);
	if (level == SOL_TCP && optname == TCP_ULP)
		reason = VMCOMM_REASON_ULP;
	else if (level == SOL_TCP && optname == TCP_REPAIR)
		reason = VMCOMM_REASON_REPAIR;
	else if (level == SOL_IPV6 && optname == IPV6_ADDRFORM)
		reason = VMCOMM_REASON_FOREIGN_PROTO;
	atomic_inc(&vmcomm_callers);
	if (reason)
		ret = vmcomm_ctl_give_up(sk, reason);
	if (!ret)
		ret = vmcomm_ctl_orig(sk)->setsockopt(sk, level, optname, optval, optlen);
	atomic_dec(&vmcomm_callers);
	return ret;
}

/* SO_PEEK_OFF, where TCP has it (6.9): a position in TCP's own queue. Socket lock held. */
static int vmcomm_ops_set_peek_off(struct sock *sk, int val)
{
	const struct proto_ops *ops = vmcomm_template_ops(sk);
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	int ret = 0;

	atomic_inc(&vmcomm_callers);
	if (vs)
		ret = vmcomm_give_back(vs, VMCOMM_REASON_PEEK_OFF);
	if (!ret)
		ret = ops->set_peek_off(sk, val);
	atomic_dec(&vmcomm_callers);
	return ret;
}

/*
 * How a kernel service that took the socket over reads it: all of TCP's queue, so the bytes in a
 * ring have to be there. Socket lock held.
 */
static int vmcomm_ops_read_sock(struct sock *sk, read_descriptor_t *desc, sk_read_actor_t actor)
{
	const struct proto_ops *ops = vmcomm_template_ops(sk);
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	int ret = 0;

	atomic_inc(&vmcomm_callers);
	/* It is told that there is something to read once the worker is done. */
	if (!vs || !vmcomm_give_back_now(vs, VMCOMM_REASON_KERNEL_CONSUMER))
		ret = ops->read_sock(sk, desc, actor);
	atomic_dec(&vmcomm_callers);
	return ret;
}

/*
 * splice from the socket through recvmsg; everything else that TCP's proto_ops do either ends in
 * sk_prot or is about TCP's own queues.
 */
void vmcomm_ops_fill(struct proto_ops *ops)
{
	ops->splice_read = NULL;
	ops->read_sock = vmcomm_ops_read_sock;
	if (ops->set_peek_off)
		ops->set_peek_off = vmcomm_ops_set_peek_off;
	ops->poll = vmcomm_poll;
	vmcomm_ops_no_sendpage(ops);
}

int vmcomm_getsockopt(struct sock *sk, int level, int optname, char __user *optval,
		      int __user *optlen)
{
	int ret = 0;

	atomic_inc(&vmcomm_callers);
	if (level == SOL_TCP && optname == TCP_ZEROCOPY_RECEIVE)
		ret = vmcomm_ctl_give_up(sk, VMCOMM_REASON_ZEROCOPY_RX);
	if (!ret)
		ret = vmcomm_ctl_orig(sk)->getsockopt(sk, level, optname, optval, optlen);
	atomic_dec(&vmcomm_callers);
	return ret;
}

int vmcomm_ioctl(struct sock *sk, int cmd, vmcomm_ioctl_arg arg)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	const struct tcp_sock *tp = tcp_sk(sk);
	bool slow;
	int n = 0;

	if (!vs) {
		atomic_inc(&vmcomm_callers);
		n = READ_ONCE(sk->sk_prot)->ioctl(sk, cmd, arg);
		atomic_dec(&vmcomm_callers);
		return n;
	}
	if (sk->sk_state == TCP_LISTEN || 1 << sk->sk_state & (TCPF_SYN_SENT | TCPF_SYN_RECV) ||
	    (cmd != SIOCINQ && cmd != SIOCATMARK && cmd != SIOCOUTQ)) {
		atomic_inc(&vs->inflight);
		n = vs->orig->ioctl(sk, cmd, arg);
		atomic_dec(&vs->inflight);
		return n;
	}
	/* The lock may have to be waited for. */
	atomic_inc(&vs->inflight);
	switch (cmd) {
	case SIOCINQ:
		slow = lock_sock_fast(sk);
		vmcomm_front_put(vs);
		n = vmcomm_recv_queued(vs);
		unlock_sock_fast(sk, slow);
		break;
	case SIOCATMARK:
		slow = lock_sock_fast(sk);
		vmcomm_front_put(vs);
		n = vmcomm_recv_at_mark(vs) && !vmcomm_rx_readable(&vs->conn, vmcomm_copied_seq(sk));
		unlock_sock_fast(sk, slow);
		break;
	case SIOCOUTQ:
		slow = lock_sock_fast(sk);
		n = READ_ONCE(tp->write_seq) - tp->snd_una + vmcomm_tx_unread(&vs->conn);
		unlock_sock_fast(sk, slow);
		break;
	}
	n = vmcomm_ioctl_put(arg, n);
	atomic_dec(&vs->inflight);
	return n;
}
