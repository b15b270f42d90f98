// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * libvirt-move.c - live migration of domains (M15)
 *
 * The source's libvirtd does it, peer to peer; it undoes itself what fails. We only have to know what came
 * of it, also when the connection to libvirtd is lost in the middle. The destination looks at the domain
 * until it runs.
 */
#include "libvirt-move.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libvirt-call.h"

#define WATCH_USEC     100000
#define PROGRESS_USEC  250000
#define APPEAR_SECONDS 120 /* from the prepare to the domain's first sign of life here */
#define FINISH_SECONDS 30
#define URI_MAX	       256

enum kind { INCOMING, MIGRATE, WHERE, FINISH };

/* What a thread does and finds. One job has one at a time, and MIGRATE a second one for progress. */
struct move {
	struct libvirt_call call;
	struct move_job *job; /* loop: NULL when it was given up */
	enum kind kind;
	uint8_t uuid[16];
	char connect[URI_MAX], uri[URI_MAX];
	uint64_t bandwidth;
	bool postcopy;
	enum vmcomm_backend_fate fate;
	int err;
	char text[400];
	enum vmcomm_backend_place place;
	struct libvirt_domain d;
};

struct progress {
	struct libvirt_call call;
	struct move_job *job;
	uint8_t uuid[16];
	bool cancel, postcopy;
	bool switched; /* to post-copy */
	uint64_t sent, total;
};

struct move_job {
	struct vmcomm_backend_job base;
	enum kind kind;
	struct vmcomm_backend_callbacks cb;
	void *arg;
	uint8_t uuid[16];
	sd_event_source *timer;
	struct move *move;
	struct progress *progress;
	/* incoming */
	bool only_watch, announced, appeared;
	unsigned int looks;
	/* migrate */
	bool cancel, postcopy;
};

