/* SPDX-License-Identifier: BSD-2-Clause */
/* loopback-device.c -- a false RDMA device whose peers are ids of the same process */

#include "loopback-device.h"

#include <errno.h>
#include <string.h>

/* A connection: side 0 has asked for it. */
typedef struct Wire {
    struct rdma_cm_id *ids[2];
    struct ibv_qp *qps[2];
    GQueue messages[2]; /* of Message, for the queue pair of that side */
} Wire;

typedef struct Message {
    GBytes *bytes;
    uint64_t wr_id;
} Message;

/* What is not in the public structure. */
typedef struct Device {
    Loopback public;
    GPtrArray *wires;
} Device;

static void message_free(gpointer data)
{
    Message *message = data;

    g_bytes_unref(message->bytes);
    g_free(message);
}

static void wire_free(gpointer data)
{
    Wire *wire = data;

    g_queue_clear_full(&wire->messages[0], message_free);
    g_queue_clear_full(&wire->messages[1], message_free);
    g_free(wire);
}

static unsigned side_of(const Wire *wire, const struct rdma_cm_id *id)
{
    return wire->ids[1] == id;
}

/* --- connections --- */

static struct rdma_cm_id *find_listener(Loopback *loopback, const char *service)
{
    for (unsigned i = 0; i < loopback->listening->len; i++) {
        struct rdma_cm_id *id = g_ptr_array_index(loopback->listening, i);

        if (g_str_equal(false_id_service(id), service)) {
            return id;
        }
    }
    return NULL;
}

static int connect_id(void *opaque, struct rdma_cm_id *id, const struct rdma_conn_param *param)
{
    Device *device = opaque;
    struct rdma_cm_id *listener;
    Wire *wire;

    if (device->public.connect_error) {
        return device->public.connect_error;
    }
    if (g_str_equal(false_id_node(id), "nowhere")) {
        false_id_failed(id, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT, NULL, 0);
        return 0;
    }
    g_mutex_lock(&device->public.lock);
    listener = find_listener(&device->public, false_id_service(id));
    if (listener) {
        wire = g_new0(Wire, 1);
        g_ptr_array_add(device->wires, wire);
        wire->ids[0] = id;
        wire->qps[0] = id->qp;
        false_id_set_opaque(id, wire);
        wire->ids[1] = false_id_request(listener, param, &id->route.addr.dst_addr, wire);
    } else {
        false_id_failed(id, RDMA_CM_EVENT_REJECTED, 8, NULL, 0);
    }
    g_mutex_unlock(&device->public.lock);
    return 0;
}

static int listen_id(void *opaque, struct rdma_cm_id *id, int backlog)
{
    Loopback *loopback = opaque;

    (void)backlog;
    if (loopback->connect_error) {
        return loopback->connect_error;
    }
    g_mutex_lock(&loopback->lock);
    g_ptr_array_add(loopback->listening, id);
    g_mutex_unlock(&loopback->lock);
    return 0;
}

static int accept_id(void *opaque, struct rdma_cm_id *id, const struct rdma_conn_param *param)
{
    Loopback *loopback = opaque;
    Wire *wire = false_id_opaque(id);

    g_mutex_lock(&loopback->lock);
    wire->qps[1] = id->qp;
    false_id_established(id, NULL);
    if (wire->ids[0]) {
        false_id_established(wire->ids[0], param);
    }
    g_mutex_unlock(&loopback->lock);
    return 0;
}

static int reject_id(void *opaque, struct rdma_cm_id *id, const void *data, uint8_t size)
{
    Loopback *loopback = opaque;
    Wire *wire = false_id_opaque(id);

    g_mutex_lock(&loopback->lock);
    if (wire->ids[0]) {
        false_id_failed(wire->ids[0], RDMA_CM_EVENT_REJECTED, 28, data, size);
    }
    g_mutex_unlock(&loopback->lock);
    return 0;
}

