/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * port.h - everything the core needs from its surroundings
 *
 * The same core files are compiled into the guest module (port/kernel.h), into user space
 * (port/user.h) and into the simulator (port/sim.h). Each port provides:
 *
 *   vmcomm_load32/64(p)            one relaxed load of a shared little-endian word
 *   vmcomm_load_acquire32/64(p)    ... that later loads and stores stay behind
 *   vmcomm_store32/64(p, v)        one relaxed store
 *   vmcomm_store_release32/64(p,v) ... that earlier loads and stores stay before
 *   vmcomm_mb(), _rmb(), _wmb()    barriers that order shared words between VMs, also on one-CPU
 *                                  guests (the kernel's virt_*)
 *   vmcomm_mb_seldom()             vmcomm_mb() for the side of a pair of full barriers that comes by
 *                                  seldom: who is about to sleep, to close or to leave
 *   vmcomm_copy_to_shared(dst, src, n), vmcomm_copy_from_shared(dst, src, n), vmcomm_zero_shared
 *   struct vmcomm_lock, vmcomm_lock_init/lock/unlock: a leaf spinlock that also keeps out the
 *                                  doorbell handler (softirq); may nest in the order that
 *                                  docs/architecture.md gives
 *   vmcomm_alloc(n) / vmcomm_free  zeroed memory, must not sleep, may return NULL
 *   vmcomm_alloc_large(n) / vmcomm_free_large   zeroed, may sleep, may return NULL
 *   vmcomm_now()                   monotonic nanoseconds
 *   vmcomm_random64()
 *   vmcomm_warn(fmt, ...)          rate-limited message
 *   vmcomm_count(p, n)             add to a private counter from any context
 *   VMCOMM_READ_ONCE/WRITE_ONCE    private words that are read without their lock
 *   VMCOMM_LOAD_ACQUIRE/STORE_RELEASE   ... and say that other private words are there
 *
 * There is no read-modify-write on shared memory: one-CPU guests patch the LOCK prefix away.
 */
#ifndef VMCOMM_PORT_H
#define VMCOMM_PORT_H

#if defined(__KERNEL__)
#include "port/kernel.h"
#elif defined(VMCOMM_PORT_SIM)
#include "port/sim.h"
#else
#include "port/user.h"
#endif

#include "abi.h"

#endif
