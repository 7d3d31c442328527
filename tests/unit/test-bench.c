/* SPDX-License-Identifier: BSD-2-Clause */
/* test-bench.c -- the benchmark refuses wrong answers, and plans that ask for too much */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "bench.h"

/* A return path on which the destination has said `said', and then has left. */
static bool loaded_when(const void *said, size_t size, GError **error)
{
    g_autoptr(VmfFile) back = NULL;
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], said, size), size);
    close(ends[1]);
    back = vmf_file_new_fd(ends[0], VMF_FILE_READ, NULL);
    return bench_await_loaded(back, error);
}

static void word__that_is_another_is_a_failure(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_false(loaded_when("FAIL", 4, &error));
    assert_int_equal(error->code, VMF_ERROR_PROTOCOL);
    assert_non_null(strstr(error->message, "0x4641494c"));
}

static void word__that_does_not_come_is_a_failure(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_false(loaded_when("LOA", 3, &error));
    assert_non_null(error);
}

static void word__that_says_loaded_is_taken(void **state)
{
    (void)state;
    assert_true(loaded_when("LOAD", 4, NULL));
}

static void plan__goes_to_the_other_side_as_it_is(void **state)
{
    const BenchPlan plan = {.ram = 1 << 20,
                            .page_size = 4096,
                            .stream = 7,
                            .devices = 3,
                            .device_size = 5,
                            .devices_slow = 2,
                            .device_delay_ms = 9,
                            .lead_seconds = 4,
                            .verify = true};
    g_autofree char *text = bench_plan_encode(&plan);
    BenchPlan there = {0};

    (void)state;
    assert_true(bench_plan_decode(text, -1, &there, NULL));
    assert_memory_equal(&plan, &there, sizeof(plan));
}

/*
 * A plan comes from the wire: 16 TiB of RAM in pages of 512 bytes need 4 GiB for their marks alone.
 */
static void plan__that_asks_for_too_much_is_an_error_and_no_abort(void **state)
{
    BenchPlan plan = {.ram = 1ull << 44, .page_size = 512};
    g_autofree char *text = bench_plan_encode(&plan);
    g_autoptr(GError) error = NULL;
    BenchMemory memory = {0};
    BenchPlan there = {0};

    (void)state;
    assert_true(bench_plan_decode(text, -1, &there, NULL));
    assert_false(bench_memory_init(&memory, &there, &error));
    assert_non_null(strstr(error->message, "too many pages of 512 bytes"));
    assert_null(memory.ram);
    plan.ram = (1ull << 44) + 1;
    g_free(text);
    text = bench_plan_encode(&plan);
    assert_false(bench_plan_decode(text, -1, &there, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(word__that_is_another_is_a_failure),
        cmocka_unit_test(word__that_does_not_come_is_a_failure),
        cmocka_unit_test(word__that_says_loaded_is_taken),
        cmocka_unit_test(plan__goes_to_the_other_side_as_it_is),
        cmocka_unit_test(plan__that_asks_for_too_much_is_an_error_and_no_abort),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
