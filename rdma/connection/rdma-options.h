/* SPDX-License-Identifier: BSD-2-Clause */
/* rdma-options.h -- what the options of an rdma: URI are, and what one of them says */

#ifndef VMF_RDMA_OPTIONS_H
#define VMF_RDMA_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <vmferry/plugin/transport.h>

typedef enum {
    RDMA_REGISTRATION_CHUNK = 0,
    RDMA_REGISTRATION_PIN_ALL = 1,
    RDMA_REGISTRATION_ODP = 2
} RdmaRegistration;

/* What the URI's options say. */
typedef struct RdmaOptions {
    RdmaRegistration registration;
    uint64_t chunk_size;        /* 0: chosen */
    uint64_t accept_chunk_size; /* the largest chunk of a stock QEMU source; 0: chosen */
    uint64_t pin_budget;        /* 0: what the memory-lock limit leaves */
    uint64_t gap;
    bool device_write;
    unsigned poll_us;
    unsigned connect_timeout_ms;
    unsigned timeout_ms;
} RdmaOptions;

/* The table of the transport's options. It ends with a NULL name. */
extern const VmfOptionSpec options_specs[];
/* False with *error if a size is no power of two. */
bool options_from_uri(const VmfUri *uri, RdmaOptions *options, GError **error);

#endif
