// SPDX-License-Identifier: GPL-2.0-or-later
/* test-config.c - the configuration file; addresses and sizes; choice of a PCI port */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../backends/kvm/ports.h"
#include "../../host/common/addr.h"
#include "../../host/daemon/config.h"

static struct config c;
static struct vmcomm_error e;
static char path[64];

static int load(const char *text)
{
	FILE *f;
	int fd;

	strcpy(path, "/tmp/vmcomm-test-config-XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	f = fdopen(fd, "w");
	fputs(text, f);
	fclose(f);
	fd = config_load(&c, path, false, &e);
	unlink(path);
	return fd;
}

static void teardown(void)
{
	config_deinit(&c);
}

START_TEST(defaults)
{
	ck_assert_int_eq(load("# nothing\n"), 0);
	ck_assert_str_eq(c.backend, "kvm");
	ck_assert_str_eq(c.runtime_dir, "/run/vmcomm");
	ck_assert_ptr_null(c.groups);
	ck_assert_ptr_null(c.libvirt_uri);
	config_deinit(&c);
	ck_assert_int_eq(config_load(&c, "/nonexistent/vmcomm.conf", true, &e), 0);
	config_deinit(&c);
	ck_assert_int_eq(config_load(&c, "/nonexistent/vmcomm.conf", false, &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "/nonexistent/vmcomm.conf"));
}
END_TEST

START_TEST(everything)
{
	ck_assert_int_eq(load("[daemon]\n"
			      "backend = local\n"
			      "runtime_dir = /tmp/r\n"
			      "leave_timeout = 3\n"
			      "peer_listen = [fd00::1]:7000\n"
			      "[group blue]\n"
			      "key_file = /etc/vmcomm/blue.key ; a comment\n"
			      "slots = 16\n"
			      "memory = 256M\n"
			      "chunk = 128K\n"
			      "exclude_ports = 22, 6000-6010\n"
			      "exclude_addresses = 10.1.0.0/16 fd00::1\n"
			      "[vm web]\n"
			      "group = blue\n"
			      "key_file = /etc/vmcomm/web.key\n"
			      "uuid = 12345678-9abc-def0-1234-56789abcdef0\n"
			      "address = 10.0.0.1,\n"
			      "   fd00::7\n"
			      "qmp = /run/web.qmp\n"
			      "[host far]\n"
			      "address = 192.0.2.1\n"
			      "libvirt_uri = qemu+tcp://far/system\n"
			      "transport = socat - TCP:192.0.2.1:8002\n"
			      "[libvirt]\n"
			      "user = libvirt-qemu\n"
			      "if_down = refuse\n"), 0);
	ck_assert_str_eq(c.backend, "local");
	ck_assert_uint_eq(c.leave_timeout, 3);
	ck_assert_str_eq(c.groups->name, "blue");
	ck_assert_str_eq(c.groups->key_file, "/etc/vmcomm/blue.key");
	ck_assert_uint_eq(c.groups->slots, 16);
	ck_assert_uint_eq(c.groups->memory, 256ULL << 20);
	ck_assert_uint_eq(c.groups->chunk, 131072);
	ck_assert_uint_eq(c.groups->policy_count, 4);
	ck_assert_uint_eq(c.groups->policy[1].port_min, 6000);
	ck_assert_uint_eq(c.groups->policy[1].port_max, 6010);
	ck_assert_uint_eq(c.groups->policy[1].prefix, 0);
	ck_assert_uint_eq(c.groups->policy[2].prefix, 112);
	ck_assert_uint_eq(c.groups->policy[2].port_max, 65535);
	ck_assert_uint_eq(c.groups->policy[3].prefix, 128);
	ck_assert_str_eq(c.vms->name, "web");
	ck_assert_uint_eq(c.vms->addr_count, 2);
	ck_assert_uint_eq(c.vms->uuid[0], 0x12);
	ck_assert_uint_eq(c.vms->uuid[15], 0xf0);
	ck_assert_str_eq(c.hosts->address, "192.0.2.1");
	ck_assert_str_eq(c.hosts->libvirt_uri, "qemu+tcp://far/system");
	ck_assert_str_eq(c.hosts->transport, "socat - TCP:192.0.2.1:8002");
	ck_assert_str_eq(c.libvirt_uri, "qemu:///system");
	ck_assert_str_eq(c.libvirt_user, "libvirt-qemu");
	ck_assert(c.libvirt_refuse);
}
END_TEST

/* What is wrong, in which line, and which words the message has. */
static const struct {
	const char *text;
	unsigned int line;
	const char *words[2];
} bad[] = {
	{"[libvirt]\nif_down = maybe\n", 2, {"maybe", "allow or refuse"}},
	{"[libvirt]\nuri = a\nuri = b\n", 3, {"b", "before"}},
	{"[daemon]\nbackend = vmware\n", 2, {"vmware", "kvm, local or xen"}},
	{"[daemon]\n\n\nruntime_dir = run\n", 4, {"run", "absolute"}},
	{"[daemon]\nattach_timeout = 0\n", 2, {"0", "1 to 3600"}},
	{"[daemon]\ncolour = red\n", 2, {"colour", "red"}},
	{"slots = 5\n", 1, {"slots", "before any"}},
	{"[group a]\nslots = 65\n", 2, {"65", "2 to 64"}},
	{"[group a]\nmemory = 65M\n", 2, {"65M", "power of two"}},
	{"[group a]\nmemory = 99999999999G\n", 2, {"99999999999G", "power of two"}},
	{"[group a]\nchunk = 32K\n", 2, {"32K", "64K"}},
	{"[group a]\nkey_file = /a\nkey_file = /b\n", 3, {"/b", "before"}},
	{"[group a]\nexclude_ports = 22,70000\n", 2, {"70000", "22, 6000-6010"}},
	{"[group a]\nexclude_ports = 30-20\n", 2, {"30-20", "ports"}},
	{"[group a]\nexclude_addresses = 10.0.0.0/33\n", 2, {"10.0.0.0/33", "addresses"}},
	{"[group a]\nslots = 5\n", 1, {"a", "key_file"}},
	{"[group a/b]\nslots = 5\n", 2, {"a/b", "valid name"}},
	{"[cloud x]\nslots = 5\n", 2, {"cloud", "daemon, group, vm or host"}},
	{"[group a]\nslots=5\n[daemon]\nbackend=kvm\n[group a]\nslots=6\n", 6, {"group a", "line 2"}},
	{"[vm v]\ngroup = g\n", 2, {"[vm v]", "key_file and address"}},
	{"[vm v]\naddress = 10.0.0.1, 10.0.0.1\n", 2, {"10.0.0.1", "once"}},
	{"[vm v]\naddress = 10.0.0.256\n", 2, {"10.0.0.256", "IPv4"}},
	{"[vm v]\naddress = 1.0.0.1 1.0.0.2 1.0.0.3 1.0.0.4 1.0.0.5 1.0.0.6 1.0.0.7 1.0.0.8 "
	 "1.0.0.9\n", 2, {"1.0.0.9", "at most 8"}},
	{"[vm v]\nuuid = 123\n", 2, {"123", "UUID"}},
	{"[vm v]\nqmp = web.qmp\n", 2, {"web.qmp", "absolute"}},
	{"[host h]\ntransport = a\ntransport = b\n", 3, {"transport", "before"}},
	{"[host h]\nlibvirt_uri = x\n", 2, {"h", "address"}},
	{"[host h]\naddress = far.example.org\n", 2, {"far.example.org", "numeric"}},
	{"[host h]\naddress = 10.0.0.1:70000\n", 2, {"70000", "numeric"}},
	{"[host h]\naddress = [fd00::1\n", 2, {"fd00::1", "numeric"}},
	{"[daemon]\npeer_listen = 10.0.0.1:\n", 2, {"10.0.0.1:", "numeric"}},
	{"[daemon]\nbackend kvm\n", 2, {"neither", "name = value"}},
	{"[daemon\nbackend = kvm\n", 1, {"neither", "[section]"}},
};

START_TEST(mistakes)
{
	char place[96];

	ck_assert_int_lt(load(bad[_i].text), 0);
	snprintf(place, sizeof(place), "%s:%u:", path, bad[_i].line);
	/* a section without its options is found at the end: the line is the section's */
	if (!strstr(bad[_i].words[1], "address") && !strstr(bad[_i].words[1], "key_file"))
		ck_assert_msg(strstr(e.text, place), "%s lacks %s", e.text, place);
	ck_assert_msg(strstr(e.text, bad[_i].words[0]), "%s lacks %s", e.text, bad[_i].words[0]);
	ck_assert_msg(strstr(e.text, bad[_i].words[1]), "%s lacks %s", e.text, bad[_i].words[1]);
}
END_TEST

START_TEST(long_lines)
{
	char text[1024] = "[group a]\nslots = 2\nexclude_ports = ";

	size_t len = strlen(text);

	for (; len < 600; len += 5)
		memcpy(text + len, "1000,", 6);
	memcpy(text + len, "\n", 2);
	ck_assert_int_eq(load(text), -EMSGSIZE);
	ck_assert_msg(strstr(e.text, ":3: 'exclude_ports"), "%s", e.text);
	config_deinit(&c);

	memcpy(text, "[group ", 7);
	memset(text + 7, 'n', 60);
	memcpy(text + 67, "]\nslots = 2\n", sizeof("]\nslots = 2\n"));
	ck_assert_int_eq(load(text), -EMSGSIZE);
	ck_assert_msg(strstr(e.text, ":1: "), "%s", e.text);
}
END_TEST

START_TEST(addresses)
{
	char text[VMCOMM_ADDR_STRLEN], id[VMCOMM_UUID_STRLEN];
	uint8_t a[16], u[16], list[2][16];
	uint64_t n;

	ck_assert_int_eq(vmcomm_addr_parse("10.1.2.3", a), 0);
	ck_assert_str_eq(vmcomm_addr_format(a, text), "10.1.2.3");
	ck_assert_int_eq(vmcomm_addr_parse("::ffff:10.1.2.3", a), 0);
	ck_assert_str_eq(vmcomm_addr_format(a, text), "10.1.2.3");
	ck_assert_int_eq(vmcomm_addr_parse("fd00::1", a), 0);
	ck_assert_str_eq(vmcomm_addr_format(a, text), "fd00::1");
	ck_assert_int_eq(vmcomm_addr_parse("::", a), -EINVAL);
	ck_assert_int_eq(vmcomm_addr_parse("0.0.0.0", a), -EINVAL);
	ck_assert_int_eq(vmcomm_addr_parse("224.0.0.1", a), -EINVAL);
	ck_assert_int_eq(vmcomm_addr_parse("ff02::1", a), -EINVAL);
	ck_assert_int_eq(vmcomm_addr_parse("10.1.2.3 ", a), -EINVAL);
	ck_assert_int_eq(vmcomm_addr_parse_list("1.1.1.1, fd00::2", list, 2, NULL), 2);
	ck_assert_int_eq(vmcomm_addr_parse_list("1.1.1.1 1.1.1.2 1.1.1.3", list, 2, NULL), -E2BIG);
	ck_assert_int_eq(vmcomm_addr_parse_list("", list, 2, NULL), 0);
	ck_assert_int_eq(vmcomm_uuid_parse("01234567-89ab-cdef-0123-456789ABCDEF", u), 0);
	ck_assert_str_eq(vmcomm_uuid_format(u, id), "01234567-89ab-cdef-0123-456789abcdef");
	ck_assert_int_eq(vmcomm_uuid_parse("01234567-89ab-cdef-0123-456789abcdeg", u), -EINVAL);
	ck_assert_int_eq(vmcomm_uuid_parse("0123456789abcdef0123456789abcdef0123", u), -EINVAL);
	ck_assert_int_eq(vmcomm_size_parse("64M", &n), 0);
	ck_assert_uint_eq(n, 64ULL << 20);
	ck_assert_int_eq(vmcomm_size_parse("-1", &n), -EINVAL);
	ck_assert_int_eq(vmcomm_size_parse("1MB", &n), -EINVAL);
	ck_assert_int_eq(vmcomm_size_parse("99999999999999999999", &n), -ERANGE);
	ck_assert(vmcomm_name_valid("web-1.example_x"));
	ck_assert(!vmcomm_name_valid(""));
	ck_assert(!vmcomm_name_valid("../x"));
	ck_assert(!vmcomm_name_valid(".x"));
	ck_assert(!vmcomm_name_valid("a b"));
}
END_TEST

#define BRIDGE(id, devices, base, limit) \
	"{\"qdev_id\": \"" id "\", \"id\": {\"vendor\": 6966, \"device\": 12}, \"pci_bridge\": " \
	"{\"devices\": [" devices "], \"bus\": {\"prefetchable_range\": {\"base\": " base \
	", \"limit\": " limit "}}}}"
#define HOST(device) "{\"qdev_id\": \"\", \"id\": {\"vendor\": 32902, \"device\": " device "}}"

static int choose(const char *devices, char *bus, char *why)
{
	char text[2048];
	json_t *pci;
	int err;

	snprintf(text, sizeof(text), "[{\"bus\": 0, \"devices\": [%s]}]", devices);
	pci = json_loads(text, 0, NULL);
	ck_assert_ptr_nonnull(pci);
	err = kvm_port_choose(pci, 64 << 20, bus, 64, why, 400);
	json_decref(pci);
	return err;
}

START_TEST(ports)
{
	char bus[64], why[400];

	ck_assert_int_eq(choose(HOST("4663"), bus, why), 0);
	ck_assert_str_eq(bus, "pci.0");
	/* taken, too small, good */
	ck_assert_int_eq(choose(HOST("10688") "," BRIDGE("r1", "{}", "4294967296", "5368709119") ","
				BRIDGE("r2", "", "4294967296", "4297064447") ","
				BRIDGE("r3", "", "4294967296", "5368709119"), bus, why), 0);
	ck_assert_str_eq(bus, "r3");
	/* the firmware has not run yet */
	ck_assert_int_eq(choose(BRIDGE("r1", "", "0", "0"), bus, why), 0);
	ck_assert_str_eq(bus, "r1");
	ck_assert_int_eq(choose(BRIDGE("r2", "", "4294967296", "4297064447"), bus, why), -ENODEV);
	ck_assert_ptr_nonnull(strstr(why, "2 MiB"));
	ck_assert_ptr_nonnull(strstr(why, "pref64-reserve=128M"));
	ck_assert_int_eq(choose(HOST("10688"), bus, why), -ENODEV);
	ck_assert_ptr_nonnull(strstr(why, "no free PCIe root port"));
	/* nonsense of a hostile monitor */
	ck_assert_int_eq(choose("1, \"x\", {\"pci_bridge\": 5}, {\"pci_bridge\": {\"bus\": []}}", bus,
				why), -ENODEV);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("config");
	TCase *tc = tcase_create("config");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_test(tc, defaults);
	tcase_add_test(tc, everything);
	tcase_add_loop_test(tc, mistakes, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(tc, long_lines);
	suite_add_tcase(s, tc);
	tc = tcase_create("words");
	tcase_add_test(tc, addresses);
	tcase_add_test(tc, ports);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_tap(sr, "-");
	srunner_run_all(sr, CK_SILENT);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
