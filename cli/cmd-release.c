// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cmd-release.c - vmcommctl group release: end quarantines that do not end by themselves
 *
 * A slot whose VM is gone rests while a running VM may still read what is in it. A VM that never lets
 * go keeps the slot for ever. Its memory cannot be taken from it while its QEMU has it mapped: what
 * such a VM read then would be another VM's bytes. So the device of the VM that holds it is unplugged,
 * and plugged in again; its connections go on over TCP meanwhile. Where that does not help, only the end
 * of its QEMU does.
 */
#include <stdio.h>
#include <string.h>

#include "cli.h"

struct held {
	int slot, by_slot;
	char by[64]; /* name of the VM; empty: no member */
};

/* Return: 1: @held says what the first one is; 0: no slot is held; negative: an exit code after a message */
static int find_held(const struct cli *o, struct held *held)
{
	json_t *last, *g, *row, *holder;
	int code, found = 0;
	size_t i;

	code = cli_call(o, "io.vmcomm.GroupList", json_pack("{s:s}", "name", o->name), NULL, NULL, &last);
	if (code)
		return -code;
	g = json_array_get(json_object_get(last, "groups"), 0);
	json_array_foreach (json_object_get(g, "table"), i, row) {
		holder = cli_slot_holder(g, row);
		if (!holder)
			continue;
		held->slot = (int)cli_get_number(row, "slot");
		held->by_slot = (int)cli_get_number(holder, "slot");
		snprintf(held->by, sizeof(held->by), "%s", cli_get_string(holder, "vm"));
		found = 1;
		break;
	}
	json_decref(last);
	return found;
}

/* What "vm show" says about the one that holds: its state, and the process of its QEMU. */
static int look_at(const struct cli *o, const char *name, char *state, size_t size, long long *pid)
{
	json_t *last, *vm;
	int code = cli_call(o, "io.vmcomm.VmList", json_pack("{s:s}", "name", name), NULL, NULL, &last);

	if (code)
		return code;
	vm = json_array_get(json_object_get(last, "vms"), 0);
	snprintf(state, size, "%s", cli_get_string(vm, "state"));
	*pid = cli_get_number(vm, "qemu_pid");
	json_decref(last);
	return 0;
}

static void print_line(json_t *o)
{
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(o);
}

static void say(const struct cli *o, const char *vm, const char *text)
{
	if (o->json)
		print_line(json_pack("{s:s, s:s}", "vm", vm, "step", text));
	else
		printf("%s: %s\n", vm, text);
	fflush(stdout);
}

struct teller {
	const struct cli *o;
	const char *vm;
};

static void print_step(void *arg, json_t *params)
{
	const struct teller *t = arg;
	const char *step = json_string_value(json_object_get(params, "step"));

	if (step)
		say(t->o, t->vm, step);
}

static int replug(const struct cli *o, const struct held *held)
{
	struct teller t = {.o = o, .vm = held->by};
	char state[32], text[160];
	long long pid;
	int code;

	code = look_at(o, held->by, state, sizeof(state), &pid);
	if (code)
		return code;
	snprintf(text, sizeof(text), "holds slot %d of group %s: its device is plugged in anew, its "
		 "connections go on over TCP", held->slot, o->name);
	say(o, held->by, text);
	code = cli_call(o, "io.vmcomm.VmDetach", json_pack("{s:s}", "name", held->by), print_step, &t,
			NULL);
	if (code)
		return cli_error(code, "vm '%s' does not give back its device. Only the end of its QEMU, "
				 "process %lld, frees slot %d: until then it may read what is there",
				 held->by, pid, held->slot);
	code = cli_call(o, "io.vmcomm.VmAttach", json_pack("{s:s}", "name", held->by), print_step, &t,
			NULL);
	/* Where no module answered before, none does now. */
	if (code == CLI_TIMEOUT && !strcmp(state, "attached"))
		code = 0;
	if (code)
		return cli_error(code, "slot %d is free, but vm '%s' is not in shared memory again",
				 held->slot, held->by);
	return 0;
}

int cmd_group_release(const struct cli *o)
{
	struct held held = {.slot = -1}, before = held;
	unsigned int freed = 0;
	int r, code;

	while ((r = find_held(o, &held)) > 0) {
		if (!held.by[0])
			return cli_error(CLI_FAILED, "slot %d of group '%s' is held by slot %d, whose QEMU is "
					 "no member any more: end it", held.slot, o->name, held.by_slot);
		if (held.slot == before.slot && !strcmp(held.by, before.by))
			return cli_error(CLI_FAILED, "vm '%s' holds slot %d of group '%s' again: look at its "
					 "kernel log, or end it", held.by, held.slot, o->name);
		code = replug(o, &held);
		if (code)
			return code;
		before = held;
		freed++;
	}
	if (r < 0)
		return -r;
	if (o->json)
		print_line(json_pack("{s:s, s:i}", "group", o->name, "replugged", (int)freed));
	else if (freed)
		printf("group %s: no slot is held any more\n", o->name);
	else
		printf("group %s: no slot is held\n", o->name);
	return 0;
}
