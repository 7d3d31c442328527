#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# command.sh -- the command's files and errors, on this machine over unix: and tcp:
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"
BUILD=$(cd "${VMFERRY_BUILD:?a build}" && pwd)
VMFERRY=$BUILD/tools/vmferry
export VMFERRY_PLUGIN_PATH=$BUILD/rdma
WORK=$(mktemp -d /var/tmp/vmferry-command.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
PORT=$((21000 + RANDOM % 5000))
"$BUILD/tests/command/make-saved" vm.mig || exit 1

# --- saved VMs ---

# file_to_file SAVE LOAD: the statuses in RECEIVED and SENT, the texts in received and sent.
file_to_file() {
    local receiver
    rm -f socket received
    timeout 60 "$VMFERRY" receive unix:socket --save "$1" --progress none >received 2>&1 &
    receiver=$!
    if await_listening received; then
        timeout 60 "$VMFERRY" send unix:socket --load "$2" --progress none >sent 2>&1
        SENT=$?
    else
        SENT=none
    fi
    # A receiver that has failed still has to say why. One that nobody has reached would go on listening.
    for _ in $(seq 100); do
        if [ $SENT = 0 ] || ! kill -0 $receiver 2>/dev/null; then break; fi
        sleep 0.05
    done
    [ $SENT = 0 ] || kill $receiver 2>/dev/null
    wait $receiver
    RECEIVED=$?
    cat received sent
}

same_file() {
    file_to_file out.mig vm.mig
    [ "$RECEIVED$SENT" = 00 ] && cmp vm.mig out.mig && [ "$(stat -c %a out.mig)" = 600 ]
}

follows_a_link() {
    mkdir store && echo old >store/x && ln -s store/x link
    file_to_file link vm.mig
    [ -L link ] && cmp vm.mig store/x
}

# refuses_to_save NAME: before it listens.
refuses_to_save() {
    timeout 20 "$VMFERRY" receive unix:socket --save "$1" --progress none >received 2>&1
    local status=$?
    cat received
    [ $status = 2 ] && ! grep -q listening received
}

device_stays() { mknod null c 1 3 && refuses_to_save null && [ -c null ]; }
fifo_stays() { mkfifo fifo && refuses_to_save fifo && [ -p fifo ]; }
folder_is_refused() { mkdir folder && refuses_to_save folder; }
missing_folder_is_refused() {
    ! timeout 20 "$VMFERRY" receive unix:socket --save missing/vm.mig >received 2>&1 &&
        cat received && grep -q 'folder missing' received && ! grep -q listening received
}

full_disk() {
    mkdir full && mount -t tmpfs -o size=96k none full && echo old >full/vm.mig
    file_to_file full/vm.mig vm.mig
    local old
    old=$(cat full/vm.mig)
    ls -l full
    umount full
    [ "$old" = old ] && [ "$RECEIVED$SENT" = 11 ] && grep -q 'full/vm.mig.*No space' received
}

# Elsewhere its files get their names by /proc.
without_proc() {
    # shellcheck disable=SC2016
    unshare -m bash -c 'mount -t tmpfs none /proc && LD_LIBRARY_PATH=$2/transport
        export LD_LIBRARY_PATH
        "$1" receive unix:socket --save np.mig --progress none >said 2>&1 & receiver=$!
        until grep -q ^listening said; do kill -0 $receiver || exit 1; sleep 0.05; done
        "$1" send unix:socket --load vm.mig --progress none && wait $receiver' x "$VMFERRY" "$BUILD" || return 1
    cmp vm.mig np.mig
}

# loads_badly PATTERN: bad.mig is refused before any destination is asked, and by no signal.
loads_badly() {
    local text status
    text=$(timeout 60 "$VMFERRY" send unix:nobody --load bad.mig --progress none 2>&1)
    status=$?
    echo "$text ($status)"
    [ $status = 1 ] && grep -qE "$1" <<<"$text"
}

hole_after_it() { cp vm.mig bad.mig && truncate -s 4T bad.mig && loads_badly 'has no end'; }
cut_after_a_zero() { # in the device's state, which ends with zeros
    head -c -65 vm.mig >bad.mig && [ "$(tail -c 1 bad.mig | od -An -tx1)" = " 00" ] && loads_badly 'has no end'
}
pages_larger_than_the_block() { "$BUILD/tests/command/make-saved" bad.mig large-pages && loads_badly 'beyond the end of RAM block'; }
mapped_ram() { "$BUILD/tests/command/make-saved" bad.mig mapped-ram && loads_badly 'mapped-ram'; }

check "a file goes to a file, for its owner alone" same_file
check "receive --save writes where a link points" follows_a_link
check "receive --save leaves a device alone, and does not listen" device_stays
check "receive --save leaves a FIFO alone, and does not listen" fifo_stays
check "receive --save on a folder is refused before it listens" folder_is_refused
check "receive --save in a missing folder is refused before it listens" missing_folder_is_refused
check "a full disk: the older file stays, the error names the file" full_disk
check "files are saved where /proc is not mounted" without_proc
check "send: a hole of terabytes after the VM is an error" hole_after_it
check "send: a file that was cut after a zero is an error" cut_after_a_zero
check "send: pages larger than their RAM block are an error" pages_larger_than_the_block
check "send: a file of mapped-ram is called so" mapped_ram

# --- the benchmark's files ---

listen() { # [ARGUMENT...]: on the next port; its pid is LISTENER
    PORT=$((PORT + 1))
    rm -f listener
    timeout 400 "$VMFERRY" bench --listen "tcp:127.0.0.1:$PORT" "$@" >listener 2>&1 &
    LISTENER=$!
    await_listening listener || { cat listener && return 1; }
}
unlisten() {
    kill "$LISTENER" 2>/dev/null
    wait "$LISTENER"
    return 0
}
run() { timeout 60 "$VMFERRY" bench "tcp:127.0.0.1:$PORT" --progress none "$@"; }

# refuses OPTION NAME PATTERN: before it connects to anybody.
refuses() { fails_saying "$3" timeout 20 "$VMFERRY" bench tcp:127.0.0.1:1 "$1" "$2"; }
json_device() { mknod json-null c 1 3 && refuses --json json-null 'json-null is a device' && [ -c json-null ]; }
json_stays_when_a_run_fails() {
    echo old >result.json
    ! timeout 20 "$VMFERRY" bench tcp:127.0.0.1:1 --ram 4M --json result.json && [ "$(cat result.json)" = old ]
}
without_gnuplot() {
    mkdir path && fails_saying 'needs gnuplot' env PATH="$PWD/path" "$VMFERRY" bench tcp:127.0.0.1:1 --plot x.svg
}
json_and_plot() {
    local status=0
    listen --once
    run --ram 4M --json good.json --plot good.svg >/dev/null || status=1
    wait $LISTENER
    grep -q '"runs"' good.json && grep -q '<svg' good.svg && [ $status = 0 ] && [ "$(ls good.*.* 2>/dev/null)" = "" ]
}
full_stdout() {
    listen --once
    ! run --ram 4M >/dev/full
    local status=$?
    wait $LISTENER
    return $status
}
# shellcheck disable=SC2016
full_stdout_before_a_vm() { fails_saying 'standard output' timeout 20 bash -c '"$1" receive unix:socket --save full.mig >/dev/full' x "$VMFERRY"; }

check "bench --json leaves a device alone, and does not run" json_device
check "bench --json on a folder is refused before the run" refuses --json /proc '/proc is a folder'
check "bench --json in a missing folder is refused before the run" refuses --json missing/x.json 'folder missing'
check "bench --plot of an unknown kind is refused before the run" refuses --plot x.gif 'ends in .svg or .png'
check "bench --plot without gnuplot is refused before the run" without_gnuplot
check "bench --json: an older file stays when the run fails" json_stays_when_a_run_fails
check "bench --json and --plot are written" json_and_plot
check "a full standard output is a failure" full_stdout
check "receive: a full standard output is a failure before the VM comes" full_stdout_before_a_vm
check "bench --ram 4GiX: which sizes there are" fails_saying 'such as 65536, 64K, 256M or 4GiB' "$VMFERRY" bench tcp:127.0.0.1:1 --ram 4GiX
check "bench --progress: which ways there are" fails_saying "auto, bar, lines or none" "$VMFERRY" bench tcp:127.0.0.1:1 --progress foo
check "bench --ram -1 is no size" fails_saying 'a size such as' "$VMFERRY" bench tcp:127.0.0.1:1 --ram=-18446744073708503040
check "bench --zero 60 --untouched 60: what they are together" \
    fails_saying 'zero 60 --untouched 60: together they are 120 %' "$VMFERRY" bench tcp:127.0.0.1:1 --zero 60 --untouched 60

# --- several sources at one destination ---

# Each source is served in turn: a plan and its run belong together.
sixteen_sources() {
    local pids=() status=0
    listen
    for i in $(seq 16); do
        timeout 300 "$VMFERRY" bench "tcp:127.0.0.1:$PORT" --progress none --ram $((i % 3 + 1))M --verify >"source$i" 2>&1 &
        pids+=($!)
    done
    for i in "${!pids[@]}"; do
        wait "${pids[i]}" || { status=1 && cat "source$((i + 1))"; }
    done
    unlisten
    cat listener
    if grep 'RAM block' listener source*; then
        status=1
    fi
    return $status
}
told_busy() {
    local first status=0
    listen
    run --ram 1M --idle 20 >first 2>&1 &
    first=$!
    until fails_saying 'is busy with another run' run --ram 1M --wait 0 >second 2>&1; do
        sleep 0.1
        kill -0 $first 2>/dev/null || { status=1 && break; } # it was not told while the first one ran
    done
    cat second
    kill $first
    wait $first 2>/dev/null
    unlisten
    return $status
}
# goes_on_under LIMIT OPTIONS PATTERN ARGUMENT...: a destination under that ulimit says PATTERN to such a run, and goes on.
goes_on_under() {
    local limit=$1 options=$2 pattern=$3 status=0
    shift 3
    PORT=$((PORT + 1))
    rm -f listener
    # shellcheck disable=SC2086
    (ulimit $limit && exec timeout 60 "$VMFERRY" bench --listen "tcp:127.0.0.1:$PORT$options") >listener 2>&1 &
    LISTENER=$!
    await_listening listener
    fails_saying "$pattern" run "$@" || status=1
    run --ram 1M --channels 2 || status=1
    unlisten
    cat listener
    return $status
}
too_many_writers() {
    local text status
    listen
    # Stacks of 256 MiB leave room for the run's own threads, and never for 64 more.
    text=$( (ulimit -s 262144 && ulimit -v 4000000 && run --ram 8M --writers 64) 2>&1)
    status=$?
    unlisten
    echo "$text"
    [ $status = 1 ] && grep -q 'of 64 --writers could be started' <<<"$text"
}

check "sixteen sources at one destination are served in turn" sixteen_sources
check "a source that will not wait is told that the destination is busy" told_busy
check "a destination without memory for it says so to the source" \
    goes_on_under "-v 400000" "" 'no memory for a guest' --ram 900M
check "a destination without descriptors says so to the source" \
    goes_on_under "-n 48" ,connect-timeout=5s 'Too many open files' --ram 4M --channels 64
check "bench --writers without threads for them: an error" too_many_writers

# --- what the figures contain ---

# figures PYTHON-EXPRESSION ARGUMENT...: of the run r, as --json has it; `total' is the process's CPU.
figures() {
    local expression=$1
    shift
    listen --once
    python3 - "$expression" "$VMFERRY" bench "tcp:127.0.0.1:$PORT" --progress none --json - "$@" <<'PYTHON'
import json, resource, subprocess, sys
output = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, check=True).stdout
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
r = json.loads(output)["runs"][0]
print(json.dumps(r, indent=1), usage.ru_utime + usage.ru_stime)
sys.exit(not eval(sys.argv[1], {"r": r, "total": usage.ru_utime + usage.ru_stime}))
PYTHON
    local status=$?
    [ $status = 0 ] || kill $LISTENER
    wait $LISTENER
    return $status
}

