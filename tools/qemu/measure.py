#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""measure -- QEMU with vmferry against stock QEMU's rdma:, in turn: measure.py VMFERRY-QEMU GUEST [RUNS [ONLY]]

With VMFERRY_BUILD, a build of vmferry, stock QEMU with the preloaded library is a third one.

Run it by tools/lab exec (one host), or on host 1 of two with agent.py on host 2. ONLY is a regular
expression for the titles. Every run has a source booted for it: memory that one migration has
looked at is there for the next. "In place" is the source's memory when QEMU has allocated it
beforehand. The difference to the row without is what reading memory that nobody has touched costs
stock QEMU's code, with the library preloaded or not. In User-Mode Linux that is much.

The CPU time is given twice. Soft-RoCE makes packets in the thread that posts them or in an interrupt,
as it happens, and the kernel books an interrupt on the process that it met, or on none: only the
host's figure has all of them. On one host it has the destination's work as well.
"""
import os
import re
import statistics
import sys
import time

from agent import Remote
from vm import LOCAL, Failure, Vm, preloaded

OURS, GUEST = sys.argv[1:3]
RUNS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
ONLY = sys.argv[4] if len(sys.argv) > 4 else ""
STOCK = "/usr/bin/qemu-system-x86_64"
TWO = os.environ["LAB_ADDR"] != os.environ["LAB_PEER"]
THERE = os.environ["LAB_PEER"]
CHANNELS = ",channels=8" if TWO else ",channels=1"  # one host has one CPU: a second channel is only another thread
BUILD = os.environ.get("VMFERRY_BUILD")
PRELOAD = preloaded(BUILD, CHANNELS[1:])
number = 0


def target(qemu, pin_all, environment):
    global number
    number += 1
    uri = f"rdma:{THERE}:{4440 + number}"
    if TWO:
        vm = Vm(qemu, GUEST, incoming="defer", host=Remote(THERE, 4000), qmp=(THERE, 4540 + number), vga="none",
                environment=environment)
    else:
        vm = Vm(qemu, GUEST, incoming="defer", host=LOCAL, vga="none", environment=environment)
    vm.capability(rdma_pin_all=pin_all)
    vm.qmp("migrate-incoming", uri=uri)
    time.sleep(2)  # both sides may use that time to get ready
    return vm, uri


def warm_up(host):
    """Uses a lab host's memory before anything is measured, because the first use is slow."""
    populate = ("import mmap, re; kib = int(re.search(r'MemAvailable: +([0-9]+)', open('/proc/meminfo').read())[1]); "
                "mmap.mmap(-1, kib * 1024 // 10 * 9, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)")
    process = host.start(["python3", "-c", populate], "/tmp/warm-up.log")
    while host.status(process) is None:
        time.sleep(0.2)


def boot(qemu, append, environment, in_place):
    vm = Vm(qemu, GUEST, append=append, vga="none", environment=environment,
            arguments=["-mem-prealloc"] if in_place else [])
    vm.await_console("^guest ready")
    vm.await_console("^tick 3")
    vm.qmp("migrate-set-parameters", max_bandwidth=0)
    return vm


def busy_seconds():
    """The time that this host's processors have worked so far, in the kernel's clock ticks."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def once(way, append, pin_all, stopped, in_place):
    """Migrates a guest that is booted for it. Returns query-migrate at the end."""
    qemu, qemu_there, options, environment = way
    source = boot(qemu, append, environment, in_place)
    if stopped:
        source.qmp("stop")
    there, uri = target(qemu_there, pin_all, environment)
    try:
        source.capability(rdma_pin_all=pin_all, events=True)
        before, busy_before = source.cpu_seconds(), busy_seconds()
        source.migrate(uri + options)
        info = source.await_migration_quietly()
        info["cpu"] = source.cpu_seconds() - before
        info["busy"] = busy_seconds() - busy_before
        if info["status"] != "completed":
            raise Failure(f"{info}\n{source.output()}\n{there.output()}")
        there.await_status("running", "paused")
    finally:
        there.end()
        source.end()
    return info


def report(title, name, infos):
    def median(get):
        return statistics.median(get(info) for info in infos)

    total = [info["total-time"] for info in infos]
    sent = median(lambda info: info["ram"]["transferred"]) / (1 << 20)
    print(f"  {title:<34} {name:<16} total {statistics.median(total):6.0f} ms ({min(total)} to {max(total)}), "
          f"set-up {median(lambda info: info['setup-time']):4.0f}, "
          f"downtime {median(lambda info: info['downtime']):5.0f} ms, "
          f"sent {sent:4.0f} MiB, CPU s/GiB of guest: {median(lambda info: info['cpu']) * 4:5.2f} source QEMU, "
          f"{median(lambda info: info['busy']) * 4:5.2f} its host",
          flush=True)
    return statistics.median(total)


def compare(title, append, pin_all, stopped, ways, in_place=False):
    """Runs the ways in turn. The others are compared with the first."""
    if not re.search(ONLY, title):
        return
    results = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, way in ways.items():
            results[name].append(once(way, append, pin_all, stopped, in_place))
    totals = {name: report(title, name, infos) for name, infos in results.items()}
    first, *others = totals
    for name in others:
        print(f"  {title:<34} {name}: {totals[first] / totals[name]:.2f} times faster", flush=True)


warm_up(LOCAL)
if TWO:
    warm_up(Remote(THERE, 4000))
print(f"{'two hosts' if TWO else 'one host'}, guests of 256 MiB, {RUNS} runs each in turn, medians", flush=True)
own = {"stock": (STOCK, STOCK, "", ()), "vmferry": (OURS, OURS, CHANNELS, ())}
if BUILD:
    own["preloaded"] = (STOCK, STOCK, "", PRELOAD)
mixed = {"stock": (STOCK, STOCK, "", ()), "vmferry to stock": (OURS, STOCK, "", ()),
         "stock to vmferry": (STOCK, OURS, "", ())}
for pin_all in (False, True):
    mode = "pin-all" if pin_all else "chunk"
    compare(f"{mode}, stopped, memory full", "noise=165 churn=0", pin_all, True, own)
    compare(f"{mode}, stopped, in place", "noise=165 churn=0", pin_all, True, own, in_place=True)
    compare(f"{mode}, stopped, a third untouched", "noise=96 churn=0", pin_all, True, own)
    compare(f"{mode}, running and changing", "noise=96 churn=8", pin_all, False, own)
    compare(f"{mode}, one end stock, memory full", "noise=165 churn=0", pin_all, True, mixed)
