/* SPDX-License-Identifier: GPL-2.0-or-later */
/* check.h - what tests/unit/fixture.c uses of Check; an assertion that fails is a crash */
#ifndef VMCOMM_FUZZ_SHIM_CHECK_H
#define VMCOMM_FUZZ_SHIM_CHECK_H

#include "../fuzz.h"

#define _ck_assert_failed(file, line, ...)                                                         \
	(fprintf(stderr, "%s:%d: ", file, line), fprintf(stderr, __VA_ARGS__), abort())
#define ck_assert(cond)		  fuzz_check(cond)
#define ck_assert_int_eq(a, b)	  fuzz_check((a) == (b))
#define ck_assert_int_gt(a, b)	  fuzz_check((a) > (b))
#define ck_assert_uint_eq(a, b)	  fuzz_check((a) == (b))
#define ck_assert_uint_ne(a, b)	  fuzz_check((a) != (b))
#define ck_assert_uint_gt(a, b)	  fuzz_check((a) > (b))
#define ck_assert_uint_le(a, b)	  fuzz_check((a) <= (b))
#define ck_assert_uint_lt(a, b)	  fuzz_check((a) < (b))
#define ck_assert_ptr_nonnull(p)  fuzz_check((p) != NULL)

#endif
