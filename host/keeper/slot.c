// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * slot.c - one socket per slot, and the ivshmem handshake
 *
 * QEMU reads the first three messages synchronously, with its monitor and its guest standing
 * still, and spins for ever on a connection that ends before they are complete. Therefore:
 *  - the handshake is sent at once, as far as the kernel takes it, and on from EPOLLOUT;
 *  - the path of a slot that is taken does not exist: connect() then fails, cleanly;
 *  - who was in the middle of a connect() at that moment gets a complete handshake for an empty
 *    region of its own, a decoy, in which no driver finds a header;
 *  - nothing is ever sent after the handshake: on a disconnect message QEMU frees doorbells that it
 *    goes on to use. All slots are announced from the start, with doorbells that never change.
 */
#include "keeper.h"
#include "../../backends/local/fds.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* One message is one socket buffer; the kernel charges less than this for each (768 measured). */
#define MESSAGE_CHARGE 2048

#define source_slot(src, member) \
	((struct keeper_slot *)(void *)((char *)(src)-offsetof(struct keeper_slot, member)))

static uint32_t slot_number(const struct keeper *k, const struct keeper_slot *s)
{
	return (uint32_t)(s - k->slot);
}

static void slot_path(uint32_t slot, char *buf, size_t size)
{
	snprintf(buf, size, "slot-%u.sock", slot);
}

static unsigned int handshake_messages(const struct keeper *k)
{
	/* version, id, memory; the other slots and the host; own */
	return 3 + k->lay.slots * VMCOMM_VECTORS + VMCOMM_VECTORS;
}

/* Message number @n of the handshake of @slot: its value and descriptor (-1: none). */
static int64_t handshake_message(const struct keeper *k, uint32_t slot, unsigned int n, int *fd)
{
	uint32_t peer;

	*fd = -1;
	switch (n) {
	case 0:
		return 0;
	case 1:
		return slot;
	case 2:
		*fd = k->memfd;
		return -1;
	}
	n -= 3;
	peer = n / VMCOMM_VECTORS;
	if (peer >= k->lay.slots)
		peer = slot; /* own ones are the last */
	else if (peer >= slot)
		peer++;
	*fd = k->event[peer][n % VMCOMM_VECTORS];
	return peer;
}

static int64_t decoy_message(const struct keeper *k, uint32_t slot, unsigned int n, int *fd)
{
	*fd = -1;
	if (n == 0)
		return 0;
	if (n == 2) {
		*fd = k->decoy_memfd;
		return -1;
	}
	if (n > 2)
		*fd = k->decoy_event[n - 3];
	return slot;
}

static void set_buffer(const struct keeper *k, int fd)
{
	int want = (int)handshake_messages(k) * MESSAGE_CHARGE;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &want, sizeof(want)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &want, sizeof(want));
}

static void conn_gone(struct keeper *k, struct keeper_slot *s)
{
	uint32_t slot = slot_number(k, s), state = k->group.slot[slot].state;

	keeper_unwatch(k, &s->conn);
	s->complete = false;
	keeper_log(k, "slot %u: QEMU %u closed the connection", slot, s->pid);
	vmcomm_group_observe(&k->group, &k->lay, k->base, slot);
	vmcomm_group_move(&k->group, slot,
			  state == VMCOMM_SLOT_LEAVING ? VMCOMM_SLOT_LEFT : VMCOMM_SLOT_GONE);
	keeper_row_publish(k, slot);
	keeper_admin_event(k, VMCOMM_KEEPER_EVENT_DISCONNECTED, slot);
}

static void conn_send(struct keeper *k, struct keeper_slot *s)
{
	uint32_t slot = slot_number(k, s);
	unsigned int total = handshake_messages(k);
	struct epoll_event ev = {.events = EPOLLRDHUP, .data.ptr = &s->conn};
	int64_t value;
	int fd, err;

	while (s->sent < total) {
		value = handshake_message(k, slot, s->sent, &fd);
		err = vmcomm_ivshmem_send(s->conn.fd, value, fd);
		if (err == -EAGAIN)
			return; /* EPOLLOUT goes on */
		if (err == -ETOOMANYREFS || err == -ENOMEM || err == -ENOBUFS) {
			/* The descriptors of others are still on their way: again at the next tick. */
			epoll_ctl(k->epfd, EPOLL_CTL_MOD, s->conn.fd, &ev);
			s->retry = 1;
			return;
		}
		if (err) {
			conn_gone(k, s);
			return;
		}
		s->sent++;
	}
	epoll_ctl(k->epfd, EPOLL_CTL_MOD, s->conn.fd, &ev);
	s->complete = true;
	keeper_log(k, "slot %u: QEMU %u (user %u) has the region", slot, s->pid, s->uid);
	if (k->group.slot[slot].state == VMCOMM_SLOT_JOINING)
		vmcomm_group_move(&k->group, slot, VMCOMM_SLOT_LIVE);
	keeper_row_publish(k, slot);
	keeper_admin_event(k, VMCOMM_KEEPER_EVENT_CONNECTED, slot);
}

