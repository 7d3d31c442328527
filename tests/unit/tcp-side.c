/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-side.c -- one side of a socket transport with a recording host, for its tests */

#include "tcp-side.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define PATIENCE_MS 20000

static Side *side_of(VmfConn *conn)
{
    return conn->session;
}

static bool sync_seen(VmfConn *conn, unsigned channel, uint64_t number, GError **error)
{
    (void)error;
    __atomic_store_n(&side_of(conn)->sync_seen[channel], number, __ATOMIC_RELEASE);
    return true;
}

static void *device_begin(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header,
                          GError **error)
{
    Side *side = side_of(conn);

    if (header->size > SIDE_DEVICE_MAX) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "the device buffer is too long");
        return NULL;
    }
    side->device[channel] = *header;
    g_free(side->device_bytes[channel]);
    /* Of exactly that size, so that the sanitizer sees each access past it. */
    return side->device_bytes[channel] = g_malloc(header->size);
}

static bool device_done(VmfConn *conn, unsigned channel, GError **error)
{
    (void)error;
    side_of(conn)->devices_done[channel]++;
    return true;
}

static void device_sent(VmfConn *conn, unsigned channel, void *piece)
{
    assert_null(side_of(conn)->device_sent[channel]);
    side_of(conn)->device_sent[channel] = piece;
}

static void *ram_range(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                       GError **error)
{
    if (block != 0 || offset > SIDE_RAM || length > SIDE_RAM - offset) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "that range is not ours");
        return NULL;
    }
    return side_of(conn)->ram + offset;
}

static bool zero_range(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                       GError **error)
{
    Side *side = side_of(conn);
    void *memory = ram_range(conn, block, offset, length, error);

    if (memory) {
        memset(memory, 0, length);
        __atomic_fetch_add(&side->zeroed[0], 1, __ATOMIC_ACQ_REL);
    }
    return memory;
}

static const VmfConnHost host = {
    .size = sizeof(VmfConnHost),
    .sync_seen = sync_seen,
    .device_begin = device_begin,
    .device_done = device_done,
    .device_sent = device_sent,
    .zero_range = zero_range,
    .ram_range = ram_range,
    .release_range = zero_range, /* no memory was made resident ahead */
};

void side_init(Side *side, VmfConn *conn, unsigned channels, uint64_t max_inflight)
{
    memset(side, 0, sizeof(*side));
    assert_true(channels <= SIDE_CHANNELS_MAX);
    side->conn = conn;
    side->tcp = (TcpConn *)conn;
    side->cancel = g_cancellable_new();
    side->ram = g_malloc(SIDE_RAM);
    memset(side->ram, 0xee, SIDE_RAM);
    side->blocks = vmf_ram_blocks_new();
    side->block = vmf_ram_blocks_add(side->blocks, "ram", side->ram, SIDE_RAM, 4096, NULL);
    assert_non_null(side->block);
    conn->host = &host;
    conn->session = side;
    conn->cancel = side->cancel;
    conn->cancel_fd = g_cancellable_get_fd(side->cancel);
    conn->timeout_ms = PATIENCE_MS;
    conn->channels = channels;
    conn->max_inflight = max_inflight;
    conn->blocks = &side->block;
    conn->block_count = 1;
}

static void make_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

void side_init_pairs(Side *side, VmfRole role, unsigned channels, uint64_t max_inflight,
                     int *control_peer, int *channel_peers)
{
    g_autoptr(VmfUri) uri = side_uri("unix:/nowhere");
    TcpConn *conn;
    int fds[2];

    make_pair(fds);
    conn = tcp_conn_new(uri, role, fds[0], NULL);
    assert_non_null(conn);
    conn->base.ops = &unix_transport;
    *control_peer = fds[1];
    side_init(side, &conn->base, channels, max_inflight);
    conn->base.counters = g_new0(VmfChannelCounters, channels);
    for (unsigned i = 0; i < channels; i++) {
        make_pair(fds);
        conn->channels[i] = tcp_channel_new(conn, i, fds[0]);
        channel_peers[i] = fds[1];
    }
}

void side_clear(Side *side)
{
    g_cancellable_release_fd(side->cancel);
    tcp_close(side->conn);
    vmf_ram_blocks_unref(side->blocks);
    g_free(side->ram);
    for (unsigned i = 0; i < SIDE_CHANNELS_MAX; i++) {
        g_free(side->device_bytes[i]);
    }
    g_object_unref(side->cancel);
}

typedef struct Serving {
    Side *side;
    unsigned channel;
} Serving;

static void *serve_main(void *opaque)
{
    g_autofree Serving *serving = opaque;
    Side *side = serving->side;
    bool ok = tcp_serve(side->conn, serving->channel, &side->errors[serving->channel]);

    return GINT_TO_POINTER(ok);
}

void side_serve(Side *side, unsigned channel)
{
    Serving *serving = g_new(Serving, 1);

    *serving = (Serving){side, channel};
    side->serving[channel] = g_thread_new("serve", serve_main, serving);
}

bool side_served(Side *side, unsigned channel, GError **error)
{
    bool ok = GPOINTER_TO_INT(g_thread_join(g_steal_pointer(&side->serving[channel])));

    assert_int_equal(ok, !side->errors[channel]);
    if (!ok) {
        g_propagate_error(error, g_steal_pointer(&side->errors[channel]));
    }
    return ok;
}

VmfUri *side_uri(const char *format, ...)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    VmfUri *uri;
    va_list arguments;

    va_start(arguments, format);
    text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    uri = vmf_uri_parse(text, &error);
    if (!uri) {
        fail_msg("%s: %s", text, error->message);
    }
    return uri;
}

void expect_error(GError **error, int code, const char *says)
{
    assert_non_null(*error);
    if (!g_error_matches(*error, VMF_ERROR, code) || !strstr((*error)->message, says)) {
        fail_msg("expected %s with \"%s\", got %s: %s", vmf_error_code_name(code), says,
                 vmf_error_code_name((*error)->code), (*error)->message);
    }
    g_clear_error(error);
}

static void peer_poll(int fd, short events)
{
    struct pollfd wait = {.fd = fd, .events = events};

    assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
}

void peer_send(int fd, const void *bytes, size_t size)
{
    for (const uint8_t *at = bytes, *end = at + size; at < end;) {
        ssize_t n = send(fd, at, (size_t)(end - at), MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            peer_poll(fd, POLLOUT);
            continue;
        }
        assert_true(n > 0);
        at += n;
    }
}

void peer_receive(int fd, void *bytes, size_t size)
{
    for (uint8_t *at = bytes, *end = at + size; at < end;) {
        ssize_t n = recv(fd, at, (size_t)(end - at), 0);

        if (n < 0 && errno == EAGAIN) {
            peer_poll(fd, POLLIN);
            continue;
        }
        assert_true(n > 0);
        at += n;
    }
}

bool peer_was_closed(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    char byte;
    ssize_t n;

    if (poll(&wait, 1, PATIENCE_MS) != 1) {
        return false;
    }
    n = recv(fd, &byte, 1, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}
