/* SPDX-License-Identifier: BSD-2-Clause */
/* return-frames.h -- the messages of QEMU's return path, as far as they matter here */

#ifndef VMF_RDMA_RETURN_FRAMES_H
#define VMF_RDMA_RETURN_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A message is be16 type, be16 bytes, and so many bytes. SHUT says that the destination is done:
 * be32 0 if it runs the VM. Source: QEMU, migration/migration.c.
 */
#define RETURN_SHUT_BYTES 8
void return_shut_encode(uint8_t out[RETURN_SHUT_BYTES]);

/* Follows the messages, however they are cut. Zeroed at first. */
typedef struct ReturnFrames {
    uint8_t header[4];
    unsigned have; /* bytes of `header' */
    unsigned left; /* bytes of the message's content */
    bool shut;     /* SHUT has begun */
} ReturnFrames;

void return_frames_follow(ReturnFrames *frames, const uint8_t *data, size_t size);

#endif
