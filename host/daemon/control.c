// SPDX-License-Identifier: GPL-2.0-or-later
/* control.c - vmcommd's socket: clients, framing, limits */
#include "control.h"
#include "../common/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../common/unix-group.h"
#include "log.h"

#define CLIENTS_MAX	     64
#define CLIENTS_PER_USER_MAX 32
#define REQUEST_MAX	     (1U << 20)
#define REPLY_MAX	     (8U << 20)
#define PUMP_BELOW	     (64U << 10)
#define PATIENCE_USEC	     10000000ULL

struct client {
	struct client *next;
	struct control *control;
	int fd;
	uid_t uid;
	sd_event_source *io;
	sd_event_source *timer; /* for a request or a reply that does not get on */
	sd_event_source *later; /* next request, next pump */
	char *in;
	size_t in_len, in_size;
	char *out;
	size_t out_len, out_size;
	bool call; /* a request is being worked on */
	bool more, oneway;
	bool end_of_file;
	bool dead;
	void *arg;
	void (*lost)(void *arg);
	void (*pump)(void *arg);
};

struct control {
	struct manager *m;
	int fd;
	char path[CONFIG_PATH];
	sd_event_source *io;
	struct client *clients;
	unsigned int count;
	gid_t gid; /* of group vmcomm; -1: there is none */
};

static void client_free(struct client *c)
{
	struct client **at;

	for (at = &c->control->clients; *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			c->control->count--;
			break;
		}
	if (c->lost)
		c->lost(c->arg);
	sd_event_source_disable_unref(c->io);
	sd_event_source_disable_unref(c->timer);
	sd_event_source_disable_unref(c->later);
	close(c->fd);
	/* Requests may hold keys. */
	if (c->in)
		explicit_bzero(c->in, c->in_size);
	free(c->in);
	free(c->out);
	free(c);
}

static void client_drop(struct client *c)
{
	c->dead = true;
	sd_event_source_set_enabled(c->io, SD_EVENT_OFF);
	sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	sd_event_source_set_enabled(c->later, SD_EVENT_ONESHOT);
}

/* What to wait for follows from what there is. */
static void client_update(struct client *c)
{
	uint32_t events = EPOLLRDHUP;

	if (c->dead)
		return;
	if (!c->call && !c->end_of_file && c->in_len < REQUEST_MAX)
		events |= EPOLLIN;
	if (c->out_len)
		events |= EPOLLOUT;
	if (c->end_of_file)
		events &= ~(uint32_t)EPOLLRDHUP;
	sd_event_source_set_io_events(c->io, events);
	if (!c->call && c->in_len && memchr(c->in, 0, c->in_len))
		sd_event_source_set_enabled(c->later, SD_EVENT_ONESHOT);
	else if (c->pump && c->out_len < PUMP_BELOW)
		sd_event_source_set_enabled(c->later, SD_EVENT_ONESHOT);
	if (c->end_of_file && !c->call && !c->out_len &&
	    !(c->in_len && memchr(c->in, 0, c->in_len)))
		client_drop(c);
}

