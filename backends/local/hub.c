// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * hub.c - a group's memory and doorbells, owned by a process that need not be a keeper (M12, M13)
 *
 * A hub speaks to its members exactly as a keeper does, over one socket pair for each slot; so
 * there is one way to join. What a hub has less than a keeper: keys, admission and a life of its
 * own.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fds.h"
#include "group.h"
#include "local.h"

#define HUB_VECTORS 2 /* event and host */
#define HUB_TICK_MS 100

struct vmcomm_hub {
	struct vmcomm_layout lay;
	void *base;
	int memfd;
	int event[VMCOMM_SLOTS_MAX + 1][HUB_VECTORS]; /* the host's at the end */
	int epfd;
	int kick_fd;
	pthread_t thread;
	bool runs;
	bool stop;
	bool child; /* after fork() */
	pthread_mutex_t lock;
	struct vmcomm_group group;
	struct vmcomm_location row[VMCOMM_SLOTS_MAX];
	int conn[VMCOMM_SLOTS_MAX]; /* our ends of the members' connections; -1: none */
	struct vmcomm_hub *fork_next;
};

struct vmcomm_hub **local_hub_fork_next(struct vmcomm_hub *hub)
{
	return &hub->fork_next;
}

/* lock held: a row has changed, tell everybody */
static void row_publish(struct vmcomm_hub *hub, u32 slot)
{
	u64 one = 1;
	u32 i;

	hub->row[slot].state = hub->group.slot[slot].state;
	vmcomm_location_write(vmcomm_layout_location(&hub->lay, hub->base, slot), &hub->row[slot]);
	vmcomm_mb();
	for (i = 0; i < hub->lay.slots; i++)
		if (hub->conn[i] >= 0 &&
		    write(hub->event[i][VMCOMM_VECTOR_HOST], &one, sizeof(one)) < 0)
			continue; /* full: it rings already */
}

static void punch(struct vmcomm_hub *hub, u64 off, u64 len)
{
	if (fallocate(hub->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
		      (off_t)len))
		vmcomm_zero_shared((u8 *)hub->base + off, len);
}

static void slot_zero(struct vmcomm_hub *hub, u32 slot)
{
	u32 i;

	for (i = 0; i < hub->lay.chunks; i++) {
		vmcomm_le32 *ack = vmcomm_layout_reclaim_ack(&hub->lay, hub->base, slot, i);

		if (vmcomm_load32(ack))
			vmcomm_store32(ack, 0);
	}
	punch(hub, hub->lay.ctl_off + slot * hub->lay.ctl_stride, hub->lay.ctl_stride);
	punch(hub, hub->lay.heap_off + slot * hub->lay.slice_size, hub->lay.slice_size);
}

/* lock held: give back the pages that members have asked us to take */
static void reclaim(struct vmcomm_hub *hub)
{
	vmcomm_le32 *ack;
	u32 i, k, want;

	for (i = 0; i < hub->lay.slots; i++) {
		if (hub->conn[i] < 0)
			continue;
		for (k = 0; k < hub->lay.chunks; k++) {
			want = vmcomm_load_acquire32(
				vmcomm_layout_reclaim(&hub->lay, hub->base, i, k));
			ack = vmcomm_layout_reclaim_ack(&hub->lay, hub->base, i, k);
			if (!(want & 1) || vmcomm_load32(ack) == want)
				continue;
			punch(hub, hub->lay.heap_off + i * hub->lay.slice_size +
					   ((u64)k << hub->lay.chunk_shift),
			      1ULL << hub->lay.chunk_shift);
			vmcomm_store_release32(ack, want);
		}
	}
}

/* lock held: a slot whose member is gone is free when the others have let go of its memory */
static void quarantine(struct vmcomm_hub *hub, u32 slot)
{
	if (hub->group.slot[slot].state != VMCOMM_SLOT_GONE ||
	    vmcomm_group_holder(&hub->group, &hub->lay, hub->base, slot) != -ENOENT)
		return;
	vmcomm_group_move(&hub->group, slot, VMCOMM_SLOT_FREE);
	slot_zero(hub, slot);
	row_publish(hub, slot);
}

