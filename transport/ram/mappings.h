/* SPDX-License-Identifier: BSD-2-Clause */
/* mappings.h -- the mappings of this process, read once from the kernel and looked up fast */

#ifndef VMF_MAPPINGS_H
#define VMF_MAPPINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

/* One line of /proc/self/maps, and the flags that /proc/self/smaps adds. Source: proc(5). */
typedef struct Mapping {
    uint64_t from, to;
    uint64_t offset; /* in the file, of `from'; bytes */
    uint64_t inode;  /* 0: no file */
    uint32_t dev_major, dev_minor;
    bool readable, writable, shared;
    bool lazy;       /* userfaultfd: a handler may fill what is missing (um, ui) */
    bool unforked;   /* a fork does not inherit it (dc) */
    bool unreserved; /* no memory is set aside for it (nr) */
    bool handed;     /* registered with userfaultfd in any way (um, ui, uw) */
} Mapping;

typedef struct Mappings {
    GArray *list;     /* Mapping, by ascending address; not NULL after mappings_read() */
    bool flags_known; /* false: what flags tell is false */
} Mappings;

/*
 * Reads all mappings at once. The kernel needs about 10 us to write each of them. Without /proc the
 * list is empty. The mappings may change from then on.
 */
void mappings_read(Mappings *mappings);
/* For tests: reads a text in the format of maps or smaps. */
void mappings_parse(Mappings *mappings, const char *text);
void mappings_clear(Mappings *mappings);

/* The index of the first mapping that ends after `address'; list->len if there is none. */
unsigned mappings_search(const Mappings *mappings, uint64_t address);

#endif
