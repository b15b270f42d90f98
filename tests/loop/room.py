# SPDX-License-Identifier: GPL-2.0-or-later
"""A writer that asks poll() before each write never sees EAGAIN: poll() has to ask for room.

usage: room.py ADDRESS

Prints how many events the drained ring made: without one the writer sleeps until the backstop.
"""

import select
import socket
import sys
import threading


def counter(name):
    with open("/proc/net/vmcomm_stat", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(name + " "))


listener = socket.create_server((sys.argv[1], 0))
writer = socket.create_connection(listener.getsockname())
reader = listener.accept()[0]
for _ in range(20):  # until both directions are in rings
    writer.sendall(b"x")
    reader.recv(1)
    reader.sendall(b"x")
    writer.recv(1)

poll = select.poll()
poll.register(writer, select.POLLOUT)
size = 0
while poll.poll(0):
    size += writer.send(bytes(4096), socket.MSG_DONTWAIT)


def drain():
    left = size
    while left:
        left -= len(reader.recv(left))


before = counter("events_sent")
thread = threading.Thread(target=drain)
thread.start()
assert poll.poll(60000), "no room"
thread.join()
print(f"room after {size} bytes, {counter('events_sent') - before} events")
