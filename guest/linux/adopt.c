// SPDX-License-Identifier: GPL-2.0-only
/*
 * adopt.c - connections that are older than the module, or than the peer's arrival (M17)
 *
 * When a peer comes up, established sockets whose other end it is are looked for in the kernel's
 * hash table of connections and wrapped. Threads may be inside TCP's own recvmsg or sendmsg with
 * such a socket, and would read past a switch-over. So it stays on TCP until all of them must have
 * left: after an RCU-tasks grace period each has gone through, or sleeps, and then it is visible
 * on the socket's wait queue or waits for the socket lock.
 *
 * The key of a connection is computed back from TCP's byte counters. The end that opened it
 * counted its SYN, so its own first number comes out one too small; by that byte it is known.
 */
#include <linux/rtnetlink.h>
#include <net/inet_hashtables.h>
#include <net/net_namespace.h>

#include "module.h"

#define VMCOMM_ADOPT_BATCH 64
#define VMCOMM_ADOPT_TRIES 600 /* of 100 ms: then the reader may sleep on TCP for ever */

static bool vmcomm_adopt_wanted(struct vmcomm_link *link, struct sock *sk, u32 slot)
{
	struct vmcomm_conn_names names;

	if (sk->sk_state != TCP_ESTABLISHED || sk->sk_protocol != IPPROTO_TCP ||
	    !vmcomm_sock_is_plain(sk))
		return false;
	vmcomm_sock_names(sk, &names);
	return link->find(link, sk, names.raddr, false) == (int)slot;
}

/*
 * Whether this end opened the connection, and so makes the offers: the other end may have wrapped it
 * when it was made, and goes by that. A SYN is acknowledged as a byte and not counted as one that was
 * sent. Errors of the local network spoil the count. Then the same end makes the offers whoever of
 * the two asks, and if the other one knows better they may not agree: the connection stays on TCP.
 */
static bool vmcomm_adopt_opened(const struct tcp_sock *tp, const struct vmcomm_conn_names *n,
				bool *known)
{
	u64 sent = tp->bytes_sent - tp->bytes_retrans - (tp->snd_nxt - tp->snd_una);
	int d;

	*known = tp->bytes_acked - sent <= 1;
	if (*known)
		return tp->bytes_acked != sent;
	d = memcmp(n->laddr, n->raddr, 16);
	return d ? d < 0 : n->lport < n->rport;
}

static bool vmcomm_adopt_one(struct vmcomm_link *link, struct sock *sk, u32 slot)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	struct vmcomm_sock *vs = NULL;
	bool known;

	lock_sock(sk);
	if (!vmcomm_adopt_wanted(link, sk, slot) || sk->sk_kern_sock ||
	    vmcomm_hook_refuse(sk) || !vmcomm_sock_default_ready(sk))
		goto out;
	vs = vmcomm_sock_wrap(sk, link, slot, false);
	if (!vs)
		goto out;
	vs->unsafe = true;
	vs->conn.client = vmcomm_adopt_opened(tp, &vs->names, &known);
	vs->key_unsure = !known;
	if (vmcomm_link_policy(link, &vs->names)) {
		vs->no_ring = true;
		vs->conn.reason = VMCOMM_REASON_POLICY;
	} else {
		vs->conn.reason = VMCOMM_REASON_OLDER;
	}
	vmcomm_sock_set_key(vs, tp->snd_una - (u32)tp->bytes_acked + (known && vs->conn.client),
			    tp->rcv_nxt - (u32)tp->bytes_received);
	vmcomm_node_count(&link->node, VMCOMM_STAT_CONN_ADOPTED, 1);
out:
	release_sock(sk);
	return vs;
}

static void vmcomm_adopt_hash(struct vmcomm_link *link, struct inet_hashinfo *h, u32 slot)
{
	struct sock *batch[VMCOMM_ADOPT_BATCH], *sk;
	const struct hlist_nulls_node *node;
	u32 n, i, b, wrapped;

	for (b = 0; b <= h->ehash_mask; b++) {
		if (hlist_nulls_empty(&h->ehash[b].chain))
			continue;
again:
		n = 0;
		wrapped = 0;
		spin_lock_bh(inet_ehash_lockp(h, b));
		sk_nulls_for_each(sk, node, &h->ehash[b].chain) {
			if (n == VMCOMM_ADOPT_BATCH)
				break;
			if (sk->sk_state != TCP_ESTABLISHED || sk->sk_protocol != IPPROTO_TCP ||
			    vmcomm_sock_of(sk) || !vmcomm_adopt_wanted(link, sk, slot))
				continue;
			if (refcount_inc_not_zero(&sk->sk_refcnt))
				batch[n++] = sk;
		}
		spin_unlock_bh(inet_ehash_lockp(h, b));
		for (i = 0; i < n; i++) {
			wrapped += vmcomm_adopt_one(link, batch[i], slot);
			sock_put(batch[i]);
		}
		cond_resched();
		/* Those that may not be wrapped are found again each time. */
		if (n == VMCOMM_ADOPT_BATCH && wrapped)
			goto again;
	}
}

