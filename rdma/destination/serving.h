/* SPDX-License-Identifier: BSD-2-Clause */
/* serving.h -- destination: checks between messages, and in the middle of long work */

#ifndef VMF_RDMA_SERVING_H
#define VMF_RDMA_SERVING_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

struct RdmaChannel;
struct RdmaConn;

/* The most bytes that are zeroed before the thread checks again whether to go on. */
#define SERVE_PART_BYTES (64u << 20)

/*
 * Whether the channel must end, with *error. It must if the session is cancelled or the access of
 * the source is revoked.
 */
bool serve_is_over(struct RdmaConn *conn, GError **error);
/*
 * Call it between two parts of a message's work, which may take long. False with *error when the
 * session is cancelled or revoked. Shows a vmferry source, once in a heartbeat, that this side is
 * at work. The channel's thread.
 */
bool serve_alive(struct RdmaChannel *channel, GError **error);
/*
 * Always false. Sets a VMF_ERROR_PROTOCOL that says what is wrong with a message of this channel.
 */
bool serve_refused(struct RdmaChannel *channel, GError **error, const char *what);

/* Whether a byte of RAM is registered here. */
typedef bool (*ServeRegistered)(const struct RdmaConn *conn, unsigned block, uint64_t offset);
/* A ServeRegistered for RAM that is registered by conn->chunks. */
bool serve_chunk_registered(const struct RdmaConn *conn, unsigned block, uint64_t offset);
/*
 * False with *error if registered memory of this channel was discarded, because what the source
 * wrote there is lost.
 */
bool serve_check_discards(struct RdmaChannel *channel, ServeRegistered is_registered,
                          GError **error);

#endif
