// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * explore.c - makes all choices: contexts, store buffers, interrupts, arrival of segments
 *
 * Depth first, from the beginning for each execution; a state that was seen before is not gone on
 * from. Choices are made before what another CPU can notice: loads of the other VM's words, full
 * barriers, and each entry that leaves a store buffer. Everything else is the CPU's own business.
 */
#include <stdarg.h>
#include <sys/mman.h>
#include <time.h>

#include "explore.h"

#define DEPTH 4000

struct x_world *x;
struct vmcomm_layout x_lay;
u8 *x_base;

static u8 *arena, *arena_copy;
static size_t arena_used, arena_size = 1 << 20, arena_setup;
static u8 stacks[4][X_STACK] __attribute__((aligned(64)));
static void *engine_sp;
static struct x_ctx *cur;
static bool running, tracing;
static u64 memory_hash, memory_version[2]; /* changes by each VM */
static struct undo {
	u64 *at, old;
} undo[8192];
static u32 undos;

static struct {
	u16 options, chosen;
} path[DEPTH];
static u32 path_len, depth;

static u64 *table, table_size, table_used, executions, steps, limit;
static const struct x_scope *scope;

/* --- switching by hand, as in tests/sim/sched.c --- */

void x_switch(void **save, void *load);
__asm__(".text\n"
	".globl x_switch\n"
	".type x_switch, @function\n"
	"x_switch:\n"
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
	".size x_switch, .-x_switch\n");

