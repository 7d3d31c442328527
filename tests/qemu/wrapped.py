#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""wrapped -- Debian's QEMUs, started by vmferry-qemu as libvirt does: wrapped.py QEMU GUEST ROOT...

One host of the lab. vmferry-qemu is the one that is installed beside QEMU, which itself is not used.
The roots are those of tools/qemu/debian.
"""
import os
import re
import signal
import subprocess
import sys
import time

from checks import Failure, Vm, check, finish, in_root, version_in
from moments import must_have_arrived
from vm import Qmp, version_of

GUEST, ROOTS = sys.argv[2], sys.argv[3:]
WRAPPER = os.path.join(os.path.dirname(os.path.realpath(sys.argv[1])), "vmferry-qemu")
# As libvirt denies them.
SANDBOX = ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
port = 4900


def next_uri(options=""):
    global port
    port += 1
    return f"rdma:{os.environ['LAB_PEER']}{options}:{port}"


def must_have_a_sandbox(vm):
    with open(f"/proc/{vm.process.pid}/status", encoding="ascii") as status:
        if not re.search(r"^Seccomp:\s*2$", status.read(), re.M):
            raise Failure(f"{vm.name} has no sandbox")


def channels_of(vm):
    return sum(name.startswith("vmf-channel") for name in vm.threads())


def in_the_sandbox(root, by_variable, return_path):
    """A guest moves while it is stopped, over three channels, and runs on."""
    qemu = in_root(root)
    environment = ["env", *(["VMFERRY_QEMU_OPTIONS=channels=3"] if by_variable else []), WRAPPER]
    uri = next_uri("" if by_variable else ",channels=3")
    source = Vm(qemu, GUEST, append="noise=48 churn=4", environment=environment, arguments=SANDBOX)
    try:
        source.await_console("^guest ready")
        source.await_console("^tick 2")
        target = Vm(qemu, GUEST, incoming="defer", environment=environment, arguments=[*SANDBOX, "-S"])
        try:
            for vm in (source, target):
                must_have_a_sandbox(vm)
                vm.capability(return_path=return_path)
            target.qmp("migrate-incoming", uri=re.sub(",channels=3", "", uri))
            source.qmp("stop")
            source.qmp("migrate-set-parameters", max_bandwidth=8 << 20)
            source.migrate(uri)
            deadline = time.monotonic() + 30
            while channels_of(source) != 3:
                if time.monotonic() > deadline or not source.alive():
                    raise Failure(f"not three channels, but {channels_of(source)}\n{source.output()}")
                time.sleep(0.05)
            source.qmp("migrate-set-parameters", max_bandwidth=0)
            info = source.await_migration()
            if info["status"] != "completed":
                raise Failure(f"the migration failed: {info}\n{source.output()}\n{target.output()}")
            must_have_arrived(target, source.ram())
            target.qmp("cont")
            target.must_tick()
            target.sums_stay_right()
        finally:
            target.end()
    finally:
        source.end()


def answers_questions(root):
    """By the link, as libvirt asks an emulator what it can do."""
    folder = f"/tmp/{os.getpid()}-links"
    link, socket, number = (os.path.join(folder, name) for name in ("qemu-system-x86_64-vmferry", "qmp", "pid"))
    os.makedirs(folder, exist_ok=True)
    if not os.path.islink(link):
        os.symlink(WRAPPER, link)
    before = in_root(root)[:2]
    text = subprocess.run([*before, link, "-version"], capture_output=True, text=True, timeout=60).stdout
    if "QEMU emulator version " + version_in(root) not in text:
        raise Failure(f"it says {text!r}")
    subprocess.run([*before, link, "-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=tcg",
                    "-qmp", f"unix:{socket},server=on,wait=off", "-pidfile", number, "-daemonize"], check=True, timeout=60)
    with open(number, encoding="ascii") as file:
        pid = int(file.read())
    try:
        qmp = Qmp(socket)
        with open(f"/proc/{pid}/maps", encoding="ascii") as file:
            maps = file.read()
        if "/libvmferry-qemu.so" not in maps or "/libvmferry-qemu-engine.so" in maps:
            raise Failure("not the small library alone")
        if not qmp("query-machines") or "qmp_capabilities" not in str(qmp("query-commands")):
            raise Failure("it does not answer")
        qmp("quit")
        qmp.close()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


for folder in ROOTS:
    named = f"QEMU {version_in(folder)} by vmferry-qemu"
    major = version_of(in_root(folder))
    check(f"{named} answers libvirt's questions", answers_questions, folder)
    # QEMU 11 ends when options are in its URI, and 7.2 has no return path over rdma:.
    check(f"{named} migrates in libvirt's sandbox", in_the_sandbox, folder, major > 10, major > 7)
finish()
