/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-wire.c -- stock QEMU's rdma: protocol, version 1: pure encoders and decoders */

#include "v1-wire.h"

#include <vmferry/plugin/bytes.h>
#include <vmferry/error.h>

static const struct {
    const char *name;
    size_t element;      /* bytes of one element; 0: the body has no elements */
    bool empty, counted; /* empty: no body; counted: `repeat' is the number of elements */
} types[] = {
    [V1_NONE] = {"NONE", 0, true, false},
    [V1_ERROR] = {"ERROR", 0, true, false},
    [V1_READY] = {"READY", 0, true, false},
    [V1_QEMU_FILE] = {"QEMU_FILE", 1, false, false},
    [V1_RAM_BLOCKS_REQUEST] = {"RAM_BLOCKS_REQUEST", 0, true, false},
    [V1_RAM_BLOCKS_RESULT] = {"RAM_BLOCKS_RESULT", V1_BLOCK_BYTES, false, false},
    [V1_COMPRESS] = {"COMPRESS", V1_ZERO_BYTES, false, true},
    [V1_REGISTER_REQUEST] = {"REGISTER_REQUEST", V1_REGISTER_BYTES, false, true},
    /* Stock QEMU sends only the first element, but tells the number that was asked for. */
    [V1_REGISTER_RESULT] = {"REGISTER_RESULT", V1_REGISTERED_BYTES, false, false},
    [V1_REGISTER_FINISHED] = {"REGISTER_FINISHED", 0, true, false},
    [V1_UNREGISTER_REQUEST] = {"UNREGISTER_REQUEST", V1_REGISTER_BYTES, false, true},
    [V1_UNREGISTER_FINISHED] = {"UNREGISTER_FINISHED", 0, true, false},
};

const char *v1_type_name(unsigned type)
{
    return type < G_N_ELEMENTS(types) ? types[type].name : "unknown message";
}

void v1_capabilities_encode(const V1Capabilities *capabilities, uint8_t out[V1_CAPABILITIES_BYTES])
{
    VmfWriter w = vmf_writer(out, V1_CAPABILITIES_BYTES);

    vmf_write_be32(&w, capabilities->version);
    vmf_write_be32(&w, capabilities->flags);
}

bool v1_capabilities_decode(const void *data, size_t size, V1Capabilities *capabilities,
                            GError **error)
{
    VmfReader r = vmf_reader(data, data ? size : 0);

    capabilities->version = vmf_read_be32(&r);
    capabilities->flags = vmf_read_be32(&r);
    if (r.bad || capabilities->version != V1_VERSION) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the peer speaks version %u of QEMU's rdma: protocol (%zu bytes of private "
                    "data), this side version %d",
                    capabilities->version, size, V1_VERSION);
        return false;
    }
    return true;
}

void v1_header_encode(const V1Header *header, size_t body_size, uint8_t out[V1_HEADER_BYTES])
{
    VmfWriter w = vmf_writer(out, V1_HEADER_BYTES);

    vmf_write_be32(&w, (uint32_t)body_size);
    vmf_write_be32(&w, header->type);
    vmf_write_be32(&w, header->repeat);
    vmf_write_be32(&w, 0);
}

static bool bad(const V1Header *header, GError **error, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

static bool bad(const V1Header *header, GError **error, const char *format, ...)
{
    va_list args;
    g_autofree char *text = NULL;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "%s (type %u): %s",
                v1_type_name(header->type), header->type, text);
    return false;
}

