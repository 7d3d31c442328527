/* SPDX-License-Identifier: BSD-2-Clause */
/* test-device-order.c -- which jobs and threads wait while devices are saved and loaded */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "device/device-set.h"
#include "support/pair.h"
#include "session/session-state.h"

#define MIB (1024u * 1024)
/* Nothing in these tests takes so long: it turns a wait without an end into an error. */
#define PATIENCE_US (60 * G_USEC_PER_SEC)

/* --- a socket transport whose channels can be watched and held --- */

typedef struct Watch {
    int syncs; /* atomic: sent on any channel */
    int held;  /* atomic: channel 0 sends no device state until the other channels have sent so many
                  pieces */
    int others;  /* atomic: pieces that the other channels have sent */
    int in_vain; /* atomic: channel 0 was held until PATIENCE_US had passed */
    int inside;  /* atomic: channel 0 is held, and then reads the device's memory */
} Watch;

static Watch watch;
static const VmfTransport *sockets;

static bool await(const int *number, int enough)
{
    const gint64 deadline = g_get_monotonic_time() + PATIENCE_US;

    while (g_atomic_int_get(number) < enough) {
        if (g_get_monotonic_time() > deadline) {
            return false;
        }
        g_usleep(5000);
    }
    return true;
}

static bool send_sync(VmfConn *conn, unsigned channel, uint64_t number, bool drain, GError **error)
{
    g_atomic_int_inc(&watch.syncs);
    return sockets->send_sync(conn, channel, number, drain, error);
}

static bool send_device(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header,
                        const void *data, void *piece, GError **error)
{
    bool ok;

    if (channel != 0) {
        g_atomic_int_inc(&watch.others);
        return sockets->send_device(conn, channel, header, data, piece, error);
    }
    g_atomic_int_set(&watch.inside, 1);
    if (!g_atomic_int_get(&watch.in_vain) && !await(&watch.others, g_atomic_int_get(&watch.held))) {
        g_atomic_int_set(&watch.in_vain, 1);
    }
    ok = sockets->send_device(conn, channel, header, data, piece, error);
    g_atomic_int_set(&watch.inside, 0);
    return ok;
}

static char *listener_address(VmfTransportListener *listener)
{
    g_autofree char *address = sockets->listener_address(listener);

    return g_strconcat("watched", strchr(address, ':'), NULL);
}

static void register_watched(void)
{
    static VmfTransport watched;

    sockets = vmf_transport_find("tcp", NULL);
    watched = *sockets;
    watched.scheme = "watched";
    watched.send_sync = send_sync;
    watched.send_device = send_device;
    watched.listener_address = listener_address;
    assert_true(vmf_transport_register(&watched, NULL));
    g_setenv("VMFERRY_TEST_URI", "watched:127.0.0.1:0", TRUE);
}

/* --- devices --- */

typedef struct Order {
    Pair pair;
    unsigned devices;
    size_t size; /* bytes of each device's only buffer */
    int saving;  /* atomic: save jobs that have begun */
    int asked;   /* atomic: buffers that the test wants from a save job */
    int given;
    int loaded; /* atomic: configurations that were loaded */
    int in_use; /* atomic: a channel has read memory that vmf_device_put() had given back */
    GError *source_error, *destination_error;
} Order;

static bool save(VmfDeviceJob *job, void *opaque, GError **error)
{
    Order *o = opaque;
    g_autofree uint8_t *state = g_malloc0(o->size);

    g_atomic_int_inc(&o->saving);
    return vmf_device_put(job, state, o->size, NULL, NULL, error);
}

/* Returns only when all devices are being saved. */
static bool save_together(VmfDeviceJob *job, void *opaque, GError **error)
{
    Order *o = opaque;

    if (!save(job, opaque, error)) {
        return false;
    }
    if (!await(&o->saving, (int)o->devices)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT, "only %d of %u devices are saved at once",
                    g_atomic_int_get(&o->saving), o->devices);
        return false;
    }
    return true;
}

#define TURNS 50

/* Puts a small buffer whenever the test wants one; it is sent when it is `given'. */
static bool save_when_asked(VmfDeviceJob *job, void *opaque, GError **error)
{
    Order *o = opaque;

    for (int i = 0; i < TURNS; i++) {
        if (!await(&o->asked, i + 1) || !vmf_device_put(job, "state", 5, NULL, NULL, error)) {
            return false;
        }
        g_atomic_int_inc(&o->given);
    }
    return true;
}

static bool load(VmfDeviceJob *job, void *opaque, GError **error)
{
    const void *data;
    size_t size;

    (void)opaque;
    do {
        if (!vmf_device_get(job, &data, &size, error)) {
            return false;
        }
    } while (data);
    return true;
}

