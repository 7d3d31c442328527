/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-qemu-stream.c -- QEMU's stream from arbitrary bytes, whole and cut to pieces */

#include "fuzz.h"
#include <vmferry/qemu-stream.h>

typedef struct Seen {
    uint64_t bytes;
    const VmfQemuStream *stream;
} Seen;

/* Items cover the stream without a gap, and pages lie inside their blocks. */
static bool see(void *opaque, const VmfQemuItem *item, GError **error)
{
    Seen *seen = opaque;
    const VmfQemuBlock *block = vmf_qemu_stream_block(seen->stream, item->block);

    (void)error;
    seen->bytes += item->size;
    if (item->kind == VMF_QEMU_ITEM_PAGE || item->kind == VMF_QEMU_ITEM_ZERO ||
        item->kind == VMF_QEMU_ITEM_DATA) {
        g_assert(block);
        g_assert(item->offset < block->length);
    }
    if (item->kind == VMF_QEMU_ITEM_DATA) {
        g_assert(item->size <= block->length - item->offset);
    }
    return true;
}

/* Returns how many bytes came in items. */
static uint64_t scan(const uint8_t *data, size_t size, size_t piece)
{
    Seen seen = {0};
    VmfQemuStream *stream = vmf_qemu_stream_new(see, &seen);
    size_t at = 0;
    ssize_t taken = 1;
    uint64_t bytes;

    seen.stream = stream;
    while (at < size && taken >= 0) {
        taken = vmf_qemu_stream_scan(stream, data + at, MIN(piece, size - at), false, NULL);
        at += taken > 0 ? (size_t)taken : 0;
    }
    g_assert(seen.bytes <= size && vmf_qemu_stream_awaits(stream));
    bytes = seen.bytes;
    vmf_qemu_stream_free(stream);
    return bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_assert(scan(data, size, 1) == scan(data, size, MAX(size, 1)));
    return 0;
}

#define HEADER "QEVM\0\0\0\3"
#define CONFIGURATION "\7\0\0\0\3abc"
#define RAM_START "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4"
#define BLOCKS "\0\0\0\0\0\0\40\4\6pc.ram\0\0\0\0\0\0\40\0"
#define HOOK "\0\0\0\0\0\0\0\200"
#define EOS "\0\0\0\0\0\0\0\20"
#define FOOTER "\176\0\0\0\2"

const FuzzSeed fuzz_seeds[] = {
    FUZZ_SEED(HEADER CONFIGURATION RAM_START BLOCKS HOOK EOS FOOTER
              "\2\0\0\0\2" HOOK EOS FOOTER "\3\0\0\0\2" HOOK EOS FOOTER "\4\0\0\0\3\5timer"),
    FUZZ_SEED(HEADER CONFIGURATION "\5\16configuration/\0\0\0\1\0\0\0\14" RAM_START BLOCKS),
    FUZZ_SEED(HEADER "\10\0\1\0\2xy" RAM_START BLOCKS
                     "\0\0\0\0\0\0\20\2\6pc.ram\0\0\0\0\0\0\0\0\50"),
    FUZZ_SEED(HEADER "\7\0\0\0\1a\5\32configuration/capabilities\0\0\0\1\0\0\0\1\3abc" RAM_START),
    {0},
};
