/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-destination.c -- the destination of a migration from stock QEMU */

#include "v1-destination.h"

#include <vmferry/plugin/bytes.h>
#include <vmferry/qemu-stream.h>

#include "destination/serving.h"
#include "connection/setup.h"
#include "v1-back.h"
#include "v1-link.h"
#include "v1-state.h"

/* --- the first message --- */

/* Whether the first message begins a migration. */
static bool check_first(RdmaChannel *channel, const V1Header *header, const uint8_t *body,
                        size_t size, GError **error)
{
    VmfReader r = vmf_reader(body, size);

    if (header->type != V1_QEMU_FILE) {
        return v1_refuse(channel, header->type, error, "the stream must begin first");
    }
    if (vmf_read_be32(&r) != VMF_QEMU_STREAM_MAGIC) {
        return v1_refuse(channel, header->type, error, "the stream is not QEMU's");
    }
    return true;
}

static bool await_message(RdmaChannel *channel, gint64 deadline, GError **error)
{
    RdmaConn *conn = channel->conn;
    const EndpointWakers wakers = {.cancel = conn->base.cancel_fd,
                                   .wake = -1,
                                   .events = conn->events->fd,
                                   .listener = conn->listener_fd};
    gint64 left = deadline - g_get_monotonic_time();
    unsigned woke;

    if (channel->ep->flushed) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "%s hung up before it sent anything",
                    conn->base.peer);
        return false;
    }
    if (left <= 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT, "%s sent nothing within %.1f s",
                    conn->base.peer, conn->options.connect_timeout_ms / 1000.0);
        return false;
    }
    if (!nic_check(conn->nic, error) ||
        !endpoint_sleep(channel->ep, &wakers, (int)MIN(left / 1000 + 1, NIC_CHECK_MS), 0, &woke,
                        error)) {
        return false;
    }
    if (woke & ENDPOINT_WOKE_CANCEL) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "cancelled");
        return false;
    }
    return (!(woke & ENDPOINT_WOKE_EVENTS) || v1_take_events(channel, error)) &&
           (!(woke & ENDPOINT_WOKE_LISTENER) || conn->listener_turn(conn, error)) &&
           endpoint_poll(channel->ep, error);
}

bool v1_await_stream(RdmaConn *conn, GError **error)
{
    RdmaChannel *channel = conn->channels[0];
    V1 *v1 = conn->v1;
    gint64 deadline =
        g_get_monotonic_time() + (gint64)conn->options.connect_timeout_ms * G_TIME_SPAN_MILLISECOND;
    V1Header header;

    if (!v1_send(channel, V1_READY, 1, 0, error) || !endpoint_poll(channel->ep, error)) {
        return false;
    }
    for (;;) {
        if (!v1_take(channel, &header, &v1->message, &v1->message_size, &v1->message_slot, error)) {
            return false;
        }
        if (v1->message) {
            conn->listener = NULL;
            conn->listener_fd = -1;
            return check_first(channel, &header, v1->message, v1->message_size, error) &&
                   v1_adopt_back(conn, error);
        }
        if (!await_message(channel, deadline, error)) {
            return false;
        }
    }
}

/* --- RAM blocks --- */

/* Registers each block as one region, because the source has one key for a block. */
static bool pin_all(RdmaChannel *channel, GError **error)
{
    RdmaConn *conn = channel->conn;
    VmfConn *base = &conn->base;
    uint64_t longest = 1;

    for (unsigned i = 0; i < base->block_count; i++) {
        longest = MAX(longest, base->blocks[i]->length);
    }
    base->chunk_size = 1ull << (64 - __builtin_clzll(longest));
    base->registration = "pin-all";
    return chunks_init(&conn->chunks, base->blocks, base->block_count, conn_data_pd(conn),
                       base->chunk_size, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE, error) &&
           chunks_register_all(&conn->chunks, base->cancel, channel->counters, error);
}

/* The largest chunk that the source may have. */
static uint64_t most_accepted(const RdmaConn *conn)
{
    const uint64_t size = conn->options.accept_chunk_size;

    if (size) {
        return size;
    }
    return setup_own_budget(conn) ? V1_CHUNK_BYTES : CHUNK_SIZE_MAX;
}

