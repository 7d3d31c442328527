/* SPDX-License-Identifier: BSD-2-Clause */
/* guest-ram.c -- memory for the RAM of a guest that does not run here */

#include "guest-ram.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct Mapping {
    void *memory;
    uint64_t length;
} Mapping;

/* A length may come from another host, so it is refused before this host runs out of memory. */
static bool fits(const GuestRam *ram, uint64_t length)
{
    uint64_t physical = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t used = vmf_ram_blocks_total(ram->blocks);

    return used <= physical && length <= physical - used;
}

static void *allocate(void *opaque, const char *name, uint64_t length, GError **error)
{
    GuestRam *ram = opaque;
    Mapping mapping = {.length = length};

    if (!fits(ram, length)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM block \"%s\" with %" G_GUINT64_FORMAT
                    " MiB: with it the guest has more RAM than this host",
                    name, length >> 20);
        return NULL;
    }
    mapping.memory = mmap(NULL, length, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping.memory == MAP_FAILED) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO,
                    "no memory for RAM block \"%s\" of %" G_GUINT64_FORMAT " bytes: %s", name,
                    length, g_strerror(errno));
        return NULL;
    }
    g_array_append_val(ram->mappings, mapping);
    return mapping.memory;
}

void guest_ram_init(GuestRam *ram)
{
    ram->blocks = vmf_ram_blocks_new();
    ram->mappings = g_array_new(FALSE, FALSE, sizeof(Mapping));
    vmf_ram_blocks_set_allocator(ram->blocks, allocate, ram);
}

void guest_ram_clear(GuestRam *ram)
{
    for (unsigned i = 0; i < ram->mappings->len; i++) {
        const Mapping *mapping = &g_array_index(ram->mappings, Mapping, i);

        munmap(mapping->memory, mapping->length);
    }
    g_array_unref(ram->mappings);
    vmf_ram_blocks_unref(ram->blocks);
}

const VmfRamBlock *guest_ram_add(GuestRam *ram, const char *name, uint64_t length,
                                 uint32_t page_size, GError **error)
{
    void *memory = allocate(ram, name, length, error);

    return memory ? vmf_ram_blocks_add(ram->blocks, name, memory, length, page_size, error) : NULL;
}
