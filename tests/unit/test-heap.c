// SPDX-License-Identifier: GPL-2.0-or-later
/* test-heap.c - chunks, blocks, quota and the handshake of reclaim (M26) */
#include "heap.h"
#include "unit.h"

#define CHUNKS 32
#define SHIFT  16

static struct vmcomm_heap heap;

static int take(u32 peer, u32 shift, u32 *chunk, u32 *off, bool *scrub)
{
	return vmcomm_heap_alloc(&heap, peer, shift, chunk, off, scrub);
}

START_TEST(blocks_fill_a_chunk)
{
	u32 shift, i, n, chunk, off, first = 0;
	u64 seen;
	bool scrub;

	for (shift = 12; shift <= SHIFT; shift++) {
		ck_assert_int_eq(vmcomm_heap_init(&heap, CHUNKS, SHIFT), 0);
		n = 1u << (SHIFT - shift);
		seen = 0;
		for (i = 0; i < n; i++) {
			ck_assert_int_eq(take(3, shift, &chunk, &off, &scrub), 0);
			ck_assert(!scrub);
			if (!i)
				first = chunk;
			ck_assert_uint_eq(chunk, first);
			ck_assert_uint_eq(off & ((1u << shift) - 1), 0);
			ck_assert_uint_lt(off, 1u << SHIFT);
			ck_assert(!(seen >> (off >> shift) & 1));
			seen |= 1ULL << (off >> shift);
		}
		ck_assert_uint_eq(heap.used, 1);
		ck_assert_int_eq(take(3, shift, &chunk, &off, &scrub), 0);
		ck_assert_uint_ne(chunk, first);
		ck_assert_uint_eq(heap.used, 2);
		vmcomm_heap_free(&heap, chunk, off, shift);
		for (i = 0; i < n; i++)
			vmcomm_heap_free(&heap, first, i << shift, shift);
		ck_assert_uint_eq(heap.used, 0);
		ck_assert_uint_eq(heap.peer[3].held, 0);
		vmcomm_heap_deinit(&heap);
	}
}
END_TEST

START_TEST(largest_chunks_have_64_blocks)
{
	u32 i, chunk, off;
	bool scrub;

	ck_assert_int_eq(vmcomm_heap_init(&heap, 4, VMCOMM_CHUNK_SHIFT_MAX), 0);
	for (i = 0; i < 4 * 64; i++)
		ck_assert_int_eq(take(0, 12, &chunk, &off, &scrub), 0);
	ck_assert_uint_eq(heap.used, 4);
	ck_assert_int_eq(take(0, 12, &chunk, &off, &scrub), -EDQUOT);
	vmcomm_heap_free(&heap, 2, 63 << 12, 12);
	ck_assert_int_eq(take(0, 12, &chunk, &off, &scrub), 0);
	ck_assert_uint_eq(chunk, 2);
	ck_assert_uint_eq(off, 63 << 12);
	vmcomm_heap_deinit(&heap);
}
END_TEST

START_TEST(runs_are_contiguous)
{
	u32 a, b, c, off;
	bool scrub;

	ck_assert_int_eq(vmcomm_heap_init(&heap, 8, SHIFT), 0);
	ck_assert_int_eq(take(0, SHIFT + 1, &a, &off, &scrub), 0);
	ck_assert_int_eq(take(0, SHIFT + 2, &b, &off, &scrub), 0);
	ck_assert_int_eq(take(0, SHIFT + 1, &c, &off, &scrub), 0);
	ck_assert_uint_eq(heap.used, 8);
	vmcomm_heap_free(&heap, a, 0, SHIFT + 1);
	vmcomm_heap_free(&heap, c, 0, SHIFT + 1);
	/* Four are free, but not side by side. */
	ck_assert_int_eq(take(0, SHIFT + 2, &a, &off, &scrub), -ENOSPC);
	vmcomm_heap_free(&heap, b, 0, SHIFT + 2);
	ck_assert_int_eq(take(0, SHIFT + 3, &a, &off, &scrub), 0);
	ck_assert_uint_eq(a, 0);
	vmcomm_heap_deinit(&heap);
}
END_TEST

