/* SPDX-License-Identifier: BSD-2-Clause */
/* plugin.c -- the table of the rdma: transport */

#include <gmodule.h>

#include "rdma.h"

static const VmfOptionSpec options[] = {
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
    {.name = "poll-us",
     .type = VMF_OPTION_UINT,
     .default_value = "0",
     .max = 1000,
     .help = "microseconds to poll for completions before sleeping"},
    {0},
};

/* librdmacm's first event channel has it and libibverbs look for devices and load every driver. */
static void prepare(void)
{
    struct rdma_event_channel *events = rdma_create_event_channel();

    if (events) {
        rdma_destroy_event_channel(events);
    }
}

static const VmfTransport transport = {
    .size = sizeof(VmfTransport),
    .abi_version = VMF_TRANSPORT_ABI,
    .scheme = "rdma",
    .help = "RDMA writes over several queue pairs (InfiniBand, RoCE, iWARP)",
    .options = options,
    .channels_max = VMF_CHANNELS_MAX,
    .connect = conn_connect,
    .listen = listener_listen,
    .listener_address = listener_address,
    .accept = listener_accept,
    .listener_free = listener_free,
    .default_channels = setup_default_channels,
    .get_parameters = setup_get_parameters,
    .peer_parameters = setup_peer_parameters,
    .open_channels = conn_open_channels,
    .ram_setup = setup_ram,
    .control_send = control_send,
    .control_receive = control_receive,
    .control_wait = control_wait,
    .control_message = setup_control_message,
    .send_ram = source_send_ram,
    .send_zero = source_send_zero,
    .send_device = piece_send,
    .send_sync = source_send_sync,
    .kick = source_kick,
    .wait = source_wait,
    .serve = serve_channel,
    .revoke = serve_revoke,
    .close = conn_close,
    .raw_write = raw_write,
    .device_memory = piece_offer_memory,
    .listener_ram = listener_ram,
    .prepare = prepare,
};

G_MODULE_EXPORT const VmfTransport *vmf_transport_entry(void);

const VmfTransport *vmf_transport_entry(void)
{
    return &transport;
}
