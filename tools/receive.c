/* SPDX-License-Identifier: BSD-2-Clause */
/* receive.c -- vmferry receive: a VM from any source becomes a file that QEMU loads */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vmferry/plugin/bytes.h>

#include "commands.h"
#include "guest-ram.h"
#include "output-file.h"
#include "progress.h"
#include "qemu-end.h"
#include <vmferry/qemu-stream.h>
#include "say.h"
#include <vmferry/ram.h>

/* QEMU's MIG_CMD_OPEN_RETURN_PATH, and MIG_CMD_SWITCHOVER_START of QEMU 10.0 and later. */
#define COMMAND_OPEN_RETURN_PATH 1
#define COMMAND_SWITCHOVER_START 11

typedef struct Receiver {
    GuestRam ram;
    VmfQemuStream *stream;
    ProgressHow how;
    const char *path; /* the file's path */
    OutputFile *file;
    VmfFile *out;    /* writes the file */
    uint64_t opaque; /* where device state begins in the file; 0: not known yet */
    bool footers;    /* the stream's sections have footers */
} Receiver;

/* An error of the file names the file. */
static bool check_out(Receiver *r, GError **error)
{
    if (vmf_file_check(r->out, error)) {
        return true;
    }
    g_prefix_error(error, "cannot write %s: ", r->path);
    return false;
}

/* --- RAM into the file --- */

static const VmfQemuBlock *listed(const Receiver *r, unsigned index)
{
    return vmf_qemu_stream_block(r->stream, index);
}

/* The memory of `size' bytes of a listed block, which the session has allocated. */
static uint8_t *memory_of(const Receiver *r, unsigned index, uint64_t offset, uint64_t size,
                          GError **error)
{
    const VmfQemuBlock *block = listed(r, index);
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

static void put_page(Receiver *r, const VmfQemuBlock *block, const uint8_t *page, uint64_t offset,
                     size_t size)
{
    const bool zero = vmf_is_zero(page, size);
    const uint64_t flags =
        (zero ? VMF_QEMU_RAM_ZERO : VMF_QEMU_RAM_PAGE) | (offset ? VMF_QEMU_RAM_CONTINUE : 0);

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
    const size_t page_bytes = vmf_qemu_stream_page_bytes(r->stream);
    uint64_t total = 0, done = 0;
    Progress progress;

    for (unsigned i = 0; i < vmf_qemu_stream_block_count(r->stream); i++) {
        total += listed(r, i)->length;
    }
    progress_begin(&progress, r->how, "RAM to the file", total);
    for (unsigned i = 0; i < vmf_qemu_stream_block_count(r->stream); i++) {
        const VmfQemuBlock *block = listed(r, i);
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
    return check_out(r, error);
}

/* --- the stream into the file --- */

/* The end of RAM says in a file that the source has stopped. All other commands need an answer. */
static bool drop_command(const VmfQemuItem *item, GError **error)
{
    VmfReader reader = vmf_reader(item->raw + 1, item->size - 1);
    unsigned command = vmf_read_be16(&reader);

    if (command == COMMAND_SWITCHOVER_START) {
        return true;
    }
    if (command == COMMAND_OPEN_RETURN_PATH) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "the source wants a return path, which a file does not have: switch the "
                    "return-path capability off there");
    } else {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "command %u in the stream cannot be kept in a file", command);
    }
    return false;
}

/* Takes a page that came in the stream. */
static bool keep_page(Receiver *r, const VmfQemuItem *item, GError **error)
{
    const size_t size =
        item->kind == VMF_QEMU_ITEM_ZERO ? vmf_qemu_stream_page_bytes(r->stream) : item->size;
    uint8_t *memory = memory_of(r, item->block, item->offset, size, error);

    if (!memory) {
        return false;
    }
    if (item->kind == VMF_QEMU_ITEM_ZERO) {
        memset(memory, 0, size);
    } else {
        memcpy(memory, item->raw, size);
    }
    return true;
}

