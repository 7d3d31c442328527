/* SPDX-License-Identifier: BSD-2-Clause */
/* writer.c -- posting RDMA writes of guest RAM: lists, window, order behind registrations */

#include "writer.h"

#include <string.h>

#include "rdma.h"

static Chunk *chunk_at(RdmaChannel *channel, unsigned block, uint64_t offset)
{
    Chunks *chunks = &channel->conn->chunks;

    return &chunks->chunks[chunks_id(chunks, block, offset)];
}

void writer_init(RdmaChannel *channel)
{
    Writer *w = &channel->writer;
    RdmaConn *conn = channel->conn;

    w->dialect = conn->base.foreign ? &v1_writer_dialect : &native_writer_dialect;
    w->window = MAX(conn->base.max_inflight / conn->base.channels, 8192);
    w->signal_at = w->window / 4;
    /* Several writes fit in the window: some are under way while the next is built. */
    w->length_max = w->window / 4;
    w->pending = g_new(PendingRange, WRITER_PENDING_MAX);
    w->oldest = w->newest = CHUNK_NIL;
    w->zero_room =
        (channel->ep->limits.send_bytes - WIRE_HEADER_BYTES) / WIRE_RANGE_BYTES * WIRE_RANGE_BYTES;
    w->zero_body = g_malloc(w->zero_room);
}

void writer_clear(RdmaChannel *channel)
{
    g_clear_pointer(&channel->writer.pending, g_free);
    g_clear_pointer(&channel->writer.zero_body, g_free);
}

/*
 * A completion for every quarter of the window keeps the queue from running
 * dry; each one more wakes this thread once more, which costs. And some
 * completion must always be on its way, or nothing would ever wake a thread
 * that waits for room.
 */
bool writer_wants_signal(const RdmaChannel *channel, unsigned requests, uint64_t bytes)
{
    const Endpoint *ep = channel->ep;

    return ep->open.bytes + bytes >= channel->writer.signal_at ||
           ep->open.requests + requests >= WRITER_QUEUE / 8;
}

/*
 * A listed write has no place in the send queue yet: a message may be posted before it. Until it
 * is posted, its chunk counts as written to for ever, and is not given up.
 */
static void note_listed(Writer *w, Chunk *chunk)
{
    w->listed_chunks[w->listed] = chunk;
    if (chunk) {
        chunk->last_request = UINT64_MAX;
    }
}

static void note_posted(RdmaChannel *channel)
{
    const Writer *w = &channel->writer;

    for (unsigned i = 0; i < w->listed; i++) {
        if (w->listed_chunks[i]) {
            w->listed_chunks[i]->last_request = channel->ep->posted;
        }
    }
}

bool writer_post_list(RdmaChannel *channel, GError **error)
{
    Writer *w = &channel->writer;
    Endpoint *ep = channel->ep;

    if (!w->listed) {
        return true;
    }
    for (unsigned i = 0; i + 1 < w->listed; i++) {
        w->wr[i].next = &w->wr[i + 1];
    }
    if (!endpoint_post_writes(ep, &w->wr[0], &w->wr[w->listed - 1], w->listed, w->listed_bytes,
                              writer_wants_signal(channel, w->listed, w->listed_bytes), error)) {
        return false;
    }
    note_posted(channel);
    counter_add(&channel->counters->ram_written, w->listed_bytes);
    counter_add(&channel->counters->writes, w->listed);
    counter_add(&channel->counters->doorbells, 1);
    __atomic_store_n(&channel->counters->inflight_bytes, ep->inflight_bytes, __ATOMIC_RELAXED);
    w->listed = 0;
    w->listed_bytes = 0;
    return true;
}

bool writer_has_room(const RdmaChannel *channel, uint32_t length)
{
    const Writer *w = &channel->writer;

    return channel->ep->inflight_bytes + w->listed_bytes + length <= w->window &&
           endpoint_write_room(channel->ep) > w->listed;
}

/* With pin-all, the stripe's own registration that has taken the place of its chunk's; or NULL. */
static Chunk *renewed_stripe(const RdmaConn *conn, unsigned block, uint64_t offset)
{
    const Chunks *stripes = __atomic_load_n(&conn->stripes, __ATOMIC_ACQUIRE);
    Chunk *stripe = stripes ? &stripes->chunks[chunks_id(stripes, block, offset)] : NULL;

    return stripe && stripe->mr ? stripe : NULL;
}

