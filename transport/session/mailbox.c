/* SPDX-License-Identifier: BSD-2-Clause */
/* mailbox.c -- the mailbox that hands payloads over to a channel's thread */

#include "mailbox.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fault.h"

void payload_free(Payload *payload)
{
    if (payload && payload->kind == PAYLOAD_STREAM) {
        g_free(payload->stream.data);
    }
    g_free(payload);
}

bool mailbox_init(Mailbox *mailbox, GError **error)
{
    g_mutex_init(&mailbox->lock);
    g_cond_init(&mailbox->emptied);
    mailbox->payload = g_new0(Payload, 1);
    mailbox->wake_fd = VMF_FAULT("eventfd mailbox") ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mailbox->wake_fd < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot create an event descriptor: %s",
                    g_strerror(errno));
        return false;
    }
    return true;
}

void mailbox_clear(Mailbox *mailbox)
{
    if (!mailbox->payload) {
        return;
    }
    if (mailbox->wake_fd >= 0) {
        close(mailbox->wake_fd);
    }
    g_clear_pointer(&mailbox->payload, payload_free);
    g_cond_clear(&mailbox->emptied);
    g_mutex_clear(&mailbox->lock);
}

static void wake(Mailbox *mailbox)
{
    const uint64_t one = 1;

    /* It fails only if the counter is full, and then wake_fd is readable anyway. */
    (void)!write(mailbox->wake_fd, &one, sizeof(one));
}

static bool put(Mailbox *mailbox, Payload **payload, bool waits)
{
    Payload *empty;
    bool sleeping;

    g_mutex_lock(&mailbox->lock);
    while (waits && mailbox->full && !mailbox->closed) {
        g_cond_wait(&mailbox->emptied, &mailbox->lock);
    }
    if (mailbox->full || mailbox->closed) {
        g_mutex_unlock(&mailbox->lock);
        return false;
    }
    empty = mailbox->payload;
    mailbox->payload = *payload;
    *payload = empty;
    mailbox->full = true;
    sleeping = mailbox->sleeping;
    mailbox->sleeping = false;
    g_mutex_unlock(&mailbox->lock);
    if (sleeping) {
        wake(mailbox);
    }
    return true;
}

bool mailbox_put(Mailbox *mailbox, Payload **payload)
{
    return put(mailbox, payload, true);
}

bool mailbox_try_put(Mailbox *mailbox, Payload **payload)
{
    return put(mailbox, payload, false);
}

bool mailbox_has_room(Mailbox *mailbox)
{
    bool room;

    g_mutex_lock(&mailbox->lock);
    room = !mailbox->full;
    g_mutex_unlock(&mailbox->lock);
    return room;
}

bool mailbox_take(Mailbox *mailbox, Payload **payload)
{
    bool taken;

    g_mutex_lock(&mailbox->lock);
    taken = mailbox->full;
    if (taken) {
        Payload *full = mailbox->payload;

        mailbox->payload = *payload;
        *payload = full;
        mailbox->full = false;
        g_cond_signal(&mailbox->emptied);
    } else {
        mailbox->sleeping = true;
    }
    g_mutex_unlock(&mailbox->lock);
    return taken;
}

void mailbox_awake(Mailbox *mailbox)
{
    uint64_t count;

    (void)!read(mailbox->wake_fd, &count, sizeof(count));
    g_mutex_lock(&mailbox->lock);
    mailbox->sleeping = false;
    g_mutex_unlock(&mailbox->lock);
}

void mailbox_close(Mailbox *mailbox)
{
    g_mutex_lock(&mailbox->lock);
    mailbox->closed = true;
    g_cond_broadcast(&mailbox->emptied);
    g_mutex_unlock(&mailbox->lock);
    wake(mailbox);
}
