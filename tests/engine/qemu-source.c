/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-source.c -- a program that migrates a VM away as QEMU does with RDMA */

#include "qemu-source.h"

#include <string.h>
#include <vmferry/ram.h>

#include "support/stream-bytes.h"

#define MESSAGE_BYTES 32768u
#define CHUNK_BITS 20
#define SHUT 1
#define PONG 2

static bool at(QemuSource *s, SourceStep step)
{
    return !s->at || s->at(s->opaque, step);
}

/* --- the stream --- */

/* One message. QEMU looks for the completion of the last one as for any other. */
static bool send_part(QemuSource *s, const uint8_t *data, size_t size, bool last)
{
    if (!last) {
        return link_exchange(&s->link, V1_QEMU_FILE, data, size);
    }
    if (!link_begin_exchange(&s->link, V1_QEMU_FILE, data, size, false) || !at(s, SOURCE_LAST) ||
        !link_await(&s->link, LINK_SEND, NULL)) {
        return false;
    }
    g_atomic_int_set(&s->last_taken, 1);
    return true;
}

static bool send_all(QemuSource *s, bool last)
{
    size_t done = 0;

    while (done < s->out->len) {
        const size_t part = MIN(s->out->len - done, MESSAGE_BYTES);

        if (!send_part(s, s->out->data + done, part, last && done + part == s->out->len)) {
            return false;
        }
        done += part;
    }
    g_byte_array_set_size(s->out, 0);
    return true;
}

/* --- RAM --- */

