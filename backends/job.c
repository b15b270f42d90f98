// SPDX-License-Identifier: LGPL-2.1-or-later
/* job.c - how a job of a backend ends */
#include "job.h"

#include <stdarg.h>
#include <stdio.h>

void job_timer(struct job_outcome *o, uint64_t usec)
{
	sd_event_source_set_time_relative(o->timer, usec);
	sd_event_source_set_enabled(o->timer, SD_EVENT_ONESHOT);
}

void job_end(struct job_outcome *o, int result, const char *fmt, ...)
{
	va_list args;

	if (o->ended)
		return;
	o->ended = true;
	o->result = result;
	if (fmt) {
		va_start(args, fmt);
		vsnprintf(o->text, sizeof(o->text), fmt, args);
		va_end(args);
	}
	job_timer(o, 0);
}
