/* SPDX-License-Identifier: GPL-2.0-or-later */
/* text.h - strings into buffers */
#ifndef VMCOMM_HOST_TEXT_H
#define VMCOMM_HOST_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/**
 * vmcomm_text_copy() - copy a string if it fits
 * @size: of @dst in bytes, at least 1
 *
 * Return: false and an empty @dst if it is too long.
 */
static inline bool vmcomm_text_copy(char *dst, size_t size, const char *src)
{
	size_t len = strlen(src);

	if (len >= size) {
		dst[0] = 0;
		return false;
	}
	memcpy(dst, src, len + 1);
	return true;
}

#endif
