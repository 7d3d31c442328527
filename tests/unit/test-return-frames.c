/* SPDX-License-Identifier: BSD-2-Clause */
/* test-return-frames.c -- following the messages of QEMU's return path */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "local-qemu/return-frames.h"
#include "support/test-filter.h"

/* PONG, a message without content, one with a content like SHUT, SHUT, PONG. */
static const uint8_t messages[] = {
    0, 2, 0, 4, 0, 1, 0, 4,                            /* PONG */
    0, 5, 0, 0,                                        /* empty */
    0, 4, 0, 5, 0, 1, 0, 4, 0, 0, 1, 0, 4, 0, 0, 0, 0, /* SHUT */
    0, 2, 0, 4, 0, 0, 0, 0,
};
#define SHUT_AT 21

/* SHUT counts when its header is whole. */
static bool shut_after(size_t bytes)
{
    return bytes >= SHUT_AT + 4;
}

static void frames__however_they_are_cut(void **state)
{
    (void)state;
    for (size_t first = 0; first <= sizeof(messages); first++) {
        for (size_t second = first; second <= sizeof(messages); second++) {
            ReturnFrames frames = {0};

            return_frames_follow(&frames, messages, first);
            assert_int_equal(frames.shut, shut_after(first));
            return_frames_follow(&frames, messages + first, second - first);
            assert_int_equal(frames.shut, shut_after(second));
            return_frames_follow(&frames, messages + second, sizeof(messages) - second);
            assert_true(frames.shut);
            assert_int_equal(frames.have, 0);
            assert_int_equal(frames.left, 0);
        }
    }
}

static void frames__byte_by_byte(void **state)
{
    ReturnFrames frames = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(messages); i++) {
        return_frames_follow(&frames, messages + i, 1);
        assert_int_equal(frames.shut, shut_after(i + 1));
    }
}

static void frames__the_longest_content_is_passed_over(void **state)
{
    static uint8_t content[4 + 65535];
    ReturnFrames frames = {0};

    (void)state;
    memset(content, 1, sizeof(content));
    content[0] = 0;
    content[1] = 3;
    content[2] = content[3] = 0xff;
    return_frames_follow(&frames, content, sizeof(content));
    assert_false(frames.shut);
    assert_int_equal(frames.left, 0);
}

static void frames__shut_is_what_is_followed(void **state)
{
    uint8_t shut[RETURN_SHUT_BYTES];
    ReturnFrames frames = {0};

    (void)state;
    return_shut_encode(shut);
    assert_memory_equal(shut, messages + SHUT_AT, sizeof(shut));
    return_frames_follow(&frames, shut, sizeof(shut));
    assert_true(frames.shut);
    return_frames_follow(&frames, messages, 0);
    assert_true(frames.shut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames__however_they_are_cut),
        cmocka_unit_test(frames__byte_by_byte),
        cmocka_unit_test(frames__the_longest_content_is_passed_over),
        cmocka_unit_test(frames__shut_is_what_is_followed),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
