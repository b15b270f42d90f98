// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * kvm.c - give a running QEMU its ivshmem device, and take it away again (M12)
 *
 * The monitor is opened for one job and closed after it, so that other programs can use the socket in
 * between; that a QEMU ended is seen by the region keeper. The ids are ours: VMCOMM_DEVICE and
 * VMCOMM_CHARDEV. Where the operator put the device on the command line it is found by its type.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../host/daemon/backend.h"
#include "../job.h"
#include "move.h"
#include "ports.h"
#include "qmp.h"

#define VMCOMM_DEVICE  "vmcomm0"
#define VMCOMM_CHARDEV "vmcomm0c"
#define IVSHMEM_TYPE   "child<ivshmem-doorbell>"

#define ANSWER_SECONDS 10 /* for each command */
#define UNPLUG_SECONDS 20 /* for the guest to let go */

struct plug {
	struct vmcomm_backend_job base;
	struct vmcomm_backend_vm vm;
	struct vmcomm_backend_device dev;
	struct vmcomm_backend_callbacks cb;
	void *arg;
	struct qmp *qmp;
	struct job_outcome out;
	bool attach;	  /* else detach */
	bool removing;	  /* device_del is sent */
	bool deleted;	  /* DEVICE_DELETED came */
	bool confirmed;	  /* device_del was answered */
	char device[128]; /* to be removed */
	char chardev[128];
	char bus[64];
};

static void call(struct plug *j, const char *command, json_t *args, qmp_reply reply)
{
	int err = qmp_call(j->qmp, command, args, reply);

	if (err)
		job_end(&j->out, err, "cannot send %s to QEMU: %s", command, strerror(-err));
	else
		job_timer(&j->out, ANSWER_SECONDS * 1000000ULL);
}

/* -- attach -- */

static void attach_undone(void *arg, json_t *result, const char *error)
{
	struct plug *j = arg;

	/* j->out.text holds why; whether the chardev went away matters little. */
	job_end(&j->out, -EIO, NULL);
}

static void attach_device_added(void *arg, json_t *result, const char *error)
{
	struct plug *j = arg;

	if (result) {
		j->cb.step(j->arg, "device plugged in");
		job_end(&j->out, 0, "%s", "");
		return;
	}
	snprintf(j->out.text, sizeof(j->out.text), "device_add on bus %s: %s", j->bus, error);
	call(j, "chardev-remove", json_pack("{s:s}", "id", VMCOMM_CHARDEV), attach_undone);
}

static void attach_chardev_added(void *arg, json_t *result, const char *error)
{
	struct plug *j = arg;

	if (!result) {
		job_end(&j->out, -EIO, "chardev-add: %s", error);
		return;
	}
	call(j, "device_add",
	     json_pack("{s:s, s:s, s:s, s:i, s:s}", "driver", "ivshmem-doorbell", "id",
		       VMCOMM_DEVICE, "chardev", VMCOMM_CHARDEV, "vectors", (int)j->dev.vectors,
		       "bus", j->bus),
	     attach_device_added);
}

static void attach_chardev_add(struct plug *j)
{
	j->cb.step(j->arg, "plugging the device in");
	call(j, "chardev-add",
	     json_pack("{s:s, s:{s:s, s:{s:{s:s, s:{s:s}}, s:b}}}", "id", VMCOMM_CHARDEV, "backend",
		       "type", "socket", "data", "addr", "type", "unix", "data", "path",
		       j->dev.socket, "server", 0),
	     attach_chardev_added);
}

static void attach_pci_known(void *arg, json_t *result, const char *error)
{
	struct plug *j = arg;
	char why[400];

	if (!result) {
		job_end(&j->out, -EIO, "query-pci: %s", error);
		return;
	}
	if (kvm_port_choose(result, j->dev.size, j->bus, sizeof(j->bus), why, sizeof(why))) {
		job_end(&j->out, -ENODEV, "%s", why);
		return;
	}
	attach_chardev_add(j);
}

static void attach_bus(struct plug *j)
{
	if (j->vm.bus) {
		snprintf(j->bus, sizeof(j->bus), "%s", j->vm.bus);
		attach_chardev_add(j);
	} else {
		call(j, "query-pci", NULL, attach_pci_known);
	}
}

/* -- detach, also of what an earlier attach left behind -- */

static void removed(struct plug *j)
{
	if (j->attach) {
		attach_bus(j);
		return;
	}
	j->cb.step(j->arg, "device unplugged");
	job_end(&j->out, 0, "%s", "");
}

static void chardev_removed(void *arg, json_t *result, const char *error)
{
	struct plug *j = arg;

	if (!result && !strstr(error, "not found")) {
		job_end(&j->out, -EIO, "chardev-remove %s: %s", j->chardev, error);
		return;
	}
	removed(j);
}

static void device_gone(struct plug *j)
{
	/* The event may come before the reply of device_del: one command at a time. */
	if (!j->deleted || !j->confirmed || !j->removing)
		return;
	j->removing = false;
	call(j, "chardev-remove", json_pack("{s:s}", "id", j->chardev), chardev_removed);
}

static void device_del_replied(void *arg, json_t *result, const char *error)
{
	struct plug *j = arg;

	j->confirmed = true;
	if (!result && !strstr(error, "in the process of unplug")) {
		job_end(&j->out, -EIO, "device_del %s: %s", j->device, error);
		return;
	}
	job_timer(&j->out, UNPLUG_SECONDS * 1000000ULL);
	device_gone(j);
}

static void device_del(struct plug *j)
{
	j->cb.step(j->arg, "unplugging the device");
	j->removing = true;
	j->deleted = j->confirmed = false;
	call(j, "device_del", json_pack("{s:s}", "id", j->device), device_del_replied);
}