START_TEST(quota)
{
	u32 i, chunk, off;
	bool scrub;

	ck_assert_int_eq(vmcomm_heap_init(&heap, CHUNKS, SHIFT), 0);
	heap.quota = CHUNKS / 2;
	for (i = 0; i < CHUNKS / 2; i++)
		ck_assert_int_eq(take(1, SHIFT, &chunk, &off, &scrub), 0);
	ck_assert_int_eq(take(1, SHIFT, &chunk, &off, &scrub), -EDQUOT);
	ck_assert_int_eq(take(1, 12, &chunk, &off, &scrub), -EDQUOT);
	/* The other one has its share. */
	ck_assert_int_eq(take(2, SHIFT + 4, &chunk, &off, &scrub), 0);
	ck_assert_uint_eq(heap.used, CHUNKS);
	heap.quota = CHUNKS;
	ck_assert_int_eq(take(1, SHIFT, &chunk, &off, &scrub), -ENOSPC);
	vmcomm_heap_deinit(&heap);
}
END_TEST

/* A reader that never lets go of a chunk keeps that one, and no others, from being used. */
START_TEST(stuck_chunks_come_last)
{
	u32 i, chunk, off, stuck;
	bool scrub;

	ck_assert_int_eq(vmcomm_heap_init(&heap, 4, SHIFT), 0);
	ck_assert_int_eq(take(0, SHIFT, &stuck, &off, &scrub), 0);
	vmcomm_heap_free(&heap, stuck, off, SHIFT);
	/* It is the only one whose pages are there already. */
	ck_assert_int_eq(take(1, SHIFT, &chunk, &off, &scrub), 0);
	ck_assert_uint_eq(chunk, stuck);
	vmcomm_heap_avoid(&heap, chunk, 1);
	vmcomm_heap_free(&heap, chunk, off, SHIFT);
	for (i = 0; i < 3; i++) {
		ck_assert_int_eq(take(1, SHIFT, &chunk, &off, &scrub), 0);
		ck_assert_uint_ne(chunk, stuck);
	}
	/* Nothing else is left: try again. */
	ck_assert_int_eq(take(1, SHIFT, &chunk, &off, &scrub), 0);
	ck_assert_uint_eq(chunk, stuck);
	vmcomm_heap_free(&heap, chunk, off, SHIFT);
	ck_assert_int_eq(take(1, SHIFT, &chunk, &off, &scrub), 0);
	vmcomm_heap_deinit(&heap);
	/* Runs, too. */
	ck_assert_int_eq(vmcomm_heap_init(&heap, 4, SHIFT), 0);
	ck_assert_int_eq(take(0, SHIFT, &stuck, &off, &scrub), 0);
	vmcomm_heap_avoid(&heap, stuck, 1);
	vmcomm_heap_free(&heap, stuck, off, SHIFT);
	ck_assert_int_eq(take(1, SHIFT + 1, &chunk, &off, &scrub), 0);
	ck_assert_uint_eq(chunk, stuck + 1);
	vmcomm_heap_deinit(&heap);
}
END_TEST

START_TEST(bad_arguments)
{
	u32 chunk, off;
	bool scrub;

	ck_assert_int_eq(vmcomm_heap_init(&heap, CHUNKS, SHIFT), 0);
	ck_assert_int_eq(take(VMCOMM_SLOTS_MAX, SHIFT, &chunk, &off, &scrub), -EINVAL);
	ck_assert_int_eq(take(0, VMCOMM_RING_SHIFT_MIN - 1, &chunk, &off, &scrub), -EINVAL);
	ck_assert_int_eq(take(0, VMCOMM_RING_SHIFT_MAX + 1, &chunk, &off, &scrub), -EINVAL);
	vmcomm_heap_deinit(&heap);
}
END_TEST

