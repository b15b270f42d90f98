# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in guests: sockets in every state, across a migration.

usage: cells.py holder|other ADDRESS PORT CELL...

Each cell is one connection between a holder, whose socket is in the cell's state when the migration
comes, and the other end. Both print "ready" when all their cells are as they shall be, wait for a line
on standard input, bring each cell to its end and print one JSON object: {cell: "ok" or what was wrong}.
ADDRESS is of the other machine. All bytes are known by seed and position.
"""

import json
import random
import select
import socket
import struct
import sys
import threading
import time

BIG = 6 << 20
SMALL = 100_000


def data(seed, size):
    return random.Random(seed).randbytes(size)


def read_all(s):
    got = bytearray()
    while piece := s.recv(65536):
        got += piece
    return bytes(got)


def same(got, want):
    if got == want:
        return
    at = next((i for i, (x, y) in enumerate(zip(got, want)) if x != y), min(len(got), len(want)))
    raise AssertionError(f"{len(got)} bytes instead of {len(want)}, the first wrong one at {at}")


class Cell:
    """holder() and other() are called in a thread with a connected socket; they call ready() when the
    state is reached and after() to wait for the migration's end."""

    listens = False  # the holder accepts, not the other end

    def __init__(self, name, port):
        self.name, self.port = name, port
        self.is_ready, self.go = threading.Event(), threading.Event()
        self.result = "did not end"

    def ready(self):
        self.is_ready.set()

    def after(self):
        self.go.wait()

    def run(self, role, address):
        try:
            if (role == "holder") == self.listens:
                with socket.create_server(("", self.port)) as server:
                    self.accept(server, role)
            else:
                deadline = time.monotonic() + 120
                while True:
                    try:
                        s = socket.create_connection((address, self.port))
                        break
                    except OSError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.1)
                with s:
                    getattr(self, role)(s)
            self.result = "ok"
        except Exception as e:  # pylint: disable=broad-except
            self.result = f"{type(e).__name__}: {e}"
        self.is_ready.set()

    def accept(self, server, role):
        with server.accept()[0] as s:
            getattr(self, role)(s)


class Warm(Cell):
    """Before the state is reached a few bytes go both ways, so that both directions are in rings."""

    @staticmethod
    def warm(s, first):
        for _ in range(5):
            if first:
                s.sendall(b"w" * 5000)
            left = 5000
            while left:
                piece = s.recv(left)
                assert piece, "the end while warming up"
                left -= len(piece)
            if not first:
                s.sendall(b"w" * 5000)

    def holder(self, s):
        self.warm(s, True)
        self.hold(s)

    def other(self, s):
        self.warm(s, False)
        self.meet(s)


class Sending(Warm):
    """The holder is in the middle of a stream."""

    def hold(self, s):
        r = random.Random(1)
        s.sendall(r.randbytes(SMALL))
        self.ready()
        while not self.go.is_set():
            s.sendall(r.randbytes(10000))
            time.sleep(0.01)
        s.sendall(r.randbytes(SMALL))
        s.shutdown(socket.SHUT_WR)
        same(read_all(s), b"end")

    def meet(self, s):
        self.ready()
        got = read_all(s)
        same(got, data(1, len(got)))
        assert len(got) >= 2 * SMALL
        s.sendall(b"end")


class Receiving(Warm):
    """The other end is in the middle of a stream."""

    def hold(self, s):
        self.ready()
        got = read_all(s)
        same(got, data(2, len(got)))
        s.sendall(b"end")

    def meet(self, s):
        r = random.Random(2)
        self.ready()
        while not self.go.is_set():
            s.sendall(r.randbytes(10000))
            time.sleep(0.01)
        s.shutdown(socket.SHUT_WR)
        same(read_all(s), b"end")


class BlockedRecv(Warm):
    def hold(self, s):
        threading.Timer(0.5, self.ready).start()
        same(read_all(s), data(3, SMALL))

    def meet(self, s):
        self.ready()
        self.after()
        s.sendall(data(3, SMALL))


class BlockedSend(Warm):
    """More than all buffers hold, and nobody reads until the migration is over."""

    def hold(self, s):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        threading.Timer(1, self.ready).start()
        s.sendall(data(4, BIG))
        s.shutdown(socket.SHUT_WR)
        same(read_all(s), b"end")

    def meet(self, s):
        self.ready()
        self.after()
        same(read_all(s), data(4, BIG))
        s.sendall(b"end")


class Poll(Warm):
    """Edge-triggered epoll for reading, then for writing."""

    def hold(self, s):
        s.setblocking(False)
        ep = select.epoll()
        ep.register(s, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP)
        ep.poll(0)
        threading.Timer(0.5, self.ready).start()
        got, end = bytearray(), False
        while not end:
            ep.poll()
            while True:
                try:
                    piece = s.recv(5000)
                except BlockingIOError:
                    break
                if not piece:
                    end = True
                    break
                got += piece
        same(bytes(got), data(5, SMALL))
        ep.modify(s, select.EPOLLOUT | select.EPOLLET)
        want = memoryview(data(6, BIG))
        while want:
            ep.poll()
            try:
                while want:
                    want = want[s.send(want):]
            except BlockingIOError:
                pass

    def meet(self, s):
        self.ready()
        self.after()
        s.sendall(data(5, SMALL))
        s.shutdown(socket.SHUT_WR)
        same(read_all(s), data(6, BIG))


