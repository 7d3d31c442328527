/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-rdma-wire.c -- every decoder of the rdma: wire format over arbitrary bytes */

#include "fuzz.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    WireHello hello;
    WireHeader header;
    WireRegister registration;
    WireResult results[WIRE_REGISTER_MAX];
    WireParameters parameters;
    VmfDeviceHeader device;
    WireMemory memory;
    ssize_t ranges;

    (void)wire_hello_decode(data, size, &hello, NULL);
    (void)wire_header_decode(data, size, &header, NULL);
    if (wire_register_decode(data, size, &registration, NULL)) {
        uint8_t back[4 + WIRE_REGISTER_MAX * WIRE_CHUNK_BYTES];
        /* What decodes must encode to the same bytes. */
        g_assert(wire_register_encode(&registration, back, sizeof(back)) == size);
        g_assert(memcmp(back, data, size) == 0);
    }
    for (unsigned count = 0; count <= WIRE_REGISTER_MAX; count++) {
        (void)wire_results_decode(data, size, count, results, NULL);
    }
    (void)wire_parameters_decode(data, size, &parameters, NULL);
    if (wire_memory_decode(data, size, &memory, NULL)) {
        g_assert(memory.bytes && memory.address + memory.bytes > memory.address);
    }
    if (wire_device_decode(data, size, &device, NULL)) {
        g_assert(strlen(device.idstr) > 0 && device.size > 0);
    }
    ranges = wire_range_count(size, NULL);
    for (ssize_t i = 0; i < ranges; i++) {
        WireRange range;
        wire_range_decode(data, (size_t)i, &range);
    }
    return 0;
}

const FuzzSeed fuzz_seeds[] = {
    FUZZ_SEED("\0\0\0\1\x80\0\0\0VMFY\0\2\0\5\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\0\0\0\1"),
    FUZZ_SEED("\0\1\0\2\0\0\0\0\0\0\0\11\0\0\0\1\0\0\0\7\0\0\0\1\0\0\0\10"),
    FUZZ_SEED("\3nic\0\0\0\2\0\0\0\7\0\0\0\0\0\1\0\0"),
    FUZZ_SEED("\0\0\0\3\0\20\0\0\0\0\0\1\0\60\0\0"),
    FUZZ_SEED("\0\0\177\0\0\0\20\0\0\0\0\0\4\0\0\0\253\0\315\1"),
    {0},
};
