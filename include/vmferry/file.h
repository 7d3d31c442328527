/* SPDX-License-Identifier: BSD-2-Clause */
/* file.h -- the migration file: a buffered big-endian byte stream with a RAM path */

#ifndef VMFERRY_FILE_H
#define VMFERRY_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <glib.h>
#include <vmferry/error.h>
#include <vmferry/ram.h>

G_BEGIN_DECLS

/*
 * A VmfFile belongs to one thread at a time. Another thread may call vmf_file_shut_down(),
 * vmf_file_tell(), vmf_file_get_fd(), vmf_file_check() and vmf_file_fail() alone.
 *
 * The first error stays. After it every call does nothing: a get returns 0 or fewer bytes, and
 * vmf_file_check() reports the error. So a caller may put a whole section, and check once at the
 * end.
 */
typedef struct VmfFile VmfFile;

typedef enum {
    VMF_FLUSH_ROUND = 1, /* the end of a round over RAM: waits until its RAM is written */
    VMF_FLUSH_FINAL = 2, /* the last flush: after it the RAM on the destination is complete */
    VMF_FLUSH_START = 3  /* does not wait: idle channels begin to send what was gathered */
} VmfFlush;

/* A flag of save_ram_page. */
#define VMF_SAVE_ZERO 1u

/* What get_buffer returns instead of a count of bytes. */
#define VMF_IO_ERROR (-1)       /* *error is set */
#define VMF_IO_WOULD_BLOCK (-2) /* no byte is there now, and `blocking' is false */

/*
 * The table of a stream, which its maker fills in. What NULL means is said at each member. `opaque'
 * is what vmf_file_new() was given. `flags' are 0, unless a member says otherwise: ignore unknown
 * bits. The file's own thread calls everything but shut_down and get_fd.
 */
typedef struct VmfFileOps {
    uint32_t size; /* the maker's sizeof(VmfFileOps); what lies past it counts as NULL */
    uint32_t flags;

    /*
     * Writes all bytes of iov, in order. Blocks. `position' is that of the first byte. The
     * destination sees RAM of earlier save_ram_page calls before its reader gets any of these
     * bytes. NULL: the file cannot be written.
     */
    bool (*put_buffer)(void *opaque, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                       unsigned flags, GError **error);

    /*
     * Reads 1 to `size' bytes. Returns their number, 0 at the end of the stream, VMF_IO_ERROR, or
     * VMF_IO_WOULD_BLOCK if `blocking' is false. NULL: the file cannot be read.
     */
    ssize_t (*get_buffer)(void *opaque, void *buffer, size_t size, uint64_t position, bool blocking,
                          GError **error);

    /* Ends the stream and frees `opaque'. It is called once. NULL: nothing is freed. */
    bool (*close)(void *opaque, GError **error);

    /* Any thread: makes every call fail soon, those under way and those that come. May be NULL. */
    void (*shut_down)(void *opaque);

    /*
     * A descriptor that polls readable while get_buffer would not block. Any thread. NULL: there is
     * none.
     */
    int (*get_fd)(void *opaque);

    /*
     * Makes a file for the opposite direction, which the caller owns. Returns NULL with *error if
     * there is no return path. NULL: there is none.
     */
    VmfFile *(*get_return_path)(void *opaque, GError **error);

    /*
     * Queues a range of guest RAM. `flags' may have VMF_SAVE_ZERO: the memory is not read, because
     * the caller says that it is zero. A table that ignores the bit reads it. The memory is read
     * between this call and the end of the next flush_ram_pages. *accounted becomes the bytes to
     * add to the file's position and to its rate limit: `length', less bytes that need not be sent,
     * now or earlier. NULL: there is no RAM path, and the caller puts the page into the stream.
     */
    bool (*save_ram_page)(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                          unsigned flags, uint64_t *accounted, GError **error);

    /* Sends what save_ram_page has queued. It is NULL if and only if save_ram_page is. */
    bool (*flush_ram_pages)(void *opaque, VmfFlush how, unsigned flags, GError **error);
} VmfFileOps;

typedef enum { VMF_FILE_READ = 1, VMF_FILE_WRITE = 2 } VmfFileMode;