bool v1_header_decode(const uint8_t *message, size_t size, V1Header *header, GError **error)
{
    VmfReader r = vmf_reader(message, size);
    uint32_t length = vmf_read_be32(&r);
    size_t body;

    header->type = vmf_read_be32(&r);
    header->repeat = vmf_read_be32(&r);
    (void)vmf_read_be32(&r);
    if (r.bad) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "a message of %zu bytes is shorter than its header", size);
        return false;
    }
    body = vmf_reader_left(&r);
    if (header->type == V1_NONE || header->type >= G_N_ELEMENTS(types)) {
        return bad(header, error, "there is no such message");
    }
    if (length != body) {
        return bad(header, error, "its length is said to be %u, and is %zu", length, body);
    }
    if (types[header->type].empty) {
        return length == 0 || bad(header, error, "its length is %u, it should be empty", length);
    }
    if (length == 0 || length % types[header->type].element) {
        return bad(header, error, "its length is %u, no multiple of %zu", length,
                   types[header->type].element);
    }
    if (types[header->type].counted && (header->repeat == 0 || header->repeat > V1_REPEAT_MAX ||
                                        header->repeat != length / types[header->type].element)) {
        return bad(header, error, "its repeat is %u, with a length of %u", header->repeat, length);
    }
    return true;
}

void v1_block_encode(const V1Block *block, uint8_t out[V1_BLOCK_BYTES])
{
    VmfWriter w = vmf_writer(out, V1_BLOCK_BYTES);

    vmf_write_be64(&w, block->host);
    vmf_write_be64(&w, block->offset);
    vmf_write_be64(&w, block->length);
    vmf_write_be32(&w, block->rkey);
    vmf_write_be32(&w, 0);
}

void v1_block_decode(const uint8_t *body, size_t index, V1Block *block)
{
    VmfReader r = vmf_reader(body + index * V1_BLOCK_BYTES, V1_BLOCK_BYTES);

    block->host = vmf_read_be64(&r);
    block->offset = vmf_read_be64(&r);
    block->length = vmf_read_be64(&r);
    block->rkey = vmf_read_be32(&r);
}

void v1_register_encode(const V1Register *request, uint8_t out[V1_REGISTER_BYTES])
{
    VmfWriter w = vmf_writer(out, V1_REGISTER_BYTES);

    vmf_write_be64(&w, request->key);
    vmf_write_be32(&w, request->block);
    vmf_write_be32(&w, 0);
    vmf_write_be64(&w, request->chunks);
}

void v1_register_decode(const uint8_t *body, size_t index, V1Register *request)
{
    VmfReader r = vmf_reader(body + index * V1_REGISTER_BYTES, V1_REGISTER_BYTES);

    request->key = vmf_read_be64(&r);
    request->block = vmf_read_be32(&r);
    (void)vmf_read_be32(&r);
    request->chunks = vmf_read_be64(&r);
}

void v1_registered_encode(const V1Registered *result, uint8_t out[V1_REGISTERED_BYTES])
{
    VmfWriter w = vmf_writer(out, V1_REGISTERED_BYTES);

    vmf_write_be32(&w, result->rkey);
    vmf_write_be32(&w, 0);
    vmf_write_be64(&w, result->host);
}

void v1_registered_decode(const uint8_t *body, size_t index, V1Registered *result)
{
    VmfReader r = vmf_reader(body + index * V1_REGISTERED_BYTES, V1_REGISTERED_BYTES);

    result->rkey = vmf_read_be32(&r);
    (void)vmf_read_be32(&r);
    result->host = vmf_read_be64(&r);
}

void v1_zero_encode(const V1Zero *zero, uint8_t out[V1_ZERO_BYTES])
{
    VmfWriter w = vmf_writer(out, V1_ZERO_BYTES);

    vmf_write_be32(&w, zero->value);
    vmf_write_be32(&w, zero->block);
    vmf_write_be64(&w, zero->offset);
    vmf_write_be64(&w, zero->length);
}

void v1_zero_decode(const uint8_t *body, V1Zero *zero)
{
    VmfReader r = vmf_reader(body, V1_ZERO_BYTES);

    zero->value = vmf_read_be32(&r);
    zero->block = vmf_read_be32(&r);
    zero->offset = vmf_read_be64(&r);
    zero->length = vmf_read_be64(&r);
}
