/* SPDX-License-Identifier: GPL-2.0-or-later */
/* interface.h - the text of io.vmcomm.varlink, made by the build */
#ifndef VMCOMM_DAEMON_INTERFACE_H
#define VMCOMM_DAEMON_INTERFACE_H

extern const char interface_text[];

#endif
