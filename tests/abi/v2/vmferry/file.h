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
 * A VmfFile belongs to one thread at a time. Only vmf_file_shut_down(),
 * vmf_file_tell() and vmf_file_get_fd() may be called from another thread.
 *
 * Errors are sticky: the first one wins, every later call does nothing (a get
 * returns 0 or short), and vmf_file_check() reports it. So a caller may put a
 * whole section and look once at the end.
 */
typedef struct VmfFile VmfFile;

typedef enum {
    VMF_FLUSH_ROUND = 1, /* the end of a round over RAM: drain what it sent */
    VMF_FLUSH_FINAL = 2, /* the last one: after it the RAM on the destination is complete */
    VMF_FLUSH_START = 3 /* no drain: what was gathered goes on its way where nothing is before it */
} VmfFlush;

/* What get_buffer returns besides a count of bytes. */
#define VMF_IO_ERROR (-1)       /* *error is set */
#define VMF_IO_WOULD_BLOCK (-2) /* nothing there now (only when asked not to block) */

/*
 * The table a stream's maker fills in. Callbacks left NULL have the meaning
 * given. All but shut_down are called on the file's own thread. `opaque' is
 * what vmf_file_new() was given. `flags' are 0 for now: ignore unknown bits.
 */
typedef struct VmfFileOps {
    uint32_t
        size; /* sizeof(VmfFileOps) as the maker was compiled; fields beyond it count as NULL */
    uint32_t flags;

    /*
     * Writes all the bytes of iov, in order. Blocks. `position' is that of the
     * first byte. RAM queued by save_ram_page before this call is visible on
     * the destination before a reader there gets any of these bytes. NULL: the
     * file cannot be written.
     */
    bool (*put_buffer)(void *opaque, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                       unsigned flags, GError **error);

    /*
     * Reads up to `size' bytes (at least 1): returns their number, 0 at the end
     * of the stream, VMF_IO_ERROR, or, if `blocking' is false, VMF_IO_WOULD_BLOCK.
     * NULL: the file cannot be read.
     */
    ssize_t (*get_buffer)(void *opaque, void *buffer, size_t size, uint64_t position, bool blocking,
                          GError **error);

    /* Ends the stream and frees `opaque'; called once. NULL: nothing to do. */
    bool (*close)(void *opaque, GError **error);

    /* From any thread: makes every call under way and every later one fail soon. May be NULL. */
    void (*shut_down)(void *opaque);

    /* A descriptor that polls readable while get_buffer would not block. NULL: there is none. */
    int (*get_fd)(void *opaque);

    /*
     * The file for the opposite direction; its owner is the caller. NULL, or
     * returning NULL with *error set: there is no return path.
     */
    VmfFile *(*get_return_path)(void *opaque, GError **error);

    /*
     * Queues a range of guest RAM, asynchronously: the memory is read at some
     * time between this call and the end of the next flush_ram_pages. Sets
     * *accounted to the bytes to add to the file's position and to what the rate limit counts:
     * less than `length', down to 0, for what need not be sent, now or earlier. NULL: this
     * transport has no RAM path and the caller puts the page into the stream.
     */
    bool (*save_ram_page)(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                          unsigned flags, uint64_t *accounted, GError **error);

    /* Drains (or starts) what save_ram_page queued. NULL if and only if save_ram_page is. */
    bool (*flush_ram_pages)(void *opaque, VmfFlush how, unsigned flags, GError **error);
} VmfFileOps;

typedef enum { VMF_FILE_READ = 1, VMF_FILE_WRITE = 2 } VmfFileMode;

/*
 * Makes a file over a table. `ops' is copied; `opaque' is the file's from now
 * on (freed by ops->close). NULL with VMF_ERROR_INVALID when the table lacks
 * what the mode needs, or has one of save_ram_page/flush_ram_pages without the
 * other; `opaque' then stays the caller's.
 */
VMF_API VmfFile *vmf_file_new(const VmfFileOps *ops, void *opaque, VmfFileMode mode,
                              GError **error);

/*
 * A file over a file descriptor (pipe, socket, disk file) that is open that
 * way; owns fd from now on (on failure it stays the caller's) and makes it
 * non-blocking until closed. No RAM path. Waits for as long as the other end
 * lets it: a watchdog of the caller's ends that by vmf_file_shut_down().
 */
VMF_API VmfFile *vmf_file_new_fd(int fd, VmfFileMode mode, GError **error);

/*
 * A file in memory. Writing: grows as needed; vmf_file_steal_bytes() takes what
 * was put. Reading: hands out `bytes'.
 */
VMF_API VmfFile *vmf_file_new_memory_writer(void);
VMF_API VmfFile *vmf_file_new_memory_reader(GBytes *bytes);
/* The content of a memory writer, flushed; NULL with *error set after a failure. */
VMF_API GBytes *vmf_file_steal_bytes(VmfFile *file, GError **error);

/*
 * Flushes (a writer), closes and frees. false with *error when the file had
 * failed or closing it did; the file is freed all the same. NULL is allowed.
 */
