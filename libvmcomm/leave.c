// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * leave.c - taking connections out of shared memory, with or without the peer's help (M16, M19)
 *
 * The order for a VM L that leaves (tests/model/ has it checked exhaustively):
 *
 *   vmcomm_node_leave_begin()    no new connections
 *   vmcomm_conn_freeze()         each connection: own senders leave their rings, p_pos is published
 *   vmcomm_node_leave_publish()  LEFT; full barrier
 *   vmcomm_conn_evict()          each: load the peer's head, take all up to it, publish final
 *   vmcomm_node_leave_done()     all finals are there
 *   vmcomm_node_leave_answered() wait, up to one deadline, until the peers have read our rings
 *
 * A peer P that sees LEFT evicts its connections with L and calls vmcomm_pair_released(). P's
 * sender stores head, and after a full barrier loads LEFT: if it is not set, L sees that head and
 * takes the bytes; if it is set, P waits for final and sends the rest over TCP.
 */
#include "conn.h"

void vmcomm_conn_freeze(struct vmcomm_conn *conn)
{
	vmcomm_conn_unready(conn);
	vmcomm_tx_exit(conn, VMCOMM_REASON_LEFT);
}

/* Take what is in the peer's ring into the held bytes, at its place in the stream. */
static int vmcomm_rx_drain(struct vmcomm_conn *conn, u32 copied_seq)
{
	struct vmcomm_abi_ccb *theirs = conn->theirs;
	struct vmcomm_rx *rx = &conn->rx;
	u32 epoch, at = copied_seq, size, pos, first, n, gen;
	u64 head;
	u8 *held;
	int err;

	/* head first: the epoch in which a byte was written is visible no later than the byte. */
	head = vmcomm_load_acquire64(&theirs->head);
	epoch = vmcomm_load_acquire32(&theirs->epoch);
	gen = vmcomm_load32(&theirs->gen);
	if (gen != VMCOMM_READ_ONCE(conn->peer_gen))
		return 0; /* it let go before it entered a ring */
	if (head == rx->tail)
		return 0;
	if (rx->held_len)
		return -EPROTO; /* we were not ready: it must not have entered */
	if (!(rx->epoch & 1)) {
		if (epoch - rx->epoch != 1 && epoch - rx->epoch != 2)
			return -EPROTO;
		at = vmcomm_load32(&theirs->x_seq);
		if ((s32)(at - copied_seq) < 0)
			return -EPROTO;
		err = vmcomm_rx_map(conn);
		if (err)
			return err == -EPROTO ? err : -ENOMEM; /* later, perhaps */
	}
	size = 1u << rx->shift;
	if (head - rx->tail > size)
		return -EPROTO;
	n = (u32)(head - rx->tail);
	held = conn->atomic ? vmcomm_alloc(n) : vmcomm_alloc_large(n);
	if (!held)
		return -ENOMEM;
	pos = (u32)rx->tail & (size - 1);
	first = size - pos < n ? size - pos : n;
	vmcomm_copy_from_shared(held, rx->ring + pos, first);
	vmcomm_copy_from_shared(held + first, rx->ring, n - first);
	rx->held = held;
	VMCOMM_WRITE_ONCE(rx->held_off, 0);
	VMCOMM_WRITE_ONCE(rx->held_at, at);
	VMCOMM_WRITE_ONCE(rx->held_len, n);
	VMCOMM_WRITE_ONCE(rx->tail, head);
	conn->ring_received += n;
	vmcomm_node_count(conn->node, VMCOMM_STAT_RX_HELD_BYTES, n);
	return 0;
}

