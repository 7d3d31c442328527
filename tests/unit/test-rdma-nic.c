/* SPDX-License-Identifier: BSD-2-Clause */
/* test-rdma-nic.c -- one reader of a device's events, whose news everybody on the device gets */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "fake-verbs.h"
#include "verbs/nic.h"

/* --- a device whose events a test gives --- */

static struct {
    struct ibv_device device;
    struct ibv_context shared; /* rdma_cm's */
    struct ibv_context own[4]; /* each that was opened */
    unsigned opened, closed;
    GQueue events; /* enum ibv_event_type as pointers */
    int then;      /* errno when there is no event */

    /* rdma_cm's references to `shared', without which it may close it. */
    struct rdma_cm_id id, holder;
    struct ibv_context *bound_to; /* what a new id at the address of `id' comes to */
    struct ibv_context *listed[2];
    unsigned held;
    bool was_held_when_let_go;
} fake;

/* What a session would read of rdma_cm's descriptor: /dev/null ends at once, /dev/zero never. */
static bool was_let_go(int fd)
{
    char byte;

    return read(fd, &byte, 1) == 0;
}

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    struct ibv_context *own = &fake.own[fake.opened++];

    own->device = device;
    own->async_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return own;
}

int ibv_close_device(struct ibv_context *own)
{
    close(own->async_fd);
    fake.closed++;
    return 0;
}

int ibv_get_async_event(struct ibv_context *verbs, struct ibv_async_event *event)
{
    assert_ptr_not_equal(verbs, &fake.shared); /* its events are for others, too */
    assert_true(fcntl(verbs->async_fd, F_GETFL) & O_NONBLOCK);
    if (g_queue_is_empty(&fake.events)) {
        errno = fake.then;
        return -1;
    }
    *event = (struct ibv_async_event){
        .event_type = (enum ibv_event_type)GPOINTER_TO_INT(g_queue_pop_head(&fake.events))};
    return 0;
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
    (void)event;
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **id, void *opaque,
                   enum rdma_port_space space)
{
    (void)channel;
    (void)opaque;
    (void)space;
    fake.holder = (struct rdma_cm_id){0};
    *id = &fake.holder;
    return 0;
}

int rdma_bind_addr(struct rdma_cm_id *id, struct sockaddr *address)
{
    assert_int_equal(address->sa_family, AF_INET);
    assert_int_equal(((struct sockaddr_in *)address)->sin_port, 0);
    id->verbs = fake.bound_to;
    fake.held += id->verbs == &fake.shared;
    return 0;
}

static void release(void)
{
    assert_true(fake.held > 0);
    fake.held--;
    fake.was_held_when_let_go |= was_let_go(fake.shared.cmd_fd);
}

int rdma_destroy_id(struct rdma_cm_id *id)
{
    if (id->verbs == &fake.shared) {
        release();
    }
    return 0;
}

struct ibv_context **rdma_get_devices(int *count)
{
    fake.held += fake.listed[0] == &fake.shared;
    if (count) {
        *count = fake.listed[0] ? 1 : 0;
    }
    return fake.listed;
}

void rdma_free_devices(struct ibv_context **list)
{
    if (list[0] == &fake.shared) {
        release();
    }
}

static int set_up(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof(fake));
    strcpy(fake.device.name, "nic0");
    strcpy(fake.device.dev_name, "uverbs0");
    strcpy(fake.device.dev_path, "/proc/self"); /* it is there */
    fake.shared.device = &fake.device;
    fake.shared.cmd_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    fake.shared.async_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    fake.then = EAGAIN;
    fake.id.verbs = &fake.shared;
    fake.id.route.addr.src_sin = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = 4444};
    fake.bound_to = &fake.shared;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(fake.opened, fake.closed);
    assert_int_equal(fake.held, 0);
    close(fake.shared.cmd_fd);
    close(fake.shared.async_fd);
    g_queue_clear(&fake.events);
    return 0;
}

static void happens(enum ibv_event_type type)
{
    g_queue_push_tail(&fake.events, GINT_TO_POINTER((int)type));
}

/* The device is looked at only every so often. */
static void let_time_pass(void)
{
    g_usleep((NIC_CHECK_MS + 50) * G_TIME_SPAN_MILLISECOND);
}

static Nic *watch(void)
{
    Nic *nic = nic_watch(&fake.id, NULL);

    assert_non_null(nic);
    return nic;
}

static void assert_lost(Nic *nic, const char *how)
{
    g_autoptr(GError) error = NULL;

    assert_false(nic_check(nic, &error));
    assert_int_equal(error->code, VMF_ERROR_DEVICE);
    assert_non_null(strstr(error->message, how));
}

