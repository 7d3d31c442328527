/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-stream.c -- following QEMU's migration stream up to the end of RAM */

#include <string.h>
#include <vmferry/plugin/bytes.h>
#include <vmferry/error.h>

#include "qemu-stream-states.h"

/* --- configuration and commands --- */

static bool header(VmfQemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field, 8);
    uint32_t magic = vmf_read_be32(&r), version = vmf_read_be32(&r);

    if (magic != VMF_QEMU_STREAM_MAGIC) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error,
                               "magic 0x%08x: this is no migration of QEMU's", magic);
    }
    if (version != VMF_QEMU_STREAM_VERSION) {
        return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error,
                               "version %u; this can read version %d", version,
                               VMF_QEMU_STREAM_VERSION);
    }
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_HEADER, 0, error);
}

static bool configuration_length(VmfQemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field + 1, 4);
    uint32_t length = vmf_read_be32(&r);

    if (length == 0 || length > 255) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "a machine's name of %u bytes",
                               length);
    }
    qemu_stream_await(q, STATE_CONFIGURATION_NAME, 5 + length);
    return true;
}

static bool configuration_name(VmfQemuStream *q, GError **error)
{
    q->configured = true;
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_CONFIGURATION, 0, error);
}

static bool subsection_length(VmfQemuStream *q, GError **error)
{
    if (q->field[1] == 0) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "a subsection without a name");
    }
    qemu_stream_await(q, STATE_SUBSECTION_NAME, 2 + q->field[1] + 4u);
    return true;
}

static bool subsection_name(VmfQemuStream *q, GError **error)
{
    static const struct {
        const char *name;
        State state;
        size_t bytes;
    } known[] = {
        {"configuration/target-page-bits", STATE_PAGE_BITS, 4},
        {"configuration/capabilities", STATE_CAPABILITIES, 4},
        {"configuration/uuid", STATE_UUID, 16},
    };
    g_autofree char *name = g_strndup((const char *)q->field + 2, q->field[1]);

    for (unsigned i = 0; i < G_N_ELEMENTS(known); i++) {
        if (g_str_equal(name, known[i].name)) {
            qemu_stream_await(q, known[i].state, known[i].bytes);
            return qemu_stream_emit(q, VMF_QEMU_ITEM_CONFIGURATION, 0, error);
        }
    }
    return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error,
                           "unknown subsection \"%s\": the stream is too new", name);
}

static bool page_bits(VmfQemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field, 4);
    uint32_t bits = vmf_read_be32(&r);

    if (bits < 10 || bits > 20) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "pages of 2^%u bytes", bits);
    }
    q->page_bytes = 1u << bits;
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_CONFIGURATION, 0, error);
}

static bool next_capability(VmfQemuStream *q)
{
    if (q->capabilities_left) {
        qemu_stream_await(q, STATE_CAPABILITY_LENGTH, 1);
    } else {
        qemu_stream_await(q, STATE_TYPE, 1);
    }
    return true;
}

static bool capabilities(VmfQemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field, 4);

    q->capabilities_left = vmf_read_be32(&r);
    if (q->capabilities_left > 1024) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "%u capabilities",
                               q->capabilities_left);
    }
    return next_capability(q) && qemu_stream_emit(q, VMF_QEMU_ITEM_CONFIGURATION, 0, error);
}

static bool capability_length(VmfQemuStream *q, GError **error)
{
    if (q->field[0] == 0) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "a capability without a name");
    }
    qemu_stream_await(q, STATE_CAPABILITY, 1 + q->field[0]);
    return true;
}

static bool capability(VmfQemuStream *q, GError **error)
{
    g_autofree char *name = g_strndup((const char *)q->field + 1, q->field[0]);

    if (g_str_equal(name, "x-ignore-shared") || g_str_equal(name, "mapped-ram")) {
        /* With these the list of blocks looks different. */
        return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error,
                               "capability \"%s\" is in use, and its RAM cannot be read by this: "
                               "switch it off in the QEMU that migrates, and migrate again",
                               name);
    }
    q->capabilities_left--;
    return next_capability(q) && qemu_stream_emit(q, VMF_QEMU_ITEM_CONFIGURATION, 0, error);
}

