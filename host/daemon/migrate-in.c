// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * migrate-in.c - a member comes in from another host (M15, M17)
 *
 *   watching  --prepare-->  ready  --it runs-->  attaching  -->  adopting  -->  over
 *      |                      |
 *      +---- it runs ---------+--- its hypervisor gives up --> failed
 *
 * The VM is attached as soon as it runs here, whether anybody on the source's side still talks. The
 * other vmcommd knows the group's key; everything else that it says is checked.
 */
#include "migrate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/addr.h"
#include "../common/text.h"
#include "conns.h"
#include "domains.h"
#include "log.h"

#define SYNC_MAX       20000 /* connections of one VM */
#define ADOPT_POLL     250000
#define ADOPT_LOOK     2000000 /* for connections that the source knew nothing of */
#define ADOPT_SECONDS  10
#define KEEP_SECONDS   60 /* the result, for a source that comes back for it */
#define CONNS_BATCH    64

enum in_state { WATCHING, READY, ATTACHING, ADOPTING, OVER, FAILED };

struct source;

struct incoming {
	struct vm *vm;
	struct manager *m;
	enum in_state state;
	char id[33];
	struct source *source; /* who is told; NULL: nobody */
	struct vmcomm_backend_job *job;
	struct op *op;
	sd_event_source *timer;
	bool prepare_asked, switch_asked;
	bool attached;
	json_t *conns; /* "local|remote": [sent, received] as at the source */
	uint64_t deadline, attached_at;
	unsigned int known; /* connections of the source with members here */
	unsigned int adopted, connections, continued;
	char text[256];
};

/* A vmcommd that is connected. */
struct source {
	struct manager *m;
	struct peer *peer;
	struct incoming *in;
	bool greeted;
};

/* -- both directions -- */

static const struct {
	int code;
	const char *name;
} error_names[] = {
	{-ENOENT, "NotFound"},	{-EEXIST, "Exists"},  {-EACCES, "PermissionDenied"},
	{-EINVAL, "Invalid"},	{-EBUSY, "Busy"},     {-ENOSPC, "Full"},
	{-EHOSTUNREACH, "Unreachable"}, {-ETIMEDOUT, "Timeout"}, {-EOPNOTSUPP, "NotSupported"},
};

const char *migrate_error_name(int code)
{
	size_t i;

	for (i = 0; i < sizeof(error_names) / sizeof(error_names[0]); i++)
		if (error_names[i].code == code)
			return error_names[i].name;
	return "Failed";
}

int migrate_error_code(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(error_names) / sizeof(error_names[0]); i++)
		if (!strcmp(error_names[i].name, name))
			return error_names[i].code;
	return -EIO;
}

void migrate_text(json_t *msg, const char *name, char *buf, size_t size)
{
	const char *text = json_string_value(json_object_get(msg, name));
	size_t i;

	for (i = 0; text && text[i] && i + 1 < size; i++)
		buf[i] = (unsigned char)text[i] < 32 || text[i] == 127 ? '?' : text[i];
	buf[i] = 0;
}

/* -- answers -- */

static void answer(struct source *s, const char *reply, json_t *more)
{
	json_t *o = json_pack("{s:s, s:b}", "reply", reply, "ok", 1);

	if (more)
		json_object_update(o, more);
	json_decref(more);
	peer_send(s->peer, o);
}

static void refuse(struct source *s, const char *reply, int code, const char *text)
{
	json_t *o = json_pack("{s:s, s:b, s:s}", "reply", reply, "ok", 0, "code",
			      migrate_error_name(code));
	json_t *message = json_string(text);

	log_warning("%s: %s refused: %s", peer_name(s->peer), reply, text);
	json_object_set_new(o, "message", message ? message : json_string("?"));
	peer_send(s->peer, o);
}

static const char *state_name(const struct incoming *in)
{
	switch (in->state) {
	case WATCHING:
	case READY:
		return "incoming";
	case ATTACHING:
		return "attaching";
	case FAILED:
		return "failed";
	case ADOPTING:
	case OVER:
		break;
	}
	return in->attached ? "attached" : "running";
}

