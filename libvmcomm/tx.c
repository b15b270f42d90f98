// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * tx.c - the sending direction: TCP -> ring -> TCP ... (M5, M6, M16, M17)
 *
 * An odd epoch means: bytes go into the ring. x_seq is TCP's write_seq at the moment of entry,
 * p_pos the position in the ring at the moment of exit. Entering needs the peer's word that it has
 * followed the last exit (rx_epoch == epoch), because x_seq and p_pos are then written anew.
 * Leaving needs nobody: the peer reads TCP only up to what it can prove to be before the next
 * x_seq (rx.c).
 */
#include "conn.h"

/* Attempts to enter that are skipped after the heap had no room. */
#define VMCOMM_TX_BACKOFF 64
/*
 * Times that a sender finds its ring full before it asks for a larger one. On the way to that the
 * bytes go to TCP, which takes as many as it always does: a program that writes a lot before
 * anybody reads does not get stuck earlier than with TCP alone.
 */
#define VMCOMM_TX_STALLS 1
/* Times that memory of a peer is mapped before one goes on without having found its half. */
#define VMCOMM_FIND_TRIES 16

/*
 * A connection that was offered may have been accepted without a doorbell: look. One load when
 * nothing came. Return: false: nobody can say, as there are halves that cannot be mapped yet;
 * vmcomm_pair_scan() wakes us when it has looked.
 */
bool vmcomm_conn_resolve(struct vmcomm_conn *conn)
{
	struct vmcomm_pair *pair = conn->pair;
	struct vmcomm_node *node = conn->node;
	bool known;

	if (VMCOMM_LOAD_ACQUIRE(conn->theirs))
		return true; /* vmcomm_conn_bind(), maybe on another CPU */
	if (vmcomm_load_acquire32(&pair->theirs->ev_head) == VMCOMM_READ_ONCE(pair->ev_tail) &&
	    vmcomm_load32(&pair->theirs->ev_overflow) == VMCOMM_READ_ONCE(pair->ev_overflow_seen)) {
		/* Another CPU may be in the middle of the event that is about us. */
		vmcomm_lock(&node->lock);
		goto out;
	}
	vmcomm_lock(&node->lock);
	/* A dead peer's last words count, too. */
	if (pair->state >= VMCOMM_PEER_UP)
		vmcomm_pair_drain(pair, 2 * VMCOMM_EVENTS);
out:
	/* With the lock: a scan clears look_again before it looks. */
	known = conn->theirs || !pair->look_again;
	vmcomm_unlock(&node->lock);
	return known;
}

/*
 * The same for who reads TCP or lets go of the connection: bytes may be in the ring of a half that
 * cannot be mapped yet. May sleep, unless conn->atomic. The peer says what has to be mapped, so not
 * for ever.
 */
bool vmcomm_conn_find(struct vmcomm_conn *conn)
{
	const struct vmcomm_backend_ops *backend = conn->node->backend;
	struct vmcomm_pair *pair = conn->pair;
	bool known = vmcomm_conn_resolve(conn);
	u32 tries;

	for (tries = 0; !known && tries < VMCOMM_FIND_TRIES; tries++) {
		if (conn->atomic || !backend->prepare || backend->prepare(conn->node))
			break;
		vmcomm_lock(&conn->node->lock);
		/* Nothing new needs to have come: what is looked at again is what could not be mapped. */
		if (pair->state >= VMCOMM_PEER_UP)
			vmcomm_pair_drain(pair, 2 * VMCOMM_EVENTS);
		known = conn->theirs || !pair->look_again;
		vmcomm_unlock(&conn->node->lock);
	}
	return known;
}

static void vmcomm_tx_reason(struct vmcomm_conn *conn, enum vmcomm_reason reason)
{
	if (conn->reason == (u32)reason)
		return;
	VMCOMM_WRITE_ONCE(conn->reason, reason);
	vmcomm_store32(&conn->mine->reason, reason);
	if (reason != VMCOMM_REASON_NONE)
		vmcomm_node_reason(conn->node, reason);
}

/*
 * The peer reads no further in this ring; what it took it says in final, or in tail. A half with
 * another generation never knew of this connection: it was closed before it saw the accept.
 */
