/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-memory.c -- the synthetic guest's RAM: content, dirtying, hash */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

/* xorshift64* (Vigna, 2016): quick, and good enough for content and choices. */
uint64_t bench_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

/* The most pages, each of which has a bit: 16 TiB in pages of 4 KiB. */
#define PAGES_MAX (1ull << 32)

/* The size may come from another host, so it is refused before this host runs out of memory. */
static bool fits(const BenchPlan *plan, GError **error)
{
    uint64_t physical = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

    if (plan->populate && plan->ram > physical) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "a guest of %" G_GUINT64_FORMAT
                    " MiB is larger than the memory of this host (%" G_GUINT64_FORMAT
                    " MiB): make --ram smaller",
                    plan->ram >> 20, physical >> 20);
        return false;
    }
    if (plan->ram / plan->page_size > PAGES_MAX) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "a guest of %" G_GUINT64_FORMAT " MiB has too many pages of %" G_GUINT64_FORMAT
                    " bytes: make --page-size larger",
                    plan->ram >> 20, plan->page_size);
        return false;
    }
    return true;
}

bool bench_memory_init(BenchMemory *memory, const BenchPlan *plan, GError **error)
{
    int populate = plan->populate ? MAP_POPULATE : 0;
    uint8_t *ram;

    if (!fits(plan, error)) {
        return false;
    }
    ram = mmap(NULL, plan->ram, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | populate, -1, 0);
    if (ram == MAP_FAILED) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO,
                    "no memory for a guest of %" G_GUINT64_FORMAT " bytes: %s", plan->ram,
                    g_strerror(errno));
        return false;
    }
    if (plan->populate) {
        /*
         * Under User-Mode Linux a resident page still faults slowly at its first use. Changing the
         * protection and changing it back maps all pages at once. Elsewhere it costs nothing.
         */
        mprotect(ram, plan->ram, PROT_READ);
        mprotect(ram, plan->ram, PROT_READ | PROT_WRITE);
    }
    *memory = (BenchMemory){
        .ram = ram,
        .size = plan->ram,
        .page_size = plan->page_size,
        .pages = (plan->ram + plan->page_size - 1) / plan->page_size,
        .random = plan->seed * 0x9e3779b97f4a7c15ull + 1,
    };
    memory->dirty = g_try_new0(uint64_t, memory->pages / 64 + 1); /* the size comes from a plan */
    if (!memory->dirty) {
        bench_memory_clear(memory);
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO,
                    "no memory for the marks of %" G_GUINT64_FORMAT " pages",
                    plan->ram / plan->page_size);
        return false;
    }
    return true;
}

void bench_memory_clear(BenchMemory *memory)
{
    if (memory->ram) {
        munmap(memory->ram, memory->size);
    }
    g_free(memory->dirty);
    *memory = (BenchMemory){0};
}

static uint64_t page_bytes(const BenchMemory *memory, uint64_t page)
{
    return MIN(memory->page_size, memory->size - page * memory->page_size);
}

static void set_dirty(BenchMemory *memory, uint64_t page)
{
    __atomic_fetch_or(&memory->dirty[page / 64], 1ull << (page % 64), __ATOMIC_RELEASE);
}

void bench_memory_write_page(BenchMemory *memory, uint64_t page, uint64_t content)
{
    uint8_t *at = memory->ram + page * memory->page_size;
    uint64_t left = page_bytes(memory, page);
    uint64_t state = content | 1;

    /* A few random words over the page, beside a constant that differs from page to page. */
    for (; left >= 64; at += 64, left -= 64) {
        uint64_t line[8] = {bench_random(&state), page, content, ~page, state, left, 1, 2};
        memcpy(at, line, sizeof(line));
    }
    memset(at, (int)(content & 0xff) | 1, left);
    set_dirty(memory, page);
}

void bench_memory_fill(BenchMemory *memory, const BenchPlan *plan)
{
    for (uint64_t page = 0; page < memory->pages; page++) {
        uint64_t dice = bench_random(&memory->random) % 100;

        set_dirty(memory, page); /* the first round saves all */
        if (dice < plan->untouched_percent) {
            continue;
        }
        if (dice < plan->untouched_percent + plan->zero_percent) {
            memset(memory->ram + page * memory->page_size, 0, page_bytes(memory, page));
        } else {
            bench_memory_write_page(memory, page, bench_random(&memory->random));
        }
    }
}

static bool is_dirty(const BenchMemory *memory, uint64_t page)
{
    return __atomic_load_n(&memory->dirty[page / 64], __ATOMIC_RELAXED) >> (page % 64) & 1;
}

/* A clean page, so that the percentage is true; any page if none is clean. */
static uint64_t random_clean_page(const BenchMemory *memory, uint64_t *random)
{
    uint64_t page = bench_random(random) % memory->pages;

    for (uint64_t tries = 0; is_dirty(memory, page) && tries < memory->pages; tries++) {
        /* At random first; in order when few are left. */
        page = tries < 64 ? bench_random(random) % memory->pages : (page + 1) % memory->pages;
    }
    return page;
}

static uint64_t hot_page(const BenchMemory *memory, uint64_t *random)
{
    uint64_t page = bench_random(random) % memory->pages;

    /* 90 % of the writes go to a tenth of RAM. */
    return bench_random(random) % 10 ? page % MAX(memory->pages / 10, 1) : page;
}

void bench_memory_dirty(BenchMemory *memory, const BenchPlan *plan, uint64_t *random)
{
    uint64_t count = MAX(memory->pages * plan->dirty_percent / 100, 1);
    uint64_t start = bench_random(random) % memory->pages;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t page = plan->pattern == PATTERN_SEQUENTIAL ? (start + i) % memory->pages
                        : plan->pattern == PATTERN_HOTSET   ? hot_page(memory, random)
                                                            : random_clean_page(memory, random);

        bench_memory_write_page(memory, page, bench_random(random));
    }
}

bool bench_memory_next_dirty(BenchMemory *memory, uint64_t *page)
{
    uint64_t at = *page;

    while (at < memory->pages) {
        uint64_t word = __atomic_load_n(&memory->dirty[at / 64], __ATOMIC_ACQUIRE) >> (at % 64);

        if (!word) {
            at = (at / 64 + 1) * 64;
            continue;
        }
        at += (uint64_t)__builtin_ctzll(word);
        if (at >= memory->pages) {
            break;
        }
        /* Cleared before the page is read, so that a later write makes it dirty again. */
        __atomic_fetch_and(&memory->dirty[at / 64], ~(1ull << (at % 64)), __ATOMIC_ACQ_REL);
        *page = at;
        return true;
    }
    return false;
}

/* Every byte counts, and its place. It does not withstand attacks. */
uint64_t bench_memory_hash(const BenchMemory *memory)
{
    uint64_t lanes[4] = {1, 2, 3, 4}, hash = memory->size;
    const uint8_t *at = memory->ram;
    uint64_t left = memory->size;

    for (; left >= 32; at += 32, left -= 32) {
        uint64_t words[4];

        memcpy(words, at, sizeof(words));
        for (unsigned i = 0; i < 4; i++) {
            lanes[i] = (lanes[i] ^ words[i]) * 0x9e3779b97f4a7c15ull;
            lanes[i] ^= lanes[i] >> 29;
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        hash = (hash ^ lanes[i]) * 0xff51afd7ed558ccdull;
        hash ^= hash >> 32;
    }
    for (; left; at++, left--) {
        hash = (hash ^ *at) * 0x100000001b3ull;
    }
    return hash;
}
