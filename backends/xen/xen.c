// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * xen.c - give a running domain its place in a slot, and take it away again (M12)
 *
 * Each attached domain has a process vmcomm-xen (port.c), which outlives vmcommd. Attaching starts
 * it; detaching asks it to end. vm->control is the domain's name; with a UUID the domain must have it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../job.h"
#include "xen.h"

#define POLL_USEC      100000
#define ATTACH_SECONDS 20
#define DETACH_SECONDS 25 /* more than vmcomm-xen gives the guest */

extern char **environ;

struct job {
	struct vmcomm_backend_job base;
	struct vmcomm_backend_callbacks cb;
	void *arg;
	struct xs_handle *xs;
	struct job_outcome out;
	sd_event_source *ready, *forked;
	int fd; /* attach: vmcomm-xen says that it is ready */
	pid_t child; /* of ours, until it has gone to the background */
	pid_t session; /* of that, and of what goes on in the background */
	unsigned int domid;
	unsigned int polls;
};

/* Find the domain. Domain ids change and repeat, so this is done for each job. */
static int find(struct job *j, const struct vmcomm_backend_vm *vm)
{
	int err = xen_find(j->xs, vm->control, vm->uuid, &j->domid);
	char *uuid;

	if (err == -EPERM) {
		uuid = xen_node(j->xs, "/local/domain/%u/vm", j->domid);
		job_end(&j->out, err, "domain '%s' is another one: %s", vm->control,
			uuid ? uuid : "no UUID");
		free(uuid);
	} else if (err) {
		job_end(&j->out, err, "no domain '%s' runs here", vm->control);
	}
	return err;
}

/* The process that serves the domain; 0: none. */
static pid_t port_pid(struct job *j)
{
	return xen_process(j->xs, "vmcomm-xen", "/local/domain/0/backend/vmcomm/%u/0/pid", j->domid);
}

static int timer_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	struct job *j = arg;

	if (j->out.ended) {
		j->cb.done(j->arg, j->out.result, j->out.text);
		return 0;
	}
	if (j->fd >= 0) {
		job_end(&j->out, -ETIMEDOUT, "vmcomm-xen did not get ready in %d s",
			ATTACH_SECONDS);
		return 0;
	}
	if (!port_pid(j)) {
		j->cb.step(j->arg, "device removed");
		job_end(&j->out, 0, "%s", "");
	} else if (++j->polls * POLL_USEC > DETACH_SECONDS * 1000000U) {
		job_end(&j->out, -ETIMEDOUT, "vmcomm-xen does not end");
	} else {
		sd_event_source_set_time_relative(s, POLL_USEC);
		sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
	}
	return 0;
}

static int port_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct job *j = arg;
	char byte;

	sd_event_source_set_enabled(s, SD_EVENT_OFF);
	if (read(fd, &byte, 1) == 1) {
		j->cb.step(j->arg, "device given to the domain");
		job_end(&j->out, 0, "%s", "");
	} else {
		job_end(&j->out, -EIO, "vmcomm-xen failed; vmcommd's log has its words");
	}
	return 0;
}

static int forked(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct job *j = arg;

	if (waitpid(j->child, NULL, WNOHANG) == 0)
		return 0;
	j->child = 0;
	sd_event_source_set_enabled(s, SD_EVENT_OFF);
	return 0;
}

