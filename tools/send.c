/* SPDX-License-Identifier: BSD-2-Clause */
/* send.c -- vmferry send: a VM from a file of QEMU goes to any destination */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vmferry/plugin/bytes.h>

#include "commands.h"
#include "guest-ram.h"
#include "progress.h"
#include "qemu-end.h"
#include <vmferry/qemu-stream.h>
#include <vmferry/ram.h>

#define READ_BYTES (256u * 1024)
/* Bytes of RAM between two updates of the progress. */
#define STEP_BYTES (4ull * 1024 * 1024)
/* The most bytes before device state, without RAM. Most of them are the list of blocks. */
#define PIECES_MAX (64u << 20)

typedef struct Sender {
    const char *path;
    int fd;
    uint64_t size; /* the file's size */
    ProgressHow how;
    GuestRam ram;
    VmfQemuStream *stream;
    /* Pieces of the file: what goes before RAM, and what ends it. */
    GByteArray *start, *start_end, *end, *end_end;
    uint64_t opaque;          /* where the file goes on after RAM */
    bool footers;             /* the file's sections have footers */
    const VmfRamBlock *block; /* the last page's block */
    unsigned block_index;
} Sender;

/* --- the file --- */

static bool io_failed(const Sender *s, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot read %s: %s", s->path, g_strerror(errno));
    return false;
}

static bool read_at(const Sender *s, uint64_t at, uint8_t *to, size_t size, GError **error)
{
    while (size) {
        ssize_t n = pread(s->fd, to, size, (off_t)at);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n ? errno : EIO; /* the file has become shorter */
            return io_failed(s, error);
        }
        to += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return true;
}

static bool open_file(Sender *s, GError **error)
{
    struct stat info;

    s->fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot open %s: %s", s->path,
                    g_strerror(errno));
        return false;
    }
    if (fstat(s->fd, &info) < 0) {
        return io_failed(s, error);
    }
    if (!S_ISREG(info.st_mode)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "%s is not a regular file", s->path);
        return false;
    }
    s->size = (uint64_t)info.st_size;
    return true;
}

/* --- the file's RAM into memory --- */

static bool make_blocks(Sender *s, GError **error)
{
    const VmfQemuBlock *block;

    while ((block = vmf_qemu_stream_block(s->stream, vmf_ram_blocks_count(s->ram.blocks)))) {

        if (!guest_ram_add(&s->ram, block->name, block->length,
                           vmf_qemu_stream_page_bytes(s->stream), error)) {
            return false;
        }
    }
    return true;
}

static uint8_t *page_at(Sender *s, const VmfQemuItem *item)
{
    if (!s->block || s->block_index != item->block) {
        s->block = vmf_ram_blocks_get(s->ram.blocks, item->block);
        s->block_index = item->block;
    }
    return s->block->host + item->offset; /* vmf_qemu_stream_scan() has checked it */
}

static bool keep(GByteArray *piece, const VmfQemuItem *item, GError **error)
{
    if (item->section == VMF_QEMU_SECTION_PART) {
        return true; /* the parts become one */
    }
    if (piece->len + item->size > PIECES_MAX) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "more than %u MiB before its RAM: it is damaged, or no migration of QEMU's",
                    PIECES_MAX >> 20);
        return false;
    }
    g_byte_array_append(piece, item->raw, (guint)item->size);
    return true;
}