static int failed(struct move *v, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int failed(struct move *v, int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(v->text, sizeof(v->text), fmt, args);
	va_end(args);
	v->err = err;
	return err;
}

static void set_timer(struct move_job *j, uint64_t usec)
{
	sd_event_source_set_time_relative(j->timer, usec);
	sd_event_source_set_enabled(j->timer, SD_EVENT_ONESHOT);
}

/* -- in threads -- */

/* The migration job that is going on. Return: VIR_DOMAIN_JOB_OPERATION_UNKNOWN: none. */
static int job_now(virDomainPtr dom, struct progress *p)
{
	virTypedParameterPtr params = NULL;
	int n = 0, type, op = VIR_DOMAIN_JOB_OPERATION_UNKNOWN;
	unsigned long long total = 0, remaining = 0, round = 0;

	if (virDomainGetJobStats(dom, &type, &params, &n, 0))
		return op;
	if (type != VIR_DOMAIN_JOB_NONE)
		virTypedParamsGetInt(params, n, VIR_DOMAIN_JOB_OPERATION, &op);
	virTypedParamsGetULLong(params, n, VIR_DOMAIN_JOB_MEMORY_TOTAL, &total);
	virTypedParamsGetULLong(params, n, VIR_DOMAIN_JOB_MEMORY_REMAINING, &remaining);
	virTypedParamsGetULLong(params, n, VIR_DOMAIN_JOB_MEMORY_ITERATION, &round);
	if (p && total && remaining <= total) {
		p->total = total;
		p->sent = total - remaining;
	}
	/* Everything was sent once: the rest can follow. */
	if (p && p->postcopy && round > 1)
		p->switched = !virDomainMigrateStartPostCopy(dom, 0);
	virTypedParamsFree(params, n);
	return op;
}

static int where(struct move *v)
{
	int err = 0, state, reason, op;
	virDomainPtr dom = libvirt_call_domain(v->uuid, &err, v->text, sizeof(v->text));
	bool paused;

	v->place = VMCOMM_PLACE_ENDED;
	if (!dom) {
		v->err = err == -ENOENT ? 0 : err;
		return v->err;
	}
	v->err = 0;
	if (virDomainGetState(dom, &state, &reason, 0)) {
		failed(v, -EIO, "%s", libvirt_words(v->d.problem, sizeof(v->d.problem)));
		goto out;
	}
	if (state == VIR_DOMAIN_SHUTOFF || state == VIR_DOMAIN_NOSTATE)
		goto out;
	op = job_now(dom, NULL);
	paused = state == VIR_DOMAIN_PAUSED;
	if (op == VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN ||
	    (paused && reason == VIR_DOMAIN_PAUSED_STARTING_UP))
		v->place = VMCOMM_PLACE_INCOMING;
	else if (op == VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)
		v->place = VMCOMM_PLACE_MIGRATING;
	else if (paused && (reason == VIR_DOMAIN_PAUSED_MIGRATION ||
			    reason == VIR_DOMAIN_PAUSED_POSTCOPY ||
			    reason == VIR_DOMAIN_PAUSED_POSTCOPY_FAILED))
		v->place = VMCOMM_PLACE_MOVED;
	else
		v->place = VMCOMM_PLACE_HERE;
out:
	libvirt_domain_put(dom);
	return v->err;
}

static void incoming_run(struct move *v)
{
	virDomainPtr dom = libvirt_call_domain(v->uuid, &v->err, v->text, sizeof(v->text));

	v->d.state = LIBVIRT_GONE;
	if (v->err == -ENOENT)
		v->err = 0;
	if (!dom)
		return;
	libvirt_call_look(dom, &v->d);
	libvirt_domain_put(dom);
}

/*
 * An error was returned: does it live here? A libvirtd that is started again first puts it right. Return: 0:
 * not here, or nobody knows; the error that the text belongs to: it does.
 */
static int outcome(struct move *v, int err)
{
	char text[sizeof(v->text)];

	snprintf(text, sizeof(text), "%s", v->text);
	while (!atomic_load(&v->call.given_up)) {
		if (!where(v) && v->place != VMCOMM_PLACE_MIGRATING && v->place != VMCOMM_PLACE_INCOMING) {
			if (v->place == VMCOMM_PLACE_HERE)
				return failed(v, err, "%s", text);
			v->err = 0;
			return 0;
		}
		usleep(PROGRESS_USEC);
	}
	return failed(v, -ECANCELED, "given up");
}

static void migrate_run(struct move *v)
{
	virTypedParameterPtr params = NULL;
	unsigned int flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER;
	int n = 0, max = 0, err, code;
	virDomainPtr dom;
	char why[300];

	dom = libvirt_call_domain(v->uuid, &v->err, v->text, sizeof(v->text));
	if (!dom)
		return;
	/* It moves: its definition goes with it. */
	if (virDomainIsPersistent(dom) == 1)
		flags |= VIR_MIGRATE_PERSIST_DEST | VIR_MIGRATE_UNDEFINE_SOURCE;
	if (v->postcopy)
		flags |= VIR_MIGRATE_POSTCOPY;
	if (v->uri[0])
		virTypedParamsAddString(&params, &n, &max, VIR_MIGRATE_PARAM_URI, v->uri);
	if (v->bandwidth)
		virTypedParamsAddULLong(&params, &n, &max, VIR_MIGRATE_PARAM_BANDWIDTH,
					(v->bandwidth + (1U << 20) - 1) >> 20);
	err = virDomainMigrateToURI3(dom, v->connect, params, (unsigned int)n, flags);
	code = err ? virGetLastErrorCode() : 0;
	if (err)
		failed(v, code == VIR_ERR_OPERATION_ABORTED ? -ECANCELED : -EIO, "%s",
		       libvirt_words(why, sizeof(why)));
	virTypedParamsFree(params, n);
	libvirt_domain_put(dom);
	if (err)
		outcome(v, v->err);
}

static void finish_run(struct move *v)
{
	unsigned int left = FINISH_SECONDS * 1000000 / PROGRESS_USEC;
	virDomainPtr dom;
	char why[300];
	int err = 0;

	if (where(v))
		return;
	if (v->place == VMCOMM_PLACE_ENDED) {
		if (v->fate != VMCOMM_FATE_END)
			failed(v, -ENOENT, "the domain has ended");
		return;
	}
	dom = libvirt_call_domain(v->uuid, &err, v->text, sizeof(v->text));
	if (!dom) {
		v->err = err;
		return;
	}
	if (v->fate != VMCOMM_FATE_END && v->place == VMCOMM_PLACE_MIGRATING) {
		virDomainAbortJob(dom);
		while (left-- && !where(v) && v->place == VMCOMM_PLACE_MIGRATING)
			usleep(PROGRESS_USEC);
		if (v->place == VMCOMM_PLACE_MIGRATING)
			failed(v, -ETIMEDOUT, "its migration does not end");
	} else if (v->fate == VMCOMM_FATE_GO_ON && v->place == VMCOMM_PLACE_MOVED) {
		if (virDomainResume(dom))
			failed(v, -EIO, "%s", libvirt_words(why, sizeof(why)));
	} else if (v->fate == VMCOMM_FATE_END && v->place == VMCOMM_PLACE_MOVED) {
		if (virDomainDestroy(dom))
			failed(v, -EIO, "%s", libvirt_words(why, sizeof(why)));
	} else if (v->fate == VMCOMM_FATE_END) {
		/* Never end one that may be alive. */
		failed(v, -EBUSY, "the domain is still active here");
	}
	libvirt_domain_put(dom);
}

static void move_run(struct libvirt_call *c)
{
	struct move *v = (struct move *)c;

	switch (v->kind) {
	case INCOMING:
		incoming_run(v);
		break;
	case MIGRATE:
		migrate_run(v);
		break;
	case WHERE:
		where(v);
		break;
	case FINISH:
		finish_run(v);
		break;
	}
}

static void progress_run(struct libvirt_call *c)
{
	struct progress *p = (struct progress *)c;
	char why[128];
	int err = 0;
	virDomainPtr dom = libvirt_call_domain(p->uuid, &err, why, sizeof(why));

	if (!dom)
		return;
	if (p->cancel)
		virDomainAbortJob(dom); /* before the job has begun: once more */
	else
		job_now(dom, p);
	libvirt_domain_put(dom);
}

/* -- in the loop -- */

static void incoming_seen(struct move_job *j, const struct move *v)
{
	const struct libvirt_domain *d = &v->d;

	if (v->err) {
		set_timer(j, 5 * WATCH_USEC);
		return;
	}
	/* Who must own the slot's socket is in it. */
	if (d->state != LIBVIRT_GONE)
		libvirt_report(d);
	if (d->state == LIBVIRT_RUNS && !j->announced && !j->only_watch) {
		j->cb.done(j->arg, -EEXIST, "a domain with its uuid runs there already");
		return;
	}
	if (d->state == LIBVIRT_RUNS) {
		j->cb.done(j->arg, 0, "");
		return;
	}
	if (d->state == LIBVIRT_GONE && j->appeared) {
		j->cb.done(j->arg, -EIO, "libvirt gave the migration up (its log says why)");
		return;
	}
	j->appeared |= d->state == LIBVIRT_COMING;
	if (!j->appeared && ++j->looks > APPEAR_SECONDS * 1000000 / WATCH_USEC) {
		j->cb.done(j->arg, -ETIMEDOUT, "libvirt has heard nothing of it");
		return;
	}
	if (!j->announced && !j->only_watch && j->cb.listening) {
		j->announced = true;
		j->cb.listening(j->arg, "libvirt");
	}
	set_timer(j, WATCH_USEC);
}

static void move_done(struct libvirt_call *c)
{
	struct move *v = (struct move *)c;
	struct move_job *j = v->job;

	if (j) {
		j->move = NULL;
		if (j->kind == INCOMING) {
			incoming_seen(j, v);
		} else {
			if (j->kind == WHERE && !v->err && j->cb.place)
				j->cb.place(j->arg, v->place);
			j->cb.done(j->arg, v->err, v->err ? v->text : ""); /* frees the job */
		}
	}
	free(v);
}

static void progress_done(struct libvirt_call *c)
{
	struct progress *p = (struct progress *)c;
	struct move_job *j = p->job;

	if (j) {
		j->progress = NULL;
		if (p->switched)
			j->postcopy = false;
		if (p->total && j->cb.progress)
			j->cb.progress(j->arg, p->sent, p->total);
		set_timer(j, PROGRESS_USEC);
	}
	free(p);
}

static void progress_start(struct move_job *j)
{
	struct progress *p = calloc(1, sizeof(*p));

	if (p) {
		p->call.run = progress_run;
		p->call.done = progress_done;
		memcpy(p->uuid, j->uuid, 16);
		p->cancel = j->cancel;
		p->postcopy = j->postcopy;
		if (!libvirt_call_start(&p->call)) {
			p->job = j;
			j->progress = p;
			return;
		}
	}
	free(p);
	set_timer(j, PROGRESS_USEC);
}

static struct move *move_new(struct move_job *j)
{
	struct move *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->call.run = move_run;
	v->call.done = move_done;
	v->call.lasts = j->kind == MIGRATE || j->kind == FINISH;
	v->kind = j->kind;
	memcpy(v->uuid, j->uuid, 16);
	memcpy(v->d.uuid, j->uuid, 16);
	return v;
}

static int move_start(struct move_job *j, struct move *v)
{
	int err = libvirt_call_start(&v->call);

	if (err) {
		free(v);
		return err;
	}
	v->job = j;
	j->move = v;
	return 0;
}

static int timer_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	struct move_job *j = arg;
	struct move *v;

	if (j->kind == MIGRATE) {
		if (j->move && !j->progress)
			progress_start(j);
		return 0;
	}
	if (j->kind != INCOMING || j->move)
		return 0;
	v = move_new(j);
	if (!v || move_start(j, v))
		set_timer(j, WATCH_USEC);
	return 0;
}

