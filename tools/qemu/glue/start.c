/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What both ways of starting a migration have in common, and what is done for it ahead. */

#include "glue.h"

#include "compat.h"

#include "qemu/cutils.h"
#include "qemu/module.h"
#include "qemu/notify.h"

VmfUri *glue_parse_uri(const char *host_port, Error **errp)
{
    const char *options = getenv("VMFERRY_QEMU_OPTIONS");
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    VmfUri *uri;

    strstart(host_port, "//", &host_port); /* as libvirt spells it */
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

bool glue_can_migrate(Error **errp)
{
    if (ram_block_discard_is_required()) {
        error_setg(errp, "vmferry: RAM discard is in use and cannot be disabled");
        return false;
    }
    if (migrate_postcopy()) {
        error_setg(errp, "vmferry: rdma: does not do postcopy; switch the postcopy-ram and "
                         "dirty-bitmaps capabilities off");
        return false;
    }
    return true;
}

/* --- ahead --- */

/*
 * The plugin, and the device drivers that libibverbs loads for its first connection, when QEMU
 * starts: no migration waits for them. What goes wrong is said by the migration that needs them.
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
