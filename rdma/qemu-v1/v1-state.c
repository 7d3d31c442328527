/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-state.c -- what only a connection with stock QEMU has */

#include "v1-state.h"

V1 *v1_new(RdmaConn *conn, bool pin_all, const VmfTransport *ops)
{
    V1 *v1 = g_new0(V1, 1);

    v1->pin_all = pin_all;
    v1->last_heard = g_get_monotonic_time();
    conn->v1 = v1;
    conn->base.foreign = true;
    conn->base.ops = ops;
    return v1;
}

void v1_free(V1 *v1)
{
    if (v1) {
        if (v1->stage_mr) {
            ibv_dereg_mr(v1->stage_mr);
        }
        g_free(v1->stage);
        g_free(v1->offsets);
        v1_regions_free(v1->regions);
        g_free(v1->starts);
        if (v1->back_events) {
            rdma_destroy_event_channel(v1->back_events);
        }
        g_free(v1);
    }
}

void v1_forget(RdmaConn *conn)
{
    if (conn->v1) {
        g_clear_pointer(&conn->v1, v1_free);
        conn->base.foreign = false;
        conn->base.ops = NULL;
    }
}
