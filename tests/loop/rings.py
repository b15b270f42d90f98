# SPDX-License-Identifier: GPL-2.0-or-later
"""For scripts in a guest: a connection over loopback whose bytes go through rings."""

import array
import socket

ENABLED = "/sys/module/vmcomm/parameters/enabled"


def enable(on):
    with open(ENABLED, "w", encoding="ascii") as f:
        f.write(str(int(on)))


def pattern(n, seed=0):
    """N bytes that say where they belong."""
    return array.array("Q", range(seed << 40, (seed << 40) + n // 8 + 1)).tobytes()[:n]


def connect():
    """Both ends of a connection that uses rings."""
    listener = socket.create_server(("127.0.0.1", 0))
    w = socket.create_connection(listener.getsockname())
    r = listener.accept()[0]
    for _ in range(50):
        for x, y in ((w, r), (r, w)):
            x.sendall(b"x" * 100)
            assert len(y.recv(100, socket.MSG_WAITALL)) == 100
    assert path(w) == "ring", "not in a ring"
    return w, r


def row(s):
    """The line of /proc/net/vmcomm of one end."""
    local, remote = s.getsockname()[1], s.getpeername()[1]
    with open("/proc/net/vmcomm", encoding="ascii") as f:
        names = f.readline().split()
        for line in f:
            r = dict(zip(names, line.split()))
            if r["local"].endswith(f":{local}") and r["remote"].endswith(f":{remote}"):
                return r
    raise AssertionError("the connection is not wrapped")


def path(s):
    return row(s)["tx"]


def read(s, n):
    data = b""
    while len(data) < n and (piece := s.recv(n - len(data))):
        data += piece
    return data
