/* SPDX-License-Identifier: BSD-2-Clause */
/* write-queue.c -- posting RDMA writes of guest RAM: window, lists, order after registrations */

#include "write-queue.h"

#include "channel-dialect.h"
#include "rdma-conn.h"
#include "verbs/endpoint-messages.h"
#include "registrar.h"
#include "renewal.h"

static Chunk *chunk_at(RdmaChannel *channel, unsigned block, uint64_t offset)
{
    Chunks *chunks = &channel->conn->chunks;

    return &chunks->chunks[chunks_id(chunks, block, offset)];
}

void write_queue_init(RdmaChannel *channel)
{
    WriteQueue *queue = &channel->writes;
    const VmfConn *base = &channel->conn->base;

    queue->window = MAX(base->max_inflight / base->channels, 8192);
    queue->signal_at = queue->window / 4;
    /* Several writes fit in the window, so that some are under way while the next is built. */
    queue->length_max = queue->window / 4;
    queue->pending = g_new(PendingRange, WRITE_QUEUE_PENDING_MAX);
}

void write_queue_clear(WriteQueue *queue)
{
    g_clear_pointer(&queue->pending, g_free);
}

/* --- the list --- */

/*
 * A completion for every quarter of the window keeps the queue from running dry. More completions
 * would wake this thread more often, which costs time. But some completion must always be on its
 * way. Otherwise a thread that waits for room would never wake.
 */
bool write_queue_wants_signal(const RdmaChannel *channel, unsigned requests, uint64_t bytes)
{
    const Endpoint *ep = channel->ep;

    return ep->open.bytes + bytes >= channel->writes.signal_at ||
           ep->open.requests + requests >= WRITE_QUEUE_REQUESTS / 8;
}

/*
 * A listed write has no place in the send queue yet, because a message may be posted before it.
 * Until the write is posted, its chunk counts as written to without end. So the chunk is not given
 * up.
 */
static void note_listed(WriteQueue *queue, Chunk *chunk)
{
    queue->listed_chunks[queue->listed] = chunk;
    if (chunk) {
        chunk->last_request = UINT64_MAX;
    }
}

static void note_posted(RdmaChannel *channel)
{
    const WriteQueue *queue = &channel->writes;

    for (unsigned i = 0; i < queue->listed; i++) {
        if (queue->listed_chunks[i]) {
            queue->listed_chunks[i]->last_request = channel->ep->posted;
        }
    }
}

bool write_queue_post_list(RdmaChannel *channel, GError **error)
{
    WriteQueue *queue = &channel->writes;
    Endpoint *ep = channel->ep;

    if (!queue->listed) {
        return true;
    }
    for (unsigned i = 0; i + 1 < queue->listed; i++) {
        queue->wr[i].next = &queue->wr[i + 1];
    }
    if (!endpoint_post_writes(
            ep, &queue->wr[0], &queue->wr[queue->listed - 1], queue->listed, queue->listed_bytes,
            write_queue_wants_signal(channel, queue->listed, queue->listed_bytes), error)) {
        return false;
    }
    note_posted(channel);
    counter_add(&channel->counters->ram_written, queue->listed_bytes);
    counter_add(&channel->counters->writes, queue->listed);
    counter_add(&channel->counters->doorbells, 1);
    __atomic_store_n(&channel->counters->inflight_bytes, ep->inflight_bytes, __ATOMIC_RELAXED);
    queue->listed = 0;
    queue->listed_bytes = 0;
    return true;
}

bool write_queue_has_room(const RdmaChannel *channel, uint32_t length)
{
    const WriteQueue *queue = &channel->writes;

    return channel->ep->inflight_bytes + queue->listed_bytes + length <= queue->window &&
           endpoint_write_room(channel->ep) > queue->listed;
}

/*
 * Whether a write may be listed. Its chunk must be registered on both sides, and on this side with
 * the memory as it is now.
 */
static bool look_ready(RdmaChannel *channel, unsigned block, uint64_t offset, bool *ready,
                       GError **error)
{
    *ready = chunk_at(channel, block, offset)->state == CHUNK_READY;
    if (!*ready || G_LIKELY(!discards_any(&channel->conn->discards))) {
        return true;
    }
    return renewal_make(channel, block, offset, ready, error) &&
           (*ready ||
            (write_queue_post_list(channel, error) && dialect_ask_for_completion(channel, error)));
}

