// SPDX-License-Identifier: GPL-2.0-only
/*
 * sock.c - contexts of wrapped sockets: how they come, how they are found, how they go
 *
 * A socket is wrapped by pointing sk->sk_prot to a copy of its struct proto that lies in the
 * context, so the context is found by container_of(). sk->sk_socket->ops is replaced too, as
 * splice and friends do not go through sk_prot, but only once user space has the socket.
 *
 * No symbol of TCP is linked: struct proto and struct proto_ops are read off template sockets.
 */
#include <linux/net.h>
#include <net/inet_sock.h>
#include <net/ipv6.h>

#include "module.h"

struct vmcomm_template {
	struct proto *prot;
	const struct proto_ops *ops;
	struct proto_ops ours;
};

static struct vmcomm_template vmcomm_templates[2]; /* AF_INET, AF_INET6 */
static void (*vmcomm_data_ready)(struct sock *sk);

LIST_HEAD(vmcomm_socks);
DEFINE_SPINLOCK(vmcomm_socks_lock);
static DEFINE_HASHTABLE(vmcomm_keys, 10);

static int vmcomm_template_init(struct vmcomm_template *t, int family)
{
	struct socket *sock;
	int err;

	err = sock_create_kern(&init_net, family, SOCK_STREAM, IPPROTO_TCP, &sock);
	if (err)
		return err;
	t->prot = sock->sk->sk_prot;
	t->ops = sock->ops;
	/* its owner stays the kernel: sockets pin nothing of ours */
	t->ours = *sock->ops;
	vmcomm_ops_fill(&t->ours);
	vmcomm_data_ready = sock->sk->sk_data_ready;
	sock_release(sock);
	return 0;
}

int vmcomm_templates_init(void)
{
	int err = vmcomm_template_init(&vmcomm_templates[0], AF_INET);

	/* IPv6 may be off */
	if (!err)
		vmcomm_template_init(&vmcomm_templates[1], AF_INET6);
	return err;
}

const struct proto_ops *vmcomm_template_ops(const struct sock *sk)
{
	return vmcomm_templates[sk->sk_family == AF_INET6].ops;
}

__poll_t vmcomm_template_poll(struct file *file, struct socket *sock,
			      struct poll_table_struct *wait)
{
	/* the same function for both families */
	return vmcomm_templates[0].ops->poll(file, sock, wait);
}

/* Is the socket an ordinary TCP socket that nobody has changed? */
bool vmcomm_sock_is_plain(const struct sock *sk)
{
	const struct proto *prot = READ_ONCE(sk->sk_prot);

	return prot == vmcomm_templates[0].prot ||
	       (vmcomm_templates[1].prot && prot == vmcomm_templates[1].prot);
}

bool vmcomm_sock_default_ready(const struct sock *sk)
{
	return READ_ONCE(sk->sk_data_ready) == vmcomm_data_ready;
}

void vmcomm_sock_names(const struct sock *sk, struct vmcomm_conn_names *names)
{
	struct in6_addr l, r;

	if (sk->sk_family == AF_INET) {
		ipv6_addr_set_v4mapped(inet_sk(sk)->inet_saddr, &l);
		ipv6_addr_set_v4mapped(sk->sk_daddr, &r);
	} else {
#if IS_ENABLED(CONFIG_IPV6)
		l = sk->sk_v6_rcv_saddr;
		r = sk->sk_v6_daddr;
#else
		memset(&l, 0, sizeof(l));
		memset(&r, 0, sizeof(r));
#endif
	}
	memcpy(names->laddr, &l, 16);
	memcpy(names->raddr, &r, 16);
	names->lport = sk->sk_num;
	names->rport = ntohs(sk->sk_dport);
}

void vmcomm_sock_put(struct vmcomm_sock *vs)
{
	if (!refcount_dec_and_test(&vs->ref))
		return;
	vmcomm_conn_deinit(&vs->conn);
	kfree_rcu(vs, rcu);
}

bool vmcomm_sock_get(struct vmcomm_sock *vs)
{
	return refcount_inc_not_zero(&vs->ref);
}

static void vmcomm_sock_evict_work(struct work_struct *work)
{
	struct vmcomm_sock *vs = container_of(work, struct vmcomm_sock, evict_work);
	struct sock *sk = vs->sk;

	lock_sock(sk);
	vmcomm_give_back(vs, vs->evict_reason);
	release_sock(sk);
	sock_put(sk);
	vmcomm_sock_put(vs);
}

