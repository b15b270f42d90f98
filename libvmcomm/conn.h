/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conn.h - one end of a connection: which path each byte takes, and when that changes
 *
 * A struct vmcomm_conn is embedded in the owner's own context (a wrapped socket) and lives as long
 * as that. While it is *attached* it has a CCB; leaving a host detaches it, arriving attaches it
 * again. Bytes that were taken out of a ring before they were read are *held* here, bytes that a
 * departed peer did not take are *pending* until they are on TCP.
 *
 * Unless said otherwise the owner's lock of the connection (in the guest: the socket lock) is held,
 * and nothing sleeps. Functions marked "lockless" may run at any time while the memory is mapped.
 *
 * TCP appears as numbers only: write_seq, the sequence number after the last byte given to TCP;
 * copied_seq, the next byte to be read from TCP; rcv_nxt, the next byte expected from the wire.
 */
#ifndef VMCOMM_CONN_H
#define VMCOMM_CONN_H

#include "node.h"

/* Where the next bytes go to or come from. */
enum vmcomm_next {
	VMCOMM_NEXT_TCP,    /* the kernel's own TCP */
	VMCOMM_NEXT_RING,   /* the ring */
	VMCOMM_NEXT_HELD,   /* rx: held bytes; tx: pending bytes must be put on TCP first */
	VMCOMM_NEXT_WAIT,   /* nothing now: sleep or EAGAIN */
	VMCOMM_NEXT_BROKEN, /* the peer wrote nonsense: reset the connection */
};

struct vmcomm_tx {
	u64 head;
	u64 tail; /* the peer's, as last read and checked */
	u32 epoch;
	u32 x_seq;
	u8 *ring;
	u32 shift;
	u32 want_shift; /* size for the next ring */
	u32 stalls;	/* times that the ring was found full since it was entered */
	bool unsettled; /* the last bytes may or may not have been taken by a peer that left */
	bool behind; /* bytes went to TCP after those in the ring */
	bool first;  /* attached anew: some bytes go over TCP before the ring is entered */
	bool first_seq_set;
	u32 first_seq; /* TCP's nxt when bytes were to be sent for the first time since */
	u32 backoff; /* attempts to get memory that are skipped */
	u8 *pend;
	u32 pend_len;
	u32 pend_off;
};

struct vmcomm_rx {
	u64 tail;
	u32 epoch; /* of the peer's direction, last one entered */
	const u8 *ring;
	u32 shift;
	u32 map_chunk; /* what to unmap */
	u32 map_count;
	bool drained; /* evicted, only the sending direction is not settled */
	bool ready; /* we told the peer that it may use its ring */
	u8 *held;
	u32 held_len;
	u32 held_off;
	u32 held_at; /* TCP sequence number that the held bytes come before */
};

struct vmcomm_conn {
	struct vmcomm_pair *pair; /* NULL: detached. Changes under owner's lock and node->lock. */
	struct vmcomm_node *node;
	u32 idx;
	u32 gen;
	struct vmcomm_abi_ccb *mine;
	struct vmcomm_abi_ccb *theirs; /* NULL until the peer accepted; under node->lock */
	u32 held_chunk; /* of the peer's, that theirs is in; for vmcomm_ccb_release() */
	u32 peer_idx;
	u32 peer_gen;
	u32 seq_local; /* key of the connection, for life */
	u32 seq_remote;
	bool client; /* this end makes the offers */
	bool broken;
	bool rx_want; /* the owner may read from a ring */
	bool atomic;  /* the owner cannot sleep for memory now */
	bool closing; /* our half says CLOSED; under node->lock */
	u32 reason;   /* why the sending direction is not in a ring */
	struct vmcomm_lock arm_lock;
	struct vmcomm_tx tx;
	struct vmcomm_rx rx;
	u64 tcp_sent, tcp_received, ring_sent, ring_received;
	bool had_known; /* said by the owner since it was detached last */
	u32 had;
	bool met; /* the peer's context and this one have been attached to each other before */
	u64 met_sent, met_received; /* ring_sent and ring_received when they were for the first time */
};

