/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-stream.c -- following QEMU's migration stream up to the end of RAM */

#include <string.h>
#include <vmferry/plugin/bytes.h>
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

QemuStream *qemu_stream_new(QemuItemFunc item, void *opaque)
{
    QemuStream *q = g_new0(QemuStream, 1);

    q->item = item;
    q->opaque = opaque;
    q->state = STATE_HEADER;
    q->need = 8;
    q->page_bytes = QEMU_PAGE_BYTES;
    q->blocks = g_array_new(FALSE, TRUE, sizeof(QemuBlock));
    return q;
}

void qemu_stream_free(QemuStream *q)
{
    if (q) {
        g_array_unref(q->blocks);
        g_free(q);
    }
}

uint64_t qemu_stream_position(const QemuStream *q)
{
    return q->position;
}

const GArray *qemu_stream_blocks(const QemuStream *q)
{
    return q->blocks;
}

bool qemu_stream_blocks_complete(const QemuStream *q)
{
    return q->blocks_complete;
}

bool qemu_stream_at_hook(const QemuStream *q)
{
    return q->at_hook;
}

bool qemu_stream_ram_ended(const QemuStream *q)
{
    return q->ram_ended;
}

const char *qemu_stream_awaits(const QemuStream *q)
{
    return awaited[q->state];
}

uint32_t qemu_stream_page_bytes(const QemuStream *q)
{
    return q->page_bytes;
}

/* --- helpers of the states --- */

bool qemu_stream_bad(QemuStream *q, int code, GError **error, const char *format, ...)
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

bool qemu_stream_emit(QemuStream *q, QemuItemKind kind, uint64_t offset, GError **error)
{
    const QemuItem item = {.kind = kind,
                           .raw = q->field,
                           .size = q->have,
                           .section = q->section,
                           .block = q->block,
                           .offset = offset};

    q->have = 0;
    return q->item(q->opaque, &item, error);
}

/* --- configuration and commands --- */

static bool header(QemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field, 8);
    uint32_t magic = vmf_read_be32(&r), version = vmf_read_be32(&r);

    if (magic != QEMU_STREAM_MAGIC) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error,
                               "magic 0x%08x: this is no migration of QEMU's", magic);
    }
    if (version != QEMU_STREAM_VERSION) {
        return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error,
                               "version %u; this can read version %d", version,
                               QEMU_STREAM_VERSION);
    }
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, QEMU_ITEM_HEADER, 0, error);
}

static bool configuration_length(QemuStream *q, GError **error)
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

static bool configuration_name(QemuStream *q, GError **error)
{
    q->configured = true;
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, QEMU_ITEM_CONFIGURATION, 0, error);
}

static bool subsection_length(QemuStream *q, GError **error)
{
    if (q->field[1] == 0) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "a subsection without a name");
    }
    qemu_stream_await(q, STATE_SUBSECTION_NAME, 2 + q->field[1] + 4u);
    return true;
}

static bool subsection_name(QemuStream *q, GError **error)
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
            return qemu_stream_emit(q, QEMU_ITEM_CONFIGURATION, 0, error);
        }
    }
    return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error,
                           "unknown subsection \"%s\": the stream is too new", name);
}

static bool page_bits(QemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field, 4);
    uint32_t bits = vmf_read_be32(&r);

    if (bits < 10 || bits > 20) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "pages of 2^%u bytes", bits);
    }
    q->page_bytes = 1u << bits;
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, QEMU_ITEM_CONFIGURATION, 0, error);
}

static bool next_capability(QemuStream *q)
{
    if (q->capabilities_left) {
        qemu_stream_await(q, STATE_CAPABILITY_LENGTH, 1);
    } else {
        qemu_stream_await(q, STATE_TYPE, 1);
    }
    return true;
}

static bool capabilities(QemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field, 4);

    q->capabilities_left = vmf_read_be32(&r);
    if (q->capabilities_left > 1024) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "%u capabilities",
                               q->capabilities_left);
    }
    return next_capability(q) && qemu_stream_emit(q, QEMU_ITEM_CONFIGURATION, 0, error);
}

static bool capability_length(QemuStream *q, GError **error)
{
    if (q->field[0] == 0) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "a capability without a name");
    }
    qemu_stream_await(q, STATE_CAPABILITY, 1 + q->field[0]);
    return true;
}

static bool capability(QemuStream *q, GError **error)
{
    g_autofree char *name = g_strndup((const char *)q->field + 1, q->field[0]);

    if (g_str_equal(name, "x-ignore-shared") || g_str_equal(name, "mapped-ram")) {
        /* The list of blocks looks different. */
        return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error,
                               "capability \"%s\" is in use, and its RAM cannot be read by this: "
                               "switch it off in the QEMU that migrates, and migrate again",
                               name);
    }
    q->capabilities_left--;
    return next_capability(q) && qemu_stream_emit(q, QEMU_ITEM_CONFIGURATION, 0, error);
}

static bool uuid(QemuStream *q, GError **error)
{
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, QEMU_ITEM_CONFIGURATION, 0, error);
}

static bool command(QemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field + 3, 2);

    q->command_left = vmf_read_be16(&r);
    qemu_stream_await(q, q->command_left ? STATE_COMMAND_DATA : STATE_TYPE, 1);
    return qemu_stream_emit(q, QEMU_ITEM_COMMAND, 0, error);
}

