// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * move.c - live migration of domains by xl (M15)
 *
 * xl on both hosts agree with each other on who has the domain, and say so by its name:
 *
 *   source                           destination
 *   NAME                             NAME--incoming    memory is being sent
 *   NAME--migratedaway, stopped      NAME--incoming    the destination may let it run
 *   NAME--migratedaway, stopped      NAME              it runs there
 *   gone                             NAME
 *
 * From "--migratedaway" on nothing here decides any more: vmcommd asks the other one (migrate.c). A
 * cancelled migration is one whose transport is ended; xl then lets the domain run here. An xl that was
 * killed does not: vmcomm-xen-resume does.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../job.h"
#include "run.h"
#include "xen.h"

#define POLL_USEC	100000
#define WATCH_USEC	500000
#define APPEAR_SECONDS	300 /* that the source has for letting its guest leave */
#define SILENT_SECONDS	10
#define XL_SECONDS	30 /* that xl has for anything but a migration */
#define CANCEL_SECONDS	15 /* for letting the domain run here */
#define COMMAND_MAX	1024
#define AWAY		"--migratedaway"
#define COMING		"--incoming"
#define XL_NODE		"/local/domain/0/vmcomm/migrate/%u"

enum kind { INCOMING, MIGRATE, LOOK, FINISH };

struct move {
	struct vmcomm_backend_job base;
	enum kind kind;
	struct vmcomm_backend_vm vm;
	struct vmcomm_backend_callbacks cb;
	void *arg;
	struct xs_handle *xs;
	sd_event *event;
	struct job_outcome out;
	struct run *run;
	void (*next)(struct move *j, int status, const char *words); /* when the program has ended */
	unsigned int domid;
	unsigned int polls;
	/* destination */
	unsigned int was, coming;
	unsigned int silent; /* times that xenstore did not answer */
	bool only_watch, announced;
	/* source */
	bool cancel;
	enum vmcomm_backend_fate fate;
	enum vmcomm_backend_place place;
};

/* Of our VM's names the one with @suffix. Return: as xen_find(), whose -EPERM is another's domain. */
static int find(struct move *j, const char *suffix, unsigned int *domid)
{
	char name[128];

	if ((size_t)snprintf(name, sizeof(name), "%s%s", j->vm.control, suffix) >= sizeof(name))
		return -ENAMETOOLONG;
	return xen_find(j->xs, name, j->vm.uuid, domid);
}

static void xl_note(struct move *j, pid_t pid)
{
	char path[64], text[16];

	snprintf(path, sizeof(path), XL_NODE, j->domid);
	snprintf(text, sizeof(text), "%d", (int)pid);
	if (pid)
		xs_write(j->xs, XBT_NULL, path, text, (unsigned int)strlen(text));
	else
		xs_rm(j->xs, XBT_NULL, path);
}

/* An xl that migrates the domain for us, or did for a vmcommd that was killed; 0: none. */
static pid_t xl_running(struct move *j, unsigned int domid)
{
	return xen_process(j->xs, "xl", XL_NODE, domid);
}

/* -- programs -- */

static void ended(void *arg, int status, const char *words)
{
	struct move *j = arg;
	struct run *r = j->run;

	/* The next one may be started in there. */
	j->run = NULL;
	j->next(j, status, words);
	run_free(r);
}

/* A short command; next() is called when it has ended. */
static void command(struct move *j, void (*next)(struct move *j, int status, const char *words),
		    const char *const *argv)
{
	static const struct run_callbacks cbs = {.ended = ended};
	int err;

	j->next = next;
	err = run_start(&j->run, j->event, argv, XL_SECONDS, false, &cbs, j);
	if (err)
		job_end(&j->out, err, "cannot start %s: %s", argv[0], strerror(-err));
}

static const char *xl(void)
{
	return getenv("VMCOMM_XL") ?: "xl";
}

static const char *resume_program(void)
{
	return getenv("VMCOMM_XEN_RESUME") ?: VMCOMM_LIBEXECDIR "/vmcomm-xen-resume";
}

/* Does @domid, which has its own name, stand still as if it had been saved? Its exit status says so. */
static void ask_state(struct move *j, unsigned int domid,
		      void (*next)(struct move *j, int status, const char *words))
{
	char id[16];
	const char *argv[] = {resume_program(), "--look", id, NULL};

	snprintf(id, sizeof(id), "%u", domid);
	command(j, next, argv);
}

static void let_run(struct move *j, unsigned int domid,
		    void (*next)(struct move *j, int status, const char *words))
{
	char id[16];
	const char *argv[] = {resume_program(), id, NULL};

	snprintf(id, sizeof(id), "%u", domid);
	command(j, next, argv);
}