static bool load_config(const void *config, size_t size, void *opaque, GError **error)
{
    Order *o = opaque;

    (void)config;
    (void)size;
    (void)error;
    g_atomic_int_inc(&o->loaded);
    return true;
}

static const VmfDeviceOps usual = {
    .size = sizeof(usual), .save = save, .load = load, .load_config = load_config};

static VmfDevices *add_all(Order *o, VmfSession *session, const VmfDeviceOps *ops)
{
    VmfDevices *devices = vmf_session_get_devices(session);

    for (unsigned i = 0; i < o->devices; i++) {
        assert_true(vmf_devices_add(devices, "nic", i, ops, o, NULL));
    }
    return devices;
}

static void begin(Order *o, const char *options)
{
    /* No side is taken for dead, however slow this machine is. */
    g_autofree char *with_patience = g_strconcat(options, ",timeout=60s,device-timeout=60s", NULL);

    g_atomic_int_set(&watch.syncs, 0);
    g_atomic_int_set(&watch.others, 0);
    pair_init(&o->pair, MIB, true, with_patience);
    pair_connect(&o->pair);
}

static void end(Order *o)
{
    if (o->source_error || o->destination_error) {
        fail_msg("source: %s; destination: %s", o->source_error ? o->source_error->message : "fine",
                 o->destination_error ? o->destination_error->message : "fine");
    }
    pair_clear(&o->pair);
    g_atomic_int_set(&watch.held, 0);
}

/* --- the two sides --- */

static void *source_main(void *opaque)
{
    Order *o = opaque;
    VmfDevices *devices = vmf_session_get_devices(o->pair.source);

    if (!vmf_devices_start(devices, &o->source_error) ||
        !vmf_devices_finish(devices, &o->source_error) ||
        !vmf_session_complete(o->pair.source, &o->source_error)) {
        vmf_session_fail(o->pair.source, g_error_copy(o->source_error));
    }
    return NULL;
}

/* Reads the stream to its end. What it says does not matter here. */
static void *destination_main(void *opaque)
{
    Order *o = opaque;
    VmfFile *file = vmf_session_get_file(o->pair.destination);
    VmfDevices *devices = vmf_session_get_devices(o->pair.destination);

    if (vmf_devices_expect(devices, &o->destination_error) &&
        vmf_devices_begin(devices, &o->destination_error)) {
        while (!vmf_file_at_end(file) && vmf_file_check(file, NULL)) {
            vmf_get_byte(file);
        }
        if (vmf_devices_load(devices, &o->destination_error) &&
            vmf_session_complete(o->pair.destination, &o->destination_error)) {
            return NULL;
        }
    }
    vmf_session_fail(o->pair.destination, g_error_copy(o->destination_error));
    return NULL;
}

/* Runs a whole migration, with these tables on both sides. */
static void migrate(Order *o, const VmfDeviceOps *ops, const char *options)
{
    GThread *thread;

    begin(o, options);
    add_all(o, o->pair.source, ops);
    add_all(o, o->pair.destination, ops);
    thread = g_thread_new("destination", destination_main, o);
    source_main(o);
    g_thread_join(thread);
    end(o);
}

/* --- what waits --- */

static bool all_are_ready(VmfDevices *devices)
{
    Device *unready;

    g_mutex_lock(&devices->session->core.lock);
    unready = devices_first_before_locked(devices, DEVICE_READY);
    g_mutex_unlock(&devices->session->core.lock);
    return !unready;
}

static void configurations__wait_for_vmf_devices_load(void **state)
{
    Order o = {.devices = 3, .size = 100000};
    VmfDevices *devices;
    GThread *thread;

    (void)state;
    begin(&o, ",channels=2");
    add_all(&o, o.pair.source, &usual);
    devices = add_all(&o, o.pair.destination, &usual);
    thread = g_thread_new("source", source_main, &o);
    assert_true(vmf_devices_expect(devices, NULL));
    assert_true(vmf_devices_begin(devices, NULL));
    while (!all_are_ready(devices) && vmf_session_check(o.pair.destination, NULL)) {
        g_usleep(1000);
    }
    /* Everything has come, and every load job has returned. The VMM decides the rest. */
    assert_int_equal(g_atomic_int_get(&o.loaded), 0);
    assert_true(vmf_devices_load(devices, NULL));
    assert_int_equal(g_atomic_int_get(&o.loaded), 3);
    assert_true(vmf_session_complete(o.pair.destination, NULL));
    g_thread_join(thread);
    end(&o);
}

static void await_switchover(VmfDevices *devices)
{
    bool there = false;

    while (!there) {
        assert_true(vmf_session_check(devices->session, NULL));
        g_usleep(1000);
        g_mutex_lock(&devices->session->core.lock);
        there = devices->switchover;
        g_mutex_unlock(&devices->session->core.lock);
    }
}

