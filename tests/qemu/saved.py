#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""saved -- VMs into files and out of them, by vmferry receive and send: saved.py GUEST BUILD ROOT...

QEMU 10.0 has the preloaded library, or is stock. QEMU 7.2 has an old machine. (See preload_vms.py.)
"""
import os
import subprocess

import preload_vms
from checks import Failure, check, finish, wanted
from moments import must_have_arrived
from preload_vms import VMFERRY, incoming, modes_of, must_quit, next_uri, start

VERSION = "10.0"
FILE = "/tmp/vm.mig"
memory = None  # of the guest in the file


def boot(version, preload, arguments=()):
    vm = preload_vms.boot(version, preload, arguments=arguments)
    vm.qmp("migrate-set-parameters", max_bandwidth=0)
    return vm


class Command:
    """vmferry receive or send, in the background."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([VMFERRY, *arguments], stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)

    def await_listening(self):
        line = self.process.stdout.readline()
        if not line.startswith("listening on"):
            raise Failure(line + self.process.stdout.read())
        return self

    def finish(self, status=0):
        try:
            text, _ = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failure("vmferry does not end: " + self.process.communicate()[0])
        if self.process.returncode != status:
            raise Failure(f"vmferry ended with {self.process.returncode}, not {status}: {text}")
        return text


def save(source, uri):
    """The guest goes to the file, and the source's VM ends. Returns its memory."""
    receiver = Command("receive", uri, "--save", FILE).await_listening()
    source.must_migrate(uri)
    receiver.finish()
    left = [name for name in os.listdir("/tmp") if name.startswith("vm.mig.")]
    if left:
        raise Failure(f"left behind: {left}")
    return source.ram()


def saved_from(version, preload, arguments=()):
    """The file has a guest of that QEMU."""
    global memory
    source = boot(version, preload, arguments)
    try:
        if version == "7.2":  # it loses pages of an emulated CPU that are written at a bad moment
            source.qmp("stop")
        memory = save(source, next_uri())
        must_quit(source)
    finally:
        source.end()


def goes_on(target):
    try:
        must_have_arrived(target, memory)
        target.qmp("cont")
        target.must_tick()
        target.sums_stay_right()
    except Failure as failure:
        raise Failure(f"{failure}\ndestination said:\n{target.output()}")
    finally:
        target.end()


def sent_to(version, preload, pin_all=False, arguments=()):
    uri = next_uri()
    target = incoming(version, uri, preload, modes_of(version, pin_all), arguments=["-S", *arguments])
    try:
        Command("send", uri, "--load", FILE).finish()
    except Failure as failure:
        text = f"{failure}\ndestination said:\n{target.output()}"
        target.end()
        raise Failure(text)
    goes_on(target)


def loaded_by_stock():
    """Stock QEMU loads from a pipe what vmferry has saved."""
    goes_on(start(VERSION, False, incoming=f"exec:cat {FILE}", arguments=["-S"]))


def from_file_to_file():
    """The file is sent, and received as the same file."""
    uri = next_uri()
    receiver = Command("receive", uri, "--save", FILE + "2").await_listening()
    Command("send", uri, "--load", FILE).finish()
    receiver.finish()
    subprocess.run(["cmp", FILE, FILE + "2"], check=True)
    os.unlink(FILE + "2")


def refused_to_load(change, pattern):
    """A file that is not whole gets an error that says where. No destination is connected to."""
    with open(FILE, "rb") as file:
        content = bytearray(file.read())
    with open(FILE + "-bad", "wb") as file:
        file.write(change(content))
    text = Command("send", next_uri(), "--load", FILE + "-bad").finish(status=1)
    os.unlink(FILE + "-bad")
    if pattern not in text:
        raise Failure(f"the error does not say {pattern!r}: {text}")


def source_is_cancelled():
    """No file appears, and the guest runs on."""
    source = boot(VERSION, True)
    uri = next_uri()
    receiver = Command("receive", uri, "--save", FILE + "-cancelled").await_listening()
    try:
        source.qmp("migrate-set-parameters", max_bandwidth=10 << 20)
        source.migrate(uri)
        while source.qmp("query-migrate").get("ram", {}).get("transferred", 0) < 5 << 20:
            pass
        source.qmp("migrate_cancel")
        text = receiver.finish(status=1)
        if "cancel" not in text:
            raise Failure(text)
        left = [name for name in os.listdir("/tmp") if name.startswith("vm.mig-cancelled")]
        if left:
            raise Failure(f"left behind: {left}")
        source.must_tick()
    finally:
        source.end()


def with_bytes(at, data):
    def change(content):
        content[at:at + len(data)] = data
        return content
    return change


MACHINE = ("-machine", "pc-i440fx-2.3")


def arrange():
    for title, function, arguments in (
            ("saved from vmferry", saved_from, (VERSION, True)),
            ("sent to stock", sent_to, (VERSION, False)),
            ("sent to vmferry", sent_to, (VERSION, True)),
            ("sent to vmferry, pin-all", sent_to, (VERSION, True, True)),
            ("loaded by stock from a pipe", loaded_by_stock, ()),
            ("from file to file", from_file_to_file, ()),
            ("with another magic", refused_to_load, (with_bytes(0, b"ELF!"), "magic 0x454c4621")),
            ("too new", refused_to_load, (with_bytes(7, b"\x04"), "version 4")),
            ("cut in its RAM", refused_to_load, (lambda content: content[:1 << 20], "it was cut")),
            ("cut in its device state", refused_to_load,
             (lambda content: content[:-1000], "has no end")),
            ("damaged", refused_to_load, (with_bytes(40, b"\xff" * 64), "before offset")),
            ("of something else", refused_to_load, (lambda content: bytearray(100), "magic")),
            ("a source that is cancelled leaves no file", source_is_cancelled, ()),
            ("saved from stock, an old machine", saved_from, ("7.2", False, MACHINE)),
            ("sent to vmferry, an old machine", sent_to, ("7.2", True, False, MACHINE))):
        if wanted(title):
            check("file: " + title, function, *arguments)


arrange()
finish()
