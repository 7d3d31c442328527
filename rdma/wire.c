/* SPDX-License-Identifier: BSD-2-Clause */
/* wire.c -- pure encoders and decoders of the rdma: transport's messages */

#include "wire.h"

#include <vmferry/plugin/bytes.h>

#include "qemu-v1/v1-wire.h"

void wire_hello_encode(const WireHello *hello, uint8_t out[WIRE_HELLO_BYTES])
{
    VmfWriter w = vmf_writer(out, WIRE_HELLO_BYTES);

    vmf_write_be32(&w, WIRE_QEMU_VERSION);
    vmf_write_be32(&w, WIRE_FLAG_VMFERRY | (hello->pin_all ? V1_FLAG_PIN_ALL : 0));
    vmf_write_be32(&w, WIRE_MAGIC);
    vmf_write_be16(&w, (uint16_t)hello->kind);
    vmf_write_be16(&w, (uint16_t)hello->channel);
    vmf_write_bytes(&w, hello->uuid, VMF_UUID_BYTES);
    vmf_write_be32(&w, WIRE_REVISION);
    g_assert(!w.bad && w.at == w.end);
}

/* Takes version, flags and magic. Returns whether they are vmferry's. */
static bool read_start(VmfReader *r, uint32_t *flags)
{
    uint32_t version = vmf_read_be32(r), magic;

    *flags = vmf_read_be32(r);
    magic = vmf_read_be32(r);
    return !r->bad && version == WIRE_QEMU_VERSION && (*flags & WIRE_FLAG_VMFERRY) &&
           magic == WIRE_MAGIC;
}

bool wire_hello_is(const void *data, size_t size)
{
    VmfReader r = vmf_reader(data, data ? size : 0);
    uint32_t flags;

    return read_start(&r, &flags);
}

bool wire_hello_decode(const void *data, size_t size, WireHello *hello, GError **error)
{
    VmfReader r = vmf_reader(data, data ? size : 0);
    uint32_t flags;
    bool ours = read_start(&r, &flags);
    unsigned kind = vmf_read_be16(&r);
    unsigned channel = vmf_read_be16(&r);
    const uint8_t *uuid = vmf_read_bytes(&r, VMF_UUID_BYTES);
    uint32_t revision = vmf_read_be32(&r);

    if (r.bad || !ours) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the connection request is not from vmferry (%zu bytes of private data)", size);
        return false;
    }
    if (revision != WIRE_REVISION) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the peer speaks revision %u of the rdma: wire format, this side %u", revision,
                    WIRE_REVISION);
        return false;
    }
    if ((kind != WIRE_KIND_CONTROL && kind != WIRE_KIND_CHANNEL) || channel >= VMF_CHANNELS_MAX ||
        (kind == WIRE_KIND_CONTROL && channel != 0)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "bad connection request: kind %u, channel %u", kind, channel);
        return false;
    }
    hello->kind = (WireKind)kind;
    hello->channel = channel;
    hello->pin_all = flags & V1_FLAG_PIN_ALL;
    memcpy(hello->uuid, uuid, VMF_UUID_BYTES);
    return true;
}

size_t wire_reject_encode(const char *text, uint8_t out[WIRE_REJECT_BYTES])
{
    VmfWriter w = vmf_writer(out, WIRE_REJECT_BYTES);

    vmf_write_be32(&w, WIRE_MAGIC);
    vmf_write_bytes(&w, text, MIN(strlen(text), WIRE_REJECT_BYTES - 4));
    return vmf_writer_size(&w);
}

char *wire_reject_decode(const void *data, size_t size)
{
    VmfReader r = vmf_reader(data, data ? MIN(size, WIRE_REJECT_BYTES) : 0);
    uint32_t magic = vmf_read_be32(&r);
    size_t left = vmf_reader_left(&r);
    const char *text = (const char *)vmf_read_bytes(&r, left);

    if (r.bad || magic != WIRE_MAGIC || !left || !*text) {
        return NULL;
    }
    /* The text goes into an error message, so it must be valid, whatever came. */
    return g_utf8_make_valid(text, (gssize)strnlen(text, left));
}