static void job_cancel(struct vmcomm_backend_job *base)
{
	struct move_job *j = (struct move_job *)base;

	j->cancel = true;
	set_timer(j, 0);
}

static void job_free(struct vmcomm_backend_job *base)
{
	struct move_job *j = (struct move_job *)base;

	if (j->move) {
		atomic_store(&j->move->call.given_up, true);
		j->move->job = NULL;
	}
	if (j->progress)
		j->progress->job = NULL;
	sd_event_source_disable_unref(j->timer);
	free(j);
}

static struct move_job *job_new(enum kind kind, sd_event *event, const struct vmcomm_backend_vm *vm,
				const struct vmcomm_backend_callbacks *cb, void *arg)
{
	struct move_job *j = calloc(1, sizeof(*j));

	if (!j || !vm->uuid) {
		free(j);
		return NULL;
	}
	j->base.free = job_free;
	j->base.cancel = kind == MIGRATE ? job_cancel : NULL;
	j->kind = kind;
	j->cb = *cb;
	j->arg = arg;
	memcpy(j->uuid, vm->uuid, 16);
	if (sd_event_add_time_relative(event, &j->timer, CLOCK_MONOTONIC,
				       kind == INCOMING ? 0 : PROGRESS_USEC, 0, timer_ready, j) < 0) {
		free(j);
		return NULL;
	}
	return j;
}

