// SPDX-License-Identifier: LGPL-2.1-or-later
/* layout.c - geometry of a region */
#include "layout.h"

static u64 vmcomm_align(u64 n, u64 to)
{
	return (n + to - 1) & ~(to - 1);
}

int vmcomm_layout_compute(struct vmcomm_layout *lay, u64 size, u32 slots, u32 chunk_shift)
{
	u64 chunk, chunks, prev;

	if (size < VMCOMM_REGION_MIN || size > VMCOMM_REGION_MAX || (size & (size - 1)))
		return -EINVAL;
	if (slots < 2 || slots > VMCOMM_SLOTS_MAX)
		return -EINVAL;
	if (chunk_shift < VMCOMM_CHUNK_SHIFT_MIN || chunk_shift > VMCOMM_CHUNK_SHIFT_MAX)
		return -EINVAL;
	chunk = 1ULL << chunk_shift;

	lay->size = size;
	lay->slots = slots;
	lay->chunk_shift = chunk_shift;
	lay->table_off = VMCOMM_PAGE;
	lay->reclaim_off = vmcomm_align(lay->table_off + slots * sizeof(struct vmcomm_abi_location),
					VMCOMM_PAGE);
	lay->ctl_stride = VMCOMM_CTL_PAIR + slots * sizeof(struct vmcomm_abi_pair);

	/* The acknowledgement words grow with the heap that they leave room for: from above. */
	chunks = size / slots / chunk;
	if (chunks > VMCOMM_CHUNKS_MAX)
		chunks = VMCOMM_CHUNKS_MAX;
	do {
		prev = chunks;
		lay->ctl_off = vmcomm_align(lay->reclaim_off + slots * chunks * 4, VMCOMM_PAGE);
		lay->heap_off = vmcomm_align(lay->ctl_off + slots * lay->ctl_stride, chunk);
		if (lay->heap_off >= size)
			return -ENOSPC;
		if (chunks > (size - lay->heap_off) / slots / chunk)
			chunks = (size - lay->heap_off) / slots / chunk;
	} while (chunks != prev);
	if (chunks < 4)
		return -ENOSPC;
	lay->chunks = chunks;
	lay->slice_size = chunks * chunk;
	return 0;
}

int vmcomm_layout_read(struct vmcomm_layout *lay, const void *base, u64 mapped)
{
	const struct vmcomm_abi_header *h = base;
	struct vmcomm_layout want;
	u64 size;
	int err;

	if (mapped < VMCOMM_REGION_MIN)
		return -EINVAL;
	if (vmcomm_load_acquire64(&h->magic) != VMCOMM_ABI_MAGIC)
		return -ENODATA;
	if (vmcomm_load32(&h->abi_major) != VMCOMM_ABI_MAJOR)
		return -EPROTO;
	size = vmcomm_load64(&h->region_size); /* once: it may change under us */
	if (size > mapped)
		return -EINVAL;
	/*
	 * Everything follows from three numbers. Compute it rather than check what is there: a
	 * header that says something else is not ours.
	 */
	err = vmcomm_layout_compute(&want, size, vmcomm_load32(&h->slots),
				    vmcomm_load32(&h->chunk_shift));
	if (err)
		return -EINVAL;
	if (vmcomm_load64(&h->table_off) != want.table_off ||
	    vmcomm_load64(&h->reclaim_off) != want.reclaim_off ||
	    vmcomm_load64(&h->ctl_off) != want.ctl_off ||
	    vmcomm_load64(&h->ctl_stride) != want.ctl_stride ||
	    vmcomm_load64(&h->heap_off) != want.heap_off ||
	    vmcomm_load64(&h->slice_size) != want.slice_size)
		return -EINVAL;
	*lay = want;
	return 0;
}

void vmcomm_layout_write(const struct vmcomm_layout *lay, void *base, const char *gid, u64 epoch)
{
	struct vmcomm_abi_header *h = base;
	u32 i;

	vmcomm_store32(&h->abi_major, VMCOMM_ABI_MAJOR);
	vmcomm_store32(&h->abi_minor, VMCOMM_ABI_MINOR);
	vmcomm_store64(&h->region_size, lay->size);
	vmcomm_store32(&h->slots, lay->slots);
	vmcomm_store32(&h->chunk_shift, lay->chunk_shift);
	vmcomm_store64(&h->table_off, lay->table_off);
	vmcomm_store64(&h->reclaim_off, lay->reclaim_off);
	vmcomm_store64(&h->ctl_off, lay->ctl_off);
	vmcomm_store64(&h->ctl_stride, lay->ctl_stride);
	vmcomm_store64(&h->heap_off, lay->heap_off);
	vmcomm_store64(&h->slice_size, lay->slice_size);
	vmcomm_store64(&h->group_epoch, epoch);
	for (i = 0; i < VMCOMM_GID_MAX - 1 && gid[i]; i++)
		vmcomm_store8(&h->gid[i], (u8)gid[i]);
	vmcomm_store_release64(&h->magic, VMCOMM_ABI_MAGIC);
}
