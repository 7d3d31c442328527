/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-end.h -- whether a file with QEMU's migration stream has the stream's end */

#ifndef VMF_QEMU_END_H
#define VMF_QEMU_END_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

typedef enum {
    QEMU_END_MISSING,  /* the file was cut, or is damaged */
    QEMU_END_POSSIBLE, /* an end byte without a proof: a machine older than 2.3 */
    QEMU_END_THERE
} QemuEnd;

/*
 * Looks at the end of the device state, which is [from, size) of the file. `footers': the stream's
 * sections have footers. Returns false with *error if the file cannot be read.
 */
bool qemu_end_find(int fd, uint64_t from, uint64_t size, bool footers, QemuEnd *end,
                   GError **error);

#endif
