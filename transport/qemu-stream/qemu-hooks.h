/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-hooks.h -- what of a source's stream a stock destination is told: hooks only where RAM comes
 */

#ifndef VMF_QEMU_HOOKS_H
#define VMF_QEMU_HOOKS_H

#include <glib.h>

#include <vmferry/qemu-stream.h>

/*
 * QEMU puts a hook into every section of RAM, and there is a section for every
 * 50 ms of a round, whether RAM comes or not. Each end of a hook is a message
 * that waits for the destination to have done what came before, and so is what
 * leads to the next. But all that a destination does between two parts of RAM is to
 * read that one ends and another begins. So a hook goes when RAM comes behind it,
 * and it lasts until something else comes than the next part's hook.
 *
 * One thread's, like the stream.
 */
typedef enum {
    QEMU_HOOKS_NONE,
    QEMU_HOOKS_HELD,  /* RAM may come; the hook goes first */
    QEMU_HOOKS_OPEN,  /* RAM may come; the hook was the last that went */
    QEMU_HOOKS_PAUSED /* open for the destination, but another section's hook has yet to come */
} QemuHooksState;

typedef struct QemuHooks {
    QemuHooksState state;
    GByteArray *out;  /* what may go now; the owner sends it and empties it */
    GByteArray *held; /* HELD: the hook; PAUSED: what lies between two hooks */
} QemuHooks;

void qemu_hooks_init(QemuHooks *hooks);
void qemu_hooks_clear(QemuHooks *hooks);

/* The next item of the stream. */
void qemu_hooks_item(QemuHooks *hooks, const VmfQemuItem *item);
/*
 * RAM comes. Returns whether it may; if the state was HELD, the hook has become
 * the end of `out', which must go as a message of its own.
 */
bool qemu_hooks_ram(QemuHooks *hooks);
/* What lies between two hooks goes, without waiting for the second. */
void qemu_hooks_release(QemuHooks *hooks);

#endif
