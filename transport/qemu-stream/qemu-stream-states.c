/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-stream-states.c -- what is known of a followed stream, and what its states share */

#include <vmferry/error.h>

#include "qemu-stream-states.h"

static const char *const awaited[] = {
    [STATE_HEADER] = "the header",
    [STATE_TYPE] = "a section",
    [STATE_CONFIGURATION_LENGTH] = "the configuration",
    [STATE_CONFIGURATION_NAME] = "the machine's name",
    [STATE_SUBSECTION_LENGTH] = "a subsection of the configuration",
    [STATE_SUBSECTION_NAME] = "a subsection of the configuration",
    [STATE_PAGE_BITS] = "the page size",
    [STATE_CAPABILITIES] = "the capabilities",
    [STATE_CAPABILITY_LENGTH] = "a capability",
    [STATE_CAPABILITY] = "a capability",
    [STATE_UUID] = "the UUID",
    [STATE_COMMAND] = "a command",
    [STATE_COMMAND_DATA] = "a command",
    [STATE_SECTION_ID] = "a section's number",
    [STATE_SECTION_LENGTH] = "a section's name",
    [STATE_SECTION_NAME] = "a section's name",
    [STATE_WORD] = "a record of RAM",
    [STATE_BLOCK_LENGTH] = "the list of RAM blocks",
    [STATE_BLOCK] = "the list of RAM blocks",
    [STATE_PAGE_NAME_LENGTH] = "the name of a page's block",
    [STATE_PAGE_NAME] = "the name of a page's block",
    [STATE_ZERO_VALUE] = "the value of a page",
    [STATE_DATA] = "a page",
    [STATE_FOOTER_ID] = "a section's footer",
    [STATE_OPAQUE] = "device state",
};

VmfQemuStream *vmf_qemu_stream_new(VmfQemuItemFunc item, void *opaque)
{
    VmfQemuStream *q = g_new0(VmfQemuStream, 1);

    q->item = item;
    q->opaque = opaque;
    q->state = STATE_HEADER;
    q->need = 8;
    q->page_bytes = VMF_QEMU_PAGE_BYTES;
    q->blocks = g_array_new(FALSE, TRUE, sizeof(VmfQemuBlock));
    return q;
}

void vmf_qemu_stream_free(VmfQemuStream *q)
{
    if (q) {
        g_array_unref(q->blocks);
        g_free(q);
    }
}

uint64_t vmf_qemu_stream_position(const VmfQemuStream *q)
{
    return q->position;
}

unsigned vmf_qemu_stream_block_count(const VmfQemuStream *q)
{
    return q->blocks->len;
}

const VmfQemuBlock *vmf_qemu_stream_block(const VmfQemuStream *q, unsigned number)
{
    return number < q->blocks->len ? &g_array_index(q->blocks, VmfQemuBlock, number) : NULL;
}

bool vmf_qemu_stream_blocks_complete(const VmfQemuStream *q)
{
    return q->blocks_complete;
}

bool vmf_qemu_stream_at_hook(const VmfQemuStream *q)
{
    return q->at_hook;
}

bool vmf_qemu_stream_ram_ended(const VmfQemuStream *q)
{
    return q->ram_ended;
}

const char *vmf_qemu_stream_awaits(const VmfQemuStream *q)
{
    return awaited[q->state];
}

uint32_t vmf_qemu_stream_page_bytes(const VmfQemuStream *q)
{
    return q->page_bytes;
}

/* --- helpers of the states --- */

bool qemu_stream_bad(VmfQemuStream *q, int code, GError **error, const char *format, ...)
{
    va_list args;
    g_autofree char *text = NULL;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(error, VMF_ERROR, code,
                "QEMU's stream, in %s before offset %" G_GUINT64_FORMAT ": %s", awaited[q->state],
                q->position, text);
    return false;
}

bool qemu_stream_emit(VmfQemuStream *q, VmfQemuItemKind kind, uint64_t offset, GError **error)
{
    const VmfQemuItem item = {.kind = kind,
                              .raw = q->field,
                              .size = q->have,
                              .section = q->section,
                              .block = q->block,
                              .offset = offset};

    q->have = 0;
    return q->item(q->opaque, &item, error);
}
