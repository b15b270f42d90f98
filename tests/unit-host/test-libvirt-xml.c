// SPDX-License-Identifier: GPL-2.0-or-later
/* test-libvirt-xml.c - domains' XML: our metadata, ports, hostile input */
#include <check.h>
#include <errno.h>
#include <libxml/parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../backends/kvm/libvirt-xml.h"

#define MIB (1ULL << 20)
#define NS  "xmlns:vmcomm='urn:vmcomm:member:1'"
#define DOMAIN(metadata, rest) \
	"<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>web</name>" \
	"<uuid>0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f</uuid><metadata>" metadata "</metadata>" rest \
	"</domain>"
#define MEMBER(inside) "<vmcomm:member " NS " group='shop'>" inside "</vmcomm:member>"
#define ADDRESS	       "<vmcomm:address>10.0.0.1</vmcomm:address>"

static struct libvirt_domain_xml d;
static char why[300];

/* The copy has exactly its length: a sanitizer sees who reads on. */
static int parse_len(const char *text, size_t len)
{
	char *copy = malloc(len ? len : 1);
	int err;

	memcpy(copy, text, len);
	why[0] = 0;
	err = libvirt_xml_parse(copy, len, &d, why, sizeof(why));
	free(copy);
	if (err)
		ck_assert_msg(why[0] && !d.member.present, "no reason given");
	return err;
}

static int parse(const char *text)
{
	return parse_len(text, strlen(text));
}

START_TEST(no_member)
{
	ck_assert_int_eq(parse(DOMAIN("<other:member xmlns:other='urn:other' group='x'/>"
				      "<member group='x'/>", "")), 0);
	ck_assert(!d.member.present);
	ck_assert_str_eq(d.name, "web");
	ck_assert(d.has_uuid);
	ck_assert_int_eq(d.uuid[0], 0x0a);
	ck_assert_int_eq(d.uid, -1);
	ck_assert(!d.pcie && !d.device);
	/* not where metadata is */
	ck_assert_int_eq(parse(DOMAIN("", "<devices>" MEMBER(ADDRESS) "</devices>")), 0);
	ck_assert(!d.member.present);
}
END_TEST

START_TEST(whole_member)
{
	ck_assert_int_eq(parse(DOMAIN(MEMBER(
		"<vmcomm:address> 10.0.0.11\n</vmcomm:address><vmcomm:address>fd00::11</vmcomm:address>"
		"<vmcomm:secret uuid='11111111-2222-3333-4444-555555555555'/><vmcomm:later x='1'/>"),
		"<seclabel type='dynamic' model='dac' relabel='yes'><label>+64055:+107</label></seclabel>")), 0);
	ck_assert(d.member.present);
	ck_assert_str_eq(d.member.group, "shop");
	ck_assert_uint_eq(d.member.addr_count, 2);
	ck_assert_int_eq(d.member.addr[0][15], 11);
	ck_assert_int_eq(d.member.addr[1][0], 0xfd);
	ck_assert(d.member.secret.given && d.member.secret.by_uuid);
	ck_assert_int_eq(d.member.secret.uuid[0], 0x11);
	ck_assert_int_eq(d.uid, 64055);
	ck_assert_int_eq(parse(DOMAIN(MEMBER(ADDRESS "<vmcomm:secret type='tls' usage='shop key'/>"),
				      "")), 0);
	ck_assert(d.member.secret.given && !d.member.secret.by_uuid);
	ck_assert_str_eq(d.member.secret.usage, "shop key");
	ck_assert_str_eq(d.member.secret.type, "tls");
}
END_TEST

