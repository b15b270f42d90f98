/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * keeper.h - the region keeper: one tiny process per group that owns its memory and doorbells
 *
 * It is meant to run for as long as any VM of the group, across restarts and upgrades of vmcommd: so
 * it does as little as possible and depends on nothing but libc and the kernel. One thread, one
 * epoll loop; nothing in it ever waits for a peer.
 */
#ifndef VMCOMM_KEEPER_H
#define VMCOMM_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "group.h"
#include "location.h"
#include "protocol.h"

#define KEEPER_DECOYS 16

struct keeper;

/* Something that epoll watches. */
struct keeper_source {
	int fd; /* -1: unused */
	void (*ready)(struct keeper *k, struct keeper_source *src, uint32_t events);
};

struct keeper_slot {
	struct keeper_source listener; /* stays open, unlinked, while a QEMU is connected */
	struct keeper_source conn;
	bool path_bound;
	bool complete;	    /* the handshake is sent */
	unsigned int sent;  /* messages of it */
	unsigned int retry; /* ticks to wait for the kernel's limit of descriptors in flight */
	uint32_t pid, uid, gid;
	uint32_t decoys;
};

struct keeper_client {
	struct keeper_source src;
};

struct keeper {
	int epfd;
	char gid[VMCOMM_GID_MAX];
	struct vmcomm_layout lay;
	void *base;
	struct vmcomm_abi_header header; /* what must be at base */
	uint64_t repairs;
	int memfd;
	uint64_t epoch;
	int event[VMCOMM_SLOTS_MAX + 1][VMCOMM_VECTORS]; /* the host's at index lay.slots */
	struct vmcomm_group group;
	struct vmcomm_location row[VMCOMM_SLOTS_MAX]; /* what the table says; state is in group */
	struct keeper_slot slot[VMCOMM_SLOTS_MAX];
	int decoy_memfd;
	int decoy_event[VMCOMM_VECTORS];
	struct keeper_source decoy[KEEPER_DECOYS];
	struct keeper_source admin;
	struct keeper_client client[VMCOMM_KEEPER_CLIENTS];
	struct keeper_source timer;
	struct keeper_source reclaim_bell;
	int pid_fd;
	bool standalone; /* nobody steers: slots are opened again by the keeper itself */
	bool verbose;
	bool quit;
	uint64_t ticks;
};

/* main.c */
void keeper_log(const struct keeper *k, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
int keeper_watch(struct keeper *k, struct keeper_source *src, uint32_t events);
void keeper_unwatch(struct keeper *k, struct keeper_source *src); /* closes the descriptor */

/* region.c: memory and doorbells */
int keeper_region_init(struct keeper *k, uint64_t size, uint32_t slots, uint32_t chunk_shift);
void keeper_region_deinit(struct keeper *k);
void keeper_region_zero_slot(struct keeper *k, uint32_t slot);
void keeper_region_reclaim(struct keeper *k);
void keeper_region_repair(struct keeper *k);
void keeper_row_publish(struct keeper *k, uint32_t slot);
void keeper_ring_others(struct keeper *k, uint32_t slot);
void keeper_policy_write(struct keeper *k, const struct vmcomm_abi_policy *policy, uint32_t count);

/* slot.c: sockets and handshake */
int keeper_slot_open(struct keeper *k, uint32_t slot, const struct vmcomm_location *row,
		     uint32_t uid, uint32_t gid);
int keeper_slot_close(struct keeper *k, uint32_t slot);
int keeper_slot_set_row(struct keeper *k, uint32_t slot, const struct vmcomm_location *row);
void keeper_slot_tick(struct keeper *k, uint32_t slot);
void keeper_slot_deinit(struct keeper *k, uint32_t slot);
unsigned int keeper_connected(const struct keeper *k);

/* admin.c: the protocol with vmcommd */
int keeper_admin_init(struct keeper *k);
void keeper_admin_deinit(struct keeper *k);
void keeper_admin_event(struct keeper *k, uint32_t op, uint32_t slot);

#endif
