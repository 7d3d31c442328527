/* SPDX-License-Identifier: BSD-2-Clause */
/* session-ram.h -- the RAM path: gathering ranges for the channels, fences and flushes */

#ifndef VMF_SESSION_RAM_H
#define VMF_SESSION_RAM_H

#include "session-state.h"

/* Smaller parts of a page are neither a range of their own nor called zero. */
#define RAM_CUT UINT64_C(4096)

/* How much RAM may wait for the channels; when the transport has set RAM up. */
void session_bound_queue(VmfSession *s);
/* A channel's thread has handed that much RAM to the transport. */
void session_ram_done(VmfSession *s, uint64_t bytes);
/* The session's own thread, like all that follows: save_ram_page and flush_ram_pages. */
bool session_save_ram(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                      unsigned flags, uint64_t *accounted, GError **error);
bool session_flush_ram(void *opaque, VmfFlush how, unsigned flags, GError **error);
/* Tells the transport whether the channels' work is over. */
void session_update_channels_done(VmfSession *s);
/* Hands what was gathered for a channel to it, and then what is in channel->fill. */
bool session_submit_fill(VmfSession *s, SessionChannel *channel, GError **error);
/* A new sync on every channel, after all before; with `drain' it waits until that is written. */
bool session_sync(VmfSession *s, bool drain, GError **error);
/*
 * If RAM went out since the last sync: a new one on every channel. No stream byte waits for
 * device state, because the last flush's sync comes after it.
 */
bool session_fence(VmfSession *s, GError **error);

#endif
