#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""one_host -- live migration of real guests by rdma: within one lab host

one_host.py QEMU GUEST [works|fails]: what must work, what must fail well, or both.
"""
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

from checks import Failure, Vm, check, finish, wanted
from moments import (MODES, await_moment, await_ready_ram, fast_again, go_on, must_have_arrived, must_have_failed,
                     must_have_given_back, reach_with_retries, run_on_if_unknown, slow_start)

QEMU, GUEST = sys.argv[1:3]
PART = sys.argv[3] if len(sys.argv) > 3 else ""
ADDRESS = os.environ.get("LAB_ADDR", "127.0.0.1")
ADDRESS6 = os.environ.get("LAB_ADDR6", "::1")
port = 4440
# Pinning memory that a lab host has never used takes longer than ten seconds on some machines.
SLOW_SETUP = ",connect-timeout=60s"


def next_uri(host=ADDRESS):
    global port
    port += 1
    return f"rdma:{host}:{port}"


def boot(append="noise=96", **arguments):
    vm = Vm(QEMU, GUEST, append=append, **arguments)
    vm.await_console("^guest ready")
    vm.await_console("^tick 2")
    return vm


def incoming(uri, **arguments):
    """A destination that listens."""
    return Vm(QEMU, GUEST, incoming=uri, **arguments)


class Running:
    """The guest that goes from QEMU to QEMU, and which one it is in now."""

    def __init__(self, **arguments):
        self.vm = boot(**arguments)
        self.arguments = {name: value for name, value in arguments.items() if name != "append"}

    def move(self, options="", host=ADDRESS, verify=True, **capabilities):
        uri = next_uri(host)
        target = incoming(uri, **self.arguments)
        try:
            self.vm.capability(**{**MODES, **capabilities})
            info = self.vm.must_migrate(uri + options)
            if self.vm.running():
                raise Failure("the source still runs")
            target.await_status("running")
            if verify:
                target.must_tick()
                target.sums_stay_right()
        except Failure as failure:
            text = f"{failure}\nsource said:\n{self.vm.output()}destination said:\n{target.output()}"
            target.end()
            raise Failure(text)
        self.vm.end()
        self.vm = target
        return info

    def runs_on(self):
        self.vm.must_tick()
        self.vm.sums_stay_right()
        return self


guest = None


def taken_over_by(target):
    """The guest runs in another QEMU now. Ends the old one after that."""
    target.await_status("running")
    guest.vm.end()
    guest.vm = target
    guest.runs_on()


# --- it works ---

def goes_on(options, **capabilities):
    guest.move(options, **capabilities)


def backed_by(backend):
    """QEMU's arguments for guest RAM of that kind."""
    return ["-object", f"{backend},id=pc.ram,size=256M", "-machine", "memory-backend=pc.ram"] if backend else []


def same_memory(options, backend=None, **capabilities):
    """A running guest moves to a destination that does not start it. Its pages are compared."""
    uri = next_uri()
    target = incoming(uri + SLOW_SETUP, arguments=["-S", *backed_by(backend)])
    guest.vm.capability(**{**MODES, **capabilities})
    guest.vm.must_migrate(uri + options + SLOW_SETUP)
    must_have_arrived(target, guest.vm.ram())
    target.qmp("cont")
    taken_over_by(target)


def untouched_given_back(options):
    """The destination does not keep memory that it made ready and the guest has never touched."""
    uri = next_uri()
    target = incoming(uri, arguments=["-S"])
    before = await_ready_ram(target)
    guest.vm.capability(**MODES)
    guest.vm.must_migrate(uri + options)
    must_have_arrived(target, guest.vm.ram())
    must_have_given_back(target, before, guest.vm)
    target.qmp("cont")
    taken_over_by(target)


def balloon_discards_nothing(moving):
    """The guest gives memory back while it is migrated: registered memory must not get other frames."""
    vm, uri = moving.vm, next_uri()
    target = incoming(uri, **moving.arguments)
    slow_start(vm, uri, 3 << 20)
    if not await_moment(vm, lambda info: info["status"] == "active" and info["ram"]["transferred"] > 1 << 20):
        raise Failure(f"the migration was over too soon for this test\n{vm.output()}")
    before, most = vm.resident_bytes(), vm.memory - 40 << 20
    vm.qmp("balloon", value=most)
    deadline = time.monotonic() + 60
    while vm.qmp("query-balloon")["actual"] > most + (4 << 20):
        if time.monotonic() > deadline:
            raise Failure(f"the balloon is not blown up: {vm.qmp('query-balloon')}")
        time.sleep(0.2)
    if vm.qmp("query-migrate")["status"] != "active":
        raise Failure("the migration was over too soon for this test")
    after = vm.resident_bytes()
    if after < before - (16 << 20):
        raise Failure(f"memory is discarded while the VM is migrated: {before >> 20} MiB, then {after >> 20}")
    fast_again(vm)
    if vm.await_migration()["status"] != "completed":
        raise Failure(vm.output())
    target.await_status("running")
    target.qmp("balloon", value=vm.memory << 20)
    vm.end()
    moving.vm = target
    moving.runs_on()