static bool vmcomm_tx_peer_stopped(struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);

	return vmcomm_load32(&conn->pair->theirs->state) == VMCOMM_PAIR_LEFT ||
	       vmcomm_load32(&theirs->state) == VMCOMM_CCB_CLOSED ||
	       vmcomm_load32(&theirs->final_valid) ||
	       vmcomm_load32(&theirs->gen) != VMCOMM_READ_ONCE(conn->peer_gen);
}

bool vmcomm_tx_enters(struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	struct vmcomm_pair *pair = VMCOMM_READ_ONCE(conn->pair);
	u32 epoch = VMCOMM_READ_ONCE(conn->tx.epoch);

	if (!pair || !theirs || epoch & 1 ||
	    (VMCOMM_READ_ONCE(conn->tx.backoff) && !VMCOMM_READ_ONCE(conn->tx.ring)) ||
	    VMCOMM_READ_ONCE(conn->tx.pend_len) || VMCOMM_READ_ONCE(conn->tx.unsettled))
		return false;
	return VMCOMM_READ_ONCE(pair->state) == VMCOMM_PEER_UP &&
	       VMCOMM_READ_ONCE(conn->node->enabled) && !VMCOMM_READ_ONCE(conn->node->leaving) &&
	       vmcomm_load32(&theirs->rx_ready) && vmcomm_load32(&theirs->rx_epoch) == epoch;
}

/* The largest ring that is to be had: be modest while memory is short. A hint without node->lock. */
static u32 vmcomm_ring_limit(const struct vmcomm_node *node)
{
	u32 used = VMCOMM_READ_ONCE(node->heap.used), chunks = node->heap.chunks;

	if (used > chunks / 4 * 3)
		return VMCOMM_RING_SHIFT_MIN;
	return used > chunks / 2 ? node->ring_shift_first : VMCOMM_RING_SHIFT_MAX;
}

static int vmcomm_ring_alloc(struct vmcomm_conn *conn, u32 shift)
{
	struct vmcomm_pair *pair = conn->pair;
	struct vmcomm_node *node = conn->node;
	struct vmcomm_ccb *c;
	u32 chunk, off, count, limit;
	bool scrub;
	void *mem;
	int err;

	vmcomm_lock(&node->lock);
	c = vmcomm_ccb_at(pair, conn->idx);
	vmcomm_ring_free(pair, c);
	VMCOMM_WRITE_ONCE(conn->tx.ring, NULL);
	VMCOMM_WRITE_ONCE(conn->tx.shift, 0);
	limit = vmcomm_ring_limit(node);
	if (shift > limit)
		shift = limit;
	do
		err = vmcomm_heap_alloc(&node->heap, pair->slot, shift, &chunk, &off, &scrub);
	while (err && shift-- > VMCOMM_RING_SHIFT_MIN);
	if (err)
		goto out;
	count = shift > node->lay.chunk_shift ? 1u << (shift - node->lay.chunk_shift) : 1;
	err = node->backend->map(node, node->slot, pair->slot, chunk, count, &mem);
	if (err)
		goto err_heap;
	if (scrub)
		vmcomm_zero_shared(mem, count << node->lay.chunk_shift);
	if (node->backend->share) {
		err = node->backend->share(node, pair->slot, chunk, count);
		if (err == -EAGAIN)
			vmcomm_heap_avoid(&node->heap, chunk, count);
		if (err)
			goto err_heap;
	}
	c->ring_chunk = chunk;
	c->ring_off = off;
	c->ring_shift = shift;
	VMCOMM_WRITE_ONCE(conn->tx.ring, (u8 *)mem + off);
	VMCOMM_WRITE_ONCE(conn->tx.shift, shift);
	vmcomm_unlock(&node->lock);
	vmcomm_store32(&conn->mine->ring_chunk, chunk);
	vmcomm_store32(&conn->mine->ring_off, off);
	vmcomm_store32(&conn->mine->ring_shift, shift);
	return 0;

err_heap:
	vmcomm_heap_free(&node->heap, chunk, off, shift);
out:
	vmcomm_unlock(&node->lock);
	return err;
}

/*
 * TCP's sequence numbers move on at least once between any moment at which a VM could be saved
 * (without the device, so detached) and bytes that TCP does not see: should it be set back to that
 * moment, it does not take later bytes for the next ones. The peer has to have acknowledged bytes
 * that were sent since the two ends met: one that was set back has a hole before them, and never
 * does. With bytes of the ring behind a hole it would read them when we, set back, too, have filled
 * it. And more than it had when they met: a sender that was set back is told of bytes that it sent
 * in what was its future. What waits in TCP's queue, megabytes perhaps, need not be acknowledged.
 */
