// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * libvirt.c - vmcommd's connection to libvirt: threads, events, looking at domains
 *
 *   loop                 lock               threads
 *   libvirt_call_start() --> pending -----> run()
 *   done() <--------------- finished <-----
 *   look at the domain <--- touched  <----- libvirt's event thread
 *
 * Events only say that something happened to a domain. Everything is kept until the process ends: a
 * thread may stand in a call of libvirt's for ever.
 */
#include "libvirt.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "libvirt-call.h"

#define AGAIN_USEC	2000000
#define KEEPALIVE	5 /* seconds, and as many times without an answer */
#define DOMAINS_MAX	4096
#define SECRET_USEC	8000000
#define TOUCHED_MAX	256 /* more at a time: look at all */

struct libvirt {
	sd_event *event;
	char *uri;
	struct libvirt_callbacks cb;
	void *arg;
	sd_event_source *io, *timer;
	bool connected; /* as callbacks know it */
	bool opening;
	/* shared with threads, under lock */
	pthread_mutex_t lock;
	int bell; /* eventfd */
	virConnectPtr conn;
	struct libvirt_call *pending, *finished;
	unsigned int waiting, lasting;
	bool working; /* the thread for quick calls runs */
	uint8_t touched[TOUCHED_MAX][16];
	unsigned int touched_count;
	bool touched_all;
	bool closed; /* the connection is */
};

/* A thread's own connection, if its call lasts. */
static __thread bool own_wanted;
static __thread virConnectPtr own;

/* There is one: calls, jobs and callbacks of libvirt's find it here. */
static struct libvirt *the;

static void ring(struct libvirt *l)
{
	uint64_t one = 1;

	if (write(l->bell, &one, sizeof(one)) < 0)
		return; /* it is rung already */
}

const char *libvirt_words(char *buf, size_t size)
{
	const char *text = virGetLastErrorMessage();
	size_t i;

	for (i = 0; text[i] && i + 1 < size; i++)
		buf[i] = (unsigned char)text[i] < 32 || text[i] == 127 ? ' ' : text[i];
	buf[i] = 0;
	return buf;
}

bool libvirt_lost(void)
{
	virErrorPtr e = virGetLastError();

	return e && (e->domain == VIR_FROM_RPC || e->code == VIR_ERR_INTERNAL_ERROR ||
		     e->code == VIR_ERR_NO_CONNECT || e->code == VIR_ERR_INVALID_CONN ||
		     e->code == VIR_ERR_SYSTEM_ERROR);
}

/* -- threads that make calls -- */

static void *thread_main(void *arg)
{
	struct libvirt_call *c = arg;
	struct libvirt *l = the;
	bool lasts = c->lasts;

	own_wanted = lasts;
	while (c) {
		c->run(c);
		if (own)
			virConnectClose(own);
		own = NULL;
		pthread_mutex_lock(&l->lock);
		c->next = l->finished;
		l->finished = c;
		c = NULL;
		if (!lasts && l->pending) {
			c = l->pending;
			l->pending = c->next;
			l->waiting--;
		} else if (lasts) {
			l->lasting--;
		} else {
			l->working = false;
		}
		ring(l);
		pthread_mutex_unlock(&l->lock);
	}
	return NULL;
}

static int thread_start(void *(*main)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = -pthread_create(&thread, &attr, main, arg);
	pthread_attr_destroy(&attr);
	return err;
}

int libvirt_call_start(struct libvirt_call *c)
{
	struct libvirt_call **at;
	struct libvirt *l = the;
	int err = 0;

	if (!l)
		return -ENOTCONN;
	c->next = NULL;
	pthread_mutex_lock(&l->lock);
	if (c->lasts ? l->lasting < LIBVIRT_LONG : !l->working) {
		err = thread_start(thread_main, c);
		if (!err && c->lasts)
			l->lasting++;
		else if (!err)
			l->working = true;
	} else if (c->lasts || l->waiting >= LIBVIRT_QUEUE) {
		err = -EBUSY;
	} else {
		for (at = &l->pending; *at; at = &(*at)->next)
			;
		*at = c;
		l->waiting++;
	}
	pthread_mutex_unlock(&l->lock);
	return err;
}