def with_devices(memory):
    """An odd memory size, a disk, a network card, a balloon, a device with a megabyte of state."""
    disk = "/tmp/disk.img"
    with open(disk, "wb") as file:
        file.truncate(8 << 20)
    moving = Running(append="noise=30 churn=4 used=40", memory=memory,
                     arguments=["-drive", f"file={disk},format=raw,if=virtio", "-device", "virtio-net-pci",
                                "-device", "virtio-balloon-pci", "-device", "gus"])
    try:
        moving.vm.await_console("^disk OK")
        balloon_discards_nothing(moving)
        for options in ("", ",channels=4"):
            moving.move(options)
            moving.vm.await_console("^disk OK", after=len(moving.vm.console_text()))
    finally:
        moving.vm.end()
        os.unlink(disk)


def back_and_forth(times):
    for number in range(times):
        guest.move(",channels=2" if number % 2 else "", verify=False)
        if number % 5 == 4:
            guest.runs_on()


def zero_pages_are_accounted():
    info = guest.move()
    ram = info["ram"]
    if ram["duplicate"] < 10000 or ram["transferred"] > ram["total"]:
        raise Failure(f"zero pages are not accounted as such: {ram}")


def monitor_answers():
    """The destination's monitor answers while RAM comes in, and so does the source's."""
    uri = next_uri()
    target = incoming(uri)
    guest.vm.capability(**MODES)
    guest.vm.qmp("migrate-set-parameters", max_bandwidth=20 << 20)
    guest.vm.migrate(uri)
    for _ in range(5):
        time.sleep(0.5)
        if target.qmp("query-status")["status"] != "inmigrate":
            raise Failure("the destination should be waiting for the guest")
        target.qmp("query-block")
        if guest.vm.qmp("query-migrate")["status"] != "active":
            raise Failure("the migration was over too soon for this test")
    guest.vm.qmp("migrate-set-parameters", max_bandwidth=0)
    if guest.vm.await_migration()["status"] != "completed":
        raise Failure(guest.vm.output())
    taken_over_by(target)


def deferred_by_hmp():
    """-incoming defer, and migrate -d by the human monitor, over IPv6."""
    uri = next_uri(f"[{ADDRESS6}]")
    target = incoming("defer")
    target.qmp("migrate-incoming", uri=uri)
    guest.vm.capability(**MODES)
    text = guest.vm.qmp("human-monitor-command", command_line=f"migrate -d {uri}")
    if text.strip():
        raise Failure(text)
    if guest.vm.await_migration()["status"] != "completed":
        raise Failure(guest.vm.output())
    taken_over_by(target)


def pinned_ahead():
    """The destination knows pin-all before its source comes."""
    uri = next_uri()
    target = incoming("defer")
    target.capability(rdma_pin_all=True)
    target.qmp("migrate-incoming", uri=uri)
    guest.vm.capability(**{**MODES, "rdma_pin_all": True})
    guest.vm.must_migrate(uri)
    taken_over_by(target)


def source_killed_when_completed():
    """The worst moment: the source says completed, and dies before it has said GO."""
    uri = next_uri()
    target = incoming(uri)
    guest.vm.capability(**MODES)
    guest.vm.must_migrate(uri)
    guest.vm.kill()
    try:
        target.await_status("running", "paused")
    except Failure as failure:
        raise Failure(f"{failure}\n{target.output()}")
    if target.qmp("query-status")["status"] == "paused":
        if "outcome is unknown" not in target.output():
            raise Failure(f"the destination does not say why it does not run:\n{target.output()}")
        target.qmp("cont")
    taken_over_by(target)


# --- it fails, and the guest lives ---

def bad_uri(uri, pattern):
    guest.vm.capability(**MODES)
    guest.vm.must_fail(uri, pattern)
    guest.runs_on()


