// SPDX-License-Identifier: GPL-2.0-or-later
/* methods.c - what can be asked of vmcommd; io.vmcomm.varlink describes it */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/addr.h"
#include "../common/text.h"
#include "conns.h"
#include "control.h"
#include "domains.h"
#include "interface.h"
#include "log.h"
#include "migrate.h"
#include "path.h"

#define CONNS_BATCH 64
#define CONNS_ONCE  1000 /* in one reply, when no more than one is wanted */

/* -- parameters -- */

/* A string. Return: NULL if it is not there, or wrong (then @e is set). */
static const char *get_string(json_t *params, const char *name, bool needed, struct vmcomm_error *e)
{
	json_t *v = json_object_get(params, name);

	if (e->code)
		return NULL;
	if (!v || json_is_null(v)) {
		if (needed)
			vmcomm_error_set(e, -EINVAL, "parameter '%s' is missing", name);
		return NULL;
	}
	if (!json_is_string(v) || json_string_length(v) > 4095) {
		vmcomm_error_set(e, -EINVAL, "parameter '%s' must be a string", name);
		return NULL;
	}
	return json_string_value(v);
}

static uint64_t get_number(json_t *params, const char *name, uint64_t max, struct vmcomm_error *e)
{
	json_t *v = json_object_get(params, name);

	if (e->code || !v || json_is_null(v))
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0 ||
	    (uint64_t)json_integer_value(v) > max) {
		vmcomm_error_set(e, -EINVAL, "parameter '%s' must be a number up to %llu", name,
				 (unsigned long long)max);
		return 0;
	}
	return (uint64_t)json_integer_value(v);
}

/* A key in hexadecimal. Return: true if there is a good one. */
static bool get_key(json_t *params, uint8_t key[VMCOMM_KEY_SIZE], struct vmcomm_error *e)
{
	const char *hex = get_string(params, "key", false, e);

	if (!hex)
		return false;
	/* The value is a secret: it is not repeated in the message. */
	if (vmcomm_key_parse(hex, key)) {
		vmcomm_error_set(e, -EINVAL, "parameter 'key' must be 64 hexadecimal digits");
		return false;
	}
	return true;
}

/* A short string into a buffer. */
static void get_text(json_t *params, const char *name, char *buf, size_t size,
		     struct vmcomm_error *e)
{
	const char *text = get_string(params, name, false, e);

	buf[0] = 0;
	if (!text)
		return;
	if (!vmcomm_text_copy(buf, size, text))
		vmcomm_error_set(e, -EINVAL, "parameter '%s' is longer than %zu characters", name,
				 size - 1);
}

static void get_addresses(json_t *params, struct vm *vm, struct vmcomm_error *e)
{
	json_t *list = json_object_get(params, "addresses"), *row;
	const char *text;
	size_t i, k;

	if (e->code)
		return;
	if (!json_is_array(list) || !json_array_size(list) ||
	    json_array_size(list) > VMCOMM_ADDRS_MAX) {
		vmcomm_error_set(e, -EINVAL, "parameter 'addresses' must be a list of 1 to %d "
				 "addresses", VMCOMM_ADDRS_MAX);
		return;
	}
	json_array_foreach (list, i, row) {
		text = json_string_value(row);
		if (!text || vmcomm_addr_parse(text, vm->addr[i])) {
			vmcomm_error_set(e, -EINVAL, "'%.60s' is no address of a VM",
					 text ? text : "?");
			return;
		}
		for (k = 0; k < i; k++)
			if (!memcmp(vm->addr[k], vm->addr[i], 16)) {
				vmcomm_error_set(e, -EINVAL, "address '%.60s' is there twice", text);
				return;
			}
		vm->addr_count++;
	}
}

static struct group *need_group(struct client *c, json_t *params, const char *name,
				struct vmcomm_error *e)
{
	const char *text = get_string(params, name, true, e);
	struct group *g = text ? group_find(client_manager(c), text) : NULL;

