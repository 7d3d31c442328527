/* SPDX-License-Identifier: GPL-2.0-or-later */
/* reading.h -- bytes of a stream for QEMU, the newest held back; it needs nothing of QEMU */

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

/*
 * Copies the bytes that are there, and waits for the first one if the file blocks. Returns 0 if
 * there are none.
 */
size_t reading_take(VmfFile *file, uint8_t *to, size_t size);
/*
 * reading_take() that keeps the newest byte in `held' until another one has come. `size' is at
 * least 1. Returns 0 if no byte has come after the held one.
 */
size_t reading_take_holding_back(VmfFile *file, HeldByte *held, uint8_t *to, size_t size);
/* Takes the held byte out. Returns the number of bytes, 0 or 1. */
size_t reading_release(HeldByte *held, uint8_t *to);

#endif
