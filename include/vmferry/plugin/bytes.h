/* SPDX-License-Identifier: BSD-2-Clause */
/* bytes.h -- bounded big-endian reading and writing of wire messages, inline */

#ifndef VMFERRY_BYTES_H
#define VMFERRY_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <glib.h>

/*
 * A cursor over bytes, which stay the caller's. A read past the end returns 0 or NULL, and makes
 * the cursor bad for good. So a decoder reads everything, and checks once. A write past the end
 * writes nothing, and makes its cursor bad, too. All numbers are big-endian, all sizes bytes.
 */
typedef struct VmfReader {
    const uint8_t *at, *end;
    bool bad;
} VmfReader;

typedef struct VmfWriter {
    uint8_t *start, *at, *end;
    bool bad;
} VmfWriter;

static inline VmfReader vmf_reader(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    return (VmfReader){bytes, bytes + size, false};
}

static inline size_t vmf_reader_left(const VmfReader *r)
{
    return r->bad ? 0 : (size_t)(r->end - r->at);
}

/* The next `size' bytes in place, or NULL. */
static inline const uint8_t *vmf_read_bytes(VmfReader *r, size_t size)
{
    const uint8_t *at = r->at;
    if (r->bad || size > (size_t)(r->end - r->at)) {
        r->bad = true;
        return NULL;
    }
    r->at += size;
    return at;
}

static inline uint64_t vmf_read_number(VmfReader *r, size_t size)
{
    const uint8_t *at = vmf_read_bytes(r, size);
    uint64_t value = 0;
    for (size_t i = 0; at && i < size; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

static inline uint8_t vmf_read_u8(VmfReader *r)
{
    return (uint8_t)vmf_read_number(r, 1);
}

static inline uint16_t vmf_read_be16(VmfReader *r)
{
    return (uint16_t)vmf_read_number(r, 2);
}

static inline uint32_t vmf_read_be32(VmfReader *r)
{
    return (uint32_t)vmf_read_number(r, 4);
}

static inline uint64_t vmf_read_be64(VmfReader *r)
{
    return vmf_read_number(r, 8);
}

/* true if no read has failed and no byte is left. */
static inline bool vmf_reader_done(const VmfReader *r)
{
    return !r->bad && r->at == r->end;
}

static inline VmfWriter vmf_writer(void *data, size_t size)
{
    uint8_t *bytes = data;
    return (VmfWriter){bytes, bytes, bytes + size, false};
}

static inline size_t vmf_writer_size(const VmfWriter *w)
{
    return (size_t)(w->at - w->start);
}

static inline void vmf_write_bytes(VmfWriter *w, const void *data, size_t size)
{
    if (w->bad || size > (size_t)(w->end - w->at)) {
        w->bad = true;
        return;
    }
    if (size) {
        memcpy(w->at, data, size);
    }
    w->at += size;
}

static inline void vmf_write_number(VmfWriter *w, uint64_t value, size_t size)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
    }
    vmf_write_bytes(w, bytes, size);
}

static inline void vmf_write_u8(VmfWriter *w, uint8_t value)
{
    vmf_write_number(w, value, 1);
}

static inline void vmf_write_be16(VmfWriter *w, uint16_t value)
{
    vmf_write_number(w, value, 2);
}

static inline void vmf_write_be32(VmfWriter *w, uint32_t value)
{
    vmf_write_number(w, value, 4);
}

static inline void vmf_write_be64(VmfWriter *w, uint64_t value)
{
    vmf_write_number(w, value, 8);
}

#endif
