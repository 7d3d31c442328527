/* SPDX-License-Identifier: BSD-2-Clause */
/* test-return-frames.c -- the messages of QEMU's return path */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "local-qemu/return-frames.h"
#include "support/test-filter.h"

static void frames__a_header_is_two_numbers(void **state)
{
    static const uint8_t bytes[RETURN_HEADER_BYTES] = {0x12, 0x34, 0xff, 0xfe};
    ReturnHeader header;

    (void)state;
    return_header_decode(bytes, &header);
    assert_int_equal(header.type, 0x1234);
    assert_int_equal(header.bytes, 0xfffe);
}

/* The bytes are those of QEMU's streams. */
static void frames__what_is_made_here(void **state)
{
    static const uint8_t shut[] = {0, 1, 0, 4, 0, 0, 0, 0}, ack[] = {0, 7, 0, 0};
    uint8_t bytes[RETURN_SHUT_BYTES];

    (void)state;
    return_shut_encode(bytes);
    assert_memory_equal(bytes, shut, sizeof(shut));
    return_ack_encode(bytes);
    assert_memory_equal(bytes, ack, sizeof(ack));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames__a_header_is_two_numbers),
        cmocka_unit_test(frames__what_is_made_here),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