/* -- destination -- */

static void incoming_poll(struct move *j)
{
	unsigned int domid, coming;
	int here = -EIO, in = -EIO;

	/* Xen's services may start after vmcommd. */
	if (!j->xs)
		j->xs = xs_open(0);
	/* In this order: between the two it may have got its name. */
	if (j->xs) {
		in = find(j, COMING, &coming);
		here = find(j, "", &domid);
	}
	if (here == -EIO || in == -EIO) {
		if (j->only_watch || ++j->silent * POLL_USEC < SILENT_SECONDS * 1000000U)
			job_timer(&j->out, j->only_watch ? WATCH_USEC : POLL_USEC);
		else
			job_end(&j->out, -EIO, "xenstore there does not answer");
		return;
	}
	j->silent = 0;
	if (here == -EPERM) {
		job_end(&j->out, -EEXIST, "domain '%s' there is another one: it has another UUID",
			j->vm.control);
		return;
	}
	if (!here && domid != j->was) {
		job_end(&j->out, 0, "%s", "");
		return;
	}
	if (!in)
		j->coming = coming;
	else if (j->coming && in == -ENOENT && !j->only_watch) {
		job_end(&j->out, -EIO, "Xen gave the migration up (the log of xl there says why)");
		return;
	}
	if (!j->announced && !j->only_watch && j->cb.listening) {
		j->announced = true;
		j->cb.listening(j->arg, "xl");
	}
	if (!j->only_watch && !j->coming && ++j->polls > APPEAR_SECONDS * 1000000 / POLL_USEC)
		job_end(&j->out, -ETIMEDOUT, "Xen has heard nothing of it");
	else
		job_timer(&j->out, j->only_watch ? WATCH_USEC : POLL_USEC);
}

/* Who has the name already does not come in: on one host that is the domain that is to move. */
static void incoming_begin(struct move *j)
{
	if (j->only_watch || !j->xs || find(j, "", &j->was))
		j->was = 0;
	incoming_poll(j);
}

/* -- source -- */

static void migrate_resumed(struct move *j, int status, const char *words)
{
	char why[sizeof(j->out.text)];

	/* Most often it ran already: xl has seen to that. */
	if (WIFEXITED(status) && !WEXITSTATUS(status)) {
		job_end(&j->out, j->out.result, NULL);
		return;
	}
	snprintf(why, sizeof(why), "%s", j->out.text);
	job_end(&j->out, j->out.result, "%.250s; and it is not let run here: %.200s", why, words);
}

/* xl has ended: whose is the domain? */
static void migrate_ended(struct move *j, int status, const char *words)
{
	unsigned int domid;
	int err;

	xl_note(j, 0);
	if (WIFEXITED(status) && !WEXITSTATUS(status)) {
		job_end(&j->out, 0, "%s", "");
		return;
	}
	j->out.result = j->cancel ? -ECANCELED : -EIO;
	if (j->cancel)
		snprintf(j->out.text, sizeof(j->out.text), "cancelled");
	else if (WIFSIGNALED(status))
		snprintf(j->out.text, sizeof(j->out.text), "xl was killed by signal %d: %.300s",
			 WTERMSIG(status), words);
	else
		snprintf(j->out.text, sizeof(j->out.text), "xl: %.400s", words);
	err = find(j, AWAY, &domid);
	if (!err && domid == j->domid) {
		/* The destination may have been told to let it run. */
		if (j->cb.step)
			j->cb.step(j->arg, j->out.text);
		job_end(&j->out, 0, "%s", "");
		return;
	}
	j->polls = 0;
	let_run(j, j->domid, migrate_resumed);
}

static void migrate_cancel(struct move *j)
{
	pid_t transport = run_noted(j->run);

	/* Its descendant for certain, and not who got its number. */
	if (transport && getsid(transport) == run_pid(j->run))
		kill(transport, SIGTERM);
	if (++j->polls > CANCEL_SECONDS * 1000000 / POLL_USEC)
		run_kill(j->run, SIGKILL);
	job_timer(&j->out, POLL_USEC);
}

static void migrate_begin(struct move *j, const struct vmcomm_backend_migration *how)
{
	static const struct run_callbacks cbs = {.ended = ended};
	char id[16], rune[COMMAND_MAX + 64];
	/* By number: a name of digits would be taken for one. */
	const char *argv[] = {xl(), "migrate", "-s", "", id, rune, NULL};
	int err;

	/*
	 * For the shell, as xl wants it. The command is the administrator's own; nothing that came from
	 * elsewhere is in it. Descriptor 3 is how its process becomes known.
	 */
	snprintf(rune, sizeof(rune), "echo $$ >&3; exec 3>&-; exec %s", how->connect);
	snprintf(id, sizeof(id), "%u", j->domid);
	j->next = migrate_ended;
	err = run_start(&j->run, j->event, argv, 0, true, &cbs, j);
	if (err) {
		job_end(&j->out, err, "cannot start xl: %s", strerror(-err));
		return;
	}
	xl_note(j, run_pid(j->run));
	job_timer(&j->out, POLL_USEC);
}