static void switch_answer(struct incoming *in)
{
	json_t *message;

	if (!in->switch_asked || !in->source)
		return;
	in->switch_asked = false;
	/* It may be cut in the middle of a character. */
	message = json_string(in->text);
	answer(in->source, "switch",
	       json_pack("{s:s, s:o, s:i, s:i, s:i}", "state", state_name(in), "message",
			 message ? message : json_string("?"), "adopted", (int)in->adopted,
			 "connections", (int)in->connections, "continued", (int)in->continued));
}

static void tell(struct incoming *in, const char *event, const char *text)
{
	if (in->source)
		peer_send(in->source->peer, json_pack("{s:s, s:s}", "event", event, "text", text));
}

/* -- life -- */

static void incoming_free(struct incoming *in)
{
	in->vm->in = NULL;
	if (in->source)
		in->source->in = NULL;
	vmcomm_backend_job_free(in->job);
	if (in->op)
		op_forget_caller(in->op);
	sd_event_source_disable_unref(in->timer);
	json_decref(in->conns);
	free(in);
}

static void set_timer(struct incoming *in, uint64_t usec)
{
	sd_event_source_set_time_relative(in->timer, usec);
	sd_event_source_set_enabled(in->timer, SD_EVENT_ONESHOT);
}

/* A domain of libvirt is a member because it comes; if it does not, it is none. */
static void no_member(struct vm *vm)
{
	uint8_t uuid[16];
	struct manager *m = vm->group->m;

	memcpy(uuid, vm->uuid, 16);
	vm_unlink(vm);
	vm_free(vm);
	state_save(m);
	domains_look(m, uuid);
}

/*
 * It will not come: what was kept for it is given back, the registration stays, that of a domain for as
 * long as its source may ask.
 */
static void failed(struct incoming *in, int code, const char *text)
{
	struct vm *vm = in->vm;

	in->state = FAILED;
	snprintf(in->text, sizeof(in->text), "%.250s", text);
	snprintf(vm->problem, sizeof(vm->problem), "%.250s", text);
	log_warning("vm %s: does not come in: %s", vm->name, text);
	vm->wanted = false;
	vm_withdraw(vm);
	state_save(in->m);
	if (in->prepare_asked && in->source) {
		char why[400];

		snprintf(why, sizeof(why), "vm '%s': %.300s", vm->name, text);
		refuse(in->source, "prepare", code == -EINPROGRESS ? -EINVAL : code, why);
	}
	in->prepare_asked = false;
	switch_answer(in);
	in->deadline = manager_now_usec() + KEEP_SECONDS * 1000000ULL;
	set_timer(in, KEEP_SECONDS * 1000000ULL);
}

/* -- adopt: how many of the connections that came along are in rings again -- */

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

/* A connection that is in shared memory here. */
static void open_row(struct incoming *in, json_t *row)
{
	json_t *client = json_object_get(row, "client"), *server = json_object_get(row, "server");
	json_t *up = json_object_get(row, "to_server"), *down = json_object_get(row, "to_client");
	const char *vm = json_string_value(json_object_get(client, "vm"));
	bool is_client = vm && !strcmp(vm, in->vm->name);
	char local[80], remote[80], key[164];
	json_t *was;

	endpoint_key(is_client ? client : server, local, sizeof(local));
	endpoint_key(is_client ? server : client, remote, sizeof(remote));
	snprintf(key, sizeof(key), "%s|%s", local, remote);
	was = json_object_get(in->conns, key);
	in->adopted++;
	if (!was) {
		/* Set up while they were apart. */
		in->connections++;
		return;
	}
	if (both_paths(is_client ? up : down) >= json_integer_value(json_array_get(was, 0)) &&
	    both_paths(is_client ? down : up) >= json_integer_value(json_array_get(was, 1)))
		in->continued++;
	else
		log_warning("vm %s: connection %s: its counters are below those at the source",
			    in->vm->name, key);
}

