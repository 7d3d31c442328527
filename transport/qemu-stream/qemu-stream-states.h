/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-stream-states.h -- the inside of VmfQemuStream: its states, and what they share */

#ifndef VMF_QEMU_STREAM_STATES_H
#define VMF_QEMU_STREAM_STATES_H

#include <vmferry/qemu-stream.h>

/*
 * A state waits until `field' has `need' bytes; then its function is called. STATE_DATA and
 * STATE_OPAQUE have none, because they take bytes as they come.
 */
typedef enum {
    STATE_HEADER,
    STATE_TYPE,
    STATE_CONFIGURATION_LENGTH,
    STATE_CONFIGURATION_NAME,
    STATE_SUBSECTION_LENGTH,
    STATE_SUBSECTION_NAME,
    STATE_PAGE_BITS,
    STATE_CAPABILITIES,
    STATE_CAPABILITY_LENGTH,
    STATE_CAPABILITY,
    STATE_UUID,
    STATE_COMMAND,
    STATE_COMMAND_DATA,
    STATE_SECTION_ID,
    STATE_SECTION_LENGTH,
    STATE_SECTION_NAME,
    STATE_WORD,
    STATE_BLOCK_LENGTH,
    STATE_BLOCK,
    STATE_PAGE_NAME_LENGTH,
    STATE_PAGE_NAME,
    STATE_ZERO_VALUE,
    STATE_DATA,
    STATE_FOOTER_ID,
    STATE_OPAQUE
} State;

#define FIELD_MAX 1024

struct VmfQemuStream {
    VmfQemuItemFunc item;
    void *opaque;
    uint64_t position; /* of the next byte */
    State state;
    uint8_t field[FIELD_MAX];
    size_t have, need;

    bool configured;
    unsigned capabilities_left, command_left;
    unsigned section; /* VMF_QEMU_SECTION_* */
    uint32_t section_id, ram_id;
    bool ram_started, ram_ended, footer_may_come, at_hook;

    GArray *blocks; /* of VmfQemuBlock */
    uint64_t blocks_left;
    bool blocks_complete;

    uint32_t page_bytes;
    uint64_t word;
    unsigned block; /* the last page's block */
    bool block_known;
    uint32_t data_left;
};

/* Sets *error, which says what is wrong and where. Always returns false. */
bool qemu_stream_bad(VmfQemuStream *q, int code, GError **error, const char *format, ...)
    G_GNUC_PRINTF(4, 5);
/* Hands the gathered field on as an item, or as part of one. */
bool qemu_stream_emit(VmfQemuStream *q, VmfQemuItemKind kind, uint64_t offset, GError **error);

static inline void qemu_stream_await(VmfQemuStream *q, State state, size_t need)
{
    q->state = state;
    q->need = need;
}

/* --- qemu-stream-ram.c: the content of RAM --- */
bool qemu_ram_word(VmfQemuStream *q, GError **error);
bool qemu_ram_block_length(VmfQemuStream *q, GError **error);
bool qemu_ram_block(VmfQemuStream *q, GError **error);
bool qemu_ram_page_name_length(VmfQemuStream *q, GError **error);
bool qemu_ram_page_name(VmfQemuStream *q, GError **error);
bool qemu_ram_zero_value(VmfQemuStream *q, GError **error);

#endif