void wire_header_encode(const WireHeader *header, uint8_t out[WIRE_HEADER_BYTES])
{
    VmfWriter w = vmf_writer(out, WIRE_HEADER_BYTES);

    vmf_write_be16(&w, (uint16_t)header->kind);
    vmf_write_be16(&w, (uint16_t)header->flags);
    vmf_write_be32(&w, header->processed);
}

bool wire_header_decode(const uint8_t *data, size_t size, WireHeader *header, GError **error)
{
    VmfReader r = vmf_reader(data, size);

    header->kind = vmf_read_be16(&r);
    header->flags = vmf_read_be16(&r);
    header->processed = vmf_read_be32(&r);
    if (r.bad) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "a message of %zu bytes is shorter than its header", size);
        return false;
    }
    if (header->kind < WIRE_ACK || header->kind > WIRE_DEVICE_WRITTEN) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "unknown message kind %u", header->kind);
        return false;
    }
    return true;
}

void wire_range_encode(const WireRange *range, uint8_t out[WIRE_RANGE_BYTES])
{
    VmfWriter w = vmf_writer(out, WIRE_RANGE_BYTES);

    vmf_write_be32(&w, range->block);
    vmf_write_be32(&w, range->length);
    vmf_write_be64(&w, range->offset);
}

ssize_t wire_range_count(size_t body_size, GError **error)
{
    if (body_size == 0 || body_size % WIRE_RANGE_BYTES) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "zero-range message with a body of %zu bytes, no multiple of %d", body_size,
                    WIRE_RANGE_BYTES);
        return -1;
    }
    return (ssize_t)(body_size / WIRE_RANGE_BYTES);
}

void wire_range_decode(const uint8_t *body, size_t index, WireRange *range)
{
    VmfReader r = vmf_reader(body + index * WIRE_RANGE_BYTES, WIRE_RANGE_BYTES);

    range->block = vmf_read_be32(&r);
    range->length = vmf_read_be32(&r);
    range->offset = vmf_read_be64(&r);
}

size_t wire_register_encode(const WireRegister *message, uint8_t *out, size_t room)
{
    VmfWriter w = vmf_writer(out, room);
    unsigned count = message->evicted + message->wanted;

    g_assert(count <= WIRE_REGISTER_MAX);
    vmf_write_be16(&w, (uint16_t)message->evicted);
    vmf_write_be16(&w, (uint16_t)message->wanted);
    for (unsigned i = 0; i < count; i++) {
        vmf_write_be32(&w, message->chunks[i].block);
        vmf_write_be32(&w, message->chunks[i].index);
    }
    g_assert(!w.bad);
    return vmf_writer_size(&w);
}

bool wire_register_decode(const uint8_t *body, size_t size, WireRegister *message, GError **error)
{
    VmfReader r = vmf_reader(body, size);

    message->evicted = vmf_read_be16(&r);
    message->wanted = vmf_read_be16(&r);
    if (r.bad || message->evicted + message->wanted == 0 ||
        message->evicted + message->wanted > WIRE_REGISTER_MAX) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "registration request for %u chunks giving up %u: at most %d in one message",
                    message->wanted, message->evicted, WIRE_REGISTER_MAX);
        return false;
    }
    for (unsigned i = 0; i < message->evicted + message->wanted; i++) {
        message->chunks[i].block = vmf_read_be32(&r);
        message->chunks[i].index = vmf_read_be32(&r);
    }
    if (!vmf_reader_done(&r)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "registration request of %zu bytes does not hold %u + %u chunks", size,
                    message->evicted, message->wanted);
        return false;
    }
    return true;
}

size_t wire_results_encode(const WireResult *results, unsigned count, uint8_t *out, size_t room)
{
    VmfWriter w = vmf_writer(out, room);

    for (unsigned i = 0; i < count; i++) {
        vmf_write_be32(&w, results[i].status);
        vmf_write_be32(&w, results[i].rkey);
    }
    g_assert(!w.bad);
    return vmf_writer_size(&w);
}

