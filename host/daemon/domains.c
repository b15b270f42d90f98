// SPDX-License-Identifier: GPL-2.0-or-later
/* domains.c - domains of libvirt as members (M12) */
#include "domains.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../backends/kvm/libvirt.h"
#include "../common/addr.h"
#include "log.h"

#define REMOVED_MAX 256

struct domains {
	struct manager *m;
	struct libvirt *libvirt;
	bool up;   /* was connected once */
	bool said; /* why there is no connection */
	struct check *checks; /* those that wait for a secret */
	/* lives of domains that were removed by command; the oldest is overwritten */
	struct {
		uint8_t uuid[16];
		int id;
	} removed[REMOVED_MAX];
	unsigned int removed_next;
};

/* May a domain with this member element be a member? */
struct check {
	struct check *next;
	struct manager *m;
	char name[CONFIG_NAME];
	uint8_t uuid[16];
	struct libvirt_member member;
	bool join; /* make it one; otherwise only tell */
	int id;	   /* join */
	int64_t uid;
	void (*done)(void *arg, const struct vmcomm_error *e);
	void *arg;
};

/* -- the check -- */

static void check_end(struct check *c, const struct vmcomm_error *e)
{
	struct check **at;

	for (at = &c->m->domains->checks; *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			break;
		}
	if (c->done)
		c->done(c->arg, e);
	free(c);
}

/* The value of a secret as a key: raw, or in hexadecimal, perhaps with a newline. */
static int key_from(const uint8_t *value, size_t len, uint8_t key[VMCOMM_KEY_SIZE])
{
	char hex[VMCOMM_KEY_HEX + 1];
	int err;

	if (len == VMCOMM_KEY_SIZE) {
		memcpy(key, value, VMCOMM_KEY_SIZE);
		return 0;
	}
	if (len != VMCOMM_KEY_HEX && !(len == VMCOMM_KEY_HEX + 1 && value[VMCOMM_KEY_HEX] == '\n'))
		return -EINVAL;
	memcpy(hex, value, VMCOMM_KEY_HEX);
	hex[VMCOMM_KEY_HEX] = 0;
	err = vmcomm_key_parse(hex, key);
	explicit_bzero(hex, sizeof(hex));
	return err;
}

static void secret_name(const struct libvirt_secret *s, char *buf, size_t size)
{
	char text[VMCOMM_UUID_STRLEN];

	if (s->by_uuid)
		snprintf(buf, size, "%s", vmcomm_uuid_format(s->uuid, text));
	else
		snprintf(buf, size, "%s '%s'", s->type, s->usage);
}

/* @key: NULL: the domain names none. Return: its group, which may be new; NULL and @e. */
static struct group *check_group(struct check *c, const uint8_t *key, struct vmcomm_error *e)
{
	struct group *g = group_find(c->m, c->member.group);
	char secret[160];

	if (!g && !key) {
		vmcomm_error_set(e, -ENOENT, "there is no group '%s' on this host, and domain '%s' names "
				 "no secret with its key: define it (vmcommctl group add %s)",
				 c->member.group, c->name, c->member.group);
		return NULL;
	}
	if (g && key && !vmcomm_group_key_equal(key, g->key, VMCOMM_KEY_SIZE)) {
		secret_name(&c->member.secret, secret, sizeof(secret));
		vmcomm_error_set(e, -EKEYREJECTED, "wrong key: domain '%s' may not join group '%s': the value "
				 "of secret %s is not the key with which the group was created", c->name,
				 g->name, secret);
		return NULL;
	}
	if (vm_conflict(c->m, g, vm_find(c->m, c->name), c->uuid,
			(const uint8_t (*)[16])c->member.addr, c->member.addr_count, e))
		return NULL;
	/* M12: the first VM of a group creates it, with its key. */
	if (!g && c->join)
		group_add(c->m, c->member.group, ORIGIN_FIRST_VM, key, NULL, 0, 0, 0, NULL, 0, &g, e);
	return g;
}

