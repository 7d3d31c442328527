/* SPDX-License-Identifier: BSD-2-Clause */
/* session.h -- one migration between two processes: what a VMM calls */

#ifndef VMFERRY_SESSION_H
#define VMFERRY_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <gio/gio.h>
#include <vmferry/error.h>
#include <vmferry/file.h>
#include <vmferry/ram.h>
#include <vmferry/uri.h>

G_BEGIN_DECLS

/*
 * A session carries one VM one way. The source connects, the destination
 * accepts; both name their RAM blocks. Then the source writes guest RAM and
 * stream bytes through the session's file, and large device state as device.h
 * says; the destination reads. At the end each side calls
 * vmf_session_complete(), which hands the VM over:
 *
 *   destination: every byte is in place and remote access to its RAM is gone -> LOADED
 *   source:      sees LOADED -> sends GO (never taken back)
 *   destination: sees GO -> may run the VM
 *
 * One owner: the source may run the VM until its vmf_session_complete() has
 * sent GO; the destination only once its own has returned true. Before GO any
 * failure or cancel leaves the source the owner. Behind GO a cancel changes nothing: the
 * answer is on its way.
 *
 * If the connection is lost between LOADED and the answer to GO, the sides ask each other over
 * another one: the source connects again to the same URI and names the session, for `timeout'
 * from its loss on; the destination waits for that, twice as long, for the source may notice
 * later. The destination's listener is kept for that, also when vmf_listener_free() was called.
 * Only when that fails too the outcome is unknown (VMF_ERROR_UNKNOWN_OUTCOME, now and in every
 * later call): then neither side may run the VM until someone has made sure that the other does
 * not. docs/handover.md has every case.
 *
 * Threads: connect/accept, the file, complete and free belong to one thread at
 * a time (the session's own). vmf_session_cancel(), vmf_session_get_stats(),
 * vmf_session_get_owner() and vmf_session_check() may be called from any.
 * Every wait ends within the `timeout' option of a peer's death (but for the asking above) and at
 * once on vmf_session_cancel(). A session that failed or was cancelled is freed, and a
 * new one can be made in the same process.
 */
typedef struct VmfSession VmfSession;
typedef struct VmfListener VmfListener;

/*
 * Listens on a URI. Strangers, port scans and half-open connections do not
 * disturb it. One thread at a time may accept; vmf_listener_free() ends it.
 */
VMF_API VmfListener *vmf_listener_new(const VmfUri *uri, GError **error);
/* The URI to connect to, with the port that was bound (the listening host as given). Owned by it.
 */
VMF_API const char *vmf_listener_address(const VmfListener *listener);
/*
 * Ends listening. Sessions that came by it go on; until the last of them is freed the address
 * stays taken, for their sources may have to ask for the outcome, and other sources are told that
 * nobody is accepted any more. NULL is allowed.
 */
VMF_API void vmf_listener_free(VmfListener *listener);

/*
 * Waits for a source (for ever, unless cancelled), and sets the session up: RAM
 * blocks compared, memory registered where the mode says so. `cancellable' may
 * be NULL. A stranger or a peer that fails before it has named a session is
 * dropped silently; a failure later is an error, and the listener lives on.
 * While it waits, it makes memory ready for what comes: it is pinned where that was
 * asked for, or made resident where it can be given back (the option populate, and
 * vmf_ram_blocks_set_discardable()).
 */
VMF_API VmfSession *vmf_session_accept(VmfListener *listener, VmfRamBlocks *blocks,
                                       GCancellable *cancellable, GError **error);

/* Connects to a destination and sets the session up. `cancellable' may be NULL. */
VMF_API VmfSession *vmf_session_connect(const VmfUri *uri, VmfRamBlocks *blocks,
                                        GCancellable *cancellable, GError **error);

/*
 * Ends whatever still runs (telling the peer), joins every thread, frees. NULL is allowed.
 * Returns within two seconds, unless a destination owns the VM and its source, which lives, has not
 * confirmed that (`timeout'), or the connection was lost in the middle of the hand-over: then
 * the peer still has to learn the outcome, which is tried for `timeout' (source) or twice as long
 * (destination, which does not know when the source noticed). vmf_session_cancel() before, or from
 * another thread, ends that.
 */
VMF_API void vmf_session_free(VmfSession *session);

/*
 * The session's stream: for writing on the source, for reading on the
 * destination. Owned by the session. It has a RAM path on every transport, a
 * return path (vmf_file_get_return_path()), and on the reading side a pollable
 * descriptor.
 */
VMF_API VmfFile *vmf_session_get_file(VmfSession *session);

/*
 * Whether the peer is stock QEMU, which is found out when the connection is made
 * (rdma: only; see docs/stock-qemu.md). The stream must then be QEMU's own. Hooks
 * in its section of RAM say when RAM is saved: a source puts one before it saves pages, and
 * what comes next in the stream ends what the hook began (the peer is told of hooks only where
 * RAM comes). There is no hand-over: on
 * the source vmf_session_complete() returns when everything has arrived, on the
 * destination when the source has hung up in good order. What fails in that call of a source's
 * leaves the outcome unknown; so put the last bytes of the stream, and do not flush them before.
 */
VMF_API bool vmf_session_peer_is_qemu(const VmfSession *session);
/*
 * Whether there is a way back (vmf_file_get_return_path()): always between two
 * vmferrys. A destination that is stock QEMU is asked for one by this call, which waits up to
 * the connect-timeout; a source that is makes one of its own will, or none. The
 * session's own thread.
 */
