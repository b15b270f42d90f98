// SPDX-License-Identifier: LGPL-2.1-or-later
/* ports.c - where in a QEMU machine a device can be plugged in */
#include "ports.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PCI_VENDOR_INTEL 0x8086
#define PCI_DEVICE_440FX 0x1237

static bool is_440fx(json_t *dev)
{
	json_t *id = json_object_get(dev, "id");

	return json_integer_value(json_object_get(id, "vendor")) == PCI_VENDOR_INTEL &&
	       json_integer_value(json_object_get(id, "device")) == PCI_DEVICE_440FX;
}

/* Size of a bridge's 64-bit window; 0: the firmware has not set it up yet. */
static uint64_t window(json_t *bridge)
{
	json_t *range = json_object_get(json_object_get(bridge, "bus"), "prefetchable_range");
	json_int_t base = json_integer_value(json_object_get(range, "base"));
	json_int_t limit = json_integer_value(json_object_get(range, "limit"));

	if (!base || limit <= base)
		return 0;
	return (uint64_t)limit - (uint64_t)base + 1;
}

int kvm_port_choose(json_t *pci, uint64_t size, char *bus, size_t bus_size, char *why,
		    size_t why_size)
{
	json_t *dev, *bridge, *devices = json_object_get(json_array_get(pci, 0), "devices");
	const char *name, *unset = NULL;
	uint64_t largest = 0;
	unsigned int free_ports = 0;
	size_t i;

	json_array_foreach (devices, i, dev) {
		if (is_440fx(dev)) {
			snprintf(bus, bus_size, "pci.0");
			return 0;
		}
		bridge = json_object_get(dev, "pci_bridge");
		name = json_string_value(json_object_get(dev, "qdev_id"));
		if (!bridge || !name || !*name || strlen(name) >= bus_size ||
		    json_array_size(json_object_get(bridge, "devices")))
			continue;
		free_ports++;
		if (window(bridge) >= size) {
			snprintf(bus, bus_size, "%s", name);
			return 0;
		}
		if (!window(bridge) && !unset)
			unset = name;
		if (window(bridge) > largest)
			largest = window(bridge);
	}
	/* Before the firmware ran no window says anything: take a port at its word. */
	if (unset && !largest) {
		snprintf(bus, bus_size, "%s", unset);
		return 0;
	}
	if (free_ports)
		snprintf(why, why_size, "the memory window of the free PCIe root ports (%llu MiB) is "
			 "smaller than the region (%llu MiB): start QEMU with -device "
			 "pcie-root-port,id=vmcomm,chassis=9,slot=9,pref64-reserve=%lluM",
			 (unsigned long long)(largest >> 20), (unsigned long long)(size >> 20),
			 (unsigned long long)((2 * size) >> 20));
	else
		snprintf(why, why_size, "it has no free PCIe root port: start QEMU with -device "
			 "pcie-root-port,id=vmcomm,chassis=9,slot=9,pref64-reserve=%lluM, or name a "
			 "bus", (unsigned long long)((2 * size) >> 20));
	return -ENODEV;
}