static void patience(struct client *c, bool wanted)
{
	int on = SD_EVENT_OFF;

	if (wanted) {
		sd_event_source_get_enabled(c->timer, &on);
		if (on == SD_EVENT_OFF)
			sd_event_source_set_time_relative(c->timer, PATIENCE_USEC);
	}
	sd_event_source_set_enabled(c->timer, wanted ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static int client_send(struct client *c, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT);
	size_t len = text ? strlen(text) + 1 : 0;
	char *grown;

	json_decref(message);
	if (!text || c->dead)
		goto drop;
	if (c->out_len + len > REPLY_MAX) {
		log_warning("a client of user %u does not take its replies", c->uid);
		goto drop;
	}
	if (c->out_len + len > c->out_size) {
		grown = realloc(c->out, c->out_len + len + 4096);
		if (!grown)
			goto drop;
		c->out = grown;
		c->out_size = c->out_len + len + 4096;
	}
	memcpy(c->out + c->out_len, text, len);
	c->out_len += len;
	free(text);
	patience(c, true);
	return 0;
drop:
	free(text);
	client_drop(c);
	return -EIO;
}

struct manager *client_manager(struct client *c)
{
	return c->control->m;
}

bool client_wants_more(const struct client *c)
{
	return c->more;
}

void client_busy(struct client *c, void *arg, void (*lost)(void *arg), void (*pump)(void *arg))
{
	c->arg = arg;
	c->lost = lost;
	c->pump = pump;
}

static void call_end(struct client *c)
{
	c->call = false;
	c->arg = NULL;
	c->lost = NULL;
	c->pump = NULL;
	client_update(c);
}

void client_continue(struct client *c, json_t *params)
{
	if (!c->more || c->oneway) {
		json_decref(params);
		return;
	}
	client_send(c, json_pack("{s:o, s:b}", "parameters", params, "continues", 1));
	client_update(c);
}

void client_reply(struct client *c, json_t *params)
{
	if (c->oneway)
		json_decref(params);
	else
		client_send(c, json_pack("{s:o}", "parameters", params));
	call_end(c);
}

void client_error(struct client *c, const char *error, json_t *params)
{
	if (c->oneway)
		json_decref(params);
	else
		client_send(c, json_pack("{s:s, s:o}", "error", error, "parameters", params));
	call_end(c);
}

static const char *error_name(int code)
{
	switch (code) {
	case -ENOENT:
		return "io.vmcomm.NotFound";
	case -EEXIST:
		return "io.vmcomm.Exists";
	case -EKEYREJECTED:
	case -EACCES:
	case -EPERM:
		return "io.vmcomm.PermissionDenied";
	case -EINVAL:
		return "io.vmcomm.Invalid";
	case -EBUSY:
		return "io.vmcomm.Busy";
	case -ENOSPC:
		return "io.vmcomm.Full";
	case -ETIME:
	case -ETIMEDOUT:
		return "io.vmcomm.Timeout";
	case -ECANCELED:
		return "io.vmcomm.Cancelled";
	case -EHOSTUNREACH:
		return "io.vmcomm.Unreachable";
	case -EOPNOTSUPP:
		return "io.vmcomm.NotSupported";
	default:
		return "io.vmcomm.Failed";
	}
}

void client_fail(struct client *c, const struct vmcomm_error *e)
{
	json_t *text = json_string(e->text);

	/* A text with bytes of somebody else that are no UTF-8. */
	if (!text)
		text = json_string("(the message cannot be shown)");
	client_error(c, error_name(e->code), json_pack("{s:o}", "message", text));
}

static void request(struct client *c, const char *text, size_t len)
{
	json_error_t err;
	json_t *o = json_loadb(text, len, 0, &err), *params;
	const char *method;

	c->call = true;
	c->more = false;
	c->oneway = false;
	if (!json_is_object(o)) {
		/* Not our protocol: there is no sense in an answer. */
		json_decref(o);
		client_drop(c);
		return;
	}
	method = json_string_value(json_object_get(o, "method"));
	params = json_object_get(o, "parameters");
	if (!method || (params && !json_is_object(params))) {
		json_decref(o);
		client_drop(c);
		return;
	}
	c->more = json_is_true(json_object_get(o, "more"));
	c->oneway = json_is_true(json_object_get(o, "oneway"));
	params = params ? json_incref(params) : json_object();
	methods_call(c, method, params);
	json_decref(params);
	json_decref(o);
}

/* The next complete request, if there is one. */
static void requests_next(struct client *c)
{
	char *end;
	size_t len;

	if (c->call || c->dead || !c->in_len)
		return;
	end = memchr(c->in, 0, c->in_len);
	if (!end) {
		if (c->in_len >= REQUEST_MAX) {
			log_warning("a client of user %u sends a request of more than 1 MiB", c->uid);
			client_drop(c);
		} else {
			patience(c, true);
		}
		return;
	}
	len = (size_t)(end - c->in);
	patience(c, c->out_len);
	request(c, c->in, len);
	explicit_bzero(c->in, len);
	c->in_len -= len + 1;
	memmove(c->in, end + 1, c->in_len);
}

static void client_read(struct client *c)
{
	char *grown;
	ssize_t n;

	if (c->in_size - c->in_len < 4096) {
		/* A copy, not realloc(): what is left behind must be wiped. */
		grown = malloc(c->in_size ? 2 * c->in_size : 16384);
		if (!grown) {
			client_drop(c);
			return;
		}
		if (c->in) {
			memcpy(grown, c->in, c->in_len);
			explicit_bzero(c->in, c->in_size);
			free(c->in);
		}
		c->in = grown;
		c->in_size = c->in_size ? 2 * c->in_size : 16384;
	}
	n = recv(c->fd, c->in + c->in_len,
		 c->in_size - c->in_len < REQUEST_MAX - c->in_len ? c->in_size - c->in_len :
								    REQUEST_MAX - c->in_len,
		 MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		client_drop(c);
		return;
	}
	if (!n) {
		c->end_of_file = true;
		return;
	}
	c->in_len += (size_t)n;
	requests_next(c);
}

static void client_write(struct client *c)
{
	ssize_t n = send(c->fd, c->out, c->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		client_drop(c);
		return;
	}
	c->out_len -= (size_t)n;
	memmove(c->out, c->out + n, c->out_len);
	/* It moves: a new stretch of patience, or none is needed. */
	patience(c, false);
	if (c->out_len)
		patience(c, true);
}

static int client_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct client *c = arg;

	/* Who went away does not want to know how it ends; what it asked before, it did ask. */
	if ((revents & EPOLLERR) || ((revents & EPOLLHUP) && (c->call || !(revents & EPOLLIN)))) {
		client_drop(c);
		return 0;
	}
	if (revents & EPOLLIN)
		client_read(c);
	else if (revents & EPOLLRDHUP)
		c->end_of_file = true;
	if ((revents & EPOLLOUT) && c->out_len && !c->dead)
		client_write(c);
	client_update(c);
	return 0;
}

