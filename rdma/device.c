/* SPDX-License-Identifier: BSD-2-Clause */
/* device.c -- device state: large pieces are written where they belong, short ones sent in messages
 */

#include <errno.h>
#include <string.h>

#include "rdma.h"

/*
 * A shorter piece costs less to copy, into a message and out of it, than to
 * register. Measured on soft-RoCE: 64 KiB take 21 us to register and 7 us to
 * copy, 1 MiB takes 28 us and 110 us.
 */
#define WRITE_MIN (128u * 1024)

/* A memory-lock limit is kept for guest RAM. */
static bool may_register(const RdmaConn *conn)
{
    return conn->options.device_write && memlock_limit().unlimited;
}

/* --- source: pieces that are written --- */

void piece_reap(RdmaChannel *channel)
{
    VmfConn *base = &channel->conn->base;

    while (channel->piece_count) {
        DevicePiece *piece = &channel->pieces[channel->piece_first];

        if (channel->ep->completed < piece->request) {
            return;
        }
        ibv_dereg_mr(piece->mr);
        channel->piece_first = (channel->piece_first + 1) % DEVICE_PIECES;
        channel->piece_count--;
        base->host->device_sent(base, channel->number, piece->piece);
    }
}

void piece_clear(RdmaChannel *channel)
{
    for (unsigned i = 0; i < channel->piece_count; i++) {
        ibv_dereg_mr(channel->pieces[(channel->piece_first + i) % DEVICE_PIECES].mr);
    }
}

/* Whether the destination lets this piece be written where it belongs. */
static bool may_write(const RdmaConn *conn, const VmfDeviceHeader *header)
{
    const uint64_t bytes = conn->device_remote.bytes;

    return header->size >= WRITE_MIN && header->place <= bytes &&
           header->total <= bytes - header->place;
}

/* The piece's registration; NULL if there can be none: it is copied then. */
static DevicePiece *register_piece(RdmaChannel *channel, const void *data, uint64_t size,
                                   void *piece)
{
    struct ibv_mr *mr = VERBS_POINTER(
        "ibv_reg_mr device piece",
        ibv_reg_mr(conn_data_pd(channel->conn), (void *)data, size, 0 /* reading needs no flag */));
    DevicePiece *entry =
        &channel->pieces[(channel->piece_first + channel->piece_count) % DEVICE_PIECES];

    if (!mr) {
        g_debug("%s: device state is copied, for it cannot be registered: %s", channel->ep->name,
                g_strerror(errno));
        return NULL;
    }
    *entry = (DevicePiece){.mr = mr, .request = UINT64_MAX, .piece = piece};
    channel->piece_count++;
    return entry;
}

static bool write_bytes(RdmaChannel *channel, const struct ibv_mr *mr, uint64_t remote,
                        GError **error)
{
    const RdmaConn *conn = channel->conn;
    Writer *w = &channel->writer;
    Endpoint *ep = channel->ep;

    for (uint64_t offset = 0; offset < mr->length;) {
        const uint32_t part = (uint32_t)MIN(mr->length - offset, w->length_max);
        struct ibv_sge sge = {
            .addr = (uintptr_t)mr->addr + offset, .length = part, .lkey = mr->lkey};
        struct ibv_send_wr wr = {
            .sg_list = &sge,
            .num_sge = 1,
            .opcode = IBV_WR_RDMA_WRITE,
            .wr.rdma = {.remote_addr = remote + offset, .rkey = conn->device_remote.rkey},
        };

        while (!writer_has_room(channel, part)) {
            if (!writer_await_progress(channel, error)) {
                return false;
            }
        }
        if (!endpoint_post_writes(ep, &wr, &wr, 1, part, writer_wants_signal(channel, 1, part),
                                  error)) {
            return false;
        }
        offset += part;
    }
    return true;
}

/* Behind the bytes, on the same queue pair: it is read when they are there. */
static bool tell_written(RdmaChannel *channel, const VmfDeviceHeader *header, GError **error)
{
    const size_t room = channel->ep->limits.send_bytes - WIRE_HEADER_BYTES;

    return writer_await_send(channel, error) &&
           endpoint_send(channel->ep, WIRE_DEVICE_WRITTEN, 0,
                         wire_device_encode(header, endpoint_body(channel->ep), room), error);
}

