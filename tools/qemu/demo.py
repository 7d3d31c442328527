#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""demo -- a running guest moves from lab host 1 to lab host 2: demo.py GUEST BUILD ROOT

ROOT has an unpatched QEMU (tools/qemu/debian). It moves the guest with the library of BUILD preloaded, which
must not fail, and then without.
"""
import os
import sys
import time

from agent import Remote
from vm import Failure, Vm, in_root, preloaded, spelled_for

THERE = "10.77.0.2"
BAR = 40
MIB = 1 << 20


class Progress:
    """A bar from query-migrate, on a terminal; else a line every second."""

    def __init__(self):
        # The lab passes on what is printed, so its terminal is not seen from here.
        self.terminal = os.environ.get("VMFERRY_DEMO_BAR") == "1"
        self.shown = 0.0

    def __call__(self, info):
        ram = info.get("ram")
        now = time.monotonic()
        if not ram or not ram["total"] or (not self.terminal and now - self.shown < 1):
            return
        self.shown = now
        done = 1 - ram["remaining"] / ram["total"]
        text = (f"round {max(1, ram['dirty-sync-count'])}  {ram['transferred'] / MIB:5.0f} MiB sent  "
                f"{ram['remaining'] / MIB:4.0f} left  {ram['mbps'] / 1000:5.2f} Gb/s")
        if self.terminal:
            bar = "#" * round(done * BAR)
            print(f"\r  [{bar:<{BAR}}] {text}  ", end="", flush=True)
        else:
            print(f"  {done:4.0%}  {text}", flush=True)

    def end(self):
        if self.terminal:
            print()


def looked_over(target):
    """Whether the guest has found all its memory unchanged after the move."""
    target.must_tick()
    try:
        target.sums_stay_right()
    except Failure as failure:
        print(f"  {failure}", flush=True)
        return False
    return True


def move(number, guest, name, qemu, environment, options):
    """Boots a guest here and moves it there. Returns query-migrate, and whether the guest is well."""
    there = Remote(THERE, 4000)
    uri = f"rdma:{THERE}:{4440 + number}"
    progress = Progress()
    print(f"\n{name}: booting a guest of 256 MiB on host 1", flush=True)
    source = Vm(qemu, guest, append="noise=96", environment=environment)
    target = Vm(qemu, guest, incoming=uri, environment=environment, host=there, qmp=(THERE, 4540 + number))
    try:
        source.await_console("^guest ready")
        source.await_console("^sum OK")
        before = source.ticks()
        print(f"  it runs: tick {before}, 96 MiB of noise checked, 8 MiB being rewritten all the time")
        print(f"  migrate {spelled_for(qemu, uri + options)}", flush=True)
        source.migrate(uri + options)
        info = source.await_migration(progress=progress)
        progress.end()
        if info["status"] != "completed":
            raise Failure(f"{info}\n{source.output()}")
        target.await_status("running")
        well = looked_over(target)
        print(f"  it runs on host 2: tick {target.ticks()}, the noise is {'the same' if well else 'NOT THE SAME'};"
              f" host 1: {source.qmp('query-status')['status']}", flush=True)
    except Failure as failure:
        raise Failure(f"{failure}\nsource:\n{source.output()}destination:\n{target.output()}")
    finally:
        source.end()
        target.end()
    return info, well


def main():
    guest, build, root = sys.argv[1:]
    ways = (("vmferry, 4 channels", preloaded(build), ",channels=4"), ("stock QEMU's rdma:", ("env",), ""))
    rows = [(name, *move(number, guest, name, in_root(root), environment, options))
            for number, (name, environment, options) in enumerate(ways)]
    print(f"\n{'':<28}{'total':>10}{'downtime':>12}{'set-up':>10}{'sent':>12}{'throughput':>13}  guest")
    for name, info, well in rows:
        print(f"{name:<28}{info['total-time']:>7} ms{info['downtime']:>9} ms{info['setup-time']:>7} ms"
              f"{info['ram']['transferred'] / MIB:>8.0f} MiB{info['ram']['mbps'] / 1000:>8.2f} Gb/s"
              f"  {'well' if well else 'DAMAGED'}")
    if not rows[0][2]:
        raise Failure(f"{rows[0][0]}: the guest was damaged")


try:
    main()
except Failure as failure:
    sys.exit(f"demo: {failure}")
