/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvirt.h - vmcommd's connection to libvirt
 *
 * libvirt's client library blocks, so the loop never calls it. One thread runs libvirt's event loop, another
 * one makes quick calls, and each that may last has a thread and a connection of its own: libvirt
 * before 10.0 can lose the wake-up of a second call on one connection (it then waits for the next
 * keepalive), and libvirtd works on five calls of a connection at a time. What they find comes to the loop
 * through a queue. The functions here are for the loop, callbacks are called from it.
 */
#ifndef VMCOMM_KVM_LIBVIRT_H
#define VMCOMM_KVM_LIBVIRT_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "libvirt-xml.h"

#define LIBVIRT_LONG  64   /* calls that last, such as migrations */
#define LIBVIRT_QUEUE 4096 /* quick calls that wait */

enum libvirt_state {
	LIBVIRT_GONE,	/* it does not run */
	LIBVIRT_COMING, /* it is being started, restored or received */
	LIBVIRT_RUNS,	/* it lives here, running or paused */
};

/* A domain as it was when somebody looked. */
struct libvirt_domain {
	uint8_t uuid[16];
	int id; /* another one each time it starts */
	enum libvirt_state state;
	char problem[256];	       /* why there is no @xml though it runs */
	struct libvirt_domain_xml xml; /* if it runs and there is no problem */
};

struct libvirt_callbacks {
	/*
	 * Connected: looking(), then domain() for all that run, then connected(): others do not. All from
	 * one iteration of the loop. They may come again later.
	 */
	void (*looking)(void *arg);
	void (*connected)(void *arg);
	void (*disconnected)(void *arg, const char *why);
	/* Something happened to it, or the connection is new. */
	void (*domain)(void *arg, const struct libvirt_domain *d);
};

struct libvirt;

/**
 * libvirt_init() - connect, now and whenever the connection is lost
 * @uri: as in "qemu:///system"; copied
 *
 * Return: 0 or negative errno; -EBUSY: there is one already.
 */
int libvirt_init(struct libvirt **out, sd_event *event, const char *uri,
		 const struct libvirt_callbacks *cb, void *arg);

/**
 * libvirt_free() - no callback after it
 *
 * Threads that wait for libvirt end with the process, which then ends without destructors and exit handlers.
 */
void libvirt_free(struct libvirt *l);

bool libvirt_connected(const struct libvirt *l);

/** libvirt_look() - look at a domain; domain() is called, unless the connection is lost before */
void libvirt_look(struct libvirt *l, const uint8_t uuid[16]);

/*
 * @err: 0: @value are @len bytes, gone after the call; otherwise @why says what is wrong
 */
typedef void (*libvirt_secret_done)(void *arg, int err, const uint8_t *value, size_t len,
				    const char *why);

/**
 * libvirt_secret_get() - read a secret
 *
 * Return: 0: @done will be called, within 10 s; negative errno.
 */
int libvirt_secret_get(struct libvirt *l, const struct libvirt_secret *ref, libvirt_secret_done done,
		       void *arg);

#endif
