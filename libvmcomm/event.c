// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * event.c - event queues between two VMs (M9, M13)
 *
 * One queue for each direction of a pair. The producer writes the entry, publishes ev_head, and
 * after a full barrier looks where the consumer wants to be woken; the consumer publishes that
 * position and after a full barrier looks at ev_head again. So one of the two sees the other.
 * Events are hints: a queue that is full only counts ev_overflow, which means "look at everything".
 */
#include "conn.h"

void vmcomm_pair_notify(struct vmcomm_pair *pair, u64 event, bool ring)
{
	struct vmcomm_node *node = pair->node;
	struct vmcomm_abi_pair *mine = pair->mine;
	u32 used, wake_at;

	vmcomm_lock(&pair->ev_lock);
	used = pair->ev_head - vmcomm_load_acquire32(&pair->theirs->ev_tail);
	if (used >= VMCOMM_EVENTS) {
		/* Full, or the peer's ev_tail is nonsense, which comes to the same. */
		vmcomm_store_release32(&mine->ev_overflow, ++pair->ev_overflow);
		vmcomm_node_count(node, VMCOMM_STAT_EVENT_OVERFLOWS, 1);
		ring = true;
		vmcomm_mb();
	} else {
		vmcomm_store64(&mine->ev[pair->ev_head % VMCOMM_EVENTS], event);
		vmcomm_store_release32(&mine->ev_head, ++pair->ev_head);
		if (ring) {
			vmcomm_mb();
			wake_at = vmcomm_load32(&pair->theirs->ev_wake_at);
			ring = vmcomm_passed32(wake_at, pair->ev_rung, pair->ev_head);
			pair->ev_rung = pair->ev_head;
		}
	}
	vmcomm_unlock(&pair->ev_lock);
	vmcomm_node_count(node, VMCOMM_STAT_EVENTS_SENT, 1);
	if (ring) {
		vmcomm_node_count(node, VMCOMM_STAT_DOORBELLS, 1);
		node->backend->doorbell(node, pair->slot, VMCOMM_VECTOR_EVENT);
	}
}

/* The peer's half @s_idx says that it belongs to our offer @idx: believe it if all agrees. */
static struct vmcomm_conn *vmcomm_event_accept(struct vmcomm_pair *pair, u32 idx, u32 s_idx)
{
	struct vmcomm_ccb *c = vmcomm_ccb_at(pair, idx);
	struct vmcomm_abi_ccb *theirs, *mine;
	struct vmcomm_conn *conn;
	u32 state;

	if (!c || c->use != VMCOMM_CCB_LIVE || c->accepted)
		return NULL;
	conn = c->conn;
	theirs = vmcomm_ccb_theirs(pair, s_idx);
	if (!theirs)
		return NULL;
	/*
	 * CLOSED is as good: the peer accepted, perhaps wrote, and let go before we looked. Its half
	 * and its ring stay until we let go of ours.
	 */
	state = vmcomm_load_acquire32(&theirs->state);
	if ((state != VMCOMM_CCB_OPEN && state != VMCOMM_CCB_CLOSED) ||
	    vmcomm_load32(&theirs->peer_idx) != idx || vmcomm_load32(&theirs->peer_gen) != c->gen ||
	    vmcomm_load32(&theirs->seq_local) != conn->seq_remote ||
	    vmcomm_load32(&theirs->seq_remote) != conn->seq_local)
		return NULL;
	mine = conn->mine;
	c->accepted = 1;
	c->peer_idx = s_idx;
	c->peer_gen = vmcomm_load32(&theirs->gen);
	vmcomm_offer_withdraw(pair, c);
	vmcomm_store32(&mine->peer_idx, s_idx);
	vmcomm_store32(&mine->peer_gen, c->peer_gen);
	if (!conn->closing)
		vmcomm_store_release32(&mine->state, VMCOMM_CCB_OPEN);
	vmcomm_conn_bind(conn, theirs, s_idx, c->peer_gen);
	return conn;
}

