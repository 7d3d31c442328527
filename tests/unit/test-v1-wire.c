/* SPDX-License-Identifier: BSD-2-Clause */
/* test-v1-wire.c -- stock QEMU's protocol, version 1: byte vectors, and what is refused */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <vmferry/error.h>

#include "qemu-v1/v1-wire.h"

static void capabilities__match_their_vector(void **state)
{
    const uint8_t vector[V1_CAPABILITIES_BYTES] = {0, 0, 0, 1, 0, 0, 0, 1};
    V1Capabilities capabilities = {.version = 1, .flags = V1_FLAG_PIN_ALL}, back;
    uint8_t out[V1_CAPABILITIES_BYTES], padded[56] = {0, 0, 0, 1, 0x40, 0, 0, 1};

    (void)state;
    v1_capabilities_encode(&capabilities, out);
    assert_memory_equal(out, vector, sizeof(out));
    assert_true(v1_capabilities_decode(vector, sizeof(vector), &back, NULL));
    assert_int_equal(back.flags, V1_FLAG_PIN_ALL);
    /* Padded, and with a flag that nobody knows. */
    assert_true(v1_capabilities_decode(padded, sizeof(padded), &back, NULL));
    assert_int_equal(back.flags, 0x40000001);
}

static void capabilities__of_other_versions_are_refused(void **state)
{
    const uint8_t zero[8] = {0}, two[8] = {0, 0, 0, 2}, random[8] = "random!";
    V1Capabilities back;
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_false(v1_capabilities_decode(zero, sizeof(zero), &back, NULL));
    assert_false(v1_capabilities_decode(random, sizeof(random), &back, NULL));
    assert_false(v1_capabilities_decode(NULL, 8, &back, NULL));
    assert_false(v1_capabilities_decode(two, 7, &back, NULL));
    assert_false(v1_capabilities_decode(two, sizeof(two), &back, &error));
    assert_non_null(strstr(error->message, "version 2"));
}

/* Encodes header and body, and compares with the vector. */
static void check_message(V1Type type, const uint8_t *body, size_t body_size, const uint8_t *vector)
{
    const V1Header header = {.type = type, .repeat = 1};
    g_autofree uint8_t *message = g_malloc0(V1_HEADER_BYTES + body_size);
    V1Header back;

    v1_header_encode(&header, body_size, message);
    if (body_size) {
        memcpy(message + V1_HEADER_BYTES, body, body_size);
    }
    assert_memory_equal(message, vector, V1_HEADER_BYTES + body_size);
    assert_true(v1_header_decode(vector, V1_HEADER_BYTES + body_size, &back, NULL));
    assert_int_equal(back.type, type);
    assert_int_equal(back.repeat, 1);
}

static void register__matches_its_vectors(void **state)
{
    static const uint8_t request_vector[] = {
        0, 0, 0, 0x18, 0, 0,    0,    7, 0, 0, 0, 1, 0, 0, 0, 0, /* header */
        0, 0, 0, 0,    0, 0x30, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    };
    static const uint8_t result_vector[] = {
        0, 0, 0,    0x10, 0, 0, 0, 8, 0, 0, 0,    1,    0, 0, 0, 0, /* header */
        0, 0, 0xab, 0xcd, 0, 0, 0, 0, 0, 0, 0x7f, 0x12, 0, 0, 0, 0,
    };
    const V1Register request = {.key = 0x301000};
    const V1Registered result = {.rkey = 0xabcd, .host = 0x7f1200000000};
    V1Register request_back;
    V1Registered result_back;
    uint8_t body[V1_REGISTER_BYTES];

    (void)state;
    v1_register_encode(&request, body);
    check_message(V1_REGISTER_REQUEST, body, V1_REGISTER_BYTES, request_vector);
    v1_register_decode(request_vector + V1_HEADER_BYTES, 0, &request_back);
    assert_int_equal(request_back.key, 0x301000);
    assert_int_equal(request_back.block, 0);
    assert_int_equal(request_back.chunks, 0);
    v1_registered_encode(&result, body);
    check_message(V1_REGISTER_RESULT, body, V1_REGISTERED_BYTES, result_vector);
    v1_registered_decode(result_vector + V1_HEADER_BYTES, 0, &result_back);
    assert_int_equal(result_back.rkey, 0xabcd);
    assert_int_equal(result_back.host, 0x7f1200000000);
}

static void compress__matches_its_vector(void **state)
{
    static const uint8_t vector[] = {
        0, 0, 0, 0x18, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0,    0, 0, /* header */
        0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0,
    };
    const V1Zero zero = {.offset = 0x300000, .length = 0x100000};
    V1Zero back;
    uint8_t body[V1_ZERO_BYTES];

    (void)state;
    v1_zero_encode(&zero, body);
    check_message(V1_COMPRESS, body, sizeof(body), vector);
    v1_zero_decode(vector + V1_HEADER_BYTES, &back);
    assert_int_equal(back.offset, 0x300000);
    assert_int_equal(back.length, 0x100000);
}

