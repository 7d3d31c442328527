/* SPDX-License-Identifier: BSD-2-Clause */
/* test-rdma-wire.c -- test vectors of the rdma: wire format, and refusal of everything else */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

static const uint8_t uuid[VMF_UUID_BYTES] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                             0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

static const uint8_t hello_vector[WIRE_HELLO_BYTES] = {
    0x00, 0x00, 0x00, 0x01,                         /* version, as stock QEMU */
    0x80, 0x00, 0x00, 0x00,                         /* the vmferry flag */
    'V',  'M',  'F',  'Y',                          /* magic */
    0x00, 0x02, 0x00, 0x05,                         /* channel 5 */
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, /* uuid */
    0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, /* uuid */
    0x00, 0x00, 0x00, 0x01,                         /* revision */
};

static void hello__matches_its_vector(void **state)
{
    WireHello hello = {.kind = WIRE_KIND_CHANNEL, .channel = 5}, back;
    uint8_t out[WIRE_HELLO_BYTES];

    (void)state;
    memcpy(hello.uuid, uuid, sizeof(uuid));
    wire_hello_encode(&hello, out);
    assert_memory_equal(out, hello_vector, sizeof(out));
    assert_true(wire_hello_decode(hello_vector, sizeof(hello_vector), &back, NULL));
    assert_int_equal(back.kind, WIRE_KIND_CHANNEL);
    assert_int_equal(back.channel, 5);
    assert_memory_equal(back.uuid, uuid, sizeof(uuid));
}

static void reject__carries_its_reason(void **state)
{
    const uint8_t vector[] = {'V', 'M', 'F', 'Y', 'n', 'o', ' ', 'r', 'o', 'o', 'm'};
    const uint8_t bad_text[] = {'V', 'M', 'F', 'Y', 0xff, 0xfe, 'x'};
    uint8_t out[WIRE_REJECT_BYTES], padded[148] = {0};
    g_autofree char *long_text = g_strnfill(300, 'x');
    g_autofree char *plain = NULL, *from_padded = NULL, *cut = NULL, *valid = NULL;

    (void)state;
    assert_int_equal(wire_reject_encode("no room", out), sizeof(vector));
    assert_memory_equal(out, vector, sizeof(vector));
    plain = wire_reject_decode(vector, sizeof(vector));
    assert_string_equal(plain, "no room");
    memcpy(padded, vector, sizeof(vector));
    from_padded = wire_reject_decode(padded, sizeof(padded));
    assert_string_equal(from_padded, "no room");

    assert_int_equal(wire_reject_encode(long_text, out), WIRE_REJECT_BYTES);
    cut = wire_reject_decode(out, sizeof(out));
    assert_int_equal(strlen(cut), WIRE_REJECT_BYTES - 4);

    valid = wire_reject_decode(bad_text, sizeof(bad_text));
    assert_true(g_utf8_validate(valid, -1, NULL));
    assert_null(wire_reject_decode(NULL, 0));
    assert_null(wire_reject_decode(vector, 4));
    assert_null(wire_reject_decode(vector + 1, sizeof(vector) - 1));
}

static void hello__is_read_from_padded_private_data(void **state)
{
    uint8_t padded[56] = {0};
    WireHello back;

    (void)state;
    memcpy(padded, hello_vector, sizeof(hello_vector));
    assert_true(wire_hello_decode(padded, sizeof(padded), &back, NULL));
    assert_int_equal(back.channel, 5);
}

static void hello__refuses_strangers(void **state)
{
    static const struct {
        unsigned at;
        uint8_t value;
    } changes[] = {{3, 2}, {4, 0}, {8, 'X'}, {13, 3}, {13, 0}, {15, 64}, {35, 2}};
    const uint8_t stock[8] = {0, 0, 0, 1, 0, 0, 0, 1};
    WireHello back;

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(changes); i++) {
        uint8_t data[WIRE_HELLO_BYTES];
        g_autoptr(GError) error = NULL;

        memcpy(data, hello_vector, sizeof(data));
        data[changes[i].at] = changes[i].value;
        assert_false(wire_hello_decode(data, sizeof(data), &back, &error));
        assert_int_equal(error->code, VMF_ERROR_PROTOCOL);
    }
    assert_false(wire_hello_decode(stock, sizeof(stock), &back, NULL));
    assert_false(wire_hello_decode(NULL, 0, &back, NULL));
    for (size_t size = 0; size < WIRE_HELLO_BYTES; size++) {
        assert_false(wire_hello_decode(hello_vector, size, &back, NULL));
    }
}

