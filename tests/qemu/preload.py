#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""preload -- unpatched QEMUs that have the library preloaded: preload.py GUEST BUILD ROOT... (see preload_vms.py)"""
import os
import re
import subprocess
import time

from checks import Failure, check, finish, wanted
from moments import await_moment, fast_again, must_have_arrived, slow_start
from preload_vms import (THERE, VMFERRY, Moving, boot, incoming, modes_of, move, must_quit, next_uri, start)

FILE = "/tmp/vm.mig"
guest = Moving("10.0")


def run(name, function, *arguments, **named):
    if wanted(name):
        check(name, function, *arguments, **named)


def moves(preload=True, from_preload=True, **named):
    guest.here(from_preload)
    guest.move(preload, **named)


def version_moves(version, **named):
    source = boot(version)
    try:
        move(source, version, **named).end()
    finally:
        source.end()


# --- options ---

def begun(vm, uri, **capabilities):
    """A slow migration that has sent some RAM."""
    slow_start(vm, uri, 4 << 20, **capabilities)
    if not await_moment(vm, lambda info: info["status"] == "active" and info["ram"]["transferred"] > 1 << 20):
        raise Failure(f"it was over too soon for this check:\n{vm.output()}")


def ended_by_cancel(vm):
    vm.qmp("migrate_cancel")
    info = vm.await_migration(30)
    fast_again(vm)
    if info["status"] != "cancelled":
        raise Failure(f"{info}\n{vm.output()}")


def has_channels(channels, at_host="", general=""):
    """A migration that has begun has a thread for each channel."""
    vm = guest.here()
    if general:
        guest.move(named={"options": general})
        vm = guest.vm
    target = incoming("10.0", uri := next_uri(), modes=modes_of("10.0"))
    try:
        begun(vm, uri + at_host)
        names = [name for name in vm.threads() if name.startswith("vmf-channel")]
        ended_by_cancel(vm)
    finally:
        target.end()
    if len(names) != channels:
        raise Failure(f"{channels} channels were asked for: {names}")
    vm.must_tick()


def says(vm, pattern, uri):
    """The migration fails soon, and QEMU's standard error says why."""
    before = len(vm.output())
    vm.qmp("migrate-set-parameters", max_bandwidth=0)
    vm.capability(**modes_of("10.0"))
    try:
        vm.migrate(uri)
    except Failure:
        pass  # some versions connect before they answer
    else:
        if vm.await_migration(30)["status"] != "failed":
            raise Failure("it did not fail")
    if not re.search(f"^vmferry: .*{pattern}", vm.output()[before:], re.M):
        raise Failure(f"it does not say /{pattern}/:\n{vm.output()[before:]}")
    vm.must_tick()


def fails_and_works(pattern, uri):
    """After a failure the next migration of the same QEMU works."""
    vm = guest.here()
    says(vm, pattern, uri)
    target = incoming("10.0", uri := next_uri(), modes=modes_of("10.0"))
    try:
        vm.must_migrate(uri)
        target.await_status("running")
        target.must_tick()
        target.sums_stay_right()
    except Failure as failure:
        text = f"{failure}\nsource said:\n{vm.output()}destination said:\n{target.output()}"
        target.end()
        raise Failure(text)
    vm.end()
    guest.vm = target


def wrong_general_option():
    vm = start("10.0", options="chanels=3", arguments=["-S"])
    try:
        try:
            vm.migrate(f"rdma:{THERE}:4999")
        except Failure:
            pass
        else:
            vm.await_migration(30)
        if not re.search("^vmferry: .*VMFERRY_QEMU_OPTIONS.*chanels", vm.output(), re.M):
            raise Failure(vm.output())
    finally:
        vm.end()


# --- cancel ---

def cancelled_and_again(**capabilities):
    """The source goes on, the destination ends, and the next migration works."""
    vm, uri = guest.here(), next_uri()
    target = incoming("10.0", uri, modes=modes_of("10.0", **capabilities))
    try:
        begun(vm, uri, **modes_of("10.0", **capabilities))
        ended_by_cancel(vm)
        target.await_exit(60)
        if target.ticks():
            raise Failure("the destination ran")
        vm.must_tick()
    except Failure as failure:
        raise Failure(f"{failure}\nsource said:\n{vm.output()}destination said:\n{target.output()}")
    finally:
        target.end()
    guest.move(**capabilities)


# --- files ---

