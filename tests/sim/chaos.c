// SPDX-License-Identifier: GPL-2.0-or-later
/* chaos.c - the world: boots VMs, opens connections, makes faults, waits for the end */
#include "sim.h"

const char *const sim_fault_name[SIM_FAULTS] = {
	[SIM_FAULT_MOVE] = "move",	   [SIM_FAULT_MOVE_TWO] = "move-two",
	[SIM_FAULT_PAUSE] = "pause",	   [SIM_FAULT_CRASH] = "crash",
	[SIM_FAULT_REBOOT] = "reboot",	   [SIM_FAULT_IDLE] = "idle",
	[SIM_FAULT_SWITCH] = "switch",	   [SIM_FAULT_LOSE] = "lose",
	[SIM_FAULT_FLOOD] = "flood",	   [SIM_FAULT_EVICT] = "evict",
	[SIM_FAULT_TOUR] = "tour",	   [SIM_FAULT_MEET] = "meet",
	[SIM_FAULT_DAEMON] = "daemon",	   [SIM_FAULT_CLOCK] = "clock",
	[SIM_FAULT_HOG] = "hog",	   [SIM_FAULT_REVERT] = "revert",
	[SIM_FAULT_REMOVE] = "remove",	   [SIM_FAULT_RESTORE] = "restore",
};

static u32 openers, jobs;

/* Each group has hosts of its own. Most VMs are on the first one: there is somebody to talk to. */
static u32 sim_some_host(struct sim_vm *vm, bool elsewhere)
{
	u32 per = sim.p.hosts / sim.p.groups, target = vm->target;

	vm->target = 0;
	if (target)
		return target - 1;
	return vm->group * per + (sim_chance(elsewhere ? 2 : 4) ? sim_below(per) : 0);
}

/* Wait for a slot on some host, plug the device in. */
static void sim_place(struct sim_vm *vm, bool boot, bool elsewhere)
{
	u32 host, life = vm->life;
	int slot;

	for (;;) {
		host = sim_some_host(vm, elsewhere);
		if (vm->life != life || (!boot && vm->crashed))
			return;
		slot = sim_host_admit(&sim.host[host], vm);
		if (slot >= 0)
			break;
		sim_pause(sim_between(100, sim.p.tick));
	}
	if (vm->life != life || (!boot && vm->crashed)) {
		sim_host_move(&sim.host[host], (u32)slot, VMCOMM_SLOT_GONE);
		return;
	}
	vm->host = host;
	vm->slot = (u32)slot;
	if (sim_chance(2)) {
		sim_host_move(&sim.host[host], (u32)slot, VMCOMM_SLOT_LIVE);
		sim_vm_start(vm, boot);
	} else {
		sim_vm_start(vm, boot);
		sim_pause(sim_between(1, 3000));
		if (sim.host[host].group.slot[slot].state == VMCOMM_SLOT_JOINING)
			sim_host_move(&sim.host[host], (u32)slot, VMCOMM_SLOT_LIVE);
	}
}

static void sim_leaver(void *arg)
{
	sim_vm_leave(arg);
}

/* Leave; then the device is gone. Return: false: something else happened to the VM. */
static bool sim_move_away(struct sim_vm *vm)
{
	struct sim_host *h = &sim.host[vm->host];
	u32 life = vm->life, slot = vm->slot;

	/* Lied to until it gave up: it has nothing to leave with. */
	if (!vm->node_up) {
		vm->moving = false;
		return false;
	}
	/* The device has to be seen before it can be asked for. */
	while (h->group.slot[slot].state == VMCOMM_SLOT_JOINING && vm->life == life)
		sim_pause(100);
	if (vm->life == life)
		sim_host_move(h, slot, VMCOMM_SLOT_LEAVING);
	if (vm->life == life)
		sim_spawn(vm, &vm->cpu[sim_below(vm->ncpu)], "leave", sim_leaver, vm);
	while (vm->life == life && vm->plugged)
		sim_pause(sim_between(20, 200));
	if (vm->life == life)
		sim_host_move(h, slot, VMCOMM_SLOT_LEFT);
	return vm->life == life;
}