static void blocks__match_their_vector(void **state)
{
    static const uint8_t vector[] = {
        0, 0, 0,    0x40, 0,    0, 0, 5, 0, 0, 0, 1,    0,    0,    0, 0, /* header */
        0, 0, 0x7f, 0x12, 0,    0, 0, 0, 0, 0, 0, 0,    0,    0,    0, 0, 0, 0, 0, 0, 0x80, 0,    0,
        0, 0, 0,    0x12, 0x34, 0, 0, 0, 0, 0, 0, 0x7f, 0x11, 0x80, 0, 0, 0, 0, 0, 0, 0,    0x80, 0,
        0, 0, 0,    0,    0,    0, 0, 4, 0, 0, 0, 0,    0x12, 0x35, 0, 0, 0, 0,
    };
    const V1Block blocks[] = {
        {.host = 0x7f1200000000, .offset = 0, .length = 0x80000000, .rkey = 0x1234},
        {.host = 0x7f1180000000, .offset = 0x80000000, .length = 0x40000, .rkey = 0x1235},
    };
    uint8_t body[2 * V1_BLOCK_BYTES];
    V1Block back;

    (void)state;
    v1_block_encode(&blocks[0], body);
    v1_block_encode(&blocks[1], body + V1_BLOCK_BYTES);
    check_message(V1_RAM_BLOCKS_RESULT, body, sizeof(body), vector);
    v1_block_decode(vector + V1_HEADER_BYTES, 1, &back);
    assert_int_equal(back.host, blocks[1].host);
    assert_int_equal(back.offset, blocks[1].offset);
    assert_int_equal(back.length, blocks[1].length);
    assert_int_equal(back.rkey, blocks[1].rkey);
}

static void header__of_the_stream_may_hold_garbage(void **state)
{
    /* QEMU before 8.2 does not set the number and the padding. */
    static const uint8_t vector[] = {0,    0,    0,    1,    0,    0,    0,    3,  0xde,
                                     0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef, 'Q'};
    V1Header back;

    (void)state;
    assert_true(v1_header_decode(vector, sizeof(vector), &back, NULL));
    assert_int_equal(back.type, V1_QEMU_FILE);
}

static void refused(uint32_t length, uint32_t type, uint32_t repeat, size_t body_size,
                    const char *why)
{
    g_autofree uint8_t *message = g_malloc0(V1_HEADER_BYTES + body_size);
    const uint32_t words[] = {GUINT32_TO_BE(length), GUINT32_TO_BE(type), GUINT32_TO_BE(repeat)};
    g_autoptr(GError) error = NULL;
    V1Header back;

    memcpy(message, words, sizeof(words));
    assert_false(v1_header_decode(message, V1_HEADER_BYTES + body_size, &back, &error));
    assert_int_equal(error->code, VMF_ERROR_PROTOCOL);
    if (!strstr(error->message, why)) {
        fail_msg("\"%s\" does not say \"%s\"", error->message, why);
    }
}

static void header__that_cannot_be_is_refused(void **state)
{
    uint8_t cut[V1_HEADER_BYTES] = {0};
    V1Header back;

    (void)state;
    assert_false(v1_header_decode(cut, V1_HEADER_BYTES - 1, &back, NULL));
    refused(0, V1_NONE, 1, 0, "no such message");
    refused(0, 12, 1, 0, "no such message");
    refused(0xffffffff, V1_QEMU_FILE, 1, 4, "QEMU_FILE");
    refused(5, V1_QEMU_FILE, 1, 4, "its length");
    refused(0, V1_QEMU_FILE, 1, 0, "its length");
    refused(4, V1_READY, 1, 4, "READY");
    refused(4, V1_REGISTER_FINISHED, 1, 4, "should be empty");
    refused(23, V1_REGISTER_REQUEST, 1, 23, "no multiple");
    refused(48, V1_REGISTER_REQUEST, 1, 48, "its repeat is 1");
    refused(24, V1_REGISTER_REQUEST, 0, 24, "its repeat is 0");
    refused(24, V1_COMPRESS, 2, 24, "its repeat is 2");
    refused(24 * 4097, V1_REGISTER_REQUEST, 4097, 24 * 4097, "its repeat is 4097");
    refused(31, V1_RAM_BLOCKS_RESULT, 1, 31, "no multiple");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capabilities__match_their_vector),
        cmocka_unit_test(capabilities__of_other_versions_are_refused),
        cmocka_unit_test(register__matches_its_vectors),
        cmocka_unit_test(compress__matches_its_vector),
        cmocka_unit_test(blocks__match_their_vector),
        cmocka_unit_test(header__of_the_stream_may_hold_garbage),
        cmocka_unit_test(header__that_cannot_be_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
