/* SPDX-License-Identifier: BSD-2-Clause */
/* return-frames.c -- the messages of QEMU's return path, as far as they matter here */

#include "return-frames.h"

#include <vmferry/plugin/bytes.h>

#define TYPE_SHUT 1

void return_shut_encode(uint8_t out[RETURN_SHUT_BYTES])
{
    VmfWriter w = vmf_writer(out, RETURN_SHUT_BYTES);

    vmf_write_be16(&w, TYPE_SHUT);
    vmf_write_be16(&w, 4);
    vmf_write_be32(&w, 0);
}

void return_frames_follow(ReturnFrames *frames, const uint8_t *data, size_t size)
{
    while (size) {
        if (frames->left) {
            const size_t part = frames->left < size ? frames->left : size;

            frames->left -= (unsigned)part;
            data += part;
            size -= part;
            continue;
        }
        frames->header[frames->have++] = *data++;
        size--;
        if (frames->have == sizeof(frames->header)) {
            VmfReader r = vmf_reader(frames->header, sizeof(frames->header));

            frames->shut |= vmf_read_be16(&r) == TYPE_SHUT;
            frames->left = vmf_read_be16(&r);
            frames->have = 0;
        }
    }
}
