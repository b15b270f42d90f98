// SPDX-License-Identifier: GPL-2.0-or-later
/* vmcomm-perf: streams over TCP, unix sockets and pipes behind one face. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "perf.h"

struct perf_end perf_connect(const struct perf_path *path, bool nodelay)
{
	int fd;

	if (path->transport == PERF_PIPE)
		return path->pipes;
	fd = tcp_connect(&path->addr);
	if (fd < 0)
		die("connect: %s", strerror(-fd));
	if (nodelay && path->transport == PERF_TCP)
		set_nodelay(fd);
	return (struct perf_end){fd, fd};
}

struct perf_end perf_accept(const struct perf_path *path, bool nodelay)
{
	int fd;

	if (path->transport == PERF_PIPE)
		return path->pipes;
	fd = accept4(path->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		die_errno("accept");
	if (nodelay && path->transport == PERF_TCP)
		set_nodelay(fd);
	return (struct perf_end){fd, fd};
}

void perf_close(const struct perf_path *path, struct perf_end e)
{
	close(e.in);
	if (e.out != e.in)
		close(e.out);
}

static bool wait_for_nothing(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

bool perf_read(struct perf_end e, void *buf, size_t len, bool spin)
{
	char *p = buf;
	ssize_t r;

	while (len) {
		if (spin && e.in == e.out)
			r = recv(e.in, p, len, MSG_DONTWAIT);
		else if (spin && !wait_for_nothing(e.in))
			continue;
		else
			r = read(e.in, p, len);
		if (r < 0 && (errno == EINTR || (spin && errno == EAGAIN)))
			continue;
		if (r < 0)
			die_errno("read");
		if (!r)
			return false;
		p += r;
		len -= (size_t)r;
	}
	return true;
}

void perf_write(struct perf_end e, const void *buf, size_t len)
{
	const char *p = buf;
	ssize_t r;

	while (len) {
		r = write(e.out, p, len);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			die_errno("write");
		p += r;
		len -= (size_t)r;
	}
}
