/* SPDX-License-Identifier: BSD-2-Clause */
/* message.c -- the session engine's control messages: pure encoders and decoders */

#include "message.h"

#include <string.h>
#include <vmferry/plugin/bytes.h>

static const struct MessageKind {
    const char *name;
    unsigned from;
    uint32_t shortest, longest;
} kinds[] = {
#define X(number, name, from, shortest, longest) [number] = {#name, from, shortest, longest},
    MESSAGE_TABLE(X)
#undef X
};

const char *message_name(unsigned type)
{
    if (type < G_N_ELEMENTS(kinds) && kinds[type].name) {
        return kinds[type].name;
    }
    return type >= VMF_MESSAGE_PRIVATE ? "private" : "unknown";
}

void message_header_encode(const MessageHeader *header, uint8_t out[MESSAGE_HEADER_BYTES])
{
    VmfWriter w = vmf_writer(out, MESSAGE_HEADER_BYTES);

    vmf_write_be32(&w, header->length);
    vmf_write_be16(&w, (uint16_t)header->type);
    vmf_write_be16(&w, (uint16_t)header->flags);
    vmf_write_be64(&w, header->argument);
}

static bool bad_header(const MessageHeader *header, const char *why, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "%s message (type 0x%x) with %u bytes: %s",
                message_name(header->type), header->type, header->length, why);
    return false;
}

bool message_header_decode(const uint8_t *message, size_t size, VmfRole sender,
                           MessageHeader *header, GError **error)
{
    VmfReader r = vmf_reader(message, size);
    const struct MessageKind *kind;

    header->length = vmf_read_be32(&r);
    header->type = vmf_read_be16(&r);
    header->flags = vmf_read_be16(&r);
    header->argument = vmf_read_be64(&r);
    if (r.bad) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "control message of %zu bytes is shorter than its header", size);
        return false;
    }
    if (header->length != vmf_reader_left(&r)) {
        return bad_header(header, "the length does not match what arrived", error);
    }
    if (header->type >= VMF_MESSAGE_PRIVATE) {
        return true;
    }
    if (header->type >= G_N_ELEMENTS(kinds) || !kinds[header->type].name) {
        return bad_header(header, "there is no such message", error);
    }
    kind = &kinds[header->type];
    if (!(kind->from & (unsigned)sender)) {
        return bad_header(header, "it does not come from that side", error);
    }
    if (header->length < kind->shortest || header->length > kind->longest) {
        return bad_header(header, "it cannot be that long", error);
    }
    return true;
}

size_t message_hello_encode(const MessageHello *hello, uint8_t out[MESSAGE_HELLO_MAX])
{
    VmfWriter w = vmf_writer(out, MESSAGE_HELLO_MAX);

    vmf_write_be32(&w, MESSAGE_MAGIC);
    vmf_write_be16(&w, (uint16_t)hello->protocol);
    vmf_write_be16(&w, (uint16_t)hello->oldest);
    vmf_write_bytes(&w, hello->uuid, VMF_UUID_BYTES);
    vmf_write_be16(&w, (uint16_t)hello->channels);
    vmf_write_be32(&w, hello->timeout_ms);
    vmf_write_be64(&w, hello->flags);
    vmf_write_u8(&w, (uint8_t)hello->parameters_size);
    vmf_write_bytes(&w, hello->parameters, hello->parameters_size);
    g_assert(!w.bad);
    return vmf_writer_size(&w);
}

