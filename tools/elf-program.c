/* SPDX-License-Identifier: BSD-2-Clause */
/* elf-program.c -- what the file of a program says: its machine, and the libraries it needs */

#include "elf-program.h"

#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define OWN_DATA ELFDATA2LSB
#else
#define OWN_DATA ELFDATA2MSB
#endif
#define OWN_CLASS (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32)

/* The file may be anything, so every place in it is checked. The copy is aligned. */
static bool take(const ElfProgram *program, size_t at, void *to, size_t size)
{
    if (at > program->size || size > program->size - at) {
        return false;
    }
    memcpy(to, program->data + at, size);
    return true;
}

static bool header_of(const ElfProgram *program, const ElfW(Ehdr) * header, unsigned i,
                      ElfW(Phdr) * found)
{
    return header->e_phentsize == sizeof(*found) &&
           take(program, header->e_phoff + (size_t)i * sizeof(*found), found, sizeof(*found));
}

/* Where in the file an address of the program lies. */
static bool offset_of(const ElfProgram *program, const ElfW(Ehdr) * header, ElfW(Addr) address,
                      size_t *offset)
{
    ElfW(Phdr) part;

    for (unsigned i = 0; i < header->e_phnum && header_of(program, header, i, &part); i++) {
        if (part.p_type == PT_LOAD && address >= part.p_vaddr &&
            address - part.p_vaddr < part.p_filesz) {
            *offset = part.p_offset + (address - part.p_vaddr);
            return *offset < program->size;
        }
    }
    return false;
}

static void find_names(ElfProgram *program, const ElfW(Ehdr) * header)
{
    ElfW(Addr) address = 0;
    ElfW(Dyn) entry;
    size_t at, size = 0;

    for (size_t i = 0; i < program->dynamic_count; i++) {
        if (!take(program, program->dynamic + i * sizeof(entry), &entry, sizeof(entry)) ||
            entry.d_tag == DT_NULL) {
            program->dynamic_count = i;
            break;
        }
        if (entry.d_tag == DT_STRTAB) {
            address = entry.d_un.d_ptr;
        } else if (entry.d_tag == DT_STRSZ) {
            size = entry.d_un.d_val;
        }
    }
    if (!size || !offset_of(program, header, address, &at) || size > program->size - at ||
        program->data[at + size - 1]) {
        program->dynamic_count = 0;
        return;
    }
    program->names = (const char *)program->data + at;
    program->names_size = size;
}

static ElfKind kind_of(ElfProgram *program)
{
    bool has_loader = false, has_dynamic = false;
    ElfW(Ehdr) header;
    ElfW(Phdr) part;

    if (program->size >= 2 && !memcmp(program->data, "#!", 2)) {
        return ELF_SCRIPT;
    }
    if (program->size < EI_NIDENT || memcmp(program->data, ELFMAG, SELFMAG) != 0) {
        return ELF_NONE;
    }
    if (program->data[EI_CLASS] != OWN_CLASS || program->data[EI_DATA] != OWN_DATA) {
        return ELF_FOREIGN;
    }
    if (!take(program, 0, &header, sizeof(header)) ||
        (header.e_type != ET_EXEC && header.e_type != ET_DYN)) {
        return ELF_NONE;
    }
    program->machine = header.e_machine;
    for (unsigned i = 0; i < header.e_phnum; i++) {
        if (!header_of(program, &header, i, &part)) {
            return ELF_NONE;
        }
        has_loader = has_loader || part.p_type == PT_INTERP;
        if (part.p_type == PT_DYNAMIC) {
            has_dynamic = true;
            program->dynamic = part.p_offset;
            program->dynamic_count = part.p_filesz / sizeof(ElfW(Dyn));
        }
    }
    if (has_dynamic) {
        find_names(program, &header);
    }
    if (has_loader) {
        return ELF_DYNAMIC;
    }
    /* A static program may have a dynamic section, and needs nothing. */
    return program->dynamic_count && elf_program_needs(program, "") ? ELF_LIBRARY : ELF_STATIC;
}

bool elf_program_open(ElfProgram *program, int fd)
{
    struct stat status;
    void *data;

    *program = (ElfProgram){0};
    if (fstat(fd, &status) < 0) {
        return false;
    }
    if (status.st_size <= 0) {
        return true;
    }
    data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        return false;
    }
    program->data = data;
    program->size = (size_t)status.st_size;
    program->kind = kind_of(program);
    return true;
}

bool elf_program_needs(const ElfProgram *program, const char *prefix)
{
    ElfW(Dyn) entry;

    for (size_t i = 0; i < program->dynamic_count; i++) {
        if (take(program, program->dynamic + i * sizeof(entry), &entry, sizeof(entry)) &&
            entry.d_tag == DT_NEEDED && entry.d_un.d_val < program->names_size &&
            !strncmp(program->names + entry.d_un.d_val, prefix, strlen(prefix))) {
            return true;
        }
    }
    return false;
}

void elf_program_close(ElfProgram *program)
{
    if (program->data) {
        munmap((void *)program->data, program->size);
    }
    *program = (ElfProgram){0};
}
