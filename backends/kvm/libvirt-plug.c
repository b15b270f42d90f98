// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * libvirt-plug.c - give a running domain its ivshmem device, and take it away again (M12)
 *
 * A job is one call in a thread. That the device is gone is read from the live definition, which libvirt
 * changes when QEMU's event comes; return codes of a detach mean little.
 */
#include <errno.h>
#include <jansson.h>
#include <libvirt/libvirt-qemu.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libvirt-backend.h"
#include "libvirt-call.h"
#include "libvirt-move.h"
#include "ports.h"

#define UNPLUG_SECONDS 20 /* for the guest to let go */
#define JOB_SECONDS    60 /* for everything; libvirt's keepalive is sooner */
#define POLL_USEC      100000

struct plug {
	struct libvirt_call call;
	struct plug_job *job; /* loop: NULL when it was given up */
	bool attach;
	uint8_t uuid[16];
	char socket[108];
	uint64_t size;
	unsigned int vectors;
	int err;
	char text[512];
	struct libvirt_domain d;
};

struct plug_job {
	struct vmcomm_backend_job base;
	struct vmcomm_backend_callbacks cb;
	void *arg;
	struct plug *plug;
	sd_event_source *timer;
};

static int failed(struct plug *p, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int failed(struct plug *p, int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(p->text, sizeof(p->text), fmt, args);
	va_end(args);
	p->err = err;
	return err;
}

/* -- in the thread -- */

/* Look at the domain. Return: 0; negative errno and the text. */
static int look(struct plug *p)
{
	char why[256];
	virDomainPtr dom;
	int err = 0;

	dom = libvirt_call_domain(p->uuid, &err, why, sizeof(why));
	if (!dom)
		return failed(p, err, "%s", why);
	libvirt_call_look(dom, &p->d);
	libvirt_domain_put(dom);
	if (p->d.state == LIBVIRT_GONE)
		return failed(p, -ENOENT, "the domain does not run");
	if (p->d.problem[0])
		return failed(p, -EIO, "%s", p->d.problem);
	return 0;
}

/* libvirtd may be restarted in the middle: what counts is whether the device is there in the end. */
static int unplug(struct plug *p)
{
	unsigned int polls, max = UNPLUG_SECONDS * 1000000 / POLL_USEC;
	bool asked = false;
	char words[256] = "";
	virDomainPtr dom;
	int err;

	if (look(p))
		return p->err;
	if (!p->d.xml.device)
		return failed(p, -ENODEV, "it has no device %s", LIBVIRT_SHMEM);
	for (polls = 0; polls < max && !atomic_load(&p->call.given_up); polls++) {
		dom = asked ? NULL : libvirt_call_domain(p->uuid, &err, words, sizeof(words));
		if (dom) {
			asked = !virDomainDetachDeviceAlias(dom, LIBVIRT_ALIAS, VIR_DOMAIN_AFFECT_LIVE);
			if (!asked)
				libvirt_words(words, sizeof(words));
			libvirt_domain_put(dom);
		}
		err = look(p);
		if (!err && !p->d.xml.device)
			return 0;
		if (err == -ENOENT)
			return err;
		/* Refused: by the guest, or another job is going on. Ask again, less often. */
		usleep(asked ? POLL_USEC : 5 * POLL_USEC);
		polls += asked ? 0 : 4;
	}
	return failed(p, -ETIMEDOUT, "the guest did not give it back within %d s (is it booting, paused "
		      "or crashed?)%s%s", UNPLUG_SECONDS, words[0] ? ": " : "", words);
}

/* Windows that only QEMU knows. */
static int ask_windows(struct plug *p, virDomainPtr dom, int *bus)
{
	char name[64] = "", why[400], *text = NULL, *end;
	json_t *root, *pci;
	int err;

	if (virDomainQemuMonitorCommand(dom, "{\"execute\":\"query-pci\"}", &text, 0))
		return failed(p, -EIO, "query-pci: %s", libvirt_words(why, sizeof(why)));
	root = json_loads(text, 0, NULL);
	free(text);
	pci = json_object_get(root, "return");
	err = kvm_port_choose(pci, p->size, name, sizeof(name), why, sizeof(why));
	json_decref(root);
	*bus = -1;
	if (!err && !strncmp(name, "pci.", 4))
		*bus = (int)strtol(name + 4, &end, 10);
	if (!err && *bus > 0 && *bus < LIBVIRT_BUSES && !*end)
		return 0;
	return failed(p, -ENODEV, "no free PCIe root port of it has a memory window of %llu MiB: give one "
		      "pref64-reserve of %llu MiB in its definition (docs/libvirt.md) and start it again",
		      (unsigned long long)(p->size >> 20), (unsigned long long)(2 * p->size >> 20));
}

static int plug_in(struct plug *p, virDomainPtr dom)
{
	char xml[512], why[400];
	int bus;

	if (libvirt_port_choose(&p->d.xml, p->size, &bus, why, sizeof(why)))
		return failed(p, -ENODEV, "%s", why);
	if (bus == -2 && ask_windows(p, dom, &bus))
		return p->err;
	if (libvirt_device_xml(p->socket, p->vectors, bus, xml, sizeof(xml)))
		return failed(p, -EINVAL, "the path %s is unfit for libvirt", p->socket);
	if (virDomainAttachDeviceFlags(dom, xml, VIR_DOMAIN_AFFECT_LIVE))
		return failed(p, libvirt_lost() ? -ECONNRESET : -EIO, "%s",
			      libvirt_words(why, sizeof(why)));
	return 0;
}

static void plug_run(struct libvirt_call *c)
{
	struct plug *p = (struct plug *)c;
	virDomainPtr dom;
	char why[256];

	if (!p->attach) {
		p->err = unplug(p);
		return;
	}
	if (look(p))
		return;
	/* One that is left over hangs on a slot of an earlier time. */
	if (p->d.xml.device && unplug(p))
		return;
	dom = libvirt_call_domain(p->uuid, &p->err, why, sizeof(why));
	if (!dom) {
		failed(p, p->err, "%s", why);
		return;
	}
	p->err = plug_in(p, dom);
	libvirt_domain_put(dom);
}

/* -- in the loop -- */

static void plug_done(struct libvirt_call *c)
{
	struct plug *p = (struct plug *)c;
	struct plug_job *j = p->job;

	if (j) {
		j->plug = NULL;
		if (!p->err)
			j->cb.step(j->arg, p->attach ? "device plugged in" : "device unplugged");
		j->cb.done(j->arg, p->err, p->err ? p->text : ""); /* frees the job */
	}
	free(p);
}

static void give_up(struct plug_job *j)
{
	if (!j->plug)
		return;
	atomic_store(&j->plug->call.given_up, true);
	j->plug->job = NULL;
	j->plug = NULL;
}

static int job_late(sd_event_source *s, uint64_t usec, void *arg)
{
	struct plug_job *j = arg;

	give_up(j);
	j->cb.done(j->arg, -ETIMEDOUT, "libvirt does not answer");
	return 0;
}

static void job_free(struct vmcomm_backend_job *base)
{
	struct plug_job *j = (struct plug_job *)base;

	give_up(j);
	sd_event_source_disable_unref(j->timer);
	free(j);
}

static int job_new(sd_event *event, const struct vmcomm_backend_vm *vm,
		   const struct vmcomm_backend_device *dev, const struct vmcomm_backend_callbacks *cb,
		   void *arg, struct vmcomm_backend_job **job)
{
	struct plug_job *j = calloc(1, sizeof(*j));
	struct plug *p = calloc(1, sizeof(*p));
	int err = j && p && vm->uuid ? 0 : -ENOMEM;

	if (!err)
		err = sd_event_add_time_relative(event, &j->timer, CLOCK_MONOTONIC,
						 JOB_SECONDS * 1000000ULL, 0, job_late, j);
	if (err < 0)
		goto fail;
	j->base.free = job_free;
	j->cb = *cb;
	j->arg = arg;
	p->call.run = plug_run;
	p->call.done = plug_done;
	p->call.lasts = true;
	p->attach = dev != NULL;
	memcpy(p->uuid, vm->uuid, 16);
	if (dev) {
		snprintf(p->socket, sizeof(p->socket), "%s", dev->socket);
		p->size = dev->size;
		p->vectors = dev->vectors;
	}
	err = libvirt_call_start(&p->call);
	if (err)
		goto fail;
	p->job = j;
	j->plug = p;
	*job = &j->base;
	return 0;
fail:
	if (j)
		sd_event_source_disable_unref(j->timer);
	free(j);
	free(p);
	return err;
}

static int plug_attach(sd_event *event, const struct vmcomm_backend_vm *vm,
		       const struct vmcomm_backend_device *dev,
		       const struct vmcomm_backend_callbacks *cb, void *arg,
		       struct vmcomm_backend_job **job)
{
	return job_new(event, vm, dev, cb, arg, job);
}

static int plug_detach(sd_event *event, const struct vmcomm_backend_vm *vm,
		       const struct vmcomm_backend_callbacks *cb, void *arg,
		       struct vmcomm_backend_job **job)
{
	return job_new(event, vm, NULL, cb, arg, job);
}

const struct vmcomm_backend vmcomm_backend_libvirt = {
	.name = "libvirt",
	.by_name = true,
	.by_host = true,
	.attach = plug_attach,
	.detach = plug_detach,
	.incoming = libvirt_incoming,
	.migrate = libvirt_migrate,
	.look = libvirt_where,
	.finish = libvirt_finish,
};
