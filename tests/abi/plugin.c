/* SPDX-License-Identifier: BSD-2-Clause */
/* plugin.c -- meet:NAME, a minimal transport between two threads of one process */

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <vmferry/transport.h>

#define CHANNELS 2
#define STRIPE (1u << 20)
#define CONTROL_MAX 8192

/* --- a queue between two threads, with a descriptor that is readable while something is in it ---
 */

typedef struct Box {
    GMutex lock;
    GQueue items;
    int fd;
} Box;

static void box_init(Box *box)
{
    g_mutex_init(&box->lock);
    g_queue_init(&box->items);
    box->fd = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    g_assert(box->fd >= 0);
}

static void box_clear(Box *box, GDestroyNotify free_item)
{
    g_queue_clear_full(&box->items, free_item);
    g_mutex_clear(&box->lock);
    close(box->fd);
}

static void box_put(Box *box, void *item)
{
    const uint64_t one = 1;

    g_mutex_lock(&box->lock);
    g_queue_push_tail(&box->items, item);
    g_mutex_unlock(&box->lock);
    g_assert(write(box->fd, &one, sizeof(one)) == sizeof(one));
}

static void *box_take(Box *box)
{
    uint64_t one;
    void *item;

    if (read(box->fd, &one, sizeof(one)) != sizeof(one)) {
        return NULL;
    }
    g_mutex_lock(&box->lock);
    item = g_queue_pop_head(&box->items);
    g_mutex_unlock(&box->lock);
    return item;
}

/* --- what two connected sides share --- */

typedef struct Wire {
    int users;           /* atomic */
    Box control[2];      /* GBytes, to the source and to the destination */
    Box data[CHANNELS];  /* Item, to the destination */
    Box taken[CHANNELS]; /* Item, back to the source: the destination is done with it */
} Wire;

typedef enum { ITEM_RAM, ITEM_ZERO, ITEM_DEVICE, ITEM_SYNC, ITEM_END } ItemKind;

typedef struct Item {
    ItemKind kind;
    unsigned block;
    uint64_t offset, length;
    const void *data;
    VmfDeviceHeader header;
    uint64_t number;
} Item;

typedef struct Meet {
    VmfConn base; /* first */
    Wire *wire;
    GBytes *message;        /* returned by control_receive */
    int revoked;            /* eventfd */
    unsigned out[CHANNELS]; /* source: items that are not taken yet */
} Meet;

struct VmfTransportListener {
    char *address;
};

/* Connections that wait to be accepted. One at a time is enough for a test. */
static GMutex waiting_lock;
static GCond waiting_changed;
static Wire *waiting;

static Meet *meet_of(VmfConn *conn)
{
    return (Meet *)conn;
}

static Wire *wire_new(void)
{
    Wire *wire = g_new0(Wire, 1);

    wire->users = 2;
    for (unsigned i = 0; i < 2; i++) {
        box_init(&wire->control[i]);
    }
    for (unsigned i = 0; i < CHANNELS; i++) {
        box_init(&wire->data[i]);
        box_init(&wire->taken[i]);
    }
    return wire;
}

static void wire_unref(Wire *wire)
{
    if (!g_atomic_int_dec_and_test(&wire->users)) {
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        box_clear(&wire->control[i], (GDestroyNotify)g_bytes_unref);
    }
    for (unsigned i = 0; i < CHANNELS; i++) {
        box_clear(&wire->data[i], g_free);
        box_clear(&wire->taken[i], g_free);
    }
    g_free(wire);
}

static VmfConn *meet_new(Wire *wire)
{
    Meet *meet = g_new0(Meet, 1);

    meet->base.size = sizeof(VmfConn);
    meet->base.control_max = CONTROL_MAX;
    meet->base.peer = g_strdup("the other thread");
    meet->wire = wire;
    meet->revoked = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return &meet->base;
}

/* --- connecting --- */

static VmfConn *meet_connect(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES],
                             GCancellable *cancel, GError **error)
{
    Wire *wire = wire_new();

    (void)uri;
    (void)uuid;
    (void)cancel;
    (void)error;
    g_mutex_lock(&waiting_lock);
    waiting = wire;
    g_cond_broadcast(&waiting_changed);
    g_mutex_unlock(&waiting_lock);
    return meet_new(wire);
}

static VmfTransportListener *meet_listen(const VmfUri *uri, GError **error)
{
    VmfTransportListener *listener = g_new0(VmfTransportListener, 1);

    (void)error;
    listener->address = g_strdup(vmf_uri_text(uri));
    return listener;
}

static char *meet_address(VmfTransportListener *listener)
{
    return g_strdup(listener->address);
}

static VmfConn *meet_accept(VmfTransportListener *listener, GCancellable *cancel, GError **error)
{
    Wire *wire;

    (void)listener;
    g_mutex_lock(&waiting_lock);
    while (!waiting && !g_cancellable_is_cancelled(cancel)) {
        g_cond_wait_until(&waiting_changed, &waiting_lock, g_get_monotonic_time() + 50000);
    }
    wire = g_steal_pointer(&waiting);
    g_mutex_unlock(&waiting_lock);
    if (!wire) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "cancelled");
        return NULL;
    }
    return meet_new(wire);
}

