// SPDX-License-Identifier: GPL-2.0-only
/*
 * poll.c - poll(), select() and epoll on a wrapped socket (M10)
 *
 * TCP's own poll does it, and asks vmcomm_is_readable() and vmcomm_memory_free(). What is added:
 *
 * - who asks: edge-triggered waiters hear of all that comes, others only of the first;
 * - where to be woken when there is room to write, which TCP's poll does not ask for;
 * - a look before sleeping. A program whose poll() sleeps for each block costs its peer a doorbell,
 *   and itself an interrupt and two context switches for each. The other descriptors of the call
 *   must not suffer: those in front end the look, those behind wait for VMCOMM_POLL_LOOK_MAX at
 *   most for each of VMCOMM_POLL_LOOKERS sockets. It is for sockets that have moved bytes since
 *   the last time, and have come to do so soon after poll() was called.
 */
#include <linux/poll.h>

#include "module.h"

#define VMCOMM_POLL_LOOK_MAX 200000 /* ns */
#define VMCOMM_POLL_LOOKERS  4	    /* places in the set, from the front */

/* How poll() and select() register with what they wait for. */
static poll_queue_proc vmcomm_poll_queue_proc;

void vmcomm_poll_init(void)
{
	struct poll_wqueues pwq;

	poll_initwait(&pwq);
	vmcomm_poll_queue_proc = pwq.pt._qproc;
	poll_freewait(&pwq);
}

static bool vmcomm_poll_ready_any(struct vmcomm_sock *vs)
{
	return vmcomm_recv_spin_ready(vs) || vmcomm_send_spin_ready(vs);
}

/* The call is about to sleep, unless a descriptor behind this one is ready. */
static void vmcomm_poll_look(struct vmcomm_sock *vs, struct poll_table_struct *wait)
{
	const struct poll_wqueues *pwq;
	bool in = wait->_key & EPOLLIN, out = wait->_key & EPOLLOUT;
	bool (*ready)(struct vmcomm_sock * vs);
	u64 at;

	/* With a timeout of zero, and once something is ready, there is no function to register. */
	if (wait->_qproc != vmcomm_poll_queue_proc || !vmcomm_conn_attached(&vs->conn))
		return;
	pwq = container_of(wait, struct poll_wqueues, pt);
	if (pwq->table || pwq->inline_index >= VMCOMM_POLL_LOOKERS)
		return;
	if (out) {
		ready = in ? vmcomm_poll_ready_any : vmcomm_send_spin_ready;
		at = READ_ONCE(vs->conn.tx.head);
		if (ready(vs) || at == READ_ONCE(vs->tx_polled))
			return;
		WRITE_ONCE(vs->tx_polled, at);
		vmcomm_spin_poll(vs, &vs->tx_poll_spin, VMCOMM_POLL_LOOK_MAX, ready,
				 &pwq->triggered);
	} else if (in) {
		at = READ_ONCE(vs->conn.rx.tail);
		if (vmcomm_recv_spin_ready(vs) || at == READ_ONCE(vs->rx_polled))
			return;
		WRITE_ONCE(vs->rx_polled, at);
		vmcomm_spin_poll(vs, &vs->rx_poll_spin, VMCOMM_POLL_LOOK_MAX,
				 vmcomm_recv_spin_ready, &pwq->triggered);
	}
}

__poll_t vmcomm_poll(struct file *file, struct socket *sock, struct poll_table_struct *wait)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sock->sk);
	__poll_t key = wait ? wait->_key : 0, mask;
	bool edge = key & (__force __poll_t)EPOLLET;

	if (vs && edge)
		WRITE_ONCE(vs->edge, VMCOMM_EDGE_EDGE);
	else if (vs && READ_ONCE(vs->edge) == VMCOMM_EDGE_UNKNOWN)
		WRITE_ONCE(vs->edge, VMCOMM_EDGE_LEVEL);
	if (vs && wait)
		vmcomm_poll_look(vs, wait);
	mask = vmcomm_template_poll(file, sock, wait);
	if (!vs)
		return mask;
	if (!(mask & EPOLLOUT) && vmcomm_sock_may_enter(vs))
		mask |= EPOLLOUT | EPOLLWRNORM;
	rcu_read_lock();
	if (edge && vmcomm_conn_attached(&vs->conn) && vmcomm_rx_arm_edge(&vs->conn))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (!(mask & EPOLLOUT) && (!wait || key & EPOLLOUT) && vmcomm_tx_in_ring(&vs->conn) &&
	    sk_stream_wspace(sock->sk) >= sk_stream_min_wspace(sock->sk) &&
	    vmcomm_memory_free(sock->sk, 1))
		mask |= EPOLLOUT | EPOLLWRNORM;
	rcu_read_unlock();
	return mask;
}

/* For poll(): called without the socket lock, so it only reads, and says where to be woken. */
bool vmcomm_is_readable(struct sock *sk)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	u32 at, n, want;

	if (!vs)
		return false;
	rcu_read_lock();
	at = vmcomm_copied_seq(sk) - vmcomm_front_bytes(vs);
	/* While there is something to read nobody sleeps: spare the peer the doorbell. */
	n = vmcomm_rx_readable(&vs->conn, at);
	if (!n || READ_ONCE(sk->sk_rcvlowat) > 1) {
		vmcomm_rx_arm(&vs->conn, at);
		n = vmcomm_rx_readable(&vs->conn, at);
	}
	if (!n && (vmcomm_rx_unread(&vs->conn) || vmcomm_front_bytes(vs)) &&
	    vmcomm_rcv_nxt(sk) != at)
		n = 1; /* bytes on TCP come first: tcp_poll() has counted those alone */
	want = READ_ONCE(sk->sk_rcvlowat);
	if (n && want > 1)
		n = vmcomm_rx_unread(&vs->conn) + vmcomm_rcv_nxt(sk) - at >= want;
	rcu_read_unlock();
	return n != 0;
}
