// SPDX-License-Identifier: GPL-2.0-or-later
/* check.c - what must be true when nothing moves, and at the end */
#include "sim.h"

static struct sim_sock *shown[2]; /* whom a failure is about */

static bool sim_vm_quiet(const struct sim_vm *vm)
{
	return !vm->crashed && !vm->paused && !vm->moving && !vm->deaf && !vm->irqs && !vm->irq &&
	       !vm->irq_busy && !vm->mapping && !vm->in_tick && !vm->net.busy && !vm->work.busy &&
	       vm->net.head == vm->net.tail && vm->work.head == vm->work.tail && !vm->lockless &&
	       !sim_stalled(vm);
}

static u32 sim_ring_free(const struct sim_sock *s)
{
	const struct vmcomm_conn *c = &s->conn;
	u64 tail;

	if (!c->pair || !c->theirs || !(c->tx.epoch & 1))
		return 1u << 30;
	tail = sim_peek(&c->theirs->tail, 8);
	return (1u << c->tx.shift) - (u32)(c->tx.head - tail);
}

static void sim_sock_print(const struct sim_sock *s)
{
	const struct vmcomm_conn *c = &s->conn;

	fprintf(stderr,
		"  %s socket %u: sent %llu received %llu%s%s%s, write_seq %u una %u, copied_seq %u rcv_nxt "
		"%u, %s\n",
		s->vm->name, s->id, (unsigned long long)s->sent, (unsigned long long)s->received,
		s->rx_asleep ? " rx asleep" : "", s->tx_asleep ? " tx asleep" : "",
		s->eof ? " eof" : "", s->out->write_seq, s->out->una, s->in->copied_seq, s->in->rcv_nxt,
		c->pair ? "attached" : "detached");
	fprintf(stderr,
		"    tx head %llu tail %llu epoch %u x_seq %u pending %u%s; rx tail %llu epoch %u held %u "
		"at %u%s\n",
		(unsigned long long)c->tx.head, (unsigned long long)c->tx.tail, c->tx.epoch, c->tx.x_seq,
		c->tx.pend_len, c->tx.unsettled ? " unsettled" : "", (unsigned long long)c->rx.tail,
		c->rx.epoch, c->rx.held_len, c->rx.held_at, c->rx.drained ? " drained" : "");
	if (!c->pair)
		return;
	fprintf(stderr, "    mine %p theirs %p idx %u state %llu snd_wake_at %lld rcv_wake_at %lld\n",
		(void *)c->mine, (void *)c->theirs, c->idx,
		(unsigned long long)sim_peek(&c->mine->state, 4),
		(long long)sim_peek(&c->mine->snd_wake_at, 8),
		(long long)sim_peek(&c->mine->rcv_wake_at, 8));
}

/*
 * Nobody can run and store buffers are empty. Who sleeps although what it waits for is there, and
 * nothing is on its way to it, has missed a wake-up, even if a later event would hide that.
 */
void sim_check_idle(void)
{
	u32 i;

	shown[0] = shown[1] = NULL;
	for (i = 0; i < sim.socks; i++) {
		struct sim_sock *s = sim.sock[i], *p = s->peer;

		if (sim_spoiled(s) || sim_spoiled(p) || s->vm->lost || p->vm->lost)
			continue;
		if (!s->established || !p->established || s->closed || s->reset || p->reset ||
		    p->crashed || s->out->flying || s->in->flying || s->owner || p->owner ||
		    !sim_vm_quiet(s->vm) || (!p->closed && !sim_vm_quiet(p->vm)))
			continue;
		shown[0] = s;
		shown[1] = p;
		if (s->rx_asleep && s->received + s->rx_seen < p->sent && !p->conn.tx.pend_len)
			sim_fail("%s socket %u: the receiver sleeps with %llu of %llu bytes read",
				 s->vm->name, s->id, (unsigned long long)s->received,
				 (unsigned long long)p->sent);
		if (s->rx_asleep && s->in->fin_in)
			sim_fail("%s socket %u: the receiver sleeps at the end of file", s->vm->name,
				 s->id);
		if (!s->tx_asleep)
			continue;
		if (s->tx_room && sim_ring_free(s) >= s->tx_room)
			sim_fail("%s socket %u: the sender sleeps for %u bytes of the ring, %u are free",
				 s->vm->name, s->id, s->tx_room, sim_ring_free(s));
		if (s->sent == p->received && sim_tcp_room(s->out) && !s->conn.tx.unsettled)
			sim_fail("%s socket %u: the sender sleeps although all was received",
				 s->vm->name, s->id);
	}
	shown[0] = NULL;
}

