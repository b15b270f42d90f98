/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * module.h - the guest module's own structures
 *
 *   hook.c     call analyser: which sockets get a context (M1, M4)
 *   sock.c     contexts: life cycle, lists, the swapped struct proto and struct proto_ops
 *   send.c recv.c poll.c ctl.c   the callbacks (M6-M8, M10)
 *   copy.c     bytes between a program and a ring
 *   link.c     one membership in a group: node, workers, timers
 *   pace.c     limits to what peers' doorbells and events cost (M26)
 *   quit.c     leaving: evict connections, give sockets back to TCP (M2, M16)
 *   inject.c   put bytes that were taken out of a ring into TCP's receive queue
 *   ivshmem.c loop.c      transports
 *   access.c   checks of each access to shared memory, in a build for tests only
 *
 * Locks: socket lock -> node->lock (bh) -> conn->arm_lock (bh). vmcomm_socks_lock (bh) is a leaf.
 * vs->tcp_read is taken before the socket lock.
 */
#ifndef VMCOMM_MODULE_H
#define VMCOMM_MODULE_H

#include <linux/hashtable.h>
#include <linux/hrtimer.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/workqueue.h>
#include <linux/interrupt.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "conn.h"
#include "compat/compat.h"

#define VMCOMM_VERSION "0.1.0"

/* What waits of one kind have taught about looking before sleeping (spin.c). */
struct vmcomm_spin {
	u32 ns;	  /* how long to look; adapts */
	u32 skip; /* waits without a look since it was too little */
};

/* What doorbells cost lately (pace.c). */
struct vmcomm_pace {
	struct hrtimer timer;
	bool paused;
	atomic_t rung; /* since the tasklet ran last */
	u64 debt;      /* ns */
	u64 last;
	u64 found, seen; /* events, when the tasklet ended last, */
	u64 scans;	 /* and looks at everything */
	bool useful;	 /* it found something then */
	u64 opened;	 /* when the last pause ended */
	u32 row;	 /* pauses without a rest in between */
};

/* One membership in a group: a node and what drives it. */
struct vmcomm_link {
	struct list_head list; /* vmcomm_links, RCU */
	const char *name;
	struct vmcomm_node node;
	struct vmcomm_region region;
	bool up;	       /* node is initialised */
	bool closing;
	bool left; /* the host asked; lock */
	u32 row_seq; /* of the own row in the location table, when we looked last */
	/* which slot a connection's other end is in; -ENOENT: none of ours */
	int (*find)(struct vmcomm_link *link, const struct sock *sk, const u8 raddr[16],
		    bool client);
	/* for transports whose region is no single mapping: where these are */
	struct vmcomm_abi_plain *plain;
	const struct vmcomm_abi_slot *(*slot_page)(struct vmcomm_link *link, u32 slot);
	u32 ring_max; /* log2 of the largest ring that it can share; 0: any */
	/* the host does not want us to leave any more: link_down(), then link_up() again; or NULL */
	void (*rejoin)(struct vmcomm_link *link);
	/* let no doorbells through, or let them through again; from softirq; or NULL */
	void (*mask)(struct vmcomm_link *link, bool on);
	struct vmcomm_pace pace;
	struct tasklet_struct tasklet; /* doorbell */
	struct delayed_work tick;
	struct work_struct news_work;
	struct work_struct leave_work;
	spinlock_t news_lock;
	u64 news_up, news_left, news_gone; /* bits: slots */
	u64 news_offers; /* the same: peers with offers that were missed */
	struct mutex lock; /* node_init, leave */
	struct delayed_work adopt;
	u32 adopt_tries;
	bool no_adopt;
	u32 offers[64];	   /* announced offers to look at: peer slot << 24 | CCB, a small ring */
	u32 offers_head, offers_tail;
};

#define VMCOMM_FULL_SHIFT_FIRST 4 /* of vmcomm_sock.full_shift */

/* What kind of poll a socket has seen. */
enum {
	VMCOMM_EDGE_UNKNOWN,
	VMCOMM_EDGE_LEVEL,
	VMCOMM_EDGE_EDGE,
};