/* What a human wants to see of a connection; IPv6 or v4-mapped, host byte order ports. */
struct vmcomm_conn_names {
	u8 laddr[16];
	u8 raddr[16];
	u16 lport;
	u16 rport;
};

/**
 * vmcomm_conn_init() - a connection that is not in shared memory
 * @conn: to initialise
 * @seq_local, @seq_remote: this end's and the peer's first sequence numbers of data
 * @client: this end opened the connection and will make the offers
 */
void vmcomm_conn_init(struct vmcomm_conn *conn, u32 seq_local, u32 seq_remote, bool client);

/** vmcomm_conn_deinit() - free held and pending bytes; the connection must be detached */
void vmcomm_conn_deinit(struct vmcomm_conn *conn);

/**
 * vmcomm_conn_had() - how far TCP has brought the stream, to be said before each offer and accept (M11)
 * @rcv_nxt: TCP's, now
 *
 * The peer's sender enters a ring only when more than that is acknowledged. Owner's lock held; the
 * connection is detached.
 */
static inline void vmcomm_conn_had(struct vmcomm_conn *conn, u32 rcv_nxt)
{
	conn->had_known = true;
	conn->had = rcv_nxt;
}

/**
 * vmcomm_conn_offer() - offer shared memory for a connection to the VM in @slot (M5)
 * @announce: the connection is older than this moment at the peer: send it an event. Without it
 *	the peer finds the offer when it sees the connection's last handshake segment.
 *
 * From now on the owner must read TCP through vmcomm_rx_next() only. Context: any (softirq too).
 * Return: 0 or -errno with conn->reason telling why; the connection then simply stays on TCP.
 */
int vmcomm_conn_offer(struct vmcomm_node *node, u32 slot, struct vmcomm_conn *conn,
		      const struct vmcomm_conn_names *names, bool announce);

/**
 * vmcomm_conn_accept() - take the peer's offer for this connection, if there is one (M5)
 *
 * Same context and return as vmcomm_conn_offer(); -ENOENT: no offer; -EAGAIN: the peer's memory
 * is not mapped yet, struct vmcomm_conn_ops will report the offer later.
 */
int vmcomm_conn_accept(struct vmcomm_node *node, u32 slot, struct vmcomm_conn *conn,
		       const struct vmcomm_conn_names *names);

/**
 * vmcomm_offer_read() - the key in the peer's offer @idx
 * @seq_local, @seq_remote: result, as the accepting end has them
 * Return: 0 or -ENOENT. Context: any.
 */
int vmcomm_offer_read(struct vmcomm_node *node, u32 slot, u32 idx, u32 *seq_local,
		      u32 *seq_remote);

/**
 * vmcomm_offer_names() - names in the peer's offer @idx, as the accepting end has them
 *
 * For transports without TCP, where nothing else says which port is meant. Return: 0 or -ENOENT.
 * Context: any.
 */
int vmcomm_offer_names(struct vmcomm_node *node, u32 slot, u32 idx,
		       struct vmcomm_conn_names *names);

/** vmcomm_conn_ready() - the owner can take bytes from a ring now: tell the peer */
void vmcomm_conn_ready(struct vmcomm_conn *conn);

/** vmcomm_conn_unready() - the peer must not enter a ring again */
void vmcomm_conn_unready(struct vmcomm_conn *conn);

/**
 * vmcomm_conn_close() - the owner is done with both directions (M8)
 *
 * The bytes in our ring stay there until the peer has read them. Detaches. Context: may sleep, unless
 * conn->atomic, when it is not known yet whether the peer has accepted.
 * Return: true if the peer's ring held bytes that nobody will read now, or may have: TCP answers
 * that with a reset, so must the owner.
 */
bool vmcomm_conn_close(struct vmcomm_conn *conn);

/** vmcomm_conn_attached() - lockless hint */
static inline bool vmcomm_conn_attached(const struct vmcomm_conn *conn)
{
	return VMCOMM_READ_ONCE(conn->pair) != NULL;
}

/* --- sending --- */

/* Flags of vmcomm_tx_next() */
#define VMCOMM_TX_TCP 1 /* these bytes must go over TCP (urgent data, zero copy, ...) */