bool vmcomm_tx_moved(const struct vmcomm_conn *conn, u32 una)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_READ_ONCE(conn->theirs);
	const struct vmcomm_tx *tx = &conn->tx;

	if (!theirs || !tx->first || !tx->first_seq_set || (s32)(una - tx->first_seq) <= 0)
		return false;
	return !(vmcomm_load32(&theirs->flags) & VMCOMM_CCB_F_HAD) ||
	       (s32)(una - vmcomm_load32(&theirs->tcp_had)) > 0;
}

static bool vmcomm_tx_enter(struct vmcomm_conn *conn, u32 write_seq, u32 una)
{
	struct vmcomm_tx *tx = &conn->tx;
	int err;

	if (!vmcomm_load_acquire32(&conn->theirs->rx_ready) ||
	    vmcomm_load_acquire32(&conn->theirs->rx_epoch) != tx->epoch) {
		if (conn->reason == VMCOMM_REASON_NONE)
			vmcomm_tx_reason(conn, VMCOMM_REASON_NEW);
		return false;
	}
	if (!tx->ring || tx->shift < tx->want_shift) {
		if (tx->backoff) {
			tx->backoff--;
			if (!tx->ring)
				return false;
		} else {
			err = vmcomm_ring_alloc(conn, tx->want_shift);
			if (err || tx->shift < tx->want_shift)
				tx->backoff = VMCOMM_TX_BACKOFF;
			if (err) {
				vmcomm_tx_reason(conn, err == -EDQUOT ? VMCOMM_REASON_QUOTA :
							err == -EAGAIN ?
							VMCOMM_REASON_NOT_MAPPED :
							err == -EMFILE ?
							VMCOMM_REASON_GRANTS_FULL :
							VMCOMM_REASON_NO_MEMORY);
				return false;
			}
		}
	}
	if (tx->first && !vmcomm_tx_moved(conn, una))
		return false;
	tx->first = false;
	/* The peer followed the last exit, so it has read all; what we knew may be far behind. */
	VMCOMM_WRITE_ONCE(tx->tail, tx->head);
	tx->x_seq = write_seq;
	tx->stalls = 0;
	tx->behind = false;
	vmcomm_store32(&conn->mine->x_seq, write_seq);
	VMCOMM_WRITE_ONCE(tx->epoch, tx->epoch + 1);
	vmcomm_store_release32(&conn->mine->epoch, tx->epoch);
	vmcomm_tx_reason(conn, VMCOMM_REASON_NONE);
	vmcomm_node_count(conn->node, VMCOMM_STAT_RING_ENTERED, 1);
	return true;
}

void vmcomm_tx_exit(struct vmcomm_conn *conn, enum vmcomm_reason reason)
{
	struct vmcomm_tx *tx = &conn->tx;

	if (!conn->pair)
		return;
	vmcomm_tx_reason(conn, reason);
	if (!(tx->epoch & 1))
		return;
	vmcomm_store64(&conn->mine->p_pos, tx->head);
	VMCOMM_WRITE_ONCE(tx->epoch, tx->epoch + 1);
	vmcomm_store_release32(&conn->mine->epoch, tx->epoch);
	/* Seen before any segment that TCP sends from here on. */
	vmcomm_mb();
	vmcomm_node_count(conn->node, VMCOMM_STAT_RING_EXITED, 1);
}

/*
 * Bytes that went into the ring while the peer was leaving: find out how many it took, keep the
 * rest for TCP. Return: 0; -EAGAIN: it has not said; -ENOMEM; -EPROTO.
 */