static const struct {
	const char *xml, *says;
} bad[] = {
	{"", "damaged"},
	{"<domain", "damaged"},
	{"<domain></domain", "damaged"},
	{"<network/>", "no domain"},
	{"<x:domain xmlns:x='urn:x'/>", "no domain"},
	{DOMAIN("<vmcomm:member " NS "/>", ""), "needs group"},
	{DOMAIN("<vmcomm:member " NS " group='a b'>" ADDRESS "</vmcomm:member>", ""), "needs group"},
	{DOMAIN("<vmcomm:member " NS " group='../x'>" ADDRESS "</vmcomm:member>", ""), "needs group"},
	{DOMAIN("<vmcomm:member " NS " group='x' key='secret'>" ADDRESS "</vmcomm:member>", ""),
	 "no attribute 'key'"},
	{DOMAIN(MEMBER(""), ""), "at least one"},
	{DOMAIN(MEMBER("<address>10.0.0.1</address>"), ""), "at least one"},
	{DOMAIN(MEMBER("<vmcomm:address>10.0.0.256</vmcomm:address>"), ""), "10.0.0.256"},
	{DOMAIN(MEMBER("<vmcomm:address>224.0.0.1</vmcomm:address>"), ""), "224.0.0.1"},
	{DOMAIN(MEMBER(ADDRESS ADDRESS), ""), "twice"},
	{DOMAIN(MEMBER(ADDRESS) MEMBER(ADDRESS), ""), "twice"},
	{DOMAIN(MEMBER(ADDRESS "<vmcomm:secret/>"), ""), "either uuid or usage"},
	{DOMAIN(MEMBER(ADDRESS "<vmcomm:secret uuid='1'/>"), ""), "no UUID"},
	{DOMAIN(MEMBER(ADDRESS "<vmcomm:secret usage='x'/>"), ""), "needs type"},
	{DOMAIN(MEMBER(ADDRESS "<vmcomm:secret usage='x' type='volume'/>"), ""), "needs type"},
	{DOMAIN(MEMBER(ADDRESS "<vmcomm:secret usage='&#27;[2J' type='tls'/>"), ""), "damaged"},
	{DOMAIN(MEMBER(ADDRESS "<vmcomm:secret usage='&#9;' type='tls'/>"), ""), "printable"},
	{DOMAIN(MEMBER(ADDRESS "<vmcomm:secret usage='x' type='tls'/>"
			       "<vmcomm:secret usage='y' type='tls'/>"), ""), "twice"},
	/* entities: none is ever looked at */
	{"<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>"
	 "<!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;'>]>"
	 DOMAIN(MEMBER("<vmcomm:address>&c;</vmcomm:address>"), ""), "document type"},
	{"<!DOCTYPE d SYSTEM 'file:///etc/passwd'>" DOMAIN(MEMBER(ADDRESS), ""), "document type"},
	{"<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" DOMAIN("&a;", ""), "document type"},
	{DOMAIN(MEMBER(ADDRESS) "&a;", ""), "damaged"},
};

START_TEST(mistakes)
{
	ck_assert_int_eq(parse(bad[_i].xml), -EINVAL);
	ck_assert_msg(strstr(why, bad[_i].says) != NULL, "'%s' does not say '%s'", why, bad[_i].says);
}
END_TEST

START_TEST(limits)
{
	size_t n = 0, i, max = LIBVIRT_XML_MAX + 1;
	char *text = malloc(max + 1);

	ck_assert_ptr_nonnull(text);
	/* many addresses */
	n = (size_t)sprintf(text, "<domain><metadata><vmcomm:member " NS " group='g'>");
	for (i = 1; i <= 9; i++)
		n += (size_t)sprintf(text + n, "<vmcomm:address>10.0.0.%zu</vmcomm:address>", i);
	snprintf(text + n, max - n, "</vmcomm:member></metadata></domain>");
	ck_assert_int_eq(parse(text), -EINVAL);
	ck_assert_ptr_nonnull(strstr(why, "more than 8"));
	/* deep */
	for (n = 0; n + 16 < max; n += 3)
		memcpy(text + n, "<a>", 3);
	ck_assert_int_eq(parse_len(text, n), -EINVAL);
	/* large */
	memset(text, ' ', max);
	ck_assert_int_eq(parse_len(text, max), -E2BIG);
	/* a long name of ours */
	n = (size_t)sprintf(text, "<domain><metadata><vmcomm:member " NS " group='");
	memset(text + n, 'g', 100000);
	snprintf(text + n + 100000, max - n - 100000, "'>" ADDRESS "</vmcomm:member></metadata></domain>");
	ck_assert_int_eq(parse(text), -EINVAL);
	free(text);
}
END_TEST

/* Each prefix, and each byte replaced: some answer, no crash. */
START_TEST(damage)
{
	static const char whole[] = DOMAIN(
		MEMBER(ADDRESS "<vmcomm:secret uuid='11111111-2222-3333-4444-555555555555'/>"),
		"<devices><controller type='pci' index='1' model='pcie-root-port'/></devices>");
	char copy[sizeof(whole)];
	size_t i;

	for (i = 0; i < strlen(whole); i++) {
		parse_len(whole, i);
		memcpy(copy, whole, sizeof(whole));
		copy[i] = "<>&'\0x9\xff"[i % 8];
		parse_len(copy, strlen(whole));
	}
}
END_TEST

#define ROOT	"<controller type='pci' index='0' model='pcie-root'/>"
#define PORT(n) "<controller type='pci' index='" n "' model='pcie-root-port'>" \
		"<address type='pci' domain='0x0000' bus='0x00' slot='0x0" n "' function='0x0'/></controller>"
