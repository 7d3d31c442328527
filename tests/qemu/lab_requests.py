# SPDX-License-Identifier: BSD-2-Clause
"""lab_requests -- what a test on host 1 asks of lab-qemu.sh: cutting the link, ending the other host"""
import os
import time

from checks import Failure

FOLDER = os.environ["LAB_OUT"]


def ask(*words):
    """A command for the lab, such as link cut."""
    answer = os.path.join(FOLDER, "answer")
    with open(os.path.join(FOLDER, "request.new"), "w") as file:
        file.write(" ".join(words))
    os.rename(os.path.join(FOLDER, "request.new"), os.path.join(FOLDER, "request"))
    deadline = time.monotonic() + 60
    while not os.path.exists(answer):
        if time.monotonic() > deadline:
            raise Failure(f"the lab does not answer to {words}")
        time.sleep(0.1)
    os.unlink(answer)