static void chardev_known(void *arg, json_t *result, const char *error)
{
	struct plug *j = arg;
	const char *name = json_string_value(result);

	snprintf(j->chardev, sizeof(j->chardev), "%s", name ? name : VMCOMM_CHARDEV);
	device_del(j);
}

static void devices_known(void *arg, json_t *result, const char *error)
{
	struct plug *j = arg;
	char path[160], other[128] = "";
	const char *name, *type;
	unsigned int found = 0;
	bool ours = false;
	json_t *row;
	size_t i;

	if (!result) {
		job_end(&j->out, -EIO, "qom-list: %s", error);
		return;
	}
	json_array_foreach (result, i, row) {
		name = json_string_value(json_object_get(row, "name"));
		type = json_string_value(json_object_get(row, "type"));
		if (!name || !type || strcmp(type, IVSHMEM_TYPE) || strlen(name) >= sizeof(other))
			continue;
		if (!strcmp(name, VMCOMM_DEVICE))
			ours = true;
		snprintf(other, sizeof(other), "%s", name);
		found++;
	}
	if (j->attach && !ours) {
		attach_bus(j);
		return;
	}
	if (!ours && found != 1) {
		job_end(&j->out, -ENODEV,
			found ? "it has several ivshmem devices and none is called " VMCOMM_DEVICE
			      : "it has no ivshmem device");
		return;
	}
	snprintf(j->device, sizeof(j->device), "%s", ours ? VMCOMM_DEVICE : other);
	if (j->attach)
		j->cb.step(j->arg, "a device of an earlier time is still there");
	snprintf(path, sizeof(path), "/machine/peripheral/%s", j->device);
	call(j, "qom-get", json_pack("{s:s, s:s}", "path", path, "property", "chardev"),
	     chardev_known);
}

static void look(struct plug *j)
{
	call(j, "qom-list", json_pack("{s:s}", "path", "/machine/peripheral"), devices_known);
}

static void uuid_known(void *arg, json_t *result, const char *error)
{
	struct plug *j = arg;
	char text[512];

	if (kvm_uuid_check(&j->vm, json_string_value(json_object_get(result, "UUID")), text,
			   sizeof(text)))
		job_end(&j->out, -EINVAL, "%s", text);
	else
		look(j);
}

/* -- monitor and life of a job -- */

static void monitor_ready(void *arg)
{
	struct plug *j = arg;

	if (j->vm.uuid)
		call(j, "query-uuid", NULL, uuid_known);
	else
		look(j);
}

static void monitor_event(void *arg, const char *name, json_t *data)
{
	struct plug *j = arg;
	const char *device = json_string_value(json_object_get(data, "device"));

	if (!j->removing || !device || strcmp(device, j->device))
		return;
	if (!strcmp(name, "DEVICE_DELETED")) {
		j->deleted = true;
		device_gone(j);
	} else if (!strcmp(name, "DEVICE_UNPLUG_GUEST_ERROR")) {
		job_end(&j->out, -EIO, "the guest refuses to give the device back");
	}
}

static void monitor_closed(void *arg, const char *text)
{
	struct plug *j = arg;

	job_end(&j->out, -ECONNRESET, "%s", text);
}

static int timer_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	struct plug *j = arg;

	if (!j->out.ended && j->removing && j->confirmed)
		job_end(&j->out, -ETIMEDOUT,
			"the guest did not give it back within %d s (is it booting, paused "
			"or crashed?)",
			UNPLUG_SECONDS);
	else if (!j->out.ended)
		job_end(&j->out, -ETIMEDOUT,
			"no answer from QEMU at %s: does another program use this socket? "
			"Give QEMU a second one (-qmp)",
			j->vm.control);
	else
		j->cb.done(j->arg, j->out.result, j->out.text); /* frees the job */
	return 0;
}

static void job_free(struct vmcomm_backend_job *job)
{
	struct plug *j = (struct plug *)job;

	qmp_free(j->qmp);
	sd_event_source_disable_unref(j->out.timer);
	free(j);
}

static int job_new(sd_event *event, const struct vmcomm_backend_vm *vm,
		   const struct vmcomm_backend_callbacks *cb, void *arg, struct plug **job)
{
	static const struct qmp_callbacks cbs = {monitor_ready, monitor_event, monitor_closed};
	struct plug *j = calloc(1, sizeof(*j));
	int err;

	if (!j)
		return -ENOMEM;
	j->base.free = job_free;
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
	if (err)
		job_end(&j->out, err, "cannot connect to the QMP socket %s: %s", vm->control,
			strerror(-err));
	*job = j;
	return 0;
}

static int kvm_attach(sd_event *event, const struct vmcomm_backend_vm *vm,
		      const struct vmcomm_backend_device *dev,
		      const struct vmcomm_backend_callbacks *cb, void *arg,
		      struct vmcomm_backend_job **job)
{
	struct plug *j;
	int err = job_new(event, vm, cb, arg, &j);

	if (err)
		return err;
	j->attach = true;
	j->dev = *dev;
	*job = &j->base;
	return 0;
}

static int kvm_detach(sd_event *event, const struct vmcomm_backend_vm *vm,
		      const struct vmcomm_backend_callbacks *cb, void *arg,
		      struct vmcomm_backend_job **job)
{
	struct plug *j;
	int err = job_new(event, vm, cb, arg, &j);

	if (!err)
		*job = &j->base;
	return err;
}

const struct vmcomm_backend vmcomm_backend_kvm = {
	.name = "kvm",
	.attach = kvm_attach,
	.detach = kvm_detach,
	.incoming = kvm_incoming,
	.migrate = kvm_migrate,
	.look = kvm_look,
	.finish = kvm_finish,
};
