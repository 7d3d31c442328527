/* SPDX-License-Identifier: BSD-2-Clause */
/* test-device-rules.c -- all states of a small window, and all pieces that are refused */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <vmferry/plugin/bytes.h>

#include "device/device-set.h"
#include "support/pair.h"
#include "session/session-state.h"
#include "device/device-arrive.h"
#include "device/device-load.h"
#include "device/device-save.h"

/* --- the window: every sequence of takes and gives, up to a depth --- */

#define UNIT DEVICE_ALIGN

typedef struct Model {
    DeviceRing ring;
    unsigned states;
} Model;

static const DeviceSpan *span(const DeviceRing *ring, unsigned i)
{
    return &ring->spans[(ring->first + i) % ring->most];
}

static void check_ring(const DeviceRing *ring)
{
    assert_true(ring->count <= ring->most);
    for (unsigned i = 0; i < ring->count; i++) {
        const DeviceSpan *a = span(ring, i);

        if (!a->size) {
            assert_true(a->place == DEVICE_NO_PLACE);
            continue;
        }
        assert_true(a->place <= ring->bytes && a->size <= ring->bytes - a->place);
        for (unsigned j = i + 1; j < ring->count; j++) {
            const DeviceSpan *b = span(ring, j);

            assert_true(!b->size || a->place + a->size <= b->place ||
                        b->place + b->size <= a->place);
        }
    }
}

static void explore(Model *model, unsigned depth)
{
    DeviceRing *ring = &model->ring;
    const unsigned units = (unsigned)(ring->bytes / UNIT);

    model->states++;
    check_ring(ring);
    for (unsigned size = 1; depth && size <= units + 1; size++) {
        DeviceSpan spans[4];
        const DeviceRing before = *ring;
        uint64_t place;

        memcpy(spans, ring->spans, ring->most * sizeof(*spans));
        if (device_ring_take(ring, size * UNIT - size % 2, &place)) {
            /* A buffer that is larger than the window goes alone. */
            assert_true(size <= units || before.count == 0);
            assert_true(before.count == 0 || span(&before, 0)->place != DEVICE_NO_PLACE);
            explore(model, depth - 1);
        } else {
            assert_true(before.count > 0); /* no buffer waits for an empty window */
        }
        *ring = before;
        memcpy(ring->spans, spans, ring->most * sizeof(*spans));
    }
    if (depth && ring->count) {
        const DeviceRing before = *ring;

        device_ring_give(ring);
        explore(model, depth - 1);
        *ring = before;
    }
}

static void window__never_gives_a_place_twice_and_never_stays_full(void **state)
{
    (void)state;
    for (unsigned units = 0; units <= 5; units++) {
        for (unsigned most = 1; most <= 4; most++) {
            Model model = {0};

            device_ring_init(&model.ring, units * UNIT, most);
            explore(&model, 8);
            assert_true(model.states > 8);
            device_ring_clear(&model.ring);
        }
    }
}

static void window__is_used_to_the_end_and_from_the_beginning(void **state)
{
    DeviceRing ring;
    uint64_t place;

    (void)state;
    device_ring_init(&ring, 10 * UNIT, 4);
    assert_true(device_ring_take(&ring, 4 * UNIT, &place) && place == 0);
    assert_true(device_ring_take(&ring, 4 * UNIT, &place) && place == 4 * UNIT);
    assert_false(device_ring_take(&ring, 4 * UNIT, &place));
    assert_true(device_ring_take(&ring, 2 * UNIT, &place) && place == 8 * UNIT);
    assert_false(device_ring_take(&ring, 1, &place));
    device_ring_give(&ring);
    assert_true(device_ring_take(&ring, 4 * UNIT, &place) && place == 0);
    device_ring_clear(&ring);
}

static void lay_out(VmfSession *session, const char *const names[3])
{
    static const VmfDeviceOps ops = {.size = sizeof(ops)};
    VmfDevices *devices = vmf_session_get_devices(session);

    for (unsigned i = 0; i < 3; i++) {
        assert_true(vmf_devices_add(devices, names[i], i % 2, &ops, NULL, NULL));
    }
    assert_int_equal(devices_lay_out(devices, 100), 3 * 128);
}