	if (text && !g)
		vmcomm_error_set(e, -ENOENT, "there is no group '%.63s'", text);
	return g;
}

static struct vm *need_vm(struct client *c, json_t *params, struct vmcomm_error *e)
{
	const char *text = get_string(params, "name", true, e);
	struct vm *vm = text ? vm_find(client_manager(c), text) : NULL;

	if (text && !vm)
		vmcomm_error_set(e, -ENOENT, "there is no vm '%.63s'", text);
	return vm;
}

/* -- groups -- */

static void do_info(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct manager *m = client_manager(c);
	json_t *o;

	o = json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:[i, i]}", "version", VMCOMM_VERSION, "backend",
		      m->config.backend, "pid", (int)getpid(), "runtime_dir", m->config.runtime_dir,
		      "state_dir", m->config.state_dir, "config", m->config.file, "abi",
		      VMCOMM_ABI_MAJOR, VMCOMM_ABI_MINOR);
	if (m->domains) {
		json_object_set_new(o, "libvirt_uri", json_string(m->config.libvirt_uri));
		json_object_set_new(o, "libvirt_connected", json_boolean(domains_connected(m)));
	}
	client_reply(c, o);
}

static void do_group_add(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct vmcomm_abi_policy policy[VMCOMM_POLICY_MAX];
	uint32_t policy_count = 0;
	const char *name = get_string(params, "name", true, e);
	const char *ports = get_string(params, "exclude_ports", false, e);
	const char *addresses = get_string(params, "exclude_addresses", false, e);
	uint64_t slots = get_number(params, "slots", VMCOMM_SLOTS_MAX, e);
	uint64_t memory = get_number(params, "memory", VMCOMM_REGION_MAX, e);
	uint64_t chunk = get_number(params, "chunk", 1ULL << VMCOMM_CHUNK_SHIFT_MAX, e);
	uint8_t key[VMCOMM_KEY_SIZE];
	bool has_key = get_key(params, key, e);
	struct group *g = NULL;

	if (!e->code && ports && config_policy_ports(ports, policy, &policy_count))
		vmcomm_error_set(e, -EINVAL, "exclude_ports '%.60s': give ports as in '22, "
				 "6000-6010', at most 64", ports);
	if (!e->code && addresses && config_policy_addresses(addresses, policy, &policy_count))
		vmcomm_error_set(e, -EINVAL, "exclude_addresses '%.60s': give addresses as in "
				 "'10.1.0.0/16, fd00::1', at most 64", addresses);
	if (!e->code)
		group_add(client_manager(c), name, ORIGIN_COMMAND, has_key ? key : NULL, NULL,
			  (uint32_t)slots, memory, chunk, policy, policy_count, &g, e);
	vmcomm_key_wipe(key);
	if (!e->code)
		client_reply(c, json_pack("{s:o}", "group", group_describe(g)));
}

static void do_group_list(struct client *c, json_t *params, struct vmcomm_error *e)
{
	const char *name = get_string(params, "name", false, e);
	json_t *list;
	struct group *g;

	if (e->code)
		return;
	if (name && !need_group(c, params, "name", e))
		return;
	list = json_array();
	for (g = client_manager(c)->groups; g; g = g->next)
		if (!name || !strcmp(g->name, name))
			json_array_append_new(list, group_describe(g));
	client_reply(c, json_pack("{s:o}", "groups", list));
}

static void do_group_remove(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct group *g = need_group(c, params, "name", e);

	if (!e->code && !group_remove(g, e))
		client_reply(c, json_object());
}

/* -- VMs -- */

static int key_check(const struct group *g, const char *vm, const uint8_t *key,
		     struct vmcomm_error *e)
{
	if (vmcomm_group_key_equal(key, g->key, VMCOMM_KEY_SIZE))
		return 0;
	log_warning("vm %s: refused, wrong key for group %s", vm, g->name);
	return vmcomm_error_set(e, -EKEYREJECTED, "wrong key: vm '%.63s' may not join group '%s': use "
				"the key with which the group was created", vm, g->name);
}

