/* SPDX-License-Identifier: BSD-2-Clause */
/* nic.c -- the events of an RDMA device, its removal, and explanations */

#include "nic.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>
#include <vmferry/error.h>

#include "verbs-error.h"

/*
 * rdma_cm opens each device once in a process. All users of rdma_cm in the process share its
 * context. An event that one of them reads is gone for the others. So events are read from a second
 * context, which is opened only for them. It brings no old events, and takes no events from others.
 *
 * rdma_cm closes its context of a removed device when no id and no list has a reference to it. A
 * call of another thread may do that: see sync_devices_list() and ucma_put_device() in
 * librdmacm/cma.c. Protection domains and regions on the context are no references. So a Nic holds
 * a reference.
 */
struct Nic {
    struct ibv_context *verbs; /* rdma_cm's context */
    struct rdma_cm_id *holder; /* holder or list is the reference */
    struct ibv_context **list;
    struct ibv_context *own; /* for events */
    unsigned users;
    bool in_sysfs; /* the device was in sysfs, so that its removal shows there */
    gint64 looked_at;
    char *lost; /* why the device cannot be used any more; or NULL */
    bool removed;
};

/* One Nic for each context of rdma_cm that is in use. The list belongs to the process. */
static GMutex nics_lock;
static GSList *nics;

/* --- what the kernel says --- */

/*
 * Whether the device is gone from sysfs. Without sysfs, as in some containers, no device counts as
 * gone.
 */
static bool gone_from_sysfs(const struct ibv_device *device)
{
    g_autofree char *class = g_path_get_dirname(device->dev_path);

    return access(class, F_OK) == 0 && access(device->dev_path, F_OK) < 0 && errno == ENOENT;
}

static void lose(Nic *nic, bool removed, const char *how)
{
    nic->removed |= removed;
    if (!nic->lost) {
        nic->lost = g_strdup_printf("the RDMA device %s %s", nic->verbs->device->name, how);
    }
}

static void take_events(Nic *nic)
{
    struct ibv_async_event event;

    while (ibv_get_async_event(nic->own, &event) == 0) {
        enum ibv_event_type type = event.event_type;

        ibv_ack_async_event(&event);
        if (type == IBV_EVENT_DEVICE_FATAL) {
            lose(nic, false, "failed (device fatal event)");
        }
    }
    if (errno == EIO) { /* a driver that can take a device from its users gives them this error */
        lose(nic, true, "was removed");
    }
}

/*
 * Checks whether the device failed or was removed. Some drivers, as that of soft-RoCE, cannot take
 * a device from its users. The removal then waits until the users have closed the device, and tells
 * them nothing. Everything works as before. But the kernel has taken the device out of sysfs by
 * then.
 */
static void look(Nic *nic)
{
    const gint64 now = g_get_monotonic_time();

    if (nic->looked_at && now - nic->looked_at < NIC_CHECK_MS * G_TIME_SPAN_MILLISECOND) {
        return;
    }
    nic->looked_at = now;
    if (nic->in_sysfs && gone_from_sysfs(nic->verbs->device)) {
        lose(nic, true, "was removed");
    }
    take_events(nic);
}

/* --- watching --- */

static Nic *find(const struct ibv_context *verbs)
{
    for (GSList *at = nics; at; at = at->next) {
        Nic *nic = at->data;

        if (nic->verbs == verbs) {
            return nic;
        }
    }
    return NULL;
}

static struct ibv_context *open_for_events(struct ibv_device *device, GError **error)
{
    struct ibv_context *own = VERBS_POINTER("ibv_open_device", ibv_open_device(device));
    int flags;

    if (!own) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot open the RDMA device %s (%s)",
                        device->name, device->dev_name);
        return NULL;
    }
    flags = fcntl(own->async_fd, F_GETFL);
    if (flags < 0 || fcntl(own->async_fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "cannot read the events of %s", device->name);
        ibv_close_device(own);
        return NULL;
    }
    return own;
}

