/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * domains.h - domains of libvirt as members (M12); docs/libvirt.md
 *
 * Domains that run and say in their metadata that they belong to a group are members, and get their device
 * without being asked for. All of it is in response to what was seen of a domain, never to an event
 * itself.
 */
#ifndef VMCOMM_DAEMON_DOMAINS_H
#define VMCOMM_DAEMON_DOMAINS_H

#include "manager.h"

#include <errno.h>

#ifdef VMCOMM_LIBVIRT
#include "../../backends/kvm/libvirt-xml.h"

/* Connect to libvirt if the configuration wants it. Return: 0; negative errno and @e. */
int domains_init(struct manager *m, struct vmcomm_error *e);
void domains_free(struct manager *m);
bool domains_connected(const struct manager *m);
/* Once a second: what had to wait. */
void domains_round(struct manager *m);
/* Look at a domain that is no member. */
void domains_look(struct manager *m, const uint8_t uuid[16]);
/* By command it is no member any more: it stays so until it starts again. */
void domains_removed(const struct vm *vm);

/*
 * May this domain start? @done is called exactly once, perhaps before the return; @e->code 0: yes. Who
 * asked may go away meanwhile: then @done is called all the same.
 */
void domains_prepare(struct manager *m, const char *name, const uint8_t uuid[16],
		     const struct libvirt_member *member,
		     void (*done)(void *arg, const struct vmcomm_error *e), void *arg);
#else
static inline int domains_init(struct manager *m, struct vmcomm_error *e)
{
	return m->config.libvirt ? vmcomm_error_set(e, -EOPNOTSUPP, "%s: [libvirt]: this vmcommd was "
						    "built without libvirt", m->config.file) : 0;
}
static inline void domains_free(struct manager *m)
{
}
static inline bool domains_connected(const struct manager *m)
{
	return false;
}
static inline void domains_round(struct manager *m)
{
}
static inline void domains_look(struct manager *m, const uint8_t uuid[16])
{
}
static inline void domains_removed(const struct vm *vm)
{
}
#endif

#endif
