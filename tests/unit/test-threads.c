// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test-threads.c - CPUs of one VM at the same time: doorbell handler, tick, senders, readers,
 * pollers without a lock, and somebody who takes connections out of shared memory (M6-M9, M16)
 *
 * Meant for -fsanitize=thread and =address; without them it still compares each byte.
 */
#include <sched.h>

#include "fixture.h"

#define ENDS  6
#define BYTES (1u << 20)

struct worker {
	struct fend *e;
	u32 vm;
	u32 seed;
};

static struct fix *fix;
static struct fend *ends[ENDS];
static pthread_mutex_t owner[2 * ENDS]; /* of the ends, as a socket's lock */
static bool stop;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_ACQUIRE);
}

static pthread_mutex_t *owner_of(struct fend *e)
{
	u32 i;

	for (i = 0; i < ENDS - 1; i++) /* it is one of them */
		if (ends[i] == e || ends[i]->peer == e)
			break;
	return &owner[2 * i + (ends[i] != e)];
}

static void *irq(void *arg)
{
	struct fvm *vm = &fix->vm[((struct worker *)arg)->vm];

	while (!stopped()) {
		if (__atomic_exchange_n(&vm->irq, false, __ATOMIC_ACQ_REL))
			while (vmcomm_node_event(&vm->node))
				;
		sched_yield();
	}
	return NULL;
}

static void *tick(void *arg)
{
	struct fvm *vm = &fix->vm[((struct worker *)arg)->vm];

	while (!stopped()) {
		vmcomm_node_tick(&vm->node);
		vmcomm_node_refresh(&vm->node);
		sched_yield();
	}
	return NULL;
}

static void *sender(void *arg)
{
	struct worker *w = arg;
	struct fend *e = w->e;
	u32 n;

	while (__atomic_load_n(&e->sent, __ATOMIC_RELAXED) < BYTES) {
		w->seed = w->seed * 1664525 + 1013904223;
		n = 1 + (w->seed >> 8) % 9000;
		if (n > BYTES - e->sent)
			n = BYTES - (u32)e->sent;
		pthread_mutex_lock(owner_of(e));
		n = fend_send(e, n, w->seed >> 28 == 0 ? VMCOMM_TX_TCP : 0);
		if (!n)
			vmcomm_tx_arm(&e->conn, 1);
		if (w->seed >> 27 == 1)
			vmcomm_tx_idle(&e->conn);
		pthread_mutex_unlock(owner_of(e));
		if (!n)
			sched_yield();
	}
	/* What a peer did not take has to go out, too. */
	while (!stopped()) {
		pthread_mutex_lock(owner_of(e));
		vmcomm_tx_next(&e->conn, fend_write_seq(e), fend_write_seq(e), fend_una(e),
			       VMCOMM_TX_TCP);
		fend_pending(e);
		pthread_mutex_unlock(owner_of(e));
		sched_yield();
	}
	return NULL;
}

static void *reader(void *arg)
{
	struct worker *w = arg;
	struct fend *e = w->e;
	u32 n;

	while (e->got < BYTES && !e->broken) {
		pthread_mutex_lock(owner_of(e));
		n = fend_recv(e, 12000);
		if (!n)
			vmcomm_rx_arm(&e->conn, fend_copied_seq(e));
		pthread_mutex_unlock(owner_of(e));
		if (!n)
			sched_yield();
	}
	return NULL;
}

/* poll(): no lock at all */
static void *poller(void *arg)
{
	struct fend *e;
	u32 i = 0;

	while (!stopped()) {
		e = ends[++i % ENDS];
		e = i & 8 ? e : e->peer;
		vmcomm_tx_arm(&e->conn, 100);
		vmcomm_tx_writable(&e->conn);
		vmcomm_tx_unread(&e->conn);
		vmcomm_rx_arm_edge(&e->conn);
		vmcomm_rx_unread(&e->conn);
		vmcomm_rx_fin(&e->conn);
		vmcomm_rx_readable(&e->conn, i);
		vmcomm_conn_peer_closed(&e->conn);
		sched_yield();
	}
	return NULL;
}

static bool evict(struct fend *e)
{
	int err;

	pthread_mutex_lock(owner_of(e));
	err = vmcomm_conn_evict(&e->conn, fend_copied_seq(e), false);
	pthread_mutex_unlock(owner_of(e));
	ck_assert(!err || err == -EAGAIN);
	return !err;
}

static void *evictor(void *arg)
{
	struct fend *e;
	u32 i = 0;
	bool a, b;

	while (i < 60) {
		e = ends[++i % ENDS];
		do {
			a = evict(i & 1 ? e : e->peer);
			sched_yield();
			b = evict(i & 1 ? e->peer : e);
		} while (!a || !b);
		pthread_mutex_lock(owner_of(e));
		fend_offer(e, false);
		pthread_mutex_unlock(owner_of(e));
		sched_yield();
		pthread_mutex_lock(owner_of(e->peer));
		fend_accept(e->peer);
		pthread_mutex_unlock(owner_of(e->peer));
	}
	return NULL;
}

START_TEST(all_at_once)
{
	struct worker w[4 * ENDS + 2] = {{0}};
	pthread_t readers[2 * ENDS], others[2 * ENDS + 5], evict_thread;
	u64 ring = 0;
	u32 i, n = 0;

	fix = fix_up(2);
	fix->threads = true;
	fix->vm[0].node.ring_shift_max = fix->vm[1].node.ring_shift_max = 15;
	for (i = 0; i < 2 * ENDS; i++)
		pthread_mutex_init(&owner[i], NULL);
	for (i = 0; i < ENDS; i++)
		ends[i] = fend_open(fix, i & 1, !(i & 1));
	for (i = 0; i < 2; i++) {
		w[4 * ENDS + i].vm = i;
		pthread_create(&others[n++], NULL, irq, &w[4 * ENDS + i]);
		pthread_create(&others[n++], NULL, tick, &w[4 * ENDS + i]);
	}
	pthread_create(&others[n++], NULL, poller, NULL);
	pthread_create(&evict_thread, NULL, evictor, NULL);
	for (i = 0; i < 2 * ENDS; i++) {
		w[2 * i].e = w[2 * i + 1].e = i & 1 ? ends[i / 2] : ends[i / 2]->peer;
		w[2 * i].seed = i;
		pthread_create(&others[n++], NULL, sender, &w[2 * i]);
		pthread_create(&readers[i], NULL, reader, &w[2 * i + 1]);
	}
	for (i = 0; i < 2 * ENDS; i++)
		pthread_join(readers[i], NULL);
	pthread_join(evict_thread, NULL);
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (i = 0; i < n; i++)
		pthread_join(others[i], NULL);
	for (i = 0; i < ENDS; i++) {
		ck_assert(fend_same(ends[i]) && fend_same(ends[i]->peer));
		ck_assert(!ends[i]->broken && !ends[i]->peer->broken);
		ring += ends[i]->by_ring + ends[i]->peer->by_ring;
	}
	ck_assert_uint_gt(ring, BYTES / 16);
	fix->threads = false;
	for (i = 0; i < ENDS; i++)
		fend_free(ends[i]);
	for (i = 0; i < 5; i++)
		fix_tick(fix);
	for (i = 0; i < 2; i++) {
		ck_assert_uint_eq(fix->vm[i].node.heap.used, 1);
		ck_assert_uint_eq(fix->vm[i].node.stat[VMCOMM_STAT_PEER_ERRORS], 0);
	}
	fix_free(fix);
}
END_TEST

UNIT_MAIN("threads", all_at_once)
