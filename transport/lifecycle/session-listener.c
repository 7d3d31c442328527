/* SPDX-License-Identifier: BSD-2-Clause */
/* session-listener.c -- a destination's listener: accepting sessions, and making RAM ready */

#include "ram/populate.h"
#include "ram/ram-blocks.h"
#include "session-lifecycle.h"
#include "session/session-answer.h"
#include "session/session-core.h"

struct VmfListener {
    Listening *listening;
    char *address;
    Populate *populate; /* the next session's RAM, or NULL */
};

VmfListener *vmf_listener_new(const VmfUri *uri, GError **error)
{
    GError *failure = NULL;
    Listening *listening = listening_new(uri, &failure);
    VmfListener *listener;

    if (!listening) {
        session_need_error(&failure, "listening");
        g_propagate_error(error, failure);
        return NULL;
    }
    listener = g_new0(VmfListener, 1);
    listener->listening = listening;
    listener->address = listening_ops(listening)->listener_address(listening_transport(listening));
    return listener;
}

const char *vmf_listener_address(const VmfListener *listener)
{
    return listener->address;
}

void vmf_listener_free(VmfListener *listener)
{
    if (listener) {
        populate_free(listener->populate);
        listening_disown(listener->listening);
        listening_unref(listener->listening);
        g_free(listener->address);
        g_free(listener);
    }
}

/* Waits for a connection, and uses that time to make RAM ready. */
static VmfConn *await_connection(VmfListener *listener, VmfSession *s, GError **error)
{
    VmfConn *conn;

    if (listener->populate) {
        populate_run(listener->populate);
    }
    conn = listening_accept(listener->listening, s->core.cancel, &s->reach.first, error);
    if (listener->populate) {
        populate_pause(listener->populate);
    }
    return conn;
}

static bool accept_one(VmfListener *listener, VmfSession *s, VmfConn *conn, GError **error)
{
    session_adopt(s, conn, listening_ops(listener->listening), listening_uri(listener->listening));
    s->reach.listening = listening_ref(listener->listening);
    s->setup.began = g_get_monotonic_time();
    if (listener->populate) { /* the session gives back what it does not need */
        s->blocks.populated = populate_result(listener->populate);
    }
    return session_make_ready(s, listening_uri(listener->listening), error);
}

static VmfSession *accept_named(VmfListener *listener, VmfRamBlocks *blocks,
                                GCancellable *cancellable, GError **error)
{
    for (;;) {
        VmfSession *s = session_new(VMF_ROLE_DESTINATION, blocks);
        gulong chained = session_chain(s, cancellable);
        VmfConn *conn = NULL;
        GError *failure = NULL;
        bool named = false;

        if (session_make_descriptors(s, &failure)) {
            conn = await_connection(listener, s, &failure);
        }
        if (conn) {
            if (accept_one(listener, s, conn, &failure)) {
                return session_finish(s, true, cancellable, chained);
            }
            /* The channel count is known after a HELLO was understood. */
            named = conn->channels != 0;
        }
        session_finish(s, false, cancellable, chained);
        if (!conn || named || g_cancellable_is_cancelled(cancellable)) {
            session_need_error(&failure, "waiting for a source");
            g_propagate_error(error, failure);
            return NULL;
        }
        g_debug("dropped a peer that named no session: %s", failure->message);
        g_error_free(failure);
    }
}

static void prepare_ram(VmfListener *listener, VmfRamBlocks *blocks)
{
    const VmfTransport *ops = listening_ops(listener->listening);
    const bool late = blocks && ram_blocks_late(blocks);

    /*
     * If a source has failed, the next one gets the memory that was made, and what is known of it.
     */
    if (blocks && !(listener->populate && populate_ram(listener->populate) == blocks)) {
        populate_free(listener->populate);
        listener->populate = vmf_uri_get_bool(listening_uri(listener->listening), "populate")
                                 ? populate_new(blocks, "")
                                 : NULL;
    }
    if (!late && VMF_TRANSPORT_HAS(ops, listener_ram)) { /* it pins the blocks themselves */
        ops->listener_ram(listening_transport(listener->listening), blocks);
    }
}

VmfSession *vmf_session_accept(VmfListener *listener, VmfRamBlocks *blocks,
                               GCancellable *cancellable, GError **error)
{
    VmfSession *session;

    listening_claim(listener->listening);
    prepare_ram(listener, blocks);
    session = accept_named(listener, blocks, cancellable, error);
    prepare_ram(listener, NULL); /* gives back what the session did not take */
    listening_release(listener->listening);
    return session;
}
