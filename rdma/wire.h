/* SPDX-License-Identifier: BSD-2-Clause */
/* wire.h -- what the rdma: transport puts on the wire: pure encoders and decoders */

#ifndef VMF_RDMA_WIRE_H
#define VMF_RDMA_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>
#include <vmferry/plugin/transport.h>

/*
 * Private data of a connection request. All integers are big-endian:
 *
 *   0  u32  version, 1: where stock QEMU has it
 *   4  u32  flags: WIRE_FLAG_VMFERRY, and V1_FLAG_PIN_ALL for a stock QEMU
 *   8  u32  magic "VMFY"
 *  12  u16  kind: WIRE_KIND_*
 *  14  u16  channel number (0 for the control connection)
 *  16  16   session UUID
 *  32  u32  wire revision of this transport, WIRE_REVISION
 *
 * Stock QEMU does not know WIRE_FLAG_VMFERRY, and clears it in its reply. The flag and the magic
 * together say that the sender is vmferry.
 *
 * RoCE and InfiniBand pad the data with zeros, and iWARP does not. So the magic counts, and a
 * longer length means nothing. The limit is 56 bytes. The destination replies with the same data.
 * This shows that it is no stock QEMU.
 */
#define WIRE_HELLO_BYTES 36
#define WIRE_QEMU_VERSION 1
#define WIRE_FLAG_VMFERRY 0x80000000u
#define WIRE_MAGIC 0x564d4659u /* "VMFY" */
#define WIRE_REVISION 1

typedef enum { WIRE_KIND_CONTROL = 1, WIRE_KIND_CHANNEL = 2 } WireKind;

typedef struct WireHello {
    WireKind kind;
    unsigned channel;
    uint8_t uuid[VMF_UUID_BYTES];
    bool pin_all; /* registration=pin-all, as a stock QEMU reads it */
} WireHello;

void wire_hello_encode(const WireHello *hello, uint8_t out[WIRE_HELLO_BYTES]);
/* Whether the data begins as vmferry's does, whatever the revision. */
bool wire_hello_is(const void *data, size_t size);
/* False with VMF_ERROR_PROTOCOL if the data is no valid vmferry request of this revision. */
bool wire_hello_decode(const void *data, size_t size, WireHello *hello, GError **error);

/*
 * Private data of a rejection: the magic "VMFY", and the reason as a text of at most 100 bytes.
 * RoCE and InfiniBand pad it with zeros.
 */
#define WIRE_REJECT_BYTES 104
size_t wire_reject_encode(const char *text, uint8_t out[WIRE_REJECT_BYTES]);
/* The text, which the caller frees; NULL if the rejection is not vmferry's. */
char *wire_reject_decode(const void *data, size_t size);

/*
 * Every message on a queue pair begins with this header:
 *
 *   0  u16  kind: WIRE_*
 *   2  u16  flags: WIRE_ACK_NOW
 *   4  u32  processed: how many counted messages the sender has dealt with, modulo 2^32
 *
 * That running count is flow control and acknowledgement in one. A sender has at most one window of
 * unprocessed messages out. WIRE_ACK alone is not counted. The receiver keeps spare buffers for it.
 */
#define WIRE_HEADER_BYTES 8
#define WIRE_ACK_NOW 1 /* answer with a WIRE_ACK at once */

typedef enum {
    WIRE_ACK = 1,             /* only its header */
    WIRE_ENGINE = 2,          /* control: one message of the session engine */
    WIRE_SYNC = 3,            /* u64 number */
    WIRE_ZERO = 4,            /* n x range */
    WIRE_REGISTER = 5,        /* u16 evicted n, u16 wanted m, n + m x chunk */
    WIRE_REGISTER_RESULT = 6, /* m x (u32 errno or 0, u32 rkey), in the order of the request */
    WIRE_DEVICE_FIRST = 7,    /* device header, then bytes */
    WIRE_DEVICE_MORE = 8,     /* bytes */
    WIRE_NOP = 9,             /* no body; the sender wants its acknowledgement or its completion */
    WIRE_DEVICE_WRITTEN = 10  /* device header: the bytes were written before this message */
} WireMessageKind;

typedef struct WireHeader {
    unsigned kind, flags;
    uint32_t processed;
} WireHeader;

