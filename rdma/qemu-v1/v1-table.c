/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-table.c -- a connection with stock QEMU as a transport: its beginning, its table, its end */

#include "v1-table.h"

#include "connection/conn-endpoint.h"
#include "connection/connection.h"
#include "connection/data-channel.h"
#include "source/ram-source.h"
#include "destination/serve.h"
#include "v1-back.h"
#include "v1-destination.h"
#include "v1-link.h"
#include "v1-source.h"
#include "v1-state.h"

/*
 * The source's messages come one at a time. An ERROR may come besides, and this side may still hold
 * a message.
 */
#define DESTINATION_RECEIVES 3
/*
 * The destination's longest answer to a request. It is enough for RAM_BLOCKS_RESULT with 2,000
 * blocks.
 */
#define DESTINATION_SEND_BYTES (V1_HEADER_BYTES + V1_REPEAT_MAX * V1_REGISTERED_BYTES)
/* How long a failing side tries to tell its peer. */
#define LAST_WORDS_US (500 * G_TIME_SPAN_MILLISECOND)

/* --- the beginning --- */

bool v1_connected(RdmaConn *conn, const V1Capabilities *reply, GError **error)
{
    const bool wanted = conn->options.registration == RDMA_REGISTRATION_PIN_ALL;

    if (conn->options.registration == RDMA_REGISTRATION_ODP) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "registration=odp: the destination is stock QEMU, which does not do that; use "
                    "registration=chunk or pin-all");
        return false;
    }
    if (wanted && !(reply->flags & V1_FLAG_PIN_ALL)) {
        g_info("rdma: the destination does not pin all memory; registering in chunks");
        conn->options.registration = RDMA_REGISTRATION_CHUNK;
    }
    v1_new(conn, wanted && reply->flags & V1_FLAG_PIN_ALL, &v1_transport);
    return true;
}

void v1_reply(const V1Capabilities *request, uint8_t out[V1_CAPABILITIES_BYTES])
{
    const V1Capabilities reply = {
        .version = V1_VERSION,
        .flags = request->flags & V1_FLAG_PIN_ALL,
    };

    v1_capabilities_encode(&reply, out);
}

Endpoint *v1_accept(RdmaConn *conn, struct rdma_cm_id *id, const V1Capabilities *request,
                    GError **error)
{
    const EndpointLimits limits = {
        .send_bytes = DESTINATION_SEND_BYTES,
        .receive_bytes = V1_MESSAGE_MAX,
        .receives = DESTINATION_RECEIVES,
    };

    v1_new(conn, request->flags & V1_FLAG_PIN_ALL, &v1_transport);
    conn->options.registration =
        conn->v1->pin_all ? RDMA_REGISTRATION_PIN_ALL : RDMA_REGISTRATION_CHUNK;
    return conn_endpoint(conn, id, true, &limits, "connection", error);
}

/* The connection's one queue pair becomes the channel's. */
static bool open_channel(VmfConn *base, GError **error)
{
    RdmaConn *conn = conn_of(base);
    RdmaChannel *channel = g_new0(RdmaChannel, 1);

    base->counters = g_new0(VmfChannelCounters, 1);
    channel->conn = conn;
    channel->counters = &base->counters[0];
    channel->ep = g_steal_pointer(&conn->control);
    g_strlcpy(channel->ep->name, "connection", sizeof(channel->ep->name));
    conn->channels[0] = channel;
    if (base->role == VMF_ROLE_SOURCE) {
        channel_init_source(channel, &v1_dialect);
        return true;
    }
    return v1_await_stream(conn, error);
}

static bool ram_setup(VmfConn *base, GError **error)
{
    /* The destination learns later what to register. */
    return base->role == VMF_ROLE_DESTINATION || v1_source_setup(conn_of(base), error);
}

/* --- the end --- */

/* Tries to tell the peer that this side has failed. */
static void last_words(RdmaChannel *channel)
{
    Endpoint *ep = channel->ep;
    gint64 end = g_get_monotonic_time() + LAST_WORDS_US;
    uint64_t until;

    if (ep->flushed || !v1_send(channel, V1_ERROR, 1, 0, NULL)) {
        return;
    }
    until = ep->posted;
    while (ep->completed < until && !ep->flushed && g_get_monotonic_time() < end &&
           endpoint_poll(ep, NULL)) {
        g_usleep(200);
    }
}

static void close_connection(VmfConn *base)
{
    RdmaConn *conn = conn_of(base);
    RdmaChannel *channel = conn->channels[0];

    if (channel && !base->completed && !conn->v1->peer_failed && !conn->v1->hung_up) {
        last_words(channel);
    }
    if (conn->id) {
        rdma_disconnect(conn->id);
    }
    conn_close(base);
}

const VmfTransport v1_transport = {
    .size = sizeof(VmfTransport),
    .abi_version = VMF_TRANSPORT_ABI,
    .scheme = "rdma",
    .channels_max = 1,
    .open_channels = open_channel,
    .ram_setup = ram_setup,
    .send_ram = v1_send_ram,
    .send_zero = v1_send_zero,
    .send_sync = v1_send_sync,
    .send_stream = v1_send_stream,
    .open_back = v1_open_back,
    .kick = source_kick,
    .wait = v1_wait,
    .serve = v1_serve,
    .revoke = serve_revoke,
    .close = close_connection,
};