/* Whether a write may be listed: its chunk is registered on both sides, here as its memory is. */
static bool look_ready(RdmaChannel *channel, unsigned block, uint64_t offset, bool *ready,
                       GError **error)
{
    *ready = chunk_at(channel, block, offset)->state == CHUNK_READY;
    return !*ready || G_LIKELY(!discards_any(&channel->conn->discards)) ||
           discards_renew(channel, block, offset, ready, error);
}

/* Puts a write of a ready chunk on the list; the caller has checked writer_has_room. */
static bool list_write(RdmaChannel *channel, unsigned block, uint64_t offset, uint32_t length,
                       GError **error)
{
    Writer *w = &channel->writer;
    RdmaConn *conn = channel->conn;
    uint32_t id = chunks_id(&conn->chunks, block, offset);
    Chunk *chunk = &conn->chunks.chunks[id];
    Chunk *stripe = w->dynamic ? NULL : renewed_stripe(conn, block, offset);
    const Chunks *table = stripe ? conn->stripes : &conn->chunks;
    const struct ibv_mr *mr = stripe ? stripe->mr : chunk->mr;
    struct ibv_sge *sge = &w->sge[w->listed];
    struct ibv_send_wr *wr = &w->wr[w->listed];

    *sge = (struct ibv_sge){
        .addr = (uintptr_t)chunks_source(table, mr, block, offset, length),
        .length = length,
        .lkey = mr->lkey,
    };
    *wr = (struct ibv_send_wr){
        .sg_list = sge,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_WRITE,
        .wr.rdma = {.remote_addr = conn->chunks.remote[block] + offset, .rkey = chunk->rkey},
    };
    note_listed(w, w->dynamic ? chunk : stripe);
    if (w->dynamic) {
        registrar_used(channel, id);
    }
    w->listed++;
    w->listed_bytes += length;
    if (w->listed == WRITER_LIST_MAX || w->listed_bytes >= w->signal_at) {
        return writer_post_list(channel, error);
    }
    return true;
}

/* Posts pending ranges, in order, as far as their chunks are ready and there is room. */
static bool advance_pending(RdmaChannel *channel, GError **error)
{
    Writer *w = &channel->writer;

    while (w->pending_count) {
        PendingRange *range = &w->pending[w->pending_first];
        Chunk *chunk = chunk_at(channel, range->block, range->offset);
        bool ready;

        if (chunk->state == CHUNK_NONE) { /* it was evicted while the range waited */
            return !registrar_has_room(channel) ||
                   registrar_want(channel, range->block,
                                  (uint32_t)(range->offset >> channel->conn->chunks.shift), error);
        }
        if (!look_ready(channel, range->block, range->offset, &ready, error)) {
            return false;
        }
        if (!ready || !writer_has_room(channel, range->length)) {
            break;
        }
        if (--chunk->pending == 0) {
            w->pending_chunks--;
        }
        w->pending_first = (w->pending_first + 1) % WRITER_PENDING_MAX;
        w->pending_count--;
        w->pending_bytes -= range->length;
        if (!list_write(channel, range->block, range->offset, range->length, error)) {
            return false;
        }
    }
    return true;
}

static uint64_t under_way(const RdmaChannel *channel)
{
    return channel->ep->inflight_bytes + channel->writer.listed_bytes;
}

/*
 * Registration runs ahead of the writes: while enough is under way to keep the
 * wire busy, a request waits to grow, for each costs a round trip's work.
 */
static bool send_request_if_due(RdmaChannel *channel, GError **error)
{
    Writer *w = &channel->writer;

    if (!w->wanted_count || (w->wanted_count < w->dialect->register_batch && w->request_count &&
                             under_way(channel) > w->window / 4)) {
        return true;
    }
    return registrar_send(channel, error);
}

bool writer_progress(RdmaChannel *channel, GError **error)
{
    Endpoint *ep = channel->ep;

    if (!endpoint_poll(ep, error) || !channel->writer.dialect->take_messages(channel, error)) {
        return false;
    }
    if (ep->flushed) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "%s: the queue pair was taken down",
                    ep->name);
        nic_explain(ep->id, error);
        return false;
    }
    piece_reap(channel);
    if (!advance_pending(channel, error) || !writer_post_list(channel, error)) {
        return false;
    }
    __atomic_store_n(&channel->counters->inflight_bytes, ep->inflight_bytes, __ATOMIC_RELAXED);
    return send_request_if_due(channel, error);
}

