/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What both ways of starting a migration share, and what is done before it. */

#include "glue.h"

#include "compat.h"

#include "qemu/cutils.h"
#include "qemu/module.h"
#include "qemu/notify.h"

#include <vmferry/plugin/transport.h>

VmfUri *glue_parse_uri(const char *host_port, Error **errp)
{
    const char *options = getenv("VMFERRY_QEMU_OPTIONS");
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    VmfUri *uri;

    strstart(host_port, "//", &host_port); /* as libvirt writes it */
    text = g_strconcat("rdma:", host_port, options && *options ? "," : "", options, NULL);
    uri = vmf_uri_parse(text, &error);
    if (uri && compat_pin_all(migrate_get_current()) &&
        !vmf_uri_set(uri, "registration", "pin-all", &error)) {
        g_clear_pointer(&uri, vmf_uri_unref);
    }
    if (!uri) {
        error_setg(errp, "vmferry: %s", error->message);
    }
    return uri;
}

/* Settings of QEMU that rdma: cannot do. */
static const struct {
    const char *name;
    bool (*is_set)(void);
    const char *why;
} refused[] = {
    {"background-snapshot", migrate_background_snapshot,
     "the VM would run on here, and its snapshot at the destination as well"},
    {"x-colo", compat_colo, "rdma: brings a VM over once"},
    {"multifd", compat_multifd, "channels=N in the URI makes several channels"},
    {"postcopy-ram", migrate_postcopy_ram, "rdma: brings all RAM over before the VM runs there"},
    {"dirty-bitmaps", migrate_dirty_bitmaps, "QEMU moves these after the VM, as with postcopy"},
    {"mapped-ram", compat_mapped_ram, "it is a format of files"},
};

bool glue_can_migrate(Error **errp)
{
    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        if (refused[i].is_set()) {
            error_setg(errp,
                       "vmferry: rdma: does not work with the capability %s (%s): switch it off",
                       refused[i].name, refused[i].why);
            return false;
        }
    }
    if (compat_tls()) {
        error_setg(errp, "vmferry: tls-creds is set, and rdma: cannot encrypt: the VM would go in "
                         "the clear. Set tls-creds to \"\" if it may");
        return false;
    }
    if (compat_other_mode()) {
        error_setg(errp, "vmferry: rdma: knows migration in mode \"normal\" alone; set the "
                         "migration parameter \"mode\" to it");
        return false;
    }
    return true;
}

GThread *glue_thread_new(const char *name, GThreadFunc function, void *opaque, GError **error)
{
    GThread *thread = g_thread_try_new(name, function, opaque, error);

    if (!thread) {
        g_prefix_error(error, "cannot start a thread (a limit of processes or memory?): ");
    }
    return thread;
}

bool glue_thread(const char *name, GThreadFunc function, void *opaque, GError **error)
{
    GThread *thread = glue_thread_new(name, function, opaque, error);

    if (thread) {
        g_thread_unref(thread);
    }
    return thread != NULL;
}

/* --- ahead --- */

/*
 * When QEMU starts, this loads the plugin, and the device drivers that libibverbs needs for a first
 * connection. So no migration waits for them. The migration that needs them reports errors.
 */
static void machine_done(Notifier *notifier, void *unused)
{
    vmf_transport_prepare("rdma", NULL);
}

static Notifier on_machine_done = {.notify = machine_done};

static void await_machine(void)
{
    qemu_add_machine_init_done_notifier(&on_machine_done);
}

type_init(await_machine)
