// SPDX-License-Identifier: GPL-2.0-or-later
/* host.c - a host: region, location table, slots, doorbells; and the backend of its guests */
#include <sys/mman.h>

#include "sim.h"

static struct sim_host *sim_host_at(struct vmcomm_node *node)
{
	return &sim.host[((struct sim_vm *)node->priv)->host];
}

static struct vmcomm_abi_pair *sim_pair_page(struct vmcomm_node *node, u32 owner, u32 peer)
{
	return vmcomm_region_pair_page(&sim_host_at(node)->region, owner, peer);
}

/* Room for mappings was made: the core looks again. */
static void sim_mapped(void *a, u64 life)
{
	struct sim_vm *vm = a;

	if (vm->life != (u32)life)
		return;
	vm->mapping--;
	vm->spare += sim_between(1, 3);
	if (vm->plugged)
		sim_vm_irq(vm, VMCOMM_VECTOR_EVENT);
}

static int sim_map(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count,
		   void **mem)
{
	struct sim_vm *vm = node->priv;
	bool late;
	int err;

	(void)peer;
	err = vmcomm_region_map(&sim_host_at(node)->region, owner, chunk, count, mem);
	if (err || owner == node->slot)
		return err;
	vm->maps++;
	if (!sim.p.late || chunk >= SIM_LATE_CHUNKS)
		return 0;
	late = !vm->mapped[owner][chunk].there;
	if (late && sim_chance(sim.p.late) && !vm->spare) {
		sim.count.late_maps++;
		vm->maps--;
		vm->mapping++;
		sim_at(1 + sim_below(sim.p.tick / 8), sim_mapped, vm, vm->life);
		return -EAGAIN;
	}
	if (late && vm->spare)
		vm->spare--;
	vm->mapped[owner][chunk].there = true;
	vm->mapped[owner][chunk].users++;
	return 0;
}

static void sim_unmap(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count)
{
	struct sim_vm *vm = node->priv;

	(void)peer;
	(void)count;
	if (owner == node->slot || !vm->maps--)
		sim_fail("%s unmaps what it has not mapped", vm->name);
	if (sim.p.late && chunk < SIM_LATE_CHUNKS && !vm->mapped[owner][chunk].users--)
		sim_fail("%s unmaps a chunk that it has not mapped", vm->name);
}

/* What nobody has used for a while makes room. */
void sim_unmap_idle(struct sim_vm *vm)
{
	u32 i, k;

	for (i = 0; sim.p.late && i < sim.p.slots; i++)
		for (k = 0; k < SIM_LATE_CHUNKS; k++)
			if (!vm->mapped[i][k].users && sim_chance(4))
				vm->mapped[i][k].there = false;
}

static int sim_prepare(struct vmcomm_node *node)
{
	(void)node;
	if (sim.cur->locks || sim.cur->softirq)
		sim_fail("%s prepares a mapping where it must not sleep", sim.cur->name);
	sim_pause(sim_size(500));
	((struct sim_vm *)node->priv)->spare += sim_between(1, 3);
	return 0;
}

static int sim_location(struct vmcomm_node *node, u32 slot, struct vmcomm_location *loc)
{
	return vmcomm_region_location(&sim_host_at(node)->region, slot, loc);
}

static void sim_doorbell(struct vmcomm_node *node, u32 slot, u32 vector)
{
	struct sim_vm *vm = node->priv;

	sim.count.doorbells++;
	if (vm->lost)
		return;
	sim_cpu_doorbell(sim.cur->cpu, vm->host, slot, vector);
	sim_yield();
}

const struct vmcomm_backend_ops sim_backend_ops = {
	.pair_page = sim_pair_page,
	.map = sim_map,
	.unmap = sim_unmap,
	.prepare = sim_prepare,
	.location = sim_location,
	.doorbell = sim_doorbell,
};

static void sim_irq_arrives(void *a, u64 b)
{
	struct sim_vm *vm = a;

	if (vm->life != (u32)(b >> 8))
		return;
	vm->irqs--;
	if (vm->plugged)
		sim_vm_irq(vm, (u32)b & 0xff);
}

