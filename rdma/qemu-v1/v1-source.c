/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-source.c -- the source of a migration to stock QEMU */

#include "v1-source.h"

#include <errno.h>
#include <string.h>

#include "verbs/memory-lock.h"
#include "source/ram-source.h"
#include "connection/setup.h"
#include "v1-back.h"
#include "v1-link.h"
#include "v1-state.h"

/*
 * Bytes of the chunks that one request registers. They are many, because each request costs a round
 * trip in which nothing else may be said. They are not more, because the destination never gives
 * them up again. It also counts them in chunks of its own size, which it does not tell. Measured on
 * soft-RoCE with 256 MiB: 32 MiB take a sixth less time than 16 MiB, and a quarter less than 64
 * MiB.
 */
#define GROUP_BYTES (32u * 1024 * 1024)
#define STRIPE_PIN_ALL (8u * 1024 * 1024)
#define STREAM_MAX (V1_MESSAGE_MAX - V1_HEADER_BYTES)
/*
 * How long the stream waits for more of itself. QEMU writes it in pieces. A destination that loads
 * devices is slow to say READY for the next message.
 */
#define STREAM_LINGER_US (5 * G_TIME_SPAN_MILLISECOND)

/* --- set-up --- */

static uint64_t group_size(const RdmaConn *conn, uint64_t budget)
{
    uint64_t size = conn->options.chunk_size ? conn->options.chunk_size : GROUP_BYTES;

    while (budget && size > budget / 4 && size > V1_CHUNK_BYTES) {
        size /= 2;
    }
    return MAX(size, V1_CHUNK_BYTES);
}

static bool make_stage(RdmaConn *conn, GError **error)
{
    V1 *v1 = conn->v1;

    v1->stage = g_malloc(V1_MESSAGE_MAX);
    v1->stage_mr =
        VERBS_POINTER("ibv_reg_mr stage", ibv_reg_mr(conn->pd, v1->stage, V1_MESSAGE_MAX, 0));
    if (!v1->stage_mr) {
        memlock_error(error, errno, V1_MESSAGE_MAX, "the stream's buffer", false);
        return false;
    }
    conn->base.own_bytes += V1_MESSAGE_MAX;
    return true;
}

bool v1_source_setup(RdmaConn *conn, GError **error)
{
    VmfConn *base = &conn->base;
    RdmaChannel *channel = conn->channels[0];
    V1 *v1 = conn->v1;
    const uint64_t budget = v1->pin_all ? 0 : setup_own_budget(conn);
    const uint64_t size = v1->pin_all ? chunks_pin_all_size(base->blocks, base->block_count)
                                      : group_size(conn, budget);
    const size_t blocks_max =
        (channel->ep->limits.receive_bytes - V1_HEADER_BYTES) / V1_BLOCK_BYTES;

    if (base->block_count > blocks_max) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "%u RAM blocks: at most %zu can be migrated to stock QEMU", base->block_count,
                    blocks_max);
        return false;
    }
    base->stripe = v1->pin_all ? STRIPE_PIN_ALL : size;
    base->chunk_size = size;
    base->merge_gap = conn->options.gap;
    /*
     * Telling zero pages costs a round trip, and the destination looks at each of them. The message
     * saves memory there only if all of a group is zero, because a group is pinned as a whole.
     */
    base->zero_min = v1->pin_all ? UINT64_MAX : size;
    base->registration = v1->pin_all ? "pin-all" : "chunk";
    v1->offsets = g_new0(uint64_t, MAX(base->block_count, 1));
    conn->zero_marks = zero_marks_new(base->block_count);
    channel->registrar.dynamic = !v1->pin_all;
    channel->registrar.pin_budget = budget;
    if (!make_stage(conn, error) ||
        !chunks_init(&conn->chunks, base->blocks, base->block_count, conn->pd, size, 0, error)) {
        return false;
    }
    base->own_bytes += conn->chunks.own_bytes;
    return discards_init(&conn->discards, base, error);
}

/* --- what may be said when --- */

static bool await_ready(RdmaChannel *channel, GError **error)
{
    while (!channel->conn->v1->ready) {
        if (!write_queue_await_progress(channel, error)) {
            return false;
        }
    }
    return true;
}

/* Uses READY up. From here on the peer's silence counts. */
static void give_turn(V1 *v1)
{
    v1->ready = false;
    v1->last_heard = g_get_monotonic_time();
}

static bool send_message(RdmaChannel *channel, V1Type type, size_t body_size, GError **error)
{
    give_turn(channel->conn->v1);
    return v1_send(channel, type, 1, body_size, error);
}

/* --- the stream --- */