static void windows__have_the_same_places_on_both_sides(void **state)
{
    Pair pair;

    (void)state;
    pair_init(&pair, 4096, true, ",channels=1");
    pair_connect(&pair);
    lay_out(pair.source, (const char *const[3]){"nic", "gpu", "gpu"});
    lay_out(pair.destination, (const char *const[3]){"gpu", "gpu", "nic"});
    for (unsigned i = 0; i < 2; i++) {
        VmfDevices *devices = vmf_session_get_devices(i ? pair.destination : pair.source);

        assert_int_equal(devices_find(devices, "gpu", 0)->window, 0);
        assert_int_equal(devices_find(devices, "gpu", 1)->window, 128);
        assert_int_equal(devices_find(devices, "nic", 0)->window, 256);
    }
    pair_clear(&pair);
}

/* --- what may arrive --- */

typedef struct Rules {
    Pair pair;
    VmfConn *conn;
    VmfDeviceHeader header;
} Rules;

static int set_up(void **state, bool two)
{
    static const VmfDeviceOps ops = {.size = sizeof(ops)};
    Rules *r = g_new0(Rules, 1);
    VmfDevices *devices;

    pair_init(&r->pair, 4096, true,
              ",channels=2,device-queue=1M,device-buffers=3,devices-queue=4M");
    pair_connect(&r->pair);
    devices = vmf_session_get_devices(r->pair.destination);
    assert_true(vmf_devices_add(devices, "nic", 2, &ops, NULL, NULL));
    assert_true(!two || vmf_devices_add(devices, "vga", 0, &ops, NULL, NULL));
    assert_true(vmf_devices_expect(devices, NULL));
    r->conn = r->pair.destination->conn;
    r->header = (VmfDeviceHeader){.idstr = "nic", .instance_id = 2, .total = 1000, .size = 1000};
    *state = r;
    return 0;
}

static int rules_setup(void **state)
{
    return set_up(state, false);
}

static int two_setup(void **state)
{
    return set_up(state, true);
}

static int rules_teardown(void **state)
{
    Rules *r = *state;

    pair_clear(&r->pair);
    g_free(r);
    return 0;
}

static void taken(Rules *r, unsigned channel)
{
    g_autoptr(GError) error = NULL;

    if (!device_begin(r->conn, channel, &r->header, &error) ||
        !device_done(r->conn, channel, &error)) {
        fail_msg("%s", error->message);
    }
}

static void refused(Rules *r, const char *text)
{
    g_autoptr(GError) error = NULL;
    bool begun = device_begin(r->conn, 0, &r->header, &error);

    assert_true(!begun || !device_done(r->conn, 0, &error));
    assert_non_null(error);
    if (error->code != VMF_ERROR_PROTOCOL || !strstr(error->message, "device \"") ||
        !strstr(error->message, text)) {
        fail_msg("not \"%s\": %s", text, error->message);
    }
}

static void refuses__devices_that_are_not_known(void **state)
{
    Rules *r = *state;

    r->header.instance_id = 1;
    refused(r, "device \"nic\" instance 1 is not known");
    g_strlcpy(r->header.idstr, "nix", sizeof(r->header.idstr));
    refused(r, "device \"nix\"");
}

static void refuses__bad_sizes(void **state)
{
    Rules *r = *state;

    r->header.flags = 2;
    refused(r, "unknown flags");
    r->header.flags = 0;
    r->header.total = 0;
    refused(r, "0 bytes");
    r->header.total = DEVICE_BUFFER_MAX + 1;
    refused(r, "at most");
    r->header.total = 1000;
    r->header.size = 999;
    refused(r, "a piece of 999");
    r->header.size = 1000;
    r->header.offset = 1000;
    refused(r, "a piece of");
    r->header.total = 2 * DEVICE_PIECE;
    r->header.offset = 5;
    r->header.size = DEVICE_PIECE;
    refused(r, "a piece of");
    r->header.offset = 0;
    r->header.flags = DEVICE_FLAG_CONFIG;
    refused(r, "at most");
}

