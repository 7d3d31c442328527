/* SPDX-License-Identifier: BSD-2-Clause */
/* false-id.c -- connection ids of a false RDMA device: from their address to their end */

#include "false-objects.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

/* Private data of a connection request, and of a rejection: what InfiniBand has room for. */
#define CONNECT_DATA_MAX 56
#define ACCEPT_DATA_MAX 196
#define REJECT_DATA_MAX 148

/* --- beginning and end --- */

int false_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **id, void *context,
                    enum rdma_port_space ps)
{
    FalseChannel *owner = (FalseChannel *)channel;
    FalseId *made = g_new0(FalseId, 1);

    made->channel = owner;
    made->node = g_strdup("");
    made->service = g_strdup("");
    made->cm.channel = channel;
    made->cm.context = context;
    made->cm.ps = ps;
    made->cm.qp_type = IBV_QPT_RC;
    g_mutex_lock(&owner->device->lock);
    owner->ids++;
    g_mutex_unlock(&owner->device->lock);
    *id = &made->cm;
    return 0;
}

int false_destroy_id(struct rdma_cm_id *id)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;
    GList *unread;

    g_mutex_lock(&device->lock);
    ours->dying = true;
    unread = channel_discard_locked(ours->channel, ours);
    g_mutex_unlock(&device->lock);

    if (id->qp) {
        false_destroy_qp(id);
    }
    if (device->ops.id_destroyed) {
        device->ops.id_destroyed(device->opaque, id);
    }
    channel_abandon(unread);

    g_mutex_lock(&device->lock);
    while (ours->acknowledged != ours->reported) {
        g_cond_wait(&device->acknowledged, &device->lock);
    }
    channel_unref_locked(ours->channel);
    g_mutex_unlock(&device->lock);
    g_free(ours->node);
    g_free(ours->service);
    g_free(ours);
    return 0;
}

int false_set_option(struct rdma_cm_id *id, int level, int name, void *value, size_t size)
{
    (void)id;
    (void)level;
    (void)name;
    (void)value;
    (void)size;
    return 0;
}

/* --- the address --- */

/* Copies an address into the id. false: it is no IP address. */
static bool copy_address(struct sockaddr_storage *copy, const struct sockaddr *address)
{
    switch (address->sa_family) {
    case AF_INET:
        memcpy(copy, address, sizeof(struct sockaddr_in));
        return true;
    case AF_INET6:
        memcpy(copy, address, sizeof(struct sockaddr_in6));
        return true;
    default:
        return false;
    }
}

/* The id has a device from now on, and `address' is what the backend is asked for. */
static void name_locked(FalseId *id, const struct sockaddr *address)
{
    FalseDevice *device = id->channel->device;

    g_free(id->node);
    g_free(id->service);
    address_names_locked(device, address, &id->node, &id->service);
    id->cm.verbs = &device->context;
    id->cm.port_num = 1;
}

static int bad_state_unless(bool good)
{
    if (!good) {
        errno = EINVAL;
    }
    return good ? 0 : -1;
}

int false_bind_addr(struct rdma_cm_id *id, struct sockaddr *address)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;
    bool good;

    g_mutex_lock(&device->lock);
    good = ours->state == FALSE_ID_NEW && copy_address(&id->route.addr.src_storage, address);
    if (good) {
        ours->state = FALSE_ID_BOUND;
        name_locked(ours, address);
    }
    g_mutex_unlock(&device->lock);
    return bad_state_unless(good);
}

static void post_simple_locked(FalseId *id, enum rdma_cm_event_type type)
{
    FalseEvent *event = g_new0(FalseEvent, 1);

    event->owner = id;
    event->event.id = &id->cm;
    event->event.event = type;
    channel_post_locked(id->channel, event);
}

int false_resolve_addr(struct rdma_cm_id *id, struct sockaddr *source, struct sockaddr *destination,
                       int timeout_ms)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;
    bool good;

    (void)timeout_ms;
    g_mutex_lock(&device->lock);
    good = (ours->state == FALSE_ID_NEW || ours->state == FALSE_ID_BOUND) &&
           (!source || copy_address(&id->route.addr.src_storage, source)) &&
           copy_address(&id->route.addr.dst_storage, destination);
    if (good) {
        ours->state = FALSE_ID_ADDRESS_RESOLVED;
        name_locked(ours, destination);
        post_simple_locked(ours, RDMA_CM_EVENT_ADDR_RESOLVED);
    }
    g_mutex_unlock(&device->lock);
    return bad_state_unless(good);
}

