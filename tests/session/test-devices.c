/* SPDX-License-Identifier: BSD-2-Clause */
/* test-devices.c -- device state in parallel, over whole sessions of any transport */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "device-rig.h"
#include "support/test-filter.h"

#define MIB (1024u * 1024)

static void must_work(const char *options, RigDevice *devices, unsigned count)
{
    Pair pair;
    Rig rig = {.pair = &pair, .devices = devices, .count = count};

    pair_init(&pair, MIB, true, options);
    pair_fill(pair.source_ram, pair.size, 3);
    if (!rig_migrate(&rig)) {
        fail_msg("source: %s; destination: %s",
                 rig.source_error ? rig.source_error->message : "fine",
                 rig.destination_error ? rig.destination_error->message : "fine");
    }
    rig_clear_errors(&rig);
    pair_clear(&pair);
}

/* Both sides report an error with `text' in it; then a migration without the fault works. */
static void must_fail(const char *options, RigDevice *devices, unsigned count,
                      unsigned missing_at_source, unsigned missing_at_destination, const char *text)
{
    Pair pair;
    Rig rig = {.pair = &pair,
               .devices = devices,
               .count = count,
               .missing_at_source = missing_at_source,
               .missing_at_destination = missing_at_destination};

    pair_init(&pair, MIB, true, options);
    assert_false(rig_migrate(&rig));
    if (!strstr(rig.source_error->message, text) || !strstr(rig.destination_error->message, text)) {
        fail_msg("no \"%s\": source: %s; destination: %s", text, rig.source_error->message,
                 rig.destination_error->message);
    }
    rig_clear_errors(&rig);
    rig.missing_at_source = rig.missing_at_destination = 0;
    for (unsigned i = 0; i < count; i++) {
        devices[i].fault = FAULT_NONE;
    }
    assert_true(rig_migrate(&rig));
    rig_clear_errors(&rig);
    pair_clear(&pair);
}

/* --- it works --- */

static void devices__arrive_in_order_whatever_their_number_and_size(void **state)
{
    RigDevice devices[6] = {0};

    (void)state;
    rig_name(devices, 6);
    devices[0] = (RigDevice){.idstr = "same", .buffers = 50, .size = 70000};
    devices[1] = (RigDevice){.idstr = "same", .instance_id = 7, .buffers = 7, .size = 3 * MIB};
    devices[2].buffers = 200;
    devices[2].size = 100;
    devices[2].waits = true;
    devices[3].buffers = 0; /* only a configuration */
    devices[3].size = 1;
    devices[4] = (RigDevice){.idstr = "large", .buffers = 3, .size = 9 * MIB, .waits = true};
    devices[5] = (RigDevice){.idstr = "slow", .buffers = 3, .size = 10, .load_delay_us = 20000};
    must_work(",channels=3,device-queue=4M", devices, 6);
}

static void devices__work_with_every_bound_at_1(void **state)
{
    RigDevice devices[5] = {0};

    (void)state;
    rig_name(devices, 5);
    for (unsigned i = 0; i < 5; i++) {
        devices[i].buffers = 1 + 5 * i;
        devices[i].size = 5000 + i * MIB;
    }
    must_work(",channels=1,device-workers=1,device-queue=1,device-buffers=1,devices-queue=1,"
              "devices-buffers=1",
              devices, 5);
    must_work(",channels=8,device-workers=1,device-queue=1,device-buffers=1,devices-queue=1,"
              "devices-buffers=1",
              devices, 5);
}

static void devices__may_be_more_than_channels_and_workers(void **state)
{
    RigDevice devices[40] = {0};

    (void)state;
    rig_name(devices, 40);
    for (unsigned i = 0; i < 40; i++) {
        devices[i].buffers = i % 7;
        devices[i].size = 1 + i * 3000;
        devices[i].load_delay_us = i % 5 ? 0 : 300;
    }
    must_work(",channels=2,device-workers=3,devices-queue=1M", devices, 40);
}

static void devices__none_at_all_still_migrate(void **state)
{
    (void)state;
    must_work(",channels=2", NULL, 0);
}

static void configurations__are_loaded_as_devices_become_ready(void **state)
{
    Pair pair;
    RigDevice devices[3] = {0};
    int order = 0;
    Rig rig = {.pair = &pair, .devices = devices, .count = 3};

    (void)state;
    rig_name(devices, 3);
    for (unsigned i = 0; i < 3; i++) {
        devices[i].buffers = 2;
        devices[i].size = 1000;
        devices[i].order = &order;
        devices[i].after = i < 2 ? &devices[i + 1] : NULL;
    }
    pair_init(&pair, 4096, true, ",channels=2");
    assert_true(rig_migrate(&rig));
    assert_int_equal(g_atomic_int_get(&devices[2].loaded_as), 1);
    assert_int_equal(g_atomic_int_get(&devices[1].loaded_as), 2);
    assert_int_equal(g_atomic_int_get(&devices[0].loaded_as), 3);
    rig_clear_errors(&rig);
    pair_clear(&pair);
}

