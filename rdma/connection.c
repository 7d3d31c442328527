/* SPDX-License-Identifier: BSD-2-Clause */
/* connection.c -- making and ending a connection and its channels */

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cm.h"
#include "nic-list.h"
#include "rdma.h"
#include "verbs-error.h"
#include "base/resolve.h"
#include "qemu-v1/v1.h"
#include "zero-ranges.h"

RdmaConn *conn_new(const RdmaOptions *options, VmfRole role, GError **error)
{
    RdmaConn *conn = g_new0(RdmaConn, 1);

    conn->base.size = sizeof(VmfConn);
    conn->base.role = role;
    conn->options = *options;
    conn->base.control_max = CONTROL_MESSAGE_MAX;
    conn->revoke_fd = -1;
    g_mutex_init(&conn->setup_lock);
    g_cond_init(&conn->setup_cond);
    conn->addresses = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    conn->rkeys = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    conn->events = VERBS_POINTER("rdma_create_event_channel", rdma_create_event_channel());
    if (!conn->events) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno,
                        "cannot open an RDMA connection-manager channel; is the rdma_ucm module "
                        "loaded and /dev/infiniband/rdma_cm accessible?");
        conn_close(&conn->base);
        return NULL;
    }
    conn->revoke_fd = VMF_FAULT("eventfd") ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (conn->revoke_fd < 0) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "cannot create an event descriptor");
        conn_close(&conn->base);
        return NULL;
    }
    if (!cm_events_nonblocking(conn->events, error)) {
        conn_close(&conn->base);
        return NULL;
    }
    return conn;
}

static void destroy_id(struct rdma_cm_id *id)
{
    if (id) {
        rdma_destroy_id(id);
    }
}

/* The peer hears of it by the connection's end. A second call changes nothing. */
static void take_down(RdmaChannel *channel)
{
    if (channel && channel->id && channel->ep && !channel->ep->quiet_at) {
        rdma_disconnect(channel->id);
        endpoint_take_down(channel->ep);
    }
}

/* The ids' events are acknowledged one by one, so destroying an id never waits. */
void conn_close(VmfConn *base)
{
    RdmaConn *conn = conn_of(base);

    for (unsigned i = 0; i < VMF_CHANNELS_MAX; i++) {
        take_down(conn->channels[i]);
    }
    for (unsigned i = 0; i < VMF_CHANNELS_MAX; i++) {
        channel_free(g_steal_pointer(&conn->channels[i]));
    }
    discards_clear(&conn->discards);
    chunks_clear(&conn->chunks);
    if (conn->stripes) {
        chunks_clear(conn->stripes);
        g_free(conn->stripes);
    }
    if (conn->device_mr) {
        ibv_dereg_mr(conn->device_mr);
    }
    pinned_free(conn->pinned);
    for (unsigned i = 0; conn->zero_marks && i < base->block_count; i++) {
        g_free(conn->zero_marks[i]);
    }
    g_free(conn->zero_marks);
    if (conn->id && conn->control) {
        rdma_disconnect(conn->id);
    }
    v1_free(conn->v1);
    endpoint_free(conn->control);
    destroy_id(conn->id);
    if (conn->data_pd) {
        ibv_dealloc_pd(conn->data_pd);
    }
    if (conn->pd) {
        ibv_dealloc_pd(conn->pd);
    }
    if (conn->events) {
        rdma_destroy_event_channel(conn->events);
    }
    nic_unwatch(conn->nic);
    if (conn->revoke_fd >= 0) {
        close(conn->revoke_fd);
    }
    g_array_unref(conn->addresses);
    g_array_unref(conn->rkeys);
    g_mutex_clear(&conn->setup_lock);
    g_cond_clear(&conn->setup_cond);
    g_free(base->counters);
    g_free(base->peer);
    g_free(conn);
}

/* --- pieces that both sides use --- */