static void refuses__places_that_are_not_free(void **state)
{
    Rules *r = *state;

    r->header.place = DEVICE_PIECE;
    refused(r, "outside the window");
    r->header.place = DEVICE_PIECE - 999;
    refused(r, "outside the window");
    r->header.place = UINT64_MAX - 10;
    refused(r, "outside the window");
    r->header.place = 512;
    taken(r, 0);
    r->header.index = 1;
    r->header.place = 0;
    refused(r, "lies on buffer 0");
    r->header.place = 1511;
    refused(r, "lies on buffer 0");
    r->header.place = DEVICE_NO_PLACE; /* it goes alone */
    refused(r, "more than the window takes");
    r->header.place = 1512;
    taken(r, 1);
}

static void refuses__more_than_the_window_takes(void **state)
{
    Rules *r = *state;

    for (unsigned i = 0; i < 3; i++) {
        r->header.index = i;
        r->header.place = i * 1024;
        taken(r, i % 2);
    }
    r->header.index = 3;
    r->header.place = 3 * 1024;
    refused(r, "more than the window takes");
}

static void refuses__pieces_and_indexes_that_come_twice(void **state)
{
    Rules *r = *state;

    taken(r, 0);
    refused(r, "a piece of buffer 0 came twice");
    r->header.place = 2048;
    refused(r, "two buffers have the index 0");
    r->header.place = 0;
    r->header.total = r->header.size = 999;
    refused(r, "two buffers have the index 0");
}

static void refuses__more_than_was_announced(void **state)
{
    Rules *r = *state;

    r->header.index = 5;
    taken(r, 0);
    r->header.flags = DEVICE_FLAG_CONFIG;
    r->header.place = DEVICE_NO_PLACE;
    refused(r, "buffer 5 came, of 5 that were announced");
}

static void refuses__more_after_the_configuration(void **state)
{
    Rules *r = *state;

    r->header.flags = DEVICE_FLAG_CONFIG;
    r->header.index = 2;
    r->header.place = DEVICE_NO_PLACE;
    taken(r, 0);
    refused(r, "came twice");
    r->header.index = 3;
    refused(r, "two buffers have the index");
    r->header.flags = 0;
    r->header.place = 0;
    refused(r, "buffer 3 came, of 2");
    r->header.index = 1; /* buffers before it may still come */
    taken(r, 1);
}

static void refuses__an_index_that_cannot_be_counted(void **state)
{
    Rules *r = *state;

    r->header.index = UINT32_MAX;
    refused(r, "one more than can be counted");
}

/* Buffers that are larger than a window have a bound for all devices together. */
static void refuses__more_outside_the_windows_than_all_may_have(void **state)
{
    Rules *r = *state;

    r->header.place = DEVICE_NO_PLACE;
    taken(r, 0); /* 1000 bytes */
    g_strlcpy(r->header.idstr, "vga", sizeof(r->header.idstr));
    r->header.instance_id = 0;
    r->header.total = 4 * DEVICE_PIECE;
    r->header.size = DEVICE_PIECE;
    refused(r, "bytes outside its window, beside 1000 of all devices");
    r->header.total = 4 * DEVICE_PIECE - 1000; /* not more than all devices may have */
    taken(r, 1);
}

/* One side in this process plays a destination with such a window. */
static void window_refused(VmfSession *source, uint64_t bytes, uint32_t buffers)
{
    g_autoptr(GError) error = NULL;
    uint8_t payload[12];
    VmfWriter w = vmf_writer(payload, sizeof(payload));
    const MessageHeader header = {.length = sizeof(payload), .argument = bytes};

    vmf_write_be32(&w, buffers);
    vmf_write_be64(&w, UINT64_MAX);
    assert_false(devices_handle_window(source, &header, payload, &error));
    assert_int_equal(error->code, VMF_ERROR_PROTOCOL);
}

static void source__refuses_windows_that_no_destination_can_have(void **state)
{
    Pair pair;

    (void)state;
    pair_init(&pair, 4096, true, ",channels=1");
    pair_connect(&pair); /* the destination itself says nothing */
    window_refused(pair.source, DEVICE_PIECE, 0);
    window_refused(pair.source, DEVICE_PIECE, 4097);
    window_refused(pair.source, DEVICE_PIECE, UINT32_MAX);
    window_refused(pair.source, (1ull << 40) + 1, 1);
    window_refused(pair.source, UINT64_MAX, 1);
    pair_clear(&pair);
}