static void vm_fill(struct vm *vm, json_t *params, struct vmcomm_error *e)
{
	const char *uuid = get_string(params, "uuid", false, e);
	uint64_t random[2] = {manager_random(), manager_random()};

	if (!vm->incoming || json_object_get(params, "addresses"))
		get_addresses(params, vm, e);
	get_text(params, "qmp", vm->qmp, sizeof(vm->qmp), e);
	get_text(params, "bus", vm->bus, sizeof(vm->bus), e);
	get_text(params, "user", vm->user, sizeof(vm->user), e);
	if (e->code)
		return;
	if (vm->qmp[0] && vm->qmp[0] != '/')
		vmcomm_error_set(e, -EINVAL, "qmp '%s': give an absolute path", vm->qmp);
	if (uuid) {
		if (vmcomm_uuid_parse(uuid, vm->uuid))
			vmcomm_error_set(e, -EINVAL, "'%.40s' is no UUID", uuid);
		vm->uuid_given = true;
	} else {
		memcpy(vm->uuid, random, 16);
		vm->uuid[6] = (uint8_t)((vm->uuid[6] & 0x0f) | 0x40);
		vm->uuid[8] = (uint8_t)((vm->uuid[8] & 0x3f) | 0x80);
		vm->uuid_given = false; /* one that was to come in before, and did not */
	}
	if (!e->code)
		vm_conflict(vm->group->m, vm->group, vm, vm->uuid, (const uint8_t (*)[16])vm->addr,
			    vm->addr_count, e);
}

static void do_vm_add(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct manager *m = client_manager(c);
	const char *name = get_string(params, "name", true, e);
	const char *group = get_string(params, "group", true, e);
	uint8_t key[VMCOMM_KEY_SIZE];
	bool has_key = get_key(params, key, e), created = false, old = false;
	bool incoming = json_is_true(json_object_get(params, "incoming"));
	struct group *g = NULL;
	struct vm *vm = NULL;

	if (!e->code && !has_key)
		vmcomm_error_set(e, -EKEYREJECTED, "vm '%.63s' needs the key of group '%.63s' to join "
				 "it", name, group);
	if (e->code)
		goto out;
	g = group_find(m, group);
	if (!g) {
		/* M12: the first VM of a group creates it, with its key. */
		if (group_add(m, group, ORIGIN_FIRST_VM, key, NULL, 0, 0, 0, NULL, 0, &g, e))
			goto out;
		created = true;
	}
	if (key_check(g, name, key, e))
		goto out;
	if (incoming && !json_is_string(json_object_get(params, "qmp")) &&
	    !(m->backend && m->backend->by_name)) {
		vmcomm_error_set(e, -EINVAL, "vm add --incoming needs --qmp: vmcommd must see when the "
				 "vm runs");
		goto out;
	}
	/* One that left this host may come back. */
	vm = incoming ? vm_find(m, name) : NULL;
	old = vm && vm->group == g && !vm->connected && !vm->move && !vm->op &&
	      (vm->incoming || !vm->wanted);
	if (old)
		incoming_abort(vm);
	else if (vm_new(m, name, g, ORIGIN_COMMAND, &vm, e))
		goto out;
	vm->incoming = incoming;
	if (old) {
		vm->addr_count = 0;
		vm_withdraw(vm);
	}
	if (incoming)
		vm->wanted = false;
	vm_fill(vm, params, e);
	if (!e->code && !incoming)
		vm_admit(vm, e);
out:
	vmcomm_key_wipe(key);
	if (!e->code) {
		state_save(m);
		log_info("vm %s: %s of group %s", vm->name,
			 incoming ? "is to come in as a member" : "member", g->name);
		if (incoming)
			incoming_watch(vm);
		client_reply(c, json_pack("{s:o}", "vm", vm_describe(vm)));
		return;
	}
	if (vm && !old) {
		vm_unlink(vm);
		vm_free(vm);
	}
	if (created)
		group_remove(g, NULL);
}

