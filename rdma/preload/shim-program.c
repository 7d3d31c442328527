/* SPDX-License-Identifier: BSD-2-Clause */
/* shim-program.c -- where the main program lies, which tells its calls from those of libraries */

#include "shim.h"

#include <link.h>

typedef struct Segments {
    uintptr_t first, end;
} Segments;

/* The main program comes first. */
static int main_segments(struct dl_phdr_info *info, size_t size, void *data)
{
    Segments *segments = data;

    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        const uintptr_t first = info->dlpi_addr + header->p_vaddr;

        if (header->p_type != PT_LOAD) {
            continue;
        }
        if (first < segments->first) {
            segments->first = first;
        }
        if (first + header->p_memsz > segments->end) {
            segments->end = first + header->p_memsz;
        }
    }
    return 1;
}

/* Fixed after the library's start: the loader's lock must not be taken where memory is given back.
 */
static Segments program = {.first = UINTPTR_MAX};

__attribute__((constructor)) static void find_program(void)
{
    dl_iterate_phdr(main_segments, &program);
}

bool shim_called_by_program(const void *address)
{
    return (uintptr_t)address >= program.first && (uintptr_t)address < program.end;
}