static Nic *nic_new(struct ibv_context *verbs, GError **error)
{
    struct ibv_context *own = open_for_events(verbs->device, error);
    Nic *nic;

    if (!own) {
        return NULL;
    }
    nic = g_new0(Nic, 1);
    nic->verbs = verbs;
    nic->own = own;
    nic->users = 1;
    nic->in_sysfs = !gone_from_sysfs(verbs->device);
    nics = g_slist_prepend(nics, nic);
    return nic;
}

/*
 * Closes the kernel's end of a removed device. After the last reference is gone, rdma_cm keeps its
 * context open until it looks at the list of devices again. That may be never, and the removal of
 * the device waits for it. Nobody can close the context under rdma_cm. But /dev/null can take the
 * place of its descriptors, which closes the kernel's end. rdma_cm does not use the device again,
 * because the device is in no list.
 */
static void let_go(const struct ibv_context *verbs)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null >= 0) {
        (void)dup3(null, verbs->cmd_fd, O_CLOEXEC);
        (void)dup3(null, verbs->async_fd, O_CLOEXEC);
        close(null);
    }
}

static void nic_free(Nic *nic)
{
    nics = g_slist_remove(nics, nic);
    ibv_close_device(nic->own);
    if (nic->removed) {
        let_go(nic->verbs);
    }
    if (nic->holder) {
        rdma_destroy_id(nic->holder);
    }
    if (nic->list) {
        rdma_free_devices(nic->list);
    }
    g_free(nic->lost);
    g_free(nic);
}

/*
 * Holds the context by an id of its own, at the address of `id' and any port. The id is in another
 * port space than listeners. So it never takes a port that a listener wants.
 */
static bool hold_by_id(Nic *nic, struct rdma_cm_id *id)
{
    struct sockaddr_storage address = {0};
    const struct sockaddr *local = rdma_get_local_addr(id);

    if (local->sa_family == AF_INET6) {
        memcpy(&address, local, sizeof(struct sockaddr_in6));
        ((struct sockaddr_in6 *)&address)->sin6_port = 0;
    } else {
        memcpy(&address, local, sizeof(struct sockaddr_in));
        ((struct sockaddr_in *)&address)->sin_port = 0;
    }
    if (CM_INT("rdma_create_id", rdma_create_id(NULL, &nic->holder, NULL, RDMA_PS_UDP)) < 0) {
        nic->holder = NULL;
        return false;
    }
    if (CM_INT("rdma_bind_addr", rdma_bind_addr(nic->holder, (struct sockaddr *)&address)) < 0 ||
        nic->holder->verbs != nic->verbs) { /* two devices can have one address */
        rdma_destroy_id(g_steal_pointer(&nic->holder));
        return false;
    }
    return true;
}

/* Holds the context by a list of all devices, which keeps the other devices open, too. */
static bool hold_by_list(Nic *nic)
{
    nic->list = VERBS_POINTER("rdma_get_devices", rdma_get_devices(NULL));
    for (unsigned i = 0; nic->list && nic->list[i]; i++) {
        if (nic->list[i] == nic->verbs) {
            return true;
        }
    }
    return false;
}

/*
 * The error when both ways to hold the context failed. `err' is that of the list, which is tried
 * last.
 */
static void cannot_hold(const Nic *nic, int err, GError **error)
{
    const struct ibv_device *device = nic->verbs->device;

    if (nic->list || gone_from_sysfs(device)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE, "the RDMA device %s was removed",
                    device->name);
    } else {
        verbs_set_error(error, VMF_ERROR_DEVICE, err,
                        "cannot list the RDMA devices, to keep %s open", device->name);
    }
}

/*
 * Joins a Nic that exists. False if there is none (*nic is NULL), or if it is lost (with *error).
 */
static bool join_locked(const struct ibv_context *verbs, Nic **nic, GError **error)
{
    *nic = find(verbs);
    if (*nic && (*nic)->lost) {
        g_set_error_literal(error, VMF_ERROR, VMF_ERROR_DEVICE, (*nic)->lost);
        return false;
    }
    if (*nic) {
        (*nic)->users++;
    }
    return *nic != NULL;
}

