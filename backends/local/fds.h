/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fds.h - descriptors over unix sockets, as the ivshmem handshake and the keeper's protocol send them */
#ifndef VMCOMM_FDS_H
#define VMCOMM_FDS_H

#include <stddef.h>
#include <stdint.h>

#define VMCOMM_FDS_MAX 8

/**
 * vmcomm_fds_send() - send bytes together with descriptors, without waiting
 * @sock: a connected unix socket
 * @data: at least one byte
 * @size: of @data
 * @fds: descriptors; they stay the caller's
 * @count: 0 to VMCOMM_FDS_MAX
 *
 * Return: 0: all of it is sent; -EAGAIN: the socket is full, nothing is; -EIO: only a part is, which
 * small messages on an empty buffer do not know; other negative errno.
 */
int vmcomm_fds_send(int sock, const void *data, size_t size, const int *fds, unsigned int count);

/**
 * vmcomm_ivshmem_send() - one message of the ivshmem handshake, without waiting
 * @value: the number that the message is
 * @fd: goes with it; -1: none
 *
 * Return: as vmcomm_fds_send().
 */
int vmcomm_ivshmem_send(int sock, int64_t value, int fd);

#endif
