/* SPDX-License-Identifier: BSD-2-Clause */
/* file-life.c -- making and closing a migration file */

#include <string.h>

#include "file-state.h"

static bool ops_complete(const VmfFileOps *ops, VmfFileMode mode, GError **error)
{
    const char *lacks = NULL;

    if (mode == VMF_FILE_WRITE && !ops->put_buffer) {
        lacks = "put_buffer, and the file is for writing";
    } else if (mode == VMF_FILE_READ && !ops->get_buffer) {
        lacks = "get_buffer, and the file is for reading";
    } else if (!ops->save_ram_page != !ops->flush_ram_pages) {
        lacks = ops->save_ram_page ? "flush_ram_pages, but has save_ram_page"
                                   : "save_ram_page, but has flush_ram_pages";
    }
    if (lacks) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "the file's table lacks %s", lacks);
    }
    return !lacks;
}

VmfFile *vmf_file_new(const VmfFileOps *ops, void *opaque, VmfFileMode mode, GError **error)
{
    VmfFileOps known = {0};
    VmfFile *file;

    if (mode != VMF_FILE_READ && mode != VMF_FILE_WRITE) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "a file is for reading or for writing");
        return NULL;
    }
    memcpy(&known, ops, MIN(sizeof(known), ops->size));
    known.size = sizeof(known);
    if (!ops_complete(&known, mode, error)) {
        return NULL;
    }
    file = g_new0(VmfFile, 1);
    file->ops = known;
    file->opaque = opaque;
    file->mode = mode;
    file->blocking = true;
    file->buffer = g_malloc(FILE_BUFFER);
    file->clock = g_get_monotonic_time;
    file->rate_since = file->clock();
    g_mutex_init(&file->lock);
    return file;
}

bool vmf_file_close(VmfFile *file, GError **error)
{
    GError *failure = NULL;
    bool ok;

    if (!file) {
        return true;
    }
    if (file->mode == VMF_FILE_WRITE && !file_failed(file)) {
        vmf_file_flush(file, NULL);
    }
    if (file->ops.close && !file->ops.close(file->opaque, &failure)) {
        file_set_error(file, failure);
    }
    ok = !file->error;
    if (!ok) {
        g_propagate_error(error, g_steal_pointer(&file->error));
    }
    g_mutex_clear(&file->lock);
    g_free(file->buffer);
    g_free(file);
    return ok;
}

void vmf_file_free(VmfFile *file)
{
    g_autoptr(GError) ignored = NULL;

    vmf_file_close(file, &ignored);
}
