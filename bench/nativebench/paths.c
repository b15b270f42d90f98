// SPDX-License-Identifier: GPL-2.0-or-later
/* paths.c - the local backend, and what the kernel offers, each with what is best for it */
#include "native.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmcomm.h"

#define SPIN_US 200

/* --- the local backend: a hub in the parent, which is freed there when both have joined --- */

static int membership[2];
static struct vmcomm_hub *hub;
static struct vmcomm_stream *stream;

static int local_prepare(void)
{
	const struct vmcomm_hub_config config = {.size = sizeof(config), .slots = 2};
	int err, i;

	err = vmcomm_hub_new(&hub, &config);
	for (i = 0; i < 2 && !err; i++) {
		membership[i] = vmcomm_hub_open(hub, (unsigned int)i, NULL);
		if (membership[i] < 0)
			err = membership[i];
	}
	return err;
}

static int local_open(bool client)
{
	const char *ring = getenv("VMCOMM_BENCH_RING");
	struct vmcomm_member_config config = {.size = sizeof(config)};
	struct vmcomm_member *m;
	struct vmcomm_listener *l;
	int err, tries;

	/* For experiments; what is reported uses the library's default. */
	if (ring)
		config.ring_size = (unsigned int)strtoul(ring, NULL, 0);
	close(membership[client]);
	err = vmcomm_join_fd(&m, membership[!client], &config);
	if (err)
		return err;
	if (!client) {
		err = vmcomm_listen(&l, m, 7, 0);
		return err ? err : vmcomm_accept(&stream, l, 0);
	}
	for (tries = 0; tries < 5000; tries++) {
		err = vmcomm_connect(&stream, m, "1", 7, 0);
		if (err != -ECONNREFUSED)
			break;
		usleep(1000);
	}
	return err;
}

static int local_open_spin(bool client)
{
	int err = local_open(client);

	return err ? err : vmcomm_set(stream, VMCOMM_OPT_SPIN_US, SPIN_US);
}

static ssize_t local_send(const void *buf, size_t len)
{
	return vmcomm_send(stream, buf, len, 0);
}

static ssize_t local_recv(void *buf, size_t len)
{
	return vmcomm_recv(stream, buf, len, 0);
}

static void local_finish(void)
{
	vmcomm_shutdown(stream, VMCOMM_SHUT_WR);
}

const struct path path_vmcomm = {"vmcomm", local_prepare, local_open, local_send, local_recv,
				 local_finish};
const struct path path_vmcomm_spin = {"vmcomm-spin", local_prepare, local_open_spin, local_send,
				      local_recv, local_finish};

/* --- descriptors: rfd and wfd --- */

static int pair[2], back[2], rfd, wfd;

static ssize_t fd_send(const void *buf, size_t len)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = write(wfd, (const char *)buf + done, len - done);
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static ssize_t fd_recv(void *buf, size_t len)
{
	ssize_t n = read(rfd, buf, len);

	return n < 0 ? -errno : n;
}

static int unix_prepare(void)
{
	return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ? -errno : 0;
}

static int socket_open(bool client)
{
	rfd = wfd = pair[client];
	close(pair[!client]);
	return 0;
}

static void socket_finish(void)
{
	shutdown(wfd, SHUT_WR);
}

static int tcp_prepare(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	int one = 1, l = socket(AF_INET, SOCK_STREAM, 0), i;

	pair[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (l < 0 || pair[0] < 0 || bind(l, (struct sockaddr *)&sin, len) || listen(l, 1) ||
	    getsockname(l, (struct sockaddr *)&sin, &len) ||
	    connect(pair[0], (struct sockaddr *)&sin, len))
		return -errno;
	pair[1] = accept(l, NULL, NULL);
	if (pair[1] < 0)
		return -errno;
	close(l);
	for (i = 0; i < 2; i++)
		if (setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
			return -errno;
	return 0;
}

static int pipe_prepare(void)
{
	if (pipe(pair) || pipe(back))
		return -errno;
	/* More than its default, as long as it is faster; refused beyond the user's limit. */
	fcntl(pair[1], F_SETPIPE_SZ, 262144);
	fcntl(back[1], F_SETPIPE_SZ, 262144);
	return 0;
}

static int pipe_open(bool client)
{
	rfd = client ? back[0] : pair[0];
	wfd = client ? pair[1] : back[1];
	close(client ? pair[0] : back[0]);
	close(client ? back[1] : pair[1]);
	return 0;
}

static void pipe_finish(void)
{
	close(wfd);
}

const struct path path_unix = {"unix", unix_prepare, socket_open, fd_send, fd_recv, socket_finish};
const struct path path_tcp = {"tcp", tcp_prepare, socket_open, fd_send, fd_recv, socket_finish};
const struct path path_pipe = {"pipe", pipe_prepare, pipe_open, fd_send, fd_recv, pipe_finish};