static int client_later(sd_event_source *s, void *arg)
{
	struct client *c = arg;

	if (c->dead) {
		client_free(c);
		return 0;
	}
	if (!c->call)
		requests_next(c);
	else if (c->pump && c->out_len < PUMP_BELOW)
		c->pump(c->arg);
	client_update(c);
	return 0;
}

static int client_timeout(sd_event_source *s, uint64_t usec, void *arg)
{
	struct client *c = arg;

	log_warning("a client of user %u is too slow", c->uid);
	client_drop(c);
	return 0;
}

static bool allowed(struct control *ct, int fd, uid_t *uid)
{
	gid_t groups[256];
	struct ucred cred;
	socklen_t len = sizeof(cred);
	unsigned int i;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return false;
	*uid = cred.uid;
	if (cred.uid == 0 || cred.uid == geteuid() || cred.gid == ct->gid)
		return true;
	len = sizeof(groups);
	if (ct->gid == (gid_t)-1 || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len))
		return false;
	for (i = 0; i < len / sizeof(groups[0]); i++)
		if (groups[i] == ct->gid)
			return true;
	return false;
}

static unsigned int clients_of(const struct control *ct, uid_t uid)
{
	const struct client *c;
	unsigned int n = 0;

	for (c = ct->clients; c; c = c->next)
		n += c->uid == uid;
	return n;
}

static void client_new(struct control *ct, int conn)
{
	struct client *c;
	uid_t uid;

	if (!allowed(ct, conn, &uid) || ct->count >= CLIENTS_MAX ||
	    (uid && clients_of(ct, uid) >= CLIENTS_PER_USER_MAX))
		goto refuse;
	c = calloc(1, sizeof(*c));
	if (!c)
		goto refuse;
	c->control = ct;
	c->fd = conn;
	c->uid = uid;
	if (sd_event_add_io(ct->m->event, &c->io, conn, EPOLLIN | EPOLLRDHUP, client_ready, c) < 0 ||
	    sd_event_add_time_relative(ct->m->event, &c->timer, CLOCK_MONOTONIC, PATIENCE_USEC, 0,
				       client_timeout, c) < 0 ||
	    sd_event_add_defer(ct->m->event, &c->later, client_later, c) < 0) {
		sd_event_source_disable_unref(c->io);
		sd_event_source_disable_unref(c->timer);
		sd_event_source_disable_unref(c->later);
		free(c);
		goto refuse;
	}
	sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	sd_event_source_set_enabled(c->later, SD_EVENT_OFF);
	c->next = ct->clients;
	ct->clients = c;
	ct->count++;
	return;

refuse:
	close(conn);
}

static int control_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	unsigned int budget = 16;
	int conn;

	while (budget--) {
		conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (conn < 0)
			break;
		client_new(arg, conn);
	}
	return 0;
}


int control_init(struct control **out, struct manager *m, const char *path,
		 struct vmcomm_error *e)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct control *ct;
	int err;

	if (!vmcomm_text_copy(sun.sun_path, sizeof(sun.sun_path), path))
		return vmcomm_error_set(e, -ENAMETOOLONG, "%s: the path is too long for a socket",
					path);
	ct = calloc(1, sizeof(*ct));
	if (!ct)
		return vmcomm_error_set(e, -ENOMEM, "out of memory");
	ct->m = m;
	snprintf(ct->path, sizeof(ct->path), "%s", path);
	ct->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ct->fd < 0) {
		free(ct);
		return vmcomm_error_set(e, -errno, "no socket: %s", strerror(errno));
	}
	/* Somebody who answers is another vmcommd; a file without one is left over. */
	if (!connect(ct->fd, (struct sockaddr *)&sun, sizeof(sun))) {
		err = vmcomm_error_set(e, -EADDRINUSE, "another vmcommd serves %s", path);
		goto fail;
	}
	unlink(path);
	ct->gid = unix_group_id("vmcomm");
	if (bind(ct->fd, (struct sockaddr *)&sun, sizeof(sun)) ||
	    (ct->gid != (gid_t)-1 && chown(path, (uid_t)-1, ct->gid) && errno != EPERM) ||
	    chmod(path, ct->gid != (gid_t)-1 ? 0660 : 0600) || listen(ct->fd, 2 * CLIENTS_MAX)) {
		err = vmcomm_error_set(e, -errno, "cannot listen on %s: %s", path, strerror(errno));
		goto fail;
	}
	err = sd_event_add_io(m->event, &ct->io, ct->fd, EPOLLIN, control_ready, ct);
	if (err < 0)
		goto fail;
	*out = ct;
	return 0;
fail:
	close(ct->fd);
	free(ct);
	return err;
}

void control_free(struct control *ct)
{
	struct client *c, *next;

	if (!ct)
		return;
	for (c = ct->clients; c; c = next) {
		next = c->next;
		client_free(c);
	}
	sd_event_source_disable_unref(ct->io);
	unlink(ct->path);
	close(ct->fd);
	free(ct);
}