/* Puts a write of a ready chunk on the list. The caller has checked write_queue_has_room. */
static bool list_write(RdmaChannel *channel, unsigned block, uint64_t offset, uint32_t length,
                       GError **error)
{
    WriteQueue *queue = &channel->writes;
    RdmaConn *conn = channel->conn;
    uint32_t id = chunks_id(&conn->chunks, block, offset);
    Chunk *chunk = &conn->chunks.chunks[id];
    Chunk *stripe = channel->registrar.dynamic ? NULL : renewal_stripe(conn, block, offset);
    const Chunks *table = stripe ? conn->stripes : &conn->chunks;
    const struct ibv_mr *mr = stripe ? stripe->mr : chunk->mr;
    struct ibv_sge *sge = &queue->sge[queue->listed];
    struct ibv_send_wr *wr = &queue->wr[queue->listed];

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
    note_listed(queue, channel->registrar.dynamic ? chunk : stripe);
    if (channel->registrar.dynamic) {
        registrar_used(channel, id);
    }
    queue->listed++;
    queue->listed_bytes += length;
    if (queue->listed == WRITE_QUEUE_LIST_MAX || queue->listed_bytes >= queue->signal_at) {
        return write_queue_post_list(channel, error);
    }
    return true;
}

/* Lists pending ranges in order, as far as their chunks are ready and there is room. */
static bool advance_pending(RdmaChannel *channel, GError **error)
{
    WriteQueue *queue = &channel->writes;

    while (queue->pending_count) {
        PendingRange *range = &queue->pending[queue->pending_first];
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
        if (!ready || !write_queue_has_room(channel, range->length)) {
            break;
        }
        if (--chunk->pending == 0) {
            queue->pending_chunks--;
        }
        queue->pending_first = (queue->pending_first + 1) % WRITE_QUEUE_PENDING_MAX;
        queue->pending_count--;
        queue->pending_bytes -= range->length;
        if (!list_write(channel, range->block, range->offset, range->length, error)) {
            return false;
        }
    }
    return true;
}

static uint64_t under_way(const RdmaChannel *channel)
{
    return channel->ep->inflight_bytes + channel->writes.listed_bytes;
}

/* --- registration, ahead of the writes --- */

bool write_queue_register(RdmaChannel *channel, GError **error)
{
    if (!registrar_can_send(channel)) {
        return true;
    }
    /*
     * A listed write is not in flight yet, but its chunk must not be evicted either. So the list is
     * posted first. Pages known to be zero come next, because registering makes the destination
     * allocate them.
     */
    return write_queue_post_list(channel, error) && channel->dialect->post_zero(channel, error) &&
           registrar_send(channel, error);
}

/*
 * Registration runs ahead of the writes. While enough is under way to keep the wire busy, a request
 * waits to grow. The reason is that each request costs a round trip.
 */
static bool send_request_if_due(RdmaChannel *channel, GError **error)
{
    WriteQueue *queue = &channel->writes;

    if (!channel->registrar.wanted_count ||
        (channel->registrar.wanted_count < channel->dialect->register_batch &&
         channel->registrar.request_count && under_way(channel) > queue->window / 4)) {
        return true;
    }
    return write_queue_register(channel, error);
}

bool write_queue_progress(RdmaChannel *channel, GError **error)
{
    Endpoint *ep = channel->ep;

    if (!endpoint_poll(ep, error) || !channel->dialect->take_messages(channel, error)) {
        return false;
    }
    if (ep->flushed) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "%s: the queue pair was taken down",
                    ep->name);
        nic_explain(ep->id, error);
        return false;
    }
    if (channel->writes.reap) {
        channel->writes.reap(channel);
    }
    if (!advance_pending(channel, error) || !write_queue_post_list(channel, error)) {
        return false;
    }
    __atomic_store_n(&channel->counters->inflight_bytes, ep->inflight_bytes, __ATOMIC_RELAXED);
    return send_request_if_due(channel, error);
}

bool write_queue_is_pending(const RdmaChannel *channel, unsigned block, uint64_t offset,
                            uint64_t length)
{
    const WriteQueue *queue = &channel->writes;

    for (unsigned i = 0; i < queue->pending_count; i++) {
        const PendingRange *range =
            &queue->pending[(queue->pending_first + i) % WRITE_QUEUE_PENDING_MAX];

        if (range->block == block && range->offset < offset + length &&
            offset < range->offset + range->length) {
            return true;
        }
    }
    return false;
}

bool write_queue_sleep(RdmaChannel *channel, int timeout_ms, int wake_fd, bool *woken,
                       GError **error)
{
    RdmaConn *conn = channel->conn;
    Endpoint *ep = channel->ep;
    const ChannelDialect *dialect = channel->dialect;
    const EndpointWakers wakers = {.cancel = conn->base.cancel_fd,
                                   .wake = wake_fd,
                                   .events = dialect->take_events ? conn->events->fd : -1,
                                   .listener = -1};
    uint64_t before = ep->progress;
    unsigned woke;

    *woken = false;
    if (!write_queue_progress(channel, error)) {
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
    return write_queue_progress(channel, error);
}

/*
 * Whether a silent channel waits only for the process of the destination, and that process lives.
 * While the process works on a message, it shows a sign of life on the channel once in a heartbeat.
 * On a busy host, one part of the work may take longer. Then the heartbeats of the control
 * connection count, for WRITE_QUEUE_PATIENCE time-outs. After that the channel is dead. A
 * completion that the device owes gets no such extra time.
 */
static bool peer_is_at_work(const RdmaChannel *channel, gint64 silent_us)
{
    const RdmaConn *conn = channel->conn;
    const gint64 timeout_us = (gint64)conn->base.timeout_ms * G_TIME_SPAN_MILLISECOND;
    const gint64 heard_at = __atomic_load_n(&conn->heard_at, __ATOMIC_RELAXED);

    return heard_at && channel->ep->batch_count == 0 &&
           g_get_monotonic_time() - heard_at < timeout_us &&
           silent_us < WRITE_QUEUE_PATIENCE * timeout_us;
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
                ep->name, silent_s, channel->registrar.request_count, endpoint_unprocessed(ep));
}

