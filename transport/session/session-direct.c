/* SPDX-License-Identifier: BSD-2-Clause */
/* session-direct.c -- messages over a control connection before the control thread has it */

#include "session-direct.h"

#include "registry/registry.h"

static bool wait_direct(const Direct *d, bool want_send, GError **error)
{
    gint64 left = d->deadline - g_get_monotonic_time();

    if (g_cancellable_is_cancelled(d->cancel)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "cancelled while %s", d->what);
        return false;
    }
    if (left <= 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT, "%s did not answer in time while %s",
                    d->conn->peer, d->what);
        return false;
    }
    return d->ops->control_wait(d->conn, d->cancel_fd, want_send, (int)MIN(left / 1000, 60000) + 1,
                                error);
}

bool direct_send(const Direct *d, unsigned type, uint64_t argument, const void *payload,
                 size_t size, GError **error)
{
    const MessageHeader header = {.length = (uint32_t)size, .type = type, .argument = argument};
    uint8_t bytes[MESSAGE_HEADER_BYTES];
    const struct iovec iov[] = {{.iov_base = bytes, .iov_len = sizeof(bytes)},
                                {.iov_base = (void *)payload, .iov_len = size}};

    message_header_encode(&header, bytes);
    for (;;) {
        switch (d->ops->control_send(d->conn, iov, size ? 2 : 1, error)) {
        case VMF_CONTROL_DONE:
            return true;
        case VMF_CONTROL_AGAIN:
            if (!wait_direct(d, true, error)) {
                return false;
            }
            break;
        default:
            return false;
        }
    }
}

bool direct_receive(const Direct *d, VmfRole sender, MessageHeader *header, const uint8_t **payload,
                    GError **error)
{
    const uint8_t *message;
    size_t size;

    for (;;) {
        switch (d->ops->control_receive(d->conn, &message, &size, error)) {
        case VMF_CONTROL_DONE:
            *payload = message + MESSAGE_HEADER_BYTES;
            return message_header_decode(message, size, sender, header, error);
        case VMF_CONTROL_AGAIN:
            if (!wait_direct(d, false, error)) {
                return false;
            }
            break;
        case VMF_CONTROL_EOF:
            g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "%s closed the connection while %s",
                        d->conn->peer, d->what);
            return false;
        default:
            return false;
        }
    }
}

VmfConn *direct_usable(VmfConn *conn, const VmfTransport *ops, GError **error)
{
    if (conn && !registry_check_connection(conn, ops, error)) {
        ops->close(conn);
        return NULL;
    }
    return conn;
}
