/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-v1-wire.c -- every decoder of stock QEMU's rdma: protocol over arbitrary bytes */

#include "fuzz.h"
#include "qemu-v1/v1-wire.h"

/* What has a good header can be decoded to the end of its body. */
static void decode_body(const V1Header *header, const uint8_t *body, size_t size)
{
    V1Register request;
    V1Registered registered;
    V1Block block;
    V1Zero zero;

    switch (header->type) {
    case V1_REGISTER_REQUEST:
    case V1_UNREGISTER_REQUEST:
        for (uint32_t i = 0; i < header->repeat; i++) {
            v1_register_decode(body, i, &request);
        }
        break;
    case V1_REGISTER_RESULT:
        for (size_t i = 0; i < size / V1_REGISTERED_BYTES; i++) {
            v1_registered_decode(body, i, &registered);
        }
        break;
    case V1_RAM_BLOCKS_RESULT:
        for (size_t i = 0; i < size / V1_BLOCK_BYTES; i++) {
            v1_block_decode(body, i, &block);
        }
        break;
    case V1_COMPRESS:
        v1_zero_decode(body, &zero);
        break;
    case V1_QEMU_FILE:
        g_assert(size > 0);
        break;
    default:
        g_assert(size == 0);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    V1Capabilities capabilities;
    V1Header header;

    if (v1_capabilities_decode(data, size, &capabilities, NULL)) {
        g_assert(capabilities.version == V1_VERSION);
    }
    if (v1_header_decode(data, size, &header, NULL)) {
        decode_body(&header, data + V1_HEADER_BYTES, size - V1_HEADER_BYTES);
    }
    return 0;
}

const FuzzSeed fuzz_seeds[] = {
    FUZZ_SEED("\0\0\0\1\0\0\0\1"),
    FUZZ_SEED(
        "\0\0\0\30\0\0\0\7\0\0\0\1\0\0\0\0\0\0\0\0\0\60\20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    FUZZ_SEED("\0\0\0\20\0\0\0\10\0\0\0\1\0\0\0\0\0\0\253\315\0\0\0\0\0\0\177\22\0\0\0\0"),
    FUZZ_SEED(
        "\0\0\0\30\0\0\0\6\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\60\0\0\0\0\0\0\0\20\0\0"),
    FUZZ_SEED("\0\0\0\0\0\0\0\2\0\0\0\1\0\0\0\0"),
    FUZZ_SEED("\0\0\0\4\0\0\0\3\0\0\0\1\0\0\0\0QEVM"),
    {0},
};
