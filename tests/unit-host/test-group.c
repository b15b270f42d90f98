// SPDX-License-Identifier: GPL-2.0-or-later
/* test-group.c - slots of a group, quarantine, keys */
#include <check.h>
#include <stdlib.h>

#include "group.h"

#define SIZE (1ULL << 23)

static struct vmcomm_layout lay;
static void *base;
static struct vmcomm_group g;
static const u8 vm_a[16] = "a", vm_b[16] = "b", vm_c[16] = "c", vm_d[16] = "d", vm_e[16] = "e";

static void setup(void)
{
	base = aligned_alloc(VMCOMM_PAGE, SIZE);
	ck_assert_ptr_nonnull(base);
	memset(base, 0, SIZE);
	ck_assert_int_eq(vmcomm_layout_compute(&lay, SIZE, 4, 16), 0);
	ck_assert_int_eq(vmcomm_group_init(&g, 4), 0);
}

static void teardown(void)
{
	free(base);
}

static u32 join(const u8 *vm)
{
	u32 slot = 99;

	ck_assert_int_eq(vmcomm_group_join(&g, vm, &slot), 0);
	return slot;
}

static void name_peer(u32 peer, u32 slot, u64 incarnation)
{
	vmcomm_store64(&vmcomm_layout_pair(&lay, base, peer, slot)->peer_incarnation, incarnation);
}

START_TEST(init_limits)
{
	struct vmcomm_group x;

	ck_assert_int_eq(vmcomm_group_init(&x, 1), -EINVAL);
	ck_assert_int_eq(vmcomm_group_init(&x, VMCOMM_SLOTS_MAX + 1), -EINVAL);
	ck_assert_int_eq(vmcomm_group_init(&x, VMCOMM_SLOTS_MAX), 0);
}
END_TEST

START_TEST(join_and_find)
{
	u32 slot;

	ck_assert_int_eq(vmcomm_group_find(&g, vm_a), -ENOENT);
	ck_assert_uint_eq(join(vm_a), 0);
	ck_assert_uint_eq(join(vm_b), 1);
	ck_assert_int_eq(vmcomm_group_find(&g, vm_b), 1);
	ck_assert_int_eq(vmcomm_group_join(&g, vm_a, &slot), -EEXIST);
	ck_assert_uint_eq(slot, 0);
	join(vm_c);
	join(vm_d);
	ck_assert_int_eq(vmcomm_group_join(&g, vm_e, &slot), -ENOSPC);
	ck_assert_uint_eq(g.slot[0].generation, 1);
}
END_TEST

/* A slot rests as long as possible before somebody else gets it. */
START_TEST(slots_rest)
{
	join(vm_a);
	ck_assert_int_eq(vmcomm_group_move(&g, 0, VMCOMM_SLOT_FREE), 0);
	ck_assert_uint_eq(join(vm_a), 1);
	ck_assert_uint_eq(join(vm_b), 2);
	ck_assert_uint_eq(join(vm_c), 3);
	ck_assert_uint_eq(join(vm_d), 0);
	ck_assert_uint_eq(g.slot[0].generation, 2);
}
END_TEST

START_TEST(transitions)
{
	static const struct {
		u32 from, to;
	} legal[] = {
		{VMCOMM_SLOT_FREE, VMCOMM_SLOT_JOINING}, {VMCOMM_SLOT_JOINING, VMCOMM_SLOT_LIVE},
		{VMCOMM_SLOT_JOINING, VMCOMM_SLOT_GONE}, {VMCOMM_SLOT_JOINING, VMCOMM_SLOT_FREE},
		{VMCOMM_SLOT_LIVE, VMCOMM_SLOT_LEAVING}, {VMCOMM_SLOT_LIVE, VMCOMM_SLOT_GONE},
		{VMCOMM_SLOT_LEAVING, VMCOMM_SLOT_LIVE}, {VMCOMM_SLOT_LEAVING, VMCOMM_SLOT_LEFT},
		{VMCOMM_SLOT_LEAVING, VMCOMM_SLOT_GONE}, {VMCOMM_SLOT_LEFT, VMCOMM_SLOT_FREE},
		{VMCOMM_SLOT_GONE, VMCOMM_SLOT_FREE},
	};
	u32 from, to, i;

	for (from = 0; from <= VMCOMM_SLOT_GONE + 1; from++)
		for (to = 0; to <= VMCOMM_SLOT_GONE + 1; to++) {
			bool want = false;

			for (i = 0; i < sizeof(legal) / sizeof(legal[0]); i++)
				want |= legal[i].from == from && legal[i].to == to;
			ck_assert_msg(vmcomm_group_legal(from, to) == want, "%u -> %u", from, to);
		}
	ck_assert_int_eq(vmcomm_group_move(&g, 4, VMCOMM_SLOT_JOINING), -EINVAL);
	ck_assert_int_eq(vmcomm_group_move(&g, 0, VMCOMM_SLOT_LIVE), -EINVAL);
}
END_TEST

