/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cli.h - vmcommctl: a table of commands, each one function */
#ifndef VMCOMM_CLI_H
#define VMCOMM_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define CLI_ADDRESSES_MAX 8

/* Exit codes; vmcommctl(1) promises them. */
enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,	     /* unknown command or option, invalid value */
	CLI_NOT_FOUND = 3,   /* no such group or VM */
	CLI_PERMISSION = 4,  /* wrong key, not allowed to use the socket */
	CLI_UNREACHABLE = 5, /* vmcommd, here or on the other host, does not answer */
	CLI_TIMEOUT = 6,     /* a guest or QEMU did not do its part in time */
	CLI_CONFLICT = 7,    /* exists already, busy, full */
	CLI_CANCELLED = 8,   /* cancelled, and undone */
	CLI_OVER_TCP = 9,    /* the VM has moved, but is not in shared memory there */
};

struct cli {
	bool json;
	const char *socket;
	const char *name; /* of the group or VM; NULL: not given */
	const char *group, *vm, *key_file, *uuid, *qmp, *bus, *user;
	const char *slots, *memory, *chunk, *exclude_ports, *exclude_addresses;
	const char *host, *bandwidth, *timeout;
	bool incoming, cancel, postcopy;
	char *const *command; /* of exec, with a NULL at its end */
	/* Called often while vmcommd is waited for, to look at what signals left; NULL: nothing. */
	void (*interrupted)(const struct cli *o);
	bool patient; /* wait for vmcommd for ever */
	const char *address[CLI_ADDRESSES_MAX];
	unsigned int addresses;
};

/* Print an error message, "vmcommctl: ...". Return: @code. */
int cli_error(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Key of --key-file as parameter "key". Return: 0 or an exit code after a message. */
int cli_key(const struct cli *o, json_t *params);

/**
 * cli_call() - call a method of vmcommd
 * @params: stolen
 * @each: for each reply, those that go before the last one included; NULL: only @last counts
 * @last: parameters of the last reply, to be released; may be NULL
 *
 * Return: an exit code; on errors a message was printed.
 */
int cli_call(const struct cli *o, const char *method, json_t *params,
	     void (*each)(void *arg, json_t *params), void *arg, json_t **last);
/* The same without messages, for doctor. */
int cli_call_quiet(const struct cli *o, const char *method, json_t *params, json_t **last,
		   char *why, size_t why_size);

/* Print @o as JSON with a newline and release it. */
void cli_print_json(json_t *o);

/* A table: columns first, then cells line by line. */
struct cli_table;
struct cli_table *cli_table_new(const char *const *columns, const char *right);
void cli_table_cell(struct cli_table *t, const char *text);
void cli_table_cellf(struct cli_table *t, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void cli_table_print(struct cli_table *t); /* and free it */

/* Row of the slot whose VM keeps @slot in quarantine; NULL: none. Both of "group show"'s table. */
json_t *cli_slot_holder(json_t *group, json_t *slot);

/* "12.5M" */
const char *cli_bytes(uint64_t n, char buf[16]);
const char *cli_get_string(json_t *o, const char *name); /* "" if there is none */
long long cli_get_number(json_t *o, const char *name);	 /* 0 if there is none */

int cmd_group_add(const struct cli *o);
int cmd_group_list(const struct cli *o);
int cmd_group_show(const struct cli *o);
int cmd_group_remove(const struct cli *o);
int cmd_group_release(const struct cli *o);
int cmd_vm_add(const struct cli *o);
int cmd_vm_list(const struct cli *o);
int cmd_vm_show(const struct cli *o);
int cmd_vm_path(const struct cli *o);
int cmd_vm_attach(const struct cli *o);
int cmd_vm_detach(const struct cli *o);
int cmd_vm_remove(const struct cli *o);
int cmd_vm_start(const struct cli *o);
int cmd_conn_list(const struct cli *o);
int cmd_stats(const struct cli *o);
int cmd_migrate(const struct cli *o);
int cmd_exec(const struct cli *o);
int cmd_doctor(const struct cli *o);

#endif
