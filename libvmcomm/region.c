// SPDX-License-Identifier: LGPL-2.1-or-later
/* region.c - bounds-checked places in a region that is one mapping (M26) */
#include "backend.h"

int vmcomm_region_init(struct vmcomm_region *region, void *base, u64 mapped)
{
	region->base = base;
	return vmcomm_layout_read(&region->lay, base, mapped);
}

struct vmcomm_abi_pair *vmcomm_region_pair_page(const struct vmcomm_region *region, u32 owner,
						u32 peer)
{
	if (owner >= region->lay.slots || peer >= region->lay.slots)
		return NULL;
	return vmcomm_layout_pair(&region->lay, region->base, owner, peer);
}

int vmcomm_region_map(const struct vmcomm_region *region, u32 owner, u32 chunk, u32 count,
		      void **mem)
{
	if (owner >= region->lay.slots || !count || count > region->lay.chunks ||
	    chunk > region->lay.chunks - count)
		return -EPROTO;
	*mem = vmcomm_layout_chunk(&region->lay, region->base, owner, chunk);
	return 0;
}

int vmcomm_region_location(const struct vmcomm_region *region, u32 slot,
			   struct vmcomm_location *loc)
{
	if (slot >= region->lay.slots)
		return -EINVAL;
	return vmcomm_location_read(vmcomm_layout_location(&region->lay, region->base, slot), loc);
}
