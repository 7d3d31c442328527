/* SPDX-License-Identifier: BSD-2-Clause */
/* registry.c -- transports: built in, registered, loaded from plugins */

#include <gmodule.h>
#include <string.h>
#include <sys/stat.h>
#include <vmferry/plugin/transport.h>

#include "base/fault.h"
#include "base/options.h"
#include "registry.h"
#include "socket/tcp-transport.h"

/* The library's only mutable global state. It only grows, under the lock. */
static GMutex lock;
static GPtrArray *known; /* const VmfTransport * */

static bool valid_scheme(const char *scheme)
{
    const char *at = scheme;

    if (!g_ascii_islower(*at)) {
        return false;
    }
    while (g_ascii_islower(*at) || g_ascii_isdigit(*at) || (*at && strchr("+.-", *at))) {
        at++;
    }
    return !*at && at - scheme <= 32;
}

/* --- checking a table --- */

static bool check_options(const VmfTransport *t, const char *where, GError **error)
{
    for (const VmfOptionSpec *spec = t->options; spec && spec->name; spec++) {
        g_autoptr(GError) reason = NULL;

        if (!option_spec_check(spec, &reason)) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN, "the option table of %s is wrong: %s",
                        where, reason->message);
            return false;
        }
    }
    return true;
}

typedef struct Member {
    const char *name;
    size_t offset;
} Member;

#define MEMBER(name)                                                                               \
    {                                                                                              \
#name, offsetof(VmfTransport, name)                                                        \
    }

/* Whether the table has every member. A member past the table's size counts as NULL. */
static bool has_members(const VmfTransport *t, const Member *members, size_t count,
                        const char *where, GError **error)
{
    for (size_t i = 0; i < count; i++) {
        void *member = NULL;

        if (members[i].offset + sizeof(member) <= t->size) {
            memcpy(&member, (const char *)t + members[i].offset, sizeof(member));
        }
        if (!member) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN, "%s lacks the callback %s", where,
                        members[i].name);
            return false;
        }
    }
    return true;
}

static bool check_abi(const VmfTransport *t, const char *where, GError **error)
{
    if (t->abi_version != VMF_TRANSPORT_ABI) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN,
                    "%s is made for transport ABI %u, this library has %u: install matching "
                    "versions",
                    where, t->abi_version, VMF_TRANSPORT_ABI);
        return false;
    }
    return true;
}

bool registry_check(const VmfTransport *t, const char *where, GError **error)
{
    static const Member members[] = {
        MEMBER(connect),
        MEMBER(listen),
        MEMBER(listener_address),
        MEMBER(accept),
        MEMBER(listener_free),
        MEMBER(default_channels),
        MEMBER(get_parameters),
        MEMBER(peer_parameters),
        MEMBER(open_channels),
        MEMBER(ram_setup),
        MEMBER(control_send),
        MEMBER(control_receive),
        MEMBER(control_wait),
        MEMBER(control_message),
        MEMBER(send_ram),
        MEMBER(send_zero),
        MEMBER(send_device),
        MEMBER(send_sync),
        MEMBER(kick),
        MEMBER(wait),
        MEMBER(serve),
        MEMBER(revoke),
        MEMBER(close),
    };

    if (!check_abi(t, where, error) ||
        !has_members(t, members, G_N_ELEMENTS(members), where, error)) {
        return false;
    }
    if (!t->scheme || !valid_scheme(t->scheme) || t->channels_max < 1 ||
        t->channels_max > VMF_CHANNELS_MAX) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN,
                    "%s has no valid scheme, or a channel limit that is not 1 to %d", where,
                    VMF_CHANNELS_MAX);
        return false;
    }
    return check_options(t, where, error);
}

bool registry_check_connection(const VmfConn *conn, const VmfTransport *transport, GError **error)
{
    /* What the engine calls of a connection with stock QEMU without a check. */
    static const Member foreign[] = {
        MEMBER(open_channels), MEMBER(ram_setup), MEMBER(send_ram),    MEMBER(send_zero),
        MEMBER(send_sync),     MEMBER(kick),      MEMBER(wait),        MEMBER(serve),
        MEMBER(revoke),        MEMBER(close),     MEMBER(send_stream), MEMBER(open_back),
    };
    g_autofree char *where =
        g_strdup_printf("a connection of the transport %s:", transport->scheme);
    const VmfTransport *ops;

    if (conn->size < sizeof(VmfConn)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN,
                    "%s has room for %u bytes and not for the %zu that are common to all: its "
                    "plugin does not set VmfConn.size, or was made for another ABI",
                    where, conn->size, sizeof(VmfConn));
        return false;
    }
    ops = conn->ops ? conn->ops : transport;
    if (!conn->foreign) {
        return ops == transport || registry_check(ops, where, error);
    }
    return check_abi(ops, where, error) &&
           has_members(ops, foreign, G_N_ELEMENTS(foreign), where, error);
}
#undef MEMBER

/* --- the list --- */

static void need_list(void)
{
    if (!known) {
        known = g_ptr_array_new();
        g_ptr_array_add(known, (void *)&tcp_transport);
        g_ptr_array_add(known, (void *)&unix_transport);
    }
}

