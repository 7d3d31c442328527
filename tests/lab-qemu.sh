#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# lab-qemu.sh -- QEMU with vmferry migrates real guests, on one lab host and between two
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
LAB=$HERE/../tools/lab
export PYTHONDONTWRITEBYTECODE=1

QEMU=$("$HERE/../tools/qemu/build") || exit 1
GUEST=$("$HERE/../tools/qemu/guest") || exit 1

one_host() {
    "$LAB" exec --mem 4G --timeout 1500 -- python3 "$HERE/qemu/one_host.py" "$QEMU" "$GUEST"
}

start_agent() {
    "$LAB" run -h 2 -t 1500 -- python3 "$HERE/../tools/qemu/agent.py" 10.77.0.2 4000 &
    sleep 1
}

# Does for the test on host 1 what only this machine can do.
serve_requests() {
    local folder=$1 words status
    while [ -d "$folder" ]; do
        if [ -e "$folder/request" ]; then
            words=$(cat "$folder/request")
            rm "$folder/request"
            # shellcheck disable=SC2086
            "$LAB" $words >&2
            status=$?
            [ "$words" != "restart 2" ] || start_agent
            echo $status >"$folder/answer.new"
            mv "$folder/answer.new" "$folder/answer"
        fi
        sleep 0.1
    done
}

two_hosts() {
    local status=0 folder
    export VMFERRY_LAB_NAME=qemu-two-$$
    "$LAB" up --hosts 2 --mem 3G || return 1
    folder=$("$LAB" folder 1)
    start_agent
    serve_requests "$folder" &
    "$LAB" run -h 1 -t 1500 -- python3 "$HERE/qemu/two_hosts.py" "$QEMU" "$GUEST" || status=$?
    "$LAB" down
    wait
    return $status
}

# One closing line for both.
status=0
log=$(mktemp)
one_host 2>&1 | tee -a "$log" | grep --line-buffered -vE '^[0-9]+ passed' || true
two_hosts 2>&1 | tee -a "$log" | grep --line-buffered -vE '^[0-9]+ passed' || true
for part in 1 2; do
    [ "$(grep -cE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log")" -ge $part ] ||
        echo "FAILED  a part of the QEMU tests did not finish" | tee -a "$log"
done
awk '/^[0-9]+ passed, /{p += $1; f += $3; s += $5} /^FAILED  a part/{f++}
     END {print p + 0 " passed, " f + 0 " failed, " s + 0 " skipped"; exit f != 0}' "$log" || status=1
rm -f "$log"
exit $status
