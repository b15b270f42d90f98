/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * local.h - the local backend: processes as "VMs", memfd and eventfd as memory and interrupts
 *
 * Locks, outermost first:
 *   stream->lock       the owner's lock of its struct vmcomm_conn
 *   member->lock       lists of streams and listeners, queues of listeners
 *   the core's locks   node->lock, ev_lock, arm_lock
 *   stream->poll_lock  what the poll descriptor says; arm_lock nests inside
 *   member->wait_lock  who sleeps, who watches the doorbell
 *
 * The core calls wake() without its locks, hold() and doorbell() with them: hold() only counts,
 * wake() takes poll_lock and wait_lock alone.
 *
 * A stream is in the member's list from birth until it is closed; the list, the user's handle and
 * a call of the core each hold a reference.
 */
#ifndef VMCOMM_LOCAL_H
#define VMCOMM_LOCAL_H

#include "conn.h"
#include "vmcomm.h"

#define LOCAL_HASH	   1024 /* buckets of accepted connections, a power of two */
#define LOCAL_BACKLOG	   128
#define LOCAL_RING_SIZE	   (1u << 20)
#define LOCAL_CONNECT_MS   10000
#define LOCAL_JOIN_MS	   5000
#define LOCAL_SPIN_MAX_US  10000
#define LOCAL_TICK_NS	   1000000000ULL
#define LOCAL_TAKEBACK_NS  50000000ULL

#define LOCAL_FOREVER (~0ULL) /* a deadline */

/* Something that threads wait for: a count that moves whenever there may be news. */
struct local_event {
	u32 seq;
};

struct local_waiter {
	struct local_waiter *next;
	struct local_waiter **prev;
	struct local_event *event;
	pthread_cond_t cond;
};

struct vmcomm_stream {
	struct vmcomm_conn conn;
	struct vmcomm_member *member;
	u32 refs;
	pthread_mutex_t lock;
	struct local_event event;
	u32 slot;
	u16 lport;
	u16 rport;
	bool wr_shut;	/* under lock, read without it by polls */
	bool rd_shut;
	bool closed;	/* by vmcomm_close() */
	bool evicted;	/* taken out of shared memory: peer or member gone */
	bool peer_fin;	/* evicted: the peer had said that nothing follows */
	int answer;	/* evicted: what vmcomm_connect() returns, if it has not yet */
	bool left;	/* the member left */
	long spin_us;
	long spin_now; /* what is left of it after spins that were in vain */
	u32 spin_skipped;
	long recv_ms;
	long send_ms;
	/* poll.c */
	pthread_mutex_t poll_lock;
	int poll_user; /* -1: none */
	int poll_mine;
	bool poll_in;
	bool poll_out;
	bool poll_hup;
	/* member->lock */
	struct vmcomm_stream *next;
	struct vmcomm_stream **prev; /* NULL: not in the list */
	struct vmcomm_stream *hash_next;
	struct vmcomm_stream **hash_prev;
	struct vmcomm_stream *queue_next; /* of a listener */
};

/* An offer that there was no room for yet. */
struct local_offer {
	u32 slot;
	u32 idx;
};

struct vmcomm_listener {
	struct vmcomm_member *member;
	u32 refs; /* the user's, and each vmcomm_accept() that waits */
	u16 port;
	bool closed;
	u32 backlog;
	struct local_event event;
	struct vmcomm_stream *first;
	struct vmcomm_stream **last;
	u32 queued;
	struct local_offer *offer; /* ring buffer of those beyond the backlog */
	u32 offer_size;
	u32 offer_head;
	u32 offer_tail;
	int poll_fd; /* -1: none */
	struct vmcomm_listener *next;
	struct vmcomm_listener **prev;
};

