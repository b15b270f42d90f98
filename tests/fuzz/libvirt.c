// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * libvirt.c - XML of libvirt's domains: our metadata, ports, owner
 *
 * Input: the XML. What is found must be whole, and what we write from it must be XML again.
 */
#include <libxml/parser.h>

#include "fuzz.h"
#include "../../backends/kvm/libvirt-xml.h"

/* A text that people or other programs get to see. */
static void printable(const char *text, size_t size)
{
	size_t i;

	fuzz_check(memchr(text, 0, size));
	for (i = 0; text[i]; i++)
		fuzz_check(text[i] >= 32 && text[i] <= 126);
}

static void check_member(const struct libvirt_member *m)
{
	if (!m->present)
		return;
	printable(m->group, sizeof(m->group));
	fuzz_check(m->group[0] && m->addr_count >= 1 && m->addr_count <= LIBVIRT_ADDRS);
	if (!m->secret.given)
		return;
	if (m->secret.by_uuid)
		return;
	printable(m->secret.usage, sizeof(m->secret.usage));
	fuzz_check(m->secret.usage[0] && libvirt_secret_type_valid(m->secret.type));
}

static void check_device(const char *socket, int bus)
{
	char text[512];
	xmlDoc *doc;

	if (libvirt_device_xml(socket, 4, bus, text, sizeof(text)))
		return;
	doc = xmlReadMemory(text, (int)strlen(text), NULL, NULL,
			    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
	fuzz_check(doc && !strcmp((const char *)xmlDocGetRootElement(doc)->name, "shmem"));
	xmlFreeDoc(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct libvirt_domain_xml d;
	char why[300] = "", *xml = malloc(size);
	unsigned int i;
	uint64_t want;
	int bus, err;

	/* Of exactly its length, as it need not end with a NUL. */
	memcpy(xml, data, size);
	memset(&d, 0x5a, sizeof(d));
	err = libvirt_xml_parse(xml, size, &d, why, sizeof(why));
	free(xml);
	fuzz_check(!d.member.present || !err);
	if (err) {
		fuzz_check(why[0] && memchr(why, 0, sizeof(why)));
		return 0;
	}
	fuzz_check(memchr(d.name, 0, sizeof(d.name)) && memchr(d.device_socket, 0,
							       sizeof(d.device_socket)));
	fuzz_check(d.port_count <= LIBVIRT_BUSES && d.uid >= -1 && d.uid <= UINT32_MAX);
	for (i = 0; i < d.port_count; i++)
		fuzz_check(d.port[i].bus < LIBVIRT_BUSES);
	check_member(&d.member);
	for (want = 1 << 20; want <= 1ULL << 32; want <<= 6) {
		if (libvirt_port_choose(&d, want, &bus, why, sizeof(why)))
			continue;
		fuzz_check(bus >= -2 && bus < LIBVIRT_BUSES);
		check_device("/run/vmcomm/g/0.sock", bus);
	}
	check_device(d.device_socket, 1);
	return 0;
}