static void vmcomm_wake_conn(struct vmcomm_pair *pair, struct vmcomm_conn *conn)
{
	const struct vmcomm_conn_ops *ops = pair->node->conn_ops;

	if (!ops->hold(conn))
		return;
	vmcomm_unlock(&pair->node->lock);
	ops->wake(conn);
	ops->drop(conn);
	vmcomm_lock(&pair->node->lock);
}

/* Does an offer of ours wait for the peer's half? */
static bool vmcomm_pair_waits(struct vmcomm_pair *pair)
{
	u32 per = 1u << (pair->node->lay.chunk_shift - VMCOMM_CCB_SHIFT), i;
	struct vmcomm_ccb *c;

	for (i = 0; i < pair->ccb_chunks * per; i++) {
		c = vmcomm_ccb_at(pair, i);
		if (c->use == VMCOMM_CCB_LIVE && !c->accepted)
			return true;
	}
	return false;
}

/* Look at all halves of the peer's: those that accepted, or those that offer. */
static void vmcomm_pair_scan_theirs(struct vmcomm_pair *pair, bool offers)
{
	u32 per = 1u << (pair->node->lay.chunk_shift - VMCOMM_CCB_SHIFT), i, k, state;
	struct vmcomm_node *node = pair->node;
	struct vmcomm_abi_ccb *base;

	for (i = 0; i < VMCOMM_CCB_CHUNKS_MAX; i++) {
		if (!vmcomm_load32(&pair->theirs->ccb_chunk[i]))
			break;
		for (k = 0; k < per; k++) {
			/* Anew each time: the lock may have been dropped. */
			base = vmcomm_ccb_theirs(pair, i * per);
			if (!base)
				break;
			state = vmcomm_load_acquire32(&base[k].state);
			if (!offers && (state == VMCOMM_CCB_OPEN || state == VMCOMM_CCB_CLOSED))
				vmcomm_event_accept(pair, vmcomm_load32(&base[k].peer_idx),
						    i * per + k);
			if (!offers || state != VMCOMM_CCB_OFFERED)
				continue;
			vmcomm_unlock(&node->lock);
			node->conn_ops->offered(node, pair->slot, i * per + k);
			vmcomm_lock(&node->lock);
			if (pair->state < VMCOMM_PEER_UP)
				return;
		}
	}
}

/*
 * Events were lost: look at each CCB of ours, and at each half of the peer's that may be new. An
 * offer may be reported that was not announced, or twice: see struct vmcomm_conn_ops.
 *
 * Accepts come first and the lock is kept while they are looked for: vmcomm_conn_resolve() relies
 * on an event that was taken off the queue having been handled when it gets the lock.
 */
static void vmcomm_pair_scan(struct vmcomm_pair *pair)
{
	u32 per = 1u << (pair->node->lay.chunk_shift - VMCOMM_CCB_SHIFT), i;
	struct vmcomm_ccb *c;

	pair->look_again = false;
	VMCOMM_WRITE_ONCE(pair->node->scans, pair->node->scans + 1);
	if (vmcomm_pair_waits(pair))
		vmcomm_pair_scan_theirs(pair, false);
	/* pair->ccb_chunks may change while a wake runs without the lock: read it each time */
	for (i = 0; i < pair->ccb_chunks * per; i++) {
		c = vmcomm_ccb_at(pair, i);
		if (c->use == VMCOMM_CCB_LIVE)
			vmcomm_wake_conn(pair, c->conn);
		else if (c->use == VMCOMM_CCB_ZOMBIE)
			vmcomm_ccb_reap(pair, i);
	}
	if (pair->state >= VMCOMM_PEER_UP)
		vmcomm_pair_scan_theirs(pair, true);
}

void vmcomm_node_offers(struct vmcomm_node *node, u32 slot)
{
	struct vmcomm_pair *pair = slot < node->lay.slots ? node->pair[slot] : NULL;

	vmcomm_lock(&node->lock);
	if (pair && node->up && !node->leaving && pair->state == VMCOMM_PEER_UP)
		vmcomm_pair_scan_theirs(pair, true);
	vmcomm_unlock(&node->lock);
}