/*
 * The file's section of RAM has a start, with the list of blocks, and an end, with every page. RAM
 * that came in between is in memory.
 */
static bool take_item(void *opaque, const VmfQemuItem *item, GError **error)
{
    Receiver *r = opaque;
    const bool part = item->section == VMF_QEMU_SECTION_PART;

    switch (item->kind) {
    case VMF_QEMU_ITEM_COMMAND:
        return drop_command(item, error);
    case VMF_QEMU_ITEM_HOOK:
    case VMF_QEMU_ITEM_PAGE:
        return true;
    case VMF_QEMU_ITEM_DATA:
    case VMF_QEMU_ITEM_ZERO:
        return keep_page(r, item, error);
    case VMF_QEMU_ITEM_EOS:
        if (item->section == VMF_QEMU_SECTION_END && !put_ram(r, error)) {
            return false;
        }
        break;
    case VMF_QEMU_ITEM_FOOTER:
        r->footers = true;
        break;
    case VMF_QEMU_ITEM_OPAQUE:
        r->opaque = r->opaque ? r->opaque : vmf_file_tell(r->out);
        break;
    default:
        break;
    }
    if (part && item->kind != VMF_QEMU_ITEM_OPAQUE) {
        return true;
    }
    vmf_put_buffer(r->out, item->raw, item->size);
    return check_out(r, error);
}

static bool take_stream(Receiver *r, VmfFile *file, GError **error)
{
    while (!vmf_file_at_end(file)) {
        size_t size = vmf_file_buffered(file);
        const uint8_t *data;

        size = vmf_peek_buffer(file, &data, MIN(size, 32768), 0);
        if (!size || vmf_qemu_stream_scan(r->stream, data, size, false, error) < 0) {
            return size ? false : vmf_file_check(file, error);
        }
        vmf_skip(file, size);
    }
    if (!vmf_file_check(file, error)) {
        return false;
    }
    if (!vmf_qemu_stream_ram_ended(r->stream)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "QEMU's stream ends at offset %" G_GUINT64_FORMAT ", where %s should come",
                    vmf_qemu_stream_position(r->stream), vmf_qemu_stream_awaits(r->stream));
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
                    "the source is not QEMU with vmferry (greeting 0x%08x)", magic);
        return false;
    }
    if (flags & VMF_QEMU_RETURN_PATH) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "the source wants a return path, which a file does not have: switch the "
                    "return-path capability off there (flags 0x%x)",
                    flags);
        return false;
    }
    if (flags & ~VMF_QEMU_HOOKS) { /* hooks do not matter for a file */
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the source is not QEMU with vmferry of this version (flags 0x%x)", flags);
        return false;
    }
    return true;
}

/* --- the file --- */

static bool open_out(Receiver *r, GError **error)
{
    int fd = fcntl(output_file_fd(r->file), F_DUPFD_CLOEXEC, 0);

    if (fd < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot use a file beside %s: %s", r->path,
                    g_strerror(errno));
        return false;
    }
    r->out = vmf_file_new_fd(fd, VMF_FILE_WRITE, error);
    if (!r->out) {
        close(fd);
    }
    return r->out != NULL;
}

/*
 * A stock source that is killed closes the connection like one that is done. The file tells which
 * it was.
 */
static bool check_end(const Receiver *r, GError **error)
{
    const int fd = output_file_fd(r->file);
    struct stat info;
    QemuEnd end;

    if (fstat(fd, &info) < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot look at %s: %s", r->path,
                    g_strerror(errno));
        return false;
    }
    if (!qemu_end_find(fd, r->opaque, (uint64_t)info.st_size, r->footers, &end, error)) {
        g_prefix_error(error, "%s: ", r->path);
        return false;
    }
    if (end == QEMU_END_MISSING) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the device state that the source sent has no end: the source was cancelled, "
                    "failed or ended; %s is as it was",
                    r->path);
        return false;
    }
    return true;
}

