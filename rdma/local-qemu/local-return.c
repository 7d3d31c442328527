/* SPDX-License-Identifier: BSD-2-Clause */
/* local-return.c -- the return path of a migration away, which QEMU makes as a connection */

#include "local-return.h"

#include <string.h>

#include "local-giving.h"
#include "local-report.h"
#include "local-shut.h"
#include "local-switchover.h"
#include "local-thread.h"
#include "return-frames.h"

/* --- which migrations may get one --- */

static struct {
    GMutex lock;
    GSList *sources; /* of LocalSource */
} offers;

void local_return_offer(LocalSource *s)
{
    g_mutex_lock(&offers.lock);
    offers.sources = g_slist_prepend(offers.sources, s);
    g_mutex_unlock(&offers.lock);
}

void local_return_withdraw(LocalSource *s)
{
    g_mutex_lock(&offers.lock);
    offers.sources = g_slist_remove(offers.sources, s);
    g_mutex_unlock(&offers.lock);
}

static bool takes_back(LocalSource *s)
{
    bool takes;

    g_mutex_lock(&s->lock);
    takes = s->takes_back;
    g_mutex_unlock(&s->lock);
    return takes;
}

static LocalSource *find(struct rdma_cm_id *id)
{
    for (GSList *at = offers.sources; at; at = at->next) {
        LocalSource *s = at->data;

        if (takes_back(s) && strcmp(false_id_node(s->id), false_id_node(id)) == 0 &&
            strcmp(false_id_service(s->id), false_id_service(id)) == 0) {
            return s;
        }
    }
    return NULL;
}

/* --- to QEMU --- */

/* Waits until QEMU takes a message. false: it never will. */
static bool await_ready(LocalSource *s)
{
    bool ready;

    g_mutex_lock(&s->lock);
    while (!s->back_ready && !s->closing && s->back) {
        g_cond_wait(&s->changed, &s->lock);
    }
    ready = s->back_ready && s->back;
    s->back_ready -= ready;
    g_mutex_unlock(&s->lock);
    return ready;
}

static void say(LocalSource *s, const void *data, size_t size)
{
    g_mutex_lock(&s->lock);
    s->back_inside = true;
    if (s->back && !s->shut) {
        local_link_say(s->back, V1_QEMU_FILE, 1, data, size);
    }
    g_mutex_unlock(&s->lock);
}

/* Whether the VM was given away, when that is decided. */
static bool await_outcome(LocalSource *s)
{
    g_mutex_lock(&s->lock);
    while (s->giving != GIVING_NOT && s->giving != GIVING_OVER && !s->closing) {
        g_cond_wait(&s->changed, &s->lock);
    }
    g_mutex_unlock(&s->lock);
    return giving_gave(s);
}

static void return_path_ended(LocalSource *s, bool shut)
{
    if (shut) {
        return;
    }
    if (await_outcome(s)) {
        local_shut(s);
        return;
    }
    g_mutex_lock(&s->lock);
    if (s->back) {
        local_link_break(s->back);
    }
    g_mutex_unlock(&s->lock);
}

/* Reads the head of a message. false: there is no more. */
static bool read_header(LocalSource *s, ReturnHeader *header)
{
    const uint8_t *data;

    if (vmf_peek_buffer(s->back_file, &data, RETURN_HEADER_BYTES, 0) < RETURN_HEADER_BYTES) {
        return false;
    }
    return_header_decode(data, header);
    return true;
}

/* How much a stream shows at once. Every message that QEMU has without postcopy is smaller. */
#define SHOWN_BYTES 32768

/*
 * Tells QEMU a message. false: it ends in the middle, or QEMU takes no more. QEMU sees nothing of a
 * message that the peer did not say to its end, so that another one can be told after it.
 */
static bool tell_message(LocalSource *s, size_t left)
{
    const uint8_t *data;

    if (vmf_peek_buffer(s->back_file, &data, MIN(left, SHOWN_BYTES), 0) < MIN(left, SHOWN_BYTES)) {
        return false;
    }
    while (left && await_ready(s)) {
        const size_t size = vmf_peek_buffer(s->back_file, &data, MIN(left, SHOWN_BYTES), 0);

        if (!size) {
            return false;
        }
        say(s, data, size);
        vmf_skip(s->back_file, size);
        left -= size;
    }
    if (!left) {
        switchover_between_messages(s);
    }
    return !left;
}

static void *read_main(void *opaque)
{
    LocalSource *s = opaque;
    ReturnHeader header;
    bool shut = false;

    while (read_header(s, &header)) {
        if (header.type == RETURN_SWITCHOVER_ACK && !header.bytes) {
            vmf_skip(s->back_file, RETURN_HEADER_BYTES);
            switchover_acknowledged(s);
            continue;
        }
        if (!tell_message(s, RETURN_HEADER_BYTES + header.bytes)) {
            break;
        }
        shut |= header.type == RETURN_SHUT;
    }
    return_path_ended(s, shut);
    return NULL;
}

/* --- from QEMU --- */

static LocalAnswer said(LocalLink *link, const LocalMessage *message)
{
    LocalSource *s = link->owner;

    if (message->header.type == V1_READY) {
        g_mutex_lock(&s->lock);
        s->back_ready++;
        g_cond_broadcast(&s->changed);
        g_mutex_unlock(&s->lock);
    }
    return message->header.type == V1_READY || message->header.type == V1_ERROR ? LOCAL_DONE
                                                                                : LOCAL_FAILED;
}

static void closed(LocalLink *link)
{
    LocalSource *s = link->owner;

    g_mutex_lock(&s->lock);
    s->back = NULL;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    local_source_unref(s);
}

static const LocalLinkOps return_ops = {.said = said, .closed = closed};

static bool open_back(LocalSource *s, GError **error)
{
    s->back_file = vmf_session_open_return_path(s->session, error)
                       ? vmf_file_get_return_path(s->file, error)
                       : NULL;
    return s->back_file != NULL;
}

/* If it fails, QEMU ends the id, and so the link. */
static LocalLink *begin_back(LocalSource *s, struct rdma_cm_id *id)
{
    LocalLink *link = local_link_new(&return_ops, s, id);

    g_atomic_ref_count_inc(&s->references);
    g_mutex_lock(&s->lock);
    s->back = link;
    s->takes_back = false;
    g_mutex_unlock(&s->lock);
    s->back_reader = local_thread_new("vmferry-return", read_main, s);
    return s->back_reader ? link : NULL;
}

bool local_return_connect(struct rdma_cm_id *id, LocalLink **link)
{
    g_autoptr(GError) error = NULL;
    LocalSource *s;

    *link = NULL;
    g_mutex_lock(&offers.lock);
    s = find(id);
    if (s && open_back(s, &error)) {
        *link = begin_back(s, id);
    } else if (s) {
        local_report("there is no return path: %s", error->message);
    }
    g_mutex_unlock(&offers.lock);
    return s != NULL;
}
