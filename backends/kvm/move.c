// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * move.c - live migration of plain QEMUs (M15)
 *
 * Four jobs on one monitor connection each. The monitor is asked for what is true again and again;
 * events only make it sooner. QEMU's run states as they are used here: "inmigrate" waits for a VM or
 * receives it, "postmigrate" has sent everything and stands still.
 *
 * QEMU pauses ("pre-switchover") when only the last of a VM is left to be sent, and goes on when it is told
 * to. After that nothing cancels it any more: the VM would run on both sides if the last byte had gone.
 */
#include "../job.h"
#include "move.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ports.h"
#include "qmp.h"

#define ANSWER_SECONDS	10
#define POLL_USEC	100000
#define WATCH_USEC	500000
#define LAST_WORDS_MSEC 1000
#define LAST_WORDS	20
#define SETTLE_TRIES	100 /* of POLL_USEC each, for QEMU to take its disks back */

enum kind { INCOMING, MIGRATE, LOOK, FINISH };

struct move {
	struct vmcomm_backend_job base;
	enum kind kind;
	struct vmcomm_backend_vm vm;
	struct vmcomm_backend_callbacks cb;
	void *arg;
	struct qmp *qmp;
	struct job_outcome out;
	char listen[64];
	char uri[256];
	uint64_t bandwidth;
	bool only_watch;
	bool announced; /* listening() was called */
	bool waiting;	/* between two polls: the timer is no deadline */
	enum vmcomm_backend_fate fate;
	bool quitting;
	bool sending;	/* migrate was accepted */
	bool paused;	/* before the switch */
	bool switching; /* it was told to go on: the point of no return */
	bool news;	/* an event that is not looked into yet */
	bool cancel, cancel_sent;
	bool cancelling; /* says QEMU */
	char status[32];
	/* the end that is made sure of, see settle() */
	bool settling;
	bool settle_moved;
	unsigned int settle_tries;
	int settle_err;
	char settle_text[480];
};

static void poll_next(struct move *j);

static void call(struct move *j, const char *command, json_t *args, qmp_reply reply)
{
	int err = qmp_call(j->qmp, command, args, reply);

	j->waiting = false;
	if (err)
		job_end(&j->out, err, "cannot send %s to QEMU: %s", command, strerror(-err));
	else
		job_timer(&j->out, ANSWER_SECONDS * 1000000ULL);
}

static void wait_then_poll(struct move *j, uint64_t usec)
{
	j->waiting = true;
	job_timer(&j->out, usec);
}

static const char *get_text(json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text ? text : "";
}

/* QEMU's SocketAddress as a migration URI. Return: false: none that another host could use. */
static bool address_uri(json_t *a, char *buf, size_t size)
{
	const char *type = get_text(a, "type"), *host = get_text(a, "host");
	int n = -1;

	if (!strcmp(type, "inet") && *host)
		n = snprintf(buf, size, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host,
			     get_text(a, "port"));
	else if (!strcmp(type, "unix"))
		n = snprintf(buf, size, "unix:%s", get_text(a, "path"));
	return n > 0 && (size_t)n < size;
}

int kvm_uuid_check(const struct vmcomm_backend_vm *vm, const char *got, char *text, size_t size)
{
	char want[40];
	int n = 0, i;

	for (i = 0; i < 16; i++)
		n += snprintf(want + n, sizeof(want) - (size_t)n, "%s%02x",
			      i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", vm->uuid[i]);
	/* A QEMU without -uuid says zero: it cannot contradict. */
	if (!got || !*got || !strcmp(got, "00000000-0000-0000-0000-000000000000") ||
	    !strcasecmp(got, want))
		return 0;
	snprintf(text, size, "the QEMU at %s is another VM: its uuid is %.36s, not %s", vm->control,
		 got, want);
	return -EINVAL;
}

/*
 * -- undone: who runs on here has its disks --
 *
 * QEMU lets go of its disks before it has sent the last of a VM. One that is cancelled, or fails, in that
 * moment may let the VM run without them (QEMU 7.2 does so in a tenth of late cancellations), and dies
 * when the VM writes, or when the next migration begins. No query shows it. "cont" takes them back, and
 * does nothing to a VM that runs and has them.
 */

static void settle_end(struct move *j)
{
	job_end(&j->out, j->settle_err, "%s", j->settle_text);
}

/* Return: arguments for migrate-set-capabilities */
static json_t *pause_before_switch(bool on)
{
	return json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", "pause-before-switchover",
			 "state", on);
}