static bool push_stream(RdmaChannel *channel, GError **error)
{
    V1 *v1 = channel->conn->v1;
    const V1Header header = {.type = V1_QEMU_FILE, .repeat = 1};

    v1_header_encode(&header, v1->staged, v1->stage);
    if (!endpoint_send_memory(channel->ep, v1->stage, V1_HEADER_BYTES + v1->staged,
                              v1->stage_mr->lkey, error)) {
        return false;
    }
    give_turn(v1);
    v1->staged = 0;
    v1->stage_until = channel->ep->posted;
    return true;
}

static bool flush_stream(RdmaChannel *channel, GError **error)
{
    V1 *v1 = channel->conn->v1;

    /* The arrival of READY may send the stream. After the last message no READY comes. */
    while (v1->staged) {
        if (!(v1->ready ? push_stream(channel, error)
                        : write_queue_await_progress(channel, error))) {
            return false;
        }
    }
    return true;
}

/* How long the stream still waits for more of itself. */
static gint64 linger_us(const V1 *v1)
{
    const gint64 left = v1->staged_at + STREAM_LINGER_US - g_get_monotonic_time();

    return MAX(left, 0);
}

static bool stage_bytes(RdmaChannel *channel, const uint8_t *data, size_t size, GError **error)
{
    V1 *v1 = channel->conn->v1;

    while (channel->ep->completed < v1->stage_until) {
        if (!write_queue_await_progress(channel, error)) {
            return false;
        }
    }
    memcpy(v1->stage + V1_HEADER_BYTES + v1->staged, data, size);
    v1->staged += size;
    v1->staged_at = g_get_monotonic_time();
    return true;
}

/* --- RAM blocks --- */

static bool ask_blocks(RdmaChannel *channel, GError **error)
{
    V1 *v1 = channel->conn->v1;

    if (v1->blocks_known) {
        return true;
    }
    if (!await_ready(channel, error) || !send_message(channel, V1_RAM_BLOCKS_REQUEST, 0, error)) {
        return false;
    }
    v1->blocks_asked = true;
    /* Both sides pin at the same time. */
    if (v1->pin_all && !chunks_register_all(&channel->conn->chunks, channel->conn->base.cancel,
                                            channel->counters, error)) {
        return false;
    }
    while (!v1->blocks_known) {
        if (!write_queue_await_progress(channel, error)) {
            return false;
        }
    }
    return true;
}

static void blocks_pinned(RdmaConn *conn, unsigned block, uint32_t rkey)
{
    Chunks *chunks = &conn->chunks;

    for (uint32_t id = chunks->first[block]; id < chunks->first[block + 1]; id++) {
        chunks->chunks[id].rkey = rkey;
        chunks->chunks[id].state = CHUNK_READY;
    }
}

static bool take_blocks(RdmaChannel *channel, const uint8_t *body, size_t size, GError **error)
{
    RdmaConn *conn = channel->conn;
    VmfConn *base = &conn->base;
    V1 *v1 = conn->v1;

    if (!v1->blocks_asked || v1->blocks_known) {
        return v1_refuse(channel, V1_RAM_BLOCKS_RESULT, error, "nobody asked for it");
    }
    if (size / V1_BLOCK_BYTES != base->block_count) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_MISMATCH,
                    "the destination has %zu RAM blocks, the source %u", size / V1_BLOCK_BYTES,
                    base->block_count);
        return false;
    }
    for (unsigned i = 0; i < base->block_count; i++) {
        const VmfRamBlock *own = base->blocks[i];
        V1Block block;

        v1_block_decode(body, i, &block);
        if (block.length != base->block_lengths[i]) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_MISMATCH,
                        "RAM block \"%s\" has %" G_GUINT64_FORMAT
                        " bytes on the source and %" G_GUINT64_FORMAT " on the destination",
                        own->name, base->block_lengths[i], block.length);
            return false;
        }
        if (block.host > UINT64_MAX - block.length || block.offset > UINT64_MAX - block.length) {
            return v1_refuse(channel, V1_RAM_BLOCKS_RESULT, error,
                             "block %u: its address 0x%" G_GINT64_MODIFIER
                             "x or offset 0x%" G_GINT64_MODIFIER "x cannot be",
                             i, block.host, block.offset);
        }
        conn->chunks.remote[i] = block.host;
        v1->offsets[i] = block.offset;
        if (v1->pin_all) {
            blocks_pinned(conn, i, block.rkey);
        }
    }
    v1->blocks_known = true;
    return true;
}

/* --- zero ranges --- */

