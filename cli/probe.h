/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe.h - boot a guest, to know that one boots */
#ifndef VMCOMM_CLI_PROBE_H
#define VMCOMM_CLI_PROBE_H

#include <stddef.h>

/**
 * cli_probe_boot() - boot a small guest with one of QEMU's accelerators
 * @accel: "kvm" or "tcg"
 * @seconds: how long it may take until a program runs in it
 * @text: result, for humans: the kernel that booted, or what went wrong
 *
 * The kernel is one of this machine's own, from /boot. Sleeps.
 *
 * Return: 0: it booted; -ETIMEDOUT: it gave no sign of life in time; -EIO: QEMU ended before;
 * -ENOENT: there is no kernel that could be booted, or no QEMU: nothing is known; other negative errno.
 */
int cli_probe_boot(const char *accel, unsigned int seconds, char *text, size_t size);

#endif
