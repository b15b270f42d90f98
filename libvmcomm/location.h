/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * location.h - the location table: where each VM of the group is now (M14)
 *
 * One row for each slot, written by the host alone and read by every guest. A row is protected by
 * a sequence count that is odd while it is being written.
 */
#ifndef VMCOMM_LOCATION_H
#define VMCOMM_LOCATION_H

#include "port.h"

/* A private copy of a row. */
struct vmcomm_location {
	u32 state;	/* enum vmcomm_slot_state */
	u32 vectors;	/* doorbell vectors, 1 to VMCOMM_VECTORS; 0 while the slot is free */
	u64 generation; /* counts the occupants of the slot */
	u64 number;	/* the location number; 0: none */
	u8 vm_id[16];
	u32 addr_count; /* 0 to VMCOMM_ADDRS_MAX */
	u8 addr[VMCOMM_ADDRS_MAX][16];
};

/**
 * vmcomm_location_write() - replace a row
 * @row: in the location table
 * @loc: what to store; @loc->addr_count is at most VMCOMM_ADDRS_MAX
 *
 * There is one writer for the whole table. A writer that died in the middle left the count odd;
 * the next call repairs it. Any context.
 */
void vmcomm_location_write(struct vmcomm_abi_location *row, const struct vmcomm_location *loc);

/**
 * vmcomm_location_read() - copy a row out of shared memory
 * @row: in the location table
 * @loc: result, only valid on success
 *
 * Never waits: a writer that does not finish costs a fixed number of tries (M26). Any context.
 *
 * Return: 0; -EAGAIN: the row was being written all the time; -EBADMSG: the row is nonsense
 * (state, number of vectors or number of addresses out of range).
 */
int vmcomm_location_read(const struct vmcomm_abi_location *row, struct vmcomm_location *loc);

/**
 * vmcomm_location_number() - make a location number
 * @vm_id: UUID of the VM
 * @addr: its first address, IPv6 or v4-mapped
 * @host: identity of the host: its MAC address or machine id
 * @host_len: bytes of it
 * @epoch: must be new at each call for the same VM and host (random, or a count)
 * @previous: the number that the VM had; 0: none
 *
 * The number is an identity, no secret and no proof.
 *
 * Return: a number that is neither 0 nor @previous.
 */
u64 vmcomm_location_number(const u8 vm_id[16], const u8 addr[16], const void *host, u32 host_len,
			   u64 epoch, u64 previous);

#endif
