# SPDX-License-Identifier: GPL-2.0-or-later
"""lowat.py HOST: a reader that wants to hear of 600000 bytes only, and writers that do and do not block."""

import select
import socket
import sys
import threading

LEN, LOWAT = 800000, 600000
data = bytes(i * 7 % 251 for i in range(LEN))

for blocking in True, False:
    listener = socket.create_server((sys.argv[1], 0))
    w = socket.create_connection(listener.getsockname())
    r = listener.accept()[0]
    for _ in range(50):
        w.sendall(b"x" * 100)
        assert len(r.recv(100, socket.MSG_WAITALL)) == 100
    r.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, LOWAT)
    assert r.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == LOWAT

    def write():
        if blocking:
            w.sendall(data)
        else:
            w.setblocking(False)
            p = select.epoll()
            p.register(w, select.EPOLLOUT)
            at = 0
            while at < LEN:
                p.poll()
                try:
                    at += w.send(data[at:at + 50000])
                except BlockingIOError:
                    pass
        w.shutdown(socket.SHUT_WR)

    t = threading.Thread(target=write)
    t.start()
    p = select.poll()
    p.register(r, select.POLLIN)
    p.poll()
    got = b""
    while piece := r.recv(1000000):
        got += piece
    t.join()
    assert got == data, "bytes differ"
    w.close()
    r.close()
print("all bytes")
