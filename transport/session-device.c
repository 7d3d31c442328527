/* SPDX-License-Identifier: BSD-2-Clause */
/* session-device.c -- device state over the channels, and raw writes for benchmarks */

#include <string.h>

#include "session.h"

#define DEVICE_BUFFER_MAX (1ull << 30)
/* Bytes that may wait on the destination for someone to take them; one larger buffer may. */
#define ARRIVED_MAX (64ull << 20)

/* --- payloads for clients --- */

Payload *session_get_payload(VmfSession *s)
{
    Payload *payload;

    g_mutex_lock(&s->lock);
    payload = g_queue_pop_head(&s->free_payloads);
    g_mutex_unlock(&s->lock);
    return payload ? payload : g_new0(Payload, 1);
}

void session_return_payload(VmfSession *s, Payload *payload)
{
    payload->kind = PAYLOAD_EMPTY;
    g_mutex_lock(&s->lock);
    g_queue_push_head(&s->free_payloads, payload);
    g_mutex_unlock(&s->lock);
}

void session_done(VmfSession *s, PayloadDone *done)
{
    g_mutex_lock(&s->lock);
    done->done = true;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

/*
 * On failure the channel may still be reading the client's memory: the client
 * gets it back only when that thread has let go of it, which it does at once.
 */
bool session_await_done(SessionChannel *channel, const PayloadDone *done, GError **error)
{
    VmfSession *s = channel->session;
    bool ok;

    g_mutex_lock(&s->lock);
    while (!done->done && !channel->over) {
        g_cond_wait(&s->changed, &s->lock);
    }
    ok = done->done && !s->error;
    g_mutex_unlock(&s->lock);
    return ok || session_report(s, error);
}

/* --- source --- */

bool vmf_session_send_device(VmfSession *s, const char *idstr, uint32_t instance_id, uint32_t index,
                             const void *data, size_t size, GError **error)
{
    VmfDeviceHeader header = {.instance_id = instance_id, .index = index, .size = size};
    PayloadDone done = {0};
    SessionChannel *channel;
    Payload *payload;
    bool ok;

    if (s->role != VMF_ROLE_SOURCE || !*idstr || strlen(idstr) >= sizeof(header.idstr) ||
        size == 0 || size > DEVICE_BUFFER_MAX) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "device \"%s\" instance %u: cannot send a buffer of %zu bytes (1 byte to 1 "
                    "GiB, from the source, with a name of 1 to 255 bytes)",
                    idstr, instance_id, size);
        return false;
    }
    g_strlcpy(header.idstr, idstr, sizeof(header.idstr));
    channel =
        &s->channels[__atomic_fetch_add(&s->next_channel, 1, __ATOMIC_RELAXED) % s->channel_count];
    payload = session_get_payload(s);
    payload->kind = PAYLOAD_DEVICE;
    payload->device.header = &header;
    payload->device.data = data;
    payload->device.done = &done;
    ok = mailbox_put(&channel->mailbox, &payload);
    /* Either way the payload in hand now is an empty one. */
    session_return_payload(s, payload);
    if (!ok) {
        return session_report(s, error);
    }
    ok = session_await_done(channel, &done, error);
    if (ok) {
        __atomic_fetch_add(&s->device_bytes, size, __ATOMIC_RELAXED);
        __atomic_store_n(&s->device_since_sync, true, __ATOMIC_RELEASE);
    }
    return ok;
}