static int disconnect_id(void *opaque, struct rdma_cm_id *id)
{
    Loopback *loopback = opaque;
    Wire *wire = false_id_opaque(id);

    g_mutex_lock(&loopback->lock);
    for (unsigned i = 0; i < 2; i++) {
        if (wire->ids[i]) {
            false_id_disconnected(wire->ids[i]);
        }
    }
    g_mutex_unlock(&loopback->lock);
    return 0;
}

static void id_destroyed(void *opaque, struct rdma_cm_id *id)
{
    Loopback *loopback = opaque;
    Wire *wire = false_id_opaque(id);

    g_mutex_lock(&loopback->lock);
    loopback->ids_destroyed++;
    g_ptr_array_remove(loopback->listening, id);
    if (wire) {
        const unsigned side = side_of(wire, id);

        wire->ids[side] = NULL;
        if (wire->ids[!side]) {
            false_id_disconnected(wire->ids[!side]);
        }
    }
    g_mutex_unlock(&loopback->lock);
}

/* --- queue pairs --- */

static int qp_created(void *opaque, struct ibv_qp *qp)
{
    Loopback *loopback = opaque;

    false_qp_set_opaque(qp, loopback);
    g_mutex_lock(&loopback->lock);
    loopback->qps++;
    g_mutex_unlock(&loopback->lock);
    return loopback->qp_error;
}

static void qp_destroyed(void *opaque, struct ibv_qp *qp)
{
    Loopback *loopback = opaque;
    Wire *wire = false_id_opaque(false_qp_id(qp));

    g_assert_true(false_qp_opaque(qp) == opaque);
    g_mutex_lock(&loopback->lock);
    loopback->qps--;
    if (wire) {
        wire->qps[side_of(wire, false_qp_id(qp))] = NULL;
    }
    while (g_queue_remove(&loopback->held, qp)) {
    }
    g_mutex_unlock(&loopback->lock);
}

static void deliver_locked(Wire *wire, unsigned to)
{
    Message *message;

    while (wire->qps[to] && (message = g_queue_peek_head(&wire->messages[to]))) {
        size_t size, half;
        const uint8_t *bytes = g_bytes_get_data(message->bytes, &size);
        struct iovec pieces[2];

        half = size / 2;
        pieces[0] = (struct iovec){.iov_base = (void *)bytes, .iov_len = half};
        pieces[1] = (struct iovec){.iov_base = (void *)(bytes + half), .iov_len = size - half};
        if (!false_qp_deliver(wire->qps[to], pieces, 2, false)) {
            return;
        }
        if (wire->qps[!to]) {
            false_qp_complete_send(wire->qps[!to], message->wr_id, IBV_WC_SUCCESS);
        }
        message_free(g_queue_pop_head(&wire->messages[to]));
    }
}

static void receive_posted(void *opaque, struct ibv_qp *qp)
{
    Loopback *loopback = opaque;
    Wire *wire = false_id_opaque(false_qp_id(qp));

    if (wire) {
        g_mutex_lock(&loopback->lock);
        deliver_locked(wire, side_of(wire, false_qp_id(qp)));
        g_mutex_unlock(&loopback->lock);
    }
}

static void send_locked(Wire *wire, struct ibv_qp *qp, const struct ibv_send_wr *wr)
{
    const unsigned side = side_of(wire, false_qp_id(qp));
    Message *message = g_new(Message, 1);
    GByteArray *bytes = g_byte_array_new();

    for (int i = 0; i < wr->num_sge; i++) {
        const void *memory = wr->send_flags & IBV_SEND_INLINE
                                 ? (const void *)(uintptr_t)wr->sg_list[i].addr
                                 : false_qp_local_memory(qp, &wr->sg_list[i]);

        g_byte_array_append(bytes, memory, wr->sg_list[i].length);
    }
    message->wr_id = wr->wr_id;
    message->bytes = g_byte_array_free_to_bytes(bytes);
    g_queue_push_tail(&wire->messages[!side], message);
    deliver_locked(wire, !side);
}

