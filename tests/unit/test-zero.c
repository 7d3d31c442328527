/* SPDX-License-Identifier: BSD-2-Clause */
/* test-zero.c -- the zero test against a plain one: every size, alignment and place of a bit */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <glib.h>

#include <vmferry/ram.h>

#define SIZES 1200 /* more than four blocks of the vector loop */
#define ALIGNMENTS 64

/* Neighbours that are not zero show an access too far in either direction. */
static void is_zero__any_size_and_alignment_between_ones(void **state)
{
    static uint8_t memory[SIZES + 2 * ALIGNMENTS];

    (void)state;
    for (size_t alignment = 1; alignment <= ALIGNMENTS; alignment++) {
        for (size_t size = 0; size <= SIZES; size++) {
            memset(memory, 0xff, sizeof(memory));
            memset(memory + alignment, 0, size);
            if (!vmf_is_zero(memory + alignment, size)) {
                fail_msg("%zu zero bytes at %zu count as not zero", size, alignment);
            }
        }
    }
}

static void is_zero__one_bit_anywhere_is_seen(void **state)
{
    static const size_t sizes[] = {1, 7, 8, 9, 63, 255, 256, 257, 511, 512, 513, 777, 1023, SIZES};
    static uint8_t memory[SIZES + ALIGNMENTS];

    (void)state;
    for (size_t alignment = 0; alignment < ALIGNMENTS; alignment += 3) {
        for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
            for (size_t at = 0; at < sizes[i]; at++) {
                memory[alignment + at] = (uint8_t)(1u << (at % 8));
                if (vmf_is_zero(memory + alignment, sizes[i])) {
                    fail_msg("byte %zu of %zu at %zu was overlooked", at, sizes[i], alignment);
                }
                memory[alignment + at] = 0;
            }
        }
    }
}

static void is_zero__big_pages(void **state)
{
    const size_t size = 2u << 20;
    g_autofree uint8_t *memory = g_malloc0(size);

    (void)state;
    assert_true(vmf_is_zero(memory, size));
    for (size_t at = 5; at < size; at = at * 2 + 1) {
        memory[at] = 1;
        assert_false(vmf_is_zero(memory, size));
        memory[at] = 0;
    }
    assert_true(vmf_is_zero(memory, size));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_zero__any_size_and_alignment_between_ones),
        cmocka_unit_test(is_zero__one_bit_anywhere_is_seen),
        cmocka_unit_test(is_zero__big_pages),
    };

    return cmocka_run_group_tests_name("zero", tests, NULL, NULL);
}