static void conn_look(struct vmcomm_hub *hub, u32 slot)
{
	char junk[64];
	ssize_t n;

	if (hub->conn[slot] < 0)
		return;
	n = recv(hub->conn[slot], junk, sizeof(junk), MSG_DONTWAIT);
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	close(hub->conn[slot]);
	hub->conn[slot] = -1;
	vmcomm_group_observe(&hub->group, &hub->lay, hub->base, slot);
	vmcomm_group_move(&hub->group, slot, VMCOMM_SLOT_GONE);
	row_publish(hub, slot);
	quarantine(hub, slot);
}

static void *hub_main(void *arg)
{
	struct vmcomm_hub *hub = arg;
	struct epoll_event ev[16];
	unsigned int ticks = 0;
	int i, n;
	u32 k;

	while (!__atomic_load_n(&hub->stop, __ATOMIC_ACQUIRE)) {
		n = epoll_wait(hub->epfd, ev, 16, HUB_TICK_MS);
		pthread_mutex_lock(&hub->lock);
		for (i = 0; i < n; i++)
			if (ev[i].data.u32 < hub->lay.slots)
				conn_look(hub, ev[i].data.u32);
		if (!n) {
			for (k = 0; k < hub->lay.slots; k++)
				quarantine(hub, k);
			if (!(++ticks % 10))
				reclaim(hub);
		}
		pthread_mutex_unlock(&hub->lock);
	}
	return NULL;
}

