// SPDX-License-Identifier: GPL-2.0-or-later
/* vm.c - a simulated VM: softirqs, the tick, the worker; leaving and arriving */
#include "sim.h"

static struct sim_sock *sim_sock_of(struct vmcomm_conn *conn)
{
	return (struct sim_sock *)((char *)conn - offsetof(struct sim_sock, conn));
}

bool sim_vm_get(struct sim_vm *vm)
{
	if (!vm->node_up)
		return false;
	vm->refs++;
	return true;
}

void sim_vm_put(struct sim_vm *vm)
{
	vm->refs--;
}

void sim_vm_post(struct sim_queue *q, u32 kind, u32 a, u32 b, struct sim_sock *s)
{
	struct sim_work *w = &q->work[q->head % SIM_QUEUE];

	if (q->head - q->tail == SIM_QUEUE)
		sim_fail("a work queue of the simulator is full");
	w->kind = kind;
	w->a = a;
	w->b = b;
	w->sock = s;
	q->head++;
	sim_wake(q);
}

/* --- what the core calls --- */

static bool sim_hold(struct vmcomm_conn *conn)
{
	struct sim_sock *s = sim_sock_of(conn);

	if (s->closed)
		return false;
	s->holds++;
	return true;
}

static void sim_drop(struct vmcomm_conn *conn)
{
	sim_sock_of(conn)->holds--;
}

static void sim_no_locks(const char *what)
{
	if (sim.cur->locks)
		sim_fail("%s is called with a lock of the core held", what);
}

static void sim_wake_conn(struct vmcomm_conn *conn)
{
	struct sim_sock *s = sim_sock_of(conn);

	sim_no_locks("wake");
	if (s->vm->in_tick && (s->rx_asleep || s->tx_asleep))
		sim.count.backstops++;
	if ((!s->rx_asleep || s->conn.tx.unsettled || conn->broken) && s->vm->work.head - s->vm->work.tail < SIM_QUEUE / 2)
		sim_vm_post(&s->vm->work, SIM_WORK_POLL, 0, 0, s);
	if (s->app == SIM_APP_EDGE) {
		s->vm->lockless++;
		if (vmcomm_rx_unread(conn))
			sim_sock_tell(s);
		s->vm->lockless--;
	}
	sim_sock_wake(s);
}

static struct sim_vm *sim_vm_of(struct vmcomm_node *node)
{
	return node->priv;
}

static void sim_pair_news(struct vmcomm_node *node, u32 slot, enum vmcomm_pair_news news)
{
	static const char *const name[] = {"up", "left", "gone"};

	sim_no_locks("pair_news");
	sim_trace("%s: pair with slot %u: %s", sim_vm_of(node)->name, slot, name[news]);
	sim_vm_post(&sim_vm_of(node)->work, SIM_WORK_NEWS, slot, news, NULL);
}

static void sim_offered(struct vmcomm_node *node, u32 slot, u32 idx)
{
	sim_no_locks("offered");
	if (sim_vm_of(node)->work.head - sim_vm_of(node)->work.tail < SIM_QUEUE * 3 / 4)
		sim_vm_post(&sim_vm_of(node)->work, SIM_WORK_OFFERED, slot, idx, NULL);
}

const struct vmcomm_conn_ops sim_conn_ops = {
	.hold = sim_hold,
	.drop = sim_drop,
	.wake = sim_wake_conn,
	.pair_news = sim_pair_news,
	.offered = sim_offered,
};

/* --- threads --- */

void sim_vm_irq(struct sim_vm *vm, u32 vector)
{
	if (vector == VMCOMM_VECTOR_HOST)
		vm->irq_host = true;
	vm->irq = true;
	sim_wake(&vm->irq);
}

static void sim_irq(void *arg)
{
	struct sim_vm *vm = arg;
	bool host;

	sim.cur->softirq = true;
	for (;;) {
		if (!vm->irq) {
			sim_sleep(&vm->irq, 0, "doorbell");
			continue;
		}
		host = vm->irq_host;
		vm->irq = false;
		vm->irq_host = false;
		vm->irq_busy++;
		if (sim_vm_get(vm)) {
			if (host)
				vmcomm_node_refresh(&vm->node);
			while (vmcomm_node_event(&vm->node))
				;
			sim_vm_put(vm);
		}
		vm->irq_busy--;
	}
}

