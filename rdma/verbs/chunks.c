/* SPDX-License-Identifier: BSD-2-Clause */
/* chunks.c -- the table of chunks and their local registrations */

#include "chunks.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "memory-lock.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14; madvise(2) */
#define MADV_POPULATE_WRITE 23
#endif

/*
 * With pin-all, a chunk is about a sixteenth of RAM, but at least this and at most CHUNK_SIZE_MAX.
 */
#define PIN_ALL_CHUNK_MIN (64ull * 1024 * 1024)

bool chunks_init(Chunks *chunks, const VmfRamBlock *const *blocks, unsigned block_count,
                 struct ibv_pd *pd, uint64_t size, int access, GError **error)
{
    uint64_t total = 0;

    g_assert(size && (size & (size - 1)) == 0);
    chunks->shift = (unsigned)__builtin_ctzll(size);
    chunks->blocks = blocks;
    chunks->block_count = block_count;
    chunks->pd = pd;
    chunks->access = access;
    chunks->first = g_new0(uint32_t, block_count + 1);
    for (unsigned i = 0; i < block_count; i++) {
        chunks->first[i] = (uint32_t)total;
        total += (blocks[i]->length + size - 1) >> chunks->shift;
        if (total >= CHUNK_NIL) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                        "guest RAM has too many chunks of %" G_GUINT64_FORMAT
                        " bytes; use a larger chunk-size",
                        size);
            return false;
        }
    }
    chunks->first[block_count] = (uint32_t)total;
    chunks->chunks = VERBS_POINTER("chunk table", g_try_new0(Chunk, MAX(total, 1)));
    chunks->remote = g_new0(uint64_t, MAX(block_count, 1));
    if (!chunks->chunks) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                    "no memory for a table of %" G_GUINT64_FORMAT " chunks", total);
        return false;
    }
    chunks->own_bytes = total * sizeof(Chunk) + block_count * 12ull;
    return true;
}

static uint8_t *chunk_start(const Chunks *chunks, unsigned block, uint32_t index)
{
    return chunks->blocks[block]->host + ((uint64_t)index << chunks->shift);
}

/* Gives up a chunk's registration, and its copy if it has one. */
static void release(Chunks *chunks, unsigned block, uint32_t index)
{
    struct ibv_mr *mr = g_steal_pointer(&chunks->chunks[chunks->first[block] + index].mr);
    void *copy = mr && mr->addr != chunk_start(chunks, block, index) ? mr->addr : NULL;

    if (mr) {
        ibv_dereg_mr(mr);
    }
    if (copy) {
        munmap(copy, chunks_length(chunks, block, index));
    }
}

void chunks_clear(Chunks *chunks)
{
    for (unsigned block = 0; chunks->chunks && block < chunks->block_count; block++) {
        for (uint32_t i = 0; i < chunks_count(chunks, block); i++) {
            release(chunks, block, i);
        }
    }
    g_clear_pointer(&chunks->chunks, g_free);
    g_clear_pointer(&chunks->first, g_free);
    g_clear_pointer(&chunks->remote, g_free);
}

uint64_t chunks_length(const Chunks *chunks, unsigned block, uint32_t index)
{
    uint64_t start = (uint64_t)index << chunks->shift;

    return MIN(chunks->blocks[block]->length - start, 1ull << chunks->shift);
}

