/* SPDX-License-Identifier: BSD-2-Clause */
/* test-v1-regions.c -- what requests tell about the length of the source's chunks */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "qemu-v1/v1-regions.h"

#define MIB_COUNT 3000

/* As a source asks that has chunks of `chunk' MiB, each by an address somewhere in it. */
static uint64_t bound_after(uint64_t chunk, const uint64_t *mib, unsigned count, uint64_t most)
{
    uint8_t asked[MIB_COUNT / 8 + 1] = {0};
    uint64_t bound = most;

    for (unsigned i = 0; i < count; i++) {
        bound = v1_regions_bound(asked, MIB_COUNT, mib[i], bound);
        assert_true(bound >= chunk);
        asked[mib[i] / 8] |= (uint8_t)(1u << (mib[i] % 8));
    }
    return bound;
}

static void one_request_bounds_no_chunk_size(void **state)
{
    const uint64_t one[] = {77};

    (void)state;
    assert_int_equal(bound_after(1, one, 1, 1024), 1024);
    assert_int_equal(bound_after(1, one, 1, 16), 16);
}

static void requests_for_neighbours_bound_the_chunk_size_to_their_distance(void **state)
{
    const uint64_t up[] = {0, 1}, down[] = {2999, 2998}, odd[] = {7, 8}, pair[] = {6, 7};

    (void)state;
    assert_int_equal(bound_after(1, up, 2, 1024), 1);
    assert_int_equal(bound_after(1, down, 2, 1024), 1);
    assert_int_equal(bound_after(1, pair, 2, 1024), 1);
    assert_int_equal(bound_after(8, odd, 2, 1024), 8); /* two of 8 MiB, or of less */
}

static void requests_far_apart_bound_the_chunk_size_to_their_distance(void **state)
{
    const uint64_t mib[] = {0, 512, 1024, 2047}, middle[] = {0, 512, 256};

    (void)state;
    assert_int_equal(bound_after(1, mib, 2, 1024), 512);
    assert_int_equal(bound_after(1, mib, 4, 1024), 512);
    assert_int_equal(bound_after(1, middle, 3, 1024), 256);
}

static void the_bound_is_never_below_the_truth(void **state)
{
    uint32_t random = 1;

    (void)state;
    for (unsigned run = 0; run < 2000; run++) {
        const uint64_t chunk = 1ull << run % 11;
        uint64_t mib[40];
        uint8_t seen[MIB_COUNT] = {0};
        unsigned count = 0;

        for (unsigned i = 0; i < 40; i++) {
            random = random * 1664525 + 1013904223;
            mib[count] = (random >> 8) % MIB_COUNT;
            if (!seen[mib[count] / chunk]) { /* each chunk once */
                seen[mib[count++] / chunk] = 1;
            }
        }
        bound_after(chunk, mib, count, 1024);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_request_bounds_no_chunk_size),
        cmocka_unit_test(requests_for_neighbours_bound_the_chunk_size_to_their_distance),
        cmocka_unit_test(requests_far_apart_bound_the_chunk_size_to_their_distance),
        cmocka_unit_test(the_bound_is_never_below_the_truth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