static virConnectPtr connect_to(struct libvirt *l)
{
	virConnectPtr conn = virConnectOpen(l->uri);

	/* libvirt's test driver has none. */
	if (conn && virConnectSetKeepAlive(conn, KEEPALIVE, KEEPALIVE) < 0 &&
	    virGetLastErrorCode() != VIR_ERR_NO_SUPPORT) {
		virConnectClose(conn);
		conn = NULL;
	}
	return conn;
}

virConnectPtr libvirt_call_conn(void)
{
	struct libvirt *l = the;
	virConnectPtr conn;

	if (own_wanted) {
		if (own && virConnectIsAlive(own) != 1) {
			virConnectClose(own);
			own = NULL;
		}
		if (!own)
			own = connect_to(l);
		if (own)
			virConnectRef(own);
		return own;
	}
	pthread_mutex_lock(&l->lock);
	conn = l->closed ? NULL : l->conn;
	if (conn)
		virConnectRef(conn);
	pthread_mutex_unlock(&l->lock);
	return conn;
}

virDomainPtr libvirt_call_domain(const uint8_t uuid[16], int *err, char *why, size_t why_size)
{
	virConnectPtr conn = libvirt_call_conn();
	virDomainPtr dom;

	if (!conn) {
		*err = -ENOTCONN;
		snprintf(why, why_size, "vmcommd has no connection to libvirt");
		return NULL;
	}
	dom = virDomainLookupByUUID(conn, uuid);
	if (!dom) {
		*err = virGetLastErrorCode() == VIR_ERR_NO_DOMAIN ? -ENOENT : -EIO;
		libvirt_words(why, why_size);
		virConnectClose(conn);
	}
	return dom; /* it keeps our reference of the connection */
}

void libvirt_domain_put(virDomainPtr dom)
{
	virConnectPtr conn = virDomainGetConnect(dom);

	virDomainFree(dom);
	virConnectClose(conn);
}

/* -- looking at domains -- */

static enum libvirt_state state_of(virDomainPtr dom)
{
	int state, reason;

	if (virDomainGetState(dom, &state, &reason, 0))
		return LIBVIRT_GONE;
	switch (state) {
	case VIR_DOMAIN_SHUTOFF:
	case VIR_DOMAIN_NOSTATE:
		return LIBVIRT_GONE;
	case VIR_DOMAIN_PAUSED:
		return reason == VIR_DOMAIN_PAUSED_STARTING_UP ||
				       reason == VIR_DOMAIN_PAUSED_MIGRATION ?
			       LIBVIRT_COMING :
			       LIBVIRT_RUNS;
	default:
		return LIBVIRT_RUNS;
	}
}

void libvirt_call_look(virDomainPtr dom, struct libvirt_domain *d)
{
	char why[200];
	char *xml;

	virDomainGetUUID(dom, d->uuid);
	d->state = state_of(dom);
	d->problem[0] = 0;
	if (d->state == LIBVIRT_GONE)
		return;
	d->id = (int)virDomainGetID(dom);
	xml = virDomainGetXMLDesc(dom, 0);
	if (!xml)
		snprintf(d->problem, sizeof(d->problem), "no XML: %s", libvirt_words(why, sizeof(why)));
	else if (libvirt_xml_parse(xml, strlen(xml), &d->xml, why, sizeof(why)))
		snprintf(d->problem, sizeof(d->problem), "%s", why);
	free(xml);
}

struct look {
	struct libvirt_call call;
	bool failed;
	struct libvirt_domain d;
};

static void look_run(struct libvirt_call *c)
{
	struct look *k = (struct look *)c;
	char why[128];
	virDomainPtr dom;
	int err = 0;

	dom = libvirt_call_domain(k->d.uuid, &err, why, sizeof(why));
	if (dom) {
		libvirt_call_look(dom, &k->d);
		libvirt_domain_put(dom);
	} else {
		k->failed = err != -ENOENT;
		k->d.state = LIBVIRT_GONE;
	}
}

static void look_done(struct libvirt_call *c)
{
	struct look *k = (struct look *)c;
	struct libvirt *l = the;

	/* When it cannot be seen, the next connection looks at all. */
	if (!k->failed && l->connected)
		l->cb.domain(l->arg, &k->d);
	free(k);
}

