// SPDX-License-Identifier: LGPL-2.1-or-later
/* group.c - slots of one group and who lives in them */
#include "group.h"

int vmcomm_group_init(struct vmcomm_group *g, u32 slots)
{
	if (slots < 2 || slots > VMCOMM_SLOTS_MAX)
		return -EINVAL;
	memset(g, 0, sizeof(*g));
	g->slots = slots;
	return 0;
}

int vmcomm_group_find(const struct vmcomm_group *g, const u8 vm_id[16])
{
	u32 i;

	for (i = 0; i < g->slots; i++) {
		const struct vmcomm_group_slot *s = &g->slot[i];

		if (s->state != VMCOMM_SLOT_JOINING && s->state != VMCOMM_SLOT_LIVE &&
		    s->state != VMCOMM_SLOT_LEAVING)
			continue;
		if (!memcmp(s->vm_id, vm_id, 16))
			return (int)i;
	}
	return -ENOENT;
}

int vmcomm_group_join(struct vmcomm_group *g, const u8 vm_id[16], u32 *slot)
{
	struct vmcomm_group_slot *s;
	int found = vmcomm_group_find(g, vm_id);
	u32 i, n;

	if (found >= 0) {
		*slot = (u32)found;
		return -EEXIST;
	}
	for (i = 0; i < g->slots; i++) {
		n = (g->next + i) % g->slots;
		s = &g->slot[n];
		if (s->state != VMCOMM_SLOT_FREE)
			continue;
		s->state = VMCOMM_SLOT_JOINING;
		s->generation++;
		s->incarnation = 0;
		memcpy(s->vm_id, vm_id, 16);
		g->next = n + 1;
		*slot = n;
		return 0;
	}
	return -ENOSPC;
}

bool vmcomm_group_legal(u32 from, u32 to)
{
	switch (from) {
	case VMCOMM_SLOT_FREE:
		return to == VMCOMM_SLOT_JOINING;
	case VMCOMM_SLOT_JOINING:
		return to == VMCOMM_SLOT_LIVE || to == VMCOMM_SLOT_GONE || to == VMCOMM_SLOT_FREE;
	case VMCOMM_SLOT_LIVE:
		return to == VMCOMM_SLOT_LEAVING || to == VMCOMM_SLOT_GONE;
	case VMCOMM_SLOT_LEAVING:
		return to == VMCOMM_SLOT_LIVE || to == VMCOMM_SLOT_LEFT || to == VMCOMM_SLOT_GONE;
	case VMCOMM_SLOT_LEFT:
	case VMCOMM_SLOT_GONE:
		return to == VMCOMM_SLOT_FREE;
	default:
		return false;
	}
}

int vmcomm_group_move(struct vmcomm_group *g, u32 slot, u32 state)
{
	if (slot >= g->slots || !vmcomm_group_legal(g->slot[slot].state, state))
		return -EINVAL;
	g->slot[slot].state = state;
	if (state == VMCOMM_SLOT_FREE) {
		g->slot[slot].incarnation = 0;
		memset(g->slot[slot].vm_id, 0, 16);
	}
	return 0;
}

u64 vmcomm_group_observe(struct vmcomm_group *g, const struct vmcomm_layout *lay, void *base,
			 u32 slot)
{
	u64 inc = vmcomm_load_acquire64(&vmcomm_layout_slot(lay, base, slot)->incarnation);

	/* An occupant that zeroed the word on its way out is still the one that peers name. */
	if (inc)
		g->slot[slot].incarnation = inc;
	return inc;
}

int vmcomm_group_holder(const struct vmcomm_group *g, const struct vmcomm_layout *lay, void *base,
			u32 slot)
{
	u64 old, held;
	u32 i;

	if (slot >= g->slots || (g->slot[slot].state != VMCOMM_SLOT_LEFT &&
				 g->slot[slot].state != VMCOMM_SLOT_GONE))
		return -EINVAL;
	old = g->slot[slot].incarnation;
	for (i = 0; i < g->slots; i++) {
		if (i == slot)
			continue;
		if (g->slot[i].state != VMCOMM_SLOT_LIVE && g->slot[i].state != VMCOMM_SLOT_LEAVING)
			continue;
		held = vmcomm_load64(&vmcomm_layout_pair(lay, base, i, slot)->peer_incarnation);
		/* Where the host saw none, any name can only be the old one's. */
		if (held && (held == old || !old))
			return (int)i;
	}
	return -ENOENT;
}

bool vmcomm_group_key_equal(const u8 *a, const u8 *b, u32 len)
{
	volatile u8 diff = 0;
	u32 i;

	for (i = 0; i < len; i++)
		diff = (u8)(diff | (a[i] ^ b[i]));
	return diff == 0;
}

const char *vmcomm_group_state_name(u32 state)
{
	static const char *const names[] = {
		[VMCOMM_SLOT_FREE] = "free",	   [VMCOMM_SLOT_JOINING] = "joining",
		[VMCOMM_SLOT_LIVE] = "live",	   [VMCOMM_SLOT_LEAVING] = "leaving",
		[VMCOMM_SLOT_LEFT] = "left",	   [VMCOMM_SLOT_GONE] = "gone",
	};

	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}
