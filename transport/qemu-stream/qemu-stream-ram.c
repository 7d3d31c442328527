/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-stream-ram.c -- the content of RAM's sections in QEMU's stream */

#include <string.h>
#include <vmferry/plugin/bytes.h>
#include <vmferry/error.h>

#include "qemu-stream-states.h"

#define MAPPED_RAM_HINT                                                                            \
    "(a file of the capability mapped-ram?): switch mapped-ram off in the QEMU that saves, and "   \
    "save by exec:cat>FILE or vmferry receive"

static bool is_text(const uint8_t *name, size_t size)
{
    return size > 0 && !memchr(name, '\0', size);
}

static bool blocks_begin(VmfQemuStream *q, uint64_t total, GError **error)
{
    if (q->section != VMF_QEMU_SECTION_START || q->blocks_complete || q->blocks->len) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "a second list of RAM blocks");
    }
    q->blocks_left = total;
    q->blocks_complete = total == 0;
    qemu_stream_await(q, total ? STATE_BLOCK_LENGTH : STATE_WORD, total ? 1 : 8);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_BLOCKS, 0, error);
}

static bool hook(VmfQemuStream *q, GError **error)
{
    q->at_hook = true;
    qemu_stream_await(q, STATE_WORD, 8);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_HOOK, 0, error);
}

static bool end_of_section(VmfQemuStream *q, GError **error)
{
    q->ram_ended = q->section == VMF_QEMU_SECTION_END;
    q->footer_may_come = true;
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_EOS, 0, error);
}

static bool page_of_block(VmfQemuStream *q, GError **error)
{
    const uint64_t offset = q->word & ~(uint64_t)VMF_QEMU_RAM_FLAGS;
    const VmfQemuBlock *block = &g_array_index(q->blocks, VmfQemuBlock, q->block);

    if (offset & (q->page_bytes - 1) || offset >= block->length) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error,
                               "a page at 0x%" G_GINT64_MODIFIER
                               "x of RAM block \"%s\", which has 0x%" G_GINT64_MODIFIER "x bytes",
                               offset, block->name, block->length);
    }
    /* That holds for a zero page, too: it brings no bytes, but a whole page is set to zero. */
    if (q->page_bytes > block->length - offset) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error,
                               "a page of %u bytes beyond the end of RAM block \"%s\"",
                               q->page_bytes, block->name);
    }
    if (q->word & VMF_QEMU_RAM_ZERO) {
        qemu_stream_await(q, STATE_ZERO_VALUE, q->have + 1);
        return true;
    }
    qemu_stream_await(q, STATE_DATA, 0);
    q->data_left = q->page_bytes;
    return qemu_stream_emit(q, VMF_QEMU_ITEM_PAGE, offset, error);
}

bool qemu_ram_word(VmfQemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field, 8);
    unsigned flags;

    q->word = vmf_read_be64(&r);
    flags = q->word & VMF_QEMU_RAM_FLAGS;
    switch (flags & ~(unsigned)VMF_QEMU_RAM_CONTINUE) {
    case VMF_QEMU_RAM_MEM_SIZE:
        return blocks_begin(q, q->word & ~(uint64_t)VMF_QEMU_RAM_FLAGS, error);
    case VMF_QEMU_RAM_HOOK:
        return hook(q, error);
    case VMF_QEMU_RAM_EOS:
        return end_of_section(q, error);
    case VMF_QEMU_RAM_ZERO:
    case VMF_QEMU_RAM_PAGE:
        break;
    case 0: /* mapped-ram puts a table after each block of the list */
        return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error,
                               "a record of RAM without flags " MAPPED_RAM_HINT);
    default:
        return qemu_stream_bad(
            q, VMF_ERROR_UNSUPPORTED, error,
            "a record of RAM with flags 0x%x, which this cannot read: switch the capabilities "
            "compress, xbzrle and multifd off in the QEMU that migrates, and migrate again",
            flags);
    }
    if (!(flags & VMF_QEMU_RAM_CONTINUE)) {
        qemu_stream_await(q, STATE_PAGE_NAME_LENGTH, 9);
        return true;
    }
    if (!q->block_known) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "a page of no block");
    }
    return page_of_block(q, error);
}

bool qemu_ram_block_length(VmfQemuStream *q, GError **error)
{
    if (q->field[0] == 0) {
        return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error,
                               "a RAM block without a name " MAPPED_RAM_HINT);
    }
    qemu_stream_await(q, STATE_BLOCK, 1 + q->field[0] + 8u);
    return true;
}

bool qemu_ram_block(VmfQemuStream *q, GError **error)
{
    VmfQemuBlock entry = {0};
    size_t length = q->field[0];
    VmfReader r = vmf_reader(q->field + 1 + length, 8);

    entry.length = vmf_read_be64(&r);
    if (!is_text(q->field + 1, length)) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "the name of a RAM block is not text");
    }
    memcpy(entry.name, q->field + 1, length);
    if (entry.length == 0 || entry.length > q->blocks_left ||
        q->blocks->len == VMF_RAM_BLOCKS_MAX) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error,
                               "RAM block \"%s\" has 0x%" G_GINT64_MODIFIER
                               "x bytes, 0x%" G_GINT64_MODIFIER
                               "x are left for it and those after it",
                               entry.name, entry.length, q->blocks_left);
    }
    g_array_append_val(q->blocks, entry);
    q->blocks_left -= entry.length;
    q->blocks_complete = q->blocks_left == 0;
    qemu_stream_await(q, q->blocks_left ? STATE_BLOCK_LENGTH : STATE_WORD, q->blocks_left ? 1 : 8);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_BLOCKS, 0, error);
}

bool qemu_ram_page_name_length(VmfQemuStream *q, GError **error)
{
    if (q->field[8] == 0) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "a page of a block without a name");
    }
    qemu_stream_await(q, STATE_PAGE_NAME, 9 + q->field[8]);
    return true;
}

bool qemu_ram_page_name(VmfQemuStream *q, GError **error)
{
    g_autofree char *name = g_strndup((const char *)q->field + 9, q->field[8]);

    for (unsigned i = 0; i < q->blocks->len; i++) {
        if (g_str_equal(g_array_index(q->blocks, VmfQemuBlock, i).name, name)) {
            q->block = i;
            q->block_known = true;
            return page_of_block(q, error);
        }
    }
    return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error,
                           "a page of RAM block \"%s\", which is not listed", name);
}

bool qemu_ram_zero_value(VmfQemuStream *q, GError **error)
{
    unsigned value = q->field[q->have - 1];

    if (value) {
        return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error, "a page filled with 0x%02x", value);
    }
    qemu_stream_await(q, STATE_WORD, 8);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_ZERO, q->word & ~(uint64_t)VMF_QEMU_RAM_FLAGS, error);
}
