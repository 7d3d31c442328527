/* SPDX-License-Identifier: BSD-2-Clause */
/* test-wire.c -- vectors of the engine's messages and of the socket transports; the stream ring */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/message.h"
#include "session/stream-ring.h"
#include "socket/tcp-wire.h"

static void header__matches_its_vector_and_the_table(void **state)
{
    const uint8_t vector[] = {0, 0, 0, 2, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 5, 'a', 'b'};
    const MessageHeader header = {.length = 2, .type = MESSAGE_STREAM, .argument = 0x105};
    MessageHeader back;
    uint8_t out[MESSAGE_HEADER_BYTES], bad[sizeof(vector)];

    (void)state;
    message_header_encode(&header, out);
    assert_memory_equal(out, vector, sizeof(out));
    assert_true(message_header_decode(vector, sizeof(vector), VMF_ROLE_SOURCE, &back, NULL));
    assert_int_equal(back.argument, 0x105);
    for (size_t size = 0; size < sizeof(vector); size++) {
        assert_false(message_header_decode(vector, size, VMF_ROLE_SOURCE, &back, NULL));
    }
    memcpy(bad, vector, sizeof(bad));
    bad[5] = MESSAGE_LOADED; /* not from the source, and without a payload */
    assert_false(message_header_decode(bad, sizeof(bad), VMF_ROLE_SOURCE, &back, NULL));
    assert_false(message_header_decode(bad, sizeof(bad), VMF_ROLE_DESTINATION, &back, NULL));
    bad[5] = 0;
    assert_false(message_header_decode(bad, sizeof(bad), VMF_ROLE_SOURCE, &back, NULL));
    bad[5] = 200;
    assert_false(message_header_decode(bad, sizeof(bad), VMF_ROLE_SOURCE, &back, NULL));
    bad[4] = 1; /* private: only the transport can check it */
    assert_true(message_header_decode(bad, sizeof(bad), VMF_ROLE_SOURCE, &back, NULL));
}

static void hello__round_trips_and_refuses(void **state)
{
    MessageHello hello = {.protocol = 2,
                          .oldest = 2,
                          .uuid = {1, 2, 3},
                          .channels = 4,
                          .timeout_ms = 10000,
                          .parameters = {9, 9},
                          .parameters_size = 2};
    MessageHello back;
    uint8_t out[MESSAGE_HELLO_MAX];
    size_t size = message_hello_encode(&hello, out);
    const uint8_t start[] = {'V', 'M', 'F', 'Y', 0, 2, 0, 2, 1, 2, 3};

    (void)state;
    assert_int_equal(size, 41);
    assert_memory_equal(out, start, sizeof(start));
    assert_true(message_hello_decode(out, size, &back, NULL));
    assert_int_equal(back.channels, 4);
    assert_int_equal(back.parameters_size, 2);
    for (size_t cut = 0; cut < size; cut++) {
        assert_false(message_hello_decode(out, cut, &back, NULL));
    }
    out[5] = out[7] = 9; /* a peer that speaks only later protocols */
    assert_false(message_hello_decode(out, size, &back, NULL));
    out[5] = out[7] = 1; /* or only earlier ones, whose ERROR does not say who owns the VM */
    assert_false(message_hello_decode(out, size, &back, NULL));
    hello.channels = VMF_CHANNELS_MAX + 1;
    assert_false(message_hello_decode(out, message_hello_encode(&hello, out), &back, NULL));
}

static void blocks__round_trip_and_refuse(void **state)
{
    MessageBlock block = {.name = "pc.ram", .length = 1 << 30, .page_size = 4096}, back;
    uint8_t out[MESSAGE_BLOCK_MAX];
    size_t size = message_block_encode(&block, out);

    (void)state;
    assert_int_equal(size, 8 + 4 + 1 + 6);
    assert_int_equal(message_block_decode(out, size, &back, NULL), size);
    assert_string_equal(back.name, "pc.ram");
    assert_int_equal(back.length, 1 << 30);
    for (size_t cut = 0; cut < size; cut++) {
        assert_int_equal(message_block_decode(out, cut, &back, NULL), 0);
    }
    out[14] = '\0';
    assert_int_equal(message_block_decode(out, size, &back, NULL), 0);
}

static void devices__round_trip_and_refuse(void **state)
{
    static const uint8_t vector[] = {0, 0, 0, 7, 3, 'n', 'i', 'c'};
    MessageDevice device = {.idstr = "nic", .instance_id = 7}, back;
    uint8_t out[MESSAGE_DEVICE_MAX];

    (void)state;
    assert_int_equal(message_device_encode(&device, out), sizeof(vector));
    assert_memory_equal(out, vector, sizeof(vector));
    assert_int_equal(message_device_decode(out, sizeof(vector), &back, NULL), sizeof(vector));
    assert_string_equal(back.idstr, "nic");
    assert_int_equal(back.instance_id, 7);
    for (size_t cut = 0; cut < sizeof(vector); cut++) {
        assert_int_equal(message_device_decode(out, cut, &back, NULL), 0);
    }
    out[6] = '\0';
    assert_int_equal(message_device_decode(out, sizeof(vector), &back, NULL), 0);
}

