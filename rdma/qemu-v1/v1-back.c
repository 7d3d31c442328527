/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-back.c -- the return path with stock QEMU, a second connection in the other direction */

#include "v1-back.h"

#include <errno.h>
#include <string.h>

#include "verbs/cm.h"
#include "connection/conn-endpoint.h"
#include "connection/dial.h"
#include "v1-link.h"
#include "v1-state.h"
#include "verbs/verbs-error.h"

/*
 * Stock QEMU sends its first message without waiting for READY. So it is one message ahead all the
 * time.
 */
#define SOURCE_RECEIVES 8
#define SOURCE_RECEIVE_BYTES (64u * 1024)
#define DESTINATION_RECEIVES 3
#define DESTINATION_RECEIVE_BYTES 4096u
/* Bytes that one message carries, as with stock QEMU. */
#define STREAM_BYTES (32u * 1024)

static RdmaChannel *make_channel(RdmaConn *conn, struct rdma_cm_id *id, Endpoint *ep)
{
    RdmaChannel *channel = g_new0(RdmaChannel, 1);

    channel->conn = conn;
    channel->number = VMF_CHANNEL_BACK;
    channel->id = id;
    channel->ep = ep;
    conn->channels[VMF_CHANNEL_BACK] = channel;
    conn->base.own_bytes += endpoint_own_bytes(ep);
    return channel;
}

/* A failed attempt leaves its event channel, which serves the next attempt. */
static bool make_events(V1 *v1, GError **error)
{
    if (v1->back_events) {
        return true;
    }
    v1->back_events = VERBS_POINTER("rdma_create_event_channel back", rdma_create_event_channel());
    if (!v1->back_events) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot create an event channel");
        return false;
    }
    if (!cm_events_nonblocking(v1->back_events, error)) {
        rdma_destroy_event_channel(g_steal_pointer(&v1->back_events));
        return false;
    }
    return true;
}

/* --- opening: source --- */

/*
 * Waits for the first READY. Before that, the destination might take the second connection for a
 * fault of the first.
 */
static bool await_greeting(RdmaConn *conn, gint64 deadline, GError **error)
{
    while (!g_atomic_int_get(&conn->v1->greeted)) {
        if (g_cancellable_is_cancelled(conn->base.cancel)) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "cancelled");
            return false;
        }
        if (g_get_monotonic_time() >= deadline) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT, "%s did not say READY in time",
                        conn->base.peer);
            return false;
        }
        g_usleep(1000);
    }
    return true;
}

static bool open_as_source(RdmaConn *conn, GError **error)
{
    const EndpointLimits limits = {
        .send_bytes = 4096,
        .receive_bytes = SOURCE_RECEIVE_BYTES,
        .receives = SOURCE_RECEIVES,
    };
    const V1Capabilities request = {
        .version = V1_VERSION,
        .flags = conn->v1->pin_all ? V1_FLAG_PIN_ALL : 0,
    };
    const gint64 deadline =
        g_get_monotonic_time() + (gint64)conn->options.connect_timeout_ms * G_TIME_SPAN_MILLISECOND;
    uint8_t data[V1_CAPABILITIES_BYTES];
    struct rdma_cm_id *id;
    Endpoint *ep;

    v1_capabilities_encode(&request, data);
    if (!await_greeting(conn, deadline, error) || !make_events(conn->v1, error)) {
        return false;
    }
    id = conn_connect_again(conn, conn->v1->back_events, &limits, "return path", data, sizeof(data),
                            deadline, &ep, error);
    if (!id) {
        g_prefix_error(error, "the return path (stock QEMU has one by rdma from 8.0 on, and with "
                              "the return-path capability on at the destination, too): ");
        return false;
    }
    make_channel(conn, id, ep);
    return true;
}

/* --- opening: destination --- */

bool v1_accept_back(RdmaConn *conn, struct rdma_cm_id *id, GError **error)
{
    const EndpointLimits limits = {
        .send_bytes = V1_HEADER_BYTES + STREAM_BYTES,
        .receive_bytes = DESTINATION_RECEIVE_BYTES,
        .receives = DESTINATION_RECEIVES,
    };
    Endpoint *ep = conn_endpoint(conn, id, false, &limits, "return path", error);

    if (ep) {
        make_channel(conn, id, ep);
    }
    return ep != NULL;
}

bool v1_adopt_back(RdmaConn *conn, GError **error)
{
    RdmaChannel *back = conn->channels[VMF_CHANNEL_BACK];

    if (!back) {
        return true;
    }
    if (!make_events(conn->v1, error)) {
        return false;
    }
    if (CM_INT("rdma_migrate_id", rdma_migrate_id(back->id, conn->v1->back_events)) < 0) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot move the return path's events");
        return false;
    }
    return true;
}

bool v1_open_back(VmfConn *base, GError **error)
{
    RdmaConn *conn = conn_of(base);

    if (conn->channels[VMF_CHANNEL_BACK]) {
        return true;
    }
    if (base->role == VMF_ROLE_SOURCE) {
        return open_as_source(conn, error);
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                "the source (%s), which is stock QEMU, made no return path", base->peer);
    return false;
}

/* --- both ways --- */

