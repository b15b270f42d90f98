// SPDX-License-Identifier: LGPL-2.1-or-later
/* location.c - the location table and location numbers */
#include "location.h"

#define VMCOMM_LOCATION_TRIES 8

static void vmcomm_bytes_to_shared(vmcomm_u8 *dst, const u8 *src, u32 n)
{
	u32 i;

	for (i = 0; i < n; i++)
		vmcomm_store8(&dst[i], src[i]);
}

static void vmcomm_bytes_from_shared(u8 *dst, const vmcomm_u8 *src, u32 n)
{
	u32 i;

	for (i = 0; i < n; i++)
		dst[i] = vmcomm_load8(&src[i]);
}

void vmcomm_location_write(struct vmcomm_abi_location *row, const struct vmcomm_location *loc)
{
	static const u8 none[16];
	u32 seq, i, count;

	seq = vmcomm_load32(&row->seq) | 1;
	count = loc->addr_count < VMCOMM_ADDRS_MAX ? loc->addr_count : VMCOMM_ADDRS_MAX;

	vmcomm_store32(&row->seq, seq);
	vmcomm_wmb();
	vmcomm_store32(&row->state, loc->state);
	vmcomm_store64(&row->generation, loc->generation);
	vmcomm_store64(&row->location, loc->number);
	vmcomm_bytes_to_shared(row->vm_id, loc->vm_id, sizeof(loc->vm_id));
	vmcomm_store32(&row->addr_count, count);
	vmcomm_store32(&row->vectors, loc->vectors);
	for (i = 0; i < VMCOMM_ADDRS_MAX; i++)
		vmcomm_bytes_to_shared(row->addr[i], i < count ? loc->addr[i] : none, 16);
	vmcomm_wmb();
	vmcomm_store32(&row->seq, seq + 1);
}

static int vmcomm_location_check(const struct vmcomm_location *loc)
{
	if (loc->state > VMCOMM_SLOT_GONE || loc->addr_count > VMCOMM_ADDRS_MAX)
		return -EBADMSG;
	if (loc->vectors > VMCOMM_VECTORS)
		return -EBADMSG;
	if (!loc->vectors && loc->state != VMCOMM_SLOT_FREE)
		return -EBADMSG;
	return 0;
}

int vmcomm_location_read(const struct vmcomm_abi_location *row, struct vmcomm_location *loc)
{
	u32 try, seq, i;

	for (try = 0; try < VMCOMM_LOCATION_TRIES; try++) {
		seq = vmcomm_load_acquire32(&row->seq);
		if (seq & 1)
			continue;
		loc->state = vmcomm_load32(&row->state);
		loc->generation = vmcomm_load64(&row->generation);
		loc->number = vmcomm_load64(&row->location);
		vmcomm_bytes_from_shared(loc->vm_id, row->vm_id, sizeof(loc->vm_id));
		loc->addr_count = vmcomm_load32(&row->addr_count);
		loc->vectors = vmcomm_load32(&row->vectors);
		memset(loc->addr, 0, sizeof(loc->addr));
		for (i = 0; i < VMCOMM_ADDRS_MAX && i < loc->addr_count; i++)
			vmcomm_bytes_from_shared(loc->addr[i], row->addr[i], 16);
		vmcomm_rmb();
		if (vmcomm_load32(&row->seq) == seq)
			return vmcomm_location_check(loc);
	}
	return -EAGAIN;
}

/* FNV-1a over the bytes, then a finaliser: a change of any bit reaches all bits. */
static u64 vmcomm_hash_bytes(u64 h, const void *data, u32 n)
{
	const u8 *p = data;

	while (n--)
		h = (h ^ *p++) * 0x100000001b3ULL;
	return h;
}

static u64 vmcomm_hash_final(u64 h)
{
	h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ULL;
	h = (h ^ (h >> 27)) * 0x94d049bb133111ebULL;
	return h ^ (h >> 31);
}

u64 vmcomm_location_number(const u8 vm_id[16], const u8 addr[16], const void *host, u32 host_len,
			   u64 epoch, u64 previous)
{
	u64 h = 0xcbf29ce484222325ULL;

	h = vmcomm_hash_bytes(h, vm_id, 16);
	h = vmcomm_hash_bytes(h, addr, 16);
	h = vmcomm_hash_bytes(h, host, host_len);
	h = vmcomm_hash_final(h ^ vmcomm_hash_final(epoch + 0x9e3779b97f4a7c15ULL));
	while (!h || h == previous)
		h++;
	return h;
}
