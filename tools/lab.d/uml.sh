# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# uml.sh -- lab hosts in User-Mode Linux

BOOT_SECONDS=180 # on a busy machine
HUNG=123
PROBE_SECONDS=${VMFERRY_LAB_PROBE:-60} # a host that does nothing for so long after a command's time hangs
RUN=$LAB_RUN/$LAB_NAME

# shellcheck source=tools/lab.d/cpu.sh
. "$LAB_PARTS/cpu.sh"

host_dir() {
    echo "$RUN/host$1"
}

host_alive() {
    local pid
    { read -r pid <"$RUN/host$1/pid"; } 2>/dev/null && kill -0 "$pid" 2>/dev/null
}

need_host() {
    [ -d "$(host_dir "$1")" ] || die "no host $1 is up (tools/lab up)"
    host_alive "$1" || die "host $1 is not running (killed, or its kernel died: see $(host_dir "$1")/console)"
}

# --- the wire between two hosts: a veth pair in a namespace of the lab's own ---

wire_up() {
    local ns=$1 limit
    need_root
    # Too small socket buffers lose packets between the hosts.
    for limit in rmem_max wmem_max rmem_default wmem_default; do
        if [ "$(cat /proc/sys/net/core/$limit)" -lt 268435456 ]; then
            echo 268435456 >/proc/sys/net/core/$limit
        fi
    done
    ip netns add "$ns"
    ip -n "$ns" link add lab1 mtu 9000 type veth peer name lab2 mtu 9000
    for limit in lab1 lab2; do
        ip netns exec "$ns" sysctl -qw net.ipv6.conf.$limit.disable_ipv6=1
        ip -n "$ns" link set $limit txqueuelen 10000 up
    done
    echo "$ns" >"$RUN/netns"
}

# --- starting and ending ---

# What init.sh reads.
write_settings() {
    local number=$1 kept
    mapfile -t kept < <(kept_of_tmp "${REST[@]}")
    printf 'LAB_%s=%q\n' host "$number" hosts "$HOSTS" device "$DEVICE" cwd "$PWD"
    echo "LAB_kept=($([ ${#kept[@]} = 0 ] || quoted "${kept[@]}"))"
}

start_host() {
    local number=$1 dir vector=() inside=()
    dir=$(host_dir "$number")
    mkdir -p "$dir/cmd" "$dir/home"
    mkfifo "$dir/in"
    cp "$LAB_PARTS/init.sh" "$dir/init" # at a path without spaces
    write_settings "$number" >"$dir/settings"
    if [ "$HOSTS" = 2 ]; then
        inside=(ip netns exec "$(cat "$RUN/netns")")
        vector=("vec0:transport=raw,ifname=lab$number,depth=256,gro=0,mtu=9000")
    fi
    # Labs that start at the same time choose their CPUs one after the other.
    exec 7>"$LAB_RUN/cpus"
    flock 7
    choose_cpu >"$dir/cpu"
    # The fifo is opened for both ways, so that it neither blocks nor ends.
    # A session of its own: one kill ends the kernel and all its helpers.
    TMPDIR=${VMFERRY_LAB_MEMORY:-/dev/shm} HOME=$dir/home setsid "${inside[@]}" taskset -c "$(cat "$dir/cpu")" "$KERNEL" mem="$MEM" \
        root=none rootfstype=hostfs rootflags=/ ro init="$dir/init" umid=host \
        con=null con0=fd:0,fd:1 quiet "${vector[@]}" lab.out="$dir" \
        <>"$dir/in" >"$dir/console" 2>&1 7>&- &
    echo $! >"$dir/pid"
    disown $!
    exec 7>&-
}

# For each turn of a wait. The trap of a signal does not exit: bash would leave a read with a time-out
# without ending its alarm, and that alarm kills bash in the middle of lab_down.
end_if_told() {
    [ -z "${TOLD_TO_END:-}" ] || exit 130
}

await_host() {
    local number=$1 dir deadline=$((SECONDS + BOOT_SECONDS))
    dir=$(host_dir "$number")
    until [ -e "$dir/up" ]; do
        host_alive "$number" || { tail -60 "$dir/console" >&2 && lab_down && die "host $number died while booting"; }
        [ $SECONDS -lt $deadline ] || { lab_down && die "host $number did not boot within $BOOT_SECONDS s"; }
        end_if_told
        sleep 0.1
    done
    [ ! -e "$dir/failed" ] || { lab_down && die "host $number: $(cat "$dir/failed")"; }
}

# The memory of the hosts is a file in /dev/shm.
check_memory() {
    local free
    free=$(df --output=avail -k /dev/shm | tail -1)
    [ "$free" -gt 1048576 ] || die "/dev/shm has only $((free / 1024)) MiB left; the hosts' memory lies there"
}

