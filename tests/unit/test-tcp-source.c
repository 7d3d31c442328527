/* SPDX-License-Identifier: BSD-2-Clause */
/* test-tcp-source.c -- a channel's source and the control socket against peers of raw bytes */

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include <vmferry/plugin/bytes.h>

#include "tcp-side.h"

#define KIB 1024u
#define WINDOW (64u * KIB)

typedef struct Rig {
    Side side;
    int control, channel; /* the destination's ends */
} Rig;

static void rig_init(Rig *rig)
{
    side_init_pairs(&rig->side, VMF_ROLE_SOURCE, 1, WINDOW, &rig->control, &rig->channel);
}

static void rig_clear(Rig *rig)
{
    side_clear(&rig->side);
    close(rig->control);
    close(rig->channel);
}

static void acknowledge(Rig *rig, uint64_t number)
{
    uint8_t bytes[8];
    VmfWriter w = vmf_writer(bytes, sizeof(bytes));

    vmf_write_be64(&w, number);
    peer_send(rig->channel, bytes, sizeof(bytes));
}

static void expect_record(Rig *rig, TcpRecordType type, uint64_t offset, uint64_t length)
{
    uint8_t bytes[TCP_RECORD_BYTES];
    TcpRecord record;

    peer_receive(rig->channel, bytes, sizeof(bytes));
    assert_true(tcp_record_decode(bytes, &record, NULL));
    assert_int_equal(record.type, type);
    assert_int_equal(record.offset, offset);
    assert_int_equal(record.length, length);
}

static int unread(int fd)
{
    int count = 0;

    assert_int_equal(ioctl(fd, FIONREAD, &count), 0);
    return count;
}

/* --- sending --- */

static void source__gathers_in_order_until_kicked(void **state)
{
    static const uint8_t device[5] = "state";
    const VmfDeviceHeader header = {.idstr = "nic", .instance_id = 1, .index = 2, .size = 5};
    VmfDeviceHeader back;
    uint8_t bytes[8 * KIB];
    VmfConn *conn;
    Rig rig;

    (void)state;
    rig_init(&rig);
    conn = rig.side.conn;
    memset(rig.side.ram + 4096, 0x12, 4096);
    assert_true(tcp_send_ram(conn, 0, 0, 4096, 4096, NULL));
    assert_true(tcp_send_zero(conn, 0, 0, 8192, 1u << 20, NULL));
    assert_true(tcp_send_ram(conn, 0, 0, 0, 1, NULL));
    assert_int_equal(unread(rig.channel), 0);
    assert_true(tcp_kick(conn, 0, NULL));
    assert_true(tcp_send_device(conn, 0, &header, device, &back, NULL));
    assert_ptr_equal(rig.side.device_sent[0], &back);
    assert_true(tcp_send_sync(conn, 0, 9, false, NULL));
    expect_record(&rig, TCP_RAM, 4096, 4096);
    peer_receive(rig.channel, bytes, 4096);
    assert_memory_equal(bytes, rig.side.ram + 4096, 4096);
    expect_record(&rig, TCP_ZERO, 8192, 1u << 20);
    expect_record(&rig, TCP_RAM, 0, 1);
    peer_receive(rig.channel, bytes, 1);
    assert_int_equal(bytes[0], 0xee);
    expect_record(&rig, TCP_DEVICE, 0, 5);
    peer_receive(rig.channel, bytes, TCP_DEVICE_FIXED_BYTES + 3 + 5);
    assert_true(tcp_device_decode(bytes, TCP_DEVICE_FIXED_BYTES + 3, &back, NULL));
    assert_string_equal(back.idstr, "nic");
    assert_memory_equal(bytes + TCP_DEVICE_FIXED_BYTES + 3, device, 5);
    expect_record(&rig, TCP_SYNC, 9, 0);
    assert_int_equal(unread(rig.channel), 0);
    assert_int_equal(conn->counters[0].ram_written, 4097);
    rig_clear(&rig);
}

typedef struct Sender {
    Rig *rig;
    unsigned ranges;
    uint64_t size; /* of each */
    GError *error;
} Sender;

static void *send_main(void *opaque)
{
    Sender *sender = opaque;
    VmfConn *conn = sender->rig->side.conn;
    bool ok = true;

    for (unsigned i = 0; ok && i < sender->ranges; i++) {
        ok = tcp_send_ram(conn, 0, 0, i * sender->size, sender->size, &sender->error);
    }
    ok = ok && tcp_send_sync(conn, 0, 1, true, &sender->error);
    return GINT_TO_POINTER(ok);
}