struct vmcomm_member {
	u32 refs; /* the user's, and each stream's and listener's */
	struct vmcomm_node node;
	struct vmcomm_region region;
	u32 slot;
	u32 ring_shift;
	bool down; /* left, or in a child after fork() */
	char name[64];
	/* from the keeper or hub */
	int keeper_fd;
	int memfd;
	int life_fd; /* holds a lock that goes with this process (life.c) */
	int bell[VMCOMM_SLOTS_MAX + 1]; /* others' doorbells, the host's at the end */
	int own[VMCOMM_VECTORS];
	/* service.c */
	pthread_t service;
	bool service_runs;
	bool stop;
	int service_ep;
	int kick_fd;
	bool orphan; /* the keeper is gone */
	u64 news_gone; /* slots of which all connections must be evicted */
	u64 seen_alive; /* slots whose life lock was held when their pair came up */
	u64 dead; /* ... and is not any more, which no keeper was there to tell */
	struct local_event pairs; /* a pair came up or went down */
	/* wait.c, under wait_lock */
	pthread_mutex_t wait_lock;
	int leader_ep;
	int leader_kick;
	bool led;
	pthread_t leader;
	struct local_event *leader_event;
	bool service_owns; /* the service thread watches the doorbell */
	u32 pollers;
	u32 lead_count;
	struct local_waiter *waiters;
	/* lists */
	pthread_mutex_t lock;
	struct vmcomm_stream *streams;
	struct vmcomm_listener *listeners;
	struct vmcomm_stream *hash[LOCAL_HASH];
	u16 next_port;
	/* fork.c */
	struct vmcomm_member *fork_next;
	struct vmcomm_member **fork_prev;
};

/* handshake.c: memory and doorbells from a keeper or hub, over @m->keeper_fd */
int local_handshake(struct vmcomm_member *m, u64 deadline);
void local_fds_close(struct vmcomm_member *m);

/* member.c */
void local_member_put(struct vmcomm_member *m);
extern const struct vmcomm_conn_ops local_conn_ops;

/* service.c */
int local_service_start(struct vmcomm_member *m);
void local_service_stop(struct vmcomm_member *m);
void local_service_kick(struct vmcomm_member *m);

/* life.c: is the process in a slot alive, when there is no keeper that would tell? */
int local_life_begin(struct vmcomm_member *m);
bool local_life_held(struct vmcomm_member *m, u32 slot);

/* wait.c */
int local_wait_init(struct vmcomm_member *m);
void local_wait_deinit(struct vmcomm_member *m);
void local_wake(struct vmcomm_member *m, struct local_event *event);
int local_wait(struct vmcomm_member *m, struct local_event *event, u32 seen, u64 deadline);
void local_pollers_add(struct vmcomm_member *m, int n);
void local_takeback(struct vmcomm_member *m, u32 *seen);
bool local_service_owns(struct vmcomm_member *m);
void local_events(struct vmcomm_member *m);
u64 local_deadline(long ms);

static inline u32 local_seen(const struct local_event *event)
{
	return __atomic_load_n(&event->seq, __ATOMIC_ACQUIRE);
}

/* stream.c */
struct vmcomm_stream *local_stream_new(struct vmcomm_member *m, u32 slot, u32 seq_local,
				       u32 seq_remote, bool client);
bool local_stream_hold(struct vmcomm_conn *conn);
void local_stream_drop(struct vmcomm_conn *conn);
void local_stream_wake(struct vmcomm_conn *conn);
void local_stream_put(struct vmcomm_stream *s);
void local_stream_unlist(struct vmcomm_stream *s);
void local_stream_reset(struct vmcomm_stream *s);
void local_streams_evict(struct vmcomm_member *m, u32 slot);
void local_streams_leave(struct vmcomm_member *m);

/* connect.c: s->lock held */
int local_stream_answer(struct vmcomm_stream *s);

/* io.c: s->lock held */
int local_stream_enter(struct vmcomm_stream *s);

/* listen.c */
void local_offered(struct vmcomm_node *node, u32 slot, u32 idx);
void local_offers_retry(struct vmcomm_member *m);
void local_listeners_wake(struct vmcomm_member *m);

/* poll.c */
void local_poll_sync(struct vmcomm_stream *s);
void local_poll_wake(struct vmcomm_stream *s);
void local_poll_deinit(struct vmcomm_stream *s);
bool local_stream_over(struct vmcomm_stream *s);

/* addr.c */
int local_addr_parse(const char *text, u8 addr[16]);
int local_addr_list(const char *text, u8 addr[][16], u32 max);

/* fork.c: what a child must not keep alive */
void local_fork_member(struct vmcomm_member *m);
void local_fork_forget(struct vmcomm_member *m);
void local_fork_hub(struct vmcomm_hub *hub);
void local_fork_forget_hub(struct vmcomm_hub *hub);
void local_hub_in_child(struct vmcomm_hub *hub);
struct vmcomm_hub **local_hub_fork_next(struct vmcomm_hub *hub);

#endif
