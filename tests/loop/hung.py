# SPDX-License-Identifier: GPL-2.0-or-later
"""hung.py HOST PORT [--patient]: what becomes of bytes to a peer that has stopped.

Exchanges some bytes with an echo server, prints "ready", waits for a line, sends 1000 bytes and
says how that ended. Without --patient TCP_USER_TIMEOUT is 3 seconds.
"""

import errno
import socket
import sys

s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
if "--patient" not in sys.argv:
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000)
for _ in range(100):
    s.sendall(b"x" * 100)
    assert len(s.recv(100, socket.MSG_WAITALL)) == 100
print("ready", flush=True)
sys.stdin.readline()
try:
    s.sendall(b"y" * 1000)
    print("echo of", len(s.recv(1000, socket.MSG_WAITALL)))
except OSError as e:
    print(errno.errorcode[e.errno])
    try:
        print("then", s.recv(10))
    except OSError as e2:
        print("then", errno.errorcode[e2.errno])