static bool send_first_zero(RdmaChannel *channel, GError **error)
{
    ZeroLog *zeros = &channel->zeros;
    V1 *v1 = channel->conn->v1;
    uint8_t *body = v1_body(channel);
    WireRange range;
    V1Zero zero;

    if (!write_queue_post_list(channel, error)) { /* see post_zero() in native-dialect.c */
        return false;
    }
    zero_log_take_first(zeros, &range);
    zero = (V1Zero){.block = range.block,
                    .offset = v1->offsets[range.block] + range.offset,
                    .length = range.length};
    zeros->sent = true; /* until the next READY */
    if (body) {
        v1_zero_encode(&zero, body);
    }
    return send_message(channel, V1_COMPRESS, V1_ZERO_BYTES, error);
}

static bool flush_zero(RdmaChannel *channel, GError **error)
{
    while (channel->zeros.bytes) {
        if (!(channel->conn->v1->ready ? send_first_zero(channel, error)
                                       : write_queue_await_progress(channel, error))) {
            return false;
        }
    }
    channel->zeros.work = 0;
    return true;
}

static bool settle_zero(RdmaChannel *channel, GError **error)
{
    return flush_zero(channel, error) && (!channel->zeros.sent || await_ready(channel, error));
}

/* Sends nothing, because data waits for the registration, which so goes first. */
static bool post_zero(RdmaChannel *channel, GError **error)
{
    (void)channel; /* the table's */
    (void)error;
    return true;
}

/* --- registration --- */

static bool can_request(const RdmaChannel *channel)
{
    const V1 *v1 = channel->conn->v1;

    return v1->ready && v1->hooked && v1->blocks_known;
}

static bool send_request(RdmaChannel *channel, const WireRegister *request, GError **error)
{
    const Chunks *chunks = &channel->conn->chunks;
    const WireChunk *name = &request->chunks[request->evicted]; /* evictions are not told */
    const uint64_t length = chunks_length(chunks, name->block, name->index);
    const V1Register message = {
        .key = channel->conn->v1->offsets[name->block] + ((uint64_t)name->index << chunks->shift),
        .block = name->block,
        .chunks = (length - 1) / V1_CHUNK_BYTES,
    };
    uint8_t *body = v1_body(channel);

    if (body) {
        v1_register_encode(&message, body);
    }
    return send_message(channel, V1_REGISTER_REQUEST, V1_REGISTER_BYTES, error);
}

static bool take_registered(RdmaChannel *channel, const uint8_t *body, GError **error)
{
    const Registrar *registrar = &channel->registrar;
    V1Registered registered;
    WireResult result = {0};
    unsigned block;

    if (registrar_awaited(channel) != 1) {
        return v1_refuse(channel, V1_REGISTER_RESULT, error, "nobody asked for it");
    }
    v1_registered_decode(body, 0, &registered);
    block = registrar->requests[registrar->request_first].chunks[0].block;
    if (registered.host != channel->conn->chunks.remote[block]) {
        return v1_refuse(channel, V1_REGISTER_RESULT, error,
                         "host_addr 0x%" G_GINT64_MODIFIER "x, but RAM block number %u is at "
                         "0x%" G_GINT64_MODIFIER "x",
                         registered.host, block, channel->conn->chunks.remote[block]);
    }
    result.rkey = registered.rkey;
    return registrar_result(channel, &result, error);
}

/* --- messages --- */

static bool take_ready(RdmaChannel *channel, GError **error)
{
    V1 *v1 = channel->conn->v1;

    if (v1->ready) {
        return v1_refuse(channel, V1_READY, error, "it came twice for one message");
    }
    v1->ready = true;
    g_atomic_int_set(&v1->greeted, 1);
    channel->zeros.sent = false;
    return true;
}

static bool take_message(RdmaChannel *channel, const V1Header *header, const uint8_t *body,
                         size_t size, GError **error)
{
    switch (header->type) {
    case V1_READY:
        return take_ready(channel, error);
    case V1_RAM_BLOCKS_RESULT:
        return take_blocks(channel, body, size, error);
    case V1_REGISTER_RESULT:
        return take_registered(channel, body, error);
    default:
        return v1_refuse(channel, header->type, error, "it is not for the source");
    }
}

/* Sends what waited only for READY. */
static bool pump(RdmaChannel *channel, GError **error)
{
    V1 *v1 = channel->conn->v1;

    if (!v1->ready) {
        return true;
    }
    if (!v1->hooked) {
        return !v1->staged || linger_us(v1) || push_stream(channel, error);
    }
    return !channel->zeros.bytes || channel->registrar.wanted_count ||
           send_first_zero(channel, error);
}

