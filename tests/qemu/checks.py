# SPDX-License-Identifier: BSD-2-Clause
"""checks -- runs checks by name and counts them"""
import os
import re
import sys
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../tools/qemu"))
from agent import Remote  # noqa: E402  (for the tests to take from here)
from vm import Failure, Vm, in_root, version_in  # noqa: E402

ONLY = os.environ.get("VMFERRY_TEST_ONLY", "")
# The long run has the checks that resemble one of the usual run, and only these.
LONG = "VMFERRY_TEST_LONG" in os.environ
counts = {"passed": 0, "failed": 0}


def wanted(name, long=False):
    """Whether a check belongs to this run, the usual or the long one, and has the name that is asked for."""
    return long == LONG and re.search(ONLY, name) is not None


def check(name, function, *arguments, **named):
    """Runs one check; its exception is its failure."""
    began = time.monotonic()
    try:
        function(*arguments, **named)
    except Failure as failure:
        text = str(failure)
    except Exception:  # a fault of the test itself is a failure, too
        text = traceback.format_exc()
    else:
        counts["passed"] += 1
        print(f"ok      {name} ({time.monotonic() - began:.0f} s)", flush=True)
        return
    counts["failed"] += 1
    print(f"FAILED  {name}", flush=True)
    for line in text.splitlines()[-60:]:
        print(f"        | {line}", flush=True)


def finish():
    print(f"{counts['passed']} passed, {counts['failed']} failed, 0 skipped", flush=True)
    sys.exit(counts["failed"] != 0)
