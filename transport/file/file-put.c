/* SPDX-License-Identifier: BSD-2-Clause */
/* file-put.c -- the migration file: writing, and the RAM path */

#include <string.h>

#include "file-state.h"

/* Hands the buffer, and then `size' more bytes, to the transport in one call. */
static bool push(VmfFile *file, const void *more, size_t size)
{
    struct iovec iov[2];
    unsigned count = 0;
    GError *error = NULL;
    /* RAM that was saved since then has moved the file's position, and not that of these bytes. */
    uint64_t position = file->end ? file->first_position : file->position;

    if (file->end) {
        iov[count++] = (struct iovec){.iov_base = file->buffer, .iov_len = file->end};
    }
    if (size) {
        iov[count++] = (struct iovec){.iov_base = (void *)more, .iov_len = size};
    }
    if (!count) {
        return true;
    }
    file->end = 0;
    if (!file->ops.put_buffer(file->opaque, iov, count, position, 0, &error)) {
        file_set_error(file, error);
        return false;
    }
    return true;
}

bool vmf_file_flush(VmfFile *file, GError **error)
{
    if (file_usable(file, VMF_FILE_WRITE)) {
        push(file, NULL, 0);
    }
    return !file_failed(file) || vmf_file_check(file, error);
}

void vmf_put_buffer(VmfFile *file, const void *buffer, size_t size)
{
    if (!file_usable(file, VMF_FILE_WRITE) || !size) {
        return;
    }
    if (size > FILE_BUFFER - file->end) {
        /* A large piece goes by reference, after what is buffered. */
        if (size >= FILE_BUFFER) {
            if (push(file, buffer, size)) {
                file_advance(file, size);
            }
            return;
        }
        if (!push(file, NULL, 0)) {
            return;
        }
    }
    if (!file->end) {
        file->first_position = file->position;
    }
    memcpy(file->buffer + file->end, buffer, size);
    file->end += size;
    file_advance(file, size);
}

static void put_number(VmfFile *file, uint64_t value, size_t size)
{
    uint8_t bytes[8];

    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
    }
    vmf_put_buffer(file, bytes, size);
}

void vmf_put_byte(VmfFile *file, uint8_t value)
{
    put_number(file, value, 1);
}

void vmf_put_be16(VmfFile *file, uint16_t value)
{
    put_number(file, value, 2);
}

void vmf_put_be32(VmfFile *file, uint32_t value)
{
    put_number(file, value, 4);
}

void vmf_put_be64(VmfFile *file, uint64_t value)
{
    put_number(file, value, 8);
}

void vmf_put_counted_string(VmfFile *file, const char *string)
{
    size_t length = strlen(string);

    if (length > 255) {
        file_set_error(file,
                       g_error_new(VMF_ERROR, VMF_ERROR_INVALID,
                                   "a counted string has at most 255 bytes, this has %zu", length));
        return;
    }
    vmf_put_byte(file, (uint8_t)length);
    vmf_put_buffer(file, string, length);
}

/* --- RAM --- */

bool vmf_file_has_ram_path(VmfFile *file)
{
    return file->ops.save_ram_page != NULL;
}

static bool ram_failed(VmfFile *file, GError *error)
{
    file_set_error(file, error);
    return false;
}

static bool save(VmfFile *file, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                 unsigned flags)
{
    GError *error = NULL;
    uint64_t accounted = 0;

    if (!file_usable(file, VMF_FILE_WRITE)) {
        return false;
    }
    if (G_UNLIKELY(!file->ops.save_ram_page)) {
        return ram_failed(file, g_error_new(VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                                            "this stream has no RAM path: put the page into it"));
    }
    if (G_UNLIKELY(offset > block->length || length > block->length - offset)) {
        return ram_failed(
            file, g_error_new(VMF_ERROR, VMF_ERROR_INVALID,
                              "range 0x%" G_GINT64_MODIFIER "x+0x%" G_GINT64_MODIFIER
                              "x lies outside RAM block \"%s\" of 0x%" G_GINT64_MODIFIER "x bytes",
                              offset, length, block->name, block->length));
    }
    if (G_UNLIKELY(!file->ops.save_ram_page(file->opaque, block, offset, length, flags, &accounted,
                                            &error))) {
        return ram_failed(file, error);
    }
    file_advance(file, accounted);
    return true;
}

bool vmf_save_ram_page(VmfFile *file, const VmfRamBlock *block, uint64_t offset, uint64_t length)
{
    return save(file, block, offset, length, 0);
}

bool vmf_save_zero_pages(VmfFile *file, const VmfRamBlock *block, uint64_t offset, uint64_t length)
{
    return save(file, block, offset, length, VMF_SAVE_ZERO);
}

bool vmf_flush_ram_pages(VmfFile *file, VmfFlush how)
{
    GError *error = NULL;

    if (!file_usable(file, VMF_FILE_WRITE) || (how != VMF_FLUSH_START && !push(file, NULL, 0))) {
        return false;
    }
    if (file->ops.flush_ram_pages && !file->ops.flush_ram_pages(file->opaque, how, 0, &error)) {
        return ram_failed(file, error);
    }
    return true;
}
