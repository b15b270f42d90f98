// SPDX-License-Identifier: LGPL-2.1-or-later
/* member.c - joining and leaving; what the core asks of this backend (M3, M12, M24) */
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "local.h"

static struct vmcomm_member *member_of(struct vmcomm_node *node)
{
	return node->priv;
}

static struct vmcomm_abi_pair *local_pair_page(struct vmcomm_node *node, u32 owner, u32 peer)
{
	return vmcomm_region_pair_page(&member_of(node)->region, owner, peer);
}

static int local_map(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count,
		     void **mem)
{
	return vmcomm_region_map(&member_of(node)->region, owner, chunk, count, mem);
}

static int local_location(struct vmcomm_node *node, u32 slot, struct vmcomm_location *loc)
{
	struct vmcomm_member *m = member_of(node);
	int err = vmcomm_region_location(&m->region, slot, loc);

	if (!err && (__atomic_load_n(&m->dead, __ATOMIC_RELAXED) >> slot & 1))
		loc->state = VMCOMM_SLOT_GONE;
	return err;
}

static void local_doorbell(struct vmcomm_node *node, u32 slot, u32 vector)
{
	struct vmcomm_member *m = member_of(node);
	u64 one = 1;

	if (slot > m->region.lay.slots || m->bell[slot] < 0)
		return;
	/* EAGAIN: the count is full, so it rings already. */
	if (write(m->bell[slot], &one, sizeof(one)) < 0)
		return;
}

static const struct vmcomm_backend_ops local_backend_ops = {
	.pair_page = local_pair_page,
	.map = local_map,
	.location = local_location,
	.doorbell = local_doorbell,
};

static void local_pair_news(struct vmcomm_node *node, u32 slot, enum vmcomm_pair_news news)
{
	struct vmcomm_member *m = member_of(node);
	u64 bit = 1ULL << slot;

	if (news == VMCOMM_NEWS_UP) {
		if (local_life_held(m, slot))
			__atomic_fetch_or(&m->seen_alive, bit, __ATOMIC_RELAXED);
		local_wake(m, &m->pairs);
		return;
	}
	/* A process does not move to another host: who leaves is gone. */
	__atomic_fetch_and(&m->seen_alive, ~bit, __ATOMIC_RELAXED);
	__atomic_fetch_or(&m->news_gone, bit, __ATOMIC_RELEASE);
	local_service_kick(m);
}

const struct vmcomm_conn_ops local_conn_ops = {
	.hold = local_stream_hold,
	.drop = local_stream_drop,
	.wake = local_stream_wake,
	.pair_news = local_pair_news,
	.offered = local_offered,
};

static struct vmcomm_member *member_new(const struct vmcomm_member_config *config)
{
	struct vmcomm_member *m = vmcomm_alloc_large(sizeof(*m));
	unsigned int ring = config && config->ring_size ? config->ring_size : LOCAL_RING_SIZE;
	u32 i;

	if (!m)
		return NULL;
	m->refs = 1;
	m->keeper_fd = m->memfd = m->life_fd = m->service_ep = m->kick_fd = -1;
	m->leader_ep = m->leader_kick = -1;
	for (i = 0; i <= VMCOMM_SLOTS_MAX; i++)
		m->bell[i] = -1;
	for (i = 0; i < VMCOMM_VECTORS; i++)
		m->own[i] = -1;
	while (1u << m->ring_shift < ring)
		m->ring_shift++;
	snprintf(m->name, sizeof(m->name), "%s",
		 config && config->name ? config->name : program_invocation_short_name);
	m->next_port = (u16)(32768 + vmcomm_random64() % 28000);
	pthread_mutex_init(&m->lock, NULL);
	pthread_mutex_init(&m->wait_lock, NULL);
	return m;
}

void local_member_put(struct vmcomm_member *m)
{
	if (__atomic_sub_fetch(&m->refs, 1, __ATOMIC_ACQ_REL))
		return;
	pthread_mutex_destroy(&m->lock);
	pthread_mutex_destroy(&m->wait_lock);
	vmcomm_free_large(m);
}