VMF_API bool vmf_file_close(VmfFile *file, GError **error);
/* The same without looking at the outcome, for g_autoptr. */
VMF_API void vmf_file_free(VmfFile *file);

/* --- state --- */

/* true while nothing has failed; else a copy of the first error in *error. */
VMF_API bool vmf_file_check(VmfFile *file, GError **error);
/* Makes `error' (owned by the file from now on) the file's error, if it is the first. */
VMF_API void vmf_file_fail(VmfFile *file, GError *error);
/*
 * Bytes put or got since the start, RAM that went around the buffer included, as far as it is
 * sent: pages are counted when they are saved, and those found zero behind that are set against
 * pages saved later, and at the end of a flush that drains they are taken off: then it may go back.
 * Thread safe.
 */
VMF_API uint64_t vmf_file_tell(VmfFile *file);
/* Whether the file runs over this very table (compares the callbacks); rarely needed. */
VMF_API bool vmf_file_ops_are(VmfFile *file, const VmfFileOps *ops);
/* From any thread: wakes a blocked reader or writer; every later call fails. */
VMF_API void vmf_file_shut_down(VmfFile *file);
/* The file for the opposite direction (caller owns it), or NULL with *error set. */
VMF_API VmfFile *vmf_file_get_return_path(VmfFile *file, GError **error);

/*
 * A descriptor that polls readable when there are bytes to get (in the file's
 * own buffer, too: check vmf_file_buffered() before you sleep) or the stream
 * has failed or ended; -1 when the transport has none. Owned by the file.
 */
VMF_API int vmf_file_get_fd(VmfFile *file);
/*
 * Non-blocking reading: a get that lacks bytes takes none, sets no error,
 * returns 0 and makes vmf_file_would_block() true until the next get.
 */
VMF_API void vmf_file_set_blocking(VmfFile *file, bool blocking);
VMF_API bool vmf_file_would_block(VmfFile *file);
VMF_API size_t vmf_file_buffered(VmfFile *file); /* bytes that a get can take at once */

/*
 * Rate limit, for whoever feeds the file: bytes per second (RAM included), 0 =
 * none. Zero pages do not count, see vmf_file_tell(); being found late, they let at most
 * queue_max of VmfStats pass in a burst. vmf_file_rate_exceeded() is cheap: call it between pages,
 * and when it is true wait vmf_file_rate_delay() microseconds, at most 100 ms at a time.
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
VMF_API void vmf_put_buffer(VmfFile *file, const void *buffer, size_t size); /* copies or writes */
/* One length byte, then the string without its NUL; at most 255 bytes, else VMF_ERROR_INVALID. */
VMF_API void vmf_put_counted_string(VmfFile *file, const char *string);
/* Hands everything buffered to the transport. */
VMF_API bool vmf_file_flush(VmfFile *file, GError **error);

/* Whether the transport has a RAM path. */
VMF_API bool vmf_file_has_ram_path(VmfFile *file);
/*
 * Queues guest RAM (see VmfFileOps). Buffered stream bytes put before it are
 * not flushed by it: RAM may overtake stream bytes, never the reverse.
 * false when the file has failed, the range lies outside the block, or there
 * is no RAM path (VMF_ERROR_UNSUPPORTED).
 */
VMF_API bool vmf_save_ram_page(VmfFile *file, const VmfRamBlock *block, uint64_t offset,
                               uint64_t length);
/*
 * Flushes the stream, then drains the RAM path. Without a RAM path: only the
 * stream. VMF_FLUSH_START neither flushes the stream nor waits: for a caller that
 * will not save for a while, such as one with a rate limit.
 */
VMF_API bool vmf_flush_ram_pages(VmfFile *file, VmfFlush how);

/* --- reading --- */

VMF_API uint8_t vmf_get_byte(VmfFile *file);
VMF_API uint16_t vmf_get_be16(VmfFile *file);
VMF_API uint32_t vmf_get_be32(VmfFile *file);
VMF_API uint64_t vmf_get_be64(VmfFile *file);
/*
 * Gets exactly `size' bytes: returns size, or, when the stream ends or fails
 * first, less (with the file's error set), or 0 when it would block. For sizes
 * above the file's buffer non-blocking mode returns what there is (> 0).
 */
VMF_API size_t vmf_get_buffer(VmfFile *file, void *buffer, size_t size);
/* Gets a counted string into `buffer' (NUL-terminated); false at the end or on failure. */
VMF_API bool vmf_get_counted_string(VmfFile *file, char buffer[256]);
/*
 * Makes `size' bytes (at most 32768) that lie `offset' behind the next one
 * readable in place, without taking them; returns how many there are (fewer at
 * the end of the stream: that is no error). *data is valid until the next call.
 */
VMF_API size_t vmf_peek_buffer(VmfFile *file, const uint8_t **data, size_t size, size_t offset);
VMF_API void vmf_skip(VmfFile *file, size_t size); /* takes what a peek showed */
/* true at the end of the stream (looks ahead, so it may block). */
VMF_API bool vmf_file_at_end(VmfFile *file);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfFile, vmf_file_free)

G_END_DECLS

#endif