/* Leave, be away, arrive: a migration, or a device that is unplugged for a while. */
static void sim_move_once(struct sim_vm *vm)
{
	u32 life = vm->life;

	if (!sim_move_away(vm))
		return;
	/* What other people call downtime. */
	if (sim_chance(2)) {
		sim_vm_pause(vm, true);
		sim_pause(sim_size(2 * sim.p.tick));
		sim_vm_pause(vm, false);
	}
	sim_pause(sim_size(2 * sim.p.tick));
	if (vm->life == life) {
		sim.count.moves++;
		sim_place(vm, false, true);
	}
}

static void sim_mover(void *arg)
{
	struct sim_vm *vm = arg;

	sim_move_once(vm);
	vm->busy = false;
	jobs--;
}

static void sim_tourist(void *arg)
{
	struct sim_vm *vm = arg;
	u32 i, life = vm->life;

	for (i = 0; i < 3 && vm->life == life && !vm->crashed; i++) {
		vm->moving = true;
		sim_move_once(vm);
		/* It may have to go on before it has arrived. */
		while (vm->life == life && !vm->crashed && vm->moving)
			sim_pause(sim_between(20, 200));
		if (sim_chance(2))
			sim_pause(sim_size(sim.p.tick));
	}
	vm->busy = false;
	jobs--;
}

static void sim_daemon(void *arg)
{
	struct sim_vm *vm = arg;

	sim_host_restart(&sim.host[vm->host]);
	jobs--;
}

static void sim_pauser(void *arg)
{
	struct sim_vm *vm = arg;
	u32 life = vm->life;

	sim_vm_pause(vm, true);
	sim_pause(sim_size(3 * sim.p.tick));
	if (vm->life == life)
		sim_vm_pause(vm, false);
	jobs--;
}

static void sim_crasher(void *arg)
{
	struct sim_vm *vm = arg;
	struct sim_host *h = &sim.host[vm->host];
	u32 slot = vm->slot;
	bool there = h->vm[slot] == vm;

	sim_vm_crash(vm);
	vm->plugged = false;
	sim_pause(sim_size(3 * sim.p.tick));
	if (there && h->group.slot[slot].state != VMCOMM_SLOT_LEFT &&
	    h->group.slot[slot].state != VMCOMM_SLOT_GONE)
		sim_host_move(h, slot, VMCOMM_SLOT_GONE);
	sim_pause(sim_size(2 * sim.p.tick));
	sim_place(vm, true, false);
	vm->busy = false;
	jobs--;
}

/* The same slot, and the host sees nothing. */
static void sim_rebooter(void *arg)
{
	struct sim_vm *vm = arg;

	sim_vm_crash(vm);
	sim_pause(sim_size(2 * sim.p.tick));
	sim_vm_start(vm, true);
	vm->busy = false;
	jobs--;
}

/* Words of a VM's slot that are not what they were, back to that. */
static void sim_set_back(u8 *at, const u8 *old, u64 n)
{
	u64 i, v;

	for (i = 0; i < n; i += 8) {
		memcpy(&v, old + i, 8);
		if (v != sim_peek(at + i, 8))
			sim_poke(at + i, v, 8);
	}
}

/*
 * Back to a snapshot: for a while its peers see the words of an earlier moment, as it goes on from
 * there, before it finds out and begins a new incarnation. What it had with its peers is spoiled;
 * nobody else notices anything.
 */
