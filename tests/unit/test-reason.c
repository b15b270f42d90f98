// SPDX-License-Identifier: GPL-2.0-or-later
/* test-reason.c - names are stable, unique and there for any number */
#include <ctype.h>

#include "reason.h"
#include "unit.h"

START_TEST(reasons)
{
	const char *name;
	u32 i, k;

	for (i = 0; i < VMCOMM_REASON_COUNT; i++) {
		name = vmcomm_reason_name(i);
		ck_assert_ptr_nonnull(name);
		ck_assert_uint_gt(strlen(vmcomm_reason_text(i)), 3);
		for (k = 0; name[k]; k++)
			ck_assert(islower(name[k]) || name[k] == '-');
		for (k = 0; k < i; k++)
			ck_assert_str_ne(name, vmcomm_reason_name(k));
	}
	ck_assert_str_eq(vmcomm_reason_name(VMCOMM_REASON_COUNT), "unknown");
	ck_assert_str_eq(vmcomm_reason_name(~0u), "unknown");
	ck_assert_ptr_nonnull(vmcomm_reason_text(~0u));
	/* Scripts know these. */
	ck_assert_str_eq(vmcomm_reason_name(0), "none");
	ck_assert_str_eq(vmcomm_reason_name(9), "quota");
	ck_assert_str_eq(vmcomm_reason_name(12), "left");
	ck_assert_str_eq(vmcomm_reason_name(17), "policy");
}
END_TEST

START_TEST(stats)
{
	u32 i, k;

	for (i = 0; i < VMCOMM_STAT_COUNT; i++) {
		ck_assert_ptr_nonnull(vmcomm_stat_name(i));
		for (k = 0; k < i; k++)
			ck_assert_str_ne(vmcomm_stat_name(i), vmcomm_stat_name(k));
	}
	ck_assert_ptr_null(vmcomm_stat_name(VMCOMM_STAT_COUNT));
	ck_assert_str_eq(vmcomm_stat_name(0), "conn_opened");
}
END_TEST

UNIT_MAIN("reason", reasons, stats)