static void do_vm_list(struct client *c, json_t *params, struct vmcomm_error *e)
{
	const char *name = get_string(params, "name", false, e);
	const char *group = get_string(params, "group", false, e);
	json_t *list;
	struct vm *vm;

	if (name)
		need_vm(c, params, e);
	if (group)
		need_group(c, params, "group", e);
	if (e->code)
		return;
	list = json_array();
	for (vm = client_manager(c)->vms; vm; vm = vm->next) {
		if ((name && strcmp(vm->name, name)) || (group && strcmp(vm->group->name, group)))
			continue;
		manager_poll_vm(vm);
		json_array_append_new(list, vm_describe(vm));
	}
	client_reply(c, json_pack("{s:o}", "vms", list));
}

static void do_vm_path(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct vm *vm = need_vm(c, params, e), *peer;
	const char *name = get_string(params, "peer", true, e);

	if (e->code)
		return;
	peer = vm_find(client_manager(c), name);
	if (!peer) {
		vmcomm_error_set(e, -ENOENT, "there is no vm '%s'", name);
		return;
	}
	if (peer == vm) {
		vmcomm_error_set(e, -EINVAL, "vm '%s' needs no path to itself: name two VMs", name);
		return;
	}
	manager_poll_vm(vm);
	manager_poll_vm(peer);
	client_reply(c, path_describe(vm, peer));
}

/* An operation that somebody waits for. */
struct wait {
	struct client *c;
	struct op *op;
	struct manager *m;
	char vm[CONFIG_NAME];
};

static void wait_step(void *arg, const char *text)
{
	struct wait *w = arg;

	client_continue(w->c, json_pack("{s:s}", "step", text));
}

static void wait_done(void *arg, const struct vmcomm_error *e)
{
	struct wait *w = arg;
	struct vm *vm = vm_find(w->m, w->vm);

	if (e->code)
		client_fail(w->c, e);
	else
		client_reply(w->c, vm ? json_pack("{s:o}", "vm", vm_describe(vm)) : json_object());
	free(w);
}

static void wait_lost(void *arg)
{
	struct wait *w = arg;

	op_forget_caller(w->op);
	free(w);
}

static void start_op(struct client *c, struct vm *vm, enum op_kind kind, struct vmcomm_error *e)
{
	static const struct op_callbacks cbs = {wait_step, wait_done};
	struct wait *w = calloc(1, sizeof(*w));

	if (!w) {
		vmcomm_error_set(e, -ENOMEM, "out of memory");
		return;
	}
	/* A VM that is still to come may be removed: nothing has begun. */
	if (vm_idle(vm, e) && !(kind == OP_REMOVE && vm->incoming && !vm->op) &&
	    !(op_joinable(vm, kind) && !vm->move && !vm->incoming)) {
		free(w);
		return;
	}
	memset(e, 0, sizeof(*e));
	if (vm->incoming) {
		incoming_abort(vm);
		vm->incoming = false;
	}
	w->c = c;
	w->m = client_manager(c);
	snprintf(w->vm, sizeof(w->vm), "%s", vm->name);
	if (op_start(vm, kind, &cbs, w, &w->op, e)) {
		free(w);
		return;
	}
	client_busy(c, w, wait_lost, NULL);
}

static void do_vm_attach(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct vm *vm = need_vm(c, params, e);
	uint8_t key[VMCOMM_KEY_SIZE];
	bool has_key = get_key(params, key, e);

	if (!e->code && has_key && !key_check(vm->group, vm->name, key, e)) {
		vm->refused = false;
		vm->problem[0] = 0;
	}
	vmcomm_key_wipe(key);
	if (!e->code)
		start_op(c, vm, json_is_false(json_object_get(params, "wait")) ? OP_PLUG : OP_ATTACH, e);
}

