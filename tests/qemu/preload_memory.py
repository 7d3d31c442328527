#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""preload_memory -- guests whose memory is given back while they migrate, and memory of other kinds, in unpatched
QEMUs with the preloaded library: preload_memory.py GUEST BUILD ROOT... (see preload_vms.py)
"""
import contextlib
import functools
import os
import time

from checks import Failure, check, finish, wanted
from moments import await_ready_ram, fast_again, must_have_arrived, must_have_given_back
from preload_vms import MEMORY, incoming, modes_of, must_quit, next_uri, start

BALLOON = ["-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]
FILE = "/tmp/guest-memory"
SLOW = 6 << 20


def run(name, function, *arguments, **named):
    if wanted(name):
        check(name, function, *arguments, **named)


@functools.lru_cache
def saved_guest(version):
    """A file with a guest of that version, which takes and frees memory. All checks begin with it."""
    path = f"/tmp/guest-{version}"
    vm = start(version, False, append="noise=12 churn=4 cycle=12", arguments=BALLOON)
    try:
        vm.await_console("^guest ready")
        vm.await_console("^cycle OK")
        vm.qmp("migrate-set-parameters", max_bandwidth=0)
        vm.must_migrate(f"file:{path}")
    finally:
        vm.end()
    return path


def backed_by(backend, side):
    """QEMU's arguments for RAM of that kind; FILE is another one on each side."""
    text = f"{backend},id=pc.ram,size={MEMORY}M".replace("FILE", f"{FILE}-{side}")
    return ["-object", text, "-machine", "memory-backend=pc.ram"] if backend else []


@contextlib.contextmanager
def both_sides(version, backend="", modes=None, arguments=()):
    """A source with the saved guest, a destination that listens, and its URI. Both end with the check."""
    vms = [start(version, incoming=f"file:{saved_guest(version)}", arguments=[*BALLOON, *backed_by(backend, "source")])]
    try:
        vms[0].await_status("running", timeout=120)
        uri = next_uri()
        vms.append(incoming(version, uri, modes=modes or modes_of(version),
                            arguments=[*BALLOON, *arguments, *backed_by(backend, "target")]))
        vms[0].capability(**(modes or modes_of(version)))
        yield *vms, uri
    except Failure as failure:
        raise Failure("\n".join([str(failure), *(f"{vm.name} said:\n{vm.output()}" for vm in vms)]))
    finally:
        for vm in vms:
            vm.end()


# --- memory that is given back ---

def squeeze(vm, until):
    """The balloon grows and shrinks until the time has come."""
    small = True
    while not until():
        vm.qmp("balloon", value=(MEMORY - 24 if small else MEMORY) << 20)
        small = not small
        time.sleep(2)


def gives_back(version, backend, squeezed, pin_all):
    """The guest frees and takes memory while it migrates, and looks at every byte of it afterwards."""
    with both_sides(version, backend, modes_of(version, pin_all)) as (source, target, uri):
        source.await_console("^cycle OK")
        source.qmp("migrate-set-parameters", max_bandwidth=SLOW)
        began = time.monotonic()
        source.migrate(uri)
        if squeezed:
            squeeze(source, lambda: time.monotonic() - began > 14)
        else:
            source.await_console("^cycle OK(.*\n)*cycle OK", 400, len(source.console_text()))
        if source.qmp("query-migrate")["status"] != "active":
            raise Failure("it was over too soon for this check")
        fast_again(source)
        if source.await_migration(60)["status"] != "completed":
            raise Failure("it failed")
        target.await_status("running")
        if squeezed:
            target.qmp("balloon", value=MEMORY << 20)
        target.await_console("^cycle OK(.*\n)*cycle OK", 400)
        target.sums_stay_right()


# --- memory of other kinds ---

def used_files():
    """The destination's memory has something else in many places."""
    for side in ("source", "target"):
        with open(f"{FILE}-{side}", "wb") as out:
            out.truncate(MEMORY + 64 << 20)
    with open(f"{FILE}-target", "r+b") as out:
        for megabyte in range(MEMORY + 64):
            out.seek((megabyte << 20) + 4096 * megabyte)
            out.write(b"\xa5" * 12288)


def arrives(version, backend, pin_all):
    """All of it arrives, in memory of this kind that was something else before."""
    used_files()
    try:
        with both_sides(version, backend, modes_of(version, pin_all), ["-S"]) as (source, target, uri):
            source.qmp("stop")
            source.qmp("migrate-set-parameters", max_bandwidth=0)
            source.must_migrate(uri)
            must_have_arrived(target, source.ram())
            must_quit(source)
            target.qmp("cont")
            target.must_tick()
            target.sums_stay_right()
    finally:
        for side in ("source", "target"):
            os.unlink(f"{FILE}-{side}")


# --- memory that is made ready ---

def ready_ahead(version):
    """A waiting destination has its RAM resident, and gives back what the source has not."""
    with both_sides(version) as (source, target, uri):
        ready = await_ready_ram(target)
        source.qmp("migrate-set-parameters", max_bandwidth=0)
        source.must_migrate(uri)
        target.await_status("running")
        must_have_given_back(target, ready, source)
        target.must_tick()
        target.sums_stay_right()


MEMFD = "memory-backend-memfd,share=on"
KINDS = (("10.0", MEMFD, "a memfd"), ("11", "memory-backend-file,share=on,mem-path=FILE", "a file"),
         ("10.0", "memory-backend-file,share=on,mem-path=FILE,offset=64M", "a file from its middle on"),
         ("11", "memory-backend-file,share=off,mem-path=FILE", "a private mapping of a file"))


def main():
    for version in ("10.0", "11"):
        run(f"{version}: a waiting destination's RAM is resident, and given back", ready_ahead, version)
    for version, backend, title in KINDS:
        for pin_all in (False, True):
            run(f"{version}: {title}, {'pin-all' if pin_all else 'chunk'}", arrives, version, backend, pin_all)
    for version, backend, title in (("10.0", "", "private memory"), ("11", MEMFD, "a memfd")):
        for squeezed in (False, True):
            for pin_all in (False, True):
                run(f"{version}: {title}, {'a balloon' if squeezed else 'free page reporting'}, "
                    f"{'pin-all' if pin_all else 'chunk'}", gives_back, version, backend, squeezed, pin_all)
    for version in ("10.0", "11"):
        if os.path.exists(f"/tmp/guest-{version}"):
            os.unlink(f"/tmp/guest-{version}")
    finish()


main()
