// SPDX-License-Identifier: GPL-2.0-or-later
/* peer.c - TLS 1.3 with a pre-shared key on sd-event, and framed JSON on top of it */
#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/addr.h"
#include "log.h"

#define PEERS_MAX	   32
#define PEERS_ADDRESS_MAX  8 /* of one address, before they have shown a key */
#define HANDSHAKE_SECONDS  10
#define QUEUE_MAX	   (8U << 20)
#define PSK_CONTEXT	   "vmcomm peer PSK 1"
/* TLS 1.3 only, the key with ephemeral Diffie-Hellman; hashes of 256 bits, as the key's binder has. */
#define PRIORITY                                                                                   \
	"NONE:+VERS-TLS1.3:+AES-128-GCM:+CHACHA20-POLY1305:+AEAD:+ECDHE-PSK:+DHE-PSK:"             \
	"+GROUP-X25519:+GROUP-SECP256R1:+SIGN-ALL"

struct peer_server {
	struct manager *m;
	int fd;
	sd_event_source *io;
	gnutls_psk_server_credentials_t cred;
	void (*accepted)(struct manager *m, struct peer *p);
	struct peer *peers;
	unsigned int count;
};

struct peer {
	struct peer *next;	    /* of the server's */
	struct peer_server *server; /* NULL: we connected */
	struct manager *m;
	int fd;
	sd_event_source *io, *timer, *later;
	gnutls_session_t tls;
	gnutls_psk_client_credentials_t cred;
	struct peer_callbacks cb;
	void *arg;
	char name[128];
	char address[INET6_ADDRSTRLEN];
	char gid[CONFIG_NAME];
	bool connecting, ready, closed, dead;
	unsigned int depth;
	uint8_t *in, *out;
	size_t in_len, in_size, out_len, out_size;
	size_t retry; /* bytes of a gnutls_record_send() that must be repeated */
	struct vmcomm_error end;
};

/* What the group's key becomes on this wire: the key itself is used for nothing but this. */
static int psk_derive(const char *gid, const uint8_t key[VMCOMM_KEY_SIZE],
		      uint8_t out[VMCOMM_KEY_SIZE])
{
	char text[sizeof(PSK_CONTEXT) + CONFIG_NAME];
	size_t len = sizeof(PSK_CONTEXT) + strlen(gid);

	memcpy(text, PSK_CONTEXT, sizeof(PSK_CONTEXT)); /* with its NUL */
	memcpy(text + sizeof(PSK_CONTEXT), gid, strlen(gid));
	return gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, VMCOMM_KEY_SIZE, text, len, out) ? -EIO : 0;
}

static void really_free(struct peer *p)
{
	struct peer **at;

	if (p->server) {
		for (at = &p->server->peers; *at; at = &(*at)->next)
			if (*at == p) {
				*at = p->next;
				p->server->count--;
				break;
			}
	}
	sd_event_source_disable_unref(p->io);
	sd_event_source_disable_unref(p->timer);
	sd_event_source_disable_unref(p->later);
	if (p->tls) {
		if (p->ready && !p->closed)
			gnutls_bye(p->tls, GNUTLS_SHUT_WR);
		gnutls_deinit(p->tls);
	}
	if (p->cred)
		gnutls_psk_free_client_credentials(p->cred);
	if (p->fd >= 0)
		close(p->fd);
	free(p->in);
	free(p->out);
	free(p);
}

void peer_free(struct peer *p)
{
	if (!p)
		return;
	memset(&p->cb, 0, sizeof(p->cb));
	if (p->depth)
		p->dead = true;
	else
		really_free(p);
}

