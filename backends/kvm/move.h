/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* move.h - live migration of plain QEMUs; host/daemon/backend.h says what the functions do */
#ifndef VMCOMM_KVM_MOVE_H
#define VMCOMM_KVM_MOVE_H

#include "../../host/daemon/backend.h"

/**
 * kvm_uuid_check() - is the QEMU at the monitor the VM that is meant?
 * @got: what query-uuid said, or NULL
 * @text: why not
 *
 * Return: 0 or -EINVAL.
 */
int kvm_uuid_check(const struct vmcomm_backend_vm *vm, const char *got, char *text, size_t size);

int kvm_incoming(sd_event *event, const struct vmcomm_backend_vm *vm, const char *listen,
		 const struct vmcomm_backend_callbacks *cb, void *arg,
		 struct vmcomm_backend_job **job);
int kvm_migrate(sd_event *event, const struct vmcomm_backend_vm *vm,
		const struct vmcomm_backend_migration *how,
		const struct vmcomm_backend_callbacks *cb, void *arg,
		struct vmcomm_backend_job **job);
int kvm_look(sd_event *event, const struct vmcomm_backend_vm *vm,
	     const struct vmcomm_backend_callbacks *cb, void *arg,
	     struct vmcomm_backend_job **job);
int kvm_finish(sd_event *event, const struct vmcomm_backend_vm *vm, enum vmcomm_backend_fate fate,
	       const struct vmcomm_backend_callbacks *cb, void *arg,
	       struct vmcomm_backend_job **job);

#endif
