/* SPDX-License-Identifier: BSD-2-Clause */
/* file-get.c -- the migration file: reading */

#include <string.h>

#include "file-state.h"

/*
 * Reads once from the transport into `into'. Returns the number of bytes. 0: there are none now,
 * the stream has ended, or it has failed; the file's state tells which.
 */
static size_t pull(VmfFile *file, uint8_t *into, size_t room, uint64_t position)
{
    GError *error = NULL;
    ssize_t n;

    if (file->at_end) {
        return 0;
    }
    n = file->ops.get_buffer(file->opaque, into, room, position, file->blocking, &error);
    if (n == VMF_IO_WOULD_BLOCK && !file->blocking) {
        file->would_block = true;
        return 0;
    }
    if (n == VMF_IO_ERROR) {
        file_set_error(file, error);
        return 0;
    }
    if (G_UNLIKELY(n < 0 || (size_t)n > room)) {
        file_set_error(file, g_error_new(VMF_ERROR, VMF_ERROR_FAILED,
                                         "the stream's get_buffer returned %zd when asked for %zu "
                                         "bytes: a bug of the transport",
                                         n, room));
        return 0;
    }
    if (n == 0) {
        file->at_end = true;
    }
    return (size_t)n;
}

/* Buffers at least `wanted' bytes, if the transport gives them. Returns how many are buffered. */
static size_t fill(VmfFile *file, size_t wanted)
{
    file->would_block = false;
    if (FILE_BUFFER - file->start < wanted) {
        memmove(file->buffer, file->buffer + file->start, file->end - file->start);
        file->end -= file->start;
        file->start = 0;
    }
    while (file->end - file->start < wanted) {
        size_t n;

        if (file->start == file->end) {
            file->start = file->end = 0;
        }
        n = pull(file, file->buffer + file->end, FILE_BUFFER - file->end,
                 file->position + (file->end - file->start));
        if (!n) {
            break;
        }
        file->end += n;
    }
    return file->end - file->start;
}

static void past_the_end(VmfFile *file, size_t wanted)
{
    if (!file_failed(file) && !file->would_block) {
        file_set_error(file, g_error_new(VMF_ERROR, VMF_ERROR_EOF,
                                         "the stream ended at byte %" G_GUINT64_FORMAT
                                         ", %zu bytes short of what is read there",
                                         file->position + vmf_file_buffered(file),
                                         wanted - MIN(wanted, vmf_file_buffered(file))));
    }
}

static void take(VmfFile *file, void *into, size_t size)
{
    memcpy(into, file->buffer + file->start, size);
    file->start += size;
    file_advance(file, size);
}

/*
 * For sizes above the buffer: takes what is buffered, and reads the rest into the caller's memory.
 */
static size_t get_large(VmfFile *file, uint8_t *into, size_t size)
{
    size_t done = MIN(size, vmf_file_buffered(file));

    file->would_block = false;
    take(file, into, done);
    while (done < size) {
        size_t n = pull(file, into + done, size - done, file->position);

        if (!n) {
            break;
        }
        done += n;
        file_advance(file, n);
    }
    if (done < size) {
        past_the_end(file, size - done);
    }
    return done;
}

size_t vmf_get_buffer(VmfFile *file, void *buffer, size_t size)
{
    size_t have;

    if (!file_usable(file, VMF_FILE_READ) || !size) {
        return 0;
    }
    if (size > FILE_BUFFER) {
        return get_large(file, buffer, size);
    }
    have = fill(file, size);
    if (have < size) {
        past_the_end(file, size);
        return file->would_block ? 0 : (take(file, buffer, have), have);
    }
    take(file, buffer, size);
    return size;
}

static uint64_t get_number(VmfFile *file, size_t size)
{
    uint8_t bytes[8];
    uint64_t value = 0;

    if (vmf_get_buffer(file, bytes, size) != size) {
        return 0;
    }
    for (size_t i = 0; i < size; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

uint8_t vmf_get_byte(VmfFile *file)
{
    return (uint8_t)get_number(file, 1);
}

uint16_t vmf_get_be16(VmfFile *file)
{
    return (uint16_t)get_number(file, 2);
}

uint32_t vmf_get_be32(VmfFile *file)
{
    return (uint32_t)get_number(file, 4);
}

uint64_t vmf_get_be64(VmfFile *file)
{
    return get_number(file, 8);
}

bool vmf_get_counted_string(VmfFile *file, char buffer[256])
{
    size_t length;

    buffer[0] = '\0';
    if (!file_usable(file, VMF_FILE_READ)) {
        return false;
    }
    /*
     * Takes the length and the string together, so that a reader that does not block can try again.
     */
    if (fill(file, 1) < 1) {
        past_the_end(file, 1);
        return false;
    }
    length = file->buffer[file->start];
    if (fill(file, 1 + length) < 1 + length) {
        past_the_end(file, 1 + length);
        return false;
    }
    vmf_skip(file, 1);
    take(file, buffer, length);
    buffer[length] = '\0';
    return true;
}

size_t vmf_peek_buffer(VmfFile *file, const uint8_t **data, size_t size, size_t offset)
{
    size_t have;

    *data = NULL;
    if (!file_usable(file, VMF_FILE_READ)) {
        return 0;
    }
    if (offset > FILE_BUFFER || size > FILE_BUFFER - offset) {
        file_set_error(file, g_error_new(VMF_ERROR, VMF_ERROR_INVALID,
                                         "cannot peek %zu bytes at %zu: the buffer has %d", size,
                                         offset, FILE_BUFFER));
        return 0;
    }
    have = fill(file, offset + size);
    if (have <= offset) {
        return 0;
    }
    *data = file->buffer + file->start + offset;
    return MIN(size, have - offset);
}

void vmf_skip(VmfFile *file, size_t size)
{
    if (!file_usable(file, VMF_FILE_READ)) {
        return;
    }
    if (size > vmf_file_buffered(file)) {
        file_set_error(file, g_error_new(VMF_ERROR, VMF_ERROR_INVALID,
                                         "cannot skip %zu bytes: only %zu were peeked at", size,
                                         vmf_file_buffered(file)));
        return;
    }
    file->start += size;
    file_advance(file, size);
}

bool vmf_file_at_end(VmfFile *file)
{
    return file_usable(file, VMF_FILE_READ) && fill(file, 1) == 0 && file->at_end;
}