/* What a wrapped socket carries: a copy of its struct proto and everything of ours. */
struct vmcomm_sock {
	struct proto prot; /* sk->sk_prot points here */
	struct proto *orig;
	struct sock *sk;
	struct vmcomm_conn conn;
	struct vmcomm_conn_names names;
	struct vmcomm_link *link; /* where its peer was found; only compared when not attached */
	u32 slot;
	struct list_head list;
	struct list_head unwrapped;
	struct hlist_node key;
	refcount_t ref;	   /* list, lookups in progress */
	atomic_t inflight; /* callbacks running */
	atomic_t sleepers; /* our own threads on the wait queue */
	struct mutex tcp_read; /* reads from TCP are one at a time: two could pass x_seq */
	bool tcp_reading;      /* one is at it; socket lock */
	const struct proto_ops *orig_ops;
	bool ops_done;
	bool gone;    /* given back to TCP */
	bool no_ring; /* for good */
	bool key_unsure; /* adopted: the own number of its key may be one too small */
	bool unsafe;  /* adopted, and threads may still be inside TCP's own calls */
	bool more;    /* the last bytes on TCP were sent with MSG_MORE */
	u32 corks;    /* calls that set or clear TCP_CORK */
	u8 edge;      /* VMCOMM_EDGE_* */
	u64 told;     /* the ring's head when sleepers were woken last */
	u32 told_gen;
	u32 tcp_send; /* threads inside TCP's sendmsg, socket lock */
	u32 waits;    /* for bytes or for room, up to VMCOMM_SPIN_YOUNG */
	struct vmcomm_spin rx_spin, tx_spin;	       /* blocked in a read, in a write */
	struct vmcomm_spin rx_poll_spin, tx_poll_spin; /* in poll() and select() (poll.c) */
	u64 rx_polled, tx_polled; /* the rings' positions at the last such wait */
	unsigned long active; /* jiffies of the last ring byte sent */
	u64 full_taken;		  /* send.c: what the peer had taken when the ring was full */
	unsigned long full_since; /* jiffies of that */
	u8 full_shift;		  /* log2 of how much longer than at first a full ring may last */
	bool full_left;		  /* the ring was left because it was full for too long */
	bool enter; /* a ring can be entered, and nobody has tried since */
	u64 watch_taken;	  /* watch.c: what the peer had taken, */
	unsigned long watch_since; /* the jiffies of that, */
	u64 watch_beat;	      /* its heartbeat, */
	unsigned long watch_moved; /* and the jiffies when one of the two changed last */
	unsigned long watch_alive; /* jiffies of the last keepalive */
	u32 back_seq;	      /* quit.c: rcv_nxt, */
	unsigned long back_moved; /* the jiffies when it changed last, */
	unsigned long back_start; /* and when waiting for bytes began; 0: not yet */
	unsigned long opened; /* inject.c: jiffies when the window was opened */
	int rcvbuf_was;
	struct sk_buff_head front; /* inject.c */
	u32 front_seq;
	u32 front_size;
	struct work_struct evict_work;
	struct work_struct settle_work;
	u32 evict_reason;
	struct rcu_head rcu;
};

/* module parameters */
extern bool vmcomm_enabled;
extern bool vmcomm_adopt;
extern unsigned int vmcomm_spin_us;
extern unsigned int vmcomm_leave_ms;
extern unsigned int vmcomm_keepalive_s;
extern unsigned int vmcomm_ring_first;
extern unsigned int vmcomm_ring_max;

extern struct workqueue_struct *vmcomm_wq;
extern atomic_t vmcomm_callers;
extern struct list_head vmcomm_socks;
extern spinlock_t vmcomm_socks_lock;
extern u64 vmcomm_reasons[VMCOMM_REASON_COUNT];
extern u64 vmcomm_stats[VMCOMM_STAT_COUNT];
extern struct list_head vmcomm_links;
extern struct mutex vmcomm_links_lock;

/* sock.c */
int vmcomm_templates_init(void);
bool vmcomm_sock_is_plain(const struct sock *sk);
bool vmcomm_sock_default_ready(const struct sock *sk);
struct vmcomm_sock *vmcomm_sock_wrap(struct sock *sk, struct vmcomm_link *link, u32 slot,
				     bool client);