VMF_API bool vmf_session_open_return_path(VmfSession *session, GError **error);

/*
 * true while nothing has failed, else a copy of the first error. When the hand-over is over it says
 * what vmf_session_complete() said, whatever happens to the connection. Any thread.
 */
VMF_API bool vmf_session_check(VmfSession *session, GError **error);
/*
 * Any thread: everything that waits on either side fails with VMF_ERROR_CANCELLED, also when the
 * VM was handed over already. A hand-over whose GO has left is not called back: the answer, which
 * takes a round trip, is waited for; asking over another connection ends at once.
 */
VMF_API void vmf_session_cancel(VmfSession *session);
/*
 * Makes `error' (owned by the session from now on; NULL: one that says that no reason was given)
 * the session's error, tells the peer. Any thread.
 */
VMF_API void vmf_session_fail(VmfSession *session, GError *error);

/*
 * Hands the VM over, see above. On the source the stream and RAM are flushed
 * for good first. On the destination call it when everything was read and
 * loaded. true: on the source, the destination has confirmed GO; on the
 * destination, it owns the VM. Asked again, it says the same.
 */
VMF_API bool vmf_session_complete(VmfSession *session, GError **error);

typedef enum VmfOwner {
    VMF_OWNER_THIS_SIDE = 1,  /* this side may run the VM */
    VMF_OWNER_OTHER_SIDE = 2, /* this side must not, and never may by this session */
    VMF_OWNER_UNKNOWN = 3     /* this side must not: GO is on its way, or nobody could be asked */
} VmfOwner;

/*
 * Whose the VM is, as far as this side knows. Any thread, at any time.
 *
 * The source says "this side" until GO is sent, "unknown" until that is answered, and then "the
 * other side" or, if the destination said that it will never run the VM, "this side". The
 * destination says "the other side" until it has said LOADED, "unknown" until it hears GO, and then
 * "this side". A failed session answers at once: "this side" on a source that sent no GO, "the
 * other side" on a destination that did not hear it and has refused it since. What was said when
 * vmf_session_complete() has returned never changes, but that "unknown" may become known when the
 * other side asks later. A VMM with a hand-over of its own (vmf_session_revoke()) decides itself.
 */
VMF_API VmfOwner vmf_session_get_owner(VmfSession *session);

/*
 * Source: flushes the stream, and waits until all of it has arrived in the
 * destination's process (a round trip): its reader gets it even if this process
 * is killed then. The session's own thread.
 */
VMF_API bool vmf_session_settle(VmfSession *session, GError **error);

/*
 * Destination, for a VMM with a hand-over of its own instead of
 * vmf_session_complete(): ends every remote access to its RAM, now. The stream
 * and the return path live on. Call it before the VM runs, and when everything
 * has arrived: the reader has read something that the source put behind a flush
 * with VMF_FLUSH_FINAL. Too early, the session fails, at once or when stream
 * bytes come that need what was cut off. The session's own thread.
 */
VMF_API bool vmf_session_revoke(VmfSession *session, GError **error);

/* --- measuring --- */

/*
 * Source, for benchmarks: every channel writes its part of the first RAM block
 * over and over in messages of message_size bytes (a power of two, at most a
 * stripe), as fast as it can and without the migration layer, until
 * total_bytes were written by all together; *seconds is the time that took.
 * VMF_ERROR_UNSUPPORTED where the transport has no such thing.
 */
VMF_API bool vmf_session_raw_write(VmfSession *session, uint64_t message_size, uint64_t total_bytes,
                                   double *seconds, GError **error);

/* --- what happened so far --- */

typedef struct VmfStats {
    uint32_t size;             /* set to sizeof(VmfStats) by the caller: fields may be appended */
    uint32_t channels;         /* data channels in use */
    uint64_t ram_bytes;        /* guest RAM asked for by save_ram_page */
    uint64_t ram_written;      /* bytes sent as data, bridged gaps included */
    uint64_t zero_bytes;       /* found zero or never touched: not sent */
    uint64_t stream_bytes;     /* through the stream, this direction */
    uint64_t device_bytes;     /* of device state, through the channels (see device.h) */
    uint64_t writes;           /* RDMA writes, or RAM records on a socket transport */
    uint64_t doorbells;        /* posts of a list of work requests, or sendmsg calls */
    uint64_t inflight_bytes;   /* now */
    uint64_t registrations;    /* memory regions registered on this side */
    uint64_t evictions;        /* ... and given up again for the memory-lock budget */
    uint64_t registered_bytes; /* now */
    uint64_t registration_ns;  /* time spent in registering, summed over threads */
    uint64_t own_bytes;        /* memory the session itself allocated */
    uint64_t syncs;            /* sync points sent or seen */
    uint64_t setup_ns;         /* from connect/accept to ready */
    uint64_t last_flush_ns;    /* length of the latest flush_ram_pages */
    char registration[16];     /* "pin-all", "chunk", "odp" or "none" */
    uint64_t chunk_size;       /* as negotiated; 0 where there are no chunks */
    uint64_t max_inflight;     /* as in force */
    uint64_t populated_bytes;  /* destination: RAM made resident while it waited */
    uint64_t queue_max;        /* source: most RAM that waits for the channels; what a flush has to
                                  carry is at most that and max_inflight */
} VmfStats;

/* Fills *stats (up to stats->size bytes). Any thread; the figures are a moment's. */
VMF_API void vmf_session_get_stats(VmfSession *session, VmfStats *stats);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfSession, vmf_session_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfListener, vmf_listener_free)

G_END_DECLS

#endif
