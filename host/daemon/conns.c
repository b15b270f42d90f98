// SPDX-License-Identifier: GPL-2.0-or-later
/* conns.c - connections and counters of the members */
#include "conns.h"

#include <stdio.h>
#include <string.h>

#include "../common/addr.h"
#include "reason.h"

#define STEP_BUDGET   16384		/* blocks looked at in one step */
#define EXAMINED_MAX  (64ULL << 20)	/* ... and in all */
#define FOUND_MAX     200000

/* What we take out of a block, each word read once. */
struct half {
	uint32_t state, gen, peer_idx, peer_gen, flags, reason;
	uint8_t laddr[16], raddr[16];
	uint16_t lport, rport;
	uint64_t head, tail, tcp_sent, ring_sent;
	uint32_t epoch, ring_shift, sleeping;
};

static void half_read(const struct vmcomm_abi_ccb *ccb, struct half *h)
{
	unsigned int i;

	h->state = vmcomm_load_acquire32(&ccb->state);
	h->gen = vmcomm_load32(&ccb->gen);
	h->peer_idx = vmcomm_load32(&ccb->peer_idx);
	h->peer_gen = vmcomm_load32(&ccb->peer_gen);
	h->flags = vmcomm_load32(&ccb->flags);
	h->reason = vmcomm_load32(&ccb->reason);
	for (i = 0; i < 16; i++) {
		h->laddr[i] = vmcomm_load8(&ccb->laddr[i]);
		h->raddr[i] = vmcomm_load8(&ccb->raddr[i]);
	}
	h->lport = vmcomm_load16(&ccb->lport);
	h->rport = vmcomm_load16(&ccb->rport);
	h->head = vmcomm_load64(&ccb->head);
	h->tail = vmcomm_load64(&ccb->tail);
	h->tcp_sent = vmcomm_load64(&ccb->tcp_sent);
	h->ring_sent = vmcomm_load64(&ccb->ring_sent);
	h->epoch = vmcomm_load32(&ccb->epoch);
	h->ring_shift = vmcomm_load32(&ccb->ring_shift);
	h->sleeping = vmcomm_load32(&ccb->sleeping);
}

/* Block number @idx that @owner keeps for @peer; NULL: there is none. */
static const struct vmcomm_abi_ccb *block(const struct group *g, uint32_t owner, uint32_t peer,
					  uint32_t idx)
{
	const struct vmcomm_layout *lay = region_layout(g->region);
	void *base = region_base(g->region);
	uint32_t shift = lay->chunk_shift - VMCOMM_CCB_SHIFT, chunk;
	const struct vmcomm_abi_ccb *ccbs;

	if (idx >> shift >= VMCOMM_CCB_CHUNKS_MAX)
		return NULL;
	chunk = vmcomm_load_acquire32(
		&vmcomm_layout_pair(lay, base, owner, peer)->ccb_chunk[idx >> shift]);
	if (!chunk || chunk > lay->chunks)
		return NULL;
	ccbs = vmcomm_layout_chunk(lay, base, owner, chunk - 1);
	return ccbs + (idx & ((1U << shift) - 1));
}

static bool in_use(const struct half *h)
{
	return h->state == VMCOMM_CCB_OFFERED || h->state == VMCOMM_CCB_OPEN;
}

static bool other_half(const struct group *g, uint32_t owner, uint32_t peer, const struct half *h,
		       struct half *other)
{
	const struct vmcomm_abi_ccb *ccb;

	if (!h->peer_gen)
		return false;
	ccb = block(g, peer, owner, h->peer_idx);
	if (!ccb)
		return false;
	half_read(ccb, other);
	return other->gen == h->peer_gen && in_use(other);
}

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)(n & INT64_MAX));
}

/* One direction: from the end that @s shows to the end that @r shows (NULL: it shows nothing). */
static json_t *direction(const struct half *s, const struct half *r)
{
	json_t *o = json_object();
	uint64_t size = 0, unread;

	json_object_set_new(o, "path", json_string(s->epoch & 1 ? "ring" : "tcp"));
	json_object_set_new(o, "ring_bytes", number(s->ring_sent));
	json_object_set_new(o, "tcp_bytes", number(s->tcp_sent));
	json_object_set_new(o, "head", number(s->head));
	if (s->ring_shift >= VMCOMM_RING_SHIFT_MIN && s->ring_shift <= VMCOMM_RING_SHIFT_MAX)
		size = 1ULL << s->ring_shift;
	json_object_set_new(o, "ring_size", number(size));
	if (r) {
		unread = s->head - r->tail;
		json_object_set_new(o, "tail", number(r->tail));
		json_object_set_new(o, "unread", number(unread <= size ? unread : 0));
	}
	json_object_set_new(o, "reason", json_string(vmcomm_reason_name(s->reason)));
	json_object_set_new(o, "sender_sleeps", json_boolean(s->sleeping & VMCOMM_SLEEP_SEND));
	json_object_set_new(o, "receiver_sleeps",
			    json_boolean(r && (r->sleeping & VMCOMM_SLEEP_RECV)));
	return o;
}