start_lab() {
    local number
    [ ! -d "$RUN" ] || lab_down
    . "$LAB_PARTS/kernel.sh"
    lab_kernel
    check_memory
    mkdir -p "$RUN"
    echo "$HOSTS" >"$RUN/hosts"
    echo "HOSTS=$HOSTS MEM=$MEM DEVICE=$DEVICE REST=()" >"$RUN/options"
    echo "${VMFERRY_LAB_OWNER:-}" >"$RUN/owner"
    [ "$HOSTS" = 1 ] || wire_up "vmflab-$LAB_NAME-$$"
    for number in $(seq "$HOSTS"); do start_host "$number"; done
    for number in $(seq "$HOSTS"); do await_host "$number"; done
    # The first packets between two hosts that have just come up may be lost.
    [ "$HOSTS" = 1 ] || run_on 1 30 ping -q -c 3 -i 0.2 10.77.0.2 >/dev/null ||
        { lab_down && die "the two hosts do not reach each other"; }
}

lab_up() {
    parse_options "$@"
    start_lab
}

lab_down() {
    local dir pid owner
    if [ "${1:-}" = --owner ]; then
        for owner in "$LAB_RUN"/*/owner; do
            [ "$(cat "$owner" 2>/dev/null)" = "${2:?--owner needs a name}" ] || continue
            RUN=$(dirname "$owner")
            lab_down
        done
        return 0
    fi
    [ ! -d "$RUN" ] || touch "$RUN/going-down"
    for dir in "$RUN"/host*; do
        pid=$(cat "$dir/pid" 2>/dev/null) || continue
        # The kernel's helper processes are in its session's process group.
        kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
        while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    done
    if [ -e "$RUN/netns" ]; then
        ip netns delete "$(cat "$RUN/netns")" 2>/dev/null || true
    fi
    rm -rf "$RUN"
}

lab_folder() {
    need_host "${1:?which host}"
    host_dir "$1"
}

# --- running commands ---

# Shows what a command has printed since the last time.
show_output() {
    local file=$1 size
    size=$(stat -c %s "$file" 2>/dev/null || echo 0)
    if [ "$size" -gt "$SHOWN" ]; then
        tail -c +$((SHOWN + 1)) "$file" | head -c $((size - SHOWN))
        SHOWN=$size
    fi
}

# A process that is left on a host need not hear that the lab is taken down.
say_died() {
    [ ! -d "$RUN" ] || [ -e "$RUN/going-down" ] || say "host $1 died"
}

# User-Mode Linux kills a process if its scattered pages need more mappings than this machine allows.
say_short_of_mappings() {
    ! grep -q 'ran out of memory on the host side' "$(host_dir "$1")/console" ||
        say "host $1 killed processes: vm.max_map_count of this machine ($(cat /proc/sys/vm/max_map_count)) is too small for what they map"
}

# Shows what a host's kernel does, by its management console. That answers while it takes interrupts.
explain_hang() {
    local dir pid state
    dir=$(host_dir "$1")
    pid=$(cat "$dir/pid")
    state=$(ps -o state=,time=,wchan= -p "$pid" || true)
    {
        echo "its process $pid: $state"
        timeout 10 python3 "$LAB_PARTS/mconsole.py" "$dir/home/.uml/host/mconsole" "sysrq t" ||
            echo "its management console does not answer: it takes no interrupts"
        sleep 1
        tail -60 "$dir/console"
    } 2>&1 | sed "s/^/lab: host $1: /" >&2
}

# Finds out whether a command that runs for too long is at fault, or the host's kernel hangs. The status tells.
took_too_long() {
    local number=$1 seconds=$2 status=0
    shift 2
    if [ -n "${PROBING:-}" ]; then
        return 124
    fi
    PROBING=1 run_on "$number" "$PROBE_SECONDS" true || status=$?
    if [ $status = 0 ]; then
        say "host $number: the command takes longer than $seconds s (the host is well): $*"
        return 124
    fi
    say "host $number hangs; it was to run: $*"
    explain_hang "$number"
    return $HUNG
}

# Runs a command on a host; returns its exit status, 124 when it takes too long, 123 when the host hangs.
run_on() {
    local number=$1 seconds=$2 dir id status
    shift 2
    dir=$(host_dir "$number")
    id=$(mktemp -u "XXXXXXXX")
    {
        env | grep -E '^(VMFERRY|G_|ASAN|UBSAN|TSAN|LSAN)[A-Z_]*=' | sed 's/^/export /; s/=\(.*\)/="\1"/' || true
        echo "exec $(quoted "$@")"
    } >"$dir/cmd/$id"
    echo "$id" >"$dir/in"
    SHOWN=0
    local deadline=$((SECONDS + seconds)) told=$SECONDS turn=0 never
    exec {never}<> <(:)
    until [ -e "$dir/cmd/$id.rc" ]; do
        read -rt 0.05 -u "$never" || true # a sleep without a process: the hosts need the processor
        end_if_told
        # User-Mode Linux now and then misses a line on its console while packets come in, until the next one.
        if [ ! -e "$dir/cmd/$id.out" ] && [ $SECONDS -gt $((told + 1)) ]; then
            [ ! -p "$dir/in" ] || echo >"$dir/in"
            told=$SECONDS
        fi
        turn=$((turn + 1))
        [ $((turn % 10)) != 0 ] || show_output "$dir/cmd/$id.out"
        host_alive "$number" || { show_output "$dir/cmd/$id.out" && say_died "$number" && return 125; }
        if [ $SECONDS -ge $deadline ]; then
            show_output "$dir/cmd/$id.out"
            took_too_long "$number" "$seconds" "$@"
            return
        fi
    done
    show_output "$dir/cmd/$id.out"
    status=$(cat "$dir/cmd/$id.rc")
    [ "$status" = 0 ] || say_short_of_mappings "$number"
    return "$status"
}

lab_run() {
    local number=1 seconds=600
    while [ $# -gt 0 ]; do
        case $1 in
        -h) number=$2 && shift ;;
        -t) seconds=$2 && shift ;;
        --) shift && break ;;
        *) die "run: unknown option $1" ;;
        esac
        shift
    done
    [ $# -gt 0 ] || die "run needs -- and a command"
    need_host "$number"
    run_on "$number" "$seconds" "$@"
}

# --- the link ---

lab_link() {
    local netem=() word
    need_host 1
    local device=vec0
    [ "$(cat "$RUN/hosts")" = 2 ] || device=v0
    case ${1:-} in
    clear) run_on 1 20 tc qdisc delete dev $device root 2>/dev/null || true ;;
    cut | restore)
        [ -e "$RUN/netns" ] || die "link $1 needs two hosts"
        local end ns
        ns=$(cat "$RUN/netns")
        # As with a pulled cable packets are taken and lost, in both directions.
        for end in lab1 lab2; do
            if [ "$1" = cut ]; then
                tc -n "$ns" qdisc replace dev $end root blackhole
            else
                tc -n "$ns" qdisc delete dev $end root
            fi
        done
        ;;
    "") die "link: say delay=TIME, loss=PERCENT, rate=RATE, clear, cut or restore" ;;
    *)
        for word in "$@"; do
            case $word in
            delay=* | loss=* | rate=*) netem+=("${word%%=*}" "${word#*=}") ;;
            *) die "link: what is $word? (delay=, loss=, rate=, clear, cut, restore)" ;;
            esac
        done
        run_on 1 20 tc qdisc replace dev $device root netem "${netem[@]}" limit 200000
        ;;
    esac
}

lab_kill() {
    local pid
    need_host "${1:?kill needs the number of a host}"
    pid=$(cat "$(host_dir "$1")/pid")
    kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}

lab_restart() {
    local number=${1:?restart needs the number of a host}
    [ -d "$(host_dir "$number")" ] || die "no host $number has been started"
    . "$LAB_PARTS/kernel.sh"
    lab_kernel
    . "$RUN/options"
    ! host_alive "$number" || lab_kill "$number"
    rm -rf "$(host_dir "$number")"
    start_host "$number"
    await_host "$number"
    # The device has another hardware address now; this tells the other host.
    [ "$HOSTS" = 1 ] || run_on "$number" 30 ping -q -c 3 -i 0.2 "10.77.0.$((3 - number))" >/dev/null ||
        die "the two hosts do not reach each other"
}

# --- kernel logs ---

lab_dmesg() {
    need_host "${1:?dmesg needs the number of a host}"
    run_on "$1" 20 dmesg
}

lab_check() {
    local number status=0
    for number in $(seq "$(cat "$RUN/hosts")"); do
        host_alive "$number" || continue # killed on purpose: its log went with it
        run_on "$number" 60 dmesg >"$RUN/dmesg$number" || return
        check_log "$RUN/dmesg$number" "host $number" || status=1
    done
    return $status
}

lab_exec() {
    local status=0
    LAB_NAME=exec-$$ RUN=$LAB_RUN/exec-$$
    trap 'lab_down' EXIT
    trap 'TOLD_TO_END=1' INT TERM
    start_lab
    run_on 1 "$TIMEOUT" "${REST[@]}" || status=$?
    [ $status != $HUNG ] || return $status
    lab_check || { [ $? != $HUNG ] || return $HUNG; status=1; }
    return $status
}
