#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""bench-json -- what "vmferry bench --json" wrote is what docs/benchmark.md says: bench-json.py FILE ROWS"""
import json
import os
import re
import sys

TEXTS = {"uri", "registration", "pattern", "device_way"}
REQUIRED = {"channels", "registration", "pattern", "ram_bytes", "bytes_written", "seconds",
            "throughput_bytes_per_second", "raw_bytes_per_second", "final_flush_seconds",
            "registration_seconds", "source_cpu_seconds", "destination_cpu_seconds", "verified"}


def documented():
    path = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../docs/benchmark.md")
    with open(path) as file:
        section = file.read().split("## JSON")[1]
    first_cells = re.findall(r"^\| (`.*?) \|", section, re.M)
    return {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}


def faults(row, names):
    for name in sorted(names - row.keys()):
        yield f"{name} is documented, but not there"
    for name in sorted(row.keys() - names):
        yield f"{name} is there, but not documented"
    for name, value in row.items():
        if name == "verified":
            good = value is True
        elif name in TEXTS:
            good = isinstance(value, str) and value
        else:
            good = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        if not good:
            yield f"{name} is {value!r}"
    if abs(row["throughput_bytes_per_second"] * row["ram_seconds"] / row["ram_bytes"] - 1) > 0.01:
        yield "the throughput is not ram_bytes by ram_seconds"


def main():
    with open(sys.argv[1]) as file:
        result = json.load(file)
    names = documented()
    found = [f"{name} is not documented" for name in sorted(REQUIRED - names)]
    if result.keys() != {"version", "uri", "runs"}:
        found.append(f"the object has {sorted(result)}")
    if len(result["runs"]) != int(sys.argv[2]):
        found.append(f"{len(result['runs'])} rows instead of {sys.argv[2]}")
    for row in result["runs"]:
        found += faults(row, names)
    print("\n".join(found))
    sys.exit(bool(found))


main()