/* @work, one of the socket's own, lets go of both references. The caller has a reference to both. */
static void vmcomm_sock_queue(struct vmcomm_sock *vs, struct work_struct *work)
{
	sock_hold(vs->sk);
	vmcomm_sock_get(vs);
	if (!queue_work(vmcomm_wq, work)) {
		sock_put(vs->sk);
		vmcomm_sock_put(vs);
	}
}

/* Give the socket back from a worker. The caller has a reference to both; any context. */
void vmcomm_sock_evict_later(struct vmcomm_sock *vs, enum vmcomm_reason reason)
{
	vs->evict_reason = reason;
	vmcomm_sock_queue(vs, &vs->evict_work);
}

static void vmcomm_sock_settle_work(struct work_struct *work)
{
	struct vmcomm_sock *vs = container_of(work, struct vmcomm_sock, settle_work);
	struct sock *sk = vs->sk;

	lock_sock(sk);
	if (!READ_ONCE(vs->gone))
		vmcomm_settle(vs);
	if (sk->sk_socket)
		sk->sk_write_space(sk);
	release_sock(sk);
	sock_put(sk);
	vmcomm_sock_put(vs);
}

/* The peer may have said how many of our last bytes it took. Any context, with a reference. */
static void vmcomm_sock_settle_later(struct vmcomm_sock *vs)
{
	vmcomm_sock_queue(vs, &vs->settle_work);
}

/*
 * Wrap a socket that nobody is using at this moment: from the state tracepoint, with the socket
 * locked. Atomic context. Return: NULL when there is no memory.
 */
struct vmcomm_sock *vmcomm_sock_wrap(struct sock *sk, struct vmcomm_link *link, u32 slot,
				     bool client)
{
	struct vmcomm_sock *vs;

	vs = kzalloc(sizeof(*vs), GFP_ATOMIC | __GFP_NOWARN);
	if (!vs)
		return NULL;
	refcount_set(&vs->ref, 1);
	vs->sk = sk;
	vs->link = link;
	WRITE_ONCE(vs->slot, slot);
	vs->orig = sk->sk_prot;
	vs->rx_spin.ns = vmcomm_spin_us * 1000;
	vs->tx_spin.ns = vs->rx_spin.ns;
	vs->full_shift = VMCOMM_FULL_SHIFT_FIRST;
	vs->watch_since = jiffies;
	mutex_init(&vs->tcp_read);
	__skb_queue_head_init(&vs->front);
	INIT_WORK(&vs->evict_work, vmcomm_sock_evict_work);
	INIT_WORK(&vs->settle_work, vmcomm_sock_settle_work);
	INIT_HLIST_NODE(&vs->key);
	vmcomm_conn_init(&vs->conn, 0, 0, client);
	vmcomm_sock_names(sk, &vs->names);

	vs->prot = *vs->orig;
	vs->prot.sendmsg = vmcomm_sendmsg;
	vs->prot.recvmsg = vmcomm_recvmsg;
	vs->prot.sock_is_readable = vmcomm_is_readable;
	vs->prot.stream_memory_free = vmcomm_memory_free;
	vs->prot.close = vmcomm_close;
	vs->prot.shutdown = vmcomm_shutdown;
	vs->prot.disconnect = vmcomm_disconnect;
	vs->prot.destroy = vmcomm_destroy;
	vs->prot.setsockopt = vmcomm_setsockopt;
	vs->prot.getsockopt = vmcomm_getsockopt;
	vs->prot.ioctl = vmcomm_ioctl;
	vmcomm_prot_no_sendpage(&vs->prot);
	vmcomm_sockmap_fill(&vs->prot);

	spin_lock_bh(&vmcomm_socks_lock);
	list_add_tail(&vs->list, &vmcomm_socks);
	spin_unlock_bh(&vmcomm_socks_lock);
	WRITE_ONCE(sk->sk_prot, &vs->prot);
	vmcomm_stat_count(VMCOMM_STAT_WRAPPED, 1);
	return vs;
}

/* The one place that unlinks a context. Idempotent. Return: it was linked, and the list's
 * reference is now the caller's.
 */
