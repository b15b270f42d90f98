/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * node.h - one VM's membership in a group, and its relation to each peer
 *
 * Locks, outermost first (docs/architecture.md, "Locks"):
 *   the owner's lock of a connection (in the guest: the socket lock)
 *   node->lock     heap, CCB tables, pair states, consumption of event queues
 *   pair->ev_lock  production of events for one peer
 *   conn->arm_lock publication of wake positions
 */
#ifndef VMCOMM_NODE_H
#define VMCOMM_NODE_H

#include "backend.h"
#include "heap.h"
#include "reason.h"

struct vmcomm_node;

/* Private side of one CCB of ours: it outlives the connection until the peer let go of its half. */
enum vmcomm_ccb_use {
	VMCOMM_CCB_UNUSED,
	VMCOMM_CCB_LIVE,   /* conn is set */
	VMCOMM_CCB_ZOMBIE, /* closed here; the peer may still read our ring */
};

struct vmcomm_ccb {
	struct vmcomm_conn *conn;
	u8 use;
	u8 accepted;	/* peer_idx and peer_gen are known */
	u8 ring_shift;	/* 0: no ring */
	u8 age;		/* ticks that an offer has been waiting */
	u32 gen;
	u32 next;	/* free list */
	u32 peer_idx;
	u32 peer_gen;
	u32 ring_chunk;
	u32 ring_off;
	u32 offer;	/* bucket of the offer table + 1; 0: none */
};

#define VMCOMM_CCB_NONE 0xffffffffu
/* No half has this generation: it is what a device reads as that was taken away without a word. */
#define VMCOMM_GEN_LOST 0xffffffffu

enum vmcomm_peer_state {
	VMCOMM_PEER_DOWN,
	VMCOMM_PEER_HELLO, /* we accepted its incarnation, it has not accepted ours */
	VMCOMM_PEER_UP,
	VMCOMM_PEER_LEAVING, /* it left: connections are being evicted */
	VMCOMM_PEER_DYING,   /* it is gone: connections are being evicted */
};

struct vmcomm_pair {
	struct vmcomm_node *node;
	u32 slot;
	u32 state; /* enum vmcomm_peer_state */
	u64 peer_inc;
	u64 peer_dead; /* the incarnation that we let go of last */
	u64 peer_generation;
	u64 peer_location;
	struct vmcomm_abi_pair *mine;
	struct vmcomm_abi_pair *theirs;
	/* events to the peer: ev_lock */
	struct vmcomm_lock ev_lock;
	u32 ev_head;
	u32 ev_rung; /* position up to which a doorbell was considered */
	u32 ev_overflow;
	/* events from the peer: node->lock */
	u32 ev_tail;
	u32 ev_overflow_seen;
	bool look_again; /* something of the peer's could not be mapped: scan when it may be */
	u32 looked_at;	 /* chunk + 1 of the last half that vmcomm_ccb_theirs() found */
	/* our CCBs: node->lock */
	u32 ccb_chunks;
	u32 ccb_free;
	u32 ccb_used;
	u32 zombies;
	u32 conns;
	u32 ccb_chunk[VMCOMM_CCB_CHUNKS_MAX];
	struct vmcomm_abi_ccb *ccb_mem[VMCOMM_CCB_CHUNKS_MAX];
	struct vmcomm_ccb *ccb[VMCOMM_CCB_CHUNKS_MAX];
	u32 offer[VMCOMM_OFFERS]; /* private copy of mine->offer */
	bool published; /* this incarnation stands in mine: the tick keeps it there */
	bool used; /* mine was published before: wipe it for a new incarnation of the peer */
	struct vmcomm_location loc; /* of the incarnation that we work with */
};