/*
 * Makes a file over a table. `ops' is copied. The file owns `opaque', and frees it by ops->close.
 * Returns NULL with VMF_ERROR_INVALID if the table lacks what the mode needs, or has only one of
 * save_ram_page and flush_ram_pages; then `opaque' stays the caller's.
 */
VMF_API VmfFile *vmf_file_new(const VmfFileOps *ops, void *opaque, VmfFileMode mode,
                              GError **error);

/*
 * A file over a descriptor of a pipe, a socket or a disk file. The file owns `fd', closes it, and
 * keeps it non-blocking until then. There is no RAM path. It waits as long as the other end lets
 * it: vmf_file_shut_down() ends that. Returns NULL with *error if `fd' is not open in that mode
 * (VMF_ERROR_DIRECTION) or a system call fails; then `fd' stays the caller's.
 */
VMF_API VmfFile *vmf_file_new_fd(int fd, VmfFileMode mode, GError **error);

/*
 * A file in memory. A writer holds at most 2 GiB - 1; vmf_file_steal_bytes() takes what was put. A
 * reader hands out `bytes', and holds a reference to them. Never NULL.
 */
VMF_API VmfFile *vmf_file_new_memory_writer(void);
VMF_API VmfFile *vmf_file_new_memory_reader(GBytes *bytes);
/*
 * Flushes a memory writer, and takes its content, which the caller owns. The writer goes on empty.
 * Returns NULL with *error after a failure, or for any other file.
 */
VMF_API GBytes *vmf_file_steal_bytes(VmfFile *file, GError **error);

/*
 * Flushes a writer, closes and frees the file. Returns false with *error if the file or its closing
 * has failed; the file is freed all the same. NULL is allowed.
 */
VMF_API bool vmf_file_close(VmfFile *file, GError **error);
/* vmf_file_close() that drops the error, for g_autoptr. */
VMF_API void vmf_file_free(VmfFile *file);

/* --- state --- */

/*
 * true while nothing has failed. Else false, with a copy of the first error in *error. Any thread.
 */
VMF_API bool vmf_file_check(VmfFile *file, GError **error);
/* Makes `error' the file's error if it is the first. The file owns `error'. Any thread. */
VMF_API void vmf_file_fail(VmfFile *file, GError *error);
/*
 * Bytes put or got since the start, guest RAM included. A page counts when it is saved. Pages are
 * found zero later: their bytes are taken off pages that follow, or at the end of a flush that
 * waits. Then the position may go back. Any thread.
 */
VMF_API uint64_t vmf_file_tell(VmfFile *file);
/* Whether the file has the callbacks of this table. */
VMF_API bool vmf_file_ops_are(VmfFile *file, const VmfFileOps *ops);
/*
 * Wakes a blocked reader or writer, and every later call fails with VMF_ERROR_CANCELLED. A file of
 * a session cancels its session by it. Any thread.
 */
VMF_API void vmf_file_shut_down(VmfFile *file);
/*
 * Makes a file for the opposite direction, or returns NULL with *error. The caller owns it, and
 * closes it before the session of the first file is freed. It may be used in another thread.
 */
VMF_API VmfFile *vmf_file_get_return_path(VmfFile *file, GError **error);

/*
 * A descriptor that polls readable when the transport has bytes, or when the stream has ended or
 * failed. It says nothing of bytes in the file's own buffer: look at vmf_file_buffered() before you
 * sleep. -1: there is none. The file owns it. Any thread.
 */
VMF_API int vmf_file_get_fd(VmfFile *file);
/*
 * Non-blocking reading, which is off at first. A get that lacks bytes takes none, sets no error and
 * returns 0. vmf_file_would_block() is then true until the next get or peek.
 */
VMF_API void vmf_file_set_blocking(VmfFile *file, bool blocking);
VMF_API bool vmf_file_would_block(VmfFile *file);
VMF_API size_t
vmf_file_buffered(VmfFile *file); /* bytes that a get can take without the transport */

/*
 * A rate limit for the caller that writes: bytes per second, RAM included; 0 is none. The file only
 * counts. vmf_file_rate_exceeded() is cheap, so call it between pages. When it is true, wait
 * vmf_file_rate_delay() microseconds, which are at most 100 ms. Zero pages do not count, see
 * vmf_file_tell(). They are found late, so that a burst may pass of at most queue_max of VmfStats.
 */
