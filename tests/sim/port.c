// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * port.c - what port/sim.h declares: memory with store buffers, locks, allocation
 *
 * A store goes into the buffer of its CPU and from there into memory at some later step. In the
 * strong mode (x86-TSO) buffers are first in, first out. In the weak mode a store may overtake
 * earlier ones to other places unless a write barrier or its own "release" forbids it, and a load
 * may return what a word held at any moment since the CPU's last acquire, read barrier or full
 * barrier, but never something older than what this CPU has read or written there itself.
 */
#include <stdarg.h>

#include "sim.h"

enum sim_entry_kind {
	SIM_ENTRY_WORD,
	SIM_ENTRY_BLOB,
	SIM_ENTRY_ZERO,
	SIM_ENTRY_WMB,
	SIM_ENTRY_BELL,
};

/* Old values of words, for early loads. Words are 8 bytes, known by their place in the region. */
#define HISTORY	      4096
#define HISTORY_DEPTH 4
#define HISTORY_TIME  2000 /* no processor looks back for ever */

struct sim_history {
	u32 word;
	u32 n;
	struct {
		u64 clock;
		u64 time;
		u64 old;
	} was[HISTORY_DEPTH];
};

static struct sim_history history[HISTORY];

static u32 sim_word(const struct sim_host *h, const void *p)
{
	return (u32)(((const u8 *)p - h->base) >> 3) + (h->id << 26) + 1;
}

struct sim_host *sim_host_of(const void *p)
{
	u32 i;

	for (i = 0; i < sim.p.hosts; i++)
		if ((u64)((const u8 *)p - sim.host[i].base) < sim.host[i].size)
			return &sim.host[i];
	return NULL;
}

/* Whose area is this? The slot, or -1: the host's. */
static int sim_owner(const struct sim_host *h, const void *p)
{
	u64 off = (u64)((const u8 *)p - h->base);

	if (off < h->lay.ctl_off)
		return -1;
	if (off < h->lay.heap_off)
		return (int)((off - h->lay.ctl_off) / h->lay.ctl_stride);
	return (int)((off - h->lay.heap_off) / h->lay.slice_size);
}

static struct sim_host *sim_check_access(const void *p, size_t n, bool write)
{
	struct sim_vm *vm = sim.cur->vm;
	struct sim_host *h;
	u64 off;

	if (!vm) {
		h = sim_host_of(p);
		if (!h)
			sim_fail("the host accesses memory outside of all regions");
		if (write && sim_owner(h, p) != -1)
			sim_fail("the host writes to a guest's area");
		return h;
	}
	h = &sim.host[vm->host];
	off = (u64)((const u8 *)p - h->base);
	if (off >= h->size || n > h->size - off)
		sim_fail("%s %s %zu bytes outside of its region", vm->name,
			 write ? "writes" : "reads", n);
	if (!vm->plugged)
		sim_fail("%s %s shared memory (offset 0x%llx) without the device", vm->name,
			 write ? "writes" : "reads", (unsigned long long)off);
	if (write && sim_owner(h, p) != (int)vm->slot)
		sim_fail("%s in slot %u writes at offset 0x%llx, which is slot %d's", vm->name,
			 vm->slot, (unsigned long long)off, sim_owner(h, p));
	return h;
}

/* Bytes are copied: the chunk must be in use, for the one of the two that is not its owner. */
static void sim_check_chunk(const struct sim_host *h, const void *p)
{
	u64 off = (u64)((const u8 *)p - h->base) - h->lay.heap_off;
	u32 slot = (u32)(off / h->lay.slice_size);
	u32 nr = (u32)((off % h->lay.slice_size) >> h->lay.chunk_shift);
	const struct sim_vm *vm = sim.cur->vm, *owner;
	const struct vmcomm_chunk *c;

	/* Who is lied to may read what is not for it: only bounds count then. */
	if (vm && vm->group && sim.spoiled)
		return;
	if (!vm || (u64)((const u8 *)p - h->base) < h->lay.heap_off || slot >= h->lay.slots)
		return;
	owner = h->vm[slot];
	/* Of one that left, died or lost its device the memory stays as it is. */
	if (!owner || !owner->node_up || owner->lost || !owner->node.heap.chunk || nr >= owner->node.heap.chunks)
		return;
	c = &owner->node.heap.chunk[nr];
	if (c->state < VMCOMM_CHUNK_HEAD)
		sim_fail("%s copies bytes of chunk %u of %s, which is free", vm->name, nr, owner->name);
	if (owner != vm && c->peer != vm->slot)
		sim_fail("%s copies bytes of chunk %u of %s, which is for slot %u", vm->name, nr,
			 owner->name, c->peer);
}

