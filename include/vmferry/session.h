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
 * A session carries one VM from the source to the destination. The source connects, the destination
 * accepts, and both name their RAM blocks. Then the source writes guest RAM and the stream through
 * the session's file, and large device state as device.h says. The destination reads. At the end
 * each side calls vmf_session_complete(), which hands the VM over:
 *
 *   destination: has every byte, and has ended remote access to its RAM -> sends LOADED
 *   source:      gets LOADED -> sends GO, which it never takes back
 *   destination: gets GO -> may run the VM
 *
 * The VM has one owner. The source may run it until its vmf_session_complete() has sent GO. The
 * destination may run it only after its own has returned true. Before GO any failure or cancel
 * leaves the VM to the source. After GO a cancel changes nothing, because the answer is on its way.
 *
 * If the connection is lost between LOADED and the answer to GO, the source asks over another one.
 * It connects to the same URI, names the session, and tries that for `timeout'. The destination
 * waits twice as long, because the source may notice the loss later. Its listener lives on for
 * that, even after vmf_listener_free(). If asking fails too, the outcome is unknown, and
 * vmf_session_complete() says VMF_ERROR_UNKNOWN_OUTCOME. Then neither side may run the VM until
 * someone has made sure that the other does not. docs/handover.md has every case.
 *
 * Threads: connect or accept, the file, complete and free belong to one thread at a time: the
 * session's own thread. Any thread may call vmf_session_cancel(), vmf_session_fail(),
 * vmf_session_check(), vmf_session_get_owner(), vmf_session_get_stats() and
 * vmf_session_peer_is_qemu(). When the peer dies, every wait ends within `timeout', except that the
 * outcome may have to be asked for. vmf_session_cancel() ends waits at once. Free a session that
 * has failed; the process can make a new one.
 */
typedef struct VmfSession VmfSession;
typedef struct VmfListener VmfListener;

/*
 * Listens on a URI, and holds a reference to it. Strangers, port scans and half-open connections do
 * not disturb it. One thread at a time may accept. Returns NULL with *error.
 */
VMF_API VmfListener *vmf_listener_new(const VmfUri *uri, GError **error);
/*
 * The URI to connect to: the host of the listening URI, and the port that was bound. The listener
 * owns it.
 */
VMF_API const char *vmf_listener_address(const VmfListener *listener);
/*
 * Ends listening, when no accept is under way. Sessions that were accepted go on. The address stays
 * taken until the last of them is freed, because their sources may have to ask for the outcome.
 * Other sources are refused. NULL is allowed.
 */
VMF_API void vmf_listener_free(VmfListener *listener);

/*
 * Waits for a source until it is cancelled, and sets the session up. RAM blocks are compared, and
 * memory is registered if the mode says so. `cancellable' may be NULL. A peer that fails before it
 * has named a session is dropped. A later failure is an error, and the listener lives on. While it
 * waits, memory is made ready. It is pinned if that was asked for, or else made resident if it can
 * be given back (option populate, vmf_ram_blocks_set_discardable()). The session holds a reference
 * to `blocks'; the caller frees the session.
 */
VMF_API VmfSession *vmf_session_accept(VmfListener *listener, VmfRamBlocks *blocks,
                                       GCancellable *cancellable, GError **error);

/*
 * Connects to a destination, and sets the session up. `cancellable' may be NULL. The session holds
 * references to `uri' and `blocks'; the caller frees it. Returns NULL with *error.
 */
VMF_API VmfSession *vmf_session_connect(const VmfUri *uri, VmfRamBlocks *blocks,
                                        GCancellable *cancellable, GError **error);

/*
 * Ends the session, tells the peer, joins every thread, and frees. NULL is allowed. It returns
 * within two seconds, except while the peer still has to learn the outcome. A destination that owns
 * the VM waits up to `timeout' for a source that lives to confirm. If the connection was lost in
 * the hand-over, a source tries for `timeout' and a destination twice as long. vmf_session_cancel()
 * before, or from another thread, ends that.
 */
VMF_API void vmf_session_free(VmfSession *session);

