// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd-exec.c - vmcommctl exec VM -- COMMAND: run it while the VM is detached */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

static void print_step(void *arg, json_t *params)
{
	const struct cli *o = arg;
	json_t *event = json_object_get(params, "event");
	const char *text = cli_get_string(event ? event : params, event ? "text" : "step");

	/* The output of COMMAND stays what it is. */
	if (*text)
		fprintf(stderr, "%s: %s\n", o->name, text);
}

static bool is_attached(const struct cli *o, bool *libvirt, int *code)
{
	json_t *last, *vm;
	bool attached;

	*code = cli_call(o, "io.vmcomm.VmList", json_pack("{s:s}", "name", o->name), NULL, NULL, &last);
	if (*code)
		return false;
	vm = json_array_get(json_object_get(last, "vms"), 0);
	attached = json_object_get(vm, "qemu_pid");
	*libvirt = json_is_true(json_object_get(vm, "libvirt"));
	json_decref(last);
	return attached;
}

/* A domain of libvirt is a member where it runs: it was saved, say, or moved. */
static bool vanished(const struct cli *o)
{
	json_t *last;
	char why[256];
	int code = cli_call_quiet(o, "io.vmcomm.VmList", json_pack("{s:s}", "name", o->name), &last, why,
				  sizeof(why));

	json_decref(last);
	return code == CLI_NOT_FOUND;
}

/* Return: as a shell says it. */
static int run(char *const *command)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		signal(SIGINT, SIG_DFL);
		signal(SIGQUIT, SIG_DFL);
		execvp(command[0], command);
		fprintf(stderr, "vmcommctl: cannot run %s: %s\n", command[0], strerror(errno));
		_exit(errno == ENOENT ? 127 : 126);
	}
	if (pid < 0)
		return cli_error(126, "cannot run %s: %s", command[0], strerror(errno));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 126;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int cmd_exec(const struct cli *o)
{
	void *arg = (void *)(uintptr_t)o;
	struct cli patient = *o;
	bool attached, libvirt = false;
	int code, status;

	if (!o->command || !o->command[0])
		return cli_error(CLI_USAGE, "exec needs a command: vmcommctl exec %s -- COMMAND...",
				 o->name);
	attached = is_attached(o, &libvirt, &code);
	if (code)
		return code;
	/* Ctrl-C is for COMMAND; we attach again in any case. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	if (attached) {
		code = cli_call(o, "io.vmcomm.VmDetach", json_pack("{s:s}", "name", o->name), print_step,
				arg, NULL);
		if (code)
			return code;
	}
	status = run(o->command);
	if (!attached)
		return status;
	patient.patient = true;
	if (libvirt && vanished(o)) {
		fprintf(stderr, "%s: no member here any more: it is attached where it arrives, and when it "
			"starts\n", o->name);
		return status;
	}
	code = cli_call(&patient, "io.vmcomm.VmFind", json_pack("{s:s}", "name", o->name), print_step,
			arg, NULL);
	if (code == CLI_NOT_FOUND && libvirt)
		return status; /* that it ended is what COMMAND is for */
	if (code)
		cli_error(code, "%s %s (status %d), but the vm is not in shared memory again",
			  o->command[0], status ? "failed" : "has run", status);
	return status ? status : code;
}
