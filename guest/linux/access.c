// SPDX-License-Identifier: GPL-2.0-only
/*
 * access.c - is each access to shared memory one that this VM may make? For tests (M26)
 *
 * KASAN knows nothing of memory that a device maps. So the module that scripts/build.sh checked
 * makes (VMCOMM_CHECK_ACCESS) asks here before each access by port/kernel.h's functions and before
 * each copy into or out of a ring. What may be touched:
 *
 *   written   the own control area, and own chunks that are allocated
 *   read      these; the header, the location table, the host's answers to the own reclaim words;
 *	       of a peer its slot page, its pair page for this VM, and chunks that it named in there,
 *	       that is, those that were mapped for it since this VM joined
 *
 * One warning is enough: the kernel's log is what tests look at. Addresses in no area are not
 * looked at; memory of the kernel's own is KASAN's.
 */
#include <linux/bitmap.h>
#include <linux/percpu.h>

#include "module.h"

struct vmcomm_access_area {
	struct list_head list;
	const u8 *base;
	const struct vmcomm_layout *lay;
	struct vmcomm_link *link; /* an array of them, in neighbouring slots */
	u32 slot;		  /* of the first */
	u32 links;
	unsigned long *mapped; /* a bit for each chunk of all slots */
};

static LIST_HEAD(vmcomm_areas);
static DEFINE_SPINLOCK(vmcomm_areas_lock);
static DEFINE_PER_CPU(unsigned long, vmcomm_access_count);

/* The link of this kernel's that is in @slot, or NULL. */
static struct vmcomm_link *vmcomm_access_own(const struct vmcomm_access_area *a, u32 slot)
{
	return slot - a->slot < a->links ? &a->link[slot - a->slot] : NULL;
}

/* Is the own chunk allocated? The table of chunks lives until a grace period after @up ends. */
static bool vmcomm_access_allocated(const struct vmcomm_link *own, u32 chunk)
{
	return READ_ONCE(own->up) &&
	       READ_ONCE(own->node.heap.chunk[chunk].state) >= VMCOMM_CHUNK_HEAD;
}

static bool vmcomm_access_ctl(const struct vmcomm_access_area *a, u64 off, size_t n, bool write)
{
	u32 slot = div64_u64(off, a->lay->ctl_stride), peer;
	u64 at = off - slot * a->lay->ctl_stride, in;

	if (slot >= a->lay->slots || at + n > a->lay->ctl_stride)
		return false;
	if (vmcomm_access_own(a, slot))
		return true;
	if (write)
		return false;
	if (at + n <= sizeof(struct vmcomm_abi_slot))
		return true;
	if (at < VMCOMM_CTL_PAIR)
		return false;
	peer = div64_u64(at - VMCOMM_CTL_PAIR, sizeof(struct vmcomm_abi_pair));
	in = at - VMCOMM_CTL_PAIR - peer * sizeof(struct vmcomm_abi_pair);
	return in + n <= sizeof(struct vmcomm_abi_pair) && vmcomm_access_own(a, peer);
}

static bool vmcomm_access_heap(const struct vmcomm_access_area *a, u64 off, size_t n, bool write)
{
	u32 slot = div64_u64(off, a->lay->slice_size), i, last;
	u64 at = off - slot * a->lay->slice_size;
	struct vmcomm_link *own;

	if (slot >= a->lay->slots || at + n > a->lay->slice_size)
		return false;
	own = vmcomm_access_own(a, slot);
	if (write && !own)
		return false;
	last = (at + n - 1) >> a->lay->chunk_shift;
	for (i = at >> a->lay->chunk_shift; i <= last; i++) {
		if (own && vmcomm_access_allocated(own, i))
			continue;
		/* In the loop both ends are own ones. */
		if (write || !test_bit((size_t)slot * a->lay->chunks + i, a->mapped))
			return false;
	}
	return true;
}

static bool vmcomm_access_allowed(const struct vmcomm_access_area *a, u64 off, size_t n, bool write)
{
	const struct vmcomm_layout *lay = a->lay;
	u64 slots = lay->slots, ack;

	if (off >= lay->heap_off)
		return vmcomm_access_heap(a, off - lay->heap_off, n, write);
	if (off >= lay->ctl_off)
		return vmcomm_access_ctl(a, off - lay->ctl_off, n, write);
	if (write)
		return false;
	if (off < lay->reclaim_off)
		return off + n <= lay->table_off + slots * sizeof(struct vmcomm_abi_location);
	ack = off - lay->reclaim_off;
	return vmcomm_access_own(a, div64_u64(ack, lay->chunks * sizeof(vmcomm_le32)));
}

