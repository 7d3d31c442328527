/* SPDX-License-Identifier: BSD-2-Clause */
/* file-state.h -- the inside of VmfFile, shared by its reading, writing and common parts */

#ifndef VMF_FILE_STATE_H
#define VMF_FILE_STATE_H

#include <vmferry/file.h>

#define FILE_BUFFER 32768

struct VmfFile {
    VmfFileOps ops;
    void *opaque;
    VmfFileMode mode;

    /* The file's own thread only. */
    uint8_t *buffer;
    size_t start, end;       /* reading: the bytes not yet taken; writing: start is 0 */
    uint64_t first_position; /* writing: of the first byte in the buffer */
    bool blocking, would_block, at_end;
    uint64_t rate_limit;
    uint64_t rate_bytes; /* since rate_since */
    gint64 rate_since;
    gint64 (*clock)(void); /* microseconds; tests put their own here */

    uint64_t position; /* atomic; what the user has put or got, RAM included */

    /* Any thread. */
    int failed; /* atomic: error is set */
    GMutex lock;
    GError *error;
};

static inline bool file_failed(VmfFile *file)
{
    return G_UNLIKELY(__atomic_load_n(&file->failed, __ATOMIC_ACQUIRE));
}

/* Takes the error over; it counts if it is the first. */
void file_set_error(VmfFile *file, GError *error);
/* false (with the file failed) unless it is open that way. */
bool file_usable(VmfFile *file, VmfFileMode mode);
void file_advance(VmfFile *file, uint64_t bytes);
/* RAM that was accounted and then not sent. Nothing may be buffered. The file's own thread. */
void file_take_back(VmfFile *file, uint64_t bytes);

#endif
