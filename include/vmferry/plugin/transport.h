/* SPDX-License-Identifier: BSD-2-Clause */
/* transport.h -- what a transport plugin implements */

#ifndef VMFERRY_TRANSPORT_H
#define VMFERRY_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <gio/gio.h>
#include <vmferry/error.h>
#include <vmferry/ram.h>
#include <vmferry/session.h>
#include <vmferry/uri.h>

G_BEGIN_DECLS

/*
 * A transport moves control messages both ways over one control connection,
 * and RAM, device state and sync messages from source to destination over N
 * channels. The session engine in libvmferry owns every thread, the payloads
 * and the protocol; a transport only does I/O:
 *
 *   control thread (one a side, or the caller's during the handshake):
 *       control_send, control_receive, control_wait, control_message
 *   channel thread c on the source:
 *       send_ram, send_zero, send_device, send_sync, kick, wait -- for its c only
 *   channel thread c on the destination:
 *       serve -- for its c only
 *   the session's own thread:
 *       everything else
 *
 * Every call that may wait ends with an error at once when conn->cancel is
 * cancelled (poll its descriptor), and by itself when conn->timeout_ms pass
 * without progress. Errors are returned, not logged, and name the channel.
 */

/*
 * How this interface grows without breaking a plugin that is compiled already. Within one ABI
 * number, which the loader compares:
 *
 *   VmfTransport, VmfConnHost    begin with their size; new members are appended. Who reads a
 *                                member that is newer than the first version of the number asks
 *                                VMF_TRANSPORT_HAS or VMF_HOST_HAS, and does without it.
 *   VmfConn, VmfDeviceHeader,    have a fixed size, because one side has them by value and the
 *   VmfOptionSpec,               other reads them. New members take the place of reserved ones,
 *   VmfChannelCounters           which are zero until then: zero means that nobody set it.
 *   VmfRamBlock                  is allocated by the library alone; new members are appended.
 *
 * Anything else (an order, a type, a meaning) changes the number.
 */
#define VMF_TRANSPORT_ABI 2
#define VMF_CHANNELS_MAX 64
/*
 * A foreign connection's return path is a channel with this number, fed by the
 * destination and served by the source; there is one only after open_back.
 */
#define VMF_CHANNEL_BACK 1
#define VMF_UUID_BYTES 16

typedef struct VmfConn VmfConn;

typedef enum { VMF_ROLE_SOURCE = 1, VMF_ROLE_DESTINATION = 2 } VmfRole;

/* Outcome of the non-blocking control calls. */
typedef enum {
    VMF_CONTROL_DONE,
    VMF_CONTROL_AGAIN, /* not now; control_wait tells when */
    VMF_CONTROL_EOF,   /* the peer closed */
    VMF_CONTROL_ERROR  /* *error is set */
} VmfControlResult;

/* VmfDeviceHeader.place: in memory of its own, outside device_memory. */
#define VMF_DEVICE_NO_PLACE UINT64_MAX

/* Header of a piece of device state. Transports carry it as it is; it is the engine's. */
typedef struct VmfDeviceHeader {
    char idstr[256];
    uint32_t instance_id;
    uint32_t index;
    uint32_t flags;
    uint64_t total;  /* bytes of the whole buffer */
    uint64_t offset; /* of this piece in it */
    uint64_t place;  /* of the buffer in the destination's device_memory */
    uint64_t size;   /* bytes of this piece */
    uint64_t reserved[4];
} VmfDeviceHeader;

/*
 * What the engine offers a connection. Callable from any of the connection's
 * threads.
 */