#define NIC(n)	"<interface type='bridge'><address type='pci' domain='0x0000' bus='0x0" n "' slot='0x00' " \
		"function='0x0'/></interface>"
#define MACHINE(devices, rest) DOMAIN("", "<devices>" devices "</devices>" rest)
#define GLOBAL(size) "<qemu:commandline><qemu:arg value='-global'/>" \
		     "<qemu:arg value='pcie-root-port.pref64-reserve=" size "'/></qemu:commandline>"

static int choose(const char *xml, int *bus)
{
	ck_assert_int_eq(parse(xml), 0);
	return libvirt_port_choose(&d, 64 * MIB, bus, why, sizeof(why));
}

START_TEST(ports)
{
	int bus;

	/* i440fx */
	ck_assert_int_eq(choose(MACHINE("<controller type='pci' index='0' model='pci-root'/>", ""), &bus), 0);
	ck_assert_int_eq(bus, -1);
	/* the first one is taken */
	ck_assert_int_eq(choose(MACHINE(ROOT PORT("1") PORT("2") NIC("1"), GLOBAL("1G")), &bus), 0);
	ck_assert_int_eq(bus, 2);
	/* only QEMU knows */
	ck_assert_int_eq(choose(MACHINE(ROOT PORT("1"), ""), &bus), 0);
	ck_assert_int_eq(bus, -2);
	ck_assert_int_eq(choose(MACHINE(ROOT PORT("1"), GLOBAL("much")), &bus), 0);
	ck_assert_int_eq(bus, -2);
	/* none is free; one takes no hotplug */
	ck_assert_int_eq(choose(MACHINE(ROOT PORT("1") NIC("1"), GLOBAL("1G")), &bus), -ENODEV);
	ck_assert_ptr_nonnull(strstr(why, "no free PCIe root port"));
	ck_assert_int_eq(choose(MACHINE(ROOT "<controller type='pci' index='1' model='pcie-root-port'>"
					"<target hotplug='off'/></controller>", GLOBAL("1G")), &bus), -ENODEV);
	/* too small */
	ck_assert_int_eq(choose(MACHINE(ROOT PORT("1"), GLOBAL("32M")), &bus), -ENODEV);
	ck_assert_ptr_nonnull(strstr(why, "32 MiB"));
	ck_assert_ptr_nonnull(strstr(why, "128 MiB"));
	/* one with a window of its own */
	ck_assert_int_eq(choose(MACHINE(ROOT PORT("1") PORT("2") PORT("3"),
					"<qemu:override><qemu:device alias='pci.2'><qemu:frontend>"
					"<qemu:property name='pref64-reserve' type='unsigned' "
					"value='1073741824'/></qemu:frontend></qemu:device>"
					"<qemu:device alias='pci.99999999999'><qemu:frontend/></qemu:device>"
					"</qemu:override>"), &bus), 0);
	ck_assert_int_eq(bus, 2);
}
END_TEST

START_TEST(device)
{
	char xml[512], domain[900];

	ck_assert_int_eq(libvirt_device_xml("/run/vmcomm/g/slot-1.sock", 4, 9, xml, sizeof(xml)), 0);
	ck_assert_ptr_nonnull(strstr(xml, "bus='9'"));
	snprintf(domain, sizeof(domain), "<domain><devices>%s</devices></domain>", xml);
	ck_assert_int_eq(parse(domain), 0);
	ck_assert(d.device);
	ck_assert_str_eq(d.device_socket, "/run/vmcomm/g/slot-1.sock");
	ck_assert_int_eq(libvirt_device_xml("/run/a'b", 4, -1, xml, sizeof(xml)), -EINVAL);
	ck_assert_int_eq(libvirt_device_xml("/run/a", 4, -1, xml, 20), -EINVAL);
	/* somebody else's */
	ck_assert_int_eq(parse("<domain><devices><shmem name='vmcomm0'><alias name='shmem0'/></shmem>"
			       "</devices></domain>"), 0);
	ck_assert(!d.device);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("libvirt-xml");
	TCase *tc = tcase_create("libvirt-xml");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, no_member);
	tcase_add_test(tc, whole_member);
	tcase_add_loop_test(tc, mistakes, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(tc, limits);
	tcase_add_test(tc, damage);
	tcase_add_test(tc, ports);
	tcase_add_test(tc, device);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_tap(sr, "-");
	srunner_run_all(sr, CK_SILENT);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	xmlCleanupParser();
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
