# SPDX-License-Identifier: BSD-2-Clause
"""preload_phases -- migrations of preloaded QEMUs that are held in a phase, and who runs the VM after it"""
import signal
import threading
import time

from checks import Failure
from moments import await_moment
from preload_vms import LOCAL, boot, incoming, modes_of, next_uri, start

VERSION = "10.0"
SAVED = "/tmp/saved-guest"
OPTIONS = "timeout=8s,connect-timeout=8s"


def save_guest():
    """The guest of all checks, which a QEMU loads in a moment."""
    vm = boot(VERSION, False)
    try:
        vm.qmp("migrate-set-parameters", max_bandwidth=0)
        vm.must_migrate(f"file:{SAVED}")
    finally:
        vm.end()


def from_saved():
    vm = start(VERSION, options=OPTIONS, incoming=f"file:{SAVED}")
    vm.await_status("running", timeout=60)
    return vm


def await_thread(vm, name):
    deadline = time.monotonic() + 30
    while name[:15] not in vm.threads():
        if time.monotonic() > deadline:
            raise Failure(f"{vm.name} has no thread {name}:\n{vm.output()}")
        time.sleep(0.05)


def await_sleep(vm):
    """The process waits: it has used no CPU for a while."""
    deadline = time.monotonic() + 30
    before, quiet = vm.cpu_seconds(), 0
    while quiet < 4:
        if time.monotonic() > deadline:
            raise Failure(f"{vm.name} does not come to rest")
        time.sleep(0.25)
        now = vm.cpu_seconds()
        quiet, before = (quiet + 1 if now == before else 0), now


# --- the phases ---

class Migration:
    """A migration that is held in a phase, and both QEMUs."""

    def __init__(self, phase, return_path):
        self.phase, self.asking, self.source = phase, None, from_saved()
        try:
            self.uri = next_uri()
            self.modes = {**modes_of(VERSION, phase not in ("connecting", "first pass"), return_path),
                          "pause_before_switchover": phase not in ("connecting", "first pass")}
            self.target = incoming(VERSION, self.uri, modes=self.modes, options=OPTIONS)
        except BaseException:
            self.source.end()
            raise
        self.source.capability(**self.modes)

    def end(self):
        for vm in (self.source, self.target):
            vm.end()

    def connecting(self):
        """The destination does not answer. QEMU's monitor waits for it, too."""
        self.target.kill(signal.SIGSTOP)
        self.ask(self.source.migrate, self.uri)
        await_thread(self.source, "vmferry-connect")

    def ask(self, command, *arguments, **named):
        """A command that the monitor may answer late, because QEMU waits."""
        def run():
            try:
                command(*arguments, **named)
            except (Failure, OSError, ValueError):
                pass  # its outcome is looked at later

        self.asking = threading.Thread(target=run, daemon=True)
        self.asking.start()

    def answered(self):
        """The monitor of the source is free."""
        if self.asking:
            self.asking.join(60)

    def first_pass(self):
        self.source.qmp("migrate-set-parameters", max_bandwidth=4 << 20)
        self.source.migrate(self.uri)
        if not await_moment(self.source, lambda info: info["status"] == "active"
                            and info["ram"]["transferred"] > 1 << 20):
            raise Failure(f"it was over too soon for this check:\n{self.source.output()}")

    def loading(self):
        """The source has sent all, and the destination has not loaded it."""
        self.source.qmp("migrate-set-parameters", max_bandwidth=0)
        self.source.migrate(self.uri)
        if not await_moment(self.source, lambda info: info["status"] == "pre-switchover"):
            raise Failure(f"it was over too soon for this check:\n{self.source.output()}")
        await_sleep(self.target)
        self.target.kill(signal.SIGSTOP)
        self.ask(self.source.qmp, "migrate-continue", state="pre-switchover")
        await_thread(self.source, "vmferry-give")

    def loaded(self):
        """The destination has loaded all and waits for GO; the source does not know yet."""
        self.loading()
        self.source.kill(signal.SIGSTOP)
        self.target.kill(signal.SIGCONT)
        time.sleep(0.5)
        await_sleep(self.target)

    def given(self):
        """GO is sent; the destination has not read it."""
        self.loaded()
        self.target.kill(signal.SIGSTOP)
        self.source.kill(signal.SIGCONT)
        self.answered()
        if self.source.await_migration(20)["status"] != "completed":
            raise Failure(f"{self.source.output()}")


PHASES = {"connecting": Migration.connecting, "first pass": Migration.first_pass, "loading": Migration.loading,
          "loaded": Migration.loaded, "given": Migration.given}


def go_on(vm):
    """A process that is held for the phase runs on."""
    if vm.alive():
        vm.kill(signal.SIGCONT)


# --- who runs the VM ---

def is_over(vm, migration):
    """Nothing is open there: it has ended, or the migration has. A destination may wait for its first source."""
    if not vm.alive():
        return True
    try:
        if vm is migration.source:
            over = vm.qmp("query-migrate").get("status") in (None, "completed", "failed", "cancelled")
        else:
            over = migration.phase == "connecting" or vm.qmp("query-status")["status"] != "inmigrate"
    except Failure:
        return False  # it is about to end
    return over and not has_ends(vm)


def settled(migration):
    migration.answered()
    deadline = time.monotonic() + 60
    while not all([is_over(vm, migration) for vm in (migration.source, migration.target)]):
        if time.monotonic() > deadline:
            raise Failure(f"it does not come to an end: {migration.source.alive()} {migration.target.alive()}")
        time.sleep(0.3)


def has_ends(vm):
    """Something of vmferry's still waits there."""
    return vm.host is LOCAL and vm.alive() and {"vmferry-end", "vmferry-give"} & set(vm.threads())


def who(migration):
    """Who runs the VM. Whoever does not must stand still."""
    running = [name for name, vm in (("source", migration.source), ("destination", migration.target)) if vm.is_well()]
    for vm in (migration.source, migration.target):
        if vm.alive() and not vm.is_well():
            vm.must_stand(2)
    if len(running) == 2:
        raise Failure("both run the VM")
    return running[0] if running else "nobody"
