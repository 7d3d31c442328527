/* SPDX-License-Identifier: BSD-2-Clause */
/* device-set.h -- the devices of a session: what is known of each, finding, errors */

#ifndef VMF_DEVICE_SET_H
#define VMF_DEVICE_SET_H

#include <vmferry/device.h>

#include "base/message.h"
#include "session/mailbox.h"
#include "session/session-device.h"
#include "device-window.h"

/* A buffer goes over the channels in pieces of this size, so that none holds RAM up for long. */
#define DEVICE_PIECE (1u << 20)
#define DEVICE_BUFFER_MAX (1ull << 30)
#define DEVICE_CONFIG_MAX (1u << 20)
/* What there can be of them, and what a destination can keep for each; the options' maxima, too. */
#define DEVICES_MAX 65536u
#define DEVICE_WINDOW_BUFFERS_MAX 4096u
#define DEVICE_WINDOW_BYTES_MAX (1ull << 40)

/* VmfDeviceHeader.flags: the configuration; its index is the number of buffers before it. */
#define DEVICE_FLAG_CONFIG 1u
/* Source: a buffer on its way, until its owner has been told. */
typedef struct DeviceOutgoing {
    VmfDeviceHeader header;
    PayloadDone done;
    GDestroyNotify release;
    void *release_data;
} DeviceOutgoing;

/* Destination: a buffer that arrives, or waits. */
typedef struct DeviceArrival {
    struct Device *device;
    uint32_t index;
    bool used, config;
    uint64_t place, total, received;
    uint8_t *data;
    uint8_t *own; /* data, if it is not in the window */
    uint8_t pieces[DEVICE_BUFFER_MAX / DEVICE_PIECE / 8];
} DeviceArrival;

/* Destination: the piece that is arriving on a channel. */
typedef struct DeviceArriving {
    DeviceArrival *arrival; /* NULL: none */
    uint64_t bytes;
} DeviceArriving;

/* How far a device is, on either side. */
typedef enum {
    DEVICE_NEW,
    DEVICE_ANNOUNCED, /* destination: the source has it, too */
    DEVICE_READY,     /* destination: its load job has succeeded */
    DEVICE_DONE       /* saved and sent, or loaded */
} DeviceStage;

struct VmfDeviceJob {
    struct Device *device;
};

typedef struct Device {
    VmfDevices *set;
    char *idstr;
    uint32_t instance_id;
    VmfDeviceOps ops; /* a copy: what the program did not know of is NULL */
    void *opaque;
    VmfDeviceJob job;
    DeviceStage stage; /* under the session's lock */
    uint64_t window;   /* where its window begins in the destination's memory */

    /* Source: the job's own thread. */
    GQueue outgoing; /* DeviceOutgoing */
    uint32_t put;    /* buffers so far */
    /* Source, under the session's lock. */
    DeviceRing ring;
    uint32_t given_back;
    uint64_t alone; /* bytes of its buffer on the way that is larger than the window; 0: none */

    /* Destination, under the session's lock. */
    unsigned number;         /* the source's */
    DeviceArrival *arrivals; /* window_buffers of them */
    DeviceArrival config;
    bool config_here;
    uint32_t next; /* index of the buffer that the job gets next */
    DeviceArrival *lent;
    bool ended; /* the job was told that there are no more */
    GThread *thread;
} Device;

struct VmfDevices {
    VmfSession *session;
    GPtrArray *list; /* Device: the source's order counts on the wire */
    GHashTable *by_name;
    bool started; /* under the session's lock; nothing can be added any more */

    /* Buffers larger than their window, of all devices; under the session's lock. */
    uint64_t alone, alone_max;
    uint64_t alone_given_back; /* source: so many so far */

    /*
     * Of each device's window in the destination's memory. The destination's options say it, and
     * DEVICE_WINDOW tells the source, which has 0 buffers until then. Under the session's lock
     * until the devices are started; fixed afterwards.
     */
    uint64_t window_bytes;
    uint32_t window_buffers;
    uint64_t bytes; /* of device state so far; atomic */

    /* Source. */
    GThread **workers; /* each takes the next device that nobody has taken */
    unsigned worker_count;
    unsigned turn; /* atomic: the next device */

    /* Destination. */
    bool expected; /* vmf_devices_expect() was called, whatever came of it */
    DeviceArriving arriving[VMF_CHANNELS_MAX]; /* each is its channel's thread's alone */
    uint8_t *memory;
    size_t memory_bytes;
    unsigned announced; /* by the source so far; its control thread counts */
    bool switchover;    /* all of them are */
    uint64_t put;       /* stream bytes that the source had put before */
    bool begun;         /* the reader has come to that place */
    uint64_t read;      /* stream bytes that it had read then */
    bool jobs_started;
    GQueue ready;
};

/* By name and instance, for a GHashTable. */
guint device_hash(gconstpointer key);
gboolean device_equal(gconstpointer a, gconstpointer b);
Device *devices_find(VmfDevices *devices, const char *idstr, uint32_t instance_id);
/* The first device that is not as far as that, or NULL. The caller holds the lock. */
Device *devices_first_before_locked(const VmfDevices *devices, DeviceStage stage);
/* Whether all are saved, or loaded; else an error that names one that is not. */
bool devices_are_done(VmfDevices *devices, GError **error);
/* Says where each device's window begins, the same on both sides; returns the bytes of all. */
uint64_t devices_lay_out(VmfDevices *devices, uint64_t window_bytes);
/* Whether another buffer outside the windows may be there; the caller holds the lock. */
bool devices_may_go_alone_locked(const VmfDevices *devices, uint64_t size);
/* Makes `error' the session's, with the device's name. Takes it; NULL: the job gave no reason. */
void device_fail(Device *device, const char *what, GError *error);
/* Sets *error, with the device's name in front. */
bool device_error(const Device *device, GError **error, int code, const char *format, ...)
    G_GNUC_PRINTF(4, 5);

#endif