static struct sim_cpu *sim_this_cpu(struct sim_host *h)
{
	return sim.cur->cpu ? sim.cur->cpu : &h->cpu;
}

/* --- store buffers --- */

static void sim_history_add(u8 *addr, u32 len)
{
	struct sim_host *h = sim_host_of(addr);
	u8 *p = h->base + (((u64)(addr - h->base)) & ~7ULL), *end = addr + len;

	for (; p < end; p += 8) {
		u32 word = sim_word(h, p);
		struct sim_history *e = &history[word % HISTORY];

		if (e->word != word) {
			e->word = word;
			e->n = 0;
		}
		e->was[e->n % HISTORY_DEPTH].clock = sim.memory_clock;
		e->was[e->n % HISTORY_DEPTH].time = sim.now;
		memcpy(&e->was[e->n % HISTORY_DEPTH].old, p, 8);
		e->n++;
	}
}

static void sim_seen(struct sim_cpu *cpu, u32 word, u64 clock)
{
	u32 i = word % 64;

	if (cpu->seen[i].word != word && cpu->seen[i].clock > cpu->floor)
		cpu->floor = cpu->seen[i].clock;
	cpu->seen[i].word = word;
	cpu->seen[i].clock = clock;
}

static void sim_apply(struct sim_cpu *cpu, struct sim_entry *e)
{
	if (e->kind == SIM_ENTRY_BELL) {
		sim_host_deliver((u32)(e->value >> 32), (u32)(e->value >> 16) & 0xffff,
				 (u32)e->value & 0xffff);
		return;
	}
	if (e->kind == SIM_ENTRY_WMB)
		return;
	sim.memory_clock++;
	if (sim.p.weak && e->kind != SIM_ENTRY_ZERO) {
		sim_history_add(e->addr, e->len);
		if (e->kind == SIM_ENTRY_WORD)
			sim_seen(cpu, sim_word(sim_host_of(e->addr), e->addr), sim.memory_clock);
		else
			cpu->floor = sim.memory_clock;
	}
	if (e->kind == SIM_ENTRY_WORD)
		memcpy(e->addr, &e->value, e->len);
	else if (e->kind == SIM_ENTRY_BLOB)
		memcpy(e->addr, e->blob, e->len);
	else
		memset(e->addr, 0, e->len);
}

/* NOLINTBEGIN(clang-analyzer-core.NullDereference): a simulated thread has a CPU */
static void sim_entry_drain(struct sim_cpu *cpu, u32 i)
{
	struct sim_entry e = cpu->q[i];

	cpu->n--;
	memmove(&cpu->q[i], &cpu->q[i + 1], (cpu->n - i) * sizeof(e));
	sim_apply(cpu, &e);
	free(e.blob);
}
/* NOLINTEND(clang-analyzer-core.NullDereference) */

void sim_cpu_drain(struct sim_cpu *cpu, u64 upto)
{
	u32 i = 0;

	while (i < cpu->n) /* NOLINT(clang-analyzer-core.NullDereference): as above */
		if (cpu->q[i].nr <= upto)
			sim_entry_drain(cpu, i);
		else
			i++;
}

void sim_cpu_lose(struct sim_cpu *cpu)
{
	u32 keep = sim_below(cpu->n + 1);

	while (keep--)
		sim_entry_drain(cpu, 0);
	while (cpu->n)
		free(cpu->q[--cpu->n].blob);
}

static bool sim_lost(void)
{
	return sim.cur->vm && sim.cur->vm->lost;
}

static bool sim_may_drain(const struct sim_cpu *cpu, u32 i)
{
	const struct sim_entry *e = &cpu->q[i];
	u32 k;

	if (i && (e->release || e->kind == SIM_ENTRY_WMB || e->kind == SIM_ENTRY_BELL))
		return false;
	for (k = 0; k < i; k++) {
		const struct sim_entry *o = &cpu->q[k];

		if (o->kind == SIM_ENTRY_WMB)
			return false;
		if (o->kind != SIM_ENTRY_BELL && o->addr < e->addr + e->len &&
		    e->addr < o->addr + o->len)
			return false;
	}
	return true;
}

