/* SPDX-License-Identifier: BSD-2-Clause */
/* error.c -- the error domain and the names of its codes */

#include <vmferry/error.h>

G_DEFINE_QUARK(vmf - error - quark, vmf_error)

const char *vmf_error_code_name(int code)
{
    static const char *const names[] = {
        [VMF_ERROR_FAILED] = "failed",
        [VMF_ERROR_INVALID] = "invalid",
        [VMF_ERROR_UNSUPPORTED] = "unsupported",
        [VMF_ERROR_PLUGIN] = "plugin",
        [VMF_ERROR_CONNECT] = "connect",
        [VMF_ERROR_REFUSED] = "refused",
        [VMF_ERROR_PEER] = "peer",
        [VMF_ERROR_PEER_LOST] = "peer-lost",
        [VMF_ERROR_PROTOCOL] = "protocol",
        [VMF_ERROR_TIMEOUT] = "timeout",
        [VMF_ERROR_CANCELLED] = "cancelled",
        [VMF_ERROR_MEMLOCK] = "memlock",
        [VMF_ERROR_DEVICE] = "device",
        [VMF_ERROR_MISMATCH] = "mismatch",
        [VMF_ERROR_EOF] = "eof",
        [VMF_ERROR_IO] = "io",
        [VMF_ERROR_DIRECTION] = "direction",
        [VMF_ERROR_UNKNOWN_OUTCOME] = "unknown-outcome",
    };

    if (code < 0 || (size_t)code >= G_N_ELEMENTS(names)) {
        return "unknown";
    }
    return names[code];
}
