/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvirt-xml.h - what we read of a domain's XML
 *
 * Users write the metadata, libvirt the rest; all of it is taken for hostile. Nothing here calls
 * libvirt.
 */
#ifndef VMCOMM_KVM_LIBVIRT_XML_H
#define VMCOMM_KVM_LIBVIRT_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIBVIRT_XML_MAX	  (1U << 20) /* bytes */
#define LIBVIRT_NAMESPACE "urn:vmcomm:member:1"
#define LIBVIRT_SHMEM	  "vmcomm0"
#define LIBVIRT_ALIAS	  "ua-vmcomm0"
#define LIBVIRT_BUSES	  256
#define LIBVIRT_ADDRS	  8
#define LIBVIRT_TEXT	  64

/* A reference to a libvirt secret. */
struct libvirt_secret {
	bool given;
	bool by_uuid;
	uint8_t uuid[16];
	char type[8]; /* ceph, iscsi, tls, vtpm */
	char usage[128];
};

/* <vmcomm:member> */
struct libvirt_member {
	bool present;
	char group[LIBVIRT_TEXT];
	uint32_t addr_count;
	uint8_t addr[LIBVIRT_ADDRS][16];
	struct libvirt_secret secret;
};

/* A PCIe root port that takes a hotplugged device and has none. */
struct libvirt_port {
	uint32_t bus;	  /* number of the bus behind it, "pci.BUS" in QEMU */
	uint64_t reserve; /* bytes of its 64-bit window as the definition asks for; 0: it does not say */
};

struct libvirt_domain_xml {
	char name[256];
	bool has_uuid;
	uint8_t uuid[16];
	struct libvirt_member member;
	/* devices */
	bool device;  /* ours is there */
	char device_socket[108];
	bool pcie;    /* q35 and the like; otherwise any slot will do */
	unsigned int port_count;
	struct libvirt_port port[LIBVIRT_BUSES];
	int64_t uid;  /* that QEMU runs as; -1: the definition does not say */
};

/**
 * libvirt_xml_parse() - read a domain's XML
 * @xml: need not end with a NUL
 * @len: in bytes
 * @out: result, whole even when there is no member element in it
 * @why: on failure a sentence for the operator
 *
 * Return: 0; -EINVAL: it is damaged, or its member element is; -E2BIG; -ENOMEM.
 */
int libvirt_xml_parse(const char *xml, size_t len, struct libvirt_domain_xml *out, char *why,
		      size_t why_size);

/**
 * libvirt_port_choose() - where to plug the device
 * @size: of its memory in bytes
 * @bus: number of a PCIe bus; -1: libvirt shall choose; -2: only QEMU knows its windows
 * @why: on failure a sentence for the operator
 *
 * Return: 0 or -ENODEV.
 */
int libvirt_port_choose(const struct libvirt_domain_xml *d, uint64_t size, int *bus, char *why,
			size_t why_size);

/** libvirt_device_xml() - the device as XML; @bus as above. Return: 0; -EINVAL: unfit path. */
int libvirt_device_xml(const char *socket, unsigned int vectors, int bus, char *buf, size_t size);

/** libvirt_secret_type_valid() - can a secret be named by usage with this type? */
bool libvirt_secret_type_valid(const char *type);

#endif