/* SWITCHOVER_START overtakes the stream. Load jobs must not. */
static void load_jobs__begin_after_all_that_was_put_before(void **state)
{
    Pair pair;
    RigDevice devices[3] = {0};
    Rig rig = {
        .pair = &pair, .devices = devices, .count = 3, .iterative = 4 * MIB, .read_delay_us = 2000};

    (void)state;
    rig_name(devices, 3);
    for (unsigned i = 0; i < 3; i++) {
        devices[i].buffers = 3;
        devices[i].size = 200000;
        devices[i].read = &rig.read;
    }
    pair_init(&pair, MIB, true, ",channels=2");
    for (unsigned turn = 0; turn < 2; turn++) {
        rig.leaves_begin = turn;
        if (!rig_migrate(&rig)) {
            fail_msg("source: %s; destination: %s",
                     rig.source_error ? rig.source_error->message : "fine",
                     rig.destination_error ? rig.destination_error->message : "fine");
        }
        rig_clear_errors(&rig);
    }
    pair_clear(&pair);
}

/* --- errors --- */

static void job_that_fails(RigFault fault)
{
    RigDevice devices[3] = {0};

    rig_name(devices, 3);
    for (unsigned i = 0; i < 3; i++) {
        devices[i].buffers = 20;
        devices[i].size = 300000;
    }
    devices[1].fault = fault;
    devices[1].fault_at = 10;
    must_fail(",channels=2,device-queue=1M", devices, 3, 0, 0, "device \"dev1\" instance 0");
}

static void errors__of_any_job_name_the_device_on_both_sides(void **state)
{
    (void)state;
    job_that_fails(FAULT_SAVE);
    job_that_fails(FAULT_SAVE_CONFIG);
    job_that_fails(FAULT_LOAD);
    job_that_fails(FAULT_LOAD_CONFIG);
    job_that_fails(FAULT_STOPS_READING);
}

static void errors__a_device_that_one_side_lacks(void **state)
{
    RigDevice devices[2] = {0};

    (void)state;
    rig_name(devices, 2);
    devices[0].buffers = devices[1].buffers = 3;
    devices[0].size = devices[1].size = 1000;
    must_fail(",channels=2", devices, 2, 0, 1, "\"dev1\" instance 0");
    must_fail(",channels=2", devices, 2, 1, 0, "\"dev1\" instance 0");
}

static void errors__a_device_that_never_reads(void **state)
{
    RigDevice devices[3] = {0};

    (void)state;
    rig_name(devices, 3);
    for (unsigned i = 0; i < 3; i++) {
        devices[i].buffers = 8;
        devices[i].size = 100000;
    }
    devices[0].fault = FAULT_NEVER_READS;
    must_fail(",channels=1,device-workers=1,device-buffers=1,device-timeout=2s", devices, 3, 0, 0,
              "\"dev0\" instance 0");
}

static void errors__bad_names_and_tables(void **state)
{
    Pair pair;
    g_autofree char *longest = g_strnfill(256, 'n');
    const VmfDeviceOps ops = {.size = sizeof(ops)};
    const VmfDeviceOps old = {.size = 8};
    VmfDevices *devices;

    (void)state;
    pair_init(&pair, 4096, true, ",channels=1");
    pair_connect(&pair);
    devices = vmf_session_get_devices(pair.source);
    assert_false(vmf_devices_add(devices, "", 0, &ops, NULL, NULL));
    assert_false(vmf_devices_add(devices, longest, 0, &ops, NULL, NULL));
    assert_false(vmf_devices_add(devices, "nic", 0, &old, NULL, NULL));
    assert_true(vmf_devices_add(devices, longest + 1, 0, &ops, NULL, NULL));
    assert_true(vmf_devices_add(devices, "nic", 0, &ops, NULL, NULL));
    assert_true(vmf_devices_add(devices, "nic", 1, &ops, NULL, NULL));
    assert_false(vmf_devices_add(devices, "nic", 1, &ops, NULL, NULL));
    pair_clear(&pair);
}

static bool save_nothing(VmfDeviceJob *job, void *opaque, GError **error)
{
    (void)job;
    (void)error;
    g_atomic_int_inc((int *)opaque);
    return true;
}

static void *load_devices(void *opaque)
{
    Pair *pair = opaque;
    VmfDevices *devices = vmf_session_get_devices(pair->destination);

    return GINT_TO_POINTER(vmf_devices_load(devices, NULL) &&
                           vmf_session_complete(pair->destination, NULL));
}