/**
 * vmcomm_tx_next() - which path the next bytes take (M6)
 * @write_seq: TCP's, with nothing corked before it
 * @nxt: TCP's: all before it was sent, some of it perhaps before the connection was attached
 * @una: TCP's: all before it is acknowledged
 *
 * Enters or leaves the ring as a side effect. WAIT: the peer is leaving and has not yet said how
 * far it read; @wake follows. Context: may sleep (HELD needs memory).
 *
 * When conn->tx.unsettled is set after a commit, or is still set at a @wake, the owner calls this once
 * more, though it has nothing else to send: the bytes that the peer did not take wait for it.
 */
enum vmcomm_next vmcomm_tx_next(struct vmcomm_conn *conn, u32 write_seq, u32 nxt, u32 una,
				u32 flags);

/**
 * vmcomm_tx_expect() - the owner is about to send @n bytes in one go
 *
 * A first ring is made for that, if memory is plenty, rather than grown to it by and by.
 */
void vmcomm_tx_expect(struct vmcomm_conn *conn, size_t n);

/**
 * vmcomm_tx_moved() - may an old connection enter a ring, as far as TCP is concerned? (M17)
 * @una: as for vmcomm_tx_next()
 *
 * A writer that waits for room in TCP's queue does not hear of it. Owner's lock held.
 */
bool vmcomm_tx_moved(const struct vmcomm_conn *conn, u32 una);

/** vmcomm_tx_first() - do bytes have to go over TCP, now that the VM arrived, before a ring is entered? */
static inline bool vmcomm_tx_first(const struct vmcomm_conn *conn, u32 write_seq)
{
	return conn->tx.first && conn->tx.first_seq_set && conn->tx.first_seq == write_seq;
}

/** vmcomm_tx_room() - bytes that fit into the ring now */
u32 vmcomm_tx_room(struct vmcomm_conn *conn);

/** vmcomm_tx_window() - where the next bytes go; @len: how many fit there in one piece */
u8 *vmcomm_tx_window(struct vmcomm_conn *conn, u32 *len);

/** vmcomm_tx_commit() - @n bytes were written into the window: publish them, wake the peer */
void vmcomm_tx_commit(struct vmcomm_conn *conn, u32 n);

/**
 * vmcomm_tx_exit() - go back to TCP (ring -> TCP needs no acknowledgement)
 * @reason: why
 */
void vmcomm_tx_exit(struct vmcomm_conn *conn, enum vmcomm_reason reason);

/**
 * vmcomm_tx_idle() - give the ring back if the peer has read all of it
 *
 * Return: true if the ring was left or freed.
 */
bool vmcomm_tx_idle(struct vmcomm_conn *conn);

/**
 * vmcomm_tx_arm() - ask for an event when @room bytes are free
 * Lockless. Return: true if that much is free already, or if the sender need not wait.
 */
bool vmcomm_tx_arm(struct vmcomm_conn *conn, u32 room);

/** vmcomm_tx_in_ring() - lockless: would bytes go into the ring? */
static inline bool vmcomm_tx_in_ring(const struct vmcomm_conn *conn)
{
	return vmcomm_conn_attached(conn) && (VMCOMM_READ_ONCE(conn->tx.epoch) & 1);
}

/**
 * vmcomm_tx_writable() - lockless: is at least an eighth of the ring free (or no ring in use)?
 *
 * Who looks again and again need not wait for as much as who wants to be woken, which costs a doorbell:
 * he arms for a third, as with TCP's queue.
 */
bool vmcomm_tx_writable(struct vmcomm_conn *conn);

/**
 * vmcomm_tx_enters() - lockless: would the next bytes enter a ring, as far as the peer is concerned?
 */
bool vmcomm_tx_enters(struct vmcomm_conn *conn);

/**
 * vmcomm_tx_grows() - lockless: will a sender that finds the ring full go to TCP for a larger one?
 */
bool vmcomm_tx_grows(const struct vmcomm_conn *conn);

/**
 * vmcomm_tx_detour() - lockless: was a ring left, and the peer has not followed yet?
 *
 * Or does one that may be entered wait for bytes on TCP to be acknowledged? All that is on TCP then has to
 * come over the network before the next ring is read, so the owner should not put too much there at a
 * time. @wake comes when the peer has followed, TCP's own when it acknowledges.
 */
