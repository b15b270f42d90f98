/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * abi.h - what two VMs and their host agree on in shared memory
 *
 * All numbers are little-endian and of fixed width. Every word has exactly one writer, named at
 * each struct: "host" (vmcommd or the region keeper) or "owner" (the VM in whose area the word
 * lies). Nothing here is trusted by a reader: words are read once, bounded, and kept privately.
 *
 *   offset 0        struct vmcomm_abi_header                      host
 *   table_off       struct vmcomm_abi_location[slots]             host
 *   reclaim_off     le32[slots][chunks_per_slot]                  host   (acknowledged reclaims)
 *   ctl_off         slots * ctl_stride                            owner  (control areas)
 *   heap_off        slots * slice_size                            owner  (chunks)
 *
 * A control area:
 *   0x00000         struct vmcomm_abi_slot                        what only the host reads
 *   0x01000         le32 reclaim[chunks_per_slot]                 asks the host for hole punching
 *   0x10000         struct vmcomm_abi_plain[VMCOMM_PLAIN_MAX]     connections on plain TCP
 *   0x20000         struct vmcomm_abi_pair[slots]                 two pages for each peer
 *
 * What a peer needs is in the pair pages and in chunks owned for that peer only, so that a
 * transport with per-peer sharing (Xen grants) can share exactly these and nothing else.
 */
#ifndef VMCOMM_ABI_H
#define VMCOMM_ABI_H

#ifdef __KERNEL__
#include <linux/types.h>
typedef __le16 vmcomm_le16;
typedef __le32 vmcomm_le32;
typedef __le64 vmcomm_le64;
typedef __u8 vmcomm_u8;
#define VMCOMM_ABI_ASSERT(cond) _Static_assert(cond, #cond)
#else
#include <stdint.h>
typedef uint16_t vmcomm_le16;
typedef uint32_t vmcomm_le32;
typedef uint64_t vmcomm_le64;
typedef uint8_t vmcomm_u8;
#define VMCOMM_ABI_ASSERT(cond) _Static_assert(cond, #cond)
#endif

#define VMCOMM_ABI_MAGIC 0x316d6d6f636d7600ULL /* "\0vmcomm1" */
/* A different major is refused; a larger minor only adds words at the ends of areas. */
#define VMCOMM_ABI_MAJOR 1
#define VMCOMM_ABI_MINOR 0

#define VMCOMM_PAGE	      4096
#define VMCOMM_SLOTS_MAX      64 /* VMs in one group */
#define VMCOMM_ADDRS_MAX      8	 /* addresses of one VM */
#define VMCOMM_POLICY_MAX     64
#define VMCOMM_CHUNK_SHIFT_MIN 16
#define VMCOMM_CHUNK_SHIFT_MAX 18
#define VMCOMM_CHUNKS_MAX     8192 /* of one slot */
#define VMCOMM_CTL_RECLAIM    0x01000
#define VMCOMM_CTL_PLAIN      0x10000
#define VMCOMM_CTL_PAIR	      0x20000
#define VMCOMM_PLAIN_MAX      1024
#define VMCOMM_STATS_MAX      64
#define VMCOMM_REASONS_MAX    96
#define VMCOMM_GID_MAX	      64 /* with its NUL */
#define VMCOMM_REGION_MIN     (1ULL << 22)
#define VMCOMM_REGION_MAX     (1ULL << 36)

/* Doorbell vectors. A VM with fewer vectors than this uses number % count. */
#define VMCOMM_VECTOR_EVENT 0 /* look at your event queues */
#define VMCOMM_VECTOR_HOST  1 /* look at the location table */
#define VMCOMM_VECTORS	    4

/* An excluded port range or address: connections that match stay on TCP. Writer: host. */
struct vmcomm_abi_policy {
	vmcomm_u8 addr[16];   /* IPv6 or v4-mapped; with prefix 0: any */
	vmcomm_u8 prefix;     /* 0 to 128 */
	vmcomm_u8 pad[3];
	vmcomm_le16 port_min; /* either end's port; 0 to 65535: any */
	vmcomm_le16 port_max;
};
VMCOMM_ABI_ASSERT(sizeof(struct vmcomm_abi_policy) == 24);

