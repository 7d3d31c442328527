#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""preload_matrix -- every version of Debian's QEMU, with the preloaded library and as its stock peer, in every mode:
preload_matrix.py GUEST BUILD ROOT... (see preload_vms.py)
"""
import os
import subprocess

from checks import Failure, check, finish, wanted
from moments import must_have_arrived
from preload_vms import QEMUS, VMFERRY, Moving, incoming, modes_of, must_quit, next_uri

FILE = "/tmp/matrix.mig"
TIMES = 50
SIDES = (("both sides", True, True), ("source", True, False), ("destination", False, True))
guest = None


def run(name, function, *arguments, **named):
    if wanted(name):
        check(name, function, *arguments, **named)


def moves(source, target, **named):
    guest.here(source)
    guest.move(target, **named)


def modes():
    """Of all moves: pin-all, return path."""
    for pin_all in (False, True):
        for return_path in (False, True):
            if guest.version != "7.2" or not return_path:
                yield pin_all, return_path


def matrix():
    """Ordered so that the guest seldom has to be moved between checks."""
    for pin_all, return_path in modes():
        for side, source, target in SIDES:
            # Of 7.2 only a stopped guest is compared: the emulated CPU's writes can get lost there.
            stopped = guest.version == "7.2" or pin_all
            run(f"{guest.version}, vmferry at the {side}: {'pin-all' if pin_all else 'chunk'}"
                f"{', return path' if return_path else ''}, {'stopped' if stopped else 'running'}", moves, source, target,
                pin_all=pin_all, return_path=return_path, stopped=stopped)


# --- files ---

def saved(preload):
    """A guest becomes a file, which another QEMU of the same kind gets."""
    vm, uri = guest.here(preload), next_uri()
    vm.capability(**modes_of(guest.version))
    vm.qmp("stop")
    receiver = subprocess.Popen([VMFERRY, "receive", uri, "--save", FILE], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
    if not receiver.stdout.readline().startswith("listening on"):
        raise Failure(receiver.stdout.read())
    vm.qmp("migrate-set-parameters", max_bandwidth=0)
    vm.must_migrate(uri)
    text = receiver.communicate(timeout=60)[0]
    if receiver.returncode:
        raise Failure(text)
    pages = vm.ram()
    must_quit(vm)
    target = incoming(guest.version, uri := next_uri(), preload, modes_of(guest.version), arguments=["-S"])
    try:
        sender = subprocess.run([VMFERRY, "send", uri, "--load", FILE], capture_output=True, text=True, timeout=60)
        if sender.returncode:
            raise Failure(f"{sender.stderr}\n{target.output()}")
        must_have_arrived(target, pages)
        target.qmp("cont")
        target.must_tick()
        target.sums_stay_right()
    except Failure:
        target.end()
        raise
    finally:
        os.unlink(FILE)
    vm.end()
    guest.vm = target


def large_chunks():
    """A stock source of 11 registers 32 MiB at a time."""
    vm = guest.here(False)
    vm.qmp("migrate-set-parameters", **{"x-rdma-chunk-size": 32 << 20})
    guest.move(True, stopped=True)


def back_and_forth():
    guest.here()
    for number in range(TIMES):
        guest.vm = hop(guest.vm, number)
    guest.vm.must_tick()
    guest.vm.sums_stay_right()


def hop(source, number):
    uri, mode = next_uri(), modes_of(guest.version, number % 3 == 1, number % 2 == 1)
    target = incoming(guest.version, uri, modes=mode)
    try:
        source.capability(**mode)
        source.qmp("migrate-set-parameters", max_bandwidth=0)
        source.must_migrate(uri)
        must_quit(source)
        target.await_status("running")
        if number % 10 == 9:
            target.must_tick()
            target.sums_stay_right()
    except Failure as failure:
        text = f"migration {number}: {failure}\nsource said:\n{source.output()}destination said:\n{target.output()}"
        target.end()
        raise Failure(text)
    source.end()
    return target


def main():
    global guest
    for version in QEMUS:
        guest = Moving(version)
        matrix()
        run(f"{version}, vmferry: into a file and out of it", saved, True)
        run(f"{version}, stock: into a file and out of it", saved, False)
        if version == "11":
            run("11, stock, chunks of 32 MiB, to vmferry", large_chunks)
        if version == "10.0":
            run(f"10.0: {TIMES} migrations of one guest", back_and_forth)
        guest.end()
    finish()


main()
