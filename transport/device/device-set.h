/* SPDX-License-Identifier: BSD-2-Clause */
/* device-set.h -- the devices of a session: what is known of each, finding them, errors */

#ifndef VMF_DEVICE_SET_H
#define VMF_DEVICE_SET_H

#include <vmferry/device.h>

#include "base/message.h"
#include "session/mailbox.h"
#include "session/session-device.h"
#include "device-window.h"

/*
 * A buffer goes over the channels in pieces of this size, so that no piece holds up RAM for long.
 */
#define DEVICE_PIECE (1u << 20)
#define DEVICE_BUFFER_MAX (1ull << 30)
#define DEVICE_CONFIG_MAX (1u << 20)
/* The most devices, and the most that a destination keeps for each; also maxima of the options. */
#define DEVICES_MAX 65536u
#define DEVICE_WINDOW_BUFFERS_MAX 4096u
#define DEVICE_WINDOW_BYTES_MAX (1ull << 40)

/*
 * VmfDeviceHeader.flags: this is the configuration; its index is the number of buffers before it.
 */
#define DEVICE_FLAG_CONFIG 1u
/* Source: a buffer that is under way, until its owner is told. */
typedef struct DeviceOutgoing {
    VmfDeviceHeader header;
    PayloadDone done;
    GDestroyNotify release;
    void *release_data;
} DeviceOutgoing;

/* Destination: a buffer that arrives, or waits for its job. */
typedef struct DeviceArrival {
    struct Device *device;
    uint32_t index;
    bool used, config;
    uint64_t place, total, received;
    uint8_t *data;
    uint8_t *own; /* `data', if it is not in the window */
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
    DEVICE_ANNOUNCED, /* destination: the source has named it */
    DEVICE_READY,     /* destination: its load job has succeeded */
    DEVICE_DONE       /* saved and sent, or loaded */
} DeviceStage;

struct VmfDeviceJob {
    struct Device *device;
};

/* "Lock" is SessionCore.lock, and "fixed" means read-only from that time on. */
typedef struct Device {
    /* Fixed when it is added. */
    VmfDevices *set;
    char *idstr;
    uint32_t instance_id;
    VmfDeviceOps ops; /* a copy; members past the program's table are NULL */
    void *opaque;
    VmfDeviceJob job;
    DeviceStage stage; /* lock */
    uint64_t window;   /* fixed by devices_lay_out(): where its window begins; bytes */

    /* Source: the job's own thread. */
    GQueue outgoing; /* DeviceOutgoing */
    uint32_t put;    /* number of buffers so far */
    /* Source: lock. */
    DeviceRing ring;
    uint32_t given_back;
    uint64_t alone; /* bytes of its buffer outside the window that is under way; 0: none */

    /* Destination: lock, unless a member says otherwise. */
    unsigned number;         /* its place in the source's list */
    DeviceArrival *arrivals; /* window_buffers of them */
    DeviceArrival config;    /* lock until config_here, then the session's own thread */
    bool config_here;
    uint32_t next; /* index of the next buffer for the job */
    DeviceArrival *lent;
    bool ended;      /* the job's thread: it was told that there are no more buffers */
    GThread *thread; /* the thread that starts the jobs; vmf_session_free() joins it */
} Device;

struct VmfDevices {
    VmfSession *session; /* fixed */
    GPtrArray *list;     /* Device; the session's own thread until `started', then fixed */
    GHashTable *by_name; /* like `list' */
    bool started;        /* lock; nothing can be added any more */

    /* Lock: bytes of buffers outside their windows, of all devices. */
    uint64_t alone, alone_max;
    uint64_t alone_given_back; /* source: number of them so far */

    /*
     * The size of each device's window in the destination's memory. The destination's options say
     * it, and DEVICE_WINDOW tells the source. The source has 0 buffers until then. Lock until
     * the devices are started, and fixed after that.
     */
    uint64_t window_bytes;
    uint32_t window_buffers;
    uint64_t bytes; /* bytes of device state so far; atomic */

    /* Source: the session's own thread. */
    GThread **workers; /* each takes the next device that no worker has taken */
    unsigned worker_count;
    unsigned turn; /* atomic: the next device */

    /* Destination. */
    bool expected; /* the session's own thread: vmf_devices_expect() was called */
    DeviceArriving arriving[VMF_CHANNELS_MAX]; /* each belongs to its channel's thread */
    uint8_t *memory;                           /* fixed before `started', like the next one */
    size_t memory_bytes;
    unsigned announced; /* the control thread: devices that the source has named */
    bool switchover;    /* lock, the control thread writes: the source has named all devices */
    uint64_t put;       /* fixed by `switchover': stream bytes that the source had put before */
    bool begun;         /* lock, the own thread writes: the reader has come to that place */
    uint64_t read;      /* fixed by `begun': stream bytes that the reader had taken then */
    bool jobs_started;  /* lock */
    GQueue ready;       /* lock: Device */
};

/* By name and instance, for a GHashTable. */
guint device_hash(gconstpointer key);
gboolean device_equal(gconstpointer a, gconstpointer b);
Device *devices_find(VmfDevices *devices, const char *idstr, uint32_t instance_id);
/* The first device that is before that stage, or NULL. The caller holds the lock. */
Device *devices_first_before_locked(const VmfDevices *devices, DeviceStage stage);
/* Whether all devices are saved, or loaded. Else *error names one that is not. */
bool devices_are_done(VmfDevices *devices, GError **error);
/*
 * Sets where each device's window begins, which is the same on both sides. Returns the bytes of all
 * windows.
 */
uint64_t devices_lay_out(VmfDevices *devices, uint64_t window_bytes);
/* Whether there may be another buffer outside the windows. The caller holds the lock. */
bool devices_may_go_alone_locked(const VmfDevices *devices, uint64_t size);
/*
 * Makes `error' the session's, with the device's name. Takes `error' over; NULL: the job gave no
 * reason.
 */
void device_fail(Device *device, const char *what, GError *error);
/* Sets *error, with the device's name before it. Always returns false. */
bool device_error(const Device *device, GError **error, int code, const char *format, ...)
    G_GNUC_PRINTF(4, 5);

#endif
