/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * control.h - vmcommd's socket: Varlink framing (JSON objects that end with a NUL)
 *
 * Limits: 64 clients, 32 of one user that is not root; a request of 1 MiB; one request of a client at a
 * time, later ones wait in its socket; 10 s for the rest of a request that has begun and for
 * taking a reply. Only root, vmcommd's own user and members of group vmcomm are served.
 */
#ifndef VMCOMM_DAEMON_CONTROL_H
#define VMCOMM_DAEMON_CONTROL_H

#include "manager.h"

struct control;
struct client;

int control_init(struct control **out, struct manager *m, const char *path,
		 struct vmcomm_error *e);
void control_free(struct control *c);

/* For methods. A method ends by exactly one of client_reply() and client_fail(). */
struct manager *client_manager(struct client *c);
bool client_wants_more(const struct client *c);
void client_continue(struct client *c, json_t *params); /* steals @params; only if wanted */
void client_reply(struct client *c, json_t *params);	/* steals @params */
void client_fail(struct client *c, const struct vmcomm_error *e);
void client_error(struct client *c, const char *error, json_t *params); /* steals @params */
/*
 * Something that goes on: @lost is called when the client goes away before the end. @pump is called
 * from the loop while the client takes what it is sent; NULL: none.
 */
void client_busy(struct client *c, void *arg, void (*lost)(void *arg), void (*pump)(void *arg));

/* methods.c */
void methods_call(struct client *c, const char *method, json_t *params);

#endif