/* More pieces than one system call takes, and a socket that takes only part of them. */
static void source__many_small_ranges_arrive(void **state)
{
    enum { RANGES = 1000, SIZE = 40 };
    const int small = 1;
    uint8_t bytes[SIZE];
    Rig rig;
    Sender sender = {.rig = &rig, .ranges = RANGES, .size = SIZE};
    GThread *thread;

    (void)state;
    rig_init(&rig);
    for (unsigned i = 0; i < RANGES * SIZE; i++) {
        rig.side.ram[i] = (uint8_t)(i * 7);
    }
    setsockopt(rig.side.tcp->channels[0]->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    thread = g_thread_new("sender", send_main, &sender);
    for (unsigned i = 0; i < RANGES; i++) {
        expect_record(&rig, TCP_RAM, (uint64_t)i * SIZE, SIZE);
        peer_receive(rig.channel, bytes, SIZE);
        assert_memory_equal(bytes, rig.side.ram + (size_t)i * SIZE, SIZE);
    }
    expect_record(&rig, TCP_SYNC, 1, 0);
    acknowledge(&rig, RANGES * (SIZE + TCP_RECORD_BYTES) + TCP_RECORD_BYTES);
    assert_true(GPOINTER_TO_INT(g_thread_join(thread)));
    rig_clear(&rig);
}

static void source__no_more_in_flight_than_allowed(void **state)
{
    enum { RANGES = 64, SIZE = 16 * KIB };
    const uint64_t total = RANGES * (SIZE + TCP_RECORD_BYTES) + TCP_RECORD_BYTES;
    g_autofree uint8_t *bytes = g_malloc(WINDOW * 2);
    uint64_t got = 0, told = 0, most = 0;
    Rig rig;
    Sender sender = {.rig = &rig, .ranges = RANGES, .size = SIZE};
    GThread *thread;

    (void)state;
    rig_init(&rig);
    thread = g_thread_new("sender", send_main, &sender);
    while (told < total) {
        struct pollfd more = {.fd = rig.channel, .events = POLLIN};

        /* It acknowledges only when nothing more comes, so as much is in flight as possible. */
        if (poll(&more, 1, 20) == 0) {
            told = got;
            acknowledge(&rig, told);
        } else {
            ssize_t n = recv(rig.channel, bytes, WINDOW * 2, 0);

            assert_true(n > 0);
            got += (uint64_t)n;
            most = MAX(most, got - told);
        }
    }
    assert_true(most <= WINDOW + 2 * TCP_RECORD_BYTES); /* headers of the last records */
    assert_true(most > WINDOW / 2);
    assert_true(GPOINTER_TO_INT(g_thread_join(thread)));
    assert_int_equal(rig.side.conn->counters[0].inflight_bytes, 0);
    rig_clear(&rig);
}

/* --- what goes wrong --- */

static void source__peer_that_acknowledges_nothing_times_out(void **state)
{
    GError *error = NULL;
    Rig rig;
    Sender sender = {.rig = &rig, .ranges = 1, .size = KIB};

    (void)state;
    rig_init(&rig);
    rig.side.conn->timeout_ms = 50;
    assert_false(GPOINTER_TO_INT(send_main(&sender))); /* the drain waits */
    expect_error(&sender.error, VMF_ERROR_TIMEOUT, "channel 0");
    for (unsigned i = 0; !error; i++) { /* the window waits, too */
        assert_true(i < 100);
        tcp_send_ram(rig.side.conn, 0, 0, (uint64_t)i * 16 * KIB, 16 * KIB, &error);
    }
    expect_error(&error, VMF_ERROR_TIMEOUT, "channel 0");
    rig_clear(&rig);
}

static void source__cancel_ends_a_wait(void **state)
{
    Rig rig;
    Sender sender = {.rig = &rig, .ranges = 1, .size = KIB};
    GThread *thread;

    (void)state;
    rig_init(&rig);
    thread = g_thread_new("sender", send_main, &sender);
    g_usleep(20000);
    g_cancellable_cancel(rig.side.cancel);
    assert_false(GPOINTER_TO_INT(g_thread_join(thread)));
    expect_error(&sender.error, VMF_ERROR_CANCELLED, "channel 0");
    rig_clear(&rig);
}

static void source__lost_peer_is_an_error(void **state)
{
    Rig rig;
    Sender sender = {.rig = &rig, .ranges = 1, .size = KIB};

    (void)state;
    rig_init(&rig);
    shutdown(rig.channel, SHUT_RDWR);
    assert_false(GPOINTER_TO_INT(send_main(&sender)));
    expect_error(&sender.error, VMF_ERROR_PEER_LOST, "channel 0");
    rig_clear(&rig);
}

static void source__lying_acknowledgements_are_refused(void **state)
{
    (void)state;
    for (unsigned turn = 0; turn < 2; turn++) {
        GError *error = NULL;
        Rig rig;

        rig_init(&rig);
        assert_true(tcp_send_sync(rig.side.conn, 0, 1, false, NULL));
        if (turn == 0) {
            acknowledge(&rig, TCP_RECORD_BYTES + 1); /* of bytes that were not sent yet */
        } else {
            acknowledge(&rig, TCP_RECORD_BYTES);
            acknowledge(&rig, 3); /* backwards */
        }
        assert_false(tcp_kick(rig.side.conn, 0, &error));
        expect_error(&error, VMF_ERROR_PROTOCOL, "channel 0");
        rig_clear(&rig);
    }
}

/* --- idle --- */

static void source__idle_channel_wakes_and_notices(void **state)
{
    int wake_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    GError *error = NULL;
    uint64_t count;
    Rig rig;

    (void)state;
    rig_init(&rig);
    assert_true(tcp_channel_wait(rig.side.conn, 0, wake_fd, NULL));
    assert_int_equal(read(wake_fd, &count, sizeof(count)), sizeof(count));
    shutdown(rig.channel, SHUT_RDWR); /* the peer goes away while there is nothing to do */
    assert_false(tcp_channel_wait(rig.side.conn, 0, wake_fd, &error));
    expect_error(&error, VMF_ERROR_PEER_LOST, "channel 0");
    /* After all is sent, the peer may close. */
    g_atomic_int_set(&rig.side.conn->channels_done, 1);
    g_cancellable_cancel(rig.side.cancel);
    assert_true(tcp_channel_wait(rig.side.conn, 0, wake_fd, NULL));
    close(wake_fd);
    rig_clear(&rig);
}

/* --- control --- */

static VmfControlResult control_put(Rig *rig, const void *first, size_t first_size,
                                    const void *second, size_t second_size, GError **error)
{
    const struct iovec iov[] = {{(void *)first, first_size}, {(void *)second, second_size}};

    return tcp_control_send(rig->side.conn, iov, 2, error);
}

static void control__messages_split_and_joined(void **state)
{
    static const uint8_t two[] = "\0\0\0\3abc\0\0\0\2de";
    const uint8_t *message;
    size_t size;
    uint8_t bytes[32];
    Rig rig;

    (void)state;
    rig_init(&rig);
    assert_int_equal(control_put(&rig, "head", 4, "body!", 5, NULL), VMF_CONTROL_DONE);
    peer_receive(rig.control, bytes, 13);
    assert_memory_equal(bytes, "\0\0\0\11headbody!", 13);
    for (size_t split = 0; split <= 13; split++) {
        assert_int_equal(tcp_control_receive(rig.side.conn, &message, &size, NULL),
                         VMF_CONTROL_AGAIN);
        peer_send(rig.control, two, split);
        if (split >= 7) {
            assert_int_equal(tcp_control_receive(rig.side.conn, &message, &size, NULL),
                             VMF_CONTROL_DONE);
            assert_int_equal(size, 3);
            assert_memory_equal(message, "abc", 3);
        }
        if (split < 13) {
            assert_int_equal(tcp_control_receive(rig.side.conn, &message, &size, NULL),
                             VMF_CONTROL_AGAIN);
            peer_send(rig.control, two + split, 13 - split);
        }
        if (split < 7) {
            assert_int_equal(tcp_control_receive(rig.side.conn, &message, &size, NULL),
                             VMF_CONTROL_DONE);
            assert_memory_equal(message, "abc", 3);
        }
        assert_int_equal(tcp_control_receive(rig.side.conn, &message, &size, NULL),
                         VMF_CONTROL_DONE);
        assert_int_equal(size, 2);
        assert_memory_equal(message, "de", 2);
    }
    shutdown(rig.control, SHUT_WR);
    assert_int_equal(tcp_control_receive(rig.side.conn, &message, &size, NULL), VMF_CONTROL_EOF);
    rig_clear(&rig);
}

static void control__longer_messages_than_the_longest_are_refused(void **state)
{
    g_autofree uint8_t *bytes = g_malloc0(4 + TCP_CONTROL_MAX);
    const uint8_t *message;
    GError *error = NULL;
    size_t size;
    Rig rig;

    (void)state;
    rig_init(&rig);
    bytes[1] = 1; /* 65536 */
    bytes[4] = 'f';
    bytes[3 + TCP_CONTROL_MAX] = 'l';
    for (unsigned i = 0; i < 3; i++) {
        peer_send(rig.control, bytes, 4 + TCP_CONTROL_MAX);
        assert_int_equal(tcp_control_receive(rig.side.conn, &message, &size, NULL),
                         VMF_CONTROL_DONE);
        assert_int_equal(size, TCP_CONTROL_MAX);
        assert_int_equal(message[0], 'f');
        assert_int_equal(message[TCP_CONTROL_MAX - 1], 'l');
    }
    bytes[3] = 1;
    peer_send(rig.control, bytes, 4);
    assert_int_equal(tcp_control_receive(rig.side.conn, &message, &size, &error),
                     VMF_CONTROL_ERROR);
    expect_error(&error, VMF_ERROR_PROTOCOL, "65537");
    rig_clear(&rig);
}

/*
 * A peer does not read: the result is AGAIN, and in the end every message is there once and whole.
 */
static void control__full_socket_loses_nothing(void **state)
{
    g_autofree uint8_t *body = g_malloc0(KIB), *got = g_malloc(4 + KIB);
    unsigned sent = 0, refused = 0;
    const int small = 1;
    Rig rig;

    (void)state;
    rig_init(&rig);
    setsockopt(rig.side.tcp->control_fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    while (refused < 3) {
        body[0] = (uint8_t)sent;
        body[1] = (uint8_t)(sent >> 8);
        if (control_put(&rig, body, 1, body + 1, KIB - 1, NULL) == VMF_CONTROL_DONE) {
            sent++;
        } else {
            refused++;
        }
    }
    assert_true(sent >= 2);
    for (unsigned i = 0; i < sent; i++) {
        peer_receive(rig.control, got, 4);
        /* A message that the kernel took only in part goes on when there is room. */
        assert_true(tcp_control_wait(rig.side.conn, -1, false, 0, NULL));
        peer_receive(rig.control, got + 4, KIB);
        assert_int_equal(got[4] | got[5] << 8, i & 0xffff);
        assert_true(tcp_control_wait(rig.side.conn, -1, false, 0, NULL));
    }
    assert_int_equal(unread(rig.control), 0);
    rig_clear(&rig);
}

static void control__wait_ends_for_each_reason(void **state)
{
    int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const uint64_t one = 1;
    Rig rig;

    (void)state;
    rig_init(&rig);
    assert_true(tcp_control_wait(rig.side.conn, wake_fd, false, 10, NULL)); /* time */
    assert_int_equal(write(wake_fd, &one, sizeof(one)), sizeof(one));
    assert_true(tcp_control_wait(rig.side.conn, wake_fd, false, -1, NULL)); /* woken */
    assert_true(tcp_control_wait(rig.side.conn, -1, true, -1, NULL));       /* room */
    peer_send(rig.control, "x", 1);
    assert_true(tcp_control_wait(rig.side.conn, -1, false, -1, NULL)); /* bytes */
    close(wake_fd);
    rig_clear(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(source__gathers_in_order_until_kicked),
        cmocka_unit_test(source__many_small_ranges_arrive),
        cmocka_unit_test(source__no_more_in_flight_than_allowed),
        cmocka_unit_test(source__peer_that_acknowledges_nothing_times_out),
        cmocka_unit_test(source__cancel_ends_a_wait),
        cmocka_unit_test(source__lost_peer_is_an_error),
        cmocka_unit_test(source__lying_acknowledgements_are_refused),
        cmocka_unit_test(source__idle_channel_wakes_and_notices),
        cmocka_unit_test(control__messages_split_and_joined),
        cmocka_unit_test(control__longer_messages_than_the_longest_are_refused),
        cmocka_unit_test(control__full_socket_loses_nothing),
        cmocka_unit_test(control__wait_ends_for_each_reason),
    };

    return cmocka_run_group_tests_name("tcp-source", tests, NULL, NULL);
}