static void sim_reverter(void *arg)
{
	struct sim_vm *vm = arg;
	struct sim_host *h = &sim.host[vm->host];
	u32 life = vm->life, slot = vm->slot, i, shift = h->lay.chunk_shift, chunks = 0;
	u8 *ctl = (u8 *)vmcomm_layout_slot(&h->lay, h->base, slot);
	u8 *copy = malloc(h->lay.ctl_stride + (4ULL << shift)), *chunk[4];

	if (!copy)
		abort();
	memcpy(copy, ctl, h->lay.ctl_stride);
	for (i = 0; i < h->lay.slots && chunks < 4; i++) {
		struct vmcomm_pair *pair = vm->node_up ? vm->node.pair[i] : NULL;

		if (!pair || !pair->ccb_chunks)
			continue;
		chunk[chunks] = vmcomm_layout_chunk(&h->lay, h->base, slot, pair->ccb_chunk[0]);
		memcpy(copy + h->lay.ctl_stride + ((u64)chunks << shift), chunk[chunks], 1u << shift);
		chunks++;
	}
	sim_pause(sim_size(2 * sim.p.tick));
	if (vm->life != life || vm->host != h->id || vm->slot != slot || !vm->node_up) {
		free(copy);
		vm->busy = false;
		jobs--;
		return;
	}
	sim.count.reverts++;
	sim.reverts++;
	for (i = 0; i < sim.socks; i++)
		if (sim.sock[i]->vm == vm && !(sim.sock[i]->closed && sim.sock[i]->peer->closed))
			sim.sock[i]->reverted = sim.sock[i]->peer->reverted = true;
	sim_vm_crash(vm);
	sim_set_back(ctl, copy, h->lay.ctl_stride);
	for (i = 0; i < chunks; i++)
		sim_set_back(chunk[i], copy + h->lay.ctl_stride + ((u64)i << shift), 1u << shift);
	free(copy);
	for (i = 0; i < h->lay.slots; i++)
		if (h->vm[i] && h->vm[i] != vm)
			sim_host_deliver(h->id, i, VMCOMM_VECTOR_EVENT);
	sim_pause(sim_size(2 * sim.p.tick));
	sim_vm_start(vm, true);
	vm->busy = false;
	jobs--;
}

static void sim_device_lost(struct sim_vm *vm)
{
	u32 i;

	sim_trace("%s: its device is gone", vm->name);
	sim.removes++;
	for (i = 0; i < vm->ncpu; i++)
		sim_cpu_lose(&vm->cpu[i]);
	vm->lost = true;
	for (i = 0; i < sim.socks; i++)
		if (sim.sock[i]->vm == vm && !sim.sock[i]->closed && sim.sock[i]->conn.pair)
			sim.sock[i]->lost = true;
}

/*
 * Surprise: the device goes in the middle of anything. The guest hears of it after a while and
 * leaves as it always does, with nothing but ones to read; then it gets a device again.
 */
static void sim_remover(void *arg)
{
	struct sim_vm *vm = arg;
	struct sim_host *h = &sim.host[vm->host];
	u32 life = vm->life, slot = vm->slot;
	bool first = sim_chance(2);

	sim_device_lost(vm);
	if (first)
		sim_host_move(h, slot, VMCOMM_SLOT_GONE);
	sim_pause(sim_size(sim.p.tick));
	if (vm->life == life)
		sim_spawn(vm, &vm->cpu[sim_below(vm->ncpu)], "leave", sim_leaver, vm);
	while (vm->life == life && vm->plugged)
		sim_pause(sim_between(20, 200));
	if (!first)
		sim_host_move(h, slot, VMCOMM_SLOT_GONE);
	sim_pause(sim_size(2 * sim.p.tick));
	if (vm->life == life)
		sim_place(vm, false, true);
	vm->busy = false;
	jobs--;
}

/*
 * A snapshot, in whose making the device is away; the VM goes on for a while, and then is what it
 * was, on any host, before it gets a device again.
 */
static void sim_restorer(void *arg)
{
	struct sim_vm *vm = arg;
	struct sim_image *image = NULL;
	u32 life = vm->life, tries;
	struct sim_host *h;

	if (sim_move_away(vm)) {
		for (tries = 0; tries < 1000 && !image && vm->life == life; tries++) {
			image = sim_image_take(vm);
			if (!image)
				sim_pause(sim_between(1, 50));
		}
		sim_pause(sim_size(sim.p.tick));
		if (vm->life == life)
			sim_place(vm, false, true);
	}
	while (vm->life == life && !vm->crashed && vm->moving)
		sim_pause(100);
	/* Mostly when something has happened since. */
	for (tries = sim_chance(4) ? 0 : 300; tries && image && vm->life == life; tries--) {
		if (sim_image_old(image))
			break;
		sim_pause(sim.p.tick / 10);
	}
	sim_pause(sim_size(sim.p.tick));
	if (image && vm->life == life && !vm->crashed && vm->node_up) {
		h = &sim.host[vm->host];
		sim_image_restore(vm, image);
		life = vm->life;
		sim_host_move(h, vm->slot, VMCOMM_SLOT_GONE);
		sim_pause(sim_size(2 * sim.p.tick));
		if (vm->life == life)
			sim_place(vm, false, true);
	}
	sim_image_free(image);
	vm->busy = false;
	jobs--;
}

