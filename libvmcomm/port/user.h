/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* port/user.h - the core in a process */
#ifndef VMCOMM_PORT_USER_H
#define VMCOMM_PORT_USER_H

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define vmcomm_load16(p)	     le16toh(__atomic_load_n(p, __ATOMIC_RELAXED))
#define vmcomm_load8(p)		     __atomic_load_n(p, __ATOMIC_RELAXED)
#define vmcomm_load32(p)	     le32toh(__atomic_load_n(p, __ATOMIC_RELAXED))
#define vmcomm_load64(p)	     le64toh(__atomic_load_n(p, __ATOMIC_RELAXED))
#define vmcomm_load_acquire32(p)     le32toh(__atomic_load_n(p, __ATOMIC_ACQUIRE))
#define vmcomm_load_acquire64(p)     le64toh(__atomic_load_n(p, __ATOMIC_ACQUIRE))
#define vmcomm_store16(p, v)	     __atomic_store_n(p, htole16(v), __ATOMIC_RELAXED)
#define vmcomm_store8(p, v)	     __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define vmcomm_store32(p, v)	     __atomic_store_n(p, htole32(v), __ATOMIC_RELAXED)
#define vmcomm_store64(p, v)	     __atomic_store_n(p, htole64(v), __ATOMIC_RELAXED)
#define vmcomm_store_release32(p, v) __atomic_store_n(p, htole32(v), __ATOMIC_RELEASE)
#define vmcomm_store_release64(p, v) __atomic_store_n(p, htole64(v), __ATOMIC_RELEASE)
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
/*
 * ThreadSanitizer does not follow fences. It need not: they order shared memory, which each member
 * maps for itself; what threads of one process share is under locks.
 */
#pragma GCC diagnostic ignored "-Wtsan"
#endif
#define vmcomm_mb()		     __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define vmcomm_mb_seldom()	     vmcomm_mb()
#define vmcomm_rmb()		     __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define vmcomm_wmb()		     __atomic_thread_fence(__ATOMIC_RELEASE)

#define vmcomm_copy_to_shared(d, s, n)	 memcpy(d, s, n)
#define vmcomm_copy_from_shared(d, s, n) memcpy(d, s, n)
#define vmcomm_zero_shared(d, n)	 memset(d, 0, n)

#define VMCOMM_READ_ONCE(x)	__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define VMCOMM_WRITE_ONCE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELAXED)
#define VMCOMM_LOAD_ACQUIRE(x)	   __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define VMCOMM_STORE_RELEASE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)

struct vmcomm_lock {
	pthread_mutex_t mutex;
};

static inline void vmcomm_lock_init(struct vmcomm_lock *l)
{
	pthread_mutex_init(&l->mutex, NULL);
}

static inline void vmcomm_lock(struct vmcomm_lock *l)
{
	pthread_mutex_lock(&l->mutex);
}

static inline void vmcomm_unlock(struct vmcomm_lock *l)
{
	pthread_mutex_unlock(&l->mutex);
}

static inline void *vmcomm_alloc(size_t n)
{
	return calloc(1, n);
}

static inline void vmcomm_free(void *p)
{
	free(p);
}

static inline void *vmcomm_alloc_large(size_t n)
{
	return calloc(1, n);
}

static inline void vmcomm_free_large(void *p)
{
	free(p);
}

static inline void vmcomm_count(u64 *p, u64 n)
{
	__atomic_fetch_add(p, n, __ATOMIC_RELAXED);
}

u64 vmcomm_now(void);
u64 vmcomm_random64(void);
void vmcomm_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