struct vmcomm_node {
	const struct vmcomm_backend_ops *backend;
	const struct vmcomm_conn_ops *conn_ops;
	void *priv; /* the backend's */
	struct vmcomm_layout lay;
	u32 slot;
	u64 incarnation;
	u64 generation;
	u64 location; /* our copy (M3) */
	const vmcomm_le64 *location_word; /* the table's */
	struct vmcomm_abi_slot *page;
	vmcomm_le32 *reclaim_ask;
	const vmcomm_le32 *reclaim_ack;
	struct vmcomm_lock lock;
	struct vmcomm_heap heap;
	struct vmcomm_pair *pair[VMCOMM_SLOTS_MAX];
	u64 members; /* bit mask of slots: pairs that are not down, and who was there at the last tick */
	u32 up;	     /* memory may be used */
	u32 leaving; /* no new connections */
	u32 enabled; /* senders may enter rings */
	bool has_tcp; /* connections have TCP underneath, which tells of closing */
	u32 ring_shift_first;
	u32 ring_shift_max;
	u64 heartbeat;
	u64 found; /* events that were about a connection of ours */
	u64 scans; /* looks at everything of a pair */
	u64 stat[VMCOMM_STAT_COUNT];
	u64 reason[VMCOMM_REASON_COUNT];
};

/* Where a node comes to life: filled in by the backend. */
struct vmcomm_node_config {
	const struct vmcomm_backend_ops *backend;
	const struct vmcomm_conn_ops *conn_ops;
	void *priv;
	const struct vmcomm_layout *lay;
	u32 slot;
	const vmcomm_le64 *location_word; /* our row's location number */
	struct vmcomm_abi_slot *page;	  /* our slot page */
	vmcomm_le32 *reclaim_ask;	  /* may be NULL: pages are never given back */
	const vmcomm_le32 *reclaim_ack;
	bool has_tcp;
	const char *system;
	const char *version;
};

/**
 * vmcomm_node_init() - take part in a group (M3)
 * @node: zeroed memory
 * @config: see there; what it points to must live as long as the node
 *
 * Picks a new incarnation, wipes and publishes this VM's areas. Nothing is exchanged before the
 * first vmcomm_node_event(). May sleep. Return: 0, -ENOMEM, -EINVAL (slot out of range), -EAGAIN
 * (the location table has no row for us yet: try again when the host rings).
 */
int vmcomm_node_init(struct vmcomm_node *node, const struct vmcomm_node_config *config);

/**
 * vmcomm_node_deinit() - stop taking part
 *
 * All connections must be detached, and the owner must have quiesced every other caller: no event,
 * tick, refresh or connection call may be running or come any more, as pairs and heap are freed
 * without a lock. Afterwards no shared memory is touched. May sleep.
 */
void vmcomm_node_deinit(struct vmcomm_node *node);

/**
 * vmcomm_node_event() - doorbell handler (M9, M13): read event queues, look at pair states
 *
 * Any context, any number at once. Bounded: a peer that floods gets a share and no more.
 * Return: true if there is more to do; call again, for instance from a work item.
 */
bool vmcomm_node_event(struct vmcomm_node *node);

/**
 * vmcomm_node_tick() - once a second: backstop scan, zombies, reclaim, statistics, heartbeat
 *
 * Context: may be softirq.
 */
void vmcomm_node_tick(struct vmcomm_node *node);

/**
 * vmcomm_node_stale() - has the location number changed since we copied it (M6-M8, M11)?
 *
 * One load. When true call vmcomm_node_refresh(). Any context.
 */
static inline bool vmcomm_node_stale(const struct vmcomm_node *node)
{
	return vmcomm_load64(node->location_word) != VMCOMM_READ_ONCE(node->location);
}

void vmcomm_node_refresh(struct vmcomm_node *node);

/**
 * vmcomm_node_find() - the slot of the member with address @addr (IPv6 or v4-mapped)
 *
 * Return: a slot number, or -ENOENT. Any context.
 */
int vmcomm_node_find(struct vmcomm_node *node, const u8 addr[16]);

/**
 * vmcomm_node_place() - where the pages are that the VM in @slot writes for us
 * @theirs: mapped until the next call for this slot; NULL: nowhere
 *
 * For backends that map them late, or anew for each incarnation. Return: 0; -EBUSY: the pair is not
 * down: the pages that it has stay in use, ask again. -EINVAL: no such slot. After a success that
 * replaces pages, lockless readers may look at the old ones for as long as @unmap of backend.h says.
 */
