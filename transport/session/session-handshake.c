/* SPDX-License-Identifier: BSD-2-Clause */
/* session-handshake.c -- HELLO and its reply, before the control thread runs */

#include "session-handshake.h"

#include <string.h>

#include "session-answer.h"
#include "session-core.h"
#include "session-direct.h"
#include "session-late-ram.h"

/* A peer that is refused has so long to hear why. */
#define REFUSE_US (G_USEC_PER_SEC / 2)

static Direct session_direct(VmfSession *s, gint64 deadline)
{
    return (Direct){.ops = s->ops,
                    .conn = s->conn,
                    .cancel = s->core.cancel,
                    .cancel_fd = s->core.cancel_fd,
                    .deadline = deadline,
                    .what = s->role == VMF_ROLE_SOURCE
                                ? "greeting it (it may be busy with another source)"
                                : "greeting it"};
}

static bool peer_error(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                       GError **error)
{
    g_autofree char *text = message_error_text(payload, header->length);

    s->control.from_peer = true;
    g_set_error(error, VMF_ERROR,
                header->argument == VMF_ERROR_PROTOCOL ? VMF_ERROR_PROTOCOL : VMF_ERROR_REFUSED,
                "%s refused: %s", s->conn->peer, text);
    return false;
}

static bool wrong_greeting(VmfSession *s, unsigned type, unsigned wanted, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "%s instead of %s from %s",
                message_name(type), message_name(wanted), s->conn->peer);
    return false;
}

static bool send_hello(VmfSession *s, const Direct *d, unsigned type, unsigned channels,
                       GError **error)
{
    MessageHello hello = {
        .protocol = MESSAGE_PROTOCOL,
        .oldest = MESSAGE_PROTOCOL_OLDEST,
        .channels = channels,
        .timeout_ms = s->conn->timeout_ms,
        .flags = session_set_is_late(s) ? MESSAGE_HELLO_LATE_RAM : 0,
    };
    uint8_t bytes[MESSAGE_HELLO_MAX];

    memcpy(hello.uuid, s->conn->uuid, VMF_UUID_BYTES);
    hello.parameters_size = s->ops->get_parameters(s->conn, hello.parameters);
    return direct_send(d, type, 0, bytes, message_hello_encode(&hello, bytes), error);
}

/* If one side names its RAM late, the session begins without RAM on both. */
static bool agree_on_late_ram(VmfSession *s, const MessageHello *peer, GError **error)
{
    s->late_ram.on = session_set_is_late(s) || peer->flags & MESSAGE_HELLO_LATE_RAM;
    if (s->late_ram.on && peer->protocol < MESSAGE_PROTOCOL_LATE_RAM) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "this side names its RAM after it has connected, and %s speaks protocol %u, "
                    "which needs it before: use a newer vmferry there",
                    s->conn->peer, peer->protocol);
        return false;
    }
    return true;
}

static void use_timeout(VmfSession *s, uint32_t peer_ms)
{
    s->conn->timeout_ms = MIN(s->conn->timeout_ms, peer_ms);
    s->conn->heartbeat_ms = MAX(s->conn->timeout_ms / 4, 10);
}

static bool greet_as_source(VmfSession *s, const Direct *d, unsigned wanted, GError **error)
{
    const uint8_t *payload;
    MessageHeader header;
    MessageHello reply;

    if (!send_hello(s, d, MESSAGE_HELLO, wanted ? wanted : s->ops->default_channels(s->conn),
                    error) ||
        !direct_receive(d, VMF_ROLE_DESTINATION, &header, &payload, error)) {
        return false;
    }
    if (header.type == MESSAGE_ERROR) {
        return peer_error(s, &header, payload, error);
    }
    if (header.type != MESSAGE_HELLO_REPLY) {
        return wrong_greeting(s, header.type, MESSAGE_HELLO_REPLY, error);
    }
    if (!message_hello_decode(payload, header.length, &reply, error)) {
        return false;
    }
    if (memcmp(reply.uuid, s->conn->uuid, VMF_UUID_BYTES) != 0 || reply.channels == 0 ||
        reply.channels > s->ops->channels_max) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "%s answered for another session, or with %u channels", s->conn->peer,
                    reply.channels);
        return false;
    }
    s->conn->channels = reply.channels;
    use_timeout(s, reply.timeout_ms);
    return agree_on_late_ram(s, &reply, error) &&
           s->ops->peer_parameters(s->conn, reply.parameters, reply.parameters_size, error);
}

