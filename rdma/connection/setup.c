/* SPDX-License-Identifier: BSD-2-Clause */
/* setup.c -- what the two sides agree on: registration, chunk size, pin budget, addresses */

#include "setup.h"

#include <sys/sysinfo.h>
#include <vmferry/plugin/bytes.h>

#include "rdma-conn.h"
#include "data-channel.h"
#include "verbs/memory-lock.h"
#include "source/piece-source.h"

/*
 * The stripe with pin-all. It is so short that a dirty region spreads over the channels. It is so
 * long that writes have their full size. One channel has nothing to spread.
 */
#define PIN_ALL_STRIPE (1024u * 1024)
#define PIN_ALL_STRIPE_SINGLE (8192u * 1024)
#define CHANNELS_DEFAULT_MAX 8
#define RKEYS_MAX (1u << 20) /* with chunks of 64 MiB, more RAM than any guest has */

/* --- parameters --- */

/* The most bytes that the message buffers of that many channels pin, on either side. */
static uint64_t channel_buffers(unsigned channels)
{
    return channels * (ENDPOINT_RECEIVES * (uint64_t)channel_slot_bytes(channels) +
                       ENDPOINT_SEND_SLOTS * (uint64_t)CHANNEL_REPLY_BYTES + 4096);
}

static bool device_has_odp(RdmaConn *conn)
{
    const uint32_t needed = IBV_ODP_SUPPORT_WRITE;
    struct ibv_device_attr_ex attr;

    return ibv_query_device_ex(conn->id->verbs, NULL, &attr) == 0 &&
           (attr.odp_caps.general_caps & IBV_ODP_SUPPORT) &&
           (attr.odp_caps.per_transport_caps.rc_odp_caps & needed) == needed;
}

uint64_t setup_own_budget(const RdmaConn *conn)
{
    MemlockLimit memlock = memlock_limit();
    uint64_t left;

    if (conn->options.pin_budget) {
        return conn->options.pin_budget;
    }
    if (memlock.unlimited) {
        return 0;
    }
    left = memlock.limit > memlock.in_use ? memlock.limit - memlock.in_use : 0;
    return MAX(left, 1);
}

size_t setup_get_parameters(VmfConn *base, uint8_t buffer[64])
{
    RdmaConn *conn = conn_of(base);

    conn->odp = device_has_odp(conn);
    conn->own = (WireParameters){
        .revision = WIRE_REVISION,
        .registration = conn->options.registration,
        .chunk_size = conn->options.chunk_size,
        .pin_budget = setup_own_budget(conn),
        .device_flags = conn->odp ? WIRE_DEVICE_ODP : 0,
    };
    wire_parameters_encode(&conn->own, buffer);
    return WIRE_PARAMETERS_BYTES;
}

bool setup_peer_parameters(VmfConn *base, const uint8_t *buffer, size_t size, GError **error)
{
    RdmaConn *conn = conn_of(base);
    WireParameters *peer = &conn->peer;

    if (!wire_parameters_decode(buffer, size, peer, error)) {
        return false;
    }
    if (peer->registration > RDMA_REGISTRATION_ODP || (peer->chunk_size & (peer->chunk_size - 1)) ||
        (peer->chunk_size &&
         (peer->chunk_size < CHUNK_SIZE_MIN || peer->chunk_size > CHUNK_SIZE_MAX))) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the peer wants registration mode %u with a chunk size of %" G_GUINT64_FORMAT,
                    peer->registration, peer->chunk_size);
        return false;
    }
    if (base->role == VMF_ROLE_DESTINATION) {
        /* The source chooses how RAM is registered. */
        conn->options.registration = (RdmaRegistration)peer->registration;
    }
    return true;
}

static uint64_t common_budget(const RdmaConn *conn)
{
    if (!conn->own.pin_budget || !conn->peer.pin_budget) {
        return MAX(conn->own.pin_budget, conn->peer.pin_budget);
    }
    return MIN(conn->own.pin_budget, conn->peer.pin_budget);
}

