// SPDX-License-Identifier: GPL-2.0-or-later
/* chaos.c - the world: boots VMs, opens connections, makes faults, waits for the end */
#include "sim.h"

const char *const sim_fault_name[SIM_FAULTS] = {
	[SIM_FAULT_MOVE] = "move",	   [SIM_FAULT_MOVE_TWO] = "move-two",
	[SIM_FAULT_PAUSE] = "pause",	   [SIM_FAULT_CRASH] = "crash",
	[SIM_FAULT_REBOOT] = "reboot",	   [SIM_FAULT_IDLE] = "idle",
	[SIM_FAULT_SWITCH] = "switch",	   [SIM_FAULT_LOSE] = "lose",
	[SIM_FAULT_FLOOD] = "flood",	   [SIM_FAULT_EVICT] = "evict",
};

static u32 openers, jobs;

/* Wait for a slot on some host, plug the device in. */
static void sim_place(struct sim_vm *vm, bool boot, bool elsewhere)
{
	u32 host, life = vm->life;
	int slot;

	for (;;) {
		/* Most are on the first host, so that there is somebody to talk to. */
		host = sim_chance(elsewhere ? 2 : 4) ? sim_below(sim.p.hosts) : 0;
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

static void sim_mover(void *arg)
{
	struct sim_vm *vm = arg;
	struct sim_host *h = &sim.host[vm->host];
	u32 life = vm->life, slot = vm->slot;

	/* The device has to be seen before it can be asked for. */
	while (h->group.slot[slot].state == VMCOMM_SLOT_JOINING && vm->life == life)
		sim_pause(100);
	if (vm->life == life)
		sim_host_move(h, slot, VMCOMM_SLOT_LEAVING);
	if (vm->life == life)
		sim_spawn(vm, &vm->cpu[sim_below(vm->ncpu)], "leave", sim_leaver, vm);
	while (vm->life == life && vm->plugged)
		sim_pause(sim_between(20, 200));
	if (vm->life == life) {
		sim_host_move(h, slot, VMCOMM_SLOT_LEFT);
		/* What other people call downtime. */
		if (sim_chance(2) && vm->life == life) {
			sim_vm_pause(vm, true);
			sim_pause(sim_size(2 * sim.p.tick));
			sim_vm_pause(vm, false);
		}
		sim_pause(sim_size(2 * sim.p.tick));
	}
	if (vm->life == life) {
		sim.count.moves++;
		sim_place(vm, false, true);
	}
	vm->busy = false;
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

static struct sim_vm *sim_any_vm(void)
{
	struct sim_vm *vm = &sim.vm[sim_below(sim.p.vms)];

	return vm->busy || vm->crashed || vm->moving || vm->paused ? NULL : vm;
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

static void sim_fault(u32 fault)
{
	struct sim_vm *vm = sim_any_vm();

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
	s->oob = sim_chance(4) ? sim_between(2, 40) : 0;
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
		if (a == b || a->crashed || b->crashed || a->paused || b->paused) {
			sim_pause(sim_between(10, 1000));
			continue;
		}
		sim_open(a, b);
		n--;
		sim_pause(sim_size(2000));
	}
	openers--;
}

static void sim_faulter(void *arg)
{
	u32 n = sim.p.faults, fault;

	(void)arg;
	while (n) {
		sim_pause(sim_size(2 * sim.p.tick));
		if (!openers)
			break;
		fault = sim_below(SIM_FAULTS);
		if (!(sim.p.fault_mask & 1u << fault))
			continue;
		sim_fault(fault);
		n--;
	}
	while (jobs)
		sim_pause(100);
	sim.lose = 0;
	sim.faults_over = true;
	sim_trace("faults are over");
}

static void sim_booter(void *arg)
{
	sim_place(arg, true, false);
	jobs--;
}

static void sim_all_up(void)
{
	u32 i;

	u64 start = sim.now;

	for (i = 0; i < sim.p.vms; i++)
		while (!sim.vm[i].node_up) {
			sim_pause(100);
			if (sim.now - start > 100ULL * sim.p.tick)
				sim_fail("%s does not come up", sim.vm[i].name);
		}
}

void sim_world(void *arg)
{
	u64 progress = 0, since = 0;
	u32 i, n;

	(void)arg;
	openers = 0;
	jobs = 0;
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
	while (openers || !sim.faults_over) {
		sim_pause(500);
		if (!sim.faults_over || sim.count.progress != progress) {
			progress = sim.count.progress;
			since = sim.now;
		} else if (sim.now - since > 100ULL * sim.p.tick) {
			sim_threads_print();
			sim_check_show_open();
			sim_fail("no connection goes on, long after the last fault: %u openers", openers);
		}
	}
	sim_all_up();
	sim_pause(12 * sim.p.tick);
	sim_check_rest();
	sim.finished = true;
	sim_yield();
	sim_pause(1);
}
