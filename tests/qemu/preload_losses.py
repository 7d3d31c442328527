#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""preload_losses -- unpatched QEMUs with the preloaded library are lost or cancelled: one row of the table in
docs/handover.md for each check; preload_losses.py GUEST BUILD ROOT... (see preload_vms.py)
"""
import os
import re
import time

from checks import Failure, check, finish, wanted
from preload_phases import PHASES, SAVED, Migration, go_on, save_guest, settled, who


def source_killed(migration):
    migration.source.kill()
    go_on(migration.target)


def target_killed(migration):
    migration.target.kill()
    go_on(migration.source)


def cancelled(migration):
    """The monitor may be held by QEMU's wait: then the cancel comes as soon as that allows it."""
    before = migration.asking

    def cancel():
        if before:
            before.join(60)
        migration.source.qmp("migrate_cancel")

    go_on(migration.source)
    migration.ask(cancel)
    time.sleep(0.5)
    go_on(migration.target)
    migration.answered()


EVENTS = {"source killed": source_killed, "destination killed": target_killed, "cancelled": cancelled}


# phase, event -> who may run the VM, and what the survivor says
ROWS = {
    ("connecting", "source killed"): ("nobody", None),
    ("connecting", "destination killed"): ("source", None),
    ("connecting", "cancelled"): ("source", None),
    ("first pass", "source killed"): ("nobody", "."),
    ("first pass", "destination killed"): ("source", "."),
    ("first pass", "cancelled"): ("source", None),
    ("loading", "source killed"): ("nobody", "."),
    ("loading", "destination killed"): ("source", "."),
    ("loading", "cancelled"): ("source destination", None),
    ("loaded", "source killed"): ("nobody", "."),
    ("loaded", "destination killed"): ("source nobody", "."),
    ("loaded", "cancelled"): ("source destination", None),
    ("given", "source killed"): ("destination", None),
    ("given", "destination killed"): ("nobody", "."),
    ("given", "cancelled"): ("destination", None),
}


def row(phase, event, return_path):
    migration = Migration(phase, return_path)
    try:
        PHASES[phase](migration)
        EVENTS[event](migration)
        settled(migration)
        found = who(migration)
        survivor = migration.source if migration.source.alive() else migration.target
        text = survivor.output()
        expected, pattern = ROWS[phase, event]
        if found not in expected.split():
            raise Failure(f"{found} runs the VM, not {expected}")
        if pattern and not re.search("^vmferry: .*" + pattern, text, re.M):
            raise Failure(f"the survivor does not say /{pattern}/:\n{text}")
    except Failure as failure:
        raise Failure(f"{failure}\nsource said:\n{migration.source.output()}"
                      f"destination said:\n{migration.target.output()}")
    finally:
        migration.end()


def main():
    save_guest()
    for return_path in (False, True):
        for phase, event in ROWS:
            name = f"{phase}, {event}{', return path' if return_path else ''}"
            if wanted(name):
                check(name, row, phase, event, return_path)
    os.unlink(SAVED)
    finish()


main()
