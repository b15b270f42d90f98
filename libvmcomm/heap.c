// SPDX-License-Identifier: LGPL-2.1-or-later
/* heap.c - a VM's chunks */
#include "heap.h"

VMCOMM_ABI_ASSERT((1 << (VMCOMM_CHUNK_SHIFT_MAX - VMCOMM_RING_SHIFT_MIN)) <= 64);

int vmcomm_heap_init(struct vmcomm_heap *heap, u32 chunks, u32 chunk_shift)
{
	u32 i, k;

	memset(heap, 0, sizeof(*heap));
	heap->chunk = vmcomm_alloc_large(chunks * sizeof(*heap->chunk));
	if (!heap->chunk)
		return -ENOMEM;
	heap->chunks = chunks;
	heap->chunk_shift = chunk_shift;
	heap->quota = chunks;
	for (i = 0; i < chunks; i++) {
		heap->chunk[i].state = VMCOMM_CHUNK_CLEAN;
		heap->chunk[i].last_peer = 0xff;
	}
	for (i = 0; i < VMCOMM_SLOTS_MAX; i++)
		for (k = 0; k < VMCOMM_HEAP_CLASSES; k++)
			heap->peer[i].partial[k] = VMCOMM_HEAP_NONE;
	return 0;
}

void vmcomm_heap_deinit(struct vmcomm_heap *heap)
{
	vmcomm_free_large(heap->chunk);
	heap->chunk = NULL;
	heap->chunks = 0;
}

static bool vmcomm_chunk_is_free(const struct vmcomm_chunk *c)
{
	return c->state == VMCOMM_CHUNK_CLEAN || c->state == VMCOMM_CHUNK_DIRTY;
}

static void vmcomm_partial_add(struct vmcomm_heap *heap, u32 nr)
{
	struct vmcomm_chunk *c = &heap->chunk[nr];
	u32 *first = &heap->peer[c->peer].partial[c->shift - VMCOMM_RING_SHIFT_MIN];

	c->prev = VMCOMM_HEAP_NONE;
	c->next = *first;
	if (*first != VMCOMM_HEAP_NONE)
		heap->chunk[*first].prev = nr;
	*first = nr;
}

static void vmcomm_partial_del(struct vmcomm_heap *heap, u32 nr)
{
	struct vmcomm_chunk *c = &heap->chunk[nr];
	u32 *first = &heap->peer[c->peer].partial[c->shift - VMCOMM_RING_SHIFT_MIN];

	if (c->prev == VMCOMM_HEAP_NONE)
		*first = c->next;
	else
		heap->chunk[c->prev].next = c->next;
	if (c->next != VMCOMM_HEAP_NONE)
		heap->chunk[c->next].prev = c->prev;
}

/*
 * First free run of @count chunks; dirty ones first, so that pages at the host are used again. @stuck:
 * those that could not be used when they were tried last count, too.
 */
static u32 vmcomm_heap_find(const struct vmcomm_heap *heap, u32 count, bool stuck)
{
	u32 i, run = 0, fallback = VMCOMM_HEAP_NONE;

	if (count == 1) {
		for (i = 0; i < heap->chunks; i++) {
			if (heap->chunk[i].stuck && !stuck)
				continue;
			if (heap->chunk[i].state == VMCOMM_CHUNK_DIRTY)
				return i;
			if (heap->chunk[i].state == VMCOMM_CHUNK_CLEAN &&
			    fallback == VMCOMM_HEAP_NONE)
				fallback = i;
		}
		return fallback;
	}
	for (i = 0; i < heap->chunks; i++) {
		run = vmcomm_chunk_is_free(&heap->chunk[i]) && (stuck || !heap->chunk[i].stuck) ?
			      run + 1 : 0;
		if (run == count)
			return i + 1 - count;
	}
	return VMCOMM_HEAP_NONE;
}

/* Take a run of whole chunks; the first one gets @state. */
static int vmcomm_heap_take(struct vmcomm_heap *heap, u32 peer, u32 count, u32 shift, u8 state,
			    u32 *chunk, bool *scrub)
{
	u32 i, nr;

	if (heap->peer[peer].held + count > heap->quota)
		return -EDQUOT;
	nr = vmcomm_heap_find(heap, count, false);
	if (nr == VMCOMM_HEAP_NONE)
		nr = vmcomm_heap_find(heap, count, true);
	if (nr == VMCOMM_HEAP_NONE)
		return -ENOSPC;
	*scrub = false;
	for (i = nr; i < nr + count; i++) {
		struct vmcomm_chunk *c = &heap->chunk[i];

		if (c->state == VMCOMM_CHUNK_DIRTY && c->last_peer != peer)
			*scrub = true;
		c->state = i == nr ? state : VMCOMM_CHUNK_TAIL;
		c->shift = shift;
		c->peer = peer;
		c->last_peer = peer;
		c->stuck = 0;
		c->map = 0;
	}
	heap->peer[peer].held += count;
	heap->used += count;
	*chunk = nr;
	return 0;
}

