/* SPDX-License-Identifier: BSD-2-Clause */
/* listener.c -- listening: control connections, their channels, and strangers */

#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "nic.h"
#include "rdma.h"
#include "cm.h"
#include "nic-list.h"
#include "verbs-error.h"
#include "base/resolve.h"
#include "qemu-v1/v1.h"

/* Control connections under way or waiting to be accepted; more are rejected. */
#define WAITING_MAX 16

/* A control connection that asked to be let in. */
typedef struct Waiting {
    RdmaConn *conn;
    gint64 deadline;
    bool established;
    bool greeted; /* its first message is there */
} Waiting;

/* How soon after it was established a connection's first message is looked for again. */
#define GREETING_US (10 * G_TIME_SPAN_MILLISECOND)

typedef struct RdmaListener {
    RdmaOptions options;
    struct rdma_event_channel *events;
    struct rdma_cm_id *id;
    char *host;
    unsigned port;
    GPtrArray *waiting;
    Pinned *pinned; /* the RAM of the session that comes next */
    /* The device that `id' is bound to, or that `pinned' is on; NULL if neither. */
    Nic *nic;
    char *lost; /* why nothing can arrive any more */

    /* The connection whose channels are awaited, while they are. */
    RdmaConn *opening;
    unsigned opened;
} RdmaListener;

static RdmaListener *listener_of(VmfTransportListener *listener)
{
    return (RdmaListener *)listener;
}

static void waiting_free(void *opaque)
{
    Waiting *waiting = opaque;

    if (waiting->conn) {
        conn_close(&waiting->conn->base);
    }
    g_free(waiting);
}

/* --- listening --- */

static bool is_any(const struct sockaddr *address)
{
    return address->sa_family == AF_INET6
               ? IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr)
               : ((const struct sockaddr_in *)address)->sin_addr.s_addr == htonl(INADDR_ANY);
}

/* An address that is no device's can be bound to, but nothing ever comes there. */
static bool bind_address(struct rdma_cm_id *id, struct sockaddr *address)
{
    int reuse = 1;

    (void)rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &reuse, sizeof(reuse));
    if (CM_INT("rdma_bind_addr", rdma_bind_addr(id, address)) < 0) {
        return false;
    }
    if (!is_any(address) && !id->verbs) {
        errno = ENODEV;
        return false;
    }
    return true;
}

static bool new_id(RdmaListener *listener, GError **error)
{
    if (listener->id) {
        rdma_destroy_id(g_steal_pointer(&listener->id));
    }
    if (CM_INT("rdma_create_id",
               rdma_create_id(listener->events, &listener->id, NULL, RDMA_PS_TCP)) < 0) {
        listener->id = NULL;
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot create a listening id");
        return false;
    }
    return true;
}

static bool bind_to(RdmaListener *listener, const char *host, const char *port, GError **error)
{
    const ResolveQuery query = {
        .host = host,
        .port = port,
        .family = *host ? AF_UNSPEC : AF_INET6, /* which takes IPv4 as well */
        .deadline = g_get_monotonic_time() + (gint64)listener->options.connect_timeout_ms * 1000,
        .cancel_fd = -1,
    };
    g_autofree char *devices = NULL;
    struct addrinfo *list = resolve_host(&query, error);
    int failure = 0;

    if (!list) {
        return false;
    }
    for (struct addrinfo *at = list; at; at = at->ai_next) {
        if (!new_id(listener, error)) {
            freeaddrinfo(list);
            return false;
        }
        if (bind_address(listener->id, at->ai_addr)) {
            freeaddrinfo(list);
            return true;
        }
        failure = errno;
    }
    freeaddrinfo(list);
    if (failure != EADDRINUSE) {
        devices = nic_list();
    }
    verbs_set_error(error, VMF_ERROR_CONNECT, failure, "cannot listen on %s port %s by RDMA%s%s",
                    *host ? host : "any address", port, devices ? "; " : "",
                    devices ? devices : "");
    return false;
}

