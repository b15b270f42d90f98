// SPDX-License-Identifier: LGPL-2.1-or-later
/* node.c - one VM's membership in a group (M3, M11, M14) */
#include "conn.h"

/* Events handled for one peer before the next one gets its turn (M26: floods). */
#define VMCOMM_EVENT_BUDGET (2 * VMCOMM_EVENTS)
/* Ticks (seconds) that a free chunk keeps its pages. */
#define VMCOMM_RECLAIM_IDLE 2
/* Ticks that an offer stays in the table: handshakes that take longer stay on TCP. */
#define VMCOMM_OFFER_TICKS 60
#define VMCOMM_TICK_DRAINS 4 /* of a queue of events, by a tick */

/* What nobody writes: the pages of a peer that is not there. */
static struct vmcomm_abi_pair vmcomm_pair_nobody;

static void vmcomm_text_store(vmcomm_u8 *dst, const char *src, u32 size)
{
	u32 i;

	for (i = 0; i < size; i++) {
		vmcomm_store8(&dst[i], i + 1 < size && *src ? (u8)*src : 0);
		if (*src)
			src++;
	}
}

/*
 * Peers may still read what an earlier occupant of our slot left behind. One that left said so
 * and they take their time; one that crashed did not, so say it for it. Return: false while
 * somebody still holds on to the old memory.
 */
static bool vmcomm_node_released(struct vmcomm_node *node, u32 slot)
{
	struct vmcomm_abi_pair *mine = node->pair[slot]->mine, *theirs = node->pair[slot]->theirs;
	struct vmcomm_location loc;
	u64 old, held;

	held = vmcomm_load_acquire64(&theirs->peer_incarnation);
	old = vmcomm_load64(&mine->incarnation);
	if (!held || !vmcomm_load64(&theirs->incarnation))
		return true;
	/* A row that cannot be read, as its writer died in the middle of it, proves nothing. */
	if (node->backend->location(node, slot, &loc))
		return false;
	if (loc.state == VMCOMM_SLOT_FREE || loc.state == VMCOMM_SLOT_LEFT ||
	    loc.state == VMCOMM_SLOT_GONE)
		return true;
	/* It also crashed if it did not get to the end of its leave. */
	if (held == old && (vmcomm_load32(&mine->state) != VMCOMM_PAIR_LEFT ||
			    !vmcomm_load32(&mine->leave_done))) {
		vmcomm_store_release64(&mine->incarnation, 0);
		old = 0;
	}
	if (held == old || !old) {
		node->backend->doorbell(node, slot, VMCOMM_VECTOR_EVENT);
		return false;
	}
	return true;
}

static void vmcomm_pair_wipe(struct vmcomm_pair *pair)
{
	struct vmcomm_abi_pair *mine = pair->mine;
	u32 i;

	for (i = 0; i < VMCOMM_CCB_CHUNKS_MAX; i++)
		vmcomm_store32(&mine->ccb_chunk[i], 0);
	for (i = 0; i < VMCOMM_OFFERS; i++) {
		vmcomm_store32(&mine->offer[i], 0);
		pair->offer[i] = 0;
	}
	vmcomm_store32(&mine->leave_done, 0);
	vmcomm_store32(&mine->ev_head, 0);
	vmcomm_store32(&mine->ev_overflow, 0);
	vmcomm_store32(&mine->ev_tail, 0);
	vmcomm_store32(&mine->ev_wake_at, 0);
	pair->ev_head = 0;
	pair->ev_rung = 0;
	pair->ev_overflow = 0;
	pair->ev_tail = 0;
	pair->ev_overflow_seen = 0;
}

