/* SPDX-License-Identifier: BSD-2-Clause */
/* local-back.c -- the return path of a migration to this process's QEMU */

#include "local-back.h"

static LocalAnswer back_said(LocalLink *link, const LocalMessage *message)
{
    LocalDestination *d = link->owner;
    g_autoptr(GError) error = NULL;

    if (message->header.type != V1_QEMU_FILE) {
        return message->header.type == V1_ERROR ? LOCAL_DONE : LOCAL_FAILED;
    }
    vmf_put_buffer(d->back_file, message->body, message->size);
    if (!vmf_file_flush(d->back_file, &error)) {
        /* After the VM was taken over, the source knows all that matters. */
        return vmf_session_get_owner(d->session) == VMF_OWNER_THIS_SIDE ? LOCAL_DONE : LOCAL_FAILED;
    }
    local_link_say(link, V1_READY, 1, NULL, 0);
    return LOCAL_DONE;
}

static void back_accepted(LocalLink *link)
{
    false_id_established(link->id, NULL);
}

static void back_closed(LocalLink *link)
{
    LocalDestination *d = link->owner;

    g_mutex_lock(&d->lock);
    d->back = NULL;
    g_mutex_unlock(&d->lock);
}

static const LocalLinkOps back_ops = {
    .said = back_said,
    .accepted = back_accepted,
    .closed = back_closed,
};

void local_back_request(struct rdma_cm_id *listening, LocalLink *link)
{
    const V1Capabilities capabilities = {.version = V1_VERSION};
    uint8_t data[V1_CAPABILITIES_BYTES];
    const struct rdma_conn_param param = {.private_data = data, .private_data_len = sizeof(data)};

    v1_capabilities_encode(&capabilities, data);
    false_id_request(listening, &param, NULL, link);
}

bool local_back_offer(LocalDestination *d, GError **error)
{
    LocalLink *link;

    d->back_file = vmf_session_open_return_path(d->session, error)
                       ? vmf_file_get_return_path(d->file, error)
                       : NULL;
    if (!d->back_file) {
        return false;
    }
    link = local_link_new(&back_ops, d, NULL);
    g_mutex_lock(&d->lock);
    d->back = link;
    local_back_request(d->listening, link);
    g_mutex_unlock(&d->lock);
    return true;
}
