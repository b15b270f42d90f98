// SPDX-License-Identifier: GPL-2.0-or-later
/* test-location.c - rows of the location table, location numbers */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>

#include "location.h"

/* without the padding at the end */
#define USED (offsetof(struct vmcomm_location, addr) + sizeof(((struct vmcomm_location *)0)->addr))

static struct vmcomm_location sample(unsigned int n)
{
	struct vmcomm_location loc = {
		.state = VMCOMM_SLOT_LIVE,
		.vectors = VMCOMM_VECTORS,
		.generation = n,
		.number = 0x1000ULL + n,
		.addr_count = n % VMCOMM_ADDRS_MAX + 1,
	};

	/* Every byte tells which sample it belongs to; unused addresses are zero. */
	memset(loc.vm_id, (int)(n & 0xff), sizeof(loc.vm_id));
	memset(loc.addr, (int)(n & 0xff), 16 * loc.addr_count);
	return loc;
}

START_TEST(row_round_trip)
{
	struct vmcomm_abi_location row = {0};
	struct vmcomm_location in = sample(3), out;

	vmcomm_location_write(&row, &in);
	ck_assert_int_eq(vmcomm_location_read(&row, &out), 0);
	ck_assert_mem_eq(&in, &out, USED);
	ck_assert_uint_eq(vmcomm_load32(&row.seq) & 1, 0);

	/* fewer addresses than before: nothing of the old ones is left */
	in = sample(8);
	vmcomm_location_write(&row, &in);
	ck_assert_int_eq(vmcomm_location_read(&row, &out), 0);
	ck_assert_mem_eq(&in, &out, USED);
}
END_TEST

START_TEST(row_torn)
{
	struct vmcomm_abi_location row = {0};
	struct vmcomm_location in = sample(3), out;

	vmcomm_location_write(&row, &in);
	vmcomm_store32(&row.seq, 7);
	ck_assert_int_eq(vmcomm_location_read(&row, &out), -EAGAIN);
	/* the next writer repairs what a dead one left */
	vmcomm_location_write(&row, &in);
	ck_assert_int_eq(vmcomm_location_read(&row, &out), 0);
	ck_assert_uint_eq(vmcomm_load32(&row.seq), 8);
}
END_TEST

START_TEST(row_nonsense)
{
	struct vmcomm_abi_location row = {0};
	struct vmcomm_location in = sample(3), out;

	vmcomm_location_write(&row, &in);
	vmcomm_store32(&row.state, VMCOMM_SLOT_GONE + 1);
	ck_assert_int_eq(vmcomm_location_read(&row, &out), -EBADMSG);
	vmcomm_location_write(&row, &in);
	vmcomm_store32(&row.addr_count, VMCOMM_ADDRS_MAX + 1);
	ck_assert_int_eq(vmcomm_location_read(&row, &out), -EBADMSG);
	vmcomm_location_write(&row, &in);
	vmcomm_store32(&row.vectors, VMCOMM_VECTORS + 1);
	ck_assert_int_eq(vmcomm_location_read(&row, &out), -EBADMSG);
	vmcomm_location_write(&row, &in);
	vmcomm_store32(&row.vectors, 0);
	ck_assert_int_eq(vmcomm_location_read(&row, &out), -EBADMSG);
	/* a row that was never written: a free slot */
	memset(&row, 0, sizeof(row));
	ck_assert_int_eq(vmcomm_location_read(&row, &out), 0);
	ck_assert_uint_eq(out.state, VMCOMM_SLOT_FREE);
}
END_TEST

static struct vmcomm_abi_location shared_row;
static int writer_stop;

static void *writer(void *arg)
{
	unsigned int n = 1;

	while (!__atomic_load_n(&writer_stop, __ATOMIC_RELAXED)) {
		struct vmcomm_location in = sample(n++);

		vmcomm_location_write(&shared_row, &in);
	}
	return NULL;
}

/* One thread writes all the time: a reader sees whole rows or -EAGAIN, never a mixture. */
START_TEST(row_reader_beside_writer)
{
	struct vmcomm_location out, want = sample(1);
	unsigned int good = 0, tries = 0;
	pthread_t thread;

	vmcomm_location_write(&shared_row, &want);
	ck_assert_int_eq(pthread_create(&thread, NULL, writer, NULL), 0);
	while (good < 5000) {
		int err = vmcomm_location_read(&shared_row, &out);

		ck_assert_uint_lt(tries++, 200000000);
		if (err == -EAGAIN)
			continue;
		ck_assert_int_eq(err, 0);
		want = sample((unsigned int)out.generation);
		ck_assert_mem_eq(&want, &out, USED);
		good++;
	}
	__atomic_store_n(&writer_stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}
END_TEST

START_TEST(number_is_new)
{
	const u8 vm[16] = {1}, addr[16] = {2}, other[16] = {3};
	u64 a = vmcomm_location_number(vm, addr, "host", 4, 1, 0);

	ck_assert_uint_ne(a, 0);
	ck_assert_uint_eq(vmcomm_location_number(vm, addr, "host", 4, 1, 0), a);
	ck_assert_uint_ne(vmcomm_location_number(vm, addr, "host", 4, 2, 0), a);
	ck_assert_uint_ne(vmcomm_location_number(other, addr, "host", 4, 1, 0), a);
	ck_assert_uint_ne(vmcomm_location_number(vm, other, "host", 4, 1, 0), a);
	ck_assert_uint_ne(vmcomm_location_number(vm, addr, "h0st", 4, 1, 0), a);
	ck_assert_uint_ne(vmcomm_location_number(vm, addr, "host", 0, 1, 0), a);
	/* never the one before, whatever the hash says */
	ck_assert_uint_ne(vmcomm_location_number(vm, addr, "host", 4, 1, a), a);
	ck_assert_uint_ne(vmcomm_location_number(vm, addr, "host", 4, 1, a), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("location");
	TCase *tc = tcase_create("row");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, row_round_trip);
	tcase_add_test(tc, row_torn);
	tcase_add_test(tc, row_nonsense);
	tcase_add_test(tc, row_reader_beside_writer);
	suite_add_tcase(s, tc);
	tc = tcase_create("number");
	tcase_add_test(tc, number_is_new);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_tap(sr, "-");
	srunner_run_all(sr, CK_SILENT);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
