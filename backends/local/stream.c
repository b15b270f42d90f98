// SPDX-License-Identifier: LGPL-2.1-or-later
/* stream.c - the life of a stream, from birth to close, eviction or leaving (M5, M8) */
#include <unistd.h>

#include "local.h"

static struct vmcomm_stream *stream_of(struct vmcomm_conn *conn)
{
	/* conn is the first member */
	return (struct vmcomm_stream *)(void *)conn;
}

static struct vmcomm_stream **hash_at(struct vmcomm_member *m, u32 seq_local, u32 seq_remote)
{
	return &m->hash[(seq_local ^ seq_remote) % LOCAL_HASH];
}

/* A stream with two references: the caller's and the list's. NULL: no memory. */
struct vmcomm_stream *local_stream_new(struct vmcomm_member *m, u32 slot, u32 seq_local,
				       u32 seq_remote, bool client)
{
	struct vmcomm_stream *s = vmcomm_alloc_large(sizeof(*s)), **bucket;

	if (!s)
		return NULL;
	vmcomm_conn_init(&s->conn, seq_local, seq_remote, client);
	/* Ready from the start: the first byte of the peer's already goes into a ring. */
	vmcomm_conn_ready(&s->conn);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->poll_lock, NULL);
	s->conn.tx.want_shift = m->ring_shift;
	s->refs = 2;
	s->slot = slot;
	s->poll_user = s->poll_mine = -1;
	s->member = m;
	__atomic_add_fetch(&m->refs, 1, __ATOMIC_RELAXED);

	s->next = m->streams;
	s->prev = &m->streams;
	if (s->next)
		s->next->prev = &s->next;
	m->streams = s;
	bucket = hash_at(m, seq_local, seq_remote);
	s->hash_next = *bucket;
	s->hash_prev = bucket;
	if (s->hash_next)
		s->hash_next->hash_prev = &s->hash_next;
	*bucket = s;
	return s;
}

void local_stream_put(struct vmcomm_stream *s)
{
	struct vmcomm_member *m = s->member;

	if (__atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL))
		return;
	vmcomm_conn_deinit(&s->conn);
	local_poll_deinit(s);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->poll_lock);
	vmcomm_free_large(s);
	local_member_put(m);
}

/* member->lock held; gives up the list's reference, which must not be the last one */
void local_stream_unlist(struct vmcomm_stream *s)
{
	if (!s->prev)
		return;
	*s->prev = s->next;
	if (s->next)
		s->next->prev = s->prev;
	s->prev = NULL;
	*s->hash_prev = s->hash_next;
	if (s->hash_next)
		s->hash_next->hash_prev = s->hash_prev;
	local_stream_put(s);
}

/* The node's lock is held, so the connection is attached and its owner has a reference. */
bool local_stream_hold(struct vmcomm_conn *conn)
{
	__atomic_add_fetch(&stream_of(conn)->refs, 1, __ATOMIC_RELAXED);
	return true;
}

void local_stream_drop(struct vmcomm_conn *conn)
{
	local_stream_put(stream_of(conn));
}

void local_stream_wake(struct vmcomm_conn *conn)
{
	struct vmcomm_stream *s = stream_of(conn);

	local_poll_wake(s);
	local_wake(s->member, &s->event);
}

/* Let go without a word: the peer reads what was sent, and then gets -ECONNRESET. */
void local_stream_reset(struct vmcomm_stream *s)
{
	struct vmcomm_member *m = s->member;

	pthread_mutex_lock(&s->lock);
	s->closed = true;
	vmcomm_conn_close(&s->conn);
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_lock(&m->lock);
	local_stream_unlist(s);
	pthread_mutex_unlock(&m->lock);
}

