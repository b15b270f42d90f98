/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * manager.h - the groups and VMs of this host, and what is going on with them (M12-M14)
 *
 * A VM is a member from "vm add" (or its section in the configuration) to "vm remove". A member has a
 * slot while it is wanted: the slot waits for a QEMU (JOINING), is taken (LIVE), and goes into
 * quarantine when that QEMU or its device is gone. Then the member gets a new slot of a new generation
 * at once, so that a VM that was powered off finds its socket again when it starts. "vm detach"
 * ends the wish, "vm attach" renews it.
 *
 *   member:   absent --(attach, add)--> waiting <--> connected
 *               ^------(detach)------------+-------------+
 *
 * vmcommd's own memory is a cache: the truth about slots is with the region keepers, definitions are
 * in the configuration and in the state file. So it can be killed at any time.
 */
#ifndef VMCOMM_DAEMON_MANAGER_H
#define VMCOMM_DAEMON_MANAGER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "backend.h"
#include "config.h"
#include "region.h"
#include "reason.h"
#include "../common/error.h"
#include "../common/host-id.h"
#include "../common/key.h"

#define GROUP_SLOTS_DEFAULT  8
#define GROUP_MEMORY_DEFAULT (64ULL << 20)
#define GROUP_CHUNK_DEFAULT  65536
#define GROUPS_MAX	     1024
#define VMS_MAX		     (64 * 64)

enum origin {
	ORIGIN_CONFIG,	 /* a section of the configuration: cannot be removed by command */
	ORIGIN_COMMAND,	 /* group add, vm add */
	ORIGIN_FIRST_VM, /* a group that its first VM created: goes with its last */
};

struct manager;
struct vm;
struct domains;

struct group {
	struct group *next;
	struct manager *m;
	char name[CONFIG_NAME];
	enum origin origin;
	uint8_t key[VMCOMM_KEY_SIZE];
	char *key_file;
	uint32_t slots;
	uint64_t memory;
	uint64_t chunk;
	uint32_t policy_count;
	struct vmcomm_abi_policy policy[VMCOMM_POLICY_MAX];
	struct region *region; /* NULL: no member has needed its memory yet */
	struct vmcomm_group table; /* as the keeper last said */
	uint64_t location[VMCOMM_SLOTS_MAX];
	bool dissolve; /* end the keeper when the last QEMU lets go */
	char problem[512];
};

struct vm {
	struct vm *next;
	struct group *group;
	char name[CONFIG_NAME];
	enum origin origin;
	uint8_t uuid[16];
	bool uuid_given; /* the hypervisor must agree */
	uint32_t addr_count;
	uint8_t addr[VMCOMM_ADDRS_MAX][16];
	char qmp[CONFIG_PATH];
	char bus[CONFIG_NAME];
	char user[CONFIG_NAME];
	/* a domain of libvirt, found by vm->uuid; see domains.h */
	bool libvirt;
	bool stopped;	 /* it does not run any more: ends to be a member */
	bool seen;	 /* it ran when libvirt was asked since the last connect */
	bool attach_due; /* the next round attaches it */
	bool full;	 /* its group was; attached when there is a slot */
	int domain_id;	 /* 0: not known */
	int64_t uid;	 /* that its QEMU runs as; -1: not known */
	bool wanted;
	bool appeared; /* it has begun to run: give it its device */
	int slot; /* -1: none */
	uint64_t generation;
	uint64_t number; /* location number */
	bool connected;
	uint32_t qemu_pid;
	uint64_t incarnation;
	uint32_t guest_state; /* enum vmcomm_vm_state, or any other number */
	uint64_t heartbeat;
	uint64_t heartbeat_usec; /* when it last moved; CLOCK_MONOTONIC */
	bool refused;		 /* its key is not the group's */
	char problem[512];
	struct op *op;
	/* migration; see migrate.h */
	bool incoming;	  /* is to come from another host: no slot, not attached by others */
	bool arriving;	  /* has come, and is being attached: saved as one that is to come */
	struct incoming *in;
	struct migration *move;
	struct {
		char host[CONFIG_NAME]; /* empty: it does not move */
		char id[33];
		bool attached; /* before it began */
		bool sent;     /* the memory is: it belongs to the other host */
	} moving;
	/* what earlier occupied slots counted, on this host or another */
	uint64_t stat_base[VMCOMM_STATS_MAX];
	uint64_t reason_base[VMCOMM_REASONS_MAX];
};

struct manager {
	sd_event *event;
	struct config config;
	const struct vmcomm_backend *backend; /* NULL: VMs are attached by the operator */
	struct group *groups;
	struct vm *vms;
	struct vmcomm_backend_job *watch; /* for VMs that begin to run; NULL: not yet, or no need */
	bool watch_said; /* why not */
	sd_event_source *timer;
	uint8_t host_id[VMCOMM_HOST_ID_MAX];
	uint32_t host_id_len;
	bool loading;
	int lock_fd;
	struct peer_server *peers;
	struct domains *domains; /* NULL: libvirt is not in use */
};

