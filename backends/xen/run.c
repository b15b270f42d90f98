// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * run.c - programs of the toolstack, started from the event loop
 *
 * A program is at its end when its process is, not when its output is closed: what it left running
 * (an ssh that others share) may hold that for ever. Of the output only the end is kept.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOTE_FD	   3
#define LAST_READS 64 /* of what is in the pipe when it has ended; a pipe holds 64 KiB */

extern char **environ;

struct run {
	struct run_callbacks cb;
	void *arg;
	pid_t pid;
	pid_t noted;
	int pidfd, output, note;
	bool ended;
	sd_event_source *died, *readable, *timer;
	char line[256];
	size_t len; /* may be more than fits: the rest of a long line is left out */
	char words[RUN_WORDS];
};

static void line_end(struct run *r)
{
	size_t len = r->len < sizeof(r->line) ? r->len : sizeof(r->line) - 1, have, drop, i;

	r->len = 0;
	r->line[len] = 0;
	if (!len)
		return;
	for (i = 0; i < len; i++)
		if ((unsigned char)r->line[i] < 32 || (unsigned char)r->line[i] > 126)
			r->line[i] = '?';
	have = strlen(r->words);
	if (have + 2 + len >= sizeof(r->words)) {
		drop = have + 2 + len + 1 - sizeof(r->words);
		drop = drop < have ? drop : have;
		memmove(r->words, r->words + drop, have - drop + 1);
		have -= drop;
	}
	snprintf(r->words + have, sizeof(r->words) - have, "%s%s", have ? "; " : "", r->line);
}

/* Return: false: nothing more now. */
static bool read_some(struct run *r)
{
	char buf[1024];
	ssize_t n = read(r->output, buf, sizeof(buf)), i;

	for (i = 0; i < n; i++) {
		if (buf[i] == '\n' || buf[i] == '\r')
			line_end(r);
		else if (r->len++ < sizeof(r->line) - 1)
			r->line[r->len - 1] = buf[i];
	}
	if (!n)
		sd_event_source_set_enabled(r->readable, SD_EVENT_OFF);
	return n > 0;
}

static int output_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	read_some(arg);
	return 0;
}

static int died(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct run *r = arg;
	unsigned int reads = LAST_READS;
	int status;
	pid_t pid = waitpid(r->pid, &status, WNOHANG);

	if (!pid)
		return 0;
	if (pid < 0)
		status = SIGKILL; /* whatever became of it, it is no success */
	r->ended = true;
	sd_event_source_set_enabled(r->died, SD_EVENT_OFF);
	sd_event_source_set_enabled(r->timer, SD_EVENT_OFF);
	while (reads-- && read_some(r))
		;
	line_end(r);
	r->cb.ended(r->arg, status, r->words); /* may free it */
	return 0;
}

static int timed_out(sd_event_source *s, uint64_t usec, void *arg)
{
	run_kill(arg, SIGKILL);
	return 0;
}

static int pipe_new(int fd[2])
{
	if (pipe2(fd, O_CLOEXEC))
		return -errno;
	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	return 0;
}

static int spawn(struct run *r, const char *const *argv, int output, int note)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none;
	int err;

	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, output, 1);
	posix_spawn_file_actions_adddup2(&files, output, 2);
	if (note >= 0)
		posix_spawn_file_actions_adddup2(&files, note, NOTE_FD);
	err = -posix_spawnp(&r->pid, argv[0], &files, &attr, (char **)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return err;
}

int run_start(struct run **out, sd_event *event, const char *const *argv, unsigned int seconds, bool note,
	      const struct run_callbacks *cb, void *arg)
{
	struct run *r = calloc(1, sizeof(*r));
	int output[2] = {-1, -1}, noted[2] = {-1, -1}, err;

	if (!r)
		return -ENOMEM;
	r->cb = *cb;
	r->arg = arg;
	r->pidfd = r->output = r->note = -1;
	err = pipe_new(output);
	if (!err && note)
		err = pipe_new(noted);
	r->output = output[0];
	r->note = noted[0];
	if (!err)
		err = spawn(r, argv, output[1], noted[1]);
	if (output[1] >= 0)
		close(output[1]);
	if (noted[1] >= 0)
		close(noted[1]);
	if (err)
		goto fail;
	r->pidfd = (int)syscall(SYS_pidfd_open, r->pid, 0);
	err = r->pidfd < 0 ? -errno : sd_event_add_io(event, &r->died, r->pidfd, EPOLLIN, died, r);
	if (err >= 0)
		err = sd_event_add_io(event, &r->readable, r->output, EPOLLIN, output_ready, r);
	if (err >= 0)
		err = sd_event_add_time_relative(event, &r->timer, CLOCK_MONOTONIC,
						 seconds * 1000000ULL, 0, timed_out, r);
	if (err < 0) {
		kill(-r->pid, SIGKILL);
		waitpid(r->pid, NULL, 0);
		goto fail;
	}
	if (!seconds)
		sd_event_source_set_enabled(r->timer, SD_EVENT_OFF);
	*out = r;
	return 0;
fail:
	run_free(r);
	return err;
}

pid_t run_pid(const struct run *r)
{
	return r->pid;
}

pid_t run_noted(struct run *r)
{
	char text[16];
	ssize_t n = r->noted || r->note < 0 ? 0 : read(r->note, text, sizeof(text) - 1);

	if (n > 0) {
		text[n] = 0;
		r->noted = (pid_t)strtol(text, NULL, 10);
	}
	return r->noted > 1 ? r->noted : 0;
}

void run_kill(struct run *r, int sig)
{
	if (!r->ended)
		kill(-r->pid, sig);
}

void run_free(struct run *r)
{
	if (!r)
		return;
	sd_event_source_disable_unref(r->died);
	sd_event_source_disable_unref(r->readable);
	sd_event_source_disable_unref(r->timer);
	if (r->pidfd >= 0)
		close(r->pidfd);
	if (r->output >= 0)
		close(r->output);
	if (r->note >= 0)
		close(r->note);
	free(r);
}
