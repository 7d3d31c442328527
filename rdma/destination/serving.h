/* SPDX-License-Identifier: BSD-2-Clause */
/* serving.h -- destination: what goes on between messages, and in the middle of long work */

#ifndef VMF_RDMA_SERVING_H
#define VMF_RDMA_SERVING_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

struct RdmaChannel;
struct RdmaConn;

/* The most that is zeroed between two looks at whether to go on. */
#define SERVE_PART_BYTES (64u << 20)

/* Whether the channel is to end: its session has failed, or RAM is no longer the source's. */
bool serve_is_over(struct RdmaConn *conn, GError **error);
/*
 * Between two parts of a message's work, which may take long: false with *error when the session
 * is cancelled or revoked. Shows the source, once in a heartbeat, that this side is at work.
 */
bool serve_alive(struct RdmaChannel *channel, GError **error);
/* Always false, with an error that says what is wrong with a message of this channel's. */
bool serve_refused(struct RdmaChannel *channel, GError **error, const char *what);

/* Whether a byte of RAM is registered here. */
typedef bool (*ServeRegistered)(const struct RdmaConn *conn, unsigned block, uint64_t offset);
/* Of RAM that is registered by conn->chunks. */
bool serve_chunk_registered(const struct RdmaConn *conn, unsigned block, uint64_t offset);
/* False with *error if memory was discarded that is registered: what was written is lost. */
bool serve_check_discards(struct RdmaChannel *channel, ServeRegistered is_registered,
                          GError **error);

#endif
