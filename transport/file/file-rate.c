/* SPDX-License-Identifier: BSD-2-Clause */
/* file-rate.c -- the migration file: the rate limit */

#include "file-state.h"

/* The budget is counted over slices of that length, so that a pause saves nothing up. */
#define RATE_SLICE_US 100000

static uint64_t slice_budget(const VmfFile *file)
{
    return MAX(file->rate_limit / (G_USEC_PER_SEC / RATE_SLICE_US), 1);
}

void vmf_file_set_rate_limit(VmfFile *file, uint64_t bytes_per_second)
{
    file->rate_limit = bytes_per_second;
    file->rate_bytes = 0;
    file->rate_since = file->clock();
}

uint64_t vmf_file_get_rate_limit(VmfFile *file)
{
    return file->rate_limit;
}

bool vmf_file_rate_exceeded(VmfFile *file)
{
    return vmf_file_rate_delay(file) > 0;
}

int64_t vmf_file_rate_delay(VmfFile *file)
{
    gint64 passed;
    double due;

    /* The clock is read only when the slice's budget is used up. */
    if (!file->rate_limit || file->rate_bytes < slice_budget(file)) {
        return 0;
    }
    passed = file->clock() - file->rate_since;
    due = (double)file->rate_bytes / (double)file->rate_limit * G_USEC_PER_SEC;
    if (due <= (double)passed) {
        file->rate_bytes = 0;
        file->rate_since += passed;
        return 0;
    }
    /*
     * Compared before the cast, because a tiny limit makes `due' larger than any integer. At least
     * 1, because a fraction of a microsecond would look like no delay.
     */
    due -= (double)passed;
    return due >= RATE_SLICE_US ? RATE_SLICE_US : MAX((gint64)due, 1);
}