bool vmcomm_tx_detour(struct vmcomm_conn *conn);

/** vmcomm_tx_unread() - lockless: bytes in the ring or pending that the peer has not read */
u32 vmcomm_tx_unread(struct vmcomm_conn *conn);

/**
 * vmcomm_tx_taken() - lockless: changes whenever the peer's program takes bytes of this direction
 *
 * Out of the ring, or from TCP: after an entry those that were sent before it come first.
 */
u64 vmcomm_tx_taken(struct vmcomm_conn *conn);

/** vmcomm_tx_pending() - bytes to be put on TCP before all others; vmcomm_tx_pended() takes them */
const u8 *vmcomm_tx_pending(struct vmcomm_conn *conn, u32 *len);
void vmcomm_tx_pended(struct vmcomm_conn *conn, u32 n);

/* --- receiving --- */

/**
 * vmcomm_rx_next() - where the next bytes come from (M7)
 * @copied_seq: TCP's
 * @rcv_nxt: TCP's, read *before* this call and no later than @copied_seq
 * @n: result. TCP: read at most so many bytes from TCP; 0: there is nothing to read now (and a
 *	read of 0 bytes would look like end of file: look at the socket's state instead).
 *	RING, HELD: bytes available, at least 1.
 *
 * Context: may sleep where memory of peers is mapped late, unless conn->atomic.
 */
enum vmcomm_next vmcomm_rx_next(struct vmcomm_conn *conn, u32 copied_seq, u32 rcv_nxt, u32 *n);

/* The stream as it can be seen now: bytes on TCP, then outside of it, then on TCP again. */
struct vmcomm_rx_plan {
	u32 before;  /* on TCP, from copied_seq on */
	u32 outside; /* in the ring or held */
	u32 after;   /* on TCP again, from copied_seq + before on; a FIN may count as one */
};

/**
 * vmcomm_rx_plan() - what can be read now, without taking any of it (MSG_PEEK)
 * @copied_seq, @rcv_nxt: as for vmcomm_rx_next(), which must have been called just before
 * @plan: result; vmcomm_rx_window() gives the bytes outside
 */
void vmcomm_rx_plan(struct vmcomm_conn *conn, u32 copied_seq, u32 rcv_nxt,
		    struct vmcomm_rx_plan *plan);

/** vmcomm_rx_head() - lockless: changes whenever bytes came into the peer's ring */
static inline u64 vmcomm_rx_head(const struct vmcomm_conn *conn)
{
	struct vmcomm_abi_ccb *theirs = VMCOMM_READ_ONCE(conn->theirs);

	return vmcomm_conn_attached(conn) && theirs ? vmcomm_load64(&theirs->head) : 0;
}

/**
 * vmcomm_rx_window() - bytes of the ring, or held bytes, @off bytes after the next one
 * @len: result, how many are there in one piece (0: no more)
 */
const u8 *vmcomm_rx_window(struct vmcomm_conn *conn, u32 off, u32 *len);

/**
 * vmcomm_rx_intact() - are the bytes that were just copied out of the window the peer's?
 *
 * To be asked after the copy and before anybody gets it. False: the device was taken away
 * meanwhile, and they may be ones: give nobody these bytes, reset the connection.
 */
bool vmcomm_rx_intact(const struct vmcomm_conn *conn);

/** vmcomm_rx_consume() - @n bytes of the window were read for good */
void vmcomm_rx_consume(struct vmcomm_conn *conn, u32 n);

/**
 * vmcomm_rx_arm() - ask for an event when bytes come; lockless
 * @copied_seq: TCP's
 * Return: true if bytes are there already.
 */
bool vmcomm_rx_arm(struct vmcomm_conn *conn, u32 copied_seq);

/**
 * vmcomm_rx_arm_edge() - ask for an event when bytes come after those that are there now; lockless
 *
 * For edge-triggered waiters, who want to hear of each arrival. Return: true if bytes came while
 * asking: tell them at once.
 */
bool vmcomm_rx_arm_edge(struct vmcomm_conn *conn);

