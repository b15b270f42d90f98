// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * xenview.c - what a Xen domain shows of its connections (backends/xen/view.c)
 *
 * Input: steps of 4 bytes each, a word of the page of references and what it becomes, or a number of
 * what else happens. Grants are memory of ours here; some references cannot be mapped.
 */
#include <errno.h>

#include "fuzz.h"
#include "../../backends/xen/view.h"

#define SIZE  (4U << 20)
#define SLOTS 4
#define SLOT  1
#define OTHER 0xa5
#define WORDS (sizeof(struct vmcomm_xen_view) / 4)

enum step { STEP_COPY = 0xff, STEP_REOPEN = 0xfe, STEP_ROW = 0xfd, STEP_PAIR = 0xfc };

static uint32_t page[WORDS];
static unsigned int mapped; /* pages */
static uint8_t content;
static uint8_t clean[SIZE];

static bool bad(uint32_t ref)
{
	return !ref || ref % 97 == 5;
}

void *xengnttab_map_domain_grant_refs(xengnttab_handle *map, uint32_t count, uint32_t domid,
				      uint32_t *refs, int prot)
{
	uint32_t i, *mem;

	for (i = 0; i < count; i++)
		if (bad(refs[i])) {
			errno = EINVAL;
			return NULL;
		}
	mem = malloc((size_t)count * VMCOMM_PAGE);
	fuzz_check(mem);
	/* Pair pages: chunk numbers from small to absurd; chunks: whatever. */
	for (i = 0; i < count * VMCOMM_PAGE / 4; i++)
		mem[i] = i * content;
	mapped += count;
	return mem;
}

void *xengnttab_map_grant_ref(xengnttab_handle *map, uint32_t domid, uint32_t ref, int prot)
{
	if (bad(ref))
		return NULL;
	mapped++;
	return page;
}

int xengnttab_unmap(xengnttab_handle *map, void *start, uint32_t count)
{
	mapped -= count;
	if (start != page)
		free(start);
	return 0;
}

/* Nobody else's part of the region may change. */
static void check(const struct vmcomm_layout *lay, const uint8_t *base)
{
	const size_t ctl = lay->ctl_off + SLOT * lay->ctl_stride, ctl_end = ctl + lay->ctl_stride;
	const size_t heap = lay->heap_off + SLOT * lay->slice_size, heap_end = heap + lay->slice_size;

	fuzz_check(!memcmp(base, clean, ctl));
	fuzz_check(!memcmp(base + ctl_end, clean, heap - ctl_end));
	fuzz_check(!memcmp(base + heap_end, clean, SIZE - heap_end));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	static struct vmcomm_layout lay;
	static uint8_t *base;
	struct view v = {.domid = 7, .slot = SLOT, .lay = &lay};
	uint32_t at, i, pages;

	if (!base) {
		fuzz_check(!vmcomm_layout_compute(&lay, SIZE, SLOTS, VMCOMM_CHUNK_SHIFT_MIN));
		base = malloc(SIZE);
		fuzz_check(base);
		memset(base, OTHER, SIZE);
		memset(clean, OTHER, SIZE);
	}
	pages = 1U << (lay.chunk_shift - 12);
	v.base = base;
	memset(page, 0, sizeof(page));
	page[0] = VMCOMM_XEN_VIEW_MAGIC;
	page[1] = VMCOMM_XEN_VERSION;
	content = fuzz_u8(&in);
	view_open(&v, 1);
	while (in.left) {
		at = fuzz_u8(&in);
		switch (at) {
		case STEP_COPY:
			view_copy(&v);
			break;
		case STEP_REOPEN:
			view_open(&v, fuzz_u8(&in));
			break;
		case STEP_ROW:
			at = 2 + 2 * VMCOMM_SLOTS_MAX +
			     fuzz_u8(&in) % VMCOMM_XEN_VIEW_ROWS(pages) * (1 + pages);
			page[at] = fuzz_u8(&in);
			for (i = 1; i <= pages; i++)
				page[at + i] = page[at] * 16 + i;
			break;
		case STEP_PAIR:
			at = 2 + 2 * (fuzz_u8(&in) % VMCOMM_SLOTS_MAX);
			page[at] = fuzz_u8(&in);
			page[at + 1] = page[at];
			break;
		default:
			page[(at * 4 + fuzz_u8(&in) % 4) % WORDS] = fuzz_u32(&in);
		}
	}
	view_copy(&v);
	view_close(&v);
	fuzz_check(!mapped);
	check(&lay, base);
	return 0;
}