static bool take_item(void *opaque, const VmfQemuItem *item, GError **error)
{
    Sender *s = opaque;
    const bool start = item->section == VMF_QEMU_SECTION_START;

    switch (item->kind) {
    case VMF_QEMU_ITEM_HEADER:
    case VMF_QEMU_ITEM_CONFIGURATION:
        return keep(s->start, item, error);
    case VMF_QEMU_ITEM_BLOCKS:
        return keep(s->start, item, error) && make_blocks(s, error);
    case VMF_QEMU_ITEM_SECTION:
        return keep(start ? s->start : s->end, item, error);
    case VMF_QEMU_ITEM_FOOTER:
        s->footers = true;
        return keep(start ? s->start_end : s->end_end, item, error);
    case VMF_QEMU_ITEM_EOS:
        return keep(start ? s->start_end : s->end_end, item, error);
    case VMF_QEMU_ITEM_DATA:
        memcpy(page_at(s, item), item->raw, item->size);
        return true;
    case VMF_QEMU_ITEM_ZERO: { /* an earlier record may have filled the page */
        uint8_t *page = page_at(s, item);

        if (!vmf_is_zero(page, vmf_qemu_stream_page_bytes(s->stream))) {
            memset(page, 0, vmf_qemu_stream_page_bytes(s->stream));
        }
        return true;
    }
    case VMF_QEMU_ITEM_OPAQUE:
        if (!s->opaque) {
            s->opaque = vmf_qemu_stream_position(s->stream) - 1;
        }
        return true;
    case VMF_QEMU_ITEM_COMMAND: /* commands are about a connection that has ended */
    case VMF_QEMU_ITEM_HOOK:
    case VMF_QEMU_ITEM_PAGE:
        return true;
    }
    return true;
}

/* Device state does not say its length, so the file must end where device state ends. */
static bool check_end(const Sender *s, GError **error)
{
    QemuEnd end;

    if (!qemu_end_find(s->fd, s->opaque, s->size, s->footers, &end, error)) {
        g_prefix_error(error, "%s: ", s->path);
        return false;
    }
    if (end == QEMU_END_THERE) {
        return true;
    }
    if (end == QEMU_END_POSSIBLE) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "%s: its machine type is so old that a file that was cut cannot be told from a "
                    "whole one: load it by QEMU itself, with -incoming \"exec:cat %s\"",
                    s->path, s->path);
        return false;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                "%s: the device state from offset %" G_GUINT64_FORMAT
                " on has no end: the file was cut at %" G_GUINT64_FORMAT " bytes, or is damaged",
                s->path, s->opaque, s->size);
    return false;
}

static bool load(Sender *s, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(READ_BYTES);
    Progress progress;
    uint64_t at = 0;

    progress_begin(&progress, s->how, "RAM from the file", s->size);
    while (at < s->size && !s->opaque) {
        size_t part = (size_t)MIN(READ_BYTES, s->size - at);

        if (!read_at(s, at, buffer, part, error)) {
            return false;
        }
        if (vmf_qemu_stream_scan(s->stream, buffer, part, false, error) < 0) {
            g_prefix_error(error, "%s: ", s->path);
            return false;
        }
        at += part;
        progress_show(&progress, at);
    }
    progress_end(&progress);
    if (!s->opaque) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "%s ends at offset %" G_GUINT64_FORMAT
                    ", where %s should come: it was cut, or holds no device state",
                    s->path, s->size, vmf_qemu_stream_awaits(s->stream));
        return false;
    }
    return check_end(s, error);
}

/* --- to the destination --- */

static void put_bytes(VmfFile *file, const GByteArray *bytes)
{
    vmf_put_buffer(file, bytes->data, bytes->len);
}

/* Stock QEMU needs a hook before RAM comes another way. */
static void put_hook(VmfFile *file, VmfSession *session)
{
    if (vmf_session_peer_is_qemu(session)) {
        vmf_put_be64(file, VMF_QEMU_RAM_HOOK);
    }
}

static bool send_ram(Sender *s, VmfFile *file, GError **error)
{
    Progress progress;
    uint64_t done = 0;

    progress_begin(&progress, s->how, "RAM", vmf_ram_blocks_total(s->ram.blocks));
    for (unsigned i = 0; i < vmf_ram_blocks_count(s->ram.blocks); i++) {
        const VmfRamBlock *block = vmf_ram_blocks_get(s->ram.blocks, i);

        for (uint64_t at = 0; at < block->length; at += STEP_BYTES) {
            uint64_t part = MIN(STEP_BYTES, block->length - at);

            if (!vmf_save_ram_page(file, block, at, part)) {
                return vmf_file_check(file, error);
            }
            done += part;
            progress_show(&progress, done);
        }
    }
    progress_end(&progress);
    return vmf_flush_ram_pages(file, VMF_FLUSH_FINAL) || vmf_file_check(file, error);
}