VmfTransportListener *listener_listen(const VmfUri *uri, GError **error)
{
    RdmaListener *listener = g_new0(RdmaListener, 1);

    listener->waiting = g_ptr_array_new_with_free_func(waiting_free);
    listener->host = g_strdup(vmf_uri_host(uri));
    if (!options_from_uri(uri, &listener->options, error)) {
        goto fail;
    }
    listener->events = VERBS_POINTER("rdma_create_event_channel", rdma_create_event_channel());
    if (!listener->events) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno,
                        "cannot open an RDMA connection-manager channel; is the rdma_ucm module "
                        "loaded and /dev/infiniband/rdma_cm accessible?");
        goto fail;
    }
    if (!cm_events_nonblocking(listener->events, error)) {
        goto fail;
    }
    if (!bind_to(listener, vmf_uri_host(uri), vmf_uri_port(uri), error)) {
        goto fail;
    }
    if (CM_INT("rdma_listen", rdma_listen(listener->id, 128)) < 0) {
        verbs_set_error(error, VMF_ERROR_CONNECT, errno, "cannot listen on port %s by RDMA",
                        vmf_uri_port(uri));
        goto fail;
    }
    listener->port = ntohs(rdma_get_src_port(listener->id));
    if (listener->id->verbs && !(listener->nic = nic_watch(listener->id, error))) {
        goto fail;
    }
    return (VmfTransportListener *)listener;
fail:
    listener_free((VmfTransportListener *)listener);
    return NULL;
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
    g_ptr_array_unref(listener->waiting);
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
    /* On any address: the device that a source will come by, if there is just one. */
    if (!listener->nic) {
        listener->nic = nic_watch_only_device();
    }
    if (listener->nic) {
        listener->pinned = pinned_start(nic_verbs(listener->nic), blocks,
                                        IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    }
}

/* --- the device --- */

/* It is let go at once, for its removal may wait for that. Always false. */
static bool device_lost(RdmaListener *listener, const char *why, GError **error)
{
    listener->lost =
        g_strdup_printf("%s: nothing can arrive at %s port %u any more; listen again when the "
                        "address is on an RDMA device",
                        why, listener->host, listener->port);
    g_ptr_array_set_size(listener->waiting, 0);
    let_device_go(listener);
    g_set_error_literal(error, VMF_ERROR, VMF_ERROR_DEVICE, listener->lost);
    return false;
}

