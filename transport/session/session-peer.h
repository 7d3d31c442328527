/* SPDX-License-Identifier: BSD-2-Clause */
/* session-peer.h -- what differs between the two kinds of peers */

#ifndef VMF_SESSION_PEER_H
#define VMF_SESSION_PEER_H

#include "session-state.h"

/*
 * There is a table for vmferry and one for stock QEMU, so that no other code asks who the peer is.
 * Unless a comment says otherwise, all members are set, and the session's own thread calls them.
 */
typedef struct SessionPeerOps {
    bool is_qemu;
    /* Why a source does not know who owns the VM, and what its user has to do. */
    const char *source_is_unsure;
    /* Sets everything up between the connection and the first page. */
    bool (*set_up)(VmfSession *s, const VmfUri *uri, GError **error);
    /*
     * Makes RAM ready that was named late, on a side that has a thread for it: the thread of
     * session-late-ram.h.
     */
    bool (*set_up_ram)(VmfSession *s, GError **error);
    /* The stream's put_buffer and save_ram_page: see VmfFileOps. */
    bool (*put_stream)(void *session, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                       unsigned flags, GError **error);
    bool (*save_ram)(void *session, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                     unsigned flags, uint64_t *accounted, GError **error);
    /* Bytes were taken from the stream. The thread that reads it. */
    void (*took)(VmfSession *s);
    /* Source: returns when all that was put has reached the peer. */
    bool (*settle)(VmfSession *s, GError **error);
    /* vmf_session_await_loaded(); NULL: the peer does not say LOADED. */
    bool (*await_loaded)(VmfSession *s, GError **error);
    /* The side's part of vmf_session_complete(). */
    bool (*complete_source)(VmfSession *s, GError **error);
    bool (*complete_destination)(VmfSession *s, GError **error);
    /* Opens the return path, or returns false with *error. */
    bool (*open_back)(VmfSession *s, GError **error);
    /* Ends and frees the return path, after the channels have ended. */
    void (*close)(VmfSession *s);
} SessionPeerOps;

extern const SessionPeerOps session_native_peer; /* session-native-peer.c */
extern const SessionPeerOps session_qemu_peer;   /* session-qemu-peer.c */

#endif