/* Writer: host. Only policy_* changes after creation. */
struct vmcomm_abi_header {
	vmcomm_le64 magic;
	vmcomm_le32 abi_major;
	vmcomm_le32 abi_minor;
	vmcomm_le64 region_size; /* bytes, a power of two */
	vmcomm_le32 slots;	 /* 2 to VMCOMM_SLOTS_MAX */
	vmcomm_le32 chunk_shift;
	vmcomm_le64 table_off;
	vmcomm_le64 reclaim_off;
	vmcomm_le64 ctl_off;
	vmcomm_le64 ctl_stride;
	vmcomm_le64 heap_off;
	vmcomm_le64 slice_size;	 /* bytes of heap of one slot, a multiple of the chunk size */
	vmcomm_le64 group_epoch; /* random, one for each life of the group's memory */
	vmcomm_u8 gid[VMCOMM_GID_MAX];
	vmcomm_le32 policy_seq; /* odd while the policy is being written */
	vmcomm_le32 policy_count;
	vmcomm_u8 pad[352];
	struct vmcomm_abi_policy policy[VMCOMM_POLICY_MAX]; /* at 512 */
	vmcomm_u8 pad2[2048];
};
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_header, policy) == 512);
VMCOMM_ABI_ASSERT(sizeof(struct vmcomm_abi_header) == VMCOMM_PAGE);

enum vmcomm_slot_state {
	VMCOMM_SLOT_FREE,
	VMCOMM_SLOT_JOINING, /* admitted, device not seen yet */
	VMCOMM_SLOT_LIVE,
	VMCOMM_SLOT_LEAVING, /* asked to leave */
	VMCOMM_SLOT_LEFT,    /* in quarantine: memory readable, nobody runs in it */
	VMCOMM_SLOT_GONE,    /* as LEFT, but the VM died without a word */
};

/* The location table (M14). Writer: host. One row for each slot. */
struct vmcomm_abi_location {
	vmcomm_le32 seq;	/* odd while the row is being written */
	vmcomm_le32 state;	/* enum vmcomm_slot_state */
	vmcomm_le64 generation; /* counts the occupants of the slot */
	vmcomm_le64 location;	/* the location number; 0: none */
	vmcomm_u8 vm_id[16];	/* UUID */
	vmcomm_le32 addr_count;
	vmcomm_le32 vectors;	/* doorbell vectors of its device */
	vmcomm_u8 addr[VMCOMM_ADDRS_MAX][16]; /* IPv6 or v4-mapped, from the host's configuration */
	vmcomm_u8 pad[80];
};
VMCOMM_ABI_ASSERT(sizeof(struct vmcomm_abi_location) == 256);

enum vmcomm_vm_state {
	VMCOMM_VM_DOWN,
	VMCOMM_VM_UP,
	VMCOMM_VM_LEAVING, /* quiescing */
	VMCOMM_VM_LEFT,	   /* quiesced: the device may go */
	VMCOMM_VM_LEAVE_FAILED, /* a peer stopped in the middle of its own leave: try again */
};

/* First page of a control area. Writer: owner; reader: host. */
struct vmcomm_abi_slot {
	vmcomm_le64 incarnation; /* random, new at each attach and each boot; 0: nobody */
	vmcomm_le32 abi_major;
	vmcomm_le32 abi_minor;
	vmcomm_le32 features;
	vmcomm_le32 state;	 /* enum vmcomm_vm_state */
	vmcomm_le64 generation;	 /* of the location row that the VM works with */
	vmcomm_le64 location;	 /* the VM's copy of its location number (M3) */
	vmcomm_le64 heartbeat;	 /* counts once a second while the module runs */
	vmcomm_le32 pad0;
	vmcomm_le32 plain_count; /* rows in use of the plain table, may exceed its size */
	vmcomm_u8 system[64];	 /* for humans: kernel release, NUL padded */
	vmcomm_u8 version[32];	 /* for humans: module version */
	vmcomm_u8 pad[360];
	vmcomm_le64 stat[VMCOMM_STATS_MAX];	/* at 512, enum vmcomm_stat */
	vmcomm_le64 reason[VMCOMM_REASONS_MAX]; /* at 1024, enum vmcomm_reason */
	vmcomm_u8 pad2[2304];
};
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_slot, stat) == 512);
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_slot, reason) == 1024);
VMCOMM_ABI_ASSERT(sizeof(struct vmcomm_abi_slot) == VMCOMM_PAGE);

/* A connection between members that stays on plain TCP. Writer: owner; reader: host. */
struct vmcomm_abi_plain {
	vmcomm_le32 seq;   /* odd while being written; 0: row never used */
	vmcomm_le16 reason; /* enum vmcomm_reason; 0: row is free */
	vmcomm_u8 peer;	   /* slot */
	vmcomm_u8 pad;
	vmcomm_u8 laddr[16];
	vmcomm_u8 raddr[16];
	vmcomm_le16 lport;
	vmcomm_le16 rport;
	vmcomm_u8 pad2[20];
};
VMCOMM_ABI_ASSERT(sizeof(struct vmcomm_abi_plain) == 64);

