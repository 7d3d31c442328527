/* SPDX-License-Identifier: BSD-2-Clause */
/* local-feed.c -- feeding this process's QEMU with a stream, as stock QEMU's source would */

#include "local-feed.h"

#include <string.h>
#include <vmferry/plugin/bytes.h>

#include "local-back.h"
#include "local-discards.h"
#include "local-report.h"
#include "stream-end.h"

/* The longest piece of the stream in a message: as long as stock QEMU's. */
#define PIECE_BYTES 32768u
/* So much of the newest stream is kept from QEMU, because the end may lie in it. */
#define KEEP_BYTES (4u << 20)

/* --- turns --- */

static bool lost_qemu(GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "this QEMU does not go on with it");
    return false;
}

/* Waits until QEMU takes a message. */
static bool await_ready(LocalDestination *d, GError **error)
{
    bool ready;

    g_mutex_lock(&d->lock);
    while (!d->ready && !d->gone) {
        g_cond_wait(&d->changed, &d->lock);
    }
    ready = d->ready && !d->gone;
    g_mutex_unlock(&d->lock);
    return ready || lost_qemu(error);
}

static bool say(LocalDestination *d, V1Type type, const void *body, size_t size, GError **error)
{
    if (!await_ready(d, error)) {
        return false;
    }
    g_mutex_lock(&d->lock);
    d->ready--;
    if (d->link) {
        local_link_say(d->link, type, 1, body, size);
    }
    g_mutex_unlock(&d->lock);
    return true;
}

static bool say_stream(LocalDestination *d, const uint8_t *data, size_t size, GError **error)
{
    while (size) {
        const size_t part = MIN(size, PIECE_BYTES);

        if (!say(d, V1_QEMU_FILE, data, part, error)) {
            return false;
        }
        data += part;
        size -= part;
    }
    return true;
}

/* --- RAM blocks --- */

static GBytes *await_reply(LocalDestination *d, GError **error)
{
    GBytes *reply;

    g_mutex_lock(&d->lock);
    while (!d->reply && !d->gone) {
        g_cond_wait(&d->changed, &d->lock);
    }
    reply = g_steal_pointer(&d->reply);
    g_mutex_unlock(&d->lock);
    if (!reply) {
        lost_qemu(error);
    }
    return reply;
}

static bool add_block(LocalDestination *d, unsigned i, const uint8_t *body, GError **error)
{
    const VmfQemuBlock *listed = vmf_qemu_stream_block(d->stream, i);
    const VmfRamBlock *added;
    V1Block block;

    v1_block_decode(body, i, &block);
    added = vmf_ram_blocks_add(d->blocks, listed->name, (void *)(uintptr_t)block.host, block.length,
                               vmf_qemu_stream_page_bytes(d->stream), error);
    if (!added) {
        return false;
    }
    local_discards_add(d->blocks, added);
    return true;
}

/* Learns from QEMU where its RAM is. */
static bool name_ram(LocalDestination *d, GError **error)
{
    const unsigned count = vmf_qemu_stream_block_count(d->stream);
    g_autoptr(GBytes) reply = NULL;
    const uint8_t *body;
    gsize size;

    if (!say(d, V1_RAM_BLOCKS_REQUEST, NULL, 0, error)) {
        return false;
    }
    reply = await_reply(d, error);
    if (!reply) {
        return false;
    }
    body = g_bytes_get_data(reply, &size);
    if (size / V1_BLOCK_BYTES != count) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_MISMATCH,
                    "the source has %u RAM blocks, this QEMU %zu: are their command lines alike?",
                    count, size / V1_BLOCK_BYTES);
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        if (!add_block(d, i, body, error)) {
            return false;
        }
    }
    d->named = true;
    return vmf_session_name_ram(d->session, error);
}

/* --- hooks --- */

/* Returns when the next byte of the stream is there: it comes after the RAM before it. */
static bool await_next(LocalDestination *d, GError **error)
{
    const uint8_t *data;

    if (vmf_peek_buffer(d->file, &data, 1, 0)) {
        return true;
    }
    if (vmf_file_check(d->file, error)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the source's stream ends at offset %" G_GUINT64_FORMAT
                    ", where %s should come",
                    vmf_qemu_stream_position(d->stream), vmf_qemu_stream_awaits(d->stream));
    }
    return false;
}

/* QEMU has read a hook, and takes messages about RAM until it hears that RAM is there. */
static bool run_hook(LocalDestination *d, GError **error)
{
    return (d->named || name_ram(d, error)) && await_next(d, error) &&
           say(d, V1_REGISTER_FINISHED, NULL, 0, error);
}

/*
 * The stream of a QEMU that has vmferry in it, or of a file, has no hooks. This QEMU needs one, to
 * say where its blocks are. It comes where a stock source's first one does: after the list.
 */
static bool lacks_hook(const LocalDestination *d)
{
    return d->no_hooks && !d->named && vmf_qemu_stream_blocks_complete(d->stream);
}

