#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""agent -- starts and watches processes on another lab host: agent.py ADDRESS PORT serves Local"""
import base64
import json
import socket
import socketserver
import sys
import time

from vm import LOCAL, Failure


class Remote:
    """vm.Local on the host of an agent."""

    class Process:
        def __init__(self, number):
            self.pid = number

    def __init__(self, address, port):
        self.address = (address, port)

    def _connect(self):
        """Waits for the agent of a host that has just come up to listen."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return socket.create_connection(self.address, timeout=60)
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _call(self, method, *arguments):
        try:
            with self._connect() as connection:
                stream = connection.makefile("rw")
                stream.write(json.dumps([method, *arguments]) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
        except (OSError, ValueError) as error:
            raise Failure(f"the agent at {self.address}: {error}")
        if "error" in answer:
            raise Failure(f"the agent at {self.address}: {answer['error']}")
        return answer["result"]

    def start(self, arguments, log):
        return Remote.Process(self._call("start", arguments, log))

    def read(self, path, start=0):
        return base64.b64decode(self._call("read", path, start))

    def kill(self, process, number):
        self._call("kill", process.pid, int(number))

    def status(self, process):
        return self._call("status", process.pid)

    def hashes(self, path):
        return self._call("hashes", path)

    def remove(self, path):
        self._call("remove", path)


processes = {}


def serve(method, arguments):
    if method == "start":
        process = LOCAL.start(*arguments)
        processes[process.pid] = process
        return process.pid
    if method in ("kill", "status"):
        return getattr(LOCAL, method)(processes[arguments[0]], *arguments[1:])
    if method == "read":
        return base64.b64encode(LOCAL.read(*arguments)).decode()
    return getattr(LOCAL, method)(*arguments)


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            method, *arguments = json.loads(self.rfile.readline())
            answer = {"result": serve(method, arguments)}
        except Exception as error:
            answer = {"error": repr(error)}
        self.wfile.write((json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), Handler) as server:
        server.serve_forever()
