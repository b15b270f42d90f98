// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * sched.c - threads of all simulated VMs, and time
 *
 * Threads are switched by hand on stacks of their own. Time is a number; a step costs one unit,
 * and when nobody can run it jumps to the next event.
 */
#include <stdarg.h>
#include <sys/mman.h>

#include "sim.h"

struct sim_event {
	u64 time;
	u64 nr;
	sim_event_fn *fn;
	void *a;
	u64 b;
};

static struct sim_thread threads[SIM_THREADS_MAX];
static struct sim_thread *runnable[SIM_THREADS_MAX];
static u32 runnable_count, threads_used;
static struct sim_event *events;
static u32 event_count, event_size;
static u64 event_nr;
static void *main_sp;

void sim_switch_stack(void **save, void *load);
__asm__(".text\n"
	".globl sim_switch_stack\n"
	".type sim_switch_stack, @function\n"
	"sim_switch_stack:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size sim_switch_stack, .-sim_switch_stack\n");

/* --- events --- */

static bool sim_event_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->time < b->time || (a->time == b->time && a->nr < b->nr);
}

void sim_at(u64 delay, sim_event_fn *fn, void *a, u64 b)
{
	struct sim_event e = {.time = sim.now + delay, .nr = ++event_nr, .fn = fn, .a = a, .b = b};
	u32 i;

	if (event_count == event_size) {
		event_size = event_size ? event_size * 2 : 1024;
		events = realloc(events, event_size * sizeof(*events));
		if (!events)
			abort();
	}
	for (i = event_count++; i && sim_event_before(&e, &events[(i - 1) / 2]); i = (i - 1) / 2)
		events[i] = events[(i - 1) / 2];
	events[i] = e;
	sim.next_event = events[0].time;
}

static struct sim_event sim_event_pop(void)
{
	struct sim_event first = events[0], e = events[--event_count];
	u32 i = 0, k;

	while ((k = 2 * i + 1) < event_count) {
		if (k + 1 < event_count && sim_event_before(&events[k + 1], &events[k]))
			k++;
		if (!sim_event_before(&events[k], &e))
			break;
		events[i] = events[k];
		i = k;
	}
	events[i] = e;
	sim.next_event = event_count ? events[0].time : SIM_NEVER;
	return first;
}

void sim_run_events(void)
{
	struct sim_event e;

	while (event_count && events[0].time <= sim.now) {
		e = sim_event_pop();
		e.fn(e.a, e.b);
	}
}

/* --- threads --- */

static void sim_run_add(struct sim_thread *t)
{
	t->state = SIM_RUNNABLE;
	t->run_at = runnable_count;
	runnable[runnable_count++] = t;
}

static void sim_run_del(struct sim_thread *t, u32 state)
{
	runnable[t->run_at] = runnable[--runnable_count];
	runnable[t->run_at]->run_at = t->run_at;
	t->state = state;
}

static void sim_thread_list(void)
{
	u32 i;

	for (i = 0; i < threads_used; i++) {
		static const char *const state[] = {"unused", "runnable", "blocked", "stalled",
						    "parked", "dead"};
		struct sim_thread *t = &threads[i];

		if (t->state == SIM_UNUSED || t->state == SIM_DEAD)
			continue;
		fprintf(stderr, "  thread %u %s %s: %s %s\n", i, t->vm ? t->vm->name : "world",
			t->name, state[t->state], t->state == SIM_BLOCKED ? t->what : "");
	}
}

/* Nobody can run: let memory come to rest, look whether somebody should, go on in time. */
static void sim_idle(void)
{
	struct sim_event e;

	sim_drain_all();
	if (runnable_count)
		return;
	sim_check_idle();
	if (!event_count) {
		sim_thread_list();
		sim_fail("nothing will ever happen again");
	}
	e = sim_event_pop();
	if (e.time > sim.now)
		sim.now = e.time;
	e.fn(e.a, e.b);
}

static struct sim_thread *sim_pick(void)
{
	struct sim_thread *t;

	for (;;) {
		if (sim.finished)
			return NULL;
		if (!runnable_count) {
			sim_idle();
			continue;
		}
		t = runnable[runnable_count > 1 ? sim_below(runnable_count) : 0];
		if (!t->vm || !t->vm->paused)
			return t;
		sim_run_del(t, SIM_PARKED);
	}
}

static void sim_unstall(void *a, u64 b)
{
	struct sim_thread *t = a;

	if (t->state == SIM_STALLED && t->sleep_nr == b)
		sim_run_add(t);
}

void sim_reschedule(void)
{
	struct sim_thread *old = sim.cur, *next;

	sim.until_switch = (s32)sim_between(1, 2 * sim.p.switch_mean);
	if (sim_chance(sim.p.burst))
		sim.until_switch += (s32)sim_below(2000);
	if (old->state == SIM_RUNNABLE && old->vm && sim_chance(sim.p.stall)) {
		sim_run_del(old, SIM_STALLED);
		sim_at(sim_size(8000), sim_unstall, old, ++old->sleep_nr);
	}
	next = sim_pick();
	if (next == old)
		return;
	sim.count.switches++;
	if (!next) {
		sim.cur = NULL;
		sim_switch_stack(&old->sp, main_sp);
		return;
	}
	sim.cur = next;
	sim_switch_stack(&old->sp, next->sp);
}