/* Pages that were written meanwhile are sent again: it may be more than the domain has. */
static void migrate_watch(struct move *j)
{
	char *text = xen_node(j->xs, "/local/domain/%u/memory/target", j->domid);
	uint64_t total = text ? strtoull(text, NULL, 10) * 1024 : 0, sent = xen_sent(run_pid(j->run));

	free(text);
	if (j->cb.progress && total && sent)
		j->cb.progress(j->arg, sent < total ? sent : total, total);
	job_timer(&j->out, POLL_USEC);
}

static void job_cancel(struct vmcomm_backend_job *base)
{
	struct move *j = (struct move *)base;

	if (j->cancel)
		return;
	j->cancel = true;
	if (j->run && j->next == migrate_ended)
		job_timer(&j->out, 0);
}

/* -- look -- */

static void look_known(struct move *j, int status, const char *words)
{
	if (!WIFEXITED(status) || WEXITSTATUS(status) > 1) {
		job_end(&j->out, -EIO, "cannot see whether domain '%s' runs: %.300s", j->vm.control,
			words);
		return;
	}
	/* One that stands still is let run by finish(), as one that is being sent. */
	j->place = WEXITSTATUS(status) ? VMCOMM_PLACE_MIGRATING : VMCOMM_PLACE_HERE;
	job_end(&j->out, 0, "%s", "");
}

static void look_begin(struct move *j)
{
	unsigned int domid;
	int err = find(j, AWAY, &domid);

	if (!err) {
		j->place = xl_running(j, domid) ? VMCOMM_PLACE_MIGRATING : VMCOMM_PLACE_MOVED;
	} else if (!(err = find(j, "", &domid))) {
		if (!xl_running(j, domid)) {
			ask_state(j, domid, look_known);
			return;
		}
		j->place = VMCOMM_PLACE_MIGRATING;
	} else {
		err = err == -EIO ? err : find(j, COMING, &domid);
		j->place = err ? VMCOMM_PLACE_ENDED : VMCOMM_PLACE_INCOMING;
	}
	if (err == -EIO)
		job_end(&j->out, err, "xenstore does not answer");
	else
		job_end(&j->out, 0, "%s", "");
}

/* -- finish -- */

static void finish_known(struct move *j, int status, const char *words)
{
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		job_end(&j->out, 0, "%s", "");
	else
		job_end(&j->out, -EIO, "%.400s", *words ? words : "the toolstack does not answer");
}

static void finish_named(struct move *j, int status, const char *words)
{
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		let_run(j, j->domid, finish_known);
	else
		job_end(&j->out, -EIO, "it does not get its name back: %.400s", words);
}

static void finish_go_on(struct move *j)
{
	char id[16];
	const char *argv[] = {xl(), "rename", id, j->vm.control, NULL};
	pid_t pid;
	int err = find(j, "", &j->domid), away;
	unsigned int domid;

	away = find(j, AWAY, &domid);
	if (err && !away)
		j->domid = domid;
	else if (err) {
		job_end(&j->out, -ENOENT, "there is no domain '%s' here", j->vm.control);
		return;
	}
	pid = xl_running(j, j->domid);
	if (pid) {
		/* It, its transport and its helper: a session of their own. */
		kill(-pid, ++j->polls < CANCEL_SECONDS * 1000000 / POLL_USEC / 2 ? SIGTERM : SIGKILL);
		if (j->polls > CANCEL_SECONDS * 1000000 / POLL_USEC)
			job_end(&j->out, -ETIMEDOUT, "its migration does not end: process %d",
				(int)pid);
		else
			job_timer(&j->out, POLL_USEC);
		return;
	}
	xl_note(j, 0);
	if (!err) {
		let_run(j, j->domid, finish_known);
	} else if (j->polls || j->fate == VMCOMM_FATE_CANCEL) {
		/* It was given away before xl could be ended: that is not ours to undo now. */
		job_end(&j->out, 0, "%s", "");
	} else {
		snprintf(id, sizeof(id), "%u", j->domid);
		command(j, finish_named, argv);
	}
}