int vmcomm_tx_settle(struct vmcomm_conn *conn, bool gone)
{
	struct vmcomm_tx *tx = &conn->tx;
	struct vmcomm_abi_ccb *theirs = conn->theirs;
	u32 size = 1u << tx->shift, n, at, first, gen;
	u64 final;
	u8 *pend;

	if (!theirs || !tx->ring) {
		VMCOMM_WRITE_ONCE(tx->unsettled, false);
		return 0;
	}
	gen = vmcomm_load32(&theirs->gen);
	if (gen != VMCOMM_READ_ONCE(conn->peer_gen))
		final = tx->tail; /* it never saw the accept, so it took nothing */
	else if (vmcomm_load_acquire32(&theirs->final_valid) == VMCOMM_FINAL_VALID)
		final = vmcomm_load64(&theirs->final);
	else if (gone || vmcomm_load_acquire32(&theirs->state) == VMCOMM_CCB_CLOSED)
		final = vmcomm_load64(&theirs->tail);
	else
		return -EAGAIN;
	if (tx->head - final > size || final - tx->tail > size) {
		if (!gone)
			return -EPROTO;
		final = tx->tail; /* its memory may be anybody's by now: what it said before */
		if (tx->head - final > size)
			return -EPROTO;
	}
	n = (u32)(tx->head - final);
	/* Later bytes are on TCP already; the peer must not get them without these. */
	if (n && tx->behind)
		return -EPROTO;
	if (n) {
		pend = conn->atomic ? vmcomm_alloc(n) : vmcomm_alloc_large(n);
		if (!pend)
			return -ENOMEM;
		at = (u32)final & (size - 1);
		first = size - at < n ? size - at : n;
		vmcomm_copy_from_shared(pend, tx->ring + at, first);
		vmcomm_copy_from_shared(pend + first, tx->ring, n - first);
		if (vmcomm_conn_lost(conn)) {
			vmcomm_free_large(pend);
			return -EPROTO;
		}
		vmcomm_free_large(tx->pend);
		VMCOMM_WRITE_ONCE(tx->pend_off, 0);
		tx->pend = pend;
		VMCOMM_WRITE_ONCE(tx->pend_len, n);
		conn->ring_sent -= n;
		vmcomm_node_count(conn->node, VMCOMM_STAT_TX_HELD_BYTES, n);
	}
	/*
	 * They are in pend now and no longer in the ring: not sent again when the peer is found to
	 * be gone, too, nor waited for.
	 */
	VMCOMM_WRITE_ONCE(tx->ring, NULL);
	VMCOMM_WRITE_ONCE(tx->head, final);
	VMCOMM_WRITE_ONCE(tx->tail, final);
	VMCOMM_WRITE_ONCE(tx->unsettled, false);
	return 0;
}

/* Is memory plenty? A hint, as the heap belongs to node->lock. */
static bool vmcomm_tx_rich(const struct vmcomm_node *node)
{
	return VMCOMM_READ_ONCE(node->heap.used) < node->heap.chunks / 4;
}

void vmcomm_tx_expect(struct vmcomm_conn *conn, size_t n)
{
	struct vmcomm_tx *tx = &conn->tx;

	if (!conn->pair || tx->ring || !vmcomm_tx_rich(conn->node))
		return;
	/* Room for some of them: one is written while another is read. */
	while (tx->want_shift < conn->node->ring_shift_max && 1ULL << tx->want_shift < 4ULL * n)
		tx->want_shift++;
}

bool vmcomm_tx_grows(const struct vmcomm_conn *conn)
{
	const struct vmcomm_tx *tx = &conn->tx;
	u32 shift = VMCOMM_READ_ONCE(tx->shift);

	return vmcomm_conn_attached(conn) && VMCOMM_READ_ONCE(tx->stalls) >= VMCOMM_TX_STALLS &&
	       shift < conn->node->ring_shift_max && shift < vmcomm_ring_limit(conn->node) &&
	       !VMCOMM_READ_ONCE(tx->backoff);
}

bool vmcomm_tx_detour(struct vmcomm_conn *conn)
{
	bool first = VMCOMM_READ_ONCE(conn->tx.first) && VMCOMM_READ_ONCE(conn->tx.first_seq_set);
	u32 epoch = VMCOMM_READ_ONCE(conn->tx.epoch);
	struct vmcomm_abi_ccb *theirs;
	bool ret;

	if ((!epoch && !first) || epoch & 1 || !VMCOMM_READ_ONCE(conn->pair))
		return false;
	/* The half and the pair stay ours meanwhile: conn_close() takes the lock. */
	vmcomm_lock(&conn->arm_lock);
	theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	/* A peer that reads no further in the ring need not follow. */
	ret = conn->pair && theirs &&
	      (first ? vmcomm_load32(&theirs->rx_ready) && VMCOMM_READ_ONCE(conn->node->enabled) :
		       vmcomm_load32(&theirs->rx_epoch) != epoch) &&
	      VMCOMM_READ_ONCE(conn->pair->state) == VMCOMM_PEER_UP &&
	      !VMCOMM_READ_ONCE(conn->node->leaving) && !vmcomm_tx_peer_stopped(conn);
	vmcomm_unlock(&conn->arm_lock);
	return ret;
}

