// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * region.c - host/daemon/region.c without a keeper: the region is memory of this process
 *
 * It has exactly its size (AddressSanitizer sees an access outside of it); every slot that is opened
 * counts as connected, as if a QEMU came at once.
 */
#include "region.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz-region.h"

struct region {
	struct vmcomm_layout lay;
	void *base;
	struct region_status st[VMCOMM_SLOTS_MAX];
	struct region_callbacks cb;
	void *arg;
};

void (*fuzz_region_made)(struct vmcomm_layout *lay, void *base);

int region_connect(struct region **r, sd_event *event, const char *dir, const char *gid,
		   const struct region_callbacks *cb, void *arg, struct vmcomm_error *e)
{
	return vmcomm_error_set(e, -ENOENT, "none");
}

int region_create(struct region **out, sd_event *event, const char *program, const char *dir,
		  const char *gid, uint32_t slots, uint64_t memory, uint64_t chunk,
		  const struct region_callbacks *cb, void *arg, struct vmcomm_error *e)
{
	struct region *r = calloc(1, sizeof(*r));
	uint32_t shift = 0;

	while (1ULL << shift < chunk)
		shift++;
	/* Large ones are for the real keeper. */
	if (memory > 64ULL << 20 || vmcomm_layout_compute(&r->lay, memory, slots, shift)) {
		free(r);
		return vmcomm_error_set(e, -EINVAL, "no region");
	}
	r->base = aligned_alloc(4096, memory);
	memset(r->base, 0, memory);
	vmcomm_layout_write(&r->lay, r->base, gid, 1);
	r->cb = *cb;
	r->arg = arg;
	*out = r;
	return 0;
}

void region_free(struct region *r)
{
	if (!r)
		return;
	free(r->base);
	free(r);
}

const struct vmcomm_layout *region_layout(const struct region *r)
{
	return &r->lay;
}

void *region_base(const struct region *r)
{
	return r->base;
}

uint64_t region_epoch(const struct region *r)
{
	return 1;
}

uint32_t region_pid(const struct region *r)
{
	return 1;
}

int region_slot_open(struct region *r, uint32_t slot, const struct vmcomm_location *row, uint32_t uid)
{
	if (slot >= r->lay.slots)
		return -EINVAL;
	r->st[slot].open = r->st[slot].connected = true;
	r->st[slot].row = *row;
	r->st[slot].row.state = VMCOMM_SLOT_LIVE;
	if (fuzz_region_made)
		fuzz_region_made(&r->lay, r->base);
	return 0;
}

int region_slot_close(struct region *r, uint32_t slot)
{
	memset(&r->st[slot], 0, sizeof(r->st[slot]));
	return 0;
}

int region_row_set(struct region *r, uint32_t slot, const struct vmcomm_location *row)
{
	r->st[slot].row = *row;
	return 0;
}

int region_status(struct region *r, uint32_t slot, struct region_status *st)
{
	*st = r->st[slot];
	return 0;
}

int region_policy_set(struct region *r, const struct vmcomm_abi_policy *policy, uint32_t count)
{
	return 0;
}

int region_shutdown(struct region *r)
{
	return 0;
}

int region_slot_path(const struct region *r, uint32_t slot, char *buf, size_t size)
{
	return snprintf(buf, size, "slot-%u.sock", slot) < (int)size ? 0 : -ENAMETOOLONG;
}