static bool uuid(VmfQemuStream *q, GError **error)
{
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_CONFIGURATION, 0, error);
}

static bool command(VmfQemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field + 3, 2);

    q->command_left = vmf_read_be16(&r);
    qemu_stream_await(q, q->command_left ? STATE_COMMAND_DATA : STATE_TYPE, 1);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_COMMAND, 0, error);
}

static bool command_data(VmfQemuStream *q, GError **error)
{
    q->command_left--;
    if (!q->command_left) {
        qemu_stream_await(q, STATE_TYPE, 1);
    }
    return qemu_stream_emit(q, VMF_QEMU_ITEM_COMMAND, 0, error);
}

/* --- sections --- */

static bool type(VmfQemuStream *q, GError **error)
{
    unsigned byte = q->field[0];

    if (q->footer_may_come) {
        q->footer_may_come = false;
        if (byte == VMF_QEMU_SECTION_FOOTER) {
            qemu_stream_await(q, STATE_FOOTER_ID, 5);
            return true;
        }
    }
    if (q->ram_ended) {
        q->state = STATE_OPAQUE;
        return qemu_stream_emit(q, VMF_QEMU_ITEM_OPAQUE, 0, error);
    }
    switch (byte) {
    case VMF_QEMU_SECTION_CONFIGURATION:
        qemu_stream_await(q, STATE_CONFIGURATION_LENGTH, 5);
        return true;
    case VMF_QEMU_SECTION_SUBSECTION:
        if (!q->configured) {
            break;
        }
        qemu_stream_await(q, STATE_SUBSECTION_LENGTH, 2);
        return true;
    case VMF_QEMU_SECTION_COMMAND:
        qemu_stream_await(q, STATE_COMMAND, 5);
        return true;
    case VMF_QEMU_SECTION_START:
    case VMF_QEMU_SECTION_PART:
    case VMF_QEMU_SECTION_END:
    case VMF_QEMU_SECTION_FULL:
        q->section = byte;
        qemu_stream_await(q, STATE_SECTION_ID, 5);
        return true;
    default:
        break;
    }
    return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "0x%02x, which is no section", byte);
}

static void begin_ram(VmfQemuStream *q)
{
    q->block_known = false;
    qemu_stream_await(q, STATE_WORD, 8);
}

static bool section_id(VmfQemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field + 1, 4);

    q->section_id = vmf_read_be32(&r);
    if (q->section == VMF_QEMU_SECTION_START || q->section == VMF_QEMU_SECTION_FULL) {
        qemu_stream_await(q, STATE_SECTION_LENGTH, 6);
        return true;
    }
    if (!q->ram_started || q->section_id != q->ram_id) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error,
                               "a part of section %u, which has not begun", q->section_id);
    }
    begin_ram(q);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_SECTION, 0, error);
}

static bool section_length(VmfQemuStream *q, GError **error)
{
    if (q->field[5] == 0) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "section %u has no name",
                               q->section_id);
    }
    qemu_stream_await(q, STATE_SECTION_NAME, 6 + q->field[5] + 8u);
    return true;
}

static bool section_name(VmfQemuStream *q, GError **error)
{
    const size_t length = q->field[5];
    VmfReader r = vmf_reader(q->field + 6 + length, 8);
    uint32_t instance = vmf_read_be32(&r), version = vmf_read_be32(&r);
    g_autofree char *name = g_strndup((const char *)q->field + 6, length);

    if (!g_str_equal(name, "ram") || q->section != VMF_QEMU_SECTION_START) {
        return qemu_stream_bad(
            q, VMF_ERROR_UNSUPPORTED, error,
            "section \"%s\" comes before the end of RAM: it says nothing about its length, "
            "and cannot be passed over (a device or disk that is migrated live?)",
            name);
    }
    if (q->ram_started || instance) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "a second section \"ram\"");
    }
    if (version != VMF_QEMU_RAM_VERSION) {
        return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error,
                               "section \"ram\" of version %u; this can read "
                               "version %d",
                               version, VMF_QEMU_RAM_VERSION);
    }
    q->ram_started = true;
    q->ram_id = q->section_id;
    begin_ram(q);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_SECTION, 0, error);
}