static void conn_ready(struct keeper *k, struct keeper_source *src, uint32_t events)
{
	struct keeper_slot *s = source_slot(src, conn);
	char junk[256];
	ssize_t n;

	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		/* QEMU never sends anything; who does is not listened to. */
		n = recv(src->fd, junk, sizeof(junk), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) ||
		    (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) {
			conn_gone(k, s);
			return;
		}
	}
	if ((events & EPOLLOUT) && !s->complete)
		conn_send(k, s);
}

static void decoy_ready(struct keeper *k, struct keeper_source *src, uint32_t events)
{
	char junk[256];

	if (recv(src->fd, junk, sizeof(junk), MSG_DONTWAIT) <= 0)
		keeper_unwatch(k, src);
}

static void decoy_new(struct keeper *k, uint32_t slot, int fd)
{
	struct keeper_source *src = NULL;
	unsigned int i;
	int64_t value;
	int mfd;

	k->slot[slot].decoys++;
	keeper_log(k, "slot %u: a second connection gets an empty region", slot);
	for (i = 0; i < 3 + VMCOMM_VECTORS; i++) {
		value = decoy_message(k, slot, i, &mfd);
		if (vmcomm_ivshmem_send(fd, value, mfd))
			break;
	}
	/* Hold the connection: QEMU is content with an end of file, but it looks nicer. */
	for (i = 0; i < KEEPER_DECOYS && !src; i++)
		if (k->decoy[i].fd < 0)
			src = &k->decoy[i];
	if (!src) {
		close(fd);
		return;
	}
	src->fd = fd;
	src->ready = decoy_ready;
	if (keeper_watch(k, src, EPOLLIN | EPOLLRDHUP)) {
		close(fd);
		src->fd = -1;
	}
}

static void conn_new(struct keeper *k, struct keeper_slot *s, int fd)
{
	uint32_t slot = slot_number(k, s);
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	char path[32];

	/* From here on nobody else finds the slot. */
	slot_path(slot, path, sizeof(path));
	unlink(path);
	s->path_bound = false;

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	s->pid = (uint32_t)cred.pid;
	s->uid = cred.uid;
	s->gid = cred.gid;
	set_buffer(k, fd);
	s->conn.fd = fd;
	s->conn.ready = conn_ready;
	s->complete = false;
	s->sent = 0;
	s->retry = 0;
	if (keeper_watch(k, &s->conn, EPOLLOUT | EPOLLRDHUP)) {
		keeper_log(k, "slot %u: cannot watch the connection", slot);
		close(fd);
		s->conn.fd = -1;
		return;
	}
	conn_send(k, s);
}

static void listener_ready(struct keeper *k, struct keeper_source *src, uint32_t events)
{
	struct keeper_slot *s = source_slot(src, listener);
	int fd;

	for (;;) {
		fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			return;
		if (s->conn.fd < 0 && k->group.slot[slot_number(k, s)].state == VMCOMM_SLOT_JOINING)
			conn_new(k, s, fd);
		else
			decoy_new(k, slot_number(k, s), fd);
	}
}

static void listener_close(struct keeper *k, uint32_t slot)
{
	struct keeper_slot *s = &k->slot[slot];
	char path[32];

	if (s->path_bound) {
		slot_path(slot, path, sizeof(path));
		unlink(path);
		s->path_bound = false;
	}
	if (s->listener.fd < 0)
		return;
	listener_ready(k, &s->listener, EPOLLIN); /* nobody is left in the queue unanswered */
	keeper_unwatch(k, &s->listener);
}

