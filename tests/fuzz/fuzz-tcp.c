/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-tcp.c -- every decoder of the socket transports over arbitrary bytes */

#include "fuzz.h"
#include "socket/tcp-wire.h"

/* A decoded value must encode to the same bytes. */
static void preamble(const uint8_t *data)
{
    uint8_t back[TCP_PREAMBLE_BYTES];
    TcpPreamble decoded;

    if (tcp_preamble_decode(data, &decoded, NULL)) {
        tcp_preamble_encode(&decoded, back);
        g_assert(memcmp(back, data, sizeof(back)) == 0);
    }
}

static void record(const uint8_t *data)
{
    uint8_t back[TCP_RECORD_BYTES];
    TcpRecord decoded;

    if (tcp_record_decode(data, &decoded, NULL)) {
        tcp_record_encode(&decoded, back);
        g_assert(memcmp(back, data, sizeof(back)) == 0);
    }
}

static void device(const uint8_t *data, size_t size)
{
    uint8_t back[TCP_DEVICE_HEADER_MAX];
    VmfDeviceHeader decoded;

    if (tcp_device_decode(data, size, &decoded, NULL)) {
        g_assert(tcp_device_encode(&decoded, back) == size);
        g_assert(memcmp(back, data, size) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= TCP_PREAMBLE_BYTES) {
        preamble(data);
    }
    if (size >= TCP_RECORD_BYTES) {
        record(data);
    }
    device(data, size);
    return 0;
}

const FuzzSeed fuzz_seeds[] = {
    FUZZ_SEED("VMFT\0\1\0\2\0\3\0\0\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17"),
    FUZZ_SEED("VMFT\0\1\0\1\0\0\0\0\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17"),
    FUZZ_SEED("\0\0\0\1\0\0\0\2\1\2\3\4\5\6\7\10\0\0\0\0\0\20\0\0"),
    FUZZ_SEED("\0\0\0\4\0\0\0\13\0\0\0\0\0\0\0\0\0\0\0\0\0\20\0\0"),
    FUZZ_SEED("\0\0\0\1\0\0\0\2nic"),
    {0},
};