static int node_start(struct vmcomm_member *m, u64 deadline)
{
	struct vmcomm_layout *lay = &m->region.lay;
	struct vmcomm_node_config config = {
		.backend = &local_backend_ops,
		.conn_ops = &local_conn_ops,
		.priv = m,
		.lay = lay,
		.slot = m->slot,
		.location_word = &vmcomm_layout_location(lay, m->region.base, m->slot)->location,
		.page = vmcomm_layout_slot(lay, m->region.base, m->slot),
		.reclaim_ask = vmcomm_layout_reclaim(lay, m->region.base, m->slot, 0),
		.reclaim_ack = vmcomm_layout_reclaim_ack(lay, m->region.base, m->slot, 0),
		.has_tcp = false,
		.system = m->name,
		.version = VMCOMM_VERSION,
	};
	struct pollfd pfd = {.fd = m->own[VMCOMM_VECTOR_EVENT], .events = POLLIN};
	int err;

	for (;;) {
		memset(&m->node, 0, sizeof(m->node));
		err = vmcomm_node_init(&m->node, &config);
		if (err != -EAGAIN)
			break;
		/* Peers were asked to let go of our predecessor's memory. */
		if (vmcomm_now() >= deadline)
			return -EBUSY;
		poll(&pfd, 1, 5);
	}
	/*
	 * A ring keeps its size for the life of its connection: changing it takes a detour over TCP.
	 * So nothing grows; new rings are as large as configured while memory is plenty, then as
	 * large as the first, then as small as possible (vmcomm_ring_alloc()).
	 */
	if (m->ring_shift < m->node.ring_shift_first)
		m->node.ring_shift_first = m->ring_shift;
	m->node.ring_shift_max = VMCOMM_RING_SHIFT_MIN;
	return err;
}

static int member_start(struct vmcomm_member *m, int timeout_ms)
{
	u64 deadline = local_deadline(timeout_ms ? timeout_ms : LOCAL_JOIN_MS);
	int err;

	err = local_handshake(m, deadline);
	if (err)
		goto err_fds;
	err = local_life_begin(m);
	if (!err)
		err = node_start(m, deadline);
	if (err)
		goto err_map;
	err = local_wait_init(m);
	if (!err)
		err = local_service_start(m);
	if (err)
		goto err_node;
	local_fork_member(m);
	local_events(m);
	return 0;

err_node:
	local_service_stop(m);
	local_wait_deinit(m);
	vmcomm_node_deinit(&m->node);
err_map:
	munmap(m->region.base, m->region.lay.size);
err_fds:
	local_fds_close(m);
	return err;
}

static bool config_ok(const struct vmcomm_member_config *c)
{
	unsigned int ring = c ? c->ring_size : 0;

	if (c && c->size != sizeof(*c))
		return false;
	return !ring || (!(ring & (ring - 1)) && ring >= 1u << VMCOMM_RING_SHIFT_MIN &&
			 ring <= 1u << VMCOMM_RING_SHIFT_MAX);
}

int vmcomm_join_fd(struct vmcomm_member **member, int fd, const struct vmcomm_member_config *config)
{
	struct vmcomm_member *m;
	int err;

	if (!config_ok(config)) {
		close(fd);
		return -EINVAL;
	}
	m = member_new(config);
	if (!m) {
		close(fd);
		return -ENOMEM;
	}
	m->keeper_fd = fd;
	err = member_start(m, config ? config->timeout_ms : 0);
	if (err) {
		local_member_put(m);
		return err;
	}
	*member = m;
	return 0;
}

int vmcomm_join(struct vmcomm_member **member, const char *path,
		const struct vmcomm_member_config *config)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd, err;

	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		err = -errno;
		close(fd);
		return err;
	}
	return vmcomm_join_fd(member, fd, config);
}

void vmcomm_leave(struct vmcomm_member *m)
{
	if (!m)
		return;
	local_fork_forget(m);
	if (!__atomic_exchange_n(&m->down, true, __ATOMIC_ACQ_REL)) {
		local_service_stop(m);
		local_streams_leave(m);
		vmcomm_node_deinit(&m->node);
		munmap(m->region.base, m->region.lay.size);
		local_wait_deinit(m);
		local_fds_close(m);
		local_listeners_wake(m);
	}
	local_member_put(m);
}

unsigned int vmcomm_member_slot(const struct vmcomm_member *m)
{
	return m->slot;
}
