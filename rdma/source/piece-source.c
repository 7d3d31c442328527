/* SPDX-License-Identifier: BSD-2-Clause */
/* piece-source.c -- source: pieces of device state, written in place or sent in messages */

#include "piece-source.h"

#include <errno.h>
#include <string.h>

#include "rdma-conn.h"
#include "verbs/endpoint-messages.h"
#include "pieces.h"
#include "write-queue.h"

/*
 * A shorter piece costs less to copy into a message and out of it than to register. Measured on
 * soft-RoCE: 64 KiB take 21 us to register and 7 us to copy. 1 MiB takes 28 us to register and 110
 * us to copy.
 */
#define WRITE_MIN (128u * 1024)

/* --- pieces that are written --- */

void piece_reap(RdmaChannel *channel)
{
    VmfConn *base = &channel->conn->base;

    while (channel->pieces.count) {
        WrittenPiece *piece = &channel->pieces.pieces[channel->pieces.first];

        if (channel->ep->completed < piece->request) {
            return;
        }
        ibv_dereg_mr(piece->mr);
        channel->pieces.first = (channel->pieces.first + 1) % PIECES_MAX;
        channel->pieces.count--;
        base->host->device_sent(base, channel->number, piece->piece);
    }
}

void piece_clear(RdmaChannel *channel)
{
    for (unsigned i = 0; i < channel->pieces.count; i++) {
        ibv_dereg_mr(channel->pieces.pieces[(channel->pieces.first + i) % PIECES_MAX].mr);
    }
}

/* Whether the destination lets this piece be written where it belongs. */
static bool may_write(const RdmaConn *conn, const VmfDeviceHeader *header)
{
    const uint64_t bytes = conn->device_remote.bytes;

    return header->size >= WRITE_MIN && header->place <= bytes &&
           header->total <= bytes - header->place;
}

/* The piece's registration. NULL if there can be none. Then the piece is copied. */
static WrittenPiece *register_piece(RdmaChannel *channel, const void *data, uint64_t size,
                                    void *piece)
{
    struct ibv_mr *mr = VERBS_POINTER(
        "ibv_reg_mr device piece",
        ibv_reg_mr(conn_data_pd(channel->conn), (void *)data, size, 0 /* reading needs no flag */));
    WrittenPiece *entry =
        &channel->pieces.pieces[(channel->pieces.first + channel->pieces.count) % PIECES_MAX];

    if (!mr) {
        g_debug("%s: device state is copied, because it cannot be registered: %s",
                channel->ep->name, g_strerror(errno));
        return NULL;
    }
    *entry = (WrittenPiece){.mr = mr, .request = UINT64_MAX, .piece = piece};
    channel->pieces.count++;
    return entry;
}

static bool write_bytes(RdmaChannel *channel, const struct ibv_mr *mr, uint64_t remote,
                        GError **error)
{
    const RdmaConn *conn = channel->conn;
    Endpoint *ep = channel->ep;

    for (uint64_t offset = 0; offset < mr->length;) {
        const uint32_t part = (uint32_t)MIN(mr->length - offset, channel->writes.length_max);
        struct ibv_sge sge = {
            .addr = (uintptr_t)mr->addr + offset, .length = part, .lkey = mr->lkey};
        struct ibv_send_wr wr = {
            .sg_list = &sge,
            .num_sge = 1,
            .opcode = IBV_WR_RDMA_WRITE,
            .wr.rdma = {.remote_addr = remote + offset, .rkey = conn->device_remote.rkey},
        };

        while (!write_queue_has_room(channel, part)) {
            if (!write_queue_await_progress(channel, error)) {
                return false;
            }
        }
        if (!endpoint_post_writes(ep, &wr, &wr, 1, part, write_queue_wants_signal(channel, 1, part),
                                  error)) {
            return false;
        }
        offset += part;
    }
    return true;
}

/*
 * The message comes after the bytes on the same queue pair. So the bytes are there when it is read.
 */
static bool tell_written(RdmaChannel *channel, const VmfDeviceHeader *header, GError **error)
{
    const size_t room = channel->ep->limits.send_bytes - WIRE_HEADER_BYTES;

    return write_queue_await_send(channel, error) &&
           endpoint_send(channel->ep, WIRE_DEVICE_WRITTEN, 0,
                         wire_device_encode(header, endpoint_body(channel->ep), room), error);
}

static bool write_piece(RdmaChannel *channel, const VmfDeviceHeader *header, WrittenPiece *piece,
                        GError **error)
{
    const uint64_t remote = channel->conn->device_remote.address + header->place + header->offset;

    if (!write_queue_post_list(channel, error) || !write_bytes(channel, piece->mr, remote, error) ||
        !tell_written(channel, header, error)) {
        return false;
    }
    piece->request = channel->ep->posted;
    return true;
}

/* --- pieces in messages --- */

static bool send_in_messages(RdmaChannel *channel, const VmfDeviceHeader *header,
                             const uint8_t *bytes, GError **error)
{
    const size_t room = channel->ep->limits.send_bytes - WIRE_HEADER_BYTES;
    uint64_t left = header->size;
    unsigned kind = WIRE_DEVICE_FIRST;

    while (left) {
        size_t head = 0, part;
        uint8_t *body;

        if (!write_queue_await_send(channel, error)) {
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
    WrittenPiece *written = NULL;

    while (channel->pieces.count == PIECES_MAX) {
        if (!write_queue_await_progress(channel, error)) {
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
    if (pieces_may_be_written(conn)) {
        /* The engine lets this side send device state only after a later control message. */
        conn->device_remote = memory;
    }
    return true;
}
