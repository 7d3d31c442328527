/* SPDX-License-Identifier: BSD-2-Clause */
/* registrar.c -- registration on demand on the source: requests, pin budget, eviction */

#include "registrar.h"

#include <errno.h>
#include <string.h>

#include "channel-dialect.h"
#include "rdma-conn.h"
#include "verbs/memory-lock.h"

void registrar_init(Registrar *registrar)
{
    registrar->oldest = registrar->newest = CHUNK_NIL;
}

static Chunk *chunk_of(RdmaChannel *channel, const WireChunk *name)
{
    Chunks *chunks = &channel->conn->chunks;

    return &chunks->chunks[chunks->first[name->block] + name->index];
}

static uint64_t chunk_bytes(RdmaChannel *channel, const WireChunk *name)
{
    return chunks_length(&channel->conn->chunks, name->block, name->index);
}

/* --- the list of ready chunks by last use --- */

static void list_remove(RdmaChannel *channel, uint32_t id)
{
    Registrar *registrar = &channel->registrar;
    Chunk *all = channel->conn->chunks.chunks;
    Chunk *chunk = &all[id];

    *(chunk->older == CHUNK_NIL ? &registrar->oldest : &all[chunk->older].newer) = chunk->newer;
    *(chunk->newer == CHUNK_NIL ? &registrar->newest : &all[chunk->newer].older) = chunk->older;
}

static void list_append(RdmaChannel *channel, uint32_t id)
{
    Registrar *registrar = &channel->registrar;
    Chunk *all = channel->conn->chunks.chunks;

    all[id].older = registrar->newest;
    all[id].newer = CHUNK_NIL;
    *(registrar->newest == CHUNK_NIL ? &registrar->oldest : &all[registrar->newest].newer) = id;
    registrar->newest = id;
}

void registrar_used(RdmaChannel *channel, uint32_t id)
{
    if (channel->registrar.newest != id) {
        list_remove(channel, id);
        list_append(channel, id);
    }
}

/* --- eviction --- */

/*
 * The least recently used chunk that no write is in flight to; CHUNK_NIL if there is none. It takes
 * a chunk that ranges wait for only when `desperate'. Such a chunk is asked for again in its turn.
 */
static uint32_t evictable(RdmaChannel *channel, bool desperate)
{
    Chunk *all = channel->conn->chunks.chunks;

    for (uint32_t id = channel->registrar.oldest; id != CHUNK_NIL; id = all[id].newer) {
        if (all[id].last_request <= channel->ep->completed && (desperate || !all[id].pending)) {
            return id;
        }
    }
    return CHUNK_NIL;
}

static void evict(RdmaChannel *channel, uint32_t id, WireRegister *message)
{
    Chunks *chunks = &channel->conn->chunks;
    unsigned block = chunks_block_of(chunks, id);
    WireChunk name = {.block = block, .index = id - chunks->first[block]};

    list_remove(channel, id);
    chunks->chunks[id].state = CHUNK_NONE;
    channel->registrar.pinned -= chunk_bytes(channel, &name);
    chunks_unregister(chunks, block, name.index, channel->counters);
    message->chunks[message->evicted++] = name;
}

static bool fits(const Registrar *registrar, uint64_t bytes)
{
    return !registrar->pin_budget || registrar->pinned + bytes <= registrar->pin_budget;
}

/* Evicts until `bytes' more fit in the budget, or until nothing more can be evicted now. */
static void make_room(RdmaChannel *channel, uint64_t bytes, WireRegister *message)
{
    Registrar *registrar = &channel->registrar;
    const unsigned evictions_max = WIRE_REGISTER_MAX - REGISTRAR_BATCH;
    bool nothing_moves = !registrar->request_count && !channel->ep->inflight_bytes;

    while (!fits(registrar, bytes) && message->evicted < evictions_max) {
        uint32_t id = evictable(channel, false);

        if (id == CHUNK_NIL && nothing_moves) {
            id = evictable(channel, true);
        }
        if (id == CHUNK_NIL) {
            break;
        }
        evict(channel, id, message);
    }
}

/* --- requests --- */

bool registrar_has_room(const RdmaChannel *channel)
{
    return channel->registrar.wanted_count + channel->registrar.asked_count < REGISTRAR_WANTED_MAX;
}

bool registrar_want(RdmaChannel *channel, unsigned block, uint32_t index, GError **error)
{
    Registrar *registrar = &channel->registrar;
    WireChunk name = {.block = block, .index = index};

    if (!registrar->dynamic) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "%s: RAM block \"%s\" is not registered",
                    channel->ep->name, channel->conn->base.blocks[block]->name);
        return false;
    }
    if (registrar->wanted_count == REGISTRAR_WANTED_MAX) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                    "%s: more than %d chunks wait for their registration", channel->ep->name,
                    REGISTRAR_WANTED_MAX);
        return false;
    }
    registrar->wanted[registrar->wanted_count++] = name;
    chunk_of(channel, &name)->state = CHUNK_WANTED;
    return true;
}

