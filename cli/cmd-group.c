// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd-group.c - vmcommctl group */
#include <stdio.h>
#include <string.h>

#include "../host/common/addr.h"
#include "cli.h"

static int put_number(json_t *params, const char *name, const char *text, bool size)
{
	uint64_t n;
	int err;

	if (!text)
		return 0;
	err = size ? vmcomm_size_parse(text, &n) : vmcomm_number_parse(text, 0, 1U << 30, &n);
	if (err || n > INT64_MAX)
		return cli_error(CLI_USAGE, "--%s %s: give a number%s", name, text,
				 size ? " of bytes, such as 64M" : "");
	json_object_set_new(params, name, json_integer((json_int_t)n));
	return 0;
}

static void put_string(json_t *params, const char *name, const char *text)
{
	if (text)
		json_object_set_new(params, name, json_string(text));
}

int cmd_group_add(const struct cli *o)
{
	json_t *params = json_pack("{s:s}", "name", o->name), *last, *g;
	int code;

	code = put_number(params, "slots", o->slots, false);
	if (!code)
		code = put_number(params, "memory", o->memory, true);
	if (!code)
		code = put_number(params, "chunk", o->chunk, true);
	if (!code)
		code = cli_key(o, params);
	if (code) {
		json_decref(params);
		return code;
	}
	put_string(params, "exclude_ports", o->exclude_ports);
	put_string(params, "exclude_addresses", o->exclude_addresses);
	code = cli_call(o, "io.vmcomm.GroupAdd", params, NULL, NULL, &last);
	if (code)
		return code;
	g = json_object_get(last, "group");
	if (o->json) {
		cli_print_json(last);
		return 0;
	}
	printf("group %s is defined; its key is in %s\n", o->name, cli_get_string(g, "key_file"));
	json_decref(last);
	return 0;
}

static int list(const struct cli *o, json_t **last)
{
	json_t *params = json_object();

	put_string(params, "name", o->name);
	return cli_call(o, "io.vmcomm.GroupList", params, NULL, NULL, last);
}

int cmd_group_list(const struct cli *o)
{
	static const char *const columns[] = {"GROUP", "MEMBERS", "SLOTS", "MEMORY", "KEEPER",
					      "ORIGIN", "PROBLEM", NULL};
	struct cli_table *t;
	char text[16];
	json_t *last, *g;
	size_t i;
	int code = list(o, &last);

	if (code)
		return code;
	if (o->json) {
		cli_print_json(last);
		return 0;
	}
	t = cli_table_new(columns, "-->>--");
	json_array_foreach (json_object_get(last, "groups"), i, g) {
		cli_table_cell(t, cli_get_string(g, "name"));
		cli_table_cellf(t, "%lld", cli_get_number(g, "members"));
		cli_table_cellf(t, "%lld", cli_get_number(g, "slots"));
		cli_table_cell(t, cli_bytes((uint64_t)cli_get_number(g, "memory"), text));
		if (json_object_get(g, "keeper_pid"))
			cli_table_cellf(t, "%lld", cli_get_number(g, "keeper_pid"));
		else
			cli_table_cell(t, "-");
		cli_table_cell(t, cli_get_string(g, "origin"));
		cli_table_cell(t, cli_get_string(g, "problem"));
	}
	cli_table_print(t);
	json_decref(last);
	return 0;
}

json_t *cli_slot_holder(json_t *group, json_t *slot)
{
	json_t *n = json_object_get(slot, "held_by");

	return n ? json_array_get(json_object_get(group, "table"), (size_t)json_integer_value(n)) : NULL;
}

int cmd_group_show(const struct cli *o)
{
	static const char *const columns[] = {"SLOT", "STATE", "GENERATION", "VM", "HELD BY", NULL};
	struct cli_table *t;
	json_t *last, *g, *slot, *x, *holder;
	char text[16];
	size_t i;
	int code = list(o, &last);

	if (code)
		return code;
	if (o->json) {
		cli_print_json(last);
		return 0;
	}
	g = json_array_get(json_object_get(last, "groups"), 0);
	printf("group:    %s\norigin:   %s\nmemory:   %s in chunks of %lldK\nkey file: %s\n",
	       cli_get_string(g, "name"), cli_get_string(g, "origin"),
	       cli_bytes((uint64_t)cli_get_number(g, "memory"), text),
	       cli_get_number(g, "chunk") >> 10, cli_get_string(g, "key_file"));
	if (json_object_get(g, "keeper_pid"))
		printf("keeper:   process %lld\n", cli_get_number(g, "keeper_pid"));
	json_array_foreach (json_object_get(g, "exclude"), i, x) {
		printf("exclude:  ports %lld-%lld", cli_get_number(x, "port_min"),
		       cli_get_number(x, "port_max"));
		if (json_object_get(x, "address"))
			printf(" address %s/%lld", cli_get_string(x, "address"),
			       cli_get_number(x, "prefix"));
		putchar('\n');
	}
	if (json_object_get(g, "problem"))
		printf("problem:  %s\n", cli_get_string(g, "problem"));
	putchar('\n');
	t = cli_table_new(columns, ">->--");
	json_array_foreach (json_object_get(g, "table"), i, slot) {
		cli_table_cellf(t, "%lld", cli_get_number(slot, "slot"));
		cli_table_cell(t, cli_get_string(slot, "state"));
		cli_table_cellf(t, "%lld", cli_get_number(slot, "generation"));
		cli_table_cell(t, cli_get_string(slot, "vm"));
		holder = cli_slot_holder(g, slot);
		if (!holder)
			cli_table_cell(t, "");
		else if (json_object_get(holder, "vm"))
			cli_table_cellf(t, "%s in slot %lld", cli_get_string(holder, "vm"),
					cli_get_number(holder, "slot"));
		else
			cli_table_cellf(t, "slot %lld", cli_get_number(holder, "slot"));
	}
	cli_table_print(t);
	json_decref(last);
	return 0;
}

int cmd_group_remove(const struct cli *o)
{
	json_t *last;
	int code = cli_call(o, "io.vmcomm.GroupRemove", json_pack("{s:s}", "name", o->name), NULL,
			    NULL, &last);

	if (code)
		return code;
	if (o->json)
		cli_print_json(last);
	else
		json_decref(last), printf("group %s is removed\n", o->name);
	return 0;
}
