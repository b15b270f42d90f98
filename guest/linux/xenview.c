// SPDX-License-Identifier: GPL-2.0-only
/*
 * xenview.c - let dom0 list our connections (M21)
 *
 * dom0 is granted our pair pages and the chunks that hold our halves of connections, by a page of
 * references that is brought up to date once a second. Nothing else depends on it: where grants are
 * scarce some connections are not listed.
 */
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <xen/grant_table.h>

#include "module.h"
#include "xen.h"

static u32 vmcomm_xview_row(const struct vmcomm_xview *view, u32 row)
{
	return row * (1 + view->chunk_pages);
}

/* May sleep. Return: 0, -ENOMEM or -EMFILE. */
int vmcomm_xview_init(struct vmcomm_xview *view, u16 domid, u32 chunk_pages)
{
	int err = -ENOMEM;

	view->domid = domid;
	view->chunk_pages = chunk_pages;
	view->page = vzalloc(VMCOMM_PAGE);
	view->own = kzalloc(VMCOMM_PAGE, GFP_KERNEL);
	if (!view->page || !view->own)
		goto err;
	err = vmcomm_xen_grant(domid, view->page, &view->ref);
	if (err)
		goto err;
	vmcomm_store32(&view->page->version, VMCOMM_XEN_VERSION);
	vmcomm_store_release32(&view->page->magic, VMCOMM_XEN_VIEW_MAGIC);
	return 0;

err:
	vfree(view->page);
	kfree(view->own);
	view->page = NULL;
	view->own = NULL;
	return err;
}

/* Take some references back. Return: false: dom0 still maps a page of them. */
static bool vmcomm_xview_revoke(struct vmcomm_xview *view, vmcomm_le32 *own, vmcomm_le32 *page, u32 n)
{
	bool all = true;
	u32 i, ref;

	for (i = 0; i < n; i++) {
		vmcomm_store32(&page[i], 0);
		ref = vmcomm_load32(&own[i]);
		all &= vmcomm_xen_revoke(&ref);
		vmcomm_store32(&own[i], ref);
	}
	return all;
}

static void vmcomm_xview_grant(struct vmcomm_xview *view, vmcomm_le32 *own, vmcomm_le32 *page, u32 n,
			       const void *mem)
{
	u32 i, ref;

	for (i = 0; i < n; i++) {
		if (vmcomm_xen_grant(view->domid, (const u8 *)mem + i * VMCOMM_PAGE, &ref)) {
			vmcomm_xview_revoke(view, own, page, n);
			return;
		}
		vmcomm_store32(&own[i], ref);
		vmcomm_store32(&page[i], ref);
	}
}

/* @pages: the two that we write for the VM in @slot; NULL: there is none. */
void vmcomm_xview_pair(struct vmcomm_xview *view, u32 slot, const void *pages)
{
	vmcomm_le32 *own = view->own->pair[slot], *page = view->page->pair[slot];

	/* Whole, and shown; otherwise dom0 may still map what was there. */
	if (pages && vmcomm_load32(&page[0]) && vmcomm_load32(&page[1]))
		return;
	if (vmcomm_xview_revoke(view, own, page, 2) && pages)
		vmcomm_xview_grant(view, own, page, 2, pages);
}

/* This chunk of ours holds CCBs now. */
void vmcomm_xview_chunk(struct vmcomm_xview *view, u32 chunk, const void *pages)
{
	u32 i, at, room = ~0u;

	for (i = 0; i < VMCOMM_XEN_VIEW_ROWS(view->chunk_pages); i++) {
		at = vmcomm_xview_row(view, i);
		if (vmcomm_load32(&view->own->row[at]) == chunk + 1) {
			set_bit(i, view->seen);
			return;
		}
		/* dom0 may still map what a row had before. */
		if (room == ~0u && !vmcomm_load32(&view->own->row[at]) &&
		    vmcomm_xview_revoke(view, &view->own->row[at + 1], &view->page->row[at + 1],
					view->chunk_pages))
			room = i;
	}
	if (room == ~0u)
		return;
	at = vmcomm_xview_row(view, room);
	vmcomm_xview_grant(view, &view->own->row[at + 1], &view->page->row[at + 1], view->chunk_pages,
			   pages);
	if (!vmcomm_load32(&view->own->row[at + view->chunk_pages]))
		return;
	vmcomm_store32(&view->own->row[at], chunk + 1);
	vmcomm_store_release32(&view->page->row[at], chunk + 1);
	set_bit(room, view->seen);
}

/* All chunks have been told: those that were not hold no CCBs any more. */
void vmcomm_xview_round(struct vmcomm_xview *view)
{
	u32 i, at;

	for (i = 0; i < VMCOMM_XEN_VIEW_ROWS(view->chunk_pages); i++) {
		at = vmcomm_xview_row(view, i);
		if (test_and_clear_bit(i, view->seen))
			continue;
		vmcomm_store32(&view->page->row[at], 0);
		vmcomm_store32(&view->own->row[at], 0);
		vmcomm_xview_revoke(view, &view->own->row[at + 1], &view->page->row[at + 1],
				    view->chunk_pages);
	}
}

static void vmcomm_xview_forget(struct vmcomm_xview *view)
{
	u32 i, k;

	if (view->ref)
		gnttab_free_grant_reference(view->ref);
	view->ref = 0;
	for (i = 0; i < 2 * VMCOMM_SLOTS_MAX; i++)
		if (vmcomm_load32(&view->own->pair[i / 2][i % 2]))
			gnttab_free_grant_reference(vmcomm_load32(&view->own->pair[i / 2][i % 2]));
	for (i = 0; i < VMCOMM_XEN_VIEW_ROWS(view->chunk_pages); i++) {
		vmcomm_le32 *ref = &view->own->row[vmcomm_xview_row(view, i) + 1];

		for (k = 0; k < view->chunk_pages; k++)
			if (vmcomm_load32(&ref[k]))
				gnttab_free_grant_reference(vmcomm_load32(&ref[k]));
	}
}

/* @forget: the references are another domain's. Return: false: dom0 still maps some of it. */
bool vmcomm_xview_deinit(struct vmcomm_xview *view, bool forget)
{
	bool all;
	u32 i;

	if (!view->page)
		return true;
	bitmap_zero(view->seen, VMCOMM_XEN_VIEW_WORDS);
	vmcomm_xview_round(view);
	all = vmcomm_xen_revoke(&view->ref);
	for (i = 0; i < VMCOMM_SLOTS_MAX; i++)
		all &= vmcomm_xview_revoke(view, view->own->pair[i], view->page->pair[i], 2);
	for (i = 0; i < VMCOMM_XEN_VIEW_ROWS(view->chunk_pages); i++)
		all &= !memchr_inv(&view->own->row[vmcomm_xview_row(view, i) + 1], 0,
				   view->chunk_pages * 4);
	if (!all && !forget)
		return false;
	if (!all)
		vmcomm_xview_forget(view);
	vfree(view->page);
	kfree(view->own);
	view->page = NULL;
	view->own = NULL;
	return true;
}