bool write_queue_await_progress(RdmaChannel *channel, GError **error)
{
    const VmfConn *base = &channel->conn->base;
    const uint64_t before = channel->ep->progress;
    const ChannelDialect *dialect = channel->dialect;
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
        if (!write_queue_sleep(channel, sleep_ms, -1, &woken, error)) {
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

bool write_queue_drain(RdmaChannel *channel, GError **error)
{
    Endpoint *ep = channel->ep;

    if (ep->open.requests) { /* none of these requests gives a completion */
        const ChannelDialect *dialect = channel->dialect;

        if ((dialect->nop_is_message && !write_queue_await_send(channel, error)) ||
            !dialect->send_nop(channel, error)) {
            return false;
        }
    }
    while (ep->completed != ep->posted) {
        if (!write_queue_await_progress(channel, error)) {
            return false;
        }
    }
    return true;
}

bool write_queue_await_send(RdmaChannel *channel, GError **error)
{
    while (!endpoint_can_send(channel->ep)) {
        if (!write_queue_await_progress(channel, error)) {
            return false;
        }
    }
    return true;
}

static bool make_pending(RdmaChannel *channel, unsigned block, uint64_t offset, uint32_t length,
                         GError **error)
{
    WriteQueue *queue = &channel->writes;
    Chunks *chunks = &channel->conn->chunks;
    Chunk *chunk = chunk_at(channel, block, offset);
    const uint64_t size = 1ull << chunks->shift;

    /*
     * Pending bytes count as outstanding, together with the bytes in flight. So the tail that the
     * last flush finds is bounded. All the chunks that ranges wait for must fit in the pin budget
     * together. Otherwise they would wait for each other.
     */
    while (queue->pending_count == WRITE_QUEUE_PENDING_MAX ||
           (chunk->state == CHUNK_NONE && !registrar_has_room(channel)) ||
           (queue->pending_count &&
            under_way(channel) + queue->pending_bytes + length > queue->window) ||
           (queue->pending_chunks && !chunk->pending && channel->registrar.pin_budget &&
            (queue->pending_chunks + 1) * size > channel->registrar.pin_budget)) {
        if (!write_queue_await_progress(channel, error)) {
            return false;
        }
    }
    queue->pending[(queue->pending_first + queue->pending_count) % WRITE_QUEUE_PENDING_MAX] =
        (PendingRange){.block = block, .length = length, .offset = offset};
    queue->pending_count++;
    queue->pending_bytes += length;
    if (chunk->pending++ == 0) {
        queue->pending_chunks++;
    }
    if (chunk->state != CHUNK_NONE) {
        return true;
    }
    return registrar_want(channel, block, (uint32_t)(offset >> chunks->shift), error) &&
           (channel->registrar.wanted_count < channel->dialect->register_batch ||
            write_queue_register(channel, error));
}

bool write_queue_add(RdmaChannel *channel, unsigned block, uint64_t offset, uint32_t length,
                     GError **error)
{
    WriteQueue *queue = &channel->writes;
    bool ready = false;

    if (!queue->pending_count && !look_ready(channel, block, offset, &ready, error)) {
        return false;
    }
    if (!ready) {
        return make_pending(channel, block, offset, length, error);
    }
    while (!write_queue_has_room(channel, length)) {
        if (!write_queue_post_list(channel, error) || !write_queue_await_progress(channel, error)) {
            return false;
        }
    }
    /* The wait may have evicted the chunk to make room for another one. */
    if (chunk_at(channel, block, offset)->state != CHUNK_READY) {
        return make_pending(channel, block, offset, length, error);
    }
    return list_write(channel, block, offset, length, error);
}

bool write_queue_push(RdmaChannel *channel, GError **error)
{
    return write_queue_post_list(channel, error) && send_request_if_due(channel, error);
}

bool write_queue_post_all(RdmaChannel *channel, GError **error)
{
    WriteQueue *queue = &channel->writes;

    while (queue->pending_count) {
        if (!write_queue_register(channel, error)) {
            return false;
        }
        if (queue->pending_count && !write_queue_await_progress(channel, error)) {
            return false;
        }
    }
    return write_queue_post_list(channel, error);
}