typedef struct VmfConnHost {
    uint32_t size; /* sizeof(VmfConnHost) as the library was compiled */
    uint32_t reserved;

    /* Channel `channel' delivered everything sent before its sync `number'. */
    bool (*sync_seen)(VmfConn *conn, unsigned channel, uint64_t number, GError **error);
    /*
     * A piece of a device buffer begins on this channel: where to put its header->size
     * bytes. May wait (back-pressure). NULL with *error set. Then device_done
     * when all bytes are there.
     */
    void *(*device_begin)(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header,
                          GError **error);
    bool (*device_done)(VmfConn *conn, unsigned channel, GError **error);
    /* Source, on the channel's thread: the piece that send_device was given is not read any more.
     */
    void (*device_sent)(VmfConn *conn, unsigned channel, void *piece);
    /*
     * Zeroes this range of local RAM, without making memory resident that is
     * not. Checks its bounds. Destination only.
     */
    bool (*zero_range)(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                       GError **error);
    /*
     * Whether local RAM at `offset' was surely never touched, and until where,
     * at most `end', the answer holds (*until). Touches nothing. The range lies
     * inside the block. Destination only, on the thread of its one channel.
     */
    bool (*untouched)(VmfConn *conn, unsigned block, uint64_t offset, uint64_t end,
                      uint64_t *until);
    /*
     * The local memory of wire block `block' after checking that the range lies
     * inside it; NULL with *error (VMF_ERROR_PROTOCOL) otherwise.
     */
    void *(*ram_range)(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                       GError **error);
    /* Queues a control message of the transport's own (type >= VMF_MESSAGE_PRIVATE). */
    void (*post_message)(VmfConn *conn, unsigned type, const void *data, size_t size);

    /* --- a foreign connection, on the thread of the channel that is served --- */

    /*
     * The next bytes of the stream. Waits for room. *hook: they end in a hook (see
     * transport/qemu-stream.h), behind which RAM's messages come and not the stream's.
     */
    bool (*stream_arrived)(VmfConn *conn, const uint8_t *data, size_t size, bool *hook,
                           GError **error);
    /* The peer has hung up in good order: no more stream will come. */
    void (*stream_ended)(VmfConn *conn);
    /* Destination: fills conn->blocks in the order that the stream so far listed them in. */
    bool (*stream_blocks)(VmfConn *conn, GError **error);

    /*
     * zero_range for memory that no device has registered: what was made resident while
     * the destination waited is given back.
     */
    bool (*release_range)(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                          GError **error);
} VmfConnHost;

/* Whether the library that made this table has a member, for those newer than ABI 2's first. */
#define VMF_HOST_HAS(host, member)                                                                 \
    ((host)->size >= offsetof(VmfConnHost, member) + sizeof((host)->member) && (host)->member)

#define VMF_MESSAGE_PRIVATE 0x100

/* Counters that a transport keeps; written with relaxed atomics by their one thread. */
typedef struct VmfChannelCounters {
    uint64_t ram_written, writes, doorbells, inflight_bytes;
    uint64_t registrations, evictions, registered_bytes, registration_ns;
    uint64_t reserved[8]; /* also keeps channels on cache lines of their own */
} VmfChannelCounters;

/*
 * The part of a connection that engine and transport share. A transport embeds
 * it as the first member of its own structure, zeroed, and fills `size' and `ops';
 * the engine fills the rest before the call that is named.
 */
struct VmfConn {
    uint32_t size;  /* sizeof(VmfConn) as the transport was compiled: it has room for that much */
    uint32_t flags; /* 0 */
    const struct VmfTransport *ops;
    VmfRole role;

    /*
     * Filled by connect or accept: the peer is stock QEMU, which speaks a protocol of
     * its own and not the engine's. There is no control connection and no handshake, but one
     * channel that carries everything in the order of its payloads; `ops' may then be
     * another table than the one that connected, and needs connect's, listen's and
     * control's members as little as those of device state.
     */
    bool foreign;

    /* Filled by the engine right after connect/accept. */
    const VmfConnHost *host;
    void *session;         /* the engine's */
    GCancellable *cancel;  /* cancelled when the session fails or ends */
    int cancel_fd;         /* its descriptor */
    uint32_t timeout_ms;   /* the longest wait without progress */
    uint32_t heartbeat_ms; /* the engine sends one that often on an idle control connection */

    /* Filled by the engine before open_channels. */
    uint8_t uuid[VMF_UUID_BYTES];
    unsigned channels;
    uint64_t max_inflight; /* bytes over all channels; a channel takes its share */

    /*
     * Filled by the engine before ram_setup: blocks[i] is the local block that
     * has number i on the wire (the source's order).
     */
    const VmfRamBlock *const *blocks;
    unsigned block_count;
    /* Foreign, source: bytes of each that are in use, by the stream; before the first hook. */
    const uint64_t *block_lengths;

    /* Filled by the transport. */
    size_t control_max; /* bytes of the longest control message, from connect/accept on; >= 4096 */
    uint64_t stripe; /* by ram_setup: bytes of a block that stay on one channel; a power of two */
    uint64_t merge_gap; /* by ram_setup: the longest clean gap worth bridging, bytes; 0 = none */
    uint64_t range_max; /* by ram_setup: longest range for one send_ram; 0 = the stripe */
    uint64_t zero_min;  /* by ram_setup: zero ranges shorter than that are sent as data;
                           UINT64_MAX: nobody needs to look for any */
    uint64_t own_bytes; /* memory it has allocated */
    const char *registration;     /* by ram_setup: static string for VmfStats */
    uint64_t chunk_size;          /* by ram_setup */
    char *peer;                   /* "host:port" for messages; freed by close */
    VmfChannelCounters *counters; /* by open_channels: one a channel; freed by close */

    /* Set by the engine on the source when the last flush of RAM is through, and no device is
     * being sent: the peer may now take the channels down without that being an error. Atomic. */
    int channels_done;
    /* Set by the engine before close: the migration was completed. */
    bool completed;
    /* Filled by the engine right after connect/accept: the set that `blocks' come from. */
    VmfRamBlocks *ram;

