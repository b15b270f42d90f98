/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * group.h - slots of one group and who lives in them (M12), the host's side
 *
 *             join          device seen        asked to leave
 *   FREE ----------> JOINING ----------> LIVE ---------------> LEAVING
 *    ^                 |  |                |  <---------------   |  |
 *    |  never plugged  |  |                |     gave up         |  |
 *    +-----------------+  +------> GONE <--+---------------------+  +--> LEFT
 *    ^                              |                                     |
 *    +------ quarantine is over ----+-------------------------------------+
 *
 * A slot whose occupant is gone is not given to anybody else before each living peer has let go
 * of the memory in it: that time is the quarantine.
 */
#ifndef VMCOMM_GROUP_H
#define VMCOMM_GROUP_H

#include "layout.h"

struct vmcomm_group_slot {
	u32 state;	 /* enum vmcomm_slot_state */
	u64 generation;	 /* of the occupant, or of the last one */
	u64 incarnation; /* last one that the host saw in the control area; 0: none seen */
	u8 vm_id[16];
};

struct vmcomm_group {
	u32 slots;
	u32 next; /* where the search for a free slot begins: slots rest as long as possible */
	struct vmcomm_group_slot slot[VMCOMM_SLOTS_MAX];
};

/**
 * vmcomm_group_init() - a group with all slots free
 * @slots: 2 to VMCOMM_SLOTS_MAX
 *
 * Return: 0 or -EINVAL.
 */
int vmcomm_group_init(struct vmcomm_group *g, u32 slots);

/**
 * vmcomm_group_join() - give a VM a free slot with a new generation
 * @vm_id: UUID
 * @slot: result
 *
 * Return: 0; -EEXIST: the VM has a slot already (@slot says which); -ENOSPC: none is free.
 */
int vmcomm_group_join(struct vmcomm_group *g, const u8 vm_id[16], u32 *slot);

/** vmcomm_group_legal() - may a slot go from state @from to state @to? */
bool vmcomm_group_legal(u32 from, u32 to);

/**
 * vmcomm_group_move() - change the state of a slot
 *
 * Return: 0; -EINVAL: no such slot, or the picture above has no such arrow.
 */
int vmcomm_group_move(struct vmcomm_group *g, u32 slot, u32 state);

/**
 * vmcomm_group_find() - the slot in which a VM lives
 *
 * Return: the slot, or -ENOENT; slots in quarantine do not count.
 */
int vmcomm_group_find(const struct vmcomm_group *g, const u8 vm_id[16]);

/**
 * vmcomm_group_observe() - note a slot's incarnation for a later quarantine
 * @base: the mapped region; only read
 *
 * Return: the incarnation that the occupant shows now, 0 when it shows none.
 */
u64 vmcomm_group_observe(struct vmcomm_group *g, const struct vmcomm_layout *lay, void *base,
			 u32 slot);

/**
 * vmcomm_group_holder() - who keeps a slot in quarantine?
 * @lay: geometry of the region
 * @base: the mapped region; only read
 * @slot: in state LEFT or GONE
 *
 * A peer that runs holds the slot while its pair page names the old occupant's incarnation.
 *
 * Return: a slot number that holds it; -ENOENT: nobody, the slot may become FREE; -EINVAL: the
 * slot is not in quarantine.
 */
int vmcomm_group_holder(const struct vmcomm_group *g, const struct vmcomm_layout *lay, void *base,
			u32 slot);

/**
 * vmcomm_group_key_equal() - compare keys in a time that does not depend on what is in them
 * @len: bytes of both
 */
bool vmcomm_group_key_equal(const u8 *a, const u8 *b, u32 len);

/** vmcomm_group_state_name() - "free", "joining", ... or "unknown" */
const char *vmcomm_group_state_name(u32 state);

#endif
