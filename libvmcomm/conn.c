// SPDX-License-Identifier: LGPL-2.1-or-later
/* conn.c - connections get and lose their CCBs (M5, M8) */
#include "conn.h"

void vmcomm_conn_init(struct vmcomm_conn *conn, u32 seq_local, u32 seq_remote, bool client)
{
	memset(conn, 0, sizeof(*conn));
	conn->seq_local = seq_local;
	conn->seq_remote = seq_remote;
	conn->client = client;
	conn->reason = VMCOMM_REASON_NEW;
	vmcomm_lock_init(&conn->arm_lock);
}

void vmcomm_conn_deinit(struct vmcomm_conn *conn)
{
	vmcomm_free_large(conn->rx.held);
	vmcomm_free_large(conn->tx.pend);
	conn->rx.held = NULL;
	conn->tx.pend = NULL;
}

static int vmcomm_conn_refuse(struct vmcomm_node *node, struct vmcomm_conn *conn,
			      enum vmcomm_reason reason, int err)
{
	VMCOMM_WRITE_ONCE(conn->reason, reason);
	vmcomm_node_reason(node, reason);
	return err;
}

/*
 * All that one end put into rings the other end took, whenever they are apart. If not, one of the
 * two was set back to an earlier state of itself (a snapshot was restored): TCP, whose sequence
 * numbers do not count those bytes, would not notice. node->lock held.
 */
static void vmcomm_conn_meet(struct vmcomm_conn *conn, struct vmcomm_abi_ccb *theirs)
{
	if (!conn->met || !(vmcomm_load32(&theirs->flags) & VMCOMM_CCB_F_MET)) {
		conn->met = true;
		conn->met_sent = conn->ring_sent;
		conn->met_received = conn->ring_received;
	} else if (vmcomm_load64(&theirs->met_received) != conn->ring_sent - conn->met_sent ||
		   vmcomm_load64(&theirs->met_sent) != conn->ring_received - conn->met_received) {
		VMCOMM_WRITE_ONCE(conn->broken, true);
		VMCOMM_WRITE_ONCE(conn->reason, VMCOMM_REASON_REVERTED);
		vmcomm_node_reason(conn->node, VMCOMM_REASON_REVERTED);
	}
}

/* Number and generation of the peer's half are there before the pointer to it. node->lock held. */
void vmcomm_conn_bind(struct vmcomm_conn *conn, struct vmcomm_abi_ccb *theirs, u32 idx, u32 gen)
{
	vmcomm_conn_meet(conn, theirs);
	conn->held_chunk = vmcomm_ccb_hold(conn->pair);
	VMCOMM_WRITE_ONCE(conn->peer_idx, idx);
	VMCOMM_WRITE_ONCE(conn->peer_gen, gen);
	VMCOMM_STORE_RELEASE(conn->theirs, theirs);
}

/*
 * node->lock held: a CCB with our half filled in, not yet visible to the peer. @old: the connection
 * has been there without one, and a VM may have been saved then: see vmcomm_tx_enter().
 */