/* Told from the loop, so that no caller of peer_send() finds its connection gone under it. */
static void fail(struct peer *p, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void fail(struct peer *p, int code, const char *fmt, ...)
{
	va_list args;

	if (p->closed)
		return;
	p->closed = true;
	p->end.code = code;
	va_start(args, fmt);
	vsnprintf(p->end.text, sizeof(p->end.text), fmt, args);
	va_end(args);
	sd_event_source_set_enabled(p->io, SD_EVENT_OFF);
	sd_event_source_set_enabled(p->timer, SD_EVENT_OFF);
	sd_event_source_set_enabled(p->later, SD_EVENT_ONESHOT);
}

static void update(struct peer *p)
{
	uint32_t events = EPOLLIN;

	if (p->closed)
		return;
	if (p->connecting || (p->ready && p->out_len) ||
	    (!p->ready && gnutls_record_get_direction(p->tls)))
		events |= EPOLLOUT;
	if (p->connecting)
		events = EPOLLOUT;
	sd_event_source_set_io_events(p->io, events);
}

static void flush(struct peer *p)
{
	ssize_t n;

	while (p->ready && p->out_len && !p->closed) {
		/* After "again" GnuTLS wants the same call once more, with what it buffered. */
		n = p->retry ? gnutls_record_send(p->tls, NULL, 0) :
			       gnutls_record_send(p->tls, p->out, p->out_len < 16384 ? p->out_len : 16384);
		if (n == GNUTLS_E_INTERRUPTED)
			continue;
		if (n == GNUTLS_E_AGAIN) {
			p->retry = 1;
			break;
		}
		if (n < 0) {
			fail(p, -ECONNRESET, "the connection to %s broke: %s", p->name,
			     gnutls_strerror((int)n));
			return;
		}
		p->retry = 0;
		p->out_len -= (size_t)n;
		memmove(p->out, p->out + n, p->out_len);
	}
	update(p);
}

void peer_send(struct peer *p, json_t *msg)
{
	char *text = msg ? json_dumps(msg, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;
	uint8_t *grown;

	json_decref(msg);
	if (p->closed || !text || len > PEER_MESSAGE_MAX || p->out_len + len > QUEUE_MAX) {
		if (!p->closed)
			fail(p, -EMSGSIZE, "a message for %s is too long", p->name);
		free(text);
		return;
	}
	if (p->out_len + len + 4 > p->out_size) {
		grown = realloc(p->out, p->out_len + len + 4096);
		if (!grown) {
			fail(p, -ENOMEM, "out of memory");
			free(text);
			return;
		}
		p->out = grown;
		p->out_size = p->out_len + len + 4096;
	}
	p->out[p->out_len] = (uint8_t)(len >> 24);
	p->out[p->out_len + 1] = (uint8_t)(len >> 16);
	p->out[p->out_len + 2] = (uint8_t)(len >> 8);
	p->out[p->out_len + 3] = (uint8_t)len;
	memcpy(p->out + p->out_len + 4, text, len);
	p->out_len += len + 4;
	free(text);
	flush(p);
}

static void messages(struct peer *p)
{
	size_t at = 0, len;
	json_t *msg;

	while (!p->closed && !p->dead && p->in_len - at >= 4) {
		len = (size_t)p->in[at] << 24 | (size_t)p->in[at + 1] << 16 |
		      (size_t)p->in[at + 2] << 8 | p->in[at + 3];
		if (len > PEER_MESSAGE_MAX) {
			fail(p, -EPROTO, "%s sends a message of %zu bytes", p->name, len);
			break;
		}
		if (p->in_len - at - 4 < len)
			break;
		msg = json_loadb((char *)p->in + at + 4, len, JSON_REJECT_DUPLICATES, NULL);
		if (json_is_object(msg) && p->cb.message)
			p->cb.message(p->arg, msg);
		else if (!json_is_object(msg))
			fail(p, -EPROTO, "%s sends what is no message", p->name);
		json_decref(msg);
		at += 4 + len;
	}
	p->in_len -= at;
	memmove(p->in, p->in + at, p->in_len);
}

static void receive(struct peer *p)
{
	uint8_t *grown;
	ssize_t n;

	do {
		if (p->in_size - p->in_len < 16384) {
			grown = realloc(p->in, p->in_size + 65536);
			if (!grown) {
				fail(p, -ENOMEM, "out of memory");
				return;
			}
			p->in = grown;
			p->in_size += 65536;
		}
		n = gnutls_record_recv(p->tls, p->in + p->in_len, p->in_size - p->in_len);
		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			return;
		if (n <= 0) {
			fail(p, -ECONNRESET, "%s closed the connection%s%s", p->name, n ? ": " : "",
			     n ? gnutls_strerror((int)n) : "");
			return;
		}
		p->in_len += (size_t)n;
		messages(p);
	} while (!p->closed && !p->dead && gnutls_record_check_pending(p->tls));
}

static void handshake_failed(struct peer *p, int err)
{
	/* Both an unknown group and a wrong key end here; only the listening side knows which. */
	if (p->server)
		fail(p, -EKEYREJECTED, "%s: no agreement on a key for group '%s': %s", p->name,
		     p->gid[0] ? p->gid : "?", gnutls_strerror(err));
	else if (err == GNUTLS_E_PREMATURE_TERMINATION || err == GNUTLS_E_PULL_ERROR ||
		 err == GNUTLS_E_PUSH_ERROR)
		fail(p, -EHOSTUNREACH, "%s closed the connection before both sides had shown that "
		     "they know the group's key", p->name);
	else
		fail(p, -EKEYREJECTED, "wrong key: group '%s' has another key on %s, or is not "
		     "defined there (%s)", p->gid, p->name, gnutls_strerror(err));
}

static void shake_hands(struct peer *p)
{
	int err;

	do
		err = gnutls_handshake(p->tls);
	while (err < 0 && err != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(err));
	if (err == GNUTLS_E_AGAIN) {
		update(p);
		return;
	}
	if (err < 0) {
		/* The other side learns why, if it still listens. */
		if (err != GNUTLS_E_FATAL_ALERT_RECEIVED)
			gnutls_alert_send_appropriate(p->tls, err);
		handshake_failed(p, err);
		return;
	}
	/* Without this a handshake without any key would do, should the priorities ever allow one. */
	if (gnutls_auth_get_type(p->tls) != GNUTLS_CRD_PSK) {
		fail(p, -EKEYREJECTED, "%s: no key was used", p->name);
		return;
	}
	p->ready = true;
	sd_event_source_set_enabled(p->timer, SD_EVENT_OFF);
	if (p->server)
		p->server->accepted(p->m, p);
	else if (p->cb.ready)
		p->cb.ready(p->arg);
	if (!p->dead)
		flush(p);
}

static void connected(struct peer *p)
{
	socklen_t len = sizeof(int);
	int err = 0;

	getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err) {
		fail(p, -EHOSTUNREACH, "cannot reach %s: %s", p->name, strerror(err));
		return;
	}
	p->connecting = false;
	shake_hands(p);
}

static int io_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct peer *p = arg;

	p->depth++;
	if (p->connecting)
		connected(p);
	else if (!p->ready)
		shake_hands(p);
	if (p->ready && !p->closed && !p->dead) {
		flush(p);
		if (!p->closed)
			receive(p);
	}
	p->depth--;
	if (p->dead && !p->depth)
		really_free(p);
	else
		update(p);
	return 0;
}

