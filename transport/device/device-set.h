/* SPDX-License-Identifier: BSD-2-Clause */
/* device-set.h -- the inside of a session's devices, shared by the device*.c files */

#ifndef VMF_DEVICE_SET_H
#define VMF_DEVICE_SET_H

#include <vmferry/device.h>

#include "base/message.h"
#include "session/mailbox.h"

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
/* A place in a window, or this: larger than the window, so in memory of its own, and alone. */
#define DEVICE_NO_PLACE VMF_DEVICE_NO_PLACE
/* Places in a window, and windows, begin at multiples of this. */
#define DEVICE_ALIGN 64u

/*
 * Flow control. For each device the destination keeps a window of memory, into
 * which the source places its buffers, in a ring: they are given back in the
 * order of their index. So a buffer is never sent that has no place to go, no
 * channel ever waits for a device, and no device for another. A buffer larger
 * than the window goes alone, in memory of its own; these have a bound for all
 * devices together, which the source keeps and the destination checks: there a
 * device can wait for another. One larger than that bound goes when there is no other.
 */
typedef struct DeviceSpan {
    uint64_t place, size; /* size 0: not in the window */
} DeviceSpan;

/* Places that are taken, oldest first. */
typedef struct DeviceRing {
    uint64_t bytes;
    unsigned most;
    DeviceSpan *spans;
    unsigned first, count;
} DeviceRing;

/* false: no memory. */
bool device_ring_init(DeviceRing *ring, uint64_t bytes, unsigned most);
void device_ring_clear(DeviceRing *ring);
/* Whether a buffer of that many bytes is larger than the window. */
bool device_ring_is_smaller(const DeviceRing *ring, uint64_t size);
/* A place for that many bytes, DEVICE_NO_PLACE for a buffer that goes alone; false: none now. */
bool device_ring_take(DeviceRing *ring, uint64_t size, uint64_t *place);
/* Gives the oldest back. */
void device_ring_give(DeviceRing *ring);

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

    /* Source. */
    GThread **workers; /* each takes the next device that nobody has taken */
    unsigned worker_count;
    unsigned turn; /* atomic: the next device */

    /* Destination. */
    bool expected; /* vmf_devices_expect() was called, whatever came of it */
    uint64_t window_bytes;
    uint32_t window_buffers;
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

/* --- devices.c --- */
void devices_free(VmfDevices *devices);
Device *devices_find(VmfDevices *devices, const char *idstr, uint32_t instance_id);
/* The first device that is not as far as that, or NULL. The caller holds the lock. */
Device *devices_first_before_locked(VmfDevices *devices, DeviceStage stage);
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

/* --- device-save.c --- */
/* Tells the owners of buffers that are not needed any more; all of them, in time, if `wait'. */
void device_release(Device *device, bool wait);
bool devices_handle_window(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                           GError **error);
bool devices_handle_credit(VmfSession *s, const MessageHeader *header, GError **error);

/* --- device-arrive.c: what channels do on the destination --- */
/*
 * The devices once the destination expects them: from then on nothing is added,
 * and what the peer sends may look at them. NULL before. The caller holds the lock.
 */
VmfDevices *devices_expecting_locked(VmfSession *s);
void *device_begin(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header, GError **error);
bool device_done(VmfConn *conn, unsigned channel, GError **error);
/* The caller holds the lock. */
DeviceArrival *device_find_arrival(Device *device, uint32_t index);

/* --- device-load.c --- */
bool devices_handle_switchover(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                               GError **error);

#endif