/* Sets *hung_up when the peer has closed the return path, or the device is removed. */
static bool take_events(RdmaChannel *back, bool *hung_up, GError **error)
{
    struct rdma_cm_event *event;

    while (rdma_get_cm_event(back->conn->v1->back_events, &event) == 0) {
        *hung_up |= event->event == RDMA_CM_EVENT_DISCONNECTED ||
                    event->event == RDMA_CM_EVENT_DEVICE_REMOVAL;
        rdma_ack_cm_event(event);
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "return path: cannot read events");
        return false;
    }
    return true;
}

/* Sleeps until something has come, until wake_fd is readable (see *woke), or for timeout_ms. */
static bool sleep_on(RdmaChannel *back, int wake_fd, int timeout_ms, unsigned *woke, bool *hung_up,
                     GError **error)
{
    const EndpointWakers wakers = {.cancel = back->conn->base.cancel_fd,
                                   .wake = wake_fd,
                                   .events = back->conn->v1->back_events->fd,
                                   .listener = -1};

    if (!endpoint_sleep(back->ep, &wakers, timeout_ms, 0, woke, error)) {
        return false;
    }
    if (*woke & ENDPOINT_WOKE_CANCEL) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "return path: cancelled");
        return false;
    }
    return (!(*woke & ENDPOINT_WOKE_EVENTS) || take_events(back, hung_up, error)) &&
           endpoint_poll(back->ep, error);
}

/* --- source: reading --- */

static bool take_all(RdmaChannel *back, GError **error)
{
    VmfConn *base = &back->conn->base;

    for (;;) {
        V1Header header;
        const uint8_t *body;
        size_t size;
        unsigned slot;
        bool hook;

        if (!endpoint_poll(back->ep, error) ||
            !v1_take(back, &header, &body, &size, &slot, error)) {
            return false;
        }
        if (!body) {
            return true;
        }
        if (header.type != V1_QEMU_FILE) {
            return v1_refuse(back, header.type, error, "it does not belong to the return path");
        }
        if (!base->host->stream_arrived(base, body, size, &hook, error) ||
            !endpoint_give_back(back->ep, slot, error) || !v1_send(back, V1_READY, 1, 0, error)) {
            return false;
        }
    }
}

bool v1_serve_back(RdmaConn *conn, GError **error)
{
    RdmaChannel *back = conn->channels[VMF_CHANNEL_BACK];
    bool hung_up = false;

    if (!v1_send(back, V1_READY, 1, 0, error)) {
        return false;
    }
    while (take_all(back, error)) {
        unsigned woke;

        if (hung_up || back->ep->flushed) {
            conn->base.host->stream_ended(&conn->base);
            return true;
        }
        if (!sleep_on(back, -1, -1, &woke, &hung_up, error)) {
            break;
        }
    }
    return false;
}

/* --- destination: writing --- */

static bool take_ready(RdmaChannel *back, GError **error)
{
    V1Header header;
    const uint8_t *body;
    size_t size;
    unsigned slot;

    for (;;) {
        if (!v1_take(back, &header, &body, &size, &slot, error)) {
            return false;
        }
        if (!body) {
            return true;
        }
        if (header.type != V1_READY || back->conn->v1->back_ready) {
            return v1_refuse(back, header.type, error, "it does not belong to the return path");
        }
        back->conn->v1->back_ready = true;
        if (!endpoint_give_back(back->ep, slot, error)) {
            return false;
        }
    }
}

static bool lost(RdmaChannel *back, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "the source (%s) hung up",
                back->conn->base.peer);
    return false;
}

static bool await_ready(RdmaChannel *back, GError **error)
{
    const VmfConn *base = &back->conn->base;
    const gint64 deadline =
        g_get_monotonic_time() + (gint64)base->timeout_ms * G_TIME_SPAN_MILLISECOND;

    while (take_ready(back, error)) {
        gint64 left = deadline - g_get_monotonic_time();
        bool hung_up = false;
        unsigned woke;

        if (back->conn->v1->back_ready) {
            return true;
        }
        if (back->ep->flushed) {
            return lost(back, error);
        }
        if (left <= 0) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                        "the source (%s) has not read the return path for %.1f s", base->peer,
                        base->timeout_ms / 1000.0);
            return false;
        }
        if (!sleep_on(back, -1, (int)(left / 1000) + 1, &woke, &hung_up, error)) {
            return false;
        }
        if (hung_up) {
            return lost(back, error);
        }
    }
    return false;
}

bool v1_send_back(RdmaConn *conn, const uint8_t *data, size_t size, GError **error)
{
    RdmaChannel *back = conn->channels[VMF_CHANNEL_BACK];

    while (size) {
        size_t part = MIN(size, STREAM_BYTES);
        uint8_t *body;

        if (!await_ready(back, error)) {
            return false;
        }
        body = v1_body(back);
        if (body) {
            memcpy(body, data, part);
        }
        conn->v1->back_ready = false;
        if (!v1_send(back, V1_QEMU_FILE, 1, part, error)) {
            return false;
        }
        data += part;
        size -= part;
    }
    return true;
}

bool v1_wait_back(RdmaConn *conn, int wake_fd, GError **error)
{
    RdmaChannel *back = conn->channels[VMF_CHANNEL_BACK];
    unsigned woke = 0;
    bool hung_up = false;

    while (!(woke & ENDPOINT_WOKE_WAKE)) {
        if (!take_ready(back, error) || !sleep_on(back, wake_fd, -1, &woke, &hung_up, error)) {
            return false;
        }
        if (hung_up || back->ep->flushed) {
            return lost(back, error);
        }
    }
    return true;
}
