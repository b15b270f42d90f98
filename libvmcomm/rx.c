// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * rx.c - the receiving direction (M7, M16, M17)
 *
 * The peer says where in the stream it entered its ring (x_seq) and where it left it (p_pos). The
 * danger is to read a TCP byte that comes after ring bytes which we do not know of yet. So TCP is
 * read only up to a bound: rcv_nxt is read first, then, after a read barrier, the peer's epoch. If
 * the epoch has not moved, whatever had arrived by then was sent before any entry that we cannot
 * see; if it has moved, x_seq is the bound.
 */
#include "conn.h"

static enum vmcomm_next vmcomm_rx_broken(struct vmcomm_conn *conn, const char *what, u32 *n)
{
	if (!conn->broken) {
		conn->broken = true;
		vmcomm_node_count(conn->node, VMCOMM_STAT_PEER_ERRORS, 1);
		vmcomm_warn("connection %u with the VM in slot %u: bad %s in shared memory", conn->idx,
			    conn->pair ? conn->pair->slot : 0, what);
	}
	*n = 0;
	return VMCOMM_NEXT_BROKEN;
}

/* node->lock held */
void vmcomm_rx_unmap(struct vmcomm_conn *conn)
{
	struct vmcomm_rx *rx = &conn->rx;

	if (rx->map_count && conn->node->backend->unmap)
		conn->node->backend->unmap(conn->node, conn->pair->slot, conn->pair->slot,
					   rx->map_chunk, rx->map_count);
	rx->map_count = 0;
	VMCOMM_WRITE_ONCE(rx->ring, NULL);
}

int vmcomm_rx_map(struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs = conn->theirs;
	struct vmcomm_node *node = conn->node;
	struct vmcomm_rx *rx = &conn->rx;
	u32 chunk = vmcomm_load32(&theirs->ring_chunk), off = vmcomm_load32(&theirs->ring_off);
	u32 shift = vmcomm_load32(&theirs->ring_shift), cs = node->lay.chunk_shift, count;
	void *mem;
	int err;

	if (rx->ring)
		return 0; /* somebody peeked */
	if (shift < VMCOMM_RING_SHIFT_MIN || shift > VMCOMM_RING_SHIFT_MAX)
		return -EPROTO;
	count = shift > cs ? 1u << (shift - cs) : 1;
	/* Rings start at a multiple of their size in a chunk, or of a chunk. */
	if (off & ((1u << (shift < cs ? shift : cs)) - 1) || off >= 1u << cs)
		return -EPROTO;
	do {
		vmcomm_lock(&node->lock);
		err = node->backend->map(node, conn->pair->slot, conn->pair->slot, chunk, count,
					 &mem);
		vmcomm_unlock(&node->lock);
	} while (err == -EAGAIN && node->backend->prepare && !conn->atomic &&
		 !(err = node->backend->prepare(node)));
	if (err)
		return err;
	rx->map_chunk = chunk;
	rx->map_count = count;
	VMCOMM_WRITE_ONCE(rx->shift, shift);
	VMCOMM_WRITE_ONCE(rx->ring, (u8 *)mem + off);
	return 0;
}

static void vmcomm_rx_follow(struct vmcomm_conn *conn)
{
	VMCOMM_WRITE_ONCE(conn->rx.epoch, conn->rx.epoch + 1);
	vmcomm_store_release32(&conn->mine->rx_epoch, conn->rx.epoch);
}

/*
 * In the ring with nothing left in it: has the peer gone back to TCP at this position?
 * Return: 1: yes, followed; 0: no; -EPROTO.
 */
static int vmcomm_rx_exit(struct vmcomm_conn *conn)
{
	struct vmcomm_rx *rx = &conn->rx;
	u32 epoch = vmcomm_load_acquire32(&conn->theirs->epoch);
	u64 p_pos;

	if (epoch == rx->epoch)
		return 0;
	p_pos = vmcomm_load64(&conn->theirs->p_pos);
	if (epoch != rx->epoch + 1 || p_pos - rx->tail > 1u << rx->shift)
		return -EPROTO;
	if (p_pos != rx->tail)
		return 0; /* head has moved too: read on */
	vmcomm_lock(&conn->node->lock);
	vmcomm_rx_unmap(conn);
	vmcomm_unlock(&conn->node->lock);
	vmcomm_rx_follow(conn);
	/* Its writers may wait for that (vmcomm_tx_detour()). */
	if (conn->node->has_tcp)
		vmcomm_conn_tell(conn);
	return 1;
}