int vmcomm_node_init(struct vmcomm_node *node, const struct vmcomm_node_config *config)
{
	struct vmcomm_location loc, row;
	struct vmcomm_pair *pair;
	bool released = true;
	u32 i;
	int err;

	if (config->slot >= config->lay->slots)
		return -EINVAL;
	node->backend = config->backend;
	node->conn_ops = config->conn_ops;
	node->priv = config->priv;
	node->lay = *config->lay;
	node->slot = config->slot;
	node->members = 0;
	node->location_word = config->location_word;
	node->page = config->page;
	node->reclaim_ask = config->reclaim_ask;
	node->reclaim_ack = config->reclaim_ack;
	node->enabled = 1;
	node->has_tcp = config->has_tcp;
	node->ring_shift_first = 14;
	node->ring_shift_max = 18;
	vmcomm_lock_init(&node->lock);

	err = node->backend->location(node, node->slot, &loc);
	if (err)
		return err;
	if (loc.state != VMCOMM_SLOT_LIVE && loc.state != VMCOMM_SLOT_JOINING)
		return -EAGAIN;

	for (i = 0; i < node->lay.slots; i++) {
		if (i == node->slot)
			continue;
		pair = vmcomm_alloc_large(sizeof(*pair));
		if (!pair) {
			err = -ENOMEM;
			goto err_pairs;
		}
		node->pair[i] = pair;
		pair->node = node;
		pair->slot = i;
		pair->ccb_free = VMCOMM_CCB_NONE;
		vmcomm_lock_init(&pair->ev_lock);
		pair->mine = node->backend->pair_page(node, node->slot, i);
		pair->theirs = node->backend->pair_page(node, i, node->slot);
		if (!pair->mine) {
			err = -EAGAIN;
			goto err_pairs;
		}
		if (!pair->theirs)
			pair->theirs = &vmcomm_pair_nobody;
		/*
		 * We hold nobody's memory. Two that come into slots whose last occupants named each
		 * other would otherwise wait for each other for ever.
		 */
		vmcomm_store64(&pair->mine->peer_incarnation, 0);
		if (!node->backend->location(node, i, &row) && row.state == VMCOMM_SLOT_LIVE)
			node->members |= 1ULL << i;
		/* Ask all of them before giving up. */
		released &= vmcomm_node_released(node, i);
	}
	if (!released) {
		err = -EAGAIN;
		goto err_pairs;
	}
	err = vmcomm_heap_init(&node->heap, node->lay.chunks, node->lay.chunk_shift);
	if (err)
		goto err_pairs;
	for (i = 0; node->reclaim_ask && i < node->lay.chunks; i++) {
		/* A request of an earlier occupant may still be on its way to the host. */
		node->heap.chunk[i].ask = vmcomm_load32(&node->reclaim_ask[i]);
		if (node->heap.chunk[i].ask != vmcomm_load32(&node->reclaim_ack[i]))
			node->heap.chunk[i].state = VMCOMM_CHUNK_ASKED;
		else if (vmcomm_load64(&node->page->incarnation))
			/*
			 * Module or VM started again in the same slot: any chunk may have pages, and
			 * somebody's bytes in them. The host takes those that nobody uses soon.
			 */
			node->heap.chunk[i].state = VMCOMM_CHUNK_DIRTY;
	}

	do
		node->incarnation = vmcomm_random64();
	while (!node->incarnation);
	node->generation = loc.generation;
	node->location = vmcomm_load64(node->location_word);

	vmcomm_store32(&node->page->abi_major, VMCOMM_ABI_MAJOR);
	vmcomm_store32(&node->page->abi_minor, VMCOMM_ABI_MINOR);
	vmcomm_store64(&node->page->generation, node->generation);
	vmcomm_store64(&node->page->location, node->location);
	vmcomm_text_store(node->page->system, config->system, sizeof(node->page->system));
	vmcomm_text_store(node->page->version, config->version, sizeof(node->page->version));
	vmcomm_store32(&node->page->state, VMCOMM_VM_UP);
	vmcomm_store_release64(&node->page->incarnation, node->incarnation);

	node->up = 1;
	for (i = 0; i < node->lay.slots; i++) {
		pair = node->pair[i];
		if (!pair)
			continue;
		/* Events and the tick may come already. */
		vmcomm_lock(&node->lock);
		vmcomm_store64(&pair->mine->incarnation, 0);
		vmcomm_store64(&pair->mine->peer_incarnation, 0);
		vmcomm_wmb();
		vmcomm_pair_wipe(pair);
		vmcomm_store32(&pair->mine->abi_minor, VMCOMM_ABI_MINOR);
		vmcomm_store32(&pair->mine->state, VMCOMM_PAIR_UP);
		vmcomm_store_release64(&pair->mine->incarnation, node->incarnation);
		pair->published = true;
		vmcomm_unlock(&node->lock);
		node->backend->doorbell(node, i, VMCOMM_VECTOR_EVENT);
	}
	return 0;

err_pairs:
	for (i = 0; i < node->lay.slots; i++) {
		vmcomm_free_large(node->pair[i]);
		node->pair[i] = NULL;
	}
	return err;
}

