/* SPDX-License-Identifier: BSD-2-Clause */
/* local-destination.c -- migrations to this process's QEMU, over sessions of vmferry */

#include "local-destination.h"

#include <errno.h>

#include "local-back.h"
#include "local-discards.h"
#include "local-end.h"
#include "local-feed.h"
#include "local-report.h"
#include "local-thread.h"
#include "local-uri.h"

/* What QEMU listens with. */
typedef struct Listening {
    LocalListening *listening;
    VmfListener *listener;
    GCancellable *cancel;
    GThread *accepter;
} Listening;

/* --- from QEMU --- */

static void note_gone(LocalDestination *d, bool error)
{
    g_mutex_lock(&d->lock);
    d->gone = true;
    d->said_error |= error;
    g_cond_broadcast(&d->changed);
    g_mutex_unlock(&d->lock);
}

static LocalAnswer said(LocalLink *link, const LocalMessage *message)
{
    LocalDestination *d = link->owner;

    switch (message->header.type) {
    case V1_READY:
        g_mutex_lock(&d->lock);
        d->ready++;
        g_cond_broadcast(&d->changed);
        g_mutex_unlock(&d->lock);
        return LOCAL_DONE;
    case V1_RAM_BLOCKS_RESULT:
        g_mutex_lock(&d->lock);
        g_clear_pointer(&d->reply, g_bytes_unref);
        d->reply = g_bytes_new(message->body, message->size);
        g_cond_broadcast(&d->changed);
        g_mutex_unlock(&d->lock);
        return LOCAL_DONE;
    case V1_ERROR:
        note_gone(d, true);
        return LOCAL_DONE;
    default:
        local_report("this QEMU says what a destination does not say (%s)",
                     v1_type_name(message->header.type));
        return LOCAL_FAILED;
    }
}

static void accepted(LocalLink *link)
{
    LocalDestination *d = link->owner;

    false_id_established(link->id, NULL);
    d->feeder = local_thread_new("vmferry-feed", local_feed_main, d);
    if (!d->feeder) {
        false_id_disconnected(link->id);
    }
}

static void disconnected(LocalLink *link)
{
    note_gone(link->owner, false);
}

/* QEMU may still use its return path. */
static void close_back_file(LocalDestination *d)
{
    VmfFile *file;

    g_mutex_lock(&d->lock);
    file = g_steal_pointer(&d->back_file);
    while (d->back_busy) {
        g_cond_wait(&d->changed, &d->lock);
    }
    g_mutex_unlock(&d->lock);
    vmf_file_free(file);
}

static void end_destination(void *opaque)
{
    LocalDestination *d = opaque;

    if (vmf_session_get_owner(d->session) != VMF_OWNER_THIS_SIDE) {
        vmf_session_cancel(d->session);
    }
    local_thread_end(d->feeder);
    close_back_file(d);
    vmf_session_free(d->session);
    local_discards_remove(d->blocks);
    local_destination_unref(d);
}

static void closed(LocalLink *link)
{
    LocalDestination *d = link->owner;

    g_mutex_lock(&d->lock);
    d->link = NULL;
    d->gone = true;
    g_cond_broadcast(&d->changed);
    g_mutex_unlock(&d->lock);
    local_end_run("vmferry-end", end_destination, d);
}

static const LocalLinkOps destination_ops = {
    .said = said,
    .accepted = accepted,
    .disconnected = disconnected,
    .closed = closed,
};

/* --- accepting --- */

static void offer(Listening *l, VmfSession *session, VmfRamBlocks *blocks)
{
    LocalDestination *d = local_destination_new(l->listening, session, blocks);
    LocalLink *link = local_link_new(&destination_ops, d, NULL);

    d->link = link;
    if (!local_listening_request(l->listening, link)) {
        local_link_free(link);
        end_destination(d);
    }
}

static void *accept_main(void *opaque)
{
    Listening *l = opaque;
    /* One set for all sources that fail: it knows which memory was made resident for them. */
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();

    vmf_ram_blocks_set_late(blocks);
    vmf_ram_blocks_expect_unforked(blocks); /* QEMU tells where its RAM is after it is connected */
    for (;;) {
        g_autoptr(GError) error = NULL;
        VmfSession *session;

        session = vmf_session_accept(l->listener, blocks, l->cancel, &error);
        if (session) {
            offer(l, session, blocks);
            return NULL; /* QEMU takes one migration */
        }
        if (g_cancellable_is_cancelled(l->cancel)) {
            return NULL;
        }
        if (g_error_matches(error, VMF_ERROR, VMF_ERROR_DEVICE)) {
            local_report("no longer listening: %s", error->message);
            return NULL;
        }
        local_report("a source failed to set a migration up (still listening): %s", error->message);
    }
}

static void end_listening(void *opaque)
{
    Listening *l = opaque;

    local_thread_end(l->accepter);
    vmf_listener_free(l->listener);
    local_listening_unref(l->listening);
    g_object_unref(l->cancel);
    g_free(l);
}

static void unlisten(LocalLink *link)
{
    Listening *l = link->owner;

    local_listening_close(l->listening);
    g_cancellable_cancel(l->cancel);
    local_end_run("vmferry-end", end_listening, l);
}

static const LocalLinkOps listening_ops = {.closed = unlisten};

int local_destination_listen(struct rdma_cm_id *id)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmfUri) uri = local_uri_new(false_id_node(id), false_id_service(id), false, &error);
    VmfListener *listener = uri ? vmf_listener_new(uri, &error) : NULL;
    Listening *l;

    if (!listener) {
        local_report("cannot listen on %s port %s: %s", false_id_node(id), false_id_service(id),
                     error->message);
        return EADDRNOTAVAIL;
    }
    l = g_new0(Listening, 1);
    l->listening = local_listening_new(id, (gint64)vmf_uri_get_uint(uri, "connect-timeout") *
                                               G_TIME_SPAN_MILLISECOND);
    l->listener = listener;
    l->cancel = g_cancellable_new();
    local_link_new(&listening_ops, l, id);
    l->accepter = local_thread_new("vmferry-accept", accept_main, l);
    return l->accepter ? 0 : EAGAIN; /* QEMU ends the id, and so what is here */
}
