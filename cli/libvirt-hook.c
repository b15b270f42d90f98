// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * libvirt-hook.c - /etc/libvirt/hooks/qemu.d/vmcomm: may this domain start? (M12)
 *
 *	vmcomm-libvirt-hook [--config FILE] DOMAIN OPERATION SUBOPERATION EXTRA <XML
 *
 * libvirt waits for us and holds the domain: we end within seconds whatever happens, and ask nothing of
 * libvirt. Domains that are no members do not notice us. Status 1 and a text on standard error keep the
 * domain from starting.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "../backends/kvm/libvirt-xml.h"
#include "../host/common/addr.h"
#include "../host/daemon/config.h"
#include "cli.h"

#define CONFIG_FILE VMCOMM_SYSCONFDIR "/vmcomm/vmcomm.conf"
#define SECONDS	    10

/* What to do when vmcommd cannot be asked. */
static volatile sig_atomic_t refuse_if_down;

/* client.c's words go into ours. */
int cli_error(int code, const char *fmt, ...)
{
	return code;
}

static int no_answer(const char *domain, const char *why)
{
	if (refuse_if_down) {
		fprintf(stderr, "vmcomm: domain '%s' is not started without vmcommd (if_down = refuse): %s\n",
			domain, why);
		return 1;
	}
	syslog(LOG_WARNING, "domain %s starts, over TCP for now: %s", domain, why);
	return 0;
}

static void late(int sig)
{
	static const char text[] = "vmcomm: vmcommd does not answer, and if_down = refuse\n";

	if (refuse_if_down && write(2, text, sizeof(text) - 1) < 0)
		_exit(1);
	_exit(refuse_if_down ? 1 : 0);
}

/* All of standard input, at most LIBVIRT_XML_MAX + 1 bytes of it. */
static char *read_xml(size_t *len)
{
	static char rest[65536];
	char *xml = malloc(LIBVIRT_XML_MAX + 1);
	ssize_t n;

	*len = 0;
	while (xml) {
		size_t room = LIBVIRT_XML_MAX + 1 - *len;

		n = read(0, room ? xml + *len : rest, room ? room : sizeof(rest));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		*len += room ? (size_t)n : 0;
	}
	return xml;
}

static json_t *question(const struct libvirt_domain_xml *d)
{
	const struct libvirt_member *m = &d->member;
	json_t *addresses = json_array(), *o;
	char text[VMCOMM_ADDR_STRLEN];
	uint32_t i;

	for (i = 0; i < m->addr_count; i++)
		json_array_append_new(addresses, json_string(vmcomm_addr_format(m->addr[i], text)));
	o = json_pack("{s:s, s:s, s:s, s:o}", "name", d->name, "uuid",
		      vmcomm_uuid_format(d->uuid, text), "group", m->group, "addresses", addresses);
	if (m->secret.given && m->secret.by_uuid) {
		json_object_set_new(o, "secret_uuid",
				    json_string(vmcomm_uuid_format(m->secret.uuid, text)));
	} else if (m->secret.given) {
		json_object_set_new(o, "secret_type", json_string(m->secret.type));
		json_object_set_new(o, "secret_usage", json_string(m->secret.usage));
	}
	return o;
}

static int ask(const char *socket, const struct libvirt_domain_xml *d)
{
	struct cli o = {.socket = socket};
	char why[1024] = "";
	json_t *last = NULL;
	int code;

	code = cli_call_quiet(&o, "io.vmcomm.LibvirtPrepare", question(d), &last, why, sizeof(why));
	json_decref(last);
	switch (code) {
	case CLI_OK:
		return 0;
	case CLI_NOT_FOUND:
	case CLI_PERMISSION:
	case CLI_USAGE:
	case CLI_CONFLICT:
		fprintf(stderr, "vmcomm: %s\n", why);
		return 1;
	default:
		return no_answer(d->name, why);
	}
}

static int prepare(const char *domain, const char *config_file)
{
	static struct libvirt_domain_xml d;
	char *xml, why[300], path[256];
	struct vmcomm_error e;
	struct config c;
	size_t len;
	int err;

	signal(SIGALRM, late);
	alarm(SECONDS);
	xml = read_xml(&len);
	if (!xml || !memmem(xml, len, LIBVIRT_NAMESPACE, strlen(LIBVIRT_NAMESPACE))) {
		free(xml);
		return 0;
	}
	err = libvirt_xml_parse(xml, len, &d, why, sizeof(why));
	free(xml);
	if (err) {
		fprintf(stderr, "vmcomm: domain '%s': %s\n", domain, why);
		return 1;
	}
	if (!d.member.present)
		return 0;
	err = config_load(&c, config_file, true, &e);
	refuse_if_down = c.libvirt_refuse;
	if (err)
		err = no_answer(domain, e.text);
	else if (!d.has_uuid)
		err = no_answer(domain, "the domain has no UUID");
	else if ((size_t)snprintf(path, sizeof(path), "%s/vmcommd.sock", c.runtime_dir) < sizeof(path))
		err = ask(path, &d);
	config_deinit(&c);
	return err;
}

int main(int argc, char **argv)
{
	const char *config_file = CONFIG_FILE;

	openlog("vmcomm-libvirt-hook", LOG_PID, LOG_DAEMON);
	if (argc > 2 && !strcmp(argv[1], "--config")) {
		config_file = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc < 4) {
		fputs("Usage: vmcomm-libvirt-hook [--config FILE] DOMAIN OPERATION SUBOPERATION EXTRA <XML\n"
		      "libvirt calls it, from /etc/libvirt/hooks/qemu.d.\n", stderr);
		return 2;
	}
	if (strcmp(argv[2], "prepare") || strcmp(argv[3], "begin"))
		return 0;
	return prepare(argv[1], config_file);
}
