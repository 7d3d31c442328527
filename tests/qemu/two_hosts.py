#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""two_hosts -- live migration of real guests between two lab hosts, and losses of host and link

two_hosts.py QEMU GUEST, on host 1; host 2 runs agent.py; lab-qemu.sh does what ask() asks for.
"""
import os
import sys
import time

from checks import Failure, Remote, Vm, check, finish, wanted

QEMU, GUEST = sys.argv[1:3]
HERE, THERE = "10.77.0.1", "10.77.0.2"
FOLDER = os.environ["LAB_OUT"]
MODES = {"rdma_pin_all": False, "return_path": False, "pause_before_switchover": False}
there = Remote(THERE, 4000)
number = 0
guest = None


def ask(*words):
    """A command for the lab, such as link cut."""
    answer = os.path.join(FOLDER, "answer")
    with open(os.path.join(FOLDER, "request.new"), "w") as file:
        file.write(" ".join(words))
    os.rename(os.path.join(FOLDER, "request.new"), os.path.join(FOLDER, "request"))
    deadline = time.monotonic() + 60
    while not os.path.exists(answer):
        if time.monotonic() > deadline:
            raise Failure(f"the lab does not answer to {words}")
        time.sleep(0.1)
    os.unlink(answer)


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


def move(target, uri, **capabilities):
    global guest
    guest.capability(**{**MODES, **capabilities})
    guest.must_migrate(uri)
    target.await_status("running")
    guest.end()
    guest = target
    guest.must_tick()
    guest.sums_stay_right()


def there_and_back(options, **capabilities):
    for target, uri in (incoming_there(), incoming_here()):
        move(target, uri + options, **capabilities)


def begin(moment, **capabilities):
    target, uri = incoming_there()
    guest.capability(**{**MODES, "pause_before_switchover": moment == "stopped", **capabilities})
    guest.qmp("migrate-set-parameters", max_bandwidth=0 if moment == "stopped" else 10 << 20)
    guest.migrate(uri + ",timeout=4s")
    deadline = time.monotonic() + 60
    while True:
        info = guest.qmp("query-migrate")
        if (info["status"] == "pre-switchover" if moment == "stopped"
                else info.get("ram", {}).get("transferred", 0) > 10 << 20):
            return target
        if time.monotonic() > deadline:
            raise Failure(f"{info}\n{guest.output()}")
        time.sleep(0.1)


def must_have_failed():
    info = guest.await_migration(60)
    guest.qmp("migrate-set-parameters", max_bandwidth=0)
    if info["status"] != "failed" or "vmferry" not in info.get("error-desc", ""):
        raise Failure(f"{info}\n{guest.output()}")
    guest.must_tick()
    guest.sums_stay_right()


def link_cut(moment, **capabilities):
    target = begin(moment, **capabilities)
    ask("link", "cut")
    try:
        if moment == "stopped":
            guest.qmp("migrate-continue", state="pre-switchover")
        must_have_failed()
    finally:
        ask("link", "restore")
    target.await_exit(60)
    if target.ticks():
        raise Failure("the destination ran as well")
    there_and_back("")


def link_cut_in_setup():
    target, uri = incoming_there()
    ask("link", "cut")
    try:
        guest.capability(**MODES)
        guest.migrate(uri + ",connect-timeout=4s")
        must_have_failed()
    finally:
        ask("link", "restore")
    target.end()
    there_and_back("")


def host_killed():
    begin("first round")
    ask("kill", "2")
    must_have_failed()


def run(name, function, *arguments, **named):
    """A check, with a running guest, whatever the one before has left."""
    global guest
    if not wanted(name):
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
    run("the link is cut: stopped", link_cut, "stopped")
    run("the destination's host is killed", host_killed)
    guest.end()
    finish()


main()
