// SPDX-License-Identifier: GPL-2.0-or-later
/* line.c - one line to stderr */
#include "line.h"

#include <stdio.h>
#include <unistd.h>

void vmcomm_line(const char *prefix, const char *fmt, va_list args)
{
	char line[1024];
	int n, m;

	n = snprintf(line, sizeof(line), "%s", prefix);
	m = vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, args);
	n = n + m < (int)sizeof(line) - 1 ? n + m : (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return;
}
