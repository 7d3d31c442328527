/* SPDX-License-Identifier: BSD-2-Clause */
/* false-backend.h -- what stands behind a false RDMA device: its table, and what it may call */

#ifndef VMF_RDMA_FALSE_BACKEND_H
#define VMF_RDMA_FALSE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

/*
 * A false device exists only in this process. A program calls it as librdmacm and libibverbs are
 * called (false-calls.h), and gets objects of their types. What happens on the wire is a backend's
 * business. This room keeps objects, events, receives, completions and keys.
 *
 * Threads: any thread may make any call, as with the real libraries. One lock of the device
 * protects all of its objects, and is never held while a function of the backend runs. So such a
 * function may make each call of this header, and of false-calls.h, for any object.
 *
 * Life of an object: it is valid until the backend's function that tells of its end has returned.
 * That function waits until no other thread of the backend uses the object.
 */
typedef struct FalseDevice FalseDevice;

/*
 * What a backend does. `opaque' is that of false_device_new(). A function that returns int returns
 * 0 or an errno. It must not wait for the peer. Parameters and their private data are valid only
 * during the call. NULL members: a connection is EOPNOTSUPP, the rest succeeds and does nothing.
 */
typedef struct FalseDeviceOps {
    size_t size; /* of this structure, as its user was compiled */

    /*
     * The program connects. Answer by false_id_established(), or by false_id_failed() with
     * RDMA_CM_EVENT_REJECTED or RDMA_CM_EVENT_UNREACHABLE, now or later.
     */
    int (*connect)(void *opaque, struct rdma_cm_id *id, const struct rdma_conn_param *param);
    /* The program listens. Each connection becomes an id by false_id_request(). */
    int (*listen)(void *opaque, struct rdma_cm_id *id, int backlog);
    /* An id of false_id_request() is accepted. Answer by false_id_established() or _failed(). */
    int (*accept)(void *opaque, struct rdma_cm_id *id, const struct rdma_conn_param *param);
    /* An id of false_id_request() is rejected. */
    int (*reject)(void *opaque, struct rdma_cm_id *id, const void *data, uint8_t size);
    /*
     * The program disconnects. Its queue pair is in error, and everything on it is flushed. The
     * backend tells the peer. It says false_id_disconnected() here when the peer has agreed.
     */
    int (*disconnect)(void *opaque, struct rdma_cm_id *id);
    /*
     * The id ends, in whatever state it is. Its queue pair is gone already. For an id that listens
     * the requests that nobody has read end afterwards, one by one.
     */
    void (*id_destroyed)(void *opaque, struct rdma_cm_id *id);

    /* A queue pair of an id (false_qp_id()). An errno makes the program's call fail. */
    int (*qp_created)(void *opaque, struct ibv_qp *qp);
    void (*qp_destroyed)(void *opaque, struct ibv_qp *qp);
    /*
     * One request of a connected queue pair. Its memory keys are good, and there is room for it.
     * wr->next is meaningless. 0: false_qp_complete_send() follows, perhaps already in this call.
     * ENOMEM: the queue is full, and the program waits for a completion. EINVAL: an opcode that
     * the backend does not know. Any errno means that there will be no completion.
     */
    int (*post_send)(void *opaque, struct ibv_qp *qp, const struct ibv_send_wr *wr);
    /* Receives were posted: a message that waits can be delivered now. */
    void (*receive_posted)(void *opaque, struct ibv_qp *qp);

    /*
     * The program gets this completion from its poll, which has not returned. `status' may still be
     * changed. It may wait.
     */
    void (*polled)(void *opaque, struct ibv_qp *qp, struct ibv_wc *wc);

    /* Memory was registered. An errno makes the program's call fail. `access': IBV_ACCESS_... */
    int (*mr_registered)(void *opaque, struct ibv_mr *mr, unsigned access);
    void (*mr_deregistered)(void *opaque, struct ibv_mr *mr);
} FalseDeviceOps;

/* --- the device --- */