/* Whether one can still listen. Connections on a device that is gone are dropped. */
static bool check_devices(RdmaListener *listener, GError **error)
{
    g_autoptr(GError) failure = NULL;

    if (listener->lost) {
        g_set_error_literal(error, VMF_ERROR, VMF_ERROR_DEVICE, listener->lost);
        return false;
    }
    for (unsigned i = listener->waiting->len; i-- > 0;) {
        Waiting *waiting = listener->waiting->pdata[i];

        if (!nic_check(waiting->conn->nic, NULL)) {
            g_ptr_array_remove_index(listener->waiting, i);
        }
    }
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

/* --- requests --- */

static void reject(struct rdma_cm_id *id, const char *why)
{
    uint8_t data[WIRE_REJECT_BYTES];

    (void)rdma_reject(id, data, why ? (uint8_t)wire_reject_encode(why, data) : 0);
}

static bool accept_id(struct rdma_cm_id *id, unsigned timeout_ms, const void *reply, size_t size,
                      GError **error)
{
    struct rdma_conn_param param;

    cm_parameters(&param, reply, size);
    cm_set_ack_timeout(id, timeout_ms);
    if (CM_INT("rdma_accept", rdma_accept(id, &param)) < 0) {
        verbs_set_error(error, VMF_ERROR_CONNECT, errno, "cannot accept an RDMA connection");
        return false;
    }
    return true;
}

/*
 * A control connection of vmferry's (`hello') or the one of a stock QEMU (NULL). Returns
 * whether the id was taken over; if not, *why (to be freed) is for the source to know.
 */
static bool control_request(RdmaListener *listener, struct rdma_cm_id *id, const WireHello *hello,
                            const V1Capabilities *capabilities, char **why)
{
    Waiting *waiting;
    g_autoptr(GError) error = NULL;
    uint8_t reply[WIRE_HELLO_BYTES];
    size_t reply_size = hello ? WIRE_HELLO_BYTES : V1_CAPABILITIES_BYTES;

    if (listener->waiting->len >= WAITING_MAX) {
        *why = g_strdup("busy: too many other sources wait for it already; try again later");
        return false;
    }
    waiting = g_new0(Waiting, 1);
    if (hello) {
        wire_hello_encode(hello, reply);
    } else {
        v1_reply(capabilities, reply);
    }
    waiting->deadline =
        g_get_monotonic_time() + (gint64)listener->options.connect_timeout_ms * 1000;
    waiting->conn = conn_new(&listener->options, VMF_ROLE_DESTINATION, &error);
    if (waiting->conn) {
        waiting->conn->control = hello ? conn_control_endpoint(waiting->conn, id, &error)
                                       : v1_accept(waiting->conn, id, capabilities, &error);
        waiting->conn->listener = listener;
    }
    if (!waiting->conn || !waiting->conn->control || !conn_own_id(waiting->conn, id, &error) ||
        !accept_id(id, listener->options.timeout_ms, reply, reply_size, &error)) {
        if (waiting->conn) {
            waiting->conn->id = NULL; /* the caller destroys it */
        }
        g_warning("rdma: a source was turned away: %s", error->message);
        *why =
            g_strdup(error->code == VMF_ERROR_MEMLOCK
                         ? "its memory-lock limit (ulimit -l) is too small for the message buffers"
                         : error->message);
        waiting_free(waiting);
        return false;
    }
    g_ptr_array_add(listener->waiting, waiting);
    return true;
}

/* Returns whether the id was taken over. A failure of ours ends the opening by *error. */
static bool channel_request(RdmaListener *listener, struct rdma_cm_id *id, const WireHello *hello,
                            GError **error)
{
    RdmaConn *conn = listener->opening;
    RdmaChannel *channel;

    if (!conn || memcmp(hello->uuid, conn->base.uuid, VMF_UUID_BYTES) ||
        hello->channel >= conn->base.channels || conn->channels[hello->channel]) {
        return false; /* a stranger's, or one too many */
    }
    channel = channel_new(conn, hello->channel, id, error);
    if (!channel) {
        return false;
    }
    if (!accept_id(id, conn->base.timeout_ms, NULL, 0, error)) {
        channel->id = NULL; /* the caller destroys it */
        channel_free(channel);
        return false;
    }
    conn->channels[hello->channel] = channel;
    return true;
}

/* A stock QEMU's second connection, from where the first came, before its stream begins. */
static bool is_return_path(const RdmaListener *listener, struct rdma_cm_id *id)
{
    const RdmaConn *opening = listener->opening;

    return opening && opening->v1 && !opening->channels[VMF_CHANNEL_BACK] &&
           nic_same_address(rdma_get_peer_addr(opening->id), rdma_get_peer_addr(id));
}

static bool return_path_request(RdmaListener *listener, struct rdma_cm_id *id,
                                const V1Capabilities *capabilities)
{
    RdmaConn *conn = listener->opening;
    g_autoptr(GError) error = NULL;
    uint8_t reply[V1_CAPABILITIES_BYTES];

    v1_reply(capabilities, reply);
    if (v1_accept_back(conn, id, &error)) {
        if (accept_id(id, conn->base.timeout_ms, reply, sizeof(reply), &error)) {
            return true;
        }
        conn->channels[VMF_CHANNEL_BACK]->id = NULL; /* the caller destroys it */
        channel_free(g_steal_pointer(&conn->channels[VMF_CHANNEL_BACK]));
    }
    g_warning("rdma: a return path was turned away: %s", error->message);
    return false;
}

static bool connect_request(RdmaListener *listener, struct rdma_cm_event *event, char **why,
                            GError **error)
{
    struct rdma_cm_id *id = event->id;
    const void *data = event->param.conn.private_data;
    const size_t size = event->param.conn.private_data_len;
    g_autoptr(GError) stranger = NULL;
    V1Capabilities capabilities;
    WireHello hello;

    if (wire_hello_decode(data, size, &hello, &stranger)) {
        return hello.kind == WIRE_KIND_CONTROL ? control_request(listener, id, &hello, NULL, why)
                                               : channel_request(listener, id, &hello, error);
    }
    if (!wire_hello_is(data, size) && v1_capabilities_decode(data, size, &capabilities, NULL)) {
        if (is_return_path(listener, id)) {
            return return_path_request(listener, id, &capabilities);
        }
        return control_request(listener, id, NULL, &capabilities, why);
    }
    g_debug("rdma: rejected a stranger: %s", stranger->message);
    return false;
}

static Waiting *waiting_of(RdmaListener *listener, const struct rdma_cm_id *id)
{
    for (unsigned i = 0; i < listener->waiting->len; i++) {
        Waiting *waiting = listener->waiting->pdata[i];
        if (waiting->conn->id == id) {
            return waiting;
        }
    }
    return NULL;
}

static void established(RdmaListener *listener, struct rdma_cm_id *id)
{
    Waiting *waiting = waiting_of(listener, id);

    if (waiting) {
        waiting->established = true;
        return;
    }
    for (unsigned i = 0; listener->opening && i < listener->opening->base.channels; i++) {
        RdmaChannel *channel = listener->opening->channels[i];
        if (channel && channel->id == id) {
            listener->opened++;
            return;
        }
    }
}

/* One event; an error only when the opening of channels must end. */
static bool handle_event(RdmaListener *listener, struct rdma_cm_event *event, GError **error)
{
    struct rdma_cm_id *id = event->id;
    enum rdma_cm_event_type type = event->event;
    GError *failure = NULL;
    g_autofree char *why = NULL;
    bool taken;

    if (type == RDMA_CM_EVENT_CONNECT_REQUEST) {
        taken = connect_request(listener, event, &why, &failure);
        rdma_ack_cm_event(event);
        if (!taken) {
            reject(id, failure ? failure->message : why);
            rdma_destroy_id(id);
        }
        if (failure) {
            g_propagate_error(error, failure);
            return false;
        }
        return true;
    }
    rdma_ack_cm_event(event);
    if (type == RDMA_CM_EVENT_ESTABLISHED) {
        established(listener, id);
        return true;
    }
    if (type == RDMA_CM_EVENT_DEVICE_REMOVAL && id == listener->id) {
        return device_lost(listener, "its RDMA device was removed", error);
    }
    if (waiting_of(listener, id)) { /* it left, or never finished */
        g_ptr_array_remove(listener->waiting, waiting_of(listener, id));
        return true;
    }
    for (unsigned i = 0; listener->opening && i < listener->opening->base.channels; i++) {
        RdmaChannel *channel = listener->opening->channels[i];
        if (channel && channel->id == id && type != RDMA_CM_EVENT_TIMEWAIT_EXIT) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST,
                        "channel %u of %s failed while it was opened", i,
                        listener->opening->base.peer);
            return false;
        }
    }
    return true;
}

