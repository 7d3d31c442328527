/* SPDX-License-Identifier: BSD-2-Clause */
/* session-ram.h -- the RAM path: gathering ranges for the channels, fences and flushes */

#ifndef VMF_SESSION_RAM_H
#define VMF_SESSION_RAM_H

#include "session-state.h"

/* Smaller parts of a page are no range of their own, and are not told as zero. */
#define RAM_CUT UINT64_C(4096)

/* Bounds the RAM that may wait for the channels, after the transport has set RAM up. */
void session_bound_queue(VmfSession *s);
/* The transport has got so much RAM of a payload. A channel's thread. */
void session_ram_done(VmfSession *s, uint64_t bytes);
/* The session's own thread: whether it works, and knows the block. session_save_ram() asks too. */
bool session_may_save(VmfSession *s, const VmfRamBlock *block, GError **error);
/* save_ram_page and flush_ram_pages. The session's own thread calls all that follows, too. */
bool session_save_ram(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                      unsigned flags, uint64_t *accounted, GError **error);
bool session_flush_ram(void *opaque, VmfFlush how, unsigned flags, GError **error);
/* Tells the transport whether the channels have nothing more to send. */
void session_update_channels_done(VmfSession *s);
/* Hands channel->fill to the channel, if something is in it. */
bool session_submit_fill(VmfSession *s, SessionChannel *channel, GError **error);
/*
 * Puts a new sync on every channel, after all that was queued. With `drain' it waits until
 * everything before the sync is written.
 */
bool session_sync(VmfSession *s, bool drain, GError **error);
/*
 * Puts a new sync on every channel if RAM went out since the last one. Stream bytes do not wait for
 * device state, which has no fence but the sync of the last flush.
 */
bool session_fence(VmfSession *s, GError **error);

#endif
