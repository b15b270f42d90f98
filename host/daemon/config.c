// SPDX-License-Identifier: GPL-2.0-or-later
/* config.c - vmcomm.conf(5) */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ini.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/addr.h"
#include "../common/text.h"

#define SECTION_MAX 49 /* libinih's MAX_SECTION, less its NUL */

struct parser {
	struct config *c;
	FILE *stream;
	struct vmcomm_error *e;
	unsigned int line; /* last one read */
	bool long_line;
	/* the section that we are in */
	char section[80];
	struct config_group *group;
	struct config_vm *vm;
	struct config_host *host;
	bool daemon, libvirt;
};

struct option {
	const char *name;
	int (*set)(struct parser *p, const char *value);
};

static int bad_value(struct parser *p, const char *name, const char *value, const char *want)
{
	return vmcomm_error_set(p->e, -EINVAL, "%s:%u: %s = %s: %s", p->c->file, p->line, name,
				value, want);
}

static int set_string(struct parser *p, char **where, const char *name, const char *value)
{
	if (*where)
		return bad_value(p, name, value, "this was given before");
	*where = strdup(value);
	return *where ? 0 : -ENOMEM;
}

static int set_path(struct parser *p, char **where, const char *name, const char *value)
{
	if (value[0] != '/')
		return bad_value(p, name, value, "give an absolute path");
	return set_string(p, where, name, value);
}

static int daemon_backend(struct parser *p, const char *value)
{
	if (strcmp(value, "kvm") && strcmp(value, "local") && strcmp(value, "xen"))
		return bad_value(p, "backend", value, "use kvm, local or xen");
	return set_string(p, &p->c->backend, "backend", value);
}

static int daemon_runtime_dir(struct parser *p, const char *value)
{
	/* RUNTIME/GROUP/vm-NAME.sock must fit into a socket's address at least for short names. */
	if (strlen(value) > 48)
		return bad_value(p, "runtime_dir", value, "use at most 48 characters");
	return set_path(p, &p->c->runtime_dir, "runtime_dir", value);
}

static int daemon_state_dir(struct parser *p, const char *value)
{
	return set_path(p, &p->c->state_dir, "state_dir", value);
}

static int daemon_keeper(struct parser *p, const char *value)
{
	return set_path(p, &p->c->keeper, "keeper", value);
}

int config_endpoint(const char *text, struct sockaddr_storage *ss, socklen_t *len)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
	struct sockaddr_in *in = (struct sockaddr_in *)ss;
	char host[INET6_ADDRSTRLEN + 8], *end; /* with "]:65535" */
	uint64_t port = CONFIG_PEER_PORT;
	const char *colon;

	memset(ss, 0, sizeof(*ss));
	if (!vmcomm_text_copy(host, sizeof(host), text[0] == '[' ? text + 1 : text))
		return -EINVAL;
	colon = strchr(text, ':');
	if (text[0] == '[') {
		end = strchr(host, ']');
		if (!end)
			return -EINVAL;
		*end = 0;
		colon = strchr(text, ']') + 1;
	} else if (colon && !strchr(colon + 1, ':')) {
		host[strcspn(host, ":")] = 0;
	} else {
		colon = "";
	}
	if (*colon && (*colon != ':' || vmcomm_number_parse(colon + 1, 1, 65535, &port)))
		return -EINVAL;
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		*len = sizeof(*in);
		return 0;
	}
	if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		*len = sizeof(*in6);
		return 0;
	}
	return -EINVAL;
}

static int set_endpoint(struct parser *p, char **where, const char *name, const char *value)
{
	struct sockaddr_storage ss;
	socklen_t len;

	if (config_endpoint(value, &ss, &len))
		return bad_value(p, name, value, "give a numeric address, such as 10.0.0.2, "
				 "10.0.0.2:7416 or [fd00::2]:7416");
	return set_string(p, where, name, value);
}

static int daemon_peer_listen(struct parser *p, const char *value)
{
	return set_endpoint(p, &p->c->peer_listen, "peer_listen", value);
}

static int daemon_migrate_listen(struct parser *p, const char *value)
{
	return set_string(p, &p->c->migrate_listen, "migrate_listen", value);
}

static int seconds(struct parser *p, const char *name, const char *value, uint32_t *where)
{
	uint64_t n;

	if (vmcomm_number_parse(value, 1, 3600, &n))
		return bad_value(p, name, value, "give seconds from 1 to 3600");
	*where = (uint32_t)n;
	return 0;
}