void libvirt_look(struct libvirt *l, const uint8_t uuid[16])
{
	struct look *k = calloc(1, sizeof(*k));

	if (!k)
		return;
	k->call.run = look_run;
	k->call.done = look_done;
	memcpy(k->d.uuid, uuid, 16);
	if (libvirt_call_start(&k->call)) {
		free(k);
		pthread_mutex_lock(&l->lock);
		l->touched_all = true;
		pthread_mutex_unlock(&l->lock);
	}
}

void libvirt_report(const struct libvirt_domain *d)
{
	if (the->io)
		the->cb.domain(the->arg, d);
}

/* -- events, in libvirt's thread -- */

static void touched(virDomainPtr dom)
{
	struct libvirt *l = the;
	uint8_t uuid[16];
	unsigned int i;

	if (virDomainGetUUID(dom, uuid))
		return;
	pthread_mutex_lock(&l->lock);
	for (i = 0; i < l->touched_count && memcmp(l->touched[i], uuid, 16); i++)
		;
	if (i == TOUCHED_MAX)
		l->touched_all = true;
	else if (i == l->touched_count)
		memcpy(l->touched[l->touched_count++], uuid, 16);
	ring(l);
	pthread_mutex_unlock(&l->lock);
}

static int lifecycle_event(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *arg)
{
	touched(dom);
	return 0;
}

static void metadata_event(virConnectPtr conn, virDomainPtr dom, int type, const char *ns, void *arg)
{
	touched(dom);
}

static void closed_event(virConnectPtr conn, int reason, void *arg)
{
	struct libvirt *l = the;

	pthread_mutex_lock(&l->lock);
	if (conn == l->conn)
		l->closed = true;
	ring(l);
	pthread_mutex_unlock(&l->lock);
}

static void *event_main(void *arg)
{
	for (;;)
		if (virEventRunDefaultImpl() < 0)
			usleep(100000);
	return NULL;
}

static void quiet(void *arg, virErrorPtr e)
{
}

/* -- connecting -- */

struct opening {
	struct libvirt_call call;
	virConnectPtr conn, old;
	bool fresh; /* else @conn is in use, and all is looked at again */
	unsigned int count;
	struct libvirt_domain *domains;
	char why[256];
};

static void look_at_all(struct opening *o)
{
	virDomainPtr *list = NULL;
	int n, i;

	n = virConnectListAllDomains(o->conn, &list, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
	if (n > DOMAINS_MAX)
		snprintf(o->why, sizeof(o->why), "there are more than %d domains", DOMAINS_MAX);
	if (n > 0 && n <= DOMAINS_MAX)
		o->domains = calloc((size_t)n, sizeof(*o->domains));
	for (i = 0; i < n; i++) {
		if (o->domains)
			libvirt_call_look(list[i], &o->domains[o->count++]);
		virDomainFree(list[i]);
	}
	free(list);
	if (n < 0)
		libvirt_words(o->why, sizeof(o->why));
	else if (n && !o->domains && !o->why[0])
		snprintf(o->why, sizeof(o->why), "out of memory");
}

static int subscribe(virConnectPtr conn)
{
	if (virConnectRegisterCloseCallback(conn, closed_event, NULL, NULL) &&
	    virGetLastErrorCode() != VIR_ERR_NO_SUPPORT)
		return -1;
	/* Before anybody looks: what happens meanwhile is seen. */
	if (virConnectDomainEventRegisterAny(conn, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
					     VIR_DOMAIN_EVENT_CALLBACK(lifecycle_event), NULL,
					     NULL) < 0)
		return -1;
	return virConnectDomainEventRegisterAny(conn, NULL, VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
						VIR_DOMAIN_EVENT_CALLBACK(metadata_event), NULL,
						NULL) < 0 ? -1 : 0;
}

static void open_run(struct libvirt_call *c)
{
	struct opening *o = (struct opening *)c;

	if (o->old) {
		virConnectUnregisterCloseCallback(o->old, closed_event);
		virConnectClose(o->old);
	}
	if (o->fresh) {
		o->conn = connect_to(the);
		if (!o->conn || subscribe(o->conn)) {
			libvirt_words(o->why, sizeof(o->why));
			return;
		}
	}
	look_at_all(o);
}

static void again(struct libvirt *l)
{
	sd_event_source_set_time_relative(l->timer, AGAIN_USEC);
	sd_event_source_set_enabled(l->timer, SD_EVENT_ONESHOT);
}

static void open_done(struct libvirt_call *c)
{
	struct opening *o = (struct opening *)c;
	struct libvirt *l = the;
	unsigned int i;

	l->opening = false;
	pthread_mutex_lock(&l->lock);
	if (o->fresh && !o->why[0]) {
		l->conn = o->conn;
		l->closed = virConnectIsAlive(l->conn) != 1;
	}
	pthread_mutex_unlock(&l->lock);
	if (o->why[0] && !o->fresh) {
		l->cb.disconnected(l->arg, o->why);
	} else if (o->why[0]) {
		/* With nobody's reference left, this closes it without waiting. */
		if (o->conn) {
			virConnectUnregisterCloseCallback(o->conn, closed_event);
			virConnectClose(o->conn);
		}
		l->cb.disconnected(l->arg, o->why);
		again(l);
	} else {
		l->connected = true;
		l->cb.looking(l->arg);
		for (i = 0; i < o->count; i++)
			l->cb.domain(l->arg, &o->domains[i]);
		l->cb.connected(l->arg);
		ring(l);
	}
	free(o->domains);
	free(o);
}

/* Connect, or with @conn look at all domains. */
static void open_start(struct libvirt *l, virConnectPtr conn, virConnectPtr old)
{
	struct opening *o = calloc(1, sizeof(*o));

	if (!o) {
		again(l);
		return;
	}
	o->call.run = open_run;
	o->call.done = open_done;
	o->conn = conn;
	o->fresh = !conn;
	o->call.lasts = o->fresh; /* a libvirtd that stands still may not keep the others waiting */
	o->old = old;
	l->opening = true;
	if (libvirt_call_start(&o->call)) {
		l->opening = false;
		free(o);
		again(l);
	}
}

static int timer_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	struct libvirt *l = arg;

	if (!l->opening && !l->connected)
		open_start(l, NULL, NULL);
	return 0;
}

