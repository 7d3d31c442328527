/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-wire.h -- stock QEMU's rdma: protocol, version 1: pure encoders and decoders */

#ifndef VMF_RDMA_V1_WIRE_H
#define VMF_RDMA_V1_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

/*
 * Source (S) and destination (D) exchange messages by send and receive. All integers are
 * big-endian. D alone says when S may send. S sends one message for each READY, because D has one
 * receive posted. D does not see S's RDMA writes. Names and numbers are those of migration/rdma.c
 * in QEMU. docs/rdma.txt there describes the messages, but numbers them from 1.
 */

/* Private data of a connection request and of its reply: u32 version, u32 flags. */
#define V1_CAPABILITIES_BYTES 8
#define V1_VERSION 1
#define V1_FLAG_PIN_ALL 1u

typedef struct V1Capabilities {
    uint32_t version, flags;
} V1Capabilities;
void v1_capabilities_encode(const V1Capabilities *capabilities, uint8_t out[V1_CAPABILITIES_BYTES]);
/* False with VMF_ERROR_PROTOCOL if the data is not of version 1. Longer data is padding. */
bool v1_capabilities_decode(const void *data, size_t size, V1Capabilities *capabilities,
                            GError **error);

/* Every message: u32 bytes after the header, u32 type, u32 number of elements, u32 unused. */
#define V1_HEADER_BYTES 16
/* The longest message of either side, header included. */
#define V1_MESSAGE_MAX (512u * 1024)
#define V1_REPEAT_MAX 4096

typedef enum {
    V1_NONE = 0,
    V1_ERROR = 1,                /* both, at any time, without READY; empty */
    V1_READY = 2,                /* D (S on the return path); empty */
    V1_QEMU_FILE = 3,            /* S (D on the return path): bytes of QEMU's stream */
    V1_RAM_BLOCKS_REQUEST = 4,   /* S; empty */
    V1_RAM_BLOCKS_RESULT = 5,    /* D: n x V1Block */
    V1_COMPRESS = 6,             /* S: V1Zero */
    V1_REGISTER_REQUEST = 7,     /* S: n x V1Register */
    V1_REGISTER_RESULT = 8,      /* D: n x V1Registered */
    V1_REGISTER_FINISHED = 9,    /* S; empty: back to the stream */
    V1_UNREGISTER_REQUEST = 10,  /* S, never from stock QEMU: n x V1Register */
    V1_UNREGISTER_FINISHED = 11, /* D; empty */
} V1Type;

const char *v1_type_name(unsigned type);

typedef struct V1Header {
    unsigned type;
    uint32_t repeat;
} V1Header;
void v1_header_encode(const V1Header *header, size_t body_size, uint8_t out[V1_HEADER_BYTES]);
/*
 * Takes the header off a message of `size' bytes, and checks it. It checks the type, the length
 * against the type, and the number of elements against the length. It ignores that number in a
 * QEMU_FILE, because stock QEMU before 8.2 leaves it uninitialised. False with VMF_ERROR_PROTOCOL.
 */
bool v1_header_decode(const uint8_t *message, size_t size, V1Header *header, GError **error);

/*
 * RAM_BLOCKS_RESULT. D counts RAM in an address space of its own. A block begins there at `offset'.
 */
#define V1_BLOCK_BYTES 32
typedef struct V1Block {
    uint64_t host, offset, length;
    uint32_t rkey; /* with pin-all */
} V1Block;
void v1_block_encode(const V1Block *block, uint8_t out[V1_BLOCK_BYTES]);
void v1_block_decode(const uint8_t *body, size_t index, V1Block *block);

/* REGISTER_REQUEST, UNREGISTER_REQUEST. */
#define V1_REGISTER_BYTES 24
#define V1_CHUNK_BYTES (1024u * 1024) /* stock QEMU's, up to 11.0 always */
typedef struct V1Register {
    uint64_t key; /* to register: D's address of the first byte; to unregister: chunk number */
    uint32_t block;
    uint64_t chunks; /* how many chunks after the first */
} V1Register;
void v1_register_encode(const V1Register *request, uint8_t out[V1_REGISTER_BYTES]);
void v1_register_decode(const uint8_t *body, size_t index, V1Register *request);

/* REGISTER_RESULT. */
#define V1_REGISTERED_BYTES 16
typedef struct V1Registered {
    uint32_t rkey;
    uint64_t host; /* address of the block's first byte */
} V1Registered;
void v1_registered_encode(const V1Registered *result, uint8_t out[V1_REGISTERED_BYTES]);
void v1_registered_decode(const uint8_t *body, size_t index, V1Registered *result);

/* COMPRESS. */
#define V1_ZERO_BYTES 24
typedef struct V1Zero {
    uint32_t value, block;
    uint64_t offset, length; /* the offset is an address in D's address space */
} V1Zero;
void v1_zero_encode(const V1Zero *zero, uint8_t out[V1_ZERO_BYTES]);
void v1_zero_decode(const uint8_t *body, V1Zero *zero);

#endif
