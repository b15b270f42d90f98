// SPDX-License-Identifier: GPL-2.0-only
/*
 * xenmap.c - pages of other domains in one piece of address space
 *
 * Address space and page structures are made beforehand, by who may sleep. Then mapping and
 * unmapping is one hypercall for a whole chunk and can be done anywhere, as netback does it.
 *
 * A guest whose page tables are its own (PVH, HVM) has pages of its address space replaced, and a view
 * of them by vmap(). In a PV guest the hypervisor checks each page table entry, and none but the one
 * that the grant was mapped with may refer to it: there the entries of the view itself are the ones.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/page.h>
#include <asm/xen/hypercall.h>

#include "module.h"
#include "xen.h"

#define VMCOMM_XMAP_BATCH 16
#define VMCOMM_XMAP_FLAGS (GNTMAP_host_map | GNTMAP_readonly)

#ifdef CONFIG_XEN_PV
/* Make a view whose entries are empty, and find them. */
static int vmcomm_xmap_entries(struct vmcomm_xmap *map)
{
	unsigned long va;
	pte_t *entry;
	u32 level, i;

	map->entry = kcalloc(map->count, sizeof(*map->entry), GFP_KERNEL);
	if (!map->entry)
		return -ENOMEM;
	for (i = 0; i < map->count; i++)
		map->pages[i] = ZERO_PAGE(0);
	map->va = vmap(map->pages, map->count, VM_MAP, PAGE_KERNEL_RO);
	if (!map->va)
		goto err_entry;
	for (i = 0; i < map->count; i++) {
		va = (unsigned long)map->va + i * PAGE_SIZE;
		entry = lookup_address(va, &level);
		if (!entry || level != PG_LEVEL_4K)
			goto err_va;
		map->entry[i] = arbitrary_virt_to_machine(entry).maddr;
		/* The hypervisor does not flush what it replaces. */
		if (HYPERVISOR_update_va_mapping(va, __pte(0), UVMF_INVLPG | UVMF_ALL))
			goto err_va;
	}
	return 0;

err_va:
	vunmap(map->va);
err_entry:
	kfree(map->entry);
	map->entry = NULL;
	return -ENOMEM;
}
#else
static int vmcomm_xmap_entries(struct vmcomm_xmap *map)
{
	return -EOPNOTSUPP;
}
#endif

static bool vmcomm_xmap_pv(void)
{
	return !xen_feature(XENFEAT_auto_translated_physmap);
}

/* What to tell the hypervisor about page @i: where it goes, and how. */
static phys_addr_t vmcomm_xmap_place(const struct vmcomm_xmap *map, u32 i, u32 *flags)
{
	*flags = VMCOMM_XMAP_FLAGS | (map->entry ? GNTMAP_contains_pte : 0);
	return map->entry ? map->entry[i] : (unsigned long)page_address(map->pages[i]);
}

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
	if (vmcomm_xmap_pv()) {
		if (vmcomm_xmap_entries(map))
			goto err_map;
		return map;
	}
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
	if (!map->entry)
		gnttab_free_pages(map->count, map->pages);
	kfree(map->entry);
	kfree(map->handle);
	kfree(map->pages);
	kfree(map);
}

/* These sort out Linux's own tables; where only the hypervisor's change there is nothing to sort out. */
static int vmcomm_xmap_do_map(const struct vmcomm_xmap *map, struct gnttab_map_grant_ref *op, u32 at,
			      u32 n)
{
	if (map->entry)
		return HYPERVISOR_grant_table_op(GNTTABOP_map_grant_ref, op, n);
	return gnttab_map_refs(op, NULL, map->pages + at, n);
}

static int vmcomm_xmap_do_unmap(const struct vmcomm_xmap *map, struct gnttab_unmap_grant_ref *op,
				struct page **pages, u32 n)
{
	if (map->entry)
		return HYPERVISOR_grant_table_op(GNTTABOP_unmap_grant_ref, op, n);
	return gnttab_unmap_refs(op, NULL, pages, n);
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
	u32 at, n, i, flags;
	phys_addr_t place;
	int err = 0;

	for (at = 0; at < map->count && !err; at += n) {
		n = min_t(u32, map->count - at, VMCOMM_XMAP_BATCH);
		for (i = 0; i < n; i++) {
			place = vmcomm_xmap_place(map, at + i, &flags);
			gnttab_set_map_op(&op[i], place, flags, ref[at + i], domid);
		}
		if (vmcomm_xmap_do_map(map, op, at, n)) {
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
	u32 at = 0, n, flags;
	phys_addr_t place;

	while (at < map->mapped) {
		for (n = 0; n < VMCOMM_XMAP_BATCH && at < map->mapped; at++) {
			if (map->handle[at] == ~0u)
				continue;
			place = vmcomm_xmap_place(map, at, &flags);
			gnttab_set_unmap_op(&op[n], place, flags, map->handle[at]);
			pages[n++] = map->pages[at];
		}
		if (n && vmcomm_xmap_do_unmap(map, op, pages, n))
			pr_warn("vmcomm: cannot unmap a peer's pages\n");
	}
	map->mapped = 0;
}
