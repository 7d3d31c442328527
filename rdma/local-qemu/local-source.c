/* SPDX-License-Identifier: BSD-2-Clause */
/* local-source.c -- a migration away from this process's QEMU, over a session of vmferry */

#include "local-source.h"

#include <errno.h>
#include <string.h>
#include <vmferry/plugin/bytes.h>

#include "local-discards.h"
#include "local-end.h"
#include "local-giving.h"
#include "local-report.h"
#include "local-return.h"
#include "local-source-state.h"
#include "local-switchover.h"
#include "local-thread.h"
#include "local-uri.h"
#include "stream-end.h"

/*
 * QEMU writes to addresses that it was told. They name block and offset: the block's number and one
 * above these bits, the offset below.
 */
#define ADDRESS_BITS 44
#define ADDRESS_BASE(index) (((uint64_t)(index) + 1) << ADDRESS_BITS)
#define FALSE_RKEY 1
/* Source: QEMU, enum qemu_vm_cmd in migration/savevm.c. */
#define COMMAND_POSTCOPY_ADVISE 3
/* So much of the stream's end is looked at. A description of devices is shorter. */
#define REST_BYTES (4u << 20)

/* --- errors --- */

static bool fails(LocalSource *s, GError *error)
{
    if (!s->failed && !s->said_error) {
        local_report("the migration failed: %s", error ? error->message : "no reason was given");
    }
    s->failed = true;
    if (s->session && error) {
        vmf_session_fail(s->session, g_steal_pointer(&error)); /* the destination hears it, too */
    }
    g_clear_error(&error);
    return false;
}

static bool file_fails(LocalSource *s)
{
    GError *error = NULL;

    vmf_file_check(s->file, &error);
    return fails(s, error);
}

static bool wrong(LocalSource *s, const char *what)
{
    return fails(s, g_error_new(VMF_ERROR, VMF_ERROR_PROTOCOL, "this QEMU: %s", what));
}

/* --- RAM --- */

static const VmfRamBlock *block_of(LocalSource *s, uint64_t index, uint64_t offset, uint64_t length)
{
    const VmfRamBlock *block =
        s->named && index <= G_MAXUINT ? vmf_ram_blocks_get(s->blocks, (unsigned)index) : NULL;

    return block && offset <= block->length && length <= block->length - offset ? block : NULL;
}

static bool place(LocalSource *s, const VmfRamBlock *block, void *host, GError **error)
{
    if (!vmf_ram_blocks_set_host(s->blocks, block, host, error)) {
        return false;
    }
    local_discards_add(s->blocks, block);
    return true;
}

static bool wrote(LocalLink *link, uint8_t *local, uint64_t remote, size_t size)
{
    LocalSource *s = link->owner;
    const uint64_t offset = remote & ((1ull << ADDRESS_BITS) - 1);
    const VmfRamBlock *block = block_of(s, (remote >> ADDRESS_BITS) - 1, offset, size);
    GError *error = NULL;

    if (s->failed) {
        return false;
    }
    if (!block) {
        return wrong(s, "it writes outside of its RAM blocks");
    }
    if (!block->host && !place(s, block, local - offset, &error)) {
        return fails(s, error);
    }
    if (block->host + offset != local) {
        return wrong(s, "a RAM block has moved");
    }
    switchover_wrote(s, block->index, offset, size);
    return vmf_save_ram_page(s->file, block, offset, size) || file_fails(s);
}

/* QEMU pins its blocks in their order while it waits for the answer about them. */
static void registered(LocalLink *link, const struct ibv_mr *mr)
{
    LocalSource *s = link->owner;
    const VmfRamBlock *block = vmf_ram_blocks_get(s->blocks, s->pinned);
    GError *error = NULL;

    if (!s->pin_all || !block || s->failed || mr->length != block->length || block->host) {
        return;
    }
    if (!place(s, block, mr->addr, &error)) {
        fails(s, error);
        return;
    }
    if (++s->pinned == vmf_ram_blocks_count(s->blocks)) {
        s->named = vmf_session_name_ram(s->session, &error) || fails(s, error);
    }
}

static bool add_blocks(LocalSource *s)
{
    const uint32_t page = vmf_qemu_stream_page_bytes(s->stream);

    for (unsigned i = 0; i < vmf_qemu_stream_block_count(s->stream); i++) {
        const VmfQemuBlock *listed = vmf_qemu_stream_block(s->stream, i);
        GError *error = NULL;

        if (listed->length >> ADDRESS_BITS ||
            !vmf_ram_blocks_add_unplaced(s->blocks, listed->name, listed->length, page, &error)) {
            return fails(s, error);
        }
    }
    return true;
}

