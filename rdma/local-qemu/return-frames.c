/* SPDX-License-Identifier: BSD-2-Clause */
/* return-frames.c -- the messages of QEMU's return path, as far as they matter here */

#include "return-frames.h"

#include <vmferry/plugin/bytes.h>

void return_header_decode(const uint8_t bytes[RETURN_HEADER_BYTES], ReturnHeader *header)
{
    VmfReader r = vmf_reader(bytes, RETURN_HEADER_BYTES);

    header->type = vmf_read_be16(&r);
    header->bytes = vmf_read_be16(&r);
}

void return_shut_encode(uint8_t out[RETURN_SHUT_BYTES])
{
    VmfWriter w = vmf_writer(out, RETURN_SHUT_BYTES);

    vmf_write_be16(&w, RETURN_SHUT);
    vmf_write_be16(&w, 4);
    vmf_write_be32(&w, 0);
}

void return_ack_encode(uint8_t out[RETURN_HEADER_BYTES])
{
    VmfWriter w = vmf_writer(out, RETURN_HEADER_BYTES);

    vmf_write_be16(&w, RETURN_SWITCHOVER_ACK);
    vmf_write_be16(&w, 0);
}
