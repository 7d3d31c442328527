/* SPDX-License-Identifier: BSD-2-Clause */
/* false-memory.c -- protection domains and memory registrations of a false RDMA device */

#include "false-objects.h"

#include <errno.h>

struct ibv_pd *false_alloc_pd(struct ibv_context *context)
{
    FalsePd *pd = g_new0(FalsePd, 1);

    pd->pd.context = context;
    return &pd->pd;
}

int false_dealloc_pd(struct ibv_pd *pd)
{
    FalseDevice *device = device_of(pd->context);
    unsigned users;

    g_mutex_lock(&device->lock);
    users = pd_of(pd)->users;
    g_mutex_unlock(&device->lock);
    if (users) {
        return EBUSY;
    }
    g_free(pd);
    return 0;
}

/* As the kernel checks them. The device has no on-demand paging. */
static int check_access(const void *address, size_t length, unsigned access)
{
    const unsigned remote_change = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;

    if (access & IBV_ACCESS_ON_DEMAND) {
        return EOPNOTSUPP;
    }
    if ((access & remote_change && !(access & IBV_ACCESS_LOCAL_WRITE)) || !length ||
        (uintptr_t)address + length < length) {
        return EINVAL;
    }
    return 0;
}

static void add_region(FalseDevice *device, FalseRegion *region)
{
    g_mutex_lock(&device->lock);
    do {
        region->mr.lkey = ++device->last_key;
    } while (!region->mr.lkey ||
             g_hash_table_contains(device->regions, GUINT_TO_POINTER(region->mr.lkey)));
    region->mr.rkey = region->mr.lkey;
    region->mr.handle = region->mr.lkey;
    g_hash_table_insert(device->regions, GUINT_TO_POINTER(region->mr.lkey), region);
    pd_of(region->mr.pd)->users++;
    g_mutex_unlock(&device->lock);
}

static void remove_region(FalseDevice *device, FalseRegion *region)
{
    g_mutex_lock(&device->lock);
    g_hash_table_remove(device->regions, GUINT_TO_POINTER(region->mr.lkey));
    pd_of(region->mr.pd)->users--;
    g_mutex_unlock(&device->lock);
    g_free(region);
}

struct ibv_mr *false_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t length, uint64_t iova,
                                  unsigned access)
{
    FalseDevice *device = device_of(pd->context);
    int error = check_access(address, length, access);
    FalseRegion *region;

    if (error) {
        errno = error;
        return NULL;
    }
    region = g_new0(FalseRegion, 1);
    region->mr =
        (struct ibv_mr){.context = pd->context, .pd = pd, .addr = address, .length = length};
    region->iova = iova;
    region->access = access;
    add_region(device, region);
    if (device->ops.mr_registered) {
        error = device->ops.mr_registered(device->opaque, &region->mr, access);
    }
    if (error) {
        remove_region(device, region);
        errno = error;
        return NULL;
    }
    return &region->mr;
}

struct ibv_mr *false_reg_mr(struct ibv_pd *pd, void *address, size_t length, int access)
{
    return false_reg_mr_iova2(pd, address, length, (uintptr_t)address, (unsigned)access);
}

int false_dereg_mr(struct ibv_mr *mr)
{
    FalseDevice *device = device_of(mr->context);

    if (device->ops.mr_deregistered) {
        device->ops.mr_deregistered(device->opaque, mr);
    }
    remove_region(device, (FalseRegion *)mr);
    return 0;
}

void *region_memory_locked(FalseQp *qp, uint32_t key, uint64_t address, uint64_t length,
                           unsigned access)
{
    FalseRegion *region =
        g_hash_table_lookup(device_of(qp->qp.context)->regions, GUINT_TO_POINTER(key));

    if (!region || region->mr.pd != qp->qp.pd || (region->access & access) != access ||
        address < region->iova || length > region->mr.length ||
        address - region->iova > region->mr.length - length) {
        return NULL;
    }
    return (uint8_t *)region->mr.addr + (address - region->iova);
}

void *false_qp_local_memory(struct ibv_qp *qp, const struct ibv_sge *sge)
{
    FalseDevice *device = device_of(qp->context);
    void *memory;

    g_mutex_lock(&device->lock);
    memory = region_memory_locked(qp_of(qp), sge->lkey, sge->addr, sge->length, 0);
    g_mutex_unlock(&device->lock);
    return memory;
}

void *false_qp_remote_memory(struct ibv_qp *qp, uint32_t rkey, uint64_t address, size_t length,
                             unsigned access)
{
    FalseDevice *device = device_of(qp->context);
    void *memory;

    g_mutex_lock(&device->lock);
    memory = region_memory_locked(qp_of(qp), rkey, address, length, access);
    g_mutex_unlock(&device->lock);
    return memory;
}
