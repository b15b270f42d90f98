// SPDX-License-Identifier: GPL-2.0-only
/*
 * sockmap.c - a BPF program takes the socket over: it becomes TCP's own first
 *
 * A sockmap looks at TCP's queues and replaces sk->sk_prot. This runs with the socket locked and
 * often in atomic context. It remembers what it found in sk_prot, which must not be ours.
 */
#include <linux/skmsg.h>

#include "module.h"

#ifdef CONFIG_BPF_SYSCALL
/* Without sleeping. Return: 0, or -errno when that does not do; then a worker tries. */
static int vmcomm_sockmap_give_back(struct vmcomm_sock *vs)
{
	struct vmcomm_conn *conn = &vs->conn;
	int err;

	vs->no_ring = true;
	vmcomm_conn_unready(conn);
	vmcomm_tx_exit(conn, VMCOMM_REASON_SOCKMAP);
	/* To look for the peer's accept means to wake others: not with our spinlock held. */
	if (vmcomm_conn_attached(conn) && !conn->theirs)
		return -EAGAIN;
	conn->atomic = true;
	err = vmcomm_conn_evict(conn, vmcomm_copied_seq(vs->sk), false);
	if (!err && conn->tx.pend_len)
		err = -EAGAIN;
	if (!err)
		err = vmcomm_inject(vs);
	conn->atomic = false;
	return err;
}

/* Socket lock held; any context. */
static int vmcomm_sockmap_update(struct sock *sk, struct sk_psock *psock, bool restore)
{
	struct vmcomm_sock *vs = vmcomm_sock_of(sk);
	struct proto *orig;

	if (restore)
		return 0; /* the attempt below failed: nothing was replaced */
	if (!vs)
		return -EINVAL;
	orig = vs->orig;
	if (vmcomm_sockmap_give_back(vs)) {
		/* Pending bytes, or memory: let a worker do it; the next attempt succeeds. */
		vmcomm_sock_evict_later(vs, VMCOMM_REASON_SOCKMAP);
		return -EBUSY;
	}
	vmcomm_sock_unwrap(vs, VMCOMM_REASON_SOCKMAP);
	psock->sk_proto = orig;
	psock->saved_unhash = orig->unhash;
	psock->saved_destroy = orig->destroy;
	psock->saved_close = orig->close;
	psock->psock_update_sk_prot = orig->psock_update_sk_prot;
	return orig->psock_update_sk_prot(sk, psock, false);
}
#endif

void vmcomm_sockmap_fill(struct proto *prot)
{
#ifdef CONFIG_BPF_SYSCALL
	if (prot->psock_update_sk_prot)
		prot->psock_update_sk_prot = vmcomm_sockmap_update;
#endif
}
