/* SPDX-License-Identifier: BSD-2-Clause */
/* device-set.c -- the devices of a session: finding them, their windows, errors */

#include "device-set.h"

#include <string.h>
#include <sys/mman.h>

#include "session/session-core.h"

/* --- by name --- */

guint device_hash(gconstpointer key)
{
    const Device *device = key;

    return g_str_hash(device->idstr) * 31 + device->instance_id;
}

gboolean device_equal(gconstpointer a, gconstpointer b)
{
    const Device *x = a, *y = b;

    return x->instance_id == y->instance_id && g_str_equal(x->idstr, y->idstr);
}

Device *devices_find(VmfDevices *devices, const char *idstr, uint32_t instance_id)
{
    const Device key = {.idstr = (char *)idstr, .instance_id = instance_id};

    return g_hash_table_lookup(devices->by_name, &key);
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    const Device *x = *(Device *const *)a, *y = *(Device *const *)b;
    const int order = strcmp(x->idstr, y->idstr);

    return order ? order : (x->instance_id > y->instance_id) - (x->instance_id < y->instance_id);
}

uint64_t devices_lay_out(VmfDevices *devices, uint64_t window_bytes)
{
    const uint64_t each = (window_bytes + DEVICE_ALIGN - 1) / DEVICE_ALIGN * DEVICE_ALIGN;
    g_autoptr(GPtrArray) sorted = g_ptr_array_new(); /* it owns no device */

    /* The two sides may have added their devices in different orders. */
    g_ptr_array_extend(sorted, devices->list, NULL, NULL);
    g_ptr_array_sort(sorted, by_name);
    for (guint i = 0; i < sorted->len; i++) {
        ((Device *)sorted->pdata[i])->window = i * each;
    }
    return sorted->len * each;
}

/* --- how far they are --- */

Device *devices_first_before_locked(const VmfDevices *devices, DeviceStage stage)
{
    for (guint i = 0; i < devices->list->len; i++) {
        Device *device = devices->list->pdata[i];

        if (device->stage < stage) {
            return device;
        }
    }
    return NULL;
}

bool devices_are_done(VmfDevices *devices, GError **error)
{
    VmfSession *s = devices->session;
    Device *device;

    g_mutex_lock(&s->core.lock);
    device = devices_first_before_locked(devices, DEVICE_DONE);
    g_mutex_unlock(&s->core.lock);
    return !device ||
           device_error(device, error, VMF_ERROR_INVALID,
                        "the migration was completed before it was %s",
                        s->role == VMF_ROLE_SOURCE ? "saved (vmf_devices_finish() tells when)"
                                                   : "loaded (vmf_devices_load() does that)");
}

bool devices_may_go_alone_locked(const VmfDevices *devices, uint64_t size)
{
    return !devices->alone ||
           (devices->alone <= devices->alone_max && size <= devices->alone_max - devices->alone);
}

/* --- errors --- */

bool device_error(const Device *device, GError **error, int code, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list arguments;

    va_start(arguments, format);
    text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error(error, VMF_ERROR, code, "device \"%s\" instance %u: %s", device->idstr,
                device->instance_id, text);
    return false;
}

void device_fail(Device *device, const char *what, GError *error)
{
    g_autofree char *name =
        g_strdup_printf("device \"%s\" instance %u: ", device->idstr, device->instance_id);

    if (!error) {
        error = g_error_new(VMF_ERROR, VMF_ERROR_FAILED, "%s%s, and gave no reason", name, what);
    } else if (!g_str_has_prefix(error->message, name)) {
        g_prefix_error(&error, "%s%s: ", name, what);
    }
    session_fail(device->set->session, error, false);
}

bool vmf_device_job_check(const VmfDeviceJob *job, GError **error)
{
    return vmf_session_check(job->device->set->session, error);
}
