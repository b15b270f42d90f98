// SPDX-License-Identifier: GPL-2.0-only
/* quit.c - connections leave shared memory, sockets go back to TCP (M2, M16, M19) */
#include <linux/delay.h>
#include <linux/sched/signal.h>

#include "module.h"

/*
 * Bytes that come before held ones are on their way. How long to wait when none come, and at most:
 * so many times leave_ms. Then the connection is reset.
 */
#define VMCOMM_GIVE_BACK_QUIET 5
#define VMCOMM_GIVE_BACK_MAX   30

static void vmcomm_wake_all(struct sock *sk)
{
	if (sock_flag(sk, SOCK_DEAD))
		return;
	sk->sk_data_ready(sk);
	sk->sk_write_space(sk);
}

/* The stream cannot be saved: end it as TCP ends one. Socket lock held, dropped in between. */
void vmcomm_reset_with(struct vmcomm_sock *vs, int err)
{
	struct sock *sk = vs->sk;

	vmcomm_conn_close(&vs->conn);
	if (sk->sk_state == TCP_CLOSE)
		return;
	if (vs->orig->diag_destroy) {
		/* what `ss -K` does: a reset to the peer, the error here */
		release_sock(sk);
		vs->orig->diag_destroy(sk, err);
		lock_sock(sk);
		return;
	}
	WRITE_ONCE(sk->sk_err, err);
	sk_error_report(sk);
	vs->orig->disconnect(sk, 0);
	sk->sk_shutdown |= SHUTDOWN_MASK;
}

static void vmcomm_reset(struct vmcomm_sock *vs)
{
	vmcomm_reset_with(vs, ECONNRESET);
}

/*
 * Take one connection out of shared memory. Socket lock held, dropped in between. Return: 0: it is
 * out; -EAGAIN: ask again after a moment.
 */
static int vmcomm_evict_one(struct vmcomm_sock *vs, bool gone)
{
	struct sock *sk = vs->sk;
	int err = vmcomm_conn_evict(&vs->conn, vmcomm_copied_seq(sk), gone);

	if (err == -EPROTO) {
		vmcomm_reset(vs);
		vmcomm_reason_count(VMCOMM_REASON_PEER_BAD);
	} else if (err) {
		return -EAGAIN;
	}
	vmcomm_pend_flush(vs, true);
	vmcomm_wake_all(sk);
	return 0;
}

/* All connections with a VM that left or is gone. May sleep. */
void vmcomm_evict_pair(struct vmcomm_link *link, u32 slot, bool gone)
{
	struct vmcomm_sock **v;
	u32 n, i, left = 0;

	v = vmcomm_sock_collect(&n, link, slot);
	for (i = 0; i < n; i++) {
		/* One that its program keeps locked must not keep all others, and the peer, waiting. */
		if (!vmcomm_lock_sock_try(v[i]->sk)) {
			left++;
			continue;
		}
		if (vmcomm_evict_one(v[i], gone))
			left++;
		release_sock(v[i]->sk);
	}
	vmcomm_sock_release(v, n);
	if (!left && !vmcomm_pair_released(&link->node, slot))
		return;
	/* The peer is in the middle of its leave: its host will tell if it never gets out. */
	spin_lock_bh(&link->news_lock);
	if (gone)
		link->news_gone |= BIT_ULL(slot);
	else
		link->news_left |= BIT_ULL(slot);
	spin_unlock_bh(&link->news_lock);
	msleep(2);
	if (!READ_ONCE(link->closing))
		queue_work(vmcomm_wq, &link->news_work);
}

/*
 * Leave the group: the device goes, the VM migrates, the module is unloaded. link->lock held.
 * Connections go on over TCP, still wrapped. May sleep, up to the deadline.
 *
 * Return: 0; -ETIME: a peer did not answer in time (it finds everything in our memory when it
 * does); -EBUSY: a peer stopped in the middle of its own leave; its connections were reset.
 */
int vmcomm_link_leave(struct vmcomm_link *link, unsigned int deadline_ms)
{
	unsigned long end = jiffies + msecs_to_jiffies(deadline_ms);
	struct vmcomm_node *node = &link->node;
	u64 start = ktime_get_ns();
	struct vmcomm_sock **v;
	u32 n, i, left;
	int ret = 0;

	vmcomm_node_leave_begin(node);
	/* Softirqs that were in the middle of an offer are through after this. */
	synchronize_rcu();
	v = vmcomm_sock_collect(&n, link, -1);
	for (i = 0; i < n; i++) {
		lock_sock(v[i]->sk);
		vmcomm_conn_freeze(&v[i]->conn);
		release_sock(v[i]->sk);
	}
	vmcomm_node_leave_publish(node);
	do {
		left = 0;
		for (i = 0; i < n; i++) {
			if (!vmcomm_conn_attached(&v[i]->conn))
				continue;
			lock_sock(v[i]->sk);
			if (vmcomm_evict_one(v[i], false))
				left++;
			release_sock(v[i]->sk);
		}
		if (left)
			msleep(1);
	} while (left && time_before(jiffies, end));
	for (i = 0; left && i < n; i++) {
		lock_sock(v[i]->sk);
		if (vmcomm_conn_attached(&v[i]->conn)) {
			vmcomm_reset(v[i]);
			vmcomm_node_reason(node, VMCOMM_REASON_LEAVE_STUCK);
			ret = -EBUSY;
		}
		release_sock(v[i]->sk);
	}
	vmcomm_node_leave_done(node);
	while (!vmcomm_node_leave_answered(node)) {
		if (time_after(jiffies, end)) {
			ret = ret ?: -ETIME;
			break;
		}
		usleep_range(200, 500);
	}
	vmcomm_sock_release(v, n);
	node->stat[VMCOMM_STAT_LEAVE_US] = div_u64(ktime_get_ns() - start, 1000);
	return ret;
}