bool conn_own_id(RdmaConn *conn, struct rdma_cm_id *id, GError **error)
{
    conn->nic = nic_watch(id, error);
    if (!conn->nic) {
        return false;
    }
    conn->id = id;
    conn->base.peer = cm_peer_name(id);
    conn->base.own_bytes += endpoint_own_bytes(conn->control);
    return true;
}

/* One of the protection domains, made if there is none yet; NULL with *error. */
static struct ibv_pd *need_pd(const RdmaConn *conn, struct ibv_pd **pd, struct rdma_cm_id *id,
                              GError **error)
{
    const struct ibv_pd *known = *pd ? *pd : conn->pd;

    if (known && known->context != id->verbs) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "a channel arrived on device %s, the control connection is on %s",
                    ibv_get_device_name(id->verbs->device),
                    ibv_get_device_name(known->context->device));
        return NULL;
    }
    if (*pd) {
        return *pd;
    }
    *pd = VERBS_POINTER("ibv_alloc_pd", ibv_alloc_pd(id->verbs));
    if (!*pd) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot allocate a protection domain on %s",
                        ibv_get_device_name(id->verbs->device));
    }
    return *pd;
}

/* The one that guest RAM is registered in, for a queue pair on `id'. */
static struct ibv_pd *need_data_pd(RdmaConn *conn, struct rdma_cm_id *id, GError **error)
{
    struct ibv_pd *ahead = conn->pinned ? pinned_pd(conn->pinned) : NULL;

    return need_pd(conn, ahead ? &ahead : &conn->data_pd, id, error);
}

Endpoint *conn_endpoint(RdmaConn *conn, struct rdma_cm_id *id, bool data,
                        const EndpointLimits *limits, const char *name, GError **error)
{
    struct ibv_pd *pd;

    if (!id->verbs) {
        g_autofree char *devices = nic_list();

        g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE,
                    "no RDMA device of this host belongs to that address; %s", devices);
        return NULL;
    }
    pd = data ? need_data_pd(conn, id, error) : need_pd(conn, &conn->pd, id, error);
    return pd ? endpoint_new(id, pd, limits, name, error) : NULL;
}

Endpoint *conn_control_endpoint(RdmaConn *conn, struct rdma_cm_id *id, GError **error)
{
    const EndpointLimits limits = {
        .send_bytes = CONTROL_MESSAGE_MAX + WIRE_HEADER_BYTES,
        .receive_bytes = CONTROL_MESSAGE_MAX + WIRE_HEADER_BYTES,
        /* Stock QEMU, if that is what answers, gets everything over this one. */
        .writes = conn->base.role == VMF_ROLE_SOURCE ? WRITER_QUEUE : 0,
    };

    return conn_endpoint(conn, id, false, &limits, "control connection", error);
}

