/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-end.h -- whether QEMU's migration stream in a file has its end */

#ifndef VMF_QEMU_END_H
#define VMF_QEMU_END_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

typedef enum {
    QEMU_END_MISSING,  /* the file was cut, or is damaged */
    QEMU_END_POSSIBLE, /* an end byte without anything that proves it one: a machine older than 2.3
                        */
    QEMU_END_THERE
} QemuEnd;

/*
 * Looks at the end of what lies in [from, size) of the file, which is device state. `footers':
 * the stream's sections have them. False with *error when the file cannot be read.
 */
bool qemu_end_find(int fd, uint64_t from, uint64_t size, bool footers, QemuEnd *end,
                   GError **error);

#endif