static void x_say(const char *fmt, ...)
{
	va_list ap;

	if (!tracing)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void x_yield(void)
{
	x_switch(&cur->sp, engine_sp);
}

static void x_main(void)
{
	struct x_ctx *c = cur;

	c->fn(c->vm);
	if (x->vm[c->vm].locks)
		x_fail("VM %u ends with a lock held", c->vm);
	c->state = X_DONE;
	x_yield();
	abort();
}

static u8 *x_stack(const struct x_ctx *c)
{
	return stacks[(c == &x->irq[c->vm] ? 2 : 0) + c->vm];
}

static void x_start(struct x_ctx *c, u32 vm, void (*fn)(u32 vm))
{
	void **sp;

	c->vm = vm;
	c->fn = fn;
	c->state = X_RUN;
	c->what = "begin";
	memset(x_stack(c) + X_STACK - 4096, 0, 4096);
	sp = (void **)(x_stack(c) + X_STACK);
	*--sp = NULL;
	*--sp = (void *)x_main;
	sp -= 6;
	c->sp = sp;
}

/* --- memory --- */

static u64 x_mix(u64 z)
{
	z = (z ^ (z >> 32)) * 0xbf58476d1ce4e5b9ULL;
	return z ^ (z >> 29);
}

static u32 x_owner(const void *p)
{
	u64 off = (u64)((const u8 *)p - x_base);

	if (off >= x_lay.size)
		x_fail("VM %u accesses memory outside of the region", cur ? cur->vm : 9);
	if (off < x_lay.ctl_off)
		return 9;
	if (off < x_lay.heap_off)
		return (u32)((off - x_lay.ctl_off) / x_lay.ctl_stride);
	return (u32)((off - x_lay.heap_off) / x_lay.slice_size);
}

static void x_write(u8 *p, u64 value, u32 len)
{
	u64 *at = (u64 *)((uintptr_t)p & ~7UL), old = *at;

	memcpy(p, &value, len);
	if (*at == old || !running)
		return;
	if (undos == sizeof(undo) / sizeof(undo[0]))
		x_fail("too many stores");
	undo[undos].at = at;
	undo[undos++].old = old;
	memory_hash ^= x_mix((uintptr_t)at * 0x9e3779b97f4a7c15ULL + old) ^
		       x_mix((uintptr_t)at * 0x9e3779b97f4a7c15ULL + *at);
	memory_version[x_owner(p) & 1]++;
}

/*
 * Words that the other VM has ever loaded, a bit each. When others change nobody notices, so they
 * leave the store buffer together with the next one that counts. A word that turns out to be
 * loaded means that all begins anew.
 */
static u8 hot[VMCOMM_REGION_MIN / 64];
static bool hotter;
/* Words that were ever stored. Loads of others are nobody's business, either. */
static u8 stored[VMCOMM_REGION_MIN / 64];

static bool x_hot(const struct x_entry *e)
{
	u64 word = (u64)(e->addr - x_base) / 8;

	return e->kind != X_WORD || (hot[word / 8] & 1 << word % 8);
}

static void x_heat(const void *p)
{
	u64 word = (u64)((const u8 *)p - x_base) / 8;

	if (hot[word / 8] & 1 << word % 8)
		return;
	hot[word / 8] |= (u8)(1 << word % 8);
	hotter = true;
}

static bool x_stored(const void *p)
{
	u64 word = (u64)((const u8 *)p - x_base) / 8;

	return stored[word / 8] & 1 << word % 8;
}

static void x_mark_stored(const void *p)
{
	u64 word = (u64)((const u8 *)p - x_base) / 8;

	if (x_stored(p))
		return;
	stored[word / 8] |= (u8)(1 << word % 8);
	hotter |= hot[word / 8] & 1 << word % 8;
}

void x_push(u32 vm, u32 kind, u64 value)
{
	struct x_entry *e;

	if (x->n[vm] == X_STORES)
		x_fail("a store buffer of the explorer is full");
	e = &x->q[vm][x->n[vm]++];
	memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->value = value;
}

static void x_drain_one(u32 vm)
{
	struct x_entry e = x->q[vm][0];
	struct x_pipe *p = &x->pipe[vm];

	x->n[vm]--;
	memmove(&x->q[vm][0], &x->q[vm][1], x->n[vm] * sizeof(e));
	memset(&x->q[vm][x->n[vm]], 0, sizeof(e));
	switch (e.kind) {
	case X_WORD:
		x_say("  memory: VM %u's offset 0x%llx becomes %lld", vm,
		      (unsigned long long)(e.addr - x_base), (long long)e.value);
		x_write(e.addr, e.value, e.len);
		break;
	case X_BELL:
		x_say("  doorbell to VM %u", (u32)e.value);
		if (x->vm[e.value].up)
			x->vm[e.value].irq = true;
		break;
	case X_SEGMENT:
		p->sent++;
		break;
	default:
		p->fin_sent = true;
	}
}

/* One that counts, and those around it that do not. */
static void x_drain(u32 vm)
{
	while (x->n[vm] && !x_hot(&x->q[vm][0]))
		x_drain_one(vm);
	if (x->n[vm])
		x_drain_one(vm);
	while (x->n[vm] && !x_hot(&x->q[vm][0]))
		x_drain_one(vm);
}

static void x_interruptible(void)
{
	struct x_vm *v;

	if (!running || !cur)
		return;
	v = &x->vm[cur->vm];
	if (v->irq && !v->irq_runs && !v->locks) {
		cur->what = "may be interrupted";
		x_yield();
	}
}

u64 sim_load(const void *p, u32 size, u32 acquire)
{
	u64 v = 0;
	u32 i, o;

	if (running) {
		o = x_owner(p);
		if (o != cur->vm) {
			x_heat(p);
			cur->what = "load";
			if (x_stored(p))
				x_yield();
		}
		if (!x->vm[cur->vm].up)
			x_fail("VM %u loads from memory without the device", cur->vm);
	}
	memcpy(&v, p, size);
	for (i = 0; running && i < x->n[cur->vm]; i++) {
		struct x_entry *e = &x->q[cur->vm][i];

		if (e->kind == X_WORD && e->addr == p)
			memcpy(&v, &e->value, size < e->len ? size : e->len);
	}
	if (tracing && running && x_owner(p) != cur->vm)
		x_say("VM %u loads offset 0x%llx: %lld", cur->vm,
		      (unsigned long long)((const u8 *)p - x_base), (long long)v);
	return v;
}

void sim_store(void *p, u64 v, u32 size, u32 release)
{
	struct x_entry *e;

	if (!running) {
		memcpy(p, &v, size);
		return;
	}
	if (x_owner(p) != cur->vm)
		x_fail("VM %u writes into slot %u's memory", cur->vm, x_owner(p));
	if (!x->vm[cur->vm].up)
		x_fail("VM %u stores without the device", cur->vm);
	x_mark_stored(p);
	x_push(cur->vm, X_WORD, v);
	e = &x->q[cur->vm][x->n[cur->vm] - 1];
	e->addr = p;
	e->len = size;
	if (x->n[cur->vm] == 1 && !x_hot(e)) {
		x_drain(cur->vm);
		return;
	}
	x_say("VM %u stores offset 0x%llx: %lld", cur->vm, (unsigned long long)((u8 *)p - x_base),
	      (long long)v);
}

/* Only the first word of a unit is looked at. */
void sim_copy_in(void *dst, const void *src, size_t n)
{
	u64 v;

	memcpy(&v, src, 8);
	sim_store(dst, v, 8, 0);
}

void sim_copy_out(void *dst, const void *src, size_t n)
{
	size_t i;
	u64 v;

	memset(dst, 0, n);
	for (i = 0; i + 8 <= n; i += X_UNIT) {
		v = sim_load((const u8 *)src + i, 8, 0);
		memcpy((u8 *)dst + i, &v, 8);
	}
}

void sim_zero(void *dst, size_t n)
{
	if (!running)
		memset(dst, 0, n);
}

void sim_mb(void)
{
	if (!running)
		return;
	if (x->n[cur->vm]) {
		cur->state = X_BARRIER;
		cur->what = "barrier";
		x_yield();
	}
}

void sim_rmb(void)
{
}

void sim_wmb(void)
{
}

void sim_private(void)
{
	x_interruptible();
}

void sim_lock_init(struct vmcomm_lock *l, const char *name)
{
	memset(l, 0, sizeof(*l));
}

/* One CPU: a lock keeps the doorbell handler out, and is no barrier. */
void sim_lock(struct vmcomm_lock *l)
{
	if (!running)
		return;
	x_interruptible();
	if (l->waiters)
		x_fail("VM %u takes a lock twice", cur->vm);
	l->waiters = 1;
	x->vm[cur->vm].locks++;
}

void sim_unlock(struct vmcomm_lock *l)
{
	if (!running)
		return;
	l->waiters = 0;
	x->vm[cur->vm].locks--;
	x_interruptible();
}

void *sim_alloc(size_t n, bool may_sleep)
{
	void *p = arena + arena_used;

	n = (n + 63) & ~63UL;
	if (arena_used + n > arena_size)
		x_fail("the explorer has no memory left");
	memset(p, 0, n);
	arena_used += n;
	return p;
}

void sim_free(void *p)
{
}

u64 vmcomm_now(void)
{
	return 0;
}

u64 vmcomm_random64(void)
{
	static u64 n;

	return running ? 0x1234567 : x_mix(++n * 0x9e3779b97f4a7c15ULL);
}

void vmcomm_warn(const char *fmt, ...)
{
}

void x_sleep(u32 vm, const char *what)
{
	if (x->vm[vm].woken)
		return;
	cur->state = X_SLEEP;
	cur->what = what;
	x_yield();
}

void x_poll(u32 vm, const char *what)
{
	cur->state = X_POLL;
	cur->memory = memory_version[!vm];
	cur->what = what;
	x_yield();
}

/* --- the doorbell handler --- */

static void x_irq(u32 vm)
{
	if (x->vm[vm].up)
		while (vmcomm_node_event(&x->vm[vm].node))
			;
	x->vm[vm].irq_runs = false;
}

/* --- states --- */

static void x_hash(u64 *h, const void *p, size_t n)
{
	const u8 *b = p;
	u64 w;

	for (; n >= 8; n -= 8, b += 8) {
		memcpy(&w, b, 8);
		*h = (*h ^ w) * 0x9ddfea08eb382d69ULL;
		*h ^= *h >> 29;
	}
	if (n) {
		w = 0;
		memcpy(&w, b, n);
		*h = (*h ^ w) * 0x9ddfea08eb382d69ULL;
		*h ^= *h >> 29;
	}
}

static void x_hash_ctx(u64 *h, const struct x_ctx *c)
{
	u64 s[2] = {c->state, c->state == X_POLL ? c->memory != memory_version[!c->vm] : 0};

	x_hash(h, s, sizeof(s));
	if (c->state != X_DONE)
		x_hash(h, c->sp, (size_t)(x_stack(c) + X_STACK - (u8 *)c->sp));
}

/* All that the future depends on. Statistics are left out. */
static u64 x_state(void)
{
	u64 h = memory_hash;
	u32 i;

	for (i = 0; i < 2; i++) {
		struct x_vm *v = &x->vm[i];
		struct vmcomm_pair *p = v->node.pair[!i];

		x_hash(&h, x->q[i], x->n[i] * sizeof(x->q[i][0]));
		x_hash_ctx(&h, &x->main[i]);
		x_hash_ctx(&h, &x->irq[i]);
		x_hash(&h, &v->node.heap, sizeof(v->node.heap));
		x_hash(&h, &v->node.up, offsetof(struct vmcomm_node, stat) -
						offsetof(struct vmcomm_node, up));
		x_hash(&h, &v->conn, offsetof(struct vmcomm_conn, tcp_sent));
		x_hash(&h, &v->up, sizeof(*v) - offsetof(struct x_vm, up));
		if (v->up && p) {
			x_hash(&h, &p->slot, offsetof(struct vmcomm_pair, ccb_chunk) -
						     offsetof(struct vmcomm_pair, slot));
			if (p->ccb[0])
				x_hash(&h, p->ccb[0], 4 * sizeof(struct vmcomm_ccb));
			x_hash(&h, v->node.heap.chunk,
			       v->node.heap.chunks * sizeof(struct vmcomm_chunk));
		}
	}
	x_hash(&h, x->pipe, sizeof(x->pipe));
	return h ? h : 1;
}

/* Return: true if it is new. */
static bool x_remember(u64 h)
{
	u64 *old = table, size = table_size, i;

	if (table_used * 2 >= table_size) {
		table_size = table_size ? table_size * 4 : 1 << 16;
		table = calloc(table_size, sizeof(*table));
		if (!table)
			abort();
		table_used = 0;
		for (i = 0; i < size; i++)
			if (old[i])
				x_remember(old[i]);
		free(old);
	}
	for (i = h & (table_size - 1); table[i]; i = (i + 1) & (table_size - 1))
		if (table[i] == h)
			return false;
	table[i] = h;
	table_used++;
	return true;
}

/* --- executions --- */

enum { OPT_RUN, OPT_IRQ, OPT_DRAIN, OPT_TCP };

static struct x_ctx *x_context(u32 vm)
{
	return x->vm[vm].irq_runs ? &x->irq[vm] : &x->main[vm];
}

static bool x_enabled(const struct x_ctx *c)
{
	switch (c->state) {
	case X_RUN:
		return true;
	case X_BARRIER:
		return !x->n[c->vm];
	case X_SLEEP:
		return x->vm[c->vm].woken;
	case X_POLL:
		return c->memory != memory_version[!c->vm];
	default:
		return false;
	}
}

static u32 x_options(u8 *opt)
{
	u32 n = 0, i;

	for (i = 0; i < 2; i++) {
		if (x_enabled(x_context(i)))
			opt[n++] = (u8)(OPT_RUN << 1 | i);
		if (x->vm[i].irq && !x->vm[i].irq_runs && !x->vm[i].locks)
			opt[n++] = (u8)(OPT_IRQ << 1 | i);
		if (x->n[i])
			opt[n++] = (u8)(OPT_DRAIN << 1 | i);
		if (x->pipe[i].arrived < x->pipe[i].sent ||
		    (x->pipe[i].fin_sent && !x->pipe[i].fin_in))
			opt[n++] = (u8)(OPT_TCP << 1 | i);
	}
	return n;
}

static void x_do(u32 opt)
{
	u32 vm = opt & 1;
	struct x_pipe *p = &x->pipe[vm];

	steps++;
	switch (opt >> 1) {
	case OPT_IRQ:
		x_say("VM %u: interrupt", vm);
		x->vm[vm].irq = false;
		x->vm[vm].irq_runs = true;
		x_start(&x->irq[vm], vm, x_irq);
		/* fall through */
	case OPT_RUN:
		cur = x_context(vm);
		cur->state = X_RUN;
		x_switch(&engine_sp, cur->sp);
		cur = NULL;
		break;
	case OPT_DRAIN:
		x_drain(vm);
		break;
	default:
		if (p->arrived < p->sent)
			p->arrived++;
		else
			p->fin_in = true;
		x_say("  a segment reaches VM %u", !vm);
		x->vm[!vm].woken = true;
	}
}

static void x_restore(void)
{
	while (undos) {
		undos--;
		*undo[undos].at = undo[undos].old;
	}
	memcpy(arena, arena_copy, arena_setup);
	arena_used = arena_setup;
	memory_hash = 0;
	memory_version[0] = memory_version[1] = 0;
}

static void x_execute(void)
{
	u8 opt[16];
	u32 n, i;

	x_restore();
	running = true;
	for (i = 0; i < 2; i++)
		x_start(&x->main[i], i, scope->program);
	for (depth = 0;;) {
		n = x_options(opt);
		if (!n) {
			running = false;
			scope->check();
			break;
		}
		if (n == 1) {
			x_do(opt[0]);
			continue;
		}
		if (depth == DEPTH)
			x_fail("no end after %d choices", DEPTH);
		if (depth == path_len) {
			if (!x_remember(x_state()))
				break;
			path[depth].options = (u16)n;
			path[depth].chosen = 0;
			path_len++;
		}
		i = path[depth++].chosen;
		x_do(opt[i]);
	}
	running = false;
	executions++;
}

/* Return: false when all choices were made. */
static bool x_next(void)
{
	while (path_len) {
		if (++path[path_len - 1].chosen < path[path_len - 1].options)
			return true;
		path_len--;
	}
	return false;
}

void x_fail(const char *fmt, ...)
{
	static bool twice;
	char text[256];
	va_list ap;
	u32 i;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!twice && getenv("EXPLORE_TRACE")) {
		/* The same choices once more, aloud. */
		twice = true;
		tracing = true;
		path_len = depth;
		running = false;
		cur = NULL;
		x_execute();
	}
	fflush(stdout);
	fprintf(stderr, "FAILED %s: %s (after %u choices:", scope->name, text, depth);
	for (i = 0; i < depth; i++)
		fprintf(stderr, "%s%u", i % 10 ? "" : " ", path[i].chosen);
	fprintf(stderr, ")\n");
	for (i = 0; i < 2; i++)
		fprintf(stderr, "  VM %u: sent %u received %u%s, %s, %u stores under way\n", i,
			x->vm[i].sent, x->vm[i].received, x->vm[i].eof ? ", end of file" : "",
			x->main[i].state == X_DONE ? "done" : x->main[i].what, x->n[i]);
	exit(1);
}

