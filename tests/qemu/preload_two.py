#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""preload_two -- unpatched QEMUs with the preloaded library on two hosts: the link is cut, a host ends; rows of the
table in docs/handover.md; preload_two.py GUEST BUILD ROOT... on host 1 (see preload_vms.py), agent.py on host 2
"""
import os
import re
import signal

from checks import Failure, check, finish, wanted
from lab_requests import ask
from preload_phases import PHASES, SAVED, Migration, save_guest, settled, who
from preload_vms import boot, move

# phase -> who may run the VM at the end, and what the source says
CUT = {
    "connecting": ("source", "."),
    "first pass": ("source", "."),
    "loading": ("source", "."),
    "loaded": ("source nobody", "."),
    "given": ("nobody", "unknown"),
}
HOST = {
    "connecting": ("source", "."),
    "first pass": ("source", "."),
    "loading": ("source", "."),
    "loaded": ("source nobody", "."),
    "given": ("nobody", "unknown"),
}


def await_source(migration):
    """The source knows how it ends, although it does not reach the destination."""
    settled_source = Migration.__new__(Migration)
    settled_source.asking = migration.asking
    settled_source.source = settled_source.target = migration.source
    settled_source.phase = migration.phase
    settled(settled_source)


def must_say(migration, row, found):
    expected, pattern = row
    text = migration.source.output()
    if found not in expected.split():
        raise Failure(f"{found} runs the VM, not {expected}")
    if not re.search("^vmferry: .*" + pattern, text, re.M):
        raise Failure(f"the source does not say /{pattern}/:\n{text}")


def link_cut(phase, return_path):
    migration = Migration(phase, return_path)
    try:
        PHASES[phase](migration)
        ask("link", "cut")
        try:
            migration.source.kill(signal.SIGCONT)
            await_source(migration)
        finally:
            ask("link", "restore")
        migration.target.kill(signal.SIGCONT)
        settled(migration)
        found = who(migration)
        must_say(migration, CUT[phase], found)
    except Failure as failure:
        raise Failure(f"{failure}\nsource said:\n{migration.source.output()}"
                      f"destination said:\n{migration.target.output()}")
    finally:
        migration.end()


def host_killed(phase, return_path):
    migration = Migration(phase, return_path)
    try:
        PHASES[phase](migration)
        ask("kill", "2")
        try:
            migration.source.kill(signal.SIGCONT)
            await_source(migration)
            found = "source" if migration.source.is_well() else "nobody"
        finally:
            ask("restart", "2")
        must_say(migration, HOST[phase], found)
    finally:
        migration.source.end()


def there():
    source = boot("10.0")
    try:
        move(source, "10.0", return_path=True).end()
    finally:
        source.end()


def main():
    if wanted("a guest moves"):
        check("a guest moves to the other host", there)
    save_guest()
    for return_path in (False, True):
        for title, function, rows in (("link cut", link_cut, CUT), ("host killed", host_killed, HOST)):
            for phase in rows:
                name = f"{phase}, {title}{', return path' if return_path else ''}"
                if wanted(name) and not (return_path and title == "host killed"):
                    check(name, function, phase, return_path)
    os.unlink(SAVED)
    finish()


main()