bool vmf_session_raw_write(VmfSession *s, uint64_t message_size, uint64_t total_bytes,
                           double *seconds, GError **error)
{
    PayloadDone done[VMF_CHANNELS_MAX] = {0};
    bool ok = true;

    if (s->role != VMF_ROLE_SOURCE || !VMF_TRANSPORT_HAS(s->ops, raw_write)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "%s: has no raw writes to measure (or this is the destination)",
                    s->ops->scheme);
        return false;
    }
    if (message_size < 512 || (message_size & (message_size - 1)) ||
        message_size > s->conn->stripe || s->conn->block_count == 0 ||
        s->conn->blocks[0]->length < s->conn->stripe * s->channel_count) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "raw writes of %" G_GUINT64_FORMAT
                    " bytes: a power of two up to the stripe of %" G_GUINT64_FORMAT
                    ", and a RAM block with a stripe for each channel",
                    message_size, s->conn->stripe);
        return false;
    }
    for (unsigned i = 0; i < s->channel_count; i++) {
        Payload *payload = session_get_payload(s);

        payload->kind = PAYLOAD_RAW;
        payload->raw.message_size = message_size;
        payload->raw.bytes = MAX(total_bytes / s->channel_count, message_size);
        payload->raw.done = &done[i];
        done[i].done = !mailbox_put(&s->channels[i].mailbox, &payload);
        session_return_payload(s, payload);
    }
    *seconds = 0;
    /* All are waited for, whatever happens: they write to this function's memory. */
    for (unsigned i = 0; i < s->channel_count; i++) {
        ok = session_await_done(&s->channels[i], &done[i], NULL) && ok;
        *seconds = MAX(*seconds, done[i].seconds);
    }
    return ok || session_report(s, error);
}

/* --- destination --- */

void *session_device_begin(VmfConn *conn, unsigned number, const VmfDeviceHeader *header,
                           GError **error)
{
    VmfSession *s = conn_session(conn);
    SessionChannel *channel = &s->channels[number];
    g_autoptr(VmfDeviceBuffer) buffer = g_new0(VmfDeviceBuffer, 1);
    bool ok;

    if (header->size == 0 || header->size > DEVICE_BUFFER_MAX || channel->arriving) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "channel %u: device \"%s\" instance %u: bad buffer of %" G_GUINT64_FORMAT
                    " bytes",
                    number, header->idstr, header->instance_id, header->size);
        return NULL;
    }
    g_mutex_lock(&s->lock);
    while (!s->error && s->arrived_bytes && s->arrived_bytes + header->size > ARRIVED_MAX) {
        g_cond_wait(&s->changed, &s->lock);
    }
    ok = !s->error;
    s->arrived_bytes += ok ? header->size : 0;
    g_mutex_unlock(&s->lock);
    if (!ok) {
        session_report(s, error);
        return NULL;
    }
    g_strlcpy(buffer->idstr, header->idstr, sizeof(buffer->idstr));
    buffer->instance_id = header->instance_id;
    buffer->index = header->index;
    buffer->size = header->size;
    buffer->data = g_try_malloc(header->size);
    if (!buffer->data) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                    "device \"%s\" instance %u: no memory for %" G_GUINT64_FORMAT " bytes",
                    header->idstr, header->instance_id, header->size);
        return NULL;
    }
    channel->arriving = g_steal_pointer(&buffer);
    return channel->arriving->data;
}

bool session_device_done(VmfConn *conn, unsigned number, GError **error)
{
    VmfSession *s = conn_session(conn);
    VmfDeviceBuffer *buffer = g_steal_pointer(&s->channels[number].arriving);

    (void)error;
    g_mutex_lock(&s->lock);
    s->device_bytes += buffer->size;
    g_queue_push_tail(&s->arrived, buffer);
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    return true;
}

VmfDeviceBuffer *vmf_session_receive_device(VmfSession *s, GError **error)
{
    VmfDeviceBuffer *buffer;

    g_mutex_lock(&s->lock);
    while (!s->error && g_queue_is_empty(&s->arrived) &&
           !(s->in_ended && session_seen_locked(s) >= s->final_sync)) {
        g_cond_wait(&s->changed, &s->lock);
    }
    if (s->error) {
        g_mutex_unlock(&s->lock);
        session_report(s, error);
        return NULL;
    }
    buffer = g_queue_pop_head(&s->arrived);
    if (buffer) {
        s->arrived_bytes -= buffer->size;
        g_cond_broadcast(&s->changed);
    }
    g_mutex_unlock(&s->lock);
    return buffer;
}

void vmf_device_buffer_free(VmfDeviceBuffer *buffer)
{
    if (buffer) {
        g_free(buffer->data);
        g_free(buffer);
    }
}
