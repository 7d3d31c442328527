/* SPDX-License-Identifier: BSD-2-Clause */
/* test-tcp-listen.c -- connecting and listening among strangers, silent sockets and lost peers */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <glib/gstdio.h>

#include "base/message.h"
#include "tcp-side.h"

#define PATIENT "connect-timeout=20s"

static const uint8_t our_uuid[VMF_UUID_BYTES] = "0123456789abcdef";

/* A listener of the transport and threads that accept on it. */
typedef struct Rig {
    VmfTransportListener *listener;
    VmfUri *uri; /* to connect to */
    uint16_t port;
    GCancellable *cancel;
} Rig;

static void rig_init(Rig *rig, const char *options)
{
    g_autoptr(VmfUri) uri = side_uri("tcp:127.0.0.1:0,%s", options);
    g_autofree char *address = NULL;

    rig->listener = tcp_listen(uri, NULL);
    assert_non_null(rig->listener);
    address = tcp_listener_address(rig->listener);
    assert_true(g_str_has_prefix(address, "tcp:127.0.0.1:"));
    rig->uri = side_uri("%s,%s", address, options);
    rig->port = (uint16_t)strtoul(vmf_uri_port(rig->uri), NULL, 10);
    assert_int_not_equal(rig->port, 0);
    rig->cancel = g_cancellable_new();
}

static void rig_clear(Rig *rig)
{
    tcp_listener_free(rig->listener);
    vmf_uri_unref(rig->uri);
    g_object_unref(rig->cancel);
}

