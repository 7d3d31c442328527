/* SPDX-License-Identifier: BSD-2-Clause */
/* session-blocks.c -- RAM blocks, and readiness of both sides */

#include <string.h>

#include "base/fault.h"
#include "ram/ram-blocks.h"
#include "session-state.h"

/* --- RAM blocks --- */

static void post_blocks(VmfSession *s)
{
    unsigned count = vmf_ram_blocks_count(s->blocks), next = 0;

    do {
        g_autoptr(GByteArray) list = g_byte_array_new();
        unsigned first = next;

        while (next < count &&
               list->len + MESSAGE_BLOCK_MAX + MESSAGE_HEADER_BYTES < s->conn->control_max) {
            const VmfRamBlock *block = vmf_ram_blocks_get(s->blocks, next++);
            MessageBlock entry = {.length = block->length, .page_size = block->page_size};
            uint8_t bytes[MESSAGE_BLOCK_MAX];

            g_strlcpy(entry.name, block->name, sizeof(entry.name));
            g_byte_array_append(list, bytes, (guint)message_block_encode(&entry, bytes));
        }
        session_post(s, MESSAGE_BLOCKS, next < count ? MESSAGE_MORE : 0, first, list->data,
                     list->len);
    } while (next < count);
}

static bool mismatch(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

static bool mismatch(GError **error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (error) {
        *error = g_error_new_valist(VMF_ERROR, VMF_ERROR_MISMATCH, format, args);
    }
    va_end(args);
    return false;
}

unsigned session_blocks_max(const VmfSession *s)
{
    return ram_blocks_can_grow(s->blocks) ? VMF_RAM_BLOCKS_MAX : vmf_ram_blocks_count(s->blocks);
}

/* As much of a block as the source has of it. */
static const VmfRamBlock *shorter(VmfSession *s, const VmfRamBlock *block, uint64_t length)
{
    VmfRamBlock *part = g_memdup2(block, sizeof(*block));

    part->length = length;
    g_ptr_array_add(s->shorter_blocks, part);
    return part;
}

/* The source's list against ours: the same names, each with the same size. */
bool session_match_blocks(VmfSession *s, GError **error)
{
    g_autoptr(GHashTable) named = g_hash_table_new(g_str_hash, g_str_equal);

    g_free(s->wire_blocks);
    /* The list has no more than the destination's, and one: session_blocks_max(). */
    s->wire_blocks = VMF_FAULT("wire blocks")
                         ? NULL
                         : g_try_new0(const VmfRamBlock *, MAX(s->peer_blocks->len, 1));
    if (!s->wire_blocks) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "no memory for a list of %u RAM blocks",
                    s->peer_blocks->len);
        return false;
    }
    for (unsigned i = 0; i < s->peer_blocks->len; i++) {
        const MessageBlock *peer = &g_array_index(s->peer_blocks, MessageBlock, i);
        const VmfRamBlock *own = vmf_ram_blocks_find(s->blocks, peer->name);

        if (!own && ram_blocks_can_grow(s->blocks)) {
            own = ram_blocks_grow(s->blocks, peer->name, peer->length,
                                  peer->page_size ? peer->page_size : VMF_QEMU_PAGE_BYTES, error);
            if (!own) {
                return false;
            }
        }
        if (!own) {
            return mismatch(error,
                            "the source has a RAM block \"%s\" (%" G_GUINT64_FORMAT
                            " bytes), the destination has none of that name",
                            peer->name, peer->length);
        }
        if (own->length != peer->length && !(own->resizable && peer->length < own->length)) {
            return mismatch(error,
                            "RAM block \"%s\" has %" G_GUINT64_FORMAT
                            " bytes on the source and %" G_GUINT64_FORMAT " on the destination",
                            peer->name, peer->length, own->length);
        }
        if (peer->page_size && own->page_size != peer->page_size) {
            return mismatch(error,
                            "RAM block \"%s\" has pages of %u bytes on the source and of %u on "
                            "the destination",
                            peer->name, peer->page_size, own->page_size);
        }
        if (!g_hash_table_add(named, (void *)own->name)) {
            return mismatch(error, "the source names RAM block \"%s\" twice", peer->name);
        }
        s->wire_blocks[i] = own->length == peer->length ? own : shorter(s, own, peer->length);
    }
    for (unsigned i = 0; i < vmf_ram_blocks_count(s->blocks); i++) {
        const VmfRamBlock *own = vmf_ram_blocks_get(s->blocks, i);
        if (!g_hash_table_contains(named, own->name)) {
            return mismatch(error,
                            "the destination has a RAM block \"%s\" (%" G_GUINT64_FORMAT
                            " bytes), the source has none of that name",
                            own->name, own->length);
        }
    }
    return true;
}

/* --- the rest --- */

