# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of vmcomm-keeper: both sides that QEMU and vmcommd see of it."""

import array
import contextlib
import mmap
import os
import socket
import struct
import subprocess
import time

VECTORS = 4
SLOTS_MAX = 64
STATES = ["free", "joining", "live", "leaving", "left", "gone"]
HELLO, GET_MEMORY, GET_EVENTS, OPEN, CLOSE, SET_ROW, POLICY, STATUS, SHUTDOWN = range(1, 10)
EV_CONNECTED, EV_DISCONNECTED = 64, 65
HEADER = struct.Struct("=IIIi")
ROW = struct.Struct("=IIQQ16sI128s4x")  # struct vmcomm_location
HELLO_BODY = struct.Struct("=IIIIQQII64s")
STATUS_BODY = struct.Struct("=IIIIII")


class Handshake:
    """What a QEMU gets from a slot's socket: read the way QEMU reads, 8 bytes at a time."""

    def __init__(self, path, timeout=5):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(str(path))
        self.messages = []
        self.memory = None
        self.id = None

    def one(self):
        data, fds, flags, _ = socket.recv_fds(self.sock, 8, 1)
        if len(data) == 0:
            return None
        assert len(data) == 8 and not flags & socket.MSG_CTRUNC, (data, flags)
        value, = struct.unpack("<q", data)
        self.messages.append((value, fds[0] if fds else None))
        return value, (fds[0] if fds else None)

    def read(self, slots):
        for _ in range(3 + (slots + 1) * VECTORS):
            assert self.one() is not None, "end of file inside the handshake"
        version, ident, mem = self.messages[:3]
        assert version == (0, None), version
        self.id = ident[0]
        assert mem[0] == -1 and mem[1] is not None
        self.memory = mem[1]
        return self

    def peers(self):
        """{peer: [eventfd per vector]} in the order of arrival."""
        out = {}
        for value, fd in self.messages[3:]:
            out.setdefault(value, []).append(fd)
        return out

    def quiet(self):
        """True if nothing more is to be read and the connection is up."""
        self.sock.setblocking(False)
        try:
            return self.sock.recv(1) is None
        except BlockingIOError:
            return True

    def close(self):
        for _, fd in self.messages:
            if fd is not None:
                os.close(fd)
        self.messages = []
        self.sock.close()