void vmcomm_sock_unwrap(struct vmcomm_sock *vs, enum vmcomm_reason reason);
void vmcomm_sock_put(struct vmcomm_sock *vs);
bool vmcomm_sock_get(struct vmcomm_sock *vs);
void vmcomm_sock_ops(struct vmcomm_sock *vs);
void vmcomm_sock_names(const struct sock *sk, struct vmcomm_conn_names *names);
void vmcomm_sock_evict_later(struct vmcomm_sock *vs, enum vmcomm_reason reason);
void vmcomm_sock_tell(struct vmcomm_sock *vs);
void vmcomm_sock_enters(struct vmcomm_sock *vs);
bool vmcomm_sock_may_enter(struct vmcomm_sock *vs);
void vmcomm_sock_hurry(struct sock *sk);
void vmcomm_sock_forget(struct vmcomm_sock *vs);
void vmcomm_sock_set_key(struct vmcomm_sock *vs, u32 seq_local, u32 seq_remote);
struct vmcomm_sock *vmcomm_sock_by_key(u32 seq_local, u32 seq_remote);
extern const struct vmcomm_conn_ops vmcomm_sock_conn_ops;
struct vmcomm_sock **vmcomm_sock_collect(u32 *count, const struct vmcomm_link *link, int slot);
void vmcomm_sock_release(struct vmcomm_sock **v, u32 count);

/* NULL: the socket is not, or no longer, ours */
static inline struct vmcomm_sock *vmcomm_sock_of(const struct sock *sk);

const struct proto_ops *vmcomm_template_ops(const struct sock *sk);
__poll_t vmcomm_template_poll(struct file *file, struct socket *sock,
			      struct poll_table_struct *wait);

/* send.c, recv.c, poll.c, ctl.c, copy.c, spin.c */
size_t vmcomm_copy_in(void *to, size_t len, struct iov_iter *i);
size_t vmcomm_copy_out(const void *from, size_t len, struct iov_iter *i);
bool vmcomm_spin(struct vmcomm_sock *vs, struct vmcomm_spin *spin,
		 bool (*ready)(struct vmcomm_sock *vs));
bool vmcomm_spin_poll(struct vmcomm_sock *vs, struct vmcomm_spin *spin, u32 max,
		      bool (*ready)(struct vmcomm_sock *vs), const int *stop);
void vmcomm_poll_init(void);
bool vmcomm_send_spin_ready(struct vmcomm_sock *vs);
bool vmcomm_recv_spin_ready(struct vmcomm_sock *vs);
__poll_t vmcomm_poll(struct file *file, struct socket *sock, struct poll_table_struct *wait);
int vmcomm_sendmsg(struct sock *sk, struct msghdr *msg, size_t len);
int vmcomm_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags, int *addr_len);
void vmcomm_recv_check_options(struct vmcomm_sock *vs);
bool vmcomm_recv_at_mark(const struct vmcomm_sock *vs);
int vmcomm_recv_queued(struct vmcomm_sock *vs);
bool vmcomm_is_readable(struct sock *sk);
bool vmcomm_memory_free(const struct sock *sk, int wake);
void vmcomm_close(struct sock *sk, long timeout);
void vmcomm_shutdown(struct sock *sk, int how);
int vmcomm_disconnect(struct sock *sk, int flags);
void vmcomm_destroy(struct sock *sk);
int vmcomm_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
		      unsigned int optlen);
int vmcomm_getsockopt(struct sock *sk, int level, int optname, char __user *optval,
		      int __user *optlen);
int vmcomm_ioctl(struct sock *sk, int cmd, vmcomm_ioctl_arg arg);
int vmcomm_pend_flush(struct vmcomm_sock *vs, bool force);
/* Where the next bytes go, as TCP is now (vmcomm_tx_next()). Socket lock held. */
static inline enum vmcomm_next vmcomm_send_next(struct vmcomm_sock *vs, u32 flags)
{
	const struct tcp_sock *tp = tcp_sk(vs->sk);

	return vmcomm_tx_next(&vs->conn, tp->write_seq, tp->snd_nxt, tp->snd_una, flags);
}
unsigned long vmcomm_send_patience(const struct vmcomm_sock *vs);
void vmcomm_send_stalled(struct vmcomm_sock *vs);
int vmcomm_settle_wait(struct vmcomm_sock *vs, long timeout);
void vmcomm_settle(struct vmcomm_sock *vs);
struct proto_ops;
void vmcomm_ops_fill(struct proto_ops *ops);