int false_resolve_route(struct rdma_cm_id *id, int timeout_ms)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;
    bool good;

    (void)timeout_ms;
    g_mutex_lock(&device->lock);
    good = ours->state == FALSE_ID_ADDRESS_RESOLVED;
    if (good) {
        ours->state = FALSE_ID_ROUTE_RESOLVED;
        post_simple_locked(ours, RDMA_CM_EVENT_ROUTE_RESOLVED);
    }
    g_mutex_unlock(&device->lock);
    return bad_state_unless(good);
}

static __be16 port_of(const struct sockaddr *address)
{
    switch (address->sa_family) {
    case AF_INET:
        return ((const struct sockaddr_in *)address)->sin_port;
    case AF_INET6:
        return ((const struct sockaddr_in6 *)address)->sin6_port;
    default:
        return 0;
    }
}

__be16 false_get_src_port(struct rdma_cm_id *id)
{
    return port_of(&id->route.addr.src_addr);
}

__be16 false_get_dst_port(struct rdma_cm_id *id)
{
    return port_of(&id->route.addr.dst_addr);
}

/* --- the connection --- */

/* Goes from one state to another. false with errno: the id is in none of the states `from'. */
static bool enter(FalseId *id, unsigned from, FalseIdState to)
{
    FalseDevice *device = id->channel->device;
    bool good;

    g_mutex_lock(&device->lock);
    good = from & 1U << id->state;
    if (good) {
        id->state = to;
    }
    g_mutex_unlock(&device->lock);
    return bad_state_unless(good) == 0;
}

/* What a function of the backend said; after an error the id is in its old state again. */
static int answer(FalseId *id, int error, FalseIdState to, FalseIdState from)
{
    if (!error) {
        return 0;
    }
    (void)enter(id, 1U << to, from);
    errno = error;
    return -1;
}

static bool data_fits(const struct rdma_conn_param *param, unsigned most)
{
    return bad_state_unless(!param || param->private_data_len <= most) == 0;
}

/* Parameters for the backend, which never sees NULL. */
static const struct rdma_conn_param *or_none(const struct rdma_conn_param *param)
{
    static const struct rdma_conn_param none;

    return param ? param : &none;
}

int false_listen(struct rdma_cm_id *id, int backlog)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;

    if (!enter(ours, 1U << FALSE_ID_BOUND, FALSE_ID_LISTENING)) {
        return -1;
    }
    return answer(ours,
                  device->ops.listen ? device->ops.listen(device->opaque, id, backlog) : EOPNOTSUPP,
                  FALSE_ID_LISTENING, FALSE_ID_BOUND);
}

int false_connect(struct rdma_cm_id *id, struct rdma_conn_param *param)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;

    if (!data_fits(param, CONNECT_DATA_MAX) ||
        !enter(ours, 1U << FALSE_ID_ROUTE_RESOLVED, FALSE_ID_CONNECTING)) {
        return -1;
    }
    return answer(ours,
                  device->ops.connect ? device->ops.connect(device->opaque, id, or_none(param))
                                      : EOPNOTSUPP,
                  FALSE_ID_CONNECTING, FALSE_ID_ROUTE_RESOLVED);
}

int false_accept(struct rdma_cm_id *id, struct rdma_conn_param *param)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;

    if (!data_fits(param, ACCEPT_DATA_MAX) ||
        !enter(ours, 1U << FALSE_ID_REQUESTED, FALSE_ID_ACCEPTED)) {
        return -1;
    }
    return answer(ours,
                  device->ops.accept ? device->ops.accept(device->opaque, id, or_none(param))
                                     : EOPNOTSUPP,
                  FALSE_ID_ACCEPTED, FALSE_ID_REQUESTED);
}

int false_reject(struct rdma_cm_id *id, const void *data, uint8_t size)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;

    if (bad_state_unless(size <= REJECT_DATA_MAX) ||
        !enter(ours, 1U << FALSE_ID_REQUESTED, FALSE_ID_FAILED)) {
        return -1;
    }
    return answer(ours, device->ops.reject ? device->ops.reject(device->opaque, id, data, size) : 0,
                  FALSE_ID_FAILED, FALSE_ID_REQUESTED);
}

int false_disconnect(struct rdma_cm_id *id)
{
    FalseId *ours = id_of(id);
    FalseDevice *device = ours->channel->device;
    const unsigned from =
        1U << FALSE_ID_ACCEPTED | 1U << FALSE_ID_CONNECTED | 1U << FALSE_ID_DISCONNECTED;

    if (!enter(ours, from, FALSE_ID_DISCONNECTED)) {
        return -1;
    }
    if (id->qp) {
        false_qp_flush(id->qp);
    }
    if (device->ops.disconnect) {
        int error = device->ops.disconnect(device->opaque, id);

        if (error) {
            errno = error;
            return -1;
        }
    }
    return 0;
}