static void sim_tick(void *arg)
{
	struct sim_vm *vm = arg;
	u32 n;

	sim.cur->softirq = true;
	for (;;) {
		sim_pause(sim.p.tick + sim_below(sim.p.tick / 4));
		if (!sim_vm_get(vm))
			continue;
		vm->in_tick = true;
		vm->deaf = false; /* what was lost until now it finds */
		for (n = 1 + vm->ticks, vm->ticks = 0; n && vm->node_up; n--)
			vmcomm_node_tick(&vm->node);
		vm->in_tick = false;
		sim_unmap_idle(vm);
		vm->ticked++;
		sim_vm_put(vm);
	}
}

/* A segment without data that the peer's softirq handles. */
struct sim_handshake {
	struct sim_sock *to;
	u32 kind;
	struct sim_cpu *cpu;
	u64 mark;
};

static void sim_handshake_arrives(void *a, u64 b)
{
	struct sim_handshake *h = a;

	if (h->to->vm->paused && !h->to->closed) {
		sim_at(100, sim_handshake_arrives, a, b);
		return;
	}
	sim_cpu_drain(h->cpu, h->mark);
	if (!h->to->closed)
		sim_vm_post(&h->to->vm->net, h->kind, 0, 0, h->to);
	free(h);
}

void sim_handshake(struct sim_sock *from, u32 kind, struct sim_cpu *cpu)
{
	struct sim_handshake *h = malloc(sizeof(*h));

	if (!h)
		abort();
	h->to = from->peer;
	h->kind = kind;
	h->cpu = cpu;
	h->mark = cpu->nr;
	sim_at(1 + sim_below(sim.p.tcp_delay), sim_handshake_arrives, h, 0);
}

static void sim_net(void *arg)
{
	struct sim_vm *vm = arg;
	struct sim_queue *q = &vm->net;

	sim.cur->softirq = true;
	for (;;) {
		struct sim_work w;

		if (q->head == q->tail) {
			sim_sleep(q, 0, "handshakes");
			continue;
		}
		w = q->work[q->tail++ % SIM_QUEUE];
		if (w.sock->closed)
			continue;
		q->busy = true;
		switch (w.kind) {
		case SIM_WORK_SYN:
			sim_handshake(w.sock, SIM_WORK_SYNACK, sim.cur->cpu);
			break;
		case SIM_WORK_SYNACK:
			sim_sock_establish(w.sock);
			if (w.sock->closed) {
				/* The peer died in this moment. */
				w.sock->conn.atomic = true;
				vmcomm_conn_close(&w.sock->conn);
				break;
			}
			/* An application that connected may write before the ACK is on its way. */
			if (sim_chance(2)) {
				sim_sock_run(w.sock);
				sim_handshake(w.sock, SIM_WORK_ACK, sim.cur->cpu);
			} else {
				sim_handshake(w.sock, SIM_WORK_ACK, sim.cur->cpu);
				sim_sock_run(w.sock);
			}
			break;
		case SIM_WORK_ACK:
			sim_sock_establish(w.sock);
			if (w.sock->closed) {
				w.sock->conn.atomic = true;
				vmcomm_conn_close(&w.sock->conn);
			} else {
				sim_sock_run(w.sock);
			}
			break;
		default:
			abort();
		}
		q->busy = false;
	}
}

static void sim_news(struct sim_vm *vm, u32 slot, enum vmcomm_pair_news news)
{
	u32 i;

	for (;;) {
		for (i = 0; i < sim.socks; i++) {
			struct sim_sock *s = sim.sock[i];

			if (s->vm != vm || s->closed || !s->established)
				continue;
			if (news != VMCOMM_NEWS_UP)
				sim_sock_evict(s, slot);
			else if (s->client)
				sim_sock_reoffer(s);
		}
		if (news == VMCOMM_NEWS_UP || vmcomm_pair_released(&vm->node, slot) != -EAGAIN)
			break;
		/* A VM that leaves itself does not wait for others in here. */
		if (vm->leaving && sim_chance(20))
			break;
		if (sim.spoiled && vm->group && sim_chance(50))
			break;
		sim_pause(sim_between(10, 500));
	}
}

static void sim_late_offer(struct sim_vm *vm, u32 slot, u32 idx)
{
	u32 i, local, remote;

	if (vmcomm_offer_read(&vm->node, slot, idx, &local, &remote))
		return;
	for (i = 0; i < sim.socks; i++) {
		struct sim_sock *s = sim.sock[i];

		if (s->vm == vm && !s->closed && s->established && !s->client &&
		    s->conn.seq_local == local && s->conn.seq_remote == remote)
			sim_sock_accept(s);
	}
}

