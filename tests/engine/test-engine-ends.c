/* SPDX-License-Identifier: BSD-2-Clause */
/* test-engine-ends.c -- two stock QEMUs over the engine, one of which ends at any moment */

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

static SourceStep source_ends;
static DestinationStep destination_ends;

static bool source_until(void *opaque, SourceStep step)
{
    (void)opaque;
    return step != source_ends;
}

static bool destination_until(void *opaque, DestinationStep step)
{
    (void)opaque;
    return step != destination_ends;
}

/* --- the source ends --- */

static void end_source_at(SourceStep step, LinkEnd how, bool pin_all, bool return_path)
{
    Rig rig;

    rig_init(&rig);
    rig.source.at = source_until;
    source_ends = step;
    rig.source.end = how;
    rig.source.pin_all = pin_all;
    rig.source.return_path = rig.destination.return_path = return_path;
    rig_run(&rig);
    rig_assert_kept(&rig);
    rig_clear(&rig);
}

/* With the description posted and no look at its completion, too. */
static void source__gives_up_at_every_step(void **state)
{
    (void)state;
    for (SourceStep step = SOURCE_CONNECTED; step < SOURCE_DONE; step++) {
        end_source_at(step, LINK_GIVES_UP, step % 2, false);
        end_source_at(step, LINK_GIVES_UP, step % 2 == 0, true);
    }
}

/* As QEMU ends after a failure that is not the connection's. */
static void source__leaves_at_every_step(void **state)
{
    (void)state;
    for (SourceStep step = SOURCE_CONNECTED; step < SOURCE_DONE; step++) {
        end_source_at(step, LINK_LEAVES, false, step % 2);
        end_source_at(step, LINK_VANISHES, false, step % 2 == 0);
    }
}

/* A device of the source cannot be saved: QEMU sends what it has of it, and hangs up. */
static bool fail_in_a_device(void *opaque, SourceStep step)
{
    Rig *rig = opaque;
    uint8_t part[100] = {4, 0, 0, 0, 9};

    if (step == SOURCE_DEVICES) {
        (void)link_exchange(&rig->source.link, V1_QEMU_FILE, part, sizeof(part));
        return false;
    }
    return true;
}

static void source__a_device_that_fails_keeps_the_vm(void **state)
{
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig.source.at = fail_in_a_device;
    rig.source.end = LINK_LEAVES;
    rig_run(&rig);
    rig_assert_kept(&rig);
    rig_clear(&rig);
}

/* QEMU waits for its SHUT before it gives the VM up, so that hanging up before is a failure. */
static bool hang_up_after_the_end(void *opaque, SourceStep step)
{
    Rig *rig = opaque;

    if (step == SOURCE_DONE) {
        g_atomic_int_set(&rig->source.back.cancelled, 1);
    }
    return true;
}

static void source__without_shut_or_description_keeps_the_vm(void **state)
{
    Rig rig;

    (void)state;
    rig_init(&rig);
    rig.source.return_path = rig.destination.return_path = true;
    rig.source.described = rig.destination.described = 0;
    rig.source.at = hang_up_after_the_end;
    rig.source.end = LINK_LEAVES;
    rig_run(&rig);
    rig_assert_kept(&rig);
    rig_clear(&rig);
}

/* The last message is complete, and then QEMU gives up in place of a look. */
static bool give_up_when_loaded(void *opaque, SourceStep step)
{
    Rig *rig = opaque;

    if (step != SOURCE_LAST) {
        return true;
    }
    rig_await_last(rig);
    return false;
}

static void source__gives_up_when_all_is_loaded(void **state)
{
    static const LinkEnd ends[] = {LINK_GIVES_UP, LINK_LEAVES, LINK_VANISHES};

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(ends); i++) {
        Rig rig;

        rig_init(&rig);
        rig.source.at = give_up_when_loaded;
        rig.source.end = ends[i];
        rig.source.return_path = rig.destination.return_path = i % 2;
        rig_run(&rig);
        rig_assert_kept(&rig);
        rig_clear(&rig);
    }
}

/* --- the destination ends --- */

static void end_destination_at(DestinationStep step, LinkEnd how, bool return_path)
{
    Rig rig;

    rig_init(&rig);
    rig.destination.at = destination_until;
    destination_ends = step;
    rig.destination.end = how;
    rig.source.return_path = rig.destination.return_path = return_path;
    rig.source.end = LINK_GIVES_UP;
    rig_run(&rig);
    rig_assert_kept(&rig);
    assert_false(rig.source.sent);
    assert_false(g_atomic_int_get(&rig.source.last_taken));
    rig_clear(&rig);
}

static void destination__fails_at_every_step(void **state)
{
    (void)state;
    for (DestinationStep step = DESTINATION_REQUESTED; step < DESTINATION_EOF; step++) {
        end_destination_at(step, LINK_GIVES_UP, false);
        end_destination_at(step, LINK_GIVES_UP, true);
    }
}

