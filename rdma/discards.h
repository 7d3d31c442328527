/* SPDX-License-Identifier: BSD-2-Clause */
/* discards.h -- guest memory that was given back to the system while a device has it registered */

#ifndef VMF_RDMA_DISCARDS_H
#define VMF_RDMA_DISCARDS_H

#include <vmferry/plugin/transport.h>

struct RdmaChannel;
struct RdmaConn;

/*
 * A registration keeps the page frames that the memory had then. The notice of a discard, from
 * any thread, marks the stripes of its range, and that is all. A stripe is one channel's, whose
 * thread looks at the mark before it lists a write, takes it away and then registers anew: so a
 * notice that comes later is seen at the next write. With on-demand paging nothing is marked, for
 * such a registration follows the memory.
 *
 * Until the first notice of a connection a write costs the read of one number more.
 */
typedef struct Discards {
    int any;        /* atomic: the notices so far */
    unsigned shift; /* log2 of the stripe */
    unsigned block_count;
    uint64_t *first; /* number of each block's first stripe */
    uint64_t *bits;  /* atomic; a bit a stripe */
    uint32_t *wire;  /* number on the wire of a block of the set; UINT32_MAX: it has none */
    unsigned set_count;
    VmfRamWatch *watch;
} Discards;

/* From here on notices are taken; conn->base.stripe is set. */
bool discards_init(struct RdmaConn *conn, GError **error);
void discards_clear(Discards *discards);

static inline bool discards_any(const Discards *discards)
{
    return __atomic_load_n(&discards->any, __ATOMIC_ACQUIRE) != 0;
}

/* Whether the stripe of that byte was discarded since this was asked last. */
bool discards_take(Discards *discards, unsigned block, uint64_t offset);

/*
 * Source, behind a notice: sees to it that a byte of a ready chunk is registered as its memory is
 * now. *ready is false while writes to the chunk are under way: a completion will come.
 */
bool discards_renew(struct RdmaChannel *channel, unsigned block, uint64_t offset, bool *ready,
                    GError **error);

/* Destination, the channel's thread: false with *error if memory was discarded that is registered.
 */
bool discards_check(struct RdmaChannel *channel, GError **error);

#endif