bool message_hello_decode(const uint8_t *data, size_t size, MessageHello *hello, GError **error)
{
    VmfReader r = vmf_reader(data, size);
    uint32_t magic = vmf_read_be32(&r);
    const uint8_t *uuid, *parameters;

    hello->protocol = vmf_read_be16(&r);
    hello->oldest = vmf_read_be16(&r);
    uuid = vmf_read_bytes(&r, VMF_UUID_BYTES);
    hello->channels = vmf_read_be16(&r);
    hello->timeout_ms = vmf_read_be32(&r);
    hello->flags = vmf_read_be64(&r);
    hello->parameters_size = vmf_read_u8(&r);
    parameters = vmf_read_bytes(&r, hello->parameters_size);
    if (r.bad || magic != MESSAGE_MAGIC || hello->parameters_size > sizeof(hello->parameters)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the peer does not greet as vmferry does (%zu bytes, magic 0x%08x)", size,
                    magic);
        return false;
    }
    if (hello->oldest > MESSAGE_PROTOCOL || hello->protocol < MESSAGE_PROTOCOL_OLDEST) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "no common protocol: the peer speaks %u to %u, this side %d to %d",
                    hello->oldest, hello->protocol, MESSAGE_PROTOCOL_OLDEST, MESSAGE_PROTOCOL);
        return false;
    }
    /* A newer peer may say more at the end. */
    if (hello->channels > VMF_CHANNELS_MAX || hello->timeout_ms < 100 ||
        hello->timeout_ms > G_MAXINT32) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the peer wants %u channels and a time-out of %u ms", hello->channels,
                    hello->timeout_ms);
        return false;
    }
    memcpy(hello->uuid, uuid, VMF_UUID_BYTES);
    memcpy(hello->parameters, parameters, hello->parameters_size);
    return true;
}

size_t message_block_encode(const MessageBlock *block, uint8_t out[MESSAGE_BLOCK_MAX])
{
    VmfWriter w = vmf_writer(out, MESSAGE_BLOCK_MAX);
    size_t length = strlen(block->name);

    vmf_write_be64(&w, block->length);
    vmf_write_be32(&w, block->page_size);
    vmf_write_u8(&w, (uint8_t)length);
    vmf_write_bytes(&w, block->name, length);
    g_assert(!w.bad);
    return vmf_writer_size(&w);
}

size_t message_block_decode(const uint8_t *data, size_t size, MessageBlock *block, GError **error)
{
    VmfReader r = vmf_reader(data, size);
    size_t length;
    const uint8_t *name;

    block->length = vmf_read_be64(&r);
    block->page_size = vmf_read_be32(&r);
    length = vmf_read_u8(&r);
    name = vmf_read_bytes(&r, length);
    if (r.bad || length == 0 || memchr(name, '\0', length) || block->length == 0 ||
        block->page_size == 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "damaged list of RAM blocks");
        return 0;
    }
    memcpy(block->name, name, length);
    block->name[length] = '\0';
    return size - vmf_reader_left(&r);
}

size_t message_device_encode(const MessageDevice *device, uint8_t out[MESSAGE_DEVICE_MAX])
{
    VmfWriter w = vmf_writer(out, MESSAGE_DEVICE_MAX);
    size_t length = strlen(device->idstr);

    vmf_write_be32(&w, device->instance_id);
    vmf_write_u8(&w, (uint8_t)length);
    vmf_write_bytes(&w, device->idstr, length);
    g_assert(!w.bad);
    return vmf_writer_size(&w);
}

size_t message_device_decode(const uint8_t *data, size_t size, MessageDevice *device,
                             GError **error)
{
    VmfReader r = vmf_reader(data, size);
    size_t length;
    const uint8_t *idstr;

    device->instance_id = vmf_read_be32(&r);
    length = vmf_read_u8(&r);
    idstr = vmf_read_bytes(&r, length);
    if (r.bad || length == 0 || memchr(idstr, '\0', length)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "damaged list of devices");
        return 0;
    }
    memcpy(device->idstr, idstr, length);
    device->idstr[length] = '\0';
    return size - vmf_reader_left(&r);
}

char *message_error_text(const uint8_t *data, size_t size)
{
    char *text = g_utf8_make_valid((const char *)data, (gssize)MIN(size, 1024));

    for (char *at = text; *at; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f) {
            *at = ' ';
        }
    }
    return text;
}
