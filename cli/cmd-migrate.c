// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd-migrate.c - vmcommctl migrate VM HOST */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../host/common/addr.h"
#include "cli.h"

static volatile sig_atomic_t told_stop;

struct progress {
	const struct cli *o;
	bool line; /* a line that will be written over is on the terminal */
};

static void on_signal(int sig)
{
	told_stop++;
}

/* Ctrl-C: ask vmcommd to undo it; how that went comes as the answer to the migration itself. */
static void interrupted(const struct cli *o)
{
	struct cli other = {.socket = o->socket};
	static int asked;
	char why[512];
	json_t *last;

	if (told_stop <= asked)
		return;
	asked = told_stop;
	if (cli_call_quiet(&other, "io.vmcomm.VmMigrateCancel", json_pack("{s:s}", "name", o->name),
			   &last, why, sizeof(why)))
		cli_error(0, "not cancelled: %s", why);
	else
		cli_error(0, "cancelling");
	json_decref(last);
}

static void print_memory(struct progress *p, json_t *event)
{
	uint64_t sent = (uint64_t)cli_get_number(event, "sent");
	uint64_t total = (uint64_t)cli_get_number(event, "total");
	char a[16], b[16];

	if (!isatty(STDOUT_FILENO) || !total)
		return;
	printf("\r%s: memory: %s of %s (%d %%)\033[K", p->o->name, cli_bytes(sent, a),
	       cli_bytes(total, b), (int)(100.0 * (double)sent / (double)total));
	p->line = true;
}

static void print_event(void *arg, json_t *params)
{
	json_t *event = json_object_get(params, "event");
	struct progress *p = arg;

	if (!event)
		return;
	if (p->o->json) {
		json_dumpf(event, stdout, JSON_COMPACT);
		putchar('\n');
	} else if (json_object_get(event, "total")) {
		print_memory(p, event);
	} else {
		if (p->line)
			putchar('\n');
		p->line = false;
		printf("%s: %s: %s\n", p->o->name, cli_get_string(event, "step"),
		       cli_get_string(event, "text"));
	}
	fflush(stdout);
}

static int cancel(const struct cli *o)
{
	json_t *last;
	int code = cli_call(o, "io.vmcomm.VmMigrateCancel", json_pack("{s:s}", "name", o->name), NULL,
			    NULL, &last);

	json_decref(last);
	return code;
}

static int options(const struct cli *o, json_t *params)
{
	uint64_t n;

	if (o->bandwidth) {
		if (vmcomm_size_parse(o->bandwidth, &n) || !n || n > 1ULL << 40)
			return cli_error(CLI_USAGE, "--bandwidth %s: give bytes per second, such as 100M",
					 o->bandwidth);
		json_object_set_new(params, "bandwidth", json_integer((json_int_t)n));
	}
	if (o->postcopy)
		json_object_set_new(params, "postcopy", json_true());
	if (o->timeout) {
		if (vmcomm_number_parse(o->timeout, 1, 86400, &n))
			return cli_error(CLI_USAGE, "--timeout %s: give seconds, 1 to 86400",
					 o->timeout);
		json_object_set_new(params, "timeout", json_integer((json_int_t)n));
	}
	return 0;
}

int cmd_migrate(const struct cli *o)
{
	struct sigaction sa = {.sa_handler = on_signal}; /* without SA_RESTART */
	struct cli patient = *o;
	struct progress p = {.o = o};
	json_t *params, *last, *result;
	int code;

	if (o->cancel)
		return o->host ? cli_error(CLI_USAGE, "migrate --cancel takes no HOST") : cancel(o);
	if (!o->host)
		return cli_error(CLI_USAGE, "migrate needs a VM and a HOST");
	params = json_pack("{s:s, s:s}", "name", o->name, "host", o->host);
	if (!params)
		return cli_error(CLI_USAGE, "an argument is not valid UTF-8");
	code = options(o, params);
	if (code) {
		json_decref(params);
		return code;
	}
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	patient.patient = true;
	patient.interrupted = interrupted;
	code = cli_call(&patient, "io.vmcomm.VmMigrate", params, print_event, &p, &last);
	if (code)
		return code;
	result = json_object_get(last, "result");
	if (o->json) {
		json_dumpf(last, stdout, JSON_COMPACT);
		putchar('\n');
	}
	if (!json_is_true(json_object_get(result, "attached")))
		code = cli_error(CLI_OVER_TCP, "%s runs on %s, but over TCP: %s", o->name, o->host,
				 cli_get_string(result, "problem"));
	else if (!o->json)
		printf("%s: done: runs on %s, %lld of %lld connections in shared memory\n", o->name,
		       o->host, cli_get_number(result, "adopted"),
		       cli_get_number(result, "connections"));
	json_decref(last);
	return code;
}