void vmcomm_node_deinit(struct vmcomm_node *node)
{
	u32 i;

	VMCOMM_WRITE_ONCE(node->up, 0);
	/*
	 * The pair pages stay as they are: a peer that was slow must still find out what we took
	 * of its bytes. Nobody frees chunks either: they stay readable until the host, or the next
	 * one in this slot, knows that all peers let go.
	 */
	vmcomm_store32(&node->page->state, node->leaving ? VMCOMM_VM_LEFT : VMCOMM_VM_DOWN);
	for (i = 0; i < node->lay.slots; i++) {
		struct vmcomm_pair *pair = node->pair[i];
		u32 k;

		if (!pair)
			continue;
		/*
		 * Nobody here reads the peer's memory any more. Without a word the peer's slot would
		 * be in quarantine for as long as our device stays, when the peer goes.
		 */
		vmcomm_store_release64(&pair->mine->peer_incarnation, 0);
		for (k = 0; k < pair->ccb_chunks; k++)
			vmcomm_free(pair->ccb[k]);
		vmcomm_free_large(pair);
		node->pair[i] = NULL;
	}
	vmcomm_heap_deinit(&node->heap);
}

/* node->lock is held and dropped for the call. */
static void vmcomm_pair_tell(struct vmcomm_pair *pair, enum vmcomm_pair_news news)
{
	struct vmcomm_node *node = pair->node;

	vmcomm_unlock(&node->lock);
	node->conn_ops->pair_news(node, pair->slot, news);
	vmcomm_lock(&node->lock);
}

/* One live peer may use everything, several have to leave room for each other. */
static void vmcomm_node_quota(struct vmcomm_node *node)
{
	u32 i, up = 0;

	for (i = 0; i < node->lay.slots; i++)
		if (node->pair[i] && node->pair[i]->state >= VMCOMM_PEER_UP)
			up++;
	node->heap.quota = up < 2 ? node->heap.chunks : node->heap.chunks / 2;
}

static void vmcomm_pair_hello(struct vmcomm_pair *pair, u64 inc)
{
	struct vmcomm_node *node = pair->node;

	if (node->leaving || node->backend->location(node, pair->slot, &pair->loc) ||
	    pair->loc.state != VMCOMM_SLOT_LIVE)
		return;
	if (pair->used)
		vmcomm_pair_wipe(pair);
	pair->used = true;
	pair->peer_inc = inc;
	vmcomm_store32(&pair->mine->state, VMCOMM_PAIR_UP);
	vmcomm_store_release64(&pair->mine->peer_incarnation, inc);
	node->members |= 1ULL << pair->slot;
	VMCOMM_WRITE_ONCE(pair->state, VMCOMM_PEER_HELLO);
	node->backend->doorbell(node, pair->slot, VMCOMM_VECTOR_EVENT);
}

/*
 * Look at what the peer says about itself and go on from there. node->lock is held, dropped for
 * news.
 */