bool writer_is_pending(const RdmaChannel *channel, unsigned block, uint64_t offset, uint64_t length)
{
    const Writer *w = &channel->writer;

    for (unsigned i = 0; i < w->pending_count; i++) {
        const PendingRange *range = &w->pending[(w->pending_first + i) % WRITER_PENDING_MAX];

        if (range->block == block && range->offset < offset + length &&
            offset < range->offset + range->length) {
            return true;
        }
    }
    return false;
}

bool writer_sleep(RdmaChannel *channel, int timeout_ms, int wake_fd, bool *woken, GError **error)
{
    RdmaConn *conn = channel->conn;
    Endpoint *ep = channel->ep;
    const WriterDialect *dialect = channel->writer.dialect;
    const EndpointWakers wakers = {.cancel = conn->base.cancel_fd,
                                   .wake = wake_fd,
                                   .events = dialect->take_events ? conn->events->fd : -1,
                                   .listener = -1};
    uint64_t before = ep->progress;
    unsigned woke;

    *woken = false;
    if (!writer_progress(channel, error)) {
        return false;
    }
    if (ep->progress != before) {
        return true;
    }
    if (!endpoint_sleep(ep, &wakers, timeout_ms, conn->options.poll_us, &woke, error)) {
        return false;
    }
    if (woke & ENDPOINT_WOKE_EVENTS && !dialect->take_events(channel, error)) {
        return false;
    }
    if (woke & ENDPOINT_WOKE_CANCEL) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "%s: cancelled", ep->name);
        return false;
    }
    *woken = woke & ENDPOINT_WOKE_WAKE;
    return writer_progress(channel, error);
}

/*
 * Whether a channel that is silent for so long waits for nothing but the destination's process,
 * which lives. At work on a message it shows a sign of life on the channel once in a heartbeat,
 * between parts of the work, but one part may take longer on a busy host: then the heartbeats of
 * the control connection count, for WRITER_PATIENCE time-outs. A channel that is silent for longer
 * is dead, whatever the control connection says. What the device owes has no such respite.
 */
static bool peer_is_at_work(const RdmaChannel *channel, gint64 silent_us)
{
    const RdmaConn *conn = channel->conn;
    const gint64 timeout_us = (gint64)conn->base.timeout_ms * G_TIME_SPAN_MILLISECOND;
    const gint64 heard_at = __atomic_load_n(&conn->heard_at, __ATOMIC_RELAXED);

    return heard_at && channel->ep->batch_count == 0 &&
           g_get_monotonic_time() - heard_at < timeout_us &&
           silent_us < WRITER_PATIENCE * timeout_us;
}

static void stuck(const RdmaChannel *channel, double silent_s, GError **error)
{
    const Endpoint *ep = channel->ep;

    if (ep->batch_count) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                    "%s: nothing completed for %.1f s (%" G_GUINT64_FORMAT
                    " bytes in flight); the peer or the link is stuck",
                    ep->name, silent_s, ep->inflight_bytes);
        return;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                "%s: the peer has answered nothing for %.1f s, though its device has taken all (it "
                "owes answers to %u registration requests and %u messages); its process is stuck",
                ep->name, silent_s, channel->writer.request_count, endpoint_unprocessed(ep));
}

bool writer_await_progress(RdmaChannel *channel, GError **error)
{
    const VmfConn *base = &channel->conn->base;
    const uint64_t before = channel->ep->progress;
    const WriterDialect *dialect = channel->writer.dialect;
    const gint64 timeout_us = (gint64)base->timeout_ms * G_TIME_SPAN_MILLISECOND;
    const gint64 began = g_get_monotonic_time();
    gint64 silent_us = 0;
    bool woken;

    do {
        const bool late = silent_us >= timeout_us;
        int sleep_ms = (int)((timeout_us - silent_us) / 1000) + 1;

        if (dialect->probe || late) {
            sleep_ms = late ? (int)base->heartbeat_ms : MIN(sleep_ms, (int)base->heartbeat_ms);
        }
        if (dialect->probe) {
            sleep_ms = MIN(sleep_ms, NIC_CHECK_MS);
        }
        if (!writer_sleep(channel, sleep_ms, -1, &woken, error)) {
            return false;
        }
        if (channel->ep->progress != before) {
            return true;
        }
        if (dialect->probe && !dialect->probe(channel, error)) {
            return false;
        }
        silent_us = g_get_monotonic_time() - began;
    } while (silent_us < timeout_us || peer_is_at_work(channel, silent_us));
    stuck(channel, (double)silent_us / G_USEC_PER_SEC, error);
    return false;
}

