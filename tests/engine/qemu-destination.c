/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-destination.c -- a program that takes a VM as QEMU does with RDMA */

#include "qemu-destination.h"

#include <poll.h>
#include <string.h>
#include <vmferry/qemu-stream.h>

static bool at(QemuDestination *d, DestinationStep step)
{
    return !d->at || d->at(d->opaque, step);
}

/* --- listening --- */

bool qemu_destination_listen(QemuDestination *d)
{
    struct rdma_addrinfo *info;
    int reuse = 1;

    d->channel = false_create_event_channel(d->device);
    g_assert_cmpint(false_create_id(d->channel, &d->listening, NULL, RDMA_PS_TCP), ==, 0);
    g_assert_cmpint(false_getaddrinfo(d->device, d->host, d->service, NULL, &info), ==, 0);
    g_assert_cmpint(false_set_option(d->listening, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &reuse,
                                     sizeof(reuse)),
                    ==, 0);
    g_assert_cmpint(false_bind_addr(d->listening, info->ai_dst_addr), ==, 0);
    false_freeaddrinfo(d->device, info);
    return false_listen(d->listening, 5) == 0;
}

static struct rdma_cm_id *await_request(QemuDestination *d)
{
    for (;;) {
        struct pollfd fd = {.fd = d->channel->fd, .events = POLLIN};
        struct rdma_cm_event *event;
        struct rdma_cm_id *id;

        poll(&fd, 1, 10);
        if (fd.revents) {
            g_assert_cmpint(false_get_cm_event(d->channel, &event), ==, 0);
            g_assert_cmpint(event->event, ==, RDMA_CM_EVENT_CONNECT_REQUEST);
            id = event->id;
            g_assert_cmpint(false_ack_cm_event(event), ==, 0);
            return id;
        }
        if (g_atomic_int_get(&d->cancelled)) {
            return NULL;
        }
    }
}

/* --- the return path --- */

static bool say_back(QemuDestination *d, unsigned type, uint32_t value)
{
    const uint8_t message[8] = {0, (uint8_t)type, 0, 4, 0, 0, 0, (uint8_t)value};

    return !d->back.connected || link_exchange(&d->back, V1_QEMU_FILE, message, sizeof(message));
}

static bool acknowledge(QemuDestination *d)
{
    static const uint8_t message[4] = {0, 7, 0, 0};

    return !d->acknowledges || link_exchange(&d->back, V1_QEMU_FILE, message, sizeof(message));
}

static void accept_back(QemuLink *link, struct rdma_cm_id *id)
{
    QemuDestination *d = link->owner;

    link_init(&d->back, d->device);
    link_adopt(&d->back, d->channel, id);
    if (link_accept(&d->back) && acknowledge(d)) {
        (void)say_back(d, 2, 1); /* PONG */
    }
}

/* --- the stream --- */

static bool get(QemuDestination *d, void *bytes, size_t size)
{
    uint8_t *out = bytes;

    while (size) {
        size_t part = MIN(size, d->in->len - d->taken);

        if (!part) {
            if (!link_receive(&d->link)) {
                return false;
            }
            g_assert_cmpuint(d->link.header.type, ==, V1_QEMU_FILE);
            g_byte_array_set_size(d->in, 0);
            g_byte_array_append(d->in, d->link.body, (guint)d->link.size);
            d->taken = 0;
            continue;
        }
        memcpy(out, d->in->data + d->taken, part);
        d->taken += part;
        out += part;
        size -= part;
    }
    return true;
}

static bool get_number(QemuDestination *d, size_t bytes, uint64_t *value)
{
    uint8_t raw[8];

    if (!get(d, raw, bytes)) {
        return false;
    }
    *value = 0;
    for (size_t i = 0; i < bytes; i++) {
        *value = *value << 8 | raw[i];
    }
    return true;
}

static bool expect(QemuDestination *d, size_t bytes, uint64_t value)
{
    uint64_t got;

    if (!get_number(d, bytes, &got)) {
        return false;
    }
    g_assert_cmphex(got, ==, value);
    return true;
}

static bool get_name(QemuDestination *d, char name[256])
{
    uint64_t length;

    if (!get_number(d, 1, &length) || !get(d, name, length)) {
        return false;
    }
    name[length] = '\0';
    return true;
}

static bool expect_name(QemuDestination *d, const char *name)
{
    char got[256];

    if (!get_name(d, got)) {
        return false;
    }
    g_assert_cmpstr(got, ==, name);
    return true;
}

/* --- RAM --- */

static bool read_list(QemuDestination *d, uint64_t total)
{
    for (unsigned count = 0; total; count++) {
        uint64_t length;
        char name[256];

        if (!get_name(d, name) || !get_number(d, 8, &length)) {
            return false;
        }
        total -= length;
        for (unsigned i = 0; i < VM_BLOCKS; i++) {
            if (strcmp(name, vm_block_names[i]) == 0) {
                g_assert_cmpuint(length, ==, vm_block_bytes[i]);
                d->listed[count] = i;
            }
        }
    }
    return true;
}

static bool answer_blocks(QemuDestination *d)
{
    uint8_t body[VM_BLOCKS * V1_BLOCK_BYTES];

    for (unsigned i = 0; i < VM_BLOCKS; i++) {
        const V1Block block = {.host = (uintptr_t)d->vm->blocks[d->listed[i]],
                               .offset = (uint64_t)i << 32,
                               .length = vm_block_bytes[d->listed[i]]};

        v1_block_encode(&block, body + (size_t)i * V1_BLOCK_BYTES);
    }
    d->named = true;
    return at(d, DESTINATION_ASKED) &&
           link_send(&d->link, V1_RAM_BLOCKS_RESULT, 1, body, sizeof(body)) &&
           at(d, DESTINATION_NAMED);
}