static bool sim_vm_free(const struct sim_vm *vm)
{
	return !vm->busy && !vm->crashed && !vm->moving && !vm->paused && vm->node_up;
}

static struct sim_vm *sim_any_vm(void)
{
	struct sim_vm *vm = &sim.vm[sim_below(sim.p.vms)];

	return sim_vm_free(vm) ? vm : NULL;
}

static void sim_job(struct sim_vm *vm, const char *name, void (*fn)(void *arg))
{
	if (!vm)
		return;
	sim_trace("fault: %s %s", name, vm->name);
	jobs++;
	sim_spawn(NULL, NULL, name, fn, vm);
}

static void sim_move(struct sim_vm *vm)
{
	if (!vm)
		return;
	vm->busy = true;
	vm->moving = true;
	sim_job(vm, "move", sim_mover);
}

/* Both ends of some connections go to the same host, at about the same time. */
static void sim_meet(struct sim_vm *a)
{
	struct sim_vm *b = sim_any_vm();
	u32 per = sim.p.hosts / sim.p.groups;

	if (b && b != a && b->group == a->group) {
		a->target = b->target = a->group * per + sim_below(per) + 1;
		sim.count.meets++;
		sim_move(b);
	}
	sim_move(a);
}

static void sim_fault(u32 fault, u32 nr)
{
	struct sim_vm *vm = &sim.vm[nr % sim.p.vms];

	if (!sim_vm_free(vm))
		vm = sim_any_vm();
	if (!vm)
		return;
	sim.count.faults[fault]++;
	switch (fault) {
	case SIM_FAULT_MOVE:
		sim_move(vm);
		break;
	case SIM_FAULT_MOVE_TWO:
		sim_move(vm);
		sim_move(sim_any_vm());
		break;
	case SIM_FAULT_PAUSE:
		sim_job(vm, "pause", sim_pauser);
		break;
	case SIM_FAULT_CRASH:
		/* Also in the middle of something else. */
		vm->busy = true;
		sim_job(vm, "crash", sim_crasher);
		break;
	case SIM_FAULT_REBOOT:
		vm->busy = true;
		sim_job(vm, "reboot", sim_rebooter);
		break;
	case SIM_FAULT_IDLE:
		sim_vm_post(&vm->work, SIM_WORK_IDLE, 0, 0, NULL);
		break;
	case SIM_FAULT_SWITCH:
		sim_vm_post(&vm->work, SIM_WORK_SWITCH, 0, 0, NULL);
		break;
	case SIM_FAULT_LOSE:
		sim.lose = sim.lose ? 0 : sim_between(1, 10);
		break;
	case SIM_FAULT_FLOOD:
		sim_vm_post(&vm->work, SIM_WORK_FLOOD, 0, 0, NULL);
		break;
	case SIM_FAULT_EVICT:
		sim_vm_post(&vm->work, SIM_WORK_EVICT, 0, 0, NULL);
		break;
	case SIM_FAULT_TOUR:
		vm->busy = true;
		vm->moving = true;
		sim_job(vm, "tour", sim_tourist);
		break;
	case SIM_FAULT_MEET:
		sim_meet(vm);
		break;
	case SIM_FAULT_DAEMON:
		sim_job(vm, "daemon", sim_daemon);
		break;
	case SIM_FAULT_CLOCK:
		vm->ticks = sim_between(2, 80);
		vm->node.heap.tick += sim_chance(2) ? (u32)sim_rng() : 0;
		break;
	case SIM_FAULT_HOG:
		sim_vm_post(&vm->work, SIM_WORK_HOG, 0, 0, NULL);
		break;
	case SIM_FAULT_REVERT:
		vm->busy = true;
		sim_job(vm, "revert", sim_reverter);
		break;
	case SIM_FAULT_RESTORE:
		vm->busy = true;
		vm->moving = true;
		sim_job(vm, "restore", sim_restorer);
		break;
	case SIM_FAULT_REMOVE:
		vm->busy = true;
		vm->moving = true;
		sim_job(vm, "remove", sim_remover);
		break;
	default:
		abort();
	}
}

static struct sim_sock *sim_sock_new(struct sim_vm *vm, bool client)
{
	struct sim_sock *s = calloc(1, sizeof(*s));