static bool send_rest(Sender *s, VmfFile *file, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(READ_BYTES);

    for (uint64_t at = s->opaque; at < s->size;) {
        size_t part = (size_t)MIN(READ_BYTES, s->size - at);

        if (!read_at(s, at, buffer, part, error)) {
            return false;
        }
        vmf_put_buffer(file, buffer, part);
        at += part;
    }
    /*
     * vmf_session_complete() sends the last bytes, because a stock destination that has all may
     * run.
     */
    return vmf_file_check(file, error);
}

static bool send_all(Sender *s, VmfSession *session, GError **error)
{
    VmfFile *file = vmf_session_get_file(session);

    if (!vmf_session_peer_is_qemu(session)) {
        vmf_put_be32(file, VMF_QEMU_GREETING);
        vmf_put_be32(file, 0);
    }
    put_bytes(file, s->start);
    put_hook(file, session);
    put_bytes(file, s->start_end);
    put_bytes(file, s->end);
    put_hook(file, session);
    if (!vmf_file_flush(file, error) || !send_ram(s, file, error)) {
        return false;
    }
    put_bytes(file, s->end_end);
    return send_rest(s, file, error) && vmf_session_complete(session, error);
}

static void report(const Sender *s, VmfSession *session, double seconds)
{
    VmfStats stats = {.size = sizeof(stats)};

    vmf_session_get_stats(session, &stats);
    g_print("%s: %" G_GUINT64_FORMAT " MiB of RAM%s in %.2f s, %" G_GUINT64_FORMAT
            " MiB of it as data in %" G_GUINT64_FORMAT " writes over %u channels\n",
            s->path, vmf_ram_blocks_total(s->ram.blocks) >> 20,
            vmf_session_peer_is_qemu(session) ? " to stock QEMU" : "", seconds,
            stats.ram_written >> 20, stats.writes, stats.channels);
}

static bool send_file(Sender *s, const char *text, GError **error)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, error);
    g_autoptr(VmfSession) session = NULL;
    g_autoptr(GError) failure = NULL;
    gint64 began;

    if (!uri || !open_file(s, error) || !load(s, error)) {
        return false;
    }
    session = vmf_session_connect(uri, s->ram.blocks, NULL, error);
    if (!session) {
        return false;
    }
    began = g_get_monotonic_time();
    if (!send_all(s, session, &failure)) {
        vmf_session_fail(session, g_error_copy(failure));
        g_propagate_error(error, g_steal_pointer(&failure));
        return false;
    }
    report(s, session, (double)(g_get_monotonic_time() - began) / G_USEC_PER_SEC);
    return true;
}

/* --- the command --- */

static bool run(const char *uri, const char *path, ProgressHow how, GError **error)
{
    Sender s = {.path = path, .how = how, .fd = -1};
    bool ok;

    guest_ram_init(&s.ram);
    s.stream = vmf_qemu_stream_new(take_item, &s);
    s.start = g_byte_array_new();
    s.start_end = g_byte_array_new();
    s.end = g_byte_array_new();
    s.end_end = g_byte_array_new();
    ok = send_file(&s, uri, error);
    g_byte_array_unref(s.start);
    g_byte_array_unref(s.start_end);
    g_byte_array_unref(s.end);
    g_byte_array_unref(s.end_end);
    vmf_qemu_stream_free(s.stream);
    guest_ram_clear(&s.ram);
    if (s.fd >= 0) {
        close(s.fd);
    }
    return ok;
}

bool send_command(int argc, char **argv, GError **error)
{
    g_autofree char *path = NULL, *progress = NULL;
    ProgressHow how;
    const GOptionEntry entries[] = {
        {"load", 0, 0, G_OPTION_ARG_FILENAME, &path, "the file, as vmferry receive or QEMU made it",
         "FILE"},
        {"progress", 0, 0, G_OPTION_ARG_STRING, &progress, "auto, bar, lines or none", "HOW"},
        {0},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("URI - send a VM from a file");

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, error)) {
        return false;
    }
    if (argc != 2 || !path) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED,
                    "send needs --load FILE and the URI of a destination");
        return false;
    }
    return progress_parse(progress, &how, error) && run(argv[1], path, how, error);
}
