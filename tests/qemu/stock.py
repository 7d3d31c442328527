#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""stock -- live migration to and from stock QEMU by its own rdma: protocol: stock.py QEMU GUEST

One host of the lab, or host 1 of two with agent.py on host 2: then guests move there only. Stock
QEMU is Debian's, 7.2, whose rdma: knows no return path. One guest goes from check to check.
"""
import os
import re
import sys

from checks import LONG, Failure, Remote, Vm, check, finish, wanted
from moments import (await_ready_ram, fast_again, must_have_arrived, must_have_failed, must_have_given_back,
                     slow_start)

QEMU, GUEST = sys.argv[1:3]
STOCK = "/usr/bin/qemu-system-x86_64"
TWO = os.environ["LAB_ADDR"] != os.environ["LAB_PEER"]
THERE = os.environ["LAB_PEER"]
port = 4600


def next_uri():
    global port
    port += 1
    return f"rdma:{THERE}:{port}"


def boot(qemu):
    vm = Vm(qemu, GUEST, append="noise=96 churn=4")
    vm.await_console("^guest ready")
    vm.await_console("^tick 2")
    return vm


def incoming(qemu, uri, **arguments):
    if TWO:
        arguments.update(host=Remote(THERE, 4000), qmp=(THERE, 200 + port))
    return Vm(qemu, GUEST, incoming=uri, **arguments)


guest = None


def move(to, pin_all, stopped):
    """The guest goes on there. The memory of a stopped guest is compared, page by page."""
    global guest
    uri = next_uri()
    target = incoming(to, uri, arguments=["-S"] if stopped else [])
    try:
        guest.capability(rdma_pin_all=pin_all)
        guest.qmp("migrate-set-parameters", max_bandwidth=0)
        if stopped:
            guest.qmp("stop")
        guest.must_migrate(uri)
        if guest.running():
            raise Failure("the source still runs")
        if stopped:
            must_have_arrived(target, guest.ram())
            target.qmp("cont")
        target.await_status("running")
        target.must_tick()
        # Stock QEMU before 9.0 loses pages of an emulated CPU that are written at a bad moment.
        if stopped or guest.qemu == QEMU:
            target.sums_stay_right()
    except Failure as failure:
        text = f"{failure}\nsource said:\n{guest.output()}destination said:\n{target.output()}"
        target.end()
        raise Failure(text)
    guest.end()
    guest = target


def runs_on():
    fast_again(guest)
    guest.must_tick()


def begun(source, to):
    """Begins a slow migration that has sent some RAM. Returns the destination."""
    uri = next_uri()
    target = incoming(to, uri)
    slow_start(source, uri, 15 << 20)
    while True:
        info = source.qmp("query-migrate")
        if info.get("status") != "active" and info.get("status") != "setup":
            raise Failure(f"{info}\n{source.output()}{target.output()}")
        if info.get("ram", {}).get("transferred", 0) > 5 << 20:
            return target


def cancelled(to):
    target = begun(guest, to)
    try:
        guest.qmp("migrate_cancel")
        if guest.await_migration()["status"] != "cancelled":
            raise Failure("it was not cancelled")
        runs_on()
        target.await_exit()
    finally:
        target.end()


def destination_ends(to, end):
    target = begun(guest, to)
    try:
        end(target)
        if guest.qemu == QEMU:
            must_have_failed(guest)
        elif guest.await_migration()["status"] != "failed":
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
    source = boot(guest.qemu)
    target = begun(source, to)
    try:
        source.kill()
        target.await_exit()
        if to == QEMU and "hung up at offset" not in target.output():
            raise Failure(f"it does not say why:\n{target.output()}")
        if target.ticks():
            raise Failure("the guest ran there")
    finally:
        source.end()
        target.end()


def another_ram_size(to):
    uri = next_uri()
    target = incoming(to, uri, memory=300)
    try:
        guest.migrate(uri)
        info = guest.await_migration()
        if info["status"] != "failed":
            raise Failure(f"{info}")
        runs_on()
        target.await_exit()
        if "pc.ram" not in target.output() + info.get("error-desc", ""):
            raise Failure(f"nobody names the block: {info}\n{target.output()}")
    finally:
        target.end()


def no_return_path_of_ours(to):
    """Before 8.0 stock QEMU has the capability, but no return path over rdma:."""
    target = incoming(to, uri := next_uri())
    try:
        guest.capability(return_path=True)
        guest.must_fail(uri + ",connect-timeout=3s", "has one by rdma from 8.0 on")
        runs_on()
    finally:
        guest.capability(return_path=False)
        target.end()


def no_return_path_of_stock(to):
    """A stock source keeps a failed return path for ever, so it cannot be used again."""
    target = incoming(to, uri := next_uri())
    source = boot(STOCK)
    try:
        source.capability(return_path=True)
        source.migrate(uri)
        if source.await_migration()["status"] != "failed":
            raise Failure("it did not fail")
        source.must_tick()
        # If the source leaves before it has begun, the destination goes on listening. Else it says
        # what came first: the request for a return path, or the loss of the source.
        if not target.alive() and not re.search("made no connection for them|hung up at offset",
                                                target.output()):
            raise Failure(f"it ended with {target.host.status(target.process)}:\n{target.output()}")
    finally:
        source.end()
        target.end()


def untouched_given_back():
    """A destination registers little more than the source asks for."""
    source = boot(STOCK)
    target = incoming(QEMU, (uri := next_uri()) + ",accept-chunk-size=1M", arguments=["-S"])
    try:
        before = await_ready_ram(target)
        source.qmp("stop")
        source.must_migrate(uri)
        must_have_arrived(target, source.ram())
        must_have_given_back(target, before, source)
    finally:
        source.end()
        target.end()


def check_move(to, pin_all, stopped):
    names = {QEMU: "vmferry", STOCK: "stock"}
    title = (f"{names[guest.qemu]} to {names[to]}, {'pin-all' if pin_all else 'chunk'}, "
             f"{'stopped' if stopped else 'running and changing'}")
    check(title, move, to, pin_all, stopped)


def check_failures(to):
    names = {QEMU: "vmferry", STOCK: "stock"}
    no_return_path = no_return_path_of_ours if guest.qemu == QEMU else no_return_path_of_stock
    for title, function, long in (("cancelled", cancelled, False), ("destination killed", destination_killed, True),
                                  ("destination quits", destination_quits, True),
                                  ("source killed", source_killed, False),
                                  ("another RAM size", another_ram_size, True),
                                  ("no return path", no_return_path, True)):
        name = f"{names[guest.qemu]} to {names[to]}: {title}"
        if wanted(name, long):
            check(name, function, to)


# One guest goes from check to check: to the QEMU, pin-all, stopped.
USUAL = ((STOCK, False, False), (QEMU, True, True))
LATER = ((STOCK, True, False), (QEMU, False, True), (STOCK, False, True), (QEMU, False, False), (STOCK, True, True),
         (QEMU, True, False))

if TWO:
    for source, to, pin_all in () if LONG else ((QEMU, STOCK, False), (STOCK, QEMU, True)):
        guest = boot(source)
        check_move(to, pin_all, source == STOCK)
        guest.end()
    finish()

guest = boot(QEMU)
for number, how in enumerate(LATER if LONG else USUAL):
    if number < 2:
        check_failures(how[0])
    check_move(*how)
guest.end()
if wanted("stock to vmferry: untouched memory is given back"):
    check("stock to vmferry: untouched memory is given back", untouched_given_back)
finish()