static void finish_end(struct move *j)
{
	char id[16];
	const char *argv[] = {xl(), "destroy", id, NULL};
	int err = find(j, AWAY, &j->domid);

	/* Another of its name is alive, and xl has seen to this one. */
	if (err) {
		job_end(&j->out, err == -EIO ? err : 0, "%s", "");
		return;
	}
	snprintf(id, sizeof(id), "%u", j->domid);
	command(j, finish_known, argv);
}

/* -- all of them -- */

static int timer_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	struct move *j = arg;

	if (j->run && j->next == migrate_ended) {
		if (j->cancel)
			migrate_cancel(j);
		else
			migrate_watch(j);
		return 0;
	}
	if (j->run)
		return 0;
	if (j->out.ended) {
		if (j->kind == LOOK && !j->out.result && j->cb.place)
			j->cb.place(j->arg, j->place);
		j->cb.done(j->arg, j->out.result, j->out.text); /* frees the job */
		return 0;
	}
	switch (j->kind) {
	case INCOMING:
		if (j->announced || j->only_watch)
			incoming_poll(j);
		else
			incoming_begin(j);
		break;
	case LOOK:
		look_begin(j);
		break;
	case FINISH:
		if (j->fate == VMCOMM_FATE_END)
			finish_end(j);
		else
			finish_go_on(j);
		break;
	case MIGRATE:
		break;
	}
	return 0;
}

static void job_free(struct vmcomm_backend_job *base)
{
	struct move *j = (struct move *)base;

	run_free(j->run);
	sd_event_source_disable_unref(j->out.timer);
	sd_event_unref(j->event);
	if (j->xs)
		xs_close(j->xs);
	free(j);
}

static struct move *job_new(enum kind kind, sd_event *event, const struct vmcomm_backend_vm *vm,
			    const struct vmcomm_backend_callbacks *cb, void *arg)
{
	struct move *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->base.free = job_free;
	j->base.cancel = kind == MIGRATE ? job_cancel : NULL;
	j->kind = kind;
	j->vm = *vm;
	j->cb = *cb;
	j->arg = arg;
	j->event = sd_event_ref(event);
	if (sd_event_add_time_relative(event, &j->out.timer, CLOCK_MONOTONIC, 0, 0, timer_ready,
				       j) < 0) {
		job_free(&j->base);
		return NULL;
	}
	j->xs = xs_open(0);
	if (!j->xs && kind != INCOMING)
		job_end(&j->out, -ENOTCONN,
			"cannot reach xenstore: is this a dom0 with Xen's services running?");
	return j;
}

int xen_incoming(sd_event *event, const struct vmcomm_backend_vm *vm, const char *listen,
		 const struct vmcomm_backend_callbacks *cb, void *arg,
		 struct vmcomm_backend_job **job)
{
	struct move *j = job_new(INCOMING, event, vm, cb, arg);

	if (!j)
		return -ENOMEM;
	j->only_watch = !listen;
	*job = &j->base;
	return 0;
}

int xen_migrate(sd_event *event, const struct vmcomm_backend_vm *vm,
		const struct vmcomm_backend_migration *how,
		const struct vmcomm_backend_callbacks *cb, void *arg,
		struct vmcomm_backend_job **job)
{
	struct move *j;
	int err;

	if (!how->connect || how->bandwidth || how->postcopy)
		return -EINVAL;
	if (strlen(how->connect) >= COMMAND_MAX)
		return -ENAMETOOLONG;
	j = job_new(MIGRATE, event, vm, cb, arg);
	if (!j)
		return -ENOMEM;
	*job = &j->base;
	if (j->out.ended)
		return 0;
	err = find(j, "", &j->domid);
	if (err)
		job_end(&j->out, err, "no domain '%s' with its UUID runs here", vm->control);
	else if (xl_running(j, j->domid))
		job_end(&j->out, -EBUSY, "domain '%s' is being migrated already, by process %d",
			vm->control, (int)xl_running(j, j->domid));
	else
		migrate_begin(j, how);
	return 0;
}

int xen_look(sd_event *event, const struct vmcomm_backend_vm *vm,
	     const struct vmcomm_backend_callbacks *cb, void *arg, struct vmcomm_backend_job **job)
{
	struct move *j = job_new(LOOK, event, vm, cb, arg);

	if (!j)
		return -ENOMEM;
	*job = &j->base;
	return 0;
}

int xen_finish(sd_event *event, const struct vmcomm_backend_vm *vm, enum vmcomm_backend_fate fate,
	       const struct vmcomm_backend_callbacks *cb, void *arg,
	       struct vmcomm_backend_job **job)
{
	struct move *j = job_new(FINISH, event, vm, cb, arg);

	if (!j)
		return -ENOMEM;
	j->fate = fate;
	*job = &j->base;
	return 0;
}
