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
 * A transport moves control messages both ways over one control connection. It moves RAM, device
 * state and sync messages from the source to the destination over N channels. The session engine
 * in libvmferry owns every thread, the payloads and the protocol; a transport only does I/O.
 *
 * The life of a connection. Calls in one column come in this order; (s) is the source's alone,
 * (d) the destination's, [] may be absent from the table.
 *
 *   the session's own thread          control thread              thread of channel c
 *   ------------------------          --------------              -------------------
 *   [prepare]
 *   listen, [listener_ram] (d)
 *   connect (s) | accept (d)
 *   default_channels (s)
 *   get_parameters, peer_parameters
 *     control_send, control_receive,
 *     control_wait: the handshake
 *   open_channels                     control_send,
 *   ram_setup                         control_receive,
 *   [device_memory] (d)               control_wait,               (s) send_ram, send_zero,
 *                                     control_message                 send_device, send_sync,
 *                                                                     kick, wait, [raw_write]
 *   revoke (d)                                                    (d) serve
 *   close                             (has ended)                 (has ended)
 *   listener_free (d)
 *
 * A connection with stock QEMU (VmfConn.foreign) has no handshake and no control thread. Its table
 * has no member from default_channels to peer_parameters, no control_ member and none for device
 * state. It must have send_stream and open_back.
 *
 * A call for channel c comes on the thread of channel c alone. Every call that may wait ends with
 * an error at once when conn->cancel is cancelled (poll its descriptor). It ends by itself when
 * conn->timeout_ms pass without progress. Errors are returned, not logged, and name the channel.
 */

/*
 * How this interface grows without breaking a plugin that is compiled already. Within one ABI
 * number, which the loader compares:
 *
 *   VmfTransport, VmfConnHost    begin with their size; new members are appended. A reader of a
 *                                member that is newer than the first version of the number asks
 *                                VMF_TRANSPORT_HAS or VMF_HOST_HAS, and does without the member.
 *   VmfConn, VmfDeviceHeader,    have a fixed size, because one side has them by value and the
 *   VmfOptionSpec,               other reads them. New members take the place of reserved ones,
 *   VmfChannelCounters           which are zero until then. Zero means that nobody set it.
 *   VmfRamBlock                  is allocated by the library alone; new members are appended.
 *
 * Anything else (an order, a type, a meaning) changes the number.
 */
#define VMF_TRANSPORT_ABI 2
#define VMF_CHANNELS_MAX 64
/*
 * The return path of a foreign connection is a channel with this number. The destination feeds the
 * channel and the source serves it. There is one only after open_back.
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

/* Header of a piece of device state. It is the engine's: transports carry it as it is. */
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

/* What the engine offers a connection. Any thread of the connection may call it. */
typedef struct VmfConnHost {
    uint32_t size; /* sizeof(VmfConnHost) as the library was compiled */
    uint32_t reserved;

    /* Destination: everything that was sent on the channel before its sync `number' is here. */
    bool (*sync_seen)(VmfConn *conn, unsigned channel, uint64_t number, GError **error);
    /*
     * Destination: a piece of a device buffer begins on this channel. Returns where its
     * header->size bytes belong, or NULL with *error set. Does not wait. The transport calls
     * device_done when all bytes are there.
     */
    void *(*device_begin)(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header,
                          GError **error);
    bool (*device_done)(VmfConn *conn, unsigned channel, GError **error);
    /* Source, on the channel's thread: the piece given to send_device is not read any more. */
    void (*device_sent)(VmfConn *conn, unsigned channel, void *piece);
    /*
     * Destination: zeroes this range of local RAM. Memory that is not resident does not become
     * resident. Checks the bounds of the range.
     */
    bool (*zero_range)(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                       GError **error);
    /*
     * Destination, foreign: whether local RAM at `offset' was surely never touched. The answer
     * holds until *until, at most `end'. Touches nothing. The caller has checked that the range
     * lies inside the block. The thread of the one channel calls it.
     */
    bool (*untouched)(VmfConn *conn, unsigned block, uint64_t offset, uint64_t end,
                      uint64_t *until);
    /*
     * The local memory of a range in the block that has this number on the wire. NULL with *error
     * (VMF_ERROR_PROTOCOL) if the range does not lie inside the block.
     */
    void *(*ram_range)(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                       GError **error);
    /* Queues a control message of the transport's own (type >= VMF_MESSAGE_PRIVATE). */
    void (*post_message)(VmfConn *conn, unsigned type, const void *data, size_t size);

    /* --- a foreign connection, on the thread of the channel that is served --- */

    /*
     * The next bytes of the stream have come. Waits for room. Sets *hook if they end in a hook
     * (VMF_QEMU_ITEM_HOOK): after a hook the messages are RAM's, and not the stream's.
     */
    bool (*stream_arrived)(VmfConn *conn, const uint8_t *data, size_t size, bool *hook,
                           GError **error);
    /* The peer has hung up in good order: no more stream will come. */
    void (*stream_ended)(VmfConn *conn);
    /* Destination: fills conn->blocks, in the order in which the stream has listed them. */
    bool (*stream_blocks)(VmfConn *conn, GError **error);

    /*
     * zero_range for memory that no device has registered. Memory that was made resident while the
     * destination waited is given back to the system.
     */
    bool (*release_range)(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                          GError **error);
} VmfConnHost;

