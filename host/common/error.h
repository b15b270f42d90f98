/* SPDX-License-Identifier: GPL-2.0-or-later */
/* error.h - a negative errno together with a sentence for the operator */
#ifndef VMCOMM_HOST_ERROR_H
#define VMCOMM_HOST_ERROR_H

struct vmcomm_error {
	int code; /* negative errno; 0: none */
	char text[512];
};

/**
 * vmcomm_error_set() - note an error
 * @e: may be NULL
 * @code: negative errno
 * @fmt: one sentence without a full stop: what is wrong, with the value, and what to do
 *
 * Return: @code.
 */
int vmcomm_error_set(struct vmcomm_error *e, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
