/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * migrate.h - live migration of members between two vmcommds (M15); docs/migration.md has the steps
 *
 * The source has a struct migration for a VM that leaves, the destination a struct incoming for one
 * that comes in. Both go on when whoever asked is gone, and both can be taken up again from the state
 * file.
 */
#ifndef VMCOMM_DAEMON_MIGRATE_H
#define VMCOMM_DAEMON_MIGRATE_H

#include "manager.h"
#include "peer.h"

/* Blocks of connections that are looked at in one go, in which vmcommd does nothing else. */
#define MIGRATE_EXAMINED_MAX (4U << 20)

/* -- source -- */

struct migration;

struct migrate_callbacks {
	/* Something happened: an object with "step" and "text", and what belongs to it; borrowed. */
	void (*event)(void *arg, json_t *event);
	/* The end. @result: an object, borrowed; NULL when @e->code is set. */
	void (*done)(void *arg, const struct vmcomm_error *e, json_t *result);
};

struct migrate_options {
	const char *host;
	uint64_t bandwidth;   /* bytes per second; 0: as the hypervisor likes */
	unsigned int timeout; /* seconds for the memory; 0: none */
	bool postcopy;	      /* libvirt only */
};

int migrate_start(struct vm *vm, const struct migrate_options *o, const struct migrate_callbacks *cb,
		  void *arg, struct migration **out, struct vmcomm_error *e);
/*
 * Attach the VM wherever it is now: here, or on one of the hosts of the configuration, where it is
 * an ordinary member then and none here any more.
 */
int migrate_find(struct vm *vm, const struct migrate_callbacks *cb, void *arg,
		 struct migration **out, struct vmcomm_error *e);
/* Return: 0: it will be undone; -EBUSY: too late; -ENOENT: the VM does not migrate. */
int migrate_cancel(struct vm *vm, struct vmcomm_error *e);
void migrate_forget_caller(struct migration *mg);
/* After a start of vmcommd: what was going on when it ended is brought to an end. */
void migrate_resume(struct manager *m);
void migrate_abort(struct vm *vm); /* vmcommd ends, or the VM goes */

/* -- destination -- */

/* A vmcommd that knows a group's key has connected. */
void incoming_accepted(struct manager *m, struct peer *p);
/* Attach the VM as soon as it runs, whoever moves it here. */
void incoming_watch(struct vm *vm);
void incoming_abort(struct vm *vm);

/* -- both -- */

/* Names of errors between hosts. */
const char *migrate_error_name(int code);
int migrate_error_code(const char *name);
/* A string of a message, without what a terminal would take for a command. */
void migrate_text(json_t *msg, const char *name, char *buf, size_t size);

#endif
