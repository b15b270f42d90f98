/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ports.h - where in a QEMU machine a device can be plugged in */
#ifndef VMCOMM_KVM_PORTS_H
#define VMCOMM_KVM_PORTS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/**
 * kvm_port_choose() - a bus for a hotplugged device with a large 64-bit window
 * @pci: the reply of query-pci
 * @size: of its memory in bytes
 * @bus: result
 * @why: on failure a sentence for the operator
 *
 * On q35 a free PCIe root port whose prefetchable window is large enough; on i440fx the one bus.
 *
 * Return: 0; -ENODEV: there is none.
 */
int kvm_port_choose(json_t *pci, uint64_t size, char *bus, size_t bus_size, char *why,
		    size_t why_size);

#endif
