/* SPDX-License-Identifier: BSD-2-Clause */
/* error.h -- the error domain that every vmferry function reports in */

#ifndef VMFERRY_ERROR_H
#define VMFERRY_ERROR_H

#include <glib.h>

G_BEGIN_DECLS

/* Marks what libvmferry exports. Everything else is hidden. */
#if defined(__GNUC__)
#define VMF_API __attribute__((visibility("default")))
#else
#define VMF_API
#endif

#define VMF_ERROR (vmf_error_quark())

/*
 * The reason of a failure. A program decides on the code. The message of the GError is for people:
 * it says what failed, where, and what to do. The numbers travel in ERROR messages between hosts,
 * so new ones are appended and none is changed.
 */
typedef enum {
    VMF_ERROR_FAILED = 0,          /* anything that has no code of its own */
    VMF_ERROR_INVALID = 1,         /* bad argument, URI or option */
    VMF_ERROR_UNSUPPORTED = 2,     /* the transport, the device or the peer cannot do it */
    VMF_ERROR_PLUGIN = 3,          /* no such transport, or its plugin does not load */
    VMF_ERROR_CONNECT = 4,         /* the side cannot connect or listen */
    VMF_ERROR_REFUSED = 5,         /* the peer answered, and refused */
    VMF_ERROR_PEER = 6,            /* the peer reported an error of its own */
    VMF_ERROR_PEER_LOST = 7,       /* the peer or the link is gone */
    VMF_ERROR_PROTOCOL = 8,        /* the peer sent what the protocol does not allow */
    VMF_ERROR_TIMEOUT = 9,         /* nothing happened within the time-out */
    VMF_ERROR_CANCELLED = 10,      /* cancelled, shut down or freed by the user */
    VMF_ERROR_MEMLOCK = 11,        /* memory cannot be pinned: RLIMIT_MEMLOCK */
    VMF_ERROR_DEVICE = 12,         /* an RDMA device or a verbs call failed */
    VMF_ERROR_MISMATCH = 13,       /* the RAM blocks or devices of the two sides differ */
    VMF_ERROR_EOF = 14,            /* the stream ended before the bytes asked for */
    VMF_ERROR_IO = 15,             /* a system call failed */
    VMF_ERROR_DIRECTION = 16,      /* reading a file opened for writing, or the reverse */
    VMF_ERROR_UNKNOWN_OUTCOME = 17 /* nobody knows who owns the VM: see session.h */
} VmfErrorCode;

/* The GError domain. Any thread. */
VMF_API GQuark vmf_error_quark(void);

/*
 * A short lower-case name of a code ("peer-lost"), for logs and JSON. It is static, and never NULL:
 * an unknown code is "unknown". Any thread.
 */
VMF_API const char *vmf_error_code_name(int code);

G_END_DECLS

#endif