    uint64_t reserved[31];
};

typedef struct VmfTransportListener VmfTransportListener; /* the transport's own */

/*
 * The table of a transport. `size' and `abi_version' come first for ever; new
 * members are only added at the end, and count as NULL in an older plugin.
 * Members are mandatory unless marked optional.
 */
typedef struct VmfTransport {
    uint32_t size;                /* sizeof(VmfTransport) as the plugin was compiled */
    uint32_t abi_version;         /* VMF_TRANSPORT_ABI */
    const char *scheme;           /* "rdma" */
    const char *help;             /* one line */
    const VmfOptionSpec *options; /* besides the general ones; ends with a NULL name */
    uint32_t flags;               /* 0 */
    uint32_t channels_max;        /* at most VMF_CHANNELS_MAX */

    /* Connects the control connection, trying every address of the host in turn. */
    VmfConn *(*connect)(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES], GCancellable *cancel,
                        GError **error);
    VmfTransportListener *(*listen)(const VmfUri *uri, GError **error);
    /* The URI address part with the bound port ("rdma:0.0.0.0:4444"); caller frees. */
    char *(*listener_address)(VmfTransportListener *listener);
    /*
     * Waits for the next control connection that named a session: drops
     * strangers and the silent (after the connect-timeout) meanwhile.
     */
    VmfConn *(*accept)(VmfTransportListener *listener, GCancellable *cancel, GError **error);
    void (*listener_free)(VmfTransportListener *listener);

    /* How many channels suit this connection when the user named no number. */
    unsigned (*default_channels)(VmfConn *conn);
    /*
     * Up to 64 bytes that the peer's transport should know, sent in HELLO
     * (source) and HELLO_REPLY (destination), and the peer's. The source's
     * arrive before the destination makes its own. peer_parameters checks all.
     */
    size_t (*get_parameters)(VmfConn *conn, uint8_t buffer[64]);
    bool (*peer_parameters)(VmfConn *conn, const uint8_t *buffer, size_t size, GError **error);

    /* Opens (source) or awaits (destination) conn->channels channels, in any order. */
    bool (*open_channels)(VmfConn *conn, GError **error);
    /*
     * Makes RAM ready to be sent to or from: exchanges addresses by private
     * messages, registers. The control thread runs already. Called on both sides.
     */
    bool (*ram_setup)(VmfConn *conn, GError **error);

    /* --- control; see the threads above --- */

    /* Sends one message: header and data gathered. Whole or not at all. */
    VmfControlResult (*control_send)(VmfConn *conn, const struct iovec *iov, unsigned iovcnt,
                                     GError **error);
    /* The next whole message; valid until the next call. */
    VmfControlResult (*control_receive)(VmfConn *conn, const uint8_t **message, size_t *size,
                                        GError **error);
    /*
     * Sleeps until control_receive or (if want_send) control_send may make
     * progress, wake_fd is readable, or `timeout_ms' passed. Looks at the
     * transport's own events too (a lost connection, a removed device) and
     * reports them as errors. Does not end on conn->cancel.
     */
    bool (*control_wait)(VmfConn *conn, int wake_fd, bool want_send, int timeout_ms,
                         GError **error);
    /* A private message arrived. Must not block. `data' is valid during the call. */
    bool (*control_message)(VmfConn *conn, unsigned type, const uint8_t *data, size_t size,
                            GError **error);

    /* --- source, channel threads --- */

    /*
     * Queues a range for writing. Waits while the channel's share of
     * max_inflight is used up. May gather: kick pushes out. Ranges of one
     * stripe always come on the same channel, in the order of their saving.
     */
    bool (*send_ram)(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                     uint64_t length, GError **error);
    /* Tells the destination that this range is zero. Ordered against send_ram of the same bytes. */
    bool (*send_zero)(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                      uint64_t length, GError **error);
    /*
     * Sends a piece of a device buffer; `data' is read until host->device_sent is called with
     * `piece', now or later, or the channel's thread has ended. `header' is valid during the call.
     */
    bool (*send_device)(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header,
                        const void *data, void *piece, GError **error);
    /*
     * Sends sync `number' behind all that was queued before on this channel.
     * With `drain' it returns only when all RAM queued before has been written.
     */
    bool (*send_sync)(VmfConn *conn, unsigned channel, uint64_t number, bool drain, GError **error);
    bool (*kick)(VmfConn *conn, unsigned channel, GError **error);
    /*
     * The channel has nothing to do: makes progress with what is in flight and
     * sleeps until wake_fd is readable (the engine drains it) or conn->cancel.
     */
    bool (*wait)(VmfConn *conn, unsigned channel, int wake_fd, GError **error);

    /* --- destination, channel threads --- */

    /* Serves the channel until conn->cancel, `revoke' or the peer's close (true), or an error. */
    bool (*serve)(VmfConn *conn, unsigned channel, GError **error);

    /* --- end --- */

    /*
     * Destination: when it returns no write can reach RAM any more; every serve
     * ends. Fast: slow unpinning is left to close.
     */
    bool (*revoke)(VmfConn *conn, GError **error);
    /* Frees the connection. No other call is under way. Bounded time whatever the peer does. */
    void (*close)(VmfConn *conn);

    /* --- optional --- */

    /*
     * For benchmarks, on a channel thread of the source: writes `bytes' bytes
     * in all, in messages of message_size, from the channel's part of block 0
     * to the same place at the destination, and waits for their completion.
     * *seconds is without what had to be registered first. NULL: not offered.
     */
    bool (*raw_write)(VmfConn *conn, unsigned channel, uint64_t message_size, uint64_t bytes,
                      double *seconds, GError **error);
    /*
     * Destination: the memory that pieces of device state with a place will be put into, before
     * the source is told that it may send any. Stays there until close has returned. The
     * transport may let the source write right into it; device_begin is called all the same, for
     * each piece, once its bytes are there. NULL: they are received some other way.
     */
    bool (*device_memory)(VmfConn *conn, void *memory, size_t bytes, GError **error);
    /*
     * The RAM of the session that is accepted next, which the transport may make
     * ready ahead; NULL: of none any more. Before and after accept. NULL: it does not.
     */
    void (*listener_ram)(VmfTransportListener *listener, VmfRamBlocks *blocks);
    /*
     * Foreign connections, source, channel threads: stream bytes. With `hook' they end in
     * one, and everything until the next stream bytes is RAM's; otherwise they may wait for
     * company, a few milliseconds, or until the next sync.
     */
    bool (*send_stream)(VmfConn *conn, unsigned channel, const uint8_t *data, size_t size,
                        bool hook, GError **error);
    /* Foreign connections, the session's thread: makes the return path, or says that there is none.
     */
    bool (*open_back)(VmfConn *conn, GError **error);
    /*
     * Loads what the first connection would load otherwise, as libibverbs does its device drivers.
     * May be called at any time and by several threads; fails silently, for then the connection
     * says why. NULL: there is nothing to load.
     */
    void (*prepare)(void);
} VmfTransport;