/* quit.c */
void vmcomm_reset_with(struct vmcomm_sock *vs, int err);
void vmcomm_evict_pair(struct vmcomm_link *link, u32 slot, bool gone);
int vmcomm_link_leave(struct vmcomm_link *link, unsigned int deadline_ms);
int vmcomm_give_back(struct vmcomm_sock *vs, enum vmcomm_reason reason);
int vmcomm_give_back_now(struct vmcomm_sock *vs, enum vmcomm_reason reason);
void vmcomm_give_back_all(void);

/* adopt.c */
void vmcomm_adopt_scan(struct vmcomm_link *link, u32 slot);
void vmcomm_adopt_work(struct work_struct *work);
struct vmcomm_sock *vmcomm_adopt_by_key(u32 seq_local, u32 seq_remote);

/* sockmap.c, watch.c */
void vmcomm_sockmap_fill(struct proto *prot);
void vmcomm_watch(struct vmcomm_sock *vs);

/* inject.c */
int vmcomm_inject(struct vmcomm_sock *vs);
void vmcomm_inject_close(struct vmcomm_sock *vs);
void vmcomm_front_put(struct vmcomm_sock *vs);
void vmcomm_front_drop(struct vmcomm_sock *vs);

/* pace.c */
void vmcomm_pace_init(struct vmcomm_link *link);
bool vmcomm_pace_doorbell(struct vmcomm_link *link);
void vmcomm_pace_begin(struct vmcomm_link *link);
bool vmcomm_pace_end(struct vmcomm_link *link, bool more);
void vmcomm_pace_stop(struct vmcomm_link *link);

/* link.c */
void vmcomm_links_enable(void);
int vmcomm_link_init(struct vmcomm_link *link, const char *name);
int vmcomm_link_up(struct vmcomm_link *link, const struct vmcomm_node_config *config);
void vmcomm_link_down(struct vmcomm_link *link);
void vmcomm_link_deinit(struct vmcomm_link *link);
void vmcomm_link_doorbell(struct vmcomm_link *link);
struct vmcomm_link *vmcomm_link_find(const struct sock *sk, const u8 raddr[16], bool client,
				     u32 *slot);
const struct vmcomm_abi_slot *vmcomm_link_slot_page(struct vmcomm_link *link, u32 slot);
bool vmcomm_link_policy(struct vmcomm_link *link, const struct vmcomm_conn_names *names);

/* hook.c, loop.c, ivshmem.c, xen.c, proc.c */
int vmcomm_hook_init(void);
void vmcomm_hook_deinit(void);
void vmcomm_try_offer(struct vmcomm_sock *vs, bool announce);
enum vmcomm_reason vmcomm_hook_refuse(const struct sock *sk);
int vmcomm_loop_init(unsigned int mb);
void vmcomm_loop_deinit(void);
int vmcomm_ivshmem_init(void);
void vmcomm_ivshmem_deinit(void);
#ifdef CONFIG_XEN_XENBUS_FRONTEND
int vmcomm_xen_init(void);
void vmcomm_xen_deinit(void);
#else
static inline int vmcomm_xen_init(void)
{
	return 0;
}

static inline void vmcomm_xen_deinit(void)
{
}
#endif
/* access.c: nothing unless VMCOMM_CHECK_ACCESS */
#ifdef VMCOMM_CHECK_ACCESS
int vmcomm_access_add(struct vmcomm_link *links, u32 slot, u32 count);
void vmcomm_access_remove(const void *base);
void vmcomm_access_forget(struct vmcomm_link *link);
void vmcomm_access_mapped(struct vmcomm_link *link, u32 owner, u32 chunk, u32 count);
#else
static inline int vmcomm_access_add(struct vmcomm_link *links, u32 slot, u32 count)
{
	return 0;
}