static bool command_data(QemuStream *q, GError **error)
{
    q->command_left--;
    if (!q->command_left) {
        qemu_stream_await(q, STATE_TYPE, 1);
    }
    return qemu_stream_emit(q, QEMU_ITEM_COMMAND, 0, error);
}

/* --- sections --- */

static bool type(QemuStream *q, GError **error)
{
    unsigned byte = q->field[0];

    if (q->footer_may_come) {
        q->footer_may_come = false;
        if (byte == QEMU_SECTION_FOOTER) {
            qemu_stream_await(q, STATE_FOOTER_ID, 5);
            return true;
        }
    }
    if (q->ram_ended) {
        q->state = STATE_OPAQUE;
        return qemu_stream_emit(q, QEMU_ITEM_OPAQUE, 0, error);
    }
    switch (byte) {
    case QEMU_SECTION_CONFIGURATION:
        qemu_stream_await(q, STATE_CONFIGURATION_LENGTH, 5);
        return true;
    case QEMU_SECTION_SUBSECTION:
        if (!q->configured) {
            break;
        }
        qemu_stream_await(q, STATE_SUBSECTION_LENGTH, 2);
        return true;
    case QEMU_SECTION_COMMAND:
        qemu_stream_await(q, STATE_COMMAND, 5);
        return true;
    case QEMU_SECTION_START:
    case QEMU_SECTION_PART:
    case QEMU_SECTION_END:
    case QEMU_SECTION_FULL:
        q->section = byte;
        qemu_stream_await(q, STATE_SECTION_ID, 5);
        return true;
    default:
        break;
    }
    return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "0x%02x, which is no section", byte);
}

static void begin_ram(QemuStream *q)
{
    q->block_known = false;
    qemu_stream_await(q, STATE_WORD, 8);
}

static bool section_id(QemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field + 1, 4);

    q->section_id = vmf_read_be32(&r);
    if (q->section == QEMU_SECTION_START || q->section == QEMU_SECTION_FULL) {
        qemu_stream_await(q, STATE_SECTION_LENGTH, 6);
        return true;
    }
    if (!q->ram_started || q->section_id != q->ram_id) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error,
                               "a part of section %u, which has not begun", q->section_id);
    }
    begin_ram(q);
    return qemu_stream_emit(q, QEMU_ITEM_SECTION, 0, error);
}

static bool section_length(QemuStream *q, GError **error)
{
    if (q->field[5] == 0) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "section %u has no name",
                               q->section_id);
    }
    qemu_stream_await(q, STATE_SECTION_NAME, 6 + q->field[5] + 8u);
    return true;
}

static bool section_name(QemuStream *q, GError **error)
{
    const size_t length = q->field[5];
    VmfReader r = vmf_reader(q->field + 6 + length, 8);
    uint32_t instance = vmf_read_be32(&r), version = vmf_read_be32(&r);
    g_autofree char *name = g_strndup((const char *)q->field + 6, length);

    if (!g_str_equal(name, "ram") || q->section != QEMU_SECTION_START) {
        return qemu_stream_bad(
            q, VMF_ERROR_UNSUPPORTED, error,
            "section \"%s\" comes before the end of RAM: it says nothing about its length, "
            "and cannot be passed over (a device or disk that is migrated live?)",
            name);
    }
    if (q->ram_started || instance) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error, "a second section \"ram\"");
    }
    if (version != QEMU_RAM_VERSION) {
        return qemu_stream_bad(q, VMF_ERROR_UNSUPPORTED, error,
                               "section \"ram\" of version %u; this can read "
                               "version %d",
                               version, QEMU_RAM_VERSION);
    }
    q->ram_started = true;
    q->ram_id = q->section_id;
    begin_ram(q);
    return qemu_stream_emit(q, QEMU_ITEM_SECTION, 0, error);
}

static bool footer_id(QemuStream *q, GError **error)
{
    VmfReader r = vmf_reader(q->field + 1, 4);
    uint32_t id = vmf_read_be32(&r);

    if (id != q->ram_id) {
        return qemu_stream_bad(q, VMF_ERROR_PROTOCOL, error,
                               "the footer of section %u behind section %u", id, q->ram_id);
    }
    qemu_stream_await(q, STATE_TYPE, 1);
    return qemu_stream_emit(q, QEMU_ITEM_FOOTER, 0, error);
}

typedef bool (*StateFunc)(QemuStream *q, GError **error);

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

/* Bytes that are handed on as they come: of a page, or behind the end of RAM. */
static ssize_t bulk(QemuStream *q, const uint8_t *data, size_t size, GError **error)
{
    const bool is_page = q->state == STATE_DATA;
    const size_t take = is_page ? MIN(size, q->data_left) : size;
    const QemuItem item = {
        .kind = is_page ? QEMU_ITEM_DATA : QEMU_ITEM_OPAQUE,
        .raw = data,
        .size = take,
        .section = q->section,
        .block = q->block,
        .offset = (q->word & ~(uint64_t)QEMU_RAM_FLAGS) + q->page_bytes - q->data_left,
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

ssize_t qemu_stream_scan(QemuStream *q, const uint8_t *data, size_t size, bool to_hook,
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