static json_t *endpoint(const char *vm, const uint8_t addr[16], uint16_t port)
{
	char text[VMCOMM_ADDR_STRLEN];

	return json_pack("{s:s, s:s, s:i}", "vm", vm, "address", vmcomm_addr_format(addr, text),
			 "port", port);
}

static void describe(const struct group *g, const struct vm *a, const struct vm *b,
		     const struct half *h, const struct half *other, json_t *list)
{
	bool client = h->flags & VMCOMM_CCB_F_CLIENT;
	json_t *o = json_object(), *out = direction(h, other),
	       *in = other ? direction(other, h) : json_null();

	json_object_set_new(o, "group", json_string(g->name));
	json_object_set_new(o, client ? "client" : "server", endpoint(a->name, h->laddr, h->lport));
	json_object_set_new(o, client ? "server" : "client", endpoint(b->name, h->raddr, h->rport));
	json_object_set_new(o, "state",
			    json_string(h->state == VMCOMM_CCB_OPEN ? "open" : "offered"));
	json_object_set_new(o, "adopted", json_boolean(h->flags & VMCOMM_CCB_F_ADOPTED));
	json_object_set_new(o, client ? "to_server" : "to_client", out);
	json_object_set_new(o, client ? "to_client" : "to_server", in);
	json_array_append_new(list, o);
}

static void plain_describe(struct conns_cursor *c, const struct group *g, const struct vm *a,
			   json_t *list)
{
	const struct vmcomm_abi_plain *row =
		vmcomm_layout_plain(region_layout(g->region), region_base(g->region), c->owner) +
		c->plain;
	uint32_t seq = vmcomm_load_acquire32(&row->seq), reason;
	const struct vm *b;
	uint8_t laddr[16], raddr[16], peer;
	uint16_t lport, rport;
	unsigned int i;
	json_t *o;

	reason = vmcomm_load16(&row->reason);
	if (!seq || (seq & 1) || !reason)
		return;
	peer = vmcomm_load8(&row->peer);
	for (i = 0; i < 16; i++) {
		laddr[i] = vmcomm_load8(&row->laddr[i]);
		raddr[i] = vmcomm_load8(&row->raddr[i]);
	}
	lport = vmcomm_load16(&row->lport);
	rport = vmcomm_load16(&row->rport);
	vmcomm_rmb();
	if (vmcomm_load32(&row->seq) != seq)
		return; /* it is just being written: next time */
	b = peer < g->slots ? vm_at(g, peer) : NULL;
	if (c->vm[0] && strcmp(c->vm, a->name) && (!b || strcmp(c->vm, b->name)))
		return;
	o = json_pack("{s:s, s:s, s:o, s:o, s:s, s:s}", "group", g->name, "state", "plain", "local",
		      endpoint(a->name, laddr, lport), "remote",
		      endpoint(b ? b->name : "", raddr, rport), "reason",
		      vmcomm_reason_name(reason), "reason_text", vmcomm_reason_text(reason));
	json_array_append_new(list, o);
	c->found++;
}

void conns_begin(struct conns_cursor *c, struct manager *m, const char *group, const char *vm)
{
	memset(c, 0, sizeof(*c));
	c->m = m;
	snprintf(c->group, sizeof(c->group), "%s", group ? group : "");
	snprintf(c->vm, sizeof(c->vm), "%s", vm ? vm : "");
	if (m->groups)
		snprintf(c->at_group, sizeof(c->at_group), "%s", m->groups->name);
	else
		c->end = true;
}

/* Groups may come and go between two steps: the place is remembered by name. */
static void next_group(struct conns_cursor *c, const struct group *g)
{
	c->owner = c->peer = c->chunk = c->idx = c->plain = 0;
	c->in_plain = false;
	if (!g || !g->next)
		c->end = true;
	else
		snprintf(c->at_group, sizeof(c->at_group), "%s", g->next->name);
}

