/* SPDX-License-Identifier: BSD-2-Clause */
/* session-blocks.h -- the RAM blocks of both sides, and their numbers on the wire */

#ifndef VMF_SESSION_BLOCKS_H
#define VMF_SESSION_BLOCKS_H

#include "session-state.h"

/* The most blocks that a source can name. */
unsigned session_blocks_max(const VmfSession *s);
/* Source: names all blocks to the destination. */
void session_post_blocks(VmfSession *s);
/* Source: the blocks' own order is the one on the wire. */
void session_use_own_order(VmfSession *s);
/* The peer's list of blocks (peer.blocks) against ours: makes blocks.wire in its order. */
bool session_match_blocks(VmfSession *s, GError **error);
/* Takes a part of the peer's list, which belongs there. The control thread. */
bool session_take_blocks(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                         GError **error);

#endif
