// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * op.c - attach, detach and remove: operations on a VM that take time
 *
 *   attach:  [PLUG]  ->  GUEST
 *   plug:    [PLUG]
 *   detach:  LEAVE  ->  UNPLUG  ->  RELEASE
 *   remove:  as detach, then the VM is no member any more
 *
 * One operation per VM at a time. Each phase has a deadline; nothing depends on the guest's good will.
 * Whoever asked may go away: the operation goes on.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "domains.h"
#include "log.h"
#include "manager.h"

#define POLL_USEC	50000
#define RELEASE_SECONDS 5
#define LEAVE_RETRIES	3
#define LEAVE_ANSWER	1000000 /* usec in which a guest begins to leave, if it ever does */

enum phase { PHASE_PLUG, PHASE_GUEST, PHASE_LEAVE, PHASE_UNPLUG, PHASE_RELEASE, PHASE_FINISH };

struct op {
	struct vm *vm;
	enum op_kind kind;
	enum phase phase;
	struct op_callbacks cb; /* all NULL: who asked is gone */
	void *arg;
	struct vmcomm_backend_job *job;
	sd_event_source *timer;
	uint64_t deadline; /* usec */
	uint64_t asked;	   /* when the guest was told to leave */
	unsigned int retries;
	uint32_t slot; /* where the VM lived when it began */
	struct vmcomm_error result;
	char socket[CONFIG_PATH];
};