static void meet_listener_free(VmfTransportListener *listener)
{
    g_free(listener->address);
    g_free(listener);
}

static unsigned meet_default_channels(VmfConn *conn)
{
    (void)conn;
    return CHANNELS;
}

static size_t meet_get_parameters(VmfConn *conn, uint8_t buffer[64])
{
    (void)conn;
    buffer[0] = 77;
    return 1;
}

static bool meet_peer_parameters(VmfConn *conn, const uint8_t *buffer, size_t size, GError **error)
{
    (void)conn;
    if (size == 1 && buffer[0] == 77) {
        return true;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "that is not what a meet: sends");
    return false;
}

static bool meet_open_channels(VmfConn *conn, GError **error)
{
    (void)error;
    conn->counters = g_new0(VmfChannelCounters, conn->channels);
    return true;
}

static bool meet_ram_setup(VmfConn *conn, GError **error)
{
    (void)error;
    conn->stripe = STRIPE;
    conn->zero_min = 4096;
    conn->registration = "none";
    return true;
}

/* --- control --- */

static VmfControlResult meet_control_send(VmfConn *conn, const struct iovec *iov, unsigned iovcnt,
                                          GError **error)
{
    Meet *meet = meet_of(conn);
    GByteArray *message = g_byte_array_new();

    (void)error;
    for (unsigned i = 0; i < iovcnt; i++) {
        g_byte_array_append(message, iov[i].iov_base, (guint)iov[i].iov_len);
    }
    box_put(&meet->wire->control[conn->role == VMF_ROLE_SOURCE],
            g_byte_array_free_to_bytes(message));
    return VMF_CONTROL_DONE;
}

static VmfControlResult meet_control_receive(VmfConn *conn, const uint8_t **message, size_t *size,
                                             GError **error)
{
    Meet *meet = meet_of(conn);

    (void)error;
    g_clear_pointer(&meet->message, g_bytes_unref);
    meet->message = box_take(&meet->wire->control[conn->role != VMF_ROLE_SOURCE]);
    if (!meet->message) {
        return VMF_CONTROL_AGAIN;
    }
    *message = g_bytes_get_data(meet->message, size);
    return *size ? VMF_CONTROL_DONE : VMF_CONTROL_EOF; /* an empty message is the peer's last one */
}

static bool meet_control_wait(VmfConn *conn, int wake_fd, bool want_send, int timeout_ms,
                              GError **error)
{
    struct pollfd fds[] = {
        {.fd = meet_of(conn)->wire->control[conn->role != VMF_ROLE_SOURCE].fd, .events = POLLIN},
        {.fd = wake_fd, .events = POLLIN},
    };

    (void)want_send;
    (void)error;
    (void)poll(fds, G_N_ELEMENTS(fds), timeout_ms);
    return true;
}

static bool meet_control_message(VmfConn *conn, unsigned type, const uint8_t *data, size_t size,
                                 GError **error)
{
    (void)conn;
    (void)data;
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "message %u of %zu bytes", type, size);
    return false;
}

/* --- the source's channels --- */

/* Takes back items that the destination is done with, until at most `left' are under way. */
static bool settle(VmfConn *conn, unsigned channel, unsigned left, GError **error)
{
    Meet *meet = meet_of(conn);
    Box *taken = &meet->wire->taken[channel];
    Item *item;

    while (meet->out[channel] > left) {
        struct pollfd fds[] = {{.fd = taken->fd, .events = POLLIN},
                               {.fd = conn->cancel_fd, .events = POLLIN}};

        (void)poll(fds, G_N_ELEMENTS(fds), (int)conn->timeout_ms);
        item = box_take(taken);
        if (!item) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT, "channel %u does not move", channel);
            return false;
        }
        g_free(item);
        meet->out[channel]--;
    }
    return true;
}

static bool send_item(VmfConn *conn, unsigned channel, const Item *item, bool drain, GError **error)
{
    Meet *meet = meet_of(conn);

    if (!settle(conn, channel, 8, error)) {
        return false;
    }
    meet->out[channel]++;
    box_put(&meet->wire->data[channel], g_memdup2(item, sizeof(*item)));
    return !drain || settle(conn, channel, 0, error);
}

static bool meet_send_ram(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                          uint64_t length, GError **error)
{
    const Item item = {.kind = ITEM_RAM,
                       .block = block,
                       .offset = offset,
                       .length = length,
                       .data = conn->blocks[block]->host + offset};

    conn->counters[channel].ram_written += length;
    conn->counters[channel].writes++;
    return send_item(conn, channel, &item, false, error);
}

static bool meet_send_zero(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                           uint64_t length, GError **error)
{
    const Item item = {.kind = ITEM_ZERO, .block = block, .offset = offset, .length = length};

    return send_item(conn, channel, &item, false, error);
}

static bool meet_send_device(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header,
                             const void *data, void *piece, GError **error)
{
    const Item item = {.kind = ITEM_DEVICE, .data = data, .header = *header};

    if (!send_item(conn, channel, &item, true, error)) {
        return false;
    }
    conn->host->device_sent(conn, channel, piece);
    return true;
}

