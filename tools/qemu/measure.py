#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""measure -- QEMU with vmferry against stock QEMU's rdma:, in turn: measure.py VMFERRY-QEMU GUEST [RUNS]

Run it by tools/lab exec (one host), or on host 1 of two with agent.py on host 2.
"""
import os
import statistics
import sys
import time

from agent import Remote
from vm import LOCAL, Failure, Vm

OURS, GUEST = sys.argv[1:3]
RUNS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
STOCK = "/usr/bin/qemu-system-x86_64"
TWO = os.environ["LAB_ADDR"] != os.environ["LAB_PEER"]
THERE = os.environ["LAB_PEER"]
CHANNELS = ",channels=8" if TWO else ""
number = 0


def target(qemu):
    global number
    number += 1
    uri = f"rdma:{THERE}:{4440 + number}"
    if TWO:
        return Vm(qemu, GUEST, incoming=uri, host=Remote(THERE, 4000), qmp=(THERE, 4540 + number)), uri
    return Vm(qemu, GUEST, incoming=uri, host=LOCAL), uri


def once(source, qemu, options, pin_all, stopped):
    """One migration; the source has its guest again afterwards."""
    there, uri = target(qemu)
    source.capability(rdma_pin_all=pin_all)
    if stopped:
        source.qmp("stop")
    before = source.cpu_seconds()
    source.migrate(uri + options)
    info = source.await_migration()
    if info["status"] != "completed":
        raise Failure(f"{info}\n{source.output()}\n{there.output()}")
    there.await_status("running", "paused")
    there.end()
    info["cpu"] = source.cpu_seconds() - before
    source.qmp("cont")
    return info


def boot(qemu, append):
    vm = Vm(qemu, GUEST, append=append)
    vm.await_console("^guest ready")
    vm.await_console("^tick 3")
    vm.qmp("migrate-set-parameters", max_bandwidth=0)
    return vm


def compare(title, append, pin_all, stopped):
    ways = {"stock": (STOCK, ""), "vmferry": (OURS, CHANNELS)}
    sources = {name: boot(qemu, append) for name, (qemu, _) in ways.items()}
    results = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, (qemu, options) in ways.items():
            results[name].append(once(sources[name], qemu, options, pin_all, stopped))
            time.sleep(1)
    for source in sources.values():
        source.end()
    totals = {}
    for name, infos in results.items():
        total = [info["total-time"] for info in infos]
        totals[name] = statistics.median(total)
        gib = statistics.median(info["ram"]["transferred"] for info in infos) / (1 << 30)
        print(f"  {title:<34} {name:<8} total {statistics.median(total):6.0f} ms "
              f"({min(total)} to {max(total)}), set-up {statistics.median(i['setup-time'] for i in infos):4.0f}, "
              f"downtime {statistics.median(i['downtime'] for i in infos):5.0f} ms, "
              f"CPU {statistics.median(i['cpu'] for i in infos) / max(gib, 0.001):5.2f} s/GiB", flush=True)
    print(f"  {title:<34} {totals['stock'] / totals['vmferry']:.1f} times faster", flush=True)


print(f"{'two hosts' if TWO else 'one host'}, guests of 256 MiB, {RUNS} runs each in turn, medians", flush=True)
for pin_all in (False, True):
    mode = "pin-all" if pin_all else "chunk"
    compare(f"{mode}, stopped, memory full", "noise=165 churn=0", pin_all, True)
    compare(f"{mode}, stopped, a third untouched", "noise=96 churn=0", pin_all, True)
    compare(f"{mode}, running and changing", "noise=96 churn=8", pin_all, False)