static void vmcomm_heap_give(struct vmcomm_heap *heap, u32 nr, u32 count)
{
	u32 i;

	heap->peer[heap->chunk[nr].peer].held -= count;
	heap->used -= count;
	for (i = nr; i < nr + count; i++) {
		heap->chunk[i].state = VMCOMM_CHUNK_DIRTY;
		heap->chunk[i].since = heap->tick;
	}
}

void vmcomm_heap_avoid(struct vmcomm_heap *heap, u32 chunk, u32 count)
{
	u32 i;

	for (i = chunk; i < chunk + count; i++)
		heap->chunk[i].stuck = 1;
}

int vmcomm_heap_alloc(struct vmcomm_heap *heap, u32 peer, u32 shift, u32 *chunk, u32 *off,
		      bool *scrub)
{
	struct vmcomm_chunk *c;
	u32 nr, blocks, bit;
	int err;

	if (peer >= VMCOMM_SLOTS_MAX || shift < VMCOMM_RING_SHIFT_MIN ||
	    shift > VMCOMM_RING_SHIFT_MAX)
		return -EINVAL;
	*off = 0;
	if (shift >= heap->chunk_shift)
		return vmcomm_heap_take(heap, peer, 1u << (shift - heap->chunk_shift), shift,
					VMCOMM_CHUNK_HEAD, chunk, scrub);

	*scrub = false;
	nr = heap->peer[peer].partial[shift - VMCOMM_RING_SHIFT_MIN];
	if (nr == VMCOMM_HEAP_NONE) {
		/* The whole chunk is scrubbed at its first block: it has one reader for now. */
		err = vmcomm_heap_take(heap, peer, 1, shift, VMCOMM_CHUNK_SPLIT, &nr, scrub);
		if (err)
			return err;
		vmcomm_partial_add(heap, nr);
	}
	c = &heap->chunk[nr];
	blocks = 1u << (heap->chunk_shift - shift);
	bit = (u32)__builtin_ctzll(~c->map);
	c->map |= 1ULL << bit;
	if (c->map == (blocks == 64 ? ~0ULL : (1ULL << blocks) - 1))
		vmcomm_partial_del(heap, nr);
	*chunk = nr;
	*off = bit << shift;
	return 0;
}

bool vmcomm_heap_free(struct vmcomm_heap *heap, u32 chunk, u32 off, u32 shift)
{
	struct vmcomm_chunk *c = &heap->chunk[chunk];
	u32 blocks;

	if (shift >= heap->chunk_shift) {
		vmcomm_heap_give(heap, chunk, 1u << (shift - heap->chunk_shift));
		return true;
	}
	blocks = 1u << (heap->chunk_shift - shift);
	if (c->map == (blocks == 64 ? ~0ULL : (1ULL << blocks) - 1))
		vmcomm_partial_add(heap, chunk);
	c->map &= ~(1ULL << (off >> shift));
	if (c->map)
		return false;
	vmcomm_partial_del(heap, chunk);
	vmcomm_heap_give(heap, chunk, 1);
	return true;
}

void vmcomm_heap_reclaim(struct vmcomm_heap *heap, vmcomm_le32 *ask, const vmcomm_le32 *ack,
			 u32 idle)
{
	u32 i, asked = 0;

	heap->tick++;
	for (i = 0; i < heap->chunks; i++)
		asked += heap->chunk[i].state == VMCOMM_CHUNK_ASKED;
	for (i = 0; i < heap->chunks; i++) {
		struct vmcomm_chunk *c = &heap->chunk[i];

		if (c->state == VMCOMM_CHUNK_ASKED) {
			if (vmcomm_load_acquire32(&ack[i]) != c->ask)
				continue;
			c->state = VMCOMM_CHUNK_CLEAN;
			c->last_peer = 0xff;
		} else if (c->state == VMCOMM_CHUNK_DIRTY && heap->tick - c->since >= idle &&
			   asked < heap->chunks / 4 + 1) {
			/* A host that does not answer keeps a quarter, not all of it. */
			asked++;
			c->state = VMCOMM_CHUNK_ASKED;
			/* Odd: a request. Never the number that was answered last. */
			c->ask = (c->ask | 1) + 2;
			vmcomm_store_release32(&ask[i], c->ask);
		}
	}
}
