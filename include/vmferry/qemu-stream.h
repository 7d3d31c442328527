/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-stream.h -- following QEMU's migration stream, as far as it describes itself */

#ifndef VMFERRY_QEMU_STREAM_H
#define VMFERRY_QEMU_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <glib.h>
#include <vmferry/error.h>
#include <vmferry/ram.h>

G_BEGIN_DECLS

/*
 * What a VMM needs that reads or writes files and streams of QEMU's, file version 3. The stream
 * begins with magic and version. Then come the configuration, commands and sections, each after a
 * byte that says what it is. Only sections of RAM say where they end. Sections of devices do not,
 * so everything after the end of RAM is opaque:
 *
 *   be32 magic, be32 version
 *   0x07  be32 length, machine name; any number of subsections
 *         (0x05, counted name, be32 version, content)
 *   0x08  be16 command, be16 length, content
 *   0x01  (start), 0x02 (part), 0x03 (end): be32 section id; a start goes on with
 *         counted name, be32 instance, be32 version; then the content; then,
 *         except for old machine types, a footer: 0x7e, be32 section id
 *
 * The content of RAM is a row of be64 words: addresses with flags in their low bits, which are
 * VMF_QEMU_RAM_*. Source: QEMU, migration/savevm.c and migration/ram.c.
 */
#define VMF_QEMU_STREAM_MAGIC 0x5145564du /* "QEVM" */
#define VMF_QEMU_STREAM_VERSION 3

#define VMF_QEMU_SECTION_EOF 0x00
#define VMF_QEMU_SECTION_START 0x01
#define VMF_QEMU_SECTION_PART 0x02
#define VMF_QEMU_SECTION_END 0x03
#define VMF_QEMU_SECTION_FULL 0x04
#define VMF_QEMU_SECTION_SUBSECTION 0x05
#define VMF_QEMU_SECTION_VMDESC 0x06
#define VMF_QEMU_SECTION_CONFIGURATION 0x07
#define VMF_QEMU_SECTION_COMMAND 0x08
#define VMF_QEMU_SECTION_FOOTER 0x7e

#define VMF_QEMU_RAM_VERSION 4
#define VMF_QEMU_RAM_ZERO 0x02     /* [name], u8 value: a page filled with that value */
#define VMF_QEMU_RAM_MEM_SIZE 0x04 /* blocks, as many as make up the address: name, be64 length */
#define VMF_QEMU_RAM_PAGE 0x08     /* [name], a page */
#define VMF_QEMU_RAM_EOS 0x10      /* the end of the section's content */
#define VMF_QEMU_RAM_CONTINUE 0x20 /* of the same block as the page before: there is no name */
#define VMF_QEMU_RAM_HOOK 0x80     /* RAM goes another way now (RDMA) */
#define VMF_QEMU_RAM_FLAGS 0x3ffu
#define VMF_QEMU_PAGE_BYTES 4096u /* unless the configuration says otherwise */

/* What the stream consists of, as it is handed to VmfQemuItemFunc. */
typedef enum {
    VMF_QEMU_ITEM_HEADER,        /* magic and version */
    VMF_QEMU_ITEM_CONFIGURATION, /* any part of the configuration */
    VMF_QEMU_ITEM_COMMAND,       /* any part of a command */
    VMF_QEMU_ITEM_SECTION,       /* what comes before the content of a section of RAM */
    VMF_QEMU_ITEM_BLOCKS,        /* any part of the list of RAM blocks */
    VMF_QEMU_ITEM_HOOK,          /* RAM goes another way from here on (RDMA) */
    VMF_QEMU_ITEM_PAGE,          /* the whole record of a page, without the page itself */
    VMF_QEMU_ITEM_DATA,          /* bytes of that page */
    VMF_QEMU_ITEM_ZERO,          /* a page that is zero */
    VMF_QEMU_ITEM_EOS,           /* the end of a section's content */
    VMF_QEMU_ITEM_FOOTER,        /* a section's footer */
    VMF_QEMU_ITEM_OPAQUE         /* anything after the end of RAM */
} VmfQemuItemKind;

/* One item. The library makes it; members may be added at its end. */
typedef struct VmfQemuItem {
    VmfQemuItemKind kind;
    const uint8_t *raw; /* its bytes in the stream; valid until the function returns */
    size_t size;        /* how many */
    unsigned section;   /* its section of RAM: VMF_QEMU_SECTION_START, _PART or _END */
    /* PAGE, DATA, ZERO: the number of the block in the list, and the offset of the bytes in it. */
    unsigned block;
    uint64_t offset;
} VmfQemuItem;

/* A RAM block as the stream lists it. */
typedef struct VmfQemuBlock {
    char name[VMF_RAM_NAME_MAX + 1];
    uint64_t length; /* bytes */
} VmfQemuBlock;

/* A stream that is being followed. It belongs to one thread at a time. */
typedef struct VmfQemuStream VmfQemuStream;

/* Is given every item, in order. false with *error set ends the scan. */
typedef bool (*VmfQemuItemFunc)(void *opaque, const VmfQemuItem *item, GError **error);

/* The caller frees it by vmf_qemu_stream_free(), which allows NULL. Never NULL. */
VMF_API VmfQemuStream *vmf_qemu_stream_new(VmfQemuItemFunc item, void *opaque);
VMF_API void vmf_qemu_stream_free(VmfQemuStream *stream);

/*
 * Takes the next bytes of the stream, however they are cut. With `to_hook' it stops after a hook.
 * Returns how many bytes it took, or -1 with an error that names section and offset:
 * VMF_ERROR_PROTOCOL for what is damaged or not QEMU's, VMF_ERROR_UNSUPPORTED for what this cannot
 * follow. After an error the stream can only be freed. Nothing in the stream is trusted: names,
 * lengths and offsets are checked before an item has them. Memory grows with the list of blocks
 * alone, as its bytes come.
 */
VMF_API ssize_t vmf_qemu_stream_scan(VmfQemuStream *stream, const uint8_t *data, size_t size,
                                     bool to_hook, GError **error);

/* Bytes taken so far. */
VMF_API uint64_t vmf_qemu_stream_position(const VmfQemuStream *stream);
/* The number of blocks listed so far, and one of them (NULL: there is no such number). */
VMF_API unsigned vmf_qemu_stream_block_count(const VmfQemuStream *stream);
VMF_API const VmfQemuBlock *vmf_qemu_stream_block(const VmfQemuStream *stream, unsigned number);
/* Whether the list of blocks has come as a whole. */
VMF_API bool vmf_qemu_stream_blocks_complete(const VmfQemuStream *stream);
/* Whether the last thing taken was a hook. */
VMF_API bool vmf_qemu_stream_at_hook(const VmfQemuStream *stream);
/* Whether RAM has ended. Everything after it is opaque. */
VMF_API bool vmf_qemu_stream_ram_ended(const VmfQemuStream *stream);
/* What should come next, for an error about a stream that ends too early. A static text. */
VMF_API const char *vmf_qemu_stream_awaits(const VmfQemuStream *stream);
/* Bytes of a page of the guest. */
VMF_API uint32_t vmf_qemu_stream_page_bytes(const VmfQemuStream *stream);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfQemuStream, vmf_qemu_stream_free)

G_END_DECLS

#endif
