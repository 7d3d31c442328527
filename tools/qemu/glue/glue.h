/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * glue.h -- what the parts of QEMU's rdma: migration by vmferry share
 *
 * They take the place of migration/rdma.c: a QIOChannel for the stream, and what QEMU calls for
 * RAM, over a session of libvmferry. QEMU keeps the dirty log, convergence and device state.
 *
 *   channel.c      the QIOChannel
 *   source.c       RAM, the stream and its end, connecting
 *   destination.c  the stream and its end, accepting
 *   reading.c      the stream's bytes, the newest held back
 *   blocks.c       QEMU's RAM blocks as vmferry's
 *   start.c        URI and capabilities; what is loaded ahead
 *   switchover.c   when the VM is stopped
 *   ending.c       threads that end sessions, because QEMU must not wait
 *   hooks.c        what QEMU 7.2 calls: QEMUFileHooks
 *   calls.c        what QEMU 10 calls: functions by name
 *   compat.h       names that differ between the two
 *
 * Who owns the VM. Without the return-path capability the destination holds back the newest byte of
 * the stream until another byte comes, or until the source has said GO. The source says GO after
 * its migration state has become "completed"; it never runs the VM again by itself then. With
 * return-path QEMU's destination runs the VM after everything is loaded, and the source waits for
 * its SHUT message. If the connection is lost while the destination may have everything, the
 * source leaves the VM stopped.
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

/* A RAM block: where QEMU has it, and vmferry's block. */
typedef struct Block {
    ram_addr_t start;
    const VmfRamBlock *ram;
} Block;

/* Zero at first. */
typedef struct Switchover {
    uint64_t least;        /* bytes that remained at the best moment so far */
    unsigned slices;       /* slices sent although QEMU would have stopped the VM */
    unsigned without_gain; /* slices of these since the best moment */
} Switchover;

/* What this migration has asked QEMU to do about discards of guest RAM. */
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
    VmfFile *back; /* the return path: the source reads it, the destination writes it */
    GArray *blocks;
    bool outgoing, return_path;
    bool stock;        /* the peer is stock QEMU */
    Discards discards; /* held while there is a channel */

    /* Source. */
    const Block *block;                /* the block that was used last */
    unsigned pages;                    /* pages since the last refund */
    bool iterating;                    /* RAM was saved */
    uint64_t zero_seen, zero_refunded; /* pages */
    uint64_t zero_credit;              /* pages that the rate limit still has to get */
    uint64_t round;
    Switchover switchover;
    bool last_stage;        /* the VM is stopped and its RAM is flushed */
    bool ram_section_ended; /* and QEMU has flushed the end of RAM's section */
    bool write_failed;
    MemoryListener dirty_log; /* registered if it has a name */

    /* Destination. */
    HeldByte held;      /* not used with a return path */
    HandOver hand_over; /* its thread writes it before `handed_over' is set */
    EventNotifier handed_over;
    GError *hand_over_error;
    int watched_fd;
    VMChangeStateEntry *vm_change;
};

/* Makes a channel, which owns the session. Returns NULL if there is no return path. */
QIOChannelVmferry *channel_new(VmfSession *session, GArray *blocks, const ChannelSide *side,
                               bool return_path, GError **error);
/*
 * `may_wait': a few bytes stay in the buffer, because every flush is a fence after RAM, on every
 * channel. QEMU flushes the end of a section many times a second.
 */
ssize_t channel_put(VmfFile *file, const struct iovec *iov, size_t niov, bool may_wait,
                    GError **error);

typedef struct BlockList {
    VmfRamBlocks *ram;
    GArray *blocks; /* of Block */
    GError *error;
} BlockList;

/* Lists the RAM blocks of this VM. Free the list by block_list_clear(). */
bool block_list_fill(BlockList *list, Error **errp);
void block_list_clear(BlockList *list);
/*
 * For a source: from now on nobody discards pages of guest RAM. A registered page would get another
 * frame, which the device does not know. It would send the old content for ever.
 */
bool discards_forbid(Discards *discards, Error **errp);
/*
 * For a destination: untouched memory may be given back, unless an assigned device has RAM pinned.
 * Until the release no such device can be plugged. It is refused if another device discards. The VM
 * and its balloon do not run before the memory's registrations are gone.
 */
bool discards_reserve(Discards *discards, VmfRamBlocks *ram, Error **errp);
/* Ends what either of them began, if anything. Any thread. */
void discards_release(Discards *discards);
/* The block that QEMU has at `start', or NULL. */
const VmfRamBlock *block_find(QIOChannelVmferry *rioc, ram_addr_t start);

typedef enum { END_NOW, END_BY_HANDING_OVER, END_AFTER_THE_PEER } EndHow;

/*
 * Takes the session and its return path, and ends them. It may take long, so a thread does it, and
 * not QEMU's main loop.
 */
void session_end(VmfSession *session, VmfFile *back, EndHow how);

/* Saves a page. Returns 0, or -EIO after the error is set everywhere that QEMU looks. */
int source_save_page(QEMUFile *f, ram_addr_t block_offset, ram_addr_t offset, size_t size);
/*
 * QEMU calls it before a slice of a round. Stock QEMU needs a hook in the stream before RAM comes.
 * Returns what source_save_page() does.
 */
int source_before_ram(QEMUFile *f);
/*
 * QEMU calls it after a slice of a round. `flags' is one of RAM_CONTROL_*. Returns what
 * source_save_page() does.
 */
int source_after_ram(QEMUFile *f, uint64_t flags);
/* Takes the URI. Connects in a thread of its own, and goes on in QEMU's main loop. */
void source_start(MigrationState *s, VmfUri *uri, Error **errp);

/*
 * Whether the VM should run for another slice when QEMU would stop it. `remaining' bytes are left,
 * and QEMU stops at `limit'. If so, QEMU hears that more than `limit' bytes are left.
 */
bool switchover_wants_another_slice(Switchover *so, uint64_t remaining, uint64_t limit);

/* Takes the URI. Listens and accepts in a thread of its own. */
void destination_start(VmfUri *uri, Error **errp);

/* Parses HOST:PORT and vmferry's options after it. The environment may have more options. */
VmfUri *glue_parse_uri(const char *host_port, Error **errp);
/* Whether QEMU is set to nothing that rdma: cannot do. The main thread. */
bool glue_can_migrate(Error **errp);
/*
 * Starts a thread. Returns NULL with *error instead of ending the process, because a VM runs in it.
 */
GThread *glue_thread_new(const char *name, GThreadFunc function, void *opaque, GError **error);
/* glue_thread_new() for a thread that nobody waits for. */
bool glue_thread(const char *name, GThreadFunc function, void *opaque, GError **error);

/* --- what hooks.c and calls.c each have --- */

/* Called on either side with a connection, before QEMU has its file. */
void interface_connected(QIOChannelVmferry *rioc, QEMUFile *f);
/* What QEMU calls to learn what remains. The channel keeps it while it exists. */
extern const SaveVMHandlers interface_remaining;
/* The bytes that a zero page is accounted with. */
#define ZERO_PAGE_BYTES 8
/*
 * Refunds `pages' that were accounted in full and then found zero, which cost next to nothing.
 * `limited_pages' of them count for QEMU's rate limit.
 */
void interface_refund(QEMUFile *f, uint64_t pages, uint64_t limited_pages);
/* How often QEMU has taken the dirty bits so far. */
uint64_t interface_rounds(void);

#endif
