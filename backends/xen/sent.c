// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * sent.c - how far a migration is
 *
 * xl hides its progress while it migrates. What sends the memory is a child of it, of which the kernel
 * knows how many bytes it has written.
 */
#include <inttypes.h>
#include <stdio.h>

#include "xen.h"

#define HELPER	     "libxl-save-help" /* the kernel keeps 15 characters of its name */
#define CHILDREN_MAX 64

static uint64_t written(pid_t pid)
{
	char path[64], line[64];
	uint64_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/io", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "wchar: %" SCNu64, &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

uint64_t xen_sent(pid_t xl)
{
	unsigned int left = CHILDREN_MAX;
	char path[64];
	uint64_t n = 0;
	FILE *f;
	int pid;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)xl, (int)xl);
	f = fopen(path, "re");
	while (f && left-- && fscanf(f, "%d", &pid) == 1)
		if (xen_is(pid, HELPER))
			n += written(pid);
	if (f)
		fclose(f);
	return n;
}