bool wire_results_decode(const uint8_t *body, size_t size, unsigned count, WireResult *results,
                         GError **error)
{
    VmfReader r = vmf_reader(body, size);

    for (unsigned i = 0; i < count; i++) {
        results[i].status = vmf_read_be32(&r);
        results[i].rkey = vmf_read_be32(&r);
    }
    if (!vmf_reader_done(&r)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "registration result of %zu bytes for %u chunks", size, count);
        return false;
    }
    return true;
}

size_t wire_device_encode(const VmfDeviceHeader *header, uint8_t *out, size_t room)
{
    VmfWriter w = vmf_writer(out, room);
    size_t length = strlen(header->idstr);

    g_assert(length < sizeof(header->idstr));
    vmf_write_u8(&w, (uint8_t)length);
    vmf_write_bytes(&w, header->idstr, length);
    vmf_write_be32(&w, header->instance_id);
    vmf_write_be32(&w, header->index);
    vmf_write_be32(&w, header->flags);
    vmf_write_be64(&w, header->total);
    vmf_write_be64(&w, header->offset);
    vmf_write_be64(&w, header->place);
    vmf_write_be64(&w, header->size);
    g_assert(!w.bad);
    return vmf_writer_size(&w);
}

size_t wire_device_decode(const uint8_t *body, size_t size, VmfDeviceHeader *header, GError **error)
{
    VmfReader r = vmf_reader(body, size);
    size_t length = vmf_read_u8(&r);
    const uint8_t *idstr = vmf_read_bytes(&r, length);

    memset(header, 0, sizeof(*header));
    header->instance_id = vmf_read_be32(&r);
    header->index = vmf_read_be32(&r);
    header->flags = vmf_read_be32(&r);
    header->total = vmf_read_be64(&r);
    header->offset = vmf_read_be64(&r);
    header->place = vmf_read_be64(&r);
    header->size = vmf_read_be64(&r);
    if (r.bad || length == 0 || memchr(idstr, '\0', length) || header->size == 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "bad device header in a message of %zu bytes", size);
        return 0;
    }
    memcpy(header->idstr, idstr, length);
    return size - vmf_reader_left(&r);
}

void wire_memory_encode(const WireMemory *memory, uint8_t out[WIRE_MEMORY_BYTES])
{
    VmfWriter w = vmf_writer(out, WIRE_MEMORY_BYTES);

    vmf_write_be64(&w, memory->address);
    vmf_write_be64(&w, memory->bytes);
    vmf_write_be32(&w, memory->rkey);
}

bool wire_memory_decode(const uint8_t *data, size_t size, WireMemory *memory, GError **error)
{
    VmfReader r = vmf_reader(data, size);

    memory->address = vmf_read_be64(&r);
    memory->bytes = vmf_read_be64(&r);
    memory->rkey = vmf_read_be32(&r);
    if (!vmf_reader_done(&r) || !memory->bytes || memory->bytes > UINT64_MAX - memory->address) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "bad address of memory for device state, in a message of %zu bytes", size);
        return false;
    }
    return true;
}

void wire_parameters_encode(const WireParameters *p, uint8_t out[WIRE_PARAMETERS_BYTES])
{
    VmfWriter w = vmf_writer(out, WIRE_PARAMETERS_BYTES);

    vmf_write_be32(&w, p->revision);
    vmf_write_be32(&w, p->registration);
    vmf_write_be64(&w, p->chunk_size);
    vmf_write_be64(&w, p->pin_budget);
    vmf_write_be32(&w, p->device_flags);
    g_assert(!w.bad && w.at == w.end);
}

bool wire_parameters_decode(const uint8_t *data, size_t size, WireParameters *p, GError **error)
{
    VmfReader r = vmf_reader(data, size);

    p->revision = vmf_read_be32(&r);
    p->registration = vmf_read_be32(&r);
    p->chunk_size = vmf_read_be64(&r);
    p->pin_budget = vmf_read_be64(&r);
    p->device_flags = vmf_read_be32(&r);
    if (!vmf_reader_done(&r) || p->revision != WIRE_REVISION) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "bad rdma: parameters from the peer (%zu bytes, revision %u)", size,
                    p->revision);
        return false;
    }
    return true;
}
