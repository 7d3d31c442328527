/* SPDX-License-Identifier: BSD-2-Clause */
/* test-stream-ring.c -- the ring of a session's byte stream, and the syncs that its bytes need */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "session/stream-ring.h"

static void marks__of_single_bytes_cost_little(void **state)
{
    StreamRing ring = {0};
    uint64_t sync = 0;

    (void)state;
    while (stream_room(&ring)) {
        stream_put(&ring, "x", 1, ++sync);
    }
    assert_in_range(ring.marks.length, 1, STREAM_MARKS_MAX);
    /* No byte can be read before its own sync, and all can after the last. */
    assert_int_equal(stream_readable(&ring, 0), 0);
    assert_int_equal(stream_readable(&ring, 1), 1);
    for (uint64_t seen = 0; seen <= sync; seen += 4099) {
        assert_in_range(stream_readable(&ring, seen), 0, seen);
    }
    assert_int_equal(stream_readable(&ring, sync), STREAM_RING);
    stream_take(&ring, NULL, STREAM_RING);
    assert_int_equal(ring.sync, sync);
    assert_int_equal(ring.marks.length, 0);
    stream_clear(&ring);
}

static void marks__of_the_same_sync_are_one(void **state)
{
    StreamRing ring = {0};
    const uint8_t *data;
    uint64_t sync;

    (void)state;
    stream_put(&ring, "ab", 2, 0);
    stream_put(&ring, "cd", 2, 7);
    stream_put(&ring, "ef", 2, 7);
    assert_int_equal(ring.marks.length, 1);
    assert_int_equal(stream_readable(&ring, 6), 2);
    assert_int_equal(stream_readable(&ring, 7), 6);
    assert_int_equal(stream_piece(&ring, 100, &data, &sync), 2);
    assert_int_equal(sync, 0);
    stream_take(&ring, NULL, 2);
    assert_int_equal(stream_piece(&ring, 100, &data, &sync), 4);
    assert_int_equal(sync, 7);
    stream_clear(&ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks__of_single_bytes_cost_little),
        cmocka_unit_test(marks__of_the_same_sync_are_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
