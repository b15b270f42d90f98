// SPDX-License-Identifier: GPL-2.0-or-later
/* rng.c - the one source of chance (splitmix64) */
#include "sim.h"

u64 sim_rng(void)
{
	u64 z = (sim.rng += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

u32 sim_below(u32 n)
{
	return (u32)(((sim_rng() >> 32) * n) >> 32);
}

u32 sim_between(u32 low, u32 high)
{
	return low + sim_below(high - low + 1);
}

bool sim_chance(u32 one_in)
{
	return one_in && !sim_below(one_in);
}

u32 sim_size(u32 max)
{
	u32 bits = 32 - (u32)__builtin_clz(max), n;

	n = 1 + sim_below(1u << sim_below(bits + 1));
	return n < max ? n : max;
}
