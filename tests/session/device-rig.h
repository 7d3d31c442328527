/* SPDX-License-Identifier: BSD-2-Clause */
/* device-rig.h -- devices that save and load known state, slowly or wrongly if wanted */

#ifndef VMF_TESTS_DEVICE_RIG_H
#define VMF_TESTS_DEVICE_RIG_H

#include "support/pair.h"

typedef enum {
    FAULT_NONE,
    FAULT_SAVE,
    FAULT_SAVE_CONFIG,
    FAULT_LOAD,
    FAULT_LOAD_CONFIG,
    FAULT_NEVER_READS, /* its load job waits until the migration has failed */
    FAULT_STOPS_READING,
    FAULT_COUNT
} RigFault;

typedef struct RigDevice {
    /* What the device is. */
    char idstr[32];
    uint32_t instance_id;
    unsigned buffers;
    size_t size; /* bytes of buffer i: 1 to size, by a hash of i */
    gulong save_delay_us, load_delay_us, config_delay_us;
    bool waits; /* puts without a release function */
    RigFault fault;
    unsigned fault_at;
    int *order; /* counts the configurations that were loaded */
    const struct RigDevice
        *after; /* its load job ends after this device's configuration is loaded */
    int *read; /* atomic: not 0 after the stream state that its load job needs is loaded; or NULL */

    /* What happened. */
    int put, released, loaded_as; /* atomic */
} RigDevice;

typedef struct Rig {
    Pair *pair;
    RigDevice *devices;
    unsigned count;
    unsigned missing_at_source,
        missing_at_destination; /* number of last devices that are not registered */
    uint64_t iterative;         /* bytes of state in the stream, before the devices are started */
    gulong read_delay_us;       /* the destination's reader sleeps so long before every 64 KiB */
    bool leaves_begin;          /* vmf_devices_load() has to begin */
    int read;                   /* atomic: the destination has loaded all of that state */
    gulong cancel_after_us;     /* 0: no */
    bool cancel_destination;
    GError *source_error, *destination_error;
} Rig;

/* Names n devices dev0, dev1, ... and zeroes the rest. */
void rig_name(RigDevice *devices, unsigned n);
/*
 * Migrates RAM, devices and stream once, with a pair that is initialised and not connected. Asserts
 * that every buffer was released. Without an error on either side all must be there; else both
 * errors must be set.
 */
bool rig_migrate(Rig *rig);
void rig_clear_errors(Rig *rig);

#endif
