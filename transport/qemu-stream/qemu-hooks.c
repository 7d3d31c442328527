/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-hooks.c -- leaving hooks out of a source's stream that no RAM follows */

#include "qemu-hooks.h"

void qemu_hooks_init(QemuHooks *hooks)
{
    hooks->state = QEMU_HOOKS_NONE;
    hooks->out = g_byte_array_new();
    hooks->held = g_byte_array_new();
}

void qemu_hooks_clear(QemuHooks *hooks)
{
    g_clear_pointer(&hooks->out, g_byte_array_unref);
    g_clear_pointer(&hooks->held, g_byte_array_unref);
}

static void append(GByteArray *bytes, const VmfQemuItem *item)
{
    g_byte_array_append(bytes, item->raw, (guint)item->size);
}

static void set_state(QemuHooks *hooks, QemuHooksState state)
{
    hooks->state = state;
    g_byte_array_set_size(hooks->held, 0);
}

static void hook(QemuHooks *hooks, const VmfQemuItem *item)
{
    switch (hooks->state) {
    case QEMU_HOOKS_NONE:
        set_state(hooks, QEMU_HOOKS_HELD);
        append(hooks->held, item);
        break;
    case QEMU_HOOKS_PAUSED:
        set_state(hooks, QEMU_HOOKS_OPEN);
        break;
    case QEMU_HOOKS_HELD:
    case QEMU_HOOKS_OPEN:
        break; /* a second hook in the same section */
    }
}

/* Whether an item may lie between the hooks of two parts of RAM. */
static bool lies_between(const QemuHooks *hooks, const VmfQemuItem *item)
{
    switch (item->kind) {
    case VMF_QEMU_ITEM_EOS:
        return hooks->state == QEMU_HOOKS_OPEN && item->section != VMF_QEMU_SECTION_END;
    case VMF_QEMU_ITEM_FOOTER:
        return hooks->state == QEMU_HOOKS_PAUSED;
    case VMF_QEMU_ITEM_SECTION:
        return hooks->state == QEMU_HOOKS_PAUSED && item->section == VMF_QEMU_SECTION_PART;
    default:
        return false;
    }
}

void qemu_hooks_item(QemuHooks *hooks, const VmfQemuItem *item)
{
    if (item->kind == VMF_QEMU_ITEM_HOOK) {
        hook(hooks, item);
    } else if (lies_between(hooks, item)) {
        hooks->state = QEMU_HOOKS_PAUSED;
        append(hooks->held, item);
    } else {
        qemu_hooks_release(hooks);
        set_state(hooks, QEMU_HOOKS_NONE);
        append(hooks->out, item);
    }
}

bool qemu_hooks_ram(QemuHooks *hooks)
{
    if (hooks->state == QEMU_HOOKS_HELD) {
        g_byte_array_append(hooks->out, hooks->held->data, hooks->held->len);
        set_state(hooks, QEMU_HOOKS_OPEN);
    }
    return hooks->state == QEMU_HOOKS_OPEN;
}

void qemu_hooks_release(QemuHooks *hooks)
{
    if (hooks->state == QEMU_HOOKS_PAUSED) {
        g_byte_array_append(hooks->out, hooks->held->data, hooks->held->len);
        set_state(hooks, QEMU_HOOKS_NONE);
    }
}