static void sim_flood(struct sim_vm *vm)
{
	u32 i, slot = sim_below(vm->node.lay.slots), n = sim_between(200, 600);
	struct vmcomm_pair *pair = vm->node.pair[slot];

	for (i = 0; pair && i < n; i++) {
		if (pair->state != VMCOMM_PEER_UP)
			return;
		/* Some are of kinds that only later versions know. */
		vmcomm_pair_notify(pair,
				   VMCOMM_EVENT(sim_chance(4) ? sim_between(5, 255) :
								VMCOMM_EVENT_CONN,
						sim_below(8), sim_below(4)),
				   sim_chance(4));
	}
}

static void sim_switch(struct sim_vm *vm)
{
	u32 i;

	vm->enabled = !vm->enabled;
	vm->node.enabled = vm->enabled;
	for (i = 0; i < sim.socks; i++) {
		struct sim_sock *s = sim.sock[i];

		if (s->vm != vm || s->closed || !s->established)
			continue;
		sim_sock_lock(s);
		if (!s->closed && s->ready) {
			if (vm->enabled && !vm->leaving)
				vmcomm_conn_ready(&s->conn);
			else
				vmcomm_conn_unready(&s->conn);
		}
		sim_sock_unlock(s);
	}
}

/* All that is free of its shared memory is in use for a while. */
static void sim_hog(struct sim_vm *vm)
{
	struct vmcomm_node *node = &vm->node;
	u32 chunk[VMCOMM_CHUNKS_MAX / 8], n = 0, off, i, shift = node->lay.chunk_shift;
	u32 slot = sim_below(node->lay.slots);
	bool scrub;

	if (!node->pair[slot])
		return;
	vmcomm_lock(&node->lock);
	while (n < sizeof(chunk) / sizeof(chunk[0]) &&
	       !vmcomm_heap_alloc(&node->heap, slot, shift, &chunk[n], &off, &scrub))
		n++;
	vmcomm_unlock(&node->lock);
	sim_pause(sim_size(sim.p.tick));
	vmcomm_lock(&node->lock);
	for (i = 0; i < n; i++)
		vmcomm_heap_free(&node->heap, chunk[i], 0, shift);
	vmcomm_unlock(&node->lock);
}

static void sim_worker(void *arg)
{
	struct sim_vm *vm = arg;
	struct sim_queue *q = &vm->work;
	u32 i;

	for (;;) {
		struct sim_work w;

		if (q->head == q->tail) {
			sim_sleep(q, 0, "work");
			continue;
		}
		w = q->work[q->tail++ % SIM_QUEUE];
		if (!sim_vm_get(vm))
			continue;
		q->busy = true;
		switch (w.kind) {
		case SIM_WORK_NEWS:
			sim_news(vm, w.a, w.b);
			break;
		case SIM_WORK_OFFERED:
			sim_late_offer(vm, w.a, w.b);
			break;
		case SIM_WORK_IDLE:
			for (i = 0; i < sim.socks; i++)
				if (sim.sock[i]->vm == vm && !sim.sock[i]->closed)
					sim_sock_idle(sim.sock[i]);
			break;
		case SIM_WORK_SWITCH:
			sim_switch(vm);
			break;
		case SIM_WORK_FLOOD:
			sim_flood(vm);
			break;
		case SIM_WORK_EVICT:
			/* One connection alone goes back to TCP, as for kTLS or a sockmap. */
			for (i = 0; i < sim.socks; i++)
				if (sim.sock[i]->vm == vm && !sim.sock[i]->closed &&
				    sim.sock[i]->conn.pair && sim_chance(2))
					sim_sock_evict(sim.sock[i], sim.sock[i]->conn.pair->slot);
			break;
		case SIM_WORK_HOG:
			sim_hog(vm);
			break;
		case SIM_WORK_POLL:
			sim_sock_lock(w.sock);
			if (!w.sock->closed) {
				vmcomm_conn_poll(&w.sock->conn);
				sim_sock_doubt(w.sock, false);
				sim_sock_reverted(w.sock);
			}
			sim_sock_unlock(w.sock);
			break;
		default:
			abort();
		}
		q->busy = false;
		sim_vm_put(vm);
	}
}

/* --- life --- */

void sim_vm_pause(struct sim_vm *vm, bool pause)
{
	vm->paused = pause;
	if (!pause)
		sim_unpark(vm);
}