static void settle_reset(void *arg, json_t *result, const char *error)
{
	settle_end(arg);
}

/* The operator's own migrations shall not pause. */
static void settle_good(struct move *j)
{
	call(j, "migrate-set-capabilities", pause_before_switch(false), settle_reset);
}

/* The VM is not as it should be. */
static void settle_failed(struct move *j, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static void settle_failed(struct move *j, const char *fmt, ...)
{
	size_t n = strlen(j->settle_text);
	va_list args;

	if (n && n < sizeof(j->settle_text) - 3)
		n += (size_t)snprintf(j->settle_text + n, sizeof(j->settle_text) - n, "; ");
	va_start(args, fmt);
	vsnprintf(j->settle_text + n, sizeof(j->settle_text) - n, fmt, args);
	va_end(args);
	if (!j->settle_err)
		j->settle_err = -EIO;
}

static void settle_stopped(void *arg, json_t *result, const char *error)
{
	settle_end(arg);
}

static void settle_continued(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;

	if (result) {
		settle_good(j);
	} else if (++j->settle_tries < SETTLE_TRIES) {
		/* Whoever was to receive it may have them for a moment. */
		wait_then_poll(j, POLL_USEC);
	} else if (!strcmp(j->status, "running")) {
		settle_failed(j,
			      "its QEMU does not get its disks back (%.150s), so vmcommd stopped the "
			      "vm: see that nobody else uses them, then let it run (QMP: cont)",
			      error);
		call(j, "stop", NULL, settle_stopped);
	} else {
		settle_failed(j, "its QEMU does not let it run: %.200s", error);
		settle_end(j);
	}
}

static void settle_status(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;

	if (!result) {
		settle_failed(j, "query-status: %.200s", error);
		settle_end(j);
		return;
	}
	snprintf(j->status, sizeof(j->status), "%s", get_text(result, "status"));
	if (!strcmp(j->status, "running") ||
	    (!strcmp(j->status, "postmigrate") && j->settle_moved)) {
		call(j, "cont", NULL, settle_continued);
	} else if (strcmp(j->status, "finish-migrate")) {
		settle_good(j); /* somebody had stopped it before */
	} else if (++j->settle_tries < SETTLE_TRIES) {
		wait_then_poll(j, POLL_USEC);
	} else {
		settle_failed(j, "its QEMU has stopped it to migrate, and leaves it so");
		settle_end(j);
	}
}

static void settle_ask(struct move *j)
{
	call(j, "query-status", NULL, settle_status);
}

/*
 * The job ends with @err and @text when the VM has its disks. @moved: it may stand still after a migration
 * that QEMU calls complete, too.
 */
static void settle(struct move *j, bool moved, int err, const char *text)
{
	j->settling = true;
	j->settle_moved = moved;
	j->settle_err = err;
	snprintf(j->settle_text, sizeof(j->settle_text), "%s", text);
	settle_ask(j);
}

/* -- destination -- */

static void incoming_announce(struct move *j, const char *uri)
{
	j->announced = true;
	if (j->cb.listening)
		j->cb.listening(j->arg, uri);
	wait_then_poll(j, WATCH_USEC);
}

static void incoming_address_known(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;
	json_t *a = json_array_get(json_object_get(result, "socket-address"), 0);

	if (!result)
		job_end(&j->out, -EIO, "query-migrate: %s", error);
	else if (address_uri(a, j->uri, sizeof(j->uri)))
		incoming_announce(j, j->uri);
	else
		incoming_announce(j, "");
}

static void incoming_listens(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;

	if (!result && !strstr(error, "already")) {
		job_end(&j->out, -EIO, "migrate-incoming: %s", error);
		return;
	}
	call(j, "query-migrate", NULL, incoming_address_known);
}

static void incoming_first_look(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;
	json_t *a = json_array_get(json_object_get(result, "socket-address"), 0);
	char uri[96];

	if (!result) {
		job_end(&j->out, -EIO, "query-migrate: %s", error);
	} else if (address_uri(a, j->uri, sizeof(j->uri))) {
		incoming_announce(j, j->uri);
	} else {
		snprintf(uri, sizeof(uri), strchr(j->listen, ':') ? "tcp:[%s]:0" : "tcp:%s:0",
			 j->listen);
		call(j, "migrate-incoming", json_pack("{s:s}", "uri", uri), incoming_listens);
	}
}

/* Has it room for the device? Before the firmware ran only the number of ports is known. */
static void incoming_pci_known(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;
	char bus[64], why[400];

	if (!j->vm.bus && result &&
	    kvm_port_choose(result, 0, bus, sizeof(bus), why, sizeof(why))) {
		job_end(&j->out, -ENODEV, "%s", why);
		return;
	}
	call(j, "query-migrate", NULL, incoming_first_look);
}

static void incoming_status(struct move *j)
{
	if (!strcmp(j->status, "inmigrate")) {
		if (!j->announced && !j->only_watch)
			call(j, "query-pci", NULL, incoming_pci_known);
		else
			wait_then_poll(j, WATCH_USEC);
		return;
	}
	if (!strcmp(j->status, "prelaunch") || !strcmp(j->status, "postmigrate") ||
	    !strcmp(j->status, "shutdown"))
		job_end(&j->out, -EINPROGRESS,
			"the QEMU at %s does not wait for a migration (it is in state "
			"'%s'): start it with -incoming defer",
			j->vm.control, j->status);
	else
		job_end(&j->out, 0, "%s", "");
}

/* -- source -- */

static void migrate_polled(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;
	json_t *ram = json_object_get(result, "ram");
	const char *status = get_text(result, "status"), *desc = get_text(result, "error-desc");
	json_int_t total = json_integer_value(json_object_get(ram, "total"));
	json_int_t remaining = json_integer_value(json_object_get(ram, "remaining"));
	char text[400];

	if (!result) {
		job_end(&j->out, -EIO, "query-migrate: %s", error);
	} else if (!strcmp(status, "completed")) {
		if (j->cb.progress && total > 0)
			j->cb.progress(j->arg, (uint64_t)total, (uint64_t)total);
		job_end(&j->out, 0, "%s", "");
	} else if (!strcmp(status, "failed")) {
		snprintf(text, sizeof(text), "QEMU's migration failed%s%.300s", *desc ? ": " : "",
			 desc);
		settle(j, false, -EIO, text);
	} else if (!strcmp(status, "cancelled")) {
		settle(j, false, -ECANCELED, "cancelled");
	} else {
		if (j->cb.progress && total > 0 && remaining >= 0 && remaining <= total)
			j->cb.progress(j->arg, (uint64_t)(total - remaining), (uint64_t)total);
		j->paused |= !strcmp(status, "pre-switchover");
		j->cancelling = !strcmp(status, "cancelling");
		wait_then_poll(j, j->news || (j->paused && !j->switching) ? 0 : POLL_USEC);
	}
}

/* What came of a command is in query-migrate. */
static void migrate_told(void *arg, json_t *result, const char *error)
{
	call(arg, "query-migrate", NULL, migrate_polled);
}

/*
 * Cancelled just before its pause, QEMU 7.2 waits in it for ever, the VM stopped: who cancels wakes it only
 * when it is there. It takes this word in any state that is called by its name.
 */
static void wake_cancelling(struct move *j, qmp_reply reply)
{
	call(j, "migrate-continue", json_pack("{s:s}", "state", "cancelling"), reply);
}

static void migrate_poll(struct move *j)
{
	j->news = false;
	if (j->cancel && !j->cancel_sent && !j->switching) {
		j->cancel_sent = true;
		call(j, "migrate_cancel", NULL, migrate_told);
	} else if (j->paused && !j->cancel_sent && !j->switching) {
		j->switching = true;
		call(j, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"),
		     migrate_told);
	} else if (j->cancelling) {
		wake_cancelling(j, migrate_told);
	} else {
		call(j, "query-migrate", NULL, migrate_polled);
	}
}

static void migrate_begun(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;

	if (!result) {
		job_end(&j->out, -EIO, "QEMU refuses to migrate: %s", error);
		return;
	}
	j->sending = true;
	wait_then_poll(j, j->news ? 0 : POLL_USEC);
}

static void migrate_begin(struct move *j)
{
	if (j->cancel)
		job_end(&j->out, -ECANCELED, "cancelled");
	else
		call(j, "migrate", json_pack("{s:s}", "uri", j->uri), migrate_begun);
}

static void migrate_parameters_set(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;

	if (!result)
		job_end(&j->out, -EIO, "migrate-set-parameters: %s", error);
	else
		migrate_begin(j);
}

static void migrate_capabilities_set(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;

	if (!result)
		job_end(&j->out, -EIO, "migrate-set-capabilities: %s", error);
	else if (j->bandwidth)
		call(j, "migrate-set-parameters",
		     json_pack("{s:I}", "max-bandwidth", (json_int_t)j->bandwidth),
		     migrate_parameters_set);
	else
		migrate_begin(j);
}

static void migrate_set(struct move *j)
{
	json_t *args = pause_before_switch(true);

	json_array_append_new(json_object_get(args, "capabilities"),
			      json_pack("{s:s, s:b}", "capability", "events", "state", true));
	call(j, "migrate-set-capabilities", args, migrate_capabilities_set);
}

static void migrate_has_disks(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;

	if (!result)
		job_end(&j->out, -EIO,
			"its QEMU does not get its disks back, which an earlier migration took: %s",
			error);
	else
		migrate_set(j);
}

/* It does not run, so "cont" is not for us to say: has it ever been without its disks? */
static void migrate_history_known(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;
	const char *earlier = get_text(result, "status");

	if (!result)
		job_end(&j->out, -EIO, "query-migrate: %s", error);
	else if (*earlier && strcmp(earlier, "none"))
		job_end(&j->out, -EBUSY,
			"its QEMU is in state '%s' and has had a migration before (%s), so nobody can "
			"tell whether it has its disks, without which it would die now: if the vm lives "
			"here, let it run (QMP: cont)",
			j->status, earlier);
	else
		migrate_set(j);
}

static void migrate_status(struct move *j)
{
	if (!strcmp(j->status, "inmigrate"))
		job_end(&j->out, -EIO, "its QEMU waits for a migration itself (state 'inmigrate')");
	else if (!strcmp(j->status, "running"))
		call(j, "cont", NULL, migrate_has_disks); /* see settle() */
	else
		call(j, "query-migrate", NULL, migrate_history_known);
}

static void move_cancel(struct vmcomm_backend_job *job)
{
	struct move *j = (struct move *)job;

	j->cancel = true;
	if (j->waiting && !j->out.ended)
		job_timer(&j->out, 0);
}

/* -- look -- */

static bool migration_active(const char *status)
{
	return !strcmp(status, "setup") || !strcmp(status, "active") ||
	       !strcmp(status, "device") || !strcmp(status, "pre-switchover") ||
	       !strcmp(status, "cancelling") || !strncmp(status, "postcopy", 8) ||
	       !strcmp(status, "wait-unplug");
}

/* Before the point of no return, also that of a vmcommd which has been killed. */
static bool migration_cancellable(const char *status)
{
	return migration_active(status) && strcmp(status, "device") &&
	       strcmp(status, "cancelling") && strncmp(status, "postcopy", 8);
}

static void look_known(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;
	const char *migration = get_text(result, "status");
	enum vmcomm_backend_place place = VMCOMM_PLACE_HERE;
	bool undone;

	if (!result) {
		job_end(&j->out, -EIO, "query-migrate: %s", error);
		return;
	}
	undone = !strcmp(migration, "failed") || !strcmp(migration, "cancelled");
	if (!strcmp(j->status, "inmigrate"))
		place = VMCOMM_PLACE_INCOMING;
	else if (!strcmp(j->status, "postmigrate") && !undone)
		place = VMCOMM_PLACE_MOVED;
	else if (migration_active(migration))
		place = VMCOMM_PLACE_MIGRATING;
	if (j->cb.place)
		j->cb.place(j->arg, place);
	if (undone)
		settle(j, false, 0, "");
	else
		job_end(&j->out, 0, "%s", "");
}

/* -- finish -- */

static void finish_quit(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;

	if (!result)
		job_end(&j->out, -EIO, "%s", error);
	else
		job_end(&j->out, 0, "%s", "");
}

static void finish_cancelling(void *arg, json_t *result, const char *error);

static void finish_told(void *arg, json_t *result, const char *error)
{
	call(arg, "query-migrate", NULL, finish_cancelling);
}

static void finish_cancelling(void *arg, json_t *result, const char *error)
{
	const char *status = get_text(result, "status");
	struct move *j = arg;

	if (!result) {
		job_end(&j->out, -EIO, "query-migrate: %s", error);
	} else if (!j->cancel_sent && migration_cancellable(status)) {
		j->cancel_sent = true;
		call(j, "migrate_cancel", NULL, finish_told);
	} else if (migration_active(status)) {
		j->cancelling = !strcmp(status, "cancelling");
		wait_then_poll(j, POLL_USEC);
	} else {
		settle(j, j->fate == VMCOMM_FATE_GO_ON, 0, "");
	}
}


static void finish_status(struct move *j)
{
	if (j->fate == VMCOMM_FATE_END) {
		j->quitting = true;
		call(j, "quit", NULL, finish_quit);
	} else if (j->cancelling) {
		wake_cancelling(j, finish_told);
	} else {
		call(j, "query-migrate", NULL, finish_cancelling);
	}
}

/* -- all of them -- */

static void status_known(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;

	if (!result) {
		job_end(&j->out, -EIO, "query-status: %s", error);
		return;
	}
	snprintf(j->status, sizeof(j->status), "%s", get_text(result, "status"));
	switch (j->kind) {
	case INCOMING:
		incoming_status(j);
		break;
	case MIGRATE:
		migrate_status(j);
		break;
	case LOOK:
		call(j, "query-migrate", NULL, look_known);
		break;
	case FINISH:
		finish_status(j);
		break;
	}
}

static void poll_next(struct move *j)
{
	if (j->settling)
		settle_ask(j);
	else if (j->kind == MIGRATE && j->sending)
		migrate_poll(j);
	else
		call(j, "query-status", NULL, status_known);
}

static void uuid_known(void *arg, json_t *result, const char *error)
{
	struct move *j = arg;
	char text[512];

	if (kvm_uuid_check(&j->vm, get_text(result, "UUID"), text, sizeof(text)))
		job_end(&j->out, -EINVAL, "%s", text);
	else
		poll_next(j);
}

static void monitor_ready(void *arg)
{
	struct move *j = arg;

	if (j->vm.uuid)
		call(j, "query-uuid", NULL, uuid_known);
	else
		poll_next(j);
}

static void monitor_event(void *arg, const char *name, json_t *data)
{
	struct move *j = arg;

	/* The VM has just come to life: no need to wait for the next look. */
	if (j->kind == INCOMING && j->waiting && !j->out.ended && !strcmp(name, "RESUME"))
		job_timer(&j->out, 0);
	if (j->kind == MIGRATE && !strcmp(name, "MIGRATION")) {
		j->news = true;
		j->paused |= !strcmp(get_text(data, "status"), "pre-switchover");
		if (j->sending && j->waiting && !j->out.ended)
			job_timer(&j->out, 0);
	}
}

static void monitor_closed(void *arg, const char *text)
{
	struct move *j = arg;

	if (j->quitting)
		job_end(&j->out, 0, "%s", "");
	else if (j->kind == INCOMING)
		job_end(&j->out, -ECONNRESET, "the QEMU that waited for it has ended%s",
			j->announced ? " (its log says why)" : "");
	else
		job_end(&j->out, -ECONNRESET, "%s", text);
}

static int timer_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	struct move *j = arg;

	if (!j->out.ended && j->waiting) {
		poll_next(j);
	} else if (!j->out.ended) {
		job_end(&j->out, -ETIMEDOUT,
			"no answer from QEMU at %s: does another program use this socket? "
			"Give QEMU a second one (-qmp)",
			j->vm.control);
	} else {
		if (j->kind == LOOK && j->out.result == -ENOENT && j->cb.place) {
			j->cb.place(j->arg, VMCOMM_PLACE_ENDED);
			j->out.result = 0;
		}
		j->cb.done(j->arg, j->out.result, j->out.text); /* frees the job */
	}
	return 0;
}