static bool meet_send_sync(VmfConn *conn, unsigned channel, uint64_t number, bool drain,
                           GError **error)
{
    const Item item = {.kind = ITEM_SYNC, .number = number};

    return send_item(conn, channel, &item, drain, error);
}

static bool meet_kick(VmfConn *conn, unsigned channel, GError **error)
{
    (void)conn;
    (void)channel;
    (void)error;
    return true;
}

static bool meet_wait(VmfConn *conn, unsigned channel, int wake_fd, GError **error)
{
    struct pollfd fds[] = {{.fd = wake_fd, .events = POLLIN},
                           {.fd = conn->cancel_fd, .events = POLLIN}};

    (void)channel;
    (void)error;
    (void)poll(fds, G_N_ELEMENTS(fds), (int)conn->timeout_ms);
    return true;
}

/* --- the destination's channels --- */

static bool take_item(VmfConn *conn, unsigned channel, const Item *item, GError **error)
{
    void *to;

    switch (item->kind) {
    case ITEM_RAM:
        to = conn->host->ram_range(conn, item->block, item->offset, item->length, error);
        if (to) {
            memcpy(to, item->data, item->length);
        }
        return to;
    case ITEM_ZERO:
        return conn->host->zero_range(conn, item->block, item->offset, item->length, error);
    case ITEM_DEVICE:
        to = conn->host->device_begin(conn, channel, &item->header, error);
        if (!to) {
            return false;
        }
        memcpy(to, item->data, item->header.size);
        return conn->host->device_done(conn, channel, error);
    case ITEM_SYNC:
        return conn->host->sync_seen(conn, channel, item->number, error);
    case ITEM_END:
        break;
    }
    return true;
}

static bool meet_serve(VmfConn *conn, unsigned channel, GError **error)
{
    Meet *meet = meet_of(conn);
    Box *data = &meet->wire->data[channel];

    for (;;) {
        struct pollfd fds[] = {{.fd = data->fd, .events = POLLIN},
                               {.fd = conn->cancel_fd, .events = POLLIN},
                               {.fd = meet->revoked, .events = POLLIN}};
        Item *item;
        bool ok, end;

        (void)poll(fds, G_N_ELEMENTS(fds), -1);
        item = box_take(data);
        if (!item) {
            return true; /* cancelled or revoked */
        }
        ok = take_item(conn, channel, item, error);
        end = item->kind == ITEM_END;
        box_put(&meet->wire->taken[channel], item);
        if (!ok || end) {
            return ok;
        }
    }
}

static bool meet_revoke(VmfConn *conn, GError **error)
{
    const uint64_t one = 1;

    (void)error;
    return write(meet_of(conn)->revoked, &one, sizeof(one)) == sizeof(one);
}

static void meet_close(VmfConn *conn)
{
    Meet *meet = meet_of(conn);

    box_put(&meet->wire->control[conn->role == VMF_ROLE_SOURCE], g_bytes_new(NULL, 0));
    for (unsigned i = 0; conn->role == VMF_ROLE_SOURCE && i < CHANNELS; i++) {
        Item *end = g_new0(Item, 1);

        end->kind = ITEM_END;
        box_put(&meet->wire->data[i], end);
    }
    g_clear_pointer(&meet->message, g_bytes_unref);
    close(meet->revoked);
    wire_unref(meet->wire);
    g_free(conn->peer);
    g_free(conn->counters);
    g_free(meet);
}

static const VmfOptionSpec options[] = {
    {.name = "shade", .type = VMF_OPTION_UINT, .default_value = "3", .max = 9, .help = "not used"},
    {.name = "hue",
     .type = VMF_OPTION_CHOICE,
     .default_value = "red",
     .choices = "red|blue",
     .help = "not used"},
    {0},
};

static const VmfTransport transport = {
    .size = sizeof(VmfTransport),
    .abi_version = VMF_TRANSPORT_ABI,
    .scheme = "meet",
    .help = "between two threads of one process",
    .options = options,
    .channels_max = CHANNELS,
    .connect = meet_connect,
    .listen = meet_listen,
    .listener_address = meet_address,
    .accept = meet_accept,
    .listener_free = meet_listener_free,
    .default_channels = meet_default_channels,
    .get_parameters = meet_get_parameters,
    .peer_parameters = meet_peer_parameters,
    .open_channels = meet_open_channels,
    .ram_setup = meet_ram_setup,
    .control_send = meet_control_send,
    .control_receive = meet_control_receive,
    .control_wait = meet_control_wait,
    .control_message = meet_control_message,
    .send_ram = meet_send_ram,
    .send_zero = meet_send_zero,
    .send_device = meet_send_device,
    .send_sync = meet_send_sync,
    .kick = meet_kick,
    .wait = meet_wait,
    .serve = meet_serve,
    .revoke = meet_revoke,
    .close = meet_close,
};

VMF_API const VmfTransport *vmf_transport_entry(void);

const VmfTransport *vmf_transport_entry(void)
{
    return &transport;
}