def virtio_mem_refused():
    """A device gives back guest RAM while it is registered: the VM is not migrated, and can run on."""
    device = ["-m", "256M,slots=2,maxmem=1G", "-object", "memory-backend-ram,id=vmem,size=256M",
              "-device", "virtio-mem-pci,memdev=vmem,requested-size=0"]
    vm = Vm(QEMU, GUEST, append="noise=30", arguments=[*device, "-S"])
    try:
        vm.capability(**MODES)
        vm.must_fail(next_uri(), "vmferry.*virtio-mem")
        vm.qmp("cont")
        vm.await_status("running")
    finally:
        vm.end()


def must_refuse(pattern, vm, command, **arguments):
    try:
        vm.qmp(command, **arguments)
    except Failure as failure:
        if re.search(pattern, str(failure)):
            return
        raise
    raise Failure(f"{command} {arguments} should have been refused, for: {pattern}")


def settings_refused(settings, parameters, pattern):
    """The source says which of its settings rdma: cannot do, and its guest runs on."""
    try:
        guest.vm.capability(**{**MODES, **{name: True for name in settings}})
        if parameters:
            guest.vm.qmp("migrate-set-parameters", **parameters)
        guest.vm.must_fail(f"rdma:{ADDRESS}:4999", pattern)
    finally:
        guest.vm.capability(**{name: False for name in settings})
        guest.vm.qmp("migrate-set-parameters", tls_creds="")
    guest.vm.must_tick()


def settings_refused_at_the_destination():
    """Before it listens, the monitor hears of an error. After that the source does, and the next one may come."""
    uri = next_uri()
    target = incoming("defer")
    target.capability(multifd=True)
    must_refuse("vmferry.*multifd.*channels=", target, "migrate-incoming", uri=uri)
    target.capability(multifd=False)
    target.qmp("migrate-incoming", uri=uri)
    target.qmp("migrate-set-parameters", tls_creds="tls0")
    guest.vm.capability(**MODES)
    guest.vm.must_fail(uri, "the destination: .*tls-creds")
    target.qmp("migrate-set-parameters", tls_creds="")
    guest.vm.must_migrate(uri)
    taken_over_by(target)


def no_thread():
    """A process that cannot start a thread says so, and its VM runs on."""
    # No limit is for root. Another user may need a capability to read the guest's files.
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=+dac_read_search",
              "--ambient-caps=+dac_read_search"]
    vms = [Vm(QEMU, GUEST, arguments=["-S"], environment=nobody), incoming("defer", environment=nobody)]
    try:
        for vm in vms:
            subprocess.run([*nobody, "prlimit", f"--pid={vm.process.pid}", "--nproc=1:1"], check=True, timeout=30)
        vms[0].must_fail(f"rdma:{ADDRESS}:4999", "vmferry: cannot start a thread")
        must_refuse("vmferry: cannot start a thread", vms[1], "migrate-incoming", uri=next_uri())
        for vm in vms:
            vm.qmp("query-status")
    finally:
        for vm in vms:
            vm.end()


def no_device_open():
    vm = Vm(QEMU, GUEST, arguments=["-S"])
    try:
        folder = f"/proc/{vm.process.pid}/fd"
        files = [os.readlink(f"{folder}/{number}") for number in os.listdir(folder)]
        if [name for name in files if "infiniband" in name]:
            raise Failure(str(files))
    finally:
        vm.end()


@contextlib.contextmanager
def silent_server():
    """This host gets a name server that does not answer."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.53", 53))
    with open("/tmp/resolv.conf", "w") as file:
        file.write("nameserver 127.0.0.53\noptions timeout:30 attempts:2\n")
    subprocess.run(["mount", "--bind", "/tmp/resolv.conf", "/etc/resolv.conf"], check=True, timeout=30)
    try:
        yield server
    finally:
        subprocess.run(["umount", "/etc/resolv.conf"], check=True, timeout=30)
        server.close()


def silent_name_server():
    """The destination's address is a name, and the name server does not answer. The monitor does."""
    with silent_server():
        target = incoming("defer")
        target.qmp.socket.settimeout(20)
        try:
            target.qmp("migrate-incoming", uri="rdma:no-such-host.example:4445")
        except Failure as failure:
            if "no-such-host.example" not in str(failure):
                raise
        finally:
            target.qmp("query-status")
            target.end()


def cancelled_in_look_up():
    """The look-up lasts a minute. During it the monitor answers, and the migration can be cancelled."""
    guest.vm.capability(**MODES)
    with silent_server() as server:
        server.settimeout(20)
        guest.vm.migrate("rdma:no-such-host.example:4445,connect-timeout=60s")
        server.recv(1000)  # the name was asked for
        guest.vm.must_tick()
        guest.vm.qmp("migrate_cancel")
        if guest.vm.await_migration(20)["status"] != "cancelled":
            raise Failure(guest.vm.output())
    guest.runs_on()


