/* SPDX-License-Identifier: BSD-2-Clause */
/* false-events.c -- what a backend says of an id: each becomes an event in its channel */

#include "false-objects.h"

#include <string.h>

const char *false_id_node(struct rdma_cm_id *id)
{
    return id_of(id)->node;
}

const char *false_id_service(struct rdma_cm_id *id)
{
    return id_of(id)->service;
}

void false_id_set_opaque(struct rdma_cm_id *id, void *opaque)
{
    g_atomic_pointer_set(&id_of(id)->opaque, opaque);
}

void *false_id_opaque(struct rdma_cm_id *id)
{
    return g_atomic_pointer_get(&id_of(id)->opaque);
}

/* The states in which an id waits for its connection, and those in which it has one. */
#define PENDING (1U << FALSE_ID_CONNECTING | 1U << FALSE_ID_ACCEPTED)
#define UP (1U << FALSE_ID_ACCEPTED | 1U << FALSE_ID_CONNECTED | 1U << FALSE_ID_DISCONNECTED)

static FalseEvent *event_new(FalseId *owner, struct rdma_cm_id *id, enum rdma_cm_event_type type,
                             const struct rdma_conn_param *param)
{
    FalseEvent *event = g_new0(FalseEvent, 1);

    event->owner = owner;
    event->event.id = id;
    event->event.event = type;
    if (param) {
        event->event.param.conn = *param;
        if (param->private_data) {
            memcpy(event->data, param->private_data, param->private_data_len);
        } else {
            event->event.param.conn.private_data_len = 0;
        }
    }
    event->event.param.conn.private_data = event->data;
    return event;
}

/*
 * Queues an event that takes the id from one of the states `from' to another. In any other state
 * it comes too late, because the program has gone on.
 */
static void post(struct rdma_cm_id *id, FalseEvent *event, unsigned from, FalseIdState state)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;

    g_mutex_lock(&device->lock);
    if (!(from & 1U << ours->state)) {
        g_mutex_unlock(&device->lock);
        g_free(event);
        return;
    }
    ours->state = state;
    if (state == FALSE_ID_CONNECTED && id->qp && id->qp->state == IBV_QPS_INIT) {
        id->qp->state = IBV_QPS_RTS;
    }
    channel_post_locked(ours->channel, event);
    g_mutex_unlock(&device->lock);
}

struct rdma_cm_id *false_id_request(struct rdma_cm_id *listening,
                                    const struct rdma_conn_param *param,
                                    const struct sockaddr *peer, void *opaque)
{
    FalseId *listener = id_of(listening), *made = g_new0(FalseId, 1);
    FalseDevice *device = listener->channel->device;
    FalseEvent *event = event_new(listener, &made->cm, RDMA_CM_EVENT_CONNECT_REQUEST, param);

    g_mutex_lock(&device->lock);
    if (listener->dying || listener->channel->closed) {
        g_mutex_unlock(&device->lock);
        g_free(event);
        g_free(made);
        return NULL;
    }
    made->channel = listener->channel;
    made->channel->ids++;
    made->node = g_strdup(listener->node);
    made->service = g_strdup(listener->service);
    made->opaque = opaque;
    made->state = FALSE_ID_REQUESTED;
    made->cm.verbs = listening->verbs;
    made->cm.channel = listening->channel;
    made->cm.context = listening->context;
    made->cm.ps = listening->ps;
    made->cm.port_num = 1;
    made->cm.qp_type = IBV_QPT_RC;
    made->cm.route.addr.src_storage = listening->route.addr.src_storage;
    if (peer && (peer->sa_family == AF_INET || peer->sa_family == AF_INET6)) {
        memcpy(&made->cm.route.addr.dst_storage, peer,
               peer->sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                          : sizeof(struct sockaddr_in6));
    }
    event->event.listen_id = listening;
    event->abandon = false_destroy_id;
    channel_post_locked(listener->channel, event);
    g_mutex_unlock(&device->lock);
    return &made->cm;
}

void false_id_established(struct rdma_cm_id *id, const struct rdma_conn_param *param)
{
    post(id, event_new(id_of(id), id, RDMA_CM_EVENT_ESTABLISHED, param), PENDING,
         FALSE_ID_CONNECTED);
}

void false_id_failed(struct rdma_cm_id *id, enum rdma_cm_event_type event, int status,
                     const void *data, uint8_t size)
{
    const struct rdma_conn_param param = {.private_data = data, .private_data_len = size};
    FalseEvent *made = event_new(id_of(id), id, event, &param);

    made->event.status = status;
    post(id, made, PENDING | 1U << FALSE_ID_REQUESTED, FALSE_ID_FAILED);
}

void false_id_disconnected(struct rdma_cm_id *id)
{
    post(id, event_new(id_of(id), id, RDMA_CM_EVENT_DISCONNECTED, NULL), UP, FALSE_ID_DISCONNECTED);
}

void false_id_device_removed(struct rdma_cm_id *id)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;

    g_mutex_lock(&device->lock);
    channel_post_locked(ours->channel, event_new(ours, id, RDMA_CM_EVENT_DEVICE_REMOVAL, NULL));
    g_mutex_unlock(&device->lock);
}
