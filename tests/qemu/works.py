#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""works -- live migration of real guests within one lab host by QEMU 10.0 with the preloaded library:
works.py GUEST BUILD ROOT (see preload_vms.py)
"""
import os
import time

from checks import Failure, check, finish, wanted
from moments import (MODES, await_moment, await_ready_ram, fast_again, must_have_arrived, must_have_given_back,
                     slow_start)
from preload_vms import MEMORY, Moving, boot, incoming, move, must_quit, next_uri

VERSION = "10.0"
ADDRESS6 = os.environ.get("LAB_ADDR6", "::1")
guest = Moving(VERSION)


def run(name, function, *arguments, **named):
    """Runs a check with a running guest, whatever the check before has left."""
    def with_guest():
        guest.here()
        function(*arguments, **named)

    if wanted(name):
        check(name, with_guest)


def destination(uri, arguments=(), **capabilities):
    return incoming(VERSION, uri, modes={**MODES, **capabilities}, arguments=arguments)


def goes_on(options, **capabilities):
    guest.move(options=options, **capabilities)


def with_channels(channels, options, general=""):
    """A migration that has begun has a thread for each channel."""
    if general:
        guest.move(named={"options": general})
    target = destination(uri := next_uri())
    slow_start(guest.vm, uri + options, 4 << 20)
    if not await_moment(guest.vm, lambda info: info["status"] == "active" and info["ram"]["transferred"] > 1 << 20):
        raise Failure(f"the migration was over too soon for this check:\n{guest.vm.output()}")
    names = [name for name in guest.vm.threads() if name.startswith("vmf-channel")]
    fast_again(guest.vm)
    guest.taken_over_by(target)
    if len(names) != channels:
        raise Failure(f"{channels} channels were asked for: {names}")


def backed_by(backend):
    """QEMU's arguments for guest RAM of that kind."""
    return ["-object", f"{backend},id=pc.ram,size={MEMORY}M", "-machine", "memory-backend=pc.ram"] if backend else []


def same_memory(options, backend=None, given_back=False, **capabilities):
    """A running guest moves to a destination that does not start it. Its pages are compared."""
    target = destination(uri := next_uri(), ["-S", *backed_by(backend)], **capabilities)
    before = await_ready_ram(target) if given_back else 0
    guest.vm.capability(**{**MODES, **capabilities})
    guest.vm.must_migrate(uri + options)
    must_have_arrived(target, guest.vm.ram())
    if given_back:
        must_have_given_back(target, before, guest.vm)
    must_quit(guest.vm, guest.vm.told)
    target.qmp("cont")
    guest.taken_over_by(target)


def balloon_grows(vm, arguments):
    """The guest gives memory back while it is migrated. Its other memory arrives as it is."""
    uri = next_uri()
    target = incoming(VERSION, uri, modes=MODES, memory=vm.memory, arguments=arguments)
    slow_start(vm, uri, 3 << 20)
    if not await_moment(vm, lambda info: info["status"] == "active" and info["ram"]["transferred"] > 1 << 20):
        raise Failure(f"the migration was over too soon for this test\n{vm.output()}")
    before, most = vm.resident_bytes(), vm.memory - 40 << 20
    vm.qmp("balloon", value=most)
    deadline = time.monotonic() + 60
    while vm.qmp("query-balloon")["actual"] > most + (4 << 20):
        if time.monotonic() > deadline:
            raise Failure(f"the balloon is not blown up: {vm.qmp('query-balloon')}")
        time.sleep(0.2)
    if vm.qmp("query-migrate")["status"] != "active":
        raise Failure("the migration was over too soon for this test")
    if vm.resident_bytes() > before:
        raise Failure(f"nothing was given back: {before >> 20} MiB, then {vm.resident_bytes() >> 20}")
    fast_again(vm)
    if vm.await_migration()["status"] != "completed":
        raise Failure(vm.output())
    target.await_status("running")
    target.qmp("balloon", value=vm.memory << 20)
    vm.end()
    return target


