/* SPDX-License-Identifier: GPL-2.0-or-later */
/* line.h - one line to stderr, whoever listens there */
#ifndef VMCOMM_HOST_LINE_H
#define VMCOMM_HOST_LINE_H

#include <stdarg.h>

/**
 * vmcomm_line() - write @prefix, the text and a newline to stderr at once; longer than 1 KiB is cut
 *
 * Never waits for long and never fails: the pipe behind stderr may be full or closed, and then the line
 * is lost, nothing else.
 */
void vmcomm_line(const char *prefix, const char *fmt, va_list args)
	__attribute__((format(printf, 2, 0)));

#endif