void vmcomm_close(struct vmcomm_stream *s)
{
	struct vmcomm_member *m;

	if (!s)
		return;
	m = s->member;
	if (__atomic_load_n(&m->down, __ATOMIC_ACQUIRE)) {
		/* Detached already; or in a child after fork(), where locks may be held for ever. */
		pthread_mutex_lock(&m->lock);
		local_stream_unlist(s);
		pthread_mutex_unlock(&m->lock);
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the list's reference is not the last one */
		local_stream_put(s);
		return;
	}
	pthread_mutex_lock(&s->lock);
	s->closed = true;
	/* An end of file says that all was well: not if bytes of the peer's are thrown away. */
	if (!s->wr_shut && vmcomm_conn_attached(&s->conn) && !vmcomm_rx_unread(&s->conn))
		vmcomm_tx_fin(&s->conn);
	vmcomm_conn_close(&s->conn);
	pthread_mutex_unlock(&s->lock);
	local_wake(m, &s->event);

	pthread_mutex_lock(&m->lock);
	local_stream_unlist(s);
	pthread_mutex_unlock(&m->lock);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the list's reference is not the last one */
	local_stream_put(s);
}

/* References to all streams with @slot (or all, ~0). Return: how many, or -ENOMEM. */
static int streams_collect(struct vmcomm_member *m, u32 slot, struct vmcomm_stream ***list)
{
	struct vmcomm_stream *s;
	int n = 0;

	*list = NULL;
	pthread_mutex_lock(&m->lock);
	for (s = m->streams; s; s = s->next)
		n += slot == ~0u || s->slot == slot;
	if (n)
		/* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
		*list = vmcomm_alloc_large((size_t)n * sizeof(**list));
	if (n && !*list) {
		pthread_mutex_unlock(&m->lock);
		return -ENOMEM;
	}
	n = 0;
	for (s = m->streams; s; s = s->next) {
		if (slot != ~0u && s->slot != slot)
			continue;
		__atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
		(*list)[n++] = s;
	}
	pthread_mutex_unlock(&m->lock);
	return n;
}

static int stream_evict(struct vmcomm_stream *s)
{
	struct vmcomm_abi_ccb *theirs;
	int err = 0;

	pthread_mutex_lock(&s->lock);
	if (!s->evicted)
		s->answer = -ECONNRESET;
	if (vmcomm_conn_attached(&s->conn)) {
		vmcomm_conn_resolve(&s->conn);
		/* A vmcomm_connect() that is still asleep asks later. */
		err = local_stream_answer(s);
		if (err != -EAGAIN)
			s->answer = err;
		theirs = VMCOMM_READ_ONCE(s->conn.theirs);
		if (theirs && vmcomm_load_acquire32(&theirs->fin))
			s->peer_fin = true;
		err = vmcomm_conn_evict(&s->conn, 0, true);
		if (err == -EPROTO)
			err = 0; /* detached, broken */
	}
	if (!err)
		__atomic_store_n(&s->evicted, true, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&s->lock);
	local_stream_wake(&s->conn);
	return err;
}

/* The peer in @slot is gone: keep what it sent, let go of its memory. */
void local_streams_evict(struct vmcomm_member *m, u32 slot)
{
	u32 state = VMCOMM_READ_ONCE(m->node.pair[slot]->state);
	struct vmcomm_stream **list;
	int i, n, err = 0;

	/* The news may be old: whoever is there now is not meant. */
	if (state != VMCOMM_PEER_LEAVING && state != VMCOMM_PEER_DYING)
		return;
	n = streams_collect(m, slot, &list);
	for (i = 0; i < n; i++) {
		err |= stream_evict(list[i]);
		local_stream_put(list[i]);
	}
	vmcomm_free_large(list);
	if (n < 0 || err || vmcomm_pair_released(&m->node, slot)) {
		/* No memory, or a connection that came in between: again, soon. */
		/* NOLINTNEXTLINE: a slot number, below 64 */
		__atomic_fetch_or(&m->news_gone, 1ULL << slot, __ATOMIC_RELEASE);
		return;
	}
	local_wake(m, &m->pairs);
}

void local_streams_leave(struct vmcomm_member *m)
{
	struct vmcomm_stream *s;

	/* Nobody else is here any more: no need for references. */
	pthread_mutex_lock(&m->lock);
	s = m->streams;
	pthread_mutex_unlock(&m->lock);
	for (; s; s = s->next) {
		pthread_mutex_lock(&s->lock);
		vmcomm_conn_close(&s->conn);
		s->left = true;
		pthread_mutex_unlock(&s->lock);
		local_stream_wake(&s->conn);
	}
}