static bool insert_hook(LocalDestination *d, GError **error)
{
    uint8_t word[8];
    VmfWriter w = vmf_writer(word, sizeof(word));

    vmf_write_be64(&w, VMF_QEMU_RAM_HOOK);
    return say_stream(d, word, sizeof(word), error) && run_hook(d, error);
}

/* --- the stream --- */

static bool take_greeting(LocalDestination *d, GError **error)
{
    uint32_t magic, flags;

    if (vmf_session_peer_is_qemu(d->session)) {
        return true;
    }
    magic = vmf_get_be32(d->file);
    flags = vmf_get_be32(d->file);
    if (!vmf_file_check(d->file, error)) {
        return false;
    }
    if (magic != VMF_QEMU_GREETING || flags & ~(VMF_QEMU_RETURN_PATH | VMF_QEMU_HOOKS)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the source is not QEMU with vmferry of this version (0x%08x, flags 0x%x)",
                    magic, flags);
        return false;
    }
    d->no_hooks = !(flags & VMF_QEMU_HOOKS);
    d->return_path = flags & VMF_QEMU_RETURN_PATH;
    return true;
}

/* Takes the next bytes as far as the next hook, or the place of the one that is missing. */
static ssize_t scan(LocalDestination *d, const uint8_t *data, size_t size, GError **error)
{
    size_t at = 0;

    if (!d->no_hooks || d->named) {
        return vmf_qemu_stream_scan(d->stream, data, size, true, error);
    }
    while (at < size && !lacks_hook(d)) {
        if (vmf_qemu_stream_scan(d->stream, data + at, 1, true, error) < 0) {
            return -1;
        }
        at++;
    }
    return (ssize_t)at;
}

/* Up to the end of RAM. The piece in which RAM ends is kept, because the stream may end in it. */
static bool feed_ram(LocalDestination *d, GByteArray *kept, GError **error)
{
    const uint8_t *data;

    while (!vmf_qemu_stream_ram_ended(d->stream)) {
        ssize_t taken;
        size_t size;

        if (!await_next(d, error)) {
            return false;
        }
        size = vmf_peek_buffer(d->file, &data, MIN(vmf_file_buffered(d->file), PIECE_BYTES), 0);
        taken = scan(d, data, size, error);
        if (taken < 0) {
            return false;
        }
        if (vmf_qemu_stream_ram_ended(d->stream)) {
            g_byte_array_append(kept, data, (guint)taken);
        } else if (!say_stream(d, data, (size_t)taken, error)) {
            return false;
        }
        vmf_skip(d->file, (size_t)taken);
        if (vmf_qemu_stream_at_hook(d->stream) && !run_hook(d, error)) {
            return false;
        }
        if (lacks_hook(d) && !insert_hook(d, error)) {
            return false;
        }
    }
    return true;
}

/* Everything after RAM. What is kept at the end has EOF in it. */
static bool read_rest(LocalDestination *d, GByteArray *kept, GError **error)
{
    const uint8_t *data;

    while (!vmf_file_at_end(d->file)) {
        size_t size;

        if (!vmf_peek_buffer(d->file, &data, 1, 0)) {
            break;
        }
        size = vmf_peek_buffer(d->file, &data, MIN(vmf_file_buffered(d->file), PIECE_BYTES), 0);
        g_byte_array_append(kept, data, (guint)size);
        vmf_skip(d->file, size);
        if (kept->len > 2 * KEEP_BYTES) {
            if (!say_stream(d, kept->data, kept->len - KEEP_BYTES, error)) {
                return false;
            }
            g_byte_array_remove_range(kept, 0, kept->len - KEEP_BYTES);
        }
    }
    return vmf_file_check(d->file, error);
}

/* --- the end --- */

static bool feed_rest(LocalDestination *d, GByteArray *kept, GError **error)
{
    ssize_t end;

    if (!read_rest(d, kept, error)) {
        return false;
    }
    end = stream_end_find(kept->data, kept->len);
    if (end < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the source's stream does not end as QEMU's does");
        return false;
    }
    /* QEMU asks for more after it has loaded all devices. */
    return say_stream(d, kept->data, (size_t)end, error) && await_ready(d, error) &&
           vmf_session_complete(d->session, error) &&
           say_stream(d, kept->data + end, kept->len - (size_t)end, error);
}

/* --- the thread --- */

static bool feed(LocalDestination *d, GError **error)
{
    g_autoptr(GByteArray) kept = g_byte_array_new();

    return take_greeting(d, error) && await_ready(d, error) &&
           (!d->return_path || local_back_offer(d, error)) && feed_ram(d, kept, error) &&
           feed_rest(d, kept, error);
}

void *local_feed_main(void *opaque)
{
    LocalDestination *d = opaque;
    g_autoptr(GError) error = NULL;

    if (feed(d, &error)) {
        return NULL;
    }
    g_mutex_lock(&d->lock);
    if (!d->said_error) {
        local_report("the incoming migration failed: %s", error->message);
    }
    if (d->link) {
        local_link_break(d->link);
    }
    if (d->back) {
        local_link_break(d->back);
    }
    g_mutex_unlock(&d->lock);
    vmf_session_fail(d->session, g_steal_pointer(&error));
    return NULL;
}