/* One that stays on TCP. */
static void plain_row(struct incoming *in, json_t *row)
{
	json_t *local = json_object_get(row, "local"), *remote = json_object_get(row, "remote");
	const char *vm = json_string_value(json_object_get(local, "vm"));
	const char *peer = json_string_value(json_object_get(remote, "vm"));
	char l[80], r[80], key[164];

	if (!vm || strcmp(vm, in->vm->name) || !peer || !*peer)
		return;
	endpoint_key(local, l, sizeof(l));
	endpoint_key(remote, r, sizeof(r));
	snprintf(key, sizeof(key), "%s|%s", l, r);
	if (!json_object_get(in->conns, key))
		in->connections++;
}

/* Is the other end of the connection a member that is up here? */
static bool other_end_here(const struct vm *self, const char *key)
{
	const char *remote = strchr(key, '|'), *blank;
	char text[VMCOMM_ADDR_STRLEN];
	const struct vm *vm;
	uint8_t addr[16];
	uint32_t i;

	blank = remote ? strchr(remote, ' ') : NULL;
	if (!blank || (size_t)(blank - remote) > sizeof(text))
		return false;
	memcpy(text, remote + 1, (size_t)(blank - remote - 1));
	text[blank - remote - 1] = 0;
	if (vmcomm_addr_parse(text, addr))
		return false;
	for (vm = self->group->m->vms; vm; vm = vm->next)
		for (i = 0; vm != self && vm->group == self->group && vm->connected &&
			    vm->incarnation && i < vm->addr_count; i++)
			if (!memcmp(vm->addr[i], addr, 16))
				return true;
	return false;
}

static void adopt_count(struct incoming *in)
{
	struct conns_cursor cursor;
	json_t *list, *row, *v;
	const char *key;
	bool more;
	size_t i;

	in->known = in->adopted = in->continued = 0;
	json_object_foreach (in->conns, key, v)
		in->known += other_end_here(in->vm, key);
	in->connections = in->known;
	conns_begin(&cursor, in->m, in->vm->group->name, in->vm->name);
	do {
		list = json_array();
		more = conns_next(&cursor, list, CONNS_BATCH);
		json_array_foreach (list, i, row) {
			const char *state = json_string_value(json_object_get(row, "state"));

			if (state && !strcmp(state, "open"))
				open_row(in, row);
			else if (state && !strcmp(state, "plain"))
				plain_row(in, row);
		}
		json_decref(list);
	} while (more && cursor.examined < MIGRATE_EXAMINED_MAX);
}

static bool alone(const struct vm *self)
{
	const struct vm *vm;

	for (vm = self->group->m->vms; vm; vm = vm->next)
		if (vm != self && vm->group == self->group && vm->connected)
			return false;
	return true;
}

static void adopt_poll(struct incoming *in)
{
	uint64_t now = manager_now_usec();

	adopt_count(in);
	if (now < in->deadline && !alone(in->vm) &&
	    (in->adopted < in->connections || (!in->known && now < in->attached_at + ADOPT_LOOK))) {
		set_timer(in, ADOPT_POLL);
		return;
	}
	log_info("vm %s: came in, adopted %u of %u connections", in->vm->name, in->adopted,
		 in->connections);
	in->state = OVER;
	switch_answer(in);
	set_timer(in, KEEP_SECONDS * 1000000ULL);
}

static int timer_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	struct incoming *in = arg;
	struct vm *vm = in->vm;

	if (in->state == ADOPTING)
		adopt_poll(in);
	else if (in->state == FAILED && in->vm->libvirt)
		no_member(in->vm); /* and with it this */
	else if (in->state == FAILED && in->vm->incoming) {
		/* Whoever moves it next may not tell us. */
		incoming_free(in);
		incoming_watch(vm);
	} else if (in->state == OVER)
		incoming_free(in);
	return 0;
}

/* -- it runs -- */

static void attach_step(void *arg, const char *text)
{
	tell(arg, "step", text);
}

static void attach_done(void *arg, const struct vmcomm_error *e)
{
	struct incoming *in = arg;

	in->op = NULL;
	in->vm->arriving = false;
	state_save(in->m);
	in->attached = !e->code;
	snprintf(in->text, sizeof(in->text), "%.250s", e->text);
	in->state = ADOPTING;
	in->attached_at = manager_now_usec();
	in->deadline = in->attached_at + (e->code ? 0 : ADOPT_SECONDS * 1000000ULL);
	adopt_poll(in);
}

