/* SPDX-License-Identifier: BSD-2-Clause */
/* test-tcp-serve.c -- a channel's destination against a source made of raw bytes */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include <vmferry/plugin/bytes.h>

#include "tcp-side.h"

#define DEVICE_BYTES 100

typedef struct Rig {
    Side side;
    int control, channel; /* the source's ends */
} Rig;

static void rig_init(Rig *rig)
{
    side_init_pairs(&rig->side, VMF_ROLE_DESTINATION, 1, 64u << 20, &rig->control, &rig->channel);
}

static void rig_clear(Rig *rig)
{
    side_clear(&rig->side);
    close(rig->control);
    close(rig->channel);
}

static void rig_hang_up(Rig *rig)
{
    shutdown(rig->channel, SHUT_WR);
}

/* --- records as bytes --- */

static void put_record(GByteArray *bytes, TcpRecordType type, uint32_t block, uint64_t offset,
                       uint64_t length)
{
    const TcpRecord record = {.type = type, .block = block, .offset = offset, .length = length};
    uint8_t encoded[TCP_RECORD_BYTES];

    tcp_record_encode(&record, encoded);
    g_byte_array_append(bytes, encoded, sizeof(encoded));
}

static void put_fill(GByteArray *bytes, uint8_t value, size_t size)
{
    g_autofree uint8_t *fill = g_malloc(size);

    memset(fill, value, size);
    g_byte_array_append(bytes, fill, (guint)size);
}

static void put_ram(GByteArray *bytes, uint64_t offset, uint8_t value, size_t size)
{
    put_record(bytes, TCP_RAM, 0, offset, size);
    put_fill(bytes, value, size);
}

static void put_device(GByteArray *bytes, const char *name, uint8_t value, size_t size)
{
    VmfDeviceHeader header = {.instance_id = 3, .index = 4};
    uint8_t encoded[TCP_DEVICE_HEADER_MAX];
    size_t header_size;

    g_strlcpy(header.idstr, name, sizeof(header.idstr));
    header_size = tcp_device_encode(&header, encoded);
    put_record(bytes, TCP_DEVICE, (uint32_t)header_size, 0, size);
    g_byte_array_append(bytes, encoded, (guint)header_size);
    put_fill(bytes, value, size);
}

/* One record of each kind; ends[i] is where the i-th ends. */
static GByteArray *one_of_each(guint ends[4])
{
    GByteArray *bytes = g_byte_array_new();

    put_ram(bytes, 1000, 0x11, 300);
    ends[0] = bytes->len;
    put_record(bytes, TCP_ZERO, 0, 1100, 50);
    ends[1] = bytes->len;
    put_device(bytes, "nic", 0x22, DEVICE_BYTES);
    ends[2] = bytes->len;
    put_record(bytes, TCP_SYNC, 0, 7, 0);
    ends[3] = bytes->len;
    return bytes;
}

/* Asserts the state of the side after the first `done' records. */
static void expect_done(const Side *side, unsigned done)
{
    assert_int_equal(side->ram[999], 0xee);
    assert_int_equal(side->ram[1300], 0xee);
    if (done >= 1) {
        assert_int_equal(side->ram[1000], 0x11);
        assert_int_equal(side->ram[1299], 0x11);
    }
    assert_int_equal(side->zeroed[0], done >= 2);
    if (done >= 2) {
        assert_int_equal(side->ram[1100], 0);
        assert_int_equal(side->ram[1149], 0);
        assert_int_equal(side->ram[1150], 0x11);
    }
    assert_int_equal(side->devices_done[0], done >= 3);
    if (done >= 3) {
        assert_string_equal(side->device[0].idstr, "nic");
        assert_int_equal(side->device[0].instance_id, 3);
        assert_int_equal(side->device[0].index, 4);
        assert_int_equal(side->device[0].size, DEVICE_BYTES);
        assert_int_equal(side->device_bytes[0][DEVICE_BYTES - 1], 0x22);
    }
    assert_int_equal(side->sync_seen[0], done >= 4 ? 7 : 0);
}

/* --- what is taken --- */

static void serve__takes_records_split_anywhere(void **state)
{
    guint ends[4];
    g_autoptr(GByteArray) bytes = one_of_each(ends);

    (void)state;
    for (size_t piece = 1; piece < bytes->len; piece = piece * 3 + 1) {
        Rig rig;

        rig_init(&rig);
        side_serve(&rig.side, 0);
        for (size_t at = 0; at < bytes->len; at += piece) {
            peer_send(rig.channel, bytes->data + at, MIN(piece, bytes->len - at));
            g_thread_yield();
        }
        rig_hang_up(&rig);
        assert_true(side_served(&rig.side, 0, NULL));
        expect_done(&rig.side, 4);
        rig_clear(&rig);
    }
}