static int vmcomm_conn_attach(struct vmcomm_pair *pair, struct vmcomm_conn *conn,
			      const struct vmcomm_conn_names *names, bool old)
{
	struct vmcomm_node *node = pair->node;
	struct vmcomm_abi_ccb *m;
	struct vmcomm_ccb *c;
	u32 idx, i;
	int err;

	err = vmcomm_ccb_alloc(pair, &idx);
	if (err)
		return vmcomm_conn_refuse(node, conn,
					  err == -EDQUOT ? VMCOMM_REASON_QUOTA :
					  err == -ENOMEM ? VMCOMM_REASON_GUEST_MEMORY :
							   VMCOMM_REASON_NO_CCB,
					  err);
	c = vmcomm_ccb_at(pair, idx);
	m = vmcomm_ccb_mine(pair, idx);

	/* A peer that still looks at the earlier use of this half sees the new generation first. */
	vmcomm_store32(&m->gen, c->gen);
	vmcomm_wmb();
	vmcomm_store32(&m->peer_idx, 0);
	vmcomm_store32(&m->peer_gen, 0);
	vmcomm_store32(&m->seq_local, conn->seq_local);
	vmcomm_store32(&m->seq_remote, conn->seq_remote);
	vmcomm_store32(&m->flags, (conn->client ? VMCOMM_CCB_F_CLIENT : 0) |
				  (conn->client && old ? VMCOMM_CCB_F_ADOPTED : 0) |
				  (conn->met ? VMCOMM_CCB_F_MET : 0) |
				  (conn->had_known ? VMCOMM_CCB_F_HAD : 0));
	vmcomm_store32(&m->tcp_had, conn->had);
	vmcomm_store32(&m->reason, VMCOMM_REASON_NEW);
	for (i = 0; i < 16; i++) {
		vmcomm_store8(&m->laddr[i], names->laddr[i]);
		vmcomm_store8(&m->raddr[i], names->raddr[i]);
	}
	vmcomm_store16(&m->lport, names->lport);
	vmcomm_store16(&m->rport, names->rport);
	vmcomm_store64(&m->head, 0);
	vmcomm_store64(&m->p_pos, 0);
	vmcomm_store32(&m->epoch, 0);
	vmcomm_store32(&m->x_seq, 0);
	vmcomm_store32(&m->ring_shift, 0);
	vmcomm_store32(&m->fin, 0);
	vmcomm_store64(&m->snd_wake_at, ~0ULL);
	vmcomm_store64(&m->tail, 0);
	/* Armed from the start: a reader that sleeps in TCP learns of the first ring byte. */
	vmcomm_store64(&m->rcv_wake_at, 0);
	vmcomm_store64(&m->final, 0);
	vmcomm_store32(&m->final_valid, 0);
	vmcomm_store32(&m->rx_epoch, 0);
	vmcomm_store32(&m->rx_ready, conn->rx_want && !conn->rx.held_len);
	vmcomm_store32(&m->sleeping, 0);
	vmcomm_store64(&m->tcp_sent, conn->tcp_sent);
	vmcomm_store64(&m->tcp_received, conn->tcp_received);
	vmcomm_store64(&m->ring_sent, conn->ring_sent);
	vmcomm_store64(&m->ring_received, conn->ring_received);
	vmcomm_store64(&m->met_sent, conn->ring_sent - conn->met_sent);
	vmcomm_store64(&m->met_received, conn->ring_received - conn->met_received);

	conn->tx.stalls = 0;
	VMCOMM_WRITE_ONCE(conn->tx.unsettled, false);
	conn->tx.behind = false;
	conn->tx.backoff = 0; /* memory that was short is another VM's matter, or another host's */
	conn->tx.first = node->has_tcp && (conn->met || old);
	conn->tx.first_seq_set = false;
	if (!conn->tx.want_shift)
		conn->tx.want_shift = node->ring_shift_first;
	conn->rx.ready = conn->rx_want && !conn->rx.held_len;
	conn->rx.map_count = 0;
	conn->closing = false;
	conn->idx = idx;
	conn->gen = c->gen;
	/* Pollers look without the owner's lock; who arms sees all of this or nothing. */
	vmcomm_lock(&conn->arm_lock);
	VMCOMM_WRITE_ONCE(conn->tx.head, 0);
	VMCOMM_WRITE_ONCE(conn->tx.tail, 0);
	VMCOMM_WRITE_ONCE(conn->tx.epoch, 0);
	VMCOMM_WRITE_ONCE(conn->tx.ring, NULL);
	VMCOMM_WRITE_ONCE(conn->tx.shift, 0);
	VMCOMM_WRITE_ONCE(conn->rx.tail, 0);
	VMCOMM_WRITE_ONCE(conn->rx.epoch, 0);
	VMCOMM_WRITE_ONCE(conn->rx.ring, NULL);
	VMCOMM_WRITE_ONCE(conn->rx.drained, false);
	VMCOMM_WRITE_ONCE(conn->node, node);
	VMCOMM_WRITE_ONCE(conn->theirs, NULL);
	conn->mine = m;
	vmcomm_wmb();
	VMCOMM_WRITE_ONCE(conn->pair, pair);
	vmcomm_unlock(&conn->arm_lock);
	c->conn = conn;
	pair->conns++;
	return 0;
}

