/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-stream.h -- QEMU's migration stream, file version 3, as far as it describes itself */

#ifndef VMF_QEMU_STREAM_H
#define VMF_QEMU_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vmferry/ram.h>

/*
 * The stream begins with magic and version, then come, each behind a byte that
 * says what it is: the configuration, commands, and sections. Sections of the
 * VM's devices say nothing about their own length, so only RAM's can be
 * followed, and what comes behind the end of RAM is opaque:
 *
 *   be32 magic, be32 version
 *   0x07  be32 length, machine name; any number of subsections
 *         (0x05, counted name, be32 version, content)
 *   0x08  be16 command, be16 length, content
 *   0x01  (start), 0x02 (part), 0x03 (end): be32 section id; a start goes on with
 *         counted name, be32 instance, be32 version; then the content; then,
 *         but for old machine types, a footer: 0x7e, be32 section id
 *
 * RAM's content is a row of be64 words, addresses with flags in their low bits:
 * QEMU_RAM_*. (QEMU: migration/savevm.c, migration/ram.c)
 */
#define QEMU_STREAM_MAGIC 0x5145564du /* "QEVM" */
#define QEMU_STREAM_VERSION 3

#define QEMU_SECTION_EOF 0x00
#define QEMU_SECTION_START 0x01
#define QEMU_SECTION_PART 0x02
#define QEMU_SECTION_END 0x03
#define QEMU_SECTION_FULL 0x04
#define QEMU_SECTION_SUBSECTION 0x05
#define QEMU_SECTION_VMDESC 0x06
#define QEMU_SECTION_CONFIGURATION 0x07
#define QEMU_SECTION_COMMAND 0x08
#define QEMU_SECTION_FOOTER 0x7e

#define QEMU_RAM_VERSION 4
#define QEMU_RAM_ZERO 0x02     /* [name], u8 value: a page of that value */
#define QEMU_RAM_MEM_SIZE 0x04 /* blocks, as many as make up the address: name, be64 length */
#define QEMU_RAM_PAGE 0x08     /* [name], a page */
#define QEMU_RAM_EOS 0x10      /* the end of the section's content */
#define QEMU_RAM_CONTINUE 0x20 /* of the same block as the page before: there is no name */
#define QEMU_RAM_HOOK 0x80     /* RAM goes another way now (RDMA) */
#define QEMU_RAM_FLAGS 0x3ffu
#define QEMU_PAGE_BYTES 4096u /* unless the configuration says otherwise */

typedef enum {
    QEMU_ITEM_HEADER,        /* magic and version */
    QEMU_ITEM_CONFIGURATION, /* any part of it */
    QEMU_ITEM_COMMAND,       /* any part of one */
    QEMU_ITEM_SECTION,       /* what comes before the content of a section of RAM */
    QEMU_ITEM_BLOCKS,        /* any part of the list of RAM blocks */
    QEMU_ITEM_HOOK,
    QEMU_ITEM_PAGE, /* the whole record of a page, but for the page itself */
    QEMU_ITEM_DATA, /* bytes of that page */
    QEMU_ITEM_ZERO, /* a page that is zero */
    QEMU_ITEM_EOS,
    QEMU_ITEM_FOOTER,
    QEMU_ITEM_OPAQUE
} QemuItemKind;

typedef struct QemuItem {
    QemuItemKind kind;
    const uint8_t *raw; /* its bytes in the stream */
    size_t size;
    unsigned section; /* the section of RAM it belongs to: QEMU_SECTION_START, _PART or _END */
    /* PAGE, DATA, ZERO: where the page, or these bytes of it, belong. */
    unsigned block;
    uint64_t offset;
} QemuItem;

typedef struct QemuBlock {
    char name[VMF_RAM_NAME_MAX + 1];
    uint64_t length;
} QemuBlock;

typedef struct QemuStream QemuStream;

/* Is given every item; false with *error ends the scan. */
typedef bool (*QemuItemFunc)(void *opaque, const QemuItem *item, GError **error);

QemuStream *qemu_stream_new(QemuItemFunc item, void *opaque);
void qemu_stream_free(QemuStream *stream);

/*
 * Takes the next bytes of the stream, however it is cut. With `to_hook' it
 * stops behind a hook. Returns how many it took, or -1 with an error that names
 * section and offset: VMF_ERROR_PROTOCOL for what is damaged or foreign,
 * VMF_ERROR_UNSUPPORTED for what this cannot follow.
 */
ssize_t qemu_stream_scan(QemuStream *stream, const uint8_t *data, size_t size, bool to_hook,
                         GError **error);

uint64_t qemu_stream_position(const QemuStream *stream);
/* The blocks listed so far, of QemuBlock. */
const GArray *qemu_stream_blocks(const QemuStream *stream);
bool qemu_stream_blocks_complete(const QemuStream *stream);
/* Whether the last thing taken was a hook. */
bool qemu_stream_at_hook(const QemuStream *stream);
/* Whether RAM has ended: what follows is opaque. */
bool qemu_stream_ram_ended(const QemuStream *stream);
/* What is awaited there, for an error about a stream that ends too early. */
const char *qemu_stream_awaits(const QemuStream *stream);
/* Bytes of a page of the guest. */
uint32_t qemu_stream_page_bytes(const QemuStream *stream);

#endif
