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

#include <stdbool.h>
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

/* Where a VM is, as its hypervisor on this host sees it. */
enum vmcomm_backend_place {
	VMCOMM_PLACE_ENDED,	/* there is no such VM any more */
	VMCOMM_PLACE_HERE,	/* it lives here, running or paused */
	VMCOMM_PLACE_INCOMING,	/* a shell that waits for it, or receives it */
	VMCOMM_PLACE_MIGRATING, /* it lives here and is being sent elsewhere */
	VMCOMM_PLACE_MOVED,	/* stopped after a migration that the hypervisor calls complete */
};

/* What shall become of a VM whose migration began here. */
enum vmcomm_backend_fate {
	VMCOMM_FATE_END,    /* it lives elsewhere: what stands still here is ended */
	VMCOMM_FATE_GO_ON,  /* it does not live elsewhere: it runs on here, sent completely or not */
	VMCOMM_FATE_CANCEL, /* it runs on here unless it was sent completely by now: then nothing is done */
};

/* What the operator may want of a migration. */
struct vmcomm_backend_migration {
	const char *uri;     /* where the destination takes it, in the hypervisor's own words */
	const char *connect; /* libvirt: the other host's libvirt, as seen from this one; Xen: command for
				the shell, whose input and output are the other host's receiver; or NULL */
	uint64_t bandwidth;  /* bytes per second; 0: the hypervisor's default */
	bool postcopy;	     /* libvirt: send the rest after the VM */
};

/* A job of one backend begins with this. */
struct vmcomm_backend_job {
	void (*free)(struct vmcomm_backend_job *job);
	void (*cancel)(struct vmcomm_backend_job *job); /* NULL: cannot be */
};

/* Those that a function does not mention may be NULL. */
struct vmcomm_backend_callbacks {
	void (*step)(void *arg, const char *text); /* progress for humans */
	/* @err: 0 or negative errno; @text: why, for humans, or an empty string */
	void (*done)(void *arg, int err, const char *text);
	void (*listening)(void *arg, const char *uri); /* incoming */
	void (*progress)(void *arg, uint64_t sent, uint64_t total); /* migrate: bytes */
	void (*place)(void *arg, enum vmcomm_backend_place place);  /* look: before done */
};

struct vmcomm_backend {
	const char *name;
	bool by_name; /* control is the VM's own name */
	bool by_host; /* migrates through vmcomm_backend_migration.connect, which only the operator knows */
	bool by_command;   /* the same, but a command, which has a default */
	bool no_bandwidth; /* cannot limit it */
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
	/*
	 * Tell when a VM begins to run here or gets its name, by what it is found by (control), and of
	 * all that run when this is called. NULL: VMs bring their device along when they start.
	 */
	int (*watch)(sd_event *event, void (*appeared)(void *arg, const char *control), void *arg,
		     struct vmcomm_backend_job **job);
	/*
	 * Destination of a migration. listening() says that it may begin, with a URI (an empty one: only
	 * the operator knows). done(0): the VM lives here; done(-EINPROGRESS): nothing waits for it;
	 * otherwise it will not come. @listen: address to listen at; NULL: only watch, do not listen.
	 */
	int (*incoming)(sd_event *event, const struct vmcomm_backend_vm *vm, const char *listen,
			const struct vmcomm_backend_callbacks *cb, void *arg,
			struct vmcomm_backend_job **job);
	/*
	 * Source of a migration, the device is detached. done(0): everything is sent and the VM stands
	 * still here; otherwise it runs on here, but nobody can say so after -ETIMEDOUT and -ECONNRESET:
	 * look() does. cancel() makes it -ECANCELED, or comes too late.
	 */
	int (*migrate)(sd_event *event, const struct vmcomm_backend_vm *vm,
		       const struct vmcomm_backend_migration *how,
		       const struct vmcomm_backend_callbacks *cb, void *arg,
		       struct vmcomm_backend_job **job);
	/*
	 * Where is it? Calls place(), then done(0), or only done(). A VM that lives here lacks nothing
	 * then that a migration which came to nothing took from it.
	 */
	int (*look)(sd_event *event, const struct vmcomm_backend_vm *vm,
		    const struct vmcomm_backend_callbacks *cb, void *arg,
		    struct vmcomm_backend_job **job);
	/* Let @fate come true; a migration that is under way is cancelled, but for VMCOMM_FATE_END. */
	int (*finish)(sd_event *event, const struct vmcomm_backend_vm *vm, enum vmcomm_backend_fate fate,
		      const struct vmcomm_backend_callbacks *cb, void *arg,
		      struct vmcomm_backend_job **job);
};

static inline void vmcomm_backend_job_free(struct vmcomm_backend_job *job)
{
	if (job)
		job->free(job);
}

extern const struct vmcomm_backend vmcomm_backend_kvm;
extern const struct vmcomm_backend vmcomm_backend_xen; /* if built with VMCOMM_XEN */

#endif
