// SPDX-License-Identifier: GPL-2.0-or-later
/* error.c - a negative errno together with a sentence for the operator */
#include "error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

int vmcomm_error_set(struct vmcomm_error *e, int code, const char *fmt, ...)
{
	va_list args;

	if (!e)
		return code;
	e->code = code;
	va_start(args, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, args);
	va_end(args);
	return code;
}