/* Wrap what is established with the VM in @slot. May sleep. */
void vmcomm_adopt_scan(struct vmcomm_link *link, u32 slot)
{
	struct inet_hashinfo *first = init_net.ipv4.tcp_death_row.hashinfo;
	struct net *net;

	if (!vmcomm_is_enabled() || !READ_ONCE(vmcomm_adopt) || link->no_adopt)
		return;
	vmcomm_adopt_hash(link, first, slot);
	/* Namespaces may have tables of their own. */
	down_read(&net_rwsem);
	for_each_net(net)
		if (net->ipv4.tcp_death_row.hashinfo != first)
			vmcomm_adopt_hash(link, net->ipv4.tcp_death_row.hashinfo, slot);
	up_read(&net_rwsem);
	link->adopt_tries = 0;
	mod_delayed_work(vmcomm_wq, &link->adopt, 0);
}

/* Threads asleep inside TCP's own calls, or about to enter them. Socket lock held. */
static bool vmcomm_adopt_busy(struct vmcomm_sock *vs)
{
	struct sock *sk = vs->sk;
	struct wait_queue_head *wq;
	wait_queue_entry_t *w;
	unsigned long flags;
	int n = 0;

	if (waitqueue_active(&sk->sk_lock.wq))
		return true;
	rcu_read_lock();
	if (rcu_access_pointer(sk->sk_wq)) {
		wq = &rcu_dereference(sk->sk_wq)->wait;
		spin_lock_irqsave(&wq->lock, flags);
		list_for_each_entry(w, &wq->head, entry)
			if (w->func == woken_wake_function)
				n++;
		spin_unlock_irqrestore(&wq->lock, flags);
	}
	rcu_read_unlock();
	return n > atomic_read(&vs->sleepers);
}

/* Those that are adopted but not yet safe; again and again until none is left. */
void vmcomm_adopt_work(struct work_struct *work)
{
	struct vmcomm_link *link = container_of(to_delayed_work(work), struct vmcomm_link, adopt);
	struct vmcomm_sock **v;
	u32 n, i, left = 0;
	u64 offered = 0;

	if (READ_ONCE(link->closing))
		return;
	v = vmcomm_sock_collect(&n, link, -1);
	synchronize_rcu_tasks();
	for (i = 0; i < n; i++) {
		if (!READ_ONCE(v[i]->unsafe) || v[i]->gone)
			continue;
		lock_sock(v[i]->sk);
		if (vmcomm_adopt_busy(v[i])) {
			left++;
		} else {
			v[i]->unsafe = false;
			if (v[i]->conn.client && !sock_flag(v[i]->sk, SOCK_DEAD))
				vmcomm_try_offer(v[i], true);
			else if (!v[i]->conn.client && v[i]->slot < VMCOMM_SLOTS_MAX)
				offered |= BIT_ULL(v[i]->slot);
		}
		release_sock(v[i]->sk);
	}
	vmcomm_sock_release(v, n);
	/* The peer's offers may have come too early. */
	for (i = 0; i < VMCOMM_SLOTS_MAX; i++)
		if (offered & BIT_ULL(i))
			vmcomm_node_offers(&link->node, i);
	/* The tick goes on trying to offer; a reader that sleeps inside TCP wakes sooner or later. */
	if (left && !READ_ONCE(link->closing))
		queue_delayed_work(vmcomm_wq, &link->adopt,
				   link->adopt_tries++ < VMCOMM_ADOPT_TRIES ? HZ / 10 : HZ);
}

/*
 * The context of an offer for a connection that may be adopted: each end's own first number may be
 * one too small. Return: with references, as vmcomm_sock_by_key().
 */
struct vmcomm_sock *vmcomm_adopt_by_key(u32 seq_local, u32 seq_remote)
{
	struct vmcomm_sock *vs;
	u32 i;

	for (i = 0; i < 4; i++) {
		vs = vmcomm_sock_by_key(seq_local - (i & 1), seq_remote + (i >> 1));
		if (!vs)
			continue;
		if (vs->key_unsure || !i)
			return vs;
		sock_put(vs->sk);
		vmcomm_sock_put(vs);
	}
	return NULL;
}
