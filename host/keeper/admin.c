// SPDX-License-Identifier: GPL-2.0-or-later
/* admin.c - the protocol with vmcommd; see protocol.h */
#include "keeper.h"
#include "../../backends/local/fds.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ADMIN_SOCKET "keeper.sock"

/* Send one packet with descriptors. A client that does not read its packets is dropped. */
static void client_send(struct keeper *k, struct keeper_client *c, const void *data, size_t size,
			const int *fds, unsigned int count)
{
	if (vmcomm_fds_send(c->src.fd, data, size, fds, count))
		keeper_unwatch(k, &c->src);
}

static void reply(struct keeper *k, struct keeper_client *c, const struct vmcomm_keeper_header *req,
		  int result)
{
	struct vmcomm_keeper_header h = *req;

	h.result = result;
	client_send(k, c, &h, sizeof(h), NULL, 0);
}

static void status_fill(const struct keeper *k, uint32_t slot, struct vmcomm_keeper_status *st)
{
	const struct keeper_slot *s = &k->slot[slot];

	st->h.slot = slot;
	st->open = s->path_bound;
	st->connected = s->complete;
	st->pid = s->conn.fd >= 0 ? s->pid : 0;
	st->uid = s->conn.fd >= 0 ? s->uid : 0;
	st->gid = s->conn.fd >= 0 ? s->gid : 0;
	st->decoys = s->decoys;
	st->row = k->row[slot];
	st->row.state = k->group.slot[slot].state;
	st->row.generation = k->group.slot[slot].generation;
}

static void do_hello(struct keeper *k, struct keeper_client *c,
		     const struct vmcomm_keeper_header *req)
{
	struct vmcomm_keeper_hello out = {.h = *req};

	out.h.result = 0;
	out.protocol = VMCOMM_KEEPER_PROTOCOL;
	out.slots = k->lay.slots;
	out.vectors = VMCOMM_VECTORS;
	out.chunk_shift = k->lay.chunk_shift;
	out.size = k->lay.size;
	out.epoch = k->epoch;
	out.pid = (uint32_t)getpid();
	memcpy(out.gid, k->gid, sizeof(out.gid));
	client_send(k, c, &out, sizeof(out), NULL, 0);
}

static void do_events(struct keeper *k, struct keeper_client *c,
		      const struct vmcomm_keeper_header *req)
{
	struct vmcomm_keeper_header h = *req;

	if (req->slot > k->lay.slots) {
		reply(k, c, req, -EINVAL);
		return;
	}
	h.result = 0;
	client_send(k, c, &h, sizeof(h), k->event[req->slot], VMCOMM_VECTORS);
}

static void do_status(struct keeper *k, struct keeper_client *c,
		      const struct vmcomm_keeper_header *req)
{
	struct vmcomm_keeper_status st = {.h = *req};

	st.h.result = 0;
	if (req->slot >= k->lay.slots)
		st.h.result = -EINVAL;
	else
		status_fill(k, req->slot, &st);
	client_send(k, c, &st, sizeof(st), NULL, 0);
}

static int do_shutdown(struct keeper *k, uint32_t force)
{
	if (!force && keeper_connected(k))
		return -EBUSY;
	k->quit = true;
	return 0;
}

static int policy_check(const struct vmcomm_keeper_policy *p)
{
	uint32_t i;

	if (p->count > VMCOMM_POLICY_MAX)
		return -EINVAL;
	for (i = 0; i < p->count; i++)
		if (p->policy[i].prefix > 128 || p->policy[i].port_min > p->policy[i].port_max)
			return -EINVAL;
	return 0;
}

static size_t request_size(uint32_t op)
{
	switch (op) {
	case VMCOMM_KEEPER_HELLO:
		return sizeof(struct vmcomm_keeper_hello);
	case VMCOMM_KEEPER_OPEN:
	case VMCOMM_KEEPER_SET_ROW:
		return sizeof(struct vmcomm_keeper_row);
	case VMCOMM_KEEPER_POLICY:
		return sizeof(struct vmcomm_keeper_policy);
	case VMCOMM_KEEPER_GET_MEMORY:
	case VMCOMM_KEEPER_GET_EVENTS:
	case VMCOMM_KEEPER_CLOSE:
	case VMCOMM_KEEPER_STATUS:
	case VMCOMM_KEEPER_SHUTDOWN:
		return sizeof(struct vmcomm_keeper_header);
	default:
		return 0;
	}
}

