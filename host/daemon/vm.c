// SPDX-License-Identifier: GPL-2.0-or-later
/* vm.c - members: slot, socket, location number (M12, M14) */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/addr.h"
#include "log.h"
#include "manager.h"
#include "migrate.h"
#ifdef VMCOMM_LIBVIRT
#include "../../backends/kvm/libvirt-backend.h"
#endif

struct vm *vm_find(struct manager *m, const char *name)
{
	struct vm *vm;

	for (vm = m->vms; vm; vm = vm->next)
		if (!strcmp(vm->name, name))
			return vm;
	return NULL;
}

struct vm *vm_at(const struct group *g, uint32_t slot)
{
	struct vm *vm;

	for (vm = g->m->vms; vm; vm = vm->next)
		if (vm->group == g && vm->slot == (int)slot)
			return vm;
	return NULL;
}

int vm_new(struct manager *m, const char *name, struct group *g, enum origin origin,
	   struct vm **out, struct vmcomm_error *e)
{
	struct vm *vm, **at;
	unsigned int n = 0;

	if (!vmcomm_name_valid(name))
		return vmcomm_error_set(e, -EINVAL, "'%s' is no valid VM name: use up to 63 letters, "
					"digits, '_', '-' and '.'", name);
	for (at = &m->vms; *at; at = &(*at)->next, n++)
		if (!strcmp((*at)->name, name))
			return vmcomm_error_set(e, -EEXIST, "vm '%s' exists already, in group '%s'",
						name, (*at)->group->name);
	if (n >= VMS_MAX)
		return vmcomm_error_set(e, -ENOSPC, "there are %u VMs already", n);
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return vmcomm_error_set(e, -ENOMEM, "out of memory");
	snprintf(vm->name, sizeof(vm->name), "%s", name);
	vm->group = g;
	vm->origin = origin;
	vm->slot = -1;
	vm->uid = -1;
	vm->wanted = true;
	*at = vm;
	*out = vm;
	return 0;
}

void vm_free(struct vm *vm)
{
	struct manager *m = vm->group->m;
	struct vm **at;

	migrate_abort(vm);
	incoming_abort(vm);
	op_abort(vm);
	for (at = &m->vms; *at; at = &(*at)->next)
		if (*at == vm) {
			*at = vm->next;
			break;
		}
	free(vm);
}

/* A path that stays the same for each life of the VM, for QEMU's command line. */
int vm_socket_path(const struct vm *vm, char *buf, size_t size)
{
	return (size_t)snprintf(buf, size, "%s/%s/vm-%s.sock", vm->group->m->config.runtime_dir,
				vm->group->name, vm->name) < size ?
		       0 :
		       -ENAMETOOLONG;
}

void vm_unlink(const struct vm *vm)
{
	char path[512];

	if (!vm_socket_path(vm, path, sizeof(path)))
		unlink(path);
}

void vm_link(const struct vm *vm)
{
	char path[512], target[32];

	snprintf(target, sizeof(target), "slot-%d.sock", vm->slot);
	vm_unlink(vm);
	if (!vm_socket_path(vm, path, sizeof(path)) && symlink(target, path))
		log_warning("vm %s: cannot link %s: %s", vm->name, path, strerror(errno));
}

void vm_row(const struct vm *vm, uint32_t state, struct vmcomm_location *row)
{
	memset(row, 0, sizeof(*row));
	row->state = state;
	row->vectors = VMCOMM_VECTORS;
	row->generation = vm->generation;
	row->number = vm->number;
	memcpy(row->vm_id, vm->uuid, 16);
	row->addr_count = vm->addr_count;
	memcpy(row->addr, vm->addr, sizeof(row->addr));
}

int vm_set_state(struct vm *vm, uint32_t state)
{
	struct vmcomm_location row;
	int err;

	if (vm->slot < 0 || !vm->group->region)
		return -ENOTCONN;
	vm_row(vm, state, &row);
	err = region_row_set(vm->group->region, (uint32_t)vm->slot, &row);
	if (!err)
		vm->group->table.slot[vm->slot].state = state;
	return err;
}

const struct vmcomm_backend *vm_backend(const struct vm *vm)
{
#ifdef VMCOMM_LIBVIRT
	if (vm->libvirt)
		return &vmcomm_backend_libvirt;
#endif
	return vm->group->m->backend;
}

void vm_backend_fill(const struct vm *vm, struct vmcomm_backend_vm *out)
{
	const struct vmcomm_backend *backend = vm_backend(vm);

	out->name = vm->name;
	out->uuid = vm->uuid_given ? vm->uuid : NULL;
	out->control = !backend ? NULL : backend->by_name ? vm->name : vm->qmp[0] ? vm->qmp : NULL;
	out->bus = vm->bus[0] ? vm->bus : NULL;
}

int vm_conflict(struct manager *m, const struct group *g, const struct vm *self,
		const uint8_t uuid[16], const uint8_t (*addr)[16], uint32_t addr_count,
		struct vmcomm_error *e)
{
	char text[VMCOMM_ADDR_STRLEN];
	const struct vm *o;
	uint32_t i, k;

