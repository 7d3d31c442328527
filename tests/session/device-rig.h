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
    /* What it is. */
    char idstr[32];
    uint32_t instance_id;
    unsigned buffers;
    size_t size; /* of the i-th: 1 to size, by a hash of i */
    gulong save_delay_us, load_delay_us, config_delay_us;
    bool waits; /* puts without a release function */
    RigFault fault;
    unsigned fault_at;
    int *order;                    /* counts configurations as they are loaded */
    const struct RigDevice *after; /* its load job ends when this one's configuration is loaded */
    int *read; /* atomic: not 0 once what its load job needs from the stream is loaded; or NULL */

    /* What happened. */
    int put, released, loaded_as; /* atomic */
} RigDevice;

typedef struct Rig {
    Pair *pair;
    RigDevice *devices;
    unsigned count;
    unsigned missing_at_source, missing_at_destination; /* so many of the last are not registered */
    uint64_t iterative;     /* bytes of state in the stream, before the devices are started */
    gulong read_delay_us;   /* the destination's reader sleeps that long before every 64 KiB */
    bool leaves_begin;      /* to vmf_devices_load() */
    int read;               /* atomic: it has loaded all of that */
    gulong cancel_after_us; /* 0: no */
    bool cancel_destination;
    GError *source_error, *destination_error;
} Rig;

/* Names n devices dev0, dev1, ...; the rest is zero. */
void rig_name(RigDevice *devices, unsigned n);
/*
 * One migration of the pair (initialised, not connected): RAM, devices, stream.
 * Asserts that every buffer was released, and that with no error on either side
 * everything is there; otherwise both errors are set.
 */
bool rig_migrate(Rig *rig);
void rig_clear_errors(Rig *rig);

#endif