static void do_vm_detach(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct vm *vm = need_vm(c, params, e);

	if (!e->code)
		start_op(c, vm, OP_DETACH, e);
}

static void do_vm_remove(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct vm *vm = need_vm(c, params, e);
	uint8_t key[VMCOMM_KEY_SIZE];
	bool has_key = get_key(params, key, e);

	if (!e->code && (!has_key || !vmcomm_group_key_equal(key, vm->group->key,
							     VMCOMM_KEY_SIZE))) {
		log_warning("vm %s: removal refused, %s key", vm->name, has_key ? "wrong" : "no");
		vmcomm_error_set(e, -EACCES, "permission denied: vm '%s' stays in group '%s': its "
				 "removal needs the group's key%s", vm->name, vm->group->name,
				 has_key ? ", and this is another one" : "");
	}
	vmcomm_key_wipe(key);
	if (!e->code)
		start_op(c, vm, OP_REMOVE, e);
}

/* -- migration -- */

struct move_wait {
	struct client *c;
	struct migration *mg;
};

static void move_event(void *arg, json_t *event)
{
	struct move_wait *w = arg;

	client_continue(w->c, json_pack("{s:O}", "event", event));
}

static void move_done(void *arg, const struct vmcomm_error *e, json_t *result)
{
	struct move_wait *w = arg;

	if (e->code)
		client_fail(w->c, e);
	else
		client_reply(w->c, json_pack("{s:O}", "result", result));
	free(w);
}

static void move_lost(void *arg)
{
	struct move_wait *w = arg;

	migrate_forget_caller(w->mg);
	free(w);
}

static const struct migrate_callbacks move_cbs = {move_event, move_done};

static void do_vm_migrate(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct migrate_options o = {0};
	struct vm *vm = need_vm(c, params, e);
	struct move_wait *w;

	o.host = get_string(params, "host", true, e);
	o.bandwidth = get_number(params, "bandwidth", 1ULL << 40, e);
	o.timeout = (unsigned int)get_number(params, "timeout", 86400, e);
	o.postcopy = json_is_true(json_object_get(params, "postcopy"));
	w = calloc(1, sizeof(*w));
	if (!w)
		vmcomm_error_set(e, -ENOMEM, "out of memory");
	else
		w->c = c;
	if (e->code || migrate_start(vm, &o, &move_cbs, w, &w->mg, e))
		free(w);
	else
		client_busy(c, w, move_lost, NULL);
}

static void do_vm_find(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct vm *vm = need_vm(c, params, e);
	struct move_wait *w = calloc(1, sizeof(*w));

	if (!w)
		vmcomm_error_set(e, -ENOMEM, "out of memory");
	else
		w->c = c;
	if (e->code || migrate_find(vm, &move_cbs, w, &w->mg, e))
		free(w);
	else
		client_busy(c, w, move_lost, NULL);
}

static void do_vm_migrate_cancel(struct client *c, json_t *params, struct vmcomm_error *e)
{
	struct vm *vm = need_vm(c, params, e);

	if (!e->code && !migrate_cancel(vm, e))
		client_reply(c, json_object());
}

/* -- libvirt -- */

#ifdef VMCOMM_LIBVIRT
struct prepare_wait {
	struct client *c; /* NULL: it is gone */
	bool over;
	bool inside; /* domains_prepare() has not returned */
};

static void prepare_done(void *arg, const struct vmcomm_error *e)
{
	struct prepare_wait *w = arg;

	w->over = true;
	if (w->c && e->code)
		client_fail(w->c, e);
	else if (w->c)
		client_reply(w->c, json_object());
	if (!w->inside)
		free(w);
}

static void prepare_lost(void *arg)
{
	struct prepare_wait *w = arg;

	w->c = NULL;
}

