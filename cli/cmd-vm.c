// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd-vm.c - vmcommctl vm */
#include <stdio.h>
#include <string.h>

#include "cli.h"

#define VECTORS 4

static void put_string(json_t *params, const char *name, const char *text)
{
	if (text)
		json_object_set_new(params, name, json_string(text));
}

int cmd_vm_add(const struct cli *o)
{
	json_t *params, *addresses, *last, *vm;
	unsigned int i;
	int code;

	if (!o->group || !o->key_file || (!o->addresses && !o->incoming))
		return cli_error(CLI_USAGE, "vm add needs --group, --key-file and --address");
	addresses = json_array();
	for (i = 0; i < o->addresses; i++)
		json_array_append_new(addresses, json_string(o->address[i]));
	params = json_pack("{s:s, s:s, s:b}", "name", o->name, "group", o->group, "incoming",
			   o->incoming);
	if (!params) {
		json_decref(addresses);
		return cli_error(CLI_USAGE, "an argument is not valid UTF-8");
	}
	if (o->addresses)
		json_object_set(params, "addresses", addresses);
	json_decref(addresses);
	code = cli_key(o, params);
	if (code) {
		json_decref(params);
		return code;
	}
	put_string(params, "uuid", o->uuid);
	put_string(params, "qmp", o->qmp);
	put_string(params, "bus", o->bus);
	put_string(params, "user", o->user);
	code = cli_call(o, "io.vmcomm.VmAdd", params, NULL, NULL, &last);
	if (code)
		return code;
	if (o->json) {
		cli_print_json(last);
		return 0;
	}
	vm = json_object_get(last, "vm");
	if (o->incoming) {
		printf("vm %s is expected in group %s: migrate it from where it runs with 'vmcommctl "
		       "migrate %s HOST'\n", o->name, o->group, o->name);
		json_decref(last);
		return 0;
	}
	printf("vm %s is a member of group %s, uuid %s\n", o->name, o->group,
	       cli_get_string(vm, "uuid"));
	if (!json_object_get(vm, "socket")) {
		printf("it gets its device when it starts; if it runs:  vmcommctl vm attach %s\n", o->name);
		json_decref(last);
		return 0;
	}
	if (o->qmp)
		printf("plug it in:  vmcommctl vm attach %s\n", o->name);
	printf("%s -chardev socket,id=vmcomm0c,path=%s -device "
	       "ivshmem-doorbell,id=vmcomm0,chardev=vmcomm0c,vectors=%d\n",
	       o->qmp ? "or at start: " : "start it with:", cli_get_string(vm, "socket"), VECTORS);
	json_decref(last);
	return 0;
}

int cmd_vm_list(const struct cli *o)
{
	static const char *const columns[] = {"VM", "GROUP", "STATE", "SLOT", "LOCATION", "QEMU",
					      "ADDRESSES", "PROBLEM", NULL};
	json_t *params = json_object(), *last, *vm, *addr;
	char text[512];
	struct cli_table *t;
	size_t i, k, n;
	int code;

	put_string(params, "group", o->group);
	code = cli_call(o, "io.vmcomm.VmList", params, NULL, NULL, &last);
	if (code)
		return code;
	if (o->json) {
		cli_print_json(last);
		return 0;
	}
	t = cli_table_new(columns, "--->->--");
	json_array_foreach (json_object_get(last, "vms"), i, vm) {
		cli_table_cell(t, cli_get_string(vm, "name"));
		cli_table_cell(t, cli_get_string(vm, "group"));
		cli_table_cell(t, cli_get_string(vm, "state"));
		if (json_object_get(vm, "slot"))
			cli_table_cellf(t, "%lld", cli_get_number(vm, "slot"));
		else
			cli_table_cell(t, "-");
		cli_table_cell(t, cli_get_string(vm, "location"));
		if (json_object_get(vm, "qemu_pid"))
			cli_table_cellf(t, "%lld", cli_get_number(vm, "qemu_pid"));
		else
			cli_table_cell(t, "-");
		n = 0;
		text[0] = 0;
		json_array_foreach (json_object_get(vm, "addresses"), k, addr)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", k ? "," : "",
					      json_string_value(addr));
		cli_table_cell(t, text);
		cli_table_cell(t, cli_get_string(vm, "problem"));
	}
	cli_table_print(t);
	json_decref(last);
	return 0;
}

