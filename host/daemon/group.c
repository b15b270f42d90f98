// SPDX-License-Identifier: GPL-2.0-or-later
/* group.c - groups of this host: definition, memory, slots (M12) */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/addr.h"
#include "log.h"
#include "manager.h"

struct group *group_find(struct manager *m, const char *name)
{
	struct group *g;

	for (g = m->groups; g; g = g->next)
		if (!strcmp(g->name, name))
			return g;
	return NULL;
}

unsigned int group_members(const struct group *g)
{
	unsigned int n = 0;
	struct vm *vm;

	for (vm = g->m->vms; vm; vm = vm->next)
		n += vm->group == g;
	return n;
}

int group_dir(const struct group *g, char *buf, size_t size)
{
	return (size_t)snprintf(buf, size, "%s/%s", g->m->config.runtime_dir, g->name) < size ?
		       0 :
		       -ENAMETOOLONG;
}

static int key_prepare(struct group *g, const uint8_t *key, const char *key_file,
		       struct vmcomm_error *e)
{
	char path[512];
	int err;

	if (key) {
		memcpy(g->key, key, sizeof(g->key));
	} else if (key_file && !access(key_file, F_OK)) {
		err = vmcomm_key_load(key_file, g->key, e);
		if (err)
			return err;
	} else {
		err = vmcomm_key_generate(g->key);
		if (err)
			return vmcomm_error_set(e, err, "no random numbers for a key");
	}
	if (key_file && !access(key_file, F_OK)) {
		g->key_file = strdup(key_file);
		return g->key_file ? 0 : -ENOMEM;
	}
	if (!key_file) {
		snprintf(path, sizeof(path), "%s/keys", g->m->config.state_dir);
		mkdir(path, 0700);
		snprintf(path, sizeof(path), "%s/keys/%s.key", g->m->config.state_dir, g->name);
		key_file = path;
		unlink(path); /* of a group that is gone */
	}
	err = vmcomm_key_save(key_file, g->key, e);
	if (err)
		return err;
	g->key_file = strdup(key_file);
	return g->key_file ? 0 : -ENOMEM;
}

int group_add(struct manager *m, const char *name, enum origin origin, const uint8_t *key,
	      const char *key_file, uint32_t slots, uint64_t memory, uint64_t chunk,
	      const struct vmcomm_abi_policy *policy, uint32_t policy_count, struct group **out,
	      struct vmcomm_error *e)
{
	struct vmcomm_layout lay;
	struct group *g, **at;
	unsigned int shift = 0, n = 0;
	char dir[256];
	int err;

	if (!vmcomm_name_valid(name))
		return vmcomm_error_set(e, -EINVAL, "'%s' is no valid group name: use up to 63 "
					"letters, digits, '_', '-' and '.'", name);
	for (at = &m->groups; *at; at = &(*at)->next, n++)
		if (!strcmp((*at)->name, name))
			return vmcomm_error_set(e, -EEXIST, "group '%s' exists already", name);
	if (n >= GROUPS_MAX)
		return vmcomm_error_set(e, -ENOSPC, "there are %u groups already", n);

	g = calloc(1, sizeof(*g));
	if (!g)
		return vmcomm_error_set(e, -ENOMEM, "out of memory");
	g->m = m;
	g->origin = origin;
	snprintf(g->name, sizeof(g->name), "%s", name);
	g->slots = slots ? slots : GROUP_SLOTS_DEFAULT;
	g->memory = memory ? memory : GROUP_MEMORY_DEFAULT;
	g->chunk = chunk ? chunk : GROUP_CHUNK_DEFAULT;
	if (policy_count)
		memcpy(g->policy, policy, policy_count * sizeof(*policy));
	g->policy_count = policy_count;
	while (1ULL << shift < g->chunk)
		shift++;
	err = vmcomm_layout_compute(&lay, g->memory, g->slots, shift);
	if (err == -ENOSPC)
		vmcomm_error_set(e, err, "group '%s': %llu MiB are too little for %u slots: use "
				 "more memory or fewer slots", name,
				 (unsigned long long)(g->memory >> 20), g->slots);
	else if (err)
		vmcomm_error_set(e, err, "group '%s': slots must be 2 to 64, memory a power of two "
				 "from 4M to 64G, chunk 64K, 128K or 256K", name);
	if (!err && (group_dir(g, dir, sizeof(dir)) || strlen(dir) + 14 >= CONFIG_PATH))
		err = vmcomm_error_set(e, -ENAMETOOLONG, "group '%s': its sockets' paths below %s "
				       "would be too long", name, m->config.runtime_dir);
	if (!err)
		err = key_prepare(g, key, key_file, e);
	if (!err)
		err = vmcomm_group_init(&g->table, g->slots);
	if (err) {
		vmcomm_key_wipe(g->key);
		free(g->key_file);
		free(g);
		return err;
	}
	*at = g;
	if (out)
		*out = g;
	state_save(m);
	return 0;
}

