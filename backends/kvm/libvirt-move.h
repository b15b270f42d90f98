/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libvirt-move.h - live migration of domains; host/daemon/backend.h says what the functions do */
#ifndef VMCOMM_KVM_LIBVIRT_MOVE_H
#define VMCOMM_KVM_LIBVIRT_MOVE_H

#include "../../host/daemon/backend.h"

int libvirt_incoming(sd_event *event, const struct vmcomm_backend_vm *vm, const char *listen,
		     const struct vmcomm_backend_callbacks *cb, void *arg,
		     struct vmcomm_backend_job **job);
int libvirt_migrate(sd_event *event, const struct vmcomm_backend_vm *vm,
		    const struct vmcomm_backend_migration *how,
		    const struct vmcomm_backend_callbacks *cb, void *arg,
		    struct vmcomm_backend_job **job);
int libvirt_where(sd_event *event, const struct vmcomm_backend_vm *vm,
		  const struct vmcomm_backend_callbacks *cb, void *arg,
		  struct vmcomm_backend_job **job);
int libvirt_finish(sd_event *event, const struct vmcomm_backend_vm *vm, enum vmcomm_backend_fate fate,
		   const struct vmcomm_backend_callbacks *cb, void *arg,
		   struct vmcomm_backend_job **job);

#endif
