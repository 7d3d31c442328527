# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# lanes.sh -- runs the parts side by side: builds in one lane, parts in as many as there are CPUs

declare -A RUNNING=() BEGUN=() BUILT=()
declare -a FAILURES=()

section() {
    echo
    echo "=== $1"
}

# A lab part needs up to 6 GiB for its hosts, which lie in /dev/shm.
lanes() {
    local count memory shm
    [ -z "${VMFERRY_TEST_LANES:-}" ] || { echo "$VMFERRY_TEST_LANES" && return; }
    count=$(nproc)
    memory=$(($(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo) / (6 * 1048576)))
    shm=$(($(df --output=avail -k /dev/shm | tail -1) / (6 * 1048576)))
    [ "$memory" -ge "$count" ] || count=$memory
    [ "$shm" -ge "$count" ] || count=$shm
    [ "$count" -le 4 ] || count=4
    [ "$count" -ge 1 ] || count=1
    echo "$count"
}

# Builds run in the order in which the parts need them.
needed_builds() {
    local name build
    for build in plain kernel thread address qemu guest debian faults; do
        for name in "${CHOSEN[@]}"; do
            case " $(field "$name" 2) " in *" $build "*) echo "$build" && break ;; esac
        done
    done
}

# --- beginning ---

begin_build() {
    (
        # The builds give way to the tests that run beside them.
        renice -n 5 -p $BASHPID >/dev/null
        build "$1" >"$WORK/logs/build-$1.log" 2>&1
    ) 8>&- </dev/null &
    RUNNING[$!]=build:$1
    BEGUN[$!]=$SECONDS
    echo "--- building: $1"
}

begin_part() {
    local name=$1 log=$WORK/logs/$1.log
    if [ "${#CHOSEN[@]}" = 1 ]; then
        section "$(field "$name" 5)"
        log=/dev/stdout
    else
        echo "--- begun: $(field "$name" 5)"
    fi
    # Each part has a process group of its own, which ends when its time is over.
    (
        export VMFERRY_LAB_OWNER=test-$$-$name
        [ "${#CHOSEN[@]}" != 1 ] || export VMFERRY_TEST_ALONE=1
        timeout -k 60 "$(field "$name" 3)" "$TOP/tools/test" --part "$name" 2>&1 </dev/null |
            if [ "$log" = /dev/stdout ]; then tee "$WORK/logs/$name.log" | without_sum; else cat >"$log"; fi
        exit "${PIPESTATUS[0]}"
    ) 8>&- &
    RUNNING[$!]=part:$name
    BEGUN[$!]=$SECONDS
}

without_sum() {
    grep --line-buffered -vE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$'
}

# --- ending ---

failure() {
    echo "FAILED  $*"
    FAILED=$((FAILED + 1))
    FAILURES+=("FAILED  $*")
}

# Each failed check of a part's log with the last lines that it said, for the end of a long output.
failed_checks() { # LOG
    awk -v most=15 '
        function show() { if (name) { print name; for (i = lines > most ? lines - most : 0; i < lines; i++) print line[i] } name = "" }
        /^FAILED  / { show(); name = $0; lines = 0; next }
        /^        \| / { if (name) line[lines++] = $0; next }
        { show() }
        END { show() }' "$1"
}

