/* SPDX-License-Identifier: BSD-2-Clause */
/* fake-verbs.h -- an RDMA device that does what a test says, for tests of the rdma: transport */

#ifndef VMF_TESTS_FAKE_VERBS_H
#define VMF_TESTS_FAKE_VERBS_H

#include "rdma-conn.h"

/*
 * Takes the place of libibverbs and librdmacm in a test's executable: one device, one queue pair.
 * Nothing completes and nothing arrives by itself. When the code under test is about to sleep, it
 * arms the completion queue: then `peer' is called, which plays device and destination. So all is
 * one thread's, and every order of events can be forced.
 */

/* A work request that was posted and is not completed. */
typedef struct FakeRequest {
    enum ibv_wr_opcode opcode;
    bool signaled;
    uint32_t length, lkey, rkey;
    const uint8_t *local;
    uint64_t remote;
} FakeRequest;

typedef struct FakeVerbs {
    void (*peer)(void *opaque);
    void *opaque;
    void (*polled)(void);         /* before the completion queue is polled */
    void (*registered_one)(void); /* guest RAM */
    GArray *requests;             /* FakeRequest, oldest first */
    GArray *receives;             /* struct ibv_sge; the ids are in receive_ids */
    GArray *receive_ids;
    GQueue completions;         /* struct ibv_wc */
    unsigned registered;        /* memory regions that there are */
    unsigned registrations;     /* made since the start */
    unsigned freed_under_write; /* regions that a request still needed when they were given up */
    int registration_error;     /* what registering guest RAM fails with; 0: it works */
    gint armed;                 /* how often the queue was; atomic */
} FakeVerbs;

extern FakeVerbs fake_verbs;

void fake_verbs_init(void);
void fake_verbs_clear(void);
/* The same as cmocka's functions around a test. */
int fake_verbs_set_up(void **state);
int fake_verbs_tear_down(void **state);
/* The oldest so many requests are done. */
void fake_verbs_complete(unsigned count);
void fake_verbs_complete_all(void);
/* A message of the peer's arrives: header and body. */
void fake_verbs_deliver(const void *data, size_t size);
/* The completion of a request that failed. */
void fake_verbs_fail(enum ibv_wc_status status);
/* What was sent in request number `index', with its header taken off. */
const uint8_t *fake_verbs_message(unsigned index, WireHeader *header, size_t *size);
/* How many requests are messages of a kind. */
unsigned fake_verbs_count(WireMessageKind kind);

/* A connection with one channel over it, with a block of RAM in chunks of `chunk' bytes. */
RdmaChannel *fake_channel_new(VmfRole role, const VmfConnHost *host, uint8_t *memory,
                              uint64_t bytes, uint64_t chunk);
void fake_channel_free(RdmaChannel *channel);

#endif
