# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# common.sh -- what the parts of the lab share

die() {
    echo "lab: $*" >&2
    exit 1
}

say() {
    echo "lab: $*" >&2
}

# The folder for things that are built once. There may be no HOME, or none that exists.
cache_folder() {
    local home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)} folder
    folder=${VMFERRY_CACHE:-${XDG_CACHE_HOME:-$home/.cache}/vmferry}
    if [ -z "${VMFERRY_CACHE:-}" ] && ! mkdir -p "$folder" 2>/dev/null; then
        folder=/var/tmp/vmferry-cache-$(id -u)
    fi
    echo "$folder"
}

# A lab host has a /tmp of its own. In it the host sees some entries of this machine's /tmp, read-only: those
# with the checkout, the current folder, the cache, a path of a VMFERRY_ variable, or one of the given words.
kept_of_tmp() { # WORD...
    local path real
    while read -r path; do
        for real in "$path" "$(readlink -m -- "$path")"; do
            case $real in
            /tmp/*) real=${real#/tmp/} && echo "/tmp/${real%%/*}" ;;
            esac
        done
    done < <(
        printf '%s\n' "$LAB_TOOLS" "$PWD" "$(cache_folder)" "$@"
        env | sed -n 's/^VMFERRY_[A-Z_]*=//p'
    ) | sort -u | while read -r path; do
        [ ! -e "$path" ] || [ "$path" = "$LAB_RUN" ] || echo "$path"
    done
}

need_root() {
    [ "$(id -u)" = 0 ] || die "this needs root (for /dev/net, namespaces, or packages)"
}

# A healthy kernel never says these. User-Mode Linux warns at boot that no PCI device is configured, which
# is expected: rxe only needs PCI to be compiled in.
LOG_TROUBLE='BUG:|BUG at|Oops|WARNING:|soft lockup|hung task|list_(add|del) corruption|refcount_t:|unregister_netdevice: waiting|general protection|use-after-free'
LOG_BENIGN="virt-pci\.c:[0-9]+ um_pci_init${VMFERRY_LAB_BENIGN:+|$VMFERRY_LAB_BENIGN}"

# Fails if a kernel log (a file) has trouble in it, and shows the lines.
check_log() {
    local found
    found=$(grep -nE "$LOG_TROUBLE" "$1" | grep -vE "$LOG_BENIGN" || true)
    [ -z "$found" ] && return 0
    echo "lab: the kernel log of $2 shows trouble:" >&2
    echo "$found" >&2
    return 1
}

# The words of a command, quoted for a shell script.
quoted() {
    printf '%q ' "$@"
}
