/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-message.c -- the decoders of the engine's messages and of the socket transports */

#include <glib.h>

#include "fuzz.h"
#include "base/message.h"
#include "socket/tcp-wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    MessageHeader header;
    MessageHello hello;
    MessageBlock block;
    MessageDevice entry;
    TcpPreamble preamble;
    TcpRecord record;
    VmfDeviceHeader device;
    g_autofree char *text = message_error_text(data, size);

    g_assert(g_utf8_validate(text, -1, NULL));
    (void)message_header_decode(data, size, VMF_ROLE_SOURCE, &header, NULL);
    (void)message_header_decode(data, size, VMF_ROLE_DESTINATION, &header, NULL);
    if (message_hello_decode(data, size, &hello, NULL)) {
        g_assert(hello.channels <= VMF_CHANNELS_MAX &&
                 hello.parameters_size <= sizeof(hello.parameters));
    }
    for (const uint8_t *at = data; at < data + size;) {
        size_t taken = message_block_decode(at, (size_t)(data + size - at), &block, NULL);
        if (!taken) {
            break;
        }
        g_assert(*block.name);
        at += taken;
    }
    for (const uint8_t *at = data; at < data + size;) {
        size_t taken = message_device_decode(at, (size_t)(data + size - at), &entry, NULL);
        if (!taken) {
            break;
        }
        g_assert(*entry.idstr);
        at += taken;
    }
    if (size >= TCP_PREAMBLE_BYTES && tcp_preamble_decode(data, &preamble, NULL)) {
        g_assert(preamble.channel < VMF_CHANNELS_MAX);
    }
    if (size >= TCP_RECORD_BYTES) {
        (void)tcp_record_decode(data, &record, NULL);
    }
    (void)tcp_device_decode(data, size, &device, NULL);
    return 0;
}

const FuzzSeed fuzz_seeds[] = {
    FUZZ_SEED("\0\0\0\2\0\7\0\0\0\0\0\0\0\0\1\5ab"),
    FUZZ_SEED("VMFY\0\2\0\2\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20\0\4\0\0\47\20\0\0\0\0\0\0\0\0"
              "\2\11\11"),
    FUZZ_SEED("\0\0\0\0\100\0\0\0\0\0\20\0\6pc.ram"),
    FUZZ_SEED("\0\0\0\7\3nic\0\0\0\0\5vfio1"),
    FUZZ_SEED("VMFT\0\1\0\2\0\3\0\0\7\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    {0},
};
