/* SPDX-License-Identifier: BSD-2-Clause */
/* rdma-plugin.c -- the table of the rdma: transport */

#include <gmodule.h>

#include "connection/connect.h"
#include "connection/connection.h"
#include "connection/control.h"
#include "connection/listener.h"
#include "destination/piece-destination.h"
#include "source/piece-source.h"
#include "source/ram-source.h"
#include "source/raw.h"
#include "connection/rdma-options.h"
#include "destination/serve.h"
#include "connection/setup.h"

/* The first event channel makes librdmacm and libibverbs look for devices and load every driver. */
static void prepare(void)
{
    struct rdma_event_channel *events = rdma_create_event_channel();

    if (events) {
        rdma_destroy_event_channel(events);
    }
}

static bool open_channels(VmfConn *conn, GError **error)
{
    return conn->role == VMF_ROLE_SOURCE ? conn_open_channels(conn, error)
                                         : listener_await_channels(conn, error);
}

static const VmfTransport transport = {
    .size = sizeof(VmfTransport),
    .abi_version = VMF_TRANSPORT_ABI,
    .scheme = "rdma",
    .help = "RDMA writes over several queue pairs (InfiniBand, RoCE, iWARP)",
    .options = options_specs,
    .channels_max = VMF_CHANNELS_MAX,
    .connect = conn_connect,
    .listen = listener_listen,
    .listener_address = listener_address,
    .accept = listener_accept,
    .listener_free = listener_free,
    .default_channels = setup_default_channels,
    .get_parameters = setup_get_parameters,
    .peer_parameters = setup_peer_parameters,
    .open_channels = open_channels,
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
