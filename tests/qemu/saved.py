#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""saved -- VMs into files and out of them, by vmferry receive and send: saved.py QEMU GUEST VMFERRY"""
import os
import subprocess
import sys

from checks import Failure, Vm, check, finish, wanted
from moments import must_have_arrived

QEMU, GUEST, VMFERRY = sys.argv[1:4]
STOCK = "/usr/bin/qemu-system-x86_64"
ADDRESS = os.environ["LAB_ADDR"]
FILE = "/tmp/vm.mig"
MEMORY = 128
memory = None  # of the guest in the file
port = 4700


def next_uri():
    global port
    port += 1
    return f"rdma:{ADDRESS}:{port}"


def boot(qemu, arguments=()):
    vm = Vm(qemu, GUEST, memory=MEMORY, append="noise=30 churn=4", arguments=arguments)
    vm.await_console("^guest ready")
    vm.await_console("^tick 2")
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


def must_be_same(target, saved):
    must_have_arrived(target, saved)
    target.qmp("cont")
    target.must_tick()
    target.sums_stay_right()


def saved_from(qemu, arguments=()):
    """The file has a guest of that QEMU."""
    global memory
    source = boot(qemu, arguments)
    if qemu == STOCK:  # before 9.0 it loses pages of an emulated CPU that are written at a bad moment
        source.qmp("stop")
    try:
        memory = save(source, next_uri())
    finally:
        source.end()


def goes_on_in(qemu, uri, before, arguments=()):
    """The guest of the file goes on in a QEMU. before() is called after that QEMU has started."""
    target = Vm(qemu, GUEST, memory=MEMORY, incoming=uri, arguments=["-S", *arguments])
    try:
        before()
        must_be_same(target, memory)
    except Failure as failure:
        raise Failure(f"{failure}\ndestination said:\n{target.output()}")
    finally:
        target.end()


def sent_to(qemu, arguments=()):
    uri = next_uri()
    goes_on_in(qemu, uri, lambda: Command("send", uri, "--load", FILE).finish(), arguments)


def loaded_by_stock():
    """Stock QEMU loads from a pipe what vmferry has saved."""
    goes_on_in(STOCK, f"exec:cat {FILE}", lambda: None)


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
    source = boot(QEMU)
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
            ("saved from vmferry", saved_from, (QEMU,)),
            ("sent to stock", sent_to, (STOCK,)),
            ("sent to vmferry", sent_to, (QEMU,)),
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
            ("saved from stock, an old machine", saved_from, (STOCK, MACHINE)),
            ("sent to vmferry, an old machine", sent_to, (QEMU, MACHINE))):
        if wanted(title):
            check("file: " + title, function, *arguments)


arrange()
finish()
