# SPDX-License-Identifier: BSD-2-Clause
"""mconsole -- sends a command to the management console of a User-Mode Linux kernel

mconsole.py SOCKET COMMAND: prints the answer; exit status 1 when there is none within five seconds.
"""
import os
import socket
import struct
import sys
import tempfile

MAGIC, VERSION, MAX_DATA = 0xCAFEBABE, 2, 512

path, command = sys.argv[1], sys.argv[2].encode()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as console, tempfile.TemporaryDirectory() as folder:
    console.bind(os.path.join(folder, "answer"))
    console.settimeout(5)
    try:
        console.sendto(struct.pack(f"=III{MAX_DATA}s", MAGIC, VERSION, len(command), command), path)
        while True:
            error, more, length = struct.unpack_from("=IIi", answer := console.recv(65536))
            print(answer[12:12 + length].decode(errors="replace"))
            if not more:
                sys.exit(error)
    except OSError as error:
        sys.exit(f"mconsole: {path}: {error}")
