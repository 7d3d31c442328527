/* SPDX-License-Identifier: BSD-2-Clause */
/* elf-program.h -- what the file of a program says: its machine, and the libraries it needs */

#ifndef VMF_ELF_PROGRAM_H
#define VMF_ELF_PROGRAM_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum ElfKind {
    ELF_NONE,    /* no ELF file, or a broken one */
    ELF_SCRIPT,  /* begins with #! */
    ELF_FOREIGN, /* of another class or byte order than this program */
    ELF_STATIC,  /* nothing loads libraries for it */
    ELF_DYNAMIC, /* a program that has a loader */
    ELF_LIBRARY, /* a shared object without a loader */
} ElfKind;

typedef struct ElfProgram {
    ElfKind kind;
    unsigned machine; /* e_machine */
    const unsigned char *data;
    size_t size;
    const char *names; /* NUL ends the last one */
    size_t names_size;
    size_t dynamic, dynamic_count; /* offset and number of entries */
} ElfProgram;

/* Maps the open file. false with errno: it cannot be read. */
bool elf_program_open(ElfProgram *program, int fd);
/* Whether it names a library whose name begins so. Of ELF_DYNAMIC and ELF_LIBRARY. */
bool elf_program_needs(const ElfProgram *program, const char *prefix);
void elf_program_close(ElfProgram *program);

#endif