static int daemon_attach_timeout(struct parser *p, const char *value)
{
	return seconds(p, "attach_timeout", value, &p->c->attach_timeout);
}

static int daemon_leave_timeout(struct parser *p, const char *value)
{
	return seconds(p, "leave_timeout", value, &p->c->leave_timeout);
}

static int group_key_file(struct parser *p, const char *value)
{
	return set_path(p, &p->group->key_file, "key_file", value);
}

static int group_slots(struct parser *p, const char *value)
{
	uint64_t n;

	if (vmcomm_number_parse(value, 2, VMCOMM_SLOTS_MAX, &n))
		return bad_value(p, "slots", value, "give a number from 2 to 64");
	p->group->slots = (uint32_t)n;
	return 0;
}

static int group_memory(struct parser *p, const char *value)
{
	uint64_t n;

	if (vmcomm_size_parse(value, &n) || n < VMCOMM_REGION_MIN || n > VMCOMM_REGION_MAX ||
	    (n & (n - 1)))
		return bad_value(p, "memory", value, "give a power of two from 4M to 64G");
	p->group->memory = n;
	return 0;
}

static int group_chunk(struct parser *p, const char *value)
{
	uint64_t n;

	if (vmcomm_size_parse(value, &n) || (n != 65536 && n != 131072 && n != 262144))
		return bad_value(p, "chunk", value, "give 64K, 128K or 256K");
	p->group->chunk = n;
	return 0;
}

/* The next word of a list separated by commas or blanks. Return: its length, 0 at the end. */
static size_t next_word(const char **text, char *word, size_t size)
{
	size_t len;

	*text += strspn(*text, ", \t");
	len = strcspn(*text, ", \t");
	if (len >= size)
		return size; /* the caller refuses it */
	memcpy(word, *text, len);
	word[len] = 0;
	*text += len;
	return len;
}

int config_policy_ports(const char *text, struct vmcomm_abi_policy *policy, uint32_t *count)
{
	char word[16], *dash;
	uint64_t min, max;
	size_t len;

	while ((len = next_word(&text, word, sizeof(word)))) {
		if (len >= sizeof(word))
			return -EINVAL;
		dash = strchr(word, '-');
		if (dash)
			*dash = 0;
		if (vmcomm_number_parse(word, 0, 65535, &min))
			return -EINVAL;
		max = min;
		if (dash && vmcomm_number_parse(dash + 1, min, 65535, &max))
			return -EINVAL;
		if (*count == VMCOMM_POLICY_MAX)
			return -E2BIG;
		memset(&policy[*count], 0, sizeof(policy[*count]));
		policy[*count].port_min = (uint16_t)min;
		policy[*count].port_max = (uint16_t)max;
		(*count)++;
	}
	return 0;
}

int config_policy_addresses(const char *text, struct vmcomm_abi_policy *policy, uint32_t *count)
{
	struct vmcomm_abi_policy row;
	uint64_t prefix, width;
	char word[64], *slash;
	size_t len;

	while ((len = next_word(&text, word, sizeof(word)))) {
		if (len >= sizeof(word))
			return -EINVAL;
		memset(&row, 0, sizeof(row));
		row.port_max = 65535;
		slash = strchr(word, '/');
		if (slash)
			*slash = 0;
		width = strchr(word, ':') ? 128 : 32;
		prefix = width;
		if (vmcomm_addr_parse(word, row.addr) ||
		    (slash && vmcomm_number_parse(slash + 1, 1, width, &prefix)))
			return -EINVAL;
		row.prefix = (uint8_t)(prefix + 128 - width);
		if (*count == VMCOMM_POLICY_MAX)
			return -E2BIG;
		policy[(*count)++] = row;
	}
	return 0;
}

static int group_exclude_ports(struct parser *p, const char *value)
{
	int err = config_policy_ports(value, p->group->policy, &p->group->policy_count);

	if (err == -E2BIG)
		return bad_value(p, "exclude_ports", value, "at most 64 exclusions in all");
	return err ? bad_value(p, "exclude_ports", value, "give ports as in '22, 6000-6010'") : 0;
}

static int group_exclude_addresses(struct parser *p, const char *value)
{
	int err = config_policy_addresses(value, p->group->policy, &p->group->policy_count);

	if (err == -E2BIG)
		return bad_value(p, "exclude_addresses", value, "at most 64 exclusions in all");
	return err ? bad_value(p, "exclude_addresses", value,
			       "give addresses as in '10.1.0.0/16, fd00::1'") : 0;
}

