/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's rdma: migration by vmferry: what its parts share
 *
 * They take the place of migration/rdma.c: a QIOChannel for the stream, and what
 * QEMU calls for RAM, over a session of libvmferry. QEMU keeps the dirty log,
 * convergence and device state.
 *
 *   channel.c      the QIOChannel
 *   source.c       RAM, the stream and its end, connecting
 *   destination.c  the stream and its end, accepting
 *   reading.c      the stream's bytes, the newest held back
 *   blocks.c       QEMU's RAM blocks as vmferry's
 *   start.c        URI and capabilities; what is loaded ahead
 *   switchover.c   when the VM is stopped
 *   ending.c       sessions are ended behind QEMU's back, which must not wait
 *   hooks.c        what QEMU 7.2 calls: QEMUFileHooks
 *   calls.c        what QEMU 10 calls: functions by name
 *   compat.h       names that changed between them
 *
 * Who owns the VM. Without the return-path capability the destination holds
 * back the newest byte of the stream until another follows, or, at the end,
 * until the source has said GO; the source says it when its migration state has
 * become "completed", after which it never runs the VM again by itself. With
 * return-path QEMU's destination runs the VM when everything is loaded and the
 * source waits for its SHUT message; if the connection is lost while the
 * destination may have everything, the source leaves the VM stopped.
 */
#ifndef VMFERRY_GLUE_H
#define VMFERRY_GLUE_H

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/event_notifier.h"
#include "qemu/main-loop.h"
#include "exec/cpu-common.h"
#include "exec/memory.h"
#include "exec/target_page.h"
#include "io/channel.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/rdma.h"
#include "migration/register.h"
#include <vmferry/vmferry.h>

#include "reading.h"

#define TYPE_QIO_CHANNEL_VMFERRY "qio-channel-vmferry"
OBJECT_DECLARE_SIMPLE_TYPE(QIOChannelVmferry, QIO_CHANNEL_VMFERRY)

/* Where QEMU has a RAM block, and what vmferry calls it. */
typedef struct Block {
    ram_addr_t start;
    const VmfRamBlock *ram;
} Block;

/* Zero at first. */
typedef struct Switchover {
    uint64_t least;        /* bytes that remained at the best moment so far */
    unsigned slices;       /* sent although QEMU would have stopped the VM */
    unsigned without_gain; /* of these, since the best moment */
} Switchover;

/* What this migration has asked of QEMU about discards of guest RAM. */
typedef enum { DISCARDS_FREE, DISCARDS_FORBIDDEN, DISCARDS_RESERVED } Discards;

typedef enum { HAND_OVER_NOT_YET, HAND_OVER_RUNS, HAND_OVER_OWNER, HAND_OVER_FAILED } HandOver;

/* What a side does when QEMU writes to its channel, or reads from it. */
typedef struct ChannelSide {
    bool outgoing; /* the source's end */
    ssize_t (*write)(QIOChannelVmferry *rioc, const struct iovec *iov, size_t niov, Error **errp);
    ssize_t (*read)(QIOChannelVmferry *rioc, uint8_t *to, size_t size, Error **errp);
} ChannelSide;

struct QIOChannelVmferry {
    QIOChannel parent;
    const ChannelSide *side;
    VmfSession *session;
    VmfFile *file; /* owned by the session */
    VmfFile *back; /* the return path: read by the source, written by the destination */
    GArray *blocks;
    bool outgoing, return_path;
    bool stock;        /* the peer is stock QEMU */
    Discards discards; /* as long as there is a channel */

    /* Source. */
    const Block *block;                /* the last one used */
    unsigned pages;                    /* since the last refund */
    bool iterating;                    /* RAM was saved */
    uint64_t zero_seen, zero_refunded; /* pages */
    uint64_t zero_credit;              /* pages that the rate limit is to be told of */
    uint64_t round;
    Switchover switchover;
    bool last_stage;        /* the VM is stopped and its RAM is flushed */
    bool ram_section_ended; /* and QEMU has flushed the end of RAM's section */
    bool write_failed;
    MemoryListener dirty_log; /* registered if it has a name */

    /* Destination. */
    HeldByte held;      /* not used with a return path */
    HandOver hand_over; /* written by its thread before `handed_over' is set */
    EventNotifier handed_over;
    GError *hand_over_error;
    int watched_fd;
    VMChangeStateEntry *vm_change;
};

