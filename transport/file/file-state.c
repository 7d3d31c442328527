/* SPDX-License-Identifier: BSD-2-Clause */
/* file-state.c -- the state of a migration file: position, error, mode */

#include "file-state.h"

/* The error for an operation that failed without one. */
static GError *no_reason(void)
{
    return g_error_new(VMF_ERROR, VMF_ERROR_FAILED,
                       "an operation of the stream failed, and its maker gave no reason");
}

void file_set_error(VmfFile *file, GError *error)
{
    if (!error) {
        error = no_reason();
    }
    g_mutex_lock(&file->lock);
    if (file->error) {
        g_error_free(error);
    } else {
        file->error = error;
        __atomic_store_n(&file->failed, 1, __ATOMIC_RELEASE);
    }
    g_mutex_unlock(&file->lock);
}

void vmf_file_fail(VmfFile *file, GError *error)
{
    file_set_error(file, error);
}

bool vmf_file_check(VmfFile *file, GError **error)
{
    bool ok;

    g_mutex_lock(&file->lock);
    ok = !file->error;
    if (!ok && error) {
        *error = g_error_copy(file->error);
    }
    g_mutex_unlock(&file->lock);
    return ok;
}

bool file_usable(VmfFile *file, VmfFileMode mode)
{
    if (file_failed(file)) {
        return false;
    }
    if (G_UNLIKELY(file->mode != mode)) {
        file_set_error(file, g_error_new(VMF_ERROR, VMF_ERROR_DIRECTION,
                                         mode == VMF_FILE_READ
                                             ? "reading from a file that is open for writing"
                                             : "writing to a file that is open for reading"));
        return false;
    }
    return true;
}

void vmf_file_shut_down(VmfFile *file)
{
    file_set_error(file, g_error_new(VMF_ERROR, VMF_ERROR_CANCELLED, "the file was shut down"));
    if (file->ops.shut_down) {
        file->ops.shut_down(file->opaque);
    }
}

/* --- position and mode --- */

void file_advance(VmfFile *file, uint64_t bytes)
{
    /* Only the file's thread writes it; vmf_file_tell() reads it in other threads. */
    __atomic_store_n(&file->position, file->position + bytes, __ATOMIC_RELAXED);
    file->rate_bytes += bytes;
}

void file_take_back(VmfFile *file, uint64_t bytes)
{
    __atomic_store_n(&file->position, file->position - MIN(bytes, file->position),
                     __ATOMIC_RELAXED);
    file->rate_bytes -= MIN(bytes, file->rate_bytes);
}

uint64_t vmf_file_tell(VmfFile *file)
{
    return __atomic_load_n(&file->position, __ATOMIC_RELAXED);
}

bool vmf_file_ops_are(VmfFile *file, const VmfFileOps *ops)
{
    return file->ops.put_buffer == ops->put_buffer && file->ops.get_buffer == ops->get_buffer &&
           file->ops.close == ops->close && file->ops.save_ram_page == ops->save_ram_page &&
           file->ops.flush_ram_pages == ops->flush_ram_pages;
}

VmfFile *vmf_file_get_return_path(VmfFile *file, GError **error)
{
    GError *failure = NULL;
    VmfFile *back;

    if (!vmf_file_check(file, error)) {
        return NULL;
    }
    if (!file->ops.get_return_path) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED, "this stream has no return path");
        return NULL;
    }
    back = file->ops.get_return_path(file->opaque, &failure);
    if (!back) {
        g_propagate_error(error, failure ? failure : no_reason());
    }
    return back;
}

int vmf_file_get_fd(VmfFile *file)
{
    return file->ops.get_fd ? file->ops.get_fd(file->opaque) : -1;
}

void vmf_file_set_blocking(VmfFile *file, bool blocking)
{
    file->blocking = blocking;
}

bool vmf_file_would_block(VmfFile *file)
{
    return file->would_block;
}

size_t vmf_file_buffered(VmfFile *file)
{
    return file->mode == VMF_FILE_READ ? file->end - file->start : 0;
}
