/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* xen.h - parts of vmcommd's Xen backend */
#ifndef VMCOMM_BACKEND_XEN_H
#define VMCOMM_BACKEND_XEN_H

#include <sys/types.h>
#include <xenstore.h>

#include "../../host/daemon/backend.h"

/* domain.c: what xenstore says of domains */

/* The value of a node, to be freed; NULL: there is none. */
char *xen_node(struct xs_handle *xs, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/**
 * xen_find() - domain ids change and repeat: find a domain by its name
 * @uuid: NULL, or what it must have
 * @domid: result
 *
 * Return: 0; -ENOENT; -EPERM: there is one of that name, but with another UUID; -EIO: xenstore fails.
 */
int xen_find(struct xs_handle *xs, const char *name, const uint8_t *uuid, unsigned int *domid);

/* @comm: at most 15 characters */
bool xen_is(pid_t pid, const char *comm);

/* The process whose id is in a node, if it still is a @comm; 0: none. */
pid_t xen_process(struct xs_handle *xs, const char *comm, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* sent.c: bytes that an xl which migrates a domain has sent so far */
uint64_t xen_sent(pid_t xl);

/* watch.c: as struct vmcomm_backend's */
int xen_watch(sd_event *event, void (*appeared)(void *arg, const char *control), void *arg,
	      struct vmcomm_backend_job **job);

/* move.c: as struct vmcomm_backend's */
int xen_incoming(sd_event *event, const struct vmcomm_backend_vm *vm, const char *listen,
		 const struct vmcomm_backend_callbacks *cb, void *arg,
		 struct vmcomm_backend_job **job);
int xen_migrate(sd_event *event, const struct vmcomm_backend_vm *vm,
		const struct vmcomm_backend_migration *how,
		const struct vmcomm_backend_callbacks *cb, void *arg,
		struct vmcomm_backend_job **job);
int xen_look(sd_event *event, const struct vmcomm_backend_vm *vm,
	     const struct vmcomm_backend_callbacks *cb, void *arg, struct vmcomm_backend_job **job);
int xen_finish(sd_event *event, const struct vmcomm_backend_vm *vm, enum vmcomm_backend_fate fate,
	       const struct vmcomm_backend_callbacks *cb, void *arg,
	       struct vmcomm_backend_job **job);

#endif