static int bell_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct libvirt_call *c, *next, *list = NULL;
	uint8_t seen[TOUCHED_MAX][16];
	struct libvirt *l = arg;
	virConnectPtr old = NULL;
	unsigned int n, i;
	bool all, closed;
	uint64_t value;

	if (read(fd, &value, sizeof(value)) < 0)
		return 0;
	pthread_mutex_lock(&l->lock);
	/* They are kept in the order opposite to that in which they ended. */
	for (c = l->finished; c; c = next) {
		next = c->next;
		c->next = list;
		list = c;
	}
	l->finished = NULL;
	/* What happens while we connect is looked at after that. */
	n = l->connected ? l->touched_count : 0;
	memcpy(seen, l->touched, sizeof(seen[0]) * n);
	if (n)
		l->touched_count = 0;
	all = l->touched_all && l->connected && !l->opening;
	if (all)
		l->touched_all = false;
	closed = l->closed && l->conn && !l->opening;
	if (closed) {
		old = l->conn;
		l->conn = NULL;
		l->closed = false;
	}
	pthread_mutex_unlock(&l->lock);
	for (c = list; c; c = next) {
		next = c->next;
		c->done(c);
	}
	if (closed) {
		l->connected = false;
		l->cb.disconnected(l->arg, "libvirt closed the connection");
		open_start(l, NULL, old);
		return 0;
	}
	if (all)
		open_start(l, l->conn, NULL);
	for (i = 0; i < n && l->connected; i++)
		libvirt_look(l, seen[i]);
	return 0;
}

bool libvirt_connected(const struct libvirt *l)
{
	return l->connected;
}

int libvirt_init(struct libvirt **out, sd_event *event, const char *uri,
		 const struct libvirt_callbacks *cb, void *arg)
{
	struct libvirt *l;
	int err;

	if (the)
		return -EBUSY;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	pthread_mutex_init(&l->lock, NULL);
	l->uri = strdup(uri);
	if (!l->uri) {
		free(l);
		return -ENOMEM;
	}
	l->event = sd_event_ref(event);
	l->cb = *cb;
	l->arg = arg;
	l->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = l->bell < 0 ? -errno : sd_event_add_io(event, &l->io, l->bell, EPOLLIN, bell_ready, l);
	if (err >= 0)
		err = sd_event_add_time_relative(event, &l->timer, CLOCK_MONOTONIC, 0, 100000,
						 timer_ready, l);
	virSetErrorFunc(NULL, quiet);
	if (err >= 0 && (virInitialize() || virEventRegisterDefaultImpl()))
		err = -EIO;
	if (err >= 0)
		err = thread_start(event_main, NULL);
	if (err < 0) {
		sd_event_source_disable_unref(l->io);
		sd_event_source_disable_unref(l->timer);
		sd_event_unref(event);
		if (l->bell >= 0)
			close(l->bell);
		free(l->uri);
		free(l);
		return err;
	}
	the = l;
	*out = l;
	return 0;
}