RdmaChannel *channel_new(RdmaConn *conn, unsigned number, struct rdma_cm_id *id, GError **error)
{
    bool source = conn->base.role == VMF_ROLE_SOURCE;
    size_t slot = channel_slot_bytes(conn->base.channels);
    const EndpointLimits limits = {
        .send_bytes = source ? slot : CHANNEL_REPLY_BYTES,
        .receive_bytes = source ? CHANNEL_REPLY_BYTES : slot,
        .writes = source ? WRITER_QUEUE : 0,
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
    channel->id = id; /* owned from here on */
    if (source) {
        writer_init(channel);
    }
    conn->base.own_bytes += endpoint_own_bytes(channel->ep) + sizeof(*channel);
    return channel;
}

void channel_free(RdmaChannel *channel)
{
    if (!channel) {
        return;
    }
    take_down(channel);
    writer_clear(channel);
    endpoint_free(channel->ep);
    piece_clear(channel);
    zero_ranges_clear(channel);
    destroy_id(channel->id);
    g_free(channel);
}

/* --- connecting --- */

typedef struct Connecting {
    struct rdma_event_channel *events;
    gint64 deadline;
    int cancel_fd;
    char *what; /* "cannot connect to ADDRESS" */
} Connecting;

/* `reply' (or NULL) is given the private data of the event, as much as there is of it. */
static bool expect_event(const Connecting *c, enum rdma_cm_event_type wanted,
                         uint8_t reply[WIRE_HELLO_BYTES], GError **error)
{
    struct rdma_cm_event *event =
        cm_next_event(c->events, c->deadline, c->cancel_fd, c->what, error);
    bool ok;

    if (!event) {
        return false;
    }
    ok = event->event == wanted;
    if (!ok) {
        cm_event_error(event, c->what, error);
    } else if (reply && event->param.conn.private_data) {
        memcpy(reply, event->param.conn.private_data,
               MIN(event->param.conn.private_data_len, WIRE_HELLO_BYTES));
    }
    rdma_ack_cm_event(event);
    return ok;
}

static int left_ms(const Connecting *c)
{
    const gint64 left = (c->deadline - g_get_monotonic_time()) / 1000;

    return (int)CLAMP(left, 1, 60000);
}

/* Neither for a wrong address nor for a device that is closed to us rdma_cm has its own error. */
static void no_device(const Connecting *c, int err, GError **error)
{
    g_autofree char *devices = nic_list();

    verbs_set_error(error, VMF_ERROR_CONNECT, err, "%s: no RDMA device reaches that address; %s",
                    c->what, devices);
}

static struct rdma_cm_id *resolve(const Connecting *c, struct sockaddr *address, GError **error)
{
    struct rdma_cm_id *id = NULL;

    if (CM_INT("rdma_create_id", rdma_create_id(c->events, &id, NULL, RDMA_PS_TCP)) < 0) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "%s: cannot create a connection id",
                        c->what);
        return NULL;
    }
    if (CM_INT("rdma_resolve_addr", rdma_resolve_addr(id, NULL, address, left_ms(c))) < 0) {
        no_device(c, errno, error);
    } else if (expect_event(c, RDMA_CM_EVENT_ADDR_RESOLVED, NULL, error)) {
        if (CM_INT("rdma_resolve_route", rdma_resolve_route(id, left_ms(c))) < 0) {
            no_device(c, errno, error);
        } else if (expect_event(c, RDMA_CM_EVENT_ROUTE_RESOLVED, NULL, error)) {
            return id;
        }
    }
    rdma_destroy_id(id);
    return NULL;
}

static bool establish_with(const Connecting *c, struct rdma_cm_id *id, const void *data,
                           size_t size, unsigned timeout_ms, uint8_t reply[WIRE_HELLO_BYTES],
                           GError **error)
{
    struct rdma_conn_param param;

    cm_parameters(&param, data, size);
    cm_set_ack_timeout(id, timeout_ms);
    if (CM_INT("rdma_connect", rdma_connect(id, &param)) < 0) {
        verbs_set_error(error, VMF_ERROR_CONNECT, errno, "%s", c->what);
        return false;
    }
    return expect_event(c, RDMA_CM_EVENT_ESTABLISHED, reply, error);
}

static bool establish(const Connecting *c, struct rdma_cm_id *id, const WireHello *hello,
                      unsigned timeout_ms, uint8_t reply[WIRE_HELLO_BYTES], GError **error)
{
    uint8_t data[WIRE_HELLO_BYTES];

    wire_hello_encode(hello, data);
    return establish_with(c, id, data, sizeof(data), timeout_ms, reply, error);
}

/* Who answered: vmferry sends the greeting back, stock QEMU its version and flags. */
static bool recognise_peer(RdmaConn *conn, const WireHello *hello, const uint8_t *reply,
                           const char *what, GError **error)
{
    V1Capabilities capabilities;
    WireHello back;

    if (wire_hello_is(reply, WIRE_HELLO_BYTES)) { /* so it is no stock QEMU */
        if (!wire_hello_decode(reply, WIRE_HELLO_BYTES, &back, error)) {
            g_prefix_error(error, "%s: ", what);
            return false;
        }
        if (memcmp(back.uuid, hello->uuid, VMF_UUID_BYTES) != 0) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                        "%s: the answer is for another session", what);
            return false;
        }
        return true;
    }
    if (!v1_capabilities_decode(reply, V1_CAPABILITIES_BYTES, &capabilities, error) ||
        !v1_connected(conn, &capabilities, error)) {
        g_prefix_error(error, "%s: ", what);
        return false;
    }
    return true;
}