static bool take_messages(RdmaChannel *channel, GError **error)
{
    RdmaConn *conn = channel->conn;
    Endpoint *ep = channel->ep;
    V1Header header;
    const uint8_t *body;
    size_t size;
    unsigned slot;

    for (;;) {
        if (!v1_take(channel, &header, &body, &size, &slot, error)) {
            return false;
        }
        if (!body) {
            break;
        }
        if (!take_message(channel, &header, body, size, error) ||
            !endpoint_give_back(ep, slot, error)) {
            return false;
        }
    }
    if (!nic_check(conn->nic, error)) {
        return false;
    }
    /* A destination that has everything may hang up before this side has looked. */
    if (conn->v1->hung_up &&
        (conn->v1->hooked || conn->v1->staged || ep->completed != ep->posted)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "the destination (%s) hung up",
                    conn->base.peer);
        return false;
    }
    return pump(channel, error);
}

const ChannelDialect v1_dialect = {
    .register_batch = 1,
    .requests_max = 1,
    .local_evictions = true,
    .can_request = can_request,
    .send_request = send_request,
    .send_nop = v1_post_empty_write,
    .take_messages = take_messages,
    .post_zero = post_zero,
    .flush_zero = flush_zero,
    .settle_zero = settle_zero,
    .probe = v1_probe,
    .take_events = v1_take_events,
};

/* --- what the engine calls --- */

bool v1_send_ram(VmfConn *base, unsigned number, unsigned block, uint64_t offset, uint64_t length,
                 GError **error)
{
    return ask_blocks(conn_of(base)->channels[number], error) &&
           source_send_ram(base, number, block, offset, length, error);
}

bool v1_send_zero(VmfConn *base, unsigned number, unsigned block, uint64_t offset, uint64_t length,
                  GError **error)
{
    return ask_blocks(conn_of(base)->channels[number], error) &&
           source_send_zero(base, number, block, offset, length, error);
}

/*
 * Ends what a hook began. That needs no drain, because the message comes after the writes on the
 * same queue pair.
 */
static bool finish_hook(RdmaChannel *channel, GError **error)
{
    if (!write_queue_post_all(channel, error) || !flush_zero(channel, error) ||
        !await_ready(channel, error) || !send_message(channel, V1_REGISTER_FINISHED, 0, error)) {
        return false;
    }
    channel->conn->v1->hooked = false;
    return true;
}

bool v1_send_stream(VmfConn *base, unsigned number, const uint8_t *data, size_t size, bool hook,
                    GError **error)
{
    RdmaChannel *channel = conn_of(base)->channels[number];
    V1 *v1 = channel->conn->v1;

    if (number == VMF_CHANNEL_BACK) {
        return v1_send_back(channel->conn, data, size, error);
    }
    if (v1->hooked && !finish_hook(channel, error)) {
        return false;
    }
    while (size) {
        size_t part = MIN(size, STREAM_MAX - v1->staged);

        if (!stage_bytes(channel, data, part, error) ||
            (v1->staged == STREAM_MAX && !flush_stream(channel, error))) {
            return false;
        }
        data += part;
        size -= part;
    }
    if (hook) { /* the hook must be the end of its message */
        v1->hooked = flush_stream(channel, error);
        return v1->hooked;
    }
    return true;
}

/* A hook stays open, because QEMU may go on after it. */
bool v1_send_sync(VmfConn *base, unsigned number, uint64_t sync, bool drain, GError **error)
{
    RdmaChannel *channel = conn_of(base)->channels[number];

    (void)sync; /* VmfTransport's */
    if (!(channel->conn->v1->hooked
              ? write_queue_post_all(channel, error) && flush_zero(channel, error)
              : flush_stream(channel, error))) {
        return false;
    }
    return !drain || write_queue_drain(channel, error);
}

bool v1_wait(VmfConn *base, unsigned number, int wake_fd, GError **error)
{
    RdmaChannel *channel = conn_of(base)->channels[number];
    bool woken = false;

    if (number == VMF_CHANNEL_BACK) {
        return v1_wait_back(channel->conn, wake_fd, error);
    }
    while (!woken) {
        const V1 *v1 = channel->conn->v1;
        const uint64_t before = channel->ep->progress;
        int timeout_ms = MIN((int)base->heartbeat_ms, NIC_CHECK_MS);

        if (v1->staged && v1->ready) {
            const int linger_ms = (int)(linger_us(v1) / 1000) + 1;

            timeout_ms = MIN(timeout_ms, linger_ms);
        }
        if (!write_queue_sleep(channel, timeout_ms, wake_fd, &woken, error)) {
            return false;
        }
        if (!woken && !v1->hung_up && channel->ep->progress == before &&
            !v1_probe(channel, error)) {
            return false;
        }
    }
    return true;
}
