// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * handshake.c - getting the group's memory and doorbells from a keeper or hub
 *
 * The protocol is that of ivshmem-server: messages of one little-endian 64-bit number, some with a
 * descriptor. 0, the version; the own slot; -1 with the memfd; for each doorbell of each peer the
 * peer's number with its eventfd; at the end the own doorbells with the own number. How many those
 * are is in the location table.
 */
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "local.h"

/* One message; *fd is -1 if it has none. */
static int receive(int sock, s64 *value, int *fd, u64 deadline)
{
	union {
		char buf[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct pollfd pfd = {.fd = sock, .events = POLLIN};
	struct cmsghdr *cmsg;
	int got[4], count, i;
	u8 wire[8];
	u32 have = 0;
	u64 now, word;
	ssize_t n;

	*fd = -1;
	while (have < sizeof(wire)) {
		struct iovec iov = {.iov_base = wire + have, .iov_len = sizeof(wire) - have};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
				     .msg_controllen = sizeof(control.buf)};

		now = vmcomm_now();
		if (now >= deadline)
			return -ETIMEDOUT;
		if (poll(&pfd, 1, (int)((deadline - now) / 1000000u) + 1) <= 0)
			continue;
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0)
			return -errno;
		for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
			if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
				continue;
			count = (int)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(got, CMSG_DATA(cmsg), (size_t)count * sizeof(int));
			for (i = 0; i < count; i++) {
				if (*fd >= 0)
					close(got[i]);
				else
					*fd = got[i];
			}
		}
		if (!n)
			return -EPROTO;
		have += (u32)n;
	}
	memcpy(&word, wire, sizeof(word));
	*value = (s64)le64toh(word);
	return 0;
}

static int expect_number(int sock, s64 *value, u64 deadline)
{
	int fd, err = receive(sock, value, &fd, deadline);

	if (fd >= 0) {
		close(fd);
		return err ? err : -EPROTO;
	}
	return err;
}

static int map_memory(struct vmcomm_member *m, int fd)
{
	struct stat st;
	void *base;
	int err;

	m->memfd = fd;
	if (fstat(fd, &st))
		return -errno;
	/* Who comes to a slot that is taken gets an empty region, so as not to hang a QEMU. */
	if (st.st_size < (off_t)VMCOMM_REGION_MIN)
		return -EBUSY;
	base = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	m->region.base = base;
	m->region.lay.size = (u64)st.st_size; /* for unmapping, should the header be bad */
	/* A child after fork() is no member: it must not even read there. */
	madvise(base, (size_t)st.st_size, MADV_DONTFORK);
	err = vmcomm_region_init(&m->region, base, (u64)st.st_size);
	if (err) {
		munmap(base, (size_t)st.st_size);
		m->region.base = NULL;
		return err == -ENODATA ? -EBUSY : -EPROTO;
	}
	if (m->region.lay.size != (u64)st.st_size) {
		munmap(base, (size_t)st.st_size);
		m->region.base = NULL;
		return -EPROTO;
	}
	return m->slot < m->region.lay.slots ? 0 : -EPROTO;
}

static void keep(int *where, int fd)
{
	if (*where < 0)
		*where = fd;
	else
		close(fd);
}

int local_handshake(struct vmcomm_member *m, u64 deadline)
{
	u32 vectors = 0, own = 0, host, count[VMCOMM_SLOTS_MAX + 1] = {0};
	struct vmcomm_location row;
	s64 value = 0;
	int err, fd, tries;

	err = expect_number(m->keeper_fd, &value, deadline);
	if (!err && value != 0)
		err = -EPROTO;
	if (!err)
		err = expect_number(m->keeper_fd, &value, deadline);
	if (!err && (value < 0 || value >= VMCOMM_SLOTS_MAX))
		err = -EPROTO;
	if (err)
		return err;
	m->slot = (u32)value;
	err = receive(m->keeper_fd, &value, &fd, deadline);
	if (!err && (value != -1 || fd < 0))
		err = -EPROTO;
	if (err) {
		if (fd >= 0)
			close(fd);
		return err;
	}
	err = map_memory(m, fd);
	if (err)
		return err;
	/* The keeper may be in the middle of writing our row. */
	for (tries = 0; tries < 1000; tries++) {
		err = vmcomm_region_location(&m->region, m->slot, &row);
		if (err != -EAGAIN)
			break;
		usleep(1000);
	}
	if (err || row.vectors <= VMCOMM_VECTOR_HOST)
		return -EPROTO;
	vectors = row.vectors;
	host = m->region.lay.slots;
	while (own < vectors) {
		err = receive(m->keeper_fd, &value, &fd, deadline);
		if (err || fd < 0 || value < 0 || value > (s64)host) {
			if (fd >= 0)
				close(fd);
			return err ? err : -EPROTO;
		}
		/* Of a peer's doorbells only VMCOMM_VECTOR_EVENT is ours to ring. */
		if (value == (s64)m->slot) {
			keep(&m->own[own++], fd);
		} else if (count[value]++ == VMCOMM_VECTOR_EVENT ||
			   (value == (s64)host && count[value] == 2)) {
			if (value == (s64)host && m->bell[value] >= 0) {
				close(m->bell[value]); /* the host's second one: reclaim */
				m->bell[value] = -1;
			}
			keep(&m->bell[value], fd);
		} else {
			close(fd);
		}
	}
	return 0;
}

static void close_if(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void local_fds_close(struct vmcomm_member *m)
{
	u32 i;

	for (i = 0; i <= VMCOMM_SLOTS_MAX; i++)
		close_if(&m->bell[i]);
	for (i = 0; i < VMCOMM_VECTORS; i++)
		close_if(&m->own[i]);
	close_if(&m->keeper_fd);
	close_if(&m->memfd);
	close_if(&m->life_fd);
}