static bool vmcomm_sock_unlink(struct vmcomm_sock *vs)
{
	bool linked;

	spin_lock_bh(&vmcomm_socks_lock);
	linked = !list_empty(&vs->list);
	list_del_init(&vs->list);
	if (!hlist_unhashed(&vs->key))
		hash_del(&vs->key);
	spin_unlock_bh(&vmcomm_socks_lock);
	return linked;
}

/* The socket dies, or never got anywhere: the context goes with it. */
void vmcomm_sock_forget(struct vmcomm_sock *vs)
{
	if (vmcomm_sock_unlink(vs))
		vmcomm_sock_put(vs);
}

/* Contexts whose sockets are TCP's own again; vmcomm_socks_lock. */
static LIST_HEAD(vmcomm_unwrapped);

/* They are freed once nobody can be inside a callback that found one of them through sk_prot. */
static void vmcomm_unwrapped_free(struct work_struct *work)
{
	struct vmcomm_sock *vs, *next;
	LIST_HEAD(list);

	spin_lock_bh(&vmcomm_socks_lock);
	list_splice_init(&vmcomm_unwrapped, &list);
	spin_unlock_bh(&vmcomm_socks_lock);
	synchronize_rcu_tasks();
	synchronize_rcu();
	list_for_each_entry_safe(vs, next, &list, unwrapped) {
		while (atomic_read(&vs->inflight))
			msleep(10);
		vmcomm_sock_put(vs);
	}
}

static DECLARE_WORK(vmcomm_unwrapped_work, vmcomm_unwrapped_free);

/*
 * Give the socket its own struct proto back. Socket lock held; the connection is detached and has
 * neither held nor pending bytes.
 */
void vmcomm_sock_unwrap(struct vmcomm_sock *vs, enum vmcomm_reason reason)
{
	struct sock *sk = vs->sk;

	if (READ_ONCE(sk->sk_prot) != &vs->prot)
		return;
	WRITE_ONCE(vs->gone, true);
	if (vs->orig_ops && sk->sk_socket)
		WRITE_ONCE(sk->sk_socket->ops, vs->orig_ops);
	WRITE_ONCE(sk->sk_prot, vs->orig);
	vmcomm_stat_count(VMCOMM_STAT_UNWRAPPED, 1);
	if (reason)
		vmcomm_reason_count(reason);
	if (!vmcomm_sock_unlink(vs))
		return;
	/* The list's reference is the work's now. */
	spin_lock_bh(&vmcomm_socks_lock);
	list_add_tail(&vs->unwrapped, &vmcomm_unwrapped);
	spin_unlock_bh(&vmcomm_socks_lock);
	queue_work(vmcomm_wq, &vmcomm_unwrapped_work);
}

/*
 * splice_read() and others go through sock->ops: before bytes may come out of a ring, that must be
 * ours too. Socket lock held, or a socket that only its creator knows.
 */
void vmcomm_sock_ops(struct vmcomm_sock *vs)
{
	struct socket *sock = vs->sk->sk_socket;
	unsigned int i;

	if (likely(vs->ops_done) || !sock || vs->gone || vs->unsafe)
		return;
	for (i = 0; i < ARRAY_SIZE(vmcomm_templates); i++) {
		if (!vmcomm_templates[i].ops || sock->ops != vmcomm_templates[i].ops)
			continue;
		vs->orig_ops = sock->ops;
		WRITE_ONCE(sock->ops, &vmcomm_templates[i].ours);
		break;
	}
	vs->ops_done = true;
	if (!vs->orig_ops) {
		vs->no_ring = true;
		vmcomm_reason_count(VMCOMM_REASON_FOREIGN_PROTO);
		return;
	}
	if (!vs->no_ring)
		vmcomm_conn_ready(&vs->conn);
}

struct vmcomm_sock *vmcomm_sock_by_key(u32 seq_local, u32 seq_remote)
{
	struct vmcomm_sock *vs, *found = NULL;

	spin_lock_bh(&vmcomm_socks_lock);
	hash_for_each_possible(vmcomm_keys, vs, key, seq_local ^ seq_remote) {
		if (vs->conn.seq_local == seq_local && vs->conn.seq_remote == seq_remote &&
		    refcount_inc_not_zero(&vs->sk->sk_refcnt)) {
			vmcomm_sock_get(vs);
			found = vs;
			break;
		}
	}
	spin_unlock_bh(&vmcomm_socks_lock);
	return found;
}

