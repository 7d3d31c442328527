#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""stock -- live migration between QEMU 10.0 with the preloaded library and the same QEMU without it:
stock.py GUEST BUILD ROOT (see preload_vms.py)

One guest goes from check to check. On two hosts, guests move to the second one only.
"""
from checks import Failure, Vm, check, finish, wanted
from moments import (MODES, await_ready_ram, fast_again, must_have_arrived, must_have_failed, must_have_given_back,
                     slow_start)
from preload_vms import MEMORY, TWO, Moving, boot, incoming, must_quit, next_uri

VERSION = "10.0"
NAMES = {True: "vmferry", False: "stock"}
guest = Moving(VERSION)


def runs_on():
    fast_again(guest.vm)
    guest.vm.must_tick()


def begun(source, to, **named):
    """Begins a slow migration that has sent some RAM. Returns the destination."""
    target = incoming(VERSION, uri := next_uri(), to, MODES, **named)
    slow_start(source, uri, 4 << 20)
    while True:
        info = source.qmp("query-migrate")
        if info.get("status") != "active" and info.get("status") != "setup":
            raise Failure(f"{info}\n{source.output()}{target.output()}")
        if info.get("ram", {}).get("transferred", 0) > 1 << 20:
            return target


def cancelled(to):
    target = begun(guest.vm, to)
    try:
        guest.vm.qmp("migrate_cancel")
        if guest.vm.await_migration()["status"] != "cancelled":
            raise Failure("it was not cancelled")
        runs_on()
        target.await_exit()
        if target.ticks():
            raise Failure("the guest ran there")
    finally:
        target.end()


def destination_ends(to, end):
    target = begun(guest.vm, to)
    try:
        end(target)
        if guest.preload:
            must_have_failed(guest.vm)
        elif guest.vm.await_migration()["status"] != "failed":
            raise Failure("it did not fail")
        runs_on()
    finally:
        target.end()


def destination_killed(to):
    destination_ends(to, Vm.kill)


def destination_quits(to):
    """The monitor of a destination listens while it receives, so that the migration can be cancelled."""
    destination_ends(to, lambda target: target.qmp("quit"))


def source_killed(to):
    """The destination ends, and has not run. A destination with vmferry says why."""
    source = boot(VERSION, guest.preload)
    target = begun(source, to)
    try:
        source.kill()
        target.await_exit()
        if to and "hung up at offset" not in target.said():
            raise Failure(f"it does not say why:\n{target.output()}")
        if target.ticks():
            raise Failure("the guest ran there")
    finally:
        source.end()
        target.end()


def another_ram_size(to):
    target = incoming(VERSION, uri := next_uri(), to, MODES, memory=MEMORY + 44)
    try:
        guest.vm.capability(**MODES)
        info = guest.vm.outcome(uri)
        if info["status"] != "failed":
            raise Failure(f"{info}")
        runs_on()
        target.await_exit()
        if "pc.ram" not in target.output() + guest.vm.output() + info.get("error-desc", ""):
            raise Failure(f"nobody names the block: {info}\n{target.output()}")
    finally:
        target.end()


def untouched_given_back():
    """A destination registers little more than the source asks for."""
    source = guest.here(False)
    target = incoming(VERSION, uri := next_uri(), modes=MODES, options="accept-chunk-size=1M", arguments=["-S"])
    try:
        before = await_ready_ram(target)
        source.qmp("stop")
        source.capability(**MODES)
        source.must_migrate(uri)
        must_have_arrived(target, source.ram())
        must_have_given_back(target, before, source)
        must_quit(source, source.told)
    finally:
        source.end()
        target.end()


def move(source, to, **named):
    guest.here(source)
    guest.move(to, **named)


def check_move(source, to, pin_all, stopped, return_path=False):
    title = (f"{NAMES[source]} to {NAMES[to]}, {'pin-all' if pin_all else 'chunk'}, "
             f"{'return path, ' if return_path else ''}{'stopped' if stopped else 'running and changing'}")
    if wanted(title):
        check(title, move, source, to, pin_all=pin_all, stopped=stopped, return_path=return_path)


def check_failures(source):
    def fails(function):
        guest.here(source)
        function(not source)

    for name, function in (("cancelled", cancelled), ("destination killed", destination_killed),
                           ("destination quits", destination_quits), ("source killed", source_killed),
                           ("another RAM size", another_ram_size)):
        title = f"{NAMES[source]} to {NAMES[not source]}: {name}"
        if wanted(title):
            check(title, fails, function)


def two_hosts():
    for source, pin_all in ((True, False), (False, True)):
        check_move(source, not source, pin_all, not source)
        guest.end()


def one_host():
    check_failures(True)
    check_move(True, False, False, False)
    check_failures(False)
    for source, pin_all, stopped in ((False, False, True), (True, True, False), (False, True, True), (True, False, True),
                                     (False, False, False), (True, True, True), (False, True, False)):
        check_move(source, not source, pin_all, stopped)
    for source in (True, False):
        check_move(source, not source, False, False, return_path=True)
    if wanted("stock to vmferry: untouched memory is given back"):
        check("stock to vmferry: untouched memory is given back", untouched_given_back)
    guest.end()


if TWO:
    two_hosts()
else:
    one_host()
finish()