static u32 vmcomm_offer_hash(u32 seq_client, u32 seq_server)
{
	u64 h = ((u64)seq_client << 32 | seq_server) * 0x9e3779b97f4a7c15ULL;

	return (u32)(h >> 40);
}

int vmcomm_conn_offer(struct vmcomm_node *node, u32 slot, struct vmcomm_conn *conn,
		      const struct vmcomm_conn_names *names, bool announce)
{
	struct vmcomm_pair *pair = node->pair[slot];
	struct vmcomm_ccb *c;
	u32 hash, i, b;
	int err;

	vmcomm_lock(&node->lock);
	if (conn->pair) {
		err = -EALREADY;
		goto out;
	}
	/* A VM that comes back may get the slot in which the peer was. */
	if (!pair || !node->up || node->leaving || pair->state != VMCOMM_PEER_UP) {
		err = vmcomm_conn_refuse(node, conn, VMCOMM_REASON_NO_PAIR, -ENOTCONN);
		goto out;
	}
	hash = vmcomm_offer_hash(conn->seq_local, conn->seq_remote);
	for (i = 0; i < VMCOMM_OFFER_PROBES; i++) {
		b = (hash + i) % VMCOMM_OFFERS;
		if (!pair->offer[b])
			break;
	}
	if (i == VMCOMM_OFFER_PROBES) {
		err = vmcomm_conn_refuse(node, conn, VMCOMM_REASON_OFFERS_FULL, -ENOSPC);
		goto out;
	}
	err = vmcomm_conn_attach(pair, conn, names, announce);
	if (err)
		goto out;
	c = vmcomm_ccb_at(pair, conn->idx);
	vmcomm_store_release32(&conn->mine->state, VMCOMM_CCB_OFFERED);
	pair->offer[b] = conn->idx + 1;
	c->offer = b + 1;
	vmcomm_store_release32(&pair->mine->offer[b], conn->idx + 1);
	vmcomm_node_count(node, VMCOMM_STAT_CONN_OPENED, 1);
	vmcomm_node_count(node, VMCOMM_STAT_CONN_OPEN, 1);
out:
	vmcomm_unlock(&node->lock);
	if (!err && announce)
		vmcomm_pair_notify(pair, VMCOMM_EVENT(VMCOMM_EVENT_OFFER, 0, conn->idx), true);
	return err;
}

/* node->lock held: number and generation of the peer's offer with this key */
static struct vmcomm_abi_ccb *vmcomm_offer_find(struct vmcomm_pair *pair, u32 seq_client,
						u32 seq_server, u32 *idx, u32 *gen)
{
	u32 hash = vmcomm_offer_hash(seq_client, seq_server), i, v;
	struct vmcomm_abi_ccb *theirs;

	for (i = 0; i < VMCOMM_OFFER_PROBES; i++) {
		v = vmcomm_load_acquire32(&pair->theirs->offer[(hash + i) % VMCOMM_OFFERS]);
		if (!v)
			continue;
		theirs = vmcomm_ccb_theirs(pair, v - 1);
		if (!theirs)
			continue;
		/* The same generation before and after: all that lies between is of one use of it. */
		*gen = vmcomm_load_acquire32(&theirs->gen);
		if (vmcomm_load_acquire32(&theirs->state) != VMCOMM_CCB_OFFERED ||
		    vmcomm_load32(&theirs->seq_local) != seq_client ||
		    vmcomm_load32(&theirs->seq_remote) != seq_server)
			continue;
		vmcomm_rmb();
		*idx = v - 1;
		if (*gen && vmcomm_load32(&theirs->gen) == *gen)
			return theirs;
	}
	return NULL;
}

