/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * heap.h - a VM's chunks: which peer each is for, rings carved out of them, quota, reclaim
 *
 * The bookkeeping is private to the owner; nothing here is read from shared memory except the
 * host's acknowledgement of a reclaim. A chunk serves one peer and one block size at a time.
 * Context: callers serialise (the node's lock); nothing here sleeps.
 */
#ifndef VMCOMM_HEAP_H
#define VMCOMM_HEAP_H

#include "port.h"

#define VMCOMM_HEAP_CLASSES (VMCOMM_CHUNK_SHIFT_MAX - VMCOMM_RING_SHIFT_MIN)
#define VMCOMM_HEAP_NONE    0xffffffffu

enum vmcomm_chunk_state {
	VMCOMM_CHUNK_CLEAN, /* free, and the host has its pages */
	VMCOMM_CHUNK_DIRTY, /* free */
	VMCOMM_CHUNK_ASKED, /* free, the host was asked to take the pages: hands off */
	VMCOMM_CHUNK_HEAD,  /* first chunk of an allocation */
	VMCOMM_CHUNK_TAIL,  /* a later chunk of an allocation */
	VMCOMM_CHUNK_SPLIT, /* carved into blocks of one size */
};

struct vmcomm_chunk {
	u8 state;
	u8 shift;     /* SPLIT: block size; HEAD: allocation size */
	u8 peer;      /* while in use: for whom */
	u8 last_peer; /* whose bytes may still be in it; 0xff: nobody's */
	u8 stuck;     /* free, but an earlier reader had not let go of it when it was tried last */
	u64 map;      /* SPLIT: used blocks, a bit each (at most 64: 256 KiB of 4 KiB) */
	u32 next; /* SPLIT and not full: list of its peer and class */
	u32 prev;
	u32 since; /* DIRTY: tick at which it became free */
	u32 ask;   /* last number written to the reclaim word */
};

struct vmcomm_heap_peer {
	u32 held; /* chunks */
	u32 partial[VMCOMM_HEAP_CLASSES];
};

struct vmcomm_heap {
	u32 chunks;
	u32 chunk_shift;
	u32 quota; /* chunks that one peer may make us hold */
	u32 used;  /* chunks in use */
	u32 tick;
	struct vmcomm_chunk *chunk;
	struct vmcomm_heap_peer peer[VMCOMM_SLOTS_MAX];
};

/**
 * vmcomm_heap_init() - all chunks free
 * @heap: to initialise
 * @chunks: number of chunks, up to VMCOMM_CHUNKS_MAX
 * @chunk_shift: size of a chunk
 *
 * Return: 0 or -ENOMEM. Undone by vmcomm_heap_deinit(). May sleep.
 */
int vmcomm_heap_init(struct vmcomm_heap *heap, u32 chunks, u32 chunk_shift);
void vmcomm_heap_deinit(struct vmcomm_heap *heap);

/**
 * vmcomm_heap_alloc() - take 1 << @shift bytes for @peer
 * @heap: the heap
 * @peer: slot that will read them; charged to its quota
 * @shift: VMCOMM_RING_SHIFT_MIN to VMCOMM_RING_SHIFT_MAX
 * @chunk: result, number of the first chunk
 * @off: result, bytes from the start of that chunk
 * @scrub: result, true if another peer's bytes may be in the chunks that this is the first block
 *	of: the caller has to zero these chunks whole
 *
 * Return: 0; -EDQUOT: @peer has its share already; -ENOSPC: no room; -EINVAL: bad argument.
 */
int vmcomm_heap_alloc(struct vmcomm_heap *heap, u32 peer, u32 shift, u32 *chunk, u32 *off,
		      bool *scrub);

/**
 * vmcomm_heap_free() - give back what vmcomm_heap_alloc() returned, with the same numbers
 *
 * Return: true if the chunks as a whole became free, false if other blocks of the chunk are in use.
 */
bool vmcomm_heap_free(struct vmcomm_heap *heap, u32 chunk, u32 off, u32 shift);

/**
 * vmcomm_heap_avoid() - chunks that were just taken cannot be used now, and are given back next
 * @heap: the heap
 * @chunk: the first
 * @count: how many
 *
 * An earlier reader of them has not let go; it may never do so. They are taken again when no others
 * are left.
 */
void vmcomm_heap_avoid(struct vmcomm_heap *heap, u32 chunk, u32 count);

/**
 * vmcomm_heap_reclaim() - one step of giving idle pages to the host
 * @heap: the heap
 * @ask: the owner's reclaim words, one for each chunk
 * @ack: the host's answers, one for each chunk
 * @idle: ticks that a chunk stays free before its pages go
 *
 * To be called once a second. A chunk that was asked for is out of use until the host answers; at
 * most a quarter of all are at a time.
 */
void vmcomm_heap_reclaim(struct vmcomm_heap *heap, vmcomm_le32 *ask, const vmcomm_le32 *ack,
			 u32 idle);

#endif