static void serve__cut_within_a_record_is_an_error(void **state)
{
    guint ends[4];
    g_autoptr(GByteArray) bytes = one_of_each(ends);

    (void)state;
    for (guint cut = 0; cut < bytes->len; cut++) {
        unsigned done = 0;
        bool between = cut == 0;
        GError *error = NULL;
        Rig rig;

        while (cut >= ends[done]) {
            between |= cut == ends[done++];
        }
        rig_init(&rig);
        peer_send(rig.channel, bytes->data, cut);
        rig_hang_up(&rig);
        side_serve(&rig.side, 0);
        if (side_served(&rig.side, 0, &error) != between) {
            fail_msg("cut after %u bytes: %s", cut, error ? error->message : "no error");
        }
        if (!between) {
            expect_error(&error, VMF_ERROR_PEER_LOST, "channel 0");
        }
        expect_done(&rig.side, done);
        rig_clear(&rig);
    }
}

static void serve__acknowledges_what_is_done(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    uint8_t told[8];
    uint64_t number = 0;
    Rig rig;

    (void)state;
    rig_init(&rig);
    side_serve(&rig.side, 0);
    put_ram(bytes, 0, 0x33, SIDE_RAM);
    put_record(bytes, TCP_SYNC, 0, 1, 0);
    peer_send(rig.channel, bytes->data, bytes->len);
    while (number < bytes->len) {
        uint64_t before = number;
        VmfReader r = vmf_reader(told, sizeof(told));

        peer_receive(rig.channel, told, sizeof(told));
        number = vmf_read_be64(&r);
        assert_true(number > before);
    }
    /* The last count comes after the host has seen the sync. */
    assert_int_equal(number, bytes->len);
    assert_int_equal(__atomic_load_n(&rig.side.sync_seen[0], __ATOMIC_ACQUIRE), 1);
    assert_int_equal(rig.side.ram[SIDE_RAM - 1], 0x33);
    rig_hang_up(&rig);
    assert_true(side_served(&rig.side, 0, NULL));
    rig_clear(&rig);
}

/* A source reads no acknowledgements for long. The channel goes on, and they come. */
static void serve__unread_acknowledgements_do_no_harm(void **state)
{
    enum { RECORDS = 3000 };
    g_autoptr(GByteArray) record = g_byte_array_new();
    const gint64 deadline = g_get_monotonic_time() + 20 * G_TIME_SPAN_SECOND;
    const int small = 1;
    uint64_t number = 0;
    Rig rig;

    (void)state;
    rig_init(&rig);
    setsockopt(rig.side.tcp->channels[0]->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    side_serve(&rig.side, 0);
    put_record(record, TCP_ZERO, 0, 0, 8);
    for (unsigned i = 0; i < RECORDS; i++) {
        peer_send(rig.channel, record->data, record->len);
        while (__atomic_load_n(&rig.side.zeroed[0], __ATOMIC_ACQUIRE) <= i) {
            assert_true(g_get_monotonic_time() < deadline);
            g_thread_yield();
        }
    }
    while (number < (uint64_t)RECORDS * TCP_RECORD_BYTES) {
        uint8_t told[8];
        VmfReader r = vmf_reader(told, sizeof(told));

        peer_receive(rig.channel, told, sizeof(told));
        number = vmf_read_be64(&r);
    }
    rig_hang_up(&rig);
    assert_true(side_served(&rig.side, 0, NULL));
    rig_clear(&rig);
}

/* --- what is refused --- */

static void refuse(const GByteArray *bytes, const char *says)
{
    GError *error = NULL;
    Rig rig;

    rig_init(&rig);
    peer_send(rig.channel, bytes->data, bytes->len);
    side_serve(&rig.side, 0);
    assert_false(side_served(&rig.side, 0, &error));
    assert_non_null(strstr(error->message, "channel 0"));
    expect_error(&error, VMF_ERROR_PROTOCOL, says);
    /* RAM is as it was: all bytes are alike. */
    assert_int_equal(rig.side.ram[0], 0xee);
    assert_memory_equal(rig.side.ram, rig.side.ram + 1, SIDE_RAM - 1);
    rig_clear(&rig);
}

static void refuse_record(uint32_t type, uint32_t block, uint64_t offset, uint64_t length,
                          const char *says)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    put_record(bytes, (TcpRecordType)type, block, offset, length);
    put_fill(bytes, 0, 100);
    refuse(bytes, says);
}

