// SPDX-License-Identifier: GPL-2.0-or-later
/* manager.c - start, the one-second round, and looking at guests */
#include "manager.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "domains.h"
#include "log.h"

uint64_t manager_random(void)
{
	uint64_t n = 0;

	while (getrandom(&n, sizeof(n), 0) != (ssize_t)sizeof(n))
		;
	return n;
}

uint64_t manager_now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void rebooted(struct vm *vm)
{
	uint32_t state = vm->group->table.slot[vm->slot].state;

	/* M14: the number changes whenever the VM starts. */
	vm->number = vmcomm_location_number(vm->uuid, vm->addr[0], vm->group->m->host_id,
					    vm->group->m->host_id_len, manager_random(), vm->number);
	vm->group->location[vm->slot] = vm->number;
	log_info("vm %s: its module started again, location %016llx", vm->name,
		 (unsigned long long)vm->number);
	vm_set_state(vm, state);
}

void manager_poll_vm(struct vm *vm)
{
	struct group *g = vm->group;
	const struct vmcomm_abi_slot *page;
	uint64_t incarnation, beat;

	if (vm->slot < 0 || !g->region || !vm->connected)
		return;
	page = vmcomm_layout_slot(region_layout(g->region), region_base(g->region),
				  (uint32_t)vm->slot);
	incarnation = vmcomm_group_observe(&g->table, region_layout(g->region),
					   region_base(g->region), (uint32_t)vm->slot);
	beat = vmcomm_load64(&page->heartbeat);
	vm->guest_state = vmcomm_load32(&page->state);
	if (incarnation != vm->incarnation) {
		if (vm->incarnation && incarnation)
			rebooted(vm);
		vm->incarnation = incarnation;
		vm->heartbeat_usec = manager_now_usec();
	}
	if (beat != vm->heartbeat) {
		vm->heartbeat = beat;
		vm->heartbeat_usec = manager_now_usec();
	}
}

/* VMs that have begun to run get their device as soon as they have a slot. */
static void give_devices(struct manager *m)
{
	static const struct op_callbacks nobody;
	struct vmcomm_error e = {0};
	struct op *op;
	struct vm *vm;

	for (vm = m->vms; vm; vm = vm->next) {
		if (!vm->appeared || vm_idle(vm, &e))
			continue;
		if (!vm->wanted || vm->refused || vm->connected)
			vm->appeared = false;
		else if (vm->slot >= 0) {
			vm->appeared = false;
			if (op_start(vm, OP_PLUG, &nobody, NULL, &op, &e))
				log_warning("%s", e.text);
		}
	}
}

static void vm_appeared(void *arg, const char *control)
{
	struct manager *m = arg;
	struct vm *vm = vm_find(m, control);

	if (!vm)
		return;
	vm->appeared = true;
	give_devices(m);
}

/* The hypervisor's services may start after us. */
static void watch_try(struct manager *m)
{
	int err;

	if (!m->backend || !m->backend->watch || m->watch)
		return;
	err = m->backend->watch(m->event, vm_appeared, m, &m->watch);
	if (err && !m->watch_said)
		log_warning("backend %s: cannot see VMs start: %s: are the hypervisor's services running "
			    "here? Trying again", m->backend->name, strerror(-err));
	m->watch_said = err;
}

static int round_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	struct manager *m = arg;
	struct group *g, *next;
	struct vm *vm;

	for (vm = m->vms; vm; vm = vm->next)
		manager_poll_vm(vm);
	for (g = m->groups; g; g = next) {
		next = g->next;
		group_maintain(g);
	}
	domains_round(m);
	watch_try(m);
	give_devices(m);
	sd_event_source_set_time_relative(s, 1000000);
	sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
	return 0;
}

static int config_groups(struct manager *m, struct vmcomm_error *e)
{
	struct config_group *c;
	int err;

	for (c = m->config.groups; c; c = c->next) {
		uint8_t key[VMCOMM_KEY_SIZE];

		err = vmcomm_key_load(c->key_file, key, e);
		if (!err)
			err = group_add(m, c->name, ORIGIN_CONFIG, key, c->key_file, c->slots,
					c->memory, c->chunk, c->policy, c->policy_count, NULL, e);
		vmcomm_key_wipe(key);
		if (err)
			return err;
	}
	return 0;
}

