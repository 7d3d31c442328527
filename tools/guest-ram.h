/* SPDX-License-Identifier: BSD-2-Clause */
/* guest-ram.h -- memory for the RAM of a guest that does not run here */

#ifndef VMF_GUEST_RAM_H
#define VMF_GUEST_RAM_H

#include <vmferry/vmferry.h>

typedef struct GuestRam {
    VmfRamBlocks *blocks;
    GArray *mappings;
} GuestRam;

/* Makes an empty set, to which blocks are added that the source names. */
void guest_ram_init(GuestRam *ram);
/* Frees the memory, after every session with it is freed. */
void guest_ram_clear(GuestRam *ram);
/* Adds a block, and returns it, or NULL with *error. */
const VmfRamBlock *guest_ram_add(GuestRam *ram, const char *name, uint64_t length,
                                 uint32_t page_size, GError **error);

#endif