class Admin:
    """vmcommd's side."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(5)
        self.sock.connect(str(path))
        self.serial = 0
        self.events = []

    def packet(self):
        data, fds, _, _ = socket.recv_fds(self.sock, 4096, VECTORS)
        if not data:
            raise EOFError
        return data, fds

    def raw(self, data):
        self.sock.send(data)

    def call(self, op, slot=0, body=b""):
        self.serial += 1
        self.sock.send(HEADER.pack(op, self.serial, slot, 0) + body)
        while True:
            data, fds = self.packet()
            got, serial, got_slot, result = HEADER.unpack_from(data)
            if serial == 0:
                self.events.append((got, got_slot, data))
                continue
            assert (got, serial) == (op, self.serial), (got, serial)
            return result, data[HEADER.size:], fds

    def event(self, op, slot):
        """Wait for an event."""
        while True:
            for i, (got, got_slot, data) in enumerate(self.events):
                if (got, got_slot) == (op, slot):
                    return self.events.pop(i)[2]
            data, _ = self.packet()
            got, serial, got_slot, _ = HEADER.unpack_from(data)
            assert serial == 0
            self.events.append((got, got_slot, data))

    def hello(self):
        result, data, _ = self.call(HELLO, 0, HELLO_BODY.pack(1, 0, 0, 0, 0, 0, 0, 0, b""))
        assert result == 0
        keys = ["protocol", "slots", "vectors", "chunk_shift", "size", "epoch", "pid", "_", "gid"]
        return dict(zip(keys, HELLO_BODY.unpack(data)))

    def memory(self):
        result, _, fds = self.call(GET_MEMORY)
        assert result == 0 and len(fds) == 1
        return fds[0]

    def doorbells(self, slot):
        result, _, fds = self.call(GET_EVENTS, slot)
        assert result == 0 and len(fds) == VECTORS
        return fds

    def row(self, op, slot, state="joining", generation=1, number=77, vm=b"v" * 16,
            addrs=(b"\0" * 10 + b"\xff\xff" + bytes([10, 0, 0, 1]),), uid=0xffffffff):
        row = ROW.pack(STATES.index(state), VECTORS, generation, number, vm, len(addrs),
                       b"".join(addrs))
        return self.call(op, slot, struct.pack("=II", uid, 0xffffffff) + row)[0]

    def open(self, slot, **kw):
        return self.row(OPEN, slot, **kw)

    def close_slot(self, slot):
        return self.call(CLOSE, slot)[0]

    def status(self, slot):
        result, data, _ = self.call(STATUS, slot)
        assert result == 0, result
        keys = ["open", "connected", "pid", "uid", "gid", "decoys"]
        st = dict(zip(keys, STATUS_BODY.unpack_from(data)))
        state, vectors, gen, number, vm, count, addr = ROW.unpack_from(data, STATUS_BODY.size)
        st.update(state=STATES[state], generation=gen, number=number, vm=vm, addr_count=count)
        return st

    def close(self):
        self.sock.close()


class Region:
    """The shared memory as a guest sees it."""

    def __init__(self, fd):
        self.size = os.fstat(fd).st_size
        self.map = mmap.mmap(fd, self.size)
        u64 = lambda off: struct.unpack_from("<Q", self.map, off)[0]
        u32 = lambda off: struct.unpack_from("<I", self.map, off)[0]
        self.magic, self.slots, self.chunk_shift = u64(0), u32(24), u32(28)
        (self.table_off, self.reclaim_off, self.ctl_off, self.ctl_stride, self.heap_off,
         self.slice_size, self.epoch) = struct.unpack_from("<7Q", self.map, 32)
        self.gid = self.map[88:152].rstrip(b"\0").decode()
        self.chunks = self.slice_size >> self.chunk_shift

    def u32(self, off):
        return struct.unpack_from("<I", self.map, off)[0]

    def u64(self, off):
        return struct.unpack_from("<Q", self.map, off)[0]

    def put32(self, off, value):
        struct.pack_into("<I", self.map, off, value)

    def put64(self, off, value):
        struct.pack_into("<Q", self.map, off, value)

    def row(self, slot):
        off = self.table_off + slot * 256
        seq, state, gen, number, vm, count, vectors = struct.unpack_from("<IIQQ16sII", self.map, off)
        return dict(seq=seq, state=STATES[state], generation=gen, number=number, vm=vm,
                    addrs=[self.map[off + 48 + i * 16:off + 64 + i * 16] for i in range(count)],
                    vectors=vectors)

    def ctl(self, slot):
        return self.ctl_off + slot * self.ctl_stride

    def pair(self, owner, peer):
        return self.ctl(owner) + 0x20000 + peer * 8192

    def reclaim(self, slot, chunk):
        return self.ctl(slot) + 0x1000 + chunk * 4

    def reclaim_ack(self, slot, chunk):
        return self.reclaim_off + (slot * self.chunks + chunk) * 4

    def chunk(self, slot, chunk):
        return self.heap_off + slot * self.slice_size + (chunk << self.chunk_shift)

    def close(self):
        self.map.close()


class Keeper:
    """A running vmcomm-keeper in DIR."""

    def __init__(self, binary, directory, *args, gid="test", slots=4, memory="16M"):
        self.dir = directory
        self.slots = slots
        self.log = open(os.path.join(os.path.dirname(directory), os.path.basename(directory) +
                                     ".log"), "w+")
        self.proc = subprocess.Popen([binary, "--gid", gid, "--dir", directory, "--slots",
                                      str(slots), "--memory", memory, *args], stderr=self.log)
        wait_for(lambda: os.path.exists(self.path("keeper.sock")) or self.proc.poll() is not None)
        assert self.proc.poll() is None, self.text()

    def path(self, name):
        return os.path.join(self.dir, name)

    def slot(self, n):
        return self.path(f"slot-{n}.sock")

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def admin(self):
        def connect():
            # The socket has its name a moment before it listens.
            with contextlib.suppress(ConnectionRefusedError):
                return Admin(self.path("keeper.sock"))
        return wait_for(connect)

    def fds(self):
        return len(os.listdir(f"/proc/{self.proc.pid}/fd"))

    def stop(self):
        if self.proc.poll() is None:
            self.proc.terminate()
        code = self.proc.wait(20)
        text = self.text()
        self.log.close()
        # A sanitizer that found something ends with a report and another status.
        assert code == 0, f"exit {code}\n{text}"
        return text


def wait_for(condition, seconds=60):
    """Poll until CONDITION() is true; its last value. An upper bound, not an assertion on time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("did not happen in time")


def ring(fd):
    os.write(fd, struct.pack("=Q", 1))


def rung(fd):
    """How often an eventfd was written since the last look."""
    try:
        return struct.unpack("=Q", os.read(fd, 8))[0]
    except BlockingIOError:
        return 0