unsigned setup_default_channels(VmfConn *base)
{
    RdmaConn *conn = conn_of(base);
    struct ibv_device_attr attr = {.max_qp = 64};
    const int processors = get_nprocs();
    unsigned channels = (unsigned)CLAMP(processors, 2, CHANNELS_DEFAULT_MAX);
    uint64_t budget = setup_own_budget(conn);

    if (ibv_query_device(conn->id->verbs, &attr) == 0 && attr.max_qp > 1) {
        channels = MIN(channels, (unsigned)attr.max_qp - 1);
    }
    /* Buffers may take at most a quarter of what may be pinned. */
    while (budget && channels > 1 && channel_buffers(channels) > budget / 4) {
        channels /= 2;
    }
    return channels;
}

/* --- agreeing on the chunk size --- */

/*
 * Both sides compute the chunk size and the budget from the same numbers. Measured on soft-RoCE:
 * with one channel, larger chunks are faster, because there are fewer registrations. With several
 * channels, a chunk is also the stripe, and a smaller one keeps every channel busy.
 */
static bool agree_on_chunks(RdmaConn *conn, uint64_t *chunk_size, uint64_t *budget, GError **error)
{
    const unsigned channels = conn->base.channels;
    const WireParameters *source = conn->base.role == VMF_ROLE_SOURCE ? &conn->own : &conn->peer;
    const WireParameters *destination =
        conn->base.role == VMF_ROLE_SOURCE ? &conn->peer : &conn->own;
    uint64_t limit = common_budget(conn);
    uint64_t buffers = channel_buffers(channels);

    *chunk_size = source->chunk_size        ? source->chunk_size
                  : destination->chunk_size ? destination->chunk_size
                  : channels == 1           ? 8192u * 1024
                  : channels < 4            ? 4096u * 1024
                                            : 2048u * 1024;
    *budget = 0;
    if (!limit) {
        return true;
    }
    *budget = limit > buffers ? (limit - buffers) / channels : 0;
    while (*chunk_size > CHUNK_SIZE_MIN && *chunk_size > *budget / 4) {
        *chunk_size /= 2;
    }
    if (*budget < 2 * *chunk_size) {
        g_autofree char *has = g_format_size_full(limit, G_FORMAT_SIZE_IEC_UNITS);
        g_autofree char *needs =
            g_format_size_full(buffers + 2ull * channels * CHUNK_SIZE_MIN, G_FORMAT_SIZE_IEC_UNITS);

        g_set_error(error, VMF_ERROR, VMF_ERROR_MEMLOCK,
                    "%s may be pinned on the %s, %u channels need at least %s: raise the "
                    "memory-lock limit (ulimit -l, LimitMEMLOCK= in a systemd unit, "
                    "/etc/security/limits.conf) or pin-budget there, or use fewer channels",
                    has, limit == conn->own.pin_budget ? "this side" : "peer's side", channels,
                    needs);
        return false;
    }
    return true;
}

/* --- addresses and keys --- */

static void post_addresses(RdmaConn *conn)
{
    VmfConn *base = &conn->base;
    const unsigned per_message = (CONTROL_MESSAGE_MAX - 64) / 8;

    for (unsigned first = 0; first < base->block_count; first += per_message) {
        unsigned count = MIN(per_message, base->block_count - first);
        size_t size = 4 + 8 * (size_t)count;
        g_autofree uint8_t *data = g_malloc(size);
        VmfWriter w = vmf_writer(data, size);

        vmf_write_be32(&w, first);
        for (unsigned i = 0; i < count; i++) {
            vmf_write_be64(&w, (uintptr_t)base->blocks[first + i]->host);
        }
        base->host->post_message(base, WIRE_PRIVATE_ADDRESSES, data, size);
    }
}