void vmcomm_pair_check(struct vmcomm_pair *pair)
{
	struct vmcomm_node *node = pair->node;
	u64 inc = vmcomm_load_acquire64(&pair->theirs->incarnation);
	u64 accepted = vmcomm_load_acquire64(&pair->theirs->peer_incarnation);
	u32 state = vmcomm_load_acquire32(&pair->theirs->state);

	switch (pair->state) {
	case VMCOMM_PEER_DOWN:
		/* One that we let go of never comes back; its words may stay for a while. */
		if (!pair->published || !inc || inc == pair->peer_dead || state != VMCOMM_PAIR_UP)
			return;
		vmcomm_pair_hello(pair, inc);
		break;
	case VMCOMM_PEER_HELLO:
		if (inc != pair->peer_inc || state != VMCOMM_PAIR_UP) {
			vmcomm_store64(&pair->mine->peer_incarnation, 0);
			VMCOMM_WRITE_ONCE(pair->state, VMCOMM_PEER_DOWN);
		} else if (accepted == node->incarnation) {
			VMCOMM_WRITE_ONCE(pair->state, VMCOMM_PEER_UP);
			vmcomm_node_quota(node);
			vmcomm_node_count(node, VMCOMM_STAT_PAIRS_UP, 1);
			vmcomm_pair_tell(pair, VMCOMM_NEWS_UP);
			/* Its events may be older than this, and their doorbell was this one. */
			if (pair->state == VMCOMM_PEER_UP)
				vmcomm_pair_drain(pair, VMCOMM_EVENT_BUDGET);
		}
		break;
	case VMCOMM_PEER_UP:
		/* Order matters: a peer that left may be gone as well by now. */
		if (inc == pair->peer_inc && state == VMCOMM_PAIR_LEFT) {
			VMCOMM_WRITE_ONCE(pair->state, VMCOMM_PEER_LEAVING);
			vmcomm_pair_tell(pair, VMCOMM_NEWS_LEFT);
		} else if (inc != pair->peer_inc ||
			   (accepted != node->incarnation && !node->leaving)) {
			VMCOMM_WRITE_ONCE(pair->state, VMCOMM_PEER_DYING);
			vmcomm_pair_tell(pair, VMCOMM_NEWS_GONE);
		}
		break;
	case VMCOMM_PEER_LEAVING:
		/* Booted again in the middle of its leave: the rest of it will never come. */
		if (inc != pair->peer_inc && !vmcomm_load32(&pair->theirs->leave_done)) {
			VMCOMM_WRITE_ONCE(pair->state, VMCOMM_PEER_DYING);
			vmcomm_pair_tell(pair, VMCOMM_NEWS_GONE);
		}
		break;
	default:
		break;
	}
}

/* What the host says about the peer. node->lock is held, dropped for news. */
static void vmcomm_pair_check_host(struct vmcomm_pair *pair)
{
	struct vmcomm_node *node = pair->node;
	struct vmcomm_location loc;

	if (node->backend->location(node, pair->slot, &loc))
		return;
	if (loc.state == VMCOMM_SLOT_LIVE || pair->state != VMCOMM_PEER_DOWN)
		node->members |= 1ULL << pair->slot;
	else
		node->members &= ~(1ULL << pair->slot);
	if (pair->state == VMCOMM_PEER_HELLO &&
	    (loc.generation != pair->loc.generation ||
	     (loc.state != VMCOMM_SLOT_LIVE && loc.state != VMCOMM_SLOT_LEAVING))) {
		/* It will never answer: do not keep its memory in quarantine. */
		vmcomm_store_release64(&pair->mine->peer_incarnation, 0);
		VMCOMM_WRITE_ONCE(pair->state, VMCOMM_PEER_DOWN);
		return;
	}
	if (pair->state != VMCOMM_PEER_UP && pair->state != VMCOMM_PEER_LEAVING)
		return;
	if (loc.generation == pair->loc.generation && loc.state == VMCOMM_SLOT_LIVE) {
		pair->loc = loc; /* its addresses may change */
		return;
	}
	if (loc.generation == pair->loc.generation && (loc.state == VMCOMM_SLOT_LEAVING ||
						       loc.state == VMCOMM_SLOT_JOINING))
		return; /* its own words say how far it is */
	if (vmcomm_load64(&pair->theirs->incarnation) == pair->peer_inc &&
	    vmcomm_load32(&pair->theirs->state) == VMCOMM_PAIR_LEFT &&
	    vmcomm_load_acquire32(&pair->theirs->leave_done))
		return; /* it got to the end before it went */
	VMCOMM_WRITE_ONCE(pair->state, VMCOMM_PEER_DYING);
	vmcomm_pair_tell(pair, VMCOMM_NEWS_GONE);
}

