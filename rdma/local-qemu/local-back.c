/* SPDX-License-Identifier: BSD-2-Clause */
/* local-back.c -- the return path of a migration to this process's QEMU */

#include "local-back.h"

/* The session's return path, for QEMU's thread. NULL: the session ends. */
static VmfFile *take_file(LocalDestination *d)
{
    VmfFile *file;

    g_mutex_lock(&d->lock);
    file = d->back_file;
    d->back_busy = file != NULL;
    g_mutex_unlock(&d->lock);
    return file;
}

static void give_file_back(LocalDestination *d)
{
    g_mutex_lock(&d->lock);
    d->back_busy = false;
    g_cond_broadcast(&d->changed);
    g_mutex_unlock(&d->lock);
}

/* After the VM was taken over, the source knows all that matters, so that a loss is no failure. */
static LocalAnswer pass_on(LocalLink *link, VmfFile *file, const LocalMessage *message)
{
    LocalDestination *d = link->owner;
    g_autoptr(GError) error = NULL;

    vmf_put_buffer(file, message->body, message->size);
    if (!vmf_file_flush(file, &error)) {
        return vmf_session_get_owner(d->session) == VMF_OWNER_THIS_SIDE ? LOCAL_DONE : LOCAL_FAILED;
    }
    local_link_say(link, V1_READY, 1, NULL, 0);
    return LOCAL_DONE;
}

static LocalAnswer back_said(LocalLink *link, const LocalMessage *message)
{
    LocalDestination *d = link->owner;
    LocalAnswer answer;
    VmfFile *file;

    if (message->header.type != V1_QEMU_FILE) {
        return message->header.type == V1_ERROR ? LOCAL_DONE : LOCAL_FAILED;
    }
    file = take_file(d);
    if (!file) {
        return LOCAL_FAILED;
    }
    answer = pass_on(link, file, message);
    give_file_back(d);
    return answer;
}

static void back_accepted(LocalLink *link)
{
    LocalDestination *d = link->owner;

    false_id_established(link->id, NULL);
    g_mutex_lock(&d->lock);
    d->back_accepted = true;
    g_cond_broadcast(&d->changed);
    g_mutex_unlock(&d->lock);
}

static void back_closed(LocalLink *link)
{
    LocalDestination *d = link->owner;

    g_mutex_lock(&d->lock);
    d->back = NULL;
    g_cond_broadcast(&d->changed);
    g_mutex_unlock(&d->lock);
    local_destination_unref(d);
}

static const LocalLinkOps back_ops = {
    .said = back_said,
    .accepted = back_accepted,
    .closed = back_closed,
};

static bool open_file(LocalDestination *d, GError **error)
{
    VmfFile *file = vmf_session_open_return_path(d->session, error)
                        ? vmf_file_get_return_path(d->file, error)
                        : NULL;

    g_mutex_lock(&d->lock);
    d->back_file = file;
    g_mutex_unlock(&d->lock);
    return file != NULL;
}

/* QEMU writes to its return path as soon as the stream says so, accepted or not. */
static bool await_accepted(LocalDestination *d, GError **error)
{
    const gint64 until = g_get_monotonic_time() + local_listening_accept_us(d->listening);
    bool accepted, in_time = true;

    g_mutex_lock(&d->lock);
    while (!d->back_accepted && d->back && !d->gone && in_time) {
        in_time = g_cond_wait_until(&d->changed, &d->lock, until);
    }
    accepted = d->back_accepted;
    g_mutex_unlock(&d->lock);
    if (!accepted) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_MISMATCH,
                    "the source wants a return path, and this QEMU accepts none: switch the "
                    "return-path capability on, or off, on both sides");
    }
    return accepted;
}

bool local_back_offer(LocalDestination *d, GError **error)
{
    LocalLink *link;

    if (!open_file(d, error)) {
        return false;
    }
    link = local_link_new(&back_ops, d, NULL);
    g_atomic_ref_count_inc(&d->references);
    g_mutex_lock(&d->lock);
    d->back = link;
    if (!local_listening_request(d->listening, link)) {
        /* QEMU takes no more connections, so it ends. */
        d->back = NULL;
        local_link_free(link);
        local_destination_unref(d);
    }
    g_mutex_unlock(&d->lock);
    return await_accepted(d, error);
}
