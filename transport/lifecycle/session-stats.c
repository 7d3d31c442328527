/* SPDX-License-Identifier: BSD-2-Clause */
/* session-stats.c -- counters of a session */

#include <string.h>

#include "session/session-waking.h"
#include "device/device-set.h"

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
    stats.ram_bytes = load(&s->counters.ram_bytes);
    stats.zero_bytes = load(&s->counters.zero_bytes);
    stats.last_flush_ns = load(&s->counters.last_flush_ns);
    g_mutex_lock(&s->core.lock);
    stats.stream_bytes = s->streams.bytes;
    stats.device_bytes = load(&s->devices->bytes);
    stats.syncs = s->role == VMF_ROLE_SOURCE ? s->streams.sync_number : session_seen_locked(s);
    stats.own_bytes = s->blocks.scan ? ram_scan_own_bytes(s->blocks.scan) : 0;
    stats.own_bytes +=
        (s->streams.out_ring.data ? STREAM_RING : 0) + (s->streams.in_ring.data ? STREAM_RING : 0);
    g_mutex_unlock(&s->core.lock);
    stats.own_bytes += s->devices->memory_bytes;
    stats.own_bytes += s->conn->own_bytes + sizeof(*s) +
                       s->channel_count * (sizeof(SessionChannel) + 3 * sizeof(Payload));
    stats.setup_ns = s->setup.ns;
    stats.chunk_size = s->conn->chunk_size;
    stats.max_inflight = s->conn->max_inflight;
    stats.populated_bytes = s->blocks.populated ? populated_bytes(s->blocks.populated) : 0;
    stats.queue_max = s->role == VMF_ROLE_SOURCE ? s->ram.queue_max : 0;
    g_strlcpy(stats.registration, s->conn->registration ? s->conn->registration : "none",
              sizeof(stats.registration));
    memcpy(out, &stats, stats.size);
}