static bool write_piece(RdmaChannel *channel, const VmfDeviceHeader *header, DevicePiece *piece,
                        GError **error)
{
    const uint64_t remote = channel->conn->device_remote.address + header->place + header->offset;

    if (!writer_post_list(channel, error) || !write_bytes(channel, piece->mr, remote, error) ||
        !tell_written(channel, header, error)) {
        return false;
    }
    piece->request = channel->ep->posted;
    return true;
}

/* --- source: pieces in messages --- */

static bool send_in_messages(RdmaChannel *channel, const VmfDeviceHeader *header,
                             const uint8_t *bytes, GError **error)
{
    const size_t room = channel->ep->limits.send_bytes - WIRE_HEADER_BYTES;
    uint64_t left = header->size;
    unsigned kind = WIRE_DEVICE_FIRST;

    while (left) {
        size_t head = 0, part;
        uint8_t *body;

        if (!writer_await_send(channel, error)) {
            return false;
        }
        body = endpoint_body(channel->ep);
        if (kind == WIRE_DEVICE_FIRST) {
            head = wire_device_encode(header, body, room);
        }
        part = MIN(left, room - head);
        memcpy(body + head, bytes, part);
        if (!endpoint_send(channel->ep, kind, 0, head + part, error)) {
            return false;
        }
        kind = WIRE_DEVICE_MORE;
        bytes += part;
        left -= part;
    }
    return true;
}

bool piece_send(VmfConn *base, unsigned number, const VmfDeviceHeader *header, const void *data,
                void *piece, GError **error)
{
    RdmaConn *conn = conn_of(base);
    RdmaChannel *channel = conn->channels[number];
    DevicePiece *written = NULL;

    while (channel->piece_count == DEVICE_PIECES) {
        if (!writer_await_progress(channel, error)) {
            return false;
        }
    }
    if (may_write(conn, header)) {
        written = register_piece(channel, data, header->size, piece);
    }
    if (written) {
        return write_piece(channel, header, written, error);
    }
    if (!send_in_messages(channel, header, data, error)) {
        return false;
    }
    base->host->device_sent(base, number, piece);
    return true;
}

bool piece_take_memory(RdmaConn *conn, const uint8_t *data, size_t size, GError **error)
{
    WireMemory memory;

    if (!wire_memory_decode(data, size, &memory, error)) {
        return false;
    }
    if (conn->device_remote.bytes) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the destination named memory for device state twice");
        return false;
    }
    if (may_register(conn)) {
        /* The engine's message that lets this side send any is behind this one. */
        conn->device_remote = memory;
    }
    return true;
}

/* --- destination --- */

/* Without it everything comes in messages. */
bool piece_offer_memory(VmfConn *base, void *memory, size_t bytes, GError **error)
{
    RdmaConn *conn = conn_of(base);
    uint8_t data[WIRE_MEMORY_BYTES];
    WireMemory told = {.address = (uintptr_t)memory, .bytes = bytes};

    (void)error;
    if (!may_register(conn)) {
        return true;
    }
    conn->device_mr = VERBS_POINTER("ibv_reg_mr device memory",
                                    ibv_reg_mr(conn_data_pd(conn), memory, bytes,
                                               IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
    if (!conn->device_mr) {
        g_debug("device state will be copied, for its memory cannot be registered: %s",
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

    if (channel->device_left) {
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

    if (size > channel->device_left) {
        return serve_refused(channel, error, "more bytes of device state than announced");
    }
    memcpy(channel->device_at, bytes, size);
    channel->device_at += size;
    channel->device_left -= size;
    if (channel->device_left) {
        return true;
    }
    channel->device_at = NULL;
    return base->host->device_done(base, channel->number, error);
}

bool piece_receive_first(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    VmfDeviceHeader header;
    size_t taken;

    channel->device_at = begin(channel, message, &header, &taken, error);
    if (!channel->device_at) {
        return false;
    }
    channel->device_left = header.size;
    return receive_bytes(channel, message->body + taken, message->size - taken, error);
}

bool piece_receive_more(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    if (!channel->device_left || !message->size) {
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
        return serve_refused(channel, error, "bytes behind the header of a piece that is written");
    }
    offset = mr ? (uint64_t)((uintptr_t)at - (uintptr_t)mr->addr) : UINT64_MAX;
    if (!mr || offset > mr->length || header.size > mr->length - offset) {
        return serve_refused(channel, error,
                             "device state is said to be written where nothing can be written");
    }
    return base->host->device_done(base, channel->number, error);
}
