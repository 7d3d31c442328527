/* SPDX-License-Identifier: BSD-2-Clause */
/* test-tcp-wire.c -- vectors of what the socket transports put on the wire */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "socket/tcp-wire.h"

static const uint8_t channel_preamble[TCP_PREAMBLE_BYTES] =
    "VMFT\0\1\0\2\0\77\0\0\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17";

static void refuse_preamble(size_t at, uint8_t value)
{
    uint8_t bytes[TCP_PREAMBLE_BYTES];
    TcpPreamble preamble;
    GError *error = NULL;

    memcpy(bytes, channel_preamble, sizeof(bytes));
    bytes[at] = value;
    assert_false(tcp_preamble_decode(bytes, &preamble, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_PROTOCOL));
    g_clear_error(&error);
}

static void preamble__matches_its_vectors(void **state)
{
    TcpPreamble preamble = {.kind = TCP_KIND_CHANNEL, .channel = 63};
    uint8_t bytes[TCP_PREAMBLE_BYTES];

    (void)state;
    for (unsigned i = 0; i < VMF_UUID_BYTES; i++) {
        preamble.uuid[i] = (uint8_t)i;
    }
    tcp_preamble_encode(&preamble, bytes);
    assert_memory_equal(bytes, channel_preamble, sizeof(bytes));
    memset(&preamble, 0xff, sizeof(preamble));
    assert_true(tcp_preamble_decode(bytes, &preamble, NULL));
    assert_int_equal(preamble.kind, TCP_KIND_CHANNEL);
    assert_int_equal(preamble.channel, 63);
    assert_memory_equal(preamble.uuid, channel_preamble + 12, VMF_UUID_BYTES);
}

static void preamble__strangers_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        refuse_preamble(i, 'x');
    }
    refuse_preamble(5, 2);  /* version */
    refuse_preamble(7, 0);  /* kind */
    refuse_preamble(7, 3);  /* kind */
    refuse_preamble(7, 1);  /* control with a channel number */
    refuse_preamble(8, 1);  /* channel 319 */
    refuse_preamble(9, 64); /* channel 64 */
    refuse_preamble(11, 1); /* reserved */
}

static void record__matches_its_vectors(void **state)
{
    static const uint8_t bytes[TCP_RECORD_BYTES] =
        "\0\0\0\1\0\0\0\2\1\2\3\4\5\6\7\10\0\0\0\0\0\20\0\0";
    const TcpRecord ram = {
        .type = TCP_RAM, .block = 2, .offset = 0x0102030405060708, .length = 0x100000};
    uint8_t encoded[TCP_RECORD_BYTES];
    TcpRecord record;

    (void)state;
    tcp_record_encode(&ram, encoded);
    assert_memory_equal(encoded, bytes, sizeof(bytes));
    assert_true(tcp_record_decode(bytes, &record, NULL));
    assert_int_equal(record.type, TCP_RAM);
    assert_int_equal(record.block, 2);
    assert_int_equal(record.offset, ram.offset);
    assert_int_equal(record.length, ram.length);
}

static bool decodes(uint32_t type, uint32_t block, uint64_t length)
{
    const TcpRecord record = {.type = (TcpRecordType)type, .block = block, .length = length};
    uint8_t bytes[TCP_RECORD_BYTES];
    g_autoptr(GError) error = NULL;
    TcpRecord back;
    bool ok;

    tcp_record_encode(&record, bytes);
    ok = tcp_record_decode(bytes, &back, &error);
    assert_true(ok || g_error_matches(error, VMF_ERROR, VMF_ERROR_PROTOCOL));
    return ok;
}

static void record__bounds_are_checked(void **state)
{
    (void)state;
    assert_false(decodes(0, 0, 1));
    assert_false(decodes(5, 9, 1));
    assert_true(decodes(TCP_RAM, 0, 1));
    assert_false(decodes(TCP_RAM, 0, 0));
    assert_true(decodes(TCP_ZERO, 0, UINT64_MAX)); /* the engine knows the block's length */
    assert_false(decodes(TCP_ZERO, 0, 0));
    assert_true(decodes(TCP_SYNC, 0, 0));
    assert_true(decodes(TCP_DEVICE, TCP_DEVICE_HEADER_MIN, 1));
    assert_false(decodes(TCP_DEVICE, TCP_DEVICE_HEADER_MIN - 1, 1)); /* no name */
    assert_true(decodes(TCP_DEVICE, TCP_DEVICE_HEADER_MAX, 1));
    assert_false(decodes(TCP_DEVICE, TCP_DEVICE_HEADER_MAX + 1, 1));
    assert_false(decodes(TCP_DEVICE, TCP_DEVICE_HEADER_MIN, 0));
}

static void device__matches_its_vectors(void **state)
{
    static const uint8_t bytes[] = "\0\0\0\1\0\0\0\2\0\0\0\1"
                                   "\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0\5nic";
    VmfDeviceHeader header = {.idstr = "nic",
                              .instance_id = 1,
                              .index = 2,
                              .flags = 1,
                              .total = 3,
                              .offset = 4,
                              .place = 5};
    uint8_t encoded[TCP_DEVICE_HEADER_MAX];

    (void)state;
    assert_int_equal(tcp_device_encode(&header, encoded), sizeof(bytes) - 1);
    assert_memory_equal(encoded, bytes, sizeof(bytes) - 1);
    memset(&header, 0xff, sizeof(header));
    assert_true(tcp_device_decode(bytes, sizeof(bytes) - 1, &header, NULL));
    assert_string_equal(header.idstr, "nic");
    assert_int_equal(header.instance_id, 1);
    assert_int_equal(header.index, 2);
    assert_int_equal(header.flags, 1);
    assert_int_equal(header.total, 3);
    assert_int_equal(header.offset, 4);
    assert_int_equal(header.place, 5);
}

static void device__bounds_are_checked(void **state)
{
    uint8_t bytes[TCP_DEVICE_FIXED_BYTES + 256];
    VmfDeviceHeader header;

    (void)state;
    memset(bytes, 'n', sizeof(bytes));
    assert_true(tcp_device_decode(bytes, TCP_DEVICE_HEADER_MAX, &header, NULL));
    assert_int_equal(strlen(header.idstr), 255);
    for (size_t size = 0; size < TCP_DEVICE_HEADER_MIN; size++) {
        assert_false(tcp_device_decode(bytes, size, &header, NULL));
    }
    assert_false(tcp_device_decode(bytes, TCP_DEVICE_HEADER_MAX + 1, &header, NULL));
    bytes[TCP_DEVICE_FIXED_BYTES + 2] = '\0'; /* a name with an end in the middle */
    assert_false(tcp_device_decode(bytes, TCP_DEVICE_FIXED_BYTES + 5, &header, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(preamble__matches_its_vectors),
        cmocka_unit_test(preamble__strangers_are_refused),
        cmocka_unit_test(record__matches_its_vectors),
        cmocka_unit_test(record__bounds_are_checked),
        cmocka_unit_test(device__matches_its_vectors),
        cmocka_unit_test(device__bounds_are_checked),
    };

    return cmocka_run_group_tests_name("tcp-wire", tests, NULL, NULL);
}
