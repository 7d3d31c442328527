/* SPDX-License-Identifier: BSD-2-Clause */
/* message.h -- the session engine's control messages: pure encoders and decoders */

#ifndef VMF_MESSAGE_H
#define VMF_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vmferry/plugin/transport.h>

/*
 * A control message: u32 payload length, u16 type, u16 flags, u64 argument, all big-endian, then
 * the payload.
 */
#define MESSAGE_HEADER_BYTES 16

/* Who sends it. */
#define MESSAGE_FROM_SOURCE 1
#define MESSAGE_FROM_DESTINATION 2
#define MESSAGE_FROM_BOTH 3

/* number, name, senders, shortest and longest payload (0xffffffff: whatever fits in a message) */
#define MESSAGE_TABLE(X)                                                                           \
    X(1, HELLO, MESSAGE_FROM_SOURCE, 39, 128)                                                      \
    X(2, HELLO_REPLY, MESSAGE_FROM_DESTINATION, 39, 128)                                           \
    X(3, ERROR, MESSAGE_FROM_BOTH, 0, 2048)                                                        \
    X(4, HEARTBEAT, MESSAGE_FROM_BOTH, 0, 0)                                                       \
    X(5, BLOCKS, MESSAGE_FROM_SOURCE, 0, 0xffffffff)                                               \
    X(6, BLOCKS_REPLY, MESSAGE_FROM_DESTINATION, 0, 0)                                             \
    X(7, STREAM, MESSAGE_FROM_BOTH, 1, 0xffffffff)                                                 \
    X(8, STREAM_CREDIT, MESSAGE_FROM_BOTH, 0, 0)                                                   \
    X(9, STREAM_END, MESSAGE_FROM_BOTH, 0, 0)                                                      \
    X(10, READY, MESSAGE_FROM_BOTH, 0, 0)                                                          \
    X(11, LOADED, MESSAGE_FROM_DESTINATION, 0, 0)                                                  \
    X(12, GO, MESSAGE_FROM_SOURCE, 0, 0)                                                           \
    X(13, GO_SEEN, MESSAGE_FROM_DESTINATION, 0, 0)                                                 \
    X(14, BYE, MESSAGE_FROM_SOURCE, 0, 0)                                                          \
    X(15, SETTLE, MESSAGE_FROM_SOURCE, 0, 0)                                                       \
    X(16, SETTLED, MESSAGE_FROM_DESTINATION, 0, 0)                                                 \
    X(17, DEVICE_WINDOW, MESSAGE_FROM_DESTINATION, 12, 12)                                         \
    X(18, SWITCHOVER_START, MESSAGE_FROM_SOURCE, 8, 0xffffffff)                                    \
    X(19, DEVICE_CREDIT, MESSAGE_FROM_DESTINATION, 0, 0)                                           \
    X(20, ASK, MESSAGE_FROM_SOURCE, 16, 16)                                                        \
    X(21, ANSWER, MESSAGE_FROM_DESTINATION, 0, 0)

typedef enum {
#define X(number, name, from, shortest, longest) MESSAGE_##name = number,
    MESSAGE_TABLE(X)
#undef X
} MessageType;

#define MESSAGE_MORE 1 /* flag of BLOCKS and SWITCHOVER_START: another part follows */

typedef struct MessageHeader {
    uint32_t length;
    unsigned type, flags;
    uint64_t argument;
} MessageHeader;

void message_header_encode(const MessageHeader *header, uint8_t out[MESSAGE_HEADER_BYTES]);
/*
 * Decodes the header of a whole message of `size' bytes. Checks length, type and sender against the
 * table. Of a private type only the length is checked.
 */
bool message_header_decode(const uint8_t *message, size_t size, VmfRole sender,
                           MessageHeader *header, GError **error);
/* The name of a type for errors: "HELLO", "private" or "unknown". Static. */
const char *message_name(unsigned type);

#define MESSAGE_MAGIC 0x564d4659u /* "VMFY" */
#define MESSAGE_PROTOCOL 3
/* The first protocol in which a side may name its RAM late. */
#define MESSAGE_PROTOCOL_LATE_RAM 3
#define MESSAGE_PROTOCOL_OLDEST 2

/*
 * ASK is the first message of a connection that asks for the outcome of an earlier one. Its payload
 * is the session's UUID, its argument what the source itself has to say. The argument of ANSWER is
 * a HandoverAnswer. BYE says that ANSWER has arrived.
 */
#define MESSAGE_ASK_GO_SENT 1  /* GO was sent: does the destination own the VM? */
#define MESSAGE_ASK_GO_NEVER 2 /* GO was not sent, and never will be */

/* Payload of HELLO and HELLO_REPLY. */
typedef struct MessageHello {
    unsigned protocol, oldest;
    uint8_t uuid[VMF_UUID_BYTES];
    unsigned channels; /* wanted (0: as suits); in the reply: in force */
    uint32_t timeout_ms;
    uint64_t flags;         /* MESSAGE_HELLO_ ones; unknown ones mean nothing */
    uint8_t parameters[64]; /* the transport's */
    size_t parameters_size;
} MessageHello;
#define MESSAGE_HELLO_MAX 128
#define MESSAGE_HELLO_LATE_RAM 1ull /* this side names its RAM after the greeting */
size_t message_hello_encode(const MessageHello *hello, uint8_t out[MESSAGE_HELLO_MAX]);
bool message_hello_decode(const uint8_t *data, size_t size, MessageHello *hello, GError **error);

/* One entry of BLOCKS: u64 length, u32 page size, u8 length of the name, name. */
typedef struct MessageBlock {
    char name[VMF_RAM_NAME_MAX + 1];
    uint64_t length;
    uint32_t page_size;
} MessageBlock;
#define MESSAGE_BLOCK_MAX (8 + 4 + 1 + VMF_RAM_NAME_MAX)
size_t message_block_encode(const MessageBlock *block, uint8_t out[MESSAGE_BLOCK_MAX]);
/* Takes one entry off the front; 0 with *error when it is damaged. */
size_t message_block_decode(const uint8_t *data, size_t size, MessageBlock *block, GError **error);

/*
 * DEVICE_WINDOW: the argument is the bytes of each device's window. The payload is u32 buffers of
 * each window, and u64 bytes of all buffers together that are larger than their window. One such
 * buffer may have more.
 *
 * SWITCHOVER_START: the argument is the number of devices in the parts before. The payload is u64
 * bytes of the stream before it, which it overtakes; every part says the same number. Then come
 * entries: u32 instance, u8 length of the name, name.
 */
#define MESSAGE_SWITCHOVER_BYTES 8
typedef struct MessageDevice {
    char idstr[256];
    uint32_t instance_id;
} MessageDevice;
#define MESSAGE_DEVICE_MAX (4 + 1 + 255)
size_t message_device_encode(const MessageDevice *device, uint8_t out[MESSAGE_DEVICE_MAX]);
/* Takes one entry off the front; 0 with *error when it is damaged. */
size_t message_device_decode(const uint8_t *data, size_t size, MessageDevice *device,
                             GError **error);

/*
 * The text of ERROR: valid UTF-8 without control characters, at most 1024 bytes of it. The caller
 * frees it.
 */
char *message_error_text(const uint8_t *data, size_t size);

#endif
