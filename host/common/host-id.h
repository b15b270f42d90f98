/* SPDX-License-Identifier: GPL-2.0-or-later */
/* host-id.h - what tells this host from others (M14) */
#ifndef VMCOMM_HOST_ID_H
#define VMCOMM_HOST_ID_H

#include <stdint.h>

#define VMCOMM_HOST_ID_MAX 64

/**
 * vmcomm_host_id() - MAC addresses of the host's network cards and its machine id
 *
 * Return: bytes used; 0 on a host that has neither.
 */
uint32_t vmcomm_host_id(uint8_t id[VMCOMM_HOST_ID_MAX]);

#endif