static inline void vmcomm_access_remove(const void *base)
{
}

static inline void vmcomm_access_forget(struct vmcomm_link *link)
{
}

static inline void vmcomm_access_mapped(struct vmcomm_link *link, u32 owner, u32 chunk, u32 count)
{
}
#endif
int vmcomm_proc_init(void);
void vmcomm_proc_deinit(void);

static inline struct vmcomm_sock *vmcomm_sock_of(const struct sock *sk)
{
	struct proto *prot = READ_ONCE(sk->sk_prot);

	return prot->sendmsg == vmcomm_sendmsg ? container_of(prot, struct vmcomm_sock, prot) :
						 NULL;
}

/* Bytes on TCP that are kept in front of its receive queue. Lockless. */
static inline u32 vmcomm_front_bytes(const struct vmcomm_sock *vs)
{
	return likely(skb_queue_empty_lockless(&vs->front)) ?
		       0 : READ_ONCE(tcp_sk(vs->sk)->copied_seq) - READ_ONCE(vs->front_seq);
}

static inline struct vmcomm_sock *vmcomm_sock_from_conn(struct vmcomm_conn *conn)
{
	return container_of(conn, struct vmcomm_sock, conn);
}

/* lock_sock() without waiting for a thread that has the socket, and may be busy for long. */
static inline bool vmcomm_lock_sock_try(struct sock *sk)
{
	spin_lock_bh(&sk->sk_lock.slock);
	if (sk->sk_lock.owned) {
		spin_unlock_bh(&sk->sk_lock.slock);
		return false;
	}
	sk->sk_lock.owned = 1;
	spin_unlock(&sk->sk_lock.slock);
	mutex_acquire(&sk->sk_lock.dep_map, 0, 1, _RET_IP_);
	local_bh_enable();
	return true;
}

/* Threads of ours on the socket's wait queue are counted, so that adopt.c can tell them from others. */
static inline void vmcomm_sleep_begin(struct vmcomm_sock *vs, wait_queue_entry_t *wait)
{
	atomic_inc(&vs->sleepers);
	add_wait_queue(sk_sleep(vs->sk), wait);
}

static inline void vmcomm_sleep_end(struct vmcomm_sock *vs, wait_queue_entry_t *wait)
{
	remove_wait_queue(sk_sleep(vs->sk), wait);
	atomic_dec(&vs->sleepers);
}

/*
 * The stream as the core sees it has no FIN. TCP counts it, and its recvmsg takes it together with
 * the last bytes of a segment, perhaps long before the ring bytes that come before it are read.
 * Lockless; exact with the socket lock.
 */
static inline u32 vmcomm_rcv_nxt(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->rcv_nxt) - sock_flag(sk, SOCK_DONE);
}

static inline u32 vmcomm_copied_seq(const struct sock *sk)
{
	u32 seq = READ_ONCE(tcp_sk(sk)->copied_seq);

	return sock_flag(sk, SOCK_DONE) && seq == READ_ONCE(tcp_sk(sk)->rcv_nxt) ? seq - 1 : seq;
}

/*
 * A call that finds the socket given back must not sleep in TCP's own function, which would return
 * into this module. It starts again, on TCP's own struct proto. A thread of the kernel's has no
 * system call to start again: it is counted, and unloading waits for it.
 */
static inline bool vmcomm_restarts(void)
{
	return !(current->flags & (PF_KTHREAD | PF_IO_WORKER));
}

static inline int vmcomm_restart(void)
{
	set_tsk_thread_flag(current, TIF_NOTIFY_SIGNAL);
	return -ERESTARTNOINTR;
}

static inline bool vmcomm_is_enabled(void)
{
	return READ_ONCE(vmcomm_enabled);
}

static inline void vmcomm_reason_count(enum vmcomm_reason reason)
{
	vmcomm_count(&vmcomm_reasons[reason], 1);
}

static inline void vmcomm_stat_count(enum vmcomm_stat stat, u64 n)
{
	vmcomm_count(&vmcomm_stats[stat], n);
}

#endif