/** vmcomm_rx_readable() - lockless: bytes outside of TCP that can be read now */
u32 vmcomm_rx_readable(struct vmcomm_conn *conn, u32 copied_seq);

/**
 * vmcomm_rx_unread() - lockless: bytes outside of TCP that will be read sooner or later
 *
 * Includes those that come after bytes on TCP that have not been read.
 */
u32 vmcomm_rx_unread(struct vmcomm_conn *conn);

/** vmcomm_conn_poll() - acknowledge an exit of the peer's; after a wake when nobody reads */
void vmcomm_conn_poll(struct vmcomm_conn *conn);

/* --- inside the core --- */

void vmcomm_conn_bind(struct vmcomm_conn *conn, struct vmcomm_abi_ccb *theirs, u32 idx, u32 gen);

/* The peer has to look at its half. */
static inline void vmcomm_conn_tell(struct vmcomm_conn *conn)
{
	u32 idx = VMCOMM_READ_ONCE(conn->peer_idx);

	vmcomm_pair_notify(conn->pair, VMCOMM_EVENT(VMCOMM_EVENT_CONN, idx, 0), true);
}

void vmcomm_rx_unmap(struct vmcomm_conn *conn);
int vmcomm_rx_map(struct vmcomm_conn *conn);
bool vmcomm_conn_resolve(struct vmcomm_conn *conn);
bool vmcomm_conn_find(struct vmcomm_conn *conn);

/*
 * Has the device been taken away without a word, so that all that was read from it before may have
 * been ones? Our own half is there for as long as we are attached, and no half has this generation.
 */
static inline bool vmcomm_conn_lost(const struct vmcomm_conn *conn)
{
	vmcomm_rmb();
	return vmcomm_load32(&conn->mine->gen) == VMCOMM_GEN_LOST;
}
int vmcomm_tx_settle(struct vmcomm_conn *conn, bool gone);

/* --- transports without TCP underneath --- */

/** vmcomm_tx_fin() - nothing will follow */
void vmcomm_tx_fin(struct vmcomm_conn *conn);
/** vmcomm_rx_fin() - lockless: has the peer said so (and has all before it been read)? */
bool vmcomm_rx_fin(struct vmcomm_conn *conn);
/** vmcomm_conn_peer_closed() - lockless: the peer let go of the connection, or is gone */
bool vmcomm_conn_peer_closed(struct vmcomm_conn *conn);

/* --- leaving (leave.c); the order is in docs/architecture.md, "Leave" --- */

/** vmcomm_conn_freeze() - stop the own sender: it uses TCP from now on */
void vmcomm_conn_freeze(struct vmcomm_conn *conn);

/**
 * vmcomm_conn_evict() - take the connection out of shared memory
 * @copied_seq: TCP's
 * @gone: the peer is dead: nothing of it will change any more
 *
 * Takes all that the peer put into its ring into the held bytes, says how far it read, finds out
 * which of the own bytes the peer took, and detaches. Context: may sleep.
 *
 * Return: 0: detached. -EAGAIN: the peer, which leaves too, has not said how far it read: ask
 * again. -ENOMEM: nothing changed, ask again. -EPROTO: the peer wrote nonsense; detached; reset
 * the connection.
 */
int vmcomm_conn_evict(struct vmcomm_conn *conn, u32 copied_seq, bool gone);

/** vmcomm_node_leave_begin() - no new connections, nobody may be up in the middle of one */
void vmcomm_node_leave_begin(struct vmcomm_node *node);
/** vmcomm_node_leave_publish() - all own senders are frozen: tell all peers */
void vmcomm_node_leave_publish(struct vmcomm_node *node);
/** vmcomm_node_leave_done() - all connections were evicted: tell all peers */
void vmcomm_node_leave_done(struct vmcomm_node *node);
/** vmcomm_node_leave_answered() - have all peers read our bytes? For waiting with a deadline. */
bool vmcomm_node_leave_answered(struct vmcomm_node *node);
/**
 * vmcomm_pair_released() - all connections of a pair that left or is gone were evicted
 *
 * Return: 0; -EAGAIN: some were not, or the peer is not through with its leave and may still read
 * our memory: ask again.
 */
int vmcomm_pair_released(struct vmcomm_node *node, u32 slot);

#endif
