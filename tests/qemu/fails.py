#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""fails -- live migration of real guests within one lab host that must fail well, by QEMU 10.0 with the preloaded
library: fails.py GUEST BUILD ROOT (see preload_vms.py)
"""
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import preload_vms
from checks import LONG, Failure, Vm, check, finish, wanted
from moments import MODES, fast_again, go_on, must_have_failed, reach_with_retries, slow_start
from preload_vms import GUEST, MEMORY, QEMUS, THERE, Moving, boot, incoming, must_quit, next_uri, preloaded, start

VERSION = "10.0"
NOBODY_LISTENS = f"rdma:{THERE}:4999"
guest = Moving(VERSION)


def run(name, function, *arguments, **named):
    """Runs a check with a running guest, whatever the check before has left."""
    def with_guest():
        guest.here()
        function(*arguments, **named)

    if wanted(name):
        check(name, with_guest)


def destination(uri, options="", **capabilities):
    return incoming(VERSION, uri, modes={**MODES, **capabilities}, options=options)


def must_refuse(target, uri, pattern):
    """A destination cannot listen, and the library says why."""
    try:
        target.qmp("migrate-incoming", uri=uri)
    except Failure:
        if re.search(pattern, target.said()):
            return
        raise Failure(f"it does not say /{pattern}/:\n{target.output()}")
    raise Failure(f"{uri} should have been refused, for: {pattern}")


# --- it does not begin ---

def bad_uri(uri, pattern):
    guest.vm.capability(**MODES)
    guest.vm.must_fail(uri, pattern)
    guest.runs_on()


def wrong_general_option():
    vm = start(VERSION, options="chanels=3", arguments=["-S"])
    try:
        vm.must_fail(NOBODY_LISTENS, "VMFERRY_QEMU_OPTIONS.*chanels")
    finally:
        vm.end()


def wrong_address():
    """An address that is not this host's. (QEMU then takes no other one.)"""
    target = start(VERSION, incoming="defer")
    try:
        must_refuse(target, "rdma:192.0.2.1:4444", "cannot listen")
        must_quit(target, len(target.output()))
    finally:
        target.end()


def no_thread():
    """A process that cannot start a thread says so, and goes on."""
    copy = "/tmp/guest"  # which everybody can read
    shutil.copytree(GUEST, copy, dirs_exist_ok=True)
    nobody = ["chroot", "--userspec=65534:65534", "/"]  # no limit is for root

    def by_nobody(**named):
        return Vm(QEMUS[VERSION], copy, memory=MEMORY, environment=[*nobody, *preloaded(preload_vms.BUILD)], **named)

    vms = [by_nobody(arguments=["-S"]), by_nobody(incoming="defer")]
    try:
        for vm in vms:
            subprocess.run(["prlimit", f"--pid={vm.process.pid}", "--nproc=1:1"], check=True, timeout=30)
        vms[0].must_fail(NOBODY_LISTENS, "cannot start a thread")
        must_refuse(vms[1], next_uri(), "cannot start a thread")
        for vm in vms:
            vm.qmp("query-status")
    except Failure as failure:
        raise Failure("\n".join([str(failure), *(f"{vm.name} said:\n{vm.output()}" for vm in vms)]))
    finally:
        for vm in vms:
            vm.end()


def other_size():
    """The destination's QEMU finds that, says so and ends."""
    target = incoming(VERSION, uri := next_uri(), modes=MODES, memory=MEMORY * 2)
    try:
        guest.vm.capability(**MODES)
        guest.vm.must_fail(uri, "failed")
        guest.runs_on()
        target.await_exit()
        if "pc.ram" not in target.output():
            raise Failure(f"it does not name the block:\n{target.output()}")
    finally:
        target.end()


def small_memlock(pin_all):
    """The destination may lock 64 KiB of memory. The source says so as well."""
    limited = ("prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock")
    target = Vm((*limited, *QEMUS[VERSION]), GUEST, memory=MEMORY, incoming="defer",
                environment=preloaded(preload_vms.BUILD))
    try:
        modes = {**MODES, "rdma_pin_all": pin_all}
        target.capability(**modes)
        target.qmp("migrate-incoming", uri=(uri := next_uri()))
        guest.vm.capability(**modes)
        guest.vm.must_fail(uri, "memory-lock limit")
        guest.runs_on()
    except Failure as failure:
        raise Failure(f"{failure}\ndestination said:\n{target.output()}")
    finally:
        target.end()


# --- it is disturbed ---

def source_killed_when_completed():
    """The worst moment: the source says completed, and dies."""
    target = destination(uri := next_uri())
    guest.vm.capability(**MODES)
    guest.vm.must_migrate(uri)
    guest.vm.kill()
    try:
        guest.taken_over_by(target)
    except Failure as failure:
        target.end()
        raise Failure(f"{failure}\n{target.output()}")