/* vmcommd ends: nobody would tell QEMU to go on after its pause. */
static void last_words(struct move *j)
{
	unsigned int tries = 0;

	if (qmp_last_words(j->qmp, "migrate_cancel", NULL, LAST_WORDS_MSEC))
		return;
	while (tries++ < LAST_WORDS && !qmp_last_words(j->qmp, "migrate-continue",
						       json_pack("{s:s}", "state", "cancelling"),
						       LAST_WORDS_MSEC))
		usleep(10000);
}

static void move_free(struct vmcomm_backend_job *job)
{
	struct move *j = (struct move *)job;

	if (j->kind == MIGRATE && j->sending && !j->switching && !j->out.ended)
		last_words(j);
	qmp_free(j->qmp);
	sd_event_source_disable_unref(j->out.timer);
	free(j);
}

static int move_new(enum kind kind, sd_event *event, const struct vmcomm_backend_vm *vm,
		    const struct vmcomm_backend_callbacks *cb, void *arg, struct move **out)
{
	static const struct qmp_callbacks cbs = {monitor_ready, monitor_event, monitor_closed};
	struct move *j = calloc(1, sizeof(*j));
	int err;

	if (!j)
		return -ENOMEM;
	j->base.free = move_free;
	j->base.cancel = kind == MIGRATE ? move_cancel : NULL;
	j->kind = kind;
	j->vm = *vm;
	j->cb = *cb;
	j->arg = arg;
	err = sd_event_add_time_relative(event, &j->out.timer, CLOCK_MONOTONIC,
					 ANSWER_SECONDS * 1000000ULL, 0, timer_ready, j);
	if (err < 0) {
		free(j);
		return err;
	}
	err = qmp_open(&j->qmp, event, vm->control, &cbs, j);
	if (err == -ECONNREFUSED)
		err = -ENOENT; /* a socket that nobody serves: its QEMU has ended */
	if (err)
		job_end(&j->out, err, "no QEMU answers at the QMP socket %s: %s", vm->control,
			strerror(-err));
	*out = j;
	return 0;
}