bool writer_ask_for_completion(RdmaChannel *channel, GError **error)
{
    const Endpoint *ep = channel->ep;
    const WriterDialect *dialect = channel->writer.dialect;

    if (!ep->open.requests || ep->batch_count ||
        (dialect->nop_is_message && !endpoint_can_send(channel->ep))) {
        return true;
    }
    return dialect->send_nop(channel, error);
}

bool writer_drain(RdmaChannel *channel, GError **error)
{
    Endpoint *ep = channel->ep;

    if (ep->open.requests) { /* none of those would tell that it is done */
        const WriterDialect *dialect = channel->writer.dialect;

        if ((dialect->nop_is_message && !writer_await_send(channel, error)) ||
            !dialect->send_nop(channel, error)) {
            return false;
        }
    }
    while (ep->completed != ep->posted) {
        if (!writer_await_progress(channel, error)) {
            return false;
        }
    }
    return true;
}

bool writer_await_send(RdmaChannel *channel, GError **error)
{
    while (!endpoint_can_send(channel->ep)) {
        if (!writer_await_progress(channel, error)) {
            return false;
        }
    }
    return true;
}

static bool make_pending(RdmaChannel *channel, unsigned block, uint64_t offset, uint32_t length,
                         GError **error)
{
    Writer *w = &channel->writer;
    Chunks *chunks = &channel->conn->chunks;
    Chunk *chunk = chunk_at(channel, block, offset);
    const uint64_t size = 1ull << chunks->shift;

    /*
     * What is pending counts as outstanding, together with what is in flight: the
     * last flush must find a bounded tail. And all the chunks that ranges wait for fit in the pin
     * budget together, or they would wait for each other.
     */
    while (w->pending_count == WRITER_PENDING_MAX ||
           (chunk->state == CHUNK_NONE && !registrar_has_room(channel)) ||
           (w->pending_count && under_way(channel) + w->pending_bytes + length > w->window) ||
           (w->pending_chunks && !chunk->pending && w->pin_budget &&
            (w->pending_chunks + 1) * size > w->pin_budget)) {
        if (!writer_await_progress(channel, error)) {
            return false;
        }
    }
    w->pending[(w->pending_first + w->pending_count) % WRITER_PENDING_MAX] =
        (PendingRange){.block = block, .length = length, .offset = offset};
    w->pending_count++;
    w->pending_bytes += length;
    if (chunk->pending++ == 0) {
        w->pending_chunks++;
    }
    if (chunk->state != CHUNK_NONE) {
        return true;
    }
    return registrar_want(channel, block, (uint32_t)(offset >> chunks->shift), error) &&
           (w->wanted_count < w->dialect->register_batch || registrar_send(channel, error));
}

bool writer_add(RdmaChannel *channel, unsigned block, uint64_t offset, uint32_t length,
                GError **error)
{
    Writer *w = &channel->writer;
    bool ready = false;

    if (!w->pending_count && !look_ready(channel, block, offset, &ready, error)) {
        return false;
    }
    if (!ready) {
        return make_pending(channel, block, offset, length, error);
    }
    while (!writer_has_room(channel, length)) {
        if (!writer_post_list(channel, error) || !writer_await_progress(channel, error)) {
            return false;
        }
    }
    /* Waiting may have evicted the chunk to make another one ready. */
    if (chunk_at(channel, block, offset)->state != CHUNK_READY) {
        return make_pending(channel, block, offset, length, error);
    }
    return list_write(channel, block, offset, length, error);
}

bool writer_push(RdmaChannel *channel, GError **error)
{
    return writer_post_list(channel, error) && send_request_if_due(channel, error);
}

bool writer_post_all(RdmaChannel *channel, GError **error)
{
    Writer *w = &channel->writer;

    while (w->pending_count) {
        if (!registrar_send(channel, error)) {
            return false;
        }
        if (w->pending_count && !writer_await_progress(channel, error)) {
            return false;
        }
    }
    return writer_post_list(channel, error);
}