static void vmcomm_event_handle(struct vmcomm_pair *pair, u64 ev)
{
	u32 idx = VMCOMM_EVENT_IDX(ev), arg = VMCOMM_EVENT_ARG(ev);
	struct vmcomm_node *node = pair->node;
	struct vmcomm_conn *conn;
	struct vmcomm_ccb *c;

	switch (VMCOMM_EVENT_KIND(ev)) {
	case VMCOMM_EVENT_ACCEPT:
		conn = vmcomm_event_accept(pair, idx, arg);
		if (!conn)
			break;
		VMCOMM_WRITE_ONCE(node->found, node->found + 1);
		vmcomm_wake_conn(pair, conn);
		break;
	case VMCOMM_EVENT_CONN:
		c = vmcomm_ccb_at(pair, idx);
		if (!c || c->use == VMCOMM_CCB_UNUSED)
			break;
		VMCOMM_WRITE_ONCE(node->found, node->found + 1);
		if (c->use == VMCOMM_CCB_LIVE)
			vmcomm_wake_conn(pair, c->conn);
		else
			vmcomm_ccb_reap(pair, idx);
		break;
	case VMCOMM_EVENT_OFFER:
		vmcomm_unlock(&node->lock);
		node->conn_ops->offered(node, pair->slot, arg);
		vmcomm_lock(&node->lock);
		break;
	case VMCOMM_EVENT_PAIR:
		/* the caller looks at the pair anyway */
		break;
	default:
		/* a newer version's: the words say what is true */
		break;
	}
}

/*
 * Read at most @budget events; node->lock is held and may be dropped in between. Return: true if
 * some are left. Each event is taken off the private position before it is handled, so that a
 * second caller goes on behind it.
 */
bool vmcomm_pair_drain(struct vmcomm_pair *pair, u32 budget)
{
	struct vmcomm_node *node = pair->node;
	u32 head, overflow;
	u64 ev;

	if (pair->look_again && budget) {
		vmcomm_pair_scan(pair);
		if (pair->state < VMCOMM_PEER_UP)
			return false;
	}
	for (;;) {
		overflow = vmcomm_load_acquire32(&pair->theirs->ev_overflow);
		head = vmcomm_load_acquire32(&pair->theirs->ev_head);
		if (overflow != pair->ev_overflow_seen || head - pair->ev_tail > VMCOMM_EVENTS) {
			if (!budget)
				return true;
			/* No queue is that long: somebody writes nonsense. */
			if (head - pair->ev_tail > VMCOMM_EVENTS)
				vmcomm_node_count(node, VMCOMM_STAT_PEER_ERRORS, 1);
			/* The scan finds what all events up to here are about. */
			VMCOMM_WRITE_ONCE(pair->ev_overflow_seen, overflow);
			VMCOMM_WRITE_ONCE(pair->ev_tail, head);
			vmcomm_store_release32(&pair->mine->ev_tail, head);
			budget = 0; /* looking at everybody is work enough for one call */
			vmcomm_pair_scan(pair);
			if (pair->state < VMCOMM_PEER_UP)
				return false;
			continue;
		}
		if (head == pair->ev_tail) {
			/* Say where to wake us, then look once more. */
			vmcomm_store32(&pair->mine->ev_wake_at, pair->ev_tail);
			vmcomm_mb_seldom();
			if (vmcomm_load32(&pair->theirs->ev_head) == pair->ev_tail &&
			    vmcomm_load32(&pair->theirs->ev_overflow) == pair->ev_overflow_seen)
				return false;
			if (!budget)
				return true;
			continue;
		}
		if (!budget)
			return true;
		budget--;
		ev = vmcomm_load64(&pair->theirs->ev[pair->ev_tail % VMCOMM_EVENTS]);
		VMCOMM_WRITE_ONCE(pair->ev_tail, pair->ev_tail + 1);
		vmcomm_store_release32(&pair->mine->ev_tail, pair->ev_tail);
		vmcomm_node_count(node, VMCOMM_STAT_EVENTS_SEEN, 1);
		vmcomm_event_handle(pair, ev);
		if (pair->state < VMCOMM_PEER_UP)
			return false;
	}
}