int vmcomm_conn_accept(struct vmcomm_node *node, u32 slot, struct vmcomm_conn *conn,
		       const struct vmcomm_conn_names *names)
{
	struct vmcomm_pair *pair = node->pair[slot];
	struct vmcomm_abi_ccb *theirs;
	struct vmcomm_ccb *c;
	u32 idx, gen;
	int err;

	vmcomm_lock(&node->lock);
	/* A peer may offer again what was accepted already. */
	if (conn->pair) {
		err = -EALREADY;
		goto out;
	}
	/* A VM that comes back may get the slot in which the peer was. */
	if (!pair || !node->up || node->leaving || pair->state != VMCOMM_PEER_UP) {
		err = vmcomm_conn_refuse(node, conn, VMCOMM_REASON_NO_PAIR, -ENOTCONN);
		goto out;
	}
	theirs = vmcomm_offer_find(pair, conn->seq_remote, conn->seq_local, &idx, &gen);
	/*
	 * An offer that we accepted and let go of again is in the table until the peer has seen the
	 * accept. It will read from the half that we had then.
	 */
	if (!theirs && pair->look_again) {
		err = vmcomm_conn_refuse(node, conn, VMCOMM_REASON_NOT_MAPPED, -EAGAIN);
		goto out;
	}
	if (!theirs || (idx == conn->peer_idx && gen == conn->peer_gen)) {
		err = vmcomm_conn_refuse(node, conn, VMCOMM_REASON_NO_OFFER, -ENOENT);
		goto out;
	}
	err = vmcomm_conn_attach(pair, conn, names,
				 vmcomm_load32(&theirs->flags) & VMCOMM_CCB_F_ADOPTED);
	if (err)
		goto out;
	c = vmcomm_ccb_at(pair, conn->idx);
	c->accepted = 1;
	c->peer_idx = idx;
	c->peer_gen = gen;
	vmcomm_conn_bind(conn, theirs, idx, gen);
	vmcomm_store32(&conn->mine->peer_idx, idx);
	vmcomm_store32(&conn->mine->peer_gen, gen);
	vmcomm_store_release32(&conn->mine->state, VMCOMM_CCB_OPEN);
	vmcomm_node_count(node, VMCOMM_STAT_CONN_ACCEPTED, 1);
	vmcomm_node_count(node, VMCOMM_STAT_CONN_OPEN, 1);
	/*
	 * The peer finds this before it reads TCP again (vmcomm_rx_next()); no need to ring. Nor
	 * for a sender of the peer's: it looks before it sends. Without TCP somebody waits for it.
	 */
	vmcomm_pair_notify(pair, VMCOMM_EVENT(VMCOMM_EVENT_ACCEPT, idx, conn->idx),
			   !node->has_tcp);
out:
	vmcomm_unlock(&node->lock);
	return err;
}

int vmcomm_offer_read(struct vmcomm_node *node, u32 slot, u32 idx, u32 *seq_local, u32 *seq_remote)
{
	struct vmcomm_pair *pair = node->pair[slot];
	struct vmcomm_abi_ccb *theirs;
	int err = -ENOENT;

	vmcomm_lock(&node->lock);
	if (pair && node->up && pair->state == VMCOMM_PEER_UP) {
		theirs = vmcomm_ccb_theirs(pair, idx);
		if (theirs && vmcomm_load_acquire32(&theirs->state) == VMCOMM_CCB_OFFERED) {
			*seq_local = vmcomm_load32(&theirs->seq_remote);
			*seq_remote = vmcomm_load32(&theirs->seq_local);
			err = 0;
		}
	}
	vmcomm_unlock(&node->lock);
	return err;
}

int vmcomm_offer_names(struct vmcomm_node *node, u32 slot, u32 idx,
		       struct vmcomm_conn_names *names)
{
	struct vmcomm_pair *pair = node->pair[slot];
	struct vmcomm_abi_ccb *theirs;
	int err = -ENOENT;
	u32 i;

