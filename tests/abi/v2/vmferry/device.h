/* SPDX-License-Identifier: BSD-2-Clause */
/* device.h -- device state in parallel: jobs that save and load it at switchover */

#ifndef VMFERRY_DEVICE_H
#define VMFERRY_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>
#include <vmferry/error.h>
#include <vmferry/session.h>

G_BEGIN_DECLS

/*
 * Small state belongs in the stream. A device whose state is large registers
 * here, on both sides under the same (idstr, instance_id):
 *
 *   source                                  destination
 *   vmf_devices_add ...                     vmf_devices_add ...
 *                                           vmf_devices_expect
 *   ... RAM, stream, while the VM runs ...  ... reads the stream ...
 *   the VM stops
 *   a marker of its own, into the stream
 *   vmf_devices_start                       reads the marker: vmf_devices_begin
 *     save jobs, on worker threads   =====> load jobs, each on a thread of its own,
 *                                           take buffers in the order of their index
 *   last RAM, stream
 *   vmf_devices_finish                      vmf_devices_load: configurations, here, one at a time
 *   vmf_session_complete                    vmf_session_complete
 *
 * A load job finds everything loaded that the source put into the stream before
 * vmf_devices_start(), such as what its device saved while the VM ran: jobs begin when the
 * destination's reader has come that far and says so.
 *
 * The destination's vmf_session_complete() says LOADED only after all devices
 * are loaded. Buffers travel over the session's channels, beside RAM; a device's
 * wait at the destination in memory of its own, bounded, so that a slow device
 * holds up no other. The first error of any job is the session's, with the
 * device's name; it ends all other jobs' waits on both sides, as does
 * vmf_session_cancel(). Jobs themselves are never interrupted: one that waits
 * for something else must look at vmf_device_job_check().
 */
typedef struct VmfDevices VmfDevices;
/* A save or load job that runs. */
typedef struct VmfDeviceJob VmfDeviceJob;

/* What a device does; NULL where it does nothing. `opaque' is what vmf_devices_add() was given. */
typedef struct VmfDeviceOps {
    size_t size; /* sizeof(VmfDeviceOps): members may be appended */

    /*
     * Source, on a worker thread, when the VM has stopped: gives the state away
     * with vmf_device_put(). May block. false with *error set ends the migration.
     */
    bool (*save)(VmfDeviceJob *job, void *opaque, GError **error);
    /*
     * Source, on the same thread behind save: the configuration, up to 1 MiB;
     * NULL: it has none (or failed, if *error is set).
     */
    GBytes *(*save_config)(void *opaque, GError **error);
    /* Destination, on a thread of its own: takes all buffers with vmf_device_get(). */
    bool (*load)(VmfDeviceJob *job, void *opaque, GError **error);
    /*
     * Destination, in vmf_devices_load(), when this device's load has succeeded;
     * one device at a time, in the order in which they become ready.
     */
    bool (*load_config)(const void *config, size_t size, void *opaque, GError **error);
} VmfDeviceOps;

/*
 * The devices of a session, none at first. Owned by the session, whose end waits
 * for jobs that still run. All but the functions for jobs belong to the session's
 * own thread.
 */
VMF_API VmfDevices *vmf_session_get_devices(VmfSession *session);

/*
 * Registers a device. idstr: 1 to 255 bytes. `ops' must live as long as the session.
 * Errors: VMF_ERROR_INVALID for a bad name, one that is there already, more than 65536
 * devices, or a set that has started.
 */
VMF_API bool vmf_devices_add(VmfDevices *devices, const char *idstr, uint32_t instance_id,
                             const VmfDeviceOps *ops, void *opaque, GError **error);

/*
 * Source: the VM has stopped. Hands out what is buffered in the stream, tells the
 * destination that the switchover begins, and starts the save jobs: all, or as many at
 * a time as the option device-workers says. Waits for room for those stream bytes, as any flush,
 * and for the destination's vmf_devices_expect().
 */
VMF_API bool vmf_devices_start(VmfDevices *devices, GError **error);
/* Source: hands out what is buffered in the stream, waits until every device is saved and sent. */
VMF_API bool vmf_devices_finish(VmfDevices *devices, GError **error);

/*
 * Destination, once all devices are registered: allocates the memory in which
 * their buffers wait, and tells the source. Do it early: the memory is made
 * resident.
 */
VMF_API bool vmf_devices_expect(VmfDevices *devices, GError **error);
/*
 * Destination, once, behind vmf_devices_expect(): all that the source put into the stream
 * before its vmf_devices_start() has been read, and loaded. Waits for nothing: load jobs
 * begin now, or as soon as the source has started its devices. Where that is, the stream
 * must say in the VMM's own way: a marker that it puts right before vmf_devices_start().
 * VMF_ERROR_MISMATCH, on both sides: it was called before all of that had been read.
 * Later is no error; vmf_devices_load() does it if it was not done.
 */
VMF_API bool vmf_devices_begin(VmfDevices *devices, GError **error);
/*
 * Destination: loads configurations as devices become ready, until all are
 * loaded. VMF_ERROR_PROTOCOL names a device that lacks buffers when the source
 * has sent everything, VMF_ERROR_TIMEOUT one that is not loaded when nothing has
 * moved for the option device-timeout.
 */
VMF_API bool vmf_devices_load(VmfDevices *devices, GError **error);

/* --- for jobs, on their thread --- */

/*
 * Save job: the next buffer, of 1 byte to 1 GiB. It is on its way when this
 * returns; the memory must stay as it is until release(release_data) is called,
 * on this thread, in a later vmf_device_put() or when the job has returned,
 * whatever happens (also if this fails). With release NULL it waits until the
 * memory is not needed any more. Waits while the destination's load job does not
 * keep up; longer than the option device-timeout is an error.
 *
 * A buffer larger than its device's window (the option device-queue, or the device's equal
 * part of devices-queue, if that is less) waits at the destination in memory of its own,
 * and has none beside it of the same device. Those of all devices together may have
 * devices-queue bytes again; one that is larger than that goes when there is no other.
 * So the destination never holds more than twice devices-queue (or, if that is more,
 * devices-queue and 1 GiB), and 1 MiB for each device's configuration. Such a buffer may
 * have to wait until another device's load job has given its own back.
 *
 * VMF_ERROR_INVALID: no byte, more than 1 GiB, or more than 2^32 - 1 buffers.
 */
VMF_API bool vmf_device_put(VmfDeviceJob *job, const void *data, size_t size,
                            GDestroyNotify release, void *release_data, GError **error);

/*
 * Load job: the next buffer, in the order in which they were put; valid until the
 * next call. true with *data NULL behind the last one. Waits for the source.
 */
VMF_API bool vmf_device_get(VmfDeviceJob *job, const void **data, size_t *size, GError **error);

/* Whether the migration goes on; else a copy of its error. */
VMF_API bool vmf_device_job_check(const VmfDeviceJob *job, GError **error);

G_END_DECLS

#endif
