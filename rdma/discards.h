/* SPDX-License-Identifier: BSD-2-Clause */
/* discards.h -- guest memory that was given back to the system while a device has it registered */

#ifndef VMF_RDMA_DISCARDS_H
#define VMF_RDMA_DISCARDS_H

#include <vmferry/plugin/transport.h>

/*
 * A registration keeps the page frames that the memory had then. The notice of a discard, from
 * any thread, marks the stripes of its range, and that is all. A stripe is one channel's, whose
 * thread looks at the mark before it lists a write, takes it away and then registers anew: so a
 * notice that comes later is seen at the next write (see renewal.h). With on-demand paging nobody
 * calls discards_init, because such a registration follows the memory: then nothing is ever marked.
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

/* From here on notices are taken; blocks and stripe of the connection are set. */
bool discards_init(Discards *discards, const VmfConn *conn, GError **error);
void discards_clear(Discards *discards);

static inline bool discards_any(const Discards *discards)
{
    return __atomic_load_n(&discards->any, __ATOMIC_ACQUIRE) != 0;
}

/* Whether the stripe of that byte was discarded since this was asked last. */
bool discards_take(Discards *discards, unsigned block, uint64_t offset);

#endif