static bool footer_id(VmfQemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field + 1, 4);
    uint32_t id = vmf_read_be32(&r);

    if (id != q->ram_id) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error,
                               "the footer of section %u after section %u", id, q->ram_id);
    }
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, VMF_QEMU_ITEM_FOOTER, 0, error);
}

typedef bool (*StateFunc)(VmfQemuStream *q, GError **error);

static const StateFunc states[] = {
    [STATE_HEADER] = header,
    [STATE_TYPE] = type,
    [STATE_CONFIGURATION_LENGTH] = configuration_length,
    [STATE_CONFIGURATION_NAME] = configuration_name,
    [STATE_SUBSECTION_LENGTH] = subsection_length,
    [STATE_SUBSECTION_NAME] = subsection_name,
    [STATE_PAGE_BITS] = page_bits,
    [STATE_CAPABILITIES] = capabilities,
    [STATE_CAPABILITY_LENGTH] = capability_length,
    [STATE_CAPABILITY] = capability,
    [STATE_UUID] = uuid,
    [STATE_COMMAND] = command,
    [STATE_COMMAND_DATA] = command_data,
    [STATE_SECTION_ID] = section_id,
    [STATE_SECTION_LENGTH] = section_length,
    [STATE_SECTION_NAME] = section_name,
    [STATE_WORD] = qemu_ram_word,
    [STATE_BLOCK_LENGTH] = qemu_ram_block_length,
    [STATE_BLOCK] = qemu_ram_block,
    [STATE_PAGE_NAME_LENGTH] = qemu_ram_page_name_length,
    [STATE_PAGE_NAME] = qemu_ram_page_name,
    [STATE_ZERO_VALUE] = qemu_ram_zero_value,
    [STATE_FOOTER_ID] = footer_id,
};

/* --- scanning --- */

/* Hands on bytes as they come: those of a page, or those after the end of RAM. */
static ssize_t bulk(VmfQemuStream *q, const uint8_t *data, size_t size, GError **error)
{
    const bool is_page = q->state == STATE_DATA;
    const size_t take = is_page ? MIN(size, q->data_left) : size;
    const VmfQemuItem item = {
        .kind = is_page ? VMF_QEMU_ITEM_DATA : VMF_QEMU_ITEM_OPAQUE,
        .raw = data,
        .size = take,
        .section = q->section,
        .block = q->block,
        .offset = (q->word & ~(uint64_t)VMF_QEMU_RAM_FLAGS) + q->page_bytes - q->data_left,
    };

    if (!q->item(q->opaque, &item, error)) {
        return -1;
    }
    if (is_page) {
        q->data_left -= (uint32_t)take;
        if (!q->data_left) {
            qemu_stream_await(q, STATE_WORD, 8);
        }
    }
    return (ssize_t)take;
}

ssize_t vmf_qemu_stream_scan(VmfQemuStream *q, const uint8_t *data, size_t size, bool to_hook,
                             GError **error)
{
    size_t at = 0;

    while (at < size) {
        size_t part;

        q->at_hook = false;
        if (q->state == STATE_DATA || q->state == STATE_OPAQUE) {
            ssize_t taken = bulk(q, data + at, size - at, error);

            if (taken < 0) {
                return -1;
            }
            at += (size_t)taken;
            q->position += (size_t)taken;
            continue;
        }
        part = MIN(size - at, q->need - q->have);
        memcpy(q->field + q->have, data + at, part);
        q->have += part;
        q->position += part;
        at += part;
        if (q->have == q->need && !states[q->state](q, error)) {
            return -1;
        }
        if (q->at_hook && to_hook) {
            break;
        }
    }
    return (ssize_t)at;
}
