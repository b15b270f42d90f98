# SPDX-License-Identifier: GPL-2.0-or-later
"""echo.py PORT: sends back what comes, on any number of connections."""

import socket
import sys
import threading


def serve(c):
    try:
        while data := c.recv(65536):
            c.sendall(data)
    except OSError:
        pass
    c.close()


listener = socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=16)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
