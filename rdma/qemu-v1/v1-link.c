/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-link.c -- one queue pair with stock QEMU: messages, whether the peer is there, the end */

#include <errno.h>
#include <string.h>

#include "v1.h"
#include "verbs-error.h"

/* S's messages come one at a time; ERROR may come besides, and one may be in our hands. */
#define DESTINATION_RECEIVES 3
/* D's longest answer to a request; enough for RAM_BLOCKS_RESULT with 2,000 blocks. */
#define DESTINATION_SEND_BYTES (V1_HEADER_BYTES + V1_REPEAT_MAX * V1_REGISTERED_BYTES)
/* How long a failing side tries to say so. */
#define LAST_WORDS_US (500 * G_TIME_SPAN_MILLISECOND)

/* --- making --- */

static V1 *v1_new(RdmaConn *conn, bool pin_all)
{
    V1 *v1 = g_new0(V1, 1);

    v1->pin_all = pin_all;
    v1->last_heard = g_get_monotonic_time();
    conn->v1 = v1;
    conn->base.foreign = true;
    conn->base.ops = &v1_transport;
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
    v1_new(conn, wanted && reply->flags & V1_FLAG_PIN_ALL);
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

    v1_new(conn, request->flags & V1_FLAG_PIN_ALL);
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
        writer_init(channel);
        return true;
    }
    return v1_await_stream(conn, error);
}

static bool ram_setup(VmfConn *base, GError **error)
{
    /* What the destination registers it is told later. */
    return base->role == VMF_ROLE_DESTINATION || v1_source_setup(conn_of(base), error);
}

/* --- messages --- */

bool v1_refuse(RdmaChannel *channel, unsigned type, GError **error, const char *format, ...)
{
    va_list args;
    g_autofree char *text = NULL;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "%s from %s: %s", v1_type_name(type),
                channel->conn->base.peer, text);
    return false;
}

uint8_t *v1_body(RdmaChannel *channel)
{
    uint8_t *slot = endpoint_slot(channel->ep);

    return slot ? slot + V1_HEADER_BYTES : NULL;
}

bool v1_send(RdmaChannel *channel, V1Type type, unsigned repeat, size_t body_size, GError **error)
{
    const V1Header header = {.type = type, .repeat = repeat};
    uint8_t *slot = endpoint_slot(channel->ep);

    if (!slot) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER, "%s does not take the messages sent to it",
                    channel->conn->base.peer);
        return false;
    }
    v1_header_encode(&header, body_size, slot);
    return endpoint_send_slot(channel->ep, V1_HEADER_BYTES + body_size, error);
}

bool v1_take(RdmaChannel *channel, V1Header *header, const uint8_t **body, size_t *size,
             unsigned *slot, GError **error)
{
    V1 *v1 = channel->conn->v1;
    const uint8_t *message = endpoint_take_slot(channel->ep, slot, size);

    *body = NULL;
    if (!message) {
        return true;
    }
    v1->last_heard = g_get_monotonic_time();
    if (!v1_header_decode(message, *size, header, error)) {
        g_prefix_error(error, "from %s: ", channel->conn->base.peer);
        return false;
    }
    if (header->type == V1_ERROR) {
        v1->peer_failed = true;
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER,
                    "the peer (%s) failed or was cancelled; its protocol does not say why, its own "
                    "log may",
                    channel->conn->base.peer);
        return false;
    }
    *body = message + V1_HEADER_BYTES;
    *size -= V1_HEADER_BYTES;
    return true;
}

/* --- whether the peer is there --- */

/* Needs no key at the peer, for nothing is written. */
bool v1_post_empty_write(RdmaChannel *channel, GError **error)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE};

    return endpoint_post_writes(channel->ep, &wr, &wr, 1, 0, true, error);
}

/* A source that was told READY has the word, and QEMU may not say anything unless it was asked. */
static bool is_peers_turn(const RdmaChannel *channel)
{
    const V1 *v1 = channel->conn->v1;

    return !v1->ready || (v1->blocks_asked && !v1->blocks_known) || channel->writer.request_count;
}

bool v1_probe(RdmaChannel *channel, GError **error)
{
    V1 *v1 = channel->conn->v1;
    Endpoint *ep = channel->ep;
    const VmfConn *base = &channel->conn->base;
    gint64 now = g_get_monotonic_time();

    if (is_peers_turn(channel) && now - v1->last_heard > V1_SILENCE_US) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                    "%s is there, but has said nothing for %d minutes", base->peer,
                    (int)(V1_SILENCE_US / G_TIME_SPAN_MINUTE));
        return false;
    }
    if (ep->completed >= v1->probe && ep->queue_used < ep->queue_size) {
        /*
         * A thread also wakes for a completion that it has already seen. A probe for each such
         * waking would complete, and wake it again.
         */
        if (now - v1->probed_at < (gint64)base->heartbeat_ms * G_TIME_SPAN_MILLISECOND) {
            return true;
        }
        v1->probe = ep->posted + 1;
        v1->probed_at = now;
        return v1_post_empty_write(channel, error);
    }
    if (now - v1->probed_at > (gint64)base->timeout_ms * G_TIME_SPAN_MILLISECOND) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                    "no sign of life from %s for %.1f s: the host or the link is down (the "
                    "time-out is the option timeout=)",
                    base->peer, base->timeout_ms / 1000.0);
        return false;
    }
    return true;
}

bool v1_take_events(RdmaChannel *channel, GError **error)
{
    RdmaConn *conn = channel->conn;
    struct rdma_cm_event *event;

    while (rdma_get_cm_event(conn->events, &event) == 0) {
        enum rdma_cm_event_type type = event->event;

        rdma_ack_cm_event(event);
        if (type == RDMA_CM_EVENT_DEVICE_REMOVAL) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE,
                        "the RDMA device %s was removed while the connection to %s was up",
                        ibv_get_device_name(conn->id->verbs->device), conn->base.peer);
            return false;
        }
        if (type == RDMA_CM_EVENT_DISCONNECTED && !conn->v1->hung_up) {
            conn->v1->hung_up = true;
            if (conn->base.role == VMF_ROLE_DESTINATION) {
                /* What came before can still be taken; what is flushed behind it is the end. */
                rdma_disconnect(conn->id);
            }
        }
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "cannot read connection events");
        return false;
    }
    return true;
}

/* --- the end --- */

/* Tells the peer that this side has failed, as far as that goes. */
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
