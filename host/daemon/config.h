/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config.h - vmcomm.conf(5) as it is written there, checked */
#ifndef VMCOMM_DAEMON_CONFIG_H
#define VMCOMM_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "abi.h"
#include "../common/error.h"

#define CONFIG_NAME 64
#define CONFIG_PATH 108 /* what fits into the address of a unix socket */
#define CONFIG_PEER_PORT 7416 /* of a vmcommd for vmcommds of other hosts */

struct config_group {
	struct config_group *next;
	char name[CONFIG_NAME];
	unsigned int line;
	char *key_file;
	uint32_t slots;	 /* 0: not given */
	uint64_t memory; /* 0: not given */
	uint64_t chunk;	 /* 0: not given */
	uint32_t policy_count;
	struct vmcomm_abi_policy policy[VMCOMM_POLICY_MAX]; /* in the host's byte order */
};

struct config_vm {
	struct config_vm *next;
	char name[CONFIG_NAME];
	unsigned int line;
	char group[CONFIG_NAME];
	char *key_file;
	bool has_uuid;
	uint8_t uuid[16];
	uint32_t addr_count;
	uint8_t addr[VMCOMM_ADDRS_MAX][16];
	char qmp[CONFIG_PATH]; /* empty: none */
	char bus[CONFIG_NAME]; /* empty: choose one */
	char user[CONFIG_NAME]; /* empty: root */
};

struct config_host {
	struct config_host *next;
	char name[CONFIG_NAME];
	unsigned int line;
	char *address;	     /* of its vmcommd: numeric, with or without a port */
	char *libvirt_uri;   /* of its libvirt, as seen from here; NULL: none */
	char *transport;     /* Xen: command that is its xl's receiver; NULL: ssh to its address */
	char *migration_uri; /* where its hypervisor takes migrations; NULL: it says so itself */
};

struct config {
	const char *file;
	char *backend;
	char *runtime_dir;
	char *state_dir;
	char *keeper; /* program */
	char *peer_listen;    /* address for vmcommds of other hosts; NULL: none */
	char *migrate_listen; /* where a QEMU here listens for its migration; NULL: as peer_listen */
	bool libvirt;	      /* there is a [libvirt] section */
	char *libvirt_uri;    /* NULL: there is none */
	char *libvirt_user;   /* that QEMU runs as where a domain does not say; NULL: root */
	bool libvirt_refuse;  /* the hook: no vmcommd, no start */
	uint32_t attach_timeout; /* seconds */
	uint32_t leave_timeout;
	struct config_group *groups;
	struct config_vm *vms;
	struct config_host *hosts;
};

/**
 * config_load() - read a configuration file
 * @c: result; free with config_deinit() whatever is returned
 * @file: path; must outlive @c
 * @optional: a missing file is an empty one
 *
 * Return: 0; negative errno, and @e names file, line and the value that is wrong.
 */
int config_load(struct config *c, const char *file, bool optional, struct vmcomm_error *e);
void config_deinit(struct config *c);

/**
 * config_policy_ports(), config_policy_addresses() - add "22, 6000-6010" or "10.0.0.0/8, fd00::1"
 *
 * Return: 0; -EINVAL; -E2BIG.
 */
int config_policy_ports(const char *text, struct vmcomm_abi_policy *policy, uint32_t *count);
int config_policy_addresses(const char *text, struct vmcomm_abi_policy *policy, uint32_t *count);

/**
 * config_endpoint() - "10.0.0.2", "10.0.0.2:7416", "fd00::2", "[fd00::2]:7416"
 *
 * Names are not looked up: vmcommd must not wait for a name server.
 *
 * Return: 0 or -EINVAL.
 */
int config_endpoint(const char *text, struct sockaddr_storage *ss, socklen_t *len);

#endif