static void exit_at_once(int status, void *arg)
{
	fflush(NULL);
	_exit(status);
}

void libvirt_free(struct libvirt *l)
{
	bool busy;

	if (!l)
		return;
	l->io = sd_event_source_disable_unref(l->io);
	l->timer = sd_event_source_disable_unref(l->timer);
	l->event = sd_event_unref(l->event);
	pthread_mutex_lock(&l->lock);
	busy = l->working || l->lasting;
	pthread_mutex_unlock(&l->lock);
	/* Nothing that a thread inside libvirt may use can be torn down: not by destructors either. */
	if (busy)
		on_exit(exit_at_once, NULL);
}

/* -- secrets -- */

struct secret_get {
	struct libvirt_call call;
	struct libvirt_secret ref;
	libvirt_secret_done done;
	void *arg;
	sd_event_source *timer;
	bool told;
	int err;
	unsigned char *value;
	size_t len;
	char why[256];
};

static int secret_usage(const char *type)
{
	return !strcmp(type, "ceph") ? VIR_SECRET_USAGE_TYPE_CEPH :
	       !strcmp(type, "iscsi") ? VIR_SECRET_USAGE_TYPE_ISCSI :
	       !strcmp(type, "vtpm") ? VIR_SECRET_USAGE_TYPE_VTPM :
				       VIR_SECRET_USAGE_TYPE_TLS;
}

static void secret_run(struct libvirt_call *c)
{
	struct secret_get *g = (struct secret_get *)c;
	virConnectPtr conn = libvirt_call_conn();
	virSecretPtr s;

	if (!conn) {
		g->err = -ENOTCONN;
		snprintf(g->why, sizeof(g->why), "vmcommd has no connection to libvirt");
		return;
	}
	s = g->ref.by_uuid ? virSecretLookupByUUID(conn, g->ref.uuid) :
			     virSecretLookupByUsage(conn, secret_usage(g->ref.type), g->ref.usage);
	if (s)
		g->value = virSecretGetValue(s, &g->len, 0);
	if (!g->value) {
		g->err = virGetLastErrorCode() == VIR_ERR_NO_SECRET ? -ENOENT : -EIO;
		libvirt_words(g->why, sizeof(g->why));
	}
	if (s)
		virSecretFree(s);
	virConnectClose(conn);
}

static void secret_tell(struct secret_get *g)
{
	if (!g->told)
		g->done(g->arg, g->err, g->value, g->len, g->why);
	g->told = true;
}

static void secret_end(struct libvirt_call *c)
{
	struct secret_get *g = (struct secret_get *)c;

	secret_tell(g);
	sd_event_source_disable_unref(g->timer);
	if (g->value)
		explicit_bzero(g->value, g->len);
	free(g->value);
	free(g);
}

static int secret_late(sd_event_source *s, uint64_t usec, void *arg)
{
	struct secret_get *g = arg;

	/* The thread is still at it, and may write to the others. */
	if (!g->told)
		g->done(g->arg, -ETIMEDOUT, NULL, 0, "libvirt does not answer");
	g->told = true;
	return 0;
}

int libvirt_secret_get(struct libvirt *l, const struct libvirt_secret *ref, libvirt_secret_done done,
		       void *arg)
{
	struct secret_get *g = calloc(1, sizeof(*g));
	int err;

	if (!g)
		return -ENOMEM;
	g->call.run = secret_run;
	g->call.done = secret_end;
	g->ref = *ref;
	g->done = done;
	g->arg = arg;
	err = sd_event_add_time_relative(l->event, &g->timer, CLOCK_MONOTONIC, SECRET_USEC, 0,
					 secret_late, g);
	if (err >= 0)
		err = libvirt_call_start(&g->call);
	if (err < 0) {
		sd_event_source_disable_unref(g->timer);
		free(g);
	}
	return err < 0 ? err : 0;
}