static void x_explore(const struct x_scope *s)
{
	struct timespec a, b;

	scope = s;
	free(table);
	table = NULL;
	table_size = table_used = executions = steps = 0;
	path_len = undos = 0;
	memset(hot, 0, sizeof(hot));
	memset(stored, 0, sizeof(stored));
	arena_used = 0;
	memset(x_base, 0, x_lay.size);
	clock_gettime(CLOCK_MONOTONIC, &a);
	x = sim_alloc(sizeof(*x), true);
	s->setup();
	arena_setup = arena_used;
	memcpy(arena_copy, arena, arena_setup);
	do {
		hotter = false;
		x_execute();
		if (hotter) {
			memset(table, 0, table_size * sizeof(*table));
			table_used = 0;
			path_len = 0;
		}
	} while ((hotter || x_next()) && !(limit && table_used >= limit));
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%s: %llu states, %llu executions, %llu steps, %.1f s%s: %s\n", s->name,
	       (unsigned long long)table_used, (unsigned long long)executions,
	       (unsigned long long)steps,
	       (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9,
	       path_len ? ", NOT ALL" : "", s->what);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *want = "short";
	const struct x_scope *s;
	bool found = false;
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--scope") && i + 1 < argc) {
			want = argv[++i];
		} else if (!strcmp(argv[i], "--limit") && i + 1 < argc) {
			limit = strtoull(argv[++i], NULL, 0);
		} else {
			fprintf(stderr, "usage: vmcomm-explore [--scope NAME|short|all] [--limit STATES]\n"
					"EXPLORE_TRACE=1 prints what leads to a failure\n");
			for (s = x_scopes; s->name; s++)
				fprintf(stderr, "  %-12s %s\n", s->name, s->what);
			return 2;
		}
	}
	if (vmcomm_layout_compute(&x_lay, VMCOMM_REGION_MIN, 2, 16))
		abort();
	x_base = mmap(NULL, x_lay.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	arena = aligned_alloc(4096, arena_size);
	arena_copy = aligned_alloc(4096, arena_size);
	if (x_base == MAP_FAILED || !arena || !arena_copy)
		abort();
	for (s = x_scopes; s->name; s++)
		if (!strcmp(want, "all") || !strcmp(want, s->name) ||
		    (!strcmp(want, "short") && !s->long_one)) {
			x_explore(s);
			found = true;
		}
	if (!found)
		fprintf(stderr, "vmcomm-explore: no scope is called %s\n", want);
	return found ? 0 : 2;
}
