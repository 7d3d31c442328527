/* SPDX-License-Identifier: BSD-2-Clause */
/* local-listening.h -- asking this process's QEMU, which listens, to accept connections */

#ifndef VMF_RDMA_LOCAL_LISTENING_H
#define VMF_RDMA_LOCAL_LISTENING_H

#include "local-link.h"

/*
 * The id with which QEMU listens, as long as it does. Whoever has connections for it holds a
 * reference, because QEMU may stop listening at any moment. Any thread.
 */
typedef struct LocalListening LocalListening;

/* `accept_us': how long QEMU may take to accept a connection, microseconds. */
LocalListening *local_listening_new(struct rdma_cm_id *id, gint64 accept_us);
LocalListening *local_listening_ref(LocalListening *listening);
void local_listening_unref(LocalListening *listening);
gint64 local_listening_accept_us(const LocalListening *listening);
/* QEMU is destroying the id. It is not used any more on return. */
void local_listening_close(LocalListening *listening);
/*
 * Asks QEMU to accept a connection, whose link it is. QEMU may accept or drop it at once. false:
 * QEMU does not listen any more, and the link stays the caller's.
 */
bool local_listening_request(LocalListening *listening, LocalLink *link);

#endif