def reach(moment, options="", **capabilities):
    """Begins a migration and returns at a moment of it, with the destination."""
    def listening():
        uri = next_uri()
        return destination(uri, **capabilities), uri

    return reach_with_retries(lambda: guest.vm, moment, listening, guest.taken_over_by, options, **capabilities)


def must_be_cancelled():
    guest.vm.qmp("migrate_cancel")
    info = guest.vm.await_migration(30)
    fast_again(guest.vm)
    if info["status"] != "cancelled":
        raise Failure(f"{info}\n{guest.vm.output()}")


def destination_killed(moment, **capabilities):
    target = reach(moment, ",timeout=4s", **capabilities)
    target.kill()
    go_on(guest.vm, moment)
    must_have_failed(guest.vm)
    target.end()
    guest.move()


def destination_killed_in_setup():
    """The destination does not answer the connection request, and is killed then. QEMU's monitor waits for both."""
    target = destination(uri := next_uri())
    target.kill(signal.SIGSTOP)
    guest.vm.capability(**MODES)
    killer = threading.Timer(1, target.kill)
    killer.start()
    if guest.vm.outcome(uri + ",connect-timeout=20s")["status"] != "failed":
        raise Failure(guest.vm.output())
    killer.join()
    must_have_failed(guest.vm, 30)
    target.end()
    guest.move()


def cancelled(moment, **capabilities):
    target = reach(moment, **capabilities)
    must_be_cancelled()
    target.await_exit()
    if target.ticks():
        raise Failure("the destination ran")
    target.end()
    guest.runs_on()
    guest.move()


def cancelled_and_again():
    """A destination that is started again can use the same port."""
    target = reach("first round")
    must_be_cancelled()
    target.await_exit()
    target.end()
    uri = f"rdma:{THERE}:{preload_vms.port}"
    target = destination(uri)
    guest.vm.must_migrate(uri)
    guest.taken_over_by(target)


def nothing_left(times):
    """A source that is cancelled over and over keeps no descriptor and no thread."""
    def ours():
        return [name for name in guest.vm.threads() if name.startswith("vmf")]

    counts = []
    for number in range(times):
        modes = {"rdma_pin_all": number % 2 == 1, "return_path": True}
        target = reach("first round", **modes)
        try:
            must_be_cancelled()
        finally:
            target.end()
        deadline = time.monotonic() + 30
        while ours() and time.monotonic() < deadline:
            time.sleep(0.1)
        counts.append(len(os.listdir(f"/proc/{guest.vm.process.pid}/fd")))
    if counts[-1] > counts[0] or ours():
        raise Failure(f"descriptors after each migration: {counts}; threads {guest.vm.threads()}")
    guest.runs_on()


def destination_stopped():
    """A destination that no longer answers (SIGSTOP) is given up within the time-out."""
    target = reach("first round", ",timeout=4s")
    target.kill(signal.SIGSTOP)
    must_have_failed(guest.vm)
    target.end()
    guest.move()


def source_killed(moment):
    """The destination must not run a guest that it has only in part."""
    victim = boot(VERSION)
    target = destination(uri := next_uri(), "timeout=4s")
    slow_start(victim, uri, 0 if moment == "stopped" else 4 << 20, pause_before_switchover=moment == "stopped")
    time.sleep(4)
    victim.kill()
    try:
        target.await_exit(40)
        if target.ticks():
            raise Failure("the destination ran")
        if not target.said():
            raise Failure(f"it does not say why it ended:\n{target.output()}")
    finally:
        victim.end()
        target.end()


def main():
    run("the source is killed when it has completed", source_killed_when_completed)
    run("a host that nobody knows", bad_uri, "rdma:no-such-host.invalid:4444", "no-such-host.invalid")
    run("nobody listens", bad_uri, NOBODY_LISTENS, "cannot connect to .*4999")
    run("an unknown option behind the host", bad_uri, f"{NOBODY_LISTENS},chanels=4", "chanels")
    run("an unknown option in VMFERRY_QEMU_OPTIONS", wrong_general_option)
    run("a wrong address to listen at", wrong_address)
    run("no thread can be started", no_thread)
    run("another RAM size is refused by the block's name", other_size)
    run("a memory-lock limit of 64 KiB: chunk", small_memlock, False)
    run("a memory-lock limit of 64 KiB: pin-all", small_memlock, True)
    run("cancel, and again to the same port", cancelled_and_again)
    run("cancel five times: nothing is left", nothing_left, 5)
    run("the destination is killed: set-up", destination_killed_in_setup)
    for moment in ("first round", "later round", "stopped"):
        if LONG or moment != "later round":
            run(f"cancel: {moment}", cancelled, moment)
            run(f"the destination is killed: {moment}", destination_killed, moment)
        run(f"cancel: {moment}, return path", cancelled, moment, return_path=True)
        run(f"the destination is killed: {moment}, return path", destination_killed, moment,
            return_path=True)
    run("the destination is stopped", destination_stopped)
    run("the source is killed: first round", source_killed, "first round")
    run("the source is killed: stopped", source_killed, "stopped")
    guest.end()
    finish()


main()
