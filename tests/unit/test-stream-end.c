/* SPDX-License-Identifier: BSD-2-Clause */
/* test-stream-end.c -- finding the end of QEMU's stream */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <glib.h>

#include "local-qemu/stream-end.h"
#include "support/test-filter.h"

#define FOOTER "\x7e\0\0\0\x09"
/* EOF, and a description of 9 bytes. */
#define END "\0\x06\0\0\0\x09{\"a\": 1}}"
#define TEXT(text) (const uint8_t *)(text), sizeof(text) - 1

static void description__is_found_at_the_end(void **state)
{
    (void)state;
    assert_int_equal(stream_end_described(TEXT("device" FOOTER END)), 11);
    assert_int_equal(stream_end_find(TEXT("device" FOOTER END)), 11);
    assert_int_equal(stream_end_described(TEXT(END)), 0);
    assert_int_equal(stream_end_described(TEXT(END "x")), -1);
    assert_int_equal(stream_end_find(TEXT(END "x")), -1);
}

static void description__is_not_there(void **state)
{
    (void)state;
    assert_int_equal(stream_end_described(TEXT("device" FOOTER "\0")), -1);
    assert_int_equal(stream_end_find(TEXT("device" FOOTER "\0")), 11);
    assert_int_equal(stream_end_find(TEXT("\0")), 0);
    assert_int_equal(stream_end_find(TEXT("device")), -1);
    assert_int_equal(stream_end_described(TEXT("device}")), -1);
}

/* Whatever part has come, only the whole is the end. */
static void description__comes_in_parts(void **state)
{
    static const char stream[] = "device" FOOTER END;

    (void)state;
    for (size_t size = 0; size <= sizeof(stream) - 1; size++) {
        g_autofree uint8_t *copy = g_malloc(MAX(size, 1));

        memcpy(copy, stream, size);
        assert_int_equal(stream_end_described(copy, size), size == sizeof(stream) - 1 ? 11 : -1);
    }
}

/* A device may have bytes that look like a description. */
static void description__false_ones_are_passed_over(void **state)
{
    (void)state;
    assert_int_equal(stream_end_described(TEXT(END "device" END)), 21);
    assert_int_equal(stream_end_described(TEXT(END "device}")), -1);
    /* The length is wrong, the type, the first byte. */
    assert_int_equal(stream_end_described(TEXT("\0\x06\0\0\0\x08{\"a\": 1}}")), -1);
    assert_int_equal(stream_end_described(TEXT("\0\x06\xff\xff\xff\xff{\"a\": 1}}")), -1);
    assert_int_equal(stream_end_described(TEXT("\0\x05\0\0\0\x09{\"a\": 1}}")), -1);
    assert_int_equal(stream_end_described(TEXT("\0\x06\0\0\0\x09[\"a\": 1}}")), -1);
    assert_int_equal(stream_end_described(TEXT("\x01\x06\0\0\0\x09{\"a\": 1}}")), -1);
}

static void description__of_any_length(void **state)
{
    static const size_t lengths[] = {2, 255, 256, 65536, 3u << 20};

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
        const size_t length = lengths[i], size = 100 + 6 + length;
        g_autofree uint8_t *stream = g_malloc0(size);
        uint8_t *end = stream + 100;

        end[1] = 6;
        for (unsigned byte = 0; byte < 4; byte++) {
            end[2 + byte] = (uint8_t)(length >> (24 - 8 * byte));
        }
        memset(end + 6, ' ', length);
        end[6] = '{';
        end[6 + length - 1] = '}';
        assert_int_equal(stream_end_described(stream, size), 100);
        assert_int_equal(stream_end_described(end, 6 + length), 0);
        assert_int_equal(stream_end_described(end + 1, 5 + length), -1);
        assert_int_equal(stream_end_described(stream, size - 1), -1);
    }
}

static void nothing__has_no_end(void **state)
{
    uint8_t none = 0;

    (void)state;
    assert_int_equal(stream_end_described(&none, 0), -1);
    assert_int_equal(stream_end_find(&none, 0), -1);
    assert_false(stream_end_bare(&none, 0, false));
    assert_false(stream_end_bare(&none, 0, true));
}

/* Where the stream may be broken off anywhere, a zero alone is not its end. */
static void bare__an_end_comes_after_a_footer(void **state)
{
    (void)state;
    assert_true(stream_end_bare(TEXT("device" FOOTER "\0"), true));
    assert_true(stream_end_bare(TEXT(FOOTER "\0"), true));
    assert_false(stream_end_bare(TEXT("\0\0\0\x09\0"), true));
    assert_false(stream_end_bare(TEXT("\0"), true));
    assert_false(stream_end_bare(TEXT("a device's state\0\0\0\0\0\0"), true));
    assert_false(stream_end_bare(TEXT("device" FOOTER), true));
    assert_false(stream_end_bare(TEXT("device\x7e\0\x01\0\x09\0"), true));
    assert_true(stream_end_bare(TEXT("an old machine's device\0"), false));
    assert_true(stream_end_bare(TEXT("\0"), false));
    assert_false(stream_end_bare(TEXT("an old machine's device"), false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(description__is_found_at_the_end),
        cmocka_unit_test(description__is_not_there),
        cmocka_unit_test(description__comes_in_parts),
        cmocka_unit_test(description__false_ones_are_passed_over),
        cmocka_unit_test(description__of_any_length),
        cmocka_unit_test(nothing__has_no_end),
        cmocka_unit_test(bare__an_end_comes_after_a_footer),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
