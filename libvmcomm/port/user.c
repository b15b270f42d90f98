// SPDX-License-Identifier: LGPL-2.1-or-later
/* port/user.c - time, randomness and messages for the core in a process */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <sys/random.h>

#include "port.h"

u64 vmcomm_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

u64 vmcomm_random64(void)
{
	u64 v;

	/* Eight bytes come whole or not at all once the kernel's generator is seeded. */
	while (getrandom(&v, sizeof(v), 0) != (ssize_t)sizeof(v))
		;
	return v;
}

void vmcomm_warn(const char *fmt, ...)
{
	static u64 window;
	static unsigned int count;
	u64 now = vmcomm_now() / 5000000000u;
	va_list ap;

	if (__atomic_exchange_n(&window, now, __ATOMIC_RELAXED) != now)
		__atomic_store_n(&count, 0, __ATOMIC_RELAXED);
	if (__atomic_fetch_add(&count, 1, __ATOMIC_RELAXED) >= 10)
		return;
	va_start(ap, fmt);
	fputs("vmcomm: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}