static bool prepare_ram(RdmaChannel *channel, GError **error)
{
    RdmaConn *conn = channel->conn;
    VmfConn *base = &conn->base;
    V1 *v1 = conn->v1;
    uint64_t start = 0;

    if (!base->host->stream_blocks(base, error)) {
        return false;
    }
    v1->starts = g_new0(uint64_t, MAX(base->block_count, 1));
    for (unsigned i = 0; i < base->block_count; i++) {
        v1->starts[i] = start;
        start += (base->blocks[i]->length + V1_CHUNK_BYTES - 1) / V1_CHUNK_BYTES * V1_CHUNK_BYTES;
    }
    base->stripe = V1_CHUNK_BYTES;
    if (!discards_init(&conn->discards, base, error)) {
        return false;
    }
    if (v1->pin_all) {
        return pin_all(channel, error);
    }
    base->chunk_size = most_accepted(conn);
    base->registration = "chunk";
    v1->regions = v1_regions_new(base, conn_data_pd(conn), base->chunk_size, error);
    return v1->regions != NULL;
}

static bool handle_blocks_request(RdmaChannel *channel, GError **error)
{
    RdmaConn *conn = channel->conn;
    VmfConn *base = &conn->base;
    const size_t room = channel->ep->limits.send_bytes - V1_HEADER_BYTES;
    uint8_t *body;

    if (conn->v1->blocks_known) {
        return v1_refuse(channel, V1_RAM_BLOCKS_REQUEST, error, "it comes a second time");
    }
    if (!prepare_ram(channel, error)) {
        return false;
    }
    if (base->block_count > room / V1_BLOCK_BYTES) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "%u RAM blocks: at most %zu can come from stock QEMU", base->block_count,
                    room / V1_BLOCK_BYTES);
        return false;
    }
    conn->v1->blocks_known = true;
    body = v1_body(channel);
    for (unsigned i = 0; body && i < base->block_count; i++) {
        V1Block block = {
            .host = (uintptr_t)base->blocks[i]->host,
            .offset = conn->v1->starts[i],
            .length = base->blocks[i]->length,
        };

        if (conn->v1->pin_all) {
            block.rkey = conn->chunks.chunks[conn->chunks.first[i]].mr->rkey;
        }
        v1_block_encode(&block, body + (size_t)i * V1_BLOCK_BYTES);
    }
    return v1_send(channel, V1_RAM_BLOCKS_RESULT, 1, base->block_count * (size_t)V1_BLOCK_BYTES,
                   error);
}

/* --- registration --- */

/* Turns an address that the source gives into an offset in its block. */
static bool find_offset(RdmaChannel *channel, V1Type type, uint32_t block, uint64_t address,
                        uint64_t *offset, GError **error)
{
    const RdmaConn *conn = channel->conn;

    if (block >= conn->base.block_count) {
        return v1_refuse(channel, type, error, "there is no RAM block number %u", block);
    }
    *offset = address - conn->v1->starts[block];
    if (address < conn->v1->starts[block] || *offset >= conn->base.blocks[block]->length) {
        return v1_refuse(channel, type, error,
                         "address 0x%" G_GINT64_MODIFIER "x lies outside RAM block number %u, "
                         "which has 0x%" G_GINT64_MODIFIER "x bytes from 0x%" G_GINT64_MODIFIER
                         "x on",
                         address, block, conn->base.blocks[block]->length, conn->v1->starts[block]);
    }
    return true;
}

static bool register_region(RdmaChannel *channel, const V1Register *request, V1Registered *result,
                            GError **error)
{
    const VmfRamBlock *ram;
    struct ibv_mr *mr;
    uint64_t offset;

    if (!find_offset(channel, V1_REGISTER_REQUEST, request->block, request->key, &offset, error)) {
        return false;
    }
    ram = channel->conn->base.blocks[request->block];
    if (request->chunks > ram->length / V1_CHUNK_BYTES) {
        return v1_refuse(channel, V1_REGISTER_REQUEST, error,
                         "chunks is %" G_GUINT64_FORMAT ", more than RAM block number %u has",
                         request->chunks, request->block);
    }
    mr = v1_regions_ask(channel->conn->v1->regions, request->block, offset, request->chunks,
                        channel->counters, error);
    if (!mr) {
        return false;
    }
    result->rkey = mr->rkey;
    result->host = (uintptr_t)ram->host;
    return true;
}