/* VmfDeviceOps as a program may know it. */
typedef struct ShorterOps {
    size_t size;
    bool (*save)(VmfDeviceJob *job, void *opaque, GError **error);
} ShorterOps;

/* A program was compiled with a shorter table: nothing past its end is read. */
static void ops__are_copied_and_may_be_shorter(void **state)
{
    Pair pair;
    int saved = 0;
    ShorterOps *ops = g_new(ShorterOps, 1);
    VmfDevices *from, *to;
    GThread *thread;

    (void)state;
    pair_init(&pair, 4096, true, ",channels=1");
    pair_connect(&pair);
    from = vmf_session_get_devices(pair.source);
    to = vmf_session_get_devices(pair.destination);
    *ops = (ShorterOps){.size = sizeof(*ops), .save = save_nothing};
    assert_true(vmf_devices_add(from, "nic", 0, (VmfDeviceOps *)ops, &saved, NULL));
    assert_true(vmf_devices_add(to, "nic", 0, (VmfDeviceOps *)ops, &saved, NULL));
    memset(ops, 0xff, sizeof(*ops));
    g_free(ops);
    assert_true(vmf_devices_expect(to, NULL));
    thread = pair_destination(&pair, load_devices);
    assert_true(vmf_devices_start(from, NULL));
    assert_true(vmf_devices_finish(from, NULL));
    assert_true(vmf_session_complete(pair.source, NULL));
    assert_true(GPOINTER_TO_INT(g_thread_join(thread)));
    assert_int_equal(saved, 1);
    pair_clear(&pair);
}

static void errors__calls_out_of_turn(void **state)
{
    Pair pair;
    const VmfDeviceOps ops = {.size = sizeof(ops)};
    VmfDevices *from, *to;

    (void)state;
    pair_init(&pair, 4096, true, ",channels=1,device-timeout=200ms");
    pair_connect(&pair);
    from = vmf_session_get_devices(pair.source);
    to = vmf_session_get_devices(pair.destination);
    assert_true(vmf_devices_add(from, "nic", 0, &ops, NULL, NULL));
    assert_true(vmf_devices_add(to, "nic", 0, &ops, NULL, NULL));
    assert_false(vmf_devices_finish(from, NULL));
    assert_false(vmf_devices_load(to, NULL));
    assert_false(vmf_devices_begin(to, NULL));
    assert_false(vmf_devices_begin(from, NULL));
    assert_false(vmf_devices_start(to, NULL));
    assert_false(vmf_devices_expect(from, NULL));
    assert_false(vmf_devices_start(from, NULL)); /* the destination does not expect devices */
    assert_true(vmf_devices_expect(to, NULL));
    assert_false(vmf_devices_expect(to, NULL));
    assert_false(vmf_devices_add(to, "other", 0, &ops, NULL, NULL));
    assert_false(vmf_session_complete(pair.source, NULL)); /* the device was never saved */
    assert_true(vmf_devices_start(from, NULL));
    assert_false(vmf_devices_start(from, NULL));
    assert_true(vmf_devices_finish(from, NULL));
    pair_clear(&pair);
}

/* Nobody can know what the job would have read, so it is an error. */
static void errors__load_jobs_that_are_let_begin_too_early(void **state)
{
    Pair pair;
    g_autoptr(GError) here = NULL;
    g_autoptr(GError) there = NULL;
    const VmfDeviceOps ops = {.size = sizeof(ops)};
    VmfDevices *from, *to;

    (void)state;
    pair_init(&pair, 4096, true, ",channels=1");
    pair_connect(&pair);
    from = vmf_session_get_devices(pair.source);
    to = vmf_session_get_devices(pair.destination);
    assert_true(vmf_devices_add(from, "nic", 0, &ops, NULL, NULL));
    assert_true(vmf_devices_add(to, "nic", 0, &ops, NULL, NULL));
    assert_true(vmf_devices_expect(to, NULL));
    vmf_put_be64(vmf_session_get_file(pair.source), 1);
    assert_true(vmf_devices_start(from, NULL));
    vmf_get_be32(vmf_session_get_file(pair.destination)); /* half of it */
    vmf_devices_begin(to, NULL); /* before or after SWITCHOVER_START comes */
    assert_false(vmf_devices_load(to, &there));
    while (vmf_session_check(pair.source, &here)) {
        g_usleep(1000);
    }
    assert_int_equal(there->code, VMF_ERROR_MISMATCH);
    assert_int_equal(here->code, VMF_ERROR_MISMATCH);
    assert_non_null(strstr(there->message, "after byte 4 of the stream"));
    assert_non_null(strstr(there->message, "after byte 8"));
    pair_clear(&pair);
}

/* --- by chance --- */