static void error_text__is_made_printable(void **state)
{
    g_autofree char *text = message_error_text((const uint8_t *)"a\n\x1b[2J\xff", 7);

    (void)state;
    assert_true(g_utf8_validate(text, -1, NULL));
    assert_null(strpbrk(text, "\n\x1b"));
}

static void tcp__preamble_and_records_match_their_vectors(void **state)
{
    const uint8_t preamble_vector[TCP_PREAMBLE_BYTES] = {'V', 'M', 'F', 'T', 0, 1, 0,
                                                         2,   0,   3,   0,   0, 7};
    const uint8_t record_vector[TCP_RECORD_BYTES] = {0, 0, 0,  1, 0, 0, 0, 2, 0, 0, 0, 0,
                                                     0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 8, 0};
    TcpPreamble preamble = {.kind = TCP_KIND_CHANNEL, .channel = 3, .uuid = {7}}, preamble_back;
    TcpRecord record = {.type = TCP_RAM, .block = 2, .offset = 4096, .length = 2048}, back;
    uint8_t out[TCP_PREAMBLE_BYTES];

    (void)state;
    tcp_preamble_encode(&preamble, out);
    assert_memory_equal(out, preamble_vector, sizeof(out));
    assert_true(tcp_preamble_decode(out, &preamble_back, NULL));
    assert_int_equal(preamble_back.channel, 3);
    for (unsigned at = 0; at < 12; at++) { /* each byte except those of the UUID matters */
        memcpy(out, preamble_vector, sizeof(out));
        out[at] ^= 0x40;
        assert_false(tcp_preamble_decode(out, &preamble_back, NULL));
    }
    tcp_record_encode(&record, out);
    assert_memory_equal(out, record_vector, sizeof(record_vector));
    assert_true(tcp_record_decode(record_vector, &back, NULL));
    assert_int_equal(back.offset, 4096);
    out[3] = 9;
    assert_false(tcp_record_decode(out, &back, NULL));
}

static void stream__holds_bytes_until_their_sync(void **state)
{
    StreamRing ring = {0};
    uint8_t bytes[8], big[STREAM_RING - 3];
    const uint8_t *piece;
    uint64_t sync;

    (void)state;
    stream_put(&ring, "ab", 2, 0);
    stream_put(&ring, "cd", 2, 5);
    stream_put(&ring, "ef", 2, 7);
    assert_int_equal(stream_readable(&ring, 0), 2);
    assert_int_equal(stream_readable(&ring, 5), 4);
    assert_int_equal(stream_readable(&ring, 7), 6);
    assert_int_equal(stream_piece(&ring, 100, &piece, &sync), 2);
    assert_int_equal(sync, 0);
    stream_take(&ring, bytes, 2);
    assert_memory_equal(bytes, "ab", 2);
    assert_int_equal(stream_readable(&ring, 4), 0);
    assert_int_equal(stream_piece(&ring, 1, &piece, &sync), 1);
    assert_int_equal(sync, 5);
    stream_take(&ring, bytes, 4);
    assert_memory_equal(bytes, "cdef", 4);
    assert_int_equal(stream_room(&ring), STREAM_RING);
    /* Around the end of the ring. */
    memset(big, 'x', sizeof(big));
    stream_put(&ring, big, sizeof(big), 7);
    stream_take(&ring, NULL, sizeof(big) - 1);
    stream_put(&ring, "0123456", 7, 7);
    assert_int_equal(stream_readable(&ring, 7), 8);
    assert_int_equal(stream_piece(&ring, 100, &piece, &sync), 4); /* the rest is at the start */
    assert_memory_equal(piece, "x012", 4);
    stream_take(&ring, bytes, 8);
    assert_memory_equal(bytes, "x0123456", 8);
    stream_clear(&ring);
}

/* Only as much of its memory is touched as bytes wait in it, however many pass through. */
static void stream__begins_at_the_start_again_when_it_is_empty(void **state)
{
    StreamRing ring = {0};
    const uint8_t *piece;
    uint64_t sync;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        stream_put(&ring, "abc", 3, 0);
        stream_put(&ring, "def", 3, 0);
        assert_int_equal(stream_piece(&ring, 100, &piece, &sync), 6);
        assert_ptr_equal(piece, ring.data);
        assert_memory_equal(piece, "abcdef", 6);
        stream_take(&ring, NULL, 6);
    }
    assert_int_equal(ring.head, 18);
    stream_clear(&ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header__matches_its_vector_and_the_table),
        cmocka_unit_test(hello__round_trips_and_refuses),
        cmocka_unit_test(blocks__round_trip_and_refuse),
        cmocka_unit_test(devices__round_trip_and_refuse),
        cmocka_unit_test(error_text__is_made_printable),
        cmocka_unit_test(tcp__preamble_and_records_match_their_vectors),
        cmocka_unit_test(stream__holds_bytes_until_their_sync),
        cmocka_unit_test(stream__begins_at_the_start_again_when_it_is_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
