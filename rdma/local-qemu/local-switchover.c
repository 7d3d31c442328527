/* SPDX-License-Identifier: BSD-2-Clause */
/* local-switchover.c -- when this process's QEMU may stop the VM: rounds, and the acknowledgement
 */

#include "local-switchover.h"

#include "return-frames.h"

/* A pass that writes no more than this is as small as it gets. */
#define SMALL_BYTES (256u << 10)

/* --- the acknowledgement --- */

static void say_ack_locked(LocalSource *s)
{
    uint8_t message[RETURN_HEADER_BYTES];

    if (!s->switchover.allowed || !s->switchover.acknowledged || s->switchover.told ||
        s->back_inside || !s->back || s->shut) {
        return;
    }
    return_ack_encode(message);
    local_link_say(s->back, V1_QEMU_FILE, 1, message, sizeof(message));
    s->switchover.told = true;
}

void switchover_acknowledged(LocalSource *s)
{
    g_mutex_lock(&s->lock);
    s->switchover.acknowledged = true;
    say_ack_locked(s);
    g_mutex_unlock(&s->lock);
}

void switchover_between_messages(LocalSource *s)
{
    g_mutex_lock(&s->lock);
    s->back_inside = false;
    say_ack_locked(s);
    g_mutex_unlock(&s->lock);
}

static void allow(LocalSource *s)
{
    g_mutex_lock(&s->lock);
    s->switchover.allowed = true;
    say_ack_locked(s);
    g_mutex_unlock(&s->lock);
}

/* --- passes --- */

void switchover_begin(LocalSource *s, const VmfUri *uri)
{
    s->rounds.wait_us = (gint64)vmf_uri_get_uint(uri, "switchover-wait") * G_TIME_SPAN_MILLISECOND;
    if (!s->rounds.wait_us) {
        allow(s);
    }
}

static bool comes_before(const LocalSource *s, unsigned block, uint64_t offset)
{
    return block < s->rounds.block || (block == s->rounds.block && offset < s->rounds.offset);
}

/* A pass is over. The first one decides nothing, because it has all of RAM. */
static void end_pass(LocalSource *s)
{
    const uint64_t bytes = s->rounds.bytes, before = s->rounds.before;

    s->rounds.enough |= before && (bytes <= SMALL_BYTES || bytes > before / 10 * 9);
    if (!before) {
        s->rounds.until = g_get_monotonic_time() + s->rounds.wait_us;
    }
    s->rounds.before = MAX(bytes, 1);
    s->rounds.bytes = 0;
}

void switchover_wrote(LocalSource *s, unsigned block, uint64_t offset, uint64_t bytes)
{
    if (!s->rounds.wait_us) {
        return;
    }
    if (comes_before(s, block, offset)) {
        end_pass(s);
    }
    s->rounds.block = block;
    s->rounds.offset = offset;
    s->rounds.bytes += bytes;
    s->rounds.wrote = true;
}

void switchover_slice(LocalSource *s)
{
    const bool idle = !s->rounds.wrote; /* nothing was dirty */

    s->rounds.wrote = false;
    if (s->rounds.wait_us && (idle || s->rounds.enough ||
                              (s->rounds.until && g_get_monotonic_time() >= s->rounds.until))) {
        s->rounds.wait_us = 0;
        allow(s);
    }
}