	for (o = m->vms; o; o = o->next) {
		if (o == self || o->stopped)
			continue;
		if (!memcmp(o->uuid, uuid, 16))
			return vmcomm_error_set(e, -EEXIST, "vm '%s' has the uuid %s already", o->name,
						vmcomm_uuid_format(uuid, text));
		for (i = 0; o->group == g && i < o->addr_count; i++)
			for (k = 0; k < addr_count; k++)
				if (!memcmp(o->addr[i], addr[k], 16))
					return vmcomm_error_set(e, -EEXIST, "vm '%s' of group '%s' has "
								"the address %s already", o->name,
								g->name,
								vmcomm_addr_format(addr[k], text));
	}
	return 0;
}

static int vm_uid(const struct vm *vm, uint32_t *uid, struct vmcomm_error *e)
{
	struct passwd *pw;

	*uid = (uint32_t)-1;
	if (vm->libvirt && vm->uid >= 0) {
		*uid = (uint32_t)vm->uid;
		return 0;
	}
	if (!vm->user[0])
		return 0;
	pw = getpwnam(vm->user);
	if (!pw)
		return vmcomm_error_set(e, -ENOENT, "vm '%s': there is no user '%s'", vm->name,
					vm->user);
	*uid = pw->pw_uid;
	return 0;
}

/* Give the VM a slot that waits for it. */
int vm_admit(struct vm *vm, struct vmcomm_error *e)
{
	struct group *g = vm->group;
	struct vmcomm_location row;
	uint32_t slot = 0, uid, tries;
	int err;

	if (vm->slot >= 0)
		return 0;
	err = vm_uid(vm, &uid, e);
	if (!err)
		err = group_need_region(g, true, e);
	if (err)
		return err;
	if (vm->slot >= 0) /* the keeper knew it */
		return 0;
	for (tries = 0; tries < g->slots; tries++) {
		err = vmcomm_group_join(&g->table, vm->uuid, &slot);
		if (err == -ENOSPC)
			return vmcomm_error_set(e, err, "group '%s' is full: all %u slots are taken "
						"or in quarantine (vmcommctl group show %s says "
						"who holds them)", g->name, g->slots, g->name);
		if (err)
			return vmcomm_error_set(e, err, "vm '%s' has a slot of group '%s' already",
						vm->name, g->name);
		vm->generation = g->table.slot[slot].generation;
		vm->number = vmcomm_location_number(vm->uuid, vm->addr[0], g->m->host_id,
						    g->m->host_id_len, manager_random(), vm->number);
		vm_row(vm, VMCOMM_SLOT_JOINING, &row);
		err = region_slot_open(g->region, slot, &row, uid);
		if (!err)
			break;
		if (err == -EBUSY) {
			/* Somebody who is no member sits there: look at the others. */
			g->table.slot[slot].state = VMCOMM_SLOT_LIVE;
			continue;
		}
		vmcomm_group_move(&g->table, slot, VMCOMM_SLOT_FREE);
		return vmcomm_error_set(e, err, "vm '%s': the region keeper refuses slot %u: %s",
					vm->name, slot, strerror(-err));
	}
	if (err)
		return vmcomm_error_set(e, err, "group '%s': no slot is free", g->name);
	vm->slot = (int)slot;
	vm->connected = false;
	vm->incarnation = 0;
	vm->problem[0] = 0;
	g->location[slot] = vm->number;
	vm_link(vm);
	return 0;
}

bool vm_stat_counts(unsigned int stat)
{
	return stat != VMCOMM_STAT_CONN_OPEN && stat != VMCOMM_STAT_PAIRS_UP &&
	       stat != VMCOMM_STAT_LEAVE_US && stat != VMCOMM_STAT_HEAP_CHUNKS &&
	       stat != VMCOMM_STAT_HEAP_USED;
}

/* The next occupied slot begins to count at 0; the VM goes on from here. */
static void keep_counters(struct vm *vm)
{
	const struct vmcomm_abi_slot *s;
	unsigned int i;

	if (vm->slot < 0 || !vm->group->region || !vm->connected)
		return;
	s = vmcomm_layout_slot(region_layout(vm->group->region), region_base(vm->group->region),
			       (uint32_t)vm->slot);
	for (i = 0; i < VMCOMM_STAT_COUNT; i++)
		if (vm_stat_counts(i))
			vm->stat_base[i] += vmcomm_load64(&s->stat[i]) & INT64_MAX;
	for (i = 0; i < VMCOMM_REASON_COUNT; i++)
		vm->reason_base[i] += vmcomm_load64(&s->reason[i]) & INT64_MAX;
}

/* Its QEMU let go of the slot, which is now in quarantine. */
void vm_lost_slot(struct vm *vm)
{
	keep_counters(vm);
	vm->slot = -1;
	vm->connected = false;
	vm->qemu_pid = 0;
	vm->incarnation = 0;
	vm->heartbeat = 0;
	vm_unlink(vm);
}

