/* SPDX-License-Identifier: BSD-2-Clause */
/* lazy.h -- memory whose pages a handler of userfaultfd fills when they are first touched */

#ifndef VMF_TESTS_LAZY_H
#define VMF_TESTS_LAZY_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/* The first byte of a page that the handler has filled. */
#define LAZY_BYTE 0x5a

typedef struct Lazy {
    int fd, stop_fd;
    uint8_t *memory;
    uint64_t size;
    GThread *thread;
    unsigned filled; /* pages; atomic */
    unsigned events; /* events of memory that was given back; atomic */
} Lazy;

/*
 * Registers the memory: whole pages that nobody has touched. With `remove' the handler hears of
 * memory that is given back, and the thread that gives it back waits for it.
 */
void lazy_start(Lazy *lazy, void *memory, uint64_t size, bool remove);
void lazy_stop(Lazy *lazy);

#endif
