// SPDX-License-Identifier: GPL-2.0-or-later
/* region.c - the group's memory and doorbells, and everything that the host writes there */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* Chunks given back in one round: a guest that asks all the time cannot keep the keeper busy. */
#define RECLAIM_BATCH 1024

static int memory_new(const char *name, uint64_t size)
{
	int fd, err;

	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	/* A QEMU whose memory shrinks dies of SIGBUS: nobody can do that to a sealed file. */
	if (ftruncate(fd, (off_t)size) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

static int events_new(int *event)
{
	unsigned int v;

	for (v = 0; v < VMCOMM_VECTORS; v++) {
		event[v] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (event[v] < 0)
			return -errno;
	}
	return 0;
}

int keeper_region_init(struct keeper *k, uint64_t size, uint32_t slots, uint32_t chunk_shift)
{
	uint32_t i;
	int err;

	err = vmcomm_layout_compute(&k->lay, size, slots, chunk_shift);
	if (err)
		return err;
	err = vmcomm_group_init(&k->group, slots);
	if (err)
		return err;
	k->memfd = memory_new("vmcomm-region", size);
	if (k->memfd < 0)
		return k->memfd;
	k->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, k->memfd, 0);
	if (k->base == MAP_FAILED) {
		k->base = NULL;
		return -errno;
	}
	k->decoy_memfd = memory_new("vmcomm-decoy", VMCOMM_PAGE);
	if (k->decoy_memfd < 0)
		return k->decoy_memfd;
	err = events_new(k->decoy_event);
	for (i = 0; !err && i <= slots; i++)
		err = events_new(k->event[i]);
	if (err)
		return err;
	if (getrandom(&k->epoch, sizeof(k->epoch), 0) != (ssize_t)sizeof(k->epoch))
		return -EIO;
	vmcomm_layout_write(&k->lay, k->base, k->gid, k->epoch);
	vmcomm_layout_write(&k->lay, &k->header, k->gid, k->epoch);
	return 0;
}

static void events_free(int *event)
{
	unsigned int v;

	for (v = 0; v < VMCOMM_VECTORS; v++)
		if (event[v] >= 0)
			close(event[v]);
}

void keeper_region_deinit(struct keeper *k)
{
	uint32_t i;

	for (i = 0; i <= VMCOMM_SLOTS_MAX; i++)
		events_free(k->event[i]);
	events_free(k->decoy_event);
	if (k->decoy_memfd >= 0)
		close(k->decoy_memfd);
	if (k->base)
		munmap(k->base, k->lay.size);
	if (k->memfd >= 0)
		close(k->memfd);
}

static void punch(struct keeper *k, uint64_t off, uint64_t len)
{
	if (fallocate(k->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len))
		vmcomm_zero_shared((uint8_t *)k->base + off, len);
}

void keeper_region_zero_slot(struct keeper *k, uint32_t slot)
{
	uint64_t drain;
	unsigned int v;
	uint32_t chunk;

	for (chunk = 0; chunk < k->lay.chunks; chunk++) {
		vmcomm_le32 *ack = vmcomm_layout_reclaim_ack(&k->lay, k->base, slot, chunk);

		/* Only write where something is: a store would allocate the page. */
		if (vmcomm_load32(ack))
			vmcomm_store32(ack, 0);
	}
	punch(k, k->lay.ctl_off + slot * k->lay.ctl_stride, k->lay.ctl_stride);
	punch(k, k->lay.heap_off + slot * k->lay.slice_size, k->lay.slice_size);
	for (v = 0; v < VMCOMM_VECTORS; v++)
		while (read(k->event[slot][v], &drain, sizeof(drain)) == (ssize_t)sizeof(drain))
			;
}

/*
 * A guest that has emptied a chunk sets its reclaim word to an odd number and stays away from the
 * chunk until the acknowledgement has the same number.
 */
void keeper_region_reclaim(struct keeper *k)
{
	unsigned int budget = RECLAIM_BATCH;
	uint32_t slot, chunk, want;
	vmcomm_le32 *ack;

	for (slot = 0; slot < k->lay.slots; slot++) {
		if (k->slot[slot].conn.fd < 0)
			continue;
		for (chunk = 0; chunk < k->lay.chunks && budget; chunk++) {
			want = vmcomm_load_acquire32(
				vmcomm_layout_reclaim(&k->lay, k->base, slot, chunk));
			if (!(want & 1))
				continue;
			ack = vmcomm_layout_reclaim_ack(&k->lay, k->base, slot, chunk);
			if (vmcomm_load32(ack) == want)
				continue;
			punch(k, k->lay.heap_off + slot * k->lay.slice_size +
				      ((uint64_t)chunk << k->lay.chunk_shift),
			      1ULL << k->lay.chunk_shift);
			vmcomm_store_release32(ack, want);
			budget--;
		}
	}
}

void keeper_row_publish(struct keeper *k, uint32_t slot)
{
	k->row[slot].state = k->group.slot[slot].state;
	vmcomm_location_write(vmcomm_layout_location(&k->lay, k->base, slot), &k->row[slot]);
	vmcomm_mb();
	keeper_ring_others(k, slot);
}

static void ring(struct keeper *k, uint32_t slot)
{
	uint64_t one = 1;

	/* EAGAIN: the counter is full, so the doorbell rings already. */
	if (write(k->event[slot][VMCOMM_VECTOR_HOST], &one, sizeof(one)) < 0 && errno != EAGAIN)
		keeper_log(k, "cannot ring slot %u: %s", slot, strerror(errno));
}

void keeper_ring_others(struct keeper *k, uint32_t slot)
{
	uint32_t i;

	for (i = 0; i < k->lay.slots; i++)
		if (i != slot && k->slot[i].complete)
			ring(k, i);
	/* The occupant itself looks at its own row too: location number, state LEAVING. */
	if (slot < k->lay.slots && k->slot[slot].complete)
		ring(k, slot);
}

static void policy_store(struct vmcomm_abi_header *h, uint32_t seq,
			 const struct vmcomm_abi_policy *policy, uint32_t count)
{
	uint32_t i, j;

	vmcomm_store32(&h->policy_seq, seq - 1);
	vmcomm_wmb();
	for (i = 0; i < count; i++) {
		for (j = 0; j < 16; j++)
			vmcomm_store8(&h->policy[i].addr[j], policy[i].addr[j]);
		vmcomm_store8(&h->policy[i].prefix, policy[i].prefix);
		vmcomm_store16(&h->policy[i].port_min, policy[i].port_min);
		vmcomm_store16(&h->policy[i].port_max, policy[i].port_max);
	}
	vmcomm_store32(&h->policy_count, count);
	vmcomm_wmb();
	vmcomm_store32(&h->policy_seq, seq);
}

void keeper_policy_write(struct keeper *k, const struct vmcomm_abi_policy *policy, uint32_t count)
{
	uint32_t seq = vmcomm_load32(&k->header.policy_seq) + 2;

	policy_store(&k->header, seq, policy, count);
	policy_store(k->base, seq, policy, count);
	vmcomm_mb();
	keeper_ring_others(k, k->lay.slots);
}

static bool row_intact(struct keeper *k, uint32_t slot)
{
	const struct vmcomm_location *want = &k->row[slot];
	struct vmcomm_location is;
	uint32_t i;

	if (vmcomm_location_read(vmcomm_layout_location(&k->lay, k->base, slot), &is) ||
	    is.state != k->group.slot[slot].state || is.generation != want->generation ||
	    is.number != want->number || is.vectors != want->vectors ||
	    is.addr_count != want->addr_count || memcmp(is.vm_id, want->vm_id, sizeof(is.vm_id)))
		return false;
	for (i = 0; i < is.addr_count; i++)
		if (memcmp(is.addr[i], want->addr[i], sizeof(is.addr[i])))
			return false;
	return true;
}

/*
 * Every member can write to all of the region. What the host wrote there is put right, so that who
 * joins after a hostile member is gone finds a header and its own row.
 */
void keeper_region_repair(struct keeper *k)
{
	uint32_t slot, bad = 0;

	if (memcmp(k->base, &k->header, sizeof(k->header))) {
		vmcomm_copy_to_shared(k->base, &k->header, sizeof(k->header));
		bad++;
	}
	for (slot = 0; slot < k->lay.slots; slot++) {
		if (row_intact(k, slot))
			continue;
		keeper_row_publish(k, slot);
		bad++;
	}
	if (bad && !k->repairs++)
		keeper_log(k, "a member writes into the host's part of the region: it is put right, "
			      "now and from now on");
}
