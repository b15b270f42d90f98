// SPDX-License-Identifier: GPL-2.0-only
/*
 * hostile.c - a member of a group that does what no member should (M26)
 *
 * It maps the memory and the doorbells of the guest's ivshmem device a second time, beside vmcomm.ko,
 * which goes on and keeps the pairs up as far as it can: so the neighbour has something to lose. What
 * it does is a sum of the bits below in /sys/module/vmcomm_hostile/parameters/mode. One seed, one sequence of
 * values. It works on one kernel thread, always busy, whatever the mode is, except for mode 0.
 */
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>

#include "layout.h"

#define HOSTILE_BURN	 1   /* nothing but using the CPU */
#define HOSTILE_SLICE	 2   /* any word of the own control area and heap */
#define HOSTILE_ANYWHERE 4   /* any word of the region */
#define HOSTILE_WORDS	 8   /* absurd heads, tails, generations, epochs, chunk numbers */
#define HOSTILE_REPLAY	 16  /* old values come back, whole pages of them */
#define HOSTILE_EVENTS	 32  /* event queues and overflow counts run */
#define HOSTILE_BELLS	 64  /* all vectors of all slots */
#define HOSTILE_HOLD	 128 /* whatever was used stays in use */

static uint mode;
module_param(mode, uint, 0644);
static ulong seed = 1;
module_param(seed, ulong, 0444);
static ulong rounds;
module_param(rounds, ulong, 0444);

static void __iomem *regs;
static u8 *base;
static struct vmcomm_layout lay;
static u32 self;
static u8 *old; /* for each slot a pair page and its first CCB chunk, as they were once */
static struct task_struct *thread;
static struct pci_dev *device;
static u64 state;

#define OLD_SIZE (2 * VMCOMM_PAGE + 65536)

