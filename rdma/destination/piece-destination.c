/* SPDX-License-Identifier: BSD-2-Clause */
/* piece-destination.c -- destination: pieces of device state, written in place or received */

#include "piece-destination.h"

#include <errno.h>
#include <string.h>

#include "rdma-conn.h"
#include "pieces.h"
#include "serving.h"

/* Without the offer, all device state comes in messages. */
bool piece_offer_memory(VmfConn *base, void *memory, size_t bytes, GError **error)
{
    RdmaConn *conn = conn_of(base);
    uint8_t data[WIRE_MEMORY_BYTES];
    WireMemory told = {.address = (uintptr_t)memory, .bytes = bytes};

    (void)error; /* VmfTransport's */
    if (!pieces_may_be_written(conn)) {
        return true;
    }
    conn->device_mr = VERBS_POINTER("ibv_reg_mr device memory",
                                    ibv_reg_mr(conn_data_pd(conn), memory, bytes,
                                               IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
    if (!conn->device_mr) {
        g_debug("device state will be copied, because its memory cannot be registered: %s",
                g_strerror(errno));
        return true;
    }
    told.rkey = conn->device_mr->rkey;
    wire_memory_encode(&told, data);
    base->host->post_message(base, WIRE_PRIVATE_DEVICE_MEMORY, data, sizeof(data));
    return true;
}

/* Takes the header off the front of a message, and asks where the piece belongs. */
static uint8_t *begin(RdmaChannel *channel, const EndpointMessage *message, VmfDeviceHeader *header,
                      size_t *taken, GError **error)
{
    VmfConn *base = &channel->conn->base;

    if (channel->piece.left) {
        serve_refused(channel, error, "device state begins inside other device state");
        return NULL;
    }
    *taken = wire_device_decode(message->body, message->size, header, error);
    if (!*taken) {
        g_prefix_error(error, "%s: ", channel->ep->name);
        return NULL;
    }
    return base->host->device_begin(base, channel->number, header, error);
}

static bool receive_bytes(RdmaChannel *channel, const uint8_t *bytes, size_t size, GError **error)
{
    VmfConn *base = &channel->conn->base;

    if (size > channel->piece.left) {
        return serve_refused(channel, error, "more bytes of device state than announced");
    }
    memcpy(channel->piece.at, bytes, size);
    channel->piece.at += size;
    channel->piece.left -= size;
    if (channel->piece.left) {
        return true;
    }
    channel->piece.at = NULL;
    return base->host->device_done(base, channel->number, error);
}

bool piece_receive_first(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    VmfDeviceHeader header;
    size_t taken;

    channel->piece.at = begin(channel, message, &header, &taken, error);
    if (!channel->piece.at) {
        return false;
    }
    channel->piece.left = header.size;
    return receive_bytes(channel, message->body + taken, message->size - taken, error);
}

bool piece_receive_more(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    if (!channel->piece.left || !message->size) {
        return serve_refused(channel, error, "device state that nothing announced");
    }
    return receive_bytes(channel, message->body, message->size, error);
}

bool piece_receive_written(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    VmfConn *base = &channel->conn->base;
    const struct ibv_mr *mr = channel->conn->device_mr;
    VmfDeviceHeader header;
    size_t taken;
    uint8_t *at = begin(channel, message, &header, &taken, error);
    uint64_t offset;

    if (!at) {
        return false;
    }
    if (taken != message->size) {
        return serve_refused(channel, error, "bytes after the header of a piece that is written");
    }
    offset = mr ? (uint64_t)((uintptr_t)at - (uintptr_t)mr->addr) : UINT64_MAX;
    if (!mr || offset > mr->length || header.size > mr->length - offset) {
        return serve_refused(channel, error,
                             "device state is said to be written where nothing can be written");
    }
    return base->host->device_done(base, channel->number, error);
}