/* Whether a transport's table, as long as its plugin made it, has an optional member set. */
#define VMF_TRANSPORT_HAS(transport, member)                                                       \
    ((transport)->size >= offsetof(VmfTransport, member) + sizeof((transport)->member) &&          \
     (transport)->member)

/*
 * A plugin is a shared object named vmferry-SCHEME.so that exports this one
 * function; it returns a static table, or NULL. The loader checks the ABI
 * version and that no mandatory member is missing.
 */
#define VMF_TRANSPORT_ENTRY "vmf_transport_entry"
typedef const VmfTransport *(*VmfTransportEntry)(void);

/*
 * Calls `discarded' for each vmf_ram_discarded() of the set, in its caller's thread: it must not
 * wait for a thread that may discard. A range lies inside its block. The watch holds a reference
 * to the set. Unwatch returns when no call is under way; NULL is allowed.
 */
typedef struct VmfRamWatch VmfRamWatch;
typedef void (*VmfRamDiscarded)(void *opaque, const VmfRamBlock *block, uint64_t offset,
                                uint64_t length);
VMF_API VmfRamWatch *vmf_ram_blocks_watch(VmfRamBlocks *blocks, VmfRamDiscarded discarded,
                                          void *opaque);
VMF_API void vmf_ram_blocks_unwatch(VmfRamWatch *watch);

/*
 * The transport of a scheme: built in, or loaded from VMFERRY_PLUGIN_PATH (a
 * colon-separated list), else the build tree's or the installed plugin
 * directory. VMF_ERROR_PLUGIN says what was looked for, and for a scheme known
 * to be packaged apart, which package to install. Thread safe; never unloaded.
 */
VMF_API const VmfTransport *vmf_transport_find(const char *scheme, GError **error);
/*
 * vmf_transport_find(), and whatever the transport loads itself for its first connection: called
 * when a program starts, no migration waits for that. With rdma: it takes some milliseconds. Thread
 * safe. False: there is no such transport.
 */
VMF_API bool vmf_transport_prepare(const char *scheme, GError **error);
/* Registers a transport from within the program (tests, VMMs with their own). Static table. */
VMF_API bool vmf_transport_register(const VmfTransport *transport, GError **error);
/* Every scheme that can be had: NULL-terminated, free with g_strfreev(). */
VMF_API char **vmf_transport_schemes(void);

G_END_DECLS

#endif