int vmcomm_conn_evict(struct vmcomm_conn *conn, u32 copied_seq, bool gone)
{
	struct vmcomm_pair *pair = conn->pair;
	bool want = conn->rx_want, first = !conn->rx.drained;
	int err = 0;

	if (!pair)
		return 0;
	/*
	 * Stop the peer's sender before its head is read, as LEFT does for all connections: this
	 * may be the only one that goes. final_valid set later would come too late for its last put.
	 */
	if (first) {
		vmcomm_store32(&conn->mine->final_valid, VMCOMM_FINAL_STOP);
		vmcomm_mb_seldom();
	}
	if (!VMCOMM_READ_ONCE(conn->theirs) && !vmcomm_conn_find(conn) && !vmcomm_conn_lost(conn))
		return -ENOMEM;
	if (VMCOMM_READ_ONCE(conn->theirs) && !conn->rx.drained && !conn->broken) {
		err = vmcomm_rx_drain(conn, copied_seq);
		if (err == -ENOMEM)
			return err;
		/* Without the device nobody will ever know what was in there. */
		if (err || vmcomm_conn_lost(conn))
			conn->broken = true;
	}
	VMCOMM_WRITE_ONCE(conn->rx.drained, true);
	vmcomm_store64(&conn->mine->tail, conn->rx.tail);
	vmcomm_store64(&conn->mine->final, conn->rx.tail);
	vmcomm_store_release32(&conn->mine->final_valid, VMCOMM_FINAL_VALID);
	/*
	 * A sender of the peer's may sleep for room, or until it knows how far we read. When the
	 * whole pair goes, its evictions wake all of them.
	 */
	if (first && VMCOMM_READ_ONCE(conn->theirs) && VMCOMM_READ_ONCE(pair->state) == VMCOMM_PEER_UP &&
	    !VMCOMM_READ_ONCE(conn->node->leaving))
		vmcomm_conn_tell(conn);

	vmcomm_tx_exit(conn, gone ? VMCOMM_REASON_PEER_GONE :
			   conn->node->leaving ? VMCOMM_REASON_LEFT : VMCOMM_REASON_PEER_LEFT);
	if (VMCOMM_READ_ONCE(conn->theirs) && !conn->broken && (conn->tx.unsettled || gone)) {
		err = vmcomm_tx_settle(conn, gone);
		if (err == -EAGAIN || err == -ENOMEM)
			return err;
		if (err)
			conn->broken = true;
	}
	vmcomm_conn_close(conn);
	conn->rx_want = want;
	return conn->broken ? -EPROTO : 0;
}

void vmcomm_node_leave_begin(struct vmcomm_node *node)
{
	vmcomm_lock(&node->lock);
	VMCOMM_WRITE_ONCE(node->leaving, 1);
	vmcomm_unlock(&node->lock);
	vmcomm_store32(&node->page->state, VMCOMM_VM_LEAVING);
	vmcomm_node_count(node, VMCOMM_STAT_LEAVES, 1);
}

static void vmcomm_node_ring_all(struct vmcomm_node *node)
{
	u32 i;

	for (i = 0; i < node->lay.slots; i++)
		if (node->pair[i] && node->pair[i]->state >= VMCOMM_PEER_HELLO)
			node->backend->doorbell(node, i, VMCOMM_VECTOR_EVENT);
}

void vmcomm_node_leave_publish(struct vmcomm_node *node)
{
	u32 i;

	for (i = 0; i < node->lay.slots; i++)
		if (node->pair[i])
			vmcomm_store_release32(&node->pair[i]->mine->state, VMCOMM_PAIR_LEFT);
	vmcomm_mb_seldom();
	vmcomm_node_ring_all(node);
}

void vmcomm_node_leave_done(struct vmcomm_node *node)
{
	u32 i;

	for (i = 0; i < node->lay.slots; i++)
		if (node->pair[i])
			vmcomm_store_release32(&node->pair[i]->mine->leave_done, 1);
	vmcomm_mb_seldom();
	vmcomm_node_ring_all(node);
}

bool vmcomm_node_leave_answered(struct vmcomm_node *node)
{
	struct vmcomm_location loc;
	bool all = true;
	u32 i;

	vmcomm_lock(&node->lock);
	for (i = 0; all && i < node->lay.slots; i++) {
		struct vmcomm_pair *pair = node->pair[i];

		if (!pair || pair->state < VMCOMM_PEER_UP)
			continue;
		if (vmcomm_load_acquire64(&pair->theirs->leave_ack) == node->incarnation ||
		    vmcomm_load64(&pair->theirs->incarnation) != pair->peer_inc)
			continue;
		if (!node->backend->location(node, i, &loc) && loc.state != VMCOMM_SLOT_LIVE)
			continue;
		/*
		 * A peer that left, too, has taken all that we had for it; one that names nobody, or
		 * somebody else, was never up with us or has let go.
		 */
		if (vmcomm_load_acquire32(&pair->theirs->leave_done) ||
		    vmcomm_load64(&pair->theirs->peer_incarnation) != node->incarnation)
			continue;
		all = false;
	}
	vmcomm_unlock(&node->lock);
	return all;
}
