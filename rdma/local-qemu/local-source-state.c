/* SPDX-License-Identifier: BSD-2-Clause */
/* local-source-state.c -- what a migration away from this process's QEMU consists of: its life */

#include "local-source-state.h"

LocalSource *local_source_new(struct rdma_cm_id *id, bool pin_all)
{
    LocalSource *s = g_new0(LocalSource, 1);

    g_atomic_ref_count_init(&s->references);
    s->id = id;
    s->pin_all = pin_all;
    s->cancel = g_cancellable_new();
    s->blocks = vmf_ram_blocks_new();
    vmf_ram_blocks_set_late(s->blocks);
    s->rest = g_byte_array_new();
    g_mutex_init(&s->lock);
    g_cond_init(&s->changed);
    return s;
}

void local_source_unref(LocalSource *s)
{
    if (!g_atomic_ref_count_dec(&s->references)) {
        return;
    }
    vmf_ram_blocks_unref(s->blocks);
    vmf_qemu_stream_free(s->stream);
    g_byte_array_unref(s->rest);
    g_object_unref(s->cancel);
    g_cond_clear(&s->changed);
    g_mutex_clear(&s->lock);
    g_free(s);
}
