/* SPDX-License-Identifier: GPL-2.0-or-later */
/* path.h - would a new connection between two VMs use shared memory, and if not, why? */
#ifndef VMCOMM_DAEMON_PATH_H
#define VMCOMM_DAEMON_PATH_H

#include "manager.h"

/**
 * path_find() - which path a new connection between two VMs of this host takes
 *
 * What is decided for a connection alone (policy, options of a socket) is not known here.
 *
 * Return: enum vmcomm_reason; VMCOMM_REASON_NONE: shared memory.
 */
uint32_t path_find(const struct vm *a, const struct vm *b);

/** path_describe() - the same for the operator. Return: a new object. */
json_t *path_describe(const struct vm *a, const struct vm *b);

#endif