static const VmfTransport *find_known(const char *scheme)
{
    for (unsigned i = 0; i < known->len; i++) {
        const VmfTransport *t = known->pdata[i];
        if (g_str_equal(t->scheme, scheme)) {
            return t;
        }
    }
    return NULL;
}

bool vmf_transport_register(const VmfTransport *transport, GError **error)
{
    bool ok;

    if (!registry_check(transport, "the transport", error)) {
        return false;
    }
    g_mutex_lock(&lock);
    need_list();
    ok = !find_known(transport->scheme);
    if (ok) {
        g_ptr_array_add(known, (void *)transport);
    } else {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN, "there is a transport %s: already",
                    transport->scheme);
    }
    g_mutex_unlock(&lock);
    return ok;
}

/* --- plugins --- */

static char **plugin_directories(void)
{
    const char *path = g_getenv("VMFERRY_PLUGIN_PATH");

    /* The built-in directory is one, whatever characters its name has. */
    return path && *path ? g_strsplit(path, ":", -1) : g_strsplit(VMF_PLUGIN_DIR, ":", 1);
}

static const VmfTransport *load(const char *file, const char *scheme, GError **error)
{
    GModule *module = VMF_FAULT("dlopen") ? NULL : g_module_open(file, G_MODULE_BIND_LOCAL);
    VmfTransportEntry entry = NULL;
    const VmfTransport *transport;

    if (!module) {
        const char *reason = g_module_error();

        g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN, "plugin %s does not load: %s%s", file,
                    reason ? reason : "the loader gives no reason",
                    g_str_equal(scheme, "rdma")
                        ? "; install the packages libibverbs1, librdmacm1 and ibverbs-providers"
                        : "");
        return NULL;
    }
    if (!g_module_symbol(module, VMF_TRANSPORT_ENTRY, (void **)&entry) || !entry) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN,
                    "%s is not a vmferry plugin: it has no " VMF_TRANSPORT_ENTRY, file);
        g_module_close(module);
        return NULL;
    }
    transport = entry();
    if (!transport) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN, "plugin %s offers no transport", file);
    } else if (!registry_check(transport, file, error)) {
        transport = NULL;
    } else if (!g_str_equal(transport->scheme, scheme)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN, "plugin %s is for %s:, not for %s:", file,
                    transport->scheme, scheme);
        transport = NULL;
    }
    if (!transport) {
        g_module_close(module);
        return NULL;
    }
    g_module_make_resident(module);
    return transport;
}

static const VmfTransport *find_plugin(const char *scheme, GError **error)
{
    g_auto(GStrv) directories = plugin_directories();
    g_autofree char *name = g_strdup_printf("vmferry-%s.so", scheme);
    g_autofree char *looked = g_strjoinv(", ", directories);
    struct stat info;

    for (char **directory = directories; *directory; directory++) {
        g_autofree char *file = g_build_filename(*directory, name, NULL);

        /*
         * An empty entry would be the current directory. stat(2), because access(2) ignores
         * capabilities.
         */
        if (**directory && stat(file, &info) == 0) {
            return load(file, scheme, error);
        }
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_PLUGIN, "no transport for %s: (no plugin %s in %s)%s",
                scheme, name, looked,
                g_str_equal(scheme, "rdma")
                    ? "; install the package vmferry-rdma, or build with -Drdma=enabled"
                    : "");
    return NULL;
}

const VmfTransport *vmf_transport_find(const char *scheme, GError **error)
{
    const VmfTransport *transport;

    if (!valid_scheme(scheme)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "\"%s\" is not a URI scheme; known are tcp:, unix: and rdma:", scheme);
        return NULL;
    }
    g_mutex_lock(&lock);
    need_list();
    transport = find_known(scheme);
    if (!transport) {
        transport = find_plugin(scheme, error);
        if (transport) {
            g_ptr_array_add(known, (void *)transport);
        }
    }
    g_mutex_unlock(&lock);
    return transport;
}

bool vmf_transport_prepare(const char *scheme, GError **error)
{
    const VmfTransport *transport = vmf_transport_find(scheme, error);

    if (transport && VMF_TRANSPORT_HAS(transport, prepare)) {
        transport->prepare();
    }
    return transport != NULL;
}

/* Loads every plugin of a directory. A plugin that does not load is passed over. */
static void load_all(const char *path)
{
    g_autoptr(GDir) directory = *path ? g_dir_open(path, 0, NULL) : NULL;
    const char *name;

    while (directory && (name = g_dir_read_name(directory))) {
        if (g_str_has_prefix(name, "vmferry-") && g_str_has_suffix(name, ".so")) {
            g_autofree char *scheme =
                g_strndup(name + strlen("vmferry-"), strlen(name) - strlen("vmferry-.so"));
            (void)vmf_transport_find(scheme, NULL);
        }
    }
}

char **vmf_transport_schemes(void)
{
    g_autoptr(GStrvBuilder) schemes = g_strv_builder_new();
    g_auto(GStrv) directories = plugin_directories();

    for (char **directory = directories; *directory; directory++) {
        load_all(*directory);
    }
    g_mutex_lock(&lock);
    need_list();
    for (unsigned i = 0; i < known->len; i++) {
        g_strv_builder_add(schemes, ((const VmfTransport *)known->pdata[i])->scheme);
    }
    g_mutex_unlock(&lock);
    return g_strv_builder_end(schemes);
}