void sim_yield(void)
{
	sim_step();
}

void sim_stall(u64 time)
{
	struct sim_thread *t = sim.cur;

	sim_run_del(t, SIM_STALLED);
	sim_at(time, sim_unstall, t, ++t->sleep_nr);
	sim_reschedule();
}

static void sim_timeout(void *a, u64 b)
{
	struct sim_thread *t = a;

	if (t->state == SIM_BLOCKED && t->sleep_nr == b) {
		t->timed_out = true;
		t->wait_for = NULL;
		sim_run_add(t);
	}
}

bool sim_sleep(const void *key, u64 timeout, const char *what)
{
	struct sim_thread *t = sim.cur;

	sim_late_settle();
	t->wait_for = key;
	t->what = what;
	t->timed_out = false;
	t->sleep_nr++;
	sim_run_del(t, SIM_BLOCKED);
	if (timeout)
		sim_at(timeout, sim_timeout, t, t->sleep_nr);
	sim_reschedule();
	return !t->timed_out;
}

void sim_pause(u64 time)
{
	static const char nobody;

	sim_sleep(&nobody, time ? time : 1, "time");
}

void sim_wake(const void *key)
{
	u32 i;

	for (i = 0; i < threads_used; i++)
		if (threads[i].state == SIM_BLOCKED && threads[i].wait_for == key) {
			threads[i].wait_for = NULL;
			threads[i].sleep_nr++;
			sim_run_add(&threads[i]);
		}
}

void sim_unpark(struct sim_vm *vm)
{
	u32 i;

	for (i = 0; i < threads_used; i++)
		if (threads[i].state == SIM_PARKED && threads[i].vm == vm)
			sim_run_add(&threads[i]);
}

void sim_kill_vm_threads(struct sim_vm *vm)
{
	u32 i;

	for (i = 0; i < threads_used; i++) {
		struct sim_thread *t = &threads[i];

		if (t->vm != vm || t->state == SIM_UNUSED)
			continue;
		if (t->state == SIM_RUNNABLE)
			sim_run_del(t, SIM_UNUSED);
		t->state = SIM_UNUSED;
		t->sleep_nr++;
	}
}

static void sim_thread_main(void)
{
	struct sim_thread *t = sim.cur;

	t->fn(t->arg);
	if (t->locks || t->lockless)
		sim_fail("thread %s ends with a lock held", t->name);
	sim_run_del(t, SIM_UNUSED);
	sim_reschedule();
	abort();
}

struct sim_thread *sim_spawn(struct sim_vm *vm, struct sim_cpu *cpu, const char *name,
			     void (*fn)(void *arg), void *arg)
{
	struct sim_thread *t;
	u64 nr;
	u8 *stack;
	void **sp;
	u32 i;

	for (i = 0; i < SIM_THREADS_MAX && threads[i].state != SIM_UNUSED; i++)
		;
	if (i == SIM_THREADS_MAX)
		sim_fail("too many threads");
	if (i >= threads_used)
		threads_used = i + 1;
	t = &threads[i];
	stack = t->stack;
	nr = t->sleep_nr;
	if (!stack) {
		stack = mmap(NULL, SIM_STACK, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
		if (stack == MAP_FAILED || mprotect(stack, 4096, PROT_NONE))
			abort();
	}
	memset(t, 0, sizeof(*t));
	t->stack = stack;
	t->sleep_nr = nr + 1;
	t->id = i;
	t->vm = vm;
	t->cpu = cpu;
	t->fn = fn;
	t->arg = arg;
	snprintf(t->name, sizeof(t->name), "%s", name);
	sp = (void **)(stack + SIM_STACK);
	*--sp = NULL; /* the return address of sim_thread_main(), keeps the stack aligned */
	*--sp = (void *)sim_thread_main;
	sp -= 6;
	memset(sp, 0, 6 * sizeof(*sp));
	t->sp = sp;
	sim_run_add(t);
	return t;
}

void sim_sched_run(void)
{
	struct sim_thread *first = sim_pick();

	if (!first)
		return;
	sim.cur = first;
	sim.until_switch = 1;
	sim_switch_stack(&main_sp, first->sp);
	sim.cur = NULL;
}

void sim_sched_reset(void)
{
	u32 i;

	for (i = 0; i < SIM_THREADS_MAX; i++) {
		threads[i].state = SIM_UNUSED;
		threads[i].sleep_nr = 0;
	}
	threads_used = 0;
	runnable_count = 0;
	event_count = 0;
	event_nr = 0;
	sim.next_event = SIM_NEVER;
}

/* Whose threads are where: for people who look for a hang. */
void sim_threads_print(void)
{
	sim_thread_list();
}

bool sim_stalled(const struct sim_vm *vm)
{
	u32 i;

	for (i = 0; i < threads_used; i++)
		if (threads[i].state == SIM_STALLED && threads[i].vm == vm)
			return true;
	return false;
}
