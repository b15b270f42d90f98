# SPDX-License-Identifier: GPL-2.0-or-later
"""idle.py HOST: a connection that says nothing until the end of standard input, then goes on."""

import socket
import sys

listener = socket.create_server((sys.argv[1], 0))
a = socket.create_connection(listener.getsockname())
b = listener.accept()[0]
for x, y in ((a, b), (b, a)) * 50:
    x.sendall(b"x" * 100)
    assert len(y.recv(100, socket.MSG_WAITALL)) == 100
print("in the ring", flush=True)
sys.stdin.read()
print("SO_KEEPALIVE", a.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
a.sendall(b"end")
assert b.recv(3, socket.MSG_WAITALL) == b"end"