static void sim_vm_pad(vmcomm_u8 *pad, u32 n)
{
	u32 i;

	for (i = 0; i < n; i++)
		if (sim_chance(4))
			vmcomm_store8(&pad[i], (u8)sim_rng());
}

/* What a later minor version may do: words in what is padding now, features, unknown numbers. */
static void sim_vm_newer(struct sim_vm *vm)
{
	struct vmcomm_node *node = &vm->node;
	u32 i;

	vmcomm_store32(&node->page->abi_minor, VMCOMM_ABI_MINOR + 1);
	vmcomm_store32(&node->page->features, (u32)sim_rng());
	sim_vm_pad(node->page->pad, 32);
	for (i = 0; i < node->lay.slots; i++) {
		struct vmcomm_pair *pair = node->pair[i];

		if (!pair)
			continue;
		vmcomm_store32(&pair->mine->abi_minor, VMCOMM_ABI_MINOR + 1);
		vmcomm_store32(&pair->mine->features, (u32)sim_rng());
		sim_vm_pad(pair->mine->pad0, sizeof(pair->mine->pad0));
		sim_vm_pad(pair->mine->pad1, sizeof(pair->mine->pad1));
		sim_vm_pad(pair->mine->pad2, sizeof(pair->mine->pad2));
		sim_vm_pad(pair->mine->pad3, sizeof(pair->mine->pad3));
	}
}

/* Take part in the group of the host whose device was just plugged in. Process context. */
void sim_vm_join(struct sim_vm *vm)
{
	struct sim_host *h = &sim.host[vm->host];
	struct vmcomm_node_config config = {
		.backend = &sim_backend_ops,
		.conn_ops = &sim_conn_ops,
		.priv = vm,
		.slot = vm->slot,
		.location_word = &vmcomm_layout_location(&h->lay, h->base, vm->slot)->location,
		.page = vmcomm_layout_slot(&h->lay, h->base, vm->slot),
		.reclaim_ask = vmcomm_layout_reclaim(&h->lay, h->base, vm->slot, 0),
		.reclaim_ack = vmcomm_layout_reclaim_ack(&h->lay, h->base, vm->slot, 0),
		.has_tcp = true,
		.system = "simulator",
		.version = "0",
	};
	struct vmcomm_layout lay;
	int err;

	config.lay = &lay;
	for (;;) {
		memset(&vm->node, 0, sizeof(vm->node));
		vm->maps = 0;
		memset(vm->mapped, 0, sizeof(vm->mapped));
		err = vmcomm_layout_read(&lay, h->base, h->size);
		if (err && !(sim.spoiled && vm->group))
			sim_fail("%s: cannot read the layout: %d", vm->name, err);
		if (!err)
			err = vmcomm_node_init(&vm->node, &config);
		if (!err)
			break;
		if (err != -EAGAIN && err != -ENOMEM && !(sim.spoiled && vm->group))
			sim_fail("%s: vmcomm_node_init: %d", vm->name, err);
		sim_pause(sim_between(50, 1000));
		if (sim.over && vm->group) {
			vm->moving = false;
			return;
		}
	}
	vm->node.enabled = vm->enabled;
	vm->node.ring_shift_first = vm->ring_first;
	vm->node.ring_shift_max = vm->ring_max;
	vm->leaving = false;
	/* The clock of a VM starts anywhere. */
	vm->node.heap.tick = (u32)sim_rng();
	if (vm->newer)
		sim_vm_newer(vm);
	vm->node_up = true;
	sim_trace("%s: up on host %u in slot %u, incarnation %llx", vm->name, vm->host, vm->slot,
		  (unsigned long long)vm->node.incarnation);
	while (vmcomm_node_event(&vm->node))
		;
	vm->moving = false;
}

