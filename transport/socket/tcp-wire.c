/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-wire.c -- what the socket transports put on the wire: pure encoders and decoders */

#include "tcp-wire.h"

#include <string.h>
#include <vmferry/plugin/bytes.h>

void tcp_preamble_encode(const TcpPreamble *preamble, uint8_t out[TCP_PREAMBLE_BYTES])
{
    VmfWriter w = vmf_writer(out, TCP_PREAMBLE_BYTES);

    vmf_write_be32(&w, TCP_MAGIC);
    vmf_write_be16(&w, TCP_VERSION);
    vmf_write_be16(&w, (uint16_t)preamble->kind);
    vmf_write_be16(&w, (uint16_t)preamble->channel);
    vmf_write_be16(&w, 0);
    vmf_write_bytes(&w, preamble->uuid, VMF_UUID_BYTES);
    g_assert(!w.bad && w.at == w.end);
}

bool tcp_preamble_decode(const uint8_t in[TCP_PREAMBLE_BYTES], TcpPreamble *preamble,
                         GError **error)
{
    VmfReader r = vmf_reader(in, TCP_PREAMBLE_BYTES);
    uint32_t magic = vmf_read_be32(&r);
    unsigned version = vmf_read_be16(&r);
    unsigned kind = vmf_read_be16(&r);
    unsigned channel = vmf_read_be16(&r);
    unsigned reserved = vmf_read_be16(&r);

    if (magic != TCP_MAGIC || version != TCP_VERSION || reserved != 0 ||
        (kind != TCP_KIND_CONTROL && kind != TCP_KIND_CHANNEL) || channel >= VMF_CHANNELS_MAX ||
        (kind == TCP_KIND_CONTROL && channel != 0)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "not a vmferry connection: magic 0x%08x, version %u, kind %u, channel %u",
                    magic, version, kind, channel);
        return false;
    }
    preamble->kind = (TcpKind)kind;
    preamble->channel = channel;
    memcpy(preamble->uuid, vmf_read_bytes(&r, VMF_UUID_BYTES), VMF_UUID_BYTES);
    return true;
}

void tcp_record_encode(const TcpRecord *record, uint8_t out[TCP_RECORD_BYTES])
{
    VmfWriter w = vmf_writer(out, TCP_RECORD_BYTES);

    vmf_write_be32(&w, record->type);
    vmf_write_be32(&w, record->block);
    vmf_write_be64(&w, record->offset);
    vmf_write_be64(&w, record->length);
}

bool tcp_record_decode(const uint8_t in[TCP_RECORD_BYTES], TcpRecord *record, GError **error)
{
    VmfReader r = vmf_reader(in, TCP_RECORD_BYTES);
    uint32_t type = vmf_read_be32(&r);

    record->block = vmf_read_be32(&r);
    record->offset = vmf_read_be64(&r);
    record->length = vmf_read_be64(&r);
    if (type < TCP_RAM || type > TCP_DEVICE || (type != TCP_SYNC && record->length == 0) ||
        (type == TCP_DEVICE &&
         (record->block < TCP_DEVICE_HEADER_MIN || record->block > TCP_DEVICE_HEADER_MAX))) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "bad record: type %u, block %u, length %" G_GUINT64_FORMAT, type, record->block,
                    record->length);
        return false;
    }
    record->type = (TcpRecordType)type;
    return true;
}

size_t tcp_device_encode(const VmfDeviceHeader *header, uint8_t out[TCP_DEVICE_HEADER_MAX])
{
    VmfWriter w = vmf_writer(out, TCP_DEVICE_HEADER_MAX);

    vmf_write_be32(&w, header->instance_id);
    vmf_write_be32(&w, header->index);
    vmf_write_be32(&w, header->flags);
    vmf_write_be64(&w, header->total);
    vmf_write_be64(&w, header->offset);
    vmf_write_be64(&w, header->place);
    vmf_write_bytes(&w, header->idstr, strlen(header->idstr));
    g_assert(!w.bad);
    return vmf_writer_size(&w);
}

bool tcp_device_decode(const uint8_t *in, size_t size, VmfDeviceHeader *header, GError **error)
{
    VmfReader r = vmf_reader(in, size);
    size_t length;

    memset(header, 0, sizeof(*header));
    header->instance_id = vmf_read_be32(&r);
    header->index = vmf_read_be32(&r);
    header->flags = vmf_read_be32(&r);
    header->total = vmf_read_be64(&r);
    header->offset = vmf_read_be64(&r);
    header->place = vmf_read_be64(&r);
    length = vmf_reader_left(&r);
    if (r.bad || length == 0 || length >= sizeof(header->idstr) || memchr(r.at, '\0', length)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "bad device header of %zu bytes", size);
        return false;
    }
    memcpy(header->idstr, r.at, length);
    return true;
}
