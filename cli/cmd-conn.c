// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd-conn.c - vmcommctl conn list, vmcommctl stats */
#include <stdio.h>
#include <string.h>

#include "cli.h"

static void collect(void *arg, json_t *params)
{
	json_array_extend(arg, json_object_get(params, "connections"));
}

static void cell_endpoint(struct cli_table *t, json_t *e)
{
	const char *vm = cli_get_string(e, "vm"), *address = cli_get_string(e, "address");
	bool v6 = strchr(address, ':');

	cli_table_cellf(t, "%s%s%s%s%s:%lld", vm, *vm ? "/" : "", v6 ? "[" : "", address,
			v6 ? "]" : "", cli_get_number(e, "port"));
}

static void cell_direction(struct cli_table *t, json_t *d)
{
	char ring[16], tcp[16];

	if (!json_is_object(d)) {
		cli_table_cell(t, "?");
		cli_table_cell(t, "?");
		return;
	}
	cli_table_cell(t, cli_get_string(d, "path"));
	cli_table_cellf(t, "%s/%s", cli_bytes((uint64_t)cli_get_number(d, "ring_bytes"), ring),
			cli_bytes((uint64_t)cli_get_number(d, "tcp_bytes"), tcp));
}

/* Who sleeps: in the client's or the server's send or receive. */
static void sleepers(json_t *c, char *text, size_t size)
{
	json_t *up = json_object_get(c, "to_server"), *down = json_object_get(c, "to_client");
	const struct {
		json_t *d;
		const char *flag, *name;
	} rows[] = {
		{up, "sender_sleeps", "client-send"},
		{down, "receiver_sleeps", "client-recv"},
		{down, "sender_sleeps", "server-send"},
		{up, "receiver_sleeps", "server-recv"},
	};
	size_t i, n = 0;

	text[0] = 0;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (json_is_true(json_object_get(rows[i].d, rows[i].flag)))
			n += (size_t)snprintf(text + n, size - n, "%s%s", n ? "," : "",
					      rows[i].name);
}

static const char *reason(json_t *c)
{
	const char *up = cli_get_string(json_object_get(c, "to_server"), "reason");
	const char *down = cli_get_string(json_object_get(c, "to_client"), "reason");

	if (*up && strcmp(up, "none"))
		return up;
	return *down && strcmp(down, "none") ? down : "";
}

static void table(json_t *list)
{
	static const char *const columns[] = {"GROUP", "CLIENT", "SERVER", "STATE", "->PATH",
					      "->RING/TCP", "<-PATH", "<-RING/TCP", "SLEEPING",
					      "REASON", NULL};
	struct cli_table *t = cli_table_new(columns, "-----<>-<>--");
	char text[128];
	json_t *c;
	size_t i;

	json_array_foreach (list, i, c) {
		bool plain = !strcmp(cli_get_string(c, "state"), "plain");

		cli_table_cell(t, cli_get_string(c, "group"));
		cell_endpoint(t, json_object_get(c, plain ? "local" : "client"));
		cell_endpoint(t, json_object_get(c, plain ? "remote" : "server"));
		cli_table_cell(t, cli_get_string(c, "state"));
		if (plain) {
			cli_table_cell(t, "tcp");
			cli_table_cell(t, "");
			cli_table_cell(t, "tcp");
			cli_table_cell(t, "");
			cli_table_cell(t, "");
			cli_table_cell(t, cli_get_string(c, "reason"));
			continue;
		}
		cell_direction(t, json_object_get(c, "to_server"));
		cell_direction(t, json_object_get(c, "to_client"));
		sleepers(c, text, sizeof(text));
		cli_table_cell(t, text);
		cli_table_cell(t, reason(c));
	}
	cli_table_print(t);
}

int cmd_conn_list(const struct cli *o)
{
	json_t *params = json_object(), *list = json_array(), *last;
	bool truncated;
	int code;

	if (o->group)
		json_object_set_new(params, "group", json_string(o->group));
	if (o->vm)
		json_object_set_new(params, "vm", json_string(o->vm));
	code = cli_call(o, "io.vmcomm.ConnList", params, collect, list, &last);
	if (code) {
		json_decref(list);
		return code;
	}
	truncated = json_is_true(json_object_get(last, "truncated"));
	json_decref(last);
	if (o->json) {
		cli_print_json(json_pack("{s:o, s:b}", "connections", list, "truncated", truncated));
		return 0;
	}
	table(list);
	json_decref(list);
	if (truncated)
		cli_error(0, "there are more: this is not all");
	return 0;
}

int cmd_stats(const struct cli *o)
{
	static const char *const columns[] = {"VM", "COUNTER", "VALUE", NULL};
	json_t *params = json_object(), *last, *vm, *v;
	struct cli_table *t;
	const char *key;
	size_t i;
	int code;

	if (o->name)
		json_object_set_new(params, "name", json_string(o->name));
	code = cli_call(o, "io.vmcomm.Stats", params, NULL, NULL, &last);
	if (code)
		return code;
	if (o->json) {
		cli_print_json(last);
		return 0;
	}
	t = cli_table_new(columns, "-->");
	json_array_foreach (json_object_get(last, "vms"), i, vm) {
		json_object_foreach (json_object_get(vm, "counters"), key, v) {
			cli_table_cell(t, cli_get_string(vm, "vm"));
			cli_table_cell(t, key);
			cli_table_cellf(t, "%lld", (long long)json_integer_value(v));
		}
		json_object_foreach (json_object_get(vm, "reasons"), key, v) {
			cli_table_cell(t, cli_get_string(vm, "vm"));
			cli_table_cellf(t, "reason.%s", key);
			cli_table_cellf(t, "%lld", (long long)json_integer_value(v));
		}
	}
	cli_table_print(t);
	json_decref(last);
	return 0;
}