static bool tell_blocks(LocalSource *s)
{
    const unsigned count = vmf_qemu_stream_block_count(s->stream);
    g_autofree uint8_t *body = g_malloc0(MAX(count, 1) * V1_BLOCK_BYTES);
    GError *error = NULL;

    if (!vmf_qemu_stream_blocks_complete(s->stream) || vmf_ram_blocks_count(s->blocks)) {
        return wrong(s, "it asks for RAM blocks at the wrong time");
    }
    if (!add_blocks(s)) {
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        const V1Block block = {.host = ADDRESS_BASE(i),
                               .length = vmf_ram_blocks_get(s->blocks, i)->length,
                               .rkey = FALSE_RKEY};

        v1_block_encode(&block, body + (size_t)i * V1_BLOCK_BYTES);
    }
    if (!s->pin_all) {
        s->named = vmf_session_name_ram(s->session, &error) || fails(s, error);
    }
    local_link_say(s->link, V1_RAM_BLOCKS_RESULT, 1, body, count * V1_BLOCK_BYTES);
    return !s->failed;
}

static bool tell_registered(LocalSource *s, const LocalMessage *message)
{
    const size_t count = message->size / V1_REGISTER_BYTES;
    g_autofree uint8_t *body = g_malloc0(MAX(count, 1) * V1_REGISTERED_BYTES);

    for (size_t i = 0; i < count; i++) {
        V1Registered result = {.rkey = FALSE_RKEY};
        V1Register request;

        v1_register_decode(message->body, i, &request);
        if (!block_of(s, request.block, 0, 0)) {
            return wrong(s, "it registers a RAM block that it has not");
        }
        result.host = ADDRESS_BASE(request.block);
        v1_registered_encode(&result, body + i * V1_REGISTERED_BYTES);
    }
    local_link_say(s->link, V1_REGISTER_RESULT, message->header.repeat, body,
                   count * V1_REGISTERED_BYTES);
    return true;
}

static bool take_zero(LocalSource *s, const LocalMessage *message)
{
    const VmfRamBlock *block;
    V1Zero zero;

    v1_zero_decode(message->body, &zero);
    block = block_of(s, zero.block, zero.offset, zero.length);
    if (!block || zero.value) {
        return wrong(s, "it fills memory outside of its RAM blocks, or not with zeros");
    }
    return vmf_save_zero_pages(s->file, block, zero.offset, zero.length) || file_fails(s);
}

/* The end of a slice. QEMU takes what is sent by now for the speed of the wire, so it is sent. */
static bool end_slice(LocalSource *s)
{
    const VmfFlush how =
        s->hook_section == VMF_QEMU_SECTION_END ? VMF_FLUSH_FINAL : VMF_FLUSH_ROUND;

    if (s->hook_section == VMF_QEMU_SECTION_START) {
        return true;
    }
    if (!vmf_flush_ram_pages(s->file, how)) {
        return file_fails(s);
    }
    switchover_slice(s);
    return true;
}

/* --- the stream --- */

/* QEMU says so first of all if its user has switched postcopy-ram on. */
static bool is_postcopy(const VmfQemuItem *found)
{
    VmfReader r = vmf_reader(found->raw, found->size);

    return found->kind == VMF_QEMU_ITEM_COMMAND && vmf_read_u8(&r) == VMF_QEMU_SECTION_COMMAND &&
           vmf_read_be16(&r) == COMMAND_POSTCOPY_ADVISE && vmf_reader_left(&r) == 2;
}

static bool item(void *opaque, const VmfQemuItem *found, GError **error)
{
    LocalSource *s = opaque;

    if (is_postcopy(found)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "postcopy-ram is on, which vmferry does not do: switch this capability off");
        return false;
    }
    if (found->kind == VMF_QEMU_ITEM_HOOK) {
        s->hook_section = found->section;
    }
    s->footers |= found->kind == VMF_QEMU_ITEM_FOOTER;
    return true;
}

/* Whether the stream has ended with these bytes. */
static bool follow_rest(LocalSource *s, const uint8_t *data, size_t size)
{
    if (!vmf_qemu_stream_ram_ended(s->stream)) {
        return false;
    }
    if (s->rest->len + size > REST_BYTES) {
        g_byte_array_remove_range(s->rest, 0, MIN(s->rest->len, size));
    }
    g_byte_array_append(s->rest, data, (guint)size);
    return stream_end_described(s->rest->data, s->rest->len) >= 0;
}

/* Another QEMU with vmferry needs to know how this one speaks. */
static void greet(LocalSource *s)
{
    bool back;

    g_mutex_lock(&s->lock);
    back = s->back != NULL;
    s->takes_back = false;
    g_mutex_unlock(&s->lock);
    if (!s->greeted && !vmf_session_peer_is_qemu(s->session)) {
        vmf_put_be32(s->file, VMF_QEMU_GREETING);
        vmf_put_be32(s->file, VMF_QEMU_HOOKS | (back ? VMF_QEMU_RETURN_PATH : 0));
    }
    s->greeted = true;
}

static LocalAnswer take_stream(LocalSource *s, const LocalMessage *message)
{
    GError *error = NULL;
    bool ended;

    greet(s);
    if (vmf_qemu_stream_scan(s->stream, message->body, message->size, false, &error) < 0) {
        fails(s, error);
        return LOCAL_FAILED;
    }
    ended = follow_rest(s, message->body, message->size);
    vmf_put_buffer(s->file, message->body, message->size);
    if (ended) {
        return giving_begin(s, message->wr_id) ? LOCAL_LATER : LOCAL_FAILED;
    }
    if (!vmf_file_flush(s->file, NULL)) {
        file_fails(s);
        return LOCAL_FAILED;
    }
    return LOCAL_DONE;
}

