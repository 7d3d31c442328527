/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When the VM is stopped: later than QEMU would, as long as that shortens the downtime. */

#include "glue.h"

#include "compat.h"

/* What remains is as good as nothing when it needs this part of the downtime limit. */
#define SMALL_PART 32
/* Less by this part is a gain. */
#define GAIN_PART 8
/* QEMU sends for at most 50 ms between two looks at what remains. */
#define MOST_EXTRA_SLICES 64
#define MOST_SLICES_WITHOUT_GAIN 6
/* After so many, the next moment that is nearly as good as the best is taken. */
#define FEW_SLICES_WITHOUT_GAIN 2

/*
 * QEMU stops the VM as soon as what remains is believed to fit into the downtime
 * limit, which a fast transport reaches within the first pass over RAM: then the
 * end of that pass is sent with the VM stopped. Every slice that is sent while
 * it still runs takes a part of that away, until the guest changes as much as is
 * sent.
 */
bool switchover_wants_another_slice(Switchover *so, uint64_t remaining, uint64_t limit)
{
    if (remaining >= limit || !runstate_is_running()) {
        return false; /* QEMU goes on by itself, or there is no downtime to shorten */
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
