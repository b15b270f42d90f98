/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * protocol.h - how vmcommd steers the region keeper of a group
 *
 * Unix socket DIR/keeper.sock, SOCK_SEQPACKET, mode 0600; the keeper accepts root and its own user.
 * Both ends are on one machine: numbers in its byte order. Every message begins with a header;
 * each operation has one exact size for its request and one for its reply. A request of a wrong
 * size is answered with -EBADMSG, an unknown operation with -EOPNOTSUPP: that is how a newer vmcommd
 * finds out what an older keeper can do. Requests are answered in order. Events come in
 * between, with serial 0.
 *
 * The keeper is the only one on the host that writes to the region. It keeps its own copy of every
 * row of the location table and refuses changes that contradict what it sees itself:
 *
 *   QEMU connected to the slot's socket and has its handshake   JOINING -> LIVE
 *   QEMU's connection ended                                     JOINING, LIVE -> GONE
 *                                                               LEAVING -> LEFT
 *
 * so that the members learn of a death also while vmcommd is away. After each change of a row it
 * rings VMCOMM_VECTOR_HOST of every other connected slot.
 *
 * Files in DIR: keeper.sock, keeper.pid (locked while the keeper lives), and slot-N.sock for each
 * slot that is open and free: the path is unlinked while a QEMU is connected, because a QEMU that
 * connects and gets no answer, or half of one, spins for ever.
 *
 * Doorbells of guests to peer number SLOTS, the host: vector 0 is vmcommd's, vector 1 the keeper's
 * ("look at my reclaim words").
 */
#ifndef VMCOMM_KEEPER_PROTOCOL_H
#define VMCOMM_KEEPER_PROTOCOL_H

#include <stdint.h>

#include "location.h"

#define VMCOMM_KEEPER_PROTOCOL 1
#define VMCOMM_KEEPER_CLIENTS  8 /* connections to the admin socket at a time */

enum vmcomm_keeper_op {
	VMCOMM_KEEPER_HELLO = 1,  /* hello -> hello */
	VMCOMM_KEEPER_GET_MEMORY, /* header -> header and the memfd */
	VMCOMM_KEEPER_GET_EVENTS, /* header (slot, or SLOTS for the host's) -> header, VECTORS fds */
	/*
	 * A new occupant: zeroes the slot's memory, writes the row (state JOINING, a new
	 * generation), binds the socket. row -> header; -EBUSY: the slot is not FREE.
	 */
	VMCOMM_KEEPER_OPEN,
	/*
	 * Make the slot FREE: unbind its socket, give its memory back. header -> header; -EBUSY:
	 * a QEMU is connected.
	 */
	VMCOMM_KEEPER_CLOSE,
	/*
	 * Change the row of the occupant that row.generation names: location number, addresses,
	 * and state by the arrows of group.h. row -> header; -ESTALE: another generation lives
	 * there; -EINVAL: no such arrow.
	 */
	VMCOMM_KEEPER_SET_ROW,
	VMCOMM_KEEPER_POLICY, /* policy -> header */
	VMCOMM_KEEPER_STATUS, /* header -> status */
	/* End the keeper. header -> header; -EBUSY: a QEMU is connected (slot 1: even so). */
	VMCOMM_KEEPER_SHUTDOWN,

	VMCOMM_KEEPER_EVENT_CONNECTED = 64, /* status */
	VMCOMM_KEEPER_EVENT_DISCONNECTED,   /* status */
};

struct vmcomm_keeper_header {
	uint32_t op;
	uint32_t serial; /* the reply carries the request's */
	uint32_t slot;
	int32_t result; /* 0 or a negative errno, in replies */
};

struct vmcomm_keeper_hello {
	struct vmcomm_keeper_header h;
	uint32_t protocol; /* the sender's */
	uint32_t slots;
	uint32_t vectors;
	uint32_t chunk_shift;
	uint64_t size;
	uint64_t epoch;
	uint32_t pid;
	uint32_t pad;
	char gid[VMCOMM_GID_MAX];
};

struct vmcomm_keeper_row {
	struct vmcomm_keeper_header h;
	/* Owner of the slot's socket; (uint32_t)-1: leave as it is. Only used by OPEN. */
	uint32_t uid;
	uint32_t gid;
	struct vmcomm_location row;
};

struct vmcomm_keeper_policy {
	struct vmcomm_keeper_header h;
	uint32_t count;
	uint32_t pad;
	struct vmcomm_abi_policy policy[VMCOMM_POLICY_MAX];
};

struct vmcomm_keeper_status {
	struct vmcomm_keeper_header h;
	uint32_t open;	    /* the socket path is there */
	uint32_t connected; /* a QEMU has the region */
	uint32_t pid;	    /* its credentials */
	uint32_t uid;
	uint32_t gid;
	uint32_t decoys; /* connections that came too late and got an empty region */
	struct vmcomm_location row;
};

union vmcomm_keeper_any {
	struct vmcomm_keeper_header h;
	struct vmcomm_keeper_hello hello;
	struct vmcomm_keeper_row row;
	struct vmcomm_keeper_policy policy;
	struct vmcomm_keeper_status status;
};

#endif