/* --- accepting --- */

/*
 * A source greets at once, and who does not is not let in before those who do. (Stock QEMU
 * waits until it is spoken to.)
 */
static bool has_greeted(Waiting *waiting)
{
    if (waiting->established && !waiting->greeted) {
        waiting->greeted = waiting->conn->v1 || (endpoint_poll(waiting->conn->control, NULL) &&
                                                 waiting->conn->control->ready_count);
    }
    return waiting->greeted;
}

/* Drops who asked and then fell silent; returns when to look again. */
static gint64 drop_overdue(RdmaListener *listener)
{
    gint64 now = g_get_monotonic_time(), next = G_MAXINT64;

    for (unsigned i = 0; i < listener->waiting->len;) {
        Waiting *waiting = listener->waiting->pdata[i];

        if (!has_greeted(waiting) && waiting->deadline <= now) {
            g_ptr_array_remove_index(listener->waiting, i);
            continue;
        }
        if (!waiting->greeted) {
            next = MIN(next, waiting->established ? now + GREETING_US : waiting->deadline);
        }
        i++;
    }
    return next;
}

/* Of those that have greeted; its events are moved to itself. NULL if there is none. */
static RdmaConn *take_first(RdmaListener *listener, bool stock, GError **error)
{
    for (unsigned i = 0; i < listener->waiting->len; i++) {
        Waiting *waiting = listener->waiting->pdata[i];
        RdmaConn *conn = waiting->conn;

        if (stock != (conn->v1 != NULL) || !has_greeted(waiting)) {
            continue;
        }
        if (CM_INT("rdma_migrate_id", rdma_migrate_id(conn->id, conn->events)) < 0) {
            verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot move a connection's events");
            g_ptr_array_remove_index(listener->waiting, i);
            return NULL;
        }
        waiting->conn = NULL;
        g_free(g_ptr_array_steal_index(listener->waiting, i));
        return conn;
    }
    return NULL;
}

