/* SPDX-License-Identifier: BSD-2-Clause */
/* session-blocks.h -- the RAM blocks of both sides, and their numbers on the wire */

#ifndef VMF_SESSION_BLOCKS_H
#define VMF_SESSION_BLOCKS_H

#include "session-state.h"

/* The most blocks that a source may name. */
unsigned session_blocks_max(const VmfSession *s);
/* Source: names all blocks to the destination. */
void session_post_blocks(VmfSession *s);
/* Source: the order of its set is the order on the wire. */
void session_use_own_order(VmfSession *s);
/*
 * Compares the peer's list of blocks (peer.blocks) with this side's set, and puts blocks.wire in
 * its order. A block that only the source has is added if the set has an allocator.
 */
bool session_match_blocks(VmfSession *s, GError **error);
/* Takes a part of the peer's list, which continues the parts before. The control thread. */
bool session_take_blocks(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                         GError **error);

#endif
