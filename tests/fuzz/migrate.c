// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * migrate.c - messages between the vmcommds of two hosts, as the destination and the source read them
 *
 * Input: one byte of options (1: we are the source, 2: the bytes are the stream as it is), then lines; a
 * line is a message. TLS is left out: whoever gets here knows the group's key.
 */
#define _GNU_SOURCE
#include <ftw.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fuzz.h"

#include <gnutls/gnutls.h>

#include "../../host/daemon/migrate.h"

static struct peer *made;
static struct fuzz_input stream;

static ssize_t stream_read(void *data, size_t n)
{
	const uint8_t *p;

	if (!stream.left)
		return GNUTLS_E_AGAIN;
	n = fuzz_bytes(&stream, n, &p);
	memcpy(data, p, n);
	return (ssize_t)n;
}

#define gnutls_init(tls, flags)		      (*(tls) = NULL, 0)
#define gnutls_priority_set_direct(...)	      0
#define gnutls_transport_set_int(...)	      ((void)0)
#define gnutls_handshake_set_timeout(...)     ((void)0)
#define gnutls_session_set_ptr(tls, ptr)      (made = (ptr))
#define gnutls_credentials_set(...)	      0
#define gnutls_handshake(tls)		      0
#define gnutls_auth_get_type(tls)	      GNUTLS_CRD_PSK
#define gnutls_record_get_direction(tls)      0
#define gnutls_record_send(tls, data, n)      ((ssize_t)(n))
#define gnutls_record_recv(tls, data, n)      stream_read(data, n)
#define gnutls_record_check_pending(tls)      stream.left
#define gnutls_bye(...)			      ((void)0)

static void forget(void *p)
{
	if (p == made)
		made = NULL;
	free(p);
}

/* Whoever frees the connection: the harness must not use it any more. */
#define free(p) forget(p)
#include "../../host/daemon/peer.c"
#undef free

static char dir[] = "/tmp/vmcomm-fuzz-XXXXXX";

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return ftw->level ? remove(path) : 0;
}

static void leave(void)
{
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	if (!mkdtemp(dir) || chdir(dir))
		abort();
	atexit(leave);
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

static void prepare(char *conf, size_t size)
{
	FILE *f;

	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	snprintf(conf, size, "%s/vmcomm.conf", dir);
	f = fopen(conf, "w");
	fuzz_check(f);
	fprintf(f,
		"[daemon]\nbackend = kvm\nruntime_dir = %s/run\nstate_dir = %s/state\n"
		"keeper = /nonexistent\n[group g]\nkey_file = %s/key\nmemory = 4M\nslots = 4\n"
		"[vm a]\ngroup = g\nkey_file = %s/key\naddress = 10.0.0.1\nqmp = %s/qmp\n"
		"[vm b]\ngroup = g\nkey_file = %s/key\naddress = 10.0.0.2\nqmp = %s/qmp\n"
		"[host h]\naddress = 127.0.0.1:9\n",
		dir, dir, dir, dir, dir, dir, dir);
	fclose(f);
	f = fopen("key", "w");
	fuzz_check(f && !fchmod(fileno(f), 0600));
	fprintf(f, "%064d\n", 1);
	fclose(f);
}

static void turn(sd_event *event)
{
	unsigned int i;

	for (i = 0; i < 20 && sd_event_run(event, 0) > 0; i++)
		;
}

/* The next message, framed; or, raw, all that is left. */
static void next_message(struct fuzz_input *in, bool raw, uint8_t **buf)
{
	const uint8_t *nl = raw ? NULL : memchr(in->data, '\n', in->left);
	size_t n = nl ? (size_t)(nl - in->data) : in->left;

	*buf = malloc(n + 4);
	(*buf)[0] = (*buf)[1] = 0;
	(*buf)[2] = (uint8_t)(n >> 8);
	(*buf)[3] = (uint8_t)n;
	memcpy(*buf + 4, in->data, n);
	stream.data = raw ? *buf + 4 : *buf;
	stream.left = raw ? n : n + 4;
	in->data += n + (nl ? 1 : 0);
	in->left -= n + (nl ? 1 : 0);
}

static void event(void *arg, json_t *o)
{
	fuzz_check(json_is_object(o));
}

static void done(void *arg, const struct vmcomm_error *e, json_t *result)
{
	fuzz_check(!*(bool *)arg && (e->code || result));
	*(bool *)arg = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct migrate_callbacks cb = {event, done};
	struct fuzz_input in = {data, size};
	uint8_t options = fuzz_u8(&in), *buf;
	struct peer_server server = {.fd = -1, .accepted = incoming_accepted};
	struct sockaddr_storage ss = {.ss_family = AF_INET};
	struct vmcomm_error e = {0};
	struct migration *mg = NULL;
	sd_event *loop = NULL;
	bool ended = false;
	struct manager m;
	char conf[64];
	struct vm *vm;
	int pair[2];

	prepare(conf, sizeof(conf));
	made = NULL;
	stream.left = 0;
	fuzz_check(sd_event_new(&loop) >= 0);
	if (manager_init(&m, loop, conf, false, &e)) {
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
	server.m = &m;
	fuzz_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	vm = vm_find(&m, options & 1 ? "a" : "b");
	fuzz_check(vm);
	if (options & 1) {
		if (!migrate_start(vm, &(struct migrate_options){.host = "h"}, &cb, &ended, &mg, &e))
			turn(loop);
		close(pair[1]);
	} else {
		vm->incoming = true;
		server_accept(&server, pair[1], &ss);
	}
	/* As if the handshake had just ended; the socket itself says nothing. */
	if (made && !made->closed) {
		made->connecting = false;
		sd_event_source_set_enabled(made->io, SD_EVENT_OFF);
		io_ready(NULL, made->fd, EPOLLIN, made);
		turn(loop);
	}
	while (in.left && made && !ended) {
		next_message(&in, options & 2, &buf);
		if (!made->closed && !made->dead)
			io_ready(NULL, made->fd, EPOLLIN, made);
		stream.left = 0;
		free(buf);
		turn(loop);
	}
	turn(loop);
	for (vm = m.vms; vm; vm = vm->next) {
		if (vm->move && !(options & 4))
			migrate_cancel(vm, &e);
		turn(loop);
	}
	while (server.peers) {
		fail(server.peers, -ECONNRESET, "over");
		turn(loop);
		if (server.peers && server.peers->closed && !server.peers->cb.closed)
			really_free(server.peers);
	}
	manager_deinit(&m);
	sd_event_unref(loop);
	close(pair[0]);
	return 0;
}