static void show(json_t *vm)
{
	const char *key;
	json_t *v;
	size_t i;

	json_object_foreach (vm, key, v) {
		printf("%-18s ", key);
		if (json_is_string(v)) {
			printf("%s\n", json_string_value(v));
		} else if (json_is_integer(v)) {
			printf("%lld\n", (long long)json_integer_value(v));
		} else if (json_is_boolean(v)) {
			printf("%s\n", json_is_true(v) ? "yes" : "no");
		} else {
			for (i = 0; i < json_array_size(v); i++)
				printf("%s%s", i ? ", " : "",
				       json_string_value(json_array_get(v, i)));
			putchar('\n');
		}
	}
}

int cmd_vm_show(const struct cli *o)
{
	json_t *last;
	int code = cli_call(o, "io.vmcomm.VmList", json_pack("{s:s}", "name", o->name), NULL, NULL,
			    &last);

	if (code)
		return code;
	if (o->json) {
		cli_print_json(last);
		return 0;
	}
	show(json_array_get(json_object_get(last, "vms"), 0));
	json_decref(last);
	return 0;
}

int cmd_vm_path(const struct cli *o)
{
	const char *side[2][3] = {{"vm", "group", "state"}, {"peer", "peer_group", "peer_state"}};
	json_t *params, *last;
	int code, i;

	if (!o->host)
		return cli_error(CLI_USAGE, "vm path needs two VMs");
	params = json_pack("{s:s, s:s}", "name", o->name, "peer", o->host);
	if (!params)
		return cli_error(CLI_USAGE, "an argument is not valid UTF-8");
	code = cli_call(o, "io.vmcomm.VmPath", params, NULL, NULL, &last);
	if (code)
		return code;
	if (o->json) {
		cli_print_json(last);
		return 0;
	}
	printf("%s: %s (%s)\n", cli_get_string(last, "path"), cli_get_string(last, "reason"),
	       cli_get_string(last, "reason_text"));
	for (i = 0; i < 2; i++)
		printf("  %s: group %s, %s\n", cli_get_string(last, side[i][0]),
		       cli_get_string(last, side[i][1]), cli_get_string(last, side[i][2]));
	json_decref(last);
	return 0;
}

static void print_step(void *arg, json_t *params)
{
	const struct cli *o = arg;
	const char *step = json_string_value(json_object_get(params, "step"));

	if (!step)
		return;
	if (o->json)
		json_dumpf(params, stdout, JSON_COMPACT), putchar('\n');
	else
		printf("%s: %s\n", o->name, step);
	fflush(stdout);
}

/* With --json: one object per line, a step each, the last one the result. */
static int operate(const struct cli *o, const char *method, bool with_key)
{
	json_t *params = json_pack("{s:s}", "name", o->name), *last;
	int code = with_key ? cli_key(o, params) : 0;

	if (code) {
		json_decref(params);
		return code;
	}
	code = cli_call(o, method, params, print_step, (void *)(uintptr_t)o, &last);
	if (code)
		return code;
	if (o->json)
		json_dumpf(last, stdout, JSON_COMPACT), putchar('\n');
	else
		printf("%s: done\n", o->name);
	json_decref(last);
	return 0;
}

int cmd_vm_attach(const struct cli *o)
{
	return operate(o, "io.vmcomm.VmAttach", true);
}

int cmd_vm_detach(const struct cli *o)
{
	return operate(o, "io.vmcomm.VmDetach", false);
}

int cmd_vm_remove(const struct cli *o)
{
	return operate(o, "io.vmcomm.VmRemove", true);
}
