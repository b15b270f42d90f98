/* SPDX-License-Identifier: GPL-2.0-or-later */
/* unit.h - what each Check program of the core has in common */
#ifndef VMCOMM_TEST_UNIT_H
#define VMCOMM_TEST_UNIT_H

#include <check.h>
#include <stdlib.h>

/*
 * Check notes the place of each assertion that holds, in a message to its parent: too much for
 * loops with millions of them.
 */
#undef ck_assert_msg
#define ck_assert_msg(expr, ...)                                                                   \
	((expr) ? (void)0 : _ck_assert_failed(__FILE__, __LINE__,                                  \
					      "Assertion '" #expr "' failed", ##__VA_ARGS__))

/* How many seeds: more with VMCOMM_TEST_FULL set. */
static inline unsigned int unit_seeds(unsigned int n)
{
	return getenv("VMCOMM_TEST_FULL") ? 10 * n : n;
}

/* Each test runs in a process of its own; the output is TAP, for meson. */
#define UNIT_MAIN(name, ...)                                                                       \
	int main(void)                                                                             \
	{                                                                                          \
		const TTest *const all[] = {__VA_ARGS__};                                          \
		Suite *suite = suite_create(name);                                                 \
		TCase *tc = tcase_create(name);                                                    \
		SRunner *runner;                                                                   \
		size_t i;                                                                          \
		int failed;                                                                        \
                                                                                                   \
		tcase_set_timeout(tc, 120);                                                        \
		for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)                                 \
			tcase_add_test(tc, all[i]);                                                \
		suite_add_tcase(suite, tc);                                                        \
		runner = srunner_create(suite);                                                    \
		srunner_set_tap(runner, "-");                                                      \
		srunner_run_all(runner, CK_SILENT);                                                \
		failed = srunner_ntests_failed(runner);                                            \
		srunner_free(runner);                                                              \
		return failed ? EXIT_FAILURE : EXIT_SUCCESS;                                       \
	}

#endif
