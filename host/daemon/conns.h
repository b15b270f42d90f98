/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * conns.h - connections of the members, as their guests show them in shared memory
 *
 * Everything that is read here may be nonsense: words are read once and bounded. The amount of work
 * in one step is limited, so that a guest can spoil its own lines and nothing else.
 */
#ifndef VMCOMM_DAEMON_CONNS_H
#define VMCOMM_DAEMON_CONNS_H

#include "manager.h"

struct conns_cursor {
	struct manager *m;
	char group[CONFIG_NAME]; /* only this one; empty: all */
	char vm[CONFIG_NAME];	 /* only connections with this one at an end; empty: all */
	/* where it is */
	char at_group[CONFIG_NAME];
	uint32_t owner, peer, chunk, idx, plain;
	bool in_plain;
	uint64_t examined;
	uint32_t found;
	bool end;
	bool truncated;
};

/** conns_begin() - from the start; @group, @vm: names or NULL */
void conns_begin(struct conns_cursor *c, struct manager *m, const char *group, const char *vm);

/**
 * conns_next() - look at some more memory
 * @list: JSON array that gets what was found, at most @max connections
 *
 * Return: true while there may be more.
 */
bool conns_next(struct conns_cursor *c, json_t *list, unsigned int max);

/** stats_describe() - counters of a VM by name; NULL when it has no slot */
json_t *stats_describe(const struct vm *vm);

#endif
