// SPDX-License-Identifier: GPL-2.0-only
/*
 * watch.c - what TCP's timers do for a connection whose bytes TCP does not see (M10, M26)
 *
 *   a reader that takes nothing    the sender goes on over TCP, which has buffers of its own
 *   a peer that hangs		    the connection ends as TCP's would: ETIMEDOUT, after as long
 *   an idle TCP connection	    one segment now and then, so that conntrack and NAT keep it
 */
#include "module.h"

/* As tcp_retries2 counts: exponential backoff from TCP_RTO_MIN up to TCP_RTO_MAX. */
static unsigned long vmcomm_watch_limit(const struct sock *sk)
{
	u32 user = READ_ONCE(inet_csk(sk)->icsk_user_timeout);
	u32 n = READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_retries2), linear;

	if (user)
		return msecs_to_jiffies(user);
	linear = ilog2(TCP_RTO_MAX / TCP_RTO_MIN);
	if (n <= linear)
		return ((2UL << n) - 1) * TCP_RTO_MIN;
	return ((2UL << linear) - 1) * TCP_RTO_MIN + (n - linear) * (unsigned long)TCP_RTO_MAX;
}

static u64 vmcomm_watch_heartbeat(const struct vmcomm_sock *vs)
{
	const struct vmcomm_abi_slot *page = vmcomm_link_slot_page(vs->link, vs->slot);

	/* Without it the peer counts as hung after the same time. */
	return page ? vmcomm_load64(&page->heartbeat) : 0;
}

/*
 * A pure ACK, by TCP's own timer for delayed ones. Unlike SO_KEEPALIVE it cannot be seen by
 * getsockopt() and asks for no answer.
 */
static void vmcomm_watch_keepalive(struct vmcomm_sock *vs)
{
	unsigned int seconds = READ_ONCE(vmcomm_keepalive_s);
	struct sock *sk = vs->sk;
	u32 seen = tcp_jiffies32 - tcp_sk(sk)->lsndtime;

	if (!seconds || !(1 << sk->sk_state & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT)) ||
	    seen < seconds * HZ || time_before(jiffies, vs->watch_alive + seconds * HZ))
		return;
	vs->watch_alive = jiffies;
	inet_csk_schedule_ack(sk);
	inet_csk_reset_xmit_timer(sk, ICSK_TIME_DACK, 1, TCP_RTO_MAX);
	vmcomm_node_count(&vs->link->node, VMCOMM_STAT_KEEPALIVES, 1);
}

/* Once a second; socket lock held, the connection is attached. */
void vmcomm_watch(struct vmcomm_sock *vs)
{
	struct vmcomm_conn *conn = &vs->conn;
	u32 unread = vmcomm_tx_unread(conn);
	u64 taken, beat;

	vmcomm_watch_keepalive(vs);
	if (!conn->theirs)
		return;
	taken = vmcomm_tx_taken(conn);
	beat = vmcomm_watch_heartbeat(vs);
	if (!unread || taken != vs->watch_taken) {
		vs->watch_taken = taken;
		vs->watch_since = jiffies;
		vs->watch_beat = beat;
		vs->watch_moved = jiffies;
		return;
	}
	/* TCP takes what it has room for, and then blocks the writer as it always does. */
	if (vmcomm_tx_in_ring(conn) && !vmcomm_tx_writable(conn) &&
	    time_after(jiffies, vs->watch_since + vmcomm_send_patience(vs))) {
		vmcomm_send_stalled(vs);
		if (vs->sk->sk_socket)
			vs->sk->sk_write_space(vs->sk);
	}
	if (beat != vs->watch_beat) {
		/* The VM lives, only its program does not read: TCP waits for that, too. */
		vs->watch_beat = beat;
		vs->watch_moved = jiffies;
		return;
	}
	if (time_before(jiffies, vs->watch_moved + vmcomm_watch_limit(vs->sk)))
		return;
	vmcomm_node_reason(&vs->link->node, VMCOMM_REASON_TIMEOUT);
	vmcomm_reset_with(vs, ETIMEDOUT);
}