/*
 * A device whose names are `name'. It copies the table. Only one backend has an object, but a
 * process may have several devices. Free it when all of its objects are gone.
 */
FalseDevice *false_device_new(const char *name, const FalseDeviceOps *ops, void *opaque);
void false_device_free(FalseDevice *device);
/* The opaque of false_device_new(), for whoever has an object alone. */
void *false_device_opaque(struct ibv_context *context);

/* --- ids --- */

/*
 * Host and port as the program wrote them for the address that it resolved or bound. They may be a
 * name and a service. "" where it gave none. Valid as long as the id.
 */
const char *false_id_node(struct rdma_cm_id *id);
const char *false_id_service(struct rdma_cm_id *id);
/* What the backend remembers of an id: NULL at first. */
void false_id_set_opaque(struct rdma_cm_id *id, void *opaque);
void *false_id_opaque(struct rdma_cm_id *id);

/*
 * Events of an id. Each puts an event into the id's channel. Private data is copied, at most 255
 * bytes, and the program finds zeros after it. `param' may be NULL, and its private data too. An
 * event that does not fit the id's state any more is dropped: the program has gone on.
 */

/* Makes an id for a connection to a listening one. The program gets it with the event. */
struct rdma_cm_id *false_id_request(struct rdma_cm_id *listening,
                                    const struct rdma_conn_param *param,
                                    const struct sockaddr *peer, void *opaque);
/* Both sides are ready: the queue pair can send from now on. */
void false_id_established(struct rdma_cm_id *id, const struct rdma_conn_param *param);
/*
 * The connection did not come about: RDMA_CM_EVENT_REJECTED, _UNREACHABLE or _CONNECT_ERROR.
 * `status' is a negative errno, or the peer's reason for a rejection.
 */
void false_id_failed(struct rdma_cm_id *id, enum rdma_cm_event_type event, int status,
                     const void *data, uint8_t size);
/* The peer has disconnected, or has agreed to it. It leaves the queue pair alone: see flush. */
void false_id_disconnected(struct rdma_cm_id *id);
/* The device goes away under the id. */
void false_id_device_removed(struct rdma_cm_id *id);

/* --- queue pairs --- */

/* The id that a queue pair was created for. */
struct rdma_cm_id *false_qp_id(struct ibv_qp *qp);
/* What the backend remembers of a queue pair: NULL at first. */
void false_qp_set_opaque(struct ibv_qp *qp, void *opaque);
void *false_qp_opaque(struct ibv_qp *qp);

/*
 * Completes the oldest request with that wr_id. A request without IBV_SEND_SIGNALED that succeeds
 * gives no completion. A failure puts the queue pair in error and flushes it. false: there is no
 * such request, because it was flushed.
 */
bool false_qp_complete_send(struct ibv_qp *qp, uint64_t wr_id, enum ibv_wc_status status);
/*
 * Puts a message, made of `count' pieces, into the oldest receive. false: no receive is posted, so
 * keep the message until receive_posted(). A message that is too long, or whose receive has a bad
 * key, completes with an error, which puts the queue pair in error.
 */
bool false_qp_deliver(struct ibv_qp *qp, const struct iovec *pieces, unsigned count,
                      bool solicited);
/*
 * Puts the queue pair in error: everything on it completes with IBV_WC_WR_FLUSH_ERR. The program
 * may reuse a request's memory then. A backend that still reads it lets mr_deregistered() and
 * qp_destroyed() wait for that.
 */
void false_qp_flush(struct ibv_qp *qp);

/* --- memory --- */

/* Where a request's piece lies in this process. NULL: no live registration covers it. */
void *false_qp_local_memory(struct ibv_qp *qp, const struct ibv_sge *sge);
/*
 * Where a peer of this queue pair may write or read, by its rkey: `access' is
 * IBV_ACCESS_REMOTE_WRITE or _READ. NULL: no registration of the queue pair's domain allows that.
 */
void *false_qp_remote_memory(struct ibv_qp *qp, uint32_t rkey, uint64_t address, size_t length,
                             unsigned access);

#endif
