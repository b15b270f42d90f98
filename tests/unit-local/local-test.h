/* SPDX-License-Identifier: GPL-2.0-or-later */
/* local-test.h - what the Check programs of the local backend have in common */
#ifndef LOCAL_TEST_H
#define LOCAL_TEST_H

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pattern.h"
#include "vmcomm.h"

#define ok(call)                                                                                   \
	do {                                                                                       \
		int err_ = (int)(call);                                                            \
		ck_assert_msg(err_ >= 0, "%s: %d (%s)", #call, err_, vmcomm_strerror(err_));       \
	} while (0)

/* Each test runs in a process of its own; the output is TAP, for meson. */
#define LOCAL_MAIN(name, ...)                                                                      \
	int main(void)                                                                             \
	{                                                                                          \
		const TTest *const all[] = {__VA_ARGS__};                                          \
                                                                                                   \
		return local_main(name, all, sizeof(all) / sizeof(all[0]));                        \
	}

int local_main(const char *name, const TTest *const *all, size_t count);

/* Two members of one hub in this process, and a pair of connected streams. */
struct two {
	struct vmcomm_hub *hub;
	struct vmcomm_member *a, *b;
	struct vmcomm_listener *listener; /* b's, port 7 */
	struct vmcomm_stream *x, *y;	  /* a's and b's end */
};

void two_up(struct two *t, uint64_t memory, unsigned int ring);
void two_connect(struct two *t); /* x and y */
void two_down(struct two *t);	 /* closes what is not NULL */

/* Another process (peer.c). */
struct peer {
	pid_t pid;
	int in;	 /* its standard input */
	int out; /* its standard output */
};

/* @fd becomes its descriptor 3 and is closed here; -1: none. @path: its $VMCOMM_SLOT, or NULL. */
void peer_start(struct peer *p, int fd, const char *path, const char *mode, const char *arg);
void peer_ready(struct peer *p);
void peer_kill(struct peer *p);
void peer_end(struct peer *p); /* by its standard input; must exit with 0 */

/* Send @n pattern bytes from @pos on and read as many back, in pieces of up to @piece. */
void echo_check(struct vmcomm_stream *s, uint64_t pos, size_t n, size_t piece);
/* Connect; the peer may need a moment to join. */
void connect_retry(struct vmcomm_stream **s, struct vmcomm_member *m, const char *to);

#endif