/* Takes the session. NULL without a return path. */
QIOChannelVmferry *channel_new(VmfSession *session, GArray *blocks, const ChannelSide *side,
                               bool return_path, GError **error);
/*
 * `may_wait': a few bytes stay in the buffer, for every flush is a fence behind
 * the RAM before it, on every channel; QEMU flushes a section end many times a
 * second.
 */
ssize_t channel_put(VmfFile *file, const struct iovec *iov, size_t niov, bool may_wait,
                    GError **error);

typedef struct BlockList {
    VmfRamBlocks *ram;
    GArray *blocks; /* of Block */
    GError *error;
} BlockList;

/* The RAM blocks of this VM, to be given back by block_list_clear(). */
bool block_list_fill(BlockList *list, Error **errp);
void block_list_clear(BlockList *list);
/*
 * A source: from now on nobody discards pages of guest RAM. A page that a registration has would
 * get another frame, of which the device knows nothing: the old content would be sent for ever.
 */
bool discards_forbid(Discards *discards, Error **errp);
/*
 * A destination: untouched memory may be given back, if no assigned device has RAM pinned; until
 * it is released none can be plugged. Refused where another device discards. The VM, and with it
 * the balloon, does not run before the memory's registrations are gone.
 */
bool discards_reserve(Discards *discards, VmfRamBlocks *ram, Error **errp);
/* Ends either, if there is one. Any thread. */
void discards_release(Discards *discards);
/* The block that QEMU has at `start', or NULL. */
const VmfRamBlock *block_find(QIOChannelVmferry *rioc, ram_addr_t start);

typedef enum { END_NOW, END_BY_HANDING_OVER, END_AFTER_THE_PEER } EndHow;

/* Takes the session and its return path. Ending one may take long, so not in QEMU's main loop. */
void session_end(VmfSession *session, VmfFile *back, EndHow how);

/* A page goes on its way; 0, or -EIO, and the error is set everywhere that QEMU looks. */
int source_save_page(QEMUFile *f, ram_addr_t block_offset, ram_addr_t offset, size_t size);
/*
 * Before a slice of a round. Stock QEMU wants the stream to say that RAM comes:
 * by a hook. The same results as source_save_page.
 */
int source_before_ram(QEMUFile *f);
/* After a slice of a round; `flags' is one of RAM_CONTROL_*. The same results. */
int source_after_ram(QEMUFile *f, uint64_t flags);
/* Takes the URI; connects in a thread of its own and goes on in QEMU's main loop. */
void source_start(MigrationState *s, VmfUri *uri, Error **errp);

/*
 * Asked when QEMU would stop the VM, with the bytes that remain and how many it
 * would stop the VM for. If so, it is told that more than those remain.
 */
bool switchover_wants_another_slice(Switchover *so, uint64_t remaining, uint64_t limit);

/* Takes the URI; listens and accepts in a thread of its own. */
void destination_start(VmfUri *uri, Error **errp);

/* HOST:PORT and vmferry's options behind it, as text; more from the environment. */
VmfUri *glue_parse_uri(const char *host_port, Error **errp);
/* Whether QEMU is set up to do nothing that rdma: cannot. The main thread. */
bool glue_can_migrate(Error **errp);
/* Not to have a thread must not end the process: a VM runs in it. NULL with an error. */
GThread *glue_thread_new(const char *name, GThreadFunc function, void *opaque, GError **error);
/* The same for a thread that nobody waits for. */
bool glue_thread(const char *name, GThreadFunc function, void *opaque, GError **error);

/* --- what hooks.c and calls.c each have --- */

/* For a connection that is there, on either side, before QEMU has its file. */
void interface_connected(QIOChannelVmferry *rioc, QEMUFile *f);
/* What QEMU asks for what remains; kept by the channel as long as it lives. */
extern const SaveVMHandlers interface_remaining;
/* What a zero page is accounted with. */
#define ZERO_PAGE_BYTES 8
/*
 * Pages that were saved, and accounted in full, were found to be zero: they cost
 * next to nothing. So many of them count for QEMU's rate limit.
 */
void interface_refund(QEMUFile *f, uint64_t pages, uint64_t limited_pages);
/* How often QEMU has taken the dirty bits so far. */
uint64_t interface_rounds(void);

#endif