static void runs(struct incoming *in)
{
	static const struct op_callbacks cbs = {attach_step, attach_done};
	struct vmcomm_error e = {0};
	struct vm *vm = in->vm;

	log_info("vm %s: runs here now", vm->name);
	in->state = ATTACHING;
	tell(in, "running", "");
	vm->incoming = false;
	/* libvirt says after a restart what runs. */
	vm->arriving = !vm->libvirt;
	vm->wanted = true;
	state_save(in->m);
	if (op_start(vm, OP_ATTACH, &cbs, in, &in->op, &e)) {
		snprintf(vm->problem, sizeof(vm->problem), "%.500s", e.text);
		attach_done(in, &e);
	}
}

static void job_listening(void *arg, const char *uri)
{
	struct incoming *in = arg;
	char text[64];

	if (!in->prepare_asked || !in->source)
		return;
	in->prepare_asked = false;
	snprintf(text, sizeof(text), "%016llx", (unsigned long long)in->vm->number);
	answer(in->source, "prepare",
	       json_pack("{s:s, s:i, s:s}", "uri", uri, "slot", in->vm->slot, "location", text));
}

static void job_done(void *arg, int err, const char *text)
{
	struct incoming *in = arg;
	bool watching = in->state == WATCHING;

	if (!err && in->vm->addr_count)
		runs(in);
	else if (err && watching && in->switch_asked)
		failed(in, err, text); /* its source waits for that */
	else if (!err)
		failed(in, -EINVAL, "it runs, but was never told which addresses it has: add it again "
		       "with --address");
	else if (!watching)
		failed(in, err, text);
	vmcomm_backend_job_free(in->job);
	in->job = NULL;
	/* Nobody waits: it may come later, by a prepare. */
	if (err && watching && in->state == WATCHING && in->vm->libvirt)
		no_member(in->vm);
	else if (err && watching && in->state == WATCHING)
		incoming_free(in);
}

static int watch(struct incoming *in, const char *listen)
{
	static const struct vmcomm_backend_callbacks cbs = {.done = job_done,
							    .listening = job_listening};
	const struct vmcomm_backend *backend = vm_backend(in->vm);
	struct vmcomm_backend_vm bvm;

	vm_backend_fill(in->vm, &bvm);
	if (!backend || !backend->incoming || !bvm.control)
		return -EOPNOTSUPP;
	vmcomm_backend_job_free(in->job);
	in->job = NULL;
	return backend->incoming(in->m->event, &bvm, listen, &cbs, in, &in->job);
}

static struct incoming *incoming_new(struct vm *vm)
{
	struct incoming *in = calloc(1, sizeof(*in));

	if (!in)
		return NULL;
	in->vm = vm;
	in->m = vm->group->m;
	in->conns = json_object();
	if (sd_event_add_time_relative(in->m->event, &in->timer, CLOCK_MONOTONIC, 0, 1000,
				       timer_ready, in) < 0) {
		json_decref(in->conns);
		free(in);
		return NULL;
	}
	sd_event_source_set_enabled(in->timer, SD_EVENT_OFF);
	vm->in = in;
	return in;
}

void incoming_watch(struct vm *vm)
{
	struct incoming *in;

	if (vm->in)
		return;
	in = incoming_new(vm);
	if (in && watch(in, NULL)) {
		incoming_free(in);
		vm->in = NULL; /* it is; the static analyser does not see that */
	}
}

void incoming_abort(struct vm *vm)
{
	if (vm->in)
		incoming_free(vm->in);
}

/* -- requests -- */

static void do_hello(struct source *s, json_t *msg)
{
	char text[160];

	if (json_integer_value(json_object_get(msg, "protocol")) != PEER_PROTOCOL) {
		snprintf(text, sizeof(text), "here is vmcommd %s, which speaks version %d of the protocol "
			 "between hosts: use the same vmcommd on both", VMCOMM_VERSION, PEER_PROTOCOL);
		refuse(s, "hello", -EOPNOTSUPP, text);
		return;
	}
	s->greeted = true;
	answer(s, "hello",
	       json_pack("{s:i, s:s, s:[i, i], s:[s]}", "protocol", PEER_PROTOCOL, "version",
			 VMCOMM_VERSION, "abi", VMCOMM_ABI_MAJOR, VMCOMM_ABI_MINOR, "features",
			 "migrate-1"));
}