static int vm_group(struct parser *p, const char *value)
{
	if (!vmcomm_name_valid(value))
		return bad_value(p, "group", value, "this is no valid name");
	if (p->vm->group[0])
		return bad_value(p, "group", value, "a VM is in one group only");
	vmcomm_text_copy(p->vm->group, sizeof(p->vm->group), value);
	return 0;
}

static int vm_key_file(struct parser *p, const char *value)
{
	return set_path(p, &p->vm->key_file, "key_file", value);
}

static int vm_uuid(struct parser *p, const char *value)
{
	if (vmcomm_uuid_parse(value, p->vm->uuid))
		return bad_value(p, "uuid", value, "this is no UUID");
	p->vm->has_uuid = true;
	return 0;
}

static int vm_address(struct parser *p, const char *value)
{
	struct config_vm *vm = p->vm;
	int n;

	n = vmcomm_addr_parse_list(value, vm->addr + vm->addr_count,
				   VMCOMM_ADDRS_MAX - vm->addr_count, NULL);
	if (n == -E2BIG)
		return bad_value(p, "address", value, "a VM has at most 8 addresses");
	if (n < 1)
		return bad_value(p, "address", value,
				 "give IPv4 or IPv6 addresses separated by commas, each once");
	vm->addr_count += (uint32_t)n;
	return 0;
}

static int vm_qmp(struct parser *p, const char *value)
{
	if (value[0] != '/' || !vmcomm_text_copy(p->vm->qmp, sizeof(p->vm->qmp), value))
		return bad_value(p, "qmp", value, "give an absolute path of at most 107 characters");
	return 0;
}

static int vm_bus(struct parser *p, const char *value)
{
	if (!vmcomm_text_copy(p->vm->bus, sizeof(p->vm->bus), value))
		return bad_value(p, "bus", value, "this is too long");
	return 0;
}

static int vm_user(struct parser *p, const char *value)
{
	if (!vmcomm_text_copy(p->vm->user, sizeof(p->vm->user), value))
		return bad_value(p, "user", value, "this is too long");
	return 0;
}

static int host_address(struct parser *p, const char *value)
{
	return set_endpoint(p, &p->host->address, "address", value);
}

static int host_libvirt_uri(struct parser *p, const char *value)
{
	return set_string(p, &p->host->libvirt_uri, "libvirt_uri", value);
}

static int host_migration_uri(struct parser *p, const char *value)
{
	return set_string(p, &p->host->migration_uri, "migration_uri", value);
}

static int host_transport(struct parser *p, const char *value)
{
	if (strlen(value) > 1000)
		return bad_value(p, "transport", value, "this is too long");
	return set_string(p, &p->host->transport, "transport", value);
}

static int libvirt_uri(struct parser *p, const char *value)
{
	return set_string(p, &p->c->libvirt_uri, "uri", value);
}

static int libvirt_user(struct parser *p, const char *value)
{
	return set_string(p, &p->c->libvirt_user, "user", value);
}

static int libvirt_if_down(struct parser *p, const char *value)
{
	if (strcmp(value, "allow") && strcmp(value, "refuse"))
		return bad_value(p, "if_down", value, "use allow or refuse");
	p->c->libvirt_refuse = !strcmp(value, "refuse");
	return 0;
}

static const struct option daemon_options[] = {
	{"backend", daemon_backend},
	{"runtime_dir", daemon_runtime_dir},
	{"state_dir", daemon_state_dir},
	{"keeper", daemon_keeper},
	{"peer_listen", daemon_peer_listen},
	{"migrate_listen", daemon_migrate_listen},
	{"attach_timeout", daemon_attach_timeout},
	{"leave_timeout", daemon_leave_timeout},
	{NULL, NULL},
};
static const struct option group_options[] = {
	{"key_file", group_key_file},
	{"slots", group_slots},
	{"memory", group_memory},
	{"chunk", group_chunk},
	{"exclude_ports", group_exclude_ports},
	{"exclude_addresses", group_exclude_addresses},
	{NULL, NULL},
};
static const struct option vm_options[] = {
	{"group", vm_group}, {"key_file", vm_key_file}, {"uuid", vm_uuid}, {"address", vm_address},
	{"qmp", vm_qmp},     {"bus", vm_bus},		{"user", vm_user}, {NULL, NULL},
};
static const struct option libvirt_options[] = {
	{"uri", libvirt_uri},
	{"user", libvirt_user},
	{"if_down", libvirt_if_down},
	{NULL, NULL},
};
static const struct option host_options[] = {
	{"address", host_address},
	{"libvirt_uri", host_libvirt_uri},
	{"migration_uri", host_migration_uri},
	{"transport", host_transport},
	{NULL, NULL},
};

