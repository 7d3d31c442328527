/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bytes of a stream for QEMU, of which the newest is held back. */

#include "reading.h"

size_t reading_take(VmfFile *file, uint8_t *to, size_t size)
{
    const uint8_t *data;

    if (!vmf_file_buffered(file) && !vmf_peek_buffer(file, &data, 1, 0)) {
        return 0;
    }
    return vmf_get_buffer(file, to, MIN(size, vmf_file_buffered(file)));
}

size_t reading_take_holding_back(VmfFile *file, HeldByte *held, uint8_t *to, size_t size)
{
    uint8_t newest;
    size_t n;

    if (!held->there) {
        held->there = reading_take(file, &held->byte, 1);
    }
    if (!held->there) {
        return 0;
    }
    /* The held byte goes first, and the last new byte is held, so as many go as come. */
    n = size > 1 ? reading_take(file, to + 1, size - 1) : reading_take(file, &newest, 1);
    if (n) {
        newest = size > 1 ? to[n] : newest;
        to[0] = held->byte;
        held->byte = newest;
    }
    return n;
}

size_t reading_release(HeldByte *held, uint8_t *to)
{
    size_t n = held->there;

    if (n) {
        to[0] = held->byte;
    }
    held->there = false;
    return n;
}
