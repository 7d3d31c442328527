/* SPDX-License-Identifier: BSD-2-Clause */
/* listener.c -- destination: listening, and the loop that lets connections and channels in */

#include "listener.h"

#include <errno.h>
#include <string.h>

#include "arrivals.h"
#include "verbs/cm.h"
#include "data-channel.h"
#include "listen-address.h"
#include "verbs/verbs-error.h"

typedef struct RdmaListener {
    RdmaOptions options;
    struct rdma_event_channel *events;
    struct rdma_cm_id *id;
    char *host;
    unsigned port;
    Arrivals arrivals;
    Pinned *pinned; /* RAM that is pinned for the next session; or NULL */
    /* The device that `id' is bound to, or that `pinned' is on. NULL if there is neither. */
    Nic *nic;
    char *lost; /* why nothing can arrive any more; or NULL */
} RdmaListener;

static RdmaListener *listener_of(VmfTransportListener *listener)
{
    return (RdmaListener *)listener;
}

/* --- listening --- */

static bool make_events(RdmaListener *listener, GError **error)
{
    listener->events = VERBS_POINTER("rdma_create_event_channel", rdma_create_event_channel());
    if (!listener->events) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno,
                        "cannot open an RDMA connection-manager channel; is the rdma_ucm module "
                        "loaded and /dev/infiniband/rdma_cm accessible?");
        return false;
    }
    return cm_events_nonblocking(listener->events, error);
}

static bool start(RdmaListener *listener, const VmfUri *uri, GError **error)
{
    if (!options_from_uri(uri, &listener->options, error) || !make_events(listener, error)) {
        return false;
    }
    listener->id = listen_on(listener->events, uri, listener->options.connect_timeout_ms, error);
    if (!listener->id) {
        return false;
    }
    listener->port = ntohs(rdma_get_src_port(listener->id));
    return !listener->id->verbs || (listener->nic = nic_watch(listener->id, error));
}

VmfTransportListener *listener_listen(const VmfUri *uri, GError **error)
{
    RdmaListener *listener = g_new0(RdmaListener, 1);

    arrivals_init(&listener->arrivals, &listener->options);
    listener->host = g_strdup(vmf_uri_host(uri));
    if (!start(listener, uri, error)) {
        listener_free((VmfTransportListener *)listener);
        return NULL;
    }
    return (VmfTransportListener *)listener;
}

char *listener_address(VmfTransportListener *base)
{
    RdmaListener *listener = listener_of(base);
    bool v6 = strchr(listener->host, ':') != NULL;

    return g_strdup_printf("rdma:%s%s%s:%u", v6 ? "[" : "", listener->host, v6 ? "]" : "",
                           listener->port);
}

static void let_device_go(RdmaListener *listener)
{
    g_clear_pointer(&listener->pinned, pinned_free);
    if (listener->id) {
        rdma_destroy_id(g_steal_pointer(&listener->id));
    }
    g_clear_pointer(&listener->nic, nic_unwatch);
}

void listener_free(VmfTransportListener *base)
{
    RdmaListener *listener = listener_of(base);

    if (!listener) {
        return;
    }
    arrivals_clear(&listener->arrivals);
    let_device_go(listener);
    if (listener->events) {
        rdma_destroy_event_channel(listener->events);
    }
    g_free(listener->host);
    g_free(listener->lost);
    g_free(listener);
}

