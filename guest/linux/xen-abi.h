/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xen-abi.h - what two frontends, and a frontend and dom0, agree on besides libvmcomm/abi.h
 *
 * docs/xen.md has the xenstore nodes. All that a VM shares it grants read-only, to one domain.
 */
#ifndef VMCOMM_XEN_ABI_H
#define VMCOMM_XEN_ABI_H

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
VMCOMM_ABI_ASSERT(sizeof(struct vmcomm_xen_dir) == VMCOMM_PAGE);

#define VMCOMM_XEN_PER_TABLE (VMCOMM_PAGE / 4)

/*
 * The page by which a VM lets dom0 list its connections. A row is the number of a chunk with CCBs + 1
 * (0: none) and the references of its pages. There are as many rows as fit; chunks beyond are not seen.
 */
#define VMCOMM_XEN_VIEW_MAGIC 0x76657876 /* "vxev" */
#define VMCOMM_XEN_VIEW_WORDS (VMCOMM_PAGE / 4 - 2 - 2 * VMCOMM_SLOTS_MAX)
struct vmcomm_xen_view {
	vmcomm_le32 magic;
	vmcomm_le32 version;
	vmcomm_le32 pair[VMCOMM_SLOTS_MAX][2]; /* the VM's pages for the VM in that slot */
	vmcomm_le32 row[VMCOMM_XEN_VIEW_WORDS];
};
VMCOMM_ABI_ASSERT(sizeof(struct vmcomm_xen_view) == VMCOMM_PAGE);
#define VMCOMM_XEN_VIEW_ROWS(chunk_pages) (VMCOMM_XEN_VIEW_WORDS / (1 + (chunk_pages)))

#endif
