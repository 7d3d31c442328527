/* SPDX-License-Identifier: BSD-2-Clause */
/* receive.c -- vmferry receive: a VM from any source into a file that QEMU loads */

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <vmferry/bytes.h>

#include "commands.h"
#include "guest-ram.h"
#include "progress.h"
#include "qemu-stream.h"
#include "zero.h"

/* QEMU's MIG_CMD_OPEN_RETURN_PATH. */
#define COMMAND_OPEN_RETURN_PATH 1

typedef struct Receiver {
    GuestRam ram;
    QemuStream *stream;
    ProgressHow how;
    const char *path; /* of the file */
    char *temporary;  /* its name until it is whole; NULL: it has none yet, or none any more */
    int fd;           /* for its fsync; `out' has another */
    VmfFile *out;
} Receiver;

/* --- RAM into the file --- */

static const QemuBlock *listed(const Receiver *r, unsigned index)
{
    return &g_array_index(qemu_stream_blocks(r->stream), QemuBlock, index);
}

/* The memory of that many bytes of a listed block, which the session has made. */
static uint8_t *memory_of(const Receiver *r, unsigned index, uint64_t offset, uint64_t size,
                          GError **error)
{
    const QemuBlock *block = listed(r, index);
    const VmfRamBlock *ram = vmf_ram_blocks_find(r->ram.blocks, block->name);

    if (!ram || offset > ram->length || size > ram->length - offset) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_MISMATCH,
                    "the stream lists RAM block \"%s\" with %" G_GUINT64_FORMAT
                    " bytes, the session has %" G_GUINT64_FORMAT,
                    block->name, block->length, ram ? ram->length : 0);
        return NULL;
    }
    return ram->host + offset;
}

static void put_page(Receiver *r, const QemuBlock *block, const uint8_t *page, uint64_t offset,
                     size_t size)
{
    const bool zero = vmf_is_zero(page, size);
    const uint64_t flags =
        (zero ? QEMU_RAM_ZERO : QEMU_RAM_PAGE) | (offset ? QEMU_RAM_CONTINUE : 0);

    vmf_put_be64(r->out, offset | flags);
    if (!offset) {
        vmf_put_counted_string(r->out, block->name);
    }
    if (zero) {
        vmf_put_byte(r->out, 0);
    } else {
        vmf_put_buffer(r->out, page, size);
    }
}

static bool put_ram(Receiver *r, GError **error)
{
    const size_t page_bytes = qemu_stream_page_bytes(r->stream);
    uint64_t total = 0, done = 0;
    Progress progress;

    for (unsigned i = 0; i < qemu_stream_blocks(r->stream)->len; i++) {
        total += listed(r, i)->length;
    }
    progress_begin(&progress, r->how, "RAM to the file", total);
    for (unsigned i = 0; i < qemu_stream_blocks(r->stream)->len; i++) {
        const QemuBlock *block = listed(r, i);
        const uint8_t *memory = memory_of(r, i, 0, block->length, error);

        if (!memory) {
            return false;
        }
        if (block->length % page_bytes) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                        "RAM block \"%s\" has no whole number of pages", block->name);
            return false;
        }
        for (uint64_t at = 0; at < block->length; at += page_bytes, done += page_bytes) {
            put_page(r, block, memory + at, at, page_bytes);
            progress_show(&progress, done);
        }
    }
    progress_end(&progress);
    return vmf_file_check(r->out, error);
}

/* --- the stream into the file --- */

static bool refuse_command(const QemuItem *item, GError **error)
{
    VmfReader reader = vmf_reader(item->raw + 1, item->size - 1);
    unsigned command = vmf_read_be16(&reader);

    if (command == COMMAND_OPEN_RETURN_PATH) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "the source wants a return path, which a file has not: switch the "
                    "return-path capability off there");
    } else {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "command %u in the stream cannot be kept in a file", command);
    }
    return false;
}

