/* SPDX-License-Identifier: GPL-2.0-or-later */
/* native.h - what the parts of vmcomm-bench-native share */
#ifndef BENCH_NATIVE_H
#define BENCH_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A way of moving bytes between two processes. */
struct path {
	const char *name;
	/* Before fork(). */
	int (*prepare)(void);
	/* After it, in both processes; @client: the one that measures. */
	int (*open)(bool client);
	ssize_t (*send)(const void *buf, size_t len); /* all of it */
	ssize_t (*recv)(void *buf, size_t len);	      /* what is there; 0: the end */
	void (*finish)(void);			      /* nothing more to send */
};

extern const struct path path_vmcomm, path_vmcomm_spin, path_unix, path_tcp, path_pipe;

void fail(const char *what, int err) __attribute__((noreturn));

#endif