static void step(struct op *op, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void step(struct op *op, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_info("vm %s: %s", op->vm->name, text);
	if (op->cb.step)
		op->cb.step(op->arg, text);
}

static void set_deadline(struct op *op, uint32_t seconds)
{
	op->deadline = manager_now_usec() + seconds * 1000000ULL;
}

static void again_soon(struct op *op, uint64_t usec)
{
	sd_event_source_set_time_relative(op->timer, usec);
	sd_event_source_set_enabled(op->timer, SD_EVENT_ONESHOT);
}

static void op_free(struct op *op)
{
	vmcomm_backend_job_free(op->job);
	op->vm->op = NULL;
	sd_event_source_disable_unref(op->timer);
	free(op);
}

/* The result is delivered from the loop, whatever called. */
static void finish(struct op *op, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void finish(struct op *op, int err, const char *fmt, ...)
{
	va_list args;

	op->result.code = err;
	va_start(args, fmt);
	vsnprintf(op->result.text, sizeof(op->result.text), fmt, args);
	va_end(args);
	op->phase = PHASE_FINISH;
	again_soon(op, 0);
}

static void job_step(void *arg, const char *text)
{
	step(arg, "%s", text);
}

static void guest_wait(struct op *op)
{
	op->phase = PHASE_GUEST;
	set_deadline(op, op->vm->group->m->config.attach_timeout);
	step(op, "waiting for the guest's module");
	again_soon(op, 0);
}

/* "Not found" and the like of a backend are not about our own groups and VMs. */
static int backend_error(int err)
{
	return err == -ETIMEDOUT ? err : -EIO;
}

static void plug_done(void *arg, int err, const char *text)
{
	struct op *op = arg;

	/* @text belongs to the job. */
	if (err)
		finish(op, backend_error(err), "vm '%s': cannot plug the device in: %s", op->vm->name, text);
	else if (op->kind == OP_PLUG)
		finish(op, 0, "%s", "");
	else
		guest_wait(op);
	vmcomm_backend_job_free(op->job);
	op->job = NULL;
}

/* What the backend finds the VM by; NULL: it cannot. */
static const char *control(const struct vm *vm)
{
	struct vmcomm_backend_vm bvm;

	vm_backend_fill(vm, &bvm);
	return bvm.control;
}

static int attach_begin(struct op *op, struct vmcomm_error *e)
{
	static const struct vmcomm_backend_callbacks cbs = {.step = job_step,
							       .done = plug_done};
	struct vm *vm = op->vm;
	struct manager *m = vm->group->m;
	struct vmcomm_backend_device dev;
	struct vmcomm_backend_vm bvm;
	char path[256];
	int err;

	if (vm->refused)
		return vmcomm_error_set(e, -EKEYREJECTED, "%s", vm->problem);
	vm->wanted = true;
	err = vm_admit(vm, e);
	if (err)
		return err;
	state_save(m);
	if (!vm->group->region)
		return vmcomm_error_set(e, -ENOTCONN, "vm '%s': the memory of group '%s' is gone: try "
					"again in a second", vm->name, vm->group->name);
	op->slot = (uint32_t)vm->slot;
	if (vm->connected) {
		step(op, "has its device already, in slot %d", vm->slot);
		/* A vmcommd that was killed may have asked it to leave. */
		if (vm->group->table.slot[vm->slot].state == VMCOMM_SLOT_LEAVING)
			vm_set_state(vm, VMCOMM_SLOT_LIVE);
		if (op->kind == OP_PLUG)
			finish(op, 0, "%s", "");
		else
			guest_wait(op);
		return 0;
	}
	if (!control(vm)) {
		vm_socket_path(vm, path, sizeof(path));
		return vmcomm_error_set(e, -EOPNOTSUPP, "vm '%s' has no QMP socket (qmp=): start its "
					"QEMU with -chardev socket,id=vmcomm0c,path=%s -device "
					"ivshmem-doorbell,id=vmcomm0,chardev=vmcomm0c,vectors=%d",
					vm->name, path, VMCOMM_VECTORS);
	}
	err = region_slot_path(vm->group->region, op->slot, op->socket, sizeof(op->socket));
	if (err)
		return vmcomm_error_set(e, err, "vm '%s': the socket's path is too long", vm->name);
	vm_backend_fill(vm, &bvm);
	dev.socket = op->socket;
	dev.size = region_layout(vm->group->region)->size;
	dev.vectors = VMCOMM_VECTORS;
	op->phase = PHASE_PLUG;
	step(op, "slot %u of group %s, location %016llx", op->slot, vm->group->name,
	     (unsigned long long)vm->number);
	err = vm_backend(vm)->attach(m->event, &bvm, &dev, &cbs, op, &op->job);
	if (err)
		return vmcomm_error_set(e, err, "vm '%s': cannot start to attach: %s", vm->name,
					strerror(-err));
	return 0;
}

static void release_wait(struct op *op)
{
	op->phase = PHASE_RELEASE;
	set_deadline(op, RELEASE_SECONDS);
	again_soon(op, 0);
}

static void detach_failed(struct op *op, int err, const char *text)
{
	struct vm *vm = op->vm;

	/* The device is still there and the guest can use it again. */
	vm->wanted = true;
	if (vm->slot >= 0)
		vm_set_state(vm, VMCOMM_SLOT_LIVE);
	state_save(vm->group->m);
	finish(op, err, "vm '%s' keeps its device: %s", vm->name, text);
}

static void unplug_done(void *arg, int err, const char *text)
{
	struct op *op = arg;

	/* A QEMU that ended meanwhile has no device any more, whatever the backend says. */
	if (err && op->vm->slot >= 0)
		detach_failed(op, backend_error(err), text);
	else
		release_wait(op);
	vmcomm_backend_job_free(op->job);
	op->job = NULL;
}

static void unplug_begin(struct op *op)
{
	static const struct vmcomm_backend_callbacks cbs = {.step = job_step,
							       .done = unplug_done};
	struct vm *vm = op->vm;
	struct manager *m = vm->group->m;
	struct vmcomm_backend_vm bvm;
	int err;

	if (!control(vm)) {
		/* Only for OP_REMOVE: the member goes, its QEMU keeps an empty shell. */
		step(op, "QEMU %u keeps the device until it ends: vmcomm has no QMP socket for it",
		     vm->qemu_pid);
		vm_lost_slot(vm);
		release_wait(op);
		return;
	}
	op->phase = PHASE_UNPLUG;
	vm_backend_fill(vm, &bvm);
	err = vm_backend(vm)->detach(m->event, &bvm, &cbs, op, &op->job);
	if (err)
		detach_failed(op, err, strerror(-err));
}

static int detach_begin(struct op *op, struct vmcomm_error *e)
{
	struct vm *vm = op->vm;
	struct manager *m = vm->group->m;
	int err, slot;

	if (vm->slot < 0 || !vm->connected) {
		if (vm->slot >= 0) {
			slot = vm->slot;
			err = vm_withdraw(vm);
			if (err)
				return vmcomm_error_set(e, err, "vm '%s': slot %d does not close: %s",
							vm->name, slot, strerror(-err));
			step(op, "slot %d is free again", slot);
		}
		vm->wanted = false;
		state_save(m);
		finish(op, 0, "%s", "");
		return 0;
	}
	if (op->kind == OP_DETACH && !control(vm))
		return vmcomm_error_set(e, -EOPNOTSUPP, "vm '%s' has no QMP socket (qmp=): unplug the "
					"device in QEMU %u yourself (device_del, then chardev-remove)",
					vm->name, vm->qemu_pid);
	op->slot = (uint32_t)vm->slot;
	vm->wanted = false;
	state_save(m);
	err = vm_set_state(vm, VMCOMM_SLOT_LEAVING);
	if (err) {
		vm->wanted = true;
		return vmcomm_error_set(e, err, "vm '%s': the region keeper refuses: %s", vm->name,
					strerror(-err));
	}
	op->phase = PHASE_LEAVE;
	set_deadline(op, m->config.leave_timeout);
	op->asked = manager_now_usec();
	if (vm->incarnation)
		step(op, "asked the guest to leave shared memory");
	again_soon(op, 0);
	return 0;
}

static void leave_poll(struct op *op)
{
	struct vm *vm = op->vm;
	const struct vmcomm_abi_slot *s;
	uint32_t state;

	if (vm->slot < 0) {
		release_wait(op);
		return;
	}
	s = vmcomm_layout_slot(region_layout(vm->group->region), region_base(vm->group->region),
			       (uint32_t)vm->slot);
	state = vmcomm_load_acquire32(&s->state);
	if (!vm->incarnation || state == VMCOMM_VM_DOWN) {
		unplug_begin(op);
	} else if (state == VMCOMM_VM_LEFT) {
		step(op, "the guest has left shared memory");
		unplug_begin(op);
	} else if (state == VMCOMM_VM_LEAVE_FAILED && op->retries < LEAVE_RETRIES) {
		/* A peer stood still in the middle of its own leave: once more. */
		op->retries++;
		vm_set_state(vm, VMCOMM_SLOT_LIVE);
		vm_set_state(vm, VMCOMM_SLOT_LEAVING);
		step(op, "the guest could not leave, asked again");
		again_soon(op, 1000000);
	} else if (manager_now_usec() >= op->deadline) {
		step(op, "the guest did not say that it left: unplugging all the same");
		unplug_begin(op);
	} else if (state == VMCOMM_VM_UP && manager_now_usec() >= op->asked + LEAVE_ANSWER) {
		/* Its driver leaves when the device is taken away. */
		unplug_begin(op);
	} else {
		again_soon(op, POLL_USEC);
	}
}

static void guest_poll(struct op *op)
{
	struct vm *vm = op->vm;
	const struct vmcomm_abi_slot *s;

	if (vm->slot != (int)op->slot || !vm->group->region) {
		finish(op, -ECONNRESET, "vm '%s': its QEMU let go of the device", vm->name);
		return;
	}
	if (vm->connected) {
		manager_poll_vm(vm);
		s = vmcomm_layout_slot(region_layout(vm->group->region),
				       region_base(vm->group->region), op->slot);
		if (vm->incarnation && vmcomm_load32(&s->state) == VMCOMM_VM_UP &&
		    vmcomm_load64(&s->generation) == vm->generation) {
			step(op, "the guest's module is up");
			finish(op, 0, "%s", "");
			return;
		}
	}
	if (manager_now_usec() < op->deadline) {
		again_soon(op, POLL_USEC);
		return;
	}
	finish(op, -ETIME, "vm '%s' has its device, but no vmcomm module answered within %u s: load it "
	       "in the guest (modprobe vmcomm) and look at the guest's log; it joins as soon as it "
	       "is there", vm->name, vm->group->m->config.attach_timeout);
}

static void release_poll(struct op *op)
{
	struct vm *vm = op->vm;

	if (vm->slot < 0) {
		if (vm->group->region)
			step(op, "slot %u is in quarantine until its peers let go", op->slot);
		finish(op, 0, "%s", "");
	} else if (manager_now_usec() >= op->deadline) {
		detach_failed(op, -ETIMEDOUT, "QEMU does not close its connection to the slot");
	} else {
		again_soon(op, POLL_USEC);
	}
}

/* The VM is no member any more; the last one of a group takes the memory with it. */
static void remove_member(struct op *op)
{
	struct vm *vm = op->vm, *other;
	struct group *g = vm->group;
	bool last = true;

	for (other = g->m->vms; other; other = other->next)
		if (other != vm && other->group == g && (other->wanted || other->slot >= 0))
			last = false;
	vm->wanted = false;
	vm_unlink(vm);
	step(op, "is no member of group %s any more", g->name);
	if (vm->origin == ORIGIN_CONFIG)
		step(op, "its section in %s stays: vm attach lets it in again",
		     g->m->config.file);
	if (last) {
		g->dissolve = true;
		if (group_dissolve_try(g))
			step(op, "was the last one: the group's memory is freed");
		else
			step(op, "was the last one: its QEMU still holds the group's memory");
	}
}

static void deliver(struct op *op)
{
	struct vm *vm = op->vm;
	struct op_callbacks cb = op->cb;
	struct vmcomm_error result = op->result;
	struct group *g = vm->group;
	struct manager *m = g->m;
	bool gone = op->kind == OP_REMOVE && !result.code;
	void *arg = op->arg;

	if (gone) {
		domains_removed(vm);
		remove_member(op);
	} else {
		snprintf(vm->problem, sizeof(vm->problem), "%s", result.text);
	}
	if (result.code)
		log_warning("%s", result.text);
	op_free(op);
	if (gone) {
		if (vm->origin != ORIGIN_CONFIG)
			vm_free(vm);
		if (g->origin == ORIGIN_FIRST_VM && !group_members(g) && !g->region)
			group_remove(g, NULL);
		state_save(m);
	}
	if (cb.done)
		cb.done(arg, &result);
}

static void run(struct op *op)
{
	switch (op->phase) {
	case PHASE_GUEST:
		guest_poll(op);
		break;
	case PHASE_LEAVE:
		leave_poll(op);
		break;
	case PHASE_RELEASE:
		release_poll(op);
		break;
	case PHASE_FINISH:
		deliver(op);
		break;
	case PHASE_PLUG:
	case PHASE_UNPLUG:
		break; /* the backend says when */
	}
}

static int timer_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	run(arg);
	return 0;
}

void op_vm_changed(struct vm *vm)
{
	/* Not at once: the caller is in the middle of something. */
	if (vm->op && vm->op->phase != PHASE_PLUG && vm->op->phase != PHASE_UNPLUG)
		again_soon(vm->op, 0);
}

bool op_joinable(const struct vm *vm, enum op_kind kind)
{
	return vm->op && vm->op->kind == OP_PLUG && vm->op->phase == PHASE_PLUG && !vm->op->cb.done &&
	       (kind == OP_ATTACH || kind == OP_PLUG);
}

int op_start(struct vm *vm, enum op_kind kind, const struct op_callbacks *cb, void *arg,
	     struct op **out, struct vmcomm_error *e)
{
	struct op *op;
	int err;

	if (op_joinable(vm, kind)) {
		vm->op->kind = kind;
		vm->op->cb = *cb;
		vm->op->arg = arg;
		*out = vm->op;
		return 0;
	}
	if (vm->op)
		return vmcomm_error_set(e, -EBUSY, "vm '%s': another operation is going on: wait for "
					"it to end", vm->name);
	op = calloc(1, sizeof(*op));
	if (!op)
		return vmcomm_error_set(e, -ENOMEM, "out of memory");
	op->vm = vm;
	op->kind = kind;
	op->cb = *cb;
	op->arg = arg;
	err = sd_event_add_time_relative(vm->group->m->event, &op->timer, CLOCK_MONOTONIC, 0, 1000,
					 timer_ready, op);
	if (err < 0) {
		free(op);
		return vmcomm_error_set(e, err, "no timer");
	}
	sd_event_source_set_enabled(op->timer, SD_EVENT_OFF);
	vm->op = op;
	vm->problem[0] = vm->refused ? vm->problem[0] : 0;
	err = kind == OP_ATTACH || kind == OP_PLUG ? attach_begin(op, e) : detach_begin(op, e);
	if (err) {
		op_free(op);
		return err;
	}
	*out = op;
	return 0;
}

void op_forget_caller(struct op *op)
{
	memset(&op->cb, 0, sizeof(op->cb));
}

void op_abort(struct vm *vm)
{
	struct vmcomm_error e = {.code = -ECANCELED, .text = "vmcommd ends"};
	struct op *op = vm->op;

	if (!op)
		return;
	if (op->cb.done)
		op->cb.done(op->arg, &e);
	op_free(op);
}