static void header__matches_its_vector(void **state)
{
    const uint8_t vector[WIRE_HEADER_BYTES] = {0x00, 0x05, 0x00, 0x01, 0xff, 0xff, 0xff, 0xfe};
    WireHeader header = {.kind = WIRE_REGISTER, .flags = WIRE_ACK_NOW, .processed = 0xfffffffe};
    WireHeader back;
    uint8_t out[WIRE_HEADER_BYTES];

    (void)state;
    wire_header_encode(&header, out);
    assert_memory_equal(out, vector, sizeof(out));
    assert_true(wire_header_decode(vector, sizeof(vector), &back, NULL));
    assert_int_equal(back.kind, WIRE_REGISTER);
    assert_int_equal(back.flags, WIRE_ACK_NOW);
    assert_int_equal(back.processed, 0xfffffffe);
    assert_false(wire_header_decode(vector, 7, &back, NULL));
    out[1] = 0;
    assert_false(wire_header_decode(out, sizeof(out), &back, NULL));
    out[1] = 11;
    assert_false(wire_header_decode(out, sizeof(out), &back, NULL));
}

static void ranges__match_their_vector(void **state)
{
    const uint8_t vector[WIRE_RANGE_BYTES] = {0, 0, 0, 3, 0, 0x10, 0, 0, 0, 0, 0, 1, 0, 0x30, 0, 0};
    WireRange range = {.block = 3, .length = 0x100000, .offset = 0x100300000}, back;
    uint8_t out[WIRE_RANGE_BYTES];
    g_autoptr(GError) error = NULL;

    (void)state;
    wire_range_encode(&range, out);
    assert_memory_equal(out, vector, sizeof(out));
    assert_int_equal(wire_range_count(2 * WIRE_RANGE_BYTES, NULL), 2);
    wire_range_decode(vector, 0, &back);
    assert_int_equal(back.block, 3);
    assert_int_equal(back.length, 0x100000);
    assert_int_equal(back.offset, 0x100300000);
    assert_int_equal(wire_range_count(0, &error), -1);
    g_clear_error(&error);
    assert_int_equal(wire_range_count(17, &error), -1);
    assert_int_equal(error->code, VMF_ERROR_PROTOCOL);
}

static void register__matches_its_vector_and_checks_counts(void **state)
{
    const uint8_t vector[] = {0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0,
                              0, 1, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 8};
    WireRegister message = {.evicted = 1, .wanted = 2, .chunks = {{0, 9}, {1, 7}, {1, 8}}}, back;
    uint8_t out[64];

    (void)state;
    assert_int_equal(wire_register_encode(&message, out, sizeof(out)), sizeof(vector));
    assert_memory_equal(out, vector, sizeof(vector));
    assert_true(wire_register_decode(vector, sizeof(vector), &back, NULL));
    assert_int_equal(back.evicted, 1);
    assert_int_equal(back.wanted, 2);
    assert_int_equal(back.chunks[2].index, 8);
    for (size_t size = 0; size < sizeof(vector); size++) {
        assert_false(wire_register_decode(vector, size, &back, NULL));
    }
    out[1] = WIRE_REGISTER_MAX;
    assert_false(wire_register_decode(out, sizeof(vector), &back, NULL));
    memset(out, 0, 4);
    assert_false(wire_register_decode(out, 4, &back, NULL));
}

static void results__match_their_vector(void **state)
{
    const uint8_t vector[] = {0, 0, 0, 0, 0, 0, 0xab, 0xcd, 0, 0, 0, 12, 0, 0, 0, 0};
    WireResult results[2] = {{0, 0xabcd}, {12, 0}}, back[2];
    uint8_t out[16];

    (void)state;
    assert_int_equal(wire_results_encode(results, 2, out, sizeof(out)), sizeof(vector));
    assert_memory_equal(out, vector, sizeof(vector));
    assert_true(wire_results_decode(vector, sizeof(vector), 2, back, NULL));
    assert_int_equal(back[1].status, 12);
    assert_false(wire_results_decode(vector, sizeof(vector), 1, back, NULL));
    assert_false(wire_results_decode(vector, sizeof(vector) - 1, 2, back, NULL));
}

