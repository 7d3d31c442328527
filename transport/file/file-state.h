/* SPDX-License-Identifier: BSD-2-Clause */
/* file-state.h -- the inside of VmfFile, for the files of this folder and for sessions */

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
    size_t start, end;       /* reading: bytes that are not taken yet; writing: start is 0 */
    uint64_t first_position; /* writing: position of the first byte in the buffer */
    bool blocking, would_block, at_end;
    uint64_t rate_limit;
    uint64_t rate_bytes; /* bytes since rate_since */
    gint64 rate_since;
    gint64 (*clock)(void); /* microseconds; tests put their own clock here */

    uint64_t position; /* atomic; bytes that the user has put or got, RAM included */

    /* Any thread. */
    int failed; /* atomic: error is set */
    GMutex lock;
    GError *error;
};

static inline bool file_failed(VmfFile *file)
{
    return G_UNLIKELY(__atomic_load_n(&file->failed, __ATOMIC_ACQUIRE));
}

/*
 * Makes `error' the file's if it is the first. The file owns `error'; NULL: there is no reason. Any
 * thread.
 */
void file_set_error(VmfFile *file, GError *error);
/* Whether the file has not failed, and is open for that mode. Another mode makes it fail. */
bool file_usable(VmfFile *file, VmfFileMode mode);
void file_advance(VmfFile *file, uint64_t bytes);
/*
 * Takes off RAM that was accounted and then not sent. Nothing may be buffered. The file's own
 * thread.
 */
void file_take_back(VmfFile *file, uint64_t bytes);

#endif
