/* SPDX-License-Identifier: BSD-2-Clause */
/* pair.h -- a source and a destination in one process, over any transport, for the tests */

#ifndef VMF_TESTS_PAIR_H
#define VMF_TESTS_PAIR_H

#include <vmferry/vmferry.h>

/*
 * The transport under test: the environment's VMFERRY_TEST_URI (with port 0),
 * or a UNIX domain socket.
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

/* Sets up listener and RAM of `size' bytes (populated if asked), no sessions yet. */
void pair_init(Pair *pair, uint64_t size, bool populate, const char *options);
void pair_clear(Pair *pair);
/* Connects and accepts; both must succeed. */
void pair_connect(Pair *pair);
/* Connects and accepts; returns whether both succeeded, the errors else. */
bool pair_try_connect(Pair *pair, GError **source_error, GError **destination_error);
/* Accepts without a source, and gives up as soon as `enough' says so, or after 20 seconds. */
void pair_accept_nobody(Pair *pair, bool (*enough)(const Pair *pair));
/* Ends both sessions. */
void pair_disconnect(Pair *pair);
/* Runs f on the destination in a thread of its own. */
GThread *pair_destination(Pair *pair, GThreadFunc f);
/* vmf_session_complete on both sides; asserts success and that RAM is the same. */
void pair_complete(Pair *pair);
/* The same without looking at RAM. */
void pair_complete_unchecked(Pair *pair);
/* Saves all of RAM in pieces of that many bytes; asserts success. */
void pair_save_all(Pair *pair, uint64_t piece);
/* Random content. */
void pair_fill(uint8_t *memory, uint64_t size, uint32_t seed);
VmfUri *pair_uri(Pair *pair);
bool pair_is_rdma(void);

#endif