static unsigned times(unsigned usual)
{
    const char *text = g_getenv("VMFERRY_TEST_RUNS");

    return text ? (unsigned)strtoul(text, NULL, 10) : usual;
}

static void draw(GRand *random, RigDevice *d, int *read)
{
    d->buffers = (unsigned)g_rand_int_range(random, 0, 30);
    d->size = (size_t)1 << g_rand_int_range(random, 0, g_rand_int_range(random, 0, 20) ? 17 : 22);
    d->save_delay_us =
        g_rand_int_range(random, 0, 8) ? 0 : (gulong)g_rand_int_range(random, 0, 500);
    d->load_delay_us =
        g_rand_int_range(random, 0, 8) ? 0 : (gulong)g_rand_int_range(random, 0, 500);
    d->waits = g_rand_boolean(random);
    d->read = read;
    d->fault_at = (unsigned)g_rand_int_range(random, 0, (gint32)d->buffers + 1);
}

static void one_by_chance(guint32 seed)
{
    g_autoptr(GRand) random = g_rand_new_with_seed(seed);
    bool faulty = g_rand_int_range(random, 0, 3) == 0;
    unsigned channels = (unsigned)g_rand_int_range(random, 1, 7);
    g_autofree char *options = g_strdup_printf(
        ",channels=%u,device-workers=%d,device-queue=%d,device-buffers=%d,devices-queue=%d,"
        "devices-buffers=%d,device-timeout=%s",
        channels, g_rand_int_range(random, 1, 9), 1 << g_rand_int_range(random, 0, 22),
        g_rand_int_range(random, 1, 20), 1 << g_rand_int_range(random, 0, 24),
        g_rand_int_range(random, 1, 60), faulty ? "300ms" : "10s");
    RigDevice devices[10] = {0};
    Pair pair;
    Rig rig = {.pair = &pair,
               .devices = devices,
               .count = (unsigned)g_rand_int_range(random, 0, G_N_ELEMENTS(devices) + 1),
               .iterative =
                   (uint64_t)g_rand_int_range(random, 0, 1 << g_rand_int_range(random, 1, 22)),
               .leaves_begin = g_rand_boolean(random)};
    bool worked;

    rig_name(devices, rig.count);
    for (unsigned i = 0; i < rig.count; i++) {
        draw(random, &devices[i], &rig.read);
    }
    if (faulty && rig.count && g_rand_boolean(random)) {
        devices[g_rand_int_range(random, 0, (gint32)rig.count)].fault =
            (RigFault)g_rand_int_range(random, FAULT_SAVE, FAULT_COUNT);
    } else if (faulty) {
        rig.cancel_after_us = (gulong)g_rand_int_range(random, 1, 5000);
        rig.cancel_destination = g_rand_boolean(random);
    }
    pair_init(&pair, MIB, true, options);
    worked = rig_migrate(&rig);
    if (!worked && !faulty) {
        fail_msg("seed %u (%s): source: %s; destination: %s", seed, options,
                 rig.source_error ? rig.source_error->message : "fine",
                 rig.destination_error ? rig.destination_error->message : "fine");
    }
    rig_clear_errors(&rig);
    pair_clear(&pair);
}

static void devices__of_random_kinds_arrive_or_fail(void **state)
{
    const char *given = g_getenv("VMFERRY_TEST_SEED");
    guint32 seed = given ? (guint32)strtoul(given, NULL, 10) : g_random_int();
    unsigned runs = given ? 1 : times(100);

    (void)state;
    print_message("%u runs, seeds from %u on (VMFERRY_TEST_SEED=SEED repeats one)\n", runs, seed);
    for (unsigned i = 0; i < runs; i++) {
        one_by_chance(seed + i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices__arrive_in_order_whatever_their_number_and_size),
        cmocka_unit_test(devices__work_with_every_bound_at_1),
        cmocka_unit_test(devices__may_be_more_than_channels_and_workers),
        cmocka_unit_test(devices__none_at_all_still_migrate),
        cmocka_unit_test(configurations__are_loaded_as_devices_become_ready),
        cmocka_unit_test(load_jobs__begin_after_all_that_was_put_before),
        cmocka_unit_test(errors__of_any_job_name_the_device_on_both_sides),
        cmocka_unit_test(errors__a_device_that_one_side_lacks),
        cmocka_unit_test(errors__a_device_that_never_reads),
        cmocka_unit_test(errors__bad_names_and_tables),
        cmocka_unit_test(ops__are_copied_and_may_be_shorter),
        cmocka_unit_test(errors__calls_out_of_turn),
        cmocka_unit_test(errors__load_jobs_that_are_let_begin_too_early),
        cmocka_unit_test(devices__of_random_kinds_arrive_or_fail),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
