/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reason.h - why a connection, or one direction of it, is not in shared memory
 *
 * The numbers and names are stable: they are in shared memory, in `vmcommctl conn list`, in
 * /proc/net/vmcomm and in scripts of operators. New ones are added at the end. docs/reasons.md
 * tells what to do about each.
 */
#ifndef VMCOMM_REASON_H
#define VMCOMM_REASON_H

#include "port.h"

/* X(symbol, number, name, text) */
#define VMCOMM_REASONS(X)                                                                          \
	X(NONE, 0, "none", "in shared memory")                                                     \
	X(NEW, 1, "new", "the ends have not agreed yet")                                           \
	X(DISABLED, 2, "disabled", "switched off in this VM (parameter enabled)")                  \
	X(PEER_DISABLED, 3, "peer-disabled", "the peer does not take bytes from shared memory")    \
	X(NO_PAIR, 4, "no-pair", "the peer VM is a member but does not answer in shared memory")   \
	X(NO_OFFER, 5, "no-offer", "the connecting VM offered no shared memory for it")            \
	X(NO_ACCEPT, 6, "no-accept", "the accepting VM did not take the offer")                    \
	X(NO_CCB, 7, "no-ccb", "no connection control block is free")                              \
	X(NO_MEMORY, 8, "no-memory", "this VM's shared memory is used up")                         \
	X(QUOTA, 9, "quota", "this peer's share of the shared memory is used up")                  \
	X(OFFERS_FULL, 10, "offers-full", "too many connections are being opened at once")         \
	X(GUEST_MEMORY, 11, "guest-memory", "the guest kernel has no memory")                      \
	X(LEFT, 12, "left", "this VM left its host")                                               \
	X(PEER_LEFT, 13, "peer-left", "the peer left its host")                                    \
	X(PEER_GONE, 14, "peer-gone", "the peer died or was restarted")                            \
	X(PEER_BAD, 15, "peer-bad", "the peer wrote nonsense into shared memory")                  \
	X(PEER_VERSION, 16, "peer-version", "the peer's ABI version is different")                 \
	X(POLICY, 17, "policy", "the host's policy excludes this address or port")                 \
	X(RESIZE, 18, "resize", "the ring is being resized")                                       \
	X(IDLE, 19, "idle", "the ring was given back while idle")                                  \
	X(URGENT, 20, "urgent", "MSG_OOB was used")                                                \
	X(ZEROCOPY, 21, "zerocopy", "MSG_ZEROCOPY was used")                                       \
	X(FASTOPEN, 22, "fastopen", "TCP fast open was used")                                      \
	X(ULP, 23, "ulp", "an upper layer protocol (kTLS) was attached")                           \
	X(SOCKMAP, 24, "sockmap", "the socket was put into a BPF sockmap")                         \
	X(MPTCP, 25, "mptcp", "the socket is a subflow of MPTCP")                                  \
	X(SMC, 26, "smc", "the socket negotiates SMC")                                             \
	X(KERNEL_SOCKET, 27, "kernel-socket", "the socket belongs to the kernel")                  \
	X(KERNEL_CONSUMER, 28, "kernel-consumer", "a kernel service reads from the socket")        \
	X(REPAIR, 29, "repair", "TCP_REPAIR was used")                                             \
	X(ZEROCOPY_RX, 30, "zerocopy-rx", "TCP_ZEROCOPY_RECEIVE was used")                         \
	X(TIMESTAMPING, 31, "timestamping", "SO_TIMESTAMPING was used")                            \
	X(FOREIGN_PROTO, 32, "foreign-proto", "another module replaced the socket's protocol")     \
	X(DATA_BEFORE, 33, "data-before", "data was on its way before the connection was seen")    \
	X(OLDER, 34, "older", "the connection is older than the module")                           \
	X(UNLOAD, 35, "unload", "the module is being unloaded")                                    \
	X(TIMEOUT, 36, "timeout", "the peer did not take its bytes in time")                       \
	X(SILO, 37, "silo", "the hypervisor forbids sharing between these VMs")                    \
	X(NO_DEVICE, 38, "no-device", "this VM has no vmcomm device")                              \
	X(GRANTS_FULL, 39, "grants-full", "the hypervisor's grant table is full")                  \
	X(MAPTRACK_FULL, 40, "maptrack-full", "the hypervisor's map tracking is full")             \
	X(NO_EVTCHN, 41, "no-evtchn", "the hypervisor has no event channel left")                  \
	X(NOT_MAPPED, 42, "not-mapped", "the peer's memory is not mapped yet")                     \
	X(LEAVE_STUCK, 43, "leave-stuck", "the peer stopped in the middle of its own leave")       \
	X(PEEK_OFF, 44, "peek-off", "SO_PEEK_OFF was used")                                        \
	X(DISCONNECT, 45, "disconnect", "the socket was disconnected")                             \
	X(CLOSED, 46, "closed", "the connection is closed")                                        \
	X(ADDRESS, 47, "address", "the address is not the one that the host configured")           \
	X(NETFILTER, 48, "netfilter", "reserved")                                                  \
	X(STALLED, 49, "stalled", "the peer's program took nothing for a while")                   \
	X(FLOOD, 50, "flood", "a peer rang or queued events without need and has to wait")         \
	X(REVERTED, 51, "reverted", "one of the VMs was set back to an earlier state")             \
	X(OTHER_GROUP, 52, "other-group", "the peer VM is a member of another group")