void listener_ram(VmfTransportListener *base, VmfRamBlocks *blocks)
{
    RdmaListener *listener = listener_of(base);

    g_clear_pointer(&listener->pinned, pinned_free);
    if (!listener->id) { /* the device is gone: accept says so */
        return;
    }
    if (!listener->id->verbs) {
        g_clear_pointer(&listener->nic, nic_unwatch);
    }
    if (!blocks || listener->options.registration != RDMA_REGISTRATION_PIN_ALL) {
        return;
    }
    /* If the listener is on any address, RAM is pinned on the only device, if there is just one. */
    if (!listener->nic) {
        listener->nic = nic_watch_only_device();
    }
    if (listener->nic) {
        listener->pinned = pinned_start(nic_verbs(listener->nic), blocks,
                                        IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    }
}

/* --- the device --- */

/* Lets the device go at once, because its removal may wait for that. Always false. */
static bool device_lost(RdmaListener *listener, const char *why, GError **error)
{
    listener->lost =
        g_strdup_printf("%s: nothing can arrive at %s port %u any more; listen again when the "
                        "address is on an RDMA device",
                        why, listener->host, listener->port);
    arrivals_drop_all(&listener->arrivals);
    let_device_go(listener);
    g_set_error_literal(error, VMF_ERROR, VMF_ERROR_DEVICE, listener->lost);
    return false;
}

/* Whether the listener can still listen. Drops waiting connections whose device is gone. */
static bool check_devices(RdmaListener *listener, GError **error)
{
    g_autoptr(GError) failure = NULL;

    if (listener->lost) {
        g_set_error_literal(error, VMF_ERROR, VMF_ERROR_DEVICE, listener->lost);
        return false;
    }
    arrivals_drop_lost(&listener->arrivals);
    if (!listener->nic || nic_check(listener->nic, &failure)) {
        return true;
    }
    if (listener->id->verbs) {
        return device_lost(listener, failure->message, error);
    }
    g_warning("rdma: %s: RAM is no longer pinned ahead; listening goes on", failure->message);
    g_clear_pointer(&listener->pinned, pinned_free);
    g_clear_pointer(&listener->nic, nic_unwatch);
    return true;
}

/* --- accepting --- */

/* False with *error only when the opening of channels, or all listening, must end. */
static bool handle_event(RdmaListener *listener, struct rdma_cm_event *event, GError **error)
{
    if (event->event == RDMA_CM_EVENT_DEVICE_REMOVAL && event->id == listener->id) {
        rdma_ack_cm_event(event);
        return device_lost(listener, "its RDMA device was removed", error);
    }
    return arrivals_take(&listener->arrivals, event, error);
}

/*
 * Handles one event, or sleeps until `deadline', for NIC_CHECK_MS at most. A time-out is no error.
 */
static bool next_event(RdmaListener *listener, gint64 deadline, int cancel_fd, bool *timed_out,
                       GError **error)
{
    const gint64 check_at = g_get_monotonic_time() + NIC_CHECK_MS * G_TIME_SPAN_MILLISECOND;
    g_autoptr(GError) failure = NULL;
    struct rdma_cm_event *event;

    *timed_out = false;
    if (!check_devices(listener, error)) {
        return false;
    }
    event = cm_next_event(listener->events, MIN(deadline, check_at), cancel_fd,
                          "waiting for a connection", &failure);
    if (event) {
        return handle_event(listener, event, error);
    }
    if (g_error_matches(failure, VMF_ERROR, VMF_ERROR_TIMEOUT)) {
        *timed_out = g_get_monotonic_time() >= deadline;
        return true;
    }
    g_propagate_error(error, g_steal_pointer(&failure));
    return false;
}

/* See RdmaConn.listener_turn. */
static bool take_turn(RdmaConn *conn, GError **error)
{
    RdmaListener *listener = conn->listener;
    bool timed_out, ok;

    listener->arrivals.opening = conn;
    ok = next_event(listener, g_get_monotonic_time(), conn->base.cancel_fd, &timed_out, error);
    listener->arrivals.opening = NULL;
    return ok;
}

VmfConn *listener_accept(VmfTransportListener *base, GCancellable *cancel, GError **error)
{
    RdmaListener *listener = listener_of(base);
    GPollFD cancel_fd = {.fd = -1};
    RdmaConn *conn = NULL;
    GError *failure = NULL;

    g_cancellable_make_pollfd(cancel, &cancel_fd);
    while (!failure && !(conn = arrivals_take_greeted(&listener->arrivals, &failure)) && !failure) {
        gint64 deadline = arrivals_drop_overdue(&listener->arrivals);
        bool timed_out;

        next_event(listener, deadline, cancel_fd.fd, &timed_out, &failure);
    }
    if (cancel_fd.fd >= 0) {
        g_cancellable_release_fd(cancel);
    }
    if (failure) {
        g_propagate_error(error, failure);
        return NULL;
    }
    conn->listener = listener;
    conn->listener_fd = listener->events->fd;
    conn->listener_turn = take_turn;
    return &conn->base;
}

/* --- channels --- */

static bool adopt_channels(RdmaConn *conn, GError **error)
{
    for (unsigned i = 0; i < conn->base.channels; i++) {
        if (CM_INT("rdma_migrate_id", rdma_migrate_id(conn->channels[i]->id, conn->events)) < 0) {
            verbs_set_error(error, VMF_ERROR_DEVICE, errno, "channel %u: cannot move its events",
                            i);
            return false;
        }
    }
    return true;
}

static bool await_all(RdmaListener *listener, RdmaConn *conn, GError **error)
{
    const gint64 deadline =
        g_get_monotonic_time() + (gint64)listener->options.connect_timeout_ms * 1000;
    const unsigned *opened = &listener->arrivals.opened;
    bool timed_out;

    while (*opened < conn->base.channels) {
        if (!nic_check(conn->nic, error) ||
            !next_event(listener, deadline, conn->base.cancel_fd, &timed_out, error)) {
            return false;
        }
        if (timed_out) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                        "only %u of %u channels arrived from %s within %.1f s", *opened,
                        conn->base.channels, conn->base.peer,
                        listener->options.connect_timeout_ms / 1000.0);
            return false;
        }
    }
    return adopt_channels(conn, error);
}

bool listener_await_channels(VmfConn *base, GError **error)
{
    RdmaConn *conn = conn_of(base);
    RdmaListener *listener = conn->listener;
    bool ok;

    base->counters = g_new0(VmfChannelCounters, base->channels);
    if (conn->options.registration == RDMA_REGISTRATION_PIN_ALL && listener->pinned &&
        pinned_pd(listener->pinned)->context == conn->id->verbs) {
        conn->pinned = g_steal_pointer(&listener->pinned);
    }
    listener->arrivals.opening = conn;
    listener->arrivals.opened = 0;
    ok = await_all(listener, conn, error);
    if (!ok) {
        /* No channel may stay with the events of the listener, which outlive the connection. */
        for (unsigned i = 0; i < base->channels; i++) {
            channel_free(g_steal_pointer(&conn->channels[i]));
        }
    }
    listener->arrivals.opening = NULL;
    conn->listener = NULL;
    conn->listener_fd = -1;
    return ok;
}