/* The first message, which may have been read ahead. */
static bool receive_first(VmfSession *s, const Direct *d, MessageHeader *header,
                          const uint8_t **payload, GError **error)
{
    const uint8_t *message;
    size_t size;

    if (!s->reach.first) {
        return direct_receive(d, VMF_ROLE_SOURCE, header, payload, error);
    }
    message = g_bytes_get_data(s->reach.first, &size);
    *payload = message + MESSAGE_HEADER_BYTES;
    return message_header_decode(message, size, VMF_ROLE_SOURCE, header, error);
}

static bool greet_as_destination(VmfSession *s, const Direct *d, bool limited, unsigned limit,
                                 GError **error)
{
    const uint8_t *payload;
    MessageHeader header;
    MessageHello hello;

    if (!receive_first(s, d, &header, &payload, error)) {
        return false;
    }
    if (header.type == MESSAGE_ERROR) {
        return peer_error(s, &header, payload, error);
    }
    if (header.type == MESSAGE_ASK && s->reach.listening) {
        listening_asked(s->reach.listening, d, &header, payload);
        s->control.from_peer = true; /* so that refuse() tells it nothing more */
        g_set_error(error, VMF_ERROR, VMF_ERROR_REFUSED, "%s only asked for an earlier session",
                    s->conn->peer);
        return false;
    }
    if (header.type != MESSAGE_HELLO) {
        return wrong_greeting(s, header.type, MESSAGE_HELLO, error);
    }
    if (!message_hello_decode(payload, header.length, &hello, error)) {
        return false;
    }
    memcpy(s->conn->uuid, hello.uuid, VMF_UUID_BYTES);
    s->conn->channels = CLAMP(hello.channels, 1, s->ops->channels_max);
    if (limited) { /* the destination's own option is an upper bound */
        s->conn->channels = MIN(s->conn->channels, limit);
    }
    use_timeout(s, hello.timeout_ms);
    return agree_on_late_ram(s, &hello, error) &&
           s->ops->peer_parameters(s->conn, hello.parameters, hello.parameters_size, error) &&
           send_hello(s, d, MESSAGE_HELLO_REPLY, s->conn->channels, error);
}

static void refuse(VmfSession *s, const GError *reason)
{
    const Direct d = session_direct(s, g_get_monotonic_time() + REFUSE_US);

    if (!s->control.from_peer && !g_error_matches(reason, VMF_ERROR, VMF_ERROR_PEER_LOST) &&
        !g_cancellable_is_cancelled(s->core.cancel)) {
        direct_send(&d, MESSAGE_ERROR, session_error_code(reason), reason->message,
                    MIN(strlen(reason->message), 1024), NULL);
    }
}

bool session_shake_hands(VmfSession *s, const VmfUri *uri, GError **error)
{
    const Direct d = session_direct(s, g_get_monotonic_time() + s->options.connect_timeout_us);
    unsigned channels = (unsigned)vmf_uri_get_uint(uri, "channels");
    bool given = vmf_uri_is_set(uri, "channels") && channels;
    GError *failure = NULL;

    if (s->role == VMF_ROLE_SOURCE ? greet_as_source(s, &d, channels, &failure)
                                   : greet_as_destination(s, &d, given, channels, &failure)) {
        return true;
    }
    session_need_error(&failure, "the greeting");
    refuse(s, failure);
    g_propagate_error(error, failure);
    return false;
}
