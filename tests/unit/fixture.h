/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fixture.h - a few VMs in one process: one region from malloc, doorbells that are counted, a TCP
 * made of two byte queues
 *
 * The region comes from malloc with exactly its size, so that AddressSanitizer sees each access
 * outside of it. Everything happens when the test says so: doorbells set a flag that fix_run()
 * serves, bytes on TCP arrive at once or when told to.
 */
#ifndef VMCOMM_TEST_FIXTURE_H
#define VMCOMM_TEST_FIXTURE_H

#include "conn.h"
#include "unit.h"

#define FIX_VMS	   4
#define FIX_CHUNKS 2048

struct fix;
struct fend;

struct fnews {
	u32 slot;
	enum vmcomm_pair_news news;
};

struct fvm {
	struct fix *fix;
	u32 slot;
	bool up;
	bool deaf; /* doorbells are counted, nobody serves them */
	struct vmcomm_node node;
	u32 doorbells; /* that it got */
	bool irq;
	u32 offered, offered_idx; /* calls of that callback */
	bool adopt; /* accept what is offered */
	struct fnews news[64]; /* not worked off */
	u32 news_count;
	struct fend *ends;
	int maps;   /* of chunks of peers, less what was unmapped */
	u32 unmaps;
	u32 fail_map;  /* so many of them fail with -EAGAIN */
	u32 prepares;
	u32 shared[FIX_VMS][FIX_CHUNKS];
	u32 shares; /* sum of these */
	int fail_share;
};

struct fix {
	void *mem;
	struct vmcomm_layout lay;
	struct vmcomm_region region;
	unsigned int rows_read; /* of the location table, by nodes */
	u32 vms;
	struct fvm vm[FIX_VMS];
	u64 generation;
	bool keep_news; /* the test works them off itself */
	bool slow_tcp; /* bytes arrive by fend_arrive() only */
	bool no_tcp;
	void (*between)(struct fend *e); /* runs while bytes are in the ring, not yet published */
	void (*mapping)(struct fix *f); /* runs whenever a chunk is mapped */
	bool threads; /* the node's lock may be anybody's */
	bool hostile; /* words are changed at random: streams are not compared */
	bool no_host; /* nobody answers requests to take pages */
	bool late_pages;   /* a peer's pages are nowhere before vmcomm_node_place() */
	bool strict_share; /* share, unshare and unmap are tracked, as with grants */
};

/* One direction of a TCP connection. */
struct fpipe {
	u32 iss;
	u8 *data;
	u32 size;
	u32 written; /* write_seq - iss */
	u32 arrived; /* rcv_nxt - iss */
	u32 copied;  /* copied_seq - iss */
	bool fin, fin_arrived;
};

/* One end of a connection, with what it sent and received so far. */
struct fend {
	struct vmcomm_conn conn;
	struct fvm *vm;
	struct fend *peer;
	struct fend *next;
	struct fpipe out;
	struct vmcomm_conn_names names;
	u32 seed;
	u64 sent; /* bytes of the stream out of here, wherever they are */
	u64 got;
	u64 by_tcp, by_ring, by_held; /* sent by TCP and ring, received from held */
	u32 wakes;
	int held; /* references by the core */
	bool going; /* hold() refuses */
	bool broken;
	bool waited; /* the last send was told to wait */
	u32 tcp_again; /* bytes from a pending buffer that went to TCP */
};

/*
 * Runs whenever private memory is asked for; false: there is none. For programs that are linked with
 * --wrap=calloc.
 */
extern bool (*fix_alloc)(size_t n);

struct fix *fix_new(u32 vms, u64 size, u32 chunk_shift);
void fix_free(struct fix *f);

/** fix_start() - vmcomm_node_init() for the VM in @slot; its row becomes LIVE */
int fix_start(struct fix *f, u32 slot);
void fix_stop(struct fix *f, u32 slot);
void fix_row(struct fix *f, u32 slot, u32 state, u64 generation);
/** fix_run() - serve doorbells and news until nothing moves */
void fix_run(struct fix *f);
/** fix_work() - work off one news of @vm; false: nothing to do, or not yet */
bool fix_work(struct fix *f, struct fvm *vm);
/** fix_tick() - one second for all VMs, then fix_run() */
void fix_tick(struct fix *f);
/** fix_up() - a fixture of @vms VMs that all know each other */
struct fix *fix_up(u32 vms);

struct vmcomm_pair *fix_pair(struct fix *f, u32 slot, u32 peer);

/** fend_pair() - a TCP connection from @a to @b that knows nothing of shared memory yet */
struct fend *fend_pair(struct fix *f, u32 a, u32 b);
int fend_offer(struct fend *e, bool announce);
int fend_accept(struct fend *e);
/** fend_open() - fend_pair(), offer, accept; both may use rings */
struct fend *fend_open(struct fix *f, u32 a, u32 b);
void fend_free(struct fend *client);

/** fend_send() - @n bytes of the stream; @flags of vmcomm_tx_next(). Return: how many went. */
u32 fend_send(struct fend *e, u32 n, u32 flags);
/** fend_fill() - write the next @n bytes of the stream to @p */
void fend_fill(struct fend *e, u8 *p, u32 n);
/** fend_recv() - at most @n bytes; each is compared. Return: how many came. */
u32 fend_recv(struct fend *e, u32 n);
/** fend_recv_all() - receive until nothing comes */
void fend_recv_all(struct fend *e);
void fend_pending(struct fend *e);
/** fend_arrive() - with slow_tcp: @n more bytes of what @e sent reach its peer */
void fend_arrive(struct fend *e, u32 n);
/** fend_same() - has @e's peer received all that @e sent? */
bool fend_same(struct fend *e);

/** fix_evict() - evict the ends of @slot with @peer; true if all are detached */
bool fix_evict(struct fix *f, u32 slot, u32 peer, bool gone);
/** fix_leave_all() - the whole leave of the VM in @slot, peers answer by fix_run() */
void fix_leave_all(struct fix *f, u32 slot);

static inline u32 fend_write_seq(const struct fend *e)
{
	return e->out.iss + e->out.written;
}

static inline u32 fend_una(const struct fend *e)
{
	return e->out.iss + __atomic_load_n(&e->out.arrived, __ATOMIC_ACQUIRE);
}

static inline enum vmcomm_next fend_next(struct fend *e)
{
	return vmcomm_tx_next(&e->conn, fend_write_seq(e), fend_write_seq(e), fend_una(e), 0);
}

static inline u32 fend_copied_seq(const struct fend *e)
{
	return e->peer->out.iss + e->peer->out.copied;
}

static inline u32 fend_rcv_nxt(const struct fend *e)
{
	return e->peer->out.iss + __atomic_load_n(&e->peer->out.arrived, __ATOMIC_ACQUIRE) +
	       e->peer->out.fin_arrived;
}

static inline bool fend_in_ring(const struct fend *e)
{
	return e->conn.tx.epoch & 1;
}

#endif
