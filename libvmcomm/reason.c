// SPDX-License-Identifier: LGPL-2.1-or-later
/* reason.c - names of reason codes and counters */
#include "reason.h"

struct vmcomm_reason_row {
	const char *name;
	const char *text;
};

static const struct vmcomm_reason_row vmcomm_reason_rows[VMCOMM_REASON_COUNT] = {
#define VMCOMM_REASON_ROW(sym, nr, name, text) [nr] = {name, text},
	VMCOMM_REASONS(VMCOMM_REASON_ROW)
#undef VMCOMM_REASON_ROW
};

static const char *const vmcomm_stat_names[VMCOMM_STAT_COUNT] = {
#define VMCOMM_STAT_ROW(sym, name) [VMCOMM_STAT_##sym] = (name),
	VMCOMM_STATS(VMCOMM_STAT_ROW)
#undef VMCOMM_STAT_ROW
};

const char *vmcomm_reason_name(u32 reason)
{
	return reason < VMCOMM_REASON_COUNT ? vmcomm_reason_rows[reason].name : "unknown";
}

const char *vmcomm_reason_text(u32 reason)
{
	return reason < VMCOMM_REASON_COUNT ? vmcomm_reason_rows[reason].text :
					      "a newer version wrote this code";
}

const char *vmcomm_stat_name(u32 stat)
{
	return stat < VMCOMM_STAT_COUNT ? vmcomm_stat_names[stat] : NULL;
}