static void post_rkeys(RdmaConn *conn)
{
    VmfConn *base = &conn->base;
    Chunks *chunks = &conn->chunks;
    const uint32_t total = chunks->first[chunks->block_count];
    const unsigned per_message = (CONTROL_MESSAGE_MAX - 64) / 4;

    for (uint32_t first = 0; first < total; first += per_message) {
        unsigned count = MIN(per_message, total - first);
        size_t size = 4 + 4 * (size_t)count;
        g_autofree uint8_t *data = g_malloc(size);
        VmfWriter w = vmf_writer(data, size);

        vmf_write_be32(&w, first);
        for (unsigned i = 0; i < count; i++) {
            vmf_write_be32(&w, chunks->chunks[first + i].mr->rkey);
        }
        base->host->post_message(base, WIRE_PRIVATE_RKEYS, data, size);
    }
}

/*
 * Collects the numbers that the destination tells. They may come before ram_setup of this side has
 * begun. So only ram_setup can check how many there must be.
 */
static bool collect(GArray *into, VmfReader *r, unsigned bytes, size_t most, GError **error)
{
    uint32_t first = vmf_read_be32(r);
    size_t left = vmf_reader_left(r);

    if (r->bad || first != into->len || left == 0 || left % bytes ||
        into->len + left / bytes > most) {
        g_set_error(
            error, VMF_ERROR, VMF_ERROR_PROTOCOL,
            "bad set-up message from the destination: %zu bytes from number %u on, %u known", left,
            first, into->len);
        return false;
    }
    while (vmf_reader_left(r)) {
        uint64_t value = vmf_read_number(r, bytes);
        g_array_append_val(into, value);
    }
    return true;
}

bool setup_control_message(VmfConn *base, unsigned type, const uint8_t *data, size_t size,
                           GError **error)
{
    RdmaConn *conn = conn_of(base);
    VmfReader r = vmf_reader(data, size);
    bool ok;

    if (base->role == VMF_ROLE_SOURCE && type == WIRE_PRIVATE_DEVICE_MEMORY) {
        return piece_take_memory(conn, data, size, error);
    }
    if (base->role != VMF_ROLE_SOURCE ||
        (type != WIRE_PRIVATE_ADDRESSES && type != WIRE_PRIVATE_RKEYS)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "unexpected message 0x%x on the control connection", type);
        return false;
    }
    g_mutex_lock(&conn->setup_lock);
    ok = type == WIRE_PRIVATE_ADDRESSES ? collect(conn->addresses, &r, 8, VMF_RAM_BLOCKS_MAX, error)
                                        : collect(conn->rkeys, &r, 4, RKEYS_MAX, error);
    g_cond_broadcast(&conn->setup_cond);
    g_mutex_unlock(&conn->setup_lock);
    return ok;
}

/* Takes over the numbers that the destination has told. The caller holds the lock. */
static bool use_told_locked(RdmaConn *conn, uint32_t rkeys, GError **error)
{
    Chunks *chunks = &conn->chunks;

    if (conn->addresses->len != conn->base.block_count || conn->rkeys->len != rkeys) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the destination named %u addresses and %u keys, expected %u and %u",
                    conn->addresses->len, conn->rkeys->len, conn->base.block_count, rkeys);
        return false;
    }
    for (unsigned i = 0; i < conn->base.block_count; i++) {
        chunks->remote[i] = g_array_index(conn->addresses, uint64_t, i);
    }
    for (uint32_t i = 0; i < rkeys; i++) {
        chunks->chunks[i].rkey = (uint32_t)g_array_index(conn->rkeys, uint64_t, i);
        chunks->chunks[i].state = CHUNK_READY;
    }
    return true;
}

/*
 * Waits for the addresses and the keys. The wait has no time-out, because pinning may take long.
 * The heartbeats of the peer bound it.
 */
static bool await_addresses(RdmaConn *conn, GError **error)
{
    const Chunks *chunks = &conn->chunks;
    const bool pinned = conn->options.registration != RDMA_REGISTRATION_CHUNK;
    const uint32_t rkeys = pinned ? chunks->first[chunks->block_count] : 0;
    bool ok = true;

    g_mutex_lock(&conn->setup_lock);
    while ((conn->addresses->len < conn->base.block_count || conn->rkeys->len < rkeys) &&
           !g_cancellable_is_cancelled(conn->base.cancel)) {
        g_cond_wait_until(&conn->setup_cond, &conn->setup_lock,
                          g_get_monotonic_time() + 20 * G_TIME_SPAN_MILLISECOND);
    }
    if (g_cancellable_is_cancelled(conn->base.cancel)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "cancelled while RAM was registered");
        ok = false;
    }
    /* The control thread may append more numbers, if the peer is faulty. */
    ok = ok && use_told_locked(conn, rkeys, error);
    g_mutex_unlock(&conn->setup_lock);
    return ok;
}