int kvm_incoming(sd_event *event, const struct vmcomm_backend_vm *vm, const char *listen,
		 const struct vmcomm_backend_callbacks *cb, void *arg,
		 struct vmcomm_backend_job **job)
{
	struct move *j;
	int err = move_new(INCOMING, event, vm, cb, arg, &j);

	if (err)
		return err;
	j->only_watch = !listen;
	snprintf(j->listen, sizeof(j->listen), "%s", listen ? listen : "");
	*job = &j->base;
	return 0;
}

int kvm_migrate(sd_event *event, const struct vmcomm_backend_vm *vm,
		const struct vmcomm_backend_migration *how,
		const struct vmcomm_backend_callbacks *cb, void *arg,
		struct vmcomm_backend_job **job)
{
	struct move *j;
	int err;

	if (strlen(how->uri) >= sizeof(j->uri))
		return -ENAMETOOLONG;
	err = move_new(MIGRATE, event, vm, cb, arg, &j);
	if (err)
		return err;
	snprintf(j->uri, sizeof(j->uri), "%s", how->uri);
	j->bandwidth = how->bandwidth;
	*job = &j->base;
	return 0;
}

int kvm_look(sd_event *event, const struct vmcomm_backend_vm *vm,
	     const struct vmcomm_backend_callbacks *cb, void *arg,
	     struct vmcomm_backend_job **job)
{
	struct move *j;
	int err = move_new(LOOK, event, vm, cb, arg, &j);

	if (!err)
		*job = &j->base;
	return err;
}

int kvm_finish(sd_event *event, const struct vmcomm_backend_vm *vm,
	       enum vmcomm_backend_fate fate, const struct vmcomm_backend_callbacks *cb, void *arg,
	       struct vmcomm_backend_job **job)
{
	struct move *j;
	int err = move_new(FINISH, event, vm, cb, arg, &j);

	if (err)
		return err;
	j->fate = fate;
	*job = &j->base;
	return 0;
}