static void sim_drain_one(struct sim_cpu *cpu)
{
	u32 i;

	if (sim.p.weak && cpu->n > 1) {
		i = sim_below(cpu->n);
		if (sim_may_drain(cpu, i)) {
			sim_entry_drain(cpu, i);
			return;
		}
	}
	sim_entry_drain(cpu, 0);
}

void sim_cpu_drain_some(void)
{
	struct sim_cpu *cpu;
	struct sim_vm *vm;
	u64 r = sim_rng();

	if ((u32)r % sim.p.drain)
		return;
	vm = &sim.vm[(u32)(r >> 32) % (sim.p.vms + 1)];
	if (vm == &sim.vm[sim.p.vms])
		cpu = &sim.host[(u32)(r >> 40) % sim.p.hosts].cpu;
	else
		cpu = &vm->cpu[(u32)(r >> 48) % vm->ncpu];
	if (cpu->n)
		sim_drain_one(cpu);
}

void sim_drain_all(void)
{
	u32 i, k;

	for (i = 0; i < sim.p.vms; i++)
		for (k = 0; k < sim.vm[i].ncpu; k++)
			sim_cpu_drain(&sim.vm[i].cpu[k], SIM_NEVER);
	for (i = 0; i < sim.p.hosts; i++)
		sim_cpu_drain(&sim.host[i].cpu, SIM_NEVER);
}

static struct sim_entry *sim_entry_new(struct sim_cpu *cpu, u32 kind)
{
	struct sim_entry *e;

	while (cpu->n == SIM_STORES_MAX)
		sim_drain_one(cpu);
	e = &cpu->q[cpu->n++];
	memset(e, 0, sizeof(*e));
	e->kind = (u8)kind;
	e->nr = ++cpu->nr;
	return e;
}

void sim_cpu_doorbell(struct sim_cpu *cpu, u32 host, u32 slot, u32 vector)
{
	struct sim_entry *e = sim_entry_new(cpu, SIM_ENTRY_BELL);

	e->value = (u64)host << 32 | slot << 16 | vector;
}

void sim_store(void *p, u64 v, u32 size, u32 release)
{
	struct sim_entry *e;
	struct sim_host *h;

	if (!sim.cur) {
		memcpy(p, &v, size);
		return;
	}
	/* A release waits for earlier loads; another store may overtake them. */
	if (release)
		sim_late_settle();
	h = sim_check_access(p, size, true);
	if (sim_lost()) {
		sim_step();
		return;
	}
	e = sim_entry_new(sim_this_cpu(h), SIM_ENTRY_WORD);
	e->addr = p;
	e->len = size;
	e->value = v;
	e->release = (u8)release;
	/* Before loads that it overtakes are made others may see it, and act on it for long. */
	if (!release && sim.cur->lates && sim_chance(4)) {
		sim_cpu_drain(sim_this_cpu(h), e->nr);
		sim_stall(sim_size(8000));
		return;
	}
	if (size > 1 || !(v & 7))
		sim_step();
}

void sim_copy_in(void *dst, const void *src, size_t n)
{
	size_t done = 0, piece;
	struct sim_entry *e;
	struct sim_host *h;

	while (done < n) {
		piece = n - done;
		if (piece > 8 && sim_chance(2))
			piece = 1 + sim_below((u32)piece);
		h = sim_check_access((u8 *)dst + done, piece, true);
		if (sim_lost()) {
			sim_step();
			return;
		}
		sim_check_chunk(h, (u8 *)dst + done);
		e = sim_entry_new(sim_this_cpu(h), SIM_ENTRY_BLOB);
		e->addr = (u8 *)dst + done;
		e->len = (u32)piece;
		e->blob = malloc(piece);
		if (!e->blob)
			abort();
		memcpy(e->blob, (const u8 *)src + done, piece);
		done += piece;
		sim_step();
	}
}

void sim_zero(void *dst, size_t n)
{
	struct sim_host *h = sim_check_access(dst, n, true);
	struct sim_entry *e;

	if (sim_lost())
		return;
	e = sim_entry_new(sim_this_cpu(h), SIM_ENTRY_ZERO);
	e->addr = dst;
	e->len = (u32)n;
	sim_step();
}