/* Whether the library that made this table has a member, for those newer than ABI 2's first. */
#define VMF_HOST_HAS(host, member)                                                                 \
    ((host)->size >= offsetof(VmfConnHost, member) + sizeof((host)->member) && (host)->member)

#define VMF_MESSAGE_PRIVATE 0x100

/*
 * Counters that a transport keeps for one channel. The channel's thread writes them by relaxed
 * atomic stores, and any thread reads them.
 */
typedef struct VmfChannelCounters {
    uint64_t ram_written, writes, doorbells, inflight_bytes;
    uint64_t registrations, evictions, registered_bytes, registration_ns;
    uint64_t reserved[8]; /* also keeps channels on cache lines of their own */
} VmfChannelCounters;

/*
 * The part of a connection that engine and transport share. A transport embeds it, zeroed, as the
 * first member of its own structure. The transport fills `size', and `ops' if the connection has a
 * table of its own. The engine fills its part before the call that is named.
 */
struct VmfConn {
    uint32_t size;  /* sizeof(VmfConn) as the transport was compiled: it has room for that much */
    uint32_t flags; /* 0 */
    const struct VmfTransport *ops;
    VmfRole role;

    /*
     * Filled by connect or accept: the peer is stock QEMU, which speaks a protocol of its own.
     * There is no control connection and no handshake. One channel carries everything, in the
     * order of its payloads. `ops' may then be another table than the one that connected.
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
    /* Foreign, source, from the first hook on: bytes of each block that the stream says. */
    const uint64_t *block_lengths;

    /* Filled by the transport. */
    size_t control_max; /* bytes of the longest control message, from connect/accept on; >= 4096 */
    uint64_t stripe; /* by ram_setup: bytes of a block that stay on one channel; a power of two */
    uint64_t merge_gap; /* by ram_setup: the longest clean gap worth bridging, bytes; 0 = none */
    uint64_t range_max; /* by ram_setup: longest range for one send_ram; 0 = the stripe */
    uint64_t zero_min;  /* by ram_setup: shorter zero ranges are sent as data; UINT64_MAX: nobody
                           needs to look for zero ranges */
    uint64_t own_bytes; /* memory it has allocated */
    const char *registration;     /* by ram_setup: static string for VmfStats */
    uint64_t chunk_size;          /* by ram_setup */
    char *peer;                   /* "host:port" for messages; freed by close */
    VmfChannelCounters *counters; /* by open_channels: one a channel; freed by close */

    /*
     * Atomic. Set by the engine on the source after the last flush of RAM, when no device is being
     * sent. From then on it is no error that the peer takes the channels down.
     */
    int channels_done;
    /* Set by the engine before close: the migration was completed. */
    bool completed;
    /* Filled by the engine right after connect/accept: the set that `blocks' come from. */
    VmfRamBlocks *ram;

    uint64_t reserved[31];
};

typedef struct VmfTransportListener VmfTransportListener; /* the transport's own */

