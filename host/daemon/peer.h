/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * peer.h - connections between vmcommds: TLS 1.3 with a group's key, messages of JSON (M15)
 *
 * docs/migration.md has the wire format. What comes from the other side is bounded here (length, JSON
 * depth by the parser, time until the handshake is done) and must be checked by who reads it.
 */
#ifndef VMCOMM_DAEMON_PEER_H
#define VMCOMM_DAEMON_PEER_H

#include "manager.h"

#define PEER_PROTOCOL	 1
#define PEER_MESSAGE_MAX (1U << 20)

struct peer;

struct peer_callbacks {
	/* The other side has the same key. */
	void (*ready)(void *arg);
	/* A message; borrowed. */
	void (*message)(void *arg, json_t *msg);
	/* The connection ended, @e says why. Nothing is called after it; peer_free() is the owner's. */
	void (*closed)(void *arg, const struct vmcomm_error *e);
};

/**
 * peer_connect() - to the vmcommd of another host
 * @host: its name, for messages
 * @address: as in the configuration
 * @gid, @key: the group's
 *
 * Return: 0; negative errno and @e: nothing is called then.
 */
int peer_connect(struct peer **out, struct manager *m, const char *host, const char *address,
		 const char *gid, const uint8_t key[VMCOMM_KEY_SIZE],
		 const struct peer_callbacks *cb, void *arg, struct vmcomm_error *e);

/** peer_send() - a message, stolen. What does not fit into the socket is sent later. */
void peer_send(struct peer *p, json_t *msg);

/** peer_free() - may be called from callbacks; what was sent is still tried to be delivered once */
void peer_free(struct peer *p);

const char *peer_group(const struct peer *p);
/* Where the other side is, as text; for messages. */
const char *peer_name(const struct peer *p);
/* The address on this host that the connection uses, without port. */
int peer_local_address(const struct peer *p, char *buf, size_t size);

/** peer_adopt() - give a connection that was accepted to its owner */
void peer_adopt(struct peer *p, const struct peer_callbacks *cb, void *arg);

struct peer_server;

/**
 * peer_server_init() - listen for vmcommds of other hosts
 * @accepted: a peer that knows a group's key; it belongs to whoever calls peer_adopt() in there
 */
int peer_server_init(struct peer_server **out, struct manager *m, const char *address,
		     void (*accepted)(struct manager *m, struct peer *p), struct vmcomm_error *e);
void peer_server_free(struct peer_server *s);

#endif
