/* SPDX-License-Identifier: BSD-2-Clause */
/* session-stats.c -- counters of a session */

#include <string.h>

#include "device/device-set.h"
#include "session/session-state.h"

static uint64_t load(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void add_channel(VmfStats *stats, const VmfChannelCounters *c)
{
    stats->ram_written += load(&c->ram_written);
    stats->writes += load(&c->writes);
    stats->doorbells += load(&c->doorbells);
    stats->inflight_bytes += load(&c->inflight_bytes);
    stats->registrations += load(&c->registrations);
    stats->evictions += load(&c->evictions);
    stats->registered_bytes += load(&c->registered_bytes);
    stats->registration_ns += load(&c->registration_ns);
}

void vmf_session_get_stats(VmfSession *s, VmfStats *out)
{
    VmfStats stats = {0};
    uint32_t size = out->size;

    for (unsigned i = 0; i < s->channel_count; i++) {
        add_channel(&stats, &s->conn->counters[i]);
    }
    stats.size = MIN(size, (uint32_t)sizeof(stats));
    stats.channels = s->channel_count;
    stats.ram_bytes = load(&s->ram_bytes);
    stats.zero_bytes = load(&s->zero_bytes);
    stats.last_flush_ns = load(&s->last_flush_ns);
    g_mutex_lock(&s->lock);
    stats.stream_bytes = s->stream_bytes;
    stats.device_bytes = load(&s->device_bytes);
    stats.syncs = s->role == VMF_ROLE_SOURCE ? s->sync_number : session_seen_locked(s);
    stats.own_bytes = (s->out_ring.data ? STREAM_RING : 0) + (s->in_ring.data ? STREAM_RING : 0);
    g_mutex_unlock(&s->lock);
    stats.own_bytes += s->devices ? s->devices->memory_bytes : 0;
    stats.own_bytes += s->conn->own_bytes + sizeof(*s) +
                       s->channel_count * (sizeof(SessionChannel) + 3 * sizeof(Payload));
    if (!s->conn->foreign || s->role == VMF_ROLE_SOURCE) { /* else it is made later */
        stats.own_bytes += ram_scan_own_bytes(s->scan);
    }
    stats.setup_ns = s->setup_ns;
    stats.chunk_size = s->conn->chunk_size;
    stats.max_inflight = s->conn->max_inflight;
    stats.populated_bytes = s->populated_bytes;
    stats.queue_max = s->role == VMF_ROLE_SOURCE ? s->queue_max : 0;
    g_strlcpy(stats.registration, s->conn->registration ? s->conn->registration : "none",
              sizeof(stats.registration));
    memcpy(out, &stats, stats.size);
}