/* a and b live, c died: who holds c's slot? */
static void death(void)
{
	join(vm_a);
	join(vm_b);
	join(vm_c);
	vmcomm_group_move(&g, 0, VMCOMM_SLOT_LIVE);
	vmcomm_group_move(&g, 1, VMCOMM_SLOT_LIVE);
	vmcomm_group_move(&g, 2, VMCOMM_SLOT_LIVE);
	vmcomm_store64(&vmcomm_layout_slot(&lay, base, 2)->incarnation, 77);
	ck_assert_uint_eq(vmcomm_group_observe(&g, &lay, base, 2), 77);
	name_peer(0, 2, 77);
	name_peer(1, 2, 77);
	vmcomm_group_move(&g, 2, VMCOMM_SLOT_GONE);
}

START_TEST(quarantine)
{
	join(vm_a);
	ck_assert_int_eq(vmcomm_group_holder(&g, &lay, base, 0), -EINVAL);
	ck_assert_int_eq(vmcomm_group_holder(&g, &lay, base, 9), -EINVAL);
	ck_assert_int_eq(vmcomm_group_init(&g, 4), 0);

	death();
	ck_assert_int_eq(vmcomm_group_find(&g, vm_c), -ENOENT);
	ck_assert_int_eq(vmcomm_group_holder(&g, &lay, base, 2), 0);
	name_peer(0, 2, 0);
	ck_assert_int_eq(vmcomm_group_holder(&g, &lay, base, 2), 1);
	/* a peer that leaves still looks; one that is gone does not */
	vmcomm_group_move(&g, 1, VMCOMM_SLOT_LEAVING);
	ck_assert_int_eq(vmcomm_group_holder(&g, &lay, base, 2), 1);
	vmcomm_group_move(&g, 1, VMCOMM_SLOT_LEFT);
	ck_assert_int_eq(vmcomm_group_holder(&g, &lay, base, 2), -ENOENT);
	ck_assert_int_eq(vmcomm_group_move(&g, 2, VMCOMM_SLOT_FREE), 0);
}
END_TEST

/* The host saw no incarnation (it was away): any name counts. */
START_TEST(quarantine_unseen)
{
	death();
	g.slot[2].incarnation = 0;
	ck_assert_int_eq(vmcomm_group_holder(&g, &lay, base, 2), 0);
	/* it did see one: another name is somebody else's business */
	g.slot[2].incarnation = 78;
	ck_assert_int_eq(vmcomm_group_holder(&g, &lay, base, 2), -ENOENT);
}
END_TEST

/* A VM that zeroes its incarnation on the way out is remembered by its last one. */
START_TEST(observe_keeps_last)
{
	death();
	vmcomm_store64(&vmcomm_layout_slot(&lay, base, 2)->incarnation, 0);
	ck_assert_uint_eq(vmcomm_group_observe(&g, &lay, base, 2), 0);
	ck_assert_uint_eq(g.slot[2].incarnation, 77);
}
END_TEST

START_TEST(keys)
{
	u8 a[32], b[32];
	u32 i;

	memset(a, 5, sizeof(a));
	memset(b, 5, sizeof(b));
	ck_assert(vmcomm_group_key_equal(a, b, 32));
	for (i = 0; i < 256; i++) {
		b[i / 8] ^= (u8)(1 << i % 8);
		ck_assert(!vmcomm_group_key_equal(a, b, 32));
		b[i / 8] ^= (u8)(1 << i % 8);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("group");
	TCase *tc = tcase_create("group");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, init_limits);
	tcase_add_test(tc, join_and_find);
	tcase_add_test(tc, slots_rest);
	tcase_add_test(tc, transitions);
	tcase_add_test(tc, quarantine);
	tcase_add_test(tc, quarantine_unseen);
	tcase_add_test(tc, observe_keeps_last);
	tcase_add_test(tc, keys);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_set_tap(sr, "-");
	srunner_run_all(sr, CK_SILENT);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
