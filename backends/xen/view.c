// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * view.c - copy a domain's side of its connections into the region, where vmcommd lists them (M21)
 *
 * Pair pages, and chunks of CCBs: the domain tells by a page of references what there is. All of that
 * may change at any time and may be nonsense; what cannot be mapped is not shown.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "view.h"

static uint32_t chunk_pages(const struct view *v)
{
	return 1U << (v->lay->chunk_shift - 12);
}

static void piece_unmap(struct view *v, struct view_piece *piece, uint32_t pages)
{
	if (piece->mem)
		xengnttab_unmap(v->map, piece->mem, pages);
	memset(piece, 0, sizeof(*piece));
}

/* Have @piece be what the domain says now. */
static void piece_follow(struct view *v, struct view_piece *piece, const vmcomm_le32 *from,
			 uint32_t pages)
{
	uint32_t ref[1U << (VMCOMM_CHUNK_SHIFT_MAX - 12)] = {0}, i;
	bool whole = pages > 0;

	for (i = 0; i < pages; i++) {
		ref[i] = vmcomm_load32(&from[i]);
		whole = whole && ref[i];
	}
	if (piece->mem && whole && ref[0] == piece->ref)
		return;
	piece_unmap(v, piece, pages);
	if (!whole)
		return;
	piece->mem = xengnttab_map_domain_grant_refs(v->map, pages, v->domid, ref, PROT_READ);
	piece->ref = ref[0];
}

static void rows_copy(struct view *v)
{
	uint32_t pages = chunk_pages(v), i, chunk;
	const vmcomm_le32 *from;

	for (i = 0; i < VMCOMM_XEN_VIEW_ROWS(pages); i++) {
		struct view_piece *piece = &v->row[i];

		from = &v->page->row[i * (1 + pages)];
		chunk = vmcomm_load_acquire32(from);
		if (!chunk || chunk > v->lay->chunks || chunk != piece->chunk)
			piece_unmap(v, piece, pages);
		if (!chunk || chunk > v->lay->chunks)
			continue;
		piece_follow(v, piece, from + 1, pages);
		if (!piece->mem)
			continue;
		piece->chunk = chunk;
		memcpy(vmcomm_layout_chunk(v->lay, v->base, v->slot, chunk - 1), piece->mem,
		       (size_t)pages * VMCOMM_PAGE);
	}
}

static bool chunk_shown(const struct view *v, uint32_t chunk)
{
	uint32_t i;

	for (i = 0; i < VMCOMM_XEN_VIEW_ROWS(chunk_pages(v)); i++)
		if (v->row[i].mem && v->row[i].chunk == chunk)
			return true;
	return false;
}

/* A pair whose chunks are not seen refers to none: what lies there is somebody else's. */
static void pair_copy(struct view *v, uint32_t peer)
{
	struct vmcomm_abi_pair *to = vmcomm_layout_pair(v->lay, v->base, v->slot, peer);
	const struct vmcomm_abi_pair *from = v->pair[peer].mem;
	uint32_t i, chunk;

	for (i = 0; i < VMCOMM_CCB_CHUNKS_MAX; i++) {
		chunk = from ? vmcomm_load32(&from->ccb_chunk[i]) : 0;
		vmcomm_store32(&to->ccb_chunk[i], chunk && chunk_shown(v, chunk) ? chunk : 0);
	}
}

void view_copy(struct view *v)
{
	uint32_t i;

	if (!v->page || vmcomm_load_acquire32(&v->page->magic) != VMCOMM_XEN_VIEW_MAGIC ||
	    vmcomm_load32(&v->page->version) != VMCOMM_XEN_VERSION)
		return;
	rows_copy(v);
	for (i = 0; i < v->lay->slots; i++) {
		piece_follow(v, &v->pair[i], v->page->pair[i], 2);
		pair_copy(v, i);
	}
}

void view_open(struct view *v, uint32_t ref)
{
	uint32_t rows = VMCOMM_XEN_VIEW_ROWS(chunk_pages(v));

	view_close(v);
	v->row = rows ? calloc(rows, sizeof(*v->row)) : NULL;
	if (v->row)
		v->page = xengnttab_map_grant_ref(v->map, v->domid, ref, PROT_READ);
}

void view_close(struct view *v)
{
	uint32_t i;

	for (i = 0; i < v->lay->slots; i++) {
		piece_unmap(v, &v->pair[i], 2);
		if (v->page)
			pair_copy(v, i);
	}
	for (i = 0; v->row && i < VMCOMM_XEN_VIEW_ROWS(chunk_pages(v)); i++)
		piece_unmap(v, &v->row[i], chunk_pages(v));
	if (v->page)
		xengnttab_unmap(v->map, (void *)(uintptr_t)v->page, 1);
	v->page = NULL;
	free(v->row);
	v->row = NULL;
}
