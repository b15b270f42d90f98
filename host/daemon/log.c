// SPDX-License-Identifier: GPL-2.0-or-later
/* log.c - lines to stderr */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "../common/line.h"

void log_line(int priority, const char *fmt, ...)
{
	static int journal = -1;
	char prefix[16] = "vmcommd: ";
	va_list args;

	if (journal < 0)
		journal = getenv("JOURNAL_STREAM") != NULL;
	if (journal)
		snprintf(prefix, sizeof(prefix), "<%d>", priority);
	va_start(args, fmt);
	vmcomm_line(prefix, fmt, args);
	va_end(args);
}