static void join(struct check *c, struct group *g, const struct vmcomm_error *refused)
{
	struct manager *m = c->m;
	struct vmcomm_error e = {0};
	struct vm *vm = vm_find(m, c->name);

	if (vm && !vm->libvirt)
		return;
	if (!vm && vm_new(m, c->name, g, ORIGIN_COMMAND, &vm, &e)) {
		log_error("%s", e.text);
		return;
	}
	vm->libvirt = true;
	vm->seen = true;
	memcpy(vm->uuid, c->uuid, 16);
	vm->uuid_given = true;
	vm->addr_count = c->member.addr_count;
	memcpy(vm->addr, c->member.addr, sizeof(vm->addr));
	vm->domain_id = c->id;
	vm->uid = c->uid;
	if (m->config.libvirt_user)
		snprintf(vm->user, sizeof(vm->user), "%s", m->config.libvirt_user);
	vm->refused = refused != NULL;
	if (refused) {
		snprintf(vm->problem, sizeof(vm->problem), "%s", refused->text);
	} else {
		vm->wanted = true;
		vm->attach_due = true;
		log_info("vm %s: domain of libvirt, member of group %s", vm->name, g->name);
	}
	state_save(m);
}

static void check_key(struct check *c, const uint8_t *key)
{
	struct vmcomm_error e = {0};
	struct group *g = check_group(c, key, &e);

	if (e.code)
		log_warning("domain %s: %s", c->name, e.text);
	if (c->join && g && !e.code)
		join(c, g, NULL);
	else if (c->join && e.code == -EKEYREJECTED)
		join(c, group_find(c->m, c->member.group), &e);
	check_end(c, &e);
}

static void check_secret(void *arg, int err, const uint8_t *value, size_t len, const char *why)
{
	struct check *c = arg;
	struct vmcomm_error e = {0};
	uint8_t key[VMCOMM_KEY_SIZE];
	char secret[160];

	secret_name(&c->member.secret, secret, sizeof(secret));
	if (err) {
		vmcomm_error_set(&e, err == -ENOENT ? -EKEYREJECTED : -EHOSTUNREACH, "domain '%s': secret %s with the key "
				 "of group '%s' cannot be read: %.200s", c->name, secret,
				 c->member.group, why);
	} else if (key_from(value, len, key)) {
		vmcomm_error_set(&e, -EKEYREJECTED, "wrong key: domain '%s': secret %s holds no key: its value "
				 "must be 32 bytes or 64 hexadecimal digits", c->name, secret);
	} else {
		check_key(c, key);
		vmcomm_key_wipe(key);
		return;
	}
	vmcomm_key_wipe(key);
	log_warning("%s", e.text);
	if (c->join && e.code == -EKEYREJECTED && group_find(c->m, c->member.group))
		join(c, group_find(c->m, c->member.group), &e);
	check_end(c, &e);
}

static void check_begin(struct check *c)
{
	struct vmcomm_error e = {0};
	int err;

	c->next = c->m->domains->checks;
	c->m->domains->checks = c;
	if (!c->member.secret.given) {
		check_key(c, NULL);
		return;
	}
	err = libvirt_connected(c->m->domains->libvirt) ?
		      libvirt_secret_get(c->m->domains->libvirt, &c->member.secret, check_secret, c) :
		      -ENOTCONN;
	if (!err)
		return;
	vmcomm_error_set(&e, -EHOSTUNREACH, "domain '%s': vmcommd has no connection to libvirt and cannot read its "
			 "secret", c->name);
	log_warning("%s", e.text);
	check_end(c, &e);
}

static struct check *check_new(struct manager *m, const char *name, const uint8_t uuid[16],
			       const struct libvirt_member *member)
{
	struct check *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->m = m;
	snprintf(c->name, sizeof(c->name), "%s", name);
	memcpy(c->uuid, uuid, 16);
	c->member = *member;
	return c;
}