/* Who the VM is, as its source says. */
static int identity(struct vm *vm, json_t *o, struct vmcomm_error *e)
{
	json_t *list = json_object_get(o, "addresses"), *row;
	uint8_t addr[VMCOMM_ADDRS_MAX][16], uuid[16];
	char text[VMCOMM_ADDR_STRLEN];
	const struct vm *other;
	uint32_t n = 0, k;
	size_t i;

	migrate_text(o, "uuid", text, sizeof(text));
	if (vmcomm_uuid_parse(text, uuid) || !json_array_size(list) ||
	    json_array_size(list) > VMCOMM_ADDRS_MAX)
		return vmcomm_error_set(e, -EINVAL, "the vm's description is damaged");
	json_array_foreach (list, i, row) {
		if (!json_is_string(row) || vmcomm_addr_parse(json_string_value(row), addr[n]))
			return vmcomm_error_set(e, -EINVAL, "the vm's description is damaged");
		n++;
	}
	if (vm->uuid_given && memcmp(vm->uuid, uuid, 16))
		return vmcomm_error_set(e, -EINVAL, "vm '%s' was registered there with another uuid than "
					"%s", vm->name, text);
	for (other = vm->group->m->vms; other; other = other->next) {
		if (other == vm)
			continue;
		if (!memcmp(other->uuid, uuid, 16))
			return vmcomm_error_set(e, -EEXIST, "vm '%s' there has the uuid %s already",
						other->name, text);
		for (i = 0; other->group == vm->group && i < n; i++)
			for (k = 0; k < other->addr_count; k++)
				if (!memcmp(addr[i], other->addr[k], 16))
					return vmcomm_error_set(e, -EEXIST, "vm '%s' there has the "
								"address %s already", other->name,
								vmcomm_addr_format(addr[i], text));
	}
	memcpy(vm->uuid, uuid, 16);
	memcpy(vm->addr, addr, sizeof(vm->addr[0]) * n);
	vm->addr_count = n;
	vm->uuid_given |= json_is_true(json_object_get(o, "uuid_given"));
	return 0;
}

/* A domain of libvirt needs no registration: its entry is made here. */
static struct vm *prepare_domain(struct source *s, const char *name, struct vmcomm_error *e)
{
	struct group *g = group_find(s->m, peer_group(s->peer));
	struct vm *vm;

	if (!s->m->domains) {
		vmcomm_error_set(e, -EOPNOTSUPP, "vm '%s' is a domain of libvirt, and %s there has no section "
				 "[libvirt]", name, s->m->config.file);
		return NULL;
	}
	if (!domains_connected(s->m)) {
		vmcomm_error_set(e, -EHOSTUNREACH, "vmcommd there has no connection to libvirt at %s",
				 s->m->config.libvirt_uri);
		return NULL;
	}
	if (!g || vm_new(s->m, name, g, ORIGIN_COMMAND, &vm, e)) {
		if (!g)
			vmcomm_error_set(e, -ENOENT, "there is no group '%s'", peer_group(s->peer));
		return NULL;
	}
	vm->libvirt = true;
	vm->uuid_given = false; /* identity() takes it from the source */
	vm->incoming = true;
	vm->wanted = false;
	if (s->m->config.libvirt_user)
		snprintf(vm->user, sizeof(vm->user), "%s", s->m->config.libvirt_user);
	return vm;
}

static struct vm *prepare_vm(struct source *s, json_t *o, struct vmcomm_error *e)
{
	char name[CONFIG_NAME];
	struct vm *vm;