/* A page that came in the stream. */
static bool keep_page(Receiver *r, const QemuItem *item, GError **error)
{
    const size_t size =
        item->kind == QEMU_ITEM_ZERO ? qemu_stream_page_bytes(r->stream) : item->size;
    uint8_t *memory = memory_of(r, item->block, item->offset, size, error);

    if (!memory) {
        return false;
    }
    if (item->kind == QEMU_ITEM_ZERO) {
        memset(memory, 0, size);
    } else {
        memcpy(memory, item->raw, size);
    }
    return true;
}

/*
 * The file's section of RAM has a start, with the list of blocks, and an end,
 * with every page; what came in between is in memory.
 */
static bool take_item(void *opaque, const QemuItem *item, GError **error)
{
    Receiver *r = opaque;
    const bool part = item->section == QEMU_SECTION_PART;

    switch (item->kind) {
    case QEMU_ITEM_COMMAND:
        return refuse_command(item, error);
    case QEMU_ITEM_HOOK:
    case QEMU_ITEM_PAGE:
        return true;
    case QEMU_ITEM_DATA:
    case QEMU_ITEM_ZERO:
        return keep_page(r, item, error);
    case QEMU_ITEM_EOS:
        if (item->section == QEMU_SECTION_END && !put_ram(r, error)) {
            return false;
        }
        break;
    default:
        break;
    }
    if (part && item->kind != QEMU_ITEM_OPAQUE) {
        return true;
    }
    vmf_put_buffer(r->out, item->raw, item->size);
    return vmf_file_check(r->out, error);
}

static bool take_stream(Receiver *r, VmfFile *file, GError **error)
{
    while (!vmf_file_at_end(file)) {
        size_t size = vmf_file_buffered(file);
        const uint8_t *data;

        size = vmf_peek_buffer(file, &data, MIN(size, 32768), 0);
        if (!size || qemu_stream_scan(r->stream, data, size, false, error) < 0) {
            return size ? false : vmf_file_check(file, error);
        }
        vmf_skip(file, size);
    }
    if (!vmf_file_check(file, error)) {
        return false;
    }
    if (!qemu_stream_ram_ended(r->stream)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "QEMU's stream ends at offset %" G_GUINT64_FORMAT ", where %s should come",
                    qemu_stream_position(r->stream), qemu_stream_awaits(r->stream));
        return false;
    }
    return true;
}

static bool take_greeting(VmfFile *file, GError **error)
{
    uint32_t magic = vmf_get_be32(file), flags = vmf_get_be32(file);

    if (!vmf_file_check(file, error)) {
        return false;
    }
    if (magic != VMF_QEMU_GREETING) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the source is no QEMU with vmferry (greeting 0x%08x)", magic);
        return false;
    }
    if (flags) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "the source wants a return path, which a file has not: switch the "
                    "return-path capability off there (flags 0x%x)",
                    flags);
        return false;
    }
    return true;
}

/* --- the file --- */

static bool io_failed(GError **error, const char *what, const char *path)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot %s %s: %s", what, path, g_strerror(errno));
    return false;
}

static bool create_file(Receiver *r, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(r->path);
    int fd;

    /* Without a name nothing is left behind, however this process ends. */
    r->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (r->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        r->temporary = g_strconcat(r->path, ".XXXXXX", NULL);
        r->fd = g_mkstemp_full(r->temporary, O_RDWR | O_CLOEXEC, 0600);
    }
    if (r->fd < 0) {
        io_failed(error, "create a file beside", r->path);
        g_clear_pointer(&r->temporary, g_free);
        return false;
    }
    fd = fcntl(r->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        return io_failed(error, "use a file beside", r->path);
    }
    r->out = vmf_file_new_fd(fd, VMF_FILE_WRITE, error);
    if (!r->out) {
        close(fd);
    }
    return r->out != NULL;
}

