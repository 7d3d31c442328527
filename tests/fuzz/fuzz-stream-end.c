/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-stream-end.c -- the end of QEMU's stream, and the heads of its return path */

#include <glib.h>
#include <vmferry/qemu-stream.h>

#include "fuzz.h"
#include "local-qemu/return-frames.h"
#include "local-qemu/stream-end.h"

static void check_end(const uint8_t *data, size_t size, ssize_t end)
{
    g_assert(end >= -1 && end < (ssize_t)size);
    g_assert(end < 0 || data[end] == VMF_QEMU_SECTION_EOF);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ssize_t described = stream_end_described(data, size), end = stream_end_find(data, size);

    check_end(data, size, described);
    check_end(data, size, end);
    g_assert(described < 0 || end == described);
    g_assert(end < 0 || described >= 0 || (size_t)end == size - 1);
    if (stream_end_bare(data, size, true)) {
        g_assert(stream_end_bare(data, size, false));
        g_assert((size_t)end == size - 1);
    }
    if (size >= RETURN_HEADER_BYTES) {
        ReturnHeader header;

        return_header_decode(data, &header);
        g_assert(header.type <= 0xffff && header.bytes <= 0xffff);
    }
    return 0;
}

const FuzzSeed fuzz_seeds[] = {
    FUZZ_SEED("\x7e\0\0\0\3\0"),
    FUZZ_SEED("\x7e\0\0\0\3\0\6\0\0\0\2{}"),
    FUZZ_SEED("\0\6\0\0\0\17{\"a\":\"\0\6\0\0\0\1{}\"}"),
    FUZZ_SEED("\0\1\0\4\0\0\0\0"),
    FUZZ_SEED("\0\7\0\0"),
    {0},
};
