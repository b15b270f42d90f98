// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * ccb.c - the table of a pair's connection control blocks (M5, M8)
 *
 * Our halves live in chunks that we own for the peer, listed in the pair page. What we rely on is
 * in the private struct vmcomm_ccb. node->lock is held in all functions.
 */
#include "conn.h"

/*
 * The peer's half number @idx, until the lock is dropped; vmcomm_ccb_hold() keeps it for longer.
 * NULL: there is none, or it cannot be mapped now and pair->look_again is set.
 */
struct vmcomm_abi_ccb *vmcomm_ccb_theirs(struct vmcomm_pair *pair, u32 idx)
{
	struct vmcomm_node *node = pair->node;
	u32 shift = node->lay.chunk_shift - VMCOMM_CCB_SHIFT;
	u32 chunk;
	void *base;
	int err;

	if (idx >> shift >= VMCOMM_CCB_CHUNKS_MAX)
		return NULL;
	chunk = vmcomm_load_acquire32(&pair->theirs->ccb_chunk[idx >> shift]);
	if (!chunk)
		return NULL;
	err = node->backend->map(node, pair->slot, pair->slot, chunk - 1, 1, &base);
	if (err == -EAGAIN)
		pair->look_again = true;
	if (err)
		return NULL;
	if (node->backend->unmap)
		node->backend->unmap(node, pair->slot, pair->slot, chunk - 1, 1);
	pair->looked_at = chunk;
	return (struct vmcomm_abi_ccb *)base + (idx & ((1u << shift) - 1));
}

/* Keep the chunk of the half that vmcomm_ccb_theirs() returned last. Return: for _release(). */
u32 vmcomm_ccb_hold(struct vmcomm_pair *pair)
{
	struct vmcomm_node *node = pair->node;
	void *base;

	if (!node->backend->unmap ||
	    node->backend->map(node, pair->slot, pair->slot, pair->looked_at - 1, 1, &base))
		return 0;
	return pair->looked_at;
}

void vmcomm_ccb_release(struct vmcomm_pair *pair, u32 chunk)
{
	if (chunk)
		pair->node->backend->unmap(pair->node, pair->slot, pair->slot, chunk - 1, 1);
}

static int vmcomm_ccb_grow(struct vmcomm_pair *pair)
{
	struct vmcomm_node *node = pair->node;
	u32 per = 1u << (node->lay.chunk_shift - VMCOMM_CCB_SHIFT), n = pair->ccb_chunks, chunk, off, i;
	struct vmcomm_ccb *table;
	void *mem;
	bool scrub;
	int err;

	if (n == VMCOMM_CCB_CHUNKS_MAX)
		return -ENOSPC;
	table = vmcomm_alloc(per * sizeof(*table));
	if (!table)
		return -ENOMEM;
	err = vmcomm_heap_alloc(&node->heap, pair->slot, node->lay.chunk_shift, &chunk, &off, &scrub);
	if (err)
		goto err_table;
	err = node->backend->map(node, node->slot, pair->slot, chunk, 1, &mem);
	if (err)
		goto err_chunk;
	vmcomm_zero_shared(mem, 1u << node->lay.chunk_shift);
	if (node->backend->share) {
		err = node->backend->share(node, pair->slot, chunk, 1);
		if (err == -EAGAIN)
			vmcomm_heap_avoid(&node->heap, chunk, 1);
		if (err)
			goto err_chunk;
	}
	for (i = 0; i < per; i++) {
		table[i].gen = (u32)vmcomm_random64() | 1;
		table[i].next = i + 1 < per ? n * per + i + 1 : pair->ccb_free;
	}
	pair->ccb_free = n * per;
	pair->ccb_chunk[n] = chunk;
	pair->ccb_mem[n] = mem;
	pair->ccb[n] = table;
	pair->ccb_chunks = n + 1;
	vmcomm_store_release32(&pair->mine->ccb_chunk[n], chunk + 1);
	return 0;

err_chunk:
	vmcomm_heap_free(&node->heap, chunk, off, node->lay.chunk_shift);
err_table:
	vmcomm_free(table);
	return err;
}

int vmcomm_ccb_alloc(struct vmcomm_pair *pair, u32 *idx)
{
	struct vmcomm_ccb *c;
	int err;

	if (pair->ccb_free == VMCOMM_CCB_NONE) {
		err = vmcomm_ccb_grow(pair);
		if (err)
			return err;
	}
	*idx = pair->ccb_free;
	c = vmcomm_ccb_at(pair, *idx);
	pair->ccb_free = c->next;
	pair->ccb_used++;
	/* 0 means "no half", all ones "no device": skip both */
	if (++c->gen == VMCOMM_GEN_LOST || !c->gen)
		c->gen = 1;
	c->use = VMCOMM_CCB_LIVE;
	c->accepted = 0;
	c->age = 0;
	c->ring_shift = 0;
	c->offer = 0;
	c->conn = NULL;
	return 0;
}

void vmcomm_ring_free(struct vmcomm_pair *pair, struct vmcomm_ccb *c)
{
	struct vmcomm_node *node = pair->node;
	u32 cs = node->lay.chunk_shift;

	if (!c->ring_shift)
		return;
	/* Small rings share a chunk that stays granted while one of them is in use. */
	if (vmcomm_heap_free(&node->heap, c->ring_chunk, c->ring_off, c->ring_shift) &&
	    node->backend->unshare)
		node->backend->unshare(node, pair->slot, c->ring_chunk,
				       c->ring_shift > cs ? 1u << (c->ring_shift - cs) : 1);
	c->ring_shift = 0;
}

