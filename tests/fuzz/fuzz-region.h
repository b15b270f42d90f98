/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fuzz-region.h - a look into the region that region.c makes */
#ifndef VMCOMM_FUZZ_REGION_H
#define VMCOMM_FUZZ_REGION_H

#include "layout.h"

/* Called whenever a slot was opened: write into the region what guests may write. */
extern void (*fuzz_region_made)(struct vmcomm_layout *lay, void *base);

#endif