def other_size():
    uri = next_uri()
    target = incoming(uri, memory=128)
    guest.vm.must_fail(uri, r'RAM block "pc\.ram"')
    guest.runs_on()
    if target.qmp("query-status")["status"] != "inmigrate":
        raise Failure("the destination should still be waiting")
    target.end()


def small_memlock(pin_all):
    uri = next_uri()
    unprivileged = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]
    target = Vm(QEMU, GUEST, incoming=uri, environment=["prlimit", "--memlock=65536:65536", *unprivileged])
    guest.vm.capability(**{**MODES, "rdma_pin_all": pin_all})
    guest.vm.must_fail(uri, "memory-lock limit")
    guest.runs_on()
    target.end()


def listening():
    uri = next_uri()
    return incoming(uri), uri


def reach(moment, options="", **capabilities):
    """Begins a migration and returns at a moment of it, with the destination."""
    return reach_with_retries(lambda: guest.vm, moment, listening, taken_over_by, options, **capabilities)


def destination_killed(moment, **capabilities):
    target = reach(moment, ",timeout=4s", **capabilities)
    target.kill()
    go_on(guest.vm, moment)
    if moment == "stopped" and capabilities.get("return_path"):
        run_on_if_unknown(guest.vm)
    must_have_failed(guest.vm)
    guest.move()


def destination_killed_in_setup():
    """The destination does not answer the connection request, and is killed then."""
    target, uri = listening()
    target.kill(signal.SIGSTOP)
    guest.vm.capability(**MODES)
    guest.vm.migrate(uri + ",connect-timeout=20s")
    time.sleep(1)
    target.kill()
    must_have_failed(guest.vm, 30)
    guest.move()


def cancelled(moment, **capabilities):
    target = reach(moment, **capabilities)
    guest.vm.qmp("migrate_cancel")
    info = guest.vm.await_migration(30)
    fast_again(guest.vm)
    if info["status"] != "cancelled":
        raise Failure(f"{info}\n{guest.vm.output()}")
    target.await_exit()
    guest.runs_on()
    guest.move()


def cancelled_and_again():
    """A destination that is started again can use the same port."""
    target = reach("first round")
    guest.vm.qmp("migrate_cancel")
    if guest.vm.await_migration(30)["status"] != "cancelled":
        raise Failure(guest.vm.output())
    target.await_exit()
    fast_again(guest.vm)
    uri = f"rdma:{ADDRESS}:{port}"
    target = incoming(uri)
    guest.vm.must_migrate(uri)
    taken_over_by(target)


def cancelled_in_setup():
    """Nobody answers at the address: the migration is cancelled while it connects."""
    guest.vm.capability(**MODES)
    guest.vm.migrate("rdma:10.77.0.99:4444,connect-timeout=60s")
    time.sleep(1)
    guest.vm.qmp("migrate_cancel")
    if guest.vm.await_migration(20)["status"] != "cancelled":
        raise Failure(guest.vm.output())
    guest.runs_on()


def cancelled_in_setup_at_a_destination(**capabilities):
    """A migration that is cancelled before it has begun leaves the destination listening for the next."""
    target, uri = listening()
    target.kill(signal.SIGSTOP)
    guest.vm.capability(**{**MODES, **capabilities})
    guest.vm.migrate(uri + ",connect-timeout=60s")
    time.sleep(1)
    guest.vm.qmp("migrate_cancel")
    info = guest.vm.await_migration(20)
    target.kill(signal.SIGCONT)
    if info["status"] != "cancelled":
        raise Failure(f"{info}\n{guest.vm.output()}")
    guest.vm.must_migrate(uri)
    taken_over_by(target)


def destination_stopped():
    """A destination that no longer answers (SIGSTOP) is given up within the time-out."""
    target = reach("first round", ",timeout=4s")
    target.kill(signal.SIGSTOP)
    info = guest.vm.await_migration(60)
    fast_again(guest.vm)
    target.kill()
    if info["status"] != "failed":
        raise Failure(str(info))
    guest.runs_on()
    guest.move()


def source_killed(moment):
    """The destination must not run a guest that it has only in part."""
    victim = boot("noise=20 churn=4")
    uri = next_uri()
    target = incoming(uri + ",timeout=4s")
    victim.qmp("migrate-set-parameters", max_bandwidth=10 << 20)
    if moment == "stopped":
        victim.capability(pause_before_switchover=True)
        victim.qmp("migrate-set-parameters", max_bandwidth=0)
    victim.migrate(uri)
    time.sleep(4)
    victim.kill()
    target.await_exit(40)
    victim.end()
    if target.ticks():
        raise Failure("the destination ran")


