/* SPDX-License-Identifier: GPL-2.0-or-later */
/* unix-group.h - groups of users; apart, since <grp.h> and groups of VMs share a name */
#ifndef VMCOMM_HOST_UNIX_GROUP_H
#define VMCOMM_HOST_UNIX_GROUP_H

#include <sys/types.h>

/** unix_group_id() - Return: its number, (gid_t)-1 if there is no such group. */
gid_t unix_group_id(const char *name);

#endif
