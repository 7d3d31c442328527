/* SPDX-License-Identifier: BSD-2-Clause */
/* zero.c -- whether memory is all zero: vector code, chosen at run time */

#include <vmferry/ram.h>

#include <stdint.h>
#include <string.h>

/* A guest may write these bytes while they are read, by design. */
#if defined(__SANITIZE_THREAD__)
#define RACY __attribute__((no_sanitize("thread")))
#else
#define RACY
#endif

#define BLOCK 256

RACY static uint64_t word_at(const uint8_t *at)
{
    uint64_t word;

    __builtin_memcpy(&word, at, sizeof(word));
    return word;
}

RACY static bool small_is_zero(const uint8_t *at, size_t size)
{
    for (; size >= 8; at += 8, size -= 8) {
        if (word_at(at)) {
            return false;
        }
    }
    while (size--) {
        if (*at++) {
            return false;
        }
    }
    return true;
}

typedef uint64_t Vector16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t Vector32 __attribute__((vector_size(32), aligned(1), may_alias));

/* `size' is a multiple of BLOCK. */
RACY static bool blocks_plain(const uint8_t *at, size_t size)
{
    for (const uint8_t *end = at + size; at < end; at += BLOCK) {
        const Vector16 *v = (const Vector16 *)at;
        Vector16 any = v[0] | v[1] | v[2] | v[3] | v[4] | v[5] | v[6] | v[7];

        any |= v[8] | v[9] | v[10] | v[11] | v[12] | v[13] | v[14] | v[15];
        if (any[0] | any[1]) {
            return false;
        }
    }
    return true;
}

#if defined(__x86_64__)
RACY __attribute__((target("avx2"))) static bool blocks_avx2(const uint8_t *at, size_t size)
{
    for (const uint8_t *end = at + size; at < end; at += BLOCK) {
        const Vector32 *v = (const Vector32 *)at;
        Vector32 any = v[0] | v[1] | v[2] | v[3] | v[4] | v[5] | v[6] | v[7];

        if (any[0] | any[1] | any[2] | any[3]) {
            return false;
        }
    }
    return true;
}

static bool blocks_are_zero(const uint8_t *at, size_t size)
{
    return __builtin_cpu_supports("avx2") ? blocks_avx2(at, size) : blocks_plain(at, size);
}
#else
static bool blocks_are_zero(const uint8_t *at, size_t size)
{
    return blocks_plain(at, size);
}
#endif

RACY bool vmf_is_zero(const void *memory, size_t size)
{
    const uint8_t *at = memory;
    size_t blocks = size / BLOCK * BLOCK;

    if (size < BLOCK) {
        return small_is_zero(at, size);
    }
    /* Three words tell nearly every page that is not zero. */
    if (word_at(at) || word_at(at + size / 2) || word_at(at + size - 8)) {
        return false;
    }
    return blocks_are_zero(at, blocks) && small_is_zero(at + blocks, size - blocks);
}