/* Waits until *flag, which the control thread sets; it also looks at the set-up's deadline. */
static bool await_flag(VmfSession *s, const bool *flag, GError **error)
{
    bool ok;

    g_mutex_lock(&s->lock);
    while (!*flag && !s->error) {
        g_cond_wait(&s->changed, &s->lock);
    }
    ok = *flag && !s->error;
    g_mutex_unlock(&s->lock);
    return ok || session_report(s, error);
}

static void use_own_order(VmfSession *s)
{
    unsigned count = vmf_ram_blocks_count(s->blocks);

    s->wire_blocks = g_new0(const VmfRamBlock *, MAX(count, 1));
    for (unsigned i = 0; i < count; i++) {
        s->wire_blocks[i] = vmf_ram_blocks_get(s->blocks, i);
    }
}

static bool agree_on_blocks(VmfSession *s, GError **error)
{
    if (s->role == VMF_ROLE_SOURCE) {
        use_own_order(s);
        post_blocks(s);
        /* Both sides look at their memory at the same time. */
        s->scan = ram_scan_new(s->blocks, PRESENCE_READ, error);
        if (!s->scan || !await_flag(s, &s->blocks_agreed, error)) {
            return false;
        }
    } else {
        if (!await_flag(s, &s->blocks_complete, error) || !session_match_blocks(s, error)) {
            return false;
        }
        /* Before anything is registered, for here the block that cannot be written has a name. */
        s->scan = ram_scan_new(s->blocks, PRESENCE_WRITE, error);
        if (!s->scan) {
            return false;
        }
        session_post(s, MESSAGE_BLOCKS_REPLY, 0, 0, NULL, 0);
    }
    s->conn->blocks = s->wire_blocks;
    s->conn->block_count = vmf_ram_blocks_count(s->blocks);
    return true;
}

static void allocate_channels(VmfSession *s)
{
    s->channels = g_new0(SessionChannel, s->conn->channels);
    for (unsigned i = 0; i < s->conn->channels; i++) {
        session_channel_init(&s->channels[i], s, i);
    }
}

bool session_prepare_channels(VmfSession *s, GError **error)
{
    allocate_channels(s);
    if (s->role == VMF_ROLE_SOURCE) { /* a destination has no queue, nor always a stripe yet */
        session_bound_queue(s);
    }
    for (unsigned i = 0; i < s->conn->channels; i++) {
        if (!mailbox_init(&s->channels[i].mailbox, error)) {
            mailbox_clear(&s->channels[i].mailbox);
            return false;
        }
        /* Only a whole one is seen by session_fail, which may run in another thread. */
        g_mutex_lock(&s->lock);
        s->channel_count = i + 1;
        g_mutex_unlock(&s->lock);
    }
    return true;
}

bool session_set_up(VmfSession *s, GError **error)
{
    if (!s->ops->open_channels(s->conn, error) || !agree_on_blocks(s, error) ||
        !s->ops->ram_setup(s->conn, error) || !session_prepare_channels(s, error)) {
        return false;
    }
    if (!session_open_file(s, error) || !session_start_channels(s, error)) {
        return false;
    }
    session_post(s, MESSAGE_READY, 0, 0, NULL, 0);
    if (!await_flag(s, &s->peer_ready, error)) {
        return false;
    }
    g_mutex_lock(&s->lock);
    s->setup_done = true;
    g_mutex_unlock(&s->lock);
    return true;
}

/* --- with stock QEMU --- */

static bool no_item(void *opaque, const VmfQemuItem *item, GError **error)
{
    (void)opaque;
    (void)item;
    (void)error;
    return true;
}

/* Which blocks the destination fills comes in the stream. */
bool session_set_up_foreign(VmfSession *s, GError **error)
{
    const bool source = s->role == VMF_ROLE_SOURCE;

    s->qemu = vmf_qemu_stream_new(source ? qemu_peer_source_item : no_item, s);
    if (source) {
        qemu_hooks_init(&s->hooks);
        use_own_order(s);
        s->conn->blocks = s->wire_blocks;
        s->conn->block_count = vmf_ram_blocks_count(s->blocks);
        s->lengths = g_new0(uint64_t, MAX(s->conn->block_count, 1));
        s->conn->block_lengths = s->lengths;
    }
    s->conn->channels = 1;
    if (!s->ops->open_channels(s->conn, error)) {
        s->conn->channels = 0; /* it has not begun to migrate: a stranger */
        return false;
    }
    if (!s->ops->ram_setup(s->conn, error) || !session_prepare_channels(s, error)) {
        return false;
    }
    s->scan = source ? ram_scan_new(s->blocks, PRESENCE_READ, error) : NULL;
    return (s->scan || !source) && session_open_file(s, error) && session_start_channels(s, error);
}