check "the source's CPU is without its guest's" \
    figures '0 < r["guest_cpu_seconds"] and r["source_cpu_seconds"] + r["guest_cpu_seconds"] <= total' \
    --ram 32M --rounds 20 --dirty 100 --writers 2
check "the throughput of RAM is without stream and device state" \
    figures 'r["ram_seconds"] < r["seconds"] and abs(r["throughput_bytes_per_second"] * r["ram_seconds"] / r["ram_bytes"] - 1) < 0.01' \
    --ram 4M --stream 64M --devices 2x8M --device-ways stream
check "the destination's CPU is without accepting and registering" \
    figures '0 < r["destination_cpu_seconds"] < r["destination_setup_cpu_seconds"]' --ram 256MiB --untouched 100 --lead 2
check "a destination that waits makes its RAM resident" \
    figures 'r["destination_populated_bytes"] > 0' --ram 32M --no-populate --lead 2

# --- what people type ---

# says PATTERN ARGUMENT...: bench fails, and says so.
says() {
    local pattern=$1
    shift
    fails_saying "$pattern" timeout 20 "$VMFERRY" bench "$@" --ram 4M --progress none
}
web_server() {
    PORT=$((PORT + 1))
    python3 -c "import socket
s = socket.create_server(('127.0.0.1', $PORT))
print('listening', flush=True)
c, _ = s.accept(); c.sendall(b'HTTP/1.0 400 Bad Request\r\n\r\n' * 20); c.shutdown(socket.SHUT_WR)
while c.recv(4096): pass # closing with unread bytes would reset the connection, and take the answer back
c.close()" >web &
    local server=$! status=0
    await_listening web && says 'is not vmferry: .*"HTTP"' "tcp:127.0.0.1:$PORT,connect-timeout=5s" || status=1
    kill $server 2>/dev/null
    wait $server
    return $status
}

check "tcp://HOST:PORT: what to write" says 'write tcp:127.0.0.1:5999' tcp://127.0.0.1:5999
check "exec:cat: that it is no scheme, and what to use" says 'exec: is not a URI scheme.*receive URI --save' exec:cat
check "fd:3: that it is no scheme" says 'fd: is not a URI scheme' fd:3
check "HOST:PORT: which schemes there are" says 'write rdma:localhost:4444' localhost:4444
check "a time-out that is too long is not cut" says 'allowed is a time' tcp:127.0.0.1:1,timeout=4294967396ms
check "a web server at that port is not taken for vmferry" web_server
finish
