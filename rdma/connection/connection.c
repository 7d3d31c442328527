/* SPDX-License-Identifier: BSD-2-Clause */
/* connection.c -- making a connection, without its channels, and ending it */

#include "connection.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "verbs/cm.h"
#include "data-channel.h"
#include "source/renewal.h"
#include "verbs/verbs-error.h"
#include "qemu-v1/v1-state.h"

RdmaConn *conn_new(const RdmaOptions *options, VmfRole role, GError **error)
{
    RdmaConn *conn = g_new0(RdmaConn, 1);

    conn->base.size = sizeof(VmfConn);
    conn->base.role = role;
    conn->options = *options;
    conn->base.control_max = CONTROL_MESSAGE_MAX;
    conn->revoke_fd = -1;
    conn->listener_fd = -1;
    g_mutex_init(&conn->setup_lock);
    g_cond_init(&conn->setup_cond);
    conn->addresses = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    conn->rkeys = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    conn->events = VERBS_POINTER("rdma_create_event_channel", rdma_create_event_channel());
    if (!conn->events) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno,
                        "cannot open an RDMA connection-manager channel; is the rdma_ucm module "
                        "loaded and /dev/infiniband/rdma_cm accessible?");
        conn_close(&conn->base);
        return NULL;
    }
    conn->revoke_fd = VMF_FAULT("eventfd") ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (conn->revoke_fd < 0) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "cannot create an event descriptor");
        conn_close(&conn->base);
        return NULL;
    }
    if (!cm_events_nonblocking(conn->events, error)) {
        conn_close(&conn->base);
        return NULL;
    }
    return conn;
}

bool conn_own_id(RdmaConn *conn, struct rdma_cm_id *id, GError **error)
{
    conn->nic = nic_watch(id, error);
    if (!conn->nic) {
        return false;
    }
    conn->id = id;
    conn->base.peer = cm_peer_name(id);
    conn->base.own_bytes += endpoint_own_bytes(conn->control);
    return true;
}

/* Every event of an id is acknowledged at once, so destroying an id never waits. */
void conn_close(VmfConn *base)
{
    RdmaConn *conn = conn_of(base);

    for (unsigned i = 0; i < VMF_CHANNELS_MAX; i++) {
        channel_take_down(conn->channels[i]);
    }
    for (unsigned i = 0; i < VMF_CHANNELS_MAX; i++) {
        channel_free(g_steal_pointer(&conn->channels[i]));
    }
    discards_clear(&conn->discards);
    chunks_clear(&conn->chunks);
    renewal_clear(conn);
    if (conn->device_mr) {
        ibv_dereg_mr(conn->device_mr);
    }
    pinned_free(conn->pinned);
    zero_marks_free(conn->zero_marks, base->block_count);
    if (conn->id && conn->control) {
        rdma_disconnect(conn->id);
    }
    v1_free(conn->v1);
    endpoint_free(conn->control);
    if (conn->id) {
        rdma_destroy_id(conn->id);
    }
    if (conn->data_pd) {
        ibv_dealloc_pd(conn->data_pd);
    }
    if (conn->pd) {
        ibv_dealloc_pd(conn->pd);
    }
    if (conn->events) {
        rdma_destroy_event_channel(conn->events);
    }
    nic_unwatch(conn->nic);
    if (conn->revoke_fd >= 0) {
        close(conn->revoke_fd);
    }
    g_array_unref(conn->addresses);
    g_array_unref(conn->rkeys);
    g_mutex_clear(&conn->setup_lock);
    g_cond_clear(&conn->setup_cond);
    g_free(base->counters);
    g_free(base->peer);
    g_free(conn);
}