/* Memory as this CPU sees it: with its own stores. Return: true if one of them is in it. */
static bool sim_forward(const struct sim_cpu *cpu, const u8 *p, u8 *out, size_t n)
{
	bool own = false;
	u32 i;

	for (i = 0; i < cpu->n; i++) {
		const struct sim_entry *e = &cpu->q[i];
		const u8 *from, *to;

		if (e->kind > SIM_ENTRY_ZERO || e->addr >= p + n || e->addr + e->len <= p)
			continue;
		own = true;
		from = e->addr > p ? e->addr : p;
		to = e->addr + e->len < p + n ? e->addr + e->len : p + n;
		if (e->kind == SIM_ENTRY_WORD)
			memcpy(out + (from - p), (const u8 *)&e->value + (from - e->addr),
			       (size_t)(to - from));
		else if (e->kind == SIM_ENTRY_BLOB)
			memcpy(out + (from - p), e->blob + (from - e->addr), (size_t)(to - from));
		else
			memset(out + (from - p), 0, (size_t)(to - from));
	}
	return own;
}

static u64 sim_floor(const struct sim_cpu *cpu, u32 word)
{
	u64 seen = cpu->seen[word % 64].word == word ? cpu->seen[word % 64].clock : 0;

	return seen > cpu->floor ? seen : cpu->floor;
}

/*
 * Weak mode: what the 8 bytes at @p held at some moment that this load may have been made at.
 * Return: that moment.
 */
static u64 sim_early(struct sim_cpu *cpu, struct sim_host *h, const u8 *p, u8 *eight)
{
	u32 word = sim_word(h, p), i, from, pick = 0, found = 0;
	struct sim_history *e = &history[word % HISTORY];
	u64 floor = sim_floor(cpu, word);

	if (e->word == word) {
		from = e->n > HISTORY_DEPTH ? e->n - HISTORY_DEPTH : 0;
		for (i = from; i < e->n; i++)
			if (e->was[i % HISTORY_DEPTH].clock > floor &&
			    sim.now - e->was[i % HISTORY_DEPTH].time < HISTORY_TIME &&
			    !sim_below(++found))
				pick = i;
	}
	if (!found || !sim_chance(sim.p.early)) {
		memcpy(eight, h->base + (((u64)(p - h->base)) & ~7ULL), 8);
		sim_seen(cpu, word, sim.memory_clock);
		return sim.memory_clock;
	}
	sim.count.early++;
	memcpy(eight, &e->was[pick % HISTORY_DEPTH].old, 8);
	sim_seen(cpu, word, e->was[pick % HISTORY_DEPTH].clock - 1);
	return e->was[pick % HISTORY_DEPTH].clock - 1;
}

u64 sim_load(const void *p, u32 size, u32 acquire)
{
	struct sim_cpu *cpu;
	struct sim_host *h;
	u64 v = 0, moment;
	u8 eight[8];

	if (!sim.cur) {
		memcpy(&v, p, size);
		return v;
	}
	if (size > 1 || !((uintptr_t)p & 15))
		sim_step();
	h = sim_check_access(p, size, false);
	if (sim_lost())
		return ~0ULL >> (64 - 8 * size);
	cpu = sim_this_cpu(h);
	memcpy(&v, p, size);
	if (sim.p.weak && cpu->n && sim_forward(cpu, p, (u8 *)&v, size))
		moment = cpu->floor;
	else if (sim.p.weak) {
		moment = sim_early(cpu, h, p, eight);
		v = 0;
		memcpy(&v, eight + ((uintptr_t)p & 7), size);
	} else {
		sim_forward(cpu, p, (u8 *)&v, size);
		return v;
	}
	if (acquire && moment > cpu->floor)
		cpu->floor = moment;
	return v;
}

/* Weak mode: bytes of others are loaded when somebody needs them, perhaps after later stores. */
static bool sim_late_add(const struct sim_host *h, u8 *dst, const u8 *src, u32 n)
{
	struct sim_thread *t = sim.cur;

	if (!sim.p.weak || !t->vm || sim_owner(h, src) == (int)t->vm->slot || t->lates == SIM_LATE ||
	    !sim_chance(2))
		return false;
	memset(dst, 0x5a, n);
	t->late[t->lates].dst = dst;
	t->late[t->lates].src = src;
	t->late[t->lates++].n = n;
	return true;
}

