// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * migrate.c - a member leaves for another host (M15, M16)
 *
 *   connect -> check -> prepare -> quiesce -> sync -> memory -> switch -> attach -> done
 *      |         |         |          |         |        |        |
 *      +---------+---------+----------+---------+--------+--------+--> undo
 *
 * A step never acts from inside a callback: it notes what comes next, and the loop calls that. After a
 * start of vmcommd "look" decides where to go on. Who finds the VM running attaches it; "memory" done
 * means that it is the destination's unless the destination says otherwise.
 */
#include "migrate.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/addr.h"
#include "conns.h"
#include "log.h"

#define ANSWER_SECONDS	10
#define PREPARE_SECONDS 30
#define AGAIN_USEC	2000000
#define FIND_SECONDS	30
#define CONNS_BATCH	500
#define CONNS_SYNC_MAX	10000
#define PROGRESS_USEC	200000

enum step { CONNECT, CHECK, PREPARE, QUIESCE, SYNC, MEMORY, SWITCH, ATTACH, LOOK, UNDO, DONE };

static const char *const step_names[] = {"connect", "check",  "prepare", "quiesce",
					 "sync",    "memory", "switch",	 "attach",
					 "look",    "undo",   "done"};

struct migration {
	struct manager *m;
	struct vm *vm;
	char name[CONFIG_NAME];
	char host[CONFIG_NAME];
	char id[33];
	struct migrate_callbacks cb;
	void *arg;
	enum step step;
	enum step failed; /* which step it was; DONE: none */
	struct peer *peer;
	struct op *op;
	struct vmcomm_backend_job *job;
	sd_event_source *later, *timer;
	void (*next)(struct migration *mg);
	void (*timeout)(struct migration *mg);
	bool cancel;
	bool peer_lost;	 /* while the memory was being sent */
	bool wanted;	 /* before it began */
	bool find;	 /* for migrate_find(): ask all hosts */
	bool timed_out;
	bool told_waiting;
	bool stands;	 /* it could not be let run here again */
	enum vmcomm_backend_place place;
	char uri[256];
	char *command; /* what reaches the other host's receiver, where the backend wants one */
	uint64_t bandwidth;
	bool postcopy;
	unsigned int limit; /* seconds for the memory */
	json_t *conns;	    /* as they were before the leave */
	size_t conns_sent;
	uint64_t began, progress_at;
	uint64_t find_until;
	struct vmcomm_error why; /* the failure that is being undone */
	json_t *result;
};

static void step_connect(struct migration *mg);
static void step_memory(struct migration *mg);
static void step_switch(struct migration *mg);
static void step_look(struct migration *mg);
static void step_undo(struct migration *mg);
static void undo_attach(struct migration *mg);

/* -- small things -- */