static int write_locked(Loopback *loopback, Wire *wire, struct ibv_qp *qp,
                        const struct ibv_send_wr *wr)
{
    const struct ibv_sge *sge = wr->sg_list;
    struct ibv_qp *peer = wire->qps[!side_of(wire, false_qp_id(qp))];
    void *place = peer ? false_qp_remote_memory(peer, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr,
                                                sge->length, IBV_ACCESS_REMOTE_WRITE)
                       : NULL;

    if (loopback->hold && loopback->held.length == loopback->queue_max) {
        return ENOMEM;
    }
    if (!place) {
        false_qp_complete_send(qp, wr->wr_id, IBV_WC_REM_ACCESS_ERR);
        return 0;
    }
    memcpy(place, false_qp_local_memory(qp, sge), sge->length);
    if (loopback->hold) {
        g_queue_push_tail(&loopback->held, qp);
    } else {
        false_qp_complete_send(qp, wr->wr_id, IBV_WC_SUCCESS);
    }
    return 0;
}

static int post_send(void *opaque, struct ibv_qp *qp, const struct ibv_send_wr *wr)
{
    Loopback *loopback = opaque;
    Wire *wire = false_id_opaque(false_qp_id(qp));
    int error = 0;

    g_mutex_lock(&loopback->lock);
    switch (wr->opcode) {
    case IBV_WR_SEND:
        send_locked(wire, qp, wr);
        break;
    case IBV_WR_RDMA_WRITE:
        error = write_locked(loopback, wire, qp, wr);
        break;
    default:
        error = EINVAL;
        break;
    }
    g_mutex_unlock(&loopback->lock);
    return error;
}

/* Writes that are held have 7 for their id. */
void loopback_release(Loopback *loopback, unsigned count)
{
    g_mutex_lock(&loopback->lock);
    while (count--) {
        false_qp_complete_send(g_queue_pop_head(&loopback->held), 7, IBV_WC_SUCCESS);
    }
    g_mutex_unlock(&loopback->lock);
}

/* --- memory --- */

static int mr_registered(void *opaque, struct ibv_mr *mr, unsigned access)
{
    Loopback *loopback = opaque;

    (void)access;
    g_assert_nonnull(mr->addr);
    if (!loopback->mr_error) {
        g_mutex_lock(&loopback->lock);
        loopback->mrs++;
        g_mutex_unlock(&loopback->lock);
    }
    return loopback->mr_error;
}

static void mr_deregistered(void *opaque, struct ibv_mr *mr)
{
    Loopback *loopback = opaque;

    g_assert_nonnull(mr->addr);
    g_mutex_lock(&loopback->lock);
    loopback->mrs--;
    g_mutex_unlock(&loopback->lock);
}

/* --- the device --- */

static const FalseDeviceOps loopback_ops = {
    .size = sizeof(loopback_ops),
    .connect = connect_id,
    .listen = listen_id,
    .accept = accept_id,
    .reject = reject_id,
    .disconnect = disconnect_id,
    .id_destroyed = id_destroyed,
    .qp_created = qp_created,
    .qp_destroyed = qp_destroyed,
    .post_send = post_send,
    .receive_posted = receive_posted,
    .mr_registered = mr_registered,
    .mr_deregistered = mr_deregistered,
};

Loopback *loopback_new(void)
{
    Device *device = g_new0(Device, 1);

    g_mutex_init(&device->public.lock);
    device->public.listening = g_ptr_array_new();
    device->public.queue_max = 4;
    device->wires = g_ptr_array_new_with_free_func(wire_free);
    g_queue_init(&device->public.held);
    device->public.device = false_device_new("loopback", &loopback_ops, device);
    return &device->public;
}

void loopback_free(Loopback *loopback)
{
    Device *device = (Device *)loopback;

    g_assert_cmpuint(loopback->qps, ==, 0);
    g_assert_cmpuint(loopback->mrs, ==, 0);
    g_assert_cmpuint(loopback->listening->len, ==, 0);
    false_device_free(loopback->device);
    g_queue_clear(&loopback->held);
    g_ptr_array_unref(loopback->listening);
    g_ptr_array_unref(device->wires);
    g_mutex_clear(&loopback->lock);
    g_free(device);
}
