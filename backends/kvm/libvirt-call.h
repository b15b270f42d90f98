/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libvirt-call.h - calls that block, made by threads; for the parts of the libvirt backend */
#ifndef VMCOMM_KVM_LIBVIRT_CALL_H
#define VMCOMM_KVM_LIBVIRT_CALL_H

#include <libvirt/libvirt.h>
#include <stdatomic.h>

#include "libvirt.h"

/* Embedded in what the call is about. */
struct libvirt_call {
	struct libvirt_call *next;
	/*
	 * In a thread. Must not touch what the loop uses but for what the call was given, and must
	 * come to its end soon when @given_up is set.
	 */
	void (*run)(struct libvirt_call *c);
	/* In the loop, always, exactly once; frees what the call is embedded in. */
	void (*done)(struct libvirt_call *c);
	bool lasts;	      /* it may take seconds or more */
	atomic_bool given_up; /* nobody waits for it any more */
};

/** libvirt_call_start() - Return: 0; -ENOTCONN: libvirt is not in use; -EBUSY: too many wait. */
int libvirt_call_start(struct libvirt_call *c);

/* -- for run() -- */

/**
 * libvirt_call_conn() - the connection; for a call that lasts its own, opened anew if it was lost
 *
 * Return: NULL: none. To be given back by virConnectClose().
 */
virConnectPtr libvirt_call_conn(void);

/**
 * libvirt_call_domain() - look a domain up
 * @err: -ENOTCONN, -ENOENT, -EIO; @why: a sentence
 *
 * Return: NULL, or the domain, to be given back by libvirt_domain_put().
 */
virDomainPtr libvirt_call_domain(const uint8_t uuid[16], int *err, char *why, size_t why_size);
void libvirt_domain_put(virDomainPtr dom);

/** libvirt_call_look() - state and XML of a domain that exists */
void libvirt_call_look(virDomainPtr dom, struct libvirt_domain *d);

/** libvirt_words() - what libvirt says about the last error of this thread, on one line */
const char *libvirt_words(char *buf, size_t size);

/** libvirt_report() - in the loop: domain() for one that a job has looked at */
void libvirt_report(const struct libvirt_domain *d);

/* Does the connection seem lost, after an error? The VM is then as it was, or not. */
bool libvirt_lost(void);

#endif
