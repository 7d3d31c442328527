/* SPDX-License-Identifier: BSD-2-Clause */
/* test-layout.c -- today's public headers against those that were kept: nothing has moved */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "layout.h"

static unsigned compare(const LayoutEntry *kept, const LayoutEntry *today)
{
    unsigned moved = 0;

    for (; kept->name; kept++, today++) {
        if (kept->offset != today->offset || kept->size != today->size) {
            print_error("%s was %zu, %zu bytes and is %zu, %zu bytes\n", kept->name, kept->offset,
                        kept->size, today->offset, today->size);
            moved++;
        }
    }
    return moved;
}

static void members__are_where_they_were(void **state)
{
    (void)state;
    assert_int_equal(compare(layout_kept, layout_today), 0);
}

static void structures__that_both_sides_have_keep_their_size(void **state)
{
    (void)state;
    assert_int_equal(compare(layout_fixed_kept, layout_fixed_today), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members__are_where_they_were),
        cmocka_unit_test(structures__that_both_sides_have_keep_their_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
