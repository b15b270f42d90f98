// SPDX-License-Identifier: GPL-2.0-or-later
/* path.c - would a new connection between two VMs use shared memory, and if not, why? */
#include "path.h"

#include "reason.h"

/* Has @of's module accepted @other's? Words of guests: only looked at. */
static bool accepted(const struct vm *of, const struct vm *other)
{
	const struct group *g = of->group;
	const struct vmcomm_abi_pair *page =
		vmcomm_layout_pair(region_layout(g->region), region_base(g->region),
				   (uint32_t)of->slot, (uint32_t)other->slot);

	return vmcomm_load64(&page->incarnation) == of->incarnation &&
	       vmcomm_load64(&page->peer_incarnation) == other->incarnation &&
	       vmcomm_load32(&page->state) == VMCOMM_PAIR_UP;
}

uint32_t path_find(const struct vm *a, const struct vm *b)
{
	if (a->group != b->group)
		return VMCOMM_REASON_OTHER_GROUP;
	if (a->slot < 0 || b->slot < 0 || !a->connected || !b->connected || !a->group->region)
		return VMCOMM_REASON_NO_DEVICE;
	if (!a->incarnation || !b->incarnation || !accepted(a, b) || !accepted(b, a))
		return VMCOMM_REASON_NO_PAIR;
	return VMCOMM_REASON_NONE;
}

json_t *path_describe(const struct vm *a, const struct vm *b)
{
	uint32_t reason = path_find(a, b);

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "vm", a->name, "peer", b->name,
			 "group", a->group->name, "peer_group", b->group->name, "state",
			 vm_state_name(a), "peer_state", vm_state_name(b), "path",
			 reason == VMCOMM_REASON_NONE ? "ring" : "tcp", "reason",
			 vmcomm_reason_name(reason), "reason_text", vmcomm_reason_text(reason));
}
