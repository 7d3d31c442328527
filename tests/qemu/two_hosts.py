#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""two_hosts -- live migration of real guests between two lab hosts by QEMU 10.0 with the preloaded library, and losses
of host and link: two_hosts.py GUEST BUILD ROOT (see preload_vms.py)

It runs on host 1; host 2 runs agent.py; lab-qemu.sh does what ask() asks for.
"""
from checks import LONG, Failure, check, finish, wanted
from lab_requests import ask
from moments import MODES, go_on, must_have_failed, reach_with_retries
from preload_vms import LOCAL, Moving, incoming, next_uri

VERSION = "10.0"
HERE = "10.77.0.1"
OPTIONS = ",timeout=4s"
guest = Moving(VERSION)


def incoming_there(**capabilities):
    """A destination on host 2, and the URI it listens at."""
    uri = next_uri()
    return incoming(VERSION, uri, modes={**MODES, **capabilities}, options=OPTIONS[1:]), uri


def move_back(options="", **capabilities):
    uri = next_uri(HERE)
    target = incoming(VERSION, uri, modes={**MODES, **capabilities}, there=False)
    guest.vm.capability(**{**MODES, **capabilities})
    guest.vm.must_migrate(uri + options)
    guest.taken_over_by(target)


def there_and_back(options="", **capabilities):
    target, uri = incoming_there(**capabilities)
    guest.vm.capability(**{**MODES, **capabilities})
    guest.vm.must_migrate(uri + options)
    guest.taken_over_by(target)
    move_back(options, **capabilities)


def moved_there(target):
    """The guest has arrived before its migration could be disturbed: moves it back."""
    guest.taken_over_by(target)
    move_back()


def begin(moment, **capabilities):
    return reach_with_retries(lambda: guest.vm, moment, lambda: incoming_there(**capabilities), moved_there, OPTIONS,
                              **capabilities)


def link_cut(moment, **capabilities):
    target = begin(moment, **capabilities)
    ask("link", "cut")
    try:
        go_on(guest.vm, moment)
        must_have_failed(guest.vm)
    finally:
        ask("link", "restore")
    target.await_exit(60)
    if target.ticks():
        raise Failure("the destination ran as well")
    there_and_back()


def begin_with_link_cut():
    """A migration that cannot connect yet, and the destination that does not hear of it."""
    target, uri = incoming_there()
    ask("link", "cut")
    guest.vm.capability(**MODES)
    guest.vm.outcome(uri + ",connect-timeout=4s")
    return target


def link_cut_in_setup():
    try:
        target = begin_with_link_cut()
        must_have_failed(guest.vm)
    finally:
        ask("link", "restore")
    target.end()
    there_and_back()


def host_killed(moment):
    """The guest runs on, and moves when the host is there again."""
    try:
        if moment == "set-up":
            begin_with_link_cut()
        else:
            begin(moment)
        ask("kill", "2")
        go_on(guest.vm, moment)
        must_have_failed(guest.vm)
    finally:
        if moment == "set-up":
            ask("link", "restore")
        ask("restart", "2")
    there_and_back()


def run(name, function, *arguments, **named):
    """Runs a check with a guest that runs here, whatever the check before has left."""
    def with_guest():
        if guest.vm and guest.vm.host is not LOCAL:
            guest.end()
        guest.here()
        function(*arguments, **named)

    if wanted(name):
        check(name, with_guest)


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
    for moment in ("set-up", "first round", *(["later round"] if LONG else []), "stopped"):
        run(f"the destination's host is killed: {moment}", host_killed, moment)
    guest.end()
    finish()


main()