static int timer_ready(sd_event_source *s, uint64_t usec, void *arg)
{
	struct peer *p = arg;

	fail(p, p->connecting ? -EHOSTUNREACH : -ETIMEDOUT, "%s %s within %d s", p->name,
	     p->connecting ? "is not reachable" : "did not show that it knows the group's key",
	     HANDSHAKE_SECONDS);
	return 0;
}

static int later_ready(sd_event_source *s, void *arg)
{
	struct peer *p = arg;

	if (!p->closed)
		return 0;
	p->depth++;
	if (p->cb.closed)
		p->cb.closed(p->arg, &p->end);
	p->depth--;
	/* Nobody has taken it over: a stranger. */
	if (!p->cb.closed && p->server) {
		log_warning("peers: %s", p->end.text);
		p->dead = true;
	}
	if (p->dead)
		really_free(p);
	return 0;
}

static void socket_options(int fd)
{
	static const int on = 1, idle = 5, interval = 3, count = 3;
	static const unsigned int user_ms = 15000;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, sizeof(user_ms));
}

static int peer_init(struct peer *p, struct manager *m, int fd, unsigned int flags)
{
	int err;

	p->m = m;
	p->fd = fd;
	socket_options(fd);
	if (gnutls_init(&p->tls, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0)
		return -ENOMEM;
	if (gnutls_priority_set_direct(p->tls, PRIORITY, NULL) < 0)
		return -EOPNOTSUPP;
	gnutls_transport_set_int(p->tls, fd);
	gnutls_handshake_set_timeout(p->tls, GNUTLS_INDEFINITE_TIMEOUT);
	gnutls_session_set_ptr(p->tls, p);
	err = sd_event_add_io(m->event, &p->io, fd, p->connecting ? EPOLLOUT : EPOLLIN, io_ready, p);
	if (err >= 0)
		err = sd_event_add_time_relative(m->event, &p->timer, CLOCK_MONOTONIC,
						 HANDSHAKE_SECONDS * 1000000ULL, 0, timer_ready, p);
	if (err >= 0)
		err = sd_event_add_defer(m->event, &p->later, later_ready, p);
	if (err < 0)
		return err;
	return sd_event_source_set_enabled(p->later, SD_EVENT_OFF);
}

static int client_key(struct peer *p, const uint8_t key[VMCOMM_KEY_SIZE])
{
	uint8_t psk[VMCOMM_KEY_SIZE];
	gnutls_datum_t datum = {psk, sizeof(psk)};
	int err = psk_derive(p->gid, key, psk);

	if (!err && (gnutls_psk_allocate_client_credentials(&p->cred) < 0 ||
		     gnutls_psk_set_client_credentials(p->cred, p->gid, &datum,
						       GNUTLS_PSK_KEY_RAW) < 0 ||
		     gnutls_credentials_set(p->tls, GNUTLS_CRD_PSK, p->cred) < 0))
		err = -ENOMEM;
	vmcomm_key_wipe(psk);
	return err;
}

int peer_connect(struct peer **out, struct manager *m, const char *host, const char *address,
		 const char *gid, const uint8_t key[VMCOMM_KEY_SIZE],
		 const struct peer_callbacks *cb, void *arg, struct vmcomm_error *e)
{
	struct sockaddr_storage ss;
	struct peer *p;
	socklen_t len;
	int fd, err;

	if (config_endpoint(address, &ss, &len))
		return vmcomm_error_set(e, -EINVAL, "host '%s': '%s' is no address", host, address);
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	p = calloc(1, sizeof(*p));
	if (fd < 0 || !p) {
		if (fd >= 0)
			close(fd);
		free(p);
		return vmcomm_error_set(e, -ENOMEM, "no socket for host '%s'", host);
	}
	snprintf(p->name, sizeof(p->name), "host '%s' (%s)", host, address);
	snprintf(p->gid, sizeof(p->gid), "%s", gid);
	p->cb = *cb;
	p->arg = arg;
	p->connecting = true;
	err = peer_init(p, m, fd, GNUTLS_CLIENT);
	if (!err)
		err = client_key(p, key);
	if (err < 0) {
		really_free(p);
		return vmcomm_error_set(e, err, "no TLS for host '%s': %s", host, strerror(-err));
	}
	if (connect(fd, (struct sockaddr *)&ss, len) && errno != EINPROGRESS)
		fail(p, -EHOSTUNREACH, "cannot reach %s: %s", p->name, strerror(errno));
	*out = p;
	return 0;
}

const char *peer_group(const struct peer *p)
{
	return p->gid;
}

const char *peer_name(const struct peer *p)
{
	return p->name;
}

int peer_local_address(const struct peer *p, char *buf, size_t size)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	const void *addr = &((struct sockaddr_in *)&ss)->sin_addr;

	if (getsockname(p->fd, (struct sockaddr *)&ss, &len))
		return -errno;
	if (ss.ss_family == AF_INET6) {
		struct in6_addr *a = &((struct sockaddr_in6 *)&ss)->sin6_addr;

		if (!IN6_IS_ADDR_V4MAPPED(a))
			return inet_ntop(AF_INET6, a, buf, (socklen_t)size) ? 0 : -ENOSPC;
		addr = a->s6_addr + 12;
	}
	return inet_ntop(AF_INET, addr, buf, (socklen_t)size) ? 0 : -ENOSPC;
}