enum vmcomm_next vmcomm_rx_next(struct vmcomm_conn *conn, u32 copied_seq, u32 rcv_nxt, u32 *n)
{
	struct vmcomm_rx *rx = &conn->rx;
	struct vmcomm_abi_ccb *theirs;
	u32 epoch, behind, x_seq, cap = rcv_nxt - copied_seq, tries;
	bool known;
	u64 avail;
	int err;

	if (conn->broken)
		return vmcomm_rx_broken(conn, "", n);
	if (rx->held_len) {
		behind = rx->held_at - copied_seq;
		if (!behind) {
			*n = rx->held_len - rx->held_off;
			return VMCOMM_NEXT_HELD;
		}
		if ((s32)behind < 0)
			return vmcomm_rx_broken(conn, "position", n);
		*n = cap < behind ? cap : behind;
		return VMCOMM_NEXT_TCP;
	}
	*n = cap;
	if (!conn->pair)
		return VMCOMM_NEXT_TCP;
	/* rcv_nxt was read before; everything of the peer's is read after. */
	vmcomm_rmb();
	known = rx->drained || vmcomm_conn_find(conn);
	theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	if (!theirs || rx->drained) {
		/* TCP may bring bytes that we took out of the ring, or come after others in there. */
		if (vmcomm_conn_lost(conn))
			return vmcomm_rx_broken(conn, "device", n);
		/*
		 * Accepted, perhaps, by a half that cannot be mapped yet: then bytes in a ring come
		 * before what is on TCP.
		 */
		if (!known)
			*n = 0;
		return VMCOMM_NEXT_TCP;
	}

	if (!(rx->epoch & 1)) {
		epoch = vmcomm_load_acquire32(&theirs->epoch);
		if (epoch == rx->epoch)
			return VMCOMM_NEXT_TCP;
		x_seq = vmcomm_load32(&theirs->x_seq);
		if (vmcomm_conn_lost(conn))
			return vmcomm_rx_broken(conn, "device", n);
		if (vmcomm_load32(&theirs->gen) != VMCOMM_READ_ONCE(conn->peer_gen))
			return VMCOMM_NEXT_TCP; /* it let go of this CCB without entering a ring */
		if (epoch - rx->epoch > 2)
			return vmcomm_rx_broken(conn, "epoch", n);
		behind = x_seq - copied_seq;
		/*
		 * While it is in the ring nothing but a FIN follows x_seq on TCP. A peer that was
		 * set back to an earlier state of itself may say otherwise.
		 */
		if ((s32)behind < 0 || (epoch == rx->epoch + 1 && (s32)(rcv_nxt - x_seq) > 1))
			return vmcomm_rx_broken(conn, "x_seq", n);
		if (behind) {
			*n = cap < behind ? cap : behind;
			return VMCOMM_NEXT_TCP;
		}
		/*
		 * When it cannot be mapped for want of something here, the connection is lost, too:
		 * bytes that come later may be on TCP already. So a backend has to see to it before.
		 */
		if (vmcomm_rx_map(conn))
			return vmcomm_rx_broken(conn, "ring", n);
		vmcomm_rx_follow(conn);
	}
	/* A head that moves while we look is seen at the second look; one that moves back is a lie. */
	for (tries = 0; tries < 4; tries++) {
		avail = vmcomm_load_acquire64(&theirs->head) - rx->tail;
		if (avail > 1u << rx->shift)
			return vmcomm_rx_broken(conn, "head", n);
		if (avail) {
			*n = (u32)avail;
			return VMCOMM_NEXT_RING;
		}
		err = vmcomm_rx_exit(conn);
		if (err < 0)
			return vmcomm_rx_broken(conn, "p_pos", n);
		if (err) {
			/* rcv_nxt is older than this exit and any entry after it: still a bound */
			*n = cap;
			return VMCOMM_NEXT_TCP;
		}
		if (vmcomm_load_acquire64(&theirs->head) == rx->tail)
			break;
	}
	*n = 0;
	return VMCOMM_NEXT_WAIT;
}

/* As vmcomm_rx_next(), but nothing is entered or left: look at what is there, in its order. */
void vmcomm_rx_plan(struct vmcomm_conn *conn, u32 copied_seq, u32 rcv_nxt,
		    struct vmcomm_rx_plan *plan)
{
	struct vmcomm_rx *rx = &conn->rx;
	struct vmcomm_abi_ccb *theirs;
	u32 epoch, behind = 0, cap = rcv_nxt - copied_seq;
	u64 end, avail;
	bool known;

