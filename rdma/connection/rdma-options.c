/* SPDX-License-Identifier: BSD-2-Clause */
/* rdma-options.c -- what the options of an rdma: URI are, and what one of them says */

#include "rdma-options.h"

#include "verbs/chunks.h"
#include "qemu-v1/v1-wire.h"

const VmfOptionSpec options_specs[] = {
    {.name = "registration",
     .type = VMF_OPTION_CHOICE,
     .default_value = "chunk",
     .choices = "chunk|pin-all|odp",
     .help = "register RAM on demand in chunks, all of it at set-up, or not at all where the "
             "device pages on demand"},
    {.name = "chunk-size",
     .type = VMF_OPTION_SIZE,
     .default_value = "auto",
     .min = CHUNK_SIZE_MIN,
     .max = CHUNK_SIZE_MAX,
     .help = "bytes registered at a time with registration=chunk, a power of two; auto: 8M with "
             "one channel, 4M with two or three, else 2M"},
    {.name = "accept-chunk-size",
     .type = VMF_OPTION_SIZE,
     .default_value = "auto",
     .min = V1_CHUNK_BYTES,
     .max = CHUNK_SIZE_MAX,
     .help = "the largest x-rdma-chunk-size of a stock QEMU source, a power of two: so much is "
             "registered until its requests show that its chunks are smaller; auto: 1G, or 1M with "
             "a memory-lock limit"},
    {.name = "pin-budget",
     .type = VMF_OPTION_SIZE,
     .default_value = "auto",
     .help = "most guest RAM registered at a time with registration=chunk; auto: what the "
             "memory-lock limit leaves"},
    {.name = "gap",
     .type = VMF_OPTION_SIZE,
     .default_value = "16K",
     .max = 1024 * 1024,
     .help = "longest clean gap between dirty pages that is written along to save a request; 0: "
             "none"},
    {.name = "device-write",
     .type = VMF_OPTION_BOOL,
     .default_value = "on",
     .help = "large device state is written right into its memory at the destination, without "
             "copies; off (on either side): sent in messages, and remote access is to guest RAM "
             "alone"},
    {.name = "switchover-wait",
     .type = VMF_OPTION_DURATION,
     .default_value = "0",
     .help =
         "vmferry-qemu with QEMU's switchover-ack: longest time after the first pass over RAM in "
         "which passes may get smaller before the VM is stopped (source)"},
    {.name = "poll-us",
     .type = VMF_OPTION_UINT,
     .default_value = "0",
     .max = 1000,
     .help = "microseconds to poll for completions before sleeping"},
    {0},
};

static bool is_size_power_of_two(const VmfUri *uri, const char *name, uint64_t *value,
                                 GError **error)
{
    *value = vmf_uri_get_uint(uri, name);
    if (*value & (*value - 1)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "%s must be a power of two", name);
        return false;
    }
    return true;
}

bool options_from_uri(const VmfUri *uri, RdmaOptions *options, GError **error)
{
    const char *registration = vmf_uri_get_string(uri, "registration");

    options->registration = g_str_equal(registration, "pin-all") ? RDMA_REGISTRATION_PIN_ALL
                            : g_str_equal(registration, "odp")   ? RDMA_REGISTRATION_ODP
                                                                 : RDMA_REGISTRATION_CHUNK;
    options->pin_budget = vmf_uri_get_uint(uri, "pin-budget");
    options->gap = vmf_uri_get_uint(uri, "gap");
    options->device_write = vmf_uri_get_bool(uri, "device-write");
    options->poll_us = (unsigned)vmf_uri_get_uint(uri, "poll-us");
    options->connect_timeout_ms = (unsigned)vmf_uri_get_uint(uri, "connect-timeout");
    options->timeout_ms = (unsigned)vmf_uri_get_uint(uri, "timeout");
    return is_size_power_of_two(uri, "chunk-size", &options->chunk_size, error) &&
           is_size_power_of_two(uri, "accept-chunk-size", &options->accept_chunk_size, error);
}