static int dial(uint16_t port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Connects, and sends the first `size' bytes of a preamble. */
static int dial_as(uint16_t port, TcpKind kind, unsigned channel, const uint8_t *uuid, size_t size)
{
    TcpPreamble preamble = {.kind = kind, .channel = channel};
    uint8_t bytes[TCP_PREAMBLE_BYTES];
    int fd = dial(port);

    memcpy(preamble.uuid, uuid, VMF_UUID_BYTES);
    tcp_preamble_encode(&preamble, bytes);
    peer_send(fd, bytes, size);
    return fd;
}

static int dial_channel(const Rig *rig, unsigned channel, const uint8_t *uuid)
{
    return dial_as(rig->port, TCP_KIND_CHANNEL, channel, uuid, TCP_PREAMBLE_BYTES);
}

static void say(VmfConn *conn, const char *text)
{
    const struct iovec iov = {.iov_base = (void *)text, .iov_len = strlen(text)};

    assert_int_equal(tcp_control_send(conn, &iov, 1, NULL), VMF_CONTROL_DONE);
}

static void expect_said(VmfConn *conn, const char *text)
{
    const uint8_t *message;
    VmfControlResult result;
    size_t size;

    do {
        assert_true(tcp_control_wait(conn, -1, false, 20000, NULL));
        result = tcp_control_receive(conn, &message, &size, NULL);
    } while (result == VMF_CONTROL_AGAIN);
    assert_int_equal(result, VMF_CONTROL_DONE);
    assert_int_equal(size, strlen(text));
    assert_memory_equal(message, text, size);
}

typedef struct Accepting {
    Rig *rig;
    VmfConn *conn;
    GError *error;
    GThread *thread;
} Accepting;

static void *accept_main(void *opaque)
{
    Accepting *a = opaque;

    a->conn = tcp_accept(a->rig->listener, a->rig->cancel, &a->error);
    return NULL;
}

static void accept_start(Accepting *a, Rig *rig)
{
    *a = (Accepting){.rig = rig};
    a->thread = g_thread_new("accept", accept_main, a);
}

static VmfConn *accept_finish(Accepting *a)
{
    g_thread_join(a->thread);
    if (!a->conn) {
        fail_msg("%s", a->error->message);
    }
    assert_null(a->error);
    expect_said(a->conn, "greeting");
    return a->conn;
}

static VmfConn *connect_to(const Rig *rig)
{
    g_autoptr(GError) error = NULL;
    VmfConn *conn = tcp_transport.connect(rig->uri, our_uuid, NULL, &error);

    if (!conn) {
        fail_msg("%s", error->message);
    }
    say(conn, "greeting"); /* as every source does at once */
    return conn;
}

/* Asserts that two control connections are the ends of one. */
static void expect_joined(VmfConn *a, VmfConn *b)
{
    say(a, "hello");
    expect_said(b, "hello");
}

/* --- strangers --- */

static void accept__strangers_disturb_nothing(void **state)
{
    static const char garbage[] = "GET / HTTP/1.1\r\nHost: vmferry\r\n\r\n and some more bytes";
    int silent, half, shouting, gone;
    VmfConn *source, *destination;
    Accepting accepting;
    Rig rig;

    (void)state;
    rig_init(&rig, PATIENT);
    silent = dial(rig.port);
    half = dial_as(rig.port, TCP_KIND_CONTROL, 0, our_uuid, TCP_PREAMBLE_BYTES - 1);
    gone = dial(rig.port);
    close(gone);
    shouting = dial(rig.port);
    peer_send(shouting, garbage, sizeof(garbage));
    close(dial_channel(&rig, 0, our_uuid)); /* nobody awaits channels */
    accept_start(&accepting, &rig);
    assert_true(peer_was_closed(shouting));
    source = connect_to(&rig);
    destination = accept_finish(&accepting);
    expect_joined(source, destination);
    expect_joined(destination, source);
    assert_non_null(strstr(destination->peer, "127.0.0.1:"));
    tcp_close(source);
    tcp_close(destination);
    rig_clear(&rig);
    assert_true(peer_was_closed(silent));
    assert_true(peer_was_closed(half));
    close(silent);
    close(half);
    close(shouting);
}

static void accept__silent_sockets_are_dropped_in_time(void **state)
{
    VmfConn *source;
    Accepting accepting;
    int silent, slow;
    Rig rig;

    (void)state;
    rig_init(&rig, "connect-timeout=100ms");
    silent = dial(rig.port);
    slow = dial_as(rig.port, TCP_KIND_CONTROL, 0, our_uuid, 5);
    accept_start(&accepting, &rig);
    assert_true(peer_was_closed(silent));
    assert_true(peer_was_closed(slow));
    source = connect_to(&rig);
    tcp_close(accept_finish(&accepting));
    tcp_close(source);
    close(silent);
    close(slow);
    rig_clear(&rig);
}

static void accept__a_flood_of_silent_sockets_keeps_no_source_out(void **state)
{
    enum { FLOOD = 300 };
    int fds[FLOOD];
    VmfConn *source;
    Accepting accepting;
    Rig rig;

    (void)state;
    rig_init(&rig, PATIENT);
    accept_start(&accepting, &rig);
    for (unsigned i = 0; i < FLOOD; i++) {
        fds[i] = dial(rig.port);
    }
    source = connect_to(&rig);
    tcp_close(accept_finish(&accepting));
    tcp_close(source);
    assert_true(peer_was_closed(fds[0])); /* the socket that was silent longest made room */
    for (unsigned i = 0; i < FLOOD; i++) {
        close(fds[i]);
    }
    rig_clear(&rig);
}

/* Descriptors run out while a peer connects. It is accepted when some are free again. */
static void accept__goes_on_after_running_out_of_descriptors(void **state)
{
    struct rlimit before, tight;
    VmfConn *source;
    Accepting accepting;
    int spare;
    Rig rig;

    (void)state;
    rig_init(&rig, PATIENT);
    source = connect_to(&rig);
    (void)g_cancellable_get_fd(rig.cancel);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    spare = dup(0);
    assert_true(spare >= 0);
    tight = (struct rlimit){.rlim_cur = (rlim_t)spare, .rlim_max = before.rlim_max};
    close(spare);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    accept_start(&accepting, &rig);
    g_usleep(50000);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    g_cancellable_release_fd(rig.cancel);
    tcp_close(accept_finish(&accepting));
    tcp_close(source);
    rig_clear(&rig);
}

static void accept__cancel_ends_it(void **state)
{
    Accepting accepting;
    Rig rig;

    (void)state;
    rig_init(&rig, PATIENT);
    accept_start(&accepting, &rig);
    g_usleep(20000);
    g_cancellable_cancel(rig.cancel);
    g_thread_join(accepting.thread);
    assert_null(accepting.conn);
    expect_error(&accepting.error, VMF_ERROR_CANCELLED, "waiting for a connection");
    rig_clear(&rig);
}

static void accept__a_source_that_left_is_passed_over(void **state)
{
    VmfConn *first, *second, *source;
    Accepting accepting;
    Rig rig;
    int gone;

    (void)state;
    rig_init(&rig, PATIENT);
    first = connect_to(&rig);
    gone = dial_as(rig.port, TCP_KIND_CONTROL, 0, our_uuid, TCP_PREAMBLE_BYTES);
    peer_send(gone, "a greeting", 10); /* nobody will answer it */
    accept_start(&accepting, &rig);
    tcp_close(accept_finish(&accepting));
    close(gone);
    source = connect_to(&rig);
    accept_start(&accepting, &rig);
    second = accept_finish(&accepting);
    expect_joined(source, second);
    tcp_close(first);
    tcp_close(second);
    tcp_close(source);
    rig_clear(&rig);
}

/* Connections that name a session, and then are silent, do not keep a source out. */
static void accept__a_source_that_greets_comes_before_a_silent_one(void **state)
{
    enum { SILENT = 20 };
    int silent[SILENT];
    VmfConn *source;
    Accepting accepting;
    Rig rig;

    (void)state;
    rig_init(&rig, PATIENT);
    for (unsigned i = 0; i < SILENT; i++) {
        silent[i] = dial_as(rig.port, TCP_KIND_CONTROL, 0, our_uuid, TCP_PREAMBLE_BYTES);
    }
    source = connect_to(&rig);
    accept_start(&accepting, &rig);
    tcp_close(accept_finish(&accepting)); /* it has the greeting, so it is the source */
    tcp_close(source);
    for (unsigned i = 0; i < SILENT; i++) {
        close(silent[i]);
    }
    rig_clear(&rig);
}

/* Whether the source was refused, and told that the destination is busy. */
static bool told_busy(VmfConn *source)
{
    const uint8_t *message;
    MessageHeader header;
    size_t size;
    g_autofree char *text = NULL;

    if (!tcp_control_wait(source, -1, false, 0, NULL) ||
        tcp_control_receive(source, &message, &size, NULL) != VMF_CONTROL_DONE) {
        return false;
    }
    assert_true(message_header_decode(message, size, VMF_ROLE_DESTINATION, &header, NULL));
    assert_int_equal(header.type, MESSAGE_ERROR);
    assert_int_equal(header.argument, VMF_ERROR_REFUSED);
    text = message_error_text(message + MESSAGE_HEADER_BYTES, header.length);
    assert_non_null(strstr(text, "busy"));
    return true;
}

/* More sources come than may wait. Each is accepted in its turn, or told that it is busy. */
static void accept__too_many_sources_are_told_that_it_is_busy(void **state)
{
    enum { SOURCES = 40 };
    VmfConn *sources[SOURCES];
    unsigned served = 0, refused = 0;
    Rig rig;

    (void)state;
    rig_init(&rig, PATIENT);
    for (unsigned i = 0; i < SOURCES; i++) {
        sources[i] = connect_to(&rig);
    }
    while (served + refused < SOURCES) {
        Accepting accepting;

        accept_start(&accepting, &rig);
        tcp_close(accept_finish(&accepting));
        served++;
        for (unsigned i = 0; i < SOURCES; i++) {
            refused += told_busy(sources[i]);
        }
    }
    assert_true(served >= 2);
    assert_true(refused >= 2);
    for (unsigned i = 0; i < SOURCES; i++) {
        tcp_close(sources[i]);
    }
    rig_clear(&rig);
}

/* --- channels --- */

typedef struct Opening {
    VmfConn *conn;
    GError *error;
} Opening;

static void *open_main(void *opaque)
{
    Opening *opening = opaque;

    return GINT_TO_POINTER(tcp_transport.open_channels(opening->conn, &opening->error));
}

/* Both sides of a session. The destination's channels are awaited. */
typedef struct Session {
    Rig rig;
    Side source, destination;
    Opening opening;
    GThread *thread;
} Session;

static void session_init(Session *s, const char *options, unsigned channels)
{
    Accepting accepting;

    rig_init(&s->rig, options);
    accept_start(&accepting, &s->rig);
    side_init(&s->source, connect_to(&s->rig), channels, 1u << 20);
    side_init(&s->destination, accept_finish(&accepting), channels, 1u << 20);
    memcpy(s->source.conn->uuid, our_uuid, VMF_UUID_BYTES);
    memcpy(s->destination.conn->uuid, our_uuid, VMF_UUID_BYTES);
    s->opening = (Opening){.conn = s->destination.conn};
    s->thread = g_thread_new("open", open_main, &s->opening);
}

static bool session_opened(Session *s)
{
    return GPOINTER_TO_INT(g_thread_join(s->thread));
}

static void session_clear(Session *s)
{
    side_clear(&s->source);
    side_clear(&s->destination);
    rig_clear(&s->rig);
}

static void channels__carry_to_their_numbers(void **state)
{
    enum { CHANNELS = 3 };
    Session s;

    (void)state;
    session_init(&s, PATIENT, CHANNELS);
    assert_true(tcp_transport.open_channels(s.source.conn, NULL));
    assert_true(session_opened(&s));
    for (unsigned i = 0; i < CHANNELS; i++) {
        side_serve(&s.destination, i);
        memset(s.source.ram + i * SIDE_QUARTER, (int)(i + 1), SIDE_QUARTER);
    }
    for (unsigned i = 0; i < CHANNELS; i++) {
        assert_true(
            tcp_send_ram(s.source.conn, i, 0, (uint64_t)i * SIDE_QUARTER, SIDE_QUARTER, NULL));
        assert_true(tcp_send_sync(s.source.conn, i, 40 + i, true, NULL));
    }
    assert_true(tcp_revoke(s.destination.conn, NULL));
    for (unsigned i = 0; i < CHANNELS; i++) {
        assert_true(side_served(&s.destination, i, NULL));
        assert_int_equal(s.destination.sync_seen[i], 40 + i);
    }
    assert_memory_equal(s.source.ram, s.destination.ram, SIDE_RAM);
    session_clear(&s);
}

static void channels__come_in_any_order_without_strangers(void **state)
{
    static const uint8_t other_uuid[VMF_UUID_BYTES] = "fedcba9876543210";
    int second, first, again, stranger, beyond, silent;
    Session s;

    (void)state;
    session_init(&s, PATIENT, 2);
    silent = dial(s.rig.port);
    stranger = dial_channel(&s.rig, 0, other_uuid);
    assert_true(peer_was_closed(stranger));
    beyond = dial_channel(&s.rig, 2, our_uuid);
    assert_true(peer_was_closed(beyond));
    second = dial_channel(&s.rig, 1, our_uuid);
    again = dial_channel(&s.rig, 1, our_uuid);
    assert_true(peer_was_closed(again));
    first = dial_channel(&s.rig, 0, our_uuid);
    assert_true(session_opened(&s));
    /* Each number has the socket that has named it. */
    peer_send(first, "1", 1);
    peer_send(second, "22", 2);
    for (unsigned i = 0; i < 2; i++) {
        int fd = s.destination.tcp->channels[i]->fd;
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        char bytes[4];

        assert_int_equal(poll(&wait, 1, 20000), 1);
        assert_int_equal(recv(fd, bytes, sizeof(bytes), 0), i + 1);
    }
    session_clear(&s);
    close(first);
    close(second);
    close(again);
    close(stranger);
    close(beyond);
    close(silent);
}

static void channels__another_source_waits_its_turn(void **state)
{
    VmfConn *next_source, *next;
    Accepting accepting;
    Session s;

    (void)state;
    session_init(&s, PATIENT, 1);
    next_source = connect_to(&s.rig);
    g_usleep(20000);
    assert_true(tcp_transport.open_channels(s.source.conn, NULL));
    assert_true(session_opened(&s));
    accept_start(&accepting, &s.rig);
    next = accept_finish(&accepting);
    expect_joined(next_source, next);
    tcp_close(next_source);
    tcp_close(next);
    session_clear(&s);
}

static void channels__missing_ones_time_out(void **state)
{
    int one;
    Session s;

    (void)state;
    session_init(&s, "connect-timeout=200ms", 3);
    one = dial_channel(&s.rig, 2, our_uuid);
    assert_false(session_opened(&s));
    expect_error(&s.opening.error, VMF_ERROR_TIMEOUT, "1 of 3 channels");
    session_clear(&s);
    close(one);
}

static void channels__cancel_ends_the_wait(void **state)
{
    Session s;

    (void)state;
    session_init(&s, PATIENT, 1);
    g_cancellable_cancel(s.destination.cancel);
    assert_false(session_opened(&s));
    expect_error(&s.opening.error, VMF_ERROR_CANCELLED, "cancelled");
    session_clear(&s);
}

/* --- connecting --- */

static void refuse_connect(const char *text, GCancellable *cancel, int code, const char *says)
{
    g_autoptr(VmfUri) uri = side_uri("%s", text);
    const VmfTransport *transport = vmf_uri_path(uri) ? &unix_transport : &tcp_transport;
    GError *error = NULL;

    assert_null(transport->connect(uri, our_uuid, cancel, &error));
    expect_error(&error, code, says);
    assert_null(transport->connect(uri, our_uuid, cancel, NULL)); /* nothing was said */
}

static void connect__failures_are_told_apart(void **state)
{
    g_autoptr(GCancellable) cancelled = g_cancellable_new();
    g_autofree char *closed = NULL, *full = NULL;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), in_the_way;

    (void)state;
    g_cancellable_cancel(cancelled);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    closed = g_strdup_printf("tcp:127.0.0.1:%u", ntohs(address.sin_port));
    refuse_connect(closed, NULL, VMF_ERROR_REFUSED, "127.0.0.1 port");
    /* A listener that accepts nobody, so that later connections hang. */
    assert_int_equal(listen(fd, 0), 0);
    in_the_way = dial(ntohs(address.sin_port));
    full = g_strdup_printf("%s,connect-timeout=150ms", closed);
    refuse_connect(full, NULL, VMF_ERROR_TIMEOUT, "127.0.0.1 port");
    refuse_connect(closed, cancelled, VMF_ERROR_CANCELLED, "cancelled");
    /* A name that must be looked up. */
    refuse_connect("tcp:vmferry.invalid:1", cancelled, VMF_ERROR_CANCELLED, "vmferry.invalid");
    refuse_connect("unix:/nowhere/at/all", NULL, VMF_ERROR_CONNECT, "/nowhere/at/all");
    close(in_the_way);
    close(fd);
}

/* "localhost" may have several addresses, of which only one listens. */
static void connect__tries_every_address_of_a_name(void **state)
{
    g_autoptr(VmfUri) uri = NULL;
    VmfConn *source;
    Accepting accepting;
    Rig rig;

    (void)state;
    rig_init(&rig, PATIENT);
    uri = side_uri("tcp:localhost:%u," PATIENT, rig.port);
    accept_start(&accepting, &rig);
    source = tcp_transport.connect(uri, our_uuid, NULL, NULL);
    assert_non_null(source);
    say(source, "greeting");
    tcp_close(accept_finish(&accepting));
    tcp_close(source);
    rig_clear(&rig);
}

/* --- listening --- */

static void listen__on_every_address(void **state)
{
    g_autoptr(VmfUri) uri = side_uri("tcp::0," PATIENT);
    g_autofree char *address = NULL;
    Rig rig = {.listener = tcp_listen(uri, NULL), .cancel = g_cancellable_new()};
    Accepting accepting;
    VmfConn *source;

    (void)state;
    assert_non_null(rig.listener);
    address = tcp_listener_address(rig.listener);
    assert_true(g_str_has_prefix(address, "tcp::"));
    rig.uri = side_uri("tcp:127.0.0.1:%s," PATIENT, address + strlen("tcp::"));
    accept_start(&accepting, &rig);
    source = connect_to(&rig);
    tcp_close(accept_finish(&accepting));
    tcp_close(source);
    rig_clear(&rig);
}

static void listen__failures_are_errors(void **state)
{
    g_autoptr(VmfUri) taken = NULL;
    g_autoptr(VmfUri) nowhere = side_uri("unix:/nowhere/at/all");
    GError *error = NULL;
    Rig rig;

    (void)state;
    rig_init(&rig, PATIENT);
    taken = side_uri("tcp:127.0.0.1:%u", rig.port);
    assert_null(tcp_listen(taken, &error));
    expect_error(&error, VMF_ERROR_CONNECT, "127.0.0.1 port");
    assert_null(tcp_listen(nowhere, &error));
    expect_error(&error, VMF_ERROR_CONNECT, "unix:/nowhere/at/all");
    rig_clear(&rig);
}

static void listen__replaces_stale_unix_sockets_alone(void **state)
{
    g_autofree char *directory = g_dir_make_tmp("vmferry-test-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(directory, "s", NULL);
    g_autoptr(VmfUri) uri = side_uri("unix:%s", path);
    VmfTransportListener *listener;
    GError *error = NULL;
    struct stat status;

    (void)state;
    /* A file that is not a socket is left alone. */
    assert_true(g_file_set_contents(path, "precious", -1, NULL));
    assert_null(tcp_listen(uri, &error));
    expect_error(&error, VMF_ERROR_CONNECT, path);
    g_unlink(path);
    listener = tcp_listen(uri, NULL);
    assert_non_null(listener);
    assert_null(tcp_listen(uri, &error)); /* in use */
    expect_error(&error, VMF_ERROR_CONNECT, path);
    /*
     * Left over from a process that died: the file is renamed, and has its name again when nobody
     * listens.
     */
    {
        g_autofree char *other = g_strconcat(path, ".old", NULL);

        assert_int_equal(link(path, other), 0);
        tcp_listener_free(listener);
        assert_int_equal(stat(path, &status), -1);
        assert_int_equal(rename(other, path), 0);
    }
    listener = tcp_listen(uri, NULL);
    assert_non_null(listener);
    tcp_listener_free(listener);
    assert_int_equal(stat(path, &status), -1);
    g_rmdir(directory);
}

/* The process that listens on that path may be busy with a migration, and accept nobody. */
static void listen__socket_with_a_full_backlog_is_not_stale(void **state)
{
    g_autofree char *directory = g_dir_make_tmp("vmferry-test-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(directory, "s", NULL);
    g_autoptr(VmfUri) uri = side_uri("unix:%s", path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int busy = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), callers[8];
    unsigned called = 0;
    GError *error = NULL;

    (void)state;
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    assert_int_equal(bind(busy, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(busy, 1), 0);
    do {
        assert_true(called < G_N_ELEMENTS(callers));
        callers[called] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    } while (connect(callers[called++], (struct sockaddr *)&address, sizeof(address)) == 0);
    assert_int_equal(errno, EAGAIN);
    alarm(30); /* otherwise it would wait for ever */
    assert_null(tcp_listen(uri, &error));
    alarm(0);
    expect_error(&error, VMF_ERROR_CONNECT, path);
    while (called) {
        close(callers[--called]);
    }
    close(busy);
    g_unlink(path);
    g_rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accept__strangers_disturb_nothing),
        cmocka_unit_test(accept__silent_sockets_are_dropped_in_time),
        cmocka_unit_test(accept__a_flood_of_silent_sockets_keeps_no_source_out),
        cmocka_unit_test(accept__goes_on_after_running_out_of_descriptors),
        cmocka_unit_test(accept__cancel_ends_it),
        cmocka_unit_test(accept__a_source_that_left_is_passed_over),
        cmocka_unit_test(accept__a_source_that_greets_comes_before_a_silent_one),
        cmocka_unit_test(accept__too_many_sources_are_told_that_it_is_busy),
        cmocka_unit_test(channels__carry_to_their_numbers),
        cmocka_unit_test(channels__come_in_any_order_without_strangers),
        cmocka_unit_test(channels__another_source_waits_its_turn),
        cmocka_unit_test(channels__missing_ones_time_out),
        cmocka_unit_test(channels__cancel_ends_the_wait),
        cmocka_unit_test(connect__failures_are_told_apart),
        cmocka_unit_test(connect__tries_every_address_of_a_name),
        cmocka_unit_test(listen__on_every_address),
        cmocka_unit_test(listen__failures_are_errors),
        cmocka_unit_test(listen__replaces_stale_unix_sockets_alone),
        cmocka_unit_test(listen__socket_with_a_full_backlog_is_not_stale),
    };

    return cmocka_run_group_tests_name("tcp-listen", tests, NULL, NULL);
}
