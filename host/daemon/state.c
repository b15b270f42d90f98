// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * state.c - what commands defined, kept over a restart
 *
 * STATE_DIR/state.json is replaced as a whole: a new file, fsync, rename, fsync of the directory. It holds
 * no keys, only the names of their files, and nothing that a region keeper knows better.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/addr.h"
#include "../common/text.h"
#include "log.h"
#include "manager.h"

#define STATE_VERSION 1

static json_t *group_to_json(const struct group *g)
{
	json_t *policy = json_array();
	uint32_t i;

	for (i = 0; i < g->policy_count; i++) {
		char text[VMCOMM_ADDR_STRLEN];
		const struct vmcomm_abi_policy *p = &g->policy[i];

		json_array_append_new(policy,
				      json_pack("[s, i, i, i]",
						p->prefix ? vmcomm_addr_format(p->addr, text) : "",
						p->prefix, p->port_min, p->port_max));
	}
	return json_pack("{s:s, s:s, s:i, s:I, s:I, s:b, s:o}", "name", g->name, "key_file",
			 g->key_file, "slots", g->slots, "memory", (json_int_t)g->memory, "chunk",
			 (json_int_t)g->chunk, "first_vm", g->origin == ORIGIN_FIRST_VM, "exclude",
			 policy);
}

static json_t *counters_to_json(const uint64_t *base, unsigned int n,
				const char *(*name)(uint32_t nr))
{
	json_t *o = json_object();
	unsigned int i;

	for (i = 0; i < n; i++)
		if (base[i])
			json_object_set_new(o, name(i), json_integer((json_int_t)(base[i] & INT64_MAX)));
	return o;
}

json_t *state_counters(const struct vm *vm)
{
	return json_pack("{s:o, s:o}", "stats",
			 counters_to_json(vm->stat_base, VMCOMM_STAT_COUNT, vmcomm_stat_name),
			 "reasons",
			 counters_to_json(vm->reason_base, VMCOMM_REASON_COUNT, vmcomm_reason_name));
}

static void counters_from_json(json_t *o, uint64_t *base, unsigned int n,
			       const char *(*name)(uint32_t nr))
{
	unsigned int i;
	json_int_t v;

	for (i = 0; i < n; i++) {
		v = json_integer_value(json_object_get(o, name(i)));
		base[i] = v > 0 ? (uint64_t)v : 0;
	}
}

void state_counters_load(struct vm *vm, json_t *o)
{
	counters_from_json(json_object_get(o, "stats"), vm->stat_base, VMCOMM_STAT_COUNT,
			   vmcomm_stat_name);
	counters_from_json(json_object_get(o, "reasons"), vm->reason_base, VMCOMM_REASON_COUNT,
			   vmcomm_reason_name);
}

static void vm_migration_to_json(const struct vm *vm, json_t *o)
{
	if (vm->incoming || vm->arriving)
		json_object_set_new(o, "incoming", json_true());
	if (vm->moving.host[0])
		json_object_set_new(o, "moving",
				    json_pack("{s:s, s:s, s:b, s:b}", "host", vm->moving.host, "id",
					      vm->moving.id, "attached", vm->moving.attached, "sent",
					      vm->moving.sent));
	json_object_set_new(o, "counters", state_counters(vm));
}

static void vm_migration_from_json(struct vm *vm, json_t *o)
{
	json_t *moving = json_object_get(o, "moving");
	const char *host, *id;
	int attached, sent;

	vm->incoming = json_is_true(json_object_get(o, "incoming"));
	state_counters_load(vm, json_object_get(o, "counters"));
	if (json_unpack(moving, "{s:s, s:s, s:b, s:b}", "host", &host, "id", &id, "attached",
			&attached, "sent", &sent) ||
	    !vmcomm_name_valid(host) ||
	    !vmcomm_text_copy(vm->moving.id, sizeof(vm->moving.id), id))
		return;
	vmcomm_text_copy(vm->moving.host, sizeof(vm->moving.host), host);
	vm->moving.attached = attached;
	vm->moving.sent = sent;
}