static void source__puts_no_buffer_that_cannot_be_counted(void **state)
{
    Rules *r = *state;
    static const VmfDeviceOps ops = {.size = sizeof(ops)};
    VmfDevices *devices = vmf_session_get_devices(r->pair.source);
    g_autoptr(GError) error = NULL;
    Device *device;

    assert_true(vmf_devices_add(devices, "nic", 2, &ops, NULL, NULL));
    device = devices_find(devices, "nic", 2);
    device->put = UINT32_MAX;
    assert_false(vmf_device_put(&device->job, "x", 1, NULL, NULL, &error));
    assert_int_equal(error->code, VMF_ERROR_INVALID);
    assert_int_equal(device->put, UINT32_MAX);
}

static void *complete(void *opaque)
{
    Rules *r = opaque;
    GError *error = NULL;

    vmf_session_complete(r->pair.source, &error);
    return error;
}

static void announce(Rules *r)
{
    MessageDevice entry = {.idstr = "nic", .instance_id = 2};
    uint8_t bytes[MESSAGE_SWITCHOVER_BYTES + MESSAGE_DEVICE_MAX] = {0};
    MessageHeader header = {
        .length = (uint32_t)(MESSAGE_SWITCHOVER_BYTES +
                             message_device_encode(&entry, bytes + MESSAGE_SWITCHOVER_BYTES))};

    assert_true(devices_handle_switchover(r->pair.destination, &header, bytes, NULL));
}

/* Everything has come, and the device lacks something, which both sides name. */
static void lacks(Rules *r, const char *text)
{
    g_autoptr(GError) here = NULL;
    g_autoptr(GError) there = NULL;
    GThread *thread = g_thread_new("complete", complete, r);

    assert_false(vmf_devices_load(vmf_session_get_devices(r->pair.destination), &here));
    there = g_thread_join(thread);
    assert_non_null(strstr(here->message, text));
    assert_non_null(strstr(here->message, "device \"nic\" instance 2"));
    assert_non_null(strstr(there->message, text));
}

static void refuses__an_end_with_a_buffer_missing(void **state)
{
    Rules *r = *state;

    announce(r);
    r->header.index = 1;
    taken(r, 0);
    r->header.index = 3;
    r->header.place = DEVICE_NO_PLACE;
    r->header.flags = DEVICE_FLAG_CONFIG;
    taken(r, 1);
    lacks(r, "buffer 0 of 3 is missing");
}

static void refuses__an_end_without_the_device(void **state)
{
    Rules *r = *state;

    announce(r);
    lacks(r, "without having saved it");
}

static void refuses__an_end_without_a_switchover(void **state)
{
    lacks(*state, "without a switchover");
}

int main(void)
{
#define RULE(name) cmocka_unit_test_setup_teardown(name, rules_setup, rules_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window__never_gives_a_place_twice_and_never_stays_full),
        cmocka_unit_test(window__is_used_to_the_end_and_from_the_beginning),
        cmocka_unit_test(windows__have_the_same_places_on_both_sides),
        RULE(refuses__devices_that_are_not_known),
        RULE(refuses__bad_sizes),
        RULE(refuses__places_that_are_not_free),
        RULE(refuses__more_than_the_window_takes),
        RULE(refuses__pieces_and_indexes_that_come_twice),
        RULE(refuses__more_than_was_announced),
        RULE(refuses__more_after_the_configuration),
        RULE(refuses__an_index_that_cannot_be_counted),
        cmocka_unit_test_setup_teardown(refuses__more_outside_the_windows_than_all_may_have,
                                        two_setup, rules_teardown),
        cmocka_unit_test(source__refuses_windows_that_no_destination_can_have),
        RULE(source__puts_no_buffer_that_cannot_be_counted),
        RULE(refuses__an_end_with_a_buffer_missing),
        RULE(refuses__an_end_without_the_device),
        RULE(refuses__an_end_without_a_switchover),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
