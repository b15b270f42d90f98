// SPDX-License-Identifier: GPL-2.0-or-later
/* test-region.c - places in a mapping, asked for with a peer's numbers (M26) */
#include "fixture.h"

START_TEST(bounds)
{
	struct fix *f = fix_new(3, 1u << 23, 16);
	const struct vmcomm_region *r = &f->region;
	u32 n = f->lay.chunks;
	u8 *end = (u8 *)f->mem + f->lay.size, *p;
	void *mem;

	ck_assert_int_eq(vmcomm_region_map(r, 3, 0, 1, &mem), -EPROTO);
	ck_assert_int_eq(vmcomm_region_map(r, ~0u, 0, 1, &mem), -EPROTO);
	ck_assert_int_eq(vmcomm_region_map(r, 0, 0, 0, &mem), -EPROTO);
	ck_assert_int_eq(vmcomm_region_map(r, 0, n, 1, &mem), -EPROTO);
	ck_assert_int_eq(vmcomm_region_map(r, 0, ~0u, 1, &mem), -EPROTO);
	ck_assert_int_eq(vmcomm_region_map(r, 0, 1, ~0u, &mem), -EPROTO);
	ck_assert_int_eq(vmcomm_region_map(r, 0, 1, n, &mem), -EPROTO);
	ck_assert_int_eq(vmcomm_region_map(r, 0, n - 1, 2, &mem), -EPROTO);
	ck_assert_int_eq(vmcomm_region_map(r, 0, 0, n + 1, &mem), -EPROTO);
	ck_assert_int_eq(vmcomm_region_map(r, 2, n - 1, 1, &mem), 0);
	p = mem;
	ck_assert_ptr_nonnull(p);
	ck_assert(p + (1u << 16) <= end);
	memset(p, 1, 1u << 16);
	ck_assert_int_eq(vmcomm_region_map(r, 0, 0, n, &mem), 0);
	p = mem;
	ck_assert_int_eq(vmcomm_region_map(r, 1, 0, 1, &mem), 0);
	ck_assert_ptr_eq(p + f->lay.slice_size, mem);

	ck_assert_ptr_null(vmcomm_region_pair_page(r, 3, 0));
	ck_assert_ptr_null(vmcomm_region_pair_page(r, 0, 3));
	p = (u8 *)vmcomm_region_pair_page(r, 2, 2);
	ck_assert_ptr_eq(p + sizeof(struct vmcomm_abi_pair), (u8 *)f->mem + f->lay.ctl_off +
								     3 * f->lay.ctl_stride);
	fix_free(f);
}
END_TEST

START_TEST(location)
{
	struct fix *f = fix_new(2, 1u << 23, 16);
	struct vmcomm_location loc;

	ck_assert_int_eq(vmcomm_region_location(&f->region, 2, &loc), -EINVAL);
	ck_assert_int_eq(vmcomm_region_location(&f->region, 1, &loc), 0);
	ck_assert_uint_eq(loc.state, VMCOMM_SLOT_LIVE);
	ck_assert_uint_eq(loc.addr[0][15], 2);
	fix_free(f);
}
END_TEST

START_TEST(no_header)
{
	static u64 page[VMCOMM_PAGE / 8];
	struct vmcomm_region r;

	ck_assert_int_eq(vmcomm_region_init(&r, page, 1u << 24), -ENODATA);
	ck_assert_int_eq(vmcomm_region_init(&r, page, 4096), -EINVAL);
}
END_TEST

UNIT_MAIN("region", bounds, location, no_header)