void group_free(struct group *g)
{
	struct group **at;

	for (at = &g->m->groups; *at; at = &(*at)->next)
		if (*at == g) {
			*at = g->next;
			break;
		}
	region_free(g->region);
	vmcomm_key_wipe(g->key);
	free(g->key_file);
	free(g);
}

int group_remove(struct group *g, struct vmcomm_error *e)
{
	struct manager *m = g->m;
	unsigned int n = group_members(g);
	char path[512];

	if (g->origin == ORIGIN_CONFIG)
		return vmcomm_error_set(e, -EPERM, "group '%s' is defined in %s: remove it there",
					g->name, m->config.file);
	if (n)
		return vmcomm_error_set(e, -EBUSY, "group '%s' has %u members: remove them first",
					g->name, n);
	g->dissolve = true;
	if (!group_dissolve_try(g))
		return vmcomm_error_set(e, -EBUSY, "group '%s': a QEMU still has its memory: "
					"end it or unplug its device", g->name);
	/* Only a key that we made ourselves. */
	snprintf(path, sizeof(path), "%s/keys/%s.key", m->config.state_dir, g->name);
	if (!strcmp(path, g->key_file))
		unlink(path);
	group_free(g);
	state_save(m);
	return 0;
}

static void slot_sync(struct group *g, uint32_t slot, const struct region_status *st)
{
	struct vmcomm_group_slot *s = &g->table.slot[slot];

	if (s->generation != st->row.generation)
		s->incarnation = 0;
	s->state = st->row.state;
	s->generation = st->row.generation;
	memcpy(s->vm_id, st->row.vm_id, 16);
	g->location[slot] = st->row.number;
}

static void region_changed(void *arg, uint32_t slot, const struct region_status *st)
{
	struct group *g = arg;
	struct vm *vm;

	slot_sync(g, slot, st);
	vm = vm_at(g, slot);
	if (!vm || vm->generation != st->row.generation) {
		group_maintain(g);
		return;
	}
	if (st->connected) {
		vm->connected = true;
		vm->qemu_pid = st->pid;
		log_info("vm %s: QEMU %u has slot %u of group %s", vm->name, st->pid, slot, g->name);
	} else {
		vmcomm_group_observe(&g->table, region_layout(g->region), region_base(g->region),
				     slot);
		log_info("vm %s: QEMU %u let go of slot %u of group %s (%s)", vm->name, vm->qemu_pid,
			 slot, g->name, vmcomm_group_state_name(st->row.state));
		vm_lost_slot(vm);
	}
	op_vm_changed(vm);
	group_maintain(g);
}

static void region_rung(void *arg)
{
	struct group *g = arg;
	struct vm *vm, *next;

	for (vm = g->m->vms; vm; vm = next) {
		next = vm->next;
		if (vm->group != g)
			continue;
		manager_poll_vm(vm);
		op_vm_changed(vm);
	}
}

static void region_lost_cb(void *arg)
{
	struct group *g = arg;
	struct vm *vm;

	snprintf(g->problem, sizeof(g->problem), "the region keeper (process %u) ended: VMs that run "
		 "keep the memory that they have, but nobody can join them; detach and attach each",
		 region_pid(g->region));
	log_error("group %s: %s", g->name, g->problem);
	region_free(g->region);
	g->region = NULL;
	vmcomm_group_init(&g->table, g->slots);
	for (vm = g->m->vms; vm; vm = vm->next) {
		if (vm->group != g)
			continue;
		vm->slot = -1;
		vm->connected = false;
		vm->incarnation = 0;
		op_vm_changed(vm);
	}
}