void sim_check_show(void)
{
	if (shown[0]) {
		sim_sock_print(shown[0]);
		sim_sock_print(shown[1]);
	}
}

void sim_check_show_open(void)
{
	u32 i;

	for (i = 0; i < sim.socks; i++)
		if (!sim.sock[i]->closed)
			sim_sock_print(sim.sock[i]);
}

static void sim_check_node(struct sim_vm *vm)
{
	struct vmcomm_node *node = &vm->node;
	u32 i, expect = 0;

	if (!vm->node_up)
		sim_fail("%s has no node at the end", vm->name);
	for (i = 0; i < node->lay.slots; i++) {
		struct vmcomm_pair *pair = node->pair[i];
		u32 k;

		if (!pair)
			continue;
		if (pair->zombies || pair->ccb_used || pair->conns)
			sim_fail("%s at rest: pair with slot %u has %u zombies, %u CCBs, %u connections",
				 vm->name, i, pair->zombies, pair->ccb_used, pair->conns);
		/* The first chunk of CCBs stays for as long as the pair is up. */
		if (pair->ccb_chunks > 1 || (pair->ccb_chunks && pair->state != VMCOMM_PEER_UP))
			sim_fail("%s at rest: pair with slot %u has %u chunks of CCBs in state %u",
				 vm->name, i, pair->ccb_chunks, pair->state);
		expect += pair->ccb_chunks;
		if (pair->state != VMCOMM_PEER_UP && pair->state != VMCOMM_PEER_DOWN)
			sim_fail("%s at rest: pair with slot %u is in state %u", vm->name, i,
				 pair->state);
		if ((pair->state == VMCOMM_PEER_UP) != (sim.host[vm->host].vm[i] != NULL))
			sim_fail("%s at rest: pair with slot %u is in state %u, and the slot is %s",
				 vm->name, i, pair->state,
				 sim.host[vm->host].vm[i] ? "in use" : "empty");
		for (k = 0; k < VMCOMM_OFFERS; k++)
			if (pair->offer[k] || sim_peek(&pair->mine->offer[k], 4))
				sim_fail("%s at rest: an offer to slot %u is left", vm->name, i);
	}
	if (node->heap.used != expect)
		sim_fail("%s at rest: %u chunks in use, %u expected", vm->name, node->heap.used,
			 expect);
	if (node->stat[VMCOMM_STAT_CONN_OPEN])
		sim_fail("%s at rest: statistics say %lld connections", vm->name,
			 (long long)node->stat[VMCOMM_STAT_CONN_OPEN]);
	if (node->stat[VMCOMM_STAT_PEER_ERRORS] && !sim.reverts && !sim.removes && !sim.restores)
		sim_fail("%s at rest: %llu errors of peers", vm->name,
			 (unsigned long long)node->stat[VMCOMM_STAT_PEER_ERRORS]);
	/* heap.chunk, the pairs, and a table for each chunk of CCBs */
	if (sim_allocated(vm) != 1 + node->lay.slots - 1 + expect)
		sim_fail("%s at rest: %llu blocks of memory, %u expected", vm->name,
			 (unsigned long long)sim_allocated(vm), node->lay.slots + expect);
}

void sim_check_rest(void)
{
	u32 i;

	for (i = 0; i < sim.socks; i++) {
		struct sim_sock *s = sim.sock[i], *p = s->peer;

		if (s->crashed || p->crashed || sim_spoiled(s))
			continue;
		if (s->received < p->sent && !s->refused && !s->reset && !s->vm_died)
			sim_fail("%s socket %u: closed after %llu of %llu bytes, and nobody told the peer",
				 s->vm->name, s->id, (unsigned long long)s->received,
				 (unsigned long long)p->sent);
		if (p->lost)
			continue;
		if (s->eof && !s->reset && !p->reset && s->conn.ring_received != p->conn.ring_sent)
			sim_fail("%s socket %u: %llu bytes came from the ring, %llu were put into it",
				 s->vm->name, s->id, (unsigned long long)s->conn.ring_received,
				 (unsigned long long)p->conn.ring_sent);
		if (s->stop_at == SIM_NEVER && p->stop_at == SIM_NEVER &&
		    (s->reset || !s->eof || s->received != p->total))
			sim_fail("%s socket %u: %llu of %llu bytes, end of file %d, reset %d",
				 s->vm->name, s->id, (unsigned long long)s->received,
				 (unsigned long long)p->total, s->eof, s->reset);
	}
	for (i = 0; i < sim.p.vms; i++)
		if (!sim.vm[i].crashed && !(sim.vm[i].group && sim.spoiled))
			sim_check_node(&sim.vm[i]);
}
