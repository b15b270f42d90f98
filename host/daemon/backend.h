/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * backend.h - what vmcommd asks of a hypervisor
 *
 * Everything is asynchronous: a job is started, reports its steps, and ends by calling done() exactly
 * once, from the event loop and never before the function that started it has returned. A job that
 * is freed before is given up without done(); what it did so far stays.
 *
 * KVM with plain QEMU is in backends/kvm (QMP); libvirt attaches the same device through the domain,
 * Xen writes the frontend's nodes into xenstore: "device" is whatever gives the guest's module
 * access to the slot.
 */
#ifndef VMCOMM_DAEMON_BACKEND_H
#define VMCOMM_DAEMON_BACKEND_H

#include <stdint.h>
#include <systemd/sd-event.h>

/* The VM as the backend needs it. Strings belong to the caller and live until the job ends. */
struct vmcomm_backend_vm {
	const char *name;
	const uint8_t *uuid; /* what the hypervisor must know the VM as; NULL: do not check */
	const char *control; /* KVM: path of the QMP socket; libvirt: domain; Xen: domain */
	const char *bus;     /* where to plug the device; NULL: choose */
};

/* The device to give it. */
struct vmcomm_backend_device {
	const char *socket; /* KVM: the slot's path */
	uint64_t size;	    /* of the region in bytes */
	unsigned int vectors;
};

struct vmcomm_backend_job;

struct vmcomm_backend_callbacks {
	void (*step)(void *arg, const char *text); /* progress for humans */
	/* @err: 0 or negative errno; @text: why, for humans, or an empty string */
	void (*done)(void *arg, int err, const char *text);
};

struct vmcomm_backend {
	const char *name;
	/*
	 * Give the running VM its device. -EEXIST is no error that a backend returns: a device of
	 * ours that is left over is removed first. When it fails, nothing is left in the VM.
	 */
	int (*attach)(sd_event *event, const struct vmcomm_backend_vm *vm,
		      const struct vmcomm_backend_device *dev,
		      const struct vmcomm_backend_callbacks *cb, void *arg,
		      struct vmcomm_backend_job **job);
	/*
	 * Take the device away, and end only when the hypervisor says that it is gone. -ENODEV: the
	 * VM has none; -ETIMEDOUT: the guest does not let go of it, it is still there.
	 */
	int (*detach)(sd_event *event, const struct vmcomm_backend_vm *vm,
		      const struct vmcomm_backend_callbacks *cb, void *arg,
		      struct vmcomm_backend_job **job);
	void (*job_free)(struct vmcomm_backend_job *job);
};

extern const struct vmcomm_backend vmcomm_backend_kvm;

#endif