static void event(struct migration *mg, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void event(struct migration *mg, const char *fmt, ...)
{
	char text[512];
	va_list args;
	json_t *o;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_info("vm %s: migration to %s: %s: %s", mg->name, mg->host, step_names[mg->step], text);
	if (!mg->cb.event)
		return;
	o = json_pack("{s:s, s:s, s:s, s:f}", "vm", mg->name, "step", step_names[mg->step], "text",
		      text, "seconds", (double)(manager_now_usec() - mg->began) / 1e6);
	if (o)
		mg->cb.event(mg->arg, o);
	json_decref(o);
}

static void go(struct migration *mg, void (*next)(struct migration *mg))
{
	mg->next = next;
	sd_event_source_set_enabled(mg->later, SD_EVENT_ONESHOT);
}

static void set_timer(struct migration *mg, uint64_t usec, void (*timeout)(struct migration *mg))
{
	mg->timeout = timeout;
	sd_event_source_set_time_relative(mg->timer, usec);
	sd_event_source_set_enabled(mg->timer, SD_EVENT_ONESHOT);
}

static void stop_timer(struct migration *mg)
{
	sd_event_source_set_enabled(mg->timer, SD_EVENT_OFF);
}

static void drop_peer(struct migration *mg)
{
	peer_free(mg->peer);
	mg->peer = NULL;
}

static const struct config_host *find_host(struct manager *m, const char *name)
{
	const struct config_host *h;

	for (h = m->config.hosts; h; h = h->next)
		if (!strcmp(h->name, name))
			return h;
	return NULL;
}

static void mark(struct migration *mg, bool moving)
{
	struct vm *vm = mg->vm;

	snprintf(vm->moving.host, sizeof(vm->moving.host), "%s", moving ? mg->host : "");
	snprintf(vm->moving.id, sizeof(vm->moving.id), "%s", moving ? mg->id : "");
	if (!moving) {
		vm->moving.attached = false;
		vm->moving.sent = false;
	}
	state_save(mg->m);
}

static void migration_free(struct migration *mg)
{
	if (mg->vm)
		mg->vm->move = NULL;
	drop_peer(mg);
	vmcomm_backend_job_free(mg->job);
	if (mg->op)
		op_forget_caller(mg->op);
	sd_event_source_disable_unref(mg->later);
	sd_event_source_disable_unref(mg->timer);
	json_decref(mg->conns);
	json_decref(mg->result);
	free(mg->command);
	free(mg);
}

/* The end, good or bad: tell who asked, and forget. */
static void deliver(struct migration *mg)
{
	struct migrate_callbacks cb = mg->cb;
	struct vmcomm_error e = mg->why;
	json_t *result = json_incref(mg->result);
	void *arg = mg->arg;

	if (mg->vm && e.code)
		snprintf(mg->vm->problem, sizeof(mg->vm->problem), "%s", e.text);
	if (e.code)
		log_warning("%s", e.text);
	migration_free(mg);
	if (cb.done)
		cb.done(arg, &e, e.code ? NULL : result);
	json_decref(result);
}

/* This step failed. What has been done is undone, then the caller is told. */
static void fail(struct migration *mg, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void fail(struct migration *mg, int code, const char *fmt, ...)
{
	char text[400];
	va_list args;

	if (mg->failed != DONE)
		return; /* the first one counts */
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	mg->failed = mg->step;
	mg->why.code = code;
	if (mg->find)
		snprintf(mg->why.text, sizeof(mg->why.text), "vm '%s': %s", mg->name, text);
	else
		snprintf(mg->why.text, sizeof(mg->why.text),
			 "migration of vm '%s' to '%s', step '%s': %.320s", mg->name, mg->host,
			 step_names[mg->step], text);
	stop_timer(mg);
	go(mg, step_undo);
}

static bool cancelled(struct migration *mg)
{
	if (!mg->cancel)
		return false;
	fail(mg, -ECANCELED, "cancelled");
	return true;
}

/* -- the connection -- */

static void no_answer(struct migration *mg)
{
	fail(mg, -ETIMEDOUT, "no answer from host '%s'", mg->host);
}

static void request(struct migration *mg, json_t *msg, unsigned int seconds)
{
	peer_send(mg->peer, msg);
	set_timer(mg, seconds * 1000000ULL, no_answer);
}

static json_t *hello(void)
{
	return json_pack("{s:s, s:i, s:s, s:[i, i], s:[s]}", "request", "hello", "protocol",
			 PEER_PROTOCOL, "version", VMCOMM_VERSION, "abi", VMCOMM_ABI_MAJOR,
			 VMCOMM_ABI_MINOR, "features", "migrate-1");
}

static bool hello_good(struct migration *mg, json_t *msg)
{
	json_t *abi = json_object_get(msg, "abi"), *row;
	const char *feature;
	bool can = false;
	size_t i;
	json_int_t protocol = json_integer_value(json_object_get(msg, "protocol"));
	char version[64];

	migrate_text(msg, "version", version, sizeof(version));
	if (protocol != PEER_PROTOCOL) {
		fail(mg, -EOPNOTSUPP, "host '%s' has vmcommd %s, which speaks version %lld of the "
		     "protocol between hosts; here it is %d: use the same vmcommd on both", mg->host,
		     version, (long long)protocol, PEER_PROTOCOL);
		return false;
	}
	if (json_integer_value(json_array_get(abi, 0)) != VMCOMM_ABI_MAJOR) {
		fail(mg, -EOPNOTSUPP, "host '%s' has vmcommd %s with ABI %lld; here it is %d: the "
		     "guest could not go on there", mg->host, version,
		     (long long)json_integer_value(json_array_get(abi, 0)), VMCOMM_ABI_MAJOR);
		return false;
	}
	json_array_foreach (json_object_get(msg, "features"), i, row) {
		feature = json_string_value(row);
		can |= feature && !strcmp(feature, "migrate-1");
	}
	if (!can)
		fail(mg, -EOPNOTSUPP, "host '%s' has vmcommd %s, which does not take VMs", mg->host,
		     version);
	return can;
}

static void step_prepare(struct migration *mg)
{
	const struct vm *vm = mg->vm;
	const struct group *g = vm->group;
	char text[VMCOMM_ADDR_STRLEN];
	json_t *addresses = json_array();
	uint32_t i;

	if (cancelled(mg))
		return;
	mg->step = PREPARE;
	event(mg, "asking '%s' to make room", mg->host);
	for (i = 0; i < vm->addr_count; i++)
		json_array_append_new(addresses, json_string(vmcomm_addr_format(vm->addr[i], text)));
	request(mg,
		json_pack("{s:s, s:s, s:{s:s, s:s, s:b, s:b, s:o}, s:{s:I, s:i, s:I}}", "request", "prepare",
			  "id", mg->id, "vm", "name", vm->name, "uuid",
			  vmcomm_uuid_format(vm->uuid, text), "uuid_given", vm->uuid_given,
			  "libvirt", vm->libvirt, "addresses", addresses, "group", "memory", (json_int_t)g->memory, "slots",
			  (int)g->slots, "chunk", (json_int_t)g->chunk),
		PREPARE_SECONDS);
}

static void step_quiesce(struct migration *mg);
static void step_end(struct migration *mg);
static void ask_again(struct migration *mg);
static void sync_next(struct migration *mg);
static void switch_answered(struct migration *mg, json_t *msg);
static void find_answered(struct migration *mg, json_t *msg);

/* An answer that is no success ends the step; not in "switch", where the VM may run elsewhere. */
static bool answer_good(struct migration *mg, json_t *msg)
{
	char code[32], text[300];

	if (json_is_true(json_object_get(msg, "ok")))
		return true;
	migrate_text(msg, "code", code, sizeof(code));
	migrate_text(msg, "message", text, sizeof(text));
	fail(mg, migrate_error_code(code), "host '%s': %s", mg->host, text);
	return false;
}

/* As [host NAME] says, or ssh to where its vmcommd is. Nothing of it comes from the other side. */
static int receiver_command(struct migration *mg, const struct config_host *h)
{
	char address[INET6_ADDRSTRLEN];
	struct sockaddr_storage ss;
	socklen_t len;

	free(mg->command);
	mg->command = NULL;
	if (!h)
		return -ENOENT;
	if (h->transport) {
		mg->command = strdup(h->transport);
		return mg->command ? 0 : -ENOMEM;
	}
	if (config_endpoint(h->address, &ss, &len) ||
	    getnameinfo((struct sockaddr *)&ss, len, address, sizeof(address), NULL, 0, NI_NUMERICHOST))
		return -EINVAL;
	/* There is nobody who could answer a question. */
	if (asprintf(&mg->command, "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 %s "
		     "xl migrate-receive", address) < 0)
		mg->command = NULL;
	return mg->command ? 0 : -ENOMEM;
}

static void prepared(struct migration *mg, json_t *msg)
{
	const struct config_host *h = find_host(mg->m, mg->host);
	int err;

	migrate_text(msg, "uri", mg->uri, sizeof(mg->uri));
	if (vm_backend(mg->vm)->by_command) {
		err = receiver_command(mg, h);
		if (err) {
			fail(mg, err, "cannot tell how to reach it: %s", strerror(-err));
			return;
		}
		event(mg, "'%s' is ready, by: %s", mg->host, mg->command);
		go(mg, step_quiesce);
		return;
	}
	if (vm_backend(mg->vm)->by_host) {
		if (!h || !h->libvirt_uri) {
			fail(mg, -EINVAL, "give libvirt_uri in [host %s]: where libvirt here reaches libvirt "
			     "there", mg->host);
			return;
		}
		snprintf(mg->uri, sizeof(mg->uri), "%s", h->migration_uri ? h->migration_uri : "");
		event(mg, "'%s' is ready, libvirt there is %s", mg->host, h->libvirt_uri);
		go(mg, step_quiesce);
		return;
	}
	if (h && h->migration_uri)
		snprintf(mg->uri, sizeof(mg->uri), "%s", h->migration_uri);
	if (!mg->uri[0]) {
		fail(mg, -EINVAL, "its QEMU there does not say where it listens: give migration_uri in "
		     "[host %s]", mg->host);
		return;
	}
	event(mg, "'%s' is ready at %s", mg->host, mg->uri);
	go(mg, step_quiesce);
}

static void peer_event(struct migration *mg, json_t *msg, const char *name)
{
	char text[256];

	migrate_text(msg, "text", text, sizeof(text));
	if (!strcmp(name, "running") && mg->step == SWITCH) {
		event(mg, "the vm runs on '%s'", mg->host);
		mg->step = ATTACH;
	} else if (!strcmp(name, "step") && mg->step == ATTACH) {
		event(mg, "%s", text);
	}
	/* It is alive: another stretch of patience. */
	if (mg->step == SWITCH || mg->step == ATTACH)
		set_timer(mg, PREPARE_SECONDS * 1000000ULL, ask_again);
}

/* Messages after the point of no return. */
static void late_message(struct migration *mg, json_t *msg, const char *reply)
{
	char uuid[VMCOMM_UUID_STRLEN];

	set_timer(mg, PREPARE_SECONDS * 1000000ULL, ask_again);
	vmcomm_uuid_format(mg->vm->uuid, uuid);
	if (!strcmp(reply, "hello") && mg->find)
		peer_send(mg->peer, json_pack("{s:s, s:s}", "request", "locate", "uuid", uuid));
	else if (!strcmp(reply, "hello"))
		peer_send(mg->peer, json_pack("{s:s, s:s, s:s}", "request", "switch", "id", mg->id,
					      "uuid", uuid));
	else if (!strcmp(reply, "locate"))
		find_answered(mg, msg);
	else if (!strcmp(reply, "switch"))
		switch_answered(mg, msg);
}

static void peer_message(void *arg, json_t *msg)
{
	struct migration *mg = arg;
	char reply[32], name[32];

	migrate_text(msg, "event", name, sizeof(name));
	if (name[0]) {
		peer_event(mg, msg, name);
		return;
	}
	migrate_text(msg, "reply", reply, sizeof(reply));
	if (mg->failed != DONE)
		return;
	if (mg->step == SWITCH || mg->step == ATTACH) {
		late_message(mg, msg, reply);
		return;
	}
	/* The VM is in somebody else's hands now, and nobody was asked anything. */
	if (mg->step != CHECK && mg->step != PREPARE && mg->step != SYNC)
		return;
	stop_timer(mg);
	if (!answer_good(mg, msg))
		return;
	if (mg->step == CHECK && !strcmp(reply, "hello")) {
		if (hello_good(mg, msg))
			go(mg, step_prepare);
	} else if (mg->step == PREPARE && !strcmp(reply, "prepare")) {
		prepared(mg, msg);
	} else if (mg->step == SYNC && !strcmp(reply, "counters")) {
		go(mg, sync_next);
	} else {
		fail(mg, -EPROTO, "host '%s' answers what nobody asked", mg->host);
	}
}

static void peer_ready(void *arg)
{
	struct migration *mg = arg;

	if (mg->step == CONNECT) {
		mg->step = CHECK;
		event(mg, "connected, both know the key of group '%s'", mg->vm->group->name);
	}
	request(mg, hello(), ANSWER_SECONDS);
	if (mg->step == SWITCH)
		mg->timeout = ask_again;
}

static void peer_closed(void *arg, const struct vmcomm_error *e)
{
	struct migration *mg = arg;

	drop_peer(mg);
	switch (mg->step) {
	case MEMORY:
		/* The job says whether it came too late. */
		if (mg->failed == DONE && !mg->peer_lost) {
			mg->peer_lost = true;
			mg->why = *e;
			if (mg->job && mg->job->cancel)
				mg->job->cancel(mg->job);
		}
		break;
	case SWITCH:
	case ATTACH:
		if (!mg->told_waiting && !mg->find)
			event(mg, "%s: asking again until '%s' says whether the vm runs there", e->text,
			      mg->host);
		mg->told_waiting = true;
		if (mg->failed != DONE || mg->next == step_end)
			break;
		mg->step = SWITCH;
		set_timer(mg, AGAIN_USEC, ask_again);
		break;
	case UNDO:
	case DONE:
	case LOOK:
		break;
	case QUIESCE:
		/* The guest is in the middle of its leave: that goes on, then all is undone. */
		mg->peer_lost = true;
		mg->why = *e;
		break;
	default:
		fail(mg, e->code, "%s", e->text);
	}
}

static const struct peer_callbacks peer_cbs = {peer_ready, peer_message, peer_closed};

static int open_peer(struct migration *mg, struct vmcomm_error *e)
{
	const struct config_host *h = find_host(mg->m, mg->host);

	if (!h)
		return vmcomm_error_set(e, -ENOENT, "there is no [host %s] in %s", mg->host,
					mg->m->config.file);
	return peer_connect(&mg->peer, mg->m, h->name, h->address, mg->vm->group->name,
			    mg->vm->group->key, &peer_cbs, mg, e);
}

static void step_connect(struct migration *mg)
{
	struct vmcomm_error e = {0};

	mg->step = CONNECT;
	event(mg, "connecting");
	if (open_peer(mg, &e))
		fail(mg, e.code, "%s", e.text);
}

/* -- quiesce and detach -- */

static void endpoint_key(json_t *o, char *buf, size_t size)
{
	const char *addr = json_string_value(json_object_get(o, "address"));

	snprintf(buf, size, "%.47s %lld", addr ? addr : "",
		 (long long)json_integer_value(json_object_get(o, "port")));
}

static json_int_t both_paths(json_t *direction)
{
	return json_integer_value(json_object_get(direction, "ring_bytes")) +
	       json_integer_value(json_object_get(direction, "tcp_bytes"));
}

/* One row of "conn list" as the VM sees it: who, and how much it has sent and received. */
static void conn_row(struct migration *mg, json_t *row)
{
	bool plain = json_object_get(row, "local") != NULL;
	json_t *l = json_object_get(row, plain ? "local" : "client");
	json_t *r = json_object_get(row, plain ? "remote" : "server");
	json_t *out = json_object_get(row, "to_server"), *in = json_object_get(row, "to_client"), *x;
	const char *vm = json_string_value(json_object_get(l, "vm"));
	char local[80], remote[80];

	if (!vm || strcmp(vm, mg->name)) {
		if (plain)
			return;
		x = l, l = r, r = x;
		x = out, out = in, in = x;
		vm = json_string_value(json_object_get(l, "vm"));
		if (!vm || strcmp(vm, mg->name))
			return;
	}
	endpoint_key(l, local, sizeof(local));
	endpoint_key(r, remote, sizeof(remote));
	json_array_append_new(mg->conns, json_pack("[s, s, I, I]", local, remote, both_paths(out),
						   both_paths(in)));
}

static void conns_collect(struct migration *mg)
{
	struct conns_cursor cursor;
	json_t *list, *row;
	bool more;
	size_t i;

	mg->conns = json_array();
	conns_begin(&cursor, mg->m, mg->vm->group->name, mg->name);
	do {
		list = json_array();
		more = conns_next(&cursor, list, CONNS_BATCH);
		json_array_foreach (list, i, row)
			conn_row(mg, row);
		json_decref(list);
	} while (more && json_array_size(mg->conns) < CONNS_SYNC_MAX && cursor.examined < MIGRATE_EXAMINED_MAX);
}

static void step_sync(struct migration *mg);

static void detach_step(void *arg, const char *text)
{
	event(arg, "%s", text);
}

static void detach_done(void *arg, const struct vmcomm_error *e)
{
	struct migration *mg = arg;

	mg->op = NULL;
	if (e->code) {
		fail(mg, e->code, "%s", e->text);
	} else if (mg->peer_lost) {
		struct vmcomm_error lost = mg->why;

		fail(mg, lost.code, "%s", lost.text);
	} else {
		go(mg, step_sync);
	}
}

static void step_quiesce(struct migration *mg)
{
	static const struct op_callbacks cbs = {detach_step, detach_done};
	struct vmcomm_error e = {0};
	struct vm *vm = mg->vm;

	if (cancelled(mg))
		return;
	mg->step = QUIESCE;
	conns_collect(mg);
	vm->moving.attached = vm->connected;
	mg->wanted = vm->wanted;
	vm->moving.sent = false;
	mark(mg, true);
	event(mg, "%zu connections with members", json_array_size(mg->conns));
	if (op_start(vm, OP_DETACH, &cbs, mg, &mg->op, &e))
		fail(mg, e.code, "%s", e.text);
}

/* -- sync -- */

static void sync_next(struct migration *mg)
{
	json_t *batch;
	size_t i, n = json_array_size(mg->conns);

	if (cancelled(mg))
		return;
	if (mg->conns_sent && mg->conns_sent >= n) {
		go(mg, step_memory);
		return;
	}
	batch = json_array();
	for (i = 0; i < CONNS_BATCH && mg->conns_sent < n; i++, mg->conns_sent++)
		json_array_append(batch, json_array_get(mg->conns, mg->conns_sent));
	if (!n)
		mg->conns_sent = 1;
	request(mg,
		json_pack("{s:s, s:s, s:o, s:o}", "request", "counters", "id", mg->id, "vm",
			  state_counters(mg->vm), "connections", batch),
		ANSWER_SECONDS);
}

static void step_sync(struct migration *mg)
{
	mg->step = SYNC;
	mg->conns_sent = 0;
	event(mg, "sending counters");
	if (!mg->peer)
		fail(mg, -ECONNRESET, "the connection to host '%s' is lost", mg->host);
	else
		sync_next(mg);
}

/* -- memory -- */

static void memory_progress(void *arg, uint64_t sent, uint64_t total)
{
	struct migration *mg = arg;
	uint64_t now = manager_now_usec();
	json_t *o;

	if (sent != total && now - mg->progress_at < PROGRESS_USEC)
		return;
	mg->progress_at = now;
	if (!mg->cb.event)
		return;
	o = json_pack("{s:s, s:s, s:s, s:I, s:I, s:f}", "vm", mg->name, "step", "memory", "text",
		      "copying memory", "sent", (json_int_t)sent, "total", (json_int_t)total,
		      "seconds", (double)(now - mg->began) / 1e6);
	mg->cb.event(mg->arg, o);
	json_decref(o);
}

static void memory_done(void *arg, int err, const char *text)
{
	struct migration *mg = arg;
	struct vmcomm_error lost = mg->why;

	stop_timer(mg);
	if (!err) {
		memset(&mg->why, 0, sizeof(mg->why));
		mg->vm->moving.sent = true;
		state_save(mg->m);
		event(mg, "the memory is sent");
		mg->step = SWITCH;
		go(mg, step_switch);
	} else if (err == -ETIMEDOUT || err == -ECONNRESET) {
		/* The hypervisor fell silent in the middle of it: only a look can tell. */
		event(mg, "%s", text);
		vmcomm_error_set(&mg->why, -EIO, "%s", text);
		go(mg, step_look);
	} else if (err == -ECANCELED && mg->peer_lost) {
		fail(mg, lost.code, "%s", lost.text);
	} else if (err == -ECANCELED && mg->timed_out) {
		fail(mg, -ETIMEDOUT, "not done within %u s: the vm writes its memory faster than it is "
		     "sent, or the link is slow", mg->limit);
	} else {
		fail(mg, err == -ECANCELED || err == -EBUSY ? err : -EIO, "%s", text);
	}
	vmcomm_backend_job_free(mg->job);
	mg->job = NULL;
}

static void memory_timeout(struct migration *mg)
{
	mg->timed_out = true;
	if (mg->job && mg->job->cancel)
		mg->job->cancel(mg->job);
}

static void step_memory(struct migration *mg)
{
	static const struct vmcomm_backend_callbacks cbs = {.step = detach_step,
							    .done = memory_done,
							    .progress = memory_progress};
	const struct config_host *h = find_host(mg->m, mg->host);
	struct vmcomm_backend_migration how = {.uri = mg->uri,
					       .connect = mg->command ? mg->command :
							  h ? h->libvirt_uri : NULL,
					       .bandwidth = mg->bandwidth,
					       .postcopy = mg->postcopy};
	struct vmcomm_backend_vm bvm;
	int err;

	if (cancelled(mg))
		return;
	mg->step = MEMORY;
	event(mg, "copying memory");
	vm_backend_fill(mg->vm, &bvm);
	err = vm_backend(mg->vm)->migrate(mg->m->event, &bvm, &how, &cbs, mg, &mg->job);
	if (err)
		fail(mg, err, "cannot begin: %s", strerror(-err));
	else if (mg->limit)
		set_timer(mg, mg->limit * 1000000ULL, memory_timeout);
}

/* -- switch, attach, done -- */

static void find_next(struct migration *mg);

static void ask_again(struct migration *mg)
{
	drop_peer(mg);
	go(mg, mg->find ? find_next : step_switch);
}

/* Nothing undoes this any more: ask until somebody knows. */
static void step_switch(struct migration *mg)
{
	struct vmcomm_error e = {0};
	char uuid[VMCOMM_UUID_STRLEN];

	stop_timer(mg);
	if (mg->peer) {
		event(mg, "waiting for '%s' to say that the vm runs", mg->host);
		peer_send(mg->peer, json_pack("{s:s, s:s, s:s}", "request", "switch", "id", mg->id,
					      "uuid", vmcomm_uuid_format(mg->vm->uuid, uuid)));
		set_timer(mg, PREPARE_SECONDS * 1000000ULL, ask_again);
		return;
	}
	if (mg->find && manager_now_usec() > mg->find_until) {
		fail(mg, -ENOENT, "it neither runs here nor on a host of %s: attach it where it is",
		     mg->m->config.file);
		return;
	}
	if (!open_peer(mg, &e)) {
		set_timer(mg, PREPARE_SECONDS * 1000000ULL, ask_again);
		return;
	}
	snprintf(mg->vm->problem, sizeof(mg->vm->problem), "it may run on host '%s', but: %.300s",
		 mg->host, e.text);
	set_timer(mg, AGAIN_USEC, ask_again);
}

static void removed(void *arg, const struct vmcomm_error *e)
{
	deliver(arg);
}

static void removing(void *arg, const char *text)
{
}

/* It is the destination's now. */
static void step_forget(struct migration *mg)
{
	static const struct op_callbacks cbs = {removing, removed};
	struct vmcomm_error e = {0};
	struct vm *vm = mg->vm;
	struct op *op;

	mark(mg, false);
	vm->move = NULL;
	mg->vm = NULL;
	vm->wanted = false;
	if (op_start(vm, OP_REMOVE, &cbs, mg, &op, &e)) {
		log_error("vm %s: still a member here: %s", mg->name, e.text);
		deliver(mg);
	}
}

static void ended(void *arg, int err, const char *text)
{
	struct migration *mg = arg;

	if (err && err != -ENOENT)
		event(mg, "what is left of it here does not end (%s): end it by hand, never continue "
		      "it", text);
	vmcomm_backend_job_free(mg->job);
	mg->job = NULL;
	go(mg, step_forget);
}

static void step_end(struct migration *mg)
{
	static const struct vmcomm_backend_callbacks cbs = {.done = ended};
	struct vmcomm_backend_vm bvm;

	mg->step = DONE;
	drop_peer(mg);
	stop_timer(mg);
	vm_backend_fill(mg->vm, &bvm);
	if (vm_backend(mg->vm)->finish(mg->m->event, &bvm, VMCOMM_FATE_END, &cbs, mg, &mg->job))
		go(mg, step_forget);
}

static void switch_answered(struct migration *mg, json_t *msg)
{
	char state[32], text[256];
	json_int_t n = json_integer_value(json_object_get(msg, "adopted"));
	json_int_t of = json_integer_value(json_object_get(msg, "connections"));
	json_int_t kept = json_integer_value(json_object_get(msg, "continued"));

	migrate_text(msg, "state", state, sizeof(state));
	migrate_text(msg, "message", text, sizeof(text));
	if (!strcmp(state, "attached") || !strcmp(state, "running")) {
		mg->step = ATTACH;
		if (strcmp(state, "attached"))
			event(mg, "the vm runs on '%s', over TCP: %s", mg->host, text);
		else
			event(mg, "adopted %lld of %lld connections", (long long)n, (long long)of);
		json_decref(mg->result);
		mg->result = json_pack("{s:s, s:s, s:b, s:s, s:I, s:I, s:I, s:f}", "vm", mg->name,
				       "host", mg->host, "attached", !strcmp(state, "attached"),
				       "problem", text, "adopted", n, "connections", of, "continued",
				       kept, "seconds",
				       (double)(manager_now_usec() - mg->began) / 1e6);
		go(mg, step_end);
	} else if (!strcmp(state, "failed") && mg->place != VMCOMM_PLACE_ENDED) {
		mg->step = SWITCH;
		fail(mg, -EIO, "it does not run on '%s': %s", mg->host, text);
	} else if (mg->place == VMCOMM_PLACE_ENDED) {
		/* Neither here nor there: it has ended, as VMs do. */
		mg->step = SWITCH;
		fail(mg, -ENOENT, "it has ended, here and on '%s'", mg->host);
	} else {
		snprintf(mg->vm->problem, sizeof(mg->vm->problem), "host '%s' says of it: %s", mg->host,
			 state);
		set_timer(mg, AGAIN_USEC, ask_again);
	}
}

/* -- undo -- */

static void undone(struct migration *mg)
{
	size_t n = strlen(mg->why.text);
	bool here = mg->failed != DONE && mg->place != VMCOMM_PLACE_ENDED;

	if (mg->why.code && here && !mg->find && !mg->stands)
		snprintf(mg->why.text + n, sizeof(mg->why.text) - n, "; it runs here%s",
			 mg->vm->connected ? ", in shared memory again" : "");
	mark(mg, false);
	deliver(mg);
}

static void undo_attached(void *arg, const struct vmcomm_error *e)
{
	struct migration *mg = arg;
	size_t n = strlen(mg->why.text);

	mg->op = NULL;
	/* The device may have gone in the moment of the first try. */
	if (e->code && e->code != -ETIME && mg->limit < 3) {
		mg->limit++;
		set_timer(mg, AGAIN_USEC, undo_attach);
		return;
	}
	if (e->code)
		snprintf(mg->why.text + n, sizeof(mg->why.text) - n, "; it %swas not attached again: "
			 "%.200s", mg->stands ? "" : "runs here, but ", e->text);
	if (e->code) {
		mark(mg, false);
		deliver(mg);
	} else {
		go(mg, undone);
	}
}

static void undo_attach(struct migration *mg)
{
	static const struct op_callbacks cbs = {detach_step, undo_attached};
	struct vmcomm_error e = {0};
	struct vm *vm = mg->vm;

	if (!vm->moving.attached || mg->place == VMCOMM_PLACE_ENDED) {
		vm->wanted = mg->wanted;
		go(mg, undone);
		return;
	}
	event(mg, "attaching it again here");
	if (op_start(vm, OP_ATTACH, &cbs, mg, &mg->op, &e))
		undo_attached(mg, &e);
}

static void undo_runs(void *arg, int err, const char *text)
{
	struct migration *mg = arg;
	size_t n = strlen(mg->why.text);

	if (err == -ENOENT)
		mg->place = VMCOMM_PLACE_ENDED;
	if (err)
		event(mg, "it cannot be let run here: %s", text);
	if (err && err != -ENOENT) {
		mg->stands = true;
		snprintf(mg->why.text + n, sizeof(mg->why.text) - n,
			 "; and it cannot be let run here: %.200s", text);
	}
	vmcomm_backend_job_free(mg->job);
	mg->job = NULL;
	go(mg, undo_attach);
}

static void step_undo(struct migration *mg)
{
	static const struct vmcomm_backend_callbacks cbs = {.done = undo_runs};
	struct vmcomm_backend_vm bvm;
	int err;

	stop_timer(mg);
	if (mg->peer && mg->failed < SWITCH)
		peer_send(mg->peer, json_pack("{s:s, s:s}", "request", "abort", "id", mg->id));
	drop_peer(mg);
	mg->limit = 0;
	if (!mg->vm->moving.host[0]) {
		/* Nothing was done to the VM. */
		if (mg->find)
			deliver(mg);
		else
			undone(mg);
		return;
	}
	mg->step = UNDO;
	event(mg, "%s", mg->why.text);
	if (mg->vm->moving.sent && mg->place != VMCOMM_PLACE_ENDED) {
		mg->vm->moving.sent = false;
		vm_backend_fill(mg->vm, &bvm);
		err = vm_backend(mg->vm)->finish(mg->m->event, &bvm, VMCOMM_FATE_GO_ON, &cbs, mg,
						 &mg->job);
		if (err)
			undo_runs(mg, err, strerror(-err));
		return;
	}
	undo_attach(mg);
}

/* -- look: after a start of vmcommd, a silence of the hypervisor, and for migrate_find() -- */

static void look_place(void *arg, enum vmcomm_backend_place place)
{
	struct migration *mg = arg;

	mg->place = place;
}

static void look_cancelled(void *arg, int err, const char *text)
{
	struct migration *mg = arg;

	vmcomm_backend_job_free(mg->job);
	mg->job = NULL;
	set_timer(mg, AGAIN_USEC / 4, step_look);
}

static void look_stop_sending(struct migration *mg)
{
	static const struct vmcomm_backend_callbacks cbs = {.done = look_cancelled};
	struct vmcomm_backend_vm bvm;

	event(mg, "its migration is still going on: cancelling it");
	vm_backend_fill(mg->vm, &bvm);
	if (vm_backend(mg->vm)->finish(mg->m->event, &bvm, VMCOMM_FATE_CANCEL, &cbs, mg, &mg->job))
		set_timer(mg, AGAIN_USEC, step_look);
}

static void found_attached(void *arg, const struct vmcomm_error *e)
{
	struct migration *mg = arg;

	mg->op = NULL;
	mg->why = *e;
	if (!e->code)
		mg->result = json_pack("{s:s, s:s, s:b}", "vm", mg->name, "host", "", "attached", 1);
	deliver(mg);
}

static void find_here(struct migration *mg)
{
	static const struct op_callbacks cbs = {detach_step, found_attached};
	struct vmcomm_error e = {0};

	if (op_start(mg->vm, OP_ATTACH, &cbs, mg, &mg->op, &e))
		found_attached(mg, &e);
}

/* The next host of the configuration, round and round until the time is over. */
static void find_next(struct migration *mg)
{
	const struct config_host *h = find_host(mg->m, mg->host);

	h = h && h->next ? h->next : mg->m->config.hosts;
	if (h)
		snprintf(mg->host, sizeof(mg->host), "%s", h->name);
	else
		mg->find_until = 0;
	drop_peer(mg);
	set_timer(mg, AGAIN_USEC / 4, step_switch);
}

static void find_answered(struct migration *mg, json_t *msg)
{
	char state[32];

	migrate_text(msg, "state", state, sizeof(state));
	if (!strcmp(state, "attached") || !strcmp(state, "running"))
		switch_answered(mg, msg);
	else
		go(mg, find_next);
}

static void look_done(void *arg, int err, const char *text)
{
	struct migration *mg = arg;
	struct vmcomm_error why = mg->why;

	if (err)
		event(mg, "%s", text);
	vmcomm_backend_job_free(mg->job);
	mg->job = NULL;
	if (err && mg->find && manager_now_usec() > mg->find_until) {
		fail(mg, err, "cannot see whether it runs here: %s", text);
		return;
	}
	if (err) {
		set_timer(mg, AGAIN_USEC, step_look);
		return;
	}
	switch (mg->place) {
	case VMCOMM_PLACE_HERE:
		if (mg->find) {
			go(mg, find_here);
		} else if (why.code) {
			mg->step = MEMORY;
			fail(mg, why.code, "%s", why.text);
		} else {
			fail(mg, -EINTR, "vmcommd was ended in the middle of it");
		}
		break;
	case VMCOMM_PLACE_MIGRATING:
		if (mg->find) {
			mg->find_until = manager_now_usec() + FIND_SECONDS * 1000000ULL;
			set_timer(mg, AGAIN_USEC / 4, step_look);
		} else {
			go(mg, look_stop_sending);
		}
		break;
	default:
		if (mg->find && vm_backend(mg->vm)->by_host) {
			/* libvirt tells whoever has it. */
			fail(mg, -ENOENT, "it does not run here any more: it is attached where it "
			     "arrives, and when it starts");
			break;
		}
		mg->vm->moving.sent = !mg->find;
		memset(&mg->why, 0, sizeof(mg->why));
		mg->step = SWITCH;
		go(mg, mg->find ? find_next : step_switch);
	}
}

static void step_look(struct migration *mg)
{
	static const struct vmcomm_backend_callbacks cbs = {.done = look_done, .place = look_place};
	struct vmcomm_backend_vm bvm;
	int err;

	mg->step = LOOK;
	vm_backend_fill(mg->vm, &bvm);
	err = vm_backend(mg->vm)->look(mg->m->event, &bvm, &cbs, mg, &mg->job);
	if (err)
		set_timer(mg, AGAIN_USEC, step_look);
}

/* -- begin, cancel, end -- */

static int later_ready(sd_event_source *s, void *arg)
{
	struct migration *mg = arg;

	mg->next(mg);
	return 0;
}

static int timer_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	struct migration *mg = arg;

	mg->timeout(mg);
	return 0;
}

/* Can this VM be migrated by its backend? */
static int movable(const struct vm *vm, struct vmcomm_error *e)
{
	const struct vmcomm_backend *b = vm_backend(vm);

	if (!b || !b->migrate || !b->look || !b->finish)
		return vmcomm_error_set(e, -EOPNOTSUPP, "backend '%s' cannot migrate: vmcommctl exec %s "
					"-- COMMAND runs a migration of your own", vm->group->m->config.backend,
					vm->name);
	if (!b->by_name && !vm->qmp[0])
		return vmcomm_error_set(e, -EOPNOTSUPP, "vm '%s' has no QMP socket (qmp=), without which "
					"vmcommd cannot migrate it", vm->name);
	return 0;
}

/* Return: NULL and @e when it cannot be. */
static struct migration *migration_new(struct vm *vm, const char *host, struct vmcomm_error *e)
{
	struct manager *m = vm->group->m;
	struct migration *mg;
	int err;

	mg = calloc(1, sizeof(*mg));
	if (!mg) {
		vmcomm_error_set(e, -ENOMEM, "out of memory");
		return NULL;
	}
	mg->m = m;
	mg->vm = vm;
	mg->failed = DONE;
	mg->place = VMCOMM_PLACE_HERE;
	mg->began = manager_now_usec();
	snprintf(mg->name, sizeof(mg->name), "%s", vm->name);
	snprintf(mg->host, sizeof(mg->host), "%s", host);
	err = sd_event_add_defer(m->event, &mg->later, later_ready, mg);
	if (err >= 0)
		err = sd_event_add_time_relative(m->event, &mg->timer, CLOCK_MONOTONIC, 0, 1000,
						 timer_ready, mg);
	if (err < 0) {
		sd_event_source_disable_unref(mg->later);
		free(mg);
		vmcomm_error_set(e, err, "no event source");
		return NULL;
	}
	sd_event_source_set_enabled(mg->later, SD_EVENT_OFF);
	sd_event_source_set_enabled(mg->timer, SD_EVENT_OFF);
	vm->move = mg;
	return mg;
}

int migrate_start(struct vm *vm, const struct migrate_options *o, const struct migrate_callbacks *cb,
		  void *arg, struct migration **out, struct vmcomm_error *e)
{
	struct migration *mg;
	int err = vm_idle(vm, e);

	if (err)
		return err;
	if (!find_host(vm->group->m, o->host))
		return vmcomm_error_set(e, -ENOENT, "there is no host '%s': name it in a section "
					"[host %s] of %s", o->host, o->host, vm->group->m->config.file);
	err = movable(vm, e);
	if (err)
		return err;
	if (o->postcopy && !vm_backend(vm)->by_host)
		return vmcomm_error_set(e, -EOPNOTSUPP, "--postcopy is for domains of libvirt; vm '%s' is "
					"none", vm->name);
	if (o->bandwidth && vm_backend(vm)->no_bandwidth)
		return vmcomm_error_set(e, -EOPNOTSUPP, "backend '%s' cannot limit the bandwidth: leave "
					"--bandwidth out, or limit it in transport= of [host %s]",
					vm_backend(vm)->name, o->host);
	mg = migration_new(vm, o->host, e);
	if (!mg)
		return e->code;
	snprintf(mg->id, sizeof(mg->id), "%016llx%016llx", (unsigned long long)manager_random(),
		 (unsigned long long)manager_random());
	mg->bandwidth = o->bandwidth;
	mg->postcopy = o->postcopy;
	mg->limit = o->timeout;
	mg->cb = *cb;
	mg->arg = arg;
	vm->problem[0] = 0;
	go(mg, step_connect);
	*out = mg;
	return 0;
}

int migrate_find(struct vm *vm, const struct migrate_callbacks *cb, void *arg,
		 struct migration **out, struct vmcomm_error *e)
{
	struct migration *mg;
	int err = vm_idle(vm, e);

	if (err)
		return err;
	mg = migration_new(vm, "", e);
	if (!mg)
		return e->code;
	mg->find = true;
	mg->find_until = manager_now_usec() + FIND_SECONDS * 1000000ULL;
	mg->cb = *cb;
	mg->arg = arg;
	/* Without a look at the hypervisor it can only be here. */
	go(mg, movable(vm, NULL) ? find_here : step_look);
	*out = mg;
	return 0;
}

int migrate_cancel(struct vm *vm, struct vmcomm_error *e)
{
	struct migration *mg = vm->move;

	if (!mg)
		return vmcomm_error_set(e, -ENOENT, "vm '%s' does not migrate", vm->name);
	if (mg->step == UNDO)
		return 0;
	if (mg->step > MEMORY)
		return vmcomm_error_set(e, -EBUSY, "too late: vm '%s' is on host '%s' already", vm->name,
					mg->host);
	mg->cancel = true;
	if (mg->step < QUIESCE)
		fail(mg, -ECANCELED, "cancelled");
	else if (mg->step == MEMORY && mg->job && mg->job->cancel)
		mg->job->cancel(mg->job);
	return 0;
}

void migrate_forget_caller(struct migration *mg)
{
	memset(&mg->cb, 0, sizeof(mg->cb));
}

void migrate_abort(struct vm *vm)
{
	struct migration *mg = vm->move;
	struct vmcomm_error e = {.code = -ECANCELED, .text = "vmcommd ends; it goes on when it is "
							     "started again"};

	if (!mg)
		return;
	if (mg->cb.done)
		mg->cb.done(mg->arg, &e, NULL);
	migration_free(mg);
}

void migrate_resume(struct manager *m)
{
	struct vmcomm_error e = {0};
	struct migration *mg;
	struct vm *vm;

	for (vm = m->vms; vm; vm = vm->next) {
		if (vm->incoming)
			incoming_watch(vm);
		if (!vm->moving.host[0] || vm->move)
			continue;
		mg = movable(vm, &e) ? NULL : migration_new(vm, vm->moving.host, &e);
		if (!mg) {
			snprintf(vm->problem, sizeof(vm->problem), "%.500s", e.text);
			log_error("%s", e.text);
			continue;
		}
		snprintf(mg->id, sizeof(mg->id), "%s", vm->moving.id);
		mg->wanted = true;
		go(mg, step_look);
	}
}
