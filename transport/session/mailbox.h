/* SPDX-License-Identifier: BSD-2-Clause */
/* mailbox.h -- payloads for a channel's thread, and the mailbox that hands them over */

#ifndef VMF_MAILBOX_H
#define VMF_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <vmferry/plugin/transport.h>

typedef enum {
    PAYLOAD_EMPTY,
    PAYLOAD_RAM,
    PAYLOAD_DEVICE,
    PAYLOAD_SYNC,
    PAYLOAD_RAW,
    PAYLOAD_STREAM
} PayloadKind;

#define PAYLOAD_RANGES 256

typedef struct PayloadRange {
    uint32_t block : 31;
    uint32_t zero : 1; /* the caller says that the memory is zero; it is not read */
    uint32_t length;
    uint64_t offset;
} PayloadRange;

/* For a client that waits: how many payloads that point here are not done yet. */
typedef struct PayloadDone {
    unsigned left;  /* under the session's lock */
    double seconds; /* the channel's thread, before it lowers `left' */
} PayloadDone;

typedef struct Payload {
    PayloadKind kind;
    union {
        struct {
            unsigned count;
            uint64_t bytes;
            PayloadRange ranges[PAYLOAD_RANGES];
        } ram;
        struct {
            const VmfDeviceHeader *header; /* of the buffer */
            const uint8_t *data;           /* the whole buffer */
            uint64_t offset, size;         /* of this piece */
            PayloadDone *done;
        } device;
        struct {
            uint64_t number;
            bool drain;
        } sync;
        struct {
            uint64_t message_size, bytes;
            PayloadDone *done;
        } raw;
        struct {
            uint8_t *data; /* owned */
            size_t size;
            bool hook;
        } stream;
    };
} Payload;

void payload_free(Payload *payload);

/*
 * A place for one payload between clients and a channel's thread. Payloads are exchanged: a client
 * that puts a full one gets an empty one back. So none is allocated on the way.
 */
typedef struct Mailbox {
    GMutex lock;
    GCond emptied;
    Payload *payload; /* full or empty */
    bool full;
    bool sleeping; /* the thread waits for wake_fd */
    bool closed;   /* nothing is taken any more */
    int wake_fd;
} Mailbox;

bool mailbox_init(Mailbox *mailbox, GError **error);
void mailbox_clear(Mailbox *mailbox);
/* Waits for room, and exchanges *payload. Returns false if the mailbox is closed. Any thread. */
bool mailbox_put(Mailbox *mailbox, Payload **payload);
/* mailbox_put() without waiting: returns false also if there is no room now. Any thread. */
bool mailbox_try_put(Mailbox *mailbox, Payload **payload);
/* Whether there is room now. Another client may take it first. Any thread. */
bool mailbox_has_room(Mailbox *mailbox);
/*
 * Exchanges *payload, which is empty, for the next full one. Returns false if there is none: the
 * thread then waits for wake_fd, and calls mailbox_awake().
 */
bool mailbox_take(Mailbox *mailbox, Payload **payload);
void mailbox_awake(Mailbox *mailbox);
/* Wakes all that wait, now and later. Any thread. */
void mailbox_close(Mailbox *mailbox);

#endif
