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
	if (vmcomm_give_back_now(vs, VMCOMM_REASON_SOCKMAP))
		return -EBUSY; /* the next attempt succeeds */
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