void domains_prepare(struct manager *m, const char *name, const uint8_t uuid[16],
		     const struct libvirt_member *member,
		     void (*done)(void *arg, const struct vmcomm_error *e), void *arg)
{
	struct vmcomm_error e = {0};
	struct check *c = NULL;
	struct vm *vm;

	if (!vmcomm_name_valid(name)) {
		vmcomm_error_set(&e, -EINVAL, "domain '%.100s': its name cannot be a vm's: use up to 63 "
				 "letters, digits, '_', '-' and '.'", name);
		done(arg, &e);
		return;
	}
	vm = vm_find(m, name);
	if (vm && memcmp(vm->uuid, uuid, 16)) {
		vmcomm_error_set(&e, -EEXIST, "vm '%s' exists already, in group '%s': it is not this domain",
				 name, vm->group->name);
	} else if (vm && !vm->libvirt) {
		/* The operator has made it a member in another way. */
		done(arg, &e);
		return;
	} else {
		c = check_new(m, name, uuid, member);
		if (!c)
			vmcomm_error_set(&e, -ENOMEM, "out of memory");
	}
	if (!c) {
		done(arg, &e);
		return;
	}
	c->done = done;
	c->arg = arg;
	check_begin(c);
}

/* -- what was seen -- */

static struct vm *find(struct manager *m, const uint8_t uuid[16])
{
	struct vm *vm;

	for (vm = m->vms; vm; vm = vm->next)
		if (vm->libvirt && !memcmp(vm->uuid, uuid, 16))
			return vm;
	return NULL;
}

static bool busy(const struct vm *vm)
{
	return vm->op || vm->move || vm->incoming;
}

static void runs_new(struct manager *m, const struct libvirt_domain *d)
{
	const struct libvirt_domain_xml *x = &d->xml;
	unsigned int i;
	struct check *c;
	struct vm *vm;

	if (!x->member.present)
		return;
	if (!vmcomm_name_valid(x->name)) {
		log_warning("domain '%s' cannot be a member: its name has more than letters, digits, '_', "
			    "'-' and '.', or over 63 of them", x->name);
		return;
	}
	for (i = 0; i < REMOVED_MAX; i++)
		if (m->domains->removed[i].id == d->id &&
		    !memcmp(m->domains->removed[i].uuid, d->uuid, 16))
			return;
	vm = vm_find(m, x->name);
	if (vm) {
		log_warning("domain %s cannot be a member: there is a vm of that name, in group %s", x->name,
			    vm->group->name);
		return;
	}
	for (c = m->domains->checks; c; c = c->next)
		if (c->join && !memcmp(c->uuid, d->uuid, 16))
			return; /* just being looked at */
	c = check_new(m, x->name, d->uuid, &x->member);
	if (!c)
		return;
	c->join = true;
	c->id = d->id;
	c->uid = x->uid;
	check_begin(c);
}

/* Whom the slot's socket must belong to. */
static void owner(struct vm *vm, const struct libvirt_domain *d)
{
	if (d->xml.uid < 0 || d->xml.uid == vm->uid)
		return;
	vm->uid = d->xml.uid;
	if (vm->slot < 0 || vm->connected || vm->op)
		return;
	/* It was opened for somebody else. */
	if (!vm_withdraw(vm))
		vm_admit(vm, NULL);
}

static void runs(struct vm *vm, const struct libvirt_domain *d)
{
	vm->seen = true;
	vm->stopped = false;
	owner(vm, d);
	if (vm->incoming || vm->move) {
		vm->domain_id = d->id;
		return;
	}
	if (vm->domain_id && vm->domain_id != d->id) {
		/* It has ended and started unseen: what it says may be new. */
		vm->stopped = true;
		return;
	}
	vm->domain_id = d->id;
	if (vm->wanted && !vm->connected)
		vm->attach_due = true;
}

static void domain_seen(void *arg, const struct libvirt_domain *d)
{
	struct manager *m = arg;
	struct vm *vm = find(m, d->uuid);

	if (d->state == LIBVIRT_GONE) {
		if (vm)
			vm->stopped = true;
	} else if (d->problem[0]) {
		log_warning("a domain of libvirt cannot be looked at: %s", d->problem);
		if (vm)
			vm->seen = true;
	} else if (vm && d->state == LIBVIRT_COMING) {
		vm->seen = true;
		vm->stopped = false;
		owner(vm, d);
	} else if (vm) {
		runs(vm, d);
	} else if (d->state == LIBVIRT_RUNS) {
		runs_new(m, d);
	}
	domains_round(m);
}

static void looking(void *arg)
{
	struct manager *m = arg;
	struct vm *vm;

	for (vm = m->vms; vm; vm = vm->next)
		vm->seen = false;
}

