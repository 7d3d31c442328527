/* SPDX-License-Identifier: BSD-2-Clause */
/* resident.h -- for tests: how much of some memory is resident (include it after cmocka.h) */

#ifndef VMF_TESTS_RESIDENT_H
#define VMF_TESTS_RESIDENT_H

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#include <glib.h>

/* Resident pages, by mincore(2). `memory' begins at a page, and `size' is a multiple of pages. */
static inline uint64_t resident_pages(const void *memory, uint64_t size)
{
    const uint64_t pages = size / (uint64_t)sysconf(_SC_PAGESIZE);
    g_autofree unsigned char *map = g_malloc(pages);
    uint64_t count = 0;

    assert_int_equal(mincore((void *)memory, size, map), 0);
    for (uint64_t i = 0; i < pages; i++) {
        count += map[i] & 1;
    }
    return count;
}

#endif
