/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* run.h - programs of the toolstack, started from the event loop */
#ifndef VMCOMM_BACKEND_XEN_RUN_H
#define VMCOMM_BACKEND_XEN_RUN_H

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#define RUN_WORDS 320

struct run;

struct run_callbacks {
	/*
	 * It has ended. @status: as of waitpid(); @words: the end of what it said, printable, in one line.
	 * Called once, from the loop; run_free() is still to be called.
	 */
	void (*ended)(void *arg, int status, const char *words);
};

/**
 * run_start() - start a program in a session of its own
 * @argv: the program, which is looked for in $PATH, and its arguments
 * @seconds: it is killed, with all that it started, after that time; 0: never
 * @note: NULL, or: it gets descriptor 3, and the number that is written there is run_noted()
 *
 * Return: 0 or negative errno.
 */
int run_start(struct run **out, sd_event *event, const char *const *argv, unsigned int seconds, bool note,
	      const struct run_callbacks *cb, void *arg);
pid_t run_pid(const struct run *r);
pid_t run_noted(struct run *r); /* 0: nothing was noted yet */
void run_kill(struct run *r, int sig); /* it and all that it started */
/* Forget it. If it has not ended it goes on. */
void run_free(struct run *r);

#endif
