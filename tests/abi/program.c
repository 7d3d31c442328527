/* SPDX-License-Identifier: BSD-2-Clause */
/* program.c -- a small VMM that uses all of the public interface with a size or a table */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include <vmferry/vmferry.h>

#define RAM (4u << 20)
#define PAGE 4096u
#define DEVICE (1u << 20)

typedef struct Side {
    uint8_t *ram;
    VmfRamBlocks *blocks;
    const VmfRamBlock *block;
    uint8_t *device;
    char config[8];
} Side;

static void side_init(Side *side)
{
    memset(side, 0, sizeof(*side));
    side->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(side->ram, MAP_FAILED);
    side->device = g_malloc0(DEVICE);
    side->blocks = vmf_ram_blocks_new();
    side->block = vmf_ram_blocks_add(side->blocks, "ram", side->ram, RAM, PAGE, NULL);
    assert_non_null(side->block);
    assert_int_equal(side->block->page_size, PAGE);
}

static void side_clear(Side *side)
{
    vmf_ram_blocks_unref(side->blocks);
    munmap(side->ram, RAM);
    g_free(side->device);
}

/* --- a device with state of its own --- */

static bool device_save(VmfDeviceJob *job, void *opaque, GError **error)
{
    return vmf_device_put(job, ((Side *)opaque)->device, DEVICE, NULL, NULL, error);
}

static GBytes *device_save_config(void *opaque, GError **error)
{
    (void)opaque;
    (void)error;
    return g_bytes_new_static("config", 7);
}

static bool device_load(VmfDeviceJob *job, void *opaque, GError **error)
{
    Side *side = opaque;
    const void *data;
    size_t size, at = 0;

    for (;;) {
        if (!vmf_device_get(job, &data, &size, error)) {
            return false;
        }
        if (!data) {
            return at == DEVICE;
        }
        assert_true(size <= DEVICE - at);
        memcpy(side->device + at, data, size);
        at += size;
    }
}

static bool device_load_config(const void *config, size_t size, void *opaque, GError **error)
{
    Side *side = opaque;

    (void)error;
    assert_true(size <= sizeof(side->config));
    memcpy(side->config, config, size);
    return true;
}

static const VmfDeviceOps device_ops = {
    .size = sizeof(VmfDeviceOps),
    .save = device_save,
    .save_config = device_save_config,
    .load = device_load,
    .load_config = device_load_config,
};

/* --- a whole migration between two threads --- */

typedef struct Destination {
    Side *side;
    VmfListener *listener;
} Destination;

static void *destination_main(void *opaque)
{
    Destination *d = opaque;
    g_autoptr(GError) error = NULL;
    g_autoptr(VmfSession) session = vmf_session_accept(d->listener, d->side->blocks, NULL, &error);
    VmfDevices *devices;

    if (!session) {
        return g_strdup(error->message);
    }
    devices = vmf_session_get_devices(session);
    if (!vmf_devices_add(devices, "gpu", 0, &device_ops, d->side, &error) ||
        !vmf_devices_expect(devices, &error)) {
        return g_strdup(error->message);
    }
    if (vmf_get_be32(vmf_session_get_file(session)) != 0xcafe) {
        return g_strdup("the stream has something else");
    }
    if (!vmf_devices_load(devices, &error) || !vmf_session_complete(session, &error)) {
        return g_strdup(error->message);
    }
    return NULL;
}

static void fill(Side *side)
{
    for (size_t at = 0; at < RAM / 2; at += PAGE) {
        memset(side->ram + at, (int)(at / PAGE + 1), PAGE);
    }
    memset(side->device, 0x5a, DEVICE);
}

static void send_all(VmfSession *session, Side *side)
{
    VmfFile *file = vmf_session_get_file(session);
    VmfDevices *devices = vmf_session_get_devices(session);
    g_autoptr(GError) error = NULL;

    for (size_t at = 0; at < RAM; at += PAGE) {
        assert_true(vmf_save_ram_page(file, side->block, at, PAGE));
    }
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
    assert_true(vmf_devices_add(devices, "gpu", 0, &device_ops, side, &error));
    assert_true(vmf_devices_start(devices, &error));
    vmf_put_be32(file, 0xcafe);
    assert_true(vmf_file_flush(file, &error));
    assert_true(vmf_devices_finish(devices, &error));
}

