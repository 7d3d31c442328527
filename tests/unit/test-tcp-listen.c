/* SPDX-License-Identifier: BSD-2-Clause */
/* test-tcp-listen.c -- accepting sources and channels among strangers and silent sockets */

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
#include "tcp-rig.h"

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
    silent = rig_dial(rig.port);
    half = rig_dial_as(rig.port, TCP_KIND_CONTROL, 0, our_uuid, TCP_PREAMBLE_BYTES - 1);
    gone = rig_dial(rig.port);
    close(gone);
    shouting = rig_dial(rig.port);
    peer_send(shouting, garbage, sizeof(garbage));
    close(rig_dial_channel(&rig, 0, our_uuid)); /* nobody awaits channels */
    accept_start(&accepting, &rig);
    assert_true(peer_was_closed(shouting));
    source = rig_connect(&rig);
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
    silent = rig_dial(rig.port);
    slow = rig_dial_as(rig.port, TCP_KIND_CONTROL, 0, our_uuid, 5);
    accept_start(&accepting, &rig);
    assert_true(peer_was_closed(silent));
    assert_true(peer_was_closed(slow));
    source = rig_connect(&rig);
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
        fds[i] = rig_dial(rig.port);
    }
    source = rig_connect(&rig);
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
    source = rig_connect(&rig);
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
    first = rig_connect(&rig);
    gone = rig_dial_as(rig.port, TCP_KIND_CONTROL, 0, our_uuid, TCP_PREAMBLE_BYTES);
    peer_send(gone, "a greeting", 10); /* nobody will answer it */
    accept_start(&accepting, &rig);
    tcp_close(accept_finish(&accepting));
    close(gone);
    source = rig_connect(&rig);
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
        silent[i] = rig_dial_as(rig.port, TCP_KIND_CONTROL, 0, our_uuid, TCP_PREAMBLE_BYTES);
    }
    source = rig_connect(&rig);
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
        sources[i] = rig_connect(&rig);
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
    side_init(&s->source, rig_connect(&s->rig), channels, 1u << 20);
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
    silent = rig_dial(s.rig.port);
    stranger = rig_dial_channel(&s.rig, 0, other_uuid);
    assert_true(peer_was_closed(stranger));
    beyond = rig_dial_channel(&s.rig, 2, our_uuid);
    assert_true(peer_was_closed(beyond));
    second = rig_dial_channel(&s.rig, 1, our_uuid);
    again = rig_dial_channel(&s.rig, 1, our_uuid);
    assert_true(peer_was_closed(again));
    first = rig_dial_channel(&s.rig, 0, our_uuid);
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
    next_source = rig_connect(&s.rig);
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
    one = rig_dial_channel(&s.rig, 2, our_uuid);
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
    };

    return cmocka_run_group_tests_name("tcp-listen", tests, NULL, NULL);
}
