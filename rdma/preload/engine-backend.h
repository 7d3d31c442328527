/* SPDX-License-Identifier: BSD-2-Clause */
/* engine-backend.h -- what stands behind the device that QEMU's migration finds */

#ifndef VMF_RDMA_ENGINE_BACKEND_H
#define VMF_RDMA_ENGINE_BACKEND_H

#include "false-verbs/false-backend.h"
#include "qemu-engine.h"

/* The device of this process. It is made once and never freed. */
FalseDevice *engine_device_new(const QemuShim *shim);

#endif