/* In a thread of the VM. Afterwards the device may go. */
void sim_vm_leave(struct sim_vm *vm)
{
	struct vmcomm_node *node = &vm->node;
	u64 deadline;
	u32 i;

	vm->leaving = true;
	vmcomm_node_leave_begin(node);
	for (i = 0; i < sim.socks; i++) {
		struct sim_sock *s = sim.sock[i];
		bool ready;

		if (s->vm != vm || s->closed || !s->established)
			continue;
		sim_sock_lock(s);
		ready = s->conn.rx_want;
		if (s->conn.pair)
			vmcomm_conn_freeze(&s->conn);
		s->conn.rx_want = ready;
		sim_sock_unlock(s);
	}
	vmcomm_node_leave_publish(node);
	for (i = 0; i < sim.socks; i++) {
		struct sim_sock *s = sim.sock[i];

		if (s->vm == vm && !s->closed && s->conn.pair)
			sim_sock_evict(s, s->conn.pair->slot);
	}
	vmcomm_node_leave_done(node);
	deadline = sim.now + sim_between(100, 3 * sim.p.tick);
	while (!vmcomm_node_leave_answered(node)) {
		if (sim.now > deadline) {
			sim.count.unanswered++;
			break;
		}
		sim_pause(sim_between(10, 300));
	}
	vm->node_up = false;
	while (vm->refs)
		sim_pause(sim_between(5, 50));
	for (i = 0; i < sim.socks; i++)
		if (sim.sock[i]->vm == vm && sim.sock[i]->conn.pair)
			sim_fail("%s leaves with socket %u attached", vm->name, sim.sock[i]->id);
	vmcomm_node_deinit(node);
	while (vm->lockless)
		sim_pause(sim_between(5, 50));
	for (i = 0; i < vm->ncpu; i++)
		sim_cpu_drain(&vm->cpu[i], SIM_NEVER);
	vm->plugged = false;
	vm->lost = false;
	sim_trace("%s: left host %u", vm->name, vm->host);
}

static void sim_vm_booting(void *arg)
{
	sim_vm_join(arg);
}

/* Its kernel. */
void sim_vm_boot(struct sim_vm *vm)
{
	vm->life++;
	vm->crashed = false;
	vm->node_up = false;
	vm->paused = false;
	vm->leaving = false;
	vm->in_tick = false;
	vm->irq = false;
	vm->irq_host = false;
	vm->irq_busy = 0;
	vm->irqs = 0;
	vm->deaf = false;
	vm->refs = 0;
	vm->lockless = 0;
	vm->mapping = 0;
	vm->spare = 0;
	vm->enabled = true;
	memset(&vm->net, 0, sizeof(vm->net));
	memset(&vm->work, 0, sizeof(vm->work));
	sim_spawn(vm, &vm->cpu[0], "irq 0", sim_irq, vm);
	sim_spawn(vm, &vm->cpu[vm->ncpu - 1], "irq 1", sim_irq, vm);
	sim_spawn(vm, &vm->cpu[0], "net", sim_net, vm);
	sim_spawn(vm, &vm->cpu[vm->ncpu - 1], "tick", sim_tick, vm);
	sim_spawn(vm, &vm->cpu[vm->ncpu / 2], "worker", sim_worker, vm);
}

/* Its device is there; @boot: nothing else runs in it yet. */
void sim_vm_start(struct sim_vm *vm, bool boot)
{
	vm->plugged = true;
	if (boot)
		sim_vm_boot(vm);
	vm->moving = true;
	sim_spawn(vm, &vm->cpu[vm->ncpu / 2], "join", sim_vm_booting, vm);
}

static void sim_peer_dead(void *a, u64 b)
{
	struct sim_sock *s = a;

	(void)b;
	if (s->closed)
		return;
	s->reset = true;
	if (!s->established)
		s->closed = true;
	sim_sock_ready(s);
}

/* The socket is no more, without a word; its peer finds out after a while. */
void sim_sock_dies(struct sim_sock *s)
{
	s->vm_died = true;
	/* Closed, but with bytes of the peer on their way: these have no answer any more. */
	if (s->closed && s->peer->closed)
		return;
	s->closed = true;
	s->crashed = true;
	s->conn.pair = NULL;
	s->owner = NULL;
	sim_at(sim_between(100, 3 * sim.p.tick), sim_peer_dead, s->peer, 0);
}

/* Its threads and its memory are no more. */
void sim_vm_end(struct sim_vm *vm)
{
	u32 i;

	vm->crashed = true;
	vm->lost = false;
	vm->node_up = false;
	vm->irq = false;
	vm->life++;
	sim_kill_vm_threads(vm);
	for (i = 0; i < vm->ncpu; i++)
		sim_cpu_drain(&vm->cpu[i], SIM_NEVER);
	sim_alloc_forget(vm);
}

/* It stops for ever; what it had on TCP ends after a while. From the world. */
void sim_vm_crash(struct sim_vm *vm)
{
	u32 i;

	sim_trace("%s: crashes", vm->name);
	sim_vm_end(vm);
	for (i = 0; i < sim.socks; i++)
		if (sim.sock[i]->vm == vm)
			sim_sock_dies(sim.sock[i]);
}