static bool sync_folder(const char *path, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;

    if (!ok) {
        io_failed(error, "sync", folder);
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* A name of its own first: only a rename replaces what has the other. */
static bool name_file(Receiver *r, GError **error)
{
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", r->fd);

    if (r->temporary) {
        return true;
    }
    r->temporary = g_strdup_printf("%s.%08x", r->path, g_random_int());
    if (linkat(AT_FDCWD, self, AT_FDCWD, r->temporary, AT_SYMLINK_FOLLOW) < 0) {
        io_failed(error, "create", r->temporary);
        g_clear_pointer(&r->temporary, g_free);
        return false;
    }
    return true;
}

/* From here on it is there under its name, whatever happens to this host. */
static bool publish_file(Receiver *r, GError **error)
{
    if (!vmf_file_close(g_steal_pointer(&r->out), error)) {
        g_prefix_error(error, "%s: ", r->path);
        return false;
    }
    if (fsync(r->fd) < 0) {
        return io_failed(error, "write", r->path);
    }
    if (!name_file(r, error)) {
        return false;
    }
    if (rename(r->temporary, r->path) < 0) {
        return io_failed(error, "rename a file to", r->path);
    }
    g_clear_pointer(&r->temporary, g_free);
    return sync_folder(r->path, error);
}

static void clear(Receiver *r)
{
    vmf_file_free(r->out);
    if (r->fd >= 0) {
        close(r->fd);
    }
    if (r->temporary) {
        g_unlink(r->temporary);
        g_free(r->temporary);
    }
    qemu_stream_free(r->stream);
    guest_ram_clear(&r->ram);
}

/* --- the command --- */

/* The source gives the VM up only when the file is safe. */
static bool save(Receiver *r, VmfSession *session, GError **error)
{
    VmfFile *file = vmf_session_get_file(session);
    g_autoptr(GError) failure = NULL;

    if ((!vmf_session_peer_is_qemu(session) && !take_greeting(file, &failure)) ||
        !take_stream(r, file, &failure) || !publish_file(r, &failure)) {
        vmf_session_fail(session, g_error_copy(failure));
        g_propagate_error(error, g_steal_pointer(&failure));
        return false;
    }
    if (vmf_session_complete(session, &failure)) {
        return true;
    }
    if (!g_error_matches(failure, VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME)) {
        g_unlink(r->path); /* the VM runs on at the source */
    } else {
        g_prefix_error(&failure, "%s is complete, but ", r->path);
    }
    g_propagate_error(error, g_steal_pointer(&failure));
    return false;
}

static bool run(const char *text, const char *path, ProgressHow how, GError **error)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, error);
    g_autoptr(VmfListener) listener = uri ? vmf_listener_new(uri, error) : NULL;
    Receiver r = {.path = path, .how = how, .fd = -1};
    VmfSession *session;
    bool ok = false;

    if (!listener) {
        return false;
    }
    guest_ram_init(&r.ram);
    r.stream = qemu_stream_new(take_item, &r);
    if (create_file(&r, error)) {
        g_print("listening on %s\n", vmf_listener_address(listener));
        session = vmf_session_accept(listener, r.ram.blocks, NULL, error);
        if (session) {
            ok = save(&r, session, error);
            vmf_session_free(session);
        }
    }
    if (ok) {
        g_print("%s: %" G_GUINT64_FORMAT " MiB of RAM saved\n", path,
                vmf_ram_blocks_total(r.ram.blocks) >> 20);
    }
    clear(&r);
    return ok;
}

bool receive_command(int argc, char **argv, GError **error)
{
    g_autofree char *path = NULL, *progress = NULL;
    const GOptionEntry entries[] = {
        {"save", 0, 0, G_OPTION_ARG_FILENAME, &path, "the file; replaced when the VM is whole",
         "FILE"},
        {"progress", 0, 0, G_OPTION_ARG_STRING, &progress, "auto, bar, lines or none", "HOW"},
        {0},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("URI - save a VM to a file");

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, error)) {
        return false;
    }
    if (argc != 2 || !path) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED,
                    "receive needs a URI to listen on and --save FILE");
        return false;
    }
    return run(argv[1], path, progress_how(progress), error);
}
