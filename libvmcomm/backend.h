/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * backend.h - what the core needs from a way of sharing memory (M24)
 *
 * ivshmem, Xen grants, the loop transport of the guest module and the local backend each fill in
 * one struct vmcomm_backend_ops. The core never names them.
 */
#ifndef VMCOMM_BACKEND_H
#define VMCOMM_BACKEND_H

#include "layout.h"
#include "location.h"

struct vmcomm_node;
struct vmcomm_conn;

/*
 * Context of all but @prepare: any, with the node's lock held; must not sleep. A backend that has to
 * sleep (getting room to map grants in) starts that work, returns -EAGAIN and calls
 * vmcomm_node_event() when done.
 */
struct vmcomm_backend_ops {
	/*
	 * @pair_page: the pages that @owner (this node's slot or the peer's) writes for the other
	 * one of the two; asked for once. NULL for the peer's: nowhere yet, vmcomm_node_place() will
	 * say where.
	 */
	struct vmcomm_abi_pair *(*pair_page)(struct vmcomm_node *node, u32 owner, u32 peer);
	/*
	 * @map: @count chunks of @owner, from @chunk on, as one piece of memory. The numbers are a
	 * peer's: check them. Each success for chunks of a peer is given back by one @unmap; those
	 * of the node itself are never unmapped. The memory stays readable for who holds the node's
	 * lock until he drops it, and for lockless readers until they can have noticed (in a
	 * kernel: an RCU grace period).
	 * Return: 0; -EAGAIN: not now, @prepare or time will help; -EPROTO: the numbers are
	 * nonsense; another error: it will not work.
	 */
	int (*map)(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count, void **mem);
	void (*unmap)(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count);
	/*
	 * @prepare: @map said -EAGAIN: do what it could not. May sleep, called without locks of the
	 * core. 0: try again; an error: give up. NULL: @map never says so.
	 */
	int (*prepare)(struct vmcomm_node *node);
	/*
	 * @share: let @peer map chunks of this node, @unshare: no longer. NULL: nothing to do.
	 * -EAGAIN: an earlier peer still maps them; -EMFILE: no grants are left.
	 */
	int (*share)(struct vmcomm_node *node, u32 peer, u32 chunk, u32 count);
	void (*unshare)(struct vmcomm_node *node, u32 peer, u32 chunk, u32 count);
	/* @location: this moment's row of the location table. 0 or a negative errno. */
	int (*location)(struct vmcomm_node *node, u32 slot, struct vmcomm_location *loc);
	/* @doorbell: interrupt the VM in @slot. No lock may be needed; called very often. */
	void (*doorbell)(struct vmcomm_node *node, u32 slot, u32 vector);
};

enum vmcomm_pair_news {
	VMCOMM_NEWS_UP,	  /* connections may be offered */
	VMCOMM_NEWS_LEFT, /* the peer leaves: evict all connections of the pair */
	VMCOMM_NEWS_GONE, /* the peer died or is another one now: evict all connections */
};

/*
 * Calls from the core up to whoever owns the connections. Called without locks of the core,
 * possibly in softirq context.
 */
struct vmcomm_conn_ops {
	/* @hold: keep @conn alive; called with the node's lock held. false: it is going away. */
	bool (*hold)(struct vmcomm_conn *conn);
	void (*drop)(struct vmcomm_conn *conn);
	/* @wake: bytes, room or a state change may have come: wake who sleeps or polls */
	void (*wake)(struct vmcomm_conn *conn);
	/* @pair_news: see enum; to be worked off by a thread that may sleep */
	void (*pair_news)(struct vmcomm_node *node, u32 slot, enum vmcomm_pair_news news);
	/*
	 * @offered: the peer in @slot offers CCB @idx for a connection that is older than the pair.
	 * Look it up by vmcomm_offer_read() and accept it. After lost events it may also be called
	 * for other offers, and again for one that was accepted: the owner knows its connections.
	 */
	void (*offered)(struct vmcomm_node *node, u32 slot, u32 idx);
};

/* Ready-made map, pair_page and location for backends whose region is one mapping. */
struct vmcomm_region {
	void *base;
	struct vmcomm_layout lay;
};

/**
 * vmcomm_region_init() - check the header of a mapping
 * Return: as vmcomm_layout_read().
 */
int vmcomm_region_init(struct vmcomm_region *region, void *base, u64 mapped);
struct vmcomm_abi_pair *vmcomm_region_pair_page(const struct vmcomm_region *region, u32 owner,
						u32 peer);
int vmcomm_region_map(const struct vmcomm_region *region, u32 owner, u32 chunk, u32 count,
		      void **mem);
int vmcomm_region_location(const struct vmcomm_region *region, u32 slot,
			   struct vmcomm_location *loc);

#endif