/* "group NAME": the kind's list has no such name yet. Return: a new node with name and line. */
#define NEW_NODE(p, head, name_text) \
	({ \
		__typeof__(head) node = NULL, *at = &(head); \
		while (*at && strcmp((*at)->name, name_text)) \
			at = &(*at)->next; \
		if (*at) \
			vmcomm_error_set((p)->e, -EEXIST, "%s:%u: [%s]: was defined in line %u", \
					 (p)->c->file, (p)->line, (p)->section, (*at)->line); \
		else \
			node = calloc(1, sizeof(*node)); \
		if (node) { \
			vmcomm_text_copy(node->name, sizeof(node->name), name_text); \
			node->line = (p)->line; \
			*at = node; \
		} \
		node; \
	})

static int new_section(struct parser *p, const char *section)
{
	char kind[16], name[80], rest;
	int n;

	snprintf(p->section, sizeof(p->section), "%s", section);
	p->daemon = p->libvirt = false;
	p->group = NULL;
	p->vm = NULL;
	p->host = NULL;
	if (!strcmp(section, "daemon")) {
		p->daemon = true;
		return 0;
	}
	if (!strcmp(section, "libvirt")) {
		p->libvirt = true;
		p->c->libvirt = true;
		return 0;
	}
	n = sscanf(section, "%15s %79s %c", kind, name, &rest);
	if (n != 2)
		return vmcomm_error_set(p->e, -EINVAL, "%s:%u: [%s]: use [daemon], [libvirt], "
					"[group NAME], [vm NAME] or [host NAME]", p->c->file, p->line, section);
	if (!vmcomm_name_valid(name))
		return vmcomm_error_set(p->e, -EINVAL, "%s:%u: [%s]: '%s' is no valid name: use up "
					"to 63 letters, digits, '_', '-' and '.'",
					p->c->file, p->line, section, name);
	if (!strcmp(kind, "group"))
		p->group = NEW_NODE(p, p->c->groups, name);
	else if (!strcmp(kind, "vm"))
		p->vm = NEW_NODE(p, p->c->vms, name);
	else if (!strcmp(kind, "host"))
		p->host = NEW_NODE(p, p->c->hosts, name);
	else
		return vmcomm_error_set(p->e, -EINVAL, "%s:%u: [%s]: there is no kind of section "
					"'%s': use daemon, group, vm or host",
					p->c->file, p->line, section, kind);
	if (p->group || p->vm || p->host)
		return 0;
	return p->e->code ? p->e->code : -ENOMEM;
}

/* libinih calls this for each "name = value". Return: nonzero to go on. */
static int handler(void *user, const char *section, const char *name, const char *value)
{
	struct parser *p = user;
	const struct option *o;

	if (p->e->code)
		return 0;
	if (!*section) {
		vmcomm_error_set(p->e, -EINVAL, "%s:%u: %s = %s stands before any [section]",
				 p->c->file, p->line, name, value);
		return 0;
	}
	if (strcmp(section, p->section) && new_section(p, section))
		return 0;
	o = p->daemon ? daemon_options : p->libvirt ? libvirt_options : p->group ? group_options :
	    p->vm ? vm_options : host_options;
	for (; o->name; o++)
		if (!strcmp(o->name, name)) {
			if (o->set(p, value) && !p->e->code)
				vmcomm_error_set(p->e, -ENOMEM, "out of memory");
			return !p->e->code;
		}
	vmcomm_error_set(p->e, -EINVAL, "%s:%u: [%s] has no option '%s' (value '%s')", p->c->file,
			 p->line, section, name, value);
	return 0;
}

/* Like fgets(), but counts lines and does not cut long ones in silence. */
static char *reader(char *str, int num, void *stream)
{
	struct parser *p = stream;
	size_t len;

	if (p->e->code || !fgets(str, num, p->stream))
		return NULL;
	p->line++;
	len = strlen(str);
	if (len && str[len - 1] != '\n' && !feof(p->stream)) {
		vmcomm_error_set(p->e, -EMSGSIZE, "%s:%u: '%.20s...': the line is longer than the "
				 "%d characters that fit; continue lists on an indented line",
				 p->c->file, p->line, str, num - 2);
		return NULL;
	}
	/* libinih would cut a long section name in silence. */
	if (str[0] == '[' && strcspn(str, "]\n") > SECTION_MAX) {
		vmcomm_error_set(p->e, -EMSGSIZE, "%s:%u: '%.*s': use at most %d characters between "
				 "the brackets", p->c->file, p->line, (int)strcspn(str, "\n"), str,
				 SECTION_MAX - 1);
		return NULL;
	}
	return str;
}