static bool connect_control(RdmaConn *conn, struct sockaddr *address, const uint8_t *uuid,
                            const Connecting *c, GError **error)
{
    WireHello hello = {
        .kind = WIRE_KIND_CONTROL,
        .pin_all = conn->options.registration == RDMA_REGISTRATION_PIN_ALL,
    };
    struct rdma_cm_id *id = resolve(c, address, error);
    const RdmaRegistration registration = conn->options.registration;
    uint8_t reply[WIRE_HELLO_BYTES] = {0};

    if (!id) {
        return false;
    }
    memcpy(hello.uuid, uuid, VMF_UUID_BYTES);
    conn->control = conn_control_endpoint(conn, id, error);
    if (conn->control && establish(c, id, &hello, conn->options.timeout_ms, reply, error) &&
        recognise_peer(conn, &hello, reply, c->what, error) && conn_own_id(conn, id, error)) {
        return true;
    }
    /* The next address may be another device's, and another peer's. The id goes last: it holds the
     * device's context. */
    endpoint_free(g_steal_pointer(&conn->control));
    if (conn->pd) {
        ibv_dealloc_pd(g_steal_pointer(&conn->pd));
    }
    rdma_destroy_id(id);
    v1_forget(conn);
    conn->options.registration = registration;
    return false;
}

/* Tries every address; each has its share of the time that is left. */
static bool connect_any(RdmaConn *conn, const VmfUri *uri, const struct addrinfo *list,
                        const uint8_t *uuid, gint64 deadline, int cancel_fd, GError **error)
{
    bool ok = false;

    for (const struct addrinfo *at = list; at && !ok; at = at->ai_next) {
        char address[NI_MAXHOST] = "?";
        g_autofree char *what = NULL;
        g_autoptr(GError) failure = NULL;
        Connecting c = {.events = conn->events, .cancel_fd = cancel_fd};

        getnameinfo(at->ai_addr, at->ai_addrlen, address, sizeof(address), NULL, 0, NI_NUMERICHOST);
        what = g_strdup_printf("cannot connect to %s port %s by RDMA", address, vmf_uri_port(uri));
        c.what = what;
        c.deadline = resolve_share(deadline, resolve_count(at));
        ok = connect_control(conn, at->ai_addr, uuid, &c, &failure);
        if (!ok && (!at->ai_next || g_error_matches(failure, VMF_ERROR, VMF_ERROR_CANCELLED))) {
            g_propagate_error(error, g_steal_pointer(&failure));
            break;
        }
    }
    return ok;
}

static RdmaConn *look_up_and_connect(const VmfUri *uri, const RdmaOptions *options,
                                     const uint8_t *uuid, int cancel_fd, GError **error)
{
    const ResolveQuery query = {
        .host = vmf_uri_host(uri),
        .port = vmf_uri_port(uri),
        .deadline = g_get_monotonic_time() + (gint64)options->connect_timeout_ms * 1000,
        .cancel_fd = cancel_fd,
    };
    struct addrinfo *list = resolve_host(&query, error);
    RdmaConn *conn = list ? conn_new(options, VMF_ROLE_SOURCE, error) : NULL;

    if (conn && !connect_any(conn, uri, list, uuid, query.deadline, cancel_fd, error)) {
        conn_close(&conn->base);
        conn = NULL;
    }
    if (list) {
        freeaddrinfo(list);
    }
    return conn;
}

