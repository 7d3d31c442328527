/* SPDX-License-Identifier: BSD-2-Clause */
/* stream-bytes.h -- QEMU's stream, put together byte by byte, for the tests */

#ifndef VMF_TESTS_STREAM_BYTES_H
#define VMF_TESTS_STREAM_BYTES_H

#include <string.h>
#include <vmferry/qemu-stream.h>

static inline void put(GByteArray *out, const void *bytes, size_t size)
{
    g_byte_array_append(out, bytes, (guint)size);
}

static inline void put_byte(GByteArray *out, uint8_t byte)
{
    put(out, &byte, 1);
}

static inline void put_be32(GByteArray *out, uint32_t value)
{
    value = GUINT32_TO_BE(value);
    put(out, &value, 4);
}

static inline void put_be64(GByteArray *out, uint64_t value)
{
    value = GUINT64_TO_BE(value);
    put(out, &value, 8);
}

static inline void put_name(GByteArray *out, const char *name)
{
    put_byte(out, (uint8_t)strlen(name));
    put(out, name, strlen(name));
}

/* The footer of a section, which old machine types do without. */
static inline void end_section(GByteArray *out, uint32_t section, bool footers)
{
    if (footers) {
        put_byte(out, VMF_QEMU_SECTION_FOOTER);
        put_be32(out, section);
    }
}

#endif