/* manager.c */
int manager_init(struct manager *m, sd_event *event, const char *config_file, bool optional,
		 struct vmcomm_error *e);
void manager_deinit(struct manager *m);
uint64_t manager_random(void);
uint64_t manager_now_usec(void);
void manager_poll_vm(struct vm *vm); /* look at its control area */

/* group.c */
struct group *group_find(struct manager *m, const char *name);
/* @key: NULL: generate one and keep it in @key_file, or in the state directory */
int group_add(struct manager *m, const char *name, enum origin origin, const uint8_t *key,
	      const char *key_file, uint32_t slots, uint64_t memory, uint64_t chunk,
	      const struct vmcomm_abi_policy *policy, uint32_t policy_count, struct group **out,
	      struct vmcomm_error *e);
int group_remove(struct group *g, struct vmcomm_error *e);
void group_free(struct group *g); /* forgets it, touches nothing outside vmcommd */
unsigned int group_members(const struct group *g);
int group_need_region(struct group *g, bool create, struct vmcomm_error *e);
void group_maintain(struct group *g); /* once a second, and when a guest rings */
bool group_dissolve_try(struct group *g);
int group_dir(const struct group *g, char *buf, size_t size);
json_t *group_describe(const struct group *g);

/* vm.c */
struct vm *vm_find(struct manager *m, const char *name);
struct vm *vm_at(const struct group *g, uint32_t slot);
int vm_new(struct manager *m, const char *name, struct group *g, enum origin origin,
	   struct vm **out, struct vmcomm_error *e);
void vm_free(struct vm *vm);
int vm_admit(struct vm *vm, struct vmcomm_error *e);
void vm_row(const struct vm *vm, uint32_t state, struct vmcomm_location *row);
int vm_set_state(struct vm *vm, uint32_t state);
void vm_lost_slot(struct vm *vm);
/* Give back a slot that no QEMU has taken. Return: 0 or negative errno. */
int vm_withdraw(struct vm *vm);
/* Is something going on that a command must not disturb? Return: 0; -EBUSY and @e. */
int vm_idle(const struct vm *vm, struct vmcomm_error *e);
/* A counter that only grows. */
bool vm_stat_counts(unsigned int stat);
int vm_socket_path(const struct vm *vm, char *buf, size_t size);
void vm_link(const struct vm *vm);
void vm_unlink(const struct vm *vm);
/* The hypervisor's backend for it; NULL: the operator attaches it. */
const struct vmcomm_backend *vm_backend(const struct vm *vm);
/* What the backend finds it by; control is NULL if it cannot. Strings are @vm's. */
void vm_backend_fill(const struct vm *vm, struct vmcomm_backend_vm *out);
/*
 * Is one of the addresses, or the uuid, another's in the group? @self: NULL, or who may have them.
 * Return: 0; -EEXIST and @e.
 */
int vm_conflict(struct manager *m, const struct group *g, const struct vm *self,
		const uint8_t uuid[16], const uint8_t (*addr)[16], uint32_t addr_count,
		struct vmcomm_error *e);
const char *vm_state_name(const struct vm *vm);
json_t *vm_describe(const struct vm *vm);

/* state.c */
int state_save(struct manager *m);
int state_load(struct manager *m, struct vmcomm_error *e);
/* Counters of a VM up to now, as JSON for the state file and for another host. */
json_t *state_counters(const struct vm *vm);
void state_counters_load(struct vm *vm, json_t *o); /* what is no such thing counts as 0 */

/* op.c: attach, detach and remove, which take time */
struct op;
struct op_callbacks {
	void (*step)(void *arg, const char *text);
	/* after it the operation is gone; for OP_REMOVE the VM, too, when err is 0 */
	void (*done)(void *arg, const struct vmcomm_error *e);
};
enum op_kind {
	OP_ATTACH,
	OP_PLUG, /* attach, but the guest's module may come when it likes */
	OP_DETACH,
	OP_REMOVE,
};
int op_start(struct vm *vm, enum op_kind kind, const struct op_callbacks *cb, void *arg,
	     struct op **op, struct vmcomm_error *e);
/* Does the one that goes on do what is asked for, and nobody waits for it? Then op_start() joins it. */
bool op_joinable(const struct vm *vm, enum op_kind kind);
void op_forget_caller(struct op *op); /* who asked is gone; the operation goes on */
void op_vm_changed(struct vm *vm);    /* the VM's slot or control area changed: go on */
void op_abort(struct vm *vm);

#endif
