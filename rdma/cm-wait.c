/* SPDX-License-Identifier: BSD-2-Clause */
/* cm-wait.c -- waiting for events of rdma_cm with a deadline and a way out */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "base/fd-wait.h"
#include "rdma.h"

bool cm_events_nonblocking(struct rdma_event_channel *events, GError **error)
{
    int flags = fcntl(events->fd, F_GETFL);

    if (flags < 0 || fcntl(events->fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "cannot make the event channel non-blocking");
        return false;
    }
    return true;
}

struct rdma_cm_event *cm_next_event(struct rdma_event_channel *events, gint64 deadline,
                                    int cancel_fd, const char *what, GError **error)
{
    struct rdma_cm_event *event;

    for (;;) {
        if (CM_INT("rdma_get_cm_event", rdma_get_cm_event(events, &event)) == 0) {
            return event;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
            verbs_set_error(error, VMF_ERROR_IO, errno, "%s: cannot read connection events", what);
            return NULL;
        }
        if (!fd_wait(events->fd, POLLIN, cancel_fd, deadline, what, error)) {
            return NULL;
        }
    }
}

void cm_event_error(const struct rdma_cm_event *event, const char *what, GError **error)
{
    int code = VMF_ERROR_CONNECT;
    const char *hint = "";
    g_autofree char *reason = NULL, *devices = NULL;

    switch (event->event) {
    case RDMA_CM_EVENT_REJECTED:
        code = VMF_ERROR_REFUSED;
        reason =
            wire_reject_decode(event->param.conn.private_data, event->param.conn.private_data_len);
        if (reason) {
            g_set_error(error, VMF_ERROR, code, "%s: the destination refused: %s", what, reason);
            return;
        }
        hint = "; does a destination listen on that port?";
        break;
    case RDMA_CM_EVENT_ADDR_ERROR:
        devices = nic_list();
        hint = "; no RDMA device has a route to that address; ";
        break;
    case RDMA_CM_EVENT_UNREACHABLE:
        hint = "; the host does not answer";
        break;
    default:
        break;
    }
    g_set_error(error, VMF_ERROR, code, "%s: %s%s%s%s%s", what, rdma_event_str(event->event),
                event->status < 0 ? ": " : "", event->status < 0 ? g_strerror(-event->status) : "",
                hint, devices ? devices : "");
}