VMF_API void vmf_file_set_rate_limit(VmfFile *file, uint64_t bytes_per_second);
VMF_API uint64_t vmf_file_get_rate_limit(VmfFile *file);
VMF_API bool vmf_file_rate_exceeded(VmfFile *file);
VMF_API int64_t vmf_file_rate_delay(VmfFile *file);

/* --- writing --- */

VMF_API void vmf_put_byte(VmfFile *file, uint8_t value);
VMF_API void vmf_put_be16(VmfFile *file, uint16_t value);
VMF_API void vmf_put_be32(VmfFile *file, uint32_t value);
VMF_API void vmf_put_be64(VmfFile *file, uint64_t value);
VMF_API void vmf_put_buffer(VmfFile *file, const void *buffer,
                            size_t size); /* `buffer' may change when it returns */
/*
 * One byte of length, then the string without its NUL. More than 255 bytes are VMF_ERROR_INVALID.
 */
VMF_API void vmf_put_counted_string(VmfFile *file, const char *string);
/* Hands everything that is buffered to the transport. */
VMF_API bool vmf_file_flush(VmfFile *file, GError **error);

/* Whether the transport has a RAM path. */
VMF_API bool vmf_file_has_ram_path(VmfFile *file);
/*
 * Queues guest RAM, see VmfFileOps; `offset' and `length' are bytes. It does not flush the stream:
 * RAM may overtake stream bytes, and never the reverse. The memory stays the caller's. Returns
 * false if the file has failed, the range lies outside the block, or there is no RAM path
 * (VMF_ERROR_UNSUPPORTED). Each of them is the file's error.
 */
VMF_API bool vmf_save_ram_page(VmfFile *file, const VmfRamBlock *block, uint64_t offset,
                               uint64_t length);
/*
 * vmf_save_ram_page() for whole pages that the caller has just found zero. They are not read again,
 * so it works for memory that is not known yet (vmf_ram_blocks_add_unplaced()). If the guest writes
 * there afterwards, the pages are dirty, and the caller saves them again.
 */
VMF_API bool vmf_save_zero_pages(VmfFile *file, const VmfRamBlock *block, uint64_t offset,
                                 uint64_t length);
/*
 * Flushes the stream, then waits until the queued RAM is written. Without a RAM path it flushes the
 * stream alone. VMF_FLUSH_START neither flushes the stream nor waits. It is for a caller that saves
 * nothing for a while, such as one at its rate limit.
 */
VMF_API bool vmf_flush_ram_pages(VmfFile *file, VmfFlush how);

/* --- reading --- */

VMF_API uint8_t vmf_get_byte(VmfFile *file);
VMF_API uint16_t vmf_get_be16(VmfFile *file);
VMF_API uint32_t vmf_get_be32(VmfFile *file);
VMF_API uint64_t vmf_get_be64(VmfFile *file);
/*
 * Gets exactly `size' bytes, and returns their number. If the stream ends or fails first, it
 * returns fewer, with the file's error set. If it would block, it takes none and returns 0. More
 * than 32768 bytes in non-blocking mode: it takes and returns as many as are there.
 */
VMF_API size_t vmf_get_buffer(VmfFile *file, void *buffer, size_t size);
/*
 * Gets a counted string into `buffer', with a NUL. Returns false at the end, on failure, or if it
 * would block; then it takes nothing.
 */
VMF_API bool vmf_get_counted_string(VmfFile *file, char buffer[256]);
/*
 * Shows `size' bytes in place that lie `offset' bytes after the next one, and takes none. `offset'
 * and `size' together are at most 32768. Returns how many there are. Fewer than `size' at the end
 * of the stream are no error. *data is valid until the next call.
 */
VMF_API size_t vmf_peek_buffer(VmfFile *file, const uint8_t **data, size_t size, size_t offset);
VMF_API void vmf_skip(VmfFile *file, size_t size); /* takes buffered bytes, as a peek showed them */
/* Whether the stream has ended. Looks for the next byte, so it may block. */
VMF_API bool vmf_file_at_end(VmfFile *file);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfFile, vmf_file_free)

G_END_DECLS

#endif
