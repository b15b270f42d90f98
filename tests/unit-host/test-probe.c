// SPDX-License-Identifier: GPL-2.0-or-later
/* test-probe.c - vmcommctl doctor's way to find out whether a guest boots */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../cli/probe.h"

/* The limit ends a test that hangs. */
START_TEST(boots_emulated)
{
	char text[400];
	int err = cli_probe_boot("tcg", 300, text, sizeof(text));

	if (err == -ENOENT)
		printf("# cannot boot anything here: %s\n", text);
	else
		ck_assert_msg(!err, "%d: %s", err, text);
}
END_TEST

START_TEST(qemu_that_ends)
{
	char text[400];
	int err = cli_probe_boot("nonsense", 300, text, sizeof(text));

	if (err == -ENOENT)
		return;
	ck_assert_msg(err == -EIO && strstr(text, "nonsense"), "%d: %s", err, text);
}
END_TEST

START_TEST(no_sign_of_life)
{
	char text[400];
	int err = cli_probe_boot("tcg", 0, text, sizeof(text));

	ck_assert_msg(err == -ENOENT || (err == -ETIMEDOUT && strstr(text, "/boot/vmlinuz")), "%d: %s",
		      err, text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("probe");
	TCase *tc = tcase_create("probe");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 400);
	tcase_add_test(tc, boots_emulated);
	tcase_add_test(tc, qemu_that_ends);
	tcase_add_test(tc, no_sign_of_life);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_tap(sr, "-");
	srunner_run_all(sr, CK_SILENT);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
