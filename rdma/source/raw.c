/* SPDX-License-Identifier: BSD-2-Clause */
/* raw.c -- plain RDMA writes over a channel, the limit that a benchmark compares with */

#include "raw.h"

#include "rdma-conn.h"
#include "write-queue.h"

/* Small messages that are posted with one doorbell. */
#define RAW_LIST 64

/*
 * The place of the n-th message. Messages go round and round over the stripes of block 0 that
 * belong to this channel.
 */
static uint64_t message_offset(const RdmaChannel *channel, uint64_t n, uint64_t size)
{
    const VmfConn *base = &channel->conn->base;
    const uint64_t per_stripe = base->stripe / size;
    /* Only whole stripes count, because the last one may be short. */
    const uint64_t stripes = base->blocks[0]->length / base->stripe;
    const uint64_t own = (stripes - channel->number - 1) / base->channels + 1;
    const uint64_t stripe = (n / per_stripe) % own * base->channels + channel->number;

    return stripe * base->stripe + n % per_stripe * size;
}

/* With registration on demand, registers everything first that will be written. */
static bool register_all(RdmaChannel *channel, uint64_t size, uint64_t count, GError **error)
{
    Chunks *chunks = &channel->conn->chunks;
    const uint64_t per_stripe = channel->conn->base.stripe / size;

    for (uint64_t n = 0; n < count; n += per_stripe) {
        uint64_t offset = message_offset(channel, n, size);

        if (chunks->chunks[chunks_id(chunks, 0, offset)].state == CHUNK_READY) {
            continue;
        }
        if (channel->registrar.pin_budget) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                        "raw writes need all RAM pinned: no memory-lock limit, or "
                        "registration=pin-all");
            return false;
        }
        if (!write_queue_add(channel, 0, offset, 512, error)) {
            return false;
        }
    }
    return write_queue_post_all(channel, error) && write_queue_drain(channel, error);
}

static bool post_some(RdmaChannel *channel, uint64_t *next, uint64_t size, uint64_t count,
                      GError **error)
{
    RdmaConn *conn = channel->conn;
    struct ibv_sge sge[RAW_LIST];
    struct ibv_send_wr wr[RAW_LIST];
    unsigned most = size >= 65536 ? 1 : RAW_LIST, n = 0;

    most = (unsigned)MIN(MIN(most, endpoint_write_room(channel->ep)), count - *next);
    for (; n < most; n++) {
        uint64_t offset = message_offset(channel, (*next)++, size);
        Chunk *chunk = &conn->chunks.chunks[chunks_id(&conn->chunks, 0, offset)];

        sge[n] = (struct ibv_sge){.addr = (uintptr_t)conn->base.blocks[0]->host + offset,
                                  .length = (uint32_t)size,
                                  .lkey = chunk->mr->lkey};
        wr[n] = (struct ibv_send_wr){
            .next = &wr[n + 1],
            .sg_list = &sge[n],
            .num_sge = 1,
            .opcode = IBV_WR_RDMA_WRITE,
            .wr.rdma = {.remote_addr = conn->chunks.remote[0] + offset, .rkey = chunk->rkey},
        };
    }
    return n == 0 || endpoint_post_writes(channel->ep, wr, &wr[n - 1], n, n * size, true, error);
}

bool raw_write(VmfConn *base, unsigned number, uint64_t size, uint64_t bytes, double *seconds,
               GError **error)
{
    RdmaChannel *channel = conn_of(base)->channels[number];
    const uint64_t count = MAX(bytes / size, 1);
    uint64_t next = 0;
    gint64 began;

    if (!register_all(channel, size, count, error)) {
        return false;
    }
    began = g_get_monotonic_time();
    while (next < count) {
        bool room = channel->ep->inflight_bytes + size <= channel->writes.window &&
                    endpoint_write_room(channel->ep) >= RAW_LIST;

        if (room ? !post_some(channel, &next, size, count, error)
                 : !write_queue_await_progress(channel, error)) {
            return false;
        }
    }
    if (!write_queue_drain(channel, error)) {
        return false;
    }
    *seconds = (double)(g_get_monotonic_time() - began) / 1e6;
    return true;
}