static const struct region_callbacks region_cbs = {
	.changed = region_changed,
	.rung = region_rung,
	.lost = region_lost_cb,
};

/* Take over what the keeper knows: after a start of vmcommd. */
static int slots_read(struct group *g, struct vmcomm_error *e)
{
	struct region_status st;
	struct vm *vm;
	uint32_t i;
	int err;

	for (i = 0; i < g->slots; i++) {
		err = region_status(g->region, i, &st);
		if (err)
			return vmcomm_error_set(e, err, "group '%s': no status of slot %u: %s",
						g->name, i, strerror(-err));
		slot_sync(g, i, &st);
		if (st.row.state == VMCOMM_SLOT_FREE)
			continue;
		for (vm = g->m->vms; vm; vm = vm->next)
			if (vm->group == g && !memcmp(vm->uuid, st.row.vm_id, 16))
				break;
		if (st.row.state == VMCOMM_SLOT_LEFT || st.row.state == VMCOMM_SLOT_GONE)
			continue;
		if (!vm) {
			/* Opened for one that was to come, by a vmcommd that was killed before it said so. */
			if (!st.connected && !region_slot_close(g->region, i))
				g->table.slot[i].state = VMCOMM_SLOT_FREE;
			else if (st.connected)
				log_warning("group %s: slot %u is taken by process %u, which is no "
					    "member", g->name, i, st.pid);
			continue;
		}
		vm->slot = (int)i;
		vm->generation = st.row.generation;
		vm->number = st.row.number;
		vm->connected = st.connected;
		vm->qemu_pid = st.pid;
		manager_poll_vm(vm);
	}
	return 0;
}

int group_need_region(struct group *g, bool create, struct vmcomm_error *e)
{
	struct manager *m = g->m;
	char dir[CONFIG_PATH];
	uint32_t shift = 0;
	int err;

	if (g->region) {
		/* Nobody was to use it any more; now somebody does. */
		if (create)
			g->dissolve = false;
		return 0;
	}
	err = group_dir(g, dir, sizeof(dir));
	if (err)
		return vmcomm_error_set(e, err, "group '%s': path too long", g->name);
	/* A QEMU that is not root must get through to its socket. */
	if (mkdir(dir, 0711) && errno != EEXIST)
		return vmcomm_error_set(e, -errno, "cannot make %s: %s", dir, strerror(errno));
	chmod(dir, 0711);
	err = region_connect(&g->region, m->event, dir, g->name, &region_cbs, g, e);
	if ((err == -ENOENT || err == -ECONNREFUSED) && create) {
		err = region_create(&g->region, m->event, m->config.keeper, dir, g->name, g->slots,
				    g->memory, g->chunk, &region_cbs, g, e);
		if (!err)
			log_info("group %s: %llu MiB for %u slots with keeper %u", g->name,
				 (unsigned long long)(g->memory >> 20), g->slots,
				 region_pid(g->region));
	}
	if (err)
		return err;
	if (e)
		memset(e, 0, sizeof(*e)); /* that there was none before is no error */
	g->problem[0] = 0;
	g->dissolve = false;
	while (1ULL << shift < g->chunk)
		shift++;
	if (region_layout(g->region)->slots != g->slots ||
	    region_layout(g->region)->size != g->memory ||
	    region_layout(g->region)->chunk_shift != shift) {
		snprintf(g->problem, sizeof(g->problem), "its memory has still the old size (%llu "
			 "MiB, %u slots): the new one is used when all members have left",
			 (unsigned long long)(region_layout(g->region)->size >> 20),
			 region_layout(g->region)->slots);
		log_warning("group %s: %s", g->name, g->problem);
	}
	vmcomm_group_init(&g->table, region_layout(g->region)->slots);
	g->slots = region_layout(g->region)->slots;
	err = slots_read(g, e);
	if (!err)
		err = region_policy_set(g->region, g->policy, g->policy_count);
	if (err) {
		region_free(g->region);
		g->region = NULL;
	}
	return err;
}