/* Checks the statistics by the structure that this program knows, and nothing past it. */
static void look_at_stats(VmfSession *session)
{
    struct {
        VmfStats stats;
        uint8_t beyond[256];
    } seen;

    memset(&seen, 0xee, sizeof(seen));
    seen.stats.size = sizeof(VmfStats);
    vmf_session_get_stats(session, &seen.stats);
    assert_int_equal(seen.stats.ram_bytes, RAM);
    assert_true(seen.stats.device_bytes > DEVICE); /* and the configuration */
    for (size_t i = 0; i < sizeof(seen.beyond); i++) {
        assert_int_equal(seen.beyond[i], 0xee);
    }
}

static void migrate(const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, &error);
    g_autoptr(VmfListener) listener = uri ? vmf_listener_new(uri, &error) : NULL;
    g_autoptr(VmfUri) to = listener ? vmf_uri_parse(vmf_listener_address(listener), &error) : NULL;
    Side from, there;
    Destination destination = {.side = &there, .listener = listener};
    VmfSession *session;
    GThread *thread;
    g_autofree char *trouble = NULL;

    if (error) {
        fail_msg("%s", error->message);
    }
    side_init(&from);
    side_init(&there);
    fill(&from);
    thread = g_thread_new("destination", destination_main, &destination);
    session = vmf_session_connect(to, from.blocks, NULL, &error);
    if (!session) {
        fail_msg("%s", error->message);
    }
    send_all(session, &from);
    look_at_stats(session);
    if (!vmf_session_complete(session, &error)) {
        fail_msg("%s", error->message);
    }
    trouble = g_thread_join(thread);
    vmf_session_free(session);
    if (trouble) {
        fail_msg("%s", trouble);
    }
    assert_memory_equal(from.ram, there.ram, RAM);
    assert_memory_equal(from.device, there.device, DEVICE);
    assert_string_equal(there.config, "config");
    side_clear(&from);
    side_clear(&there);
}

static void program__of_that_time_migrates_by_a_built_in_transport(void **state)
{
    (void)state;
    migrate("tcp:127.0.0.1:0,channels=2");
}

static void program__of_that_time_migrates_by_a_plugin_of_that_time(void **state)
{
    (void)state;
    migrate("meet:here:1,shade=4,hue=blue");
}

/* A file over a table that is as long as it was then. */

typedef struct Sink {
    GByteArray *bytes;
    bool closed;
} Sink;

static bool sink_put(void *opaque, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                     unsigned flags, GError **error)
{
    Sink *sink = opaque;

    (void)flags;
    (void)error;
    assert_int_equal(position, sink->bytes->len);
    for (unsigned i = 0; i < iovcnt; i++) {
        g_byte_array_append(sink->bytes, iov[i].iov_base, (guint)iov[i].iov_len);
    }
    return true;
}

static bool sink_close(void *opaque, GError **error)
{
    (void)error;
    ((Sink *)opaque)->closed = true;
    return true;
}

static void program__of_that_time_makes_files_over_its_own_table(void **state)
{
    const VmfFileOps ops = {
        .size = sizeof(VmfFileOps), .put_buffer = sink_put, .close = sink_close};
    Sink sink = {.bytes = g_byte_array_new()};
    VmfFile *file = vmf_file_new(&ops, &sink, VMF_FILE_WRITE, NULL);

    (void)state;
    assert_non_null(file);
    vmf_put_be32(file, 0x01020304);
    assert_true(vmf_file_close(file, NULL));
    assert_true(sink.closed);
    assert_int_equal(sink.bytes->len, 4);
    assert_int_equal(sink.bytes->data[3], 4);
    g_byte_array_unref(sink.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(program__of_that_time_migrates_by_a_built_in_transport),
        cmocka_unit_test(program__of_that_time_migrates_by_a_plugin_of_that_time),
        cmocka_unit_test(program__of_that_time_makes_files_over_its_own_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
