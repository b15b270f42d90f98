// SPDX-License-Identifier: GPL-2.0-or-later
/* main.c - vmcommd: command line, signals, service manager */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "control.h"
#include "domains.h"
#include "log.h"
#include "manager.h"
#include "migrate.h"

#define CONFIG_FILE VMCOMM_SYSCONFDIR "/vmcomm/vmcomm.conf"

static void usage(FILE *out)
{
	fputs("Usage: vmcommd [OPTION...]\n"
	      "Manage groups of VMs that talk TCP through shared memory.\n\n"
	      "  --config FILE   configuration (default " CONFIG_FILE ")\n"
	      "  --check         read the configuration, say what is wrong with it, and end\n"
	      "  --help, --version\n\n"
	      "It runs in the foreground, under systemd or not. SIGTERM ends it; groups and VMs go on.\n",
	      out);
}

static int check(const char *file, bool optional)
{
	struct vmcomm_error e;
	struct config c;
	int err = config_load(&c, file, optional, &e);

	if (err)
		fprintf(stderr, "vmcommd: %s\n", e.text);
	else
		printf("%s is good\n", file);
	config_deinit(&c);
	return err ? 1 : 0;
}

static int signals_init(sd_event *event)
{
	sigset_t set;
	int err;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	err = sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL);
	if (err >= 0)
		err = sd_event_add_signal(event, NULL, SIGINT, NULL, NULL);
	return err < 0 ? err : 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
		{"help", no_argument, NULL, 'h'},	  {"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	const char *file = CONFIG_FILE;
	bool optional = true, check_only = false;
	struct control *control = NULL;
	static struct manager m;
	struct vmcomm_error e = {0};
	sd_event *event = NULL;
	char path[256];
	int opt, err;

	while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (opt) {
		case 'c':
			file = optarg;
			optional = false;
			break;
		case 'k':
			check_only = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'V':
			printf("vmcommd %s, ABI %d.%d\n", VMCOMM_VERSION, VMCOMM_ABI_MAJOR,
			       VMCOMM_ABI_MINOR);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "vmcommd: unexpected argument '%s'\n", argv[optind]);
		return 2;
	}
	if (check_only)
		return check(file, optional);

	umask(0022);
	err = sd_event_new(&event);
	if (err >= 0)
		err = signals_init(event);
	if (err < 0) {
		log_error("cannot make an event loop: %s", strerror(-err));
		return 1;
	}
	err = manager_init(&m, event, file, optional, &e);
	if (!err) {
		snprintf(path, sizeof(path), "%s/vmcommd.sock", m.config.runtime_dir);
		umask(0077);
		err = control_init(&control, &m, path, &e);
		umask(0022);
	}
	if (!err && m.config.peer_listen)
		err = peer_server_init(&m.peers, &m, m.config.peer_listen, incoming_accepted, &e);
	if (!err)
		err = domains_init(&m, &e);
	if (!err)
		migrate_resume(&m);
	if (err) {
		log_error("%s", e.text[0] ? e.text : strerror(-err));
	} else {
		sd_event_set_watchdog(event, true);
		log_info("version %s serves %s, backend %s", VMCOMM_VERSION, path, m.config.backend);
		sd_notify(0, "READY=1");
		err = sd_event_loop(event);
		sd_notify(0, "STOPPING=1");
	}
	control_free(control);
	peer_server_free(m.peers);
	domains_free(&m);
	manager_deinit(&m);
	sd_event_unref(event);
	return err < 0 ? 1 : 0;
}