static void device__round_trips_and_refuses_bad_headers(void **state)
{
    const uint8_t vector[] = {3, 'n', 'i', 'c', 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 1,
                              0, 0,   0,   0,   0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0,
                              0, 0,   0,   0,   0, 0, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0};
    VmfDeviceHeader header = {.idstr = "nic",
                              .instance_id = 2,
                              .index = 7,
                              .flags = 1,
                              .total = 3 * 65536,
                              .offset = 2 * 65536,
                              .place = 4,
                              .size = 65536},
                    back;
    uint8_t out[WIRE_DEVICE_HEADER_MAX];
    uint8_t bad[sizeof(vector)];

    (void)state;
    assert_int_equal(wire_device_encode(&header, out, sizeof(out)), sizeof(vector));
    assert_memory_equal(out, vector, sizeof(vector));
    assert_int_equal(wire_device_decode(vector, sizeof(vector), &back, NULL), sizeof(vector));
    assert_string_equal(back.idstr, "nic");
    assert_int_equal(back.flags, 1);
    assert_int_equal(back.total, 3 * 65536);
    assert_int_equal(back.offset, 2 * 65536);
    assert_int_equal(back.place, 4);
    assert_int_equal(back.size, 65536);
    memcpy(bad, vector, sizeof(bad));
    bad[2] = 0; /* a NUL inside the name */
    assert_int_equal(wire_device_decode(bad, sizeof(bad), &back, NULL), 0);
    memcpy(bad, vector, sizeof(bad));
    bad[0] = 0; /* no name */
    assert_int_equal(wire_device_decode(bad, sizeof(bad), &back, NULL), 0);
    memcpy(bad, vector, sizeof(bad));
    bad[45] = 0; /* no bytes */
    assert_int_equal(wire_device_decode(bad, sizeof(bad), &back, NULL), 0);
    assert_int_equal(wire_device_decode(vector, sizeof(vector) - 1, &back, NULL), 0);
}

static void parameters__match_their_vector(void **state)
{
    const uint8_t vector[WIRE_PARAMETERS_BYTES] = {0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x10,
                                                   0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 1};
    WireParameters p = {.revision = 1,
                        .registration = 1,
                        .chunk_size = 0x100000,
                        .pin_budget = 0x4000000,
                        .device_flags = WIRE_DEVICE_ODP};
    WireParameters back;
    uint8_t out[WIRE_PARAMETERS_BYTES];

    (void)state;
    wire_parameters_encode(&p, out);
    assert_memory_equal(out, vector, sizeof(out));
    assert_true(wire_parameters_decode(vector, sizeof(vector), &back, NULL));
    assert_int_equal(back.pin_budget, 0x4000000);
    assert_false(wire_parameters_decode(vector, sizeof(vector) - 1, &back, NULL));
    out[3] = 2;
    assert_false(wire_parameters_decode(out, sizeof(out), &back, NULL));
}

static void memory__matches_its_vector_and_checks_its_end(void **state)
{
    const uint8_t vector[WIRE_MEMORY_BYTES] = {0, 0, 0x7f, 0, 0, 0, 0x10, 0, 0,    0,
                                               0, 0, 4,    0, 0, 0, 0xab, 0, 0xcd, 1};
    WireMemory memory = {.address = 0x7f0000001000, .bytes = 0x4000000, .rkey = 0xab00cd01}, back;
    uint8_t out[WIRE_MEMORY_BYTES];

    (void)state;
    wire_memory_encode(&memory, out);
    assert_memory_equal(out, vector, sizeof(out));
    assert_true(wire_memory_decode(vector, sizeof(vector), &back, NULL));
    assert_int_equal(back.address, memory.address);
    assert_int_equal(back.bytes, memory.bytes);
    assert_int_equal(back.rkey, memory.rkey);
    assert_false(wire_memory_decode(vector, sizeof(vector) - 1, &back, NULL));
    memory.bytes = 0;
    wire_memory_encode(&memory, out);
    assert_false(wire_memory_decode(out, sizeof(out), &back, NULL));
    memory = (WireMemory){.address = UINT64_MAX - 10, .bytes = 11};
    wire_memory_encode(&memory, out);
    assert_false(wire_memory_decode(out, sizeof(out), &back, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello__matches_its_vector),
        cmocka_unit_test(hello__is_read_from_padded_private_data),
        cmocka_unit_test(hello__refuses_strangers),
        cmocka_unit_test(header__matches_its_vector),
        cmocka_unit_test(reject__carries_its_reason),
        cmocka_unit_test(ranges__match_their_vector),
        cmocka_unit_test(register__matches_its_vector_and_checks_counts),
        cmocka_unit_test(results__match_their_vector),
        cmocka_unit_test(device__round_trips_and_refuses_bad_headers),
        cmocka_unit_test(parameters__match_their_vector),
        cmocka_unit_test(memory__matches_its_vector_and_checks_its_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
