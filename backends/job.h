/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* job.h - how a job of a backend ends: once, with a result and a reason, announced from the loop */
#ifndef VMCOMM_BACKENDS_JOB_H
#define VMCOMM_BACKENDS_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include <systemd/sd-event.h>

/* Zeroed at first; @timer is the job's own, which announces the end when @ended is set. */
struct job_outcome {
	sd_event_source *timer;
	bool ended;
	int result;
	char text[512];
};

/** job_timer() - the timer runs out in @usec microseconds, not when it would have before */
void job_timer(struct job_outcome *o, uint64_t usec);

/**
 * job_end() - the job has ended; the timer says so at once
 *
 * Only the first call counts. @result: 0 or a negative errno; @fmt: the reason, NULL: what stands in
 * @o->text already.
 */
void job_end(struct job_outcome *o, int result, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