/* --- messages --- */

/* QEMU has failed, or was cancelled. */
static bool take_error(LocalSource *s)
{
    s->said_error = true;
    giving_give_up(s);
    vmf_session_fail(s->session, g_error_new(VMF_ERROR, VMF_ERROR_CANCELLED,
                                             "the source's QEMU has cancelled, or has failed"));
    return true;
}

static LocalAnswer said(LocalLink *link, const LocalMessage *message)
{
    LocalSource *s = link->owner;
    LocalAnswer answer;
    bool ok;

    if (message->header.type == V1_ERROR) {
        return take_error(s) ? LOCAL_DONE : LOCAL_FAILED;
    }
    if (s->failed) {
        return LOCAL_FAILED;
    }
    switch (message->header.type) {
    case V1_QEMU_FILE:
        answer = take_stream(s, message);
        ok = answer == LOCAL_DONE;
        break;
    case V1_RAM_BLOCKS_REQUEST:
        answer = LOCAL_DONE;
        ok = tell_blocks(s);
        break;
    case V1_REGISTER_REQUEST:
        answer = LOCAL_DONE;
        ok = tell_registered(s, message);
        break;
    case V1_COMPRESS:
        answer = LOCAL_DONE;
        ok = take_zero(s, message);
        break;
    case V1_REGISTER_FINISHED:
        answer = LOCAL_DONE;
        ok = end_slice(s);
        break;
    default:
        wrong(s, "it says what a source does not say");
        return LOCAL_FAILED;
    }
    if (ok) {
        local_link_say(link, V1_READY, 1, NULL, 0);
    }
    return ok || answer != LOCAL_DONE ? answer : LOCAL_FAILED;
}

/* --- the end --- */

static void closed(LocalLink *link)
{
    LocalSource *s = link->owner;

    g_cancellable_cancel(s->cancel);
    local_end_source(s);
}

static const LocalLinkOps source_ops = {
    .said = said,
    .wrote = wrote,
    .registered = registered,
    .polled = giving_polled,
    .closed = closed,
};

/* --- connecting --- */

static void establish(LocalLink *link, bool pin_all)
{
    const V1Capabilities capabilities = {.version = V1_VERSION,
                                         .flags = pin_all ? V1_FLAG_PIN_ALL : 0};
    uint8_t data[V1_CAPABILITIES_BYTES];
    struct rdma_conn_param param = {.private_data = data, .private_data_len = sizeof(data)};

    v1_capabilities_encode(&capabilities, data);
    false_id_established(link->id, &param);
}

static bool connect_session(LocalSource *s, GError **error)
{
    g_autoptr(VmfUri) uri =
        local_uri_new(false_id_node(s->id), false_id_service(s->id), s->pin_all, error);

    s->session = uri ? vmf_session_connect(uri, s->blocks, s->cancel, error) : NULL;
    if (s->session) {
        switchover_begin(s, uri);
    }
    return s->session != NULL;
}

static void *connect_main(void *opaque)
{
    LocalSource *s = opaque;
    g_autoptr(GError) error = NULL;

    if (!connect_session(s, &error)) {
        if (!g_cancellable_is_cancelled(s->cancel)) {
            local_report("cannot connect to %s port %s: %s", false_id_node(s->id),
                         false_id_service(s->id), error->message);
        }
        false_id_failed(s->id, RDMA_CM_EVENT_REJECTED, -ECONNREFUSED, NULL, 0);
        return NULL;
    }
    s->file = vmf_session_get_file(s->session);
    g_mutex_lock(&s->lock);
    s->takes_back = true;
    g_mutex_unlock(&s->lock);
    establish(s->link, s->pin_all);
    local_link_say(s->link, V1_READY, 1, NULL, 0);
    return NULL;
}

static int begin(struct rdma_cm_id *id, bool pin_all)
{
    LocalSource *s = local_source_new(id, pin_all);

    s->link = local_link_new(&source_ops, s, id);
    s->stream = vmf_qemu_stream_new(item, s);
    local_return_offer(s);
    s->connector = local_thread_new("vmferry-connect", connect_main, s);
    return s->connector ? 0 : EAGAIN;
}

int local_source_connect(struct rdma_cm_id *id, const struct rdma_conn_param *param)
{
    V1Capabilities capabilities;
    g_autoptr(GError) error = NULL;
    LocalLink *back;
    bool is_back;

    if (!v1_capabilities_decode(param->private_data, param->private_data_len, &capabilities,
                                &error)) {
        local_report("this QEMU connects in a way that is not known: %s", error->message);
        return EPROTO;
    }
    is_back = local_return_connect(id, &back);
    if (back) {
        establish(back, capabilities.flags & V1_FLAG_PIN_ALL);
    }
    if (is_back) {
        return back ? 0 : ECONNREFUSED;
    }
    return begin(id, capabilities.flags & V1_FLAG_PIN_ALL);
}