static void get_member(json_t *params, struct libvirt_member *member, struct vmcomm_error *e)
{
	struct libvirt_secret *s = &member->secret;
	const char *uuid = get_string(params, "secret_uuid", false, e);
	struct vm vm = {0};

	get_text(params, "group", member->group, sizeof(member->group), e);
	get_text(params, "secret_type", s->type, sizeof(s->type), e);
	get_text(params, "secret_usage", s->usage, sizeof(s->usage), e);
	get_addresses(params, &vm, e);
	if (e->code)
		return;
	if (!vmcomm_name_valid(member->group))
		vmcomm_error_set(e, -EINVAL, "'%.63s' is no valid group name", member->group);
	member->present = true;
	member->addr_count = vm.addr_count;
	memcpy(member->addr, vm.addr, sizeof(member->addr));
	s->by_uuid = uuid != NULL;
	s->given = uuid || s->usage[0];
	if (uuid && vmcomm_uuid_parse(uuid, s->uuid))
		vmcomm_error_set(e, -EINVAL, "'%.40s' is no UUID", uuid);
	if (!uuid && s->usage[0] && !libvirt_secret_type_valid(s->type))
		vmcomm_error_set(e, -EINVAL, "secret_type '%s': use ceph, iscsi, tls or vtpm", s->type);
}

static void do_libvirt_prepare(struct client *c, json_t *params, struct vmcomm_error *e)
{
	const char *name = get_string(params, "name", true, e);
	const char *uuid_text = get_string(params, "uuid", true, e);
	struct libvirt_member member = {0};
	struct prepare_wait *w;
	uint8_t uuid[16];

	get_member(params, &member, e);
	if (!e->code && vmcomm_uuid_parse(uuid_text, uuid))
		vmcomm_error_set(e, -EINVAL, "'%.40s' is no UUID", uuid_text);
	if (!e->code && !client_manager(c)->domains)
		vmcomm_error_set(e, -EOPNOTSUPP, "%s has no section [libvirt]: vmcommd takes no part in "
				 "libvirt's domains", client_manager(c)->config.file);
	w = e->code ? NULL : calloc(1, sizeof(*w));
	if (!w) {
		if (!e->code)
			vmcomm_error_set(e, -ENOMEM, "out of memory");
		return;
	}
	w->c = c;
	w->inside = true;
	domains_prepare(client_manager(c), name, uuid, &member, prepare_done, w);
	w->inside = false;
	if (w->over)
		free(w);
	else
		client_busy(c, w, prepare_lost, NULL);
}
#endif

/* -- what the guests show -- */

struct listing {
	struct client *c;
	struct conns_cursor cursor;
};

static void listing_pump(void *arg)
{
	struct listing *l = arg;
	json_t *list = json_array();
	bool more = conns_next(&l->cursor, list, CONNS_BATCH);
	json_t *o;

	if (more) {
		if (json_array_size(list))
			client_continue(l->c, json_pack("{s:o}", "connections", list));
		else
			json_decref(list);
		return;
	}
	o = json_pack("{s:o, s:b}", "connections", list, "truncated", l->cursor.truncated);
	client_reply(l->c, o);
	free(l);
}

/* Without "more" everything has to fit into one reply. */
static void listing_once(struct client *c, struct conns_cursor *cursor)
{
	json_t *list = json_array();
	bool more;

	do
		more = conns_next(cursor, list, CONNS_ONCE);
	while (more && json_array_size(list) < CONNS_ONCE && cursor->examined < (4U << 20));
	client_reply(c, json_pack("{s:o, s:b}", "connections", list, "truncated",
				  more || cursor->truncated));
}

