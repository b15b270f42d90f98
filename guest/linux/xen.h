/* SPDX-License-Identifier: GPL-2.0-only */
/* xen.h - parts of the Xen transport */
#ifndef VMCOMM_XEN_H
#define VMCOMM_XEN_H

#include "xen-abi.h"

/* xen.c: let @domid read a page of vmalloc()'s; take it back. Any context. */
int vmcomm_xen_grant(u16 domid, const void *page, u32 *ref);
bool vmcomm_xen_revoke(u32 *ref);

/* xenmap.c: pages of other domains in one piece of address space */
struct vmcomm_xmap {
	u32 count;
	u32 mapped;
	void *va;
	struct page **pages;
	u64 *entry; /* PV guests: machine addresses of the page table entries; otherwise NULL */
	u32 *handle;
};

struct vmcomm_xmap *vmcomm_xmap_new(u32 count);
void vmcomm_xmap_free(struct vmcomm_xmap *map);
int vmcomm_xmap_map(struct vmcomm_xmap *map, u16 domid, const u32 *ref);
void vmcomm_xmap_unmap(struct vmcomm_xmap *map);

/* xenview.c: what dom0 needs for a list of our connections */
struct vmcomm_xview {
	struct vmcomm_xen_view *page; /* shared */
	struct vmcomm_xen_view *own;  /* the same as we know it */
	u32 ref;
	u32 chunk_pages;
	u16 domid;
	DECLARE_BITMAP(seen, VMCOMM_XEN_VIEW_WORDS); /* rows */
};

int vmcomm_xview_init(struct vmcomm_xview *view, u16 domid, u32 chunk_pages);
bool vmcomm_xview_deinit(struct vmcomm_xview *view, bool forget);
void vmcomm_xview_pair(struct vmcomm_xview *view, u32 slot, const void *pages);
void vmcomm_xview_chunk(struct vmcomm_xview *view, u32 chunk, const void *pages);
void vmcomm_xview_round(struct vmcomm_xview *view);

#endif
