// SPDX-License-Identifier: GPL-2.0-only
/*
 * hook.c - the call analyser: which connections get a context (M1, M4, M5)
 *
 * TCP tells of each change of a socket's state by the tracepoint inet_sock_set_state. Connections
 * to and from other members of the group are wrapped there, at moments at which no thread can be
 * inside TCP's own sendmsg or recvmsg with the socket:
 *
 *   CLOSE -> SYN_SENT        connect(): wrap
 *   SYN_SENT -> ESTABLISHED  before the last segment of the handshake leaves: offer shared memory
 *   SYN_RECV -> ESTABLISHED  a child that user space does not know yet: wrap, take the offer
 *   any -> LISTEN            a socket that failed to connect listens now: unwrap
 *
 * All other sockets are left alone for ever: the tracepoint is not on their data path.
 */
#include <linux/tracepoint.h>
#include <net/mptcp.h>
#include <trace/events/sock.h>

#include "module.h"


static struct tracepoint *vmcomm_tp_state;

/* Why a socket cannot be wrapped; NONE: it can. */
enum vmcomm_reason vmcomm_hook_refuse(const struct sock *sk)
{
	if (sk->sk_kern_sock)
		return VMCOMM_REASON_KERNEL_SOCKET;
#if IS_ENABLED(CONFIG_MPTCP)
	if (sk_is_mptcp(sk))
		return VMCOMM_REASON_MPTCP;
#endif
#if IS_ENABLED(CONFIG_SMC)
	if (tcp_sk(sk)->syn_smc)
		return VMCOMM_REASON_SMC;
#endif
	if (inet_csk(sk)->icsk_ulp_ops)
		return VMCOMM_REASON_ULP;
	if (tcp_sk(sk)->repair)
		return VMCOMM_REASON_REPAIR;
	/* The thread that opens the connection is inside TCP's own sendmsg. */
	if (tcp_sk(sk)->fastopen_req)
		return VMCOMM_REASON_FASTOPEN;
	if (!vmcomm_sock_is_plain(sk))
		return VMCOMM_REASON_FOREIGN_PROTO;
	return VMCOMM_REASON_NONE;
}

/* Is the other end another member, and may the socket be wrapped? */
static struct vmcomm_sock *vmcomm_hook_wrap(struct sock *sk, bool client)
{
	struct vmcomm_conn_names names;
	struct vmcomm_sock *vs = NULL;
	enum vmcomm_reason reason;
	struct vmcomm_link *link;
	u32 slot;

	vmcomm_sock_names(sk, &names);
	rcu_read_lock();
	link = vmcomm_link_find(sk, names.raddr, client, &slot);
	if (!link)
		goto out;
	reason = vmcomm_hook_refuse(sk);
	if (!reason && vmcomm_link_policy(link, &names))
		reason = VMCOMM_REASON_POLICY;
	if (reason) {
		vmcomm_node_reason(&link->node, reason);
		goto out;
	}
	vs = vmcomm_sock_wrap(sk, link, slot, client);
	if (!vs)
		vmcomm_node_reason(&link->node, VMCOMM_REASON_GUEST_MEMORY);
out:
	rcu_read_unlock();
	return vs;
}

/* Socket locked; any context. The link may be going: its node refuses then. */
void vmcomm_try_offer(struct vmcomm_sock *vs, bool announce)
{
	struct vmcomm_link *link = vs->link;

	if (vs->no_ring || vs->gone || vs->unsafe || vmcomm_conn_attached(&vs->conn))
		return;
	rcu_read_lock();
	if (READ_ONCE(link->up) && vmcomm_is_enabled()) {
		/* leaving had taken it back */
		vs->conn.rx_want = vs->ops_done;
		vmcomm_conn_had(&vs->conn, READ_ONCE(tcp_sk(vs->sk)->rcv_nxt));
		vmcomm_conn_offer(&link->node, vs->slot, &vs->conn, &vs->names, announce);
	} else {
		vs->conn.reason = vmcomm_is_enabled() ? VMCOMM_REASON_NO_DEVICE :
						   VMCOMM_REASON_DISABLED;
	}
	rcu_read_unlock();
}

static void vmcomm_hook_established(struct sock *sk, struct vmcomm_sock *vs, bool client)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	struct vmcomm_link *link = vs->link;

	vmcomm_sock_names(sk, &vs->names);
	vmcomm_sock_set_key(vs, tp->write_seq, tp->rcv_nxt);
	if (tp->write_seq != tp->snd_una || tp->syn_data || tp->syn_fastopen) {
		vs->no_ring = true;
		vs->conn.reason = VMCOMM_REASON_FASTOPEN;
		vmcomm_node_reason(&link->node, VMCOMM_REASON_FASTOPEN);
		return;
	}
	if (client) {
		vmcomm_try_offer(vs, false);
		return;
	}
	rcu_read_lock();
	if (READ_ONCE(link->up) && vmcomm_is_enabled()) {
		vmcomm_conn_had(&vs->conn, tp->rcv_nxt);
		vmcomm_conn_accept(&link->node, vs->slot, &vs->conn, &vs->names);
	} else {
		vs->conn.reason = VMCOMM_REASON_DISABLED;
	}
	rcu_read_unlock();
}

static void vmcomm_hook_state(void *data, const struct sock *csk, const int from, const int to)
{
	struct sock *sk = (struct sock *)csk;
	struct vmcomm_sock *vs;

	if (to != TCP_SYN_SENT && to != TCP_ESTABLISHED && to != TCP_LISTEN)
		return;
	if (sk->sk_protocol != IPPROTO_TCP || sk->sk_type != SOCK_STREAM)
		return;
	vs = vmcomm_sock_of(sk);
	if (vs && vs->sk != sk)
		return; /* cannot happen; better left alone */
	switch (to) {
	case TCP_SYN_SENT:
		/* An attempt before this one failed on the way: the peer may be another one now. */
		if (vs)
			vmcomm_sock_unwrap(vs, VMCOMM_REASON_NONE);
		if (!vmcomm_is_enabled())
			return;
		vs = vmcomm_hook_wrap(sk, true);
		/* The thread inside connect() is the only one that can use it for data later. */
		if (vs && sk->sk_socket)
			vmcomm_sock_ops(vs);
		break;
	case TCP_ESTABLISHED:
		if (from == TCP_SYN_SENT && vs) {
			vmcomm_hook_established(sk, vs, true);
		} else if (from == TCP_SYN_RECV && !vs && !sk->sk_socket && vmcomm_is_enabled()) {
			vs = vmcomm_hook_wrap(sk, false);
			if (vs)
				vmcomm_hook_established(sk, vs, false);
		}
		break;
	case TCP_LISTEN:
		if (vs)
			vmcomm_sock_unwrap(vs, VMCOMM_REASON_DISCONNECT);
		break;
	}
}

static void vmcomm_hook_find(struct tracepoint *tp, void *priv)
{
	if (!strcmp(tp->name, "inet_sock_set_state"))
		vmcomm_tp_state = tp;
}

int vmcomm_hook_init(void)
{
	for_each_kernel_tracepoint(vmcomm_hook_find, NULL);
	if (!vmcomm_tp_state) {
		pr_err("vmcomm: this kernel has no tracepoint inet_sock_set_state\n");
		return -ENOENT;
	}
	return tracepoint_probe_register(vmcomm_tp_state, vmcomm_hook_state, NULL);
}

void vmcomm_hook_deinit(void)
{
	tracepoint_probe_unregister(vmcomm_tp_state, vmcomm_hook_state, NULL);
	tracepoint_synchronize_unregister();
}
