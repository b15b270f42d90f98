// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * parking.c - keeps QEMU alive after an unplug of ivshmem-doorbell (preloaded; see parking.py)
 *
 * An eventfd that QEMU closes is replaced by one that never fires, under the same number: so the
 * handler that QEMU 7.2 forgets to remove is never called, and no other file gets the number.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int idle = -1;

__attribute__((constructor)) static void make_idle(void)
{
	idle = eventfd(0, EFD_CLOEXEC);
}

static int is_eventfd(int fd)
{
	static const char want[] = "anon_inode:[eventfd]";
	char path[40], target[sizeof(want)];
	struct stat st;

	/* Anonymous inodes have no type: most files are told from them without a second call. */
	if (fd < 0 || fd == idle || fstat(fd, &st) || st.st_mode & S_IFMT)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, target, sizeof(target)) == (ssize_t)strlen(want) &&
	       !memcmp(target, want, strlen(want));
}

__attribute__((visibility("default"))) int close(int fd)
{
	int error = errno;

	if (idle >= 0 && is_eventfd(fd) && dup3(idle, fd, O_CLOEXEC) == fd) {
		errno = error;
		return 0;
	}
	errno = error;
	return (int)syscall(SYS_close, fd);
}