/* --- ram_setup --- */

static int access_flags(const RdmaConn *conn)
{
    int access = conn->base.role == VMF_ROLE_DESTINATION
                     ? IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE
                     : 0; /* reading local memory needs no flag */

    return conn->options.registration == RDMA_REGISTRATION_ODP ? access | IBV_ACCESS_ON_DEMAND
                                                               : access;
}

static bool prepare_chunks(RdmaConn *conn, uint64_t *budget, GError **error)
{
    VmfConn *base = &conn->base;
    const RdmaRegistration mode = conn->options.registration;
    uint64_t size;

    *budget = 0;
    if (mode == RDMA_REGISTRATION_ODP &&
        (!conn->odp || !(conn->peer.device_flags & WIRE_DEVICE_ODP))) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "registration=odp: the RDMA device of %s cannot do on-demand paging; use "
                    "registration=chunk or pin-all",
                    conn->odp ? "the peer" : "this host");
        return false;
    }
    if (mode == RDMA_REGISTRATION_CHUNK) {
        if (!agree_on_chunks(conn, &size, budget, error)) {
            return false;
        }
        base->stripe = size;
    } else {
        size = chunks_pin_all_size(base->blocks, base->block_count);
        base->stripe = base->channels == 1 ? PIN_ALL_STRIPE_SINGLE : PIN_ALL_STRIPE;
    }
    base->chunk_size = size;
    base->merge_gap = conn->options.gap;
    base->registration = mode == RDMA_REGISTRATION_PIN_ALL ? "pin-all"
                         : mode == RDMA_REGISTRATION_ODP   ? "odp"
                                                           : "chunk";
    if (!chunks_init(&conn->chunks, base->blocks, base->block_count, conn_data_pd(conn), size,
                     access_flags(conn), error)) {
        return false;
    }
    base->own_bytes += conn->chunks.own_bytes;
    return true;
}

static bool register_all(RdmaConn *conn, GError **error)
{
    return chunks_register_all(&conn->chunks, conn->base.cancel, &conn->base.counters[0], error);
}

static bool setup_source(RdmaConn *conn, uint64_t budget, GError **error)
{
    bool dynamic = conn->options.registration == RDMA_REGISTRATION_CHUNK;

    conn->zero_marks = zero_marks_new(conn->base.block_count);
    for (unsigned i = 0; i < conn->base.channels; i++) {
        conn->channels[i]->registrar.dynamic = dynamic;
        conn->channels[i]->registrar.pin_budget = budget;
    }
    /* The destination registers at the same time. */
    return (dynamic || register_all(conn, error)) && await_addresses(conn, error);
}

static bool setup_destination(RdmaConn *conn, GError **error)
{
    post_addresses(conn);
    if (conn->options.registration != RDMA_REGISTRATION_CHUNK) {
        if (!(conn->pinned ? pinned_take(conn->pinned, &conn->chunks, conn->base.cancel,
                                         &conn->base.counters[0], error)
                           : register_all(conn, error))) {
            return false;
        }
        post_rkeys(conn);
    }
    return true;
}

bool setup_ram(VmfConn *base, GError **error)
{
    RdmaConn *conn = conn_of(base);
    uint64_t budget;

    if (!prepare_chunks(conn, &budget, error) ||
        (conn->options.registration != RDMA_REGISTRATION_ODP &&
         !discards_init(&conn->discards, base, error))) {
        return false;
    }
    return base->role == VMF_ROLE_SOURCE ? setup_source(conn, budget, error)
                                         : setup_destination(conn, error);
}