static enum vmcomm_next vmcomm_tx_choose(struct vmcomm_conn *conn, u32 write_seq, u32 nxt, u32 una,
					 u32 flags)
{
	struct vmcomm_tx *tx = &conn->tx;
	struct vmcomm_node *node = conn->node;
	u32 steps;
	int err;

	if (conn->broken)
		return VMCOMM_NEXT_BROKEN;
	if (tx->pend_len)
		return VMCOMM_NEXT_HELD;
	if (!conn->pair)
		return VMCOMM_NEXT_TCP;
	if (tx->first && !tx->first_seq_set) {
		tx->first_seq_set = true;
		tx->first_seq = nxt;
	}
	vmcomm_conn_resolve(conn);
	if (!VMCOMM_READ_ONCE(conn->theirs))
		return VMCOMM_NEXT_TCP;

	/* A dead peer takes nothing more: what it did not read goes to TCP before all else. */
	if (VMCOMM_READ_ONCE(conn->pair->state) == VMCOMM_PEER_DYING && (tx->epoch & 1))
		VMCOMM_WRITE_ONCE(tx->unsettled, true);
	if (tx->unsettled) {
		vmcomm_tx_exit(conn, VMCOMM_REASON_PEER_LEFT);
		err = vmcomm_tx_settle(conn, VMCOMM_READ_ONCE(conn->pair->state) ==
						     VMCOMM_PEER_DYING);
		if (err == -EPROTO) {
			conn->broken = true;
			vmcomm_node_count(node, VMCOMM_STAT_PEER_ERRORS, 1);
			return VMCOMM_NEXT_BROKEN;
		}
		if (err)
			return VMCOMM_NEXT_WAIT;
		return tx->pend_len ? VMCOMM_NEXT_HELD : VMCOMM_NEXT_TCP;
	}
	if (VMCOMM_READ_ONCE(conn->pair->state) != VMCOMM_PEER_UP ||
	    VMCOMM_READ_ONCE(node->leaving) || vmcomm_tx_peer_stopped(conn)) {
		/* All that is in the ring was published before the peer stopped: it takes it. */
		vmcomm_tx_exit(conn, node->leaving ? VMCOMM_REASON_LEFT : VMCOMM_REASON_PEER_LEFT);
		return VMCOMM_NEXT_TCP;
	}
	if (tx->epoch & 1) {
		if (flags & VMCOMM_TX_TCP) {
			vmcomm_tx_exit(conn, conn->reason ? conn->reason : VMCOMM_REASON_URGENT);
			return VMCOMM_NEXT_TCP;
		}
		if (!VMCOMM_READ_ONCE(node->enabled)) {
			vmcomm_tx_exit(conn, VMCOMM_REASON_DISABLED);
			return VMCOMM_NEXT_TCP;
		}
		if (!vmcomm_load32(&conn->theirs->rx_ready)) {
			vmcomm_tx_exit(conn, VMCOMM_REASON_PEER_DISABLED);
			return VMCOMM_NEXT_TCP;
		}
		if (vmcomm_tx_grows(conn)) {
			/* Each change of rings is a detour over TCP: one step while there is room. */
			steps = vmcomm_tx_rich(node) ? 4 : 2;
			tx->want_shift = tx->shift + steps < node->ring_shift_max ?
						 tx->shift + steps : node->ring_shift_max;
			vmcomm_tx_exit(conn, VMCOMM_REASON_RESIZE);
			vmcomm_node_count(node, VMCOMM_STAT_RING_GROWN, 1);
			return VMCOMM_NEXT_TCP;
		}
		return VMCOMM_NEXT_RING;
	}
	if (flags & VMCOMM_TX_TCP)
		return VMCOMM_NEXT_TCP;
	if (!VMCOMM_READ_ONCE(node->enabled)) {
		vmcomm_tx_reason(conn, VMCOMM_REASON_DISABLED);
		return VMCOMM_NEXT_TCP;
	}
	return vmcomm_tx_enter(conn, write_seq, una) ? VMCOMM_NEXT_RING : VMCOMM_NEXT_TCP;
}

