/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-end.c -- whether a file with QEMU's migration stream has the stream's end */

#include "qemu-end.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <vmferry/plugin/bytes.h>
#include <vmferry/error.h>

#include <vmferry/qemu-stream.h>

/* More than any description has, because the file may have any size. */
#define TAIL_MAX (64ull << 20)
#define FOOTER_BYTES 5 /* 0x7e, be32 section */
#define LEAD_BYTES 6   /* what precedes the description: the end byte, 0x06, be32 length */

static uint8_t *read_tail(int fd, uint64_t at, size_t size, GError **error)
{
    g_autofree uint8_t *tail = g_try_malloc(size);
    size_t have = 0;

    if (!tail) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "no memory for %zu bytes", size);
        return NULL;
    }
    while (have < size) {
        ssize_t n = pread(fd, tail + have, size - have, (off_t)(at + have));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_IO,
                        "cannot read at offset %" G_GUINT64_FORMAT ": %s", at + have,
                        n ? g_strerror(errno) : "it has become shorter");
            return NULL;
        }
        have += (size_t)n;
    }
    return g_steal_pointer(&tail);
}

static bool is_footer(const uint8_t *at)
{
    return at[0] == VMF_QEMU_SECTION_FOOTER && at[1] == 0 &&
           at[2] == 0; /* there are few sections */
}

/* The end byte follows the footer of the last section: every VM has devices. */
static bool is_end_byte(const uint8_t *tail, size_t at, bool footers)
{
    return tail[at] == VMF_QEMU_SECTION_EOF &&
           (!footers || (at >= FOOTER_BYTES && is_footer(tail + at - FOOTER_BYTES)));
}

/*
 * Whether a description follows the end byte, has the length that it says, and is the last in the
 * file.
 */
static bool has_description(const uint8_t *tail, size_t size, bool footers)
{
    for (size_t at = size; at-- > LEAD_BYTES;) {
        const uint8_t *lead = tail + at - LEAD_BYTES;
        VmfReader length = vmf_reader(lead + 2, 4);

        if (tail[at] == '{' && lead[1] == VMF_QEMU_SECTION_VMDESC &&
            vmf_read_be32(&length) == size - at && is_end_byte(tail, at - LEAD_BYTES, footers)) {
            return true;
        }
    }
    return false;
}

bool qemu_end_find(int fd, uint64_t from, uint64_t size, bool footers, QemuEnd *end, GError **error)
{
    const size_t length = from < size ? (size_t)MIN(size - from, TAIL_MAX) : 0;
    g_autofree uint8_t *tail = NULL;

    *end = QEMU_END_MISSING;
    if (!length) {
        return true;
    }
    tail = read_tail(fd, size - length, length, error);
    if (!tail) {
        return false;
    }
    if (has_description(tail, length, footers)) {
        *end = QEMU_END_THERE;
    } else if (is_end_byte(tail, length - 1, footers)) {
        *end = footers ? QEMU_END_THERE : QEMU_END_POSSIBLE;
    }
    return true;
}
