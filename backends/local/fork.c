// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * fork.c - a child after fork() is no member
 *
 * It would hold copies of the descriptors by which the others notice that its parent died. So the
 * child closes them; its copies of members and hubs can only be freed. The memory is not even
 * mapped there (MADV_DONTFORK).
 */
#include "local.h"

static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static struct vmcomm_member *fork_members;
static struct vmcomm_hub *fork_hubs;

static void before(void)
{
	pthread_mutex_lock(&fork_lock);
}

static void in_parent(void)
{
	pthread_mutex_unlock(&fork_lock);
}

static void in_child(void)
{
	struct vmcomm_member *m;
	struct vmcomm_hub *hub;

	for (m = fork_members; m; m = m->fork_next) {
		m->down = true;
		local_fds_close(m);
		local_wait_deinit(m);
		m->service_runs = false;
		local_service_stop(m);
	}
	for (hub = fork_hubs; hub; hub = *local_hub_fork_next(hub))
		local_hub_in_child(hub);
	fork_members = NULL;
	fork_hubs = NULL;
	pthread_mutex_unlock(&fork_lock);
}

static void once(void)
{
	pthread_atfork(before, in_parent, in_child);
}

void local_fork_member(struct vmcomm_member *m)
{
	pthread_once(&fork_once, once);
	pthread_mutex_lock(&fork_lock);
	m->fork_next = fork_members;
	m->fork_prev = &fork_members;
	if (m->fork_next)
		m->fork_next->fork_prev = &m->fork_next;
	fork_members = m;
	pthread_mutex_unlock(&fork_lock);
}

void local_fork_forget(struct vmcomm_member *m)
{
	pthread_mutex_lock(&fork_lock);
	/* In a child the list is gone. */
	if (!m->down && m->fork_prev) {
		*m->fork_prev = m->fork_next;
		if (m->fork_next)
			m->fork_next->fork_prev = m->fork_prev;
		m->fork_prev = NULL;
	}
	pthread_mutex_unlock(&fork_lock);
}

void local_fork_hub(struct vmcomm_hub *hub)
{
	pthread_once(&fork_once, once);
	pthread_mutex_lock(&fork_lock);
	*local_hub_fork_next(hub) = fork_hubs;
	fork_hubs = hub;
	pthread_mutex_unlock(&fork_lock);
}

void local_fork_forget_hub(struct vmcomm_hub *hub)
{
	struct vmcomm_hub **p;

	pthread_mutex_lock(&fork_lock);
	for (p = &fork_hubs; *p; p = local_hub_fork_next(*p)) {
		if (*p == hub) {
			*p = *local_hub_fork_next(hub);
			break;
		}
	}
	pthread_mutex_unlock(&fork_lock);
}
