/* SPDX-License-Identifier: BSD-2-Clause */
/* test-plugin.c -- a transport plugin that does nothing, and the ways one can be wrong */

#include <vmferry/plugin/transport.h>

/* TEST_SCHEME names the scheme. One of the other macros may be defined to make the plugin wrong. */

static bool prepared;

static void prepare(void)
{
    prepared = true;
}

static VmfConn *none_connect(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES],
                             GCancellable *cancel, GError **error)
{
    (void)uri;
    (void)uuid;
    (void)cancel;
    g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED, "a test plugin connects to nothing%s",
                prepared ? ", though it is prepared" : "");
    return NULL;
}

/* Never called, because the registry only checks that it is there. */
static void never(void)
{
    g_assert_not_reached();
}

#define NEVER(member) .member = (__typeof__(((VmfTransport *)0)->member))(void (*)(void))never

static const VmfOptionSpec options[] = {
    {.name = "colour",
     .type = VMF_OPTION_CHOICE,
     .default_value = "red",
     .choices = "red|green",
     .help = "what it looks like"},
    {.name = "label", .type = VMF_OPTION_STRING, .help = "any text"},
#ifdef TEST_BAD_OPTION
    {.name = "depth", .type = VMF_OPTION_UINT, .default_value = "9", .max = 8, .help = "how deep"},
#endif
    {0},
};

static const VmfTransport transport = {
#ifdef TEST_OLD
    /* As compiled before the optional members existed: other bytes lie in their place. */
    .size = offsetof(VmfTransport, raw_write),
    NEVER(raw_write),
#else
    .size = sizeof(VmfTransport),
#endif
#ifdef TEST_WRONG_ABI
    .abi_version = VMF_TRANSPORT_ABI + 1,
#else
    .abi_version = VMF_TRANSPORT_ABI,
#endif
    .scheme = TEST_SCHEME,
    .help = "a test's",
    .options = options,
    .channels_max = 4,
    .connect = none_connect,
    NEVER(listen),
    NEVER(listener_address),
    NEVER(accept),
    NEVER(listener_free),
    NEVER(default_channels),
    NEVER(get_parameters),
    NEVER(peer_parameters),
    NEVER(open_channels),
    NEVER(ram_setup),
    NEVER(control_send),
    NEVER(control_receive),
    NEVER(control_wait),
    NEVER(control_message),
    NEVER(send_ram),
    NEVER(send_zero),
    NEVER(send_device),
    NEVER(send_sync),
    NEVER(kick),
    NEVER(wait),
    NEVER(serve),
#ifndef TEST_LACKS_MEMBER
    NEVER(revoke),
#endif
    NEVER(close),
    .prepare = prepare,
};

#ifdef TEST_NO_ENTRY
#define ENTRY another_entry
#else
#define ENTRY vmf_transport_entry
#endif

VMF_API const VmfTransport *ENTRY(void);

const VmfTransport *ENTRY(void)
{
#ifdef TEST_OFFERS_NOTHING
    return NULL;
#endif
    return &transport;
}
