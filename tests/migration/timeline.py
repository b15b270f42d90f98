# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in guests: connections that go on while one of the two VMs is set back to a snapshot.

usage: timeline.py server|client ADDRESS PORT

Four connections: both ways, to the server, to the client, idle. Both ends send known bytes all the time
(the last one none) and compare what comes. After a line on standard input one JSON object:
{connection: [bytes that were right, "" or what was wrong with the next ones, how it ended]}.
"""

import json
import random
import socket
import sys
import threading
import time

KINDS = {"both": ("server", "client"), "in": ("client",), "out": ("server",), "idle": ()}  # who sends


class End:
    """One end of one connection."""

    def __init__(self, role, kind, s):
        self.role, self.kind, self.s = role, kind, s
        self.right, self.wrong, self.end = 0, "", "open"
        threads = [threading.Thread(target=self.read, daemon=True)]
        if role in KINDS[kind]:
            threads.append(threading.Thread(target=self.write, daemon=True))
        for t in threads:
            t.start()

    def stream(self, role):
        return random.Random(f"{self.kind} {role}")

    def write(self):
        bytes_ = self.stream(self.role)
        try:
            while True:
                self.s.sendall(bytes_.randbytes(2000))
                time.sleep(0.01)
        except OSError as e:
            self.end = type(e).__name__

    def read(self):
        want = self.stream("server" if self.role == "client" else "client")
        ahead = b""
        try:
            while got := self.s.recv(65536):
                while len(ahead) < len(got):
                    ahead += want.randbytes(2000)
                if got != ahead[:len(got)]:
                    self.wrong = f"{len(got)} bytes after {self.right} are not those of the stream"
                    return
                ahead = ahead[len(got):]
                self.right += len(got)
            self.end = "end of file"
        except OSError as e:
            self.end = type(e).__name__


def connect(address, port):
    """The server may not be there yet."""
    for _ in range(1000):
        try:
            return socket.create_connection((address, port))
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise TimeoutError


def main():
    role, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if role == "server":
        server = socket.create_server(("", port))
        sockets = [server.accept()[0] for _ in KINDS]
    else:
        # One after the other, so that both ends give them the same names.
        sockets = [connect(address, port) for _ in KINDS]
    ends = {kind: End(role, kind, s) for kind, s in zip(KINDS, sockets)}
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps({kind: [e.right, e.wrong, e.end] for kind, e in ends.items()}), flush=True)


if __name__ == "__main__":
    main()