static void uuid_random(uint8_t uuid[16])
{
	uint64_t half[2] = {manager_random(), manager_random()};

	memcpy(uuid, half, 16);
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

/* A wrong key does not keep vmcommd from serving the others: the VM is refused, and says why. */
static void config_vm_check(struct manager *m, struct vm *vm, const char *key_file)
{
	struct vmcomm_error e = {0};
	uint8_t key[VMCOMM_KEY_SIZE];

	if (vmcomm_key_load(key_file, key, &e)) {
		vm->refused = true;
		snprintf(vm->problem, sizeof(vm->problem), "%.250s", e.text);
	} else if (!vmcomm_group_key_equal(key, vm->group->key, VMCOMM_KEY_SIZE)) {
		vm->refused = true;
		snprintf(vm->problem, sizeof(vm->problem),
			 "wrong key: vm '%s' may not join group '%s' (key file %.100s)", vm->name,
			 vm->group->name, key_file);
	}
	vmcomm_key_wipe(key);
	if (vm->refused)
		log_error("%s", vm->problem);
}

static int config_vms(struct manager *m, struct vmcomm_error *e)
{
	struct config_vm *c;
	struct group *g;
	struct vm *vm;
	int err;

	for (c = m->config.vms; c; c = c->next) {
		g = group_find(m, c->group);
		if (!g) {
			/* M12: the first VM of a group creates it, with its key. */
			uint8_t key[VMCOMM_KEY_SIZE];

			err = vmcomm_key_load(c->key_file, key, e);
			if (!err)
				err = group_add(m, c->group, ORIGIN_CONFIG, key, c->key_file, 0, 0,
						0, NULL, 0, &g, e);
			vmcomm_key_wipe(key);
			if (err)
				return err;
		}
		err = vm_new(m, c->name, g, ORIGIN_CONFIG, &vm, e);
		if (err)
			return err;
		if (c->has_uuid)
			memcpy(vm->uuid, c->uuid, 16);
		else
			uuid_random(vm->uuid);
		vm->uuid_given = c->has_uuid;
		vm->addr_count = c->addr_count;
		memcpy(vm->addr, c->addr, sizeof(vm->addr));
		snprintf(vm->qmp, sizeof(vm->qmp), "%s", c->qmp);
		snprintf(vm->bus, sizeof(vm->bus), "%s", c->bus);
		snprintf(vm->user, sizeof(vm->user), "%s", c->user);
		config_vm_check(m, vm, c->key_file);
	}
	return 0;
}

/* Regions that live already are taken over; the others are made when a member needs them. */
static void regions_find(struct manager *m)
{
	struct vmcomm_error e = {0};
	struct group *g;
	struct vm *vm;
	int err;

	for (g = m->groups; g; g = g->next) {
		err = group_need_region(g, false, &e);
		if (err && err != -ENOENT && err != -ECONNREFUSED) {
			snprintf(g->problem, sizeof(g->problem), "%.250s", e.text);
			log_error("group %s: %s", g->name, e.text);
		}
		if (!err)
			log_info("group %s: found its memory with keeper %u", g->name,
				 region_pid(g->region));
		if (!err && !group_members(g))
			g->dissolve = true;
	}
	for (vm = m->vms; vm; vm = vm->next) {
		if (!vm->wanted || vm->refused || vm->slot >= 0)
			continue;
		if (vm_admit(vm, &e)) {
			snprintf(vm->problem, sizeof(vm->problem), "%.250s", e.text);
			log_error("%s", e.text);
		}
	}
}

static int make_dir(const char *path, mode_t mode, struct vmcomm_error *e)
{
	if (mkdir(path, mode) && errno != EEXIST)
		return vmcomm_error_set(e, -errno, "cannot make %s: %s", path, strerror(errno));
	return 0;
}

/* Two of us in one state directory would take each other's VMs away. */
static int state_lock(struct manager *m, struct vmcomm_error *e)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/lock", m->config.state_dir);
	m->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (m->lock_fd < 0)
		return vmcomm_error_set(e, -errno, "cannot open %s: %s", path, strerror(errno));
	if (flock(m->lock_fd, LOCK_EX | LOCK_NB))
		return vmcomm_error_set(e, -EADDRINUSE, "another vmcommd uses %s",
					m->config.state_dir);
	return 0;
}

int manager_init(struct manager *m, sd_event *event, const char *config_file, bool optional,
		 struct vmcomm_error *e)
{
	int err;

	memset(m, 0, sizeof(*m));
	m->event = sd_event_ref(event);
	m->host_id_len = vmcomm_host_id(m->host_id);
	m->loading = true;
	m->lock_fd = -1;
	err = config_load(&m->config, config_file, optional, e);
	if (err)
		return err;
	if (!strcmp(m->config.backend, "xen")) {
#ifdef VMCOMM_XEN
		m->backend = &vmcomm_backend_xen;
#else
		return vmcomm_error_set(e, -EOPNOTSUPP, "%s: backend = xen: this vmcommd was built "
					"without the Xen backend", config_file);
#endif
	}
	if (!strcmp(m->config.backend, "kvm"))
		m->backend = &vmcomm_backend_kvm;
	err = make_dir(m->config.runtime_dir, 0755, e);
	if (!err)
		err = make_dir(m->config.state_dir, 0700, e);
	if (!err)
		err = state_lock(m, e);
	if (!err)
		err = config_groups(m, e);
	if (!err)
		err = config_vms(m, e);
	if (!err)
		err = state_load(m, e);
	if (err)
		return err;
	regions_find(m);
	m->loading = false;
	err = state_save(m);
	if (err)
		return vmcomm_error_set(e, err, "cannot write %s/state.json: %s",
					m->config.state_dir, strerror(-err));
	watch_try(m);
	err = sd_event_add_time_relative(event, &m->timer, CLOCK_MONOTONIC, 1000000, 50000,
					 round_ready, m);
	return err < 0 ? vmcomm_error_set(e, err, "no timer") : 0;
}

void manager_deinit(struct manager *m)
{
	while (m->vms)
		vm_free(m->vms);
	while (m->groups)
		group_free(m->groups);
	vmcomm_backend_job_free(m->watch);
	sd_event_source_disable_unref(m->timer);
	sd_event_unref(m->event);
	if (m->lock_fd >= 0)
		close(m->lock_fd);
	config_deinit(&m->config);
}