def run(name, function, *arguments, long=False, **named):
    """Runs a check with a running guest, whatever the check before has left."""
    global guest
    if not wanted(name, long):
        return
    if not guest or not guest.vm.is_well():
        guest = Running()
    check(name, function, *arguments, **named)


def works():
    for channels in (1, 4):
        for pin_all in (False, True):
            for return_path in (False, True):
                run(f"a running guest goes on: {channels} channels, {'pin-all' if pin_all else 'chunk'}"
                      f"{', return path' if return_path else ''}", goes_on, f",channels={channels}",
                      long=pin_all != (channels > 1), rdma_pin_all=pin_all, return_path=return_path)
    run("the memory is the same, page by page: chunk", same_memory, "")
    run("the memory is the same, page by page: pin-all, 4 channels", same_memory, ",channels=4",
          rdma_pin_all=True)
    run("the memory is the same, page by page: return path", same_memory, ",channels=2",
          return_path=True)
    # From private to shared memory, and on to memory of a file that others do not see.
    run("RAM in a memfd: the memory is the same", same_memory, "", "memory-backend-memfd,share=on", rdma_pin_all=True)
    run("RAM in a private file: the memory is the same", same_memory, "",
        "memory-backend-file,mem-path=/dev/shm/guest-ram,share=off")
    run("zero pages are accounted", zero_pages_are_accounted)
    run("both monitors answer meanwhile", monitor_answers)
    run("-incoming defer, migrate -d by HMP, IPv6", deferred_by_hmp)
    run("RAM pinned ahead: -incoming defer, pin-all on both sides", pinned_ahead)
    run("untouched memory is given back: one channel", untouched_given_back, "", long=True)
    run("untouched memory is given back: 4 channels", untouched_given_back, ",channels=4")
    run("an odd size, a disk, a network card, a balloon", with_devices, 203)
    for times in (5, 50):
        run(f"{times} migrations of one guest", back_and_forth, times, long=times > 5)


def fails():
    run("the source is killed when it has completed", source_killed_when_completed)
    run("a host that nobody knows", bad_uri, "rdma:no-such-host.invalid:4444", "no-such-host.invalid")
    run("nobody listens", bad_uri, f"rdma:{ADDRESS}:4999", "vmferry: cannot connect to .*4999")
    run("an unknown option", bad_uri, f"rdma:{ADDRESS}:4999,chanels=4", "chanels")
    for capability, pattern in (("multifd", "vmferry.*multifd.*channels="), ("dirty_bitmaps", "vmferry.*dirty-bitmaps"),
                                ("postcopy_ram", "vmferry.*postcopy-ram")):
        run(f"refused: {capability}", settings_refused, [capability], None, pattern)
    run("refused: virtio-mem", virtio_mem_refused)
    run("refused: tls-creds", settings_refused, [], {"tls_creds": "tls0"}, "vmferry: tls-creds .* in the clear")
    run("refused at the destination: multifd, tls-creds", settings_refused_at_the_destination)
    run("no thread can be started", no_thread)
    run("a VM that never migrated has no RDMA device open", no_device_open)
    run("the name server of a destination is silent", silent_name_server)
    run("the name server is silent when a source asks: cancel", cancelled_in_look_up)
    run("another RAM size is refused by the block's name", other_size)
    run("a memory-lock limit of 64 KiB: chunk", small_memlock, False)
    run("a memory-lock limit of 64 KiB: pin-all", small_memlock, True)
    run("cancel while it connects", cancelled_in_setup)
    run("cancel while it connects to a destination: that one goes on listening", cancelled_in_setup_at_a_destination,
        rdma_pin_all=True)
    run("cancel, and again to the same port", cancelled_and_again)
    run("the destination is killed: set-up", destination_killed_in_setup)
    for moment in ("first round", "later round", "stopped"):
        late = moment == "later round"
        run(f"cancel: {moment}", cancelled, moment, long=late)
        run(f"the destination is killed: {moment}", destination_killed, moment, long=late)
        run(f"cancel: {moment}, return path", cancelled, moment, return_path=True)
        run(f"the destination is killed: {moment}, return path", destination_killed, moment,
              return_path=True)
    run("the destination is stopped", destination_stopped)
    run("the source is killed: first round", source_killed, "first round")
    run("the source is killed: stopped", source_killed, "stopped")


def main():
    if PART != "fails":
        works()
    if PART != "works":
        fails()
    if guest:
        guest.vm.end()
    finish()


main()
