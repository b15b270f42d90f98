# SPDX-License-Identifier: GPL-2.0-or-later
"""unload.py CASE: the module goes while bytes of a connection over loopback lie in awkward places.

Unloads the module itself, in the middle; the caller loads it again. Prints what it saw.

	window      megabytes on TCP that nobody reads come before bytes in a ring
	cut         bytes of TCP before and after those in the ring lie in one segment, read to the edge
	fin         bytes in the ring, then the end of the stream
	sleepers    threads asleep in all kinds of calls: unloading does not wait for them
"""

import os
import select
import socket
import subprocess
import sys
import threading
import time

from rings import connect, enable, pattern, read, row


def unload():
    subprocess.run(["rmmod", "vmcomm"], check=True)


def case_window():
    w, r = connect()
    enable(False)
    data = pattern(32 << 20)
    w.setblocking(False)
    at, quiet = 0, 0
    while quiet < 40:  # TCP has taken what it wants to
        try:
            at += w.send(data[at:at + 65536])
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.05)
    enable(True)
    before, end = int(row(w)["tx_ring"]), time.monotonic() + 60
    while int(row(w)["tx_ring"]) == before:
        assert time.monotonic() < end, row(w)
        try:
            at += w.send(data[at:at + 3000])
        except BlockingIOError:
            pass
        time.sleep(0.05)
    told = row(w)
    assert int(told["tx_tcp"]) > 1 << 20, told
    print(f"{told['tx_tcp']} bytes on TCP, then some in the ring; nobody has read")
    unload()
    w.setblocking(True)
    t = threading.Thread(target=lambda: (w.sendall(data[at:at + 100000]),
                                         w.shutdown(socket.SHUT_WR)))
    t.start()
    got = read(r, len(data))
    t.join()
    assert got == data[:at + 100000], (len(got), at + 100000)
    r.sendall(b"back")
    assert read(w, 4) == b"back"


def case_cut():
    w, r = connect()
    a, b, c = pattern(2000, 1), pattern(3000, 2), pattern(2500, 3)
    enable(False)
    w.sendall(a)
    time.sleep(2.5)  # the tick follows the exit from the ring; segments become one
    enable(True)
    before = int(row(w)["tx_ring"])
    w.sendall(b)
    assert int(row(w)["tx_ring"]) == before + len(b), row(w)
    enable(False)
    w.sendall(c)
    time.sleep(0.5)
    assert read(r, len(a)) == a
    unload()
    assert read(r, len(b) + len(c)) == b + c
    w.close()
    assert read(r, 1) == b""


def case_fin():
    for part in 0, 700:
        w, r = connect()
        b = pattern(3000, 5)
        w.sendall(b)
        assert read(r, part) == b[:part]
        w.shutdown(socket.SHUT_WR)
        time.sleep(0.3)
        if part:
            unload()
        else:
            other = w, r, b
    for w, r, b in (other, (w, r, b[part:])):
        assert read(r, len(b)) == b
        assert read(r, 1) == b""
        r.sendall(b"answer")
        assert read(w, 6) == b"answer"


def case_sleepers():
    done = {}
    threads = []

    def start(name, function):
        def run():
            done[name] = function()
        threads.append(threading.Thread(target=run, name=name, daemon=True))
        threads[-1].start()

    pairs = {name: connect() for name in ("recv", "peek", "waitall", "readv", "poll", "splice",
                                          "send", "sendfile")}
    e = select.epoll()
    e.register(pairs["poll"][1], select.EPOLLIN | select.EPOLLET)

    def wait_poll():
        for _ in range(100):
            if e.poll(600):
                try:
                    return pairs["poll"][1].recv(100, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    pass
        return b""

    def wait_splice():
        i, o = os.pipe()
        n = os.splice(pairs["splice"][1].fileno(), o, 100) if hasattr(os, "splice") else 0
        return os.read(i, n)

    def wait_readv():
        b = bytearray(100)
        n = os.readv(pairs["readv"][1].fileno(), [b])
        return bytes(b[:n])

    big = pattern(24 << 20)
    start("recv", lambda: pairs["recv"][1].recv(100))
    start("peek", lambda: pairs["peek"][1].recv(100, socket.MSG_PEEK))
    start("waitall", lambda: read(pairs["waitall"][1], 100))
    start("readv", wait_readv)
    start("poll", wait_poll)
    if hasattr(os, "splice"):
        start("splice", wait_splice)
    start("send", lambda: pairs["send"][0].sendall(big))
    with open("/tmp/big", "wb") as f:
        f.write(big)
    start("sendfile", lambda: pairs["sendfile"][0].sendfile(open("/tmp/big", "rb")))
    time.sleep(1)
    unload()
    assert not done, f"ended too early: {list(done)}"
    print(f"{len(threads)} threads slept through it")
    time.sleep(0.5)
    for t in threads:
        if "send" not in t.name:
            pairs[t.name][0].sendall(b"y" * 100)
    for name in "send", "sendfile":
        assert read(pairs[name][1], len(big)) == big, name
    for t in threads:
        t.join(60)
        assert t.name in done, f"{t.name} still sleeps"
        if "send" not in t.name:
            assert done[t.name] == b"y" * 100, (t.name, done[t.name])


globals()["case_" + sys.argv[1]]()
