/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-wire.h -- what the socket transports put on the wire: pure encoders and decoders */

#ifndef VMF_TCP_WIRE_H
#define VMF_TCP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vmferry/plugin/transport.h>

/*
 * The first bytes on every socket, from the side that connects: u32 magic "VMFT", u16 version, u16
 * kind, u16 channel, u16 0, 16 bytes of session UUID. All numbers are big-endian.
 */
#define TCP_PREAMBLE_BYTES 28
#define TCP_MAGIC 0x564d4654u
#define TCP_VERSION 1

typedef enum { TCP_KIND_CONTROL = 1, TCP_KIND_CHANNEL = 2 } TcpKind;

typedef struct TcpPreamble {
    TcpKind kind;
    unsigned channel;
    uint8_t uuid[VMF_UUID_BYTES];
} TcpPreamble;

void tcp_preamble_encode(const TcpPreamble *preamble, uint8_t out[TCP_PREAMBLE_BYTES]);
bool tcp_preamble_decode(const uint8_t in[TCP_PREAMBLE_BYTES], TcpPreamble *preamble,
                         GError **error);

/*
 * A record on a channel: u32 type, u32 block, u64 offset, u64 length. Bytes follow RAM and DEVICE.
 * The destination answers with u64 counts of the bytes of records, headers included, that it has
 * processed.
 */
#define TCP_RECORD_BYTES 24

typedef enum {
    TCP_RAM = 1,   /* length bytes for block at offset follow */
    TCP_ZERO = 2,  /* that range is zero */
    TCP_SYNC = 3,  /* offset: the number of the sync */
    TCP_DEVICE = 4 /* block: bytes of the device header that follows; then length bytes of state */
} TcpRecordType;

typedef struct TcpRecord {
    TcpRecordType type;
    uint32_t block;
    uint64_t offset, length;
} TcpRecord;

void tcp_record_encode(const TcpRecord *record, uint8_t out[TCP_RECORD_BYTES]);
bool tcp_record_decode(const uint8_t in[TCP_RECORD_BYTES], TcpRecord *record, GError **error);

/*
 * A device header: u32 instance, u32 index, u32 flags, u64 total, u64 offset, u64 place, then the
 * name to the end.
 */
#define TCP_DEVICE_FIXED_BYTES 36 /* all before the name */
#define TCP_DEVICE_HEADER_MIN (TCP_DEVICE_FIXED_BYTES + 1)
#define TCP_DEVICE_HEADER_MAX (TCP_DEVICE_FIXED_BYTES + 255)
size_t tcp_device_encode(const VmfDeviceHeader *header, uint8_t out[TCP_DEVICE_HEADER_MAX]);
bool tcp_device_decode(const uint8_t *in, size_t size, VmfDeviceHeader *header, GError **error);

#endif
