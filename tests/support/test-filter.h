/* SPDX-License-Identifier: BSD-2-Clause */
/* test-filter.h -- which tests of a program run, by the environment */

#ifndef VMF_TESTS_TEST_FILTER_H
#define VMF_TESTS_TEST_FILTER_H

#include <stdlib.h>
#include <glib.h>

/*
 * Only the tests run whose names match VMFERRY_TEST_FILTER (* and ?, no sets of letters), and not
 * those that match VMFERRY_TEST_SKIP. A filter that matches no name is a mistake: the program ends
 * with status 1, because a run of no test must not pass for a success. Include it after cmocka.h.
 */
#define FILTER_TESTS(tests) filter_tests(tests, G_N_ELEMENTS(tests))

static inline void filter_tests(const struct CMUnitTest *tests, size_t count)
{
    const char *filter = g_getenv("VMFERRY_TEST_FILTER");
    size_t matching = 0;

    for (size_t i = 0; filter && i < count; i++) {
        matching += g_pattern_match_simple(filter, tests[i].name);
    }
    if (filter && !matching) {
        g_printerr("VMFERRY_TEST_FILTER=%s matches no test\n", filter);
        exit(1);
    }
    cmocka_set_test_filter(filter);
    cmocka_set_skip_filter(g_getenv("VMFERRY_TEST_SKIP"));
}

#endif