	memset(plan, 0, sizeof(*plan));
	if (rx->held_len) {
		behind = rx->held_at - copied_seq;
		if (cap < behind) {
			plan->before = cap;
			return;
		}
		plan->before = behind;
		plan->outside = rx->held_len - rx->held_off;
		plan->after = cap - behind;
		return;
	}
	plan->before = cap;
	if (!conn->pair || rx->drained || conn->broken)
		return;
	vmcomm_rmb();
	known = vmcomm_conn_find(conn);
	theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	if (!theirs) {
		if (!known || vmcomm_conn_lost(conn))
			plan->before = 0;
		return;
	}
	epoch = vmcomm_load_acquire32(&theirs->epoch);
	if (!(rx->epoch & 1)) {
		if (epoch == rx->epoch)
			return;
		if (epoch - rx->epoch > 2 ||
		    vmcomm_load32(&theirs->gen) != VMCOMM_READ_ONCE(conn->peer_gen))
			goto out;
		behind = vmcomm_load32(&theirs->x_seq) - copied_seq;
		if ((s32)behind < 0 || cap < behind)
			goto out;
		/* Nothing changes about the ring before we have followed the peer into it and out. */
		plan->before = behind;
		if (vmcomm_rx_map(conn))
			goto out;
	}
	plan->before = behind;
	end = epoch & 1 ? vmcomm_load_acquire64(&theirs->head) : vmcomm_load64(&theirs->p_pos);
	avail = end - rx->tail;
	if (avail > 1u << rx->shift)
		goto out;
	plan->outside = (u32)avail;
	if (!(epoch & 1))
		plan->after = cap - behind;
out:
	if (vmcomm_conn_lost(conn))
		memset(plan, 0, sizeof(*plan));
}

const u8 *vmcomm_rx_window(struct vmcomm_conn *conn, u32 off, u32 *len)
{
	struct vmcomm_rx *rx = &conn->rx;
	u32 size, at, avail;
	u64 in;

	if (rx->held_len) {
		avail = rx->held_len - rx->held_off;
		*len = off < avail ? avail - off : 0;
		return rx->held + rx->held_off + off;
	}
	*len = 0;
	if (!rx->ring)
		return NULL;
	size = 1u << rx->shift;
	in = vmcomm_load_acquire64(&conn->theirs->head) - rx->tail;
	if (in > size || off >= in)
		return NULL;
	at = (u32)(rx->tail + off) & (size - 1);
	avail = (u32)in - off;
	*len = avail < size - at ? avail : size - at;
	return rx->ring + at;
}

bool vmcomm_rx_intact(const struct vmcomm_conn *conn)
{
	return conn->rx.held_len || !conn->pair || !vmcomm_conn_lost(conn);
}

void vmcomm_rx_consume(struct vmcomm_conn *conn, u32 n)
{
	struct vmcomm_rx *rx = &conn->rx;
	u64 old, wake_at;

	if (rx->held_len) {
		VMCOMM_WRITE_ONCE(rx->held_off, rx->held_off + n);
		if (rx->held_off < rx->held_len)
			return;
		VMCOMM_WRITE_ONCE(rx->held_len, 0);
		VMCOMM_WRITE_ONCE(rx->held_off, 0);
		vmcomm_free_large(rx->held);
		rx->held = NULL;
		if (conn->rx_want) {
			vmcomm_conn_ready(conn);
			/* A sender may wait for TCP. */
			if (vmcomm_conn_attached(conn) && VMCOMM_READ_ONCE(conn->theirs))
				vmcomm_conn_tell(conn);
		}
		return;
	}
	old = rx->tail;
	VMCOMM_WRITE_ONCE(rx->tail, old + n);
	conn->ring_received += n;
	vmcomm_store64(&conn->mine->ring_received, conn->ring_received);
	vmcomm_store_release64(&conn->mine->tail, rx->tail);
	vmcomm_mb();
	wake_at = vmcomm_load64(&conn->theirs->snd_wake_at);
	if (vmcomm_passed64(wake_at, old, rx->tail))
		vmcomm_conn_tell(conn);
}

