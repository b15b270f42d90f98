// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cmd-start.c - vmcommctl vm start CONFIG: start a Xen domain as a member of its group (M12, M24)
 *
 * Membership is checked before there is a domain, and the domain has its device before it runs. When
 * anything fails, no domain is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

#define JSON_SIZE_MAX (1 << 20)

extern char **environ;

/* Return: its exit status, as a shell says it. @out: what it prints; NULL: as ours. */
static int xl(const char *const *argv, FILE **out)
{
	posix_spawn_file_actions_t actions;
	int pipefd[2] = {-1, -1}, err, status;
	pid_t pid;

	fflush(NULL);
	if (out && pipe2(pipefd, O_CLOEXEC))
		return cli_error(126, "no pipe: %s", strerror(errno));
	posix_spawn_file_actions_init(&actions);
	if (out)
		posix_spawn_file_actions_adddup2(&actions, pipefd[1], STDOUT_FILENO);
	err = posix_spawnp(&pid, argv[0], &actions, NULL, (char **)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (out) {
		close(pipefd[1]);
		*out = err ? NULL : fdopen(pipefd[0], "r");
		if (!*out)
			close(pipefd[0]);
	}
	if (err)
		return cli_error(127, "cannot run %s: %s (is this a Xen host?)", argv[0], strerror(err));
	if (out)
		return -pid;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 126;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The toolstack's own view of CONFIG, without doing anything. NULL: a message was printed. */
static json_t *config_read(const char *path)
{
	const char *argv[] = {"xl", "-N", "create", "-q", path, NULL};
	json_t *config = NULL;
	json_error_t why;
	FILE *out = NULL;
	int pid, status;

	pid = xl(argv, &out);
	if (pid > 0 || !out)
		return NULL;
	config = json_loadf(out, JSON_DISABLE_EOF_CHECK, &why);
	fclose(out);
	while (waitpid(-pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!config || !json_is_string(json_object_get(json_object_get(config, "c_info"), "name"))) {
		cli_error(CLI_FAILED, "%s: xl does not accept this configuration%s", path,
			  config ? ": it has no name" : "");
		json_decref(config);
		return NULL;
	}
	return config;
}

/* Return: 0, or an exit code after a message. */
static int member_check(const struct cli *o)
{
	const char *state;
	json_t *last, *vm;
	int code;

	/* As one command: it becomes a member, if the key is right. */
	if (o->group)
		return cmd_vm_add(o);
	code = cli_call(o, "io.vmcomm.VmList", json_pack("{s:s}", "name", o->name), NULL, NULL, &last);
	if (code)
		return code;
	vm = json_array_get(json_object_get(last, "vms"), 0);
	state = cli_get_string(vm, "state");
	if (!strcmp(state, "refused"))
		code = cli_error(CLI_PERMISSION, "%s", cli_get_string(vm, "problem"));
	else if (json_object_get(vm, "qemu_pid"))
		code = cli_error(CLI_CONFLICT, "vm '%s' runs already (%s)", o->name, state);
	json_decref(last);
	return code;
}

static int attach(const struct cli *o)
{
	json_t *params = json_pack("{s:s, s:b}", "name", o->name, "wait", false);
	int code = cli_key(o, params);

	if (code) {
		json_decref(params);
		return code;
	}
	return cli_call(o, "io.vmcomm.VmAttach", params, NULL, NULL, NULL);
}

int cmd_vm_start(const struct cli *given)
{
	const char *create[] = {"xl", "create", "-p", "-q", given->name, NULL};
	json_t *config = config_read(given->name);
	struct cli o = *given;
	int code, status;

	if (!config)
		return CLI_FAILED;
	o.name = json_string_value(json_object_get(json_object_get(config, "c_info"), "name"));
	const char *destroy[] = {"xl", "destroy", o.name, NULL};
	const char *unpause[] = {"xl", "unpause", o.name, NULL};

	code = member_check(&o);
	if (code)
		goto out;
	status = xl(create, NULL);
	if (status) {
		code = cli_error(CLI_FAILED, "xl could not create domain '%s' (status %d)", o.name, status);
		goto out;
	}
	code = attach(&o);
	if (!code && xl(unpause, NULL))
		code = cli_error(CLI_FAILED, "xl could not let domain '%s' run", o.name);
	if (code) {
		status = xl(destroy, NULL);
		cli_error(code, status ? "domain '%s' is still there, paused: destroy it" :
					 "domain '%s' was destroyed again", o.name);
	} else if (!o.json) {
		printf("%s: started with its device\n", o.name);
	}
out:
	json_decref(config);
	return code;
}
