/* SPDX-License-Identifier: BSD-2-Clause */
/* test-engine-migration.c -- two stock QEMUs migrate over the engine */

#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "engine-rig.h"
#include "socket-rdma.h"
#include "support/test-filter.h"

static void migrate__ram_by_chunks(void **state)
{
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig_run(&rig);
    rig_assert_moved(&rig);
    rig_clear(&rig);
}

static void migrate__pin_all_pins_at_the_other_end(void **state)
{
    const unsigned pinned = socket_rdma_pinned();
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig.source.pin_all = true;
    rig_run(&rig);
    rig_assert_moved(&rig);
    assert_true(rig.source.pin_all);
    assert_true(socket_rdma_pinned() > pinned);
    rig_clear(&rig);
}

/* Both messages of the tests' destination come back: PONG and SHUT. */
static void migrate__a_return_path_works_both_ways(void **state)
{
    static const uint8_t answers[] = {0, 2, 0, 4, 0, 0, 0, 1, 0, 1, 0, 4, 0, 0, 0, 0};

    (void)state;
    for (unsigned pin_all = 0; pin_all < 2; pin_all++) {
        Rig rig;

        rig_init(&rig);
        rig.source.pin_all = pin_all;
        rig.source.return_path = rig.destination.return_path = true;
        rig_run(&rig);
        rig_assert_moved(&rig);
        assert_int_equal(rig.source.returned->len, sizeof(answers));
        assert_memory_equal(rig.source.returned->data, answers, sizeof(answers));
        rig_clear(&rig);
    }
}

/* QEMU without postcopy-ram takes no second connection. */
static void migrate__a_destination_without_a_return_path_is_refused(void **state)
{
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig.source.return_path = true;
    rig_run(&rig);
    rig_assert_kept(&rig);
    rig_clear(&rig);
}

static void migrate__a_description_of_any_length(void **state)
{
    static const size_t lengths[] = {2, 32768 - 6, 32768, 100000};

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
        Rig rig;

        rig_init(&rig);
        rig.source.described = rig.destination.described = lengths[i];
        rig.source.rounds = 1;
        rig_run(&rig);
        rig_assert_moved(&rig);
        rig_clear(&rig);
    }
}

/* An old machine type: nobody sees the end before the source hangs up. */
static void migrate__without_a_description(void **state)
{
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig.source.described = rig.destination.described = 0;
    rig_run(&rig);
    rig_assert_moved(&rig);
    rig_clear(&rig);
}

static void migrate__again_in_the_same_process(void **state)
{
    char service[16];

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        Rig rig;

        rig_init(&rig);
        if (i) { /* the address of the first one */
            memcpy(rig.service, service, sizeof(service));
        }
        memcpy(service, rig.service, sizeof(service));
        rig.source.return_path = rig.destination.return_path = i == 1;
        rig_run(&rig);
        rig_assert_moved(&rig);
        rig_clear(&rig);
    }
}

/* The last message is complete, and QEMU does not look. */
static bool wait_before_looking(void *opaque, SourceStep step)
{
    Rig *rig = opaque;

    if (step != SOURCE_LAST) {
        return true;
    }
    rig_await_last(rig);
    g_usleep(200000); /* it would come now */
    g_assert_false(g_atomic_int_get(&rig->destination.got_eof));
    return true;
}

static void give__the_destination_waits_until_the_source_has_looked(void **state)
{
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig.source.at = wait_before_looking;
    rig_run(&rig);
    rig_assert_moved(&rig);
    rig_clear(&rig);
}

/* The destination has the VM, and says nothing yet. */
static bool wait_for_shut(void *opaque, DestinationStep step)
{
    Rig *rig = opaque;

    for (unsigned i = 0;
         step == DESTINATION_EOF && i < 5000 && !g_atomic_int_get(&rig->source.shut); i++) {
        g_usleep(1000);
    }
    return step != DESTINATION_EOF || g_atomic_int_get(&rig->source.shut);
}

/*
 * QEMU's source runs its VM on if it is cancelled while it waits for SHUT. So it has got SHUT when
 * the VM is given away, and waits for nothing.
 */
static void give__the_source_does_not_wait_for_the_return_path(void **state)
{
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig.source.return_path = rig.destination.return_path = true;
    rig.destination.at = wait_for_shut;
    rig_run(&rig);
    rig_assert_moved(&rig);
    rig_clear(&rig);
}

static bool cut_after_eof(void *opaque, DestinationStep step)
{
    (void)opaque;
    if (step == DESTINATION_EOF) {
        socket_rdma_cut(true);
    }
    return true;
}