	migrate_text(o, "name", name, sizeof(name));
	vm = vm_find(s->m, name);
	/* One of an earlier time that is still on its way out. */
	if (vm && vm->libvirt && vm->stopped && !vm->op && !vm->move && !vm->in && !vm->connected) {
		vm_withdraw(vm);
		vm_unlink(vm);
		vm_free(vm);
		vm = NULL;
	}
	if (!vm && json_is_true(json_object_get(o, "libvirt")))
		return prepare_domain(s, name, e);
	if ((!vm || strcmp(vm->group->name, peer_group(s->peer))) && s->m->backend &&
	    s->m->backend->by_name) {
		vmcomm_error_set(e, -ENOENT, "there is no vm '%s' in group '%s': vmcommctl vm add %s "
				 "--incoming --group %s --key-file FILE", name, peer_group(s->peer), name,
				 peer_group(s->peer));
		return NULL;
	}
	if (!vm || strcmp(vm->group->name, peer_group(s->peer))) {
		vmcomm_error_set(e, -ENOENT, "there is no vm '%s' in group '%s': start its QEMU there with "
				 "-incoming defer, then: vmcommctl vm add %s --incoming --group %s "
				 "--key-file FILE --qmp PATH", name, peer_group(s->peer), name,
				 peer_group(s->peer));
		return NULL;
	}
	if (!vm->incoming) {
		vmcomm_error_set(e, -EEXIST, "vm '%s' is a member there already (%s) and does not wait for "
				 "a migration: vmcommctl vm add %s --incoming", name, vm_state_name(vm),
				 name);
		return NULL;
	}
	if (vm->op || (vm->in && vm->in->state != WATCHING && vm->in->state != READY &&
		       vm->in->state != FAILED)) {
		vmcomm_error_set(e, -EBUSY, "vm '%s' is just coming in", name);
		return NULL;
	}
	return vm;
}

static void do_prepare(struct source *s, json_t *msg)
{
	json_t *o = json_object_get(msg, "vm");
	struct vmcomm_error e = {0};
	struct manager *m = s->m;
	char listen[64];
	struct incoming *in;
	struct vm *vm = prepare_vm(s, o, &e);

	if (vm && !identity(vm, o, &e)) {
		vm->wanted = true;
		vm_admit(vm, &e);
	}
	if (e.code) {
		if (vm)
			vm->wanted = false;
		if (vm && vm->libvirt && !vm->in)
			no_member(vm);
		refuse(s, "prepare", e.code, e.text);
		return;
	}
	in = vm->in ? vm->in : incoming_new(vm);
	if (!in) {
		refuse(s, "prepare", -ENOMEM, "out of memory");
		return;
	}
	if (in->source)
		in->source->in = NULL;
	in->source = s;
	s->in = in;
	in->state = READY;
	in->prepare_asked = true;
	in->switch_asked = false;
	json_object_clear(in->conns);
	migrate_text(msg, "id", in->id, sizeof(in->id));
	if (m->config.migrate_listen)
		snprintf(listen, sizeof(listen), "%s", m->config.migrate_listen);
	else if (peer_local_address(s->peer, listen, sizeof(listen)))
		listen[0] = 0;
	vm->problem[0] = 0;
	state_save(m);
	if (watch(in, listen))
		failed(in, -EOPNOTSUPP, "vmcommd there cannot see it run: it has no QMP socket (qmp=)");
}

static struct incoming *need_incoming(struct source *s, json_t *msg, const char *reply)
{
	char id[33];

	migrate_text(msg, "id", id, sizeof(id));
	if (s->in && !strcmp(s->in->id, id))
		return s->in;
	refuse(s, reply, -ENOENT, "no such migration is prepared here");
	return NULL;
}

static void do_counters(struct source *s, json_t *msg)
{
	struct incoming *in = need_incoming(s, msg, "counters");
	json_t *row;
	char key[164];
	size_t i;

	if (!in)
		return;
	state_counters_load(in->vm, json_object_get(msg, "vm"));
	json_array_foreach (json_object_get(msg, "connections"), i, row) {
		const char *local = json_string_value(json_array_get(row, 0));
		const char *remote = json_string_value(json_array_get(row, 1));
		json_t *sent = json_array_get(row, 2), *received = json_array_get(row, 3);

		if (!local || !remote || !json_is_integer(sent) || !json_is_integer(received) ||
		    json_object_size(in->conns) >= SYNC_MAX)
			continue;
		snprintf(key, sizeof(key), "%.79s|%.79s", local, remote);
		json_object_set_new(in->conns, key, json_pack("[O, O]", sent, received));
	}
	state_save(s->m);
	answer(s, "counters", NULL);
}