static int memory_new(struct vmcomm_hub *hub, u64 size)
{
	hub->memfd = memfd_create("vmcomm-hub", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (hub->memfd < 0)
		return -errno;
	if (ftruncate(hub->memfd, (off_t)size) ||
	    fcntl(hub->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	hub->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, hub->memfd, 0);
	if (hub->base == MAP_FAILED) {
		hub->base = NULL;
		return -errno;
	}
	madvise(hub->base, size, MADV_DONTFORK);
	return 0;
}

static int watch(struct vmcomm_hub *hub, int fd, u32 slot)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.u32 = slot};

	return epoll_ctl(hub->epfd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static int events_new(struct vmcomm_hub *hub)
{
	u32 i, v;

	for (i = 0; i <= hub->lay.slots; i++) {
		for (v = 0; v < HUB_VECTORS; v++) {
			hub->event[i][v] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
			if (hub->event[i][v] < 0)
				return -errno;
		}
	}
	hub->epfd = epoll_create1(EPOLL_CLOEXEC);
	hub->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (hub->epfd < 0 || hub->kick_fd < 0)
		return -errno;
	return watch(hub, hub->kick_fd, ~0u);
}

static void close_if(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void fds_close(struct vmcomm_hub *hub)
{
	u32 i, v;

	for (i = 0; i <= VMCOMM_SLOTS_MAX; i++)
		for (v = 0; v < HUB_VECTORS; v++)
			close_if(&hub->event[i][v]);
	for (i = 0; i < VMCOMM_SLOTS_MAX; i++)
		close_if(&hub->conn[i]);
	close_if(&hub->memfd);
	close_if(&hub->epfd);
	close_if(&hub->kick_fd);
}

void local_hub_in_child(struct vmcomm_hub *hub)
{
	hub->child = true;
	hub->base = NULL; /* not mapped here */
	fds_close(hub);
}

static int thread_start(struct vmcomm_hub *hub)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&hub->thread, NULL, hub_main, hub);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	hub->runs = !err;
	return -err;
}

int vmcomm_hub_new(struct vmcomm_hub **result, const struct vmcomm_hub_config *config)
{
	const char *gid = config && config->gid ? config->gid : "local";
	u64 size = config && config->memory ? config->memory : 256u << 20;
	struct vmcomm_hub *hub;
	int err;
	u32 i;

	if (config && config->size != sizeof(*config))
		return -EINVAL;
	hub = vmcomm_alloc_large(sizeof(*hub));
	if (!hub)
		return -ENOMEM;
	memset(hub->event, 0xff, sizeof(hub->event));
	for (i = 0; i < VMCOMM_SLOTS_MAX; i++)
		hub->conn[i] = -1;
	hub->memfd = hub->epfd = hub->kick_fd = -1;
	pthread_mutex_init(&hub->lock, NULL);
	err = vmcomm_layout_compute(&hub->lay, size, config && config->slots ? config->slots : 8,
				    VMCOMM_CHUNK_SHIFT_MIN);
	if (!err)
		err = vmcomm_group_init(&hub->group, hub->lay.slots);
	if (!err)
		err = memory_new(hub, size);
	if (err)
		goto fail;
	vmcomm_layout_write(&hub->lay, hub->base, gid, vmcomm_random64());
	err = events_new(hub);
	if (!err)
		err = thread_start(hub);
	if (err)
		goto fail;
	local_fork_hub(hub);
	*result = hub;
	return 0;

fail:
	vmcomm_hub_free(hub);
	return err;
}

/* lock held; the socket buffer takes all of it: at most 133 messages of 8 bytes */
static int handshake_send(struct vmcomm_hub *hub, int fd, u32 slot)
{
	u32 i, v;
	int err;

	err = vmcomm_ivshmem_send(fd, 0, -1);
	if (!err)
		err = vmcomm_ivshmem_send(fd, slot, -1);
	if (!err)
		err = vmcomm_ivshmem_send(fd, -1, hub->memfd);
	for (i = 0; !err && i <= hub->lay.slots; i++)
		for (v = 0; !err && i != slot && v < HUB_VECTORS; v++)
			err = vmcomm_ivshmem_send(fd, i, hub->event[i][v]);
	for (v = 0; !err && v < HUB_VECTORS; v++)
		err = vmcomm_ivshmem_send(fd, slot, hub->event[slot][v]);
	return err;
}

int vmcomm_hub_open(struct vmcomm_hub *hub, unsigned int slot, const char *addr)
{
	struct vmcomm_location row = {.vectors = HUB_VECTORS};
	int sv[2] = {-1, -1}, err, n, size = 1 << 20;
	u64 id = vmcomm_random64();

	if (hub->child)
		return -ENOTCONN;
	n = local_addr_list(addr, row.addr, VMCOMM_ADDRS_MAX);
	if (slot >= hub->lay.slots || n < 0)
		return -EINVAL;
	row.addr_count = (u32)n;
	memcpy(row.vm_id, "process-", 8);
	memcpy(row.vm_id + 8, &id, 8);

	pthread_mutex_lock(&hub->lock);
	quarantine(hub, slot);
	err = -EBUSY;
	if (hub->group.slot[slot].state != VMCOMM_SLOT_FREE || hub->conn[slot] >= 0)
		goto out;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv)) {
		err = -errno;
		goto out;
	}
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	row.generation = hub->group.slot[slot].generation + 1;
	row.number = vmcomm_location_number(row.vm_id, row.addr[0], "hub", 3, vmcomm_random64(),
					    hub->row[slot].number);
	hub->group.slot[slot].state = VMCOMM_SLOT_JOINING;
	hub->group.slot[slot].generation = row.generation;
	hub->group.slot[slot].incarnation = 0;
	memcpy(hub->group.slot[slot].vm_id, row.vm_id, 16);
	hub->row[slot] = row;
	row_publish(hub, slot);
	err = handshake_send(hub, sv[0], slot);
	if (!err)
		err = watch(hub, sv[0], slot);
	if (err) {
		vmcomm_group_move(&hub->group, slot, VMCOMM_SLOT_GONE);
		row_publish(hub, slot);
		close(sv[0]);
		close(sv[1]);
		goto out;
	}
	hub->conn[slot] = sv[0];
	vmcomm_group_move(&hub->group, slot, VMCOMM_SLOT_LIVE);
	row_publish(hub, slot);
	err = sv[1];
out:
	pthread_mutex_unlock(&hub->lock);
	return err;
}

void vmcomm_hub_free(struct vmcomm_hub *hub)
{
	u64 one = 1;

	if (!hub)
		return;
	local_fork_forget_hub(hub);
	if (hub->runs && !hub->child) {
		__atomic_store_n(&hub->stop, true, __ATOMIC_RELEASE);
		if (write(hub->kick_fd, &one, sizeof(one)) == sizeof(one))
			pthread_join(hub->thread, NULL);
	}
	if (hub->base)
		munmap(hub->base, hub->lay.size);
	fds_close(hub);
	if (!hub->child)
		pthread_mutex_destroy(&hub->lock);
	vmcomm_free_large(hub);
}
