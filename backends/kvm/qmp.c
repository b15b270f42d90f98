// SPDX-License-Identifier: LGPL-2.1-or-later
/* qmp.c - a QEMU machine protocol client on sd-event */
#include "qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LINE_MAX_BYTES (1U << 20)

struct qmp {
	int fd;
	sd_event_source *io;
	struct qmp_callbacks cb;
	void *arg;
	char *in;
	size_t in_len, in_size;
	char *out;
	size_t out_len;
	qmp_reply reply; /* of the command under way; NULL: none */
	unsigned int serial;
	bool greeted;
	bool closed;
	bool dead; /* freed while a callback runs */
	unsigned int depth;
};

static void really_free(struct qmp *q)
{
	sd_event_source_disable_unref(q->io);
	if (q->fd >= 0)
		close(q->fd);
	free(q->in);
	free(q->out);
	free(q);
}

void qmp_free(struct qmp *q)
{
	if (!q)
		return;
	if (q->depth)
		q->dead = true;
	else
		really_free(q);
}

static void fail(struct qmp *q, const char *text)
{
	if (q->closed || q->dead)
		return;
	q->closed = true;
	sd_event_source_set_enabled(q->io, SD_EVENT_OFF);
	if (q->cb.closed)
		q->cb.closed(q->arg, text);
}

static void flush(struct qmp *q)
{
	ssize_t n;

	while (q->out_len) {
		n = send(q->fd, q->out, q->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n < 0) {
			/* The read side tells the owner: not from inside qmp_call(). */
			q->out_len = 0;
			shutdown(q->fd, SHUT_RDWR);
			break;
		}
		q->out_len -= (size_t)n;
		memmove(q->out, q->out + n, q->out_len);
	}
	sd_event_source_set_io_events(q->io, q->out_len ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

int qmp_call(struct qmp *q, const char *command, json_t *args, qmp_reply reply)
{
	json_t *o;
	char *text;
	size_t len;

	if (q->closed || q->reply) {
		json_decref(args);
		return q->closed ? -EPIPE : -EBUSY;
	}
	o = json_pack("{s:s, s:i}", "execute", command, "id", ++q->serial & 0xffffff);
	if (args)
		json_object_set_new(o, "arguments", args);
	text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	if (!text)
		return -ENOMEM;
	len = strlen(text);
	/* One command at a time: the buffer is empty. */
	free(q->out);
	q->out = text;
	text[len] = '\n'; /* in place of the NUL, which nobody needs */
	q->out_len = len + 1;
	q->reply = reply;
	flush(q);
	return 0;
}

static void capabilities_done(void *arg, json_t *result, const char *error)
{
	struct qmp *q = arg;

	if (!result)
		fail(q, error);
	else
		q->cb.ready(q->arg);
}

static void message(struct qmp *q, json_t *o)
{
	json_t *result = json_object_get(o, "return"), *error = json_object_get(o, "error"), *data;
	const char *event = json_string_value(json_object_get(o, "event")), *desc;
	qmp_reply reply = q->reply;
	json_t *id = json_object_get(o, "id");

	if (!q->greeted) {
		if (!json_is_object(json_object_get(o, "QMP"))) {
			fail(q, "this is no QMP socket");
			return;
		}
		q->greeted = true;
		qmp_call(q, "qmp_capabilities", NULL, capabilities_done);
		return;
	}
	if (event) {
		data = json_object_get(o, "data");
		data = json_is_object(data) ? json_incref(data) : json_object();
		if (q->cb.event)
			q->cb.event(q->arg, event, data);
		json_decref(data);
		return;
	}
	if (!reply || (!result && !error) || json_integer_value(id) != (q->serial & 0xffffff))
		return; /* not what we asked for */
	q->reply = NULL;
	desc = json_string_value(json_object_get(error, "desc"));
	/* capabilities_done() works on the connection itself, the others on their owner. */
	reply(reply == capabilities_done ? (void *)q : q->arg, result,
	      result ? NULL : desc ? desc : "error without a description");
}

static void line(struct qmp *q, const char *text, size_t len)
{
	json_error_t err;
	json_t *o;

	while (len && (text[len - 1] == '\r' || text[len - 1] == ' '))
		len--;
	if (!len)
		return;
	o = json_loadb(text, len, 0, &err);
	if (!json_is_object(o))
		fail(q, "the monitor does not speak JSON");
	else
		message(q, o);
	json_decref(o);
}

static void lines(struct qmp *q)
{
	size_t done = 0;
	char *end;

	while (!q->closed && !q->dead &&
	       (end = memchr(q->in + done, '\n', q->in_len - done))) {
		size_t len = (size_t)(end - q->in) - done;

		line(q, q->in + done, len);
		done += len + 1;
	}
	q->in_len -= done;
	memmove(q->in, q->in + done, q->in_len);
	if (q->in_len >= LINE_MAX_BYTES)
		fail(q, "the monitor sends a line of more than 1 MiB");
}

static void receive(struct qmp *q)
{
	char *grown;
	ssize_t n;

	if (q->in_size - q->in_len < 4096) {
		grown = realloc(q->in, q->in_size + 65536);
		if (!grown) {
			fail(q, "out of memory");
			return;
		}
		q->in = grown;
		q->in_size += 65536;
	}
	n = recv(q->fd, q->in + q->in_len, q->in_size - q->in_len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		fail(q, "QEMU closed its monitor");
		return;
	}
	q->in_len += (size_t)n;
	lines(q);
}

static void last_answer(void *arg, json_t *result, const char *error)
{
	*(int *)arg = result ? 0 : -EIO;
}

int qmp_last_words(struct qmp *q, const char *command, json_t *args, int msec)
{
	static const struct qmp_callbacks nobody = {0};
	struct pollfd p = {.fd = q->fd, .events = POLLIN};
	int waited, result = -EIO;

	if (!q->greeted || q->out_len) {
		json_decref(args);
		return -EIO;
	}
	/* The owner has gone; nobody else is called before this function ends. */
	q->cb = nobody;
	/* cppcheck-suppress autoVariables */
	q->arg = &result;
	q->reply = NULL;
	if (qmp_call(q, command, args, last_answer))
		return -EIO;
	/* By hundredths, so that events do not make it longer. */
	for (waited = 0; waited < msec && q->reply && !q->closed; waited += 10)
		if (poll(&p, 1, 10) > 0)
			receive(q);
	q->reply = NULL;
	return result;
}

static int io_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct qmp *q = arg;

	q->depth++;
	if (revents & EPOLLOUT)
		flush(q);
	if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(q);
	q->depth--;
	if (q->dead && !q->depth)
		really_free(q);
	return 0;
}

int qmp_open(struct qmp **out, sd_event *event, const char *path, const struct qmp_callbacks *cb,
	     void *arg)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct qmp *q;
	int err;

	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path) + 1);
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	q->cb = *cb;
	q->arg = arg;
	q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (q->fd < 0 || connect(q->fd, (struct sockaddr *)&sun, sizeof(sun))) {
		err = -errno;
		really_free(q);
		return err;
	}
	err = sd_event_add_io(event, &q->io, q->fd, EPOLLIN, io_ready, q);
	if (err < 0) {
		really_free(q);
		return err;
	}
	*out = q;
	return 0;
}