int libvirt_incoming(sd_event *event, const struct vmcomm_backend_vm *vm, const char *listen,
		     const struct vmcomm_backend_callbacks *cb, void *arg,
		     struct vmcomm_backend_job **job)
{
	struct move_job *j = job_new(INCOMING, event, vm, cb, arg);

	if (!j)
		return -ENOMEM;
	j->only_watch = !listen;
	*job = &j->base;
	return 0;
}

int libvirt_migrate(sd_event *event, const struct vmcomm_backend_vm *vm,
		    const struct vmcomm_backend_migration *how,
		    const struct vmcomm_backend_callbacks *cb, void *arg,
		    struct vmcomm_backend_job **job)
{
	struct move_job *j;
	struct move *v;
	int err;

	if (!how->connect || strlen(how->connect) >= URI_MAX || strlen(how->uri) >= URI_MAX)
		return -EINVAL;
	j = job_new(MIGRATE, event, vm, cb, arg);
	v = j ? move_new(j) : NULL;
	if (!v) {
		vmcomm_backend_job_free(j ? &j->base : NULL);
		return -ENOMEM;
	}
	snprintf(v->connect, sizeof(v->connect), "%s", how->connect);
	snprintf(v->uri, sizeof(v->uri), "%s", how->uri);
	v->bandwidth = how->bandwidth;
	v->postcopy = j->postcopy = how->postcopy;
	err = move_start(j, v);
	if (err)
		job_free(&j->base);
	else
		*job = &j->base;
	return err;
}

static int short_job(enum kind kind, sd_event *event, const struct vmcomm_backend_vm *vm,
		     enum vmcomm_backend_fate fate, const struct vmcomm_backend_callbacks *cb, void *arg,
		     struct vmcomm_backend_job **job)
{
	struct move_job *j = job_new(kind, event, vm, cb, arg);
	struct move *v = j ? move_new(j) : NULL;
	int err;

	if (!v) {
		vmcomm_backend_job_free(j ? &j->base : NULL);
		return -ENOMEM;
	}
	v->fate = fate;
	err = move_start(j, v);
	if (err)
		job_free(&j->base);
	else
		*job = &j->base;
	return err;
}

int libvirt_where(sd_event *event, const struct vmcomm_backend_vm *vm,
		  const struct vmcomm_backend_callbacks *cb, void *arg,
		  struct vmcomm_backend_job **job)
{
	return short_job(WHERE, event, vm, VMCOMM_FATE_CANCEL, cb, arg, job);
}

int libvirt_finish(sd_event *event, const struct vmcomm_backend_vm *vm,
		   enum vmcomm_backend_fate fate, const struct vmcomm_backend_callbacks *cb, void *arg,
		   struct vmcomm_backend_job **job)
{
	return short_job(FINISH, event, vm, fate, cb, arg, job);
}
