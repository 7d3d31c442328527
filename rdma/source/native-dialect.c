/* SPDX-License-Identifier: BSD-2-Clause */
/* native-dialect.c -- what a source says on a channel to a vmferry */

#include "native-dialect.h"

#include <string.h>

#include "rdma-conn.h"
#include "verbs/endpoint-messages.h"
#include "registrar.h"
#include "write-queue.h"
#include "zero-log.h"

/* --- zero ranges --- */

static bool post_zero(RdmaChannel *channel, GError **error)
{
    ZeroLog *zeros = &channel->zeros;

    if (!zeros->bytes) { /* sent already, in the wait for room, before a registration request */
        return true;
    }
    /* An older write of such a page may be listed, and must not land after the zeros. */
    if (!write_queue_post_list(channel, error)) {
        return false;
    }
    memcpy(endpoint_body(channel->ep), zeros->body, zeros->bytes);
    if (!endpoint_send(channel->ep, WIRE_ZERO, 0, zeros->bytes, error)) {
        return false;
    }
    zero_log_was_sent(zeros, channel->ep->sent);
    return true;
}

static bool flush_zero(RdmaChannel *channel, GError **error)
{
    return !channel->zeros.bytes ||
           (write_queue_await_send(channel, error) && post_zero(channel, error));
}

static bool zero_acknowledged(RdmaChannel *channel)
{
    return zero_log_acknowledged(&channel->zeros, channel->ep->peer_processed);
}

/* Waits until the destination has dealt with every zero message. */
static bool settle_zero(RdmaChannel *channel, GError **error)
{
    if (!flush_zero(channel, error)) {
        return false;
    }
    if (zero_acknowledged(channel)) {
        return true;
    }
    if (!write_queue_await_send(channel, error) ||
        !endpoint_send(channel->ep, WIRE_NOP, WIRE_ACK_NOW, 0, error)) {
        return false;
    }
    while (!zero_acknowledged(channel)) {
        if (!write_queue_await_progress(channel, error)) {
            return false;
        }
    }
    return true;
}

/* --- messages --- */

static bool can_request(const RdmaChannel *channel)
{
    return endpoint_can_send(channel->ep);
}

static bool send_request(RdmaChannel *channel, const WireRegister *request, GError **error)
{
    Endpoint *ep = channel->ep;
    size_t size =
        wire_register_encode(request, endpoint_body(ep), ep->limits.send_bytes - WIRE_HEADER_BYTES);

    return endpoint_send(ep, WIRE_REGISTER, 0, size, error);
}

static bool send_nop(RdmaChannel *channel, GError **error)
{
    return endpoint_send(channel->ep, WIRE_NOP, 0, 0, error);
}

static bool handle_message(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    WireResult results[REGISTRAR_BATCH];
    int awaited = registrar_awaited(channel);

    if (message->header.kind != WIRE_REGISTER_RESULT || awaited < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "%s: message of kind %u is not for the source, or nobody asked for it",
                    channel->ep->name, message->header.kind);
        return false;
    }
    if (!wire_results_decode(message->body, message->size, (unsigned)awaited, results, error)) {
        g_prefix_error(error, "%s: ", channel->ep->name);
        return false;
    }
    return registrar_result(channel, results, error);
}

static bool take_messages(RdmaChannel *channel, GError **error)
{
    Endpoint *ep = channel->ep;
    EndpointMessage message;
    bool taken = true;

    while (taken) {
        if (!endpoint_take(ep, &message, &taken, error) ||
            (taken &&
             (!handle_message(channel, &message, error) || !endpoint_done(ep, &message, error)))) {
            return false;
        }
    }
    return endpoint_ack_if_due(ep, error);
}

const ChannelDialect native_dialect = {
    .register_batch = REGISTRAR_BATCH,
    .requests_max = REGISTRAR_REQUESTS_MAX,
    .nop_is_message = true,
    .can_request = can_request,
    .send_request = send_request,
    .send_nop = send_nop,
    .take_messages = take_messages,
    .post_zero = post_zero,
    .flush_zero = flush_zero,
    .settle_zero = settle_zero,
};
