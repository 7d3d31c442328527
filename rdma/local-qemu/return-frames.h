/* SPDX-License-Identifier: BSD-2-Clause */
/* return-frames.h -- the messages of QEMU's return path, as far as they matter here */

#ifndef VMF_RDMA_RETURN_FRAMES_H
#define VMF_RDMA_RETURN_FRAMES_H

#include <stddef.h>
#include <stdint.h>

/* A message is be16 type, be16 bytes, and so many bytes. Source: QEMU, migration/migration.h. */
#define RETURN_HEADER_BYTES 4

typedef enum {
    RETURN_SHUT = 1,           /* the destination is done: be32 0 if it runs the VM */
    RETURN_SWITCHOVER_ACK = 7, /* the source may stop the VM; nothing follows */
} ReturnType;

typedef struct ReturnHeader {
    unsigned type;  /* maybe of ReturnType */
    unsigned bytes; /* that follow */
} ReturnHeader;

void return_header_decode(const uint8_t bytes[RETURN_HEADER_BYTES], ReturnHeader *header);

#define RETURN_SHUT_BYTES 8
void return_shut_encode(uint8_t out[RETURN_SHUT_BYTES]);
void return_ack_encode(uint8_t out[RETURN_HEADER_BYTES]);

#endif