static bool handle_register(RdmaChannel *channel, const V1Header *header, const uint8_t *body,
                            GError **error)
{
    uint8_t *out = v1_body(channel);

    if (channel->conn->v1->pin_all) {
        return v1_refuse(channel, V1_REGISTER_REQUEST, error, "all memory is pinned");
    }
    for (uint32_t i = 0; i < header->repeat; i++) {
        V1Register request;
        V1Registered result;

        v1_register_decode(body, i, &request);
        if (serve_is_over(channel->conn, error) ||
            !register_region(channel, &request, &result, error)) {
            return false;
        }
        if (out) {
            v1_registered_encode(&result, out + (size_t)i * V1_REGISTERED_BYTES);
        }
    }
    return v1_send(channel, V1_REGISTER_RESULT, header->repeat,
                   header->repeat * (size_t)V1_REGISTERED_BYTES, error);
}

/* Stock QEMU never asks for it. The registration is kept, which is allowed. */
static bool handle_unregister(RdmaChannel *channel, const V1Header *header, const uint8_t *body,
                              GError **error)
{
    const RdmaConn *conn = channel->conn;

    for (uint32_t i = 0; i < header->repeat; i++) {
        V1Register request;

        v1_register_decode(body, i, &request);
        if (request.block >= conn->base.block_count ||
            request.key > conn->base.blocks[request.block]->length / V1_CHUNK_BYTES) {
            return v1_refuse(channel, V1_UNREGISTER_REQUEST, error,
                             "there is no chunk %" G_GUINT64_FORMAT " in RAM block number %u",
                             request.key, request.block);
        }
    }
    return v1_send(channel, V1_UNREGISTER_FINISHED, header->repeat, 0, error);
}

/* --- zero ranges --- */

static bool zero_in_parts(RdmaChannel *channel, unsigned block, uint64_t offset, uint64_t length,
                          GError **error)
{
    VmfConn *base = &channel->conn->base;
    V1Regions *regions = channel->conn->v1->regions;

    while (length) {
        const uint64_t part = MIN(length, SERVE_PART_BYTES);

        if (!(regions ? v1_regions_zero(regions, block, offset, part, error)
                      : base->host->zero_range(base, block, offset, part, error)) ||
            !serve_alive(channel, error)) {
            return false;
        }
        offset += part;
        length -= part;
    }
    return true;
}

static bool handle_compress(RdmaChannel *channel, const V1Header *header, const uint8_t *body,
                            GError **error)
{
    VmfConn *base = &channel->conn->base;
    V1Zero zero;
    uint64_t offset;

    v1_zero_decode(body, &zero);
    if (header->repeat != 1) {
        return v1_refuse(channel, V1_COMPRESS, error, "repeat is %u, it must be 1", header->repeat);
    }
    if (zero.value) {
        return v1_refuse(channel, V1_COMPRESS, error, "value is 0x%x, it must be 0", zero.value);
    }
    if (!find_offset(channel, V1_COMPRESS, zero.block, zero.offset, &offset, error)) {
        return false;
    }
    if (!zero.length || zero.length > base->blocks[zero.block]->length - offset) {
        return v1_refuse(channel, V1_COMPRESS, error,
                         "length 0x%" G_GINT64_MODIFIER "x from 0x%" G_GINT64_MODIFIER
                         "x on, in RAM block number %u",
                         zero.length, offset, zero.block);
    }
    return zero_in_parts(channel, zero.block, offset, zero.length, error);
}

/* --- messages --- */

static bool handle_stream(RdmaChannel *channel, const uint8_t *body, size_t size, GError **error)
{
    RdmaConn *conn = channel->conn;

    if (conn->v1->hooked) {
        return v1_refuse(channel, V1_QEMU_FILE, error, "REGISTER_FINISHED must come before it");
    }
    return conn->base.host->stream_arrived(&conn->base, body, size, &conn->v1->hooked, error);
}

static bool is_registered(const RdmaConn *conn, unsigned block, uint64_t offset)
{
    return conn->v1->regions ? v1_regions_registered(conn->v1->regions, block, offset)
                             : serve_chunk_registered(conn, block, offset);
}

