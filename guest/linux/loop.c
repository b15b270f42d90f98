// SPDX-License-Identifier: GPL-2.0-only
/*
 * loop.c - both ends in one guest: connections over loopback go through rings
 *
 * For tests: every program that talks to itself exercises the whole module. Two nodes share one
 * region in this kernel's own memory; the end that connects is in slot 0, the one that accepts in
 * slot 1.
 */
#include <net/ipv6.h>

#include "module.h"

static void *vmcomm_loop_mem;
static struct vmcomm_link vmcomm_loops[2];

static int vmcomm_loop_find(struct vmcomm_link *link, const struct sock *sk, const u8 raddr[16],
			    bool client)
{
	const struct in6_addr *r = (const struct in6_addr *)raddr;
	struct vmcomm_conn_names names;
	bool local;

	if ((link == &vmcomm_loops[0]) != client)
		return -ENOENT;
	vmcomm_sock_names(sk, &names);
	local = ipv6_addr_loopback(r) || !memcmp(names.laddr, raddr, 16) ||
		(ipv6_addr_v4mapped(r) && ipv4_is_loopback(r->s6_addr32[3]));
	return local ? client : -ENOENT;
}

static struct vmcomm_link *vmcomm_loop_of(struct vmcomm_node *node)
{
	return container_of(node, struct vmcomm_link, node);
}

static struct vmcomm_abi_pair *vmcomm_loop_pair_page(struct vmcomm_node *node, u32 owner, u32 peer)
{
	return vmcomm_region_pair_page(&vmcomm_loop_of(node)->region, owner, peer);
}

static int vmcomm_loop_map(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count,
			   void **mem)
{
	struct vmcomm_link *link = vmcomm_loop_of(node);
	int err = vmcomm_region_map(&link->region, owner, chunk, count, mem);

	if (!err && owner != node->slot)
		vmcomm_access_mapped(link, owner, chunk, count);
	return err;
}

static int vmcomm_loop_location(struct vmcomm_node *node, u32 slot, struct vmcomm_location *loc)
{
	return vmcomm_region_location(&vmcomm_loop_of(node)->region, slot, loc);
}

static void vmcomm_loop_doorbell(struct vmcomm_node *node, u32 slot, u32 vector)
{
	if (slot < 2 && READ_ONCE(vmcomm_loops[slot].up))
		vmcomm_link_doorbell(&vmcomm_loops[slot]);
}

static const struct vmcomm_backend_ops vmcomm_loop_ops = {
	.pair_page = vmcomm_loop_pair_page,
	.map = vmcomm_loop_map,
	.location = vmcomm_loop_location,
	.doorbell = vmcomm_loop_doorbell,
};

int vmcomm_loop_init(unsigned int mb)
{
	struct vmcomm_location loc = {.state = VMCOMM_SLOT_LIVE, .vectors = 1, .generation = 1};
	struct vmcomm_node_config config = {.backend = &vmcomm_loop_ops};
	struct vmcomm_layout lay;
	u64 size;
	u32 i;
	int err;

	if (!mb)
		return 0;
	size = roundup_pow_of_two((u64)mb << 20);
	err = vmcomm_layout_compute(&lay, size, 2, VMCOMM_CHUNK_SHIFT_MIN);
	if (err) {
		pr_err("vmcomm: loop=%u: must be 4 or more (MiB)\n", mb);
		return err;
	}
	vmcomm_loop_mem = vzalloc(size);
	if (!vmcomm_loop_mem)
		return -ENOMEM;
	vmcomm_layout_write(&lay, vmcomm_loop_mem, "loop", vmcomm_random64());
	for (i = 0; i < 2; i++) {
		loc.number = i + 1;
		vmcomm_location_write(vmcomm_layout_location(&lay, vmcomm_loop_mem, i), &loc);
	}
	for (i = 0; i < 2; i++) {
		struct vmcomm_link *link = &vmcomm_loops[i];

		vmcomm_link_init(link, i ? "loop1" : "loop0");
		link->find = vmcomm_loop_find;
		link->no_adopt = true; /* one cannot tell the end that connected */
		err = vmcomm_region_init(&link->region, vmcomm_loop_mem, size);
		if (err)
			goto err_links;
	}
	err = vmcomm_access_add(vmcomm_loops, 0, 2);
	if (err)
		goto err_links;
	for (i = 0; i < 2; i++) {
		struct vmcomm_link *link = &vmcomm_loops[i];

		config.lay = &link->region.lay;
		config.slot = i;
		config.location_word = &vmcomm_layout_location(&lay, vmcomm_loop_mem, i)->location;
		config.page = vmcomm_layout_slot(&lay, vmcomm_loop_mem, i);
		err = vmcomm_link_up(link, &config);
		if (err)
			goto err_links;
	}
	return 0;

err_links:
	vmcomm_loop_deinit();
	return err;
}

void vmcomm_loop_deinit(void)
{
	if (!vmcomm_loop_mem)
		return;
	vmcomm_link_down(&vmcomm_loops[0]);
	vmcomm_link_down(&vmcomm_loops[1]);
	vmcomm_access_remove(vmcomm_loop_mem);
	vfree(vmcomm_loop_mem);
	vmcomm_loop_mem = NULL;
}
