/* SPDX-License-Identifier: BSD-2-Clause */
/* control.c -- the control connection: messages by send and receive, events of the connection */

#include "control.h"

#include <errno.h>
#include <string.h>

#include "rdma-conn.h"
#include "verbs/endpoint-messages.h"
#include "verbs/verbs-error.h"

/* How long the reason for a closed channel may take to arrive. */
#define REASON_MS 300

/* A dead control queue pair means that the peer is gone, in whatever way. Sets the error. */
static VmfControlResult lost(RdmaConn *conn, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "the RDMA connection to %s was lost",
                conn->base.peer);
    nic_explain(conn->id, error);
    return VMF_CONTROL_ERROR;
}

VmfControlResult control_send(VmfConn *base, const struct iovec *iov, unsigned iovcnt,
                              GError **error)
{
    RdmaConn *conn = conn_of(base);
    Endpoint *ep = conn->control;
    uint8_t *body;
    size_t size = 0;

    if (!endpoint_poll(ep, error)) {
        return VMF_CONTROL_ERROR;
    }
    if (ep->flushed) {
        return lost(conn, error);
    }
    if (!endpoint_can_send(ep)) {
        return VMF_CONTROL_AGAIN;
    }
    body = endpoint_body(ep);
    for (unsigned i = 0; i < iovcnt; i++) {
        g_assert(size + iov[i].iov_len <= base->control_max);
        memcpy(body + size, iov[i].iov_base, iov[i].iov_len);
        size += iov[i].iov_len;
    }
    return endpoint_send(ep, WIRE_ENGINE, 0, size, error) ? VMF_CONTROL_DONE : VMF_CONTROL_ERROR;
}

VmfControlResult control_receive(VmfConn *base, const uint8_t **message, size_t *size,
                                 GError **error)
{
    RdmaConn *conn = conn_of(base);
    Endpoint *ep = conn->control;
    bool taken;

    if (conn->control_message_out) {
        conn->control_message_out = false;
        if (!endpoint_done(ep, &conn->control_message, error)) {
            return VMF_CONTROL_ERROR;
        }
    }
    if (!endpoint_poll(ep, error) || !endpoint_take(ep, &conn->control_message, &taken, error) ||
        (!ep->flushed && !endpoint_ack_if_due(ep, error))) {
        return VMF_CONTROL_ERROR;
    }
    if (!taken) {
        return ep->flushed ? lost(conn, error) : VMF_CONTROL_AGAIN;
    }
    if (conn->control_message.header.kind != WIRE_ENGINE) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "%s: message of kind %u does not belong there", ep->name,
                    conn->control_message.header.kind);
        return VMF_CONTROL_ERROR;
    }
    conn->control_message_out = true;
    __atomic_store_n(&conn->heard_at, g_get_monotonic_time(), __ATOMIC_RELAXED);
    *message = conn->control_message.body;
    *size = conn->control_message.size;
    return VMF_CONTROL_DONE;
}

/* --- events --- */

/* Whether the end of a channel is expected: its work is over. */
static bool channels_over(RdmaConn *conn)
{
    return g_atomic_int_get(&conn->base.channels_done) || g_atomic_int_get(&conn->revoked);
}

static bool connection_event(RdmaConn *conn, const struct rdma_cm_event *event, GError **error)
{
    switch (event->event) {
    case RDMA_CM_EVENT_DISCONNECTED:
        if (event->id != conn->id && channels_over(conn)) {
            return true;
        }
        if (event->id == conn->id) {
            /*
             * Takes this side's queue pair down as well. Messages that the peer sent before it left
             * are still read. After them, the flushed receives tell the end.
             */
            rdma_disconnect(conn->id);
            return true;
        }
        if (!conn->channel_closed_at) {
            conn->channel_closed_at = g_get_monotonic_time();
        }
        return true;
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE,
                    "the RDMA device %s was removed while the connection to %s was up",
                    ibv_get_device_name(conn->id->verbs->device), conn->base.peer);
        return false;
    default:
        return true; /* TIMEWAIT_EXIT, ADDR_CHANGE and late events change nothing here */
    }
}

static bool take_connection_events(RdmaConn *conn, GError **error)
{
    struct rdma_cm_event *event;

    while (rdma_get_cm_event(conn->events, &event) == 0) {
        bool ok = connection_event(conn, event, error);

        rdma_ack_cm_event(event);
        if (!ok) {
            return false;
        }
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "cannot read connection events");
        return false;
    }
    return true;
}

/*
 * False with *error once a channel was closed and no reason has come. The reason comes by the
 * control connection, and may come after the event.
 */
static bool check_closed_channel(RdmaConn *conn, GError **error)
{
    const gint64 now = g_get_monotonic_time();

    if (!conn->channel_closed_at || channels_over(conn) ||
        now - conn->channel_closed_at < REASON_MS * G_TIME_SPAN_MILLISECOND) {
        return true;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "%s closed a channel", conn->base.peer);
    nic_explain(conn->id, error);
    return false;
}

bool control_wait(VmfConn *base, int wake_fd, bool want_send, int timeout_ms, GError **error)
{
    RdmaConn *conn = conn_of(base);
    const EndpointWakers wakers = {
        .cancel = -1, .wake = wake_fd, .events = conn->events->fd, .listener = -1};
    unsigned woke;

    /*
     * Room to send comes by a completion or an acknowledgement. Both end the sleep, so `want_send'
     * adds nothing. A message that was taken and not given back yet does not matter either.
     */
    (void)want_send;
    if (conn->control->flushed || conn->control->ready_count) {
        timeout_ms = 0;
    } else if (timeout_ms < 0 || timeout_ms > NIC_CHECK_MS) {
        timeout_ms = NIC_CHECK_MS;
    }
    if (conn->channel_closed_at && !channels_over(conn)) {
        timeout_ms = MIN(timeout_ms, REASON_MS);
    }
    if (!endpoint_sleep(conn->control, &wakers, timeout_ms, 0, &woke, error)) {
        return false;
    }
    return (!(woke & ENDPOINT_WOKE_EVENTS) || take_connection_events(conn, error)) &&
           check_closed_channel(conn, error) && nic_check(conn->nic, error);
}
