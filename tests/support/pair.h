/* SPDX-License-Identifier: BSD-2-Clause */
/* pair.h -- a source and a destination in one process, over any transport, for the tests */

#ifndef VMF_TESTS_PAIR_H
#define VMF_TESTS_PAIR_H

#include <vmferry/vmferry.h>

/*
 * Both sides over the transport under test: VMFERRY_TEST_URI (with port 0), or a UNIX domain
 * socket.
 */
typedef struct Pair {
    VmfListener *listener;
    VmfRamBlocks *source_blocks, *destination_blocks;
    uint8_t *source_ram, *destination_ram;
    uint64_t size;
    const VmfRamBlock *block; /* the source's */
    VmfSession *source, *destination;
    char *options; /* for the URIs: ",channels=4,..." */
    char *directory;
} Pair;

/* Sets up a listener and RAM of `size' bytes (populated if asked), and no session yet. */
void pair_init(Pair *pair, uint64_t size, bool populate, const char *options);
void pair_clear(Pair *pair);
/* Connects and accepts; both must succeed. */
void pair_connect(Pair *pair);
/* Connects and accepts. Returns whether both succeeded, or else the errors. */
bool pair_try_connect(Pair *pair, GError **source_error, GError **destination_error);
/* Accepts without a source. Gives up when `enough' says so, or after 20 seconds. */
void pair_accept_nobody(Pair *pair, bool (*enough)(const Pair *pair));
/* Ends both sessions. */
void pair_disconnect(Pair *pair);
/* Runs f on the destination in a thread of its own. */
GThread *pair_destination(Pair *pair, GThreadFunc f);
/* Completes both sides. Asserts success, and equal RAM. */
void pair_complete(Pair *pair);
/* pair_complete() that does not compare RAM. */
void pair_complete_unchecked(Pair *pair);
/* Saves all of RAM in pieces of so many bytes. Asserts success. */
void pair_save_all(Pair *pair, uint64_t piece);
/* Fills memory with random content. */
void pair_fill(uint8_t *memory, uint64_t size, uint32_t seed);
VmfUri *pair_uri(Pair *pair);
bool pair_is_rdma(void);

#endif
