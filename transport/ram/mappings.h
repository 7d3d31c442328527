/* SPDX-License-Identifier: BSD-2-Clause */
/* mappings.h -- what the kernel says about this process's mappings, read once and looked up fast */

#ifndef VMF_MAPPINGS_H
#define VMF_MAPPINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

/* One line of /proc/self/maps, and the flags that /proc/self/smaps adds to it. proc(5). */
typedef struct Mapping {
    uint64_t from, to;
    uint64_t offset; /* in the file, of `from' */
    uint64_t inode;  /* 0: no file */
    uint32_t dev_major, dev_minor;
    bool readable, writable, shared;
    bool lazy;   /* userfaultfd: a handler may owe what is missing (um, ui) */
    bool handed; /* registered with userfaultfd in any way (um, ui, uw) */
} Mapping;

typedef struct Mappings {
    GArray *list;     /* Mapping, by ascending address; never NULL after mappings_read() */
    bool flags_known; /* false: `lazy' and `handed' say nothing */
} Mappings;

/*
 * Reads them all, in one go: its cost is that of the kernel's text, about 10 us a mapping. Without
 * /proc the list is empty. The mappings may change from then on.
 */
void mappings_read(Mappings *mappings);
/* For tests: the same of a text in the format of maps or smaps. */
void mappings_parse(Mappings *mappings, const char *text);
void mappings_clear(Mappings *mappings);

/* The index of the first mapping that ends behind `address'; list->len if there is none. */
unsigned mappings_search(const Mappings *mappings, uint64_t address);

#endif
