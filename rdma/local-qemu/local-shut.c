/* SPDX-License-Identifier: BSD-2-Clause */
/* local-shut.c -- the last message of a migration's return path: the destination is done */

#include "local-shut.h"

#include "return-frames.h"

void local_shut(LocalSource *s)
{
    uint8_t message[RETURN_SHUT_BYTES];

    return_shut_encode(message);
    g_mutex_lock(&s->lock);
    if (s->back && !s->shut) {
        local_link_say(s->back, V1_QEMU_FILE, 1, message, sizeof(message));
    }
    s->shut = true;
    g_mutex_unlock(&s->lock);
}
