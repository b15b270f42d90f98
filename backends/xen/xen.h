/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* xen.h - parts of vmcommd's Xen backend */
#ifndef VMCOMM_BACKEND_XEN_H
#define VMCOMM_BACKEND_XEN_H

#include "../../host/daemon/backend.h"

/* watch.c: as struct vmcomm_backend's */
int vmcomm_xen_watch(sd_event *event, void (*appeared)(void *arg, const char *control), void *arg,
		     struct vmcomm_backend_job **job);

#endif