static void do_conn_list(struct client *c, json_t *params, struct vmcomm_error *e)
{
	const char *group = get_string(params, "group", false, e);
	const char *vm = get_string(params, "vm", false, e);
	struct conns_cursor cursor;
	struct listing *l;

	if (group)
		need_group(c, params, "group", e);
	if (vm && !e->code && !vm_find(client_manager(c), vm))
		vmcomm_error_set(e, -ENOENT, "there is no vm '%.63s'", vm);
	if (e->code)
		return;
	conns_begin(&cursor, client_manager(c), group, vm);
	if (!client_wants_more(c)) {
		listing_once(c, &cursor);
		return;
	}
	l = calloc(1, sizeof(*l));
	if (!l) {
		vmcomm_error_set(e, -ENOMEM, "out of memory");
		return;
	}
	l->c = c;
	l->cursor = cursor;
	client_busy(c, l, free, listing_pump);
}

static void do_stats(struct client *c, json_t *params, struct vmcomm_error *e)
{
	const char *name = get_string(params, "name", false, e);
	json_t *list;
	struct vm *vm;

	if (name)
		need_vm(c, params, e);
	if (e->code)
		return;
	list = json_array();
	for (vm = client_manager(c)->vms; vm; vm = vm->next)
		if (!name || !strcmp(vm->name, name))
			json_array_append_new(list, stats_describe(vm));
	client_reply(c, json_pack("{s:o}", "vms", list));
}

/* -- org.varlink.service -- */

static void do_service_info(struct client *c, json_t *params, struct vmcomm_error *e)
{
	client_reply(c, json_pack("{s:s, s:s, s:s, s:s, s:[s, s]}", "vendor", "vmcomm", "product",
				  "vmcommd", "version", VMCOMM_VERSION, "url",
				  "", "interfaces", "org.varlink.service",
				  "io.vmcomm"));
}

static void do_service_description(struct client *c, json_t *params, struct vmcomm_error *e)
{
	const char *name = get_string(params, "interface", true, e);

	if (e->code)
		return;
	if (strcmp(name, "io.vmcomm")) {
		client_error(c, "org.varlink.service.InterfaceNotFound",
			     json_pack("{s:s}", "interface", name));
		return;
	}
	client_reply(c, json_pack("{s:s}", "description", interface_text));
}

static const struct {
	const char *name;
	/* replies, or sets @e */
	void (*call)(struct client *c, json_t *params, struct vmcomm_error *e);
} methods[] = {
	{"io.vmcomm.Info", do_info},
	{"io.vmcomm.GroupAdd", do_group_add},
	{"io.vmcomm.GroupList", do_group_list},
	{"io.vmcomm.GroupRemove", do_group_remove},
	{"io.vmcomm.VmAdd", do_vm_add},
	{"io.vmcomm.VmList", do_vm_list},
	{"io.vmcomm.VmPath", do_vm_path},
	{"io.vmcomm.VmAttach", do_vm_attach},
	{"io.vmcomm.VmDetach", do_vm_detach},
	{"io.vmcomm.VmRemove", do_vm_remove},
	{"io.vmcomm.VmMigrate", do_vm_migrate},
	{"io.vmcomm.VmMigrateCancel", do_vm_migrate_cancel},
	{"io.vmcomm.VmFind", do_vm_find},
#ifdef VMCOMM_LIBVIRT
	{"io.vmcomm.LibvirtPrepare", do_libvirt_prepare},
#endif
	{"io.vmcomm.ConnList", do_conn_list},
	{"io.vmcomm.Stats", do_stats},
	{"org.varlink.service.GetInfo", do_service_info},
	{"org.varlink.service.GetInterfaceDescription", do_service_description},
};

void methods_call(struct client *c, const char *method, json_t *params)
{
	struct vmcomm_error e = {0};
	size_t i;

	for (i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (strcmp(methods[i].name, method))
			continue;
		methods[i].call(c, params, &e);
		if (e.code)
			client_fail(c, &e);
		return;
	}
	client_error(c, "org.varlink.service.MethodNotFound", json_pack("{s:s}", "method", method));
}
