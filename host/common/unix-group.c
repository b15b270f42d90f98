// SPDX-License-Identifier: GPL-2.0-or-later
/* unix-group.c - groups of users */
#include "unix-group.h"

#include <grp.h>
#include <stddef.h>

gid_t unix_group_id(const char *name)
{
	const struct group *gr = getgrnam(name);

	return gr ? gr->gr_gid : (gid_t)-1;
}