#define VMCOMM_EVENTS	      256 /* entries of one event queue */
#define VMCOMM_OFFERS	      1024 /* buckets of the offer table, a power of two */
#define VMCOMM_OFFER_PROBES   16   /* a key is in one of so many buckets from its hash on */
#define VMCOMM_CCB_CHUNKS_MAX 192 /* chunks of CCBs of one pair, so up to 49152 connections */

enum vmcomm_pair_state {
	VMCOMM_PAIR_DOWN,
	VMCOMM_PAIR_UP,
	VMCOMM_PAIR_LEFT, /* all senders stopped; see docs/architecture.md, "Leave" */
};

/*
 * What owner tells one peer. Writer: owner. The pair works while each side's peer_incarnation is
 * the other's incarnation. A new incarnation starts with all positions at 0.
 */
struct vmcomm_abi_pair {
	vmcomm_le64 incarnation;      /* owner's; 0: not up */
	vmcomm_le64 peer_incarnation; /* the peer's that owner has accepted; 0: none */
	vmcomm_le32 state;	      /* enum vmcomm_pair_state */
	vmcomm_le32 leave_done;	      /* 1: every "final" of owner is published */
	vmcomm_le64 leave_ack;	      /* incarnation of a peer that left and whose bytes owner has read */
	vmcomm_le32 abi_minor;
	vmcomm_le32 features;
	vmcomm_u8 pad0[24];
	/* owner's event queue for the peer: producer */
	vmcomm_le32 ev_head;	 /* free-running */
	vmcomm_le32 ev_overflow; /* counts; a new value means: look at everything */
	vmcomm_u8 pad1[56];
	/* the peer's event queue for owner: consumer */
	vmcomm_le32 ev_tail;	/* free-running */
	vmcomm_le32 ev_wake_at; /* ring when the peer's ev_head moves past this position */
	vmcomm_u8 pad2[56];
	vmcomm_u8 pad3[64];
	vmcomm_le32 ccb_chunk[VMCOMM_CCB_CHUNKS_MAX]; /* at 256: chunk number + 1; 0: none */
	vmcomm_le64 ev[VMCOMM_EVENTS];		      /* at 1024 */
	vmcomm_u8 pad4[1024];
	/* offers that wait for the peer: number of owner's CCB + 1; 0: free */
	vmcomm_le32 offer[VMCOMM_OFFERS]; /* at 4096 */
};
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_pair, ev_head) == 64);
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_pair, ev_tail) == 128);
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_pair, ccb_chunk) == 256);
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_pair, ev) == 1024);
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_pair, offer) == 4096);
VMCOMM_ABI_ASSERT(sizeof(struct vmcomm_abi_pair) == 2 * VMCOMM_PAGE);
VMCOMM_ABI_ASSERT(VMCOMM_CTL_PLAIN + VMCOMM_PLAIN_MAX * 64 <= VMCOMM_CTL_PAIR);
VMCOMM_ABI_ASSERT(VMCOMM_CTL_RECLAIM + VMCOMM_CHUNKS_MAX * 4 <= VMCOMM_CTL_PLAIN);

/*
 * An event: kind in the top 8 bits, the CCB number of the one who reads the event in the next 24,
 * an argument in the low 32. Events are hints: what is true is in the words they point to.
 */
enum vmcomm_event_kind {
	VMCOMM_EVENT_PAIR = 1,	 /* look at the pair's state */
	VMCOMM_EVENT_OFFER = 2,	 /* arg: the sender's CCB with an offer for an old connection */
	VMCOMM_EVENT_ACCEPT = 3, /* your CCB was accepted by my CCB number arg */
	VMCOMM_EVENT_CONN = 4,	 /* look at your CCB */
};
#define VMCOMM_EVENT(kind, idx, arg) \
	(((__UINT64_TYPE__)(kind) << 56) | ((__UINT64_TYPE__)((idx) & 0xffffff) << 32) | \
	 (__UINT32_TYPE__)(arg))
#define VMCOMM_EVENT_KIND(ev) ((unsigned int)((ev) >> 56))
#define VMCOMM_EVENT_IDX(ev)  ((__UINT32_TYPE__)((ev) >> 32) & 0xffffff)
#define VMCOMM_EVENT_ARG(ev)  ((__UINT32_TYPE__)(ev))