/*
 * The table of a transport. `size' and `abi_version' come first for ever. New members are added at
 * the end alone, and count as NULL in an older plugin. A member must be there unless it is in the
 * part "optional".
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
    /* The address of the URI with the bound port ("rdma:0.0.0.0:4444"). The caller frees it. */
    char *(*listener_address)(VmfTransportListener *listener);
    /*
     * Waits for the next control connection that has named a session. Meanwhile it drops
     * strangers, and clients that say nothing for the connect-timeout.
     */
    VmfConn *(*accept)(VmfTransportListener *listener, GCancellable *cancel, GError **error);
    void (*listener_free)(VmfTransportListener *listener);

    /* How many channels suit this connection when the user named no number. */
    unsigned (*default_channels)(VmfConn *conn);
    /*
     * Writes up to 64 bytes that the peer's transport should know, and returns how many. They
     * travel in HELLO (source) and HELLO_REPLY (destination). The source's arrive before the
     * destination makes its own.
     */
    size_t (*get_parameters)(VmfConn *conn, uint8_t buffer[64]);
    /* Takes the peer's bytes, and checks all of them. */
    bool (*peer_parameters)(VmfConn *conn, const uint8_t *buffer, size_t size, GError **error);

    /* Opens (source) or awaits (destination) conn->channels channels, in any order. */
    bool (*open_channels)(VmfConn *conn, GError **error);
    /*
     * Both sides: makes RAM ready. Registers memory, and exchanges addresses by private messages.
     * The control thread runs already.
     */
    bool (*ram_setup)(VmfConn *conn, GError **error);

    /* --- control; see the threads above --- */

    /* Sends one message, gathered from the pieces: whole or not at all. */
    VmfControlResult (*control_send)(VmfConn *conn, const struct iovec *iov, unsigned iovcnt,
                                     GError **error);
    /* The next whole message; valid until the next call. */
    VmfControlResult (*control_receive)(VmfConn *conn, const uint8_t **message, size_t *size,
                                        GError **error);
    /*
     * Sleeps until control_receive, or with want_send control_send, may make progress. Ends also
     * when wake_fd (-1: none) is readable, or after timeout_ms. Looks at the transport's own events
     * too (a lost connection, a removed device) and reports them as errors. Does not end on
     * conn->cancel.
     */
    bool (*control_wait)(VmfConn *conn, int wake_fd, bool want_send, int timeout_ms,
                         GError **error);
    /* A private message arrived. Must not block. `data' is valid during the call. */
    bool (*control_message)(VmfConn *conn, unsigned type, const uint8_t *data, size_t size,
                            GError **error);

    /* --- source, channel threads --- */

    /*
     * Queues a range for writing. Waits while the channel's share of max_inflight is used up. May
     * gather ranges until kick. All ranges of a stripe come on one channel, in the order in which
     * they were saved.
     */
    bool (*send_ram)(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                     uint64_t length, GError **error);
    /* Tells the destination that this range is zero. Ordered against send_ram of the same bytes. */
    bool (*send_zero)(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                      uint64_t length, GError **error);
    /*
     * Sends a piece of a device buffer. The transport may read `data' until it calls
     * host->device_sent with `piece', or until the channel's thread has ended. `header' is valid
     * during the call.
     */
    bool (*send_device)(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header,
                        const void *data, void *piece, GError **error);
    /*
     * Sends sync `number' after all that was queued before on this channel. With `drain' it
     * returns only when all RAM that was queued before has been written.
     */
    bool (*send_sync)(VmfConn *conn, unsigned channel, uint64_t number, bool drain, GError **error);
    /* Sends what send_ram has gathered. */
    bool (*kick)(VmfConn *conn, unsigned channel, GError **error);
    /*
     * The engine has nothing for the channel now. Makes progress with what is in flight, and
     * sleeps until wake_fd is readable (the engine drains it) or conn->cancel.
     */
    bool (*wait)(VmfConn *conn, unsigned channel, int wake_fd, GError **error);

    /* --- destination, channel threads --- */

    /* Serves the channel until conn->cancel, `revoke' or the peer's close (true), or an error. */
    bool (*serve)(VmfConn *conn, unsigned channel, GError **error);

    /* --- end --- */

    /*
     * Destination: after it returns no write can reach RAM any more, and every serve ends. It is
     * fast: slow unpinning is left to close.
     */
    bool (*revoke)(VmfConn *conn, GError **error);
    /* Frees the connection. No other call is under way. Bounded time whatever the peer does. */
    void (*close)(VmfConn *conn);

    /* --- optional --- */

    /*
     * For benchmarks, on a channel's thread of the source: writes `bytes' bytes in all, in messages
     * of message_size, from the channel's part of block 0 to the same place at the destination.
     * Waits for their completion. *seconds does not count the registration before. NULL: not
     * offered.
     */
    bool (*raw_write)(VmfConn *conn, unsigned channel, uint64_t message_size, uint64_t bytes,
                      double *seconds, GError **error);
    /*
     * Destination: the memory for pieces of device state that have a place. It is called before the
     * source may send any, and the memory stays until close has returned. The transport may let
     * the source write right into the memory. It calls device_begin all the same for each piece,
     * once its bytes are there. NULL: pieces are received some other way.
     */
    bool (*device_memory)(VmfConn *conn, void *memory, size_t bytes, GError **error);
    /*
     * Before accept: the RAM of the session that comes next, which the transport may make ready
     * ahead. After accept: `blocks' is NULL, and what the session did not take is given back.
     */
    void (*listener_ram)(VmfTransportListener *listener, VmfRamBlocks *blocks);
    /*
     * Foreign, a channel's thread of the side that feeds it: bytes of the stream. With `hook' they
     * end in a hook, and everything until the next bytes of the stream is RAM's. Without it the
     * bytes may wait for more bytes, a few milliseconds or until the next sync.
     */
    bool (*send_stream)(VmfConn *conn, unsigned channel, const uint8_t *data, size_t size,
                        bool hook, GError **error);
    /* Foreign, the session's own thread: makes the return path, or fails if there is none. */
    bool (*open_back)(VmfConn *conn, GError **error);
    /*
     * Loads what the first connection would load otherwise, such as the device drivers of
     * libibverbs. Any thread, at any time. Says nothing when it fails, because the first
     * connection says why. NULL: there is nothing to load.
     */
    void (*prepare)(void);
} VmfTransport;

