// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * watch.c - see domains appear, whoever started, restored or migrated them
 *
 * xenstore says that the list of domains has changed, not how. The name of each is watched, too: a
 * domain that comes in by a migration has another one until it runs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "xen.h"

struct watch {
	struct vmcomm_backend_job base;
	void (*appeared)(void *arg, const char *name);
	void *arg;
	struct xs_handle *xs;
	sd_event_source *io;
	unsigned int *domid; /* whose names are watched */
	size_t count;
};

static void name_path(unsigned int domid, char path[64], char token[16])
{
	snprintf(path, 64, "/local/domain/%u/name", domid);
	snprintf(token, 16, "%u", domid);
}

static bool known(const struct watch *w, unsigned int domid)
{
	size_t i;

	for (i = 0; i < w->count; i++)
		if (w->domid[i] == domid)
			return true;
	return false;
}

static void domain_add(struct watch *w, unsigned int domid)
{
	unsigned int *more = realloc(w->domid, (w->count + 1) * sizeof(*more));
	char path[64], token[16];

	if (!more)
		return; /* with the next change */
	w->domid = more;
	name_path(domid, path, token);
	/* This fires at once. */
	if (xs_watch(w->xs, path, token))
		w->domid[w->count++] = domid;
}

static void list_look(struct watch *w)
{
	unsigned int n = 0, i, domid;
	char path[64], token[16], **list;
	size_t k;

	for (k = 0; k < w->count;) {
		if (xs_is_domain_introduced(w->xs, w->domid[k])) {
			k++;
			continue;
		}
		name_path(w->domid[k], path, token);
		xs_unwatch(w->xs, path, token);
		w->domid[k] = w->domid[--w->count];
	}
	list = xs_directory(w->xs, XBT_NULL, "/local/domain", &n);
	for (i = 0; list && i < n; i++) {
		domid = (unsigned int)strtoul(list[i], NULL, 10);
		if (domid && !known(w, domid) && xs_is_domain_introduced(w->xs, domid))
			domain_add(w, domid);
	}
	free(list);
}

static void name_look(struct watch *w, const char *path)
{
	unsigned int len;
	char *name = xs_read(w->xs, XBT_NULL, path, &len);

	if (name)
		w->appeared(w->arg, name);
	free(name);
}

static int ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct watch *w = arg;
	char **event;

	/* xenstored does not come back before the host is booted again. */
	if (revents & (EPOLLHUP | EPOLLERR))
		sd_event_source_set_enabled(s, SD_EVENT_OFF);
	while ((event = xs_check_watch(w->xs))) {
		if (event[XS_WATCH_TOKEN][0] == 'd')
			list_look(w);
		else
			name_look(w, event[XS_WATCH_PATH]);
		free(event);
	}
	return 0;
}

static void watch_free(struct vmcomm_backend_job *base)
{
	struct watch *w = (struct watch *)base;

	sd_event_source_disable_unref(w->io);
	if (w->xs)
		xs_close(w->xs);
	free(w->domid);
	free(w);
}

int xen_watch(sd_event *event, void (*appeared)(void *arg, const char *control), void *arg,
	      struct vmcomm_backend_job **job)
{
	struct watch *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	w->base.free = watch_free;
	w->appeared = appeared;
	w->arg = arg;
	w->xs = xs_open(0);
	if (!w->xs || !xs_watch(w->xs, "@introduceDomain", "domains") ||
	    !xs_watch(w->xs, "@releaseDomain", "domains")) {
		err = errno ? -errno : -EIO;
		watch_free(&w->base);
		return err;
	}
	err = sd_event_add_io(event, &w->io, xs_fileno(w->xs), EPOLLIN, ready, w);
	if (err < 0) {
		watch_free(&w->base);
		return err;
	}
	*job = &w->base;
	return 0;
}