void peer_adopt(struct peer *p, const struct peer_callbacks *cb, void *arg)
{
	p->cb = *cb;
	p->arg = arg;
}

/* -- listening -- */

static int server_key(gnutls_session_t tls, const char *gid, gnutls_datum_t *key)
{
	struct peer *p = gnutls_session_get_ptr(tls);
	struct group *g = vmcomm_name_valid(gid) ? group_find(p->m, gid) : NULL;

	if (!g) {
		log_warning("peers: %s asks for group '%.63s', which is not defined here", p->name,
			    vmcomm_name_valid(gid) ? gid : "?");
		return -1;
	}
	snprintf(p->gid, sizeof(p->gid), "%s", gid);
	key->data = gnutls_malloc(VMCOMM_KEY_SIZE);
	key->size = VMCOMM_KEY_SIZE;
	if (!key->data || psk_derive(gid, g->key, key->data))
		return -1;
	return 0;
}

static unsigned int strangers(const struct peer_server *s, const char *address)
{
	const struct peer *p;
	unsigned int n = 0;

	for (p = s->peers; p; p = p->next)
		n += !p->ready && !strcmp(p->address, address);
	return n;
}

static void server_accept(struct peer_server *s, int fd, const struct sockaddr_storage *ss)
{
	char address[INET6_ADDRSTRLEN] = "?";
	struct peer *p;

	inet_ntop(ss->ss_family,
		  ss->ss_family == AF_INET6 ? (void *)&((struct sockaddr_in6 *)ss)->sin6_addr :
					      (void *)&((struct sockaddr_in *)ss)->sin_addr,
		  address, sizeof(address));
	p = s->count < PEERS_MAX && strangers(s, address) < PEERS_ADDRESS_MAX ?
		    calloc(1, sizeof(*p)) : NULL;
	if (!p) {
		close(fd);
		return;
	}
	snprintf(p->address, sizeof(p->address), "%s", address);
	snprintf(p->name, sizeof(p->name), "the vmcommd at %s", address);
	p->server = s;
	p->next = s->peers;
	s->peers = p;
	s->count++;
	if (peer_init(p, s->m, fd, GNUTLS_SERVER) < 0 ||
	    gnutls_credentials_set(p->tls, GNUTLS_CRD_PSK, s->cred) < 0)
		really_free(p);
}