enum vmcomm_next vmcomm_tx_next(struct vmcomm_conn *conn, u32 write_seq, u32 nxt, u32 una, u32 flags)
{
	enum vmcomm_next next = vmcomm_tx_choose(conn, write_seq, nxt, una, flags);

	if (next == VMCOMM_NEXT_TCP)
		conn->tx.behind = true;
	return next;
}

u32 vmcomm_tx_room(struct vmcomm_conn *conn)
{
	struct vmcomm_tx *tx = &conn->tx;
	u32 size = 1u << tx->shift;
	u64 tail = vmcomm_load_acquire64(&conn->theirs->tail);

	/* tail only grows, and never past head: anything else is nonsense and no room. */
	if (tx->head - tail > size || tail - tx->tail > size) {
		conn->broken = true;
		vmcomm_node_count(conn->node, VMCOMM_STAT_PEER_ERRORS, 1);
		return 0;
	}
	VMCOMM_WRITE_ONCE(tx->tail, tail);
	if (tx->head - tail == size) {
		tx->stalls++;
		/* A ring that could not grow is tried again, though nothing enters it anew. */
		if (tx->backoff)
			tx->backoff--;
	}
	return size - (u32)(tx->head - tail);
}

u8 *vmcomm_tx_window(struct vmcomm_conn *conn, u32 *len)
{
	struct vmcomm_tx *tx = &conn->tx;
	u32 size = 1u << tx->shift, at = (u32)tx->head & (size - 1);
	u32 room = size - (u32)(tx->head - tx->tail);

	if (!room)
		room = vmcomm_tx_room(conn);
	*len = room < size - at ? room : size - at;
	return tx->ring + at;
}

void vmcomm_tx_commit(struct vmcomm_conn *conn, u32 n)
{
	struct vmcomm_tx *tx = &conn->tx;
	u64 old = tx->head, wake_at;

	VMCOMM_WRITE_ONCE(tx->head, old + n);
	conn->ring_sent += n;
	vmcomm_store64(&conn->mine->ring_sent, conn->ring_sent);
	vmcomm_store_release64(&conn->mine->head, tx->head);
	/*
	 * One barrier for two questions: does the reader want to be woken, and has the peer
	 * stopped reading? In each case either we see its word, or it sees our head.
	 */
	vmcomm_mb();
	wake_at = vmcomm_load64(&conn->theirs->rcv_wake_at);
	if (vmcomm_tx_peer_stopped(conn))
		VMCOMM_WRITE_ONCE(tx->unsettled, true);
	if (vmcomm_passed64(wake_at, old, tx->head))
		vmcomm_conn_tell(conn);
}

bool vmcomm_tx_idle(struct vmcomm_conn *conn)
{
	struct vmcomm_tx *tx = &conn->tx;
	struct vmcomm_node *node = conn->node;
	struct vmcomm_ccb *c;

	if (!conn->pair || !VMCOMM_READ_ONCE(conn->theirs) || !tx->ring || tx->unsettled)
		return false;
	if (tx->epoch & 1) {
		if (vmcomm_load_acquire64(&conn->theirs->tail) != tx->head)
			return false;
		vmcomm_tx_exit(conn, VMCOMM_REASON_IDLE);
		/* The peer need not hurry, but somebody there has to acknowledge. */
		vmcomm_conn_tell(conn);
		return true;
	}
	if (vmcomm_load_acquire32(&conn->theirs->rx_epoch) != tx->epoch)
		return false;
	vmcomm_lock(&node->lock);
	c = vmcomm_ccb_at(conn->pair, conn->idx);
	vmcomm_ring_free(conn->pair, c);
	vmcomm_unlock(&node->lock);
	VMCOMM_WRITE_ONCE(tx->ring, NULL);
	VMCOMM_WRITE_ONCE(tx->shift, 0);
	tx->want_shift = node->ring_shift_first;
	VMCOMM_WRITE_ONCE(tx->backoff, 0); /* it was for more than that */
	vmcomm_node_count(node, VMCOMM_STAT_RING_RETURNED, 1);
	return true;
}