static u64 rnd(void)
{
	u64 z = state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static u64 absurd(u64 now)
{
	static const u64 edge[] = {0, 1, 2, 3, 12, 22, 23, 63, 64, 255, 256, 257, 1023, 1024, 4096,
				   65535, 65536, 0xffffff, 0x7fffffff, 0x80000000, 0xffffffff,
				   1ULL << 32, 1ULL << 62, 1ULL << 63, ~0ULL};

	switch (rnd() % 5) {
	case 0:
		return rnd();
	case 1:
		return now + rnd() % 5 - 2;
	case 2:
		return now ^ 1ULL << rnd() % 64;
	case 3:
		return now + (1ULL << rnd() % 24);
	default:
		return edge[rnd() % ARRAY_SIZE(edge)];
	}
}

static void poke(void *at)
{
	u64 *wide = (u64 *)((uintptr_t)at & ~7UL);
	u32 *word = (u32 *)((uintptr_t)at & ~3UL);

	if (rnd() & 1)
		WRITE_ONCE(*word, (u32)absurd(READ_ONCE(*word)));
	else
		WRITE_ONCE(*wide, absurd(READ_ONCE(*wide)));
}

static u32 other(void)
{
	u32 peer = rnd() % lay.slots;

	return peer == self ? (peer + 1) % lay.slots : peer;
}

/* The first chunk of our CCBs for @peer; NULL: none is to be seen. */
static struct vmcomm_abi_ccb *blocks(struct vmcomm_abi_pair *pair)
{
	u32 chunk = le32_to_cpu(READ_ONCE(pair->ccb_chunk[0]));

	return chunk && chunk <= lay.chunks ? vmcomm_layout_chunk(&lay, base, self, chunk - 1) :
					      NULL;
}

static void words(struct vmcomm_abi_pair *pair)
{
	struct vmcomm_abi_ccb *ccb = blocks(pair);
	u32 i;

	for (i = 0; ccb && i < 16; i++)
		poke((u8 *)&ccb[rnd() % 24] + rnd() % 192);
	if (rnd() % 8 == 0)
		poke(&pair->ccb_chunk[rnd() % 4]);
	if (rnd() % 8 == 0)
		poke(&pair->offer[rnd() % VMCOMM_OFFERS]);
	/* Rarely, or the pair is never up for long enough to be hurt. */
	if (rnd() % 4096 == 0)
		poke((u8 *)pair + rnd() % 192);
}

static void replay(struct vmcomm_abi_pair *pair, u32 peer)
{
	struct vmcomm_abi_ccb *ccb = blocks(pair);
	u8 *at = old + (size_t)peer * OLD_SIZE;

	if (rnd() & 1) {
		memcpy(at, pair, 2 * VMCOMM_PAGE);
		if (ccb)
			memcpy(at + 2 * VMCOMM_PAGE, ccb, 65536);
		return;
	}
	/* Not the incarnations at its start: that would only look like a death. */
	memcpy((u8 *)pair + 64, at + 64, 2 * VMCOMM_PAGE - 64);
	if (ccb)
		memcpy(ccb, at + 2 * VMCOMM_PAGE, 65536);
}

static void events(struct vmcomm_abi_pair *pair)
{
	u32 i, head = le32_to_cpu(READ_ONCE(pair->ev_head));

	for (i = 0; i < VMCOMM_EVENTS; i++)
		WRITE_ONCE(pair->ev[i], cpu_to_le64(VMCOMM_EVENT(rnd() % 6, rnd() % 64, rnd() % 64)));
	WRITE_ONCE(pair->ev_head, cpu_to_le32(head + rnd() % (VMCOMM_EVENTS + 8)));
	if (rnd() & 1)
		WRITE_ONCE(pair->ev_overflow, cpu_to_le32((u32)rnd()));
	poke(&pair->ev_tail);
	poke(&pair->ev_wake_at);
}

/* The peer finds all of our halves in use, and itself still named by us, for ever. */
static void hold(struct vmcomm_abi_pair *pair, u32 peer)
{
	struct vmcomm_abi_pair *theirs = vmcomm_layout_pair(&lay, base, peer, self);
	struct vmcomm_abi_ccb *ccb = blocks(pair);
	u32 i;

	WRITE_ONCE(pair->peer_incarnation, READ_ONCE(theirs->incarnation));
	for (i = 0; ccb && i < 65536 / sizeof(*ccb); i++)
		WRITE_ONCE(ccb[i].state, cpu_to_le32(VMCOMM_CCB_OPEN));
}

static void one_round(uint what)
{
	u32 peer = other(), i;
	struct vmcomm_abi_pair *pair = vmcomm_layout_pair(&lay, base, self, peer);

	if (what & HOSTILE_BURN)
		for (i = 0; i < 20000; i++)
			cpu_relax();
	if (what & HOSTILE_SLICE)
		for (i = 0; i < 64; i++) {
			/* Not what keeps the pairs up; see words(). */
			poke(vmcomm_layout_chunk(&lay, base, self, 0) + rnd() % (lay.slice_size - 8));
			poke((u8 *)vmcomm_layout_slot(&lay, base, self) + 64 +
			     rnd() % (VMCOMM_CTL_PAIR - 72));
		}
	if (what & HOSTILE_ANYWHERE)
		for (i = 0; i < 64; i++)
			poke(base + rnd() % (lay.size - 8));
	if (what & HOSTILE_WORDS)
		words(pair);
	if (what & HOSTILE_REPLAY && rnd() % 16 == 0)
		replay(pair, peer);
	if (what & HOSTILE_EVENTS)
		events(pair);
	if (what & HOSTILE_HOLD)
		hold(pair, peer);
	if (what & HOSTILE_BELLS)
		for (i = 0; i < 64; i++) /* the host's too: number lay.slots */
			writel((u32)(rnd() % (lay.slots + 1)) << 16 | (u32)(rnd() % 8), regs + 12);
}

static int work(void *arg)
{
	uint what;

	while (!kthread_should_stop()) {
		what = READ_ONCE(mode);
		if (!what) {
			msleep(20);
			continue;
		}
		one_round(what);
		rounds++;
		cond_resched();
	}
	return 0;
}

static int __init hostile_init(void)
{
	int err = -ENOMEM;

	state = seed;
	device = pci_get_device(0x1af4, 0x1110, NULL);
	if (!device)
		return -ENODEV;
	regs = ioremap(pci_resource_start(device, 0), 256);
	base = memremap(pci_resource_start(device, 2), pci_resource_len(device, 2), MEMREMAP_WB);
	if (!regs || !base)
		goto err_maps;
	err = vmcomm_layout_read(&lay, base, pci_resource_len(device, 2));
	if (err)
		goto err_maps;
	self = readl(regs + 8);
	err = -ENOMEM;
	old = vzalloc((size_t)lay.slots * OLD_SIZE);
	if (!old)
		goto err_maps;
	thread = kthread_run(work, NULL, "hostile");
	err = PTR_ERR_OR_ZERO(thread);
	if (!err)
		return 0;
	vfree(old);
err_maps:
	if (base)
		memunmap(base);
	if (regs)
		iounmap(regs);
	pci_dev_put(device);
	return err;
}

static void __exit hostile_exit(void)
{
	kthread_stop(thread);
	vfree(old);
	memunmap(base);
	iounmap(regs);
	pci_dev_put(device);
}

module_init(hostile_init);
module_exit(hostile_exit);
MODULE_DESCRIPTION("a malicious member of a vmcomm group, for tests");
MODULE_LICENSE("GPL");
