/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-hooks.h -- leaving hooks out of a source's stream that no RAM follows */

#ifndef VMF_QEMU_HOOKS_H
#define VMF_QEMU_HOOKS_H

#include <glib.h>

#include <vmferry/qemu-stream.h>

/*
 * QEMU puts a hook into every section of RAM. A round has a section every 50 ms, with or without
 * RAM. The end of a hook is a message that waits for the destination to be done with all before it.
 * So is the message that leads to the next hook. But between two parts of RAM the destination only
 * reads that one ends and another begins. So a hook goes out only if RAM follows it. It stays open
 * until something else follows than the hook of the next part.
 *
 * One thread at a time, as with the stream.
 */
typedef enum {
    QEMU_HOOKS_NONE,
    QEMU_HOOKS_HELD,  /* RAM may come; the hook goes out before it */
    QEMU_HOOKS_OPEN,  /* RAM may come; a hook was the last thing that went out */
    QEMU_HOOKS_PAUSED /* open for the destination; the next section's hook has not come */
} QemuHooksState;

typedef struct QemuHooks {
    QemuHooksState state;
    GByteArray *out;  /* what may go out now; the owner sends it and empties it */
    GByteArray *held; /* HELD: the hook; PAUSED: what lies between two hooks */
} QemuHooks;

void qemu_hooks_init(QemuHooks *hooks);
void qemu_hooks_clear(QemuHooks *hooks);

/* Takes the next item of the stream. */
void qemu_hooks_item(QemuHooks *hooks, const VmfQemuItem *item);
/*
 * RAM comes. Returns whether it may come now. In the state HELD the hook becomes the end of `out',
 * which must go out as a message of its own.
 */
bool qemu_hooks_ram(QemuHooks *hooks);
/* Moves what lies between two hooks to `out', without waiting for the second hook. */
void qemu_hooks_release(QemuHooks *hooks);

#endif