# The parts run for half an hour, and who reads a cut log sees its end.
show_failures() {
    [ ${#FAILURES[@]} -gt 0 ] || return 0
    section "what failed"
    printf '%s\n' "${FAILURES[@]}"
}

show_failed_build() {
    section "the build \"$1\""
    grep -E 'error|warning|FAILED' "$WORK/logs/build-$1.log" | head -40
    tail -20 "$WORK/logs/build-$1.log"
    failure "the build \"$1\"; the whole log: $WORK/logs/build-$1.log"
}

# part_ended NAME STATUS SECONDS: shows what it said, and adds its closing line's counts to ours.
part_ended() {
    local name=$1 status=$2 seconds=$3 log=$WORK/logs/$1.log sum p f s
    if [ "${#CHOSEN[@]}" != 1 ]; then
        section "$(field "$name" 5)"
        without_sum <"$log"
    fi
    sum=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -1)
    tools/lab down --owner "test-$$-$name" 2>/dev/null # ends what is left of a part that was ended
    if grep -qE '^(.*\| )?lab: host . hangs' "$log"; then
        failure "a lab host hung in \"$name\": that is the lab's fault; the whole log: $log"
    fi
    if [ "$status" = 124 ] || [ "$status" = 137 ]; then
        failure "\"$name\" did not end within $(field "$name" 3) s; the whole log: $log"
    elif [ -z "$sum" ]; then
        failure "\"$name\" did not finish (exit status $status); the whole log: $log"
    fi
    if [ -n "$sum" ]; then
        read -r p _ f _ s _ <<<"$sum"
        PASSED=$((PASSED + p)) FAILED=$((FAILED + f)) SKIPPED=$((SKIPPED + s))
        [ "$f" = 0 ] || FAILURES+=("in \"$(field "$name" 5)\" (the whole log: $log):
$(failed_checks "$log")")
    fi
    echo "        ($((seconds / 60)):$(printf %02d $((seconds % 60))) min)"
}

end_all() {
    trap - EXIT INT TERM
    local pid
    for pid in "${!RUNNING[@]}"; do
        pkill -TERM -P "$pid" 2>/dev/null
        kill -TERM "$pid" 2>/dev/null
    done
    wait
    for pid in "${!RUNNING[@]}"; do
        case ${RUNNING[$pid]} in part:*) tools/lab down --owner "test-$$-${RUNNING[$pid]#part:}" 2>/dev/null ;; esac
    done
}

# --- the whole ---

# ready NAME: 0 when all that it needs is there and free, 1 when not yet, 2 when a build has failed.
ready() {
    local build resource pid
    for build in $(field "$1" 2); do
        case ${BUILT[$build]:-} in
        0) ;;
        "") return 1 ;;
        *) return 2 ;;
        esac
    done
    resource=$(field "$1" 4)
    [ -n "$resource" ] || return 0
    for pid in "${!RUNNING[@]}"; do
        case ${RUNNING[$pid]} in part:*) [ "$(field "${RUNNING[$pid]#part:}" 4)" != "$resource" ] || return 1 ;; esac
    done
}

running() { # part|build
    local pid count=0
    for pid in "${!RUNNING[@]}"; do
        case ${RUNNING[$pid]} in "$1":*) count=$((count + 1)) ;; esac
    done
    echo $count
}

begin_what_can() {
    local name status left=()
    if [ "$(running build)" = 0 ] && [ ${#BUILDS[@]} -gt 0 ]; then
        begin_build "${BUILDS[0]}"
        BUILDS=("${BUILDS[@]:1}")
    fi
    for name in "${WAITING[@]}"; do
        status=0
        ready "$name" || status=$?
        if [ $status = 2 ]; then
            section "$(field "$name" 5)"
            failure "\"$name\": a build that it needs has failed"
        elif [ $status = 0 ] && [ "$(running part)" -lt "$LANES" ]; then
            begin_part "$name"
        else
            left+=("$name")
        fi
    done
    WAITING=("${left[@]}")
}

run_chosen() {
    local ended status name seconds
    LANES=$(lanes)
    mapfile -t BUILDS < <(needed_builds)
    WAITING=("${CHOSEN[@]}")
    trap end_all EXIT
    trap 'exit 130' INT TERM
    while :; do
        begin_what_can
        [ ${#RUNNING[@]} -gt 0 ] || break
        status=0
        wait -n -p ended "${!RUNNING[@]}" || status=$?
        name=${RUNNING[$ended]} seconds=$((SECONDS - BEGUN[$ended]))
        unset "RUNNING[$ended]"
        case $name in
        build:*)
            BUILT[${name#build:}]=$status
            [ $status = 0 ] || show_failed_build "${name#build:}"
            ;;
        part:*) part_ended "${name#part:}" $status $seconds ;;
        esac
    done
    trap - EXIT INT TERM
}