	if (!s || sim.socks == SIM_CONNS_MAX * 2)
		abort();
	s->vm = vm;
	s->id = sim.socks;
	s->client = client;
	s->total = sim_chance(8) ? 0 : sim_size(sim.p.bytes);
	s->stop_at = sim_chance(6) ? sim_below((u32)s->total + 1) : SIM_NEVER;
	s->piece_max = 1u << sim_between(0, 13);
	s->think = sim_chance(2) ? sim_size(5000) : 0;
	/* Some last for longer than VMs stay where they are. */
	if (sim_chance(6))
		s->think = sim_between(1000, 4 * sim.p.tick);
	s->oob = sim_chance(4) ? sim_between(2, 40) : 0;
	s->app = sim_chance(2) ? SIM_APP_BLOCK : sim_below(SIM_APPS);
	if (force.app >= 0)
		s->app = (u32)force.app;
	s->turns = sim_chance(4);
	s->peek = sim_chance(3) ? sim_between(1, 20) : 0;
	sim.sock[sim.socks++] = s;
	return s;
}

static void sim_open(struct sim_vm *a, struct sim_vm *b)
{
	struct sim_sock *c = sim_sock_new(a, true), *s = sim_sock_new(b, false);

	c->peer = s;
	s->peer = c;
	c->out = s->in = malloc(sizeof(struct sim_tcp));
	c->in = s->out = malloc(sizeof(struct sim_tcp));
	if (!c->out || !c->in)
		abort();
	sim_tcp_init(c->out, c, s, (u32)sim_rng());
	sim_tcp_init(c->in, s, c, (u32)sim_rng());
	sim.count.conns++;
	sim_handshake(c, SIM_WORK_SYN, &a->cpu[0]);
	while (!c->closed || !s->closed)
		sim_pause(sim_between(50, 500));
	/* Bytes that were on their way, and work about it, refer to it for a while. */
}

static void sim_opener(void *arg)
{
	u32 n = (u32)(uintptr_t)arg;
	struct sim_vm *a, *b;

	while (n) {
		a = &sim.vm[sim_below(sim.p.vms)];
		b = &sim.vm[sim_below(sim.p.vms)];
		/* Few connect to another group: they have nothing to do with this one's memory. */
		if (a == b || (a->group != b->group && !sim_chance(8)) || a->crashed || b->crashed || a->paused || b->paused) {
			sim_pause(sim_between(10, 1000));
			continue;
		}
		sim_open(a, b);
		n--;
		sim_pause(sim_size(2000));
	}
	openers--;
}

/*
 * The time in which each VM has had @n ticks, mostly. Time is what all VMs do, one after the other,
 * and a tick looks at each slot: with many of both it takes longer than the tick's interval.
 */
static u64 sim_ticks(u32 n)
{
	return n * (sim.p.tick + 64ULL * sim.p.vms * sim.p.slots);
}

static void sim_faulter(void *arg)
{
	u64 end;
	u32 i;

	(void)arg;
	for (i = 0; i < sim.p.faults; i++) {
		sim_pause(sim.plan[i].delay);
		if (!openers)
			break;
		if (!(sim.drop & 1ULL << i))
			sim_fault(sim.plan[i].fault, sim.plan[i].vm);
	}
	end = sim.now;
	while (jobs) {
		sim_pause(100);
		/* A VM may not get through a join while somebody lies to it without a pause. */
		if (sim.now - end > sim_ticks(20))
			sim.lying = false;
		if (sim.spoiled && sim.now - end > sim_ticks(60))
			sim.over = true;
	}
	sim.lying = false;
	sim.lose = 0;
	sim.faults_over = true;
	sim_trace("faults are over");
}

static void sim_booter(void *arg)
{
	sim_place(arg, true, false);
	jobs--;
}

static u32 ticked[SIM_VMS_MAX];

static void sim_ticks_mark(void)
{
	u32 i;

	for (i = 0; i < sim.p.vms; i++)
		ticked[i] = sim.vm[i].ticked;
}

/* Have all had @n ticks since the mark? With a CPU that is taken away all the time it takes long. */
static bool sim_ticked(u32 n)
{
	u32 i;

	for (i = 0; i < sim.p.vms; i++)
		if (sim.vm[i].node_up && sim.vm[i].ticked - ticked[i] < n)
			return false;
	return true;
}

