/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmcomm-semantics: what a case sees.
 *
 * A case has two halves, one in the client and one in the server, each in a process of its own with
 * a control connection between the two. A half reports by sem_say(); all that it says must be the
 * same in every correct run: no times, no ports, no amounts that depend on buffer sizes.
 */
#ifndef VMCOMM_SEM_H
#define VMCOMM_SEM_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common.h"

#define SEM_SEED       0x766d636f6d6dull
#define SEM_WAIT_MS    10000 /* how long a state that must come is waited for */
#define SEM_QUIET_MS   150   /* how long something that must not happen is given to happen */
#define SEM_SIGNAL_MS  250   /* time for a thread to get into the call that a signal shall meet */

struct sem {
	bool server;
	int ctl;	  /* control connection */
	int out;	  /* client: where lines go */
	int fd;		  /* the case's connection, when it has SEM_CONN */
	struct addr self; /* own address, as the control connection sees it */
	struct addr peer; /* the other half's address, as the control connection sees it */
	char line[512];
	size_t line_len;
};

#define SEM_CONN 1 /* the harness makes one connection, s->fd on both sides */

struct sem_case {
	const char *name;
	unsigned int flags;
	void (*client)(struct sem *s);
	void (*server)(struct sem *s);
};

#define SEM_CASE(n, f) {#n, f, n##_client, n##_server}

struct sem_group {
	const struct sem_case *cases;
	size_t n;
};

extern const struct sem_group sem_io, sem_peek, sem_signals, sem_events, sem_closing, sem_killed,
	sem_share, sem_splice, sem_setup, sem_options, sem_special, sem_uring;

void sem_say(struct sem *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "17", or "-EAGAIN" from errno; the text lives until the 16th next call in this thread. */
const char *sem_rc(ssize_t r);
/* As sem_rc(), but an amount is told as none, some or all. */
const char *sem_amount(ssize_t r, size_t all);
/* The names of poll or epoll events, "IN|OUT"; "none" for 0. */
const char *sem_events_text(unsigned int events);
/* "yes" or "no". */
const char *sem_bool(bool b);
/* Runs a system call and keeps its errno for sem_rc(). */
#define RC(x) sem_rc(x)

/* Synchronisation of the two halves over the control connection. sem_post() is signal-safe. */
void sem_post(struct sem *s);
void sem_wait_post(struct sem *s);
void sem_barrier(struct sem *s);
void sem_put(struct sem *s, uint64_t v);
uint64_t sem_get(struct sem *s);

/* A listener on the wildcard address. */
int sem_listener(struct sem *s, int backlog);
/* The same, whose port the other half gets by sem_dial() or sem_get(). */
int sem_listen(struct sem *s, int backlog);
/* Connects to a listener that the other half made just now. */
int sem_dial(struct sem *s);
/* Both halves: one more connection between client (connects) and server (accepts). */
int sem_pair(struct sem *s);

/* Stream positions pos..pos+len of the case's data. */
void sem_fill_buf(void *buf, uint64_t pos, size_t len);
bool sem_check_buf(const void *buf, uint64_t pos, size_t len);
/* Sends [pos, pos+len) completely; returns len or -1. */
ssize_t sem_send_stream(int fd, uint64_t pos, size_t len);
/* Reads exactly len bytes and says whether they are [pos, pos+len); what names the line. */
void sem_expect_stream(struct sem *s, const char *what, int fd, uint64_t pos, size_t len);
/* Sends without blocking from pos on until nothing more fits for a while; returns the amount. */
size_t sem_stuff(int fd, uint64_t pos);
/* Reads to the end of file; returns bytes read, *good tells whether they were [pos, ...). */
size_t sem_read_all(int fd, uint64_t pos, bool *good, int *err);

/* Wait until a state is reached; false (and a line that says so) after SEM_WAIT_MS. */
bool sem_wait_inq(struct sem *s, int fd, int bytes);
bool sem_wait_events(struct sem *s, int fd, short events);
bool sem_wait_outq_empty(struct sem *s, int fd);
bool sem_wait_tcp_state(struct sem *s, int fd, int state);
int sem_tcp_state(int fd);

/* Says what recv(fd, len, flags) gives: the count and the bytes (short texts only). */
void sem_say_recv(struct sem *s, const char *what, int fd, size_t len, int flags);
/* Says which events poll() reports now, without waiting, for IN OUT PRI RDHUP. */
void sem_say_poll(struct sem *s, const char *what, int fd);
int sem_set_int(int fd, int level, int name, int value);
int sem_get_int(int fd, int level, int name);
void sem_set_timeout(int fd, int name, unsigned int ms);
/* Whether a thread has slept for a while: it is in the call that shall block. */
bool sem_sleeps(pid_t tid);
/* Waits for a child; "exit N" or "signal N". */
const char *sem_wait_child(pid_t pid);
/* Starts a process of this half that dies with it. */
pid_t sem_fork(void);

#endif