static int server_ready(sd_event_source *src, int fd, uint32_t revents, void *arg)
{
	struct sockaddr_storage ss = {0};
	unsigned int budget = 8;
	socklen_t len;
	int conn;

	while (budget--) {
		len = sizeof(ss);
		conn = accept4(fd, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (conn < 0)
			break;
		server_accept(arg, conn, &ss);
	}
	return 0;
}

int peer_server_init(struct peer_server **out, struct manager *m, const char *address,
		     void (*accepted)(struct manager *m, struct peer *p), struct vmcomm_error *e)
{
	static const int on = 1;
	struct sockaddr_storage ss;
	struct peer_server *s;
	socklen_t len;

	if (config_endpoint(address, &ss, &len))
		return vmcomm_error_set(e, -EINVAL, "peer_listen: '%s' is no address", address);
	s = calloc(1, sizeof(*s));
	if (!s)
		return vmcomm_error_set(e, -ENOMEM, "out of memory");
	s->m = m;
	s->accepted = accepted;
	s->fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The address may come up later than we do. */
	if (s->fd >= 0)
		setsockopt(s->fd, ss.ss_family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP,
			   ss.ss_family == AF_INET6 ? IPV6_FREEBIND : IP_FREEBIND, &on, sizeof(on));
	if (s->fd < 0 || setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(s->fd, (struct sockaddr *)&ss, len) || listen(s->fd, 64)) {
		vmcomm_error_set(e, -errno, "cannot listen on %s for vmcommds of other hosts "
				 "(peer_listen): %s", address, strerror(errno));
		goto fail;
	}
	if (gnutls_psk_allocate_server_credentials(&s->cred) < 0) {
		vmcomm_error_set(e, -ENOMEM, "out of memory");
		goto fail;
	}
	gnutls_psk_set_server_credentials_function(s->cred, server_key);
	if (sd_event_add_io(m->event, &s->io, s->fd, EPOLLIN, server_ready, s) < 0) {
		vmcomm_error_set(e, -ENOMEM, "no event source");
		goto fail;
	}
	*out = s;
	return 0;
fail:
	peer_server_free(s);
	return e->code;
}

void peer_server_free(struct peer_server *s)
{
	struct peer *p, *next;

	if (!s)
		return;
	for (p = s->peers; p; p = next) {
		next = p->next;
		p->server = NULL;
		really_free(p);
	}
	sd_event_source_disable_unref(s->io);
	if (s->cred)
		gnutls_psk_free_server_credentials(s->cred);
	if (s->fd >= 0)
		close(s->fd);
	free(s);
}