int vmcomm_node_place(struct vmcomm_node *node, u32 slot, struct vmcomm_abi_pair *theirs);

/**
 * vmcomm_node_offers() - report all offers of the VM in @slot again, by conn_ops->offered()
 *
 * For an owner that could not take some of them when they were announced. Context: any.
 */
void vmcomm_node_offers(struct vmcomm_node *node, u32 slot);

/** vmcomm_node_pair_up() - may connections to the VM in @slot be offered now? */
bool vmcomm_node_pair_up(struct vmcomm_node *node, u32 slot);

static inline void vmcomm_node_count(struct vmcomm_node *node, enum vmcomm_stat stat, u64 n)
{
	vmcomm_count(&node->stat[stat], n);
}

static inline void vmcomm_node_reason(struct vmcomm_node *node, enum vmcomm_reason reason)
{
	vmcomm_count(&node->reason[reason], 1);
}

/* --- inside the core --- */

/*
 * Does a position that moved from @from to @to pass @at? True for from <= at < to; with
 * free-running positions, so this holds over wrap-around (virtio's EVENT_IDX, same reasoning).
 */
static inline bool vmcomm_passed32(u32 at, u32 from, u32 to)
{
	return (u32)(to - at - 1) < (u32)(to - from);
}

static inline bool vmcomm_passed64(u64 at, u64 from, u64 to)
{
	return to - at - 1 < to - from;
}

/**
 * vmcomm_pair_notify() - put an event into the queue for the peer and ring if it wants to know
 * @pair: which must be UP (or LEAVING)
 * @event: VMCOMM_EVENT()
 * @ring: false: the peer need not hurry; the event is found with the next one
 */
void vmcomm_pair_notify(struct vmcomm_pair *pair, u64 event, bool ring);
bool vmcomm_pair_drain(struct vmcomm_pair *pair, u32 budget);
void vmcomm_pair_check(struct vmcomm_pair *pair);
void vmcomm_pair_sweep(struct vmcomm_pair *pair);

/* ccb.c; node->lock held */
int vmcomm_ccb_alloc(struct vmcomm_pair *pair, u32 *idx);
void vmcomm_ccb_free(struct vmcomm_pair *pair, u32 idx);
void vmcomm_ccb_close(struct vmcomm_pair *pair, u32 idx);
bool vmcomm_ccb_reap(struct vmcomm_pair *pair, u32 idx);
void vmcomm_ccb_wipe(struct vmcomm_pair *pair);
void vmcomm_ccb_trim(struct vmcomm_pair *pair);
void vmcomm_offer_withdraw(struct vmcomm_pair *pair, struct vmcomm_ccb *c);
void vmcomm_ring_free(struct vmcomm_pair *pair, struct vmcomm_ccb *c);
struct vmcomm_abi_ccb *vmcomm_ccb_theirs(struct vmcomm_pair *pair, u32 idx);
u32 vmcomm_ccb_hold(struct vmcomm_pair *pair);
void vmcomm_ccb_release(struct vmcomm_pair *pair, u32 chunk);

static inline struct vmcomm_ccb *vmcomm_ccb_at(struct vmcomm_pair *pair, u32 idx)
{
	u32 shift = pair->node->lay.chunk_shift - VMCOMM_CCB_SHIFT;

	if (idx >> shift >= pair->ccb_chunks)
		return NULL;
	return &pair->ccb[idx >> shift][idx & ((1u << shift) - 1)];
}

static inline struct vmcomm_abi_ccb *vmcomm_ccb_mine(struct vmcomm_pair *pair, u32 idx)
{
	u32 shift = pair->node->lay.chunk_shift - VMCOMM_CCB_SHIFT;

	return &pair->ccb_mem[idx >> shift][idx & ((1u << shift) - 1)];
}

#endif
