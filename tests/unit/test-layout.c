// SPDX-License-Identifier: GPL-2.0-or-later
/* test-layout.c - geometry of a region, also one that lies (M26) */
#include "layout.h"
#include "unit.h"

static u8 page[VMCOMM_PAGE] __attribute__((aligned(8)));

START_TEST(all_sizes)
{
	struct vmcomm_layout l, r;
	u32 bits, slots, shift, good = 0;
	int err;

	for (bits = 20; bits <= 37; bits++) {
		for (slots = 0; slots <= VMCOMM_SLOTS_MAX + 1; slots++) {
			for (shift = VMCOMM_CHUNK_SHIFT_MIN - 1;
			     shift <= VMCOMM_CHUNK_SHIFT_MAX + 1; shift++) {
				err = vmcomm_layout_compute(&l, 1ULL << bits, slots, shift);
				if (bits < 22 || bits > 36 || slots < 2 ||
				    slots > VMCOMM_SLOTS_MAX || shift < VMCOMM_CHUNK_SHIFT_MIN ||
				    shift > VMCOMM_CHUNK_SHIFT_MAX) {
					ck_assert_int_eq(err, -EINVAL);
					continue;
				}
				if (err == -ENOSPC)
					continue;
				ck_assert_int_eq(err, 0);
				good++;
				/* Areas in order, aligned, none over the next. */
				ck_assert_uint_ge(l.table_off, sizeof(struct vmcomm_abi_header));
				ck_assert_uint_ge(l.reclaim_off,
						  l.table_off +
							  slots * sizeof(struct vmcomm_abi_location));
				ck_assert_uint_ge(l.ctl_off,
						  l.reclaim_off + 4ULL * slots * l.chunks);
				ck_assert_uint_ge(l.heap_off, l.ctl_off + slots * l.ctl_stride);
				ck_assert_uint_le(l.heap_off + slots * l.slice_size, l.size);
				ck_assert_uint_eq(l.slice_size, (u64)l.chunks << shift);
				ck_assert_uint_eq(l.heap_off & ((1ULL << shift) - 1), 0);
				ck_assert_uint_eq((l.ctl_off | l.ctl_stride) & (VMCOMM_PAGE - 1), 0);
				ck_assert_uint_le(l.chunks, VMCOMM_CHUNKS_MAX);
				ck_assert_uint_ge(l.chunks, 4);

				memset(page, 0, sizeof(page));
				vmcomm_layout_write(&l, page, "g", 9);
				ck_assert_int_eq(vmcomm_layout_read(&r, page, l.size), 0);
				ck_assert_uint_eq(r.heap_off, l.heap_off);
				ck_assert_uint_eq(r.chunks, l.chunks);
			}
		}
	}
	ck_assert_uint_gt(good, 1000);
	ck_assert_int_eq(vmcomm_layout_compute(&l, (1u << 24) + 4096, 2, 16), -EINVAL);
	/* 64 VMs fit where the documentation says so. */
	ck_assert_int_eq(vmcomm_layout_compute(&l, 1u << 26, 64, 16), 0);
}
END_TEST

START_TEST(not_ours)
{
	struct vmcomm_abi_header *h = (void *)page;
	struct vmcomm_layout l, r;

	ck_assert_int_eq(vmcomm_layout_compute(&l, 1u << 24, 4, 16), 0);
	vmcomm_layout_write(&l, page, "group", 1);
	ck_assert_int_eq(vmcomm_layout_read(&r, page, 1u << 20), -EINVAL);
	ck_assert_int_eq(vmcomm_layout_read(&r, page, 1u << 23), -EINVAL);
	ck_assert_int_eq(vmcomm_layout_read(&r, page, 1u << 25), 0);
	h->abi_major = 2;
	ck_assert_int_eq(vmcomm_layout_read(&r, page, 1u << 24), -EPROTO);
	h->abi_major = VMCOMM_ABI_MAJOR;
	h->abi_minor = 77;
	ck_assert_int_eq(vmcomm_layout_read(&r, page, 1u << 24), 0);
	h->magic ^= 1;
	ck_assert_int_eq(vmcomm_layout_read(&r, page, 1u << 24), -ENODATA);
}
END_TEST

/* Each word of the geometry, with values that hurt: refused, or as good as computed. */
START_TEST(hostile_header)
{
	static const u64 bad[] = {0, 1, 2, 3, 15, 19, 31, 32, 33, 63, 64, 65, 127, 4095, 4096,
				  0x7fffffff, 0x80000000, 0xffffffff, 0x100000000ULL,
				  0x7fffffffffffffffULL, 0x8000000000000000ULL, ~0ULL};
	struct vmcomm_layout l, r;
	u32 word, i, k;

	ck_assert_int_eq(vmcomm_layout_compute(&l, 1u << 24, 4, 16), 0);
	for (word = 4; word < 84; word += 4) {
		for (i = 0; i < sizeof(bad) / sizeof(bad[0]) + 1000; i++) {
			u64 v = i < sizeof(bad) / sizeof(bad[0]) ? bad[i] : (u64)random();

			memset(page, 0, sizeof(page));
			vmcomm_layout_write(&l, page, "group", 1);
			memcpy(page + word, &v, i & 1 ? 4 : 8);
			memset(&r, 0xee, sizeof(r));
			k = (u32)vmcomm_layout_read(&r, page, 1u << 24);
			if (k)
				continue;
			ck_assert_uint_eq(r.size, l.size);
			ck_assert_uint_eq(r.heap_off, l.heap_off);
			ck_assert_uint_eq(r.slots, l.slots);
		}
	}
}
END_TEST

START_TEST(long_gid)
{
	struct vmcomm_abi_header *h = (void *)page;
	struct vmcomm_layout l;
	char gid[200];

	memset(page, 0, sizeof(page));
	memset(gid, 'x', sizeof(gid));
	gid[199] = 0;
	ck_assert_int_eq(vmcomm_layout_compute(&l, 1u << 24, 4, 16), 0);
	vmcomm_layout_write(&l, page, gid, 5);
	ck_assert_uint_eq(h->gid[VMCOMM_GID_MAX - 2], 'x');
	ck_assert_uint_eq(h->gid[VMCOMM_GID_MAX - 1], 0);
	ck_assert_uint_eq(h->policy_seq, 0);
	ck_assert_uint_eq(h->group_epoch, 5);
}
END_TEST

UNIT_MAIN("layout", all_sizes, not_ours, hostile_header, long_gid)