int vmcomm_pair_released(struct vmcomm_node *node, u32 slot)
{
	struct vmcomm_pair *pair = node->pair[slot];
	int err = 0;

	if (!pair)
		return 0; /* the own slot */
	vmcomm_lock(&node->lock);
	if (pair->conns) {
		err = -EAGAIN;
	} else if (pair->state == VMCOMM_PEER_LEAVING &&
		   !vmcomm_load_acquire32(&pair->theirs->leave_done)) {
		/* It may still be reading our rings. */
		err = -EAGAIN;
	} else if (pair->state == VMCOMM_PEER_LEAVING || pair->state == VMCOMM_PEER_DYING) {
		vmcomm_ccb_wipe(pair);
		vmcomm_store64(&pair->mine->leave_ack, pair->peer_inc);
		vmcomm_store_release64(&pair->mine->peer_incarnation, 0);
		VMCOMM_WRITE_ONCE(pair->state, VMCOMM_PEER_DOWN);
		pair->peer_dead = pair->peer_inc;
		pair->peer_inc = 0;
		vmcomm_node_quota(node);
		node->backend->doorbell(node, slot, VMCOMM_VECTOR_EVENT);
	}
	vmcomm_unlock(&node->lock);
	return err;
}

bool vmcomm_node_event(struct vmcomm_node *node)
{
	bool more = false;
	u32 i;

	vmcomm_node_count(node, VMCOMM_STAT_INTERRUPTS, 1);
	vmcomm_lock(&node->lock);
	for (i = 0; node->up && i < node->lay.slots; i++) {
		struct vmcomm_pair *pair = node->pair[i];

		if (!pair)
			continue;
		if (pair->state == VMCOMM_PEER_UP || pair->state == VMCOMM_PEER_LEAVING)
			more |= vmcomm_pair_drain(pair, VMCOMM_EVENT_BUDGET);
		vmcomm_pair_check(pair);
		/* A peer that has just said hello has no reason to ring again. */
		if (pair->state == VMCOMM_PEER_HELLO)
			vmcomm_pair_check(pair);
	}
	vmcomm_unlock(&node->lock);
	return more;
}

/*
 * Zombies, offers that nobody takes, and sleepers whose event may have got lost. The last should not
 * exist; some are woken for nothing, a sender once for each time that it armed.
 */
void vmcomm_pair_sweep(struct vmcomm_pair *pair)
{
	struct vmcomm_node *node = pair->node;
	u32 per = 1u << (node->lay.chunk_shift - VMCOMM_CCB_SHIFT), i;

	for (i = 0; i < pair->ccb_chunks * per; i++) {
		struct vmcomm_ccb *c = vmcomm_ccb_at(pair, i);
		struct vmcomm_abi_ccb *theirs;
		struct vmcomm_conn *conn;
		bool missed;

		if (c->use == VMCOMM_CCB_ZOMBIE) {
			vmcomm_ccb_reap(pair, i);
			continue;
		}
		if (c->use != VMCOMM_CCB_LIVE)
			continue;
		conn = c->conn;
		theirs = conn->theirs;
		if (!theirs) {
			if (c->offer && ++c->age > VMCOMM_OFFER_TICKS)
				vmcomm_offer_withdraw(pair, c);
			continue;
		}
		missed = vmcomm_load64(&theirs->head) != VMCOMM_READ_ONCE(conn->rx.tail) &&
			 vmcomm_load32(&theirs->epoch) != 0;
		if (vmcomm_load64(&conn->mine->snd_wake_at) != ~0ULL && vmcomm_tx_writable(conn)) {
			/* It arms again if it still has to wait. */
			vmcomm_lock(&conn->arm_lock);
			vmcomm_store64(&conn->mine->snd_wake_at, ~0ULL);
			vmcomm_unlock(&conn->arm_lock);
			missed = true;
		}
		if (!missed || !node->conn_ops->hold(conn))
			continue;
		vmcomm_node_count(node, VMCOMM_STAT_BACKSTOP_WAKES, 1);
		vmcomm_unlock(&node->lock);
		node->conn_ops->wake(conn);
		node->conn_ops->drop(conn);
		vmcomm_lock(&node->lock);
	}
	vmcomm_ccb_trim(pair);
}

