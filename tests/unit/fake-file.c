/* SPDX-License-Identifier: BSD-2-Clause */
/* fake-file.c -- a fake stream that records the calls of the migration file */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "fake-file.h"

static bool outcome(Fake *fake, const char *call, GError **error)
{
    if (g_strcmp0(fake->fails, call) != 0) {
        return true;
    }
    if (!fake->mute) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE, "the fake's %s failed", call);
    }
    return false;
}

static bool fake_put(void *opaque, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                     unsigned flags, GError **error)
{
    Fake *fake = opaque;
    size_t size = 0;

    assert_int_equal(flags, 0);
    fake->pieces = iovcnt;
    for (unsigned i = 0; i < iovcnt; i++) {
        g_byte_array_append(fake->out, iov[i].iov_base, (guint)iov[i].iov_len);
        fake->last_piece = iov[i].iov_base;
        size += iov[i].iov_len;
    }
    g_string_append_printf(fake->calls, "put@%" G_GUINT64_FORMAT "+%zu ", position, size);
    return outcome(fake, "put", error);
}

static bool fake_ram(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                     unsigned flags, uint64_t *accounted, GError **error)
{
    Fake *fake = opaque;

    (void)block;
    assert_int_equal(flags, 0);
    g_string_append_printf(fake->calls, "ram@%" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT " ", offset,
                           length);
    *accounted = fake->account;
    return outcome(fake, "ram", error);
}

static bool fake_flush(void *opaque, VmfFlush how, unsigned flags, GError **error)
{
    Fake *fake = opaque;

    assert_int_equal(flags, 0);
    g_string_append_printf(fake->calls, "flush:%s ",
                           how == VMF_FLUSH_FINAL   ? "final"
                           : how == VMF_FLUSH_ROUND ? "round"
                                                    : "start");
    return outcome(fake, "flush", error);
}

static ssize_t fake_get(void *opaque, void *buffer, size_t size, uint64_t position, bool blocking,
                        GError **error)
{
    Fake *fake = opaque;
    int answer = fake->script ? *fake->script : G_MAXINT;

    assert_int_equal(position, fake->in_taken);
    assert_true(size > 0);
    fake->last_into = buffer;
    fake->last_blocking = blocking;
    if (answer != FAKE_END && fake->script) {
        fake->script++;
    }
    if (answer == FAKE_FAILS) {
        if (!fake->mute) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE, "the fake's get failed");
        }
        return VMF_IO_ERROR;
    }
    if (answer == FAKE_BLOCKS) {
        return VMF_IO_WOULD_BLOCK;
    }
    if (answer == FAKE_TOO_MANY) {
        return (ssize_t)size + 1;
    }
    size = MIN(size, MIN((size_t)answer, fake->in_size - fake->in_taken));
    if (size) {
        memcpy(buffer, fake->in + fake->in_taken, size);
    }
    fake->in_taken += size;
    return (ssize_t)size;
}

static bool fake_close(void *opaque, GError **error)
{
    Fake *fake = opaque;

    assert_false(fake->closed);
    fake->closed = true;
    g_string_append(fake->calls, "close ");
    return outcome(fake, "close", error);
}

const VmfFileOps fake_writer_ops = {
    .size = sizeof(VmfFileOps),
    .put_buffer = fake_put,
    .close = fake_close,
    .save_ram_page = fake_ram,
    .flush_ram_pages = fake_flush,
};

const VmfFileOps fake_stream_only_ops = {
    .size = sizeof(VmfFileOps),
    .put_buffer = fake_put,
    .close = fake_close,
};

const VmfFileOps fake_reader_ops = {
    .size = sizeof(VmfFileOps),
    .get_buffer = fake_get,
    .close = fake_close,
};

void fake_init(Fake *fake)
{
    *fake = (Fake){.calls = g_string_new(NULL), .out = g_byte_array_new(), .account = 4096};
}

void fake_clear(Fake *fake)
{
    g_string_free(fake->calls, TRUE);
    g_byte_array_unref(fake->out);
}

void assert_failed(VmfFile *file, int code, const char *text)
{
    g_autoptr(GError) error = NULL;

    assert_false(vmf_file_check(file, &error));
    assert_non_null(error);
    assert_true(error->domain == VMF_ERROR);
    assert_int_equal(error->code, code);
    if (!strstr(error->message, text)) {
        fail_msg("\"%s\" is not in \"%s\"", text, error->message);
    }
}

VmfFile *fake_reader_new(Fake *fake, uint8_t *bytes, size_t size)
{
    VmfFile *file;

    fake_init(fake);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(i + i / 251);
    }
    fake->in = bytes;
    fake->in_size = size;
    file = vmf_file_new(&fake_reader_ops, fake, VMF_FILE_READ, NULL);
    assert_non_null(file);
    return file;
}