u32 vmcomm_rx_readable(struct vmcomm_conn *conn, u32 copied_seq)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	struct vmcomm_rx *rx = &conn->rx;
	u32 held = VMCOMM_READ_ONCE(rx->held_len), epoch;
	u64 in;

	if (held)
		return rx->held_at == copied_seq ? held - VMCOMM_READ_ONCE(rx->held_off) : 0;
	if (!vmcomm_conn_attached(conn) || !theirs || VMCOMM_READ_ONCE(rx->drained))
		return 0;
	epoch = VMCOMM_READ_ONCE(rx->epoch);
	/* The same conditions as in vmcomm_rx_next(): what is readable can be read. */
	if (!(epoch & 1) && (vmcomm_load_acquire32(&theirs->epoch) == epoch ||
			     vmcomm_load32(&theirs->gen) != VMCOMM_READ_ONCE(conn->peer_gen) ||
			     vmcomm_load32(&theirs->x_seq) != copied_seq))
		return 0;
	in = vmcomm_load_acquire64(&theirs->head) - VMCOMM_READ_ONCE(rx->tail);
	if (in > 1u << VMCOMM_RING_SHIFT_MAX)
		return 1; /* nonsense: let the reader find out */
	return (u32)in;
}

u32 vmcomm_rx_unread(struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	u32 n = VMCOMM_READ_ONCE(conn->rx.held_len) - VMCOMM_READ_ONCE(conn->rx.held_off);
	u64 in;

	if (!vmcomm_conn_attached(conn) || !theirs || VMCOMM_READ_ONCE(conn->rx.drained))
		return n;
	in = vmcomm_load_acquire64(&theirs->head) - VMCOMM_READ_ONCE(conn->rx.tail);
	return in <= 1u << VMCOMM_RING_SHIFT_MAX ? n + (u32)in : n;
}

/*
 * Publish where to be woken: at the first byte after those that are there. Return: true if bytes
 * came in between.
 *
 * Several threads may arm at once, with older and newer positions; the lock makes the one that
 * stores last the one that has seen the newest. It also keeps the half ours: conn_close() takes it.
 */
bool vmcomm_rx_arm_edge(struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs;
	bool moved = false;
	u64 head, tail;

	vmcomm_lock(&conn->arm_lock);
	if (!conn->pair)
		goto out;
	theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	tail = VMCOMM_READ_ONCE(conn->rx.tail);
	head = theirs ? vmcomm_load64(&theirs->head) : tail;
	if (head - tail > 1u << VMCOMM_RING_SHIFT_MAX)
		head = tail;
	vmcomm_store64(&conn->mine->rcv_wake_at, head);
	vmcomm_mb_seldom();
	theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	moved = theirs && vmcomm_load64(&theirs->head) != head;
out:
	vmcomm_unlock(&conn->arm_lock);
	return moved;
}

bool vmcomm_rx_arm(struct vmcomm_conn *conn, u32 copied_seq)
{
	if (vmcomm_conn_attached(conn))
		vmcomm_rx_arm_edge(conn);
	return vmcomm_rx_readable(conn, copied_seq) != 0 || vmcomm_rx_fin(conn);
}

bool vmcomm_rx_fin(struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);

	return vmcomm_conn_attached(conn) && theirs && vmcomm_load_acquire32(&theirs->fin) &&
	       vmcomm_load64(&theirs->head) == VMCOMM_READ_ONCE(conn->rx.tail);
}

bool vmcomm_conn_peer_closed(struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_LOAD_ACQUIRE(conn->theirs);
	struct vmcomm_pair *pair = VMCOMM_READ_ONCE(conn->pair);

	if (!pair)
		return true;
	if (VMCOMM_READ_ONCE(pair->state) != VMCOMM_PEER_UP)
		return true;
	return theirs && (vmcomm_load_acquire32(&theirs->state) == VMCOMM_CCB_CLOSED ||
			  vmcomm_load32(&theirs->gen) != VMCOMM_READ_ONCE(conn->peer_gen));
}

void vmcomm_conn_poll(struct vmcomm_conn *conn)
{
	struct vmcomm_rx *rx = &conn->rx;

	if (!conn->pair || !VMCOMM_READ_ONCE(conn->theirs) || conn->broken || rx->held_len ||
	    rx->drained || !(rx->epoch & 1))
		return;
	if (vmcomm_load_acquire64(&conn->theirs->head) == rx->tail)
		vmcomm_rx_exit(conn); /* an error shows up again when somebody reads */
}
