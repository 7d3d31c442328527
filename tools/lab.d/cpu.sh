# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# cpu.sh -- which of this machine's CPUs a lab host runs on

# A host's kernel and what runs in it are processes of this machine that wait for each other at every
# system call. On one CPU that is a switch; over two of them one has to be woken, which takes a virtual
# machine up to ten times as long.

# Prints the CPUs that this process may use, one on each line.
allowed_cpus() {
    local range
    taskset -cp $$ | sed 's/.*: //; s/,/\n/g' | while read -r range; do seq "${range%-*}" "${range#*-}"; done
}

# Prints how many running lab hosts use a CPU.
hosts_on() {
    local cpu=$1 dir count=0
    for dir in "$LAB_RUN"/*/host*; do
        if [ "$(cat "$dir/cpu" 2>/dev/null)" = "$cpu" ] && kill -0 "$(cat "$dir/pid" 2>/dev/null)" 2>/dev/null; then
            count=$((count + 1))
        fi
    done
    echo $count
}

# Prints the CPU with the fewest hosts. VMFERRY_LAB_CPU overrides it: a number, or "any" for all.
choose_cpu() {
    local cpu count least best=
    case ${VMFERRY_LAB_CPU:-} in
    "") ;;
    any) allowed_cpus | paste -sd, && return ;;
    *) echo "$VMFERRY_LAB_CPU" && return ;;
    esac
    for cpu in $(allowed_cpus); do
        count=$(hosts_on "$cpu")
        if [ -z "$best" ] || [ "$count" -lt "$least" ]; then
            best=$cpu least=$count
        fi
    done
    echo "$best"
}
