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
 * Small state belongs in the stream. A device with large state is registered here, on both sides
 * by the same `idstr' and `instance_id':
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
 * Load jobs begin when the destination's reader says that it has loaded all that the source put
 * into the stream before vmf_devices_start(). So a job finds what its device saved while the VM
 * ran.
 *
 * The destination's vmf_session_complete() says LOADED only after all devices are loaded. Buffers
 * travel over the session's channels, beside RAM. At the destination each device has bounded memory
 * of its own for its buffers, so that a slow device holds up no other. The first error of a job is
 * the session's, with the device's name. It ends the waits of all other jobs on both sides, as
 * vmf_session_cancel() does. A job itself is never interrupted: if it waits for anything else, it
 * must look at vmf_device_job_check().
 */
typedef struct VmfDevices VmfDevices;
/* A save or load job that runs. It is valid until the job returns. */
typedef struct VmfDeviceJob VmfDeviceJob;

/* What a device does. A member may be NULL. `opaque' is what vmf_devices_add() was given. */
typedef struct VmfDeviceOps {
    size_t size; /* sizeof(VmfDeviceOps): members may be appended */

    /*
     * Source, on a worker thread, after the VM has stopped: puts the state by vmf_device_put(). It
     * may block. false with *error ends the migration.
     */
    bool (*save)(VmfDeviceJob *job, void *opaque, GError **error);
    /*
     * Source, on the same thread after save: the configuration, of at most 1 MiB. The library drops
     * the reference. NULL: there is none, or it failed and *error is set.
     */
    GBytes *(*save_config)(void *opaque, GError **error);
    /*
     * Destination, on a thread of its own: takes all buffers by vmf_device_get(). It may block.
     * false with *error ends the migration.
     */
    bool (*load)(VmfDeviceJob *job, void *opaque, GError **error);
    /*
     * Destination, in vmf_devices_load(), after this device's load has succeeded. Devices come one
     * at a time, as they become ready. `config' is valid during the call; `size' is 0 if the source
     * has none.
     */
    bool (*load_config)(const void *config, size_t size, void *opaque, GError **error);
} VmfDeviceOps;

/*
 * The devices of a session, none at first. The session owns them, and waits for their jobs when it
 * is freed. The session's own thread calls all functions but those for jobs.
 */
VMF_API VmfDevices *vmf_session_get_devices(VmfSession *session);

/*
 * Registers a device. `idstr' has 1 to 255 bytes. It and `ops' are copied; `opaque' stays the
 * caller's. VMF_ERROR_INVALID: the name is bad or known, `ops' is too short, there are 65536
 * devices already, or it is too late.
 */
VMF_API bool vmf_devices_add(VmfDevices *devices, const char *idstr, uint32_t instance_id,
                             const VmfDeviceOps *ops, void *opaque, GError **error);

/*
 * Source, after the VM has stopped: flushes the stream, tells the destination that the switchover
 * begins, and starts the save jobs. All run at a time, or as many as the option device-workers
 * says. It waits for room for the stream, and up to device-timeout for the destination's
 * vmf_devices_expect(). A second start is VMF_ERROR_INVALID.
 */
VMF_API bool vmf_devices_start(VmfDevices *devices, GError **error);
/* Source: flushes the stream, and waits until every device is saved and sent. */
VMF_API bool vmf_devices_finish(VmfDevices *devices, GError **error);

/*
 * Destination, once, after all devices are registered: allocates the memory in which buffers wait,
 * and tells the source. Do it early, because the memory is made resident.
 */
VMF_API bool vmf_devices_expect(VmfDevices *devices, GError **error);
/*
 * Destination, once, after vmf_devices_expect(): the caller has read and loaded all that the source
 * put into the stream before vmf_devices_start(). The load jobs begin now, or when the source
 * starts its devices; it waits for neither. The stream must show that place in the VMM's own way,
 * by a marker right before vmf_devices_start(). If it is called too early, both sides fail with
 * VMF_ERROR_MISMATCH. Later is no error. vmf_devices_load() does it if nobody has.
 */
VMF_API bool vmf_devices_begin(VmfDevices *devices, GError **error);
/*
 * Destination: loads configurations as devices become ready, until all are loaded.
 * VMF_ERROR_PROTOCOL names a device whose buffers are missing after the source has sent everything.
 * VMF_ERROR_TIMEOUT names a device that is not loaded after nothing has moved for device-timeout.
 */
VMF_API bool vmf_devices_load(VmfDevices *devices, GError **error);

/* --- for jobs, on their thread --- */

/*
 * Save job: puts the next buffer, of 1 byte to 1 GiB. The memory must not change until
 * release(release_data) is called, even if this fails. That happens on this thread: in a later
 * vmf_device_put(), or after the job has returned. If `release' is NULL, it waits until the memory
 * is free. It also waits while the destination's load job does not keep up. If nothing moves for
 * the option device-timeout, that is VMF_ERROR_TIMEOUT.
 *
 * A device's window is the option device-queue, or its equal part of devices-queue, if that is
 * less. A larger buffer waits at the destination in memory of its own, alone of its device. Such
 * buffers of all devices together may have devices-queue bytes again. A buffer that is larger than
 * that goes when there is no other. So the destination holds at most twice devices-queue, or
 * devices-queue and 1 GiB, and 1 MiB for each configuration. Such a buffer may have to wait until
 * another device's load job has given its own back.
 *
 * VMF_ERROR_INVALID: no byte, more than 1 GiB, or more than 2^32 - 1 buffers.
 */
VMF_API bool vmf_device_put(VmfDeviceJob *job, const void *data, size_t size,
                            GDestroyNotify release, void *release_data, GError **error);

/*
 * Load job: gets the next buffer, in the order in which they were put. The library owns it; it is
 * valid until the next call. After the last buffer it returns true with *data NULL. It waits for
 * the source.
 */
VMF_API bool vmf_device_get(VmfDeviceJob *job, const void **data, size_t *size, GError **error);

/* true while the migration goes on. Else false, with a copy of its error. Any thread. */
VMF_API bool vmf_device_job_check(const VmfDeviceJob *job, GError **error);

G_END_DECLS

#endif
