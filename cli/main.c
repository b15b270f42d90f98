// SPDX-License-Identifier: GPL-2.0-or-later
/* main.c - vmcommctl: commands and options */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define SOCKET_DEFAULT "/run/vmcomm/vmcommd.sock"

struct command {
	const char *noun;
	const char *verb; /* NULL: the noun is all */
	const char *argument; /* NULL: none; "[NAME]": may be left out */
	const char *options; /* letters of those that it takes, besides the global ones */
	int (*run)(const struct cli *o);
	const char *help;
};

static const struct command commands[] = {
	{"group", "add", "NAME", "nmckpx", cmd_group_add,
	 "define a group; without --key-file a key is made"},
	{"group", "list", NULL, "", cmd_group_list, "list the groups"},
	{"group", "show", "NAME", "", cmd_group_show, "one group with its slots"},
	{"group", "remove", "NAME", "", cmd_group_remove, "forget a group without members"},
	{"group", "release", "NAME", "", cmd_group_release,
	 "replug VMs that keep others' slots in quarantine"},
	{"vm", "add", "NAME", "gkauqbUi", cmd_vm_add,
	 "make a VM a member; prints the socket for its QEMU"},
	{"vm", "remove", "NAME", "k", cmd_vm_remove, "end a membership; needs the group's key"},
	{"vm", "attach", "NAME", "k", cmd_vm_attach, "plug the device into the running VM"},
	{"vm", "detach", "NAME", "", cmd_vm_detach, "unplug it; connections go on over TCP"},
	{"vm", "start", "CONFIG", "gkau", cmd_vm_start, "start a Xen domain with its device"},
	{"vm", "list", NULL, "g", cmd_vm_list, "list the members"},
	{"vm", "show", "NAME", "", cmd_vm_show, "one member with all that is known"},
	{"vm", "path", "VM VM", "", cmd_vm_path, "which path connections between two VMs take, and why"},
	{"migrate", NULL, "VM HOST", "wtC", cmd_migrate, "move a VM to another host, connections and all"},
	{"exec", NULL, "VM -- COMMAND...", "", cmd_exec,
	 "run COMMAND while the VM is detached, attach it again"},
	{"conn", "list", NULL, "gv", cmd_conn_list, "connections between members, and their path"},
	{"stats", NULL, "[VM]", "", cmd_stats, "counters of the guests' modules"},
	{"doctor", NULL, NULL, "", cmd_doctor, "is this machine able to use vmcomm? what to do?"},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct option longs[] = {
	{"json", no_argument, NULL, 'j'},
	{"socket", required_argument, NULL, 's'},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{"group", required_argument, NULL, 'g'},
	{"vm", required_argument, NULL, 'v'},
	{"key-file", required_argument, NULL, 'k'},
	{"address", required_argument, NULL, 'a'},
	{"uuid", required_argument, NULL, 'u'},
	{"qmp", required_argument, NULL, 'q'},
	{"bus", required_argument, NULL, 'b'},
	{"user", required_argument, NULL, 'U'},
	{"slots", required_argument, NULL, 'n'},
	{"memory", required_argument, NULL, 'm'},
	{"chunk", required_argument, NULL, 'c'},
	{"exclude-ports", required_argument, NULL, 'p'},
	{"exclude-addresses", required_argument, NULL, 'x'},
	{"incoming", no_argument, NULL, 'i'},
	{"bandwidth", required_argument, NULL, 'w'},
	{"postcopy", no_argument, NULL, 'P'},
	{"timeout", required_argument, NULL, 't'},
	{"cancel", no_argument, NULL, 'C'},
	{NULL, 0, NULL, 0},
};

int cli_error(int code, const char *fmt, ...)
{
	va_list args;

	fflush(stdout);
	fputs("vmcommctl: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	return code;
}

static void usage(FILE *out)
{
	char left[64];
	size_t i;

	fputs("Usage: vmcommctl [OPTION...] COMMAND...\n"
	      "See and steer VMs that talk TCP through shared memory.\n\nCommands:\n",
	      out);
	for (i = 0; i < COMMANDS; i++) {
		const struct command *c = &commands[i];

		snprintf(left, sizeof(left), "%s%s%s%s%s", c->noun, c->verb ? " " : "",
			 c->verb ? c->verb : "", c->argument ? " " : "",
			 c->argument ? c->argument : "");
		fprintf(out, "  %-22s %s\n", left, c->help);
	}
	fputs("\nOptions:\n"
	      "  --json              print JSON\n"
	      "  --socket PATH       of vmcommd (default " SOCKET_DEFAULT ")\n"
	      "  --help, --version\n"
	      "group add:\n"
	      "  --slots N           VMs at a time, 2 to 64 (default 8)\n"
	      "  --memory SIZE       power of two, such as 64M (default 64M)\n"
	      "  --chunk SIZE        64K, 128K or 256K (default 64K)\n"
	      "  --key-file FILE     an existing key: 64 hexadecimal digits, mode 0600\n"
	      "  --exclude-ports LIST, --exclude-addresses LIST   stay on TCP\n"
	      "vm add:\n"
	      "  --group NAME --key-file FILE --address ADDR[,ADDR...]\n"
	      "  --qmp PATH          QMP socket of its QEMU, for attach and detach\n"
	      "  --uuid UUID, --bus BUS, --user USER\n"
	      "  --incoming          it comes by migration (QEMU: into the one at --qmp)\n"
	      "vm start:\n"
	      "  --group, --key-file, --address, --uuid   make it a member first, as vm add\n"
	      "migrate:\n"
	      "  --bandwidth SIZE    bytes per second, such as 100M\n"
	      "  --postcopy          libvirt: the VM runs there before all of its memory is\n"
	      "  --timeout SECONDS   give up when the memory is not over by then\n"
	      "  --cancel            undo a migration that is going on (without HOST)\n"
	      "vm list, conn list:\n"
	      "  --group NAME, --vm NAME (conn list)\n\n"
	      "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 permission denied or wrong key,\n"
	      "5 vmcommd does not answer, 6 timeout, 7 exists, busy or full, 8 cancelled, 9 migrated,\n"
	      "but over TCP there.\n",
	      out);
}

/* Addresses may come as several options or as a list. */
static int add_addresses(struct cli *o, char *list)
{
	char *word, *save = NULL;

	for (word = strtok_r(list, ", ", &save); word; word = strtok_r(NULL, ", ", &save)) {
		if (o->addresses == CLI_ADDRESSES_MAX)
			return cli_error(CLI_USAGE, "--address %s: a VM has at most %d addresses",
					 word, CLI_ADDRESSES_MAX);
		o->address[o->addresses++] = word;
	}
	return 0;
}

static int parse(struct cli *o, int argc, char **argv, char *given, size_t given_size)
{
	size_t n = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		switch (opt) {
		case 'j':
			o->json = true;
			continue;
		case 's':
			o->socket = optarg;
			continue;
		case 'h':
			usage(stdout);
			exit(0);
		case 'V':
			printf("vmcommctl %s\n", VMCOMM_VERSION);
			exit(0);
		case 'g':
			o->group = optarg;
			break;
		case 'v':
			o->vm = optarg;
			break;
		case 'k':
			o->key_file = optarg;
			break;
		case 'a':
			if (add_addresses(o, optarg))
				return CLI_USAGE;
			break;
		case 'u':
			o->uuid = optarg;
			break;
		case 'q':
			o->qmp = optarg;
			break;
		case 'b':
			o->bus = optarg;
			break;
		case 'U':
			o->user = optarg;
			break;
		case 'n':
			o->slots = optarg;
			break;
		case 'm':
			o->memory = optarg;
			break;
		case 'c':
			o->chunk = optarg;
			break;
		case 'p':
			o->exclude_ports = optarg;
			break;
		case 'x':
			o->exclude_addresses = optarg;
			break;
		case 'i':
			o->incoming = true;
			break;
		case 'w':
			o->bandwidth = optarg;
			break;
		case 'P':
			o->postcopy = true;
			break;
		case 't':
			o->timeout = optarg;
			break;
		case 'C':
			o->cancel = true;
			break;
		default:
			return CLI_USAGE;
		}
		if (n + 1 < given_size)
			given[n++] = (char)opt;
	}
	given[n] = 0;
	return 0;
}

static const struct command *find(int *argc, char ***argv)
{
	bool noun = false;
	size_t i;

	if (!*argc)
		return NULL;
	for (i = 0; i < COMMANDS; i++) {
		const struct command *c = &commands[i];

		if (strcmp(c->noun, (*argv)[0]))
			continue;
		noun = true;
		if (c->verb && (*argc < 2 || strcmp(c->verb, (*argv)[1])))
			continue;
		*argc -= c->verb ? 2 : 1;
		*argv += c->verb ? 2 : 1;
		return c;
	}
	if (noun && *argc > 1)
		cli_error(CLI_USAGE, "'%s' has no command '%s'", (*argv)[0], (*argv)[1]);
	else if (noun)
		cli_error(CLI_USAGE, "'%s' needs another word", (*argv)[0]);
	else
		cli_error(CLI_USAGE, "there is no command '%s'", (*argv)[0]);
	return NULL;
}

static const char *option_name(char letter)
{
	const struct option *l;

	for (l = longs; l->name; l++)
		if (l->val == letter)
			return l->name;
	return "?";
}

int main(int argc, char **argv)
{
	struct cli o = {.socket = getenv("VMCOMM_SOCKET")};
	const struct command *c;
	char given[64], *p;

	if (!o.socket || !*o.socket)
		o.socket = SOCKET_DEFAULT;
	if (parse(&o, argc, argv, given, sizeof(given)))
		goto usage;
	argc -= optind;
	argv += optind;
	if (!argc) {
		usage(stderr);
		return CLI_USAGE;
	}
	c = find(&argc, &argv);
	if (!c)
		goto usage;
	for (p = given; *p; p++)
		if (!strchr(c->options, *p)) {
			cli_error(CLI_USAGE, "%s%s%s does not take --%s", c->noun, c->verb ? " " : "",
				  c->verb ? c->verb : "", option_name(*p));
			goto usage;
		}
	if (c->argument && argc) {
		o.name = argv[0];
		argc--;
		argv++;
	}
	if ((c->run == cmd_migrate || c->run == cmd_vm_path) && argc) {
		o.host = argv[0];
		argc--;
		argv++;
	}
	if (c->run == cmd_exec) {
		o.command = argv;
		argc = 0;
	}
	if (argc) {
		cli_error(CLI_USAGE, "unexpected argument '%s'", argv[0]);
		goto usage;
	}
	if (c->argument && c->argument[0] != '[' && !o.name) {
		cli_error(CLI_USAGE, "%s%s%s needs a name", c->noun, c->verb ? " " : "",
			  c->verb ? c->verb : "");
		goto usage;
	}
	return c->run(&o);

usage:
	fputs("Try 'vmcommctl --help'.\n", stderr);
	return CLI_USAGE;
}
