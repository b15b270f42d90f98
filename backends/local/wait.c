// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * wait.c - sleeping, and who watches the doorbell meanwhile (M7, M9)
 *
 * The doorbell is one eventfd for the whole member. A thread that goes to sleep becomes the
 * *leader*: it waits for the doorbell itself, handles the events and, if they were for it, goes
 * on: one system call to sleep, one to be woken, no detour over another thread. Others that sleep
 * meanwhile wait on a condition variable; the leader wakes them, and one of them becomes leader
 * when it goes.
 *
 * The service thread watches the doorbell when no thread has slept for a while, and for as long as
 * there are poll descriptors, because then a thread sleeps where this library does not see it.
 *
 * Both watch edge-triggered, so nobody ever has to read the eventfd: each ring is an edge for
 * each of the two. An edge that comes while nobody waits is kept by epoll.
 */
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "local.h"

u64 local_deadline(long ms)
{
	return ms < 0 ? LOCAL_FOREVER : vmcomm_now() + (u64)ms * 1000000u;
}

static int watch(int ep, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.fd = fd};

	return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

int local_wait_init(struct vmcomm_member *m)
{
	int err;

	m->leader_ep = epoll_create1(EPOLL_CLOEXEC);
	m->leader_kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->leader_ep < 0 || m->leader_kick < 0)
		return -errno;
	err = watch(m->leader_ep, m->own[VMCOMM_VECTOR_EVENT]);
	if (!err)
		err = watch(m->leader_ep, m->leader_kick);
	return err;
}

void local_wait_deinit(struct vmcomm_member *m)
{
	if (m->leader_ep >= 0)
		close(m->leader_ep);
	if (m->leader_kick >= 0)
		close(m->leader_kick);
	m->leader_ep = m->leader_kick = -1;
}

/* Handle all that has come. Takes locks of the core; no lock of ours but a stream's may be held. */
void local_events(struct vmcomm_member *m)
{
	while (vmcomm_node_event(&m->node))
		;
}

/* wait_lock held */
static void service_take(struct vmcomm_member *m)
{
	if (!m->service_owns && !watch(m->service_ep, m->own[VMCOMM_VECTOR_EVENT]))
		m->service_owns = true;
}

static void service_release(struct vmcomm_member *m)
{
	if (!m->service_owns)
		return;
	epoll_ctl(m->service_ep, EPOLL_CTL_DEL, m->own[VMCOMM_VECTOR_EVENT], NULL);
	m->service_owns = false;
	/* It waits for its next tick: from now on it has to look more often (local_takeback()). */
	local_service_kick(m);
}

bool local_service_owns(struct vmcomm_member *m)
{
	bool owns;

	pthread_mutex_lock(&m->wait_lock);
	owns = m->service_owns;
	pthread_mutex_unlock(&m->wait_lock);
	return owns;
}

/* The service thread, every now and then: watch the doorbell if nobody else has done so lately. */
void local_takeback(struct vmcomm_member *m, u32 *seen)
{
	pthread_mutex_lock(&m->wait_lock);
	if (!m->led && m->lead_count == *seen)
		service_take(m);
	*seen = m->lead_count;
	pthread_mutex_unlock(&m->wait_lock);
}

void local_pollers_add(struct vmcomm_member *m, int n)
{
	pthread_mutex_lock(&m->wait_lock);
	m->pollers += (u32)n;
	if (m->pollers)
		service_take(m);
	pthread_mutex_unlock(&m->wait_lock);
}

static void leader_kick(struct vmcomm_member *m)
{
	u64 one = 1;

	/* Cannot fail: nobody rings so often that the count is full. */
	if (write(m->leader_kick, &one, sizeof(one)) < 0)
		return;
}

void local_wake(struct vmcomm_member *m, struct local_event *event)
{
	struct local_waiter *w;

	pthread_mutex_lock(&m->wait_lock);
	__atomic_store_n(&event->seq, event->seq + 1, __ATOMIC_RELEASE);
	if (m->led && m->leader_event == event && !pthread_equal(m->leader, pthread_self()))
		leader_kick(m);
	for (w = m->waiters; w; w = w->next)
		if (w->event == event)
			pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&m->wait_lock);
}

/* wait_lock held, dropped while asleep */
static void lead(struct vmcomm_member *m, struct local_event *event, u64 deadline)
{
	struct epoll_event ev;
	int n, ms = -1;
	u64 now;

	service_release(m);
	m->led = true;
	m->leader = pthread_self();
	m->leader_event = event;
	m->lead_count++;
	pthread_mutex_unlock(&m->wait_lock);

	if (deadline != LOCAL_FOREVER) {
		now = vmcomm_now();
		/* Rounded up: a wait that is a little too long beats a loop. */
		ms = deadline <= now ? 0 : (deadline - now) / 1000000u >= INT_MAX ?
			     INT_MAX : (int)((deadline - now + 999999u) / 1000000u);
	}
	n = epoll_wait(m->leader_ep, &ev, 1, ms);
	if (n > 0)
		local_events(m);

	pthread_mutex_lock(&m->wait_lock);
	m->led = false;
	m->leader_event = NULL;
}

static void follow(struct vmcomm_member *m, struct local_event *event, u64 deadline)
{
	struct local_waiter w = {.event = event, .next = m->waiters, .prev = &m->waiters};
	struct timespec ts;
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w.cond, &attr);
	pthread_condattr_destroy(&attr);
	if (w.next)
		w.next->prev = &w.next;
	/* It leaves the list before this function ends. */
	/* cppcheck-suppress autoVariables */
	m->waiters = &w;

	if (deadline == LOCAL_FOREVER) {
		pthread_cond_wait(&w.cond, &m->wait_lock);
	} else {
		ts.tv_sec = (time_t)(deadline / 1000000000u);
		ts.tv_nsec = (long)(deadline % 1000000000u);
		pthread_cond_timedwait(&w.cond, &m->wait_lock, &ts);
	}
	*w.prev = w.next;
	if (w.next)
		w.next->prev = w.prev;
	pthread_cond_destroy(&w.cond);
}

/*
 * Sleep until @event has moved on from @seen. No other lock may be held. Return: 0 or -ETIMEDOUT;
 * what the caller waits for need not have happened.
 */
int local_wait(struct vmcomm_member *m, struct local_event *event, u32 seen, u64 deadline)
{
	int err = 0;

	pthread_mutex_lock(&m->wait_lock);
	while (event->seq == seen) {
		if (deadline != LOCAL_FOREVER && vmcomm_now() >= deadline) {
			err = -ETIMEDOUT;
			break;
		}
		if (m->led || m->pollers)
			follow(m, event, deadline);
		else
			lead(m, event, deadline);
	}
	/* Somebody has to watch the doorbell for those who go on sleeping. */
	if (!m->led && m->waiters && !m->pollers)
		pthread_cond_signal(&m->waiters->cond);
	pthread_mutex_unlock(&m->wait_lock);
	return err;
}