static bool pin(void *opaque)
{
    QemuSource *s = opaque;

    for (unsigned i = 0; s->pin_all && i < VM_BLOCKS; i++) {
        s->pinned[i] = false_reg_mr(s->link.pd, s->vm->blocks[i], vm_block_bytes[i],
                                    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        g_assert_nonnull(s->pinned[i]);
    }
    return true;
}

static bool ask_for_blocks(QemuSource *s)
{
    if (!link_ask(&s->link, V1_RAM_BLOCKS_REQUEST, NULL, 0, V1_RAM_BLOCKS_RESULT, pin, s)) {
        return false;
    }
    g_assert_cmpuint(s->link.size, ==, VM_BLOCKS * V1_BLOCK_BYTES);
    for (unsigned i = 0; i < VM_BLOCKS; i++) {
        V1Block block;

        v1_block_decode(s->link.body, i, &block);
        g_assert_cmpuint(block.length, ==, vm_block_bytes[i]);
        s->remote[i] = block.host;
        s->offsets[i] = block.offset;
    }
    return true;
}

static bool say_zero(QemuSource *s, unsigned block, uint64_t offset, uint64_t length)
{
    const V1Zero zero = {.block = block, .offset = s->offsets[block] + offset, .length = length};
    uint8_t body[V1_ZERO_BYTES];

    v1_zero_encode(&zero, body);
    return link_exchange(&s->link, V1_COMPRESS, body, sizeof(body));
}

static bool register_chunk(QemuSource *s, unsigned block, uint64_t offset)
{
    const uint64_t chunk = offset >> CHUNK_BITS, begin = chunk << CHUNK_BITS;
    const V1Register request = {.key = s->offsets[block] + offset, .block = block};
    V1Registered result;
    uint8_t body[V1_REGISTER_BYTES];

    v1_register_encode(&request, body);
    if (!link_ask(&s->link, V1_REGISTER_REQUEST, body, sizeof(body), V1_REGISTER_RESULT, NULL,
                  NULL)) {
        return false;
    }
    s->chunks[block][chunk] = false_reg_mr(s->link.pd, s->vm->blocks[block] + begin,
                                           MIN(1ull << CHUNK_BITS, vm_block_bytes[block] - begin),
                                           IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    g_assert_nonnull(s->chunks[block][chunk]);
    v1_registered_decode(s->link.body, 0, &result);
    s->remote[block] = result.host;
    return true;
}

/* Pages that lie in one chunk. */
static bool save(QemuSource *s, unsigned block, unsigned page, unsigned pages)
{
    const uint64_t offset = (uint64_t)page * VM_PAGE, length = (uint64_t)pages * VM_PAGE;
    const uint64_t chunk = offset >> CHUNK_BITS;
    const uint8_t *memory = s->vm->blocks[block] + offset;
    const struct ibv_mr *mr = s->pinned[block];

    if (!mr && !s->chunks[block][chunk]) {
        if (vmf_is_zero(memory, length)) {
            return say_zero(s, block, offset, length);
        }
        if (!register_chunk(s, block, offset)) {
            return false;
        }
    }
    mr = mr ? mr : s->chunks[block][chunk];
    return link_write(&s->link, memory, (uint32_t)length, mr->lkey, s->remote[block] + offset,
                      chunk) &&
           link_look(&s->link);
}

/* All pages, in runs as QEMU merges them; some single. */
static bool save_everything(QemuSource *s)
{
    for (unsigned block = 0; block < VM_BLOCKS; block++) {
        const unsigned pages = (unsigned)(vm_block_bytes[block] / VM_PAGE);
        unsigned run;

        for (unsigned page = 0; page < pages; page += run) {
            run = page == 8 || page == 300 ? 1 : MIN(64, pages - page);
            run = page < 8 ? 8 - page : MIN(run, 256 - page % 256);
            if (!save(s, block, page, run) || (page == 9 && !at(s, SOURCE_WROTE))) {
                return false;
            }
        }
    }
    return true;
}

/* What the guest has changed: data, data that becomes zero, and zeros that become data. */
static bool save_changes(QemuSource *s, unsigned round)
{
    static const struct {
        unsigned block, page;
        bool zero;
    } changes[] = {{0, 3, false},  {0, 4, true},  {0, 150, false}, {0, 280, false},
                   {0, 575, true}, {1, 0, false}, {1, 200, true},  {2, 15, false}};

    for (unsigned i = 0; i < G_N_ELEMENTS(changes); i++) {
        small_vm_change(s->vm, changes[i].block, changes[i].page, changes[i].zero ? 0 : round + 7);
        if (!save(s, changes[i].block, changes[i].page, 1)) {
            return false;
        }
    }
    return true;
}

static bool begin_hook(QemuSource *s)
{
    put_be64(s->out, VMF_QEMU_RAM_HOOK);
    return send_all(s, false);
}

static bool end_hook(QemuSource *s)
{
    return link_drain(&s->link) && link_exchange(&s->link, V1_REGISTER_FINISHED, NULL, 0);
}

static bool end_ram(QemuSource *s)
{
    put_be64(s->out, VMF_QEMU_RAM_EOS);
    end_section(s->out, VM_RAM_SECTION, true);
    return send_all(s, false);
}

static bool send_setup(QemuSource *s)
{
    uint64_t total = 0;

    put_be32(s->out, VMF_QEMU_STREAM_MAGIC);
    put_be32(s->out, VMF_QEMU_STREAM_VERSION);
    put_byte(s->out, VMF_QEMU_SECTION_START);
    put_be32(s->out, VM_RAM_SECTION);
    put_name(s->out, VM_RAM_NAME);
    put_be32(s->out, 0);
    put_be32(s->out, VMF_QEMU_RAM_VERSION);
    for (unsigned i = 0; i < VM_BLOCKS; i++) {
        total += vm_block_bytes[i];
    }
    put_be64(s->out, total | VMF_QEMU_RAM_MEM_SIZE);
    for (unsigned i = 0; i < VM_BLOCKS; i++) {
        put_name(s->out, vm_block_names[i]);
        put_be64(s->out, vm_block_bytes[i]);
    }
    return begin_hook(s) && at(s, SOURCE_BEGUN) && ask_for_blocks(s) && at(s, SOURCE_NAMED) &&
           end_hook(s) && end_ram(s);
}

static bool send_pages(QemuSource *s, unsigned round)
{
    if (!round || s->grows) {
        return save_everything(s);
    }
    return s->idle || save_changes(s, round);
}

static bool send_round(QemuSource *s, unsigned round, uint8_t section)
{
    put_byte(s->out, section);
    put_be32(s->out, VM_RAM_SECTION);
    return begin_hook(s) && send_pages(s, round) && end_hook(s) && end_ram(s);
}

static bool send_ram(QemuSource *s)
{
    for (unsigned round = 0; round < s->rounds; round++) {
        s->round = round;
        if (!send_round(s, round, VMF_QEMU_SECTION_PART) || !at(s, SOURCE_ROUND)) {
            return false;
        }
    }
    return send_round(s, s->rounds, VMF_QEMU_SECTION_END) && at(s, SOURCE_RAM_ENDED);
}

static bool send_devices(QemuSource *s)
{
    g_autofree uint8_t *content = g_malloc(VM_DEVICE_BYTES);

    small_vm_device(content);
    put_byte(s->out, VMF_QEMU_SECTION_FULL);
    put_be32(s->out, VM_DEVICE_SECTION);
    put_name(s->out, VM_DEVICE_NAME);
    put_be32(s->out, 0);
    put_be32(s->out, 2);
    put(s->out, content, VM_DEVICE_BYTES);
    end_section(s->out, VM_DEVICE_SECTION, true);
    return send_all(s, false) && at(s, SOURCE_DEVICES);
}

static bool send_end(QemuSource *s)
{
    put_byte(s->out, VMF_QEMU_SECTION_EOF);
    if (s->described) {
        g_autofree char *text = small_vm_description(s->described);

        put_byte(s->out, VMF_QEMU_SECTION_VMDESC);
        put_be32(s->out, (uint32_t)s->described);
        put(s->out, text, s->described);
    }
    return send_all(s, true) && at(s, SOURCE_DONE);
}

/* --- the return path --- */

static void *read_back(void *opaque)
{
    QemuSource *s = opaque;
    bool shut = false;

    while (!shut) {
        if (!link_receive(&s->back)) {
            s->back_failed = true;
            return NULL;
        }
        g_assert_cmpuint(s->back.header.type, ==, V1_QEMU_FILE);
        if (s->back.size >= 8 && s->back.body[1] == PONG) {
            g_atomic_int_set(&s->pong, 1);
        } else if (s->back.size == 4) {
            g_atomic_int_set(&s->acknowledged, 1);
        }
        g_byte_array_append(s->returned, s->back.body, (guint)s->back.size);
        /* Each message of the tests' destination is whole. */
        shut = s->back.size >= 8 && s->back.body[s->back.size - 7] == SHUT &&
               s->back.body[s->back.size - 8] == 0;
    }
    g_atomic_int_set(&s->shut, true);
    return NULL;
}

static bool connect_back(QemuSource *s)
{
    bool pin_all = s->pin_all;

    link_init(&s->back, s->device);
    link_resolve(&s->back, s->host, s->service);
    if (!link_connect(&s->back, &pin_all)) {
        return false;
    }
    s->reader = g_thread_new("return-path", read_back, s);
    return true;
}

/* --- the whole --- */

static bool migrate(QemuSource *s)
{
    link_init(&s->link, s->device);
    link_resolve(&s->link, s->host, s->service);
    s->connected = link_connect(&s->link, &s->pin_all);
    return s->connected && at(s, SOURCE_CONNECTED) && (!s->return_path || connect_back(s)) &&
           at(s, SOURCE_READY) && send_setup(s) && send_ram(s) && send_devices(s) && send_end(s);
}

static void release_memory(QemuSource *s)
{
    for (unsigned i = 0; i < VM_BLOCKS; i++) {
        if (s->pinned[i]) {
            g_assert_cmpint(false_dereg_mr(s->pinned[i]), ==, 0);
        }
        for (unsigned chunk = 0; chunk < G_N_ELEMENTS(s->chunks[i]); chunk++) {
            if (s->chunks[i][chunk]) {
                g_assert_cmpint(false_dereg_mr(s->chunks[i][chunk]), ==, 0);
            }
        }
    }
}

void *qemu_source_main(void *source)
{
    QemuSource *s = source;
    LinkEnd end;

    s->out = g_byte_array_new();
    s->returned = g_byte_array_new();
    s->sent = migrate(s);
    if (s->reader) {
        if (!s->sent) { /* QEMU shuts its files down */
            g_atomic_int_set(&s->back.cancelled, 1);
        }
        g_thread_join(s->reader);
    }
    s->gave = s->sent && !s->back_failed;
    end = s->gave ? LINK_LEAVES : s->end;
    if (s->back.channel) {
        link_end(&s->back, end);
    }
    release_memory(s);
    link_end(&s->link, end);
    g_byte_array_unref(s->out);
    return NULL;
}