/* From here on the file has its name, whatever happens to this host. */
static bool publish_file(Receiver *r, VmfSession *session, GError **error)
{
    if (!vmf_file_close(g_steal_pointer(&r->out), error)) {
        g_prefix_error(error, "cannot write %s: ", r->path);
        return false;
    }
    if (!check_end(r, error)) {
        return false;
    }
    /* A stock source that is done has given up its VM, even if the connection was lost then. */
    return (vmf_session_peer_is_qemu(session) || vmf_session_check(session, error)) &&
           output_file_publish(r->file, error);
}

static void clear(Receiver *r)
{
    vmf_file_free(r->out);
    output_file_free(r->file);
    vmf_qemu_stream_free(r->stream);
    guest_ram_clear(&r->ram);
}

/* --- the command --- */

/* The file stays, and so does the older one, because the source may have given up the VM. */
static void keep_both(Receiver *r, GError *failure, GError **error)
{
    const char *older = output_file_older(r->file);

    g_set_error(error, VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME,
                "%s is complete, but it is not known whether the source has given up its VM (%s): "
                "do not run both%s%s",
                r->path, failure->message, older ? "; what the file held before is in " : "",
                older ? older : "");
    g_error_free(failure);
}

/* The VM goes on at the source, so the older file is worth more. */
static void take_back(Receiver *r, GError *failure, GError **error)
{
    g_autoptr(GError) stays = NULL;

    g_propagate_error(error, failure);
    if (!output_file_take_back(r->file, &stays)) {
        g_prefix_error(error, "%s; the source keeps its VM: ", stays->message);
    }
}

/* The source gives up the VM only after the file is safe. */
static bool save(Receiver *r, VmfSession *session, GError **error)
{
    VmfFile *file = vmf_session_get_file(session);
    const bool stock = vmf_session_peer_is_qemu(session);
    GError *failure = NULL;

    if ((!stock && !take_greeting(file, &failure)) || !take_stream(r, file, &failure) ||
        !publish_file(r, session, &failure)) {
        vmf_session_fail(session, g_error_copy(failure));
        g_propagate_error(error, failure);
        return false;
    }
    if (vmf_session_complete(session, &failure)) {
        output_file_settle(r->file);
        return true;
    }
    if (!stock && vmf_session_get_owner(session) == VMF_OWNER_OTHER_SIDE) {
        take_back(r, failure, error);
    } else {
        keep_both(r, failure, error);
    }
    return false;
}

static bool wait_and_save(Receiver *r, VmfListener *listener, GError **error)
{
    VmfSession *session;
    bool ok;

    say("listening on %s\n", vmf_listener_address(listener));
    if (!say_check(error)) {
        return false;
    }
    session = vmf_session_accept(listener, r->ram.blocks, NULL, error);
    ok = session && save(r, session, error);
    vmf_session_free(session);
    return ok;
}

static bool run(const char *text, const char *path, ProgressHow how, GError **error)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, error);
    g_autoptr(OutputFile) file = uri ? output_file_new(path, 0600, error) : NULL;
    g_autoptr(VmfListener) listener = file ? vmf_listener_new(uri, error) : NULL;
    Receiver r = {.path = path, .how = how};
    bool ok;

    if (!listener) {
        return false;
    }
    guest_ram_init(&r.ram);
    r.stream = vmf_qemu_stream_new(take_item, &r);
    r.file = g_steal_pointer(&file);
    ok = open_out(&r, error) && wait_and_save(&r, listener, error);
    if (ok) {
        say("%s: %" G_GUINT64_FORMAT " MiB of RAM saved\n", path,
            vmf_ram_blocks_total(r.ram.blocks) >> 20);
    }
    clear(&r);
    return ok;
}

bool receive_command(int argc, char **argv, GError **error)
{
    g_autofree char *path = NULL, *progress = NULL;
    ProgressHow how;
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
    return progress_parse(progress, &how, error) && run(argv[1], path, how, error);
}