static bool handle_message(RdmaChannel *channel, const V1Header *header, const uint8_t *body,
                           size_t size, GError **error)
{
    V1 *v1 = channel->conn->v1;

    if (serve_is_over(channel->conn, error) ||
        !serve_check_discards(channel, is_registered, error)) {
        return false;
    }
    if (header->type == V1_QEMU_FILE) {
        return handle_stream(channel, body, size, error);
    }
    if (!v1->hooked) {
        return v1_refuse(channel, header->type, error, "there was no hook in the stream");
    }
    if (header->type == V1_RAM_BLOCKS_REQUEST) {
        return handle_blocks_request(channel, error);
    }
    if (!v1->blocks_known) {
        return v1_refuse(channel, header->type, error, "RAM_BLOCKS_REQUEST must come before it");
    }
    switch (header->type) {
    case V1_COMPRESS:
        return handle_compress(channel, header, body, error);
    case V1_REGISTER_REQUEST:
        return handle_register(channel, header, body, error);
    case V1_UNREGISTER_REQUEST:
        return handle_unregister(channel, header, body, error);
    case V1_REGISTER_FINISHED:
        v1->hooked = false;
        return true;
    default:
        return v1_refuse(channel, header->type, error, "it is not for the destination");
    }
}

/* READY says that a buffer is posted for the next message. So the buffer is given back first. */
static bool finish_message(RdmaChannel *channel, unsigned slot, GError **error)
{
    return endpoint_give_back(channel->ep, slot, error) &&
           (channel->ep->flushed || v1_send(channel, V1_READY, 1, 0, error));
}

static bool handle_all(RdmaChannel *channel, GError **error)
{
    V1 *v1 = channel->conn->v1;

    if (v1->message) {
        const V1Header header = {.type = V1_QEMU_FILE};
        const uint8_t *message = g_steal_pointer(&v1->message);

        if (!handle_message(channel, &header, message, v1->message_size, error) ||
            !finish_message(channel, v1->message_slot, error)) {
            return false;
        }
    }
    for (;;) {
        V1Header header;
        const uint8_t *body;
        size_t size;
        unsigned slot;

        if (!endpoint_poll(channel->ep, error) ||
            !v1_take(channel, &header, &body, &size, &slot, error)) {
            return false;
        }
        if (!body) {
            return true;
        }
        if (!handle_message(channel, &header, body, size, error) ||
            !finish_message(channel, slot, error)) {
            return false;
        }
    }
}

/* The queue pair is down. That is right if the source hung up. */
static bool ended(RdmaChannel *channel, GError **error)
{
    RdmaConn *conn = channel->conn;

    if (!conn->v1->hung_up) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "the connection to %s was lost",
                    conn->base.peer);
        nic_explain(conn->id, error);
        return false;
    }
    conn->base.host->stream_ended(&conn->base);
    return true;
}

static bool serve(RdmaChannel *channel, GError **error)
{
    RdmaConn *conn = channel->conn;
    Endpoint *ep = channel->ep;
    const EndpointWakers wakers = {.cancel = conn->base.cancel_fd,
                                   .wake = conn->revoke_fd,
                                   .events = conn->events->fd,
                                   .listener = -1};
    unsigned woke = 0;

    while (!(woke & (ENDPOINT_WOKE_CANCEL | ENDPOINT_WOKE_WAKE))) {
        uint64_t before = ep->progress;

        if (!handle_all(channel, error)) {
            return false;
        }
        if (g_atomic_int_get(&conn->revoked)) {
            return true;
        }
        if (ep->flushed) {
            return ended(channel, error);
        }
        if (!nic_check(conn->nic, error) ||
            !endpoint_sleep(ep, &wakers, MIN((int)conn->base.heartbeat_ms, NIC_CHECK_MS),
                            conn->options.poll_us, &woke, error) ||
            (woke & ENDPOINT_WOKE_EVENTS && !v1_take_events(channel, error)) ||
            (!woke && ep->progress == before && !v1_probe(channel, error))) {
            return false;
        }
    }
    return true;
}

bool v1_serve(VmfConn *base, unsigned number, GError **error)
{
    RdmaConn *conn = conn_of(base);

    if (number == VMF_CHANNEL_BACK) {
        return v1_serve_back(conn, error);
    }
    if (serve(conn->channels[number], error)) {
        return true;
    }
    /* A queue pair that dies because it was taken down is no error. */
    if (g_atomic_int_get(&conn->revoked)) {
        g_clear_error(error);
        return true;
    }
    return false;
}