void vmcomm_sock_set_key(struct vmcomm_sock *vs, u32 seq_local, u32 seq_remote)
{
	spin_lock_bh(&vmcomm_socks_lock);
	if (!hlist_unhashed(&vs->key))
		hash_del(&vs->key);
	vs->conn.seq_local = seq_local;
	vs->conn.seq_remote = seq_remote;
	if (!list_empty(&vs->list))
		hash_add(vmcomm_keys, &vs->key, seq_local ^ seq_remote);
	spin_unlock_bh(&vmcomm_socks_lock);
}

/*
 * References to all contexts of a link (NULL: any) and slot (-1: any), for work that has to lock
 * each socket. May sleep. NULL with *count 0 when there are none.
 */
struct vmcomm_sock **vmcomm_sock_collect(u32 *count, const struct vmcomm_link *link, int slot)
{
	struct vmcomm_sock *vs, **v = NULL;
	u32 n = 0, size = 0;

	for (;;) {
		n = 0;
		spin_lock_bh(&vmcomm_socks_lock);
		list_for_each_entry(vs, &vmcomm_socks, list) {
			if (link && vs->link != link)
				continue;
			if (slot >= 0 && READ_ONCE(vs->slot) != (u32)slot)
				continue;
			if (n < size) {
				if (!refcount_inc_not_zero(&vs->sk->sk_refcnt))
					continue;
				vmcomm_sock_get(vs);
				v[n] = vs;
			}
			n++;
		}
		spin_unlock_bh(&vmcomm_socks_lock);
		if (n <= size)
			break;
		vmcomm_sock_release(v, size);
		size = n + 64;
		v = kvmalloc_array(size, sizeof(*v), GFP_KERNEL | __GFP_NOFAIL);
	}
	*count = n;
	if (!n) {
		kvfree(v);
		v = NULL;
	}
	return v;
}

void vmcomm_sock_release(struct vmcomm_sock **v, u32 count)
{
	u32 i;

	for (i = 0; i < count; i++) {
		sock_put(v[i]->sk);
		vmcomm_sock_put(v[i]);
	}
	kvfree(v);
}

/* --- calls from the core --- */

/* node->lock is held, so the connection has not been closed: socket and context exist. */
static bool vmcomm_sock_hold(struct vmcomm_conn *conn)
{
	struct vmcomm_sock *vs = vmcomm_sock_from_conn(conn);

	if (!refcount_inc_not_zero(&vs->sk->sk_refcnt))
		return false;
	vmcomm_sock_get(vs);
	return true;
}

static void vmcomm_sock_drop(struct vmcomm_conn *conn)
{
	struct vmcomm_sock *vs = vmcomm_sock_from_conn(conn);

	sock_put(vs->sk);
	vmcomm_sock_put(vs);
}

/* Bytes came: say so, but only once, as edge-triggered waiters count. RCU read lock or socket lock. */
void vmcomm_sock_tell(struct vmcomm_sock *vs)
{
	u64 head = vmcomm_rx_head(&vs->conn);
	u32 gen = READ_ONCE(vs->conn.gen);

	if (READ_ONCE(vs->told) == head && READ_ONCE(vs->told_gen) == gen)
		return;
	WRITE_ONCE(vs->told_gen, gen);
	WRITE_ONCE(vs->told, head);
	vs->sk->sk_data_ready(vs->sk);
}

/* Lockless. */
bool vmcomm_sock_may_enter(struct vmcomm_sock *vs)
{
	bool ret;

	if (likely(!READ_ONCE(vs->enter)))
		return false;
	rcu_read_lock();
	ret = vmcomm_tx_enters(&vs->conn);
	rcu_read_unlock();
	return ret;
}

/*
 * The two ends have just found each other: a writer that waits for room in TCP's queue need not, and
 * what it puts there would have to go over the network before its direction is back in a ring. Once;
 * should the ring not be had, TCP's word counts again. Socket lock, or a reference; any context.
 */