VmfConn *conn_connect(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES], GCancellable *cancel,
                      GError **error)
{
    GPollFD cancel_fd = {.fd = -1};
    RdmaOptions options;
    RdmaConn *conn;

    if (!options_from_uri(uri, &options, error)) {
        return NULL;
    }
    if (!*vmf_uri_host(uri)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "rdma: needs a host to connect to (rdma:HOST:PORT)");
        return NULL;
    }
    g_cancellable_make_pollfd(cancel, &cancel_fd);
    conn = look_up_and_connect(uri, &options, uuid, cancel_fd.fd, error);
    if (cancel_fd.fd >= 0) {
        g_cancellable_release_fd(cancel);
    }
    return conn ? &conn->base : NULL;
}

/*
 * Channels have an event channel of their own while they connect, so that the
 * control thread, which watches the connection's, cannot take their events.
 */
static bool connect_channel(RdmaConn *conn, unsigned number, Connecting *c, GError **error)
{
    WireHello hello = {.kind = WIRE_KIND_CHANNEL, .channel = number};
    struct rdma_cm_id *id = resolve(c, rdma_get_peer_addr(conn->id), error);
    RdmaChannel *channel;

    if (!id) {
        return false;
    }
    memcpy(hello.uuid, conn->base.uuid, VMF_UUID_BYTES);
    channel = channel_new(conn, number, id, error);
    if (!channel) {
        rdma_destroy_id(id);
        return false;
    }
    conn->channels[number] = channel;
    if (!establish(c, id, &hello, conn->base.timeout_ms, NULL, error)) {
        return false;
    }
    if (CM_INT("rdma_migrate_id", rdma_migrate_id(id, conn->events)) < 0) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "%s: cannot move its events",
                        channel->ep->name);
        return false;
    }
    return true;
}

/* After a failure, ids must leave the event channel that is about to be destroyed. */
static void drop_unfinished(RdmaConn *conn)
{
    for (unsigned i = 0; i < conn->base.channels; i++) {
        if (conn->channels[i] && conn->channels[i]->id->channel != conn->events) {
            channel_free(g_steal_pointer(&conn->channels[i]));
        }
    }
}

bool conn_open_channels(VmfConn *base, GError **error)
{
    RdmaConn *conn = conn_of(base);
    g_autofree char *what = NULL;
    Connecting c = {.cancel_fd = base->cancel_fd};
    bool ok = true;

    base->counters = g_new0(VmfChannelCounters, base->channels);
    if (base->role == VMF_ROLE_DESTINATION) {
        return listener_await_channels(conn, error);
    }
    c.events = VERBS_POINTER("rdma_create_event_channel 2", rdma_create_event_channel());
    if (!c.events) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot create an event channel");
        return false;
    }
    c.deadline = g_get_monotonic_time() + (gint64)conn->options.connect_timeout_ms * 1000;
    ok = cm_events_nonblocking(c.events, error);
    for (unsigned i = 0; ok && i < base->channels; i++) {
        g_free(what);
        what = g_strdup_printf("cannot open channel %u to %s", i, base->peer);
        c.what = what;
        ok = connect_channel(conn, i, &c, error);
    }
    drop_unfinished(conn);
    rdma_destroy_event_channel(c.events);
    return ok;
}

struct rdma_cm_id *conn_connect_again(RdmaConn *conn, struct rdma_event_channel *events,
                                      const EndpointLimits *limits, const char *name,
                                      const void *data, size_t size, gint64 deadline, Endpoint **ep,
                                      GError **error)
{
    g_autofree char *what =
        g_strdup_printf("cannot connect to %s by RDMA for the %s", conn->base.peer, name);
    const Connecting c = {
        .events = events, .deadline = deadline, .cancel_fd = conn->base.cancel_fd, .what = what};
    struct rdma_cm_id *id = resolve(&c, rdma_get_peer_addr(conn->id), error);

    if (!id) {
        return NULL;
    }
    *ep = conn_endpoint(conn, id, false, limits, name, error);
    if (*ep && establish_with(&c, id, data, size, conn->base.timeout_ms, NULL, error)) {
        return id;
    }
    endpoint_free(g_steal_pointer(ep));
    rdma_destroy_id(id);
    return NULL;
}
