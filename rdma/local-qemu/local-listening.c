/* SPDX-License-Identifier: BSD-2-Clause */
/* local-listening.c -- asking this process's QEMU, which listens, to accept connections */

#include "local-listening.h"

struct LocalListening {
    gatomicrefcount references;
    gint64 accept_us; /* fixed */
    GMutex lock;
    struct rdma_cm_id *id; /* lock: NULL after the end */
};

LocalListening *local_listening_new(struct rdma_cm_id *id, gint64 accept_us)
{
    LocalListening *listening = g_new0(LocalListening, 1);

    g_atomic_ref_count_init(&listening->references);
    g_mutex_init(&listening->lock);
    listening->id = id;
    listening->accept_us = accept_us;
    return listening;
}

LocalListening *local_listening_ref(LocalListening *listening)
{
    g_atomic_ref_count_inc(&listening->references);
    return listening;
}

void local_listening_unref(LocalListening *listening)
{
    if (g_atomic_ref_count_dec(&listening->references)) {
        g_mutex_clear(&listening->lock);
        g_free(listening);
    }
}

gint64 local_listening_accept_us(const LocalListening *listening)
{
    return listening->accept_us;
}

void local_listening_close(LocalListening *listening)
{
    g_mutex_lock(&listening->lock);
    listening->id = NULL;
    g_mutex_unlock(&listening->lock);
}

bool local_listening_request(LocalListening *listening, LocalLink *link)
{
    const V1Capabilities capabilities = {.version = V1_VERSION};
    uint8_t data[V1_CAPABILITIES_BYTES];
    const struct rdma_conn_param param = {.private_data = data, .private_data_len = sizeof(data)};
    bool asked;

    v1_capabilities_encode(&capabilities, data);
    g_mutex_lock(&listening->lock);
    asked = listening->id && false_id_request(listening->id, &param, NULL, link);
    g_mutex_unlock(&listening->lock);
    return asked;
}
