/* SPDX-License-Identifier: GPL-2.0-or-later */
/* log.h - lines to stderr, with the priority prefix that the journal understands */
#ifndef VMCOMM_DAEMON_LOG_H
#define VMCOMM_DAEMON_LOG_H

void log_line(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)	 log_line(3, __VA_ARGS__)
#define log_warning(...) log_line(4, __VA_ARGS__)
#define log_notice(...)	 log_line(5, __VA_ARGS__)
#define log_info(...)	 log_line(6, __VA_ARGS__)

#endif
