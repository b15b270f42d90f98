// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * peer.c - local-peer MODE [ARGUMENT]: the other process of a test
 *
 * Gets its membership as descriptor 3, or joins at the socket in $VMCOMM_SLOT; says "ready\n" on
 * standard output when others may connect to port 7, and ends when its standard input does.
 *
 *	echo		gives back what it gets, on any number of connections
 *	stall		takes one connection and never reads
 *	talk N		takes one connection, sends N pattern bytes, then sleeps
 *	quit N		the same, then leaves its group and ends
 *	hub		makes a group with 3 slots, hands out the memberships of slots 0 and 1 on
 *			descriptor 3, joins slot 2 itself and echoes there
 *	fork		echo, with a child after fork() that outlives it
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pattern.h"
#include "vmcomm.h"

#define PEER_MAX 2048

static void die(const char *what, int err)
{
	fprintf(stderr, "local-peer: %s: %s\n", what, vmcomm_strerror(err));
	exit(1);
}

static void ready(void)
{
	printf("ready\n");
	fflush(stdout);
}

static void *end_with_stdin(void *arg)
{
	char c;

	while (read(0, &c, 1) > 0)
		;
	_exit(0);
}

/* One thread, many connections, through their poll descriptors. */
static void echo(struct vmcomm_listener *l)
{
	static struct pollfd pfd[PEER_MAX + 1];
	static struct vmcomm_stream *stream[PEER_MAX + 1];
	static char buf[65536];
	ssize_t n;
	int i, count = 1;

	pfd[0] = (struct pollfd){.fd = vmcomm_listener_fd(l), .events = POLLIN};
	ready();
	for (;;) {
		if (poll(pfd, (nfds_t)count, -1) < 0)
			continue;
		for (i = count - 1; i > 0; i--) {
			if (!pfd[i].revents)
				continue;
			n = vmcomm_recv(stream[i], buf, sizeof(buf), VMCOMM_DONTWAIT);
			if (n == -EAGAIN)
				continue;
			if (n > 0 && vmcomm_send(stream[i], buf, (size_t)n, 0) == n)
				continue;
			vmcomm_close(stream[i]);
			stream[i] = stream[--count];
			pfd[i] = pfd[count];
		}
		while (pfd[0].revents && count <= PEER_MAX &&
		       !vmcomm_accept(&stream[count], l, VMCOMM_DONTWAIT)) {
			pfd[count] = (struct pollfd){.events = POLLIN};
			pfd[count].fd = vmcomm_stream_fd(stream[count]);
			if (pfd[count].fd < 0)
				die("descriptor", pfd[count].fd);
			count++;
		}
	}
}

static void talk(struct vmcomm_stream *s, size_t count)
{
	unsigned char *buf = malloc(count + 1);
	ssize_t n;

	pattern_fill(buf, 0, count);
	n = vmcomm_send(s, buf, count, 0);
	if (n != (ssize_t)count)
		die("send", (int)n);
	free(buf);
	ready();
}

static struct vmcomm_member *hub(void)
{
	const struct vmcomm_hub_config config = {.size = sizeof(config), .slots = 3};
	struct vmcomm_member *m;
	struct vmcomm_hub *h;
	int err, i, fd;

	err = vmcomm_hub_new(&h, &config);
	if (err)
		die("hub", err);
	for (i = 0; i < 2; i++) {
		union {
			char buf[CMSG_SPACE(sizeof(int))];
			struct cmsghdr align;
		} control = {{0}};
		char byte = 0;
		struct iovec iov = {.iov_base = &byte, .iov_len = 1};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
				     .msg_controllen = sizeof(control.buf)};
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

		fd = vmcomm_hub_open(h, (unsigned int)i, NULL);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
		if (fd < 0 || sendmsg(3, &msg, 0) != 1)
			die("hand out", fd);
		close(fd);
	}
	err = vmcomm_join_fd(&m, vmcomm_hub_open(h, 2, NULL), NULL);
	if (err)
		die("join", err);
	return m;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "", *path = getenv("VMCOMM_SLOT");
	size_t count = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;
	struct vmcomm_listener *l;
	struct vmcomm_stream *s;
	struct vmcomm_member *m;
	pthread_t thread;
	int err = 0;

	if (!strcmp(mode, "hub"))
		m = hub();
	else
		err = path ? vmcomm_join(&m, path, NULL) : vmcomm_join_fd(&m, 3, NULL);
	if (err)
		die("join", err);
	err = vmcomm_listen(&l, m, 7, 64);
	if (err)
		die("listen", err);
	if (!strcmp(mode, "fork") && !fork()) {
		/* Would keep the parent's descriptors, if the library did not close them. */
		end_with_stdin(NULL);
	}
	/* One that quits does so by itself. */
	if (strcmp(mode, "quit") && pthread_create(&thread, NULL, end_with_stdin, NULL))
		die("thread", 0);
	if (!strcmp(mode, "echo") || !strcmp(mode, "hub") || !strcmp(mode, "fork"))
		echo(l);
	ready();
	err = vmcomm_accept(&s, l, 0);
	if (err)
		die("accept", err);
	if (!strcmp(mode, "talk") || !strcmp(mode, "quit"))
		talk(s, count);
	if (!strcmp(mode, "quit")) {
		vmcomm_close(s);
		vmcomm_listener_close(l);
		vmcomm_leave(m);
		return 0;
	}
	for (;;)
		pause();
}
