/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * region.h - vmcommd's hold on the shared memory of one group
 *
 * The memory belongs to a region keeper, a process that outlives vmcommd; here is the connection to
 * it and a mapping for reading. vmcommd itself never writes to the region. A backend without such
 * a process (Xen, where each VM owns its own memory) has its own implementation of these
 * functions.
 */
#ifndef VMCOMM_DAEMON_REGION_H
#define VMCOMM_DAEMON_REGION_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "group.h"
#include "location.h"
#include "../common/error.h"

struct region_status {
	bool open;	/* a QEMU can connect */
	bool connected; /* one is */
	uint32_t pid;
	uint32_t decoys;
	struct vmcomm_location row;
};

struct region_callbacks {
	/* A QEMU took the slot or let go of it. */
	void (*changed)(void *arg, uint32_t slot, const struct region_status *st);
	/* A guest rang the host: look at the control areas. */
	void (*rung)(void *arg);
	/* The keeper is gone, and with it the memory for everybody who joins later. */
	void (*lost)(void *arg);
};

struct region;

/**
 * region_connect() - take hold of a region that exists
 * @dir: directory of the group's keeper
 * @gid: what the group must be called there
 *
 * Return: 0; -ENOENT, -ECONNREFUSED: there is no keeper; other negative errno.
 */
int region_connect(struct region **r, sd_event *event, const char *dir, const char *gid,
		   const struct region_callbacks *cb, void *arg, struct vmcomm_error *e);

/**
 * region_create() - start a keeper in @dir and take hold of its region
 * @program: of the keeper
 * @chunk: bytes
 */
int region_create(struct region **r, sd_event *event, const char *program, const char *dir,
		  const char *gid, uint32_t slots, uint64_t memory, uint64_t chunk,
		  const struct region_callbacks *cb, void *arg, struct vmcomm_error *e);

/** region_free() - let go; the keeper and its region live on */
void region_free(struct region *r);

const struct vmcomm_layout *region_layout(const struct region *r);
void *region_base(const struct region *r); /* mapped for reading only */
uint64_t region_epoch(const struct region *r);
uint32_t region_pid(const struct region *r); /* of the keeper */

/*
 * Requests; they wait for the keeper, at most for two seconds. Errors as in keeper/protocol.h, and
 * -ETIMEDOUT, -ENOTCONN when the keeper does not answer.
 */
int region_slot_open(struct region *r, uint32_t slot, const struct vmcomm_location *row,
		     uint32_t uid);
int region_slot_close(struct region *r, uint32_t slot);
int region_row_set(struct region *r, uint32_t slot, const struct vmcomm_location *row);
int region_status(struct region *r, uint32_t slot, struct region_status *st);
int region_policy_set(struct region *r, const struct vmcomm_abi_policy *policy, uint32_t count);

/** region_shutdown() - end the keeper; -EBUSY: a QEMU is connected. @r stays valid until freed. */
int region_shutdown(struct region *r);

/** region_slot_path() - where a QEMU connects. Return: 0 or -ENAMETOOLONG. */
int region_slot_path(const struct region *r, uint32_t slot, char *buf, size_t size);

#endif
