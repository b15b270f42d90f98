/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * port/sim.h - the core in the simulator (tests/sim/)
 *
 * Each access to shared memory, and each access to a private word that is read without its lock,
 * is a point at which the simulator may run another thread, drain a store buffer, deliver a
 * segment or a doorbell, or let time pass. docs/simulator.md tells what memory does.
 */
#ifndef VMCOMM_PORT_SIM_H
#define VMCOMM_PORT_SIM_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

/* @acquire, @release: 1 or 0. @size: 1, 2, 4 or 8 bytes at the naturally aligned @p. */
u64 sim_load(const void *p, u32 size, u32 acquire);
void sim_store(void *p, u64 v, u32 size, u32 release);
void sim_copy_in(void *dst, const void *src, size_t n);
void sim_copy_out(void *dst, const void *src, size_t n);
void sim_zero(void *dst, size_t n);
void sim_mb(void);
void sim_rmb(void);
void sim_wmb(void);
void sim_private(void);

/* The type of @p is checked: a word is never accessed with another size. */
#define VMCOMM_SIM_P(p, type) (1 ? (p) : (const type *)0)
#define VMCOMM_SIM_W(p, type) (1 ? (p) : (type *)0)

#define vmcomm_load8(p)		     ((u8)sim_load(VMCOMM_SIM_P(p, uint8_t), 1, 0))
#define vmcomm_load16(p)	     ((u16)sim_load(VMCOMM_SIM_P(p, uint16_t), 2, 0))
#define vmcomm_load32(p)	     ((u32)sim_load(VMCOMM_SIM_P(p, uint32_t), 4, 0))
#define vmcomm_load64(p)	     sim_load(VMCOMM_SIM_P(p, uint64_t), 8, 0)
#define vmcomm_load_acquire32(p)     ((u32)sim_load(VMCOMM_SIM_P(p, uint32_t), 4, 1))
#define vmcomm_load_acquire64(p)     sim_load(VMCOMM_SIM_P(p, uint64_t), 8, 1)
#define vmcomm_store8(p, v)	     sim_store(VMCOMM_SIM_W(p, uint8_t), (u8)(v), 1, 0)
#define vmcomm_store16(p, v)	     sim_store(VMCOMM_SIM_W(p, uint16_t), (u16)(v), 2, 0)
#define vmcomm_store32(p, v)	     sim_store(VMCOMM_SIM_W(p, uint32_t), (u32)(v), 4, 0)
#define vmcomm_store64(p, v)	     sim_store(VMCOMM_SIM_W(p, uint64_t), (u64)(v), 8, 0)
#define vmcomm_store_release32(p, v) sim_store(VMCOMM_SIM_W(p, uint32_t), (u32)(v), 4, 1)
#define vmcomm_store_release64(p, v) sim_store(VMCOMM_SIM_W(p, uint64_t), (u64)(v), 8, 1)
#define vmcomm_mb()		     sim_mb()
#define vmcomm_mb_seldom()	     sim_mb()
#define vmcomm_rmb()		     sim_rmb()
#define vmcomm_wmb()		     sim_wmb()

#define vmcomm_copy_to_shared(d, s, n)	 sim_copy_in(d, s, n)
#define vmcomm_copy_from_shared(d, s, n) sim_copy_out(d, s, n)
#define vmcomm_zero_shared(d, n)	 sim_zero(d, n)

#define VMCOMM_READ_ONCE(x)                                                                        \
	({                                                                                         \
		sim_private();                                                                     \
		*(const volatile __typeof__(x) *)&(x);                                             \
	})
/* Private words have no store buffer here. */
#define VMCOMM_LOAD_ACQUIRE(x)	   VMCOMM_READ_ONCE(x)
#define VMCOMM_STORE_RELEASE(x, v) VMCOMM_WRITE_ONCE(x, v)
#define VMCOMM_WRITE_ONCE(x, v)                                                                    \
	do {                                                                                       \
		*(volatile __typeof__(x) *)&(x) = (v);                                             \
		sim_private();                                                                     \
	} while (0)

struct sim_thread;
struct sim_cpu;

/* A leaf spinlock; the simulator checks its order and that nobody sleeps with it held. */
struct vmcomm_lock {
	struct sim_thread *owner;
	struct sim_cpu *last; /* CPU that held it last */
	u32 class;
	u32 waiters;
};

void sim_lock_init(struct vmcomm_lock *l, const char *name);
void sim_lock(struct vmcomm_lock *l);
void sim_unlock(struct vmcomm_lock *l);

#define vmcomm_lock_init(l) sim_lock_init(l, #l)
#define vmcomm_lock(l)	    sim_lock(l)
#define vmcomm_unlock(l)    sim_unlock(l)

void *sim_alloc(size_t n, bool may_sleep);
void sim_free(void *p);

#define vmcomm_alloc(n)	      sim_alloc(n, false)
#define vmcomm_free(p)	      sim_free(p)
#define vmcomm_alloc_large(n) sim_alloc(n, true)
#define vmcomm_free_large(p)  sim_free(p)

static inline void vmcomm_count(u64 *p, u64 n)
{
	*p += n;
}

u64 vmcomm_now(void);
u64 vmcomm_random64(void);
void vmcomm_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