bool group_dissolve_try(struct group *g)
{
	char dir[CONFIG_PATH];
	uint32_t i;
	int err;

	if (!g->dissolve)
		return false;
	if (!g->region)
		return true;
	for (i = 0; i < g->slots; i++)
		if (g->table.slot[i].state != VMCOMM_SLOT_FREE &&
		    !region_slot_close(g->region, i))
			g->table.slot[i].state = VMCOMM_SLOT_FREE;
	err = region_shutdown(g->region);
	if (err == -EBUSY)
		return false;
	log_info("group %s: its memory is freed", g->name);
	region_free(g->region);
	g->region = NULL;
	g->problem[0] = 0;
	vmcomm_group_init(&g->table, g->slots);
	if (!group_dir(g, dir, sizeof(dir)))
		rmdir(dir);
	return true;
}

void group_maintain(struct group *g)
{
	struct region_status st;
	struct vm *vm;
	uint32_t i;

	if (!g->region)
		return;
	if (g->dissolve && group_dissolve_try(g)) {
		if (g->origin == ORIGIN_FIRST_VM)
			group_remove(g, NULL);
		return;
	}
	for (i = 0; i < g->slots; i++) {
		if (vmcomm_group_holder(&g->table, region_layout(g->region),
					region_base(g->region), i) != -ENOENT)
			continue;
		if (region_slot_close(g->region, i))
			continue;
		if (!region_status(g->region, i, &st))
			slot_sync(g, i, &st);
	}
	if (!g->region)
		return;
	/* A member whose slot was lost, or that found none free, gets one as soon as there is one. */
	for (vm = g->m->vms; vm; vm = vm->next)
		if (vm->group == g && vm->wanted && vm->slot < 0 && !vm->refused)
			vm_admit(vm, NULL);
}

static const char *origin_name(enum origin o)
{
	return o == ORIGIN_CONFIG ? "configuration" : o == ORIGIN_COMMAND ? "command" : "first vm";
}

static json_t *policy_describe(const struct group *g)
{
	json_t *list = json_array();
	char text[VMCOMM_ADDR_STRLEN];
	uint32_t i;

	for (i = 0; i < g->policy_count; i++) {
		const struct vmcomm_abi_policy *p = &g->policy[i];
		json_t *row = json_pack("{s:i, s:i}", "port_min", p->port_min, "port_max",
					p->port_max);

		if (p->prefix) {
			json_object_set_new(row, "address",
					    json_string(vmcomm_addr_format(p->addr, text)));
			json_object_set_new(row, "prefix", json_integer(p->prefix));
		}
		json_array_append_new(list, row);
	}
	return list;
}

static json_t *slots_describe(const struct group *g)
{
	json_t *list = json_array(), *row;
	struct vm *vm;
	uint32_t i;
	int holder;

	for (i = 0; i < g->slots; i++) {
		vm = vm_at(g, i);
		row = json_pack("{s:i, s:s, s:I}", "slot", i, "state",
				vmcomm_group_state_name(g->table.slot[i].state), "generation",
				(json_int_t)g->table.slot[i].generation);
		if (vm)
			json_object_set_new(row, "vm", json_string(vm->name));
		if (g->region) {
			holder = vmcomm_group_holder(&g->table, region_layout(g->region),
						     region_base(g->region), i);
			if (holder >= 0)
				json_object_set_new(row, "held_by", json_integer(holder));
		}
		json_array_append_new(list, row);
	}
	return list;
}

json_t *group_describe(const struct group *g)
{
	json_t *o = json_pack("{s:s, s:s, s:i, s:I, s:I, s:s, s:i, s:o, s:o}", "name", g->name,
			      "origin", origin_name(g->origin), "slots", g->slots, "memory",
			      (json_int_t)g->memory, "chunk", (json_int_t)g->chunk, "key_file",
			      g->key_file, "members", (int)group_members(g), "exclude",
			      policy_describe(g), "table", slots_describe(g));

	if (g->region)
		json_object_set_new(o, "keeper_pid", json_integer(region_pid(g->region)));
	if (g->problem[0])
		json_object_set_new(o, "problem", json_string(g->problem));
	return o;
}
