// SPDX-License-Identifier: GPL-2.0-or-later
/* client.c - a Varlink client */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "../host/common/key.h"
#include "../host/common/text.h"
#include "cli.h"

#define REPLY_MAX (64U << 20)
/* Attach and detach report steps; between two of them not more than this passes. */
#define SILENCE_SECONDS 120

struct connection {
	const struct cli *o;
	int fd;
	char *buf;
	size_t len, size, done;
};

static int exit_code(const char *error)
{
	static const struct {
		const char *name;
		int code;
	} codes[] = {
		{"io.vmcomm.NotFound", CLI_NOT_FOUND},
		{"io.vmcomm.PermissionDenied", CLI_PERMISSION},
		{"io.vmcomm.Invalid", CLI_USAGE},
		{"io.vmcomm.Timeout", CLI_TIMEOUT},
		{"io.vmcomm.Exists", CLI_CONFLICT},
		{"io.vmcomm.Busy", CLI_CONFLICT},
		{"io.vmcomm.Full", CLI_CONFLICT},
		{"io.vmcomm.Cancelled", CLI_CANCELLED},
		{"io.vmcomm.Unreachable", CLI_UNREACHABLE},
	};
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (!strcmp(codes[i].name, error))
			return codes[i].code;
	return CLI_FAILED;
}

static int conn_open(struct connection *c, const struct cli *o, char *why, size_t why_size)
{
	struct timeval tv = {.tv_sec = o->patient ? 0 : SILENCE_SECONDS};
	const char *path = o->socket;
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	memset(c, 0, sizeof(*c));
	c->o = o;
	if (!vmcomm_text_copy(sun.sun_path, sizeof(sun.sun_path), path)) {
		snprintf(why, why_size, "%s: the path is too long for a socket", path);
		c->fd = -1;
		return CLI_USAGE;
	}
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd >= 0 && !connect(c->fd, (struct sockaddr *)&sun, sizeof(sun))) {
		setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
		setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
		return 0;
	}
	if (errno == EACCES || errno == EPERM) {
		snprintf(why, why_size, "you may not use %s: be root or a member of group vmcomm", path);
		return CLI_PERMISSION;
	}
	snprintf(why, why_size, "vmcommd does not answer at %s (%s): start it with 'systemctl start "
		 "vmcommd', or give --socket", path, strerror(errno));
	return CLI_UNREACHABLE;
}

static int conn_send(struct connection *c, json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	size_t len, done = 0;
	ssize_t n;

	if (!text)
		return -EINVAL;
	len = strlen(text) + 1;
	while (done < len) {
		n = send(c->fd, text + done, len - done, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	explicit_bzero(text, len); /* it may hold a key */
	free(text);
	return done == len ? 0 : -EPIPE;
}

/* Wait until there is something to read. A signal may come at any moment, not only in a system call. */
static void wait_readable(struct connection *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};

	do
		c->o->interrupted(c->o);
	while (poll(&p, 1, 300) <= 0);
}

/* The next message; NULL: the connection ended or there is nonsense on it. */
static json_t *conn_receive(struct connection *c)
{
	char *end, *grown;
	json_t *o;
	ssize_t n;

	if (c->done)
		memmove(c->buf, c->buf + c->done, c->len - c->done);
	c->len -= c->done;
	c->done = 0;
	while (!(end = c->len ? memchr(c->buf, 0, c->len) : NULL)) {
		if (c->size - c->len < 65536) {
			if (c->size > REPLY_MAX)
				return NULL;
			grown = realloc(c->buf, 2 * c->size + 131072);
			if (!grown)
				return NULL;
			c->buf = grown;
			c->size = 2 * c->size + 131072;
		}
		if (c->o->interrupted)
			wait_readable(c);
		n = recv(c->fd, c->buf + c->len, c->size - c->len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return NULL;
		c->len += (size_t)n;
	}
	o = json_loadb(c->buf, (size_t)(end - c->buf), 0, NULL);
	c->done = (size_t)(end - c->buf) + 1;
	if (!json_is_object(o)) {
		json_decref(o);
		return NULL;
	}
	return o;
}

static int converse(struct connection *c, const char *method, json_t *params,
		    void (*each)(void *arg, json_t *params), void *arg, json_t **last, char *why,
		    size_t why_size)
{
	const char *error, *message;
	json_t *o, *reply;
	bool continues;
	int err;

	o = json_pack("{s:s, s:O, s:b}", "method", method, "parameters", params, "more",
		      each != NULL);
	err = conn_send(c, o);
	json_decref(o);
	if (err) {
		snprintf(why, why_size, "vmcommd closed the connection");
		return CLI_UNREACHABLE;
	}
	for (;;) {
		reply = conn_receive(c);
		if (!reply) {
			snprintf(why, why_size, "vmcommd closed the connection without an answer");
			return CLI_UNREACHABLE;
		}
		error = json_string_value(json_object_get(reply, "error"));
		o = json_object_get(reply, "parameters");
		if (error) {
			message = json_string_value(json_object_get(o, "message"));
			snprintf(why, why_size, "%s", message ? message : error);
			err = exit_code(error);
			json_decref(reply);
			return err;
		}
		continues = json_is_true(json_object_get(reply, "continues"));
		if (each)
			each(arg, o);
		if (!continues && last)
			*last = json_incref(o);
		json_decref(reply);
		if (!continues)
			return 0;
	}
}

static int call(const struct cli *o, const char *method, json_t *params,
		void (*each)(void *arg, json_t *params), void *arg, json_t **last, char *why,
		size_t why_size)
{
	struct connection c;
	int code;

	if (last)
		*last = NULL;
	code = conn_open(&c, o, why, why_size);
	if (!code)
		code = converse(&c, method, params, each, arg, last, why, why_size);
	if (c.fd >= 0)
		close(c.fd);
	free(c.buf);
	json_decref(params);
	return code;
}

int cli_call(const struct cli *o, const char *method, json_t *params,
	     void (*each)(void *arg, json_t *params), void *arg, json_t **last)
{
	char why[1024] = "";
	int code = call(o, method, params, each, arg, last, why, sizeof(why));

	if (code)
		cli_error(code, "%s", why);
	return code;
}

int cli_call_quiet(const struct cli *o, const char *method, json_t *params, json_t **last,
		   char *why, size_t why_size)
{
	return call(o, method, params, NULL, NULL, last, why, why_size);
}

int cli_key(const struct cli *o, json_t *params)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t key[VMCOMM_KEY_SIZE];
	char hex[VMCOMM_KEY_HEX + 1];
	struct vmcomm_error e = {0};
	unsigned int i;

	if (!o->key_file)
		return 0;
	if (vmcomm_key_load(o->key_file, key, &e))
		return cli_error(e.code == -ENOENT ? CLI_USAGE :
				 e.code == -EPERM || e.code == -EACCES ? CLI_PERMISSION : CLI_USAGE,
				 "%s", e.text);
	for (i = 0; i < VMCOMM_KEY_SIZE; i++) {
		hex[2 * i] = digits[key[i] >> 4];
		hex[2 * i + 1] = digits[key[i] & 15];
	}
	hex[VMCOMM_KEY_HEX] = 0;
	json_object_set_new(params, "key", json_string(hex));
	explicit_bzero(hex, sizeof(hex));
	vmcomm_key_wipe(key);
	return 0;
}