/* Context: any. */
void vmcomm_access_check(const volatile void *p, size_t n, bool write)
{
	const struct vmcomm_access_area *a;

	if (!n)
		return;
	raw_cpu_inc(vmcomm_access_count);
	rcu_read_lock();
	list_for_each_entry_rcu(a, &vmcomm_areas, list) {
		u64 off = (const u8 *)p - a->base;

		if ((const u8 *)p < a->base || off >= a->lay->size)
			continue;
		WARN_ONCE(!vmcomm_access_allowed(a, off, n, write),
			  "vmcomm: %s of %zu bytes at %#llx of the region of %s, which is not this VM's\n",
			  write ? "write" : "read", n, off, a->link->name);
		break;
	}
	rcu_read_unlock();
}

/* A peer named these chunks for us. */
void vmcomm_access_mapped(struct vmcomm_link *link, u32 owner, u32 chunk, u32 count)
{
	struct vmcomm_access_area *a;
	u32 i;

	rcu_read_lock();
	list_for_each_entry_rcu(a, &vmcomm_areas, list)
		if (a->base == link->region.base)
			for (i = 0; i < count; i++)
				set_bit((size_t)owner * a->lay->chunks + chunk + i, a->mapped);
	rcu_read_unlock();
}

/* @links: an array, all with the same region, the first in @slot. 0 or -ENOMEM. May sleep. */
int vmcomm_access_add(struct vmcomm_link *links, u32 slot, u32 count)
{
	const struct vmcomm_layout *lay = &links[0].region.lay;
	struct vmcomm_access_area *a;

	a = kzalloc(sizeof(*a), GFP_KERNEL);
	if (!a)
		return -ENOMEM;
	a->mapped = kvcalloc(BITS_TO_LONGS((size_t)lay->slots * lay->chunks), sizeof(long),
			     GFP_KERNEL);
	if (!a->mapped) {
		kfree(a);
		return -ENOMEM;
	}
	a->base = links[0].region.base;
	a->lay = lay;
	a->link = links;
	a->slot = slot;
	a->links = count;
	spin_lock_bh(&vmcomm_areas_lock);
	list_add_rcu(&a->list, &vmcomm_areas);
	spin_unlock_bh(&vmcomm_areas_lock);
	return 0;
}

/* The link has a new incarnation: nothing is mapped. */
void vmcomm_access_forget(struct vmcomm_link *link)
{
	struct vmcomm_access_area *a;

	rcu_read_lock();
	list_for_each_entry_rcu(a, &vmcomm_areas, list)
		if (a->base == link->region.base && a->links == 1)
			bitmap_zero(a->mapped, (size_t)a->lay->slots * a->lay->chunks);
	rcu_read_unlock();
}

/* The region's mapping goes. May sleep. */
void vmcomm_access_remove(const void *base)
{
	struct vmcomm_access_area *a;

	spin_lock_bh(&vmcomm_areas_lock);
	list_for_each_entry(a, &vmcomm_areas, list)
		if (a->base == base) {
			list_del_rcu(&a->list);
			goto found;
		}
	spin_unlock_bh(&vmcomm_areas_lock);
	return;

found:
	spin_unlock_bh(&vmcomm_areas_lock);
	synchronize_rcu();
	kvfree(a->mapped);
	kfree(a);
}

static int vmcomm_access_checks_get(char *buffer, const struct kernel_param *kp)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu(vmcomm_access_count, cpu);
	return sprintf(buffer, "%lu\n", sum);
}

static const struct kernel_param_ops vmcomm_access_checks_ops = {
	.get = vmcomm_access_checks_get,
};
module_param_cb(access_checks, &vmcomm_access_checks_ops, NULL, 0444);
MODULE_PARM_DESC(access_checks, "accesses to shared memory that were checked");

/* Tests make sure that the warning comes: the first word of the region is nobody's to write. */
static int vmcomm_access_break_set(const char *val, const struct kernel_param *kp)
{
	struct vmcomm_access_area *a;

	rcu_read_lock();
	list_for_each_entry_rcu(a, &vmcomm_areas, list)
		vmcomm_access_check(a->base, 8, true);
	rcu_read_unlock();
	return 0;
}

static const struct kernel_param_ops vmcomm_access_break_ops = {
	.set = vmcomm_access_break_set,
};
module_param_cb(access_break, &vmcomm_access_break_ops, NULL, 0200);
MODULE_PARM_DESC(access_break, "check an access that is not allowed, to see the warning");
