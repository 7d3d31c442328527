/* SPDX-License-Identifier: BSD-2-Clause */
/* discards.h -- guest memory that was given back to the system while a device has it registered */

#ifndef VMF_RDMA_DISCARDS_H
#define VMF_RDMA_DISCARDS_H

#include <vmferry/plugin/transport.h>

/*
 * A registration keeps the page frames that the memory had when it was registered. The notice of a
 * discard comes from any thread. It only marks the stripes of its range and counts itself. A stripe
 * belongs to one channel. The source's thread of that channel looks at the mark before it lists a
 * write. It takes the mark away first, and registers anew after that. So the next write sees a
 * later notice (see renewal.h). With on-demand paging nobody calls discards_init, because such a
 * registration follows the memory. Then nothing is ever marked.
 *
 * Until the first notice of a connection, a write costs one more read of a number.
 */
typedef struct Discards {
    int any;        /* atomic: the number of notices so far */
    unsigned shift; /* log2 of the stripe */
    unsigned block_count;
    uint64_t *first; /* number of each block's first stripe */
    uint64_t *bits;  /* atomic; a bit a stripe */
    uint32_t *wire;  /* the wire number of each block of the set; UINT32_MAX: it has none */
    unsigned set_count;
    VmfRamWatch *watch;
} Discards;

/*
 * Starts to take notices. The blocks and the stripe of the connection must be set. False with
 * *error. The caller calls discards_clear in either case.
 */
bool discards_init(Discards *discards, const VmfConn *conn, GError **error);
void discards_clear(Discards *discards);

static inline bool discards_any(const Discards *discards)
{
    return __atomic_load_n(&discards->any, __ATOMIC_ACQUIRE) != 0;
}

/*
 * Whether the stripe of that byte was discarded since the last call. Takes its mark away. The
 * thread of the stripe's channel.
 */
bool discards_take(Discards *discards, unsigned block, uint64_t offset);

#endif