class HalfClosed(Warm):
    """The holder has ended its direction, and unread bytes of it are under way."""

    def hold(self, s):
        s.sendall(data(7, SMALL))
        s.shutdown(socket.SHUT_WR)
        self.ready()
        same(read_all(s), data(8, SMALL))

    def meet(self, s):
        self.ready()
        self.after()
        same(read_all(s), data(7, SMALL))
        s.sendall(data(8, SMALL))


class Closing(Warm):
    """The holder has closed; the other end reads only after the migration."""

    def hold(self, s):
        s.sendall(data(9, SMALL // 4))
        s.close()
        self.ready()
        self.after()

    def meet(self, s):
        self.ready()
        self.after()
        same(read_all(s), data(9, SMALL // 4))


class Unaccepted(Cell):
    """The holder's listener has not accepted it; bytes are there already."""

    listens = True

    def accept(self, server, role):
        self.ready()
        self.after()
        super().accept(server, role)

    def holder(self, s):
        same(read_all(s), data(10, SMALL // 4))
        s.sendall(b"end")

    def other(self, s):
        s.sendall(data(10, SMALL // 4))
        s.shutdown(socket.SHUT_WR)
        self.ready()
        same(read_all(s), b"end")


class AcceptQueue(Cell):
    """Several connections in the holder's accept queue, each with bytes in it."""

    listens = True
    number = 6

    def accept(self, server, role):
        self.ready()
        self.after()
        for i in range(self.number):
            with server.accept()[0] as s:
                got = read_all(s)
                same(got[1:], data(20 + got[0], SMALL // 8))
                s.sendall(b"end %d" % got[0])

    def other(self, s):
        queue = [s] + [socket.create_connection(s.getpeername()[:2]) for _ in range(self.number - 1)]
        for i, c in enumerate(queue):
            c.sendall(bytes([i]) + data(20 + i, SMALL // 8))
            c.shutdown(socket.SHUT_WR)
        self.ready()
        for i, c in enumerate(queue):
            same(read_all(c), b"end %d" % i)
            c.close()


class Ktls(Warm):
    """Both ends have given the kernel keys, and encrypted bytes are unread."""

    TCP_ULP, SOL_TLS, TX, RX = 31, 282, 1, 2

    def encrypt(self, s, out, back):
        s.setsockopt(socket.IPPROTO_TCP, self.TCP_ULP, b"tls")
        for way, key in ((self.TX, out), (self.RX, back)):
            # struct tls12_crypto_info_aes_gcm_128: TLS 1.2; then iv, key, salt, first record
            s.setsockopt(self.SOL_TLS, way, struct.pack("HH8s16s4s8s", 0x0303, 51, b"iv" * 4,
                                                        bytes([key]) * 16, b"salt", bytes(8)))

    def hold(self, s):
        self.encrypt(s, 1, 2)
        s.sendall(data(14, SMALL // 4))
        self.ready()
        self.after()
        s.sendall(data(15, SMALL // 4))
        s.shutdown(socket.SHUT_WR)
        same(read_all(s), data(16, SMALL // 4))

    def meet(self, s):
        self.encrypt(s, 2, 1)
        self.ready()
        self.after()
        same(read_all(s), data(14, SMALL // 4) + data(15, SMALL // 4))
        s.sendall(data(16, SMALL // 4))


class SendClose(Warm):
    """M19: the first calls after the migration are the last write and a close."""

    def hold(self, s):
        s.sendall(data(11, SMALL // 2))
        self.ready()
        self.after()
        s.sendall(data(12, SMALL // 4))
        s.close()

    def meet(self, s):
        self.ready()
        same(read_all(s), data(11, SMALL // 2) + data(12, SMALL // 4))


class CloseOnly(Warm):
    """M19: the first call after the migration is a close, the peer has not read yet."""

    def hold(self, s):
        s.sendall(data(13, SMALL // 4))
        self.ready()
        self.after()
        s.close()

    def meet(self, s):
        self.ready()
        self.after()
        same(read_all(s), data(13, SMALL // 4))


CELLS = {"sending": Sending, "receiving": Receiving, "blocked-recv": BlockedRecv,
         "blocked-send": BlockedSend, "poll": Poll, "half-closed": HalfClosed, "closing": Closing,
         "unaccepted": Unaccepted, "accept-queue": AcceptQueue, "ktls": Ktls, "send-close": SendClose, "close": CloseOnly}


def main():
    role, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    cells = [CELLS[name](name, port + i) for i, name in enumerate(sys.argv[4:])]
    threads = [threading.Thread(target=c.run, args=(role, address), daemon=True) for c in cells]
    for t in threads:
        t.start()
    for c in cells:
        c.is_ready.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    for c in cells:
        c.go.set()
    end = time.monotonic() + 240
    for t in threads:
        t.join(max(0, end - time.monotonic()))
    print(json.dumps({c.name: c.result for c in cells}), flush=True)


if __name__ == "__main__":
    main()
