# SPDX-License-Identifier: BSD-2-Clause
"""moments -- migrations that are caught at a moment, to be disturbed there"""
import time

from checks import Failure

MODES = {"rdma_pin_all": False, "return_path": False, "pause_before_switchover": False}


def await_ready_ram(target):
    """Waits until a destination has made all of its guest's RAM resident. Returns its memory."""
    deadline = time.monotonic() + 30
    before, resident = 0, target.resident_bytes()
    while resident < target.memory << 20 or resident > before + (1 << 20):
        if time.monotonic() > deadline:
            raise Failure(f"{resident >> 20} MiB are resident at the waiting destination, {before >> 20} just before")
        time.sleep(0.3)
        before, resident = resident, target.resident_bytes()
    return resident


def must_have_given_back(target, before, source):
    """The destination has given back all memory that the guest does not have on the source."""
    now, there = target.resident_bytes(), source.resident_bytes()
    # Registration makes whole chunks resident, and QEMU's own memory differs.
    if now > there + (48 << 20) or now > before - (16 << 20):
        raise Failure(f"{now >> 20} MiB are resident at the destination, {before >> 20} when it waited, "
                      f"{there >> 20} at the source")


def must_have_arrived(target, pages):
    """The VM is there, stopped, with this memory: hashes as of Vm.ram()."""
    # Without a return path the source is told "completed" before the destination has the VM.
    target.await_status("paused", "prelaunch")
    theirs = target.ram()
    different = [number for number, (page, other) in enumerate(zip(pages, theirs)) if page != other]
    if different or len(pages) != len(theirs):
        raise Failure(f"{len(different)} pages differ, the first: {different[:10]}; "
                      f"there are {len(pages)} and {len(theirs)}")


def ended(info):
    return info.get("status") in ("completed", "failed", "cancelled")


def await_moment(vm, condition, timeout=60):
    """Waits for a moment of the migration; False if it ended before."""
    deadline = time.monotonic() + timeout
    while True:
        info = vm.qmp("query-migrate")
        if ended(info):
            return False
        if condition(info):
            return True
        if time.monotonic() > deadline:
            raise Failure(f"the moment does not come: {info}\n{vm.output()}")
        time.sleep(0.02)


def slow_start(vm, uri, bandwidth, **capabilities):
    """Begins a migration that takes long."""
    vm.capability(**{**MODES, **capabilities})
    vm.qmp("migrate-set-parameters", max_bandwidth=bandwidth)
    vm.migrate(uri)


def fast_again(vm):
    vm.qmp("migrate-set-parameters", max_bandwidth=0, downtime_limit=300)


def later_round(vm, uri, **capabilities):
    """A later round, slowed so that it lasts longer than a query."""
    vm.qmp("migrate-set-parameters", downtime_limit=1)
    slow_start(vm, uri, 25 << 20, **capabilities)
    # The end of the first round is mostly zero, and fast.
    if not await_moment(vm, lambda info: info["status"] == "active"
                        and (0 < info["ram"]["remaining"] < 110 << 20 or info["ram"]["dirty-sync-count"] >= 2)):
        return False
    vm.qmp("migrate-set-parameters", max_bandwidth=6 << 20)
    if not await_moment(vm, lambda info: info["status"] == "active" and info["ram"]["dirty-sync-count"] >= 2
                        and info["ram"]["remaining"] > 2 << 20):
        return False
    vm.qmp("migrate-set-parameters", max_bandwidth=1 << 20)
    info = vm.qmp("query-migrate")
    return info["status"] == "active" and info["ram"]["remaining"] > 1 << 20


def reach(vm, moment, uri, **capabilities):
    """Begins a migration and returns at a moment of it; False if it was missed."""
    if moment == "stopped":
        slow_start(vm, uri, 0, **{"pause_before_switchover": True, **capabilities})
        return await_moment(vm, lambda info: info["status"] == "pre-switchover")
    if moment == "first round":
        slow_start(vm, uri, 15 << 20, **capabilities)
        return await_moment(vm, lambda info: info["status"] == "active"
                            and info["ram"]["transferred"] > 10 << 20)
    return later_round(vm, uri, **capabilities)


def reach_with_retries(vm_of, moment, start_destination, taken_over_by, options="", **capabilities):
    """As reach(). A guest that changes too little just then has moved, and moves again.

    vm_of() is the guest's QEMU now, start_destination() gives one that listens and its URI, and
    taken_over_by() is told that it has the guest.
    """
    for _ in range(5):
        target, uri = start_destination()
        if reach(vm_of(), moment, uri + options, **capabilities):
            return target
        fast_again(vm_of())
        info = vm_of().await_migration()
        if info["status"] != "completed":
            raise Failure(f"{info}\n{vm_of().output()}")
        taken_over_by(target)
    raise Failure("the guest changes too little for a later round")


def go_on(vm, moment):
    """Lets a migration go on that was held before the switchover."""
    if moment == "stopped":
        vm.qmp("migrate-continue", state="pre-switchover")


def run_on_if_unknown(vm):
    """A destination that is killed after the last byte may have had everything: nobody runs the VM until told."""
    info = vm.await_migration(60)
    if "outcome unknown" in info.get("error-desc", ""):
        if vm.qmp("query-status")["running"]:
            raise Failure(f"the guest runs here, and may run there:\n{vm.output()}")
        vm.qmp("cont")


def must_have_failed(vm, timeout=60):
    """The migration fails soon, says why, and the guest runs on."""
    info = vm.await_migration(timeout)
    fast_again(vm)
    if info["status"] != "failed" or "vmferry" not in info.get("error-desc", ""):
        raise Failure(f"{info}\n{vm.output()}")
    vm.must_tick()
    vm.sums_stay_right()