bool vmcomm_tx_arm(struct vmcomm_conn *conn, u32 room)
{
	struct vmcomm_tx *tx = &conn->tx;
	struct vmcomm_abi_ccb *theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	u32 size, shift;
	u64 head, want, tail;
	bool free;

	if (!vmcomm_tx_in_ring(conn) || !theirs)
		return true;
	vmcomm_lock(&conn->arm_lock);
	theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	if (!conn->pair || !theirs) {
		vmcomm_unlock(&conn->arm_lock);
		return true;
	}
	head = VMCOMM_READ_ONCE(tx->head);
	shift = VMCOMM_READ_ONCE(tx->shift);
	size = 1u << shift;
	if (room > size)
		room = size;
	/* So much must have been read for room bytes to be free. */
	want = head - size + room;
	vmcomm_store64(&conn->mine->snd_wake_at, want - 1);
	vmcomm_mb_seldom();
	tail = vmcomm_load64(&theirs->tail);
	/* Nothing to wait for, either, once the peer stopped or wrote nonsense. */
	free = (s64)(tail - want) >= 0 || VMCOMM_READ_ONCE(conn->broken) ||
	       vmcomm_tx_peer_stopped(conn);
	vmcomm_unlock(&conn->arm_lock);
	return free;
}

/* Lockless: has the peer, which reads no more, said how far it read? */
static bool vmcomm_tx_decided(struct vmcomm_conn *conn, struct vmcomm_abi_ccb *theirs)
{
	return theirs && vmcomm_conn_attached(conn) &&
	       (vmcomm_load_acquire32(&theirs->final_valid) == VMCOMM_FINAL_VALID ||
		vmcomm_load32(&theirs->state) == VMCOMM_CCB_CLOSED ||
		vmcomm_load32(&theirs->gen) != VMCOMM_READ_ONCE(conn->peer_gen));
}

bool vmcomm_tx_writable(struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	u32 size;
	u64 used;

	if (VMCOMM_READ_ONCE(conn->broken))
		return true; /* to be told */
	if (VMCOMM_READ_ONCE(conn->tx.pend_len))
		return false;
	if (VMCOMM_READ_ONCE(conn->tx.unsettled))
		return vmcomm_tx_decided(conn, theirs); /* the next send puts them on TCP */
	if (!vmcomm_tx_in_ring(conn) || !theirs)
		return true;
	size = 1u << VMCOMM_READ_ONCE(conn->tx.shift);
	used = VMCOMM_READ_ONCE(conn->tx.head) - vmcomm_load64(&theirs->tail);
	return used <= size - size / 8 || used > size; /* nonsense: let the writer find out */
}

u32 vmcomm_tx_unread(struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	u32 n = VMCOMM_READ_ONCE(conn->tx.pend_len) - VMCOMM_READ_ONCE(conn->tx.pend_off);
	u64 in;

	if (!vmcomm_conn_attached(conn) || !theirs || !VMCOMM_READ_ONCE(conn->tx.ring))
		return n;
	in = VMCOMM_READ_ONCE(conn->tx.head) - vmcomm_load64(&theirs->tail);
	return in <= 1u << VMCOMM_RING_SHIFT_MAX ? n + (u32)in : n;
}

u64 vmcomm_tx_taken(struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);

	if (!vmcomm_conn_attached(conn) || !theirs)
		return 0;
	return vmcomm_load64(&theirs->tail) + vmcomm_load64(&theirs->tcp_received);
}

const u8 *vmcomm_tx_pending(struct vmcomm_conn *conn, u32 *len)
{
	*len = conn->tx.pend_len - conn->tx.pend_off;
	return conn->tx.pend + conn->tx.pend_off;
}

void vmcomm_tx_pended(struct vmcomm_conn *conn, u32 n)
{
	struct vmcomm_tx *tx = &conn->tx;

	tx->pend_off += n;
	if (tx->pend_off < tx->pend_len)
		return;
	VMCOMM_WRITE_ONCE(tx->pend_len, 0);
	VMCOMM_WRITE_ONCE(tx->pend_off, 0);
	vmcomm_free_large(tx->pend);
	tx->pend = NULL;
}

void vmcomm_tx_fin(struct vmcomm_conn *conn)
{
	if (!conn->pair)
		return;
	vmcomm_store_release32(&conn->mine->fin, 1);
	if (VMCOMM_READ_ONCE(conn->theirs))
		vmcomm_conn_tell(conn);
}