/* Nobody gets to see what a third VM was sent. */
START_TEST(no_bytes_of_others)
{
	u32 a, chunk, off;
	bool scrub;

	ck_assert_int_eq(vmcomm_heap_init(&heap, CHUNKS, SHIFT), 0);
	ck_assert_int_eq(take(1, 12, &a, &off, &scrub), 0);
	ck_assert(!scrub);
	vmcomm_heap_free(&heap, a, off, 12);
	ck_assert_int_eq(take(1, 12, &chunk, &off, &scrub), 0);
	ck_assert_uint_eq(chunk, a);
	ck_assert(!scrub);
	vmcomm_heap_free(&heap, chunk, off, 12);
	ck_assert_int_eq(take(2, 12, &chunk, &off, &scrub), 0);
	ck_assert_uint_eq(chunk, a);
	ck_assert(scrub);
	ck_assert_int_eq(take(2, 12, &chunk, &off, &scrub), 0);
	ck_assert(!scrub);
	vmcomm_heap_free(&heap, a, 0, 12);
	vmcomm_heap_free(&heap, a, 1 << 12, 12);
	/* One dirty chunk in a run is enough. */
	ck_assert_int_eq(take(3, SHIFT + 1, &chunk, &off, &scrub), 0);
	ck_assert_uint_eq(chunk, a);
	ck_assert(scrub);
	vmcomm_heap_deinit(&heap);
}
END_TEST

START_TEST(reclaim)
{
	vmcomm_le32 ask[CHUNKS] = {0}, ack[CHUNKS] = {0};
	u32 chunk, off, first;
	bool scrub;

	ck_assert_int_eq(vmcomm_heap_init(&heap, CHUNKS, SHIFT), 0);
	ck_assert_int_eq(take(1, SHIFT, &chunk, &off, &scrub), 0);
	vmcomm_heap_free(&heap, chunk, off, SHIFT);
	vmcomm_heap_reclaim(&heap, ask, ack, 2);
	ck_assert_uint_eq(ask[chunk], 0);
	vmcomm_heap_reclaim(&heap, ask, ack, 2);
	ck_assert_uint_eq(ask[chunk] & 1, 1);
	ck_assert_uint_eq(heap.chunk[chunk].state, VMCOMM_CHUNK_ASKED);
	first = chunk;
	/* Not answered: out of use, also in a run. */
	ck_assert_int_eq(take(1, SHIFT, &chunk, &off, &scrub), 0);
	ck_assert_uint_ne(chunk, first);
	vmcomm_heap_free(&heap, chunk, off, SHIFT);
	ack[first] = ask[first] + 2;
	vmcomm_heap_reclaim(&heap, ask, ack, 100);
	ck_assert_uint_eq(heap.chunk[first].state, VMCOMM_CHUNK_ASKED);
	ack[first] = ask[first];
	vmcomm_heap_reclaim(&heap, ask, ack, 100);
	ck_assert_uint_eq(heap.chunk[first].state, VMCOMM_CHUNK_CLEAN);
	/* Zeroes came back: nothing to scrub, for anybody; dirty ones are taken first. */
	ck_assert_int_eq(take(2, SHIFT, &chunk, &off, &scrub), 0);
	ck_assert(scrub);
	ck_assert_int_eq(take(2, SHIFT, &chunk, &off, &scrub), 0);
	ck_assert_uint_eq(chunk, first);
	ck_assert(!scrub);
	/* A second round has another number. */
	vmcomm_heap_free(&heap, chunk, off, SHIFT);
	vmcomm_heap_reclaim(&heap, ask, ack, 1);
	ck_assert_uint_ne(ask[first], ack[first]);
	vmcomm_heap_deinit(&heap);
}
END_TEST

/* A chunk that is taken again in time is not asked for. */
START_TEST(reclaim_spares_the_busy)
{
	vmcomm_le32 ask[CHUNKS] = {0}, ack[CHUNKS] = {0};
	u32 chunk, off, i;
	bool scrub;

	ck_assert_int_eq(vmcomm_heap_init(&heap, CHUNKS, SHIFT), 0);
	for (i = 0; i < 10; i++) {
		ck_assert_int_eq(take(1, SHIFT, &chunk, &off, &scrub), 0);
		vmcomm_heap_reclaim(&heap, ask, ack, 2);
		vmcomm_heap_free(&heap, chunk, off, SHIFT);
		vmcomm_heap_reclaim(&heap, ask, ack, 2);
		ck_assert_uint_eq(ask[chunk], 0);
	}
	vmcomm_heap_deinit(&heap);
}
END_TEST