static bool run_hook(QemuDestination *d)
{
    if (!d->named && !at(d, DESTINATION_HOOK)) {
        return false;
    }
    for (;;) {
        if (!link_receive(&d->link)) {
            return false;
        }
        if (d->link.header.type == V1_REGISTER_FINISHED) {
            return true;
        }
        g_assert_cmpuint(d->link.header.type, ==, V1_RAM_BLOCKS_REQUEST);
        if (!answer_blocks(d)) {
            return false;
        }
    }
}

static bool read_ram(QemuDestination *d)
{
    uint64_t word;

    for (;;) {
        if (!get_number(d, 8, &word)) {
            return false;
        }
        if (word & VMF_QEMU_RAM_MEM_SIZE) {
            if (!read_list(d, word & ~(uint64_t)VMF_QEMU_RAM_FLAGS)) {
                return false;
            }
        } else if (word == VMF_QEMU_RAM_HOOK) {
            if (!run_hook(d)) {
                return false;
            }
        } else {
            g_assert_cmphex(word, ==, VMF_QEMU_RAM_EOS);
            return expect(d, 1, VMF_QEMU_SECTION_FOOTER) && expect(d, 4, VM_RAM_SECTION);
        }
    }
}

static bool read_setup(QemuDestination *d)
{
    return expect(d, 4, VMF_QEMU_STREAM_MAGIC) && expect(d, 4, VMF_QEMU_STREAM_VERSION) &&
           at(d, DESTINATION_BEGUN) && expect(d, 1, VMF_QEMU_SECTION_START) &&
           expect(d, 4, VM_RAM_SECTION) && expect_name(d, VM_RAM_NAME) && expect(d, 4, 0) &&
           expect(d, 4, VMF_QEMU_RAM_VERSION) && read_ram(d);
}

static bool read_rounds(QemuDestination *d)
{
    uint64_t section;
    bool first = true;

    do {
        if (!get_number(d, 1, &section) || !expect(d, 4, VM_RAM_SECTION) || !read_ram(d) ||
            (first && !at(d, DESTINATION_ROUND))) {
            return false;
        }
        first = false;
    } while (section == VMF_QEMU_SECTION_PART);
    g_assert_cmpuint(section, ==, VMF_QEMU_SECTION_END);
    return at(d, DESTINATION_RAM_ENDED);
}

static bool read_devices(QemuDestination *d)
{
    g_autofree uint8_t *content = g_malloc(VM_DEVICE_BYTES), *got = g_malloc(VM_DEVICE_BYTES);

    small_vm_device(content);
    if (!expect(d, 1, VMF_QEMU_SECTION_FULL) || !expect(d, 4, VM_DEVICE_SECTION) ||
        !expect_name(d, VM_DEVICE_NAME) || !expect(d, 4, 0) || !expect(d, 4, 2) ||
        !get(d, got, VM_DEVICE_BYTES) || !expect(d, 1, VMF_QEMU_SECTION_FOOTER) ||
        !expect(d, 4, VM_DEVICE_SECTION)) {
        return false;
    }
    g_assert_true(memcmp(content, got, VM_DEVICE_BYTES) == 0);
    return at(d, DESTINATION_LOADED);
}

static bool read_end(QemuDestination *d)
{
    g_autofree char *text = NULL;
    g_autofree char *got = g_malloc(d->described + 1);

    if (!expect(d, 1, VMF_QEMU_SECTION_EOF)) {
        return false;
    }
    g_atomic_int_set(&d->got_eof, 1);
    if (!at(d, DESTINATION_EOF)) {
        return false;
    }
    if (d->described) {
        text = small_vm_description(d->described);
        if (!expect(d, 1, VMF_QEMU_SECTION_VMDESC) || !expect(d, 4, d->described) ||
            !get(d, got, d->described)) {
            return false;
        }
        g_assert_true(memcmp(text, got, d->described) == 0);
    }
    return say_back(d, 1, 0); /* SHUT: it runs */
}

/* --- the whole --- */

static bool take_vm(QemuDestination *d)
{
    struct rdma_cm_id *id = await_request(d);

    if (!id) {
        return false;
    }
    link_init(&d->link, d->device);
    d->link.owner = d;
    d->link.requested = d->return_path ? accept_back : NULL;
    link_adopt(&d->link, d->channel, id);
    return at(d, DESTINATION_REQUESTED) && link_accept(&d->link) && at(d, DESTINATION_ACCEPTED) &&
           read_setup(d) && read_rounds(d) && read_devices(d) && read_end(d);
}

void qemu_destination_end(QemuDestination *d)
{
    g_assert_cmpint(false_destroy_id(d->listening), ==, 0);
    false_destroy_event_channel(d->channel);
}

void *qemu_destination_main(void *destination)
{
    QemuDestination *d = destination;
    LinkEnd end;

    d->in = g_byte_array_new();
    d->runs = take_vm(d);
    end = d->runs ? LINK_LEAVES : d->end;
    if (d->link.id) {
        link_end(&d->link, end);
    }
    qemu_destination_end(d);
    if (d->back.id) { /* QEMU ends it last */
        link_end(&d->back, end);
    }
    g_byte_array_unref(d->in);
    return NULL;
}