enum vmcomm_reason {
#define VMCOMM_REASON_ENUM(sym, nr, name, text) VMCOMM_REASON_##sym = (nr),
	VMCOMM_REASONS(VMCOMM_REASON_ENUM)
#undef VMCOMM_REASON_ENUM
	VMCOMM_REASON_COUNT
};

/**
 * vmcomm_reason_name() - stable short name of a reason code
 * @reason: any number, for instance one that another VM wrote
 *
 * Return: a constant string, "unknown" for numbers that this version does not know.
 */
const char *vmcomm_reason_name(u32 reason);

/** vmcomm_reason_text() - one line for humans, same rules */
const char *vmcomm_reason_text(u32 reason);

/* X(symbol, name): counters of a VM, in this order in shared memory; append only */
#define VMCOMM_STATS(X)                                                                            \
	X(CONN_OPENED, "conn_opened")                                                              \
	X(CONN_ACCEPTED, "conn_accepted")                                                          \
	X(CONN_ADOPTED, "conn_adopted")                                                            \
	X(CONN_CLOSED, "conn_closed")                                                              \
	X(CONN_OPEN, "conn_open")                                                                  \
	X(TX_RING_BYTES, "tx_ring_bytes")                                                          \
	X(TX_TCP_BYTES, "tx_tcp_bytes")                                                            \
	X(RX_RING_BYTES, "rx_ring_bytes")                                                          \
	X(RX_TCP_BYTES, "rx_tcp_bytes")                                                            \
	X(RX_HELD_BYTES, "rx_held_bytes")                                                          \
	X(TX_HELD_BYTES, "tx_held_bytes")                                                          \
	X(RING_ENTERED, "ring_entered")                                                            \
	X(RING_EXITED, "ring_exited")                                                              \
	X(RING_GROWN, "ring_grown")                                                                \
	X(RING_RETURNED, "ring_returned")                                                          \
	X(DOORBELLS, "doorbells")                                                                  \
	X(INTERRUPTS, "interrupts")                                                                \
	X(EVENTS_SENT, "events_sent")                                                              \
	X(EVENTS_SEEN, "events_seen")                                                              \
	X(EVENT_OVERFLOWS, "event_overflows")                                                      \
	X(SLEEPS_RX, "sleeps_rx")                                                                  \
	X(SLEEPS_TX, "sleeps_tx")                                                                  \
	X(SPIN_HITS, "spin_hits")                                                                  \
	X(SPIN_MISSES, "spin_misses")                                                              \
	X(BACKSTOP_WAKES, "backstop_wakes")                                                        \
	X(PAIRS_UP, "pairs_up")                                                                    \
	X(LEAVES, "leaves")                                                                        \
	X(LEAVE_US, "leave_us")                                                                    \
	X(HEAP_CHUNKS, "heap_chunks")                                                              \
	X(HEAP_USED, "heap_used")                                                                  \
	X(PEER_ERRORS, "peer_errors")                                                              \
	X(UNWRAPPED, "unwrapped")                                                                  \
	X(WRAPPED, "wrapped")                                                                      \
	X(KEEPALIVES, "keepalives")                                                                \
	X(PAUSES, "pauses")

enum vmcomm_stat {
#define VMCOMM_STAT_ENUM(sym, name) VMCOMM_STAT_##sym,
	VMCOMM_STATS(VMCOMM_STAT_ENUM)
#undef VMCOMM_STAT_ENUM
	VMCOMM_STAT_COUNT
};

VMCOMM_ABI_ASSERT(VMCOMM_STAT_COUNT <= VMCOMM_STATS_MAX);
VMCOMM_ABI_ASSERT(VMCOMM_REASON_COUNT <= VMCOMM_REASONS_MAX);

/** vmcomm_stat_name() - name of counter @stat, NULL when there is none */
const char *vmcomm_stat_name(u32 stat);

#endif
