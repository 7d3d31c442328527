# SPDX-License-Identifier: BSD-2-Clause
"""preload_vms -- Debian's QEMUs with the preloaded library and without: SCRIPT.py GUEST BUILD ROOT...

One host of the lab, or host 1 of two with agent.py on host 2: then destinations are there. The roots
are those of tools/qemu/debian.
"""
import os
import re
import sys

from checks import Failure, Remote, Vm, in_root, version_in
from vm import LOCAL, preloaded  # noqa: F401  (LOCAL for the tests to take from here)
from moments import must_have_arrived

GUEST, BUILD = sys.argv[1:3]
THERE = os.environ["LAB_PEER"]
TWO = os.environ["LAB_ADDR"] != THERE
VMFERRY = f"{BUILD}/tools/vmferry"
os.environ["VMFERRY_PLUGIN_PATH"] = f"{BUILD}/rdma"
MEMORY = 128
port = 4700


def short_version(root):
    version = version_in(root)
    return "11" if version.startswith("11.") else version


QEMUS = {short_version(root): in_root(root) for root in sys.argv[3:]}


def next_uri():
    global port
    port += 1
    return f"rdma:{THERE}:{port}"


def start(version, preload=True, options="", there=False, **named):
    if there and TWO:
        named.update(host=Remote(THERE, 4000), qmp=(THERE, 200 + port))
    return Vm(QEMUS[version], GUEST, memory=MEMORY, environment=preloaded(BUILD, options) if preload else ["env"], **named)


def boot(version, preload=True, **named):
    vm = start(version, preload, append="noise=24 churn=4", **named)
    vm.await_console("^guest ready")
    vm.await_console("^tick 2")
    return vm


def incoming(version, uri, preload=True, modes=None, **named):
    """A destination that listens. It has the capabilities before, as stock QEMU wants it."""
    target = start(version, preload, incoming="defer", there=True, **named)
    try:
        target.capability(**(modes or {}))
        target.qmp("migrate-incoming", uri=uri)
    except Failure as failure:
        text = f"{failure}\n{target.output()}"
        target.end()
        raise Failure(text)
    return target


def modes_of(version, pin_all=False, return_path=False, switchover_ack=False):
    """The capabilities. The return path of 7.2 is not known to its rdma:."""
    modes = {"rdma_pin_all": pin_all, "return_path": return_path and version != "7.2"}
    if version != "7.2":
        modes["switchover_ack"] = switchover_ack
    return modes


def must_quit(vm, before=0):
    """QEMU ends in good order, and has said nothing since then. (7.2 always names its device.)"""
    vm.qmp("quit")
    vm.await_exit(60)
    status = vm.host.status(vm.process)
    text = re.sub("^[a-z_]* RDMA Device opened: .*", "", vm.output()[before:], flags=re.M).strip()
    if status != 0 or text:
        raise Failure(f"{vm.name} ended with {status}, and said:\n{text}")


def move(source, version, preload=True, pin_all=False, return_path=False, stopped=False, options="", named=None,
         switchover_ack=False):
    """The guest goes on in another QEMU, which is returned; the memory of a stopped one is compared."""
    uri, before = next_uri(), len(source.output())
    modes = modes_of(version, pin_all, return_path, switchover_ack)
    target = incoming(version, uri, preload, modes, arguments=["-S"] if stopped else [], **(named or {}))
    try:
        source.capability(**modes)
        source.qmp("migrate-set-parameters", max_bandwidth=0)
        if stopped:
            source.qmp("stop")
        source.must_migrate(uri + options)
        if source.running():
            raise Failure("the source still runs")
        if stopped:
            must_have_arrived(target, source.ram())
            target.qmp("cont")
        must_quit(source, before)
        target.await_status("running")
        target.must_tick()
        # QEMU before 9.0 loses pages of an emulated CPU that are written at a bad moment.
        if stopped or version != "7.2":
            target.sums_stay_right()
    except Failure as failure:
        text = f"{failure}\nsource said:\n{source.output()}destination said:\n{target.output()}"
        target.end()
        raise Failure(text)
    source.end()
    return target


class Moving:
    """A guest that goes from check to check, and is booted again when a check has lost it."""

    def __init__(self, version):
        self.version, self.vm = version, None

    def here(self, preload=True):
        """The QEMU that has it, with the library or without."""
        if not self.vm or not self.vm.is_well():
            self.end()
            self.vm, self.preload = boot(self.version, preload), preload
        if self.preload != preload:
            self.move(preload=preload)
        return self.vm

    def move(self, preload=True, **named):
        self.vm, self.preload = move(self.vm, self.version, preload, **named), preload

    def end(self):
        if self.vm:
            self.vm.end()
            self.vm = None