static void destination__leaves_at_every_step(void **state)
{
    (void)state;
    for (DestinationStep step = DESTINATION_REQUESTED; step < DESTINATION_EOF; step++) {
        end_destination_at(step, LINK_LEAVES, step % 2);
        end_destination_at(step, LINK_VANISHES, step % 2 == 0);
    }
}

/* The return path is offered, and nobody takes it. So the stream never begins. */
static void destination__fails_without_its_return_path(void **state)
{
    (void)state;
    for (DestinationStep step = DESTINATION_ACCEPTED; step <= DESTINATION_BEGUN; step++) {
        Rig rig;

        rig_init(&rig);
        rig.destination.at = destination_until;
        destination_ends = step;
        rig.source.return_path = true;
        rig_run(&rig);
        rig_assert_kept(&rig);
        rig_clear(&rig);
    }
}

static bool cut_when_named(void *opaque, SourceStep step)
{
    (void)opaque;
    if (step == source_ends) {
        socket_rdma_cut(true);
    }
    return true;
}

static void both__a_lost_connection_keeps_the_vm(void **state)
{
    (void)state;
    for (SourceStep step = SOURCE_CONNECTED; step < SOURCE_LAST; step++) {
        Rig rig;

        rig_init(&rig);
        rig.source.at = cut_when_named;
        source_ends = step;
        rig.source.return_path = rig.destination.return_path = step % 2;
        rig_run(&rig);
        socket_rdma_cut(false);
        rig_assert_kept(&rig);
        rig_clear(&rig);
    }
}

/* --- connecting and listening --- */

static void connect__nobody_listens(void **state)
{
    Rig rig;

    (void)state;
    rig_init(&rig);
    g_snprintf(rig.host, sizeof(rig.host), "192.0.2.1,connect-timeout=200ms");
    qemu_source_main(&rig.source);
    assert_false(rig.source.connected);
    rig_clear(&rig);
}

/* Ids that end while they connect, at several moments. */
static void connect__ids_end_while_they_connect(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        const V1Capabilities capabilities = {.version = V1_VERSION};
        uint8_t data[V1_CAPABILITIES_BYTES];
        struct rdma_conn_param param = {.private_data = data, .private_data_len = sizeof(data)};
        QemuLink link;
        Rig rig;

        rig_init(&rig);
        v1_capabilities_encode(&capabilities, data);
        if (i % 2) {
            assert_true(qemu_destination_listen(&rig.destination));
        }
        link_init(&link, rig.devices[0]);
        link_resolve(&link, rig.host, rig.service);
        assert_int_equal(false_connect(link.id, &param), 0);
        g_usleep(i / 2 * 1000);
        link_end(&link, LINK_VANISHES);
        if (i % 2) {
            qemu_destination_end(&rig.destination);
        }
        rig_clear(&rig);
    }
}

/* A listening id ends before, while and after a source comes to it. */
static void listen__an_id_ends_while_a_source_comes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 12; i++) {
        GThread *source;
        Rig rig;

        rig_init(&rig);
        g_snprintf(rig.host, sizeof(rig.host), "192.0.2.1,timeout=2s,connect-timeout=1s");
        assert_true(qemu_destination_listen(&rig.destination));
        source = g_thread_new("source", qemu_source_main, &rig.source);
        g_usleep(i * 300);
        qemu_destination_end(&rig.destination);
        g_thread_join(source);
        rig_assert_kept(&rig);
        rig_clear(&rig);
    }
}

static void listen__a_bad_option_is_an_error(void **state)
{
    Rig rig;

    (void)state;
    rig_init(&rig);
    g_snprintf(rig.host, sizeof(rig.host), "192.0.2.1,colour=red");
    assert_false(qemu_destination_listen(&rig.destination));
    qemu_destination_end(&rig.destination);
    qemu_source_main(&rig.source);
    assert_false(rig.source.connected);
    rig_clear(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(source__gives_up_at_every_step),
        cmocka_unit_test(source__leaves_at_every_step),
        cmocka_unit_test(source__a_device_that_fails_keeps_the_vm),
        cmocka_unit_test(source__without_shut_or_description_keeps_the_vm),
        cmocka_unit_test(source__gives_up_when_all_is_loaded),
        cmocka_unit_test(destination__fails_at_every_step),
        cmocka_unit_test(destination__leaves_at_every_step),
        cmocka_unit_test(destination__fails_without_its_return_path),
        cmocka_unit_test(both__a_lost_connection_keeps_the_vm),
        cmocka_unit_test(connect__nobody_listens),
        cmocka_unit_test(connect__ids_end_while_they_connect),
        cmocka_unit_test(listen__an_id_ends_while_a_source_comes),
        cmocka_unit_test(listen__a_bad_option_is_an_error),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, rig_set_up_group, rig_tear_down_group);
}
