// SPDX-License-Identifier: LGPL-2.1-or-later
/* connect.c - opening a stream (M5) */
#include "local.h"

/* The slot that @to names. Return: it, or a negative errno. */
static int find_slot(struct vmcomm_member *m, const char *to)
{
	struct vmcomm_location loc;
	u32 slot = 0;
	u8 addr[16];
	int n;

	if (to[0] && !to[strspn(to, "0123456789")]) {
		if (strlen(to) > 3)
			return -EINVAL;
		while (*to)
			slot = slot * 10 + (u32)(*to++ - '0');
		if (slot >= m->region.lay.slots || slot == m->slot)
			return -EINVAL;
		n = (int)slot;
	} else {
		if (local_addr_parse(to, addr))
			return -EINVAL;
		n = vmcomm_node_find(&m->node, addr);
		if (n < 0)
			return -EHOSTUNREACH;
	}
	if (m->node.backend->location(&m->node, (u32)n, &loc) || loc.state != VMCOMM_SLOT_LIVE)
		return -EHOSTUNREACH;
	return n;
}

/* A member that lives answers soon; one that has just joined may still be at it. */
static int wait_pair(struct vmcomm_member *m, u32 slot, u64 deadline)
{
	struct vmcomm_location loc;
	u32 seen;

	for (;;) {
		seen = local_seen(&m->pairs);
		if (vmcomm_node_pair_up(&m->node, slot))
			return 0;
		if (m->node.backend->location(&m->node, slot, &loc) ||
		    loc.state != VMCOMM_SLOT_LIVE)
			return -EHOSTUNREACH;
		local_events(m);
		if (vmcomm_node_pair_up(&m->node, slot))
			return 0;
		if (local_wait(m, &m->pairs, seen, deadline))
			return -ETIMEDOUT;
	}
}

static void names_fill(struct vmcomm_member *m, u32 slot, struct vmcomm_conn_names *names)
{
	struct vmcomm_location loc;

	if (!m->node.backend->location(&m->node, m->slot, &loc) && loc.addr_count)
		memcpy(names->laddr, loc.addr[0], 16);
	if (!m->node.backend->location(&m->node, slot, &loc) && loc.addr_count)
		memcpy(names->raddr, loc.addr[0], 16);
}

/*
 * What the peer says; s->lock held. Return: 0: it took the offer, and its own direction is in a
 * ring; -EAGAIN: nothing yet; -ECONNREFUSED, -ENOBUFS, -ECONNRESET.
 */
int local_stream_answer(struct vmcomm_stream *s)
{
	struct vmcomm_abi_ccb *theirs;
	u32 reason, epoch, state;

	/* One that accepted, wrote, closed and went before we woke up did answer. */
	if (s->evicted)
		return s->answer;
	theirs = VMCOMM_LOAD_ACQUIRE(s->conn.theirs);
	if (!theirs)
		return -EAGAIN;
	state = vmcomm_load_acquire32(&theirs->state);
	epoch = vmcomm_load_acquire32(&theirs->epoch);
	reason = vmcomm_load32(&theirs->reason);
	if (epoch)
		return 0; /* what it wrote before it closed can be read */
	if (state != VMCOMM_CCB_CLOSED)
		return -EAGAIN;
	if (reason == VMCOMM_REASON_NO_ACCEPT)
		return -ECONNREFUSED;
	return reason == VMCOMM_REASON_QUOTA || reason == VMCOMM_REASON_NO_MEMORY ? -ENOBUFS :
										    -ECONNRESET;
}

static int offer(struct vmcomm_stream *s, const struct vmcomm_conn_names *names, u64 deadline)
{
	struct vmcomm_member *m = s->member;
	u64 soon;
	int err;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		err = vmcomm_conn_offer(&m->node, s->slot, &s->conn, names, true);
		pthread_mutex_unlock(&s->lock);
		if (err == -ENOTCONN)
			return -ECONNRESET;
		if (!err || s->conn.reason != VMCOMM_REASON_OFFERS_FULL)
			return err == -EDQUOT || err == -ENOSPC ? -ENOBUFS : err;
		/* Many are being made at once: the peer will have taken some in a moment. */
		if (vmcomm_now() >= deadline)
			return -ETIMEDOUT;
		soon = local_deadline(2);
		local_wait(m, &s->event, local_seen(&s->event), soon < deadline ? soon : deadline);
	}
}

int vmcomm_connect(struct vmcomm_stream **stream, struct vmcomm_member *m, const char *to,
		   uint16_t port, int timeout_ms)
{
	u64 deadline = local_deadline(timeout_ms ? timeout_ms : LOCAL_CONNECT_MS);
	struct vmcomm_conn_names names = {.rport = port};
	struct vmcomm_stream *s;
	int slot, err;
	u64 key;
	u32 seen;

	if (!port)
		return -EINVAL;
	if (__atomic_load_n(&m->down, __ATOMIC_ACQUIRE))
		return -ENOTCONN;
	slot = find_slot(m, to);
	if (slot < 0)
		return slot;
	err = wait_pair(m, (u32)slot, deadline);
	if (err)
		return err;

	key = vmcomm_random64();
	pthread_mutex_lock(&m->lock);
	s = local_stream_new(m, (u32)slot, (u32)key, (u32)(key >> 32), true);
	names.lport = m->next_port = m->next_port >= 60999 || m->next_port < 32768 ?
					     32768 : (u16)(m->next_port + 1);
	pthread_mutex_unlock(&m->lock);
	if (!s)
		return -ENOMEM;
	s->lport = names.lport;
	s->rport = port;
	names_fill(m, (u32)slot, &names);
	err = offer(s, &names, deadline);
	if (err)
		goto err_stream;
	for (;;) {
		seen = local_seen(&s->event);
		pthread_mutex_lock(&s->lock);
		err = local_stream_answer(s);
		pthread_mutex_unlock(&s->lock);
		if (err != -EAGAIN)
			break;
		err = local_wait(m, &s->event, seen, deadline);
		if (err)
			goto err_stream;
	}
	if (!err) {
		pthread_mutex_lock(&s->lock);
		/* A peer that wrote, closed and is done with it does not want our bytes. */
		err = vmcomm_conn_peer_closed(&s->conn) ? 0 : local_stream_enter(s);
		if (err && vmcomm_conn_peer_closed(&s->conn))
			err = 0;
		pthread_mutex_unlock(&s->lock);
	}
	if (err)
		goto err_stream;
	*stream = s;
	return 0;

err_stream:
	local_stream_reset(s);
	local_stream_put(s);
	return err;
}