static void next_owner(struct conns_cursor *c)
{
	c->owner++;
	c->peer = c->chunk = c->idx = c->plain = 0;
	c->in_plain = false;
}

static bool usable(const struct vm *vm)
{
	return vm && vm->connected && vm->incarnation;
}

static void one_block(struct conns_cursor *c, const struct group *g, const struct vm *a,
		      const struct vm *b, uint32_t idx, json_t *list)
{
	const struct vmcomm_abi_ccb *ccb = block(g, c->owner, c->peer, idx);
	struct half h, other;
	bool has_other;

	if (!ccb)
		return;
	half_read(ccb, &h);
	if (!in_use(&h))
		return;
	has_other = other_half(g, c->owner, c->peer, &h, &other);
	/* Each connection once: by the end that opened it, by the other one if that is gone. */
	if (!(h.flags & VMCOMM_CCB_F_CLIENT) && has_other && (other.flags & VMCOMM_CCB_F_CLIENT))
		return;
	describe(g, a, b, &h, has_other ? &other : NULL, list);
	c->found++;
}

bool conns_next(struct conns_cursor *c, json_t *list, unsigned int max)
{
	unsigned int budget = STEP_BUDGET, per;
	const struct vm *a, *b;
	struct group *g;

	while (!c->end && budget && json_array_size(list) < max) {
		budget--;
		if (++c->examined > EXAMINED_MAX || c->found >= FOUND_MAX) {
			c->truncated = true;
			c->end = true;
			break;
		}
		g = group_find(c->m, c->at_group);
		if (!g || !g->region || c->owner >= g->slots ||
		    (c->group[0] && strcmp(c->group, g->name))) {
			next_group(c, g);
			continue;
		}
		a = vm_at(g, c->owner);
		if (!usable(a)) {
			next_owner(c);
			continue;
		}
		if (c->in_plain) {
			plain_describe(c, g, a, list);
			if (++c->plain == VMCOMM_PLAIN_MAX)
				next_owner(c);
			continue;
		}
		b = c->peer < g->slots ? vm_at(g, c->peer) : NULL;
		if (c->peer >= g->slots) {
			c->in_plain = true;
			continue;
		}
		per = 1U << (region_layout(g->region)->chunk_shift - VMCOMM_CCB_SHIFT);
		if (!usable(b) || c->peer == c->owner || c->chunk == VMCOMM_CCB_CHUNKS_MAX ||
		    (c->vm[0] && strcmp(c->vm, a->name) && strcmp(c->vm, b->name))) {
			c->peer++;
			c->chunk = c->idx = 0;
			continue;
		}
		if (!c->idx && !block(g, c->owner, c->peer, c->chunk * per)) {
			c->chunk++;
			continue;
		}
		one_block(c, g, a, b, c->chunk * per + c->idx, list);
		if (++c->idx == per) {
			c->idx = 0;
			c->chunk++;
		}
	}
	return !c->end;
}

json_t *stats_describe(const struct vm *vm)
{
	const struct vmcomm_abi_slot *s = NULL;
	json_t *counters = json_object(), *reasons = json_object();
	bool known = false;
	uint64_t n;
	uint32_t i;

	if (vm->slot >= 0 && vm->group->region && vm->connected)
		s = vmcomm_layout_slot(region_layout(vm->group->region),
				       region_base(vm->group->region), (uint32_t)vm->slot);
	for (i = 0; i < VMCOMM_STAT_COUNT; i++)
		known |= vm->stat_base[i] != 0;
	for (i = 0; (s || known) && i < VMCOMM_STAT_COUNT; i++) {
		n = (s ? vmcomm_load64(&s->stat[i]) : 0) + vm->stat_base[i];
		json_object_set_new(counters, vmcomm_stat_name(i), number(n));
	}
	for (i = 1; i < VMCOMM_REASON_COUNT; i++) {
		n = (s ? vmcomm_load64(&s->reason[i]) : 0) + vm->reason_base[i];
		if (n)
			json_object_set_new(reasons, vmcomm_reason_name(i), number(n));
	}
	return json_pack("{s:s, s:s, s:s, s:o, s:o}", "vm", vm->name, "group", vm->group->name,
			 "state", vm_state_name(vm), "counters", counters, "reasons", reasons);
}
