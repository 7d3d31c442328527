/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When to stop the VM: later than QEMU would, while that shortens the downtime. */

#include "glue.h"

#include "compat.h"

/* The rest counts as nothing if it needs this part of the downtime limit. */
#define SMALL_PART 32
/* A rest that is smaller by this part is a gain. */
#define GAIN_PART 8
/* The most slices. QEMU sends for at most 50 ms in each. */
#define MOST_EXTRA_SLICES 64
#define MOST_SLICES_WITHOUT_GAIN 6
/* After so many slices, the next moment that is nearly as good as the best is taken. */
#define FEW_SLICES_WITHOUT_GAIN 2

/*
 * QEMU stops the VM when it believes that the rest fits into the downtime limit. With a fast
 * transport that is true within the first pass over RAM. Then the end of that pass is sent while
 * the VM is stopped. Each slice that is sent before makes that end shorter, until the guest changes
 * as much as is sent.
 */
bool switchover_wants_another_slice(Switchover *so, uint64_t remaining, uint64_t limit)
{
    if (remaining >= limit || !runstate_is_running()) {
        return false; /* QEMU goes on by itself, or no downtime can be saved */
    }
    if (remaining <= limit / SMALL_PART || so->slices == MOST_EXTRA_SLICES) {
        return false;
    }
    so->slices++;
    if (!so->least || remaining < so->least - so->least / GAIN_PART) {
        so->least = remaining;
        so->without_gain = 0;
        return true;
    }
    so->without_gain++;
    if (so->without_gain > FEW_SLICES_WITHOUT_GAIN &&
        remaining <= so->least + so->least / GAIN_PART) {
        return false;
    }
    return so->without_gain < MOST_SLICES_WITHOUT_GAIN;
}