void sim_late_settle(void)
{
	struct sim_thread *t = sim.cur;
	u32 i;

	for (i = 0; t && i < t->lates; i++) {
		memcpy(t->late[i].dst, t->late[i].src, t->late[i].n);
		sim.count.late++;
	}
	if (t)
		t->lates = 0;
}

void sim_copy_out(void *dst, const void *src, size_t n)
{
	size_t done = 0, piece, i;
	struct sim_cpu *cpu;
	struct sim_host *h;
	u8 eight[8];

	while (done < n) {
		const u8 *p = (const u8 *)src + done;

		piece = n - done;
		if (piece > 8 && sim_chance(2))
			piece = 1 + sim_below((u32)piece);
		sim_step();
		h = sim_check_access(p, piece, false);
		if (sim_lost()) {
			memset((u8 *)dst + done, 0xff, n - done);
			return;
		}
		sim_check_chunk(h, p);
		cpu = sim_this_cpu(h);
		if (sim_late_add(h, (u8 *)dst + done, p, (u32)piece)) {
			done += piece;
			continue;
		}
		memcpy((u8 *)dst + done, p, piece);
		if (sim.p.weak)
			for (i = 0; i < piece; i++) {
				if (!i || !((uintptr_t)(p + i) & 7))
					sim_early(cpu, h, p + i, eight);
				((u8 *)dst)[done + i] = eight[(uintptr_t)(p + i) & 7];
			}
		sim_forward(cpu, p, (u8 *)dst + done, piece);
		done += piece;
	}
}

void sim_poke(void *p, u64 v, u32 size)
{
	sim.memory_clock++;
	if (sim.p.weak)
		sim_history_add(p, size);
	memcpy(p, &v, size);
}

u64 sim_peek(const void *p, u32 size)
{
	u64 v = 0;

	memcpy(&v, p, size);
	return v;
}

/* The host's thread has a store buffer for each region; barriers concern all of them. */
static u32 sim_cpus_now(struct sim_cpu **cpu)
{
	u32 i;

	if (sim.cur->cpu) {
		cpu[0] = sim.cur->cpu;
		return 1;
	}
	for (i = 0; i < sim.p.hosts; i++)
		cpu[i] = &sim.host[i].cpu;
	return sim.p.hosts;
}

void sim_mb(void)
{
	struct sim_cpu *cpu[SIM_HOSTS_MAX];
	u32 n;

	if (!sim.cur)
		return;
	sim_step();
	sim_late_settle();
	for (n = sim_cpus_now(cpu); n--;) {
		sim_cpu_drain(cpu[n], SIM_NEVER);
		cpu[n]->floor = sim.memory_clock;
	}
}

void sim_rmb(void)
{
	struct sim_cpu *cpu[SIM_HOSTS_MAX];
	u32 n;

	if (!sim.cur)
		return;
	sim_step();
	sim_late_settle();
	for (n = sim_cpus_now(cpu); n--;)
		cpu[n]->floor = sim.memory_clock;
}

void sim_wmb(void)
{
	struct sim_cpu *cpu[SIM_HOSTS_MAX];
	u32 n;

	if (!sim.cur)
		return;
	sim_step();
	for (n = sim_cpus_now(cpu); n--;)
		if (sim.p.weak && cpu[n]->n)
			sim_entry_new(cpu[n], SIM_ENTRY_WMB);
}

void sim_private(void)
{
	if (sim.cur)
		sim_step();
}

/* --- locks --- */

#define CLASSES 32
static const char *class_name[CLASSES];
static u32 classes;
static u8 before[CLASSES][CLASSES];

void sim_lock_init(struct vmcomm_lock *l, const char *name)
{
	u32 i;

	memset(l, 0, sizeof(*l));
	for (i = 0; i < classes && strcmp(class_name[i], name); i++)
		;
	if (i == classes) {
		if (classes == CLASSES)
			abort();
		class_name[classes++] = name;
	}
	l->class = i;
}