static void load_jobs__wait_for_the_reader(void **state)
{
    Order o = {.devices = 2, .size = 1000};
    VmfDevices *from, *to;

    (void)state;
    begin(&o, ",channels=1");
    from = add_all(&o, o.pair.source, &usual);
    to = add_all(&o, o.pair.destination, &usual);
    assert_true(vmf_devices_expect(to, NULL));
    vmf_put_be64(vmf_session_get_file(o.pair.source), 1);
    assert_true(vmf_devices_start(from, NULL));
    await_switchover(to);
    assert_null(((Device *)to->list->pdata[0])->thread);
    vmf_get_be64(vmf_session_get_file(o.pair.destination));
    assert_true(vmf_devices_begin(to, NULL));
    assert_non_null(((Device *)to->list->pdata[1])->thread);
    assert_false(vmf_devices_begin(to, NULL)); /* once */
    end(&o);
}

/* After vmf_device_put() the memory is the job's again, also after a failure. */
static bool save_and_look(VmfDeviceJob *job, void *opaque, GError **error)
{
    Order *o = opaque;
    g_autofree uint8_t *state = g_malloc0(o->size);
    const bool ok = vmf_device_put(job, state, o->size, NULL, NULL, error);

    g_atomic_int_set(&o->in_use, g_atomic_int_get(&watch.inside));
    return ok;
}

static void put__that_fails_waits_for_the_channels_to_let_go(void **state)
{
    Order o = {.devices = 1, .size = 64 * MIB};
    VmfDeviceOps looking = usual;
    GThread *source, *destination;

    (void)state;
    looking.save = save_and_look;
    begin(&o, ",channels=1");
    g_atomic_int_set(&watch.held, 1);
    add_all(&o, o.pair.source, &looking);
    add_all(&o, o.pair.destination, &looking);
    destination = g_thread_new("destination", destination_main, &o);
    source = g_thread_new("source", source_main, &o);
    assert_true(await(&watch.inside, 1));
    vmf_session_cancel(o.pair.source);
    g_usleep(300000); /* so that a put that does not wait would have returned */
    g_atomic_int_set(&watch.others, 1);
    g_thread_join(source);
    g_thread_join(destination);
    assert_int_equal(g_atomic_int_get(&o.in_use), 0);
    g_clear_error(&o.source_error);
    g_clear_error(&o.destination_error);
    end(&o);
}

/* --- what does not --- */

static void save_jobs__of_all_devices_run_at_once(void **state)
{
    VmfDeviceOps together = usual;
    Order o = {.devices = 20, .size = 1000};

    (void)state;
    together.save = save_together;
    migrate(&o, &together, ",channels=2");
}

static void pieces__go_to_a_channel_that_has_room(void **state)
{
    Order o = {.devices = 1, .size = 16 * MIB};

    (void)state;
    /* Channel 0 holds one piece, and another one waits for it. All others must not wait. */
    g_atomic_int_set(&watch.held, 14);
    migrate(&o, &usual, ",channels=2");
    assert_int_equal(g_atomic_int_get(&watch.in_vain), 0);
}

static void stream__makes_no_sync_for_device_state(void **state)
{
    VmfDeviceOps asked = usual;
    Order o = {.devices = 1};
    VmfDevices *devices;
    VmfFile *file;
    GThread *thread;

    (void)state;
    asked.save = save_when_asked;
    begin(&o, ",channels=2");
    devices = add_all(&o, o.pair.source, &asked);
    add_all(&o, o.pair.destination, &asked);
    file = vmf_session_get_file(o.pair.source);
    thread = g_thread_new("destination", destination_main, &o);
    assert_true(vmf_devices_start(devices, NULL));
    for (int i = 0; i < TURNS; i++) {
        g_atomic_int_inc(&o.asked);
        assert_true(await(&o.given, i + 1));
        vmf_put_byte(file, 1);
        assert_true(vmf_file_flush(file, NULL));
    }
    assert_int_equal(g_atomic_int_get(&watch.syncs), 0);
    assert_true(vmf_devices_finish(devices, NULL));
    assert_true(vmf_session_complete(o.pair.source, NULL));
    g_thread_join(thread);
    end(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configurations__wait_for_vmf_devices_load),
        cmocka_unit_test(load_jobs__wait_for_the_reader),
        cmocka_unit_test(put__that_fails_waits_for_the_channels_to_let_go),
        cmocka_unit_test(save_jobs__of_all_devices_run_at_once),
        cmocka_unit_test(pieces__go_to_a_channel_that_has_room),
        cmocka_unit_test(stream__makes_no_sync_for_device_state),
    };

    register_watched();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