/* The doorbell has left its CPU: it will reach whoever is in the slot now. */
void sim_host_deliver(u32 host, u32 slot, u32 vector)
{
	struct sim_vm *vm = sim.host[host].vm[slot];
	u64 delay;

	if (!vm || vm->crashed)
		return;
	if (sim.lose && !sim.faults_over && sim_chance(sim.lose)) {
		sim.count.bells_lost++;
		vm->deaf = true;
		return;
	}
	vm->irqs++;
	delay = 1 + sim_below(sim.p.bell_delay);
	if (sim_chance(32))
		delay *= 20;
	sim_at(delay, sim_irq_arrives, vm, (u64)vm->life << 8 | vector);
	if (sim_chance(50)) {
		vm->irqs++;
		sim_at(delay * 2, sim_irq_arrives, vm, (u64)vm->life << 8 | vector);
	}
}

/* --- what the daemon does --- */

void sim_host_init(struct sim_host *h, u32 id)
{
	int err;

	h->id = id;
	h->size = sim.p.region;
	if (!h->base) {
		h->base = mmap(NULL, SIM_REGION_MAX, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (h->base == MAP_FAILED)
			abort();
	} else if (h->used > 1 << 24) {
		madvise(h->base, h->used, MADV_DONTNEED);
	} else {
		memset(h->base, 0, h->used);
	}
	h->used = h->size;
	h->group_nr = id / (sim.p.hosts / sim.p.groups);
	memset(h->vm, 0, sizeof(h->vm));
	memset(h->last, 0, sizeof(h->last));
	memset(h->number, 0, sizeof(h->number));
	memset(&h->cpu, 0, sizeof(h->cpu));
	h->busy = NULL;
	err = vmcomm_layout_compute(&h->lay, h->size, sim.p.slots, sim.p.chunk_shift);
	if (err)
		sim_fail("no layout for %u slots and chunks of 2^%u: %d", sim.p.slots,
			 sim.p.chunk_shift, err);
	vmcomm_layout_write(&h->lay, h->base, "sim", sim_rng());
	if (vmcomm_region_init(&h->region, h->base, h->size))
		sim_fail("the layout cannot be read back");
	vmcomm_group_init(&h->group, sim.p.slots);
}

static void sim_host_lock(struct sim_host *h)
{
	while (h->busy)
		sim_sleep(&h->busy, 0, "host");
	h->busy = sim.cur;
}

static void sim_host_unlock(struct sim_host *h)
{
	h->busy = NULL;
	sim_wake(&h->busy);
}

static void sim_host_row(struct sim_host *h, u32 slot, struct sim_vm *vm)
{
	struct vmcomm_location loc;
	u32 i;

	memset(&loc, 0, sizeof(loc));
	loc.state = h->group.slot[slot].state;
	loc.generation = h->group.slot[slot].generation;
	if (loc.state != VMCOMM_SLOT_FREE) {
		loc.vectors = 1;
		loc.number = h->number[slot];
		memcpy(loc.vm_id, vm->uuid, 16);
		loc.addr_count = 1;
		memcpy(loc.addr[0], vm->addr, 16);
	}
	vmcomm_location_write(vmcomm_layout_location(&h->lay, h->base, slot), &loc);
	sim_mb();
	for (i = 0; i < h->lay.slots; i++)
		if (h->vm[i])
			sim_host_deliver(h->id, i, VMCOMM_VECTOR_HOST);
}

/* Return: a slot or -ENOSPC. */
int sim_host_admit(struct sim_host *h, struct sim_vm *vm)
{
	u32 slot;
	int err;

	sim_host_lock(h);
	err = vmcomm_group_join(&h->group, vm->uuid, &slot);
	if (!err) {
		h->number[slot] = vmcomm_location_number(vm->uuid, vm->addr, &h->id, sizeof(h->id),
							 sim_rng(), h->number[slot]);
		h->vm[slot] = vm;
		h->last[slot] = vm;
		sim_host_row(h, slot, vm);
	}
	sim_host_unlock(h);
	if (err == -EEXIST)
		sim_fail("%s is on host %u already", vm->name, h->id);
	return err ? err : (int)slot;
}

void sim_host_move(struct sim_host *h, u32 slot, u32 state)
{
	struct sim_vm *vm;

	sim_host_lock(h);
	vm = h->last[slot];
	/* It died, or left, while the daemon did something else. */
	if ((h->group.slot[slot].state == VMCOMM_SLOT_GONE && state != VMCOMM_SLOT_FREE) ||
	    (h->group.slot[slot].state == VMCOMM_SLOT_LEFT && state == VMCOMM_SLOT_GONE)) {
		sim_host_unlock(h);
		return;
	}
	vmcomm_group_observe(&h->group, &h->lay, h->base, slot);
	if (vmcomm_group_move(&h->group, slot, state))
		sim_fail("host %u: slot %u cannot go from %s to %s", h->id, slot,
			 vmcomm_group_state_name(h->group.slot[slot].state),
			 vmcomm_group_state_name(state));
	if (state == VMCOMM_SLOT_LEFT || state == VMCOMM_SLOT_GONE)
		h->vm[slot] = NULL;
	sim_trace("host %u: slot %u is %s", h->id, slot, vmcomm_group_state_name(state));
	sim_host_row(h, slot, vm);
	sim_host_unlock(h);
}

/*
 * The daemon dies, perhaps in the middle of a row, and comes back: it knows the slots from its
 * state file, and what is in memory from there.
 */
void sim_host_restart(struct sim_host *h)
{
	struct vmcomm_abi_location *row;
	u32 slot;

	sim_host_lock(h);
	sim_trace("host %u: the daemon dies", h->id);
	if (sim_chance(2)) {
		row = vmcomm_layout_location(&h->lay, h->base, sim_below(h->lay.slots));
		vmcomm_store32(&row->seq, vmcomm_load32(&row->seq) | 1);
		vmcomm_wmb();
		vmcomm_store32(&row->state, sim_below(7));
		vmcomm_store64(&row->generation, sim_rng());
		sim_mb();
	}
	sim_pause(sim_size(3 * sim.p.tick));
	for (slot = 0; slot < h->lay.slots; slot++) {
		h->group.slot[slot].incarnation = 0;
		if (h->group.slot[slot].state != VMCOMM_SLOT_FREE)
			vmcomm_group_observe(&h->group, &h->lay, h->base, slot);
		if (h->last[slot])
			sim_host_row(h, slot, h->last[slot]);
	}
	sim_trace("host %u: the daemon is back", h->id);
	sim_host_unlock(h);
}

/* Now and then: quarantine, pages to be given back. */
void sim_host_tick(void *arg)
{
	struct sim_host *h = arg;
	u32 slot, i;

	for (;;) {
		sim_pause(sim.p.tick / 2 + sim_below(sim.p.tick));
		if (sim.spoiled && h->group_nr && sim_chance(4)) {
			vmcomm_layout_write(&h->lay, h->base, "sim", 1);
			sim_host_lock(h);
			for (slot = 0; slot < h->lay.slots; slot++)
				if (h->last[slot])
					sim_host_row(h, slot, h->last[slot]);
			sim_host_unlock(h);
		}
		for (slot = 0; slot < h->lay.slots; slot++) {
			u32 state = h->group.slot[slot].state;

			vmcomm_group_observe(&h->group, &h->lay, h->base, slot);
			if ((state == VMCOMM_SLOT_LEFT || state == VMCOMM_SLOT_GONE) &&
			    (vmcomm_group_holder(&h->group, &h->lay, h->base, slot) < 0 ||
			     (sim.spoiled && h->group_nr && sim_chance(8))))
				sim_host_move(h, slot, VMCOMM_SLOT_FREE);
			if (!h->vm[slot])
				continue;
			for (i = 0; i < h->lay.chunks; i++) {
				u32 ask, *ack;

				ask = vmcomm_load_acquire32(
					vmcomm_layout_reclaim(&h->lay, h->base, slot, i));
				ack = vmcomm_layout_reclaim_ack(&h->lay, h->base, slot, i);
				if (ask == vmcomm_load32(ack))
					continue;
				memset(vmcomm_layout_chunk(&h->lay, h->base, slot, i), 0,
				       1u << h->lay.chunk_shift);
				sim.count.reclaims++;
				vmcomm_store_release32(ack, ask);
			}
		}
	}
}
