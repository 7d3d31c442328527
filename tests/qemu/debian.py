#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""debian -- the QEMUs of Debian's releases, each in its root: debian.py QEMU GUEST ROOT...

One host of the lab. The roots are those of tools/qemu/debian.
"""
import os
import sys

from checks import Vm, check, finish, in_root, version_in
from moments import must_have_arrived

GUEST, ROOTS = sys.argv[2], sys.argv[3:]
port = 4700


def next_uri():
    global port
    port += 1
    return f"rdma:{os.environ['LAB_PEER']}:{port}"


def migrates(root):
    """A guest moves while it is stopped, so that its memory can be compared, and runs on."""
    qemu, uri = in_root(root), next_uri()
    source = Vm(qemu, GUEST, append="noise=96 churn=4")
    try:
        source.await_console("^guest ready")
        source.await_console("^tick 2")
        target = Vm(qemu, GUEST, incoming=uri, arguments=["-S"])
        try:
            source.qmp("stop")
            source.must_migrate(uri)
            must_have_arrived(target, source.ram())
            target.qmp("cont")
            target.must_tick()
            target.sums_stay_right()
        finally:
            target.end()
    finally:
        source.end()


for folder in ROOTS:
    check(f"Debian's QEMU {version_in(folder)} migrates over its own rdma:, chunk", migrates, folder)
finish()