/* Has the peer not sent what comes before the held bytes for too long? Socket lock held. */
static bool vmcomm_give_back_stuck(struct vmcomm_sock *vs)
{
	unsigned long patience = msecs_to_jiffies(READ_ONCE(vmcomm_leave_ms));
	u32 seq = tcp_sk(vs->sk)->rcv_nxt;

	if (!vs->back_start) {
		vs->back_start = jiffies | 1;
		vs->back_seq = seq;
		vs->back_moved = jiffies;
	} else if (vs->back_seq != seq) {
		vs->back_seq = seq;
		vs->back_moved = jiffies;
	}
	return time_after(jiffies, vs->back_moved + VMCOMM_GIVE_BACK_QUIET * patience) ||
	       time_after(jiffies, vs->back_start + VMCOMM_GIVE_BACK_MAX * patience);
}

/*
 * One attempt to make the socket TCP's own again, for good. Socket lock held, dropped in between.
 * Return: 0; -EAGAIN: bytes are on their way, try again without the lock in between; -ETIMEDOUT:
 * they should have come long ago.
 */
static int vmcomm_give_back_try(struct vmcomm_sock *vs, enum vmcomm_reason reason)
{
	int err;

	if (READ_ONCE(vs->gone))
		return 0;
	vs->no_ring = true;
	vmcomm_conn_unready(&vs->conn);
	vmcomm_tx_exit(&vs->conn, reason);
	err = vmcomm_evict_one(vs, false);
	if (!err)
		err = vmcomm_pend_flush(vs, true);
	if (!err)
		err = vmcomm_inject(vs);
	if (READ_ONCE(vs->gone))
		return 0;
	if (err)
		return vmcomm_give_back_stuck(vs) ? -ETIMEDOUT : -EAGAIN;
	vmcomm_inject_close(vs);
	vmcomm_sock_unwrap(vs, reason);
	vmcomm_wake_all(vs->sk);
	return 0;
}

/*
 * Make the socket TCP's own again, for good. Socket lock held, dropped in between; may sleep.
 * Return: 0, or -EAGAIN when bytes are missing that should have come long ago.
 */
int vmcomm_give_back(struct vmcomm_sock *vs, enum vmcomm_reason reason)
{
	int err;

	vs->back_start = 0;
	while ((err = vmcomm_give_back_try(vs, reason)) == -EAGAIN) {
		release_sock(vs->sk);
		msleep(1);
		lock_sock(vs->sk);
	}
	if (!err)
		return 0;
	vmcomm_front_put(vs);
	return -EAGAIN;
}

/*
 * The same for somebody in the kernel who takes the socket over, without sleeping and with the lock
 * held throughout. Return: 0; -errno: that does not do, and a worker is at it now.
 */
int vmcomm_give_back_now(struct vmcomm_sock *vs, enum vmcomm_reason reason)
{
	struct vmcomm_conn *conn = &vs->conn;
	int err = -EAGAIN;

	vs->no_ring = true;
	vmcomm_conn_unready(conn);
	vmcomm_tx_exit(conn, reason);
	/* To look for the peer's accept means to wake others: not with our spinlock held. */
	if (vmcomm_conn_attached(conn) && !conn->theirs)
		goto later;
	conn->atomic = true;
	err = vmcomm_conn_evict(conn, vmcomm_copied_seq(vs->sk), false);
	if (!err && conn->tx.pend_len)
		err = -EAGAIN;
	if (!err)
		err = vmcomm_inject(vs);
	conn->atomic = false;
	if (err)
		goto later;
	vmcomm_inject_close(vs);
	vmcomm_sock_unwrap(vs, reason);
	return 0;

later:
	vmcomm_sock_evict_later(vs, reason);
	return err;
}

/*
 * Module unload: nobody wraps any more. All sockets wait for their missing bytes at the same time.
 * May sleep for as long as a program keeps a socket locked.
 */
void vmcomm_give_back_all(void)
{
	struct vmcomm_sock **v;
	u32 n, i, pass;

	for (pass = 0;; pass++) {
		v = vmcomm_sock_collect(&n, NULL, -1);
		for (i = 0; i < n; i++) {
			/* Threads lose the CPU while they have it locked, mostly: stand in line at times. */
			if (pass % 4 == 3)
				lock_sock(v[i]->sk);
			else if (!vmcomm_lock_sock_try(v[i]->sk))
				continue;
			if (vmcomm_give_back_try(v[i], VMCOMM_REASON_UNLOAD) == -ETIMEDOUT) {
				vmcomm_reason_count(VMCOMM_REASON_LEAVE_STUCK);
				vmcomm_reset(v[i]);
			}
			release_sock(v[i]->sk);
		}
		vmcomm_sock_release(v, n);
		/* Sockets that are dying at this moment take themselves off the list. */
		spin_lock_bh(&vmcomm_socks_lock);
		i = list_empty(&vmcomm_socks);
		spin_unlock_bh(&vmcomm_socks_lock);
		if (i)
			return;
		msleep(2);
	}
}
