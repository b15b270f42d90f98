// SPDX-License-Identifier: GPL-2.0-or-later
/* port.c - time and randomness that are the same in each run of an input */
#include "fuzz.h"
#include "port.h"

static u64 state;

void fuzz_port_reset(void);
void fuzz_port_reset(void)
{
	state = 1;
}

u64 vmcomm_now(void)
{
	state += 1000;
	return state;
}

u64 vmcomm_random64(void)
{
	u64 z = state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

void vmcomm_warn(const char *fmt, ...)
{
	(void)fmt;
}