static void job_free(struct vmcomm_backend_job *base)
{
	struct job *j = (struct job *)base;

	sd_event_source_disable_unref(j->out.timer);
	sd_event_source_disable_unref(j->ready);
	sd_event_source_disable_unref(j->forked);
	/* It may get ready yet, and would serve the domain though that was given up. */
	if (j->fd >= 0 && j->out.result == -ETIMEDOUT)
		kill(-j->session, SIGTERM);
	/* If the device is made, this one has forked, and has nothing more to do. */
	if (j->child) {
		kill(j->child, SIGKILL);
		while (waitpid(j->child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (j->fd >= 0)
		close(j->fd);
	if (j->xs)
		xs_close(j->xs);
	free(j);
}

static struct job *job_new(sd_event *event, const struct vmcomm_backend_callbacks *cb,
					  void *arg)
{
	struct job *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->base.free = job_free;
	j->cb = *cb;
	j->arg = arg;
	j->fd = -1;
	if (sd_event_add_time_relative(event, &j->out.timer, CLOCK_MONOTONIC,
				       ATTACH_SECONDS * 1000000ULL, 0, timer_ready, j) < 0) {
		free(j);
		return NULL;
	}
	j->xs = xs_open(0);
	if (!j->xs)
		job_end(&j->out, -ENOTCONN,
			"cannot reach xenstore: is this a dom0 with Xen's services running?");
	return j;
}

static int spawn_port(struct job *j, sd_event *event, const char *socket_path)
{
	char program[PATH_MAX], domid[16], fd[16];
	const char *argv[] = {program, "--domain", domid, "--slot-socket", socket_path, "--ready-fd",
			      fd, NULL};
	posix_spawnattr_t attr;
	sigset_t none;
	int pipefd[2], child[2], pidfd, err;

	/* Beside the region keeper's: set by the build, or for tests. */
	snprintf(program, sizeof(program), "%s", getenv("VMCOMM_XEN") ?: VMCOMM_LIBEXECDIR "/vmcomm-xen");
	snprintf(domid, sizeof(domid), "%u", j->domid);
	if (pipe2(pipefd, O_CLOEXEC))
		return -errno;
	child[0] = pipefd[0];
	child[1] = fcntl(pipefd[1], F_DUPFD, 3); /* without close-on-exec */
	close(pipefd[1]);
	snprintf(fd, sizeof(fd), "%d", child[1]);
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
	err = -posix_spawn(&j->child, program, NULL, &attr, (char **)(uintptr_t)argv, environ);
	posix_spawnattr_destroy(&attr);
	close(child[1]);
	if (err) {
		j->child = 0;
		close(child[0]);
		return err;
	}
	j->fd = child[0];
	j->session = j->child;
	/* It goes to the background at once, unless something is wrong with it or with the machine. */
	pidfd = (int)syscall(SYS_pidfd_open, j->child, 0);
	if (pidfd < 0)
		return -errno;
	err = sd_event_add_io(event, &j->forked, pidfd, EPOLLIN, forked, j);
	if (err < 0) {
		close(pidfd);
		return err;
	}
	sd_event_source_set_io_fd_own(j->forked, true);
	return 0;
}

static int xen_attach(sd_event *event, const struct vmcomm_backend_vm *vm,
		      const struct vmcomm_backend_device *dev,
		      const struct vmcomm_backend_callbacks *cb, void *arg,
		      struct vmcomm_backend_job **job)
{
	struct job *j = job_new(event, cb, arg);
	int err;

	if (!j)
		return -ENOMEM;
	*job = &j->base;
	if (j->out.ended || find(j, vm))
		return 0;
	if (port_pid(j)) {
		job_end(&j->out, -EBUSY, "process %d serves the domain already", (int)port_pid(j));
		return 0;
	}
	err = spawn_port(j, event, dev->socket);
	if (!err)
		err = sd_event_add_io(event, &j->ready, j->fd, EPOLLIN, port_ready, j);
	if (err < 0)
		job_end(&j->out, err, "cannot start vmcomm-xen: %s", strerror(-err));
	return 0;
}

static int xen_detach(sd_event *event, const struct vmcomm_backend_vm *vm,
		      const struct vmcomm_backend_callbacks *cb, void *arg,
		      struct vmcomm_backend_job **job)
{
	struct job *j = job_new(event, cb, arg);
	pid_t pid;

	if (!j)
		return -ENOMEM;
	*job = &j->base;
	if (j->out.ended || find(j, vm))
		return 0;
	pid = port_pid(j);
	if (!pid) {
		job_end(&j->out, -ENODEV, "domain '%s' has no device", vm->control);
		return 0;
	}
	kill(pid, SIGTERM);
	sd_event_source_set_time_relative(j->out.timer, POLL_USEC);
	return 0;
}

const struct vmcomm_backend vmcomm_backend_xen = {
	.name = "xen",
	.by_name = true,
	.by_command = true,
	.no_bandwidth = true,
	.attach = xen_attach,
	.detach = xen_detach,
	.watch = xen_watch,
	.incoming = xen_incoming,
	.migrate = xen_migrate,
	.look = xen_look,
	.finish = xen_finish,
};
