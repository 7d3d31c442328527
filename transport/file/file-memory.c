/* SPDX-License-Identifier: BSD-2-Clause */
/* file-memory.c -- migration files in memory */

#include <string.h>

#include "file-state.h"

/* GByteArray counts in 32 bits, and doubles its room. */
#define MEMORY_MAX ((size_t)G_MAXINT32)

/* --- writing --- */

static bool memory_put(void *opaque, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                       unsigned flags, GError **error)
{
    GByteArray *bytes = opaque;

    (void)position;
    (void)flags;
    for (unsigned i = 0; i < iovcnt; i++) {
        if (iov[i].iov_len > MEMORY_MAX - bytes->len) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                        "a stream in memory holds at most %zu bytes: write to a descriptor instead",
                        MEMORY_MAX);
            return false;
        }
        g_byte_array_append(bytes, iov[i].iov_base, (guint)iov[i].iov_len);
    }
    return true;
}

static bool memory_close_writer(void *opaque, GError **error)
{
    (void)error;
    g_byte_array_unref(opaque);
    return true;
}

static const VmfFileOps writer_ops = {
    .size = sizeof(VmfFileOps),
    .put_buffer = memory_put,
    .close = memory_close_writer,
};

VmfFile *vmf_file_new_memory_writer(void)
{
    return vmf_file_new(&writer_ops, g_byte_array_new(), VMF_FILE_WRITE, NULL);
}

GBytes *vmf_file_steal_bytes(VmfFile *file, GError **error)
{
    GByteArray *bytes;

    if (!vmf_file_ops_are(file, &writer_ops)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "only a file from vmf_file_new_memory_writer() has bytes to take");
        return NULL;
    }
    if (!vmf_file_flush(file, error)) {
        return NULL;
    }
    bytes = file->opaque;
    file->opaque = g_byte_array_new();
    return g_byte_array_free_to_bytes(bytes);
}

/* --- reading --- */

typedef struct MemoryReader {
    GBytes *bytes;
    size_t taken;
} MemoryReader;

static ssize_t memory_get(void *opaque, void *buffer, size_t size, uint64_t position, bool blocking,
                          GError **error)
{
    MemoryReader *reader = opaque;
    size_t length;
    const uint8_t *data = g_bytes_get_data(reader->bytes, &length);
    size_t part = MIN(size, length - reader->taken);

    (void)position;
    (void)blocking;
    (void)error;
    if (part) {
        memcpy(buffer, data + reader->taken, part);
        reader->taken += part;
    }
    return (ssize_t)part;
}

static bool memory_close_reader(void *opaque, GError **error)
{
    MemoryReader *reader = opaque;

    (void)error;
    g_bytes_unref(reader->bytes);
    g_free(reader);
    return true;
}

static const VmfFileOps reader_ops = {
    .size = sizeof(VmfFileOps),
    .get_buffer = memory_get,
    .close = memory_close_reader,
};

VmfFile *vmf_file_new_memory_reader(GBytes *bytes)
{
    MemoryReader *reader = g_new0(MemoryReader, 1);

    reader->bytes = g_bytes_ref(bytes);
    return vmf_file_new(&reader_ops, reader, VMF_FILE_READ, NULL);
}
