/* SPDX-License-Identifier: BSD-2-Clause */
/* session-blocks.c -- the RAM blocks of both sides, and their numbers on the wire */

#include "session-blocks.h"

#include <string.h>

#include "base/fault.h"
#include "ram/ram-blocks.h"
#include "session-post.h"

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
    return ram_blocks_can_grow(s->blocks.set) || ram_blocks_late(s->blocks.set)
               ? VMF_RAM_BLOCKS_MAX
               : vmf_ram_blocks_count(s->blocks.set);
}

/* A copy of a block, as long as the source's. */
static const VmfRamBlock *shorter(VmfSession *s, const VmfRamBlock *block, uint64_t length)
{
    VmfRamBlock *part = g_memdup2(block, sizeof(*block));

    part->length = length;
    g_ptr_array_add(s->blocks.shorter, part);
    return part;
}

/*
 * Names and page sizes must be equal on both sides. Lengths must be, too, unless the block is
 * resizable.
 */
bool session_match_blocks(VmfSession *s, GError **error)
{
    g_autoptr(GHashTable) named = g_hash_table_new(g_str_hash, g_str_equal);

    g_free(s->blocks.wire);
    /* session_blocks_max() bounds the list, to one more than that. */
    s->blocks.wire = VMF_FAULT("wire blocks")
                         ? NULL
                         : g_try_new0(const VmfRamBlock *, MAX(s->peer.blocks->len, 1));
    if (!s->blocks.wire) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "no memory for a list of %u RAM blocks",
                    s->peer.blocks->len);
        return false;
    }
    for (unsigned i = 0; i < s->peer.blocks->len; i++) {
        const MessageBlock *peer = &g_array_index(s->peer.blocks, MessageBlock, i);
        const VmfRamBlock *own = vmf_ram_blocks_find(s->blocks.set, peer->name);

        if (!own && ram_blocks_can_grow(s->blocks.set)) {
            own = ram_blocks_grow(s->blocks.set, peer->name, peer->length,
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
        s->blocks.wire[i] = own->length == peer->length ? own : shorter(s, own, peer->length);
    }
    for (unsigned i = 0; i < vmf_ram_blocks_count(s->blocks.set); i++) {
        const VmfRamBlock *own = vmf_ram_blocks_get(s->blocks.set, i);
        if (!g_hash_table_contains(named, own->name)) {
            return mismatch(error,
                            "the destination has a RAM block \"%s\" (%" G_GUINT64_FORMAT
                            " bytes), the source has none of that name",
                            own->name, own->length);
        }
    }
    return true;
}

void session_post_blocks(VmfSession *s)
{
    unsigned count = vmf_ram_blocks_count(s->blocks.set), next = 0;

    do {
        g_autoptr(GByteArray) list = g_byte_array_new();
        unsigned first = next;

        while (next < count &&
               list->len + MESSAGE_BLOCK_MAX + MESSAGE_HEADER_BYTES < s->conn->control_max) {
            const VmfRamBlock *block = vmf_ram_blocks_get(s->blocks.set, next++);
            MessageBlock entry = {.length = block->length, .page_size = block->page_size};
            uint8_t bytes[MESSAGE_BLOCK_MAX];

            g_strlcpy(entry.name, block->name, sizeof(entry.name));
            g_byte_array_append(list, bytes, (guint)message_block_encode(&entry, bytes));
        }
        session_post(s, MESSAGE_BLOCKS, next < count ? MESSAGE_MORE : 0, first, list->data,
                     list->len);
    } while (next < count);
}

void session_use_own_order(VmfSession *s)
{
    unsigned count = vmf_ram_blocks_count(s->blocks.set);

    s->blocks.wire = g_new0(const VmfRamBlock *, MAX(count, 1));
    for (unsigned i = 0; i < count; i++) {
        s->blocks.wire[i] = vmf_ram_blocks_get(s->blocks.set, i);
    }
}

bool session_take_blocks(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                         GError **error)
{
    size_t left = header->length;

    while (left) {
        MessageBlock block;
        size_t taken = message_block_decode(payload, left, &block, error);

        if (!taken) {
            return false;
        }
        payload += taken;
        left -= taken;
        /* One block more than there can be is enough to name it in the error. */
        if (s->peer.blocks->len > session_blocks_max(s)) {
            break;
        }
        g_array_append_val(s->peer.blocks, block);
    }
    if (!(header->flags & MESSAGE_MORE) || left) {
        g_mutex_lock(&s->core.lock);
        s->peer.blocks_complete = true;
        g_cond_broadcast(&s->core.changed);
        g_mutex_unlock(&s->core.lock);
    }
    return true;
}