/* The VM that the other side means, by UUID: it may have come in long ago. */
static struct vm *by_uuid(struct source *s, json_t *msg)
{
	char text[VMCOMM_UUID_STRLEN];
	uint8_t uuid[16];
	struct vm *vm;

	migrate_text(msg, "uuid", text, sizeof(text));
	if (vmcomm_uuid_parse(text, uuid))
		return NULL;
	for (vm = s->m->vms; vm; vm = vm->next)
		if (!strcmp(vm->group->name, peer_group(s->peer)) && !memcmp(vm->uuid, uuid, 16))
			return vm;
	return NULL;
}

static const char *vm_place(const struct vm *vm)
{
	if (!vm)
		return "unknown";
	if (vm->in)
		return state_name(vm->in);
	if (vm->incoming)
		return "incoming";
	if (vm->connected)
		return "attached";
	/* A member that is wanted came in, and lost its device since. */
	return vm->wanted ? "running" : "unknown";
}

static void do_switch(struct source *s, json_t *msg)
{
	struct vm *vm = by_uuid(s, msg);
	struct incoming *in;

	/* One that was given up before vmcommd was started anew: its hypervisor says so. */
	if (vm && vm->incoming)
		incoming_watch(vm);
	in = vm ? vm->in : NULL;
	if (!in) {
		answer(s, "switch", json_pack("{s:s}", "state", vm_place(vm)));
		return;
	}
	if (in->source && in->source != s)
		in->source->in = NULL;
	if (s->in && s->in != in)
		s->in->source = NULL;
	in->source = s;
	s->in = in;
	in->switch_asked = true;
	if (in->state == OVER || in->state == FAILED) {
		switch_answer(in);
	} else if (in->state == WATCHING && !in->job) {
		in->switch_asked = false;
		answer(s, "switch", json_pack("{s:s}", "state", "incoming"));
	} else if (in->state == ATTACHING || in->state == ADOPTING) {
		tell(in, "running", "");
	}
}

static void do_locate(struct source *s, json_t *msg)
{
	answer(s, "locate", json_pack("{s:s}", "state", vm_place(by_uuid(s, msg))));
}

static void do_abort(struct source *s, json_t *msg)
{
	struct incoming *in = need_incoming(s, msg, "abort");
	struct vm *vm = in ? in->vm : NULL;

	if (!in || in->state != READY) {
		if (in)
			answer(s, "abort", NULL);
		return;
	}
	log_notice("vm %s: its migration was given up at the source", vm->name);
	in->state = WATCHING;
	in->id[0] = 0;
	in->source = NULL;
	s->in = NULL;
	vm->wanted = false;
	vm_withdraw(vm);
	if (vm->libvirt)
		no_member(vm);
	state_save(s->m);
	answer(s, "abort", NULL);
}

static const struct {
	const char *name;
	void (*call)(struct source *s, json_t *msg);
} requests[] = {
	{"hello", do_hello},	     {"prepare", do_prepare}, {"counters", do_counters},
	{"switch", do_switch},	     {"locate", do_locate},   {"abort", do_abort},
};

static void source_message(void *arg, json_t *msg)
{
	struct source *s = arg;
	char name[32];
	size_t i;

	migrate_text(msg, "request", name, sizeof(name));
	for (i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		if (!strcmp(requests[i].name, name) && (s->greeted || !i)) {
			requests[i].call(s, msg);
			return;
		}
	refuse(s, name, -EOPNOTSUPP, "this vmcommd does not know that request");
}

static void source_closed(void *arg, const struct vmcomm_error *e)
{
	struct source *s = arg;

	/* What was prepared goes on: its QEMU knows whether the VM comes. */
	if (s->in)
		s->in->source = NULL;
	peer_free(s->peer);
	free(s);
}

void incoming_accepted(struct manager *m, struct peer *p)
{
	static const struct peer_callbacks cbs = {.message = source_message, .closed = source_closed};
	struct source *s = calloc(1, sizeof(*s));

	if (!s) {
		peer_free(p);
		return;
	}
	s->m = m;
	s->peer = p;
	peer_adopt(p, &cbs, s);
}