/*
 * The session's stream: the source writes it, the destination reads it. The session owns it. It has
 * a RAM path on the source, and a return path (vmf_file_get_return_path()). The reading side of
 * each direction has a descriptor to poll.
 */
VMF_API VmfFile *vmf_session_get_file(VmfSession *session);

/*
 * Whether the peer is stock QEMU, which the connection shows (rdma: alone; see docs/stock-qemu.md).
 * The stream is then QEMU's own. A source puts a hook into its section of RAM before it saves
 * pages. The next item of the stream ends what the hook began. The peer gets only hooks that RAM
 * follows. There is no hand-over. vmf_session_complete() returns on the source when everything has
 * arrived, and on the destination when the source has hung up in good order. If it fails on the
 * source, the outcome is unknown. So put the last bytes of the stream, and do not flush them before
 * it. Any thread.
 */
VMF_API bool vmf_session_peer_is_qemu(const VmfSession *session);
/*
 * Makes sure of the way back (vmf_file_get_return_path()). Between two vmferrys it is always there.
 * A destination that is stock QEMU is asked for one, for up to the connect-timeout. A source that
 * is stock QEMU makes one itself, or there is none. Returns false with *error. The session's own
 * thread.
 */
VMF_API bool vmf_session_open_return_path(VmfSession *session, GError **error);

/*
 * true while nothing has failed. Else false, with a copy of the first error. After the hand-over it
 * says what vmf_session_complete() said, whatever happens to the connection. Any thread.
 */
VMF_API bool vmf_session_check(VmfSession *session, GError **error);
/*
 * Cancels the session: everything that waits on either side fails with VMF_ERROR_CANCELLED. A GO
 * that has left is not taken back: its answer is awaited, which takes a round trip. Asking over
 * another connection ends at once. Any thread.
 */
VMF_API void vmf_session_cancel(VmfSession *session);
/*
 * Makes `error' the session's error if it is the first, and tells the peer. The session owns
 * `error'. NULL is an error that gives no reason. Any thread.
 */
VMF_API void vmf_session_fail(VmfSession *session, GError *error);

/*
 * Hands the VM over, see above. The source flushes stream and RAM first. The destination calls it
 * when it has read and loaded everything. true: the destination has confirmed GO (source), or owns
 * the VM (destination). A second call says the same. A device that is not saved or loaded is
 * VMF_ERROR_INVALID, and changes nothing. The session's own thread.
 */
VMF_API bool vmf_session_complete(VmfSession *session, GError **error);

/*
 * Source: the first half of vmf_session_complete(), for a VMM that can still fail or be cancelled
 * after everything has left it. It sends all that is left, and returns true when the destination
 * has loaded it (LOADED). The VM is still this side's. vmf_session_complete() then gives it away
 * (GO). vmf_session_cancel(), vmf_session_fail() or vmf_session_free() keep it. A destination that
 * gets none of them for `timeout' fails. VMF_ERROR_UNSUPPORTED: the peer is stock QEMU, or this is
 * the destination. The session's own thread.
 */
VMF_API bool vmf_session_await_loaded(VmfSession *session, GError **error);

typedef enum VmfOwner {
    VMF_OWNER_THIS_SIDE = 1,  /* this side may run the VM */
    VMF_OWNER_OTHER_SIDE = 2, /* this side must not run it, and never may by this session */
    VMF_OWNER_UNKNOWN =
        3 /* this side must not run it: GO is on its way, or nobody could be asked */
} VmfOwner;

/*
 * Whose the VM is, as far as this side knows. Any thread, at any time.
 *
 * The source says "this side" until GO is sent, and "unknown" until GO is answered. Then it says
 * "the other side", or "this side" if the destination will never run the VM. The destination says
 * "the other side" until it has said LOADED, "unknown" until it hears GO, and then "this side". A
 * failed session answers at once: "this side" on a source that sent no GO, "the other side" on a
 * destination that has refused. An answer after vmf_session_complete() never changes, except that
 * "unknown" may become known when the other side asks later. A VMM with a hand-over of its own
 * (vmf_session_revoke()) decides itself.
 */
VMF_API VmfOwner vmf_session_get_owner(VmfSession *session);