/* A host that does not answer keeps a part of the heap, not all of it. */
START_TEST(reclaim_without_host)
{
	vmcomm_le32 ask[CHUNKS] = {0}, ack[CHUNKS] = {0};
	u32 i, chunk[CHUNKS], off;
	bool scrub;

	ck_assert_int_eq(vmcomm_heap_init(&heap, CHUNKS, SHIFT), 0);
	for (i = 0; i < CHUNKS; i++)
		ck_assert_int_eq(take(1, SHIFT, &chunk[i], &off, &scrub), 0);
	for (i = 0; i < CHUNKS; i++)
		vmcomm_heap_free(&heap, chunk[i], 0, SHIFT);
	for (i = 0; i < 100; i++)
		vmcomm_heap_reclaim(&heap, ask, ack, 2);
	for (i = 0; i < CHUNKS / 2; i++)
		ck_assert_int_eq(take(1, SHIFT, &chunk[i], &off, &scrub), 0);
	/* It is back: all pages go. */
	for (i = 0; i < CHUNKS / 2; i++)
		vmcomm_heap_free(&heap, chunk[i], 0, SHIFT);
	for (i = 0; i < 100; i++) {
		memcpy(ack, ask, sizeof(ack));
		vmcomm_heap_reclaim(&heap, ask, ack, 2);
	}
	for (i = 0; i < CHUNKS; i++)
		ck_assert_uint_eq(heap.chunk[i].state, VMCOMM_CHUNK_CLEAN);
	vmcomm_heap_deinit(&heap);
}
END_TEST

/* Against a plain byte map of who owns what. */
START_TEST(random_against_map)
{
	static u8 owner[CHUNKS << (SHIFT - 12)];
	static struct {
		u32 chunk, off, shift, peer;
	} held[4096];
	vmcomm_le32 ask[CHUNKS] = {0}, ack[CHUNKS] = {0};
	u32 n = 0, step, k, i, chunk, off, shift, peer, at, count;
	bool scrub;
	int err;

	srandom(7);
	memset(owner, 0, sizeof(owner));
	ck_assert_int_eq(vmcomm_heap_init(&heap, CHUNKS, SHIFT), 0);
	heap.quota = CHUNKS / 2;
	for (step = 0; step < 200000; step++) {
		if (random() % 100 < 52 && n < 4096) {
			shift = 12 + (u32)random() % 7;
			peer = (u32)random() % 5;
			err = take(peer, shift, &chunk, &off, &scrub);
			if (err)
				continue;
			at = (chunk << (SHIFT - 12)) + (off >> 12);
			count = 1u << (shift - 12);
			ck_assert_uint_le(at + count, sizeof(owner));
			for (i = at; i < at + count; i++) {
				ck_assert_uint_eq(owner[i], 0);
				owner[i] = (u8)(peer + 1);
			}
			held[n].chunk = chunk;
			held[n].off = off;
			held[n].shift = shift;
			held[n++].peer = peer;
		} else if (n) {
			k = (u32)random() % n;
			at = (held[k].chunk << (SHIFT - 12)) + (held[k].off >> 12);
			memset(owner + at, 0, 1u << (held[k].shift - 12));
			vmcomm_heap_free(&heap, held[k].chunk, held[k].off, held[k].shift);
			held[k] = held[--n];
		}
		/* One chunk, one peer. */
		if (step % 1000 == 0) {
			for (i = 0; i < CHUNKS; i++) {
				const u8 *o = owner + (i << (SHIFT - 12));
				u8 who = 0;

				for (k = 0; k < 1u << (SHIFT - 12); k++) {
					ck_assert(!o[k] || !who || o[k] == who);
					if (o[k])
						who = o[k];
				}
			}
			if (random() % 2)
				memcpy(ack, ask, sizeof(ack));
			vmcomm_heap_reclaim(&heap, ask, ack, 1);
		}
		for (i = 0; i < 5; i++)
			ck_assert_uint_le(heap.peer[i].held, heap.quota);
	}
	while (n--)
		vmcomm_heap_free(&heap, held[n].chunk, held[n].off, held[n].shift);
	ck_assert_uint_eq(heap.used, 0);
	vmcomm_heap_deinit(&heap);
}
END_TEST

UNIT_MAIN("heap", blocks_fill_a_chunk, largest_chunks_have_64_blocks, runs_are_contiguous, quota,
	  stuck_chunks_come_last,
	  bad_arguments, no_bytes_of_others, reclaim, reclaim_spares_the_busy, reclaim_without_host,
	  random_against_map)
