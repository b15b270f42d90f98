/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libvirt-backend.h - the backend of members that are domains; host/daemon/backend.h */
#ifndef VMCOMM_KVM_LIBVIRT_BACKEND_H
#define VMCOMM_KVM_LIBVIRT_BACKEND_H

#include "../../host/daemon/backend.h"

extern const struct vmcomm_backend vmcomm_backend_libvirt;

#endif
