# SPDX-License-Identifier: BSD-2-Clause
"""vm -- QEMU processes under test: QMP, the guest's console, migration"""
import functools
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import time

PAGE = 4096
START_SECONDS = 180  # of a QEMU, on a machine that is busy with other tests
IN_ROOT = os.path.join(os.path.dirname(os.path.realpath(__file__)), "in-root")


class Failure(Exception):
    """A check that did not hold; its text is for people."""


class Qmp:
    """A QMP connection; every wait has a time-out."""

    def __init__(self, address, timeout=120):
        self.address, self.timeout, self.events = address, timeout, []
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
                self.socket = socket.socket(family)
                self.socket.settimeout(timeout)
                self.socket.connect(address)
                break
            except OSError:
                self.socket.close()
                if time.monotonic() > deadline:
                    raise Failure(f"no QMP at {address} within {START_SECONDS} s")
                time.sleep(0.1)
        self.stream = self.socket.makefile("rw")
        self._read()
        self("qmp_capabilities")

    def _read(self):
        try:
            line = self.stream.readline()
        except OSError as error:
            raise Failure(f"QMP {self.address}: {error}")
        if not line:
            raise Failure(f"QMP {self.address}: the connection was closed")
        return json.loads(line)

    def __call__(self, command, **arguments):
        """The command's result; Failure with QEMU's text on an error."""
        message = {"execute": command}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self.stream.write(json.dumps(message) + "\n")
            self.stream.flush()
        except OSError as error:
            raise Failure(f"QMP {self.address}: {error}")
        while True:
            answer = self._read()
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise Failure(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def await_event(self, wanted, seconds):
        """The first event, already here or still to come, for which wanted() holds."""
        seen = 0
        deadline = time.monotonic() + seconds
        self.socket.settimeout(seconds)
        try:
            while True:
                while seen < len(self.events):
                    if wanted(self.events[seen]):
                        return self.events[seen]
                    seen += 1
                if time.monotonic() > deadline:
                    raise Failure(f"QMP {self.address}: no such event within {seconds} s: {self.events}")
                self.events.append(self._read())
        finally:
            self.socket.settimeout(self.timeout)

    def close(self):
        self.stream.close()
        self.socket.close()


class Local:
    """Runs processes on this host."""

    def start(self, arguments, log):
        with open(log, "wb") as file:
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=file,
                                       stderr=subprocess.STDOUT)
        return process

    def read(self, path, start=0):
        try:
            with open(path, "rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""

    def kill(self, process, number):
        process.send_signal(number)

    def status(self, process):
        return process.poll()

    def hashes(self, path):
        with open(path, "rb") as file:
            return [hashlib.blake2b(page, digest_size=8).hexdigest()
                    for page in iter(lambda: file.read(PAGE), b"")]

    def remove(self, path):
        if os.path.exists(path):
            os.unlink(path)


LOCAL = Local()


def in_root(root):
    """Debian's QEMU in a root of tools/qemu/debian; a Vm takes it as it takes a binary's path."""
    return IN_ROOT, root, "/usr/bin/qemu-system-x86_64"


def version_in(root):
    """7.2, from the list of the root's packages."""
    with open(os.path.join(root, "packages"), encoding="utf-8") as packages:
        return re.search(r"^qemu-system-x86 (?:\d+:)?(\d+\.\d+)", packages.read(), re.M)[1]


def preloaded(build, options=""):
    """What sets the environment of a stock QEMU with the library of a build."""
    return ["env", f"LD_PRELOAD={build}/rdma/preload/libvmferry-qemu.so", f"VMFERRY_PLUGIN_PATH={build}/rdma",
            f"VMFERRY_QEMU_OPTIONS={options}"]


def command_of(qemu, environment=()):
    """The words that start a QEMU. What sets its environment runs in its root, too."""
    *before, binary = (qemu,) if isinstance(qemu, str) else qemu
    return [*before, *environment, binary]


@functools.lru_cache
def version_of(qemu):
    """The major version; 0 if it does not say."""
    text = subprocess.run([*command_of(qemu), "--version"], capture_output=True, text=True, timeout=30).stdout
    found = re.search(r"version (\d+)", text)
    return int(found[1]) if found else 0


def spelled_for(qemu, uri):
    """rdma:HOST:PORT,OPTIONS as this QEMU takes it: since 10 the options go after the host."""
    found = re.fullmatch(r"rdma:(?:\[(.*)\]|([^:]*)):(\d+)(,.*)", uri)
    if not found or version_of(qemu) < 10:
        return uri
    v6, host, port, options = found.groups()
    return f"rdma:[{v6}{options}]:{port}" if v6 is not None else f"rdma:{host}{options}:{port}"


class Vm:
    """One QEMU process with the test guest."""
    count = 0

    def __init__(self, qemu, guest, memory=256, incoming=None, host=LOCAL, qmp=None, append="",
                 arguments=(), environment=(), cpu_seconds=None, vga="std"):
        Vm.count += 1
        self.host, self.name, self.qemu = host, f"vm{Vm.count}", qemu
        base = f"/tmp/{os.getpid()}-{self.name}"
        self.console, self.log, self.core = base + ".console", base + ".log", base + ".core"
        self.memory = memory
        address = qmp or base + ".qmp"
        text = address if isinstance(address, str) else None
        command = [*command_of(qemu, environment), "-accel", "tcg", "-machine", "pc", "-m", str(memory), "-display", "none",
                   "-nodefaults", "-vga", vga, "-no-user-config",
                   "-kernel", guest + "/vmlinuz", "-initrd", guest + "/initrd.gz",
                   "-append", f"console=ttyS0 quiet panic=-1 {append}",
                   "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console",
                   "-qmp", f"unix:{text},server=on,wait=off" if text
                   else f"tcp:{address[0]}:{address[1]},server=on,wait=off", *arguments]
        if incoming:
            command += ["-incoming", spelled_for(qemu, incoming)]
        self.process = host.start(command, self.log)
        try:
            self.qmp = Qmp(address)
        except Failure as failure:
            raise Failure(f"{failure}\n{self.output()}")

    def output(self):
        """The output of QEMU itself."""
        return self.host.read(self.log).decode(errors="replace")

    def console_text(self):
        return self.host.read(self.console).decode(errors="replace")

    def ticks(self):
        found = re.findall(r"^tick (\d+)", self.console_text(), re.M)
        return int(found[-1]) if found else 0

    def await_console(self, pattern, timeout=180, after=0):
        """Waits for a line on the console, after the first `after' characters."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.console_text()[after:], re.M):
            if self.host.status(self.process) is not None:
                raise Failure(f"{self.name} ended:\n{self.output()}")
            if time.monotonic() > deadline:
                raise Failure(f"{self.name}: no /{pattern}/ within {timeout} s; console:\n"
                              f"{self.console_text()[-2000:]}\nQEMU:\n{self.output()[-2000:]}")
            time.sleep(0.2)

    def must_tick(self, timeout=30):
        """The guest runs: new ticks come."""
        self.await_console(r"^tick \d+\r?\n(.*\n)*tick \d+", timeout, len(self.console_text()))

    def must_stand(self, seconds=3):
        """The guest does not run."""
        before = self.ticks()
        time.sleep(seconds)
        if self.ticks() != before:
            raise Failure(f"{self.name} runs, which it must not")

    def sums_stay_right(self, timeout=240):
        self.await_console(r"^sum OK", timeout, len(self.console_text()))
        if re.search("sum BAD|disk BAD|cycle BAD", self.console_text()):
            raise Failure(f"{self.name}: the guest's memory or disk is not what it was")

    def running(self):
        return self.qmp("query-status")["running"]

    def await_status(self, *statuses, timeout=30):
        """Waits until the VM is in one of these run states."""
        deadline = time.monotonic() + timeout
        while self.qmp("query-status")["status"] not in statuses:
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} does not become {' or '.join(statuses)}: "
                              f"{self.qmp('query-status')}\n{self.output()}")
            time.sleep(0.1)

    def capability(self, **capabilities):
        self.qmp("migrate-set-capabilities",
                 capabilities=[{"capability": name.replace("_", "-"), "state": state}
                               for name, state in capabilities.items()])

    def migrate(self, uri, **arguments):
        self.qmp("migrate", uri=spelled_for(self.qemu, uri), **arguments)

    def await_migration(self, timeout=120, progress=None):
        """The final query-migrate, whatever it says."""
        deadline = time.monotonic() + timeout
        while True:
            info = self.qmp("query-migrate")
            if progress:
                progress(info)
            if info.get("status") in ("completed", "failed", "cancelled"):
                return info
            if time.monotonic() > deadline:
                raise Failure(f"the migration did not end within {timeout} s: {info}")
            time.sleep(0.05)

    def await_migration_quietly(self, timeout=120):
        """await_migration() that asks QEMU nothing until the end, because its monitor reads byte by byte."""
        self.qmp.await_event(lambda event: event["event"] == "MIGRATION" and
                             event["data"]["status"] in ("completed", "failed", "cancelled"), timeout)
        info = self.await_migration(timeout)
        while info["status"] == "completed" and not info.get("total-time"):
            time.sleep(0.1)  # the times come a moment after the event
            info = self.await_migration(timeout)
        return info

    def must_migrate(self, uri, timeout=120, **arguments):
        self.migrate(uri, **arguments)
        info = self.await_migration(timeout)
        if info["status"] != "completed":
            raise Failure(f"the migration failed: {info}\n{self.output()}")
        return info

    def must_fail(self, uri, pattern, timeout=60):
        """The migration fails, and error-desc (or the command's own error) says so."""
        try:
            self.migrate(uri)
        except Failure as failure:
            text = str(failure)
        else:
            info = self.await_migration(timeout)
            if info["status"] != "failed":
                raise Failure(f"the migration should have failed: {info}")
            text = info.get("error-desc", "")
        if not re.search(pattern, text):
            raise Failure(f"the error does not say /{pattern}/: {text!r}\n{self.output()}")
        return text

    def ram(self):
        """Hashes of the guest's RAM, page by page; the VM must be stopped."""
        self.qmp("pmemsave", val=0, size=self.memory << 20, filename=self.core)
        hashes = self.host.hashes(self.core)
        self.host.remove(self.core)
        return hashes

    def cpu_seconds(self):
        """User and system time so far."""
        stat = self.host.read(f"/proc/{self.process.pid}/stat").decode()
        words = stat.rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / 100

    def threads(self):
        """The names of the threads of a QEMU on this host: what it has, and how far it has come."""
        names = []
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            try:
                with open(f"/proc/{self.process.pid}/task/{task}/comm", encoding="utf-8") as file:
                    names.append(file.read().strip())
            except OSError:
                pass  # it has ended
        return names

    def resident_bytes(self):
        """The resident memory of the process, which is mostly the guest's RAM."""
        status = self.host.read(f"/proc/{self.process.pid}/status").decode()
        return int(re.search(r"^VmRSS:\s*(\d+) kB", status, re.M).group(1)) << 10

    def alive(self):
        return self.host.status(self.process) is None

    def is_well(self):
        """The process lives, and the VM runs."""
        try:
            return self.alive() and self.running()
        except Failure:
            return False

    def await_exit(self, timeout=30):
        deadline = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} did not end within {timeout} s")
            time.sleep(0.1)

    def kill(self, number=signal.SIGKILL):
        self.host.kill(self.process, number)

    def end(self):
        if self.alive():
            self.kill()
        deadline = time.monotonic() + 60
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        for path in (self.console, self.log, self.core):
            self.host.remove(path)
