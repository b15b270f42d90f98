/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pattern.h - bytes that tell their position in a stream */
#ifndef LOCAL_PATTERN_H
#define LOCAL_PATTERN_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

static inline unsigned char pattern_at(uint64_t pos)
{
	uint64_t h = (pos >> 3) * 0x9e3779b97f4a7c15ULL;

	return (unsigned char)(h >> (8 * (pos & 7)));
}

static inline void pattern_fill(unsigned char *buf, uint64_t pos, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		buf[i] = pattern_at(pos + i);
}

/* Return: index of the first byte that is wrong, @n if none is. */
static inline size_t pattern_check(const unsigned char *buf, uint64_t pos, size_t n)
{
	size_t i;

	for (i = 0; i < n && buf[i] == pattern_at(pos + i); i++)
		;
	return i;
}

#endif
