/* SPDX-License-Identifier: BSD-2-Clause */
/* make-saved.c -- writes a small VM as QEMU saves it, or a bad one: make-saved FILE [KIND] */

#include <stdio.h>
#include <string.h>

#include "support/saved-vm.h"

#define PAGES 64

/* Pages of 1 MiB, and a block of 8 KiB, of which the first page is zero. */
static const char large_pages[] = "QEVM\0\0\0\3"
                                  "\7\0\0\0\2pc"
                                  "\5\36configuration/target-page-bits\0\0\0\1\0\0\0\24"
                                  "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4"
                                  "\0\0\0\0\0\0\40\4\6pc.ram\0\0\0\0\0\0\40\0"
                                  "\0\0\0\0\0\0\0\20"
                                  "\3\0\0\0\2"
                                  "\0\0\0\0\0\0\0\2\6pc.ram\0"
                                  "\0\0\0\0\0\0\0\20\0";

/* A table follows the block. */
static const char mapped_ram[] = "QEVM\0\0\0\3"
                                 "\7\0\0\0\2pc"
                                 "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4"
                                 "\0\0\0\0\0\0\40\4\6pc.ram\0\0\0\0\0\0\40\0"
                                 "\0\0\0\1\0\0\0\0\0\0\20\0\0\0\0\0\0\0\20\0";

int main(int argc, char **argv)
{
    const char *kind = argc > 2 ? argv[2] : "";
    g_autoptr(GByteArray) vm = saved_vm_new(PAGES, 7, TRUE, TRUE);
    g_autoptr(GError) error = NULL;
    const void *bytes = vm->data;
    size_t size = vm->len;

    if (argc < 2) {
        fprintf(stderr, "usage: make-saved FILE [large-pages|mapped-ram]\n");
        return 2;
    }
    if (strcmp(kind, "large-pages") == 0) {
        bytes = large_pages;
        size = sizeof(large_pages) - 1;
    } else if (strcmp(kind, "mapped-ram") == 0) {
        bytes = mapped_ram;
        size = sizeof(mapped_ram) - 1;
    }
    if (!g_file_set_contents(argv[1], bytes, (gssize)size, &error)) {
        fprintf(stderr, "make-saved: %s\n", error->message);
        return 1;
    }
    return 0;
}