	vmcomm_lock(&node->lock);
	theirs = pair && node->up && pair->state == VMCOMM_PEER_UP ? vmcomm_ccb_theirs(pair, idx) :
								     NULL;
	if (theirs && vmcomm_load_acquire32(&theirs->state) == VMCOMM_CCB_OFFERED) {
		for (i = 0; i < 16; i++) {
			names->laddr[i] = vmcomm_load8(&theirs->raddr[i]);
			names->raddr[i] = vmcomm_load8(&theirs->laddr[i]);
		}
		names->lport = vmcomm_load16(&theirs->rport);
		names->rport = vmcomm_load16(&theirs->lport);
		err = 0;
	}
	vmcomm_unlock(&node->lock);
	return err;
}

void vmcomm_conn_ready(struct vmcomm_conn *conn)
{
	conn->rx_want = true;
	if (!conn->pair || conn->rx.ready || conn->rx.held_len)
		return;
	conn->rx.ready = true;
	vmcomm_store_release32(&conn->mine->rx_ready, 1);
}

void vmcomm_conn_unready(struct vmcomm_conn *conn)
{
	conn->rx_want = false;
	if (!conn->pair)
		return;
	conn->rx.ready = false;
	vmcomm_store_release32(&conn->mine->rx_ready, 0);
}

bool vmcomm_conn_close(struct vmcomm_conn *conn)
{
	struct vmcomm_pair *pair = conn->pair;
	struct vmcomm_node *node = conn->node;
	struct vmcomm_abi_ccb *theirs;
	bool unread = conn->rx.held_len > conn->rx.held_off;
	struct vmcomm_ccb *c;
	u64 event = 0, head;
	u32 gen;

	if (!pair)
		return unread;
	/* Accepted and written to while nobody looked? */
	vmcomm_conn_find(conn);
	vmcomm_lock(&node->lock);
	theirs = conn->theirs;
	/*
	 * CLOSED says that we read nothing after tail. A sender of the peer's stores head, and
	 * after a full barrier loads our state: either it sees CLOSED and puts what we did not
	 * take on TCP, or we see its head here.
	 */
	conn->closing = true;
	vmcomm_store_release32(&conn->mine->state, VMCOMM_CCB_CLOSED);
	vmcomm_mb_seldom();
	if (!theirs) {
		/* An accept may have come since, with bytes whose sender did not see CLOSED. */
		vmcomm_unlock(&node->lock);
		unread |= !vmcomm_conn_find(conn);
		vmcomm_lock(&node->lock);
		theirs = conn->theirs;
	}
	if (theirs) {
		head = vmcomm_load64(&theirs->head);
		gen = vmcomm_load32(&theirs->gen);
		if (head != conn->rx.tail && gen == VMCOMM_READ_ONCE(conn->peer_gen))
			unread = true;
		event = VMCOMM_EVENT(VMCOMM_EVENT_CONN, conn->peer_idx, 0);
	}
	conn->had_known = false;
	/* What we said last may not have got out: the peer would send again what we took already. */
	if (vmcomm_conn_lost(conn))
		conn->broken = unread = true;
	vmcomm_rx_unmap(conn);
	vmcomm_ccb_release(pair, conn->held_chunk);
	conn->held_chunk = 0;
	c = vmcomm_ccb_at(pair, conn->idx);
	c->conn = NULL;
	vmcomm_ccb_close(pair, conn->idx);
	pair->conns--;
	vmcomm_lock(&conn->arm_lock);
	VMCOMM_WRITE_ONCE(conn->theirs, NULL);
	VMCOMM_WRITE_ONCE(conn->pair, NULL);
	vmcomm_unlock(&conn->arm_lock);
	vmcomm_node_count(node, VMCOMM_STAT_CONN_CLOSED, 1);
	vmcomm_node_count(node, VMCOMM_STAT_CONN_OPEN, (u64)-1);
	/* The peer's end of the connection learns of it by TCP; its CCB can wait. */
	if (event)
		vmcomm_pair_notify(pair, event, !node->has_tcp);
	vmcomm_unlock(&node->lock);
	return unread;
}