unsigned chunks_block_of(const Chunks *chunks, uint32_t id)
{
    unsigned low = 0, high = chunks->block_count;

    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (chunks->first[middle] <= id) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct ibv_mr *register_memory(const Chunks *chunks, void *start, uint64_t length)
{
    return VERBS_POINTER("ibv_reg_mr chunk", ibv_reg_mr(chunks->pd, start, length, chunks->access));
}

/*
 * Waits until all pages of the memory are present. A registration does not wait for pages that
 * somebody has still to fill (userfaultfd), but fails with EFAULT. False if the pages cannot be
 * made present. One reason is a handler that takes no faults of the kernel.
 */
static bool make_present(const Chunks *chunks, uint8_t *start, uint64_t length)
{
    const uintptr_t mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    const uintptr_t from = (uintptr_t)start & ~mask;
    const uintptr_t to = ((uintptr_t)start + length + mask) & ~mask;
    const bool writable = chunks->access & IBV_ACCESS_REMOTE_WRITE;

    return madvise((void *)from, to - from, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) ==
           0;
}

/*
 * Before version 6.2, the kernel asks for write access to all memory that is registered. A shared
 * mapping of a file that is open only for reading has none. A source sends such memory from a copy.
 */
static struct ibv_mr *register_copy(const Chunks *chunks, uint64_t length)
{
    void *copy = VERBS_POINTER("mmap copy", mmap(NULL, length, PROT_READ | PROT_WRITE,
                                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    struct ibv_mr *mr = copy && copy != MAP_FAILED ? register_memory(chunks, copy, length) : NULL;

    if (!mr && copy && copy != MAP_FAILED) {
        const int err = errno;

        munmap(copy, length);
        errno = err;
    }
    return mr;
}

const uint8_t *chunks_source(const Chunks *chunks, const struct ibv_mr *mr, unsigned block,
                             uint64_t offset, uint64_t length)
{
    const uint64_t inside = offset & ((1ull << chunks->shift) - 1);
    const uint8_t *memory = chunks->blocks[block]->host + offset;

    if (G_LIKELY(mr->addr == memory - inside)) {
        return memory;
    }
    /*
     * A write of the same bytes may be under way. It may carry the newer bytes, as it may from RAM
     * itself.
     */
    return memcpy((uint8_t *)mr->addr + inside, memory, length);
}

int chunks_register(Chunks *chunks, unsigned block, uint32_t index, VmfChannelCounters *counters)
{
    Chunk *chunk = &chunks->chunks[chunks->first[block] + index];
    uint64_t length = chunks_length(chunks, block, index);
    uint8_t *start = chunk_start(chunks, block, index);
    uint64_t begin = now_ns();

    chunk->mr = register_memory(chunks, start, length);
    if (!chunk->mr && errno == EFAULT) {
        const bool present = make_present(chunks, start, length);

        chunk->mr = present ? register_memory(chunks, start, length) : NULL;
        if (!chunk->mr && present && !(chunks->access & IBV_ACCESS_REMOTE_WRITE)) {
            chunk->mr = register_copy(chunks, length);
        } else if (!present) {
            errno = EFAULT;
        }
    }
    if (!chunk->mr) {
        return errno ? errno : ENOMEM;
    }
    counter_add(&counters->registrations, 1);
    counter_add(&counters->registered_bytes, length);
    counter_add(&counters->registration_ns, now_ns() - begin);
    return 0;
}

void chunks_unregister(Chunks *chunks, unsigned block, uint32_t index, VmfChannelCounters *counters)
{
    if (!chunks->chunks[chunks->first[block] + index].mr) {
        return;
    }
    release(chunks, block, index);
    counter_add(&counters->evictions, 1);
    counter_add(&counters->registered_bytes, -chunks_length(chunks, block, index));
}

/* --- pin-all --- */

typedef struct PinJob {
    Chunks *chunks;
    GCancellable *cancel;
    uint32_t next; /* atomic: the next chunk to register */
    int err;       /* atomic: the first failure */
    uint32_t failed;
} PinJob;

typedef struct PinWorker {
    PinJob *job;
    VmfChannelCounters counters;
    GThread *thread;
} PinWorker;

static void *pin_worker(void *opaque)
{
    PinWorker *worker = opaque;
    PinJob *job = worker->job;
    uint32_t total = job->chunks->first[job->chunks->block_count];

    while (!__atomic_load_n(&job->err, __ATOMIC_RELAXED) &&
           !g_cancellable_is_cancelled(job->cancel)) {
        uint32_t id = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        unsigned block;
        int err, none = 0;

        if (id >= total) {
            break;
        }
        block = chunks_block_of(job->chunks, id);
        err =
            chunks_register(job->chunks, block, id - job->chunks->first[block], &worker->counters);
        if (err && __atomic_compare_exchange_n(&job->err, &none, err, false, __ATOMIC_SEQ_CST,
                                               __ATOMIC_SEQ_CST)) {
            job->failed = id;
        }
    }
    return NULL;
}

static uint64_t bytes_of(const VmfRamBlock *const *blocks, unsigned block_count)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < block_count; i++) {
        bytes += blocks[i]->length;
    }
    return bytes;
}

uint64_t chunks_pin_all_size(const VmfRamBlock *const *blocks, unsigned block_count)
{
    const uint64_t bytes = bytes_of(blocks, block_count);
    uint64_t size = PIN_ALL_CHUNK_MIN;

    while (size < CHUNK_SIZE_MAX && size < bytes / 16) {
        size *= 2;
    }
    return size;
}

bool chunks_register_all(Chunks *chunks, GCancellable *cancel, VmfChannelCounters *counters,
                         GError **error)
{
    PinJob job = {.chunks = chunks, .cancel = cancel};
    uint32_t total = chunks->first[chunks->block_count];
    const int processors = get_nprocs();
    unsigned count_threads = (unsigned)CLAMP(processors, 1, 8);
    PinWorker workers[8] = {0};

    count_threads = MIN(count_threads, MAX(total, 1));
    for (unsigned i = 0; i < count_threads; i++) {
        workers[i].job = &job;
        if (i > 0) {
            workers[i].thread = g_thread_try_new("vmf-pin", pin_worker, &workers[i], NULL);
        }
    }
    pin_worker(&workers[0]); /* this thread works, too, and works alone if no other could start */
    for (unsigned i = 0; i < count_threads; i++) {
        VmfChannelCounters *c = &workers[i].counters;

        if (workers[i].thread) {
            g_thread_join(workers[i].thread);
        }
        counter_add(&counters->registrations, c->registrations);
        counter_add(&counters->registered_bytes, c->registered_bytes);
        counter_add(&counters->registration_ns, c->registration_ns);
    }
    if (job.err) {
        unsigned block = chunks_block_of(chunks, job.failed);
        g_autofree char *what = g_strdup_printf("RAM block \"%s\"", chunks->blocks[block]->name);

        memlock_error(error, job.err, bytes_of(chunks->blocks, chunks->block_count), what, false);
        return false;
    }
    if (g_cancellable_is_cancelled(cancel)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "cancelled while pinning memory");
        return false;
    }
    return true;
}
