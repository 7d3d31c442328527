/* SPDX-License-Identifier: BSD-2-Clause */
/* false-channel.c -- event channels of a false RDMA device, and the events in them */

#include "false-objects.h"

#include <errno.h>
#include <unistd.h>

#include "event-fd.h"

struct rdma_event_channel *false_create_event_channel(FalseDevice *device)
{
    int fd = event_fd_new();
    FalseChannel *channel;

    if (fd < 0) {
        return NULL;
    }
    channel = g_new0(FalseChannel, 1);
    channel->channel.fd = fd;
    channel->device = device;
    g_queue_init(&channel->events);
    g_mutex_lock(&device->lock);
    g_hash_table_add(device->channels, channel);
    g_mutex_unlock(&device->lock);
    return &channel->channel;
}

static void free_if_unused_locked(FalseChannel *channel)
{
    if (channel->closed && !channel->ids) {
        g_hash_table_remove(channel->device->channels, channel);
        g_free(channel);
    }
}

void channel_unref_locked(FalseChannel *channel)
{
    channel->ids--;
    free_if_unused_locked(channel);
}

bool false_channel_owned(FalseDevice *device, const struct rdma_event_channel *channel)
{
    bool owned;

    g_mutex_lock(&device->lock);
    owned = g_hash_table_contains(device->channels, channel);
    g_mutex_unlock(&device->lock);
    return owned;
}

void channel_post_locked(FalseChannel *channel, FalseEvent *event)
{
    if (event->owner->dying || channel->closed) {
        g_free(event);
        return;
    }
    g_queue_push_tail(&channel->events, event);
    if (channel->events.length == 1) {
        event_fd_raise(channel->channel.fd);
    }
}

GList *channel_discard_locked(FalseChannel *channel, const FalseId *id)
{
    GList *discarded = NULL, *next;
    const bool had_some = channel->events.length;

    for (GList *at = channel->events.head; at; at = next) {
        const FalseEvent *event = at->data;

        next = at->next;
        if (!id || event->owner == id) {
            g_queue_unlink(&channel->events, at);
            discarded = g_list_concat(at, discarded);
        }
    }
    if (had_some && !channel->events.length) {
        event_fd_lower(channel->channel.fd);
    }
    return g_list_reverse(discarded);
}

void channel_abandon(GList *events)
{
    for (GList *at = events; at; at = at->next) {
        const FalseEvent *event = at->data;

        if (event->abandon) {
            event->abandon(event->event.id);
        }
    }
    g_list_free_full(events, g_free);
}

void false_destroy_event_channel(struct rdma_event_channel *channel)
{
    FalseChannel *ours = (FalseChannel *)channel;
    FalseDevice *device = ours->device;
    GList *unread;

    g_mutex_lock(&device->lock);
    unread = channel_discard_locked(ours, NULL);
    ours->closed = true;
    ours->ids++; /* it stays until the last of these lines */
    g_mutex_unlock(&device->lock);

    channel_abandon(unread);
    close(channel->fd);
    channel->fd = -1;
    g_mutex_lock(&device->lock);
    channel_unref_locked(ours);
    g_mutex_unlock(&device->lock);
}

int false_get_cm_event(struct rdma_event_channel *channel, struct rdma_cm_event **event)
{
    FalseChannel *ours = (FalseChannel *)channel;

    for (;;) {
        FalseEvent *first;

        g_mutex_lock(&ours->device->lock);
        first = g_queue_pop_head(&ours->events);
        if (first) {
            first->owner->reported++;
            if (!ours->events.length) {
                event_fd_lower(channel->fd);
            }
        }
        g_mutex_unlock(&ours->device->lock);
        if (first) {
            *event = &first->event;
            return 0;
        }
        if (!event_fd_wait(channel->fd)) {
            return -1;
        }
    }
}

int false_ack_cm_event(struct rdma_cm_event *event)
{
    FalseEvent *ours = (FalseEvent *)event;
    FalseDevice *device;

    if (!event) {
        errno = EINVAL;
        return -1;
    }
    device = ours->owner->channel->device;
    g_mutex_lock(&device->lock);
    ours->owner->acknowledged++;
    g_cond_broadcast(&device->acknowledged);
    g_mutex_unlock(&device->lock);
    g_free(ours);
    return 0;
}