static void serve__refuses_what_is_wrong(void **state)
{
    g_autoptr(GByteArray) nameless = g_byte_array_new();

    (void)state;
    refuse_record(0, 0, 0, 1, "type 0");
    refuse_record(99, 0, 0, 1, "type 99");
    refuse_record(TCP_RAM, 1, 0, 1, "not ours");
    refuse_record(TCP_RAM, 0, SIDE_RAM, 1, "not ours");
    refuse_record(TCP_RAM, 0, SIDE_RAM - 1, 2, "not ours");
    refuse_record(TCP_RAM, 0, UINT64_MAX, 2, "not ours");
    refuse_record(TCP_RAM, 0, 0, UINT64_MAX, "not ours");
    refuse_record(TCP_RAM, 0, 0, 0, "length 0");
    refuse_record(TCP_ZERO, 0, 1, SIDE_RAM, "not ours");
    refuse_record(TCP_ZERO, 7, 0, 1, "not ours");
    refuse_record(TCP_DEVICE, TCP_DEVICE_HEADER_MIN, 0, UINT64_MAX, "device");
    refuse_record(TCP_DEVICE, 0, 0, 1, "block 0");
    refuse_record(TCP_DEVICE, 4096, 0, 1, "block 4096");
    put_record(nameless, TCP_DEVICE, TCP_DEVICE_HEADER_MIN, 0, 5);
    put_fill(nameless, 0, TCP_DEVICE_HEADER_MIN + 5);
    refuse(nameless, "bad device header");
}

/* --- how it ends --- */

static void serve__silence_within_a_record_times_out(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    GError *error = NULL;
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig.side.conn->timeout_ms = 60;
    put_ram(bytes, 0, 0x44, 100);
    side_serve(&rig.side, 0);
    g_usleep(150000); /* a channel may be silent between records */
    peer_send(rig.channel, bytes->data, bytes->len - 1);
    assert_false(side_served(&rig.side, 0, &error));
    expect_error(&error, VMF_ERROR_TIMEOUT, "channel 0");
    rig_clear(&rig);
}

static void serve__cancel_ends_it(void **state)
{
    (void)state;
    for (unsigned within = 0; within < 2; within++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        Rig rig;

        rig_init(&rig);
        put_ram(bytes, 0, 0x44, 100);
        peer_send(rig.channel, bytes->data, within ? 50 : 0);
        side_serve(&rig.side, 0);
        g_usleep(20000);
        g_cancellable_cancel(rig.side.cancel);
        assert_true(side_served(&rig.side, 0, NULL));
        rig_clear(&rig);
    }
}

/* Whatever is under way: after revoke() RAM does not change. */
static void revoke__nothing_is_written_after_it(void **state)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autofree uint8_t *copy = g_malloc(SIDE_RAM);

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        put_ram(bytes, i * SIDE_QUARTER, (uint8_t)(0x50 + i), SIDE_QUARTER);
    }
    for (unsigned turn = 0; turn < 30; turn++) {
        size_t sent = 0;
        Rig rig;

        rig_init(&rig);
        side_serve(&rig.side, 0);
        while (sent < bytes->len * (turn % 6) / 5) {
            ssize_t n = send(rig.channel, bytes->data + sent, bytes->len - sent, MSG_NOSIGNAL);

            assert_true(n > 0 || errno == EAGAIN);
            sent += n > 0 ? (size_t)n : 0;
        }
        assert_true(tcp_revoke(rig.side.conn, NULL));
        memcpy(copy, rig.side.ram, SIDE_RAM);
        g_usleep(1000);
        assert_true(side_served(&rig.side, 0, NULL));
        assert_memory_equal(copy, rig.side.ram, SIDE_RAM);
        rig_clear(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(serve__takes_records_split_anywhere),
        cmocka_unit_test(serve__cut_within_a_record_is_an_error),
        cmocka_unit_test(serve__acknowledges_what_is_done),
        cmocka_unit_test(serve__unread_acknowledgements_do_no_harm),
        cmocka_unit_test(serve__refuses_what_is_wrong),
        cmocka_unit_test(serve__silence_within_a_record_times_out),
        cmocka_unit_test(serve__cancel_ends_it),
        cmocka_unit_test(revoke__nothing_is_written_after_it),
    };

    return cmocka_run_group_tests_name("tcp-serve", tests, NULL, NULL);
}