/* Whether a transport's table, as long as its plugin made it, has an optional member set. */
#define VMF_TRANSPORT_HAS(transport, member)                                                       \
    ((transport)->size >= offsetof(VmfTransport, member) + sizeof((transport)->member) &&          \
     (transport)->member)

/*
 * A plugin is a shared object named vmferry-SCHEME.so that exports this one function. It returns a
 * static table, or NULL. The loader checks the ABI version, and that every member that must be
 * there is there.
 */
#define VMF_TRANSPORT_ENTRY "vmf_transport_entry"
typedef const VmfTransport *(*VmfTransportEntry)(void);

/*
 * Calls `discarded' for each vmf_ram_discarded() of the set, in the caller's thread. `discarded'
 * must not wait for a thread that may discard. A range lies inside its block. The watch holds a
 * reference to the set. vmf_ram_blocks_unwatch() returns when no call is under way, and allows
 * NULL. Any thread.
 */
typedef struct VmfRamWatch VmfRamWatch;
typedef void (*VmfRamDiscarded)(void *opaque, const VmfRamBlock *block, uint64_t offset,
                                uint64_t length);
VMF_API VmfRamWatch *vmf_ram_blocks_watch(VmfRamBlocks *blocks, VmfRamDiscarded discarded,
                                          void *opaque);
VMF_API void vmf_ram_blocks_unwatch(VmfRamWatch *watch);

/*
 * The transport of a scheme. It is built in, or registered, or loaded. VMFERRY_PLUGIN_PATH is a
 * list of folders with colons between; without it the installed plugin folder is looked at.
 * VMF_ERROR_PLUGIN says what was looked for, and which package has it. Any thread. A plugin is
 * never unloaded.
 */
VMF_API const VmfTransport *vmf_transport_find(const char *scheme, GError **error);
/*
 * vmf_transport_find(), and `prepare' of the transport. A program that calls it when it starts
 * lets no migration wait for that. With rdma: it takes some milliseconds. Any thread. false: there
 * is no such transport.
 */
VMF_API bool vmf_transport_prepare(const char *scheme, GError **error);
/* Registers a transport of the program's own. The table must stay as it is. Any thread. */
VMF_API bool vmf_transport_register(const VmfTransport *transport, GError **error);
/* Every scheme that can be used, NULL-terminated. Free it by g_strfreev(). Any thread. */
VMF_API char **vmf_transport_schemes(void);

G_END_DECLS

#endif
