// SPDX-License-Identifier: GPL-2.0-or-later
/* log.c - lines to stderr */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void log_line(int priority, const char *fmt, ...)
{
	static int journal = -1;
	char line[1024];
	va_list args;
	int n, m;

	if (journal < 0)
		journal = getenv("JOURNAL_STREAM") != NULL;
	n = journal ? snprintf(line, sizeof(line), "<%d>", priority) :
		      snprintf(line, sizeof(line), "vmcommd: ");
	va_start(args, fmt);
	m = vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, args);
	va_end(args);
	n = n + m < (int)sizeof(line) - 1 ? n + m : (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nobody listens any more */
}