/* Registers the chunks of a request on this side, while the peer registers them on its side. */
static void register_locally(RdmaChannel *channel, RegisterRequest *request)
{
    RdmaConn *conn = channel->conn;

    for (unsigned i = 0; i < request->count; i++) {
        Chunk *chunk = chunk_of(channel, &request->chunks[i]);

        chunk->stale = false;
        request->local_error[i] =
            chunk->mr ? 0
                      : chunks_register(&conn->chunks, request->chunks[i].block,
                                        request->chunks[i].index, channel->counters);
    }
}

bool registrar_can_send(const RdmaChannel *channel)
{
    const Registrar *registrar = &channel->registrar;

    return registrar->wanted_count && registrar->request_count != channel->dialect->requests_max &&
           channel->dialect->can_request(channel);
}

bool registrar_send(RdmaChannel *channel, GError **error)
{
    Registrar *registrar = &channel->registrar;
    const ChannelDialect *dialect = channel->dialect;
    WireRegister message = {0};
    RegisterRequest *request;
    unsigned take = 0;

    if (!dialect->can_request(channel)) {
        return true; /* a later call sends it, when there is room */
    }
    for (; take < MIN(registrar->wanted_count, dialect->register_batch); take++) {
        uint64_t bytes = chunk_bytes(channel, &registrar->wanted[take]);

        make_room(channel, bytes, &message);
        if (!fits(registrar, bytes)) {
            break;
        }
        registrar->pinned += bytes;
    }
    if (!take && (!message.evicted || dialect->local_evictions)) {
        return dialect_ask_for_completion(channel, error);
    }
    message.wanted = take;
    memcpy(message.chunks + message.evicted, registrar->wanted, take * sizeof(WireChunk));
    if (!dialect->send_request(channel, &message, error)) {
        return false;
    }
    /* A request of evictions alone has an answer, too, which is empty. */
    request = &registrar->requests[(registrar->request_first + registrar->request_count++) %
                                   REGISTRAR_REQUESTS_MAX];
    request->count = take;
    memcpy(request->chunks, registrar->wanted, take * sizeof(WireChunk));
    for (unsigned i = 0; i < take; i++) {
        chunk_of(channel, &registrar->wanted[i])->state = CHUNK_REQUESTED;
    }
    registrar->asked_count += take;
    registrar->wanted_count -= take;
    memmove(registrar->wanted, registrar->wanted + take,
            registrar->wanted_count * sizeof(WireChunk));
    register_locally(channel, request);
    return true;
}

/*
 * One side could not pin a chunk. If this channel has other chunks, it can live with fewer. Then
 * the budget shrinks to what the channel has, and the chunk waits for an eviction.
 */
static bool refused(RdmaChannel *channel, const WireChunk *name, int err, bool here, GError **error)
{
    Registrar *registrar = &channel->registrar;
    RdmaConn *conn = channel->conn;
    uint64_t bytes = chunk_bytes(channel, name);
    const char *block = conn->base.blocks[name->block]->name;

    chunks_unregister(&conn->chunks, name->block, name->index, channel->counters);
    registrar->pinned -= bytes;
    if (err == ENOMEM && registrar->oldest != CHUNK_NIL) {
        registrar->pin_budget = MAX(registrar->pinned, bytes);
        return registrar_want(channel, name->block, name->index, error);
    }
    if (here) {
        g_autofree char *what = g_strdup_printf("chunk %u of RAM block \"%s\" on %s", name->index,
                                                block, channel->ep->name);
        memlock_error(error, err, bytes, what, true);
    } else {
        g_set_error(
            error, VMF_ERROR, err == ENOMEM ? VMF_ERROR_MEMLOCK : VMF_ERROR_DEVICE,
            "%s: the destination cannot register chunk %u of RAM block \"%s\" (%" G_GUINT64_FORMAT
            " bytes): %s%s",
            channel->ep->name, name->index, block, bytes, g_strerror(err),
            err == ENOMEM ? "; raise its memory-lock limit (ulimit -l), or use fewer "
                            "channels or a smaller chunk-size"
                          : "");
    }
    return false;
}

int registrar_awaited(const RdmaChannel *channel)
{
    const Registrar *registrar = &channel->registrar;

    return registrar->request_count ? (int)registrar->requests[registrar->request_first].count : -1;
}

bool registrar_result(RdmaChannel *channel, const WireResult *results, GError **error)
{
    Registrar *registrar = &channel->registrar;
    Chunks *chunks = &channel->conn->chunks;
    RegisterRequest *request = &registrar->requests[registrar->request_first];

    registrar->request_first = (registrar->request_first + 1) % REGISTRAR_REQUESTS_MAX;
    registrar->request_count--;
    registrar->asked_count -= request->count;
    for (unsigned i = 0; i < request->count; i++) {
        const WireChunk *name = &request->chunks[i];
        uint32_t id = chunks->first[name->block] + name->index;
        int err = request->local_error[i] ? request->local_error[i] : (int)results[i].status;

        if (err) {
            if (!refused(channel, name, err, request->local_error[i], error)) {
                return false;
            }
            continue;
        }
        chunks->chunks[id].rkey = results[i].rkey;
        chunks->chunks[id].state = CHUNK_READY;
        list_append(channel, id);
    }
    return true;
}
