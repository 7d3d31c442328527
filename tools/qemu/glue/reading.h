/* SPDX-License-Identifier: GPL-2.0-or-later */
/* reading.h -- bytes of a stream for QEMU, the newest of them held back; needs nothing of QEMU */

#ifndef VMFERRY_GLUE_READING_H
#define VMFERRY_GLUE_READING_H

#include <stdbool.h>
#include <stdint.h>

#include <vmferry/vmferry.h>

/* The newest byte that has come. Zero at first. */
typedef struct HeldByte {
    uint8_t byte;
    bool there;
} HeldByte;

/* Copies what is there, waiting for the first byte if the file blocks; 0 when there is nothing. */
size_t reading_take(VmfFile *file, uint8_t *to, size_t size);
/*
 * The same, but for the newest byte, which stays in `held' until another has come. `size' is at
 * least 1. 0 when nothing follows the byte held, or none has come.
 */
size_t reading_take_holding_back(VmfFile *file, HeldByte *held, uint8_t *to, size_t size);
/* Gives the byte held, when it may go; the number of bytes, 0 or 1. */
size_t reading_release(HeldByte *held, uint8_t *to);

#endif
