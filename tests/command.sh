#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# command.sh -- the command's files and errors, on this machine over unix: and tcp:
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/checks.sh
. "$HERE/checks.sh"
BUILD=$(cd "${VMFERRY_BUILD:?a build}" && pwd)
VMFERRY=$BUILD/tools/vmferry
export VMFERRY_PLUGIN_PATH=$BUILD/rdma
WORK=$(mktemp -d /var/tmp/vmferry-command.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
PORT=$((21000 + RANDOM % 5000))
"$BUILD/tests/make-saved" vm.mig || exit 1

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

# Its files get their names by /proc elsewhere.
without_proc() {
    unshare -m bash -c 'mount -t tmpfs none /proc && LD_LIBRARY_PATH=$2/transport
        export LD_LIBRARY_PATH
        "$1" receive unix:socket --save np.mig --progress none & receiver=$!
        until [ -S socket ]; do sleep 0.05; done
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

hole_behind_it() { cp vm.mig bad.mig && truncate -s 4T bad.mig && loads_badly 'has no end'; }
cut_behind_a_zero() { # in the device's state, which ends with zeros
    head -c -65 vm.mig >bad.mig && [ "$(tail -c 1 bad.mig | od -An -tx1)" = " 00" ] && loads_badly 'has no end'
}
pages_larger_than_the_block() { "$BUILD/tests/make-saved" bad.mig large-pages && loads_badly 'beyond the end of RAM block'; }
mapped_ram() { "$BUILD/tests/make-saved" bad.mig mapped-ram && loads_badly 'mapped-ram'; }

check "a file goes to a file, for its owner alone" same_file
check "receive --save writes where a link points" follows_a_link
check "receive --save leaves a device alone, and does not listen" device_stays
check "receive --save leaves a FIFO alone, and does not listen" fifo_stays
check "receive --save on a folder is refused before it listens" folder_is_refused
check "receive --save in a missing folder is refused before it listens" missing_folder_is_refused
check "a full disk: the older file stays, the error names the file" full_disk
check "files are saved where /proc is not mounted" without_proc
check "send: a hole of terabytes behind the VM is an error" hole_behind_it
check "send: a file that was cut behind a zero is an error" cut_behind_a_zero
check "send: pages larger than their RAM block are an error" pages_larger_than_the_block
check "send: a file of mapped-ram is called so" mapped_ram

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
c, _ = s.accept(); c.recv(10); c.sendall(b'HTTP/1.0 400 Bad Request\r\n\r\n' * 20); c.close()" >web &
    local server=$! status=0
    await_listening web && says 'is no vmferry: .*"HTTP"' "tcp:127.0.0.1:$PORT,connect-timeout=5s" || status=1
    kill $server 2>/dev/null
    wait $server
    return $status
}

check "tcp://HOST:PORT: what to write" says 'write tcp:127.0.0.1:5999' tcp://127.0.0.1:5999
check "exec:cat: that it is no scheme, and what to use" says 'exec: is no URI scheme.*receive URI --save' exec:cat
check "fd:3: that it is no scheme" says 'fd: is no URI scheme' fd:3
check "HOST:PORT: which schemes there are" says 'write rdma:localhost:4444' localhost:4444
check "a time-out that is too long is not cut" says 'allowed is a time' tcp:127.0.0.1:1,timeout=4294967396ms
check "a web server at that port is called no vmferry" web_server
finish
