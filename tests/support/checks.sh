# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# checks.sh -- counts checks; sourced by the test scripts

PASSED=0 FAILED=0 SKIPPED=0

# check NAME CMD...: the command must succeed; its output is shown when it does not.
# VMFERRY_TEST_ONLY, an extended regular expression, leaves out (and does not count) other names.
check() {
    local name=$1 log
    shift
    grep -qE "${VMFERRY_TEST_ONLY:-}" <<<"$name" || return 0
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        PASSED=$((PASSED + 1))
        echo "ok      $name"
    else
        FAILED=$((FAILED + 1))
        echo "FAILED  $name"
        sed 's/^/        | /' "$log" | tail -40
    fi
    rm -f "$log"
}

# Waits until the process that writes FILE says that it listens. FILE must not be left from an earlier
# process, because this one may start late.
await_listening() { # FILE
    for _ in $(seq 200); do
        grep -q '^listening' "$1" 2>/dev/null && return 0
        sleep 0.05
    done
    return 1
}

# Waits until somebody listens on a TCP port of this host; whoever does takes this for a stranger.
await_port() { # PORT
    for _ in $(seq 200); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return 0
        sleep 0.05
    done
    return 1
}

# fails_saying PATTERN CMD...: the command must fail, and say so.
fails_saying() {
    local pattern=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "this should have failed: $*"
        echo "$output"
        return 1
    fi
    grep -qE "$pattern" <<<"$output" && return 0
    echo "failed, but without saying /$pattern/:"
    echo "$output"
    return 1
}

skip() {
    SKIPPED=$((SKIPPED + 1))
    echo "skipped $1: $2"
}

# Prints the closing line. Fails if a check has failed.
finish() {
    echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" = 0 ]
}
