/* SPDX-License-Identifier: BSD-2-Clause */
/* stream-end.c -- finding the end of QEMU's stream, which does not say where it is */

#include "stream-end.h"

#include <string.h>
#include <vmferry/plugin/bytes.h>
#include <vmferry/qemu-stream.h>

/* EOF, the type of the description, and its length. */
#define BEFORE_TEXT 6
/* A footer: its type, be32 section. */
#define FOOTER 5

ssize_t stream_end_described(const uint8_t *data, size_t size)
{
    if (size <= BEFORE_TEXT || data[size - 1] != '}') {
        return -1;
    }
    for (size_t at = size - BEFORE_TEXT - 1; at + 1 > 0; at--) {
        VmfReader length = vmf_reader(data + at + 2, 4);

        if (data[at] == VMF_QEMU_SECTION_EOF && data[at + 1] == VMF_QEMU_SECTION_VMDESC &&
            data[at + BEFORE_TEXT] == '{' && vmf_read_be32(&length) == size - at - BEFORE_TEXT) {
            return (ssize_t)at;
        }
    }
    return -1;
}

ssize_t stream_end_find(const uint8_t *data, size_t size)
{
    const ssize_t described = stream_end_described(data, size);

    if (described >= 0 || size == 0 || data[size - 1] != VMF_QEMU_SECTION_EOF) {
        return described;
    }
    return (ssize_t)size - 1;
}

bool stream_end_bare(const uint8_t *data, size_t size, bool footers)
{
    const uint8_t *footer;

    if (!size || data[size - 1] != VMF_QEMU_SECTION_EOF) {
        return false;
    }
    if (!footers) {
        return true;
    }
    if (size <= FOOTER) {
        return false;
    }
    footer = data + size - 1 - FOOTER;
    /* Nobody has so many sections that the upper half of the number is used. */
    return footer[0] == VMF_QEMU_SECTION_FOOTER && !footer[1] && !footer[2];
}