/*
 * Source: flushes the stream, and waits until all of it is in the destination's process (a round
 * trip). The destination can read it even if this process is killed then. The session's own thread.
 */
VMF_API bool vmf_session_settle(VmfSession *session, GError **error);

/*
 * Destination, for a VMM that has a hand-over of its own instead of vmf_session_complete(). It ends
 * every remote access to its RAM at once. The stream and the return path live on. Call it before
 * the VM runs, and after everything has arrived: the reader has read bytes that the source put
 * after a flush with VMF_FLUSH_FINAL. If it comes too early, the session fails: at once, or with
 * stream bytes that need the missing RAM. The session's own thread.
 */
VMF_API bool vmf_session_revoke(VmfSession *session, GError **error);

/*
 * Says that the set of a session is whole, if it was made with vmf_ram_blocks_set_late(). The set
 * does not change any more, except for vmf_ram_blocks_set_host(). A thread of the session then sets
 * RAM up, as soon as the other side has named its RAM, too. The stream goes on meanwhile. On the
 * source, RAM that is saved waits for that. The other side needs no late set: its RAM counts as
 * named from the beginning. A peer of an older version that cannot do this is an error when the
 * session is made (VMF_ERROR_UNSUPPORTED). VMF_ERROR_INVALID: the set is not late, or was named
 * before. The session's own thread.
 */
VMF_API bool vmf_session_name_ram(VmfSession *session, GError **error);

/* --- measuring --- */

/*
 * Source, for benchmarks: measures the transport without the migration layer. Each channel writes
 * its part of the first RAM block over and over, until all have written total_bytes together. A
 * message has message_size bytes: a power of two from 512 to a stripe. The block needs a stripe for
 * each channel. *seconds is the time of the slowest channel. VMF_ERROR_UNSUPPORTED: the transport
 * cannot do it, or this is the destination. The session's own thread.
 */
VMF_API bool vmf_session_raw_write(VmfSession *session, uint64_t message_size, uint64_t total_bytes,
                                   double *seconds, GError **error);

/* --- what happened so far --- */

typedef struct VmfStats {
    uint32_t size;             /* the caller sets sizeof(VmfStats); fields may be appended */
    uint32_t channels;         /* data channels in use */
    uint64_t ram_bytes;        /* source: guest RAM that was saved */
    uint64_t ram_written;      /* source: RAM sent as data, with bridged gaps */
    uint64_t zero_bytes;       /* RAM found zero or never touched, so not sent */
    uint64_t stream_bytes;     /* bytes put into streams; on a destination also those got */
    uint64_t device_bytes;     /* device state through the channels (device.h) */
    uint64_t writes;           /* RDMA writes, or RAM records on a socket transport */
    uint64_t doorbells;        /* posts of a list of work requests, or sendmsg calls */
    uint64_t inflight_bytes;   /* now */
    uint64_t registrations;    /* memory regions that this side has registered */
    uint64_t evictions;        /* memory regions given up for the memory-lock budget */
    uint64_t registered_bytes; /* now */
    uint64_t registration_ns;  /* time of registering, summed over threads */
    uint64_t own_bytes;        /* memory that the session itself has allocated */
    uint64_t syncs;            /* sync points sent or seen */
    uint64_t setup_ns;         /* from connect or accept to ready */
    uint64_t last_flush_ns;    /* source: time of the latest flush that waits */
    char registration[16];     /* "pin-all", "chunk", "odp" or "none" */
    uint64_t chunk_size;       /* bytes, as negotiated; 0: there are no chunks */
    uint64_t max_inflight;     /* bytes, as in force */
    uint64_t populated_bytes;  /* destination: RAM made resident while it waited */
    uint64_t queue_max; /* source: most RAM that waits for the channels; a flush has to carry at
                           most that plus max_inflight */
} VmfStats;

/*
 * Fills at most stats->size bytes of *stats, and sets `size' to the bytes filled. The numbers are
 * of one moment, and not all of the same one. Any thread.
 */
VMF_API void vmf_session_get_stats(VmfSession *session, VmfStats *stats);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfSession, vmf_session_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfListener, vmf_listener_free)

G_END_DECLS

#endif