static void request(struct keeper *k, struct keeper_client *c, const union vmcomm_keeper_any *in,
		    size_t size)
{
	const struct vmcomm_keeper_header *h = &in->h;
	struct vmcomm_keeper_header ok;
	int err;

	if (!request_size(h->op)) {
		reply(k, c, h, -EOPNOTSUPP);
		return;
	}
	if (size != request_size(h->op)) {
		reply(k, c, h, -EBADMSG);
		return;
	}
	switch (h->op) {
	case VMCOMM_KEEPER_HELLO:
		do_hello(k, c, h);
		break;
	case VMCOMM_KEEPER_GET_MEMORY:
		ok = *h;
		ok.result = 0;
		client_send(k, c, &ok, sizeof(ok), &k->memfd, 1);
		break;
	case VMCOMM_KEEPER_GET_EVENTS:
		do_events(k, c, h);
		break;
	case VMCOMM_KEEPER_OPEN:
		reply(k, c, h, keeper_slot_open(k, h->slot, &in->row.row, in->row.uid, in->row.gid));
		break;
	case VMCOMM_KEEPER_CLOSE:
		reply(k, c, h, keeper_slot_close(k, h->slot));
		break;
	case VMCOMM_KEEPER_SET_ROW:
		reply(k, c, h, keeper_slot_set_row(k, h->slot, &in->row.row));
		break;
	case VMCOMM_KEEPER_POLICY:
		err = policy_check(&in->policy);
		if (!err)
			keeper_policy_write(k, in->policy.policy, in->policy.count);
		reply(k, c, h, err);
		break;
	case VMCOMM_KEEPER_STATUS:
		do_status(k, c, h);
		break;
	case VMCOMM_KEEPER_SHUTDOWN:
		reply(k, c, h, do_shutdown(k, h->slot));
		break;
	}
}

static void client_ready(struct keeper *k, struct keeper_source *src, uint32_t events)
{
	struct keeper_client *c =
		(struct keeper_client *)(void *)((char *)src - offsetof(struct keeper_client, src));
	union vmcomm_keeper_any in;
	ssize_t n;

	memset(&in, 0, sizeof(in));
	/* No control buffer: descriptors that somebody sends are closed by the kernel. */
	n = recv(src->fd, &in, sizeof(in), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < (ssize_t)sizeof(in.h)) {
		keeper_unwatch(k, src);
		return;
	}
	request(k, c, &in, (size_t)n);
}

static void admin_ready(struct keeper *k, struct keeper_source *src, uint32_t events)
{
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	unsigned int i;
	int fd;

	fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) ||
	    (cred.uid != 0 && cred.uid != geteuid())) {
		close(fd);
		return;
	}
	for (i = 0; i < VMCOMM_KEEPER_CLIENTS; i++) {
		if (k->client[i].src.fd >= 0)
			continue;
		k->client[i].src.fd = fd;
		k->client[i].src.ready = client_ready;
		if (keeper_watch(k, &k->client[i].src, EPOLLIN)) {
			close(fd);
			k->client[i].src.fd = -1;
		}
		return;
	}
	close(fd);
}

void keeper_admin_event(struct keeper *k, uint32_t op, uint32_t slot)
{
	struct vmcomm_keeper_status st = {.h.op = op};
	unsigned int i;

	status_fill(k, slot, &st);
	for (i = 0; i < VMCOMM_KEEPER_CLIENTS; i++)
		if (k->client[i].src.fd >= 0)
			client_send(k, &k->client[i], &st, sizeof(st), NULL, 0);
}

int keeper_admin_init(struct keeper *k)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = ADMIN_SOCKET};
	int fd, err;

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	unlink(ADMIN_SOCKET);
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) || chmod(ADMIN_SOCKET, 0600) ||
	    listen(fd, 8))
		goto fail;
	k->admin.fd = fd;
	k->admin.ready = admin_ready;
	return keeper_watch(k, &k->admin, EPOLLIN);

fail:
	err = -errno;
	close(fd);
	return err;
}

void keeper_admin_deinit(struct keeper *k)
{
	unsigned int i;

	for (i = 0; i < VMCOMM_KEEPER_CLIENTS; i++)
		keeper_unwatch(k, &k->client[i].src);
	if (k->admin.fd >= 0)
		unlink(ADMIN_SOCKET);
	keeper_unwatch(k, &k->admin);
}