static json_t *vm_to_json(const struct vm *vm)
{
	char text[VMCOMM_ADDR_STRLEN];
	json_t *o, *addrs = json_array();
	uint32_t i;

	for (i = 0; i < vm->addr_count; i++)
		json_array_append_new(addrs, json_string(vmcomm_addr_format(vm->addr[i], text)));
	o = json_pack("{s:s, s:s, s:b, s:s, s:b, s:o, s:s, s:s, s:s, s:b}", "name", vm->name, "group",
		      vm->group->name, "config", vm->origin == ORIGIN_CONFIG, "uuid",
		      vmcomm_uuid_format(vm->uuid, text), "uuid_given", vm->uuid_given, "addresses",
		      addrs, "qmp", vm->qmp, "bus", vm->bus, "user", vm->user, "wanted",
		      vm->wanted);
	if (vm->libvirt)
		json_object_set_new(o, "libvirt",
				    json_pack("{s:i, s:I}", "id", vm->domain_id, "uid",
					      (json_int_t)vm->uid));
	vm_migration_to_json(vm, o);
	return o;
}

static int write_file(const char *dir, json_t *root)
{
	char tmp[512], path[512];
	int fd, dirfd, err = 0;

	snprintf(tmp, sizeof(tmp), "%s/state.json.new", dir);
	snprintf(path, sizeof(path), "%s/state.json", dir);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (json_dumpfd(root, fd, JSON_INDENT(1) | JSON_SORT_KEYS) || fsync(fd))
		err = errno ? -errno : -EIO;
	close(fd);
	if (!err && rename(tmp, path))
		err = -errno;
	if (err) {
		unlink(tmp);
		return err;
	}
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd >= 0) {
		fsync(dirfd);
		close(dirfd);
	}
	return 0;
}

int state_save(struct manager *m)
{
	json_t *groups = json_array(), *vms = json_array(), *root;
	struct group *g;
	struct vm *vm;
	int err;

	if (m->loading) {
		json_decref(groups);
		json_decref(vms);
		return 0;
	}
	for (g = m->groups; g; g = g->next)
		if (g->origin != ORIGIN_CONFIG)
			json_array_append_new(groups, group_to_json(g));
	for (vm = m->vms; vm; vm = vm->next)
		json_array_append_new(vms, vm_to_json(vm));
	root = json_pack("{s:i, s:o, s:o}", "version", STATE_VERSION, "groups", groups, "vms", vms);
	err = root ? write_file(m->config.state_dir, root) : -ENOMEM;
	json_decref(root);
	if (err)
		log_error("cannot write %s/state.json: %s", m->config.state_dir, strerror(-err));
	return err;
}

static int policy_load(json_t *list, struct vmcomm_abi_policy *policy, uint32_t *count)
{
	int prefix, min, max;
	const char *addr;
	json_t *row;
	size_t i;

	*count = 0;
	json_array_foreach (list, i, row) {
		struct vmcomm_abi_policy *p = &policy[*count];

		if (*count == VMCOMM_POLICY_MAX ||
		    json_unpack(row, "[s, i, i, i]", &addr, &prefix, &min, &max))
			return -EINVAL;
		memset(p, 0, sizeof(*p));
		if (prefix < 0 || prefix > 128 || min < 0 || max > 65535 || min > max ||
		    (prefix && vmcomm_addr_parse(addr, p->addr)))
			return -EINVAL;
		p->prefix = (uint8_t)prefix;
		p->port_min = (uint16_t)min;
		p->port_max = (uint16_t)max;
		(*count)++;
	}
	return 0;
}

static int group_from_json(struct manager *m, json_t *o, struct vmcomm_error *e)
{
	struct vmcomm_abi_policy policy[VMCOMM_POLICY_MAX];
	json_int_t memory, chunk;
	const char *name, *key_file;
	int slots, first_vm;
	uint32_t count;
	uint8_t key[VMCOMM_KEY_SIZE];
	json_t *exclude;
	int err;

	if (json_unpack(o, "{s:s, s:s, s:i, s:I, s:I, s:b, s:o}", "name", &name, "key_file",
			&key_file, "slots", &slots, "memory", &memory, "chunk", &chunk, "first_vm",
			&first_vm, "exclude", &exclude) ||
	    policy_load(exclude, policy, &count))
		return vmcomm_error_set(e, -EINVAL, "a group in it is damaged");
	if (group_find(m, name)) {
		log_notice("group %s: the definition in %s counts", name, m->config.file);
		return 0;
	}
	err = vmcomm_key_load(key_file, key, e);
	if (!err)
		err = group_add(m, name, first_vm ? ORIGIN_FIRST_VM : ORIGIN_COMMAND, key, key_file,
				(uint32_t)slots, (uint64_t)memory, (uint64_t)chunk, policy, count,
				NULL, e);
	vmcomm_key_wipe(key);
	return err;
}

