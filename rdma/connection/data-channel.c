/* SPDX-License-Identifier: BSD-2-Clause */
/* data-channel.c -- making a channel and ending it */

#include "data-channel.h"

#include "conn-endpoint.h"
#include "source/native-dialect.h"
#include "destination/zero-ranges.h"

/*
 * Device state goes in messages of that size. With many channels they are smaller, so that all of
 * them need little memory.
 */
size_t channel_slot_bytes(unsigned channels)
{
    return channels <= 8 ? 32 * 1024 : channels <= 16 ? 16 * 1024 : 8 * 1024;
}

void channel_init_source(RdmaChannel *channel, const ChannelDialect *dialect)
{
    channel->dialect = dialect;
    write_queue_init(channel);
    registrar_init(&channel->registrar);
    zero_log_init(&channel->zeros, channel->ep->limits.send_bytes - WIRE_HEADER_BYTES);
}

RdmaChannel *channel_new(RdmaConn *conn, unsigned number, struct rdma_cm_id *id, GError **error)
{
    bool source = conn->base.role == VMF_ROLE_SOURCE;
    size_t slot = channel_slot_bytes(conn->base.channels);
    const EndpointLimits limits = {
        .send_bytes = source ? slot : CHANNEL_REPLY_BYTES,
        .receive_bytes = source ? CHANNEL_REPLY_BYTES : slot,
        .writes = source ? WRITE_QUEUE_REQUESTS : 0,
    };
    g_autofree char *name = g_strdup_printf("channel %u", number);
    RdmaChannel *channel = g_new0(RdmaChannel, 1);

    channel->conn = conn;
    channel->number = number;
    channel->counters = &conn->base.counters[number];
    channel->ep = conn_endpoint(conn, id, true, &limits, name, error);
    if (!channel->ep) {
        channel_free(channel);
        return NULL;
    }
    channel->id = id; /* the channel owns it from here on */
    if (source) {
        channel_init_source(channel, &native_dialect);
        channel->writes.reap = piece_reap;
    }
    conn->base.own_bytes += endpoint_own_bytes(channel->ep) + sizeof(*channel);
    return channel;
}

void channel_take_down(RdmaChannel *channel)
{
    if (channel && channel->id && channel->ep && !channel->ep->quiet_at) {
        rdma_disconnect(channel->id);
        endpoint_take_down(channel->ep);
    }
}

void channel_free(RdmaChannel *channel)
{
    if (!channel) {
        return;
    }
    channel_take_down(channel);
    write_queue_clear(&channel->writes);
    zero_log_clear(&channel->zeros);
    endpoint_free(channel->ep);
    piece_clear(channel);
    zero_ranges_clear(channel);
    if (channel->id) {
        rdma_destroy_id(channel->id);
    }
    g_free(channel);
}
