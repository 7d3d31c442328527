/* SPDX-License-Identifier: BSD-2-Clause */
/* engine-backend.c -- what stands behind the device that QEMU's migration finds */

#include "engine-backend.h"

#include <errno.h>
#include <glib.h>

/* --- source --- */

static int connect_to(void *opaque, struct rdma_cm_id *id, const struct rdma_conn_param *param)
{
    (void)opaque;
    (void)param;
    g_printerr("vmferry: cannot connect to %s port %s: this engine has no transport\n",
               false_id_node(id), false_id_service(id));
    false_id_failed(id, RDMA_CM_EVENT_UNREACHABLE, -EOPNOTSUPP, NULL, 0);
    return 0;
}

/* --- destination --- */

static int listen_on(void *opaque, struct rdma_cm_id *id, int backlog)
{
    (void)opaque;
    (void)backlog;
    g_printerr("vmferry: cannot listen on %s port %s: this engine has no transport\n",
               false_id_node(id), false_id_service(id));
    return EOPNOTSUPP;
}

/* --- the device --- */

/* Every function of the table goes here, that of a source and that of a destination. */
static const FalseDeviceOps backend_ops = {
    .size = sizeof(backend_ops),
    .connect = connect_to,
    .listen = listen_on,
};

FalseDevice *engine_device_new(const QemuShim *shim)
{
    return false_device_new("vmferry", &backend_ops, (void *)shim);
}