void sim_lock(struct vmcomm_lock *l)
{
	struct sim_thread *t = sim.cur;
	u32 i;

	if (!t)
		return;
	sim_step();
	sim_late_settle();
	if (l->owner == t)
		sim_fail("thread %s takes lock %s twice", t->name, class_name[l->class]);
	for (i = 0; i < t->locks; i++) {
		u32 c = t->lock_class[i];

		if (before[l->class][c] || c == l->class)
			sim_fail("lock order: %s is taken inside %s, and the other way round elsewhere",
				 class_name[l->class], class_name[c]);
		before[c][l->class] = 1;
	}
	while (l->owner) {
		l->waiters++;
		sim_sleep(l, 0, class_name[l->class]);
		l->waiters--;
	}
	l->owner = t;
	t->lock_class[t->locks++] = l->class;
	/* What the last holder stored before it let go is visible to us. */
	if (l->last && l->last != t->cpu && t->cpu && l->last->vm == t->cpu->vm)
		sim_cpu_drain(l->last, SIM_NEVER);
	/* On one CPU the lock prefix is patched away; elsewhere it drains, on x86 at least. */
	if (t->vm && t->vm->ncpu > 1 && !sim.p.weak)
		sim_cpu_drain(t->cpu, SIM_NEVER);
	if (t->cpu)
		t->cpu->floor = sim.memory_clock;
}

void sim_unlock(struct vmcomm_lock *l)
{
	struct sim_thread *t = sim.cur;

	if (!t)
		return;
	sim_step();
	sim_late_settle();
	if (l->owner != t)
		sim_fail("thread %s gives back lock %s that it does not hold", t->name,
			 class_name[l->class]);
	if (t->lock_class[t->locks - 1] != l->class)
		sim_fail("lock %s is given back out of order", class_name[l->class]);
	t->locks--;
	l->owner = NULL;
	l->last = t->cpu;
	if (l->waiters)
		sim_wake(l);
}

/* --- private memory --- */

struct sim_block {
	struct sim_block *next, *prev;
	struct sim_vm *vm;
	size_t n;
	u64 magic;
	u64 pad;
};

#define MAGIC 0x5eedb10c5eedb10cULL
static struct sim_block blocks = {.next = &blocks, .prev = &blocks};

void *sim_alloc_for(struct sim_vm *vm, size_t n)
{
	struct sim_block *b = calloc(1, sizeof(*b) + n);

	if (!b)
		abort();
	b->n = n;
	b->magic = MAGIC;
	b->vm = vm;
	b->next = blocks.next;
	b->prev = &blocks;
	b->next->prev = b;
	blocks.next = b;
	return b + 1;
}

void *sim_alloc(size_t n, bool may_sleep)
{
	if (sim.cur && may_sleep) {
		if (sim.cur->locks || sim.cur->softirq)
			sim_fail("thread %s may sleep for memory with a lock held or in softirq",
				 sim.cur->name);
		sim_step();
	}
	if (sim.cur && sim.p.oom && !sim.faults_over && sim_chance(sim.p.oom))
		return NULL;
	return sim_alloc_for(sim.cur ? sim.cur->vm : NULL, n);
}

static void sim_block_free(struct sim_block *b)
{
	b->next->prev = b->prev;
	b->prev->next = b->next;
	memset(b, 0x5a, sizeof(*b) + b->n);
	free(b);
}

void sim_free(void *p)
{
	struct sim_block *b;

	if (!p)
		return;
	b = (struct sim_block *)p - 1;
	if (b->magic != MAGIC)
		sim_fail("memory is freed twice, or never came from the allocator");
	sim_block_free(b);
}

u64 sim_allocated(struct sim_vm *vm)
{
	struct sim_block *b;
	u64 n = 0;

	for (b = blocks.next; b != &blocks; b = b->next)
		if (b->vm == vm)
			n++;
	return n;
}

void sim_alloc_forget(struct sim_vm *vm)
{
	struct sim_block *b, *next;

	for (b = blocks.next; b != &blocks; b = next) {
		next = b->next;
		if (!vm || b->vm == vm)
			sim_block_free(b);
	}
}

void sim_memory_reset(void)
{
	u32 i, k, e;

	for (i = 0; i < SIM_VMS_MAX; i++)
		for (k = 0; k < SIM_CPUS_MAX; k++)
			for (e = 0; e < sim.vm[i].cpu[k].n; e++)
				free(sim.vm[i].cpu[k].q[e].blob);
	sim_alloc_forget(NULL);
	memset(history, 0, sizeof(history));
}

u64 vmcomm_now(void)
{
	return sim.now * 1000;
}

u64 vmcomm_random64(void)
{
	return sim_rng();
}

void vmcomm_warn(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	sim_trace("warning: %s", text);
}
