// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * life.c - is the process in a slot alive? (M8, M26)
 *
 * A keeper or hub sees the end of a member's connection, says so in the location table and rings:
 * that is how a death is noticed, at once. When the keeper itself is gone nobody does that any
 * more. For this case each member holds a lock on one byte of the group's memory, through an open
 * file of its own, which the kernel gives up when the process dies; others try it once a second.
 * Members without such a lock (VMs) are then taken to be alive.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "local.h"

static struct flock life_byte(const struct vmcomm_member *m, u32 slot)
{
	const struct vmcomm_layout *lay = &m->region.lay;

	return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1,
			      .l_start = (off_t)(lay->ctl_off + slot * lay->ctl_stride)};
}

int local_life_begin(struct vmcomm_member *m)
{
	struct flock lock = life_byte(m, m->slot);
	char path[64];

	/* dup() would share the open file, and the lock, with the keeper and everybody else. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", m->memfd);
	m->life_fd = open(path, O_RDWR | O_CLOEXEC);
	if (m->life_fd < 0)
		return 0; /* no /proc: do without */
	return fcntl(m->life_fd, F_OFD_SETLK, &lock) ? -EBUSY : 0;
}

bool local_life_held(struct vmcomm_member *m, u32 slot)
{
	struct flock lock = life_byte(m, slot);

	if (m->life_fd < 0)
		return false;
	return !fcntl(m->life_fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}
