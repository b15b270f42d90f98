// SPDX-License-Identifier: GPL-2.0-only
/* layout-core.c - the core's own check of a region's header */
#include "layout.c"