static int check(struct config *c, struct vmcomm_error *e)
{
	struct config_group *g;
	struct config_vm *vm, *other;
	struct config_host *h;

	for (g = c->groups; g; g = g->next)
		if (!g->key_file)
			return vmcomm_error_set(e, -EINVAL, "%s:%u: [group %s] needs key_file",
						c->file, g->line, g->name);
	for (h = c->hosts; h; h = h->next)
		if (!h->address)
			return vmcomm_error_set(e, -EINVAL, "%s:%u: [host %s] needs address",
						c->file, h->line, h->name);
	for (vm = c->vms; vm; vm = vm->next) {
		if (!vm->group[0] || !vm->key_file || !vm->addr_count)
			return vmcomm_error_set(e, -EINVAL,
						"%s:%u: [vm %s] needs group, key_file and address",
						c->file, vm->line, vm->name);
		for (other = c->vms; other != vm; other = other->next)
			if (vm->has_uuid && other->has_uuid && !memcmp(vm->uuid, other->uuid, 16))
				return vmcomm_error_set(e, -EINVAL, "%s:%u: [vm %s] has the uuid of "
							"[vm %s]", c->file, vm->line, vm->name,
							other->name);
	}
	return 0;
}

static int defaults(struct config *c)
{
	if (!c->backend)
		c->backend = strdup("kvm");
	if (!c->runtime_dir)
		c->runtime_dir = strdup("/run/vmcomm");
	if (!c->state_dir)
		c->state_dir = strdup("/var/lib/vmcomm");
	if (!c->keeper)
		c->keeper = strdup(VMCOMM_LIBEXECDIR "/vmcomm-keeper");
	if (c->libvirt && !c->libvirt_uri) {
		c->libvirt_uri = strdup("qemu:///system");
		if (!c->libvirt_uri)
			return -ENOMEM;
	}
	if (!c->attach_timeout)
		c->attach_timeout = 15;
	if (!c->leave_timeout)
		c->leave_timeout = 10;
	return c->backend && c->runtime_dir && c->state_dir && c->keeper ? 0 : -ENOMEM;
}

int config_load(struct config *c, const char *file, bool optional, struct vmcomm_error *e)
{
	struct parser p = {.c = c, .e = e};
	int err;

	memset(c, 0, sizeof(*c));
	memset(e, 0, sizeof(*e));
	c->file = file;
	p.stream = fopen(file, "re");
	if (!p.stream && !(optional && errno == ENOENT))
		return vmcomm_error_set(e, -errno, "cannot open %s: %s", file, strerror(errno));
	if (p.stream) {
		err = ini_parse_stream(reader, &p, handler, &p);
		fclose(p.stream);
		/* The first mistake counts; libinih goes on after one of its own. */
		if (err > 0 && (!e->code || (unsigned int)err < p.line))
			vmcomm_error_set(e, -EINVAL, "%s:%d: this is neither a [section] nor "
					 "name = value", file, err);
		else if (!e->code && err)
			vmcomm_error_set(e, -ENOMEM, "cannot read %s", file);
		if (e->code)
			return e->code;
	}
	err = defaults(c);
	if (err)
		return vmcomm_error_set(e, err, "out of memory");
	return check(c, e);
}

void config_deinit(struct config *c)
{
	while (c->groups) {
		struct config_group *g = c->groups;

		c->groups = g->next;
		free(g->key_file);
		free(g);
	}
	while (c->vms) {
		struct config_vm *vm = c->vms;

		c->vms = vm->next;
		free(vm->key_file);
		free(vm);
	}
	while (c->hosts) {
		struct config_host *h = c->hosts;

		c->hosts = h->next;
		free(h->address);
		free(h->libvirt_uri);
		free(h->migration_uri);
		free(h->transport);
		free(h);
	}
	free(c->backend);
	free(c->runtime_dir);
	free(c->state_dir);
	free(c->keeper);
	free(c->libvirt_uri);
	free(c->libvirt_user);
	free(c->peer_listen);
	free(c->migrate_listen);
	memset(c, 0, sizeof(*c));
}