int vm_withdraw(struct vm *vm)
{
	int err = 0;

	if (vm->slot < 0 || vm->connected)
		return 0;
	if (vm->group->region)
		err = region_slot_close(vm->group->region, (uint32_t)vm->slot);
	if (err)
		return err;
	vm->group->table.slot[vm->slot].state = VMCOMM_SLOT_FREE;
	vm_lost_slot(vm);
	return 0;
}

int vm_idle(const struct vm *vm, struct vmcomm_error *e)
{
	if (vm->move)
		return vmcomm_error_set(e, -EBUSY, "vm '%s' is being migrated: wait for the end, or "
					"cancel it (vmcommctl migrate --cancel %s)", vm->name, vm->name);
	if (vm->incoming)
		return vmcomm_error_set(e, -EBUSY, "vm '%s' is still to come from another host: it is "
					"attached as soon as it runs here", vm->name);
	if (vm->op)
		return vmcomm_error_set(e, -EBUSY, "vm '%s': another operation is going on: wait for "
					"it to end", vm->name);
	return 0;
}

const char *vm_state_name(const struct vm *vm)
{
	const struct group *g = vm->group;

	if (vm->refused)
		return "refused";
	if (vm->moving.host[0])
		return "migrating";
	if (vm->incoming)
		return "incoming";
	if (vm->slot < 0 || !g->region)
		return vm->wanted ? "no-slot" : "detached";
	if (!vm->connected)
		return "waiting";
	if (g->table.slot[vm->slot].state == VMCOMM_SLOT_LEAVING)
		return "leaving";
	/* The device is there; no module has answered yet, or it was unloaded. */
	if (!vm->incarnation || vm->guest_state == VMCOMM_VM_DOWN || vm->guest_state == VMCOMM_VM_LEFT)
		return "attached";
	if (vm->heartbeat_usec && manager_now_usec() - vm->heartbeat_usec > 5000000)
		return "silent";
	return "up";
}

static void describe_guest(const struct vm *vm, json_t *o)
{
	const struct group *g = vm->group;
	const struct vmcomm_abi_slot *s =
		vmcomm_layout_slot(region_layout(g->region), region_base(g->region),
				   (uint32_t)vm->slot);
	char text[64 + 1], id[32];
	unsigned int i;

	snprintf(id, sizeof(id), "%016llx", (unsigned long long)vm->incarnation);
	json_object_set_new(o, "incarnation", json_string(id));
	/* Text of a guest goes to somebody's terminal: printable ASCII only. */
	for (i = 0; i < 64; i++) {
		text[i] = (char)vmcomm_load8(&s->system[i]);
		if (!text[i])
			break;
		if (text[i] < 32 || text[i] > 126)
			text[i] = '?';
	}
	text[i] = 0;
	json_object_set_new(o, "system", json_string(text));
	for (i = 0; i < 32; i++) {
		text[i] = (char)vmcomm_load8(&s->version[i]);
		if (!text[i])
			break;
		if (text[i] < 32 || text[i] > 126)
			text[i] = '?';
	}
	text[i] = 0;
	json_object_set_new(o, "module", json_string(text));
	json_object_set_new(o, "heartbeat", json_integer((json_int_t)vm->heartbeat));
	json_object_set_new(o, "plain_connections", json_integer(vmcomm_load32(&s->plain_count)));
}

json_t *vm_describe(const struct vm *vm)
{
	const struct group *g = vm->group;
	char text[VMCOMM_ADDR_STRLEN], path[512];
	json_t *o, *addrs = json_array();
	uint32_t i;

	for (i = 0; i < vm->addr_count; i++)
		json_array_append_new(addrs, json_string(vmcomm_addr_format(vm->addr[i], text)));
	o = json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", vm->name, "group", g->name, "state",
		      vm_state_name(vm), "uuid", vmcomm_uuid_format(vm->uuid, text), "addresses",
		      addrs);
	json_object_set_new(o, "wanted", json_boolean(vm->wanted));
	if (vm->qmp[0])
		json_object_set_new(o, "qmp", json_string(vm->qmp));
	/* Where VMs are found by name they do not bring their device along. */
	if (!(g->m->backend && g->m->backend->by_name) && !vm_socket_path(vm, path, sizeof(path)))
		json_object_set_new(o, "socket", json_string(path));
	if (vm->slot >= 0 && g->region) {
		snprintf(text, sizeof(text), "%016llx", (unsigned long long)vm->number);
		json_object_set_new(o, "slot", json_integer(vm->slot));
		json_object_set_new(o, "generation", json_integer((json_int_t)vm->generation));
		json_object_set_new(o, "location", json_string(text));
		if (vm->connected) {
			json_object_set_new(o, "qemu_pid", json_integer(vm->qemu_pid));
			if (vm->incarnation)
				describe_guest(vm, o);
		}
	}
	if (vm->libvirt)
		json_object_set_new(o, "libvirt", json_true());
	if (vm->moving.host[0])
		json_object_set_new(o, "migrates_to", json_string(vm->moving.host));
	if (vm->problem[0])
		json_object_set_new(o, "problem", json_string(vm->problem));
	return o;
}