void vmcomm_offer_withdraw(struct vmcomm_pair *pair, struct vmcomm_ccb *c)
{
	if (!c->offer)
		return;
	pair->offer[c->offer - 1] = 0;
	vmcomm_store32(&pair->mine->offer[c->offer - 1], 0);
	c->offer = 0;
}

/* Nobody refers to the block any more. */
void vmcomm_ccb_free(struct vmcomm_pair *pair, u32 idx)
{
	struct vmcomm_ccb *c = vmcomm_ccb_at(pair, idx);

	vmcomm_ring_free(pair, c);
	vmcomm_offer_withdraw(pair, c);
	if (c->use == VMCOMM_CCB_ZOMBIE)
		pair->zombies--;
	c->use = VMCOMM_CCB_UNUSED;
	c->conn = NULL;
	c->next = pair->ccb_free;
	pair->ccb_free = idx;
	pair->ccb_used--;
}

/* Free a closed block if the peer let go of it too. Return: true if it is free now. */
bool vmcomm_ccb_reap(struct vmcomm_pair *pair, u32 idx)
{
	struct vmcomm_ccb *c = vmcomm_ccb_at(pair, idx);
	struct vmcomm_abi_ccb *theirs;

	if (c->accepted && pair->state != VMCOMM_PEER_DOWN) {
		theirs = vmcomm_ccb_theirs(pair, c->peer_idx);
		if (!theirs && pair->look_again)
			return false;
		/*
		 * The generation after the state: a half that was used again since has both of its
		 * new values visible, or the old ones, which say CLOSED.
		 */
		if (theirs && vmcomm_load_acquire32(&theirs->state) != VMCOMM_CCB_CLOSED &&
		    vmcomm_load32(&theirs->gen) == c->peer_gen)
			return false;
	}
	vmcomm_ccb_free(pair, idx);
	return true;
}

/* The owner's end is done; its half says so already. */
void vmcomm_ccb_close(struct vmcomm_pair *pair, u32 idx)
{
	struct vmcomm_ccb *c = vmcomm_ccb_at(pair, idx);

	c->conn = NULL;
	c->use = VMCOMM_CCB_ZOMBIE;
	pair->zombies++;
	vmcomm_ccb_reap(pair, idx);
}

/* The peer is not there any more: forget everything. */
void vmcomm_ccb_wipe(struct vmcomm_pair *pair)
{
	struct vmcomm_node *node = pair->node;
	u32 per = 1u << (node->lay.chunk_shift - VMCOMM_CCB_SHIFT), i;

	for (i = 0; i < pair->ccb_chunks * per; i++) {
		struct vmcomm_ccb *c = vmcomm_ccb_at(pair, i);

		if (c->use != VMCOMM_CCB_UNUSED)
			vmcomm_ccb_free(pair, i);
	}
	for (i = 0; i < pair->ccb_chunks; i++) {
		if (node->backend->unshare)
			node->backend->unshare(node, pair->slot, pair->ccb_chunk[i], 1);
		vmcomm_heap_free(&node->heap, pair->ccb_chunk[i], 0, node->lay.chunk_shift);
		vmcomm_free(pair->ccb[i]);
		pair->ccb[i] = NULL;
		pair->ccb_mem[i] = NULL;
		vmcomm_store32(&pair->mine->ccb_chunk[i], 0);
	}
	pair->ccb_chunks = 0;
	pair->ccb_free = VMCOMM_CCB_NONE;
}

static bool vmcomm_ccb_chunk_unused(struct vmcomm_pair *pair, u32 n)
{
	u32 per = 1u << (pair->node->lay.chunk_shift - VMCOMM_CCB_SHIFT), i;

	for (i = 0; i < per; i++)
		if (pair->ccb[n][i].use != VMCOMM_CCB_UNUSED)
			return false;
	return true;
}

/* Give back trailing chunks that are empty, except the first. */
void vmcomm_ccb_trim(struct vmcomm_pair *pair)
{
	struct vmcomm_node *node = pair->node;
	u32 per = 1u << (node->lay.chunk_shift - VMCOMM_CCB_SHIFT), keep = pair->ccb_chunks, n;
	u32 *link, idx;

	while (keep > 1 && vmcomm_ccb_chunk_unused(pair, keep - 1))
		keep--;
	if (keep == pair->ccb_chunks)
		return;
	/* One walk for all of them: there may be tens of thousands, and the lock is held. */
	for (link = &pair->ccb_free; (idx = *link) != VMCOMM_CCB_NONE;) {
		if (idx >= keep * per)
			*link = vmcomm_ccb_at(pair, idx)->next;
		else
			link = &vmcomm_ccb_at(pair, idx)->next;
	}
	for (n = keep; n < pair->ccb_chunks; n++) {
		vmcomm_store32(&pair->mine->ccb_chunk[n], 0);
		if (node->backend->unshare)
			node->backend->unshare(node, pair->slot, pair->ccb_chunk[n], 1);
		vmcomm_heap_free(&node->heap, pair->ccb_chunk[n], 0, node->lay.chunk_shift);
		vmcomm_free(pair->ccb[n]);
		pair->ccb[n] = NULL;
		pair->ccb_mem[n] = NULL;
	}
	pair->ccb_chunks = keep;
}
