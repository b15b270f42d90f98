/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fuzz.h - taking an input apart */
#ifndef VMCOMM_FUZZ_H
#define VMCOMM_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fuzz_input {
	const uint8_t *data;
	size_t left;
};

/* The next @n bytes as a number; the input goes on for ever with zeros. */
static inline uint64_t fuzz_number(struct fuzz_input *in, size_t n)
{
	uint64_t v = 0;

	if (n > in->left)
		n = in->left;
	memcpy(&v, in->data, n);
	in->data += n;
	in->left -= n;
	return v;
}

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
	return (uint8_t)fuzz_number(in, 1);
}

static inline uint16_t fuzz_u16(struct fuzz_input *in)
{
	return (uint16_t)fuzz_number(in, 2);
}

static inline uint32_t fuzz_u32(struct fuzz_input *in)
{
	return (uint32_t)fuzz_number(in, 4);
}

/* At most @n bytes of the input as they are. Return: how many; @p points to them. */
static inline size_t fuzz_bytes(struct fuzz_input *in, size_t n, const uint8_t **p)
{
	if (n > in->left)
		n = in->left;
	*p = in->data;
	in->data += n;
	in->left -= n;
	return n;
}

/* What must hold whatever the input is. */
#define fuzz_check(cond)                                                                           \
	((cond) ? (void)0 :                                                                        \
		  (fprintf(stderr, "%s:%d: '%s' does not hold\n", __FILE__, __LINE__, #cond),      \
		   abort()))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#endif