/* A stock QEMU has not said anything yet, so it comes behind those that have. */
static RdmaConn *take_greeted(RdmaListener *listener, GError **error)
{
    GError *failure = NULL;
    RdmaConn *conn = take_first(listener, false, &failure);

    if (!conn && !failure) {
        conn = take_first(listener, true, &failure);
    }
    if (failure) {
        g_propagate_error(error, failure);
    }
    return conn;
}

/* One event, or a time-out that is no error, at NIC_CHECK_MS if not before. */
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

VmfConn *listener_accept(VmfTransportListener *base, GCancellable *cancel, GError **error)
{
    RdmaListener *listener = listener_of(base);
    GPollFD cancel_fd = {.fd = -1};
    RdmaConn *conn = NULL;
    GError *failure = NULL;

    g_cancellable_make_pollfd(cancel, &cancel_fd);
    while (!failure && !(conn = take_greeted(listener, &failure)) && !failure) {
        gint64 deadline = drop_overdue(listener);
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
    return &conn->base;
}

int listener_fd(const RdmaListener *listener)
{
    return listener->events->fd;
}

bool listener_turn(RdmaConn *conn, GError **error)
{
    RdmaListener *listener = conn->listener;
    bool timed_out, ok;

    listener->opening = conn;
    ok = next_event(listener, g_get_monotonic_time(), conn->base.cancel_fd, &timed_out, error);
    listener->opening = NULL;
    return ok;
}

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

bool listener_await_channels(RdmaConn *conn, GError **error)
{
    RdmaListener *listener = conn->listener;
    gint64 deadline = g_get_monotonic_time() + (gint64)listener->options.connect_timeout_ms * 1000;
    bool timed_out, ok = true;

    if (conn->options.registration == RDMA_REGISTRATION_PIN_ALL && listener->pinned &&
        pinned_pd(listener->pinned)->context == conn->id->verbs) {
        conn->pinned = g_steal_pointer(&listener->pinned);
    }
    listener->opening = conn;
    listener->opened = 0;
    while (ok && listener->opened < conn->base.channels) {
        ok = nic_check(conn->nic, error) &&
             next_event(listener, deadline, conn->base.cancel_fd, &timed_out, error);
        if (ok && timed_out) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                        "only %u of %u channels arrived from %s within %.1f s", listener->opened,
                        conn->base.channels, conn->base.peer,
                        listener->options.connect_timeout_ms / 1000.0);
            ok = false;
        }
    }
    ok = ok && adopt_channels(conn, error);
    if (!ok) {
        /* None may stay with the listener's events, which outlive the connection. */
        for (unsigned i = 0; i < conn->base.channels; i++) {
            channel_free(g_steal_pointer(&conn->channels[i]));
        }
    }
    listener->opening = NULL;
    conn->listener = NULL;
    return ok;
}
