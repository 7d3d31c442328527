/* SPDX-License-Identifier: BSD-2-Clause */
/* local-destination-state.c -- what a migration to this process's QEMU consists of: its life */

#include "local-destination-state.h"

static bool no_item(void *opaque, const VmfQemuItem *item, GError **error)
{
    (void)opaque;
    (void)item;
    (void)error;
    return true;
}

LocalDestination *local_destination_new(LocalListening *listening, VmfSession *session,
                                        VmfRamBlocks *blocks)
{
    LocalDestination *d = g_new0(LocalDestination, 1);

    g_atomic_ref_count_init(&d->references);
    d->listening = local_listening_ref(listening);
    d->session = session;
    d->file = vmf_session_get_file(session);
    d->blocks = vmf_ram_blocks_ref(blocks);
    d->stream = vmf_qemu_stream_new(no_item, d);
    g_mutex_init(&d->lock);
    g_cond_init(&d->changed);
    return d;
}

void local_destination_unref(LocalDestination *d)
{
    if (!g_atomic_ref_count_dec(&d->references)) {
        return;
    }
    local_listening_unref(d->listening);
    vmf_ram_blocks_unref(d->blocks);
    vmf_qemu_stream_free(d->stream);
    g_clear_pointer(&d->reply, g_bytes_unref);
    g_cond_clear(&d->changed);
    g_mutex_clear(&d->lock);
    g_free(d);
}