void wire_header_encode(const WireHeader *header, uint8_t out[WIRE_HEADER_BYTES]);
/*
 * Takes the header off a message. False with *error if the message is too short or of no known
 * kind.
 */
bool wire_header_decode(const uint8_t *data, size_t size, WireHeader *header, GError **error);

/* A range of a block, in 16 bytes: u32 block, u32 length, u64 offset. */
#define WIRE_RANGE_BYTES 16
typedef struct WireRange {
    uint32_t block, length;
    uint64_t offset;
} WireRange;
void wire_range_encode(const WireRange *range, uint8_t out[WIRE_RANGE_BYTES]);
/*
 * The number of ranges in a WIRE_ZERO body. It is -1 with *error if the size is 0 or no multiple of
 * WIRE_RANGE_BYTES.
 */
ssize_t wire_range_count(size_t body_size, GError **error);
void wire_range_decode(const uint8_t *body, size_t index, WireRange *range);

/* A chunk: u32 block, u32 index of the chunk in its block. */
#define WIRE_CHUNK_BYTES 8
#define WIRE_REGISTER_MAX 64 /* the most in one message, evicted and wanted together */
typedef struct WireChunk {
    uint32_t block, index;
} WireChunk;
typedef struct WireRegister {
    unsigned evicted, wanted;
    WireChunk chunks[WIRE_REGISTER_MAX]; /* the evicted ones first */
} WireRegister;
size_t wire_register_encode(const WireRegister *message, uint8_t *out, size_t room);
bool wire_register_decode(const uint8_t *body, size_t size, WireRegister *message, GError **error);

typedef struct WireResult {
    uint32_t status; /* 0, or an errno of Linux */
    uint32_t rkey;
} WireResult;
size_t wire_results_encode(const WireResult *results, unsigned count, uint8_t *out, size_t room);
/* `count' is how many chunks the request asked for. */
bool wire_results_decode(const uint8_t *body, size_t size, unsigned count, WireResult *results,
                         GError **error);

/*
 * Device header: u8 length and bytes of idstr, u32 instance, u32 index, u32 flags, u64 total, u64
 * offset, u64 place, u64 size.
 */
#define WIRE_DEVICE_HEADER_MAX (1 + 255 + 3 * 4 + 4 * 8)
size_t wire_device_encode(const VmfDeviceHeader *header, uint8_t *out, size_t room);
/* Returns how many bytes the header has; 0 with *error on failure. */
size_t wire_device_decode(const uint8_t *body, size_t size, VmfDeviceHeader *header,
                          GError **error);

/* Transport parameters in HELLO and HELLO_REPLY, in this order. */
typedef struct WireParameters {
    uint32_t revision;
    uint32_t registration; /* RdmaRegistration; the source's counts */
    uint64_t chunk_size;   /* 0: no wish */
    uint64_t pin_budget;   /* bytes the sender may pin for RAM and channels' buffers; 0: no limit */
    uint32_t device_flags; /* WIRE_DEVICE_* */
} WireParameters;
#define WIRE_DEVICE_ODP 1
#define WIRE_PARAMETERS_BYTES 28
void wire_parameters_encode(const WireParameters *p, uint8_t out[WIRE_PARAMETERS_BYTES]);
bool wire_parameters_decode(const uint8_t *data, size_t size, WireParameters *p, GError **error);

/*
 * Private control messages of ram_setup, from the destination to the source. They tell the base
 * address of every block. They also tell the rkey of every chunk, unless chunks are registered on
 * demand. Chunks are counted through all blocks.
 */
#define WIRE_PRIVATE_ADDRESSES (VMF_MESSAGE_PRIVATE + 1) /* u32 first block, n x u64 */
#define WIRE_PRIVATE_RKEYS (VMF_MESSAGE_PRIVATE + 2)     /* u32 first chunk, n x u32 */
/* The memory that the source may write device state into: u64 address, u64 bytes, u32 rkey. */
#define WIRE_PRIVATE_DEVICE_MEMORY (VMF_MESSAGE_PRIVATE + 3)
#define WIRE_MEMORY_BYTES 20
typedef struct WireMemory {
    uint64_t address, bytes;
    uint32_t rkey;
} WireMemory;
void wire_memory_encode(const WireMemory *memory, uint8_t out[WIRE_MEMORY_BYTES]);
bool wire_memory_decode(const uint8_t *data, size_t size, WireMemory *memory, GError **error);

#endif
