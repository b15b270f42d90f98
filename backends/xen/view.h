/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* view.h - see view.c */
#ifndef VMCOMM_BACKEND_XEN_VIEW_H
#define VMCOMM_BACKEND_XEN_VIEW_H

#include <xengnttab.h>

#include "layout.h"
#include "../../guest/linux/xen-abi.h"

struct view {
	xengnttab_handle *map;
	unsigned int domid;
	uint32_t slot;
	const struct vmcomm_layout *lay;
	uint8_t *base; /* the region */
	const struct vmcomm_xen_view *page; /* the domain's; NULL: it shows nothing */
	struct view_piece {
		void *mem; /* NULL: not mapped */
		uint32_t ref; /* of its first page, to see that it is another one now */
		uint32_t chunk;
	} pair[VMCOMM_SLOTS_MAX], *row;
};

/* Map page @ref of the domain. On errors nothing is shown. */
void view_open(struct view *v, uint32_t ref);
/* Bring the region up to date. */
void view_copy(struct view *v);
void view_close(struct view *v);

#endif
