/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * xen.h - what two frontends, and a frontend and dom0, agree on besides libvmcomm/abi.h
 *
 * docs/xen.md has the xenstore nodes. All that a VM shares it grants read-only, to one domain.
 */
#ifndef VMCOMM_XEN_H
#define VMCOMM_XEN_H

#include <linux/build_bug.h>

#include "abi.h"

#define VMCOMM_XEN_MAGIC 0x6e657876 /* "vxen" */
#define VMCOMM_XEN_VERSION 1
#define VMCOMM_XEN_TABLES_MAX 128

/*
 * The directory page of a VM for one peer: grant references, 0 is none. The references of chunk c's
 * page i are at index c * pages-of-a-chunk + i of the reference tables, 1024 in each.
 */
struct vmcomm_xen_dir {
	vmcomm_le32 magic;
	vmcomm_le32 version;
	vmcomm_le32 slot_page; /* struct vmcomm_abi_slot */
	vmcomm_le32 pair[2];
	vmcomm_le32 tables;
	vmcomm_le32 table[VMCOMM_XEN_TABLES_MAX];
	vmcomm_u8 pad[VMCOMM_PAGE - 6 * 4 - VMCOMM_XEN_TABLES_MAX * 4];
};
static_assert(sizeof(struct vmcomm_xen_dir) == VMCOMM_PAGE);

#define VMCOMM_XEN_PER_TABLE (VMCOMM_PAGE / 4)

/* xenmap.c: pages of other domains in one piece of address space */
struct vmcomm_xmap {
	u32 count;
	u32 mapped;
	void *va;
	struct page **pages;
	u32 *handle;
};

struct vmcomm_xmap *vmcomm_xmap_new(u32 count);
void vmcomm_xmap_free(struct vmcomm_xmap *map);
int vmcomm_xmap_map(struct vmcomm_xmap *map, u16 domid, const u32 *ref);
void vmcomm_xmap_unmap(struct vmcomm_xmap *map);

#endif