static void connected(void *arg)
{
	struct manager *m = arg;
	struct vm *vm;

	if (m->domains->said || !m->domains->up)
		log_info("connected to libvirt at %s", m->config.libvirt_uri);
	m->domains->said = false;
	m->domains->up = true;
	for (vm = m->vms; vm; vm = vm->next)
		if (vm->libvirt && !vm->seen)
			vm->stopped = true;
	domains_round(m);
}

static void disconnected(void *arg, const char *why)
{
	struct manager *m = arg;

	if (!m->domains->said)
		log_warning("libvirt at %s: %s; trying again", m->config.libvirt_uri, why);
	m->domains->said = true;
}

/* -- in response -- */

static void attach(struct vm *vm)
{
	static const struct op_callbacks cbs = {NULL, NULL};
	struct vmcomm_error e = {0};
	struct op *op;

	vm->attach_due = vm->full = false;
	if (vm->connected || !vm->wanted || vm->refused)
		return;
	/* A guest that boots takes its time, and nobody waits. */
	if (!op_start(vm, OP_PLUG, &cbs, NULL, &op, &e))
		return;
	vm->full = e.code == -ENOSPC;
	snprintf(vm->problem, sizeof(vm->problem), "%s", e.text);
	log_warning("%s", e.text);
}

struct forgotten {
	struct manager *m;
	uint8_t uuid[16];
};

static void forgot(void *arg, const struct vmcomm_error *e)
{
	struct forgotten *f = arg;

	/* It may run again. */
	domains_look(f->m, f->uuid);
	free(f);
}

static void forget(struct vm *vm)
{
	static const struct op_callbacks cbs = {NULL, forgot};
	struct vmcomm_error e = {0};
	struct forgotten *f;
	struct op *op;

	/* The keeper tells when its QEMU has let go. */
	if (vm->connected)
		return;
	f = calloc(1, sizeof(*f));
	if (!f)
		return;
	f->m = vm->group->m;
	memcpy(f->uuid, vm->uuid, 16);
	log_info("vm %s: the domain has stopped", vm->name);
	vm->wanted = false;
	vm->refused = false;
	if (!op_start(vm, OP_REMOVE, &cbs, f, &op, &e))
		return;
	log_warning("%s", e.text);
	free(f);
}

void domains_round(struct manager *m)
{
	struct vm *vm, *next;

	if (!domains_connected(m))
		return;
	for (vm = m->vms; vm; vm = next) {
		next = vm->next;
		if (!vm->libvirt || busy(vm))
			continue;
		if (vm->stopped)
			forget(vm);
		else if (vm->attach_due || (vm->full && vm->slot >= 0))
			attach(vm);
	}
}

void domains_look(struct manager *m, const uint8_t uuid[16])
{
	if (domains_connected(m))
		libvirt_look(m->domains->libvirt, uuid);
}

void domains_removed(const struct vm *vm)
{
	struct domains *d = vm->group->m->domains;
	unsigned int i;

	if (!d || !vm->libvirt || vm->stopped || !vm->domain_id)
		return;
	i = d->removed_next++ % REMOVED_MAX;
	memcpy(d->removed[i].uuid, vm->uuid, 16);
	d->removed[i].id = vm->domain_id;
}

bool domains_connected(const struct manager *m)
{
	return m->domains && libvirt_connected(m->domains->libvirt);
}

int domains_init(struct manager *m, struct vmcomm_error *e)
{
	static const struct libvirt_callbacks cbs = {looking, connected, disconnected,
						     domain_seen};
	int err;

	if (!m->config.libvirt)
		return 0;
	m->domains = calloc(1, sizeof(*m->domains));
	if (!m->domains)
		return vmcomm_error_set(e, -ENOMEM, "out of memory");
	m->domains->m = m;
	err = libvirt_init(&m->domains->libvirt, m->event, m->config.libvirt_uri, &cbs, m);
	if (err) {
		free(m->domains);
		m->domains = NULL;
		return vmcomm_error_set(e, err, "libvirt's client library does not start: %s",
					strerror(-err));
	}
	return 0;
}

void domains_free(struct manager *m)
{
	if (!m->domains)
		return;
	libvirt_free(m->domains->libvirt);
	free(m->domains);
	m->domains = NULL;
}