static void sim_all_up(void)
{
	u32 i;

	u64 start = sim.now;

	for (i = 0; i < sim.p.vms; i++)
		while (!sim.vm[i].node_up && !(sim.spoiled && sim.vm[i].group)) {
			sim_pause(100);
			if (sim.now - start > sim_ticks(100))
				sim_fail("%s does not come up", sim.vm[i].name);
		}
}

/* Connections that were closed, and are open again, belong to nobody who waits for their end. */
static bool sim_set_back_left(void)
{
	u32 i;

	for (i = 0; sim.restores && i < sim.socks; i++)
		if (sim.sock[i]->set_back && !sim.sock[i]->closed)
			return true;
	return false;
}

static bool sim_open_left(void)
{
	u32 i;

	for (i = 0; i < sim.socks; i++)
		if (!sim.sock[i]->closed && !sim_spoiled(sim.sock[i]))
			return true;
	return false;
}

/* Programs whose connections were spoiled give up: each call that they are in has to end. */
static void sim_give_up(void)
{
	u32 i;

	sim.over = true;
	for (i = 0; i < sim.socks; i++)
		if (!sim.sock[i]->closed && sim_spoiled(sim.sock[i]) && !sim.sock[i]->reset) {
			sim.sock[i]->reset = true;
			sim_sock_ready(sim.sock[i]);
		}
}

/* VMs that were lied to leave, and have nothing of their private memory left. */
static void sim_leave_spoiled(void)
{
	u32 i;
	u64 start;

	for (i = 0; i < sim.p.vms; i++) {
		struct sim_vm *vm = &sim.vm[i];

		if (!vm->group || !vm->node_up || vm->crashed)
			continue;
		sim_spawn(vm, &vm->cpu[0], "leave", sim_leaver, vm);
		start = sim.now;
		while (vm->plugged) {
			sim_pause(100);
			if (sim.now - start > sim_ticks(200))
				sim_fail("%s, which was lied to, cannot leave", vm->name);
		}
		if (sim_allocated(vm))
			sim_fail("%s, which was lied to, has left and keeps %llu blocks of memory",
				 vm->name, (unsigned long long)sim_allocated(vm));
	}
}

void sim_world(void *arg)
{
	u64 progress = 0, since = 0;
	u32 i, n;

	(void)arg;
	openers = 0;
	jobs = 0;
	sim_ticks_mark();
	for (i = 0; i < sim.p.hosts; i++)
		sim_spawn(NULL, NULL, "host", sim_host_tick, &sim.host[i]);
	for (i = 0; i < sim.p.vms; i++) {
		jobs++;
		sim_spawn(NULL, NULL, "boot", sim_booter, &sim.vm[i]);
	}
	if (sim_chance(4))
		sim_pause(sim_between(100, 10000));
	else
		sim_all_up();
	for (n = sim.p.conns; n;) {
		u32 each = sim_between(1, n);

		openers++;
		sim_spawn(NULL, NULL, "open", sim_opener, (void *)(uintptr_t)each);
		n -= each;
	}
	sim_spawn(NULL, NULL, "faults", sim_faulter, NULL);
	if (sim.p.lies) {
		sim.lying = true;
		sim_spawn(NULL, NULL, "liar", sim_liar, NULL);
	}
	while (openers || !sim.faults_over || sim_set_back_left()) {
		sim_pause(500);
		if ((sim.spoiled || sim.restores) && sim.faults_over &&
		    (sim.over || (!sim.restores && !sim_open_left()) || sim.now - since > sim_ticks(20)))
			sim_give_up();
		if (sim.now > 4000000000ULL)
			sim_fail("there is no end");
		if (!sim.faults_over || sim.count.progress != progress) {
			progress = sim.count.progress;
			since = sim.now;
			sim_ticks_mark();
		} else if (sim.now - since > sim_ticks(100) && sim_ticked(20)) {
			sim_threads_print();
			sim_check_show_open();
			sim_fail("no connection goes on, long after the last fault: %u openers", openers);
		}
	}
	sim_all_up();
	sim_ticks_mark();
	sim_pause(sim_ticks(12));
	while (!sim_ticked(6))
		sim_pause(sim.p.tick);
	sim_check_rest();
	if (sim.spoiled)
		sim_leave_spoiled();
	sim.finished = true;
	sim_yield();
	sim_pause(1);
}