/* The destination runs the VM, but its SHUT is lost. */
static void give__a_lost_connection_after_go_shuts_the_return_path(void **state)
{
    static const uint8_t shut[] = {0, 1, 0, 4, 0, 0, 0, 0};
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig.source.return_path = rig.destination.return_path = true;
    rig.destination.at = cut_after_eof;
    rig_run(&rig);
    socket_rdma_cut(false);
    rig_assert_moved(&rig);
    assert_true(rig.source.returned->len >= sizeof(shut));
    assert_memory_equal(rig.source.returned->data + rig.source.returned->len - sizeof(shut), shut,
                        sizeof(shut));
    rig_clear(&rig);
}

/* The head of SHUT and one byte more, long before the VM is here. */
static bool begin_a_shut(void *opaque, DestinationStep step)
{
    static const uint8_t begun[5] = {0, 1, 0, 4, 0};
    Rig *rig = opaque;

    if (step != DESTINATION_RAM_ENDED) {
        return true;
    }
    if (link_exchange(&rig->destination.back, V1_QEMU_FILE, begun, sizeof(begun))) {
        g_usleep(G_USEC_PER_SEC / 4); /* for the bytes to arrive, or else the check shows less */
    }
    return false;
}

/* QEMU's source waits for its return path to end, so that it must end. */
static void return_path__that_ends_in_a_message_fails(void **state)
{
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig.source.return_path = rig.destination.return_path = true;
    rig.destination.at = begin_a_shut;
    rig_run(&rig);
    rig_assert_kept(&rig);
    assert_true(rig.source.back_failed);
    assert_int_equal(rig.source.returned->len, 8); /* the PONG, and nothing of SHUT */
    rig_clear(&rig);
}

/* --- when the VM may be stopped --- */

static void await(const gint *flag)
{
    for (unsigned i = 0; i < 5000 && !g_atomic_int_get(flag); i++) {
        g_usleep(1000);
    }
    assert_true(g_atomic_int_get(flag));
}

/* After so many rounds QEMU has the acknowledgement, and not before. */
static unsigned rounds_held;

/* The destination acknowledges before its PONG. */
static bool look_for_the_acknowledgement(void *opaque, SourceStep step)
{
    Rig *rig = opaque;

    if (step == SOURCE_ROUND && rig->source.round < rounds_held) {
        await(&rig->source.pong);
        assert_int_equal(g_atomic_int_get(&rig->source.acknowledged), 0);
    } else if (step == SOURCE_ROUND) {
        await(&rig->source.acknowledged);
    }
    return true;
}

static void switch_over(const char *option, unsigned held, bool idle, bool grows)
{
    Rig rig;

    rig_init(&rig);
    g_strlcat(rig.host, option, sizeof(rig.host));
    rig.source.return_path = rig.destination.return_path = true;
    rig.destination.acknowledges = true;
    rig.source.rounds = 4;
    rig.source.idle = idle;
    rig.source.grows = grows;
    rig.source.at = look_for_the_acknowledgement;
    rounds_held = held;
    rig_run(&rig);
    rig_assert_moved(&rig);
    assert_int_equal(rig.source.returned->len,
                     8 + 4 + 8); /* PONG, once the acknowledgement, SHUT */
    rig_clear(&rig);
}

static void switchover__is_not_held_back_by_default(void **state)
{
    (void)state;
    switch_over("", 0, false, false);
}

static void switchover__waits_for_a_small_pass(void **state)
{
    (void)state;
    switch_over(",switchover-wait=60s", 2, false, false);
}

static void switchover__waits_no_longer_if_passes_get_no_smaller(void **state)
{
    (void)state;
    switch_over(",switchover-wait=60s", 2, false, true);
}

static void switchover__waits_for_no_idle_guest(void **state)
{
    (void)state;
    switch_over(",switchover-wait=60s", 1, true, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(migrate__ram_by_chunks),
        cmocka_unit_test(migrate__pin_all_pins_at_the_other_end),
        cmocka_unit_test(migrate__a_return_path_works_both_ways),
        cmocka_unit_test(migrate__a_destination_without_a_return_path_is_refused),
        cmocka_unit_test(migrate__a_description_of_any_length),
        cmocka_unit_test(migrate__without_a_description),
        cmocka_unit_test(migrate__again_in_the_same_process),
        cmocka_unit_test(give__the_destination_waits_until_the_source_has_looked),
        cmocka_unit_test(give__the_source_does_not_wait_for_the_return_path),
        cmocka_unit_test(give__a_lost_connection_after_go_shuts_the_return_path),
        cmocka_unit_test(return_path__that_ends_in_a_message_fails),
        cmocka_unit_test(switchover__is_not_held_back_by_default),
        cmocka_unit_test(switchover__waits_for_a_small_pass),
        cmocka_unit_test(switchover__waits_no_longer_if_passes_get_no_smaller),
        cmocka_unit_test(switchover__waits_for_no_idle_guest),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, rig_set_up_group, rig_tear_down_group);
}
