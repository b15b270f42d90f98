/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * layout.h - geometry of a region: computed and written by the host, checked by everybody
 */
#ifndef VMCOMM_LAYOUT_H
#define VMCOMM_LAYOUT_H

#include "port.h"

/* A private, checked copy of the geometry in the header. Offsets and sizes in bytes. */
struct vmcomm_layout {
	u64 size;
	u32 slots;
	u32 chunk_shift;
	u64 table_off;
	u64 reclaim_off;
	u64 ctl_off;
	u64 ctl_stride;
	u64 heap_off;
	u64 slice_size;
	u32 chunks; /* of one slot */
};

/**
 * vmcomm_layout_compute() - lay out a region
 * @lay: result
 * @size: of the region in bytes, a power of two (QEMU aborts on anything else)
 * @slots: 2 to VMCOMM_SLOTS_MAX
 * @chunk_shift: VMCOMM_CHUNK_SHIFT_MIN to _MAX
 *
 * Return: 0; -EINVAL: an argument is out of range; -ENOSPC: too small for so many slots.
 */
int vmcomm_layout_compute(struct vmcomm_layout *lay, u64 size, u32 slots, u32 chunk_shift);

/**
 * vmcomm_layout_read() - read and check the geometry of a mapped region (M26)
 * @lay: result, only valid on success
 * @base: start of the mapping
 * @mapped: bytes that are mapped there
 *
 * Return: 0; -ENODATA: no header there (yet); -EPROTO: another ABI version; -EINVAL: the header
 * contradicts itself or the mapping.
 */
int vmcomm_layout_read(struct vmcomm_layout *lay, const void *base, u64 mapped);

/**
 * vmcomm_layout_write() - write a header into zeroed memory; the magic comes last
 * @lay: from vmcomm_layout_compute()
 * @base: the mapping, at least lay->size bytes
 * @gid: group id, at most VMCOMM_GID_MAX - 1 bytes
 * @epoch: random number of this life of the group
 */
void vmcomm_layout_write(const struct vmcomm_layout *lay, void *base, const char *gid, u64 epoch);

/* Places in a region. The numbers must be in range: slot, peer < slots; chunk < chunks. */
static inline struct vmcomm_abi_location *vmcomm_layout_location(const struct vmcomm_layout *lay,
								 void *base, u32 slot)
{
	return (struct vmcomm_abi_location *)((u8 *)base + lay->table_off) + slot;
}

static inline vmcomm_le32 *vmcomm_layout_reclaim_ack(const struct vmcomm_layout *lay, void *base,
						     u32 slot, u32 chunk)
{
	return (vmcomm_le32 *)((u8 *)base + lay->reclaim_off) + (u64)slot * lay->chunks + chunk;
}

static inline struct vmcomm_abi_slot *vmcomm_layout_slot(const struct vmcomm_layout *lay,
							 void *base, u32 slot)
{
	return (struct vmcomm_abi_slot *)((u8 *)base + lay->ctl_off + slot * lay->ctl_stride);
}

static inline vmcomm_le32 *vmcomm_layout_reclaim(const struct vmcomm_layout *lay, void *base,
						 u32 slot, u32 chunk)
{
	return (vmcomm_le32 *)((u8 *)vmcomm_layout_slot(lay, base, slot) + VMCOMM_CTL_RECLAIM) +
	       chunk;
}

static inline struct vmcomm_abi_plain *vmcomm_layout_plain(const struct vmcomm_layout *lay,
							   void *base, u32 slot)
{
	return (struct vmcomm_abi_plain *)((u8 *)vmcomm_layout_slot(lay, base, slot) +
					   VMCOMM_CTL_PLAIN);
}

static inline struct vmcomm_abi_pair *vmcomm_layout_pair(const struct vmcomm_layout *lay,
							 void *base, u32 owner, u32 peer)
{
	return (struct vmcomm_abi_pair *)((u8 *)vmcomm_layout_slot(lay, base, owner) +
					  VMCOMM_CTL_PAIR) +
	       peer;
}

static inline void *vmcomm_layout_chunk(const struct vmcomm_layout *lay, void *base, u32 slot,
					u32 chunk)
{
	return (u8 *)base + lay->heap_off + slot * lay->slice_size +
	       ((u64)chunk << lay->chunk_shift);
}

#endif
