// SPDX-License-Identifier: GPL-2.0-only
/*
 * xenmap.c - pages of other domains in one piece of address space
 *
 * Address space and page structures are made beforehand, by who may sleep. Then mapping and
 * unmapping is one hypercall for a whole chunk and can be done anywhere, as netback does it.
 *
 * This is for guests whose page tables are their own (PVH, HVM). In a PV guest the hypervisor checks
 * each page table entry, and none but the one that the grant was mapped with may refer to it.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/page.h>

#include "module.h"
#include "xen.h"

#define VMCOMM_XMAP_BATCH 16

/* @count pages that nothing is mapped in yet. NULL: no memory. May sleep. */
struct vmcomm_xmap *vmcomm_xmap_new(u32 count)
{
	struct vmcomm_xmap *map = kzalloc(sizeof(*map), GFP_KERNEL);

	if (!map)
		return NULL;
	map->count = count;
	map->pages = kcalloc(count, sizeof(*map->pages), GFP_KERNEL);
	map->handle = kcalloc(count, sizeof(*map->handle), GFP_KERNEL);
	if (!map->pages || !map->handle)
		goto err_map;
	if (gnttab_alloc_pages(count, map->pages))
		goto err_map;
	map->va = vmap(map->pages, count, VM_MAP, PAGE_KERNEL_RO);
	if (!map->va)
		goto err_pages;
	return map;

err_pages:
	gnttab_free_pages(count, map->pages);
err_map:
	kfree(map->handle);
	kfree(map->pages);
	kfree(map);
	return NULL;
}

/* May sleep. */
void vmcomm_xmap_free(struct vmcomm_xmap *map)
{
	if (!map)
		return;
	vmcomm_xmap_unmap(map);
	vunmap(map->va);
	gnttab_free_pages(map->count, map->pages);
	kfree(map->handle);
	kfree(map->pages);
	kfree(map);
}

static int vmcomm_xmap_error(int status)
{
	switch (status) {
	case GNTST_okay:
		return 0;
	case GNTST_permission_denied:
		return -EPERM;
	case GNTST_no_device_space:
		return -ENOSPC;
	default:
		return -EPROTO;
	}
}

/*
 * Map map->count pages of @domid, all or none. Any context; one caller at a time.
 * Return: 0; -EPERM: the hypervisor forbids it; -ENOSPC: it has no room; -EPROTO: no such grants.
 */
int vmcomm_xmap_map(struct vmcomm_xmap *map, u16 domid, const u32 *ref)
{
	struct gnttab_map_grant_ref op[VMCOMM_XMAP_BATCH];
	u32 at, n, i;
	int err = 0;

	for (at = 0; at < map->count && !err; at += n) {
		n = min_t(u32, map->count - at, VMCOMM_XMAP_BATCH);
		for (i = 0; i < n; i++)
			gnttab_set_map_op(&op[i], (unsigned long)page_address(map->pages[at + i]),
					  GNTMAP_host_map | GNTMAP_readonly, ref[at + i], domid);
		if (gnttab_map_refs(op, NULL, map->pages + at, n)) {
			err = -EPROTO;
			break;
		}
		/* Those that were mapped come before the first that was not, or are undone here. */
		for (i = 0; i < n; i++) {
			map->handle[at + i] = op[i].status == GNTST_okay ? op[i].handle : ~0u;
			if (!err)
				err = vmcomm_xmap_error(op[i].status);
		}
		map->mapped = at + n;
	}
	if (err)
		vmcomm_xmap_unmap(map);
	return err;
}

/* Any context. */
void vmcomm_xmap_unmap(struct vmcomm_xmap *map)
{
	struct gnttab_unmap_grant_ref op[VMCOMM_XMAP_BATCH];
	struct page *pages[VMCOMM_XMAP_BATCH];
	u32 at = 0, n;

	while (at < map->mapped) {
		for (n = 0; n < VMCOMM_XMAP_BATCH && at < map->mapped; at++) {
			if (map->handle[at] == ~0u)
				continue;
			gnttab_set_unmap_op(&op[n], (unsigned long)page_address(map->pages[at]),
					    GNTMAP_host_map | GNTMAP_readonly, map->handle[at]);
			pages[n++] = map->pages[at];
		}
		if (n && gnttab_unmap_refs(op, NULL, pages, n))
			pr_warn("vmcomm: cannot unmap a peer's pages\n");
	}
	map->mapped = 0;
}