def received():
    """vmferry receive has the guest, and stock QEMU loads it."""
    vm, uri = guest.here(), next_uri()
    vm.capability(**modes_of("10.0"))
    receiver = subprocess.Popen([VMFERRY, "receive", uri, "--save", FILE], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
    if not receiver.stdout.readline().startswith("listening on"):
        raise Failure(receiver.stdout.read())
    vm.must_migrate(uri)
    text = receiver.communicate(timeout=60)[0]
    if receiver.returncode:
        raise Failure(text)
    guest.pages = vm.ram()
    must_quit(vm)


def goes_on(target):
    must_have_arrived(target, guest.pages)
    target.qmp("cont")
    target.must_tick()
    target.sums_stay_right()


def loaded_by_stock():
    target = start("10.0", False, incoming=f"exec:cat {FILE}", arguments=["-S"])
    try:
        goes_on(target)
    finally:
        target.end()


def sent(preload, pin_all=False):
    """vmferry send gives it to a QEMU."""
    uri = next_uri()
    target = incoming("10.0", uri, preload, modes_of("10.0", pin_all), arguments=["-S"])
    try:
        sender = subprocess.run([VMFERRY, "send", uri, "--load", FILE], capture_output=True, text=True, timeout=60)
        if sender.returncode:
            raise Failure(f"{sender.stderr}\n{target.output()}")
        goes_on(target)
    finally:
        target.end()


# --- the process ---

def descriptors(vm):
    return len(os.listdir(f"/proc/{vm.process.pid}/fd"))


def nothing_left(times):
    """A source that is cancelled over and over keeps no descriptor and no thread."""
    vm = guest.here()
    counts = []
    for number in range(times):
        modes = modes_of("10.0", pin_all=number % 2 == 1, return_path=True)
        target = incoming("10.0", uri := next_uri(), modes=modes)
        try:
            begun(vm, uri, **modes)
            ended_by_cancel(vm)
        finally:
            target.end()
        deadline = time.monotonic() + 30
        while ours(vm) and time.monotonic() < deadline:
            time.sleep(0.1)
        counts.append(descriptors(vm))
    if counts[-1] > counts[0] or ours(vm):
        raise Failure(f"descriptors after each migration: {counts}; threads {vm.threads()}")
    vm.must_tick()


def ours(vm):
    return [name for name in vm.threads() if name.startswith("vmf")]


def wrong_address():
    """An address that is not this host's: QEMU's standard error says so. (QEMU then takes no other one.)"""
    target = start("10.0", incoming="defer")
    try:
        try:
            target.qmp("migrate-incoming", uri="rdma:192.0.2.1:4444")
        except Failure:
            pass
        else:
            raise Failure("there is no such address here")
        if not re.search("^vmferry: cannot listen", target.output(), re.M):
            raise Failure(target.output())
        must_quit(target, len(target.output()))
    finally:
        target.end()


def main():
    for pin_all in (False, True):
        for return_path in (False, True):
            for stopped in (True, False):
                run(f"10.0: {'pin-all' if pin_all else 'chunk'}, {'return path, ' if return_path else ''}"
                    f"{'stopped' if stopped else 'running'}", moves, pin_all=pin_all, return_path=return_path,
                    stopped=stopped)
    run("10.0: the switchover waits for smaller passes", moves, return_path=True, switchover_ack=True,
        options=",switchover-wait=20s")
    run("10.0: vmferry to stock", moves, preload=False)
    run("10.0: stock to vmferry", moves, from_preload=False)
    run("channels=3 behind the host", has_channels, 3, at_host=",channels=3")
    run("channels=2 in VMFERRY_QEMU_OPTIONS", has_channels, 2, general="channels=2")
    run("a wrong option behind the host, then a migration that works", fails_and_works, "chanels",
        f"rdma:{THERE}:4999,chanels=3")
    run("a wrong option in VMFERRY_QEMU_OPTIONS", wrong_general_option)
    run("nobody listens, then a migration that works", fails_and_works, "cannot connect to .*4999", f"rdma:{THERE}:4999")
    run("cancelled, and again", cancelled_and_again)
    run("cancelled, and again: return path", cancelled_and_again, return_path=True)
    run("cancelled five times: nothing is left", nothing_left, 5)
    run("a wrong address to listen at", wrong_address)
    if wanted("file"):
        run("a file: received", received)
        run("a file: loaded by stock", loaded_by_stock)
        run("a file: sent to vmferry", sent, True)
        run("a file: sent to stock", sent, False)
    guest.end()
    run("7.2: stopped", version_moves, "7.2", stopped=True)
    run("11: running", version_moves, "11", return_path=True)
    finish()


main()
