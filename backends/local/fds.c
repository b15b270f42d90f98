// SPDX-License-Identifier: LGPL-2.1-or-later
/* fds.c - descriptors over unix sockets */
#include "fds.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int vmcomm_fds_send(int sock, const void *data, size_t size, const int *fds, unsigned int count)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
	union {
		char buf[CMSG_SPACE(sizeof(int) * VMCOMM_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *cmsg;
	ssize_t n;

	if (count > VMCOMM_FDS_MAX)
		return -EINVAL;
	if (count) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * count);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * count);
	}
	n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	return n == (ssize_t)size ? 0 : -EIO;
}

int vmcomm_ivshmem_send(int sock, int64_t value, int fd)
{
	uint64_t wire = htole64((uint64_t)value);

	return vmcomm_fds_send(sock, &wire, sizeof(wire), &fd, fd >= 0);
}