static bool vmcomm_repair32(vmcomm_le32 *word, u32 value)
{
	if (vmcomm_load32(word) == value)
		return false;
	vmcomm_store_release32(word, value);
	return true;
}

static bool vmcomm_repair64(vmcomm_le64 *word, u64 value)
{
	if (vmcomm_load64(word) == value)
		return false;
	vmcomm_store_release64(word, value);
	return true;
}

/*
 * Somebody else may have written over what we published (M26). Without this a pair would be down for
 * ever, with good peers too, once one word of these is wrong. Words of connections are not repaired:
 * their streams are spoiled anyway. node->lock is held.
 */
static void vmcomm_pair_repair(struct vmcomm_pair *pair)
{
	struct vmcomm_abi_pair *mine = pair->mine;
	bool bad;
	u32 i;

	bad = vmcomm_repair32(&mine->state, VMCOMM_PAIR_UP);
	bad |= vmcomm_repair64(&mine->incarnation, pair->node->incarnation);
	bad |= vmcomm_repair64(&mine->peer_incarnation,
			       pair->state == VMCOMM_PEER_DOWN ? 0 : pair->peer_inc);
	bad |= vmcomm_repair32(&mine->ev_tail, pair->ev_tail);
	for (i = 0; i < VMCOMM_CCB_CHUNKS_MAX; i++)
		bad |= vmcomm_repair32(&mine->ccb_chunk[i],
				       i < pair->ccb_chunks ? pair->ccb_chunk[i] + 1 : 0);
	vmcomm_lock(&pair->ev_lock);
	bad |= vmcomm_repair32(&mine->ev_head, pair->ev_head);
	bad |= vmcomm_repair32(&mine->ev_overflow, pair->ev_overflow);
	vmcomm_unlock(&pair->ev_lock);
	if (bad)
		vmcomm_node_count(pair->node, VMCOMM_STAT_PEER_ERRORS, 1);
}

void vmcomm_node_tick(struct vmcomm_node *node)
{
	u32 i, n;

	vmcomm_lock(&node->lock);
	if (!node->up) {
		vmcomm_unlock(&node->lock);
		return;
	}
	for (i = 0; i < node->lay.slots; i++) {
		struct vmcomm_pair *pair = node->pair[i];

		if (!pair)
			continue;
		if (!node->leaving && pair->published)
			vmcomm_pair_repair(pair);
		vmcomm_pair_check(pair);
		vmcomm_pair_check_host(pair);
		if (pair->state == VMCOMM_PEER_UP) {
			/* All: the peer does not ring for more before these are taken. */
			for (n = 0; n < VMCOMM_TICK_DRAINS && vmcomm_pair_drain(pair, VMCOMM_EVENT_BUDGET);
			     n++)
				;
			vmcomm_pair_sweep(pair);
		}
	}
	if (!node->leaving) {
		vmcomm_repair32(&node->page->state, VMCOMM_VM_UP);
		vmcomm_repair64(&node->page->incarnation, node->incarnation);
	}
	if (node->reclaim_ask)
		vmcomm_heap_reclaim(&node->heap, node->reclaim_ask, node->reclaim_ack,
				    VMCOMM_RECLAIM_IDLE);
	node->stat[VMCOMM_STAT_HEAP_CHUNKS] = node->heap.chunks;
	node->stat[VMCOMM_STAT_HEAP_USED] = node->heap.used;
	vmcomm_unlock(&node->lock);

	for (i = 0; i < VMCOMM_STAT_COUNT; i++)
		vmcomm_store64(&node->page->stat[i], VMCOMM_READ_ONCE(node->stat[i]));
	for (i = 0; i < VMCOMM_REASON_COUNT; i++)
		vmcomm_store64(&node->page->reason[i], VMCOMM_READ_ONCE(node->reason[i]));
	vmcomm_store64(&node->page->heartbeat, ++node->heartbeat);
}

