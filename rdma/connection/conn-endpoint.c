/* SPDX-License-Identifier: BSD-2-Clause */
/* conn-endpoint.c -- a connection's protection domains, and queue pairs in them */

#include "conn-endpoint.h"

#include <errno.h>

#include "verbs/nic-list.h"
#include "verbs/verbs-error.h"

/* One of the protection domains. It is allocated if it does not exist yet. NULL with *error. */
static struct ibv_pd *need_pd(const RdmaConn *conn, struct ibv_pd **pd, struct rdma_cm_id *id,
                              GError **error)
{
    const struct ibv_pd *known = *pd ? *pd : conn->pd;

    if (known && known->context != id->verbs) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "a channel arrived on device %s, the control connection is on %s",
                    ibv_get_device_name(id->verbs->device),
                    ibv_get_device_name(known->context->device));
        return NULL;
    }
    if (*pd) {
        return *pd;
    }
    *pd = VERBS_POINTER("ibv_alloc_pd", ibv_alloc_pd(id->verbs));
    if (!*pd) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot allocate a protection domain on %s",
                        ibv_get_device_name(id->verbs->device));
    }
    return *pd;
}

/* The domain that guest RAM is registered in, for a queue pair on `id'. */
static struct ibv_pd *need_data_pd(RdmaConn *conn, struct rdma_cm_id *id, GError **error)
{
    struct ibv_pd *ahead = conn->pinned ? pinned_pd(conn->pinned) : NULL;

    return need_pd(conn, ahead ? &ahead : &conn->data_pd, id, error);
}

Endpoint *conn_endpoint(RdmaConn *conn, struct rdma_cm_id *id, bool data,
                        const EndpointLimits *limits, const char *name, GError **error)
{
    struct ibv_pd *pd;

    if (!id->verbs) {
        g_autofree char *devices = nic_list();

        g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE,
                    "no RDMA device of this host belongs to that address; %s", devices);
        return NULL;
    }
    pd = data ? need_data_pd(conn, id, error) : need_pd(conn, &conn->pd, id, error);
    return pd ? endpoint_new(id, pd, limits, name, error) : NULL;
}

Endpoint *conn_control_endpoint(RdmaConn *conn, struct rdma_cm_id *id, GError **error)
{
    const EndpointLimits limits = {
        .send_bytes = CONTROL_MESSAGE_MAX + WIRE_HEADER_BYTES,
        .receive_bytes = CONTROL_MESSAGE_MAX + WIRE_HEADER_BYTES,
        /* If stock QEMU answers, this queue pair carries everything. */
        .writes = conn->base.role == VMF_ROLE_SOURCE ? WRITE_QUEUE_REQUESTS : 0,
    };

    return conn_endpoint(conn, id, false, &limits, "control connection", error);
}
