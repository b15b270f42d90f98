// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * service.c - the member's own thread: ticks, the host's doorbell, deaths, and doorbells of peers
 * while no other thread watches them (M3, M9, M13)
 */
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "local.h"

void local_service_kick(struct vmcomm_member *m)
{
	u64 one = 1;

	if (write(m->kick_fd, &one, sizeof(one)) < 0)
		return; /* full: it is awake */
}

/*
 * Without a keeper: have those died that were alive when their pair came up? The core learns of it
 * by the location table, as from a host (member.c).
 */
static void orphan_tick(struct vmcomm_member *m)
{
	u64 seen = __atomic_load_n(&m->seen_alive, __ATOMIC_RELAXED);
	u32 i;

	for (i = 0; i < m->region.lay.slots; i++)
		if ((seen >> i & 1) && vmcomm_node_pair_up(&m->node, i) && !local_life_held(m, i))
			__atomic_fetch_or(&m->dead, 1ULL << i, __ATOMIC_RELAXED);
}

/* The keeper never sends anything after the handshake; its end means that it is gone. */
static void keeper_look(struct vmcomm_member *m)
{
	char junk[64];
	ssize_t n = recv(m->keeper_fd, junk, sizeof(junk), MSG_DONTWAIT);

	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	epoll_ctl(m->service_ep, EPOLL_CTL_DEL, m->keeper_fd, NULL);
	m->orphan = true;
}

static void news_handle(struct vmcomm_member *m)
{
	u64 gone = __atomic_exchange_n(&m->news_gone, 0, __ATOMIC_ACQ_REL);
	u32 i;

	for (i = 0; gone; i++, gone >>= 1)
		if (gone & 1)
			local_streams_evict(m, i);
}

/*
 * The host rings. A peer that accepted, wrote, closed and ended may be gone by now: its events come
 * first, or a vmcomm_connect() would never learn that it was accepted, and its bytes were lost.
 */
static void refresh(struct vmcomm_member *m)
{
	local_events(m);
	vmcomm_node_refresh(&m->node);
}

static void *service_main(void *arg)
{
	u64 now, tick = vmcomm_now() + LOCAL_TICK_NS, until;
	struct vmcomm_member *m = arg;
	struct epoll_event ev[8];
	u32 lead_seen = 0;
	int i, n;

	while (!__atomic_load_n(&m->stop, __ATOMIC_ACQUIRE)) {
		now = vmcomm_now();
		until = tick > now ? tick - now : 0;
		if (!local_service_owns(m) && until > LOCAL_TAKEBACK_NS)
			until = LOCAL_TAKEBACK_NS;
		n = epoll_wait(m->service_ep, ev, 8, (int)((until + 999999u) / 1000000u));
		for (i = 0; i < n; i++) {
			if (ev[i].data.fd == m->own[VMCOMM_VECTOR_HOST])
				refresh(m);
			else if (ev[i].data.fd == m->keeper_fd)
				keeper_look(m);
		}
		if (n > 0)
			local_events(m);
		local_takeback(m, &lead_seen);
		if (vmcomm_now() >= tick) {
			tick = vmcomm_now() + LOCAL_TICK_NS;
			local_events(m);
			if (m->orphan)
				orphan_tick(m);
			vmcomm_node_tick(&m->node);
			local_offers_retry(m);
		}
		news_handle(m);
	}
	return NULL;
}

static int service_watch(struct vmcomm_member *m, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.fd = fd};

	return epoll_ctl(m->service_ep, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

int local_service_start(struct vmcomm_member *m)
{
	sigset_t all, old;
	int err;

	m->service_ep = epoll_create1(EPOLL_CLOEXEC);
	m->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->service_ep < 0 || m->kick_fd < 0)
		return -errno;
	err = service_watch(m, m->kick_fd);
	if (!err)
		err = service_watch(m, m->own[VMCOMM_VECTOR_EVENT]);
	if (!err)
		err = service_watch(m, m->own[VMCOMM_VECTOR_HOST]);
	if (!err)
		err = service_watch(m, m->keeper_fd);
	if (err)
		return err;
	m->service_owns = true;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&m->service, NULL, service_main, m);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		return -err;
	m->service_runs = true;
	return 0;
}

void local_service_stop(struct vmcomm_member *m)
{
	if (m->service_runs) {
		__atomic_store_n(&m->stop, true, __ATOMIC_RELEASE);
		local_service_kick(m);
		pthread_join(m->service, NULL);
		m->service_runs = false;
	}
	if (m->service_ep >= 0)
		close(m->service_ep);
	if (m->kick_fd >= 0)
		close(m->kick_fd);
	m->service_ep = m->kick_fd = -1;
}
