/* SPDX-License-Identifier: BSD-2-Clause */
/* layout.h -- where each member of a public structure is, and what each public number is */

#ifndef LAYOUT_H
#define LAYOUT_H

#include <stddef.h>

typedef struct LayoutEntry {
    const char *name;
    size_t offset, size; /* of a member; a number has itself as its offset */
} LayoutEntry;

/* layout.c is compiled twice: against the headers that are kept here, and against today's. */
extern const LayoutEntry layout_kept[], layout_today[];
/* Structures that both sides have by value: they may not change their size. */
extern const LayoutEntry layout_fixed_kept[], layout_fixed_today[];

#endif