/* --- tests --- */

static void events__that_end_nothing(void **state)
{
    Nic *nic = watch();

    (void)state;
    assert_true(nic_check(nic, NULL));
    happens(IBV_EVENT_GID_CHANGE);
    happens(IBV_EVENT_PORT_ERR);
    happens(IBV_EVENT_PORT_ACTIVE);
    let_time_pass();
    assert_true(nic_check(nic, NULL));
    assert_true(g_queue_is_empty(&fake.events));
    nic_unwatch(nic);
    assert_false(was_let_go(fake.shared.cmd_fd));
}

static void fatal_event__ends_every_session_on_the_device(void **state)
{
    Nic *first = watch(), *second = watch();
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_int_equal(fake.opened, 1);
    assert_true(nic_check(first, NULL));
    happens(IBV_EVENT_DEVICE_FATAL);
    let_time_pass();
    assert_lost(second, "nic0 failed (device fatal event)");
    assert_lost(first, "nic0 failed (device fatal event)"); /* the event is gone, the news is not */
    /* Nobody begins anew on it before all have left. */
    assert_null(nic_watch(&fake.id, &error));
    assert_non_null(strstr(error->message, "fatal"));
    nic_unwatch(first);
    assert_lost(second, "fatal");
    nic_unwatch(second);
    assert_false(was_let_go(fake.shared.cmd_fd)); /* a device that failed can recover */
    first = watch();
    assert_true(nic_check(first, NULL));
    nic_unwatch(first);
}

static void removal__that_the_driver_tells(void **state)
{
    Nic *first = watch(), *second = watch();

    (void)state;
    fake.then = EIO;
    assert_lost(first, "nic0 was removed");
    assert_lost(second, "nic0 was removed");
    nic_unwatch(first);
    assert_false(was_let_go(fake.shared.cmd_fd));
    nic_unwatch(second);
    assert_true(was_let_go(fake.shared.cmd_fd));
    assert_true(was_let_go(fake.shared.async_fd));
}

static void removal__that_only_sysfs_shows(void **state)
{
    Nic *nic = watch();

    (void)state;
    assert_true(nic_check(nic, NULL));
    strcpy(fake.device.dev_path, "/proc/there-is-none");
    let_time_pass();
    assert_lost(nic, "nic0 was removed");
    nic_unwatch(nic);
    assert_true(was_let_go(fake.shared.cmd_fd));
}

/* Regions and protection domains on it are no references: without one rdma_cm may close it. */
static void context__is_held_while_anybody_watches(void **state)
{
    Nic *first = watch(), *second = watch();

    (void)state;
    assert_int_equal(fake.held, 1);
    nic_unwatch(first);
    assert_int_equal(fake.held, 1);
    fake.then = EIO;
    assert_lost(second, "nic0 was removed");
    nic_unwatch(second);
    assert_true(fake.was_held_when_let_go);
}

static void context__is_held_when_its_address_leads_to_another_device(void **state)
{
    Nic *nic;

    (void)state;
    fake.bound_to = &fake.own[3];
    fake.listed[0] = &fake.shared;
    nic = watch();
    assert_int_equal(fake.held, 1);
    nic_unwatch(nic);
}

static void context__that_cannot_be_held_is_removed(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    fake.bound_to = &fake.own[3];
    fake.listed[0] = &fake.own[2];
    assert_null(nic_watch(&fake.id, &error));
    assert_non_null(strstr(error->message, "nic0 was removed"));
}

static void only_device__is_held(void **state)
{
    Nic *nic;

    (void)state;
    assert_null(nic_watch_only_device());
    fake.listed[0] = &fake.shared;
    nic = nic_watch_only_device();
    assert_ptr_equal(nic_verbs(nic), &fake.shared);
    assert_int_equal(fake.held, 1);
    assert_ptr_equal(nic_watch_only_device(), nic);
    nic_unwatch(nic);
    assert_int_equal(fake.held, 1);
    nic_unwatch(nic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(events__that_end_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(fatal_event__ends_every_session_on_the_device, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(removal__that_the_driver_tells, set_up, tear_down),
        cmocka_unit_test_setup_teardown(removal__that_only_sysfs_shows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(context__is_held_while_anybody_watches, set_up, tear_down),
        cmocka_unit_test_setup_teardown(context__is_held_when_its_address_leads_to_another_device,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(context__that_cannot_be_held_is_removed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_device__is_held, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
