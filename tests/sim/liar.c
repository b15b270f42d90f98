// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * liar.c - a VM that writes what it likes, anywhere in its group's region, at any time (M26)
 *
 * The second group of VMs has a liar in it, the first has none: whatever happens there, no byte of
 * the first group's streams is wrong. In the second one streams may be spoiled, and nothing else:
 * no access out of bounds, no call that does not end, no memory that is lost.
 */
#include "sim.h"

#define MEMORY 64 /* places and values that it has seen */

static struct {
	u8 *at;
	u64 value;
	u32 size;
} seen[MEMORY];

static u64 sim_nasty(u64 old)
{
	static const u64 edge[] = {0, 1, 2, 3, 4, 5, 11, 12, 13, 15, 16, 18, 22, 23, 31, 63, 64, 255, 256,
				   257, 1023, 1024, 4095, 4096, 4097, 65535, 65536, 0xffffff, 1u << 31,
				   0xffffffff, 1ULL << 32, 1ULL << 63, ~0ULL, ~0ULL - 4095};

	switch (sim_below(6)) {
	case 0:
		return sim_rng();
	case 1:
		return old + sim_below(5) - 2;
	case 2:
		return old ^ 1ULL << sim_below(64);
	case 3:
		return old + (1ULL << sim_below(20));
	default:
		return edge[sim_below(sizeof(edge) / sizeof(edge[0]))];
	}
}

/* A place that matters, most of the time. */
static u8 *sim_lie_where(struct sim_host *h)
{
	u32 a = sim_below(h->lay.slots), b = sim_below(h->lay.slots);
	struct vmcomm_abi_pair *p = vmcomm_layout_pair(&h->lay, h->base, a, b);
	struct sim_sock *s;
	u32 tries;

	switch (sim_below(16)) {
	case 0:
		return h->base + 8 * sim_below(VMCOMM_PAGE / 8);
	case 1:
		return (u8 *)vmcomm_layout_location(&h->lay, h->base, a) + 8 * sim_below(32);
	case 2:
		return (u8 *)vmcomm_layout_slot(&h->lay, h->base, a) + 8 * sim_below(20);
	case 3:
		return (u8 *)vmcomm_layout_reclaim(&h->lay, h->base, a, sim_below(h->lay.chunks) & ~1u);
	case 4:
		return h->base + ((sim_rng() % h->size) & ~7ULL);
	case 5:
		return (u8 *)&p->ccb_chunk[sim_below(4) * 2];
	case 6:
		return (u8 *)&p->ev[sim_below(VMCOMM_EVENTS)];
	case 7:
		return (u8 *)&p->offer[sim_below(VMCOMM_OFFERS / 2) * 2];
	case 8:
	case 9:
		return (u8 *)p + 8 * sim_below(32);
	default:
		for (tries = 0; tries < 20 && sim.socks; tries++) {
			s = sim.sock[sim_below(sim.socks)];
			if (!s->closed && s->established && s->vm->group && s->vm->plugged &&
			    s->conn.pair && sim_host_of(s->conn.mine) == h)
				return (u8 *)s->conn.mine + 8 * sim_below(24);
		}
		return (u8 *)p + 8 * sim_below(32);
	}
}

static void sim_lie(struct sim_host *h)
{
	u32 i = sim_below(MEMORY), size = sim_chance(2) ? 4 : 8;
	u8 *at = sim_lie_where(h);
	u64 value;

	if (size == 4)
		at += 4 * sim_below(2);
	value = sim_peek(at, size);
	if (sim_chance(3) && seen[i].at && sim_host_of(seen[i].at) == h) {
		/* Somebody who brings up old stories. */
		at = seen[i].at;
		size = seen[i].size;
		value = seen[i].value;
	} else {
		seen[i].at = at;
		seen[i].size = size;
		seen[i].value = value;
		value = sim_nasty(value);
	}
	if (size == 8)
		at = h->base + ((u64)(at - h->base) & ~7ULL);
	sim.spoiled = true;
	sim.count.lies++;
	sim_poke(at, value, size);
}

void sim_liar(void *arg)
{
	u32 per = sim.p.hosts / sim.p.groups;

	(void)arg;
	memset(seen, 0, sizeof(seen));
	sim_pause(sim_size(4 * sim.p.tick));
	while (sim.lying) {
		sim_lie(&sim.host[per + sim_below(per)]);
		sim_pause(sim_size(2 * sim.p.lies));
	}
}
