// SPDX-License-Identifier: LGPL-2.1-or-later
/* domain.c - what xenstore says of domains; the nodes used here are the toolstack's, no guest writes them */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "xen.h"

static char *node_read(struct xs_handle *xs, const char *fmt, va_list args)
{
	char path[256];
	unsigned int len;

	vsnprintf(path, sizeof(path), fmt, args);
	return xs_read(xs, XBT_NULL, path, &len);
}

char *xen_node(struct xs_handle *xs, const char *fmt, ...)
{
	va_list args;
	char *text;

	va_start(args, fmt);
	text = node_read(xs, fmt, args);
	va_end(args);
	return text;
}

/* "/vm/6d2c..." */
static bool uuid_is(const char *path, const uint8_t *uuid)
{
	unsigned int i, byte;

	if (!path || strncmp(path, "/vm/", 4))
		return false;
	for (path += 4, i = 0; i < 16; i++, path += 2) {
		if (*path == '-')
			path++;
		if (sscanf(path, "%2x", &byte) != 1 || byte != uuid[i])
			return false;
	}
	return !*path;
}

int xen_find(struct xs_handle *xs, const char *name, const uint8_t *uuid, unsigned int *domid)
{
	unsigned int n = 0, i;
	char **list, *text;

	*domid = 0;
	list = xs_directory(xs, XBT_NULL, "/local/domain", &n);
	if (!list)
		return -EIO; /* dom0 is always in it */
	for (i = 0; i < n && !*domid; i++) {
		text = xen_node(xs, "/local/domain/%s/name", list[i]);
		if (text && !strcmp(text, name))
			*domid = (unsigned int)strtoul(list[i], NULL, 10);
		free(text);
	}
	free(list);
	if (!*domid)
		return -ENOENT;
	if (!uuid)
		return 0;
	text = xen_node(xs, "/local/domain/%u/vm", *domid);
	i = uuid_is(text, uuid);
	free(text);
	return i ? 0 : -EPERM;
}

bool xen_is(pid_t pid, const char *comm)
{
	char path[64], is[32];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, is, sizeof(is) - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 1 || is[n - 1] != '\n')
		return false;
	is[n - 1] = 0;
	return !strcmp(is, comm);
}

pid_t xen_process(struct xs_handle *xs, const char *comm, const char *fmt, ...)
{
	va_list args;
	char *text;
	pid_t pid;

	va_start(args, fmt);
	text = node_read(xs, fmt, args);
	va_end(args);
	pid = text ? (pid_t)strtol(text, NULL, 10) : 0;
	free(text);
	/* It may have died and its number been given to another. */
	return pid > 1 && xen_is(pid, comm) ? pid : 0;
}