enum vmcomm_ccb_state {
	VMCOMM_CCB_FREE,
	VMCOMM_CCB_OFFERED, /* owner opened the connection and waits for the peer's half */
	VMCOMM_CCB_OPEN,
	VMCOMM_CCB_CLOSED,  /* owner has let go of it and of everything that the peer owns */
};

/*
 * One half of a connection control block. Each end owns one half, in a chunk that it owns for the
 * other end; the two refer to each other by number and generation. Writer: owner.
 *
 * head and tail are free-running byte counts: head is the patent's "sent", tail its "received".
 */
struct vmcomm_abi_ccb {
	vmcomm_le32 state;	/* enum vmcomm_ccb_state */
	vmcomm_le32 gen;	/* changes whenever the number is used again */
	vmcomm_le32 peer_idx;	/* the peer's half, valid when peer_gen is not 0 */
	vmcomm_le32 peer_gen;
	vmcomm_le32 seq_local;	/* owner's first TCP sequence number: the key of the connection ... */
	vmcomm_le32 seq_remote; /* ... together with the peer's */
	vmcomm_le32 flags;	/* VMCOMM_CCB_F_* */
	vmcomm_le32 reason;	/* enum vmcomm_reason: why owner's direction is not in a ring */
	vmcomm_u8 laddr[16];
	vmcomm_u8 raddr[16];
	/* owner sends: at 64 */
	vmcomm_le64 head;
	vmcomm_le64 p_pos;	 /* ring -> TCP happened at this position */
	vmcomm_le32 epoch;	 /* odd: ring */
	vmcomm_le32 x_seq;	 /* TCP -> ring happened at this TCP sequence number */
	vmcomm_le32 ring_chunk;	 /* first chunk of the ring, in owner's slice */
	vmcomm_le32 ring_off;	 /* bytes from the start of that chunk */
	vmcomm_le32 ring_shift;	 /* size of the ring: 1 << ring_shift bytes */
	vmcomm_le32 fin;	 /* 1: nothing after head (transports without TCP) */
	vmcomm_le64 snd_wake_at; /* event when the peer's tail moves past this position */
	vmcomm_u8 pad1[16];
	/* owner receives: at 128 */
	vmcomm_le64 tail;
	vmcomm_le64 rcv_wake_at; /* event when the peer's head moves past this position */
	vmcomm_le64 final;	 /* owner leaves: last position that it took */
	vmcomm_le32 final_valid; /* VMCOMM_FINAL_* */
	vmcomm_le32 rx_epoch;	 /* last epoch of the peer that owner has entered */
	vmcomm_le32 rx_ready;	 /* the peer may use its ring */
	vmcomm_le32 tcp_had;	 /* with VMCOMM_CCB_F_HAD: TCP's rcv_nxt when this half was made */
	vmcomm_u8 pad2[24];
	/* for humans: at 192 */
	vmcomm_le16 lport;
	vmcomm_le16 rport;
	vmcomm_le32 sleeping;	/* VMCOMM_SLEEP_* */
	vmcomm_le64 tcp_sent;	/* bytes that owner put on TCP */
	vmcomm_le64 tcp_received;
	vmcomm_le64 ring_sent;
	vmcomm_le64 ring_received;
	/* with VMCOMM_CCB_F_MET: bytes that went through rings since the two ends met first */
	vmcomm_le64 met_sent;
	vmcomm_le64 met_received;
	vmcomm_u8 pad3[8];
};
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_ccb, head) == 64);
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_ccb, tail) == 128);
VMCOMM_ABI_ASSERT(__builtin_offsetof(struct vmcomm_abi_ccb, lport) == 192);
VMCOMM_ABI_ASSERT(sizeof(struct vmcomm_abi_ccb) == 256);
#define VMCOMM_CCB_SHIFT 8

#define VMCOMM_CCB_F_ADOPTED 1 /* owner made the offer for a connection that is older than it */
#define VMCOMM_CCB_F_CLIENT  2 /* owner made the offer */
#define VMCOMM_CCB_F_MET     4 /* owner knows the peer's end from an earlier block */
#define VMCOMM_CCB_F_HAD     8 /* tcp_had is there */

#define VMCOMM_FINAL_STOP  1 /* owner stops reading: what is put from now on may not be read */
#define VMCOMM_FINAL_VALID 2 /* final says how far it read */

#define VMCOMM_SLEEP_SEND 1
#define VMCOMM_SLEEP_RECV 2

#define VMCOMM_RING_SHIFT_MIN 12
#define VMCOMM_RING_SHIFT_MAX 22

#endif