static void vm_domain_from_json(struct vm *vm, json_t *o)
{
	json_int_t uid = -1;

	if (!o)
		return;
	vm->libvirt = true;
	json_unpack(o, "{s:i, s:I}", "id", &vm->domain_id, "uid", &uid);
	vm->uid = uid >= 0 && uid < UINT32_MAX ? uid : -1;
}

static int vm_from_json(struct manager *m, json_t *o, struct vmcomm_error *e)
{
	const char *name, *group, *uuid, *qmp, *bus, *user, *addr;
	int config, uuid_given, wanted;
	json_t *addrs, *row;
	struct group *g;
	struct vm *vm;
	size_t i;

	if (json_unpack(o, "{s:s, s:s, s:b, s:s, s:b, s:o, s:s, s:s, s:s, s:b}", "name", &name,
			"group", &group, "config", &config, "uuid", &uuid, "uuid_given", &uuid_given,
			"addresses", &addrs, "qmp", &qmp, "bus", &bus, "user", &user, "wanted",
			&wanted))
		return vmcomm_error_set(e, -EINVAL, "a VM in it is damaged");
	vm = vm_find(m, name);
	if (vm) {
		/* From the configuration; the file adds what a command or chance decided. */
		if (!vm->uuid_given)
			vmcomm_uuid_parse(uuid, vm->uuid);
		vm->wanted = wanted;
		vm_migration_from_json(vm, o);
		return 0;
	}
	if (config || (json_object_get(o, "libvirt") && !m->config.libvirt))
		return 0; /* its section is gone */
	g = group_find(m, group);
	if (!g)
		return vmcomm_error_set(e, -ENOENT, "vm '%s' is in group '%s', which does not exist",
					name, group);
	if (vm_new(m, name, g, ORIGIN_COMMAND, &vm, e))
		return e->code;
	json_array_foreach (addrs, i, row) {
		addr = json_string_value(row);
		if (i >= VMCOMM_ADDRS_MAX || !addr || vmcomm_addr_parse(addr, vm->addr[i]))
			goto bad;
		vm->addr_count++;
	}
	vm_migration_from_json(vm, o);
	if (vmcomm_uuid_parse(uuid, vm->uuid) || (!vm->addr_count && !vm->incoming) ||
	    !vmcomm_text_copy(vm->qmp, sizeof(vm->qmp), qmp) ||
	    !vmcomm_text_copy(vm->bus, sizeof(vm->bus), bus) ||
	    !vmcomm_text_copy(vm->user, sizeof(vm->user), user))
		goto bad;
	vm->uuid_given = uuid_given;
	vm->wanted = wanted;
	vm_domain_from_json(vm, json_object_get(o, "libvirt"));
	return 0;
bad:
	vmcomm_error_set(e, -EINVAL, "vm '%s' in it is damaged", name);
	vm_free(vm);
	return e->code;
}

int state_load(struct manager *m, struct vmcomm_error *e)
{
	struct vmcomm_error one = {0};
	json_t *root, *groups, *vms, *row;
	json_error_t json_err;
	int version, err = 0;
	char path[512];
	size_t i;

	snprintf(path, sizeof(path), "%s/state.json", m->config.state_dir);
	if (access(path, F_OK))
		return 0;
	root = json_load_file(path, 0, &json_err);
	if (!root)
		return vmcomm_error_set(e, -EINVAL, "%s:%d: %s", path, json_err.line, json_err.text);
	if (json_unpack(root, "{s:i, s:o, s:o}", "version", &version, "groups", &groups, "vms",
			&vms) || version != STATE_VERSION || !json_is_array(groups) ||
	    !json_is_array(vms)) {
		err = vmcomm_error_set(e, -EINVAL, "%s is not a state file of this version", path);
		goto out;
	}
	/* One bad entry must not keep the others from working. */
	json_array_foreach (groups, i, row)
		if (group_from_json(m, row, &one))
			log_error("%s: %s", path, one.text);
	json_array_foreach (vms, i, row)
		if (vm_from_json(m, row, &one))
			log_error("%s: %s", path, one.text);
	if (one.code) {
		/* The next save would lose what could not be read. */
		char bad[520];

		snprintf(bad, sizeof(bad), "%s.bad", path);
		unlink(bad);
		if (!link(path, bad))
			log_error("a copy of the file is kept as %s", bad);
	}
out:
	json_decref(root);
	return err;
}