void vmcomm_sock_enters(struct vmcomm_sock *vs)
{
	struct sock *sk = vs->sk;
	struct socket_wq *wq;

	rcu_read_lock();
	if (!READ_ONCE(vs->no_ring) && !READ_ONCE(vs->gone) && vmcomm_tx_enters(&vs->conn)) {
		WRITE_ONCE(vs->enter, true);
		wq = rcu_dereference(sk->sk_wq);
		if (skwq_has_sleeper(wq))
			wake_up_interruptible_poll(&wq->wait, EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
		if (wq && wq->fasync_list && !(sk->sk_shutdown & SEND_SHUTDOWN))
			sock_wake_async(wq, SOCK_WAKE_SPACE, POLL_OUT);
	}
	rcu_read_unlock();
}

/*
 * The two ends have just found each other, and what TCP lost on the way there comes before all that goes
 * into a ring: its timer has backed off, to seconds perhaps, so let it try now. Socket lock held.
 */
void vmcomm_sock_hurry(struct sock *sk)
{
	const struct inet_connection_sock *icsk = inet_csk(sk);

	if ((icsk->icsk_pending == ICSK_TIME_RETRANS || icsk->icsk_pending == ICSK_TIME_PROBE0) &&
	    icsk->icsk_backoff)
		inet_csk_reset_xmit_timer(sk, icsk->icsk_pending, 1, TCP_RTO_MAX);
}

static void vmcomm_sock_wake(struct vmcomm_conn *conn)
{
	struct vmcomm_sock *vs = vmcomm_sock_from_conn(conn);
	struct sock *sk = vs->sk;
	struct socket *sock;

	/*
	 * Nobody may be reading: follow the peer out of the ring, so that it can free it. From a
	 * doorbell, but also from the tick and from threads that looked for an accept: the socket's
	 * spinlock is one of softirqs.
	 */
	local_bh_disable();
	bh_lock_sock(sk);
	if (!sock_owned_by_user(sk))
		vmcomm_conn_poll(conn);
	bh_unlock_sock(sk);
	local_bh_enable();

	if (sock_flag(sk, SOCK_DEAD))
		return;
	if (unlikely(READ_ONCE(conn->broken) && READ_ONCE(conn->reason) == VMCOMM_REASON_REVERTED)) {
		/* Nobody may be reading or writing: end it at once. */
		vmcomm_sock_evict_later(vs, VMCOMM_REASON_REVERTED);
		return;
	}
	if (!vmcomm_sock_default_ready(sk)) {
		/* A kernel service took the socket over. It reads TCP's queue, not rings. */
		vmcomm_sock_evict_later(vs, VMCOMM_REASON_KERNEL_CONSUMER);
		return;
	}
	if (unlikely(READ_ONCE(conn->tx.unsettled)))
		vmcomm_sock_settle_later(vs);
	rcu_read_lock();
	if (vmcomm_rx_unread(conn))
		vmcomm_sock_tell(vs);
	/* The struct socket may go at any time, but not its memory. */
	sock = READ_ONCE(sk->sk_socket);
	if (sock && test_bit(SOCK_NOSPACE, &sock->flags)) {
		sk->sk_write_space(sk);
		if (test_bit(SOCK_NOSPACE, &sock->flags))
			vmcomm_sock_enters(vs);
	}
	rcu_read_unlock();
}

static void vmcomm_sock_pair_news(struct vmcomm_node *node, u32 slot, enum vmcomm_pair_news news)
{
	struct vmcomm_link *link = container_of(node, struct vmcomm_link, node);

	spin_lock_bh(&link->news_lock);
	if (news == VMCOMM_NEWS_UP)
		link->news_up |= BIT_ULL(slot);
	else if (news == VMCOMM_NEWS_LEFT)
		link->news_left |= BIT_ULL(slot);
	else
		link->news_gone |= BIT_ULL(slot);
	spin_unlock_bh(&link->news_lock);
	queue_work(vmcomm_wq, &link->news_work);
}

static void vmcomm_sock_offered(struct vmcomm_node *node, u32 slot, u32 idx)
{
	struct vmcomm_link *link = container_of(node, struct vmcomm_link, node);

	spin_lock_bh(&link->news_lock);
	if (link->offers_head - link->offers_tail < ARRAY_SIZE(link->offers))
		link->offers[link->offers_head++ % ARRAY_SIZE(link->offers)] = slot << 24 |
									       (idx & 0xffffff);
	else
		link->news_offers |= BIT_ULL(slot);
	spin_unlock_bh(&link->news_lock);
	queue_work(vmcomm_wq, &link->news_work);
}

const struct vmcomm_conn_ops vmcomm_sock_conn_ops = {
	.hold = vmcomm_sock_hold,
	.drop = vmcomm_sock_drop,
	.wake = vmcomm_sock_wake,
	.pair_news = vmcomm_sock_pair_news,
	.offered = vmcomm_sock_offered,
};
