#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""two_hosts -- live migration of real guests between two lab hosts, and losses of host and link

two_hosts.py QEMU GUEST, on host 1; host 2 runs agent.py; lab-qemu.sh does what ask() asks for.
"""
import sys

from checks import Failure, Remote, Vm, check, finish, wanted
from lab_requests import ask
from moments import MODES, go_on, must_have_failed, reach_with_retries

QEMU, GUEST = sys.argv[1:3]
HERE, THERE = "10.77.0.1", "10.77.0.2"
there = Remote(THERE, 4000)
number = 0
guest = None


def boot():
    vm = Vm(QEMU, GUEST, append="noise=96")
    vm.await_console("^guest ready")
    vm.await_console("^tick 2")
    return vm


def incoming_there(**arguments):
    """A destination on host 2, and the URI it listens at."""
    global number
    number += 1
    uri = f"rdma:{THERE}:{4440 + number}"
    return Vm(QEMU, GUEST, incoming=uri, host=there, qmp=(THERE, 4540 + number), **arguments), uri


def incoming_here():
    global number
    number += 1
    uri = f"rdma:{HERE}:{4440 + number}"
    return Vm(QEMU, GUEST, incoming=uri), uri


def taken_over_by(target):
    """The guest runs in another QEMU now. Ends the old one after that."""
    global guest
    target.await_status("running")
    guest.end()
    guest = target
    guest.must_tick()
    guest.sums_stay_right()


def move(target, uri, **capabilities):
    guest.capability(**{**MODES, **capabilities})
    guest.must_migrate(uri)
    taken_over_by(target)


def there_and_back(options, **capabilities):
    for target, uri in (incoming_there(), incoming_here()):
        move(target, uri + options, **capabilities)


def moved_there(target):
    """The guest has arrived before its migration could be disturbed: moves it back."""
    taken_over_by(target)
    move(*incoming_here())


def begin(moment, **capabilities):
    return reach_with_retries(lambda: guest, moment, incoming_there, moved_there, ",timeout=4s", **capabilities)


def link_cut(moment, **capabilities):
    target = begin(moment, **capabilities)
    ask("link", "cut")
    try:
        go_on(guest, moment)
        must_have_failed(guest)
    finally:
        ask("link", "restore")
    target.await_exit(60)
    if target.ticks():
        raise Failure("the destination ran as well")
    there_and_back("")


def begin_with_link_cut():
    """A migration that cannot connect yet, and the destination that does not hear of it."""
    target, uri = incoming_there()
    ask("link", "cut")
    guest.capability(**MODES)
    guest.migrate(uri + ",connect-timeout=4s")
    return target


def link_cut_in_setup():
    try:
        target = begin_with_link_cut()
        must_have_failed(guest)
    finally:
        ask("link", "restore")
    target.end()
    there_and_back("")


def host_killed(moment):
    """The guest runs on, and moves when the host is there again."""
    try:
        if moment == "set-up":
            begin_with_link_cut()
        else:
            begin(moment)
        ask("kill", "2")
        go_on(guest, moment)
        must_have_failed(guest)
    finally:
        if moment == "set-up":
            ask("link", "restore")
        ask("restart", "2")
    there_and_back("")


def run(name, function, *arguments, long=False, **named):
    """Runs a check with a running guest, whatever the check before has left."""
    global guest
    if not wanted(name, long):
        return
    if not guest or not guest.is_well():
        guest = boot()
    check(name, function, *arguments, **named)


def main():
    run("there and back: chunk, 1 channel", there_and_back, ",channels=1")
    run("there and back: chunk, 8 channels", there_and_back, ",channels=8")
    run("there and back: pin-all, 4 channels, return path", there_and_back, ",channels=4",
          rdma_pin_all=True, return_path=True)
    ask("link", "delay=5ms", "loss=0.1%")
    run("there and back: 5 ms of delay, lost packets", there_and_back, ",channels=8")
    ask("link", "clear")
    run("the link is cut: set-up", link_cut_in_setup)
    run("the link is cut: first round", link_cut, "first round")
    run("the link is cut: first round, return path", link_cut, "first round", return_path=True)
    run("the link is cut: later round", link_cut, "later round")
    run("the link is cut: stopped", link_cut, "stopped")
    for moment in ("set-up", "first round", "later round", "stopped"):
        run(f"the destination's host is killed: {moment}", host_killed, moment, long=moment == "later round")
    if guest:
        guest.end()
    finish()


main()