static int listener_open(struct keeper *k, uint32_t slot, uint32_t uid, uint32_t gid)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct keeper_slot *s = &k->slot[slot];
	int fd, err;

	/* Relative to the group's directory, in which the keeper runs. */
	slot_path(slot, sun.sun_path, sizeof(sun.sun_path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	unlink(sun.sun_path);
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)))
		goto fail;
	if (chmod(sun.sun_path, 0600) || (uid != (uint32_t)-1 || gid != (uint32_t)-1 ?
						  chown(sun.sun_path, uid, gid) :
						  0))
		goto fail_unlink;
	if (listen(fd, 8))
		goto fail_unlink;
	s->listener.fd = fd;
	s->listener.ready = listener_ready;
	err = keeper_watch(k, &s->listener, EPOLLIN);
	if (err) {
		s->listener.fd = -1;
		errno = -err;
		goto fail_unlink;
	}
	s->path_bound = true;
	return 0;

fail_unlink:
	err = errno;
	unlink(sun.sun_path);
	errno = err;
fail:
	err = -errno;
	close(fd);
	return err;
}

int keeper_slot_open(struct keeper *k, uint32_t slot, const struct vmcomm_location *row,
		     uint32_t uid, uint32_t gid)
{
	struct vmcomm_group_slot *gs;
	int err;

	if (slot >= k->lay.slots || row->addr_count > VMCOMM_ADDRS_MAX || !row->number)
		return -EINVAL;
	gs = &k->group.slot[slot];
	if (gs->state != VMCOMM_SLOT_FREE || k->slot[slot].conn.fd >= 0)
		return -EBUSY;
	if (row->generation <= gs->generation)
		return -ESTALE;
	listener_close(k, slot);
	keeper_region_zero_slot(k, slot);
	err = listener_open(k, slot, uid, gid);
	if (err)
		return err;
	gs->state = VMCOMM_SLOT_JOINING;
	gs->generation = row->generation;
	gs->incarnation = 0;
	memcpy(gs->vm_id, row->vm_id, 16);
	k->row[slot] = *row;
	k->row[slot].vectors = VMCOMM_VECTORS;
	k->slot[slot].decoys = 0;
	keeper_row_publish(k, slot);
	return 0;
}

int keeper_slot_close(struct keeper *k, uint32_t slot)
{
	if (slot >= k->lay.slots)
		return -EINVAL;
	if (k->slot[slot].conn.fd >= 0)
		return -EBUSY;
	listener_close(k, slot);
	/* A QEMU that was waiting in the queue has got the slot. */
	if (k->slot[slot].conn.fd >= 0)
		return -EBUSY;
	if (k->group.slot[slot].state != VMCOMM_SLOT_FREE)
		vmcomm_group_move(&k->group, slot, VMCOMM_SLOT_FREE);
	keeper_region_zero_slot(k, slot);
	memset(&k->row[slot], 0, sizeof(k->row[slot]));
	k->row[slot].generation = k->group.slot[slot].generation;
	keeper_row_publish(k, slot);
	return 0;
}

int keeper_slot_set_row(struct keeper *k, uint32_t slot, const struct vmcomm_location *row)
{
	struct vmcomm_group_slot *gs;

	if (slot >= k->lay.slots || row->addr_count > VMCOMM_ADDRS_MAX || !row->number)
		return -EINVAL;
	gs = &k->group.slot[slot];
	if (gs->state == VMCOMM_SLOT_FREE || row->generation != gs->generation)
		return -ESTALE;
	if (row->state != gs->state) {
		if (row->state == VMCOMM_SLOT_FREE || vmcomm_group_move(&k->group, slot, row->state))
			return -EINVAL;
	}
	k->row[slot] = *row;
	k->row[slot].vectors = VMCOMM_VECTORS;
	keeper_row_publish(k, slot);
	return 0;
}

void keeper_slot_tick(struct keeper *k, uint32_t slot)
{
	struct keeper_slot *s = &k->slot[slot];
	struct epoll_event ev = {.events = EPOLLOUT | EPOLLRDHUP, .data.ptr = &s->conn};

	if (s->conn.fd >= 0 && s->retry) {
		s->retry = 0;
		epoll_ctl(k->epfd, EPOLL_CTL_MOD, s->conn.fd, &ev);
	}
}

void keeper_slot_deinit(struct keeper *k, uint32_t slot)
{
	struct keeper_slot *s = &k->slot[slot];
	char path[32];

	if (s->path_bound) {
		slot_path(slot, path, sizeof(path));
		unlink(path);
	}
	keeper_unwatch(k, &s->listener);
	keeper_unwatch(k, &s->conn);
}

unsigned int keeper_connected(const struct keeper *k)
{
	unsigned int n = 0;
	uint32_t i;

	for (i = 0; i < k->lay.slots; i++)
		n += k->slot[i].conn.fd >= 0;
	return n;
}