def with_devices(memory):
    """An odd memory size, a disk, a network card, a balloon, a device with a megabyte of state."""
    disk = "/tmp/disk.img"
    with open(disk, "wb") as file:
        file.truncate(8 << 20)
    arguments = ["-drive", f"file={disk},format=raw,if=virtio", "-device", "virtio-net-pci", "-device",
                 "virtio-balloon-pci", "-audiodev", "none,id=sound", "-device", "gus,audiodev=sound"]
    vm = boot(VERSION, append="noise=30 churn=4 used=40", memory=memory, arguments=arguments)
    try:
        vm.await_console("^disk OK")
        vm = balloon_grows(vm, arguments)
        vm.must_tick()
        vm.sums_stay_right()
        for options in ("", ",channels=4"):
            vm = move(vm, VERSION, options=options, named={"memory": memory, "arguments": arguments})
            vm.await_console("^disk OK", after=len(vm.console_text()))
    finally:
        vm.end()
        os.unlink(disk)


def back_and_forth(times):
    for number in range(times):
        target = destination(uri := next_uri())
        guest.vm.capability(**MODES)
        guest.vm.must_migrate(uri + (",channels=2" if number % 2 else ""))
        must_quit(guest.vm, guest.vm.told)
        target.await_status("running")
        guest.vm.end()
        guest.vm = target
    guest.runs_on()


def monitor_answers():
    """The destination's monitor answers while RAM comes in, and so does the source's."""
    target = destination(uri := next_uri())
    slow_start(guest.vm, uri, 10 << 20)
    for _ in range(5):
        time.sleep(0.5)
        if target.qmp("query-status")["status"] != "inmigrate":
            raise Failure("the destination should be waiting for the guest")
        target.qmp("query-block")
        if guest.vm.qmp("query-migrate")["status"] != "active":
            raise Failure("the migration was over too soon for this test")
    fast_again(guest.vm)
    if guest.vm.await_migration()["status"] != "completed":
        raise Failure(guest.vm.output())
    guest.taken_over_by(target)


def by_hmp():
    """migrate -d by the human monitor, over IPv6."""
    target = destination(uri := next_uri(f"[{ADDRESS6}]"))
    guest.vm.capability(**MODES)
    text = guest.vm.qmp("human-monitor-command", command_line=f"migrate -d {uri}")
    if text.strip():
        raise Failure(text)
    if guest.vm.await_migration()["status"] != "completed":
        raise Failure(guest.vm.output())
    guest.taken_over_by(target)


def main():
    for channels in (1, 4):
        for pin_all in (False, True):
            for return_path in (False, True):
                run(f"a running guest goes on: {channels} channels, {'pin-all' if pin_all else 'chunk'}"
                    f"{', return path' if return_path else ''}", goes_on, f",channels={channels}",
                    pin_all=pin_all, return_path=return_path)
    run("the switchover waits for smaller passes", goes_on, ",switchover-wait=20s", return_path=True,
        switchover_ack=True)
    run("channels=3 behind the host", with_channels, 3, ",channels=3")
    run("channels=2 in VMFERRY_QEMU_OPTIONS", with_channels, 2, "", "channels=2")
    run("the memory is the same, page by page: chunk", same_memory, "")
    run("the memory is the same, page by page: pin-all, 4 channels", same_memory, ",channels=4",
        rdma_pin_all=True)
    run("the memory is the same, page by page: return path", same_memory, ",channels=2",
        return_path=True)
    # From private to shared memory, and on to memory of a file that others do not see.
    run("RAM in a memfd: the memory is the same", same_memory, "", "memory-backend-memfd,share=on", rdma_pin_all=True)
    run("RAM in a private file: the memory is the same", same_memory, "",
        "memory-backend-file,mem-path=/dev/shm/guest-ram,share=off")
    run("both monitors answer meanwhile", monitor_answers)
    run("migrate -d by HMP, IPv6", by_hmp)
    for options in (",channels=1", ",channels=4"):
        run(f"untouched memory is given back: {options[1:]}", same_memory, options, given_back=True)
    run("an odd size, a disk, a network card, a balloon", with_devices, 203)
    run("5 migrations of one guest", back_and_forth, 5)
    guest.end()
    finish()


main()
