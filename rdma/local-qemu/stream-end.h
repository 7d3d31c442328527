/* SPDX-License-Identifier: BSD-2-Clause */
/* stream-end.h -- finding the end of QEMU's stream, which does not say where it is */

#ifndef VMF_RDMA_STREAM_END_H
#define VMF_RDMA_STREAM_END_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * After the last device comes the byte EOF. A description follows it, unless the machine type
 * suppresses that: u8 6, be32 length, JSON. Both are QEMU's, migration/savevm.c.
 *
 * Returns where EOF is if the bytes end with a whole description, or else -1.
 */
ssize_t stream_end_described(const uint8_t *data, size_t size);
/*
 * Where EOF is in the last bytes of a whole stream: before the description, or the last byte.
 * Returns -1 if they end with neither.
 */
ssize_t stream_end_find(const uint8_t *data, size_t size);
/*
 * Whether a stream that may be broken off at any byte has ended without a description: the last
 * byte is EOF, after a device's footer if sections have footers. Without footers any zero passes
 * for the end.
 */
bool stream_end_bare(const uint8_t *data, size_t size, bool footers);

#endif
