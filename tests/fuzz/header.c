// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * header.c - the header and a row of the location table as a guest or vmcommd finds them
 *
 * Input: how many bytes are said to be mapped (8), a row (256), and the header page. Both lie in
 * memory of exactly their size: a read beyond the page before it is checked is seen.
 */
#include "backend.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct vmcomm_abi_header *h = calloc(1, sizeof(*h));
	struct vmcomm_abi_location *row = calloc(1, sizeof(*row));
	u64 mapped = fuzz_number(&in, 8);
	struct vmcomm_location loc;
	struct vmcomm_layout lay;
	const uint8_t *p;
	size_t n;

	n = fuzz_bytes(&in, sizeof(*row), &p);
	memcpy(row, p, n);
	n = fuzz_bytes(&in, sizeof(*h), &p);
	memcpy(h, p, n);
	if (!vmcomm_location_read(row, &loc)) {
		fuzz_check(loc.state <= VMCOMM_SLOT_GONE);
		fuzz_check(loc.addr_count <= VMCOMM_ADDRS_MAX);
		fuzz_check(loc.vectors <= VMCOMM_VECTORS);
	}
	if (!vmcomm_layout_read(&lay, h, mapped)) {
		fuzz_check(lay.size <= mapped && !(lay.size & (lay.size - 1)));
		fuzz_check(lay.slots >= 2 && lay.slots <= VMCOMM_SLOTS_MAX);
		fuzz_check(lay.chunks <= VMCOMM_CHUNKS_MAX);
		fuzz_check(lay.ctl_off + lay.slots * lay.ctl_stride <= lay.heap_off);
		fuzz_check(lay.heap_off + lay.slots * lay.slice_size <= lay.size);
	}
	free(row);
	free(h);
	return 0;
}
