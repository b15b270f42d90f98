// SPDX-License-Identifier: LGPL-2.1-or-later
/* libvirt-xml.c - what we read of a domain's XML, and the device that we write */
#include "libvirt-xml.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../host/common/addr.h"

#define QEMU_NAMESPACE "http://libvirt.org/schemas/domain/qemu/1.0"
#define TEXT_MAX       256 /* of an attribute or element that we want */

enum model { MODEL_NONE, MODEL_PORT, MODEL_OTHER };

struct buses {
	enum model model[LIBVIRT_BUSES];
	bool fixed[LIBVIRT_BUSES]; /* takes no hotplug */
	bool used[LIBVIRT_BUSES];
	uint64_t reserve[LIBVIRT_BUSES];
	uint64_t reserve_all;
};

struct reader {
	struct libvirt_domain_xml *out;
	struct buses buses;
	char *why;
	size_t why_size;
	int err;
};

static void bad(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void bad(struct reader *r, const char *fmt, ...)
{
	va_list args;

	if (r->err)
		return;
	r->err = -EINVAL;
	va_start(args, fmt);
	vsnprintf(r->why, r->why_size, fmt, args);
	va_end(args);
}

/* -- small things -- */

static bool is(const xmlNode *n, const char *name)
{
	return n->type == XML_ELEMENT_NODE && !n->ns && !strcmp((const char *)n->name, name);
}

static bool is_in(const xmlNode *n, const char *ns, const char *name)
{
	return n->type == XML_ELEMENT_NODE && n->ns && n->ns->href &&
	       !strcmp((const char *)n->ns->href, ns) && !strcmp((const char *)n->name, name);
}

/* Copy without blanks around it. Return: false: too long, or it has characters for no terminal. */
static bool copy(char *buf, size_t size, const char *text)
{
	size_t len, i;

	text += strspn(text, " \t\r\n");
	len = strlen(text);
	while (len && strchr(" \t\r\n", text[len - 1]))
		len--;
	buf[0] = 0;
	if (len >= size)
		return false;
	for (i = 0; i < len; i++)
		if ((unsigned char)text[i] < 32 || (unsigned char)text[i] > 126)
			return false;
	memcpy(buf, text, len);
	buf[len] = 0;
	return true;
}

/* An attribute without namespace. Return: false: not there, or unfit; then @buf is empty. */
static bool attribute(const xmlNode *n, const char *name, char *buf, size_t size)
{
	xmlChar *text = xmlGetNoNsProp((xmlNode *)(uintptr_t)n, (const xmlChar *)name);
	bool ok = text && copy(buf, size, (const char *)text);

	if (!ok)
		buf[0] = 0;
	xmlFree(text);
	return ok;
}

static bool content(const xmlNode *n, char *buf, size_t size)
{
	xmlChar *text = xmlNodeGetContent(n);
	bool ok = text && copy(buf, size, (const char *)text);

	if (!ok)
		buf[0] = 0;
	xmlFree(text);
	return ok;
}

static const xmlNode *child(const xmlNode *n, const char *name)
{
	for (n = n->children; n; n = n->next)
		if (is(n, name))
			return n;
	return NULL;
}

/* A number as libvirt writes it: decimal or 0x... Return: false: none, or over @max. */
static bool number(const xmlNode *n, const char *name, uint64_t max, uint64_t *value)
{
	char text[24], *end;

	if (!attribute(n, name, text, sizeof(text)) || text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	*value = strtoull(text, &end, 0);
	return !errno && !*end && *value <= max;
}

/* -- the member element -- */

bool libvirt_secret_type_valid(const char *type)
{
	return !strcmp(type, "ceph") || !strcmp(type, "iscsi") || !strcmp(type, "tls") ||
	       !strcmp(type, "vtpm");
}

static void only_attributes(struct reader *r, const xmlNode *n, const char *const *names)
{
	const xmlAttr *a;
	unsigned int i;

	for (a = n->properties; a; a = a->next) {
		for (i = 0; names[i] && strcmp(names[i], (const char *)a->name); i++)
			;
		if (!a->ns && !names[i])
			bad(r, "<vmcomm:%.32s> has no attribute '%.32s'", (const char *)n->name,
			    (const char *)a->name);
	}
}

static void secret(struct reader *r, const xmlNode *n)
{
	static const char *const names[] = {"uuid", "usage", "type", NULL};
	struct libvirt_secret *s = &r->out->member.secret;
	bool uuid = xmlHasProp((xmlNode *)(uintptr_t)n, (const xmlChar *)"uuid") != NULL;
	bool usage = xmlHasProp((xmlNode *)(uintptr_t)n, (const xmlChar *)"usage") != NULL;
	char text[VMCOMM_UUID_STRLEN];

	only_attributes(r, n, names);
	if (s->given)
		bad(r, "<vmcomm:secret> is there twice");
	if (uuid == usage)
		bad(r, "<vmcomm:secret> needs either uuid or usage");
	if (uuid && (!attribute(n, "uuid", text, sizeof(text)) || vmcomm_uuid_parse(text, s->uuid)))
		bad(r, "<vmcomm:secret>: uuid is no UUID");
	if (usage && (!attribute(n, "usage", s->usage, sizeof(s->usage)) || !s->usage[0]))
		bad(r, "<vmcomm:secret>: usage must have 1 to %zu printable characters",
		    sizeof(s->usage) - 1);
	if (usage && (!attribute(n, "type", s->type, sizeof(s->type)) ||
		      !libvirt_secret_type_valid(s->type)))
		bad(r, "<vmcomm:secret usage='%.60s'> needs type: ceph, iscsi, tls or vtpm", s->usage);
	s->given = true;
	s->by_uuid = uuid;
}

static void address(struct reader *r, const xmlNode *n)
{
	static const char *const names[] = {NULL};
	struct libvirt_member *m = &r->out->member;
	char text[VMCOMM_ADDR_STRLEN];
	uint8_t addr[16];
	uint32_t i;

	only_attributes(r, n, names);
	if (m->addr_count == LIBVIRT_ADDRS) {
		bad(r, "<vmcomm:member> has more than %d addresses", LIBVIRT_ADDRS);
		return;
	}
	if (!content(n, text, sizeof(text)) || vmcomm_addr_parse(text, addr)) {
		bad(r, "<vmcomm:address>%.47s</vmcomm:address> is no IPv4 or IPv6 address of a VM",
		    text);
		return;
	}
	for (i = 0; i < m->addr_count; i++)
		if (!memcmp(m->addr[i], addr, 16))
			bad(r, "<vmcomm:address>%.47s</vmcomm:address> is there twice", text);
	memcpy(m->addr[m->addr_count++], addr, 16);
}

static void member(struct reader *r, const xmlNode *n)
{
	static const char *const names[] = {"group", NULL};
	struct libvirt_member *m = &r->out->member;

	if (m->present) {
		bad(r, "<vmcomm:member> is there twice");
		return;
	}
	m->present = true;
	only_attributes(r, n, names);
	if (!attribute(n, "group", m->group, sizeof(m->group)) || !vmcomm_name_valid(m->group))
		bad(r, "<vmcomm:member> needs group, up to 63 letters, digits, '_', '-' and '.'");
	for (n = n->children; n; n = n->next) {
		if (is_in(n, LIBVIRT_NAMESPACE, "address"))
			address(r, n);
		else if (is_in(n, LIBVIRT_NAMESPACE, "secret"))
			secret(r, n);
	}
	if (!m->addr_count)
		bad(r, "<vmcomm:member> needs at least one <vmcomm:address>");
}

/* -- the machine -- */

static void controller(struct reader *r, const xmlNode *n)
{
	const xmlNode *target = child(n, "target");
	char text[32];
	uint64_t index;

	if (!attribute(n, "type", text, sizeof(text)) || strcmp(text, "pci"))
		return;
	if (!number(n, "index", LIBVIRT_BUSES - 1, &index) || !attribute(n, "model", text, sizeof(text)))
		return;
	if (!strcmp(text, "pcie-root"))
		r->out->pcie = true;
	r->buses.model[index] = strcmp(text, "pcie-root-port") ? MODEL_OTHER : MODEL_PORT;
	if (target && attribute(target, "hotplug", text, sizeof(text)) && !strcmp(text, "off"))
		r->buses.fixed[index] = true;
}

static void shmem(struct reader *r, const xmlNode *n)
{
	const xmlNode *alias = child(n, "alias"), *server = child(n, "server");
	char text[64];

	if (!attribute(n, "name", text, sizeof(text)) || strcmp(text, LIBVIRT_SHMEM))
		return;
	if (!alias || !attribute(alias, "name", text, sizeof(text)) || strcmp(text, LIBVIRT_ALIAS))
		return;
	r->out->device = true;
	if (server)
		attribute(server, "path", r->out->device_socket, sizeof(r->out->device_socket));
}

static void device(struct reader *r, const xmlNode *n)
{
	const xmlNode *address_node = child(n, "address");
	char text[32];
	uint64_t bus;

	if (address_node && attribute(address_node, "type", text, sizeof(text)) &&
	    !strcmp(text, "pci") && number(address_node, "bus", LIBVIRT_BUSES - 1, &bus))
		r->buses.used[bus] = true;
	if (is(n, "controller"))
		controller(r, n);
	else if (is(n, "shmem"))
		shmem(r, n);
}

/* QEMU's arguments that users add: -global pcie-root-port.pref64-reserve=SIZE */
static void commandline(struct reader *r, const xmlNode *n)
{
	static const char want[] = "pcie-root-port.pref64-reserve=";
	char text[TEXT_MAX];

	for (n = n->children; n; n = n->next)
		if (is_in(n, QEMU_NAMESPACE, "arg") && attribute(n, "value", text, sizeof(text)) &&
		    !strncmp(text, want, strlen(want)) &&
		    vmcomm_size_parse(text + strlen(want), &r->buses.reserve_all))
			r->buses.reserve_all = 0;
}

/* Properties of single devices: <qemu:device alias='pci.9'> ... pref64-reserve */
static void override(struct reader *r, const xmlNode *n)
{
	const xmlNode *front, *prop;
	char text[TEXT_MAX], *end;
	unsigned long bus;
	uint64_t value;

	for (n = n->children; n; n = n->next) {
		if (!is_in(n, QEMU_NAMESPACE, "device") ||
		    !attribute(n, "alias", text, sizeof(text)) || strncmp(text, "pci.", 4))
			continue;
		bus = strtoul(text + 4, &end, 10);
		if (*end || end == text + 4 || bus >= LIBVIRT_BUSES)
			continue;
		for (front = n->children; front; front = front->next) {
			if (!is_in(front, QEMU_NAMESPACE, "frontend"))
				continue;
			for (prop = front->children; prop; prop = prop->next)
				if (is_in(prop, QEMU_NAMESPACE, "property") &&
				    attribute(prop, "name", text, sizeof(text)) &&
				    !strcmp(text, "pref64-reserve") &&
				    number(prop, "value", UINT64_MAX, &value))
					r->buses.reserve[bus] = value;
		}
	}
}

static void seclabel(struct reader *r, const xmlNode *n)
{
	const xmlNode *label = child(n, "label");
	char text[64], *at = text, *end;
	unsigned long uid;

	if (!attribute(n, "model", text, sizeof(text)) || strcmp(text, "dac") || !label ||
	    !content(label, text, sizeof(text)))
		return;
	at += *at == '+';
	uid = strtoul(at, &end, 10);
	if (end != at && *end == ':' && uid < UINT32_MAX)
		r->out->uid = (int64_t)uid;
}

static void domain(struct reader *r, const xmlNode *root)
{
	const xmlNode *n, *m;
	char text[VMCOMM_UUID_STRLEN];

	for (n = root->children; n; n = n->next) {
		if (is(n, "name")) {
			content(n, r->out->name, sizeof(r->out->name));
		} else if (is(n, "uuid")) {
			r->out->has_uuid = content(n, text, sizeof(text)) &&
					   !vmcomm_uuid_parse(text, r->out->uuid);
		} else if (is(n, "metadata")) {
			for (m = n->children; m; m = m->next)
				if (is_in(m, LIBVIRT_NAMESPACE, "member"))
					member(r, m);
		} else if (is(n, "devices")) {
			for (m = n->children; m; m = m->next)
				if (m->type == XML_ELEMENT_NODE)
					device(r, m);
		} else if (is(n, "seclabel")) {
			seclabel(r, n);
		} else if (is_in(n, QEMU_NAMESPACE, "commandline")) {
			commandline(r, n);
		} else if (is_in(n, QEMU_NAMESPACE, "override")) {
			override(r, n);
		}
	}
}

static void ports(struct reader *r)
{
	const struct buses *b = &r->buses;
	struct libvirt_port *p;
	uint32_t i;

	for (i = 0; i < LIBVIRT_BUSES; i++) {
		if (b->model[i] != MODEL_PORT || b->fixed[i] || b->used[i])
			continue;
		p = &r->out->port[r->out->port_count++];
		p->bus = i;
		p->reserve = b->reserve[i] ? b->reserve[i] : b->reserve_all;
	}
}

/* A document type may define entities: the parser ends there, before it has seen one. */
static void doctype(void *arg, const xmlChar *name, const xmlChar *external, const xmlChar *system)
{
	xmlParserCtxt *ctxt = arg;

	ctxt->_private = ctxt;
	xmlStopParser(ctxt);
}

int libvirt_xml_parse(const char *xml, size_t len, struct libvirt_domain_xml *out, char *why,
		      size_t why_size)
{
	struct reader r = {.out = out, .why = why, .why_size = why_size};
	xmlParserCtxt *ctxt;
	const xmlNode *root;
	xmlDoc *doc;

	memset(out, 0, sizeof(*out));
	out->uid = -1;
	if (len > LIBVIRT_XML_MAX) {
		snprintf(why, why_size, "its XML is larger than %u bytes", LIBVIRT_XML_MAX);
		return -E2BIG;
	}
	ctxt = xmlNewParserCtxt();
	if (!ctxt)
		return -ENOMEM;
	ctxt->sax->internalSubset = doctype;
	ctxt->sax->externalSubset = doctype;
	doc = xmlCtxtReadMemory(ctxt, xml, (int)len, NULL, NULL,
				XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
					XML_PARSE_NOCDATA);
	root = doc ? xmlDocGetRootElement(doc) : NULL;
	if (ctxt->_private)
		bad(&r, "its XML has a document type, which is not read");
	else if (!root || !is(root, "domain"))
		bad(&r, "its XML is damaged, or is no domain's");
	else
		domain(&r, root);
	if (!r.err)
		ports(&r);
	else
		memset(&out->member, 0, sizeof(out->member));
	xmlFreeDoc(doc);
	xmlFreeParserCtxt(ctxt);
	return r.err;
}

int libvirt_port_choose(const struct libvirt_domain_xml *d, uint64_t size, int *bus, char *why,
			size_t why_size)
{
	uint64_t largest = 0;
	unsigned int i;

	*bus = -1;
	if (!d->pcie)
		return 0;
	for (i = 0; i < d->port_count; i++) {
		if (d->port[i].reserve >= size) {
			*bus = (int)d->port[i].bus;
			return 0;
		}
		if (d->port[i].reserve > largest)
			largest = d->port[i].reserve;
	}
	if (!d->port_count) {
		snprintf(why, why_size, "it has no free PCIe root port: add <controller type='pci' "
			 "model='pcie-root-port'/> to its definition, with pref64-reserve of %llu MiB "
			 "(docs/libvirt.md), and start it again", (unsigned long long)(2 * size >> 20));
		return -ENODEV;
	}
	if (!largest) {
		*bus = -2;
		return 0;
	}
	snprintf(why, why_size, "the windows of its free PCIe root ports (%llu MiB) are smaller than the "
		 "region (%llu MiB): raise pref64-reserve to %llu MiB (docs/libvirt.md) and start it "
		 "again", (unsigned long long)(largest >> 20), (unsigned long long)(size >> 20),
		 (unsigned long long)(2 * size >> 20));
	return -ENODEV;
}

int libvirt_device_xml(const char *socket, unsigned int vectors, int bus, char *buf, size_t size)
{
	char where[96] = "";

	/* A path that would need escaping is none of ours. */
	if (strpbrk(socket, "<>&'\""))
		return -EINVAL;
	if (bus >= 0)
		snprintf(where, sizeof(where), "<address type='pci' domain='0' bus='%d' slot='0' "
			 "function='0'/>", bus);
	return (size_t)snprintf(buf, size, "<shmem name='" LIBVIRT_SHMEM "'><model type='ivshmem-doorbell'/>"
				"<server path='%s'/><msi vectors='%u' ioeventfd='on'/>"
				"<alias name='" LIBVIRT_ALIAS "'/>%s</shmem>",
				socket, vectors, where) < size ? 0 : -EINVAL;
}