Nic *nic_watch(struct rdma_cm_id *id, GError **error)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&nics_lock);
    Nic *nic;

    (void)locker;
    if (join_locked(id->verbs, &nic, error)) {
        return nic;
    }
    if (nic) { /* it is lost */
        return NULL;
    }
    nic = nic_new(id->verbs, error);
    if (nic && !hold_by_id(nic, id) && !hold_by_list(nic)) {
        cannot_hold(nic, errno, error);
        g_clear_pointer(&nic, nic_free);
    }
    return nic;
}

Nic *nic_watch_only_device(void)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&nics_lock);
    int count = 0;
    struct ibv_context **list = rdma_get_devices(&count);
    Nic *nic = NULL;

    (void)locker;
    if (count == 1 && !join_locked(list[0], &nic, NULL)) {
        nic = nic ? NULL : nic_new(list[0], NULL);
        if (nic) {
            nic->list = g_steal_pointer(&list);
        }
    }
    if (list) {
        rdma_free_devices(list);
    }
    return nic;
}

struct ibv_context *nic_verbs(const Nic *nic)
{
    return nic->verbs;
}

void nic_unwatch(Nic *nic)
{
    if (!nic) {
        return;
    }
    g_mutex_lock(&nics_lock);
    if (--nic->users == 0) {
        /* The device may have been removed after anybody looked last. */
        nic->removed |= nic->in_sysfs && gone_from_sysfs(nic->verbs->device);
        nic_free(nic);
    }
    g_mutex_unlock(&nics_lock);
}

bool nic_check(Nic *nic, GError **error)
{
    bool lost;

    g_mutex_lock(&nics_lock);
    look(nic);
    lost = nic->lost != NULL;
    if (lost) {
        g_set_error_literal(error, VMF_ERROR, VMF_ERROR_DEVICE, nic->lost);
    }
    g_mutex_unlock(&nics_lock);
    return !lost;
}

/* --- explaining --- */

bool nic_same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (!a || a->sa_family != b->sa_family) {
        return false;
    }
    return a->sa_family == AF_INET6
               ? memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
                        &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr)) == 0
               : memcmp(&((const struct sockaddr_in *)a)->sin_addr,
                        &((const struct sockaddr_in *)b)->sin_addr, sizeof(struct in_addr)) == 0;
}

/* Whether this host is known not to have the address. */
static bool address_gone(const struct sockaddr *address)
{
    struct ifaddrs *list;
    bool found = false;

    if ((address->sa_family != AF_INET && address->sa_family != AF_INET6) || getifaddrs(&list)) {
        return false;
    }
    for (struct ifaddrs *at = list; at && !found; at = at->ifa_next) {
        found = nic_same_address(at->ifa_addr, address);
    }
    freeifaddrs(list);
    return !found;
}

static char *address_text(const struct sockaddr *address)
{
    char host[NI_MAXHOST];
    socklen_t size =
        address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);

    return g_strdup(getnameinfo(address, size, host, sizeof(host), NULL, 0, NI_NUMERICHOST) ? "?"
                                                                                            : host);
}

static char *trouble_of(struct rdma_cm_id *id)
{
    const struct ibv_device *device = id->verbs->device;
    const struct sockaddr *address = rdma_get_local_addr(id);
    struct ibv_port_attr port;

    if (gone_from_sysfs(device)) {
        return g_strdup_printf("the RDMA device %s was removed", device->name);
    }
    if (address_gone(address)) {
        g_autofree char *text = address_text(address);

        return g_strdup_printf("this side's address %s is gone: it was removed from its interface",
                               text);
    }
    if (ibv_query_port(id->verbs, id->port_num, &port) == 0 && port.state != IBV_PORT_ACTIVE) {
        return g_strdup_printf("port %u of the RDMA device %s is not active (%s)", id->port_num,
                               device->name, ibv_port_state_str(port.state));
    }
    return NULL;
}

void nic_explain(struct rdma_cm_id *id, GError **error)
{
    g_autofree char *trouble =
        error && *error && id->verbs && id->verbs->device ? trouble_of(id) : NULL;
    char *message;

    if (trouble) {
        message = g_strdup_printf("%s: %s", (*error)->message, trouble);
        g_free((*error)->message);
        (*error)->message = message;
        (*error)->domain = VMF_ERROR;
        (*error)->code = VMF_ERROR_DEVICE;
    }
}