void vmcomm_node_refresh(struct vmcomm_node *node)
{
	u32 i;

	VMCOMM_WRITE_ONCE(node->location, vmcomm_load64(node->location_word));
	vmcomm_store64(&node->page->location, node->location);
	vmcomm_lock(&node->lock);
	for (i = 0; node->up && i < node->lay.slots; i++) {
		if (!node->pair[i])
			continue;
		vmcomm_pair_check(node->pair[i]);
		vmcomm_pair_check_host(node->pair[i]);
	}
	vmcomm_unlock(&node->lock);
}

int vmcomm_node_find(struct vmcomm_node *node, const u8 addr[16])
{
	const struct vmcomm_location *l;
	struct vmcomm_location loc;
	struct vmcomm_pair *pair;
	int found = -ENOENT;
	u64 left;
	u32 i, k;

	vmcomm_lock(&node->lock); /* the copies change */
	/* All connections of the VM come here, and most slots may be free: do not ask for those (M2). */
	left = node->members;
	for (i = 0; left && found < 0; i++, left >>= 1) {
		pair = node->pair[i];
		if (!(left & 1) || !pair)
			continue;
		/*
		 * The copy of a pair that is up is kept fresh by the tick; for the others ask the
		 * table, so that "no pair" can be told from "no member".
		 */
		l = &pair->loc;
		if (pair->state < VMCOMM_PEER_HELLO) {
			if (node->backend->location(node, i, &loc) || loc.state != VMCOMM_SLOT_LIVE)
				continue;
			l = &loc;
		}
		for (k = 0; k < l->addr_count && k < VMCOMM_ADDRS_MAX; k++)
			if (!memcmp(l->addr[k], addr, 16))
				found = (int)i;
	}
	vmcomm_unlock(&node->lock);
	return found;
}

int vmcomm_node_place(struct vmcomm_node *node, u32 slot, struct vmcomm_abi_pair *theirs)
{
	struct vmcomm_pair *pair = slot < node->lay.slots ? node->pair[slot] : NULL;
	int err = 0;

	if (!pair)
		return -EINVAL;
	vmcomm_lock(&node->lock);
	vmcomm_lock(&pair->ev_lock);
	if (pair->state == VMCOMM_PEER_HELLO) {
		/* Nothing of it has been used yet. */
		vmcomm_store_release64(&pair->mine->peer_incarnation, 0);
		VMCOMM_WRITE_ONCE(pair->state, VMCOMM_PEER_DOWN);
	}
	if (pair->state == VMCOMM_PEER_DOWN)
		VMCOMM_WRITE_ONCE(pair->theirs, theirs ? theirs : &vmcomm_pair_nobody);
	else
		err = -EBUSY;
	vmcomm_unlock(&pair->ev_lock);
	vmcomm_unlock(&node->lock);
	return err;
}

bool vmcomm_node_pair_up(struct vmcomm_node *node, u32 slot)
{
	return slot < node->lay.slots && node->pair[slot] &&
	       VMCOMM_READ_ONCE(node->pair[slot]->state) == VMCOMM_PEER_UP && !node->leaving;
}
