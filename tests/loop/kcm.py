# SPDX-License-Identifier: GPL-2.0-or-later
"""kcm.py: a kernel service (KCM) takes over a connection whose bytes are in a ring.

It reads TCP's queue only. Messages are of 100 bytes, as a BPF program tells it. Needs root.
"""

import ctypes
import fcntl
import socket
import struct
import subprocess
import time

from rings import connect, pattern, read, row

AF_KCM, SIOCKCMATTACH, BPF_PROG_LOAD, NR_BPF = 41, 0x89E0, 5, 321
SIZE = 100


def bpf_return(value):
    """A socket filter that returns VALUE: the length of each message."""
    code = struct.pack("<BBhi", 0xB7, 0, 0, value) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    insns, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attr = struct.pack("<IIQQIIQII", 1, 2, ctypes.addressof(insns), ctypes.addressof(licence),
                       0, 0, 0, 0, 0).ljust(128, b"\0")
    buffer = ctypes.create_string_buffer(attr)
    fd = ctypes.CDLL(None, use_errno=True).syscall(NR_BPF, BPF_PROG_LOAD, buffer, len(attr))
    assert fd >= 0, f"bpf: errno {ctypes.get_errno()}"
    return fd


subprocess.run(["modprobe", "kcm"], check=True)
w, r = connect()
data = pattern(30 * SIZE)
w.sendall(data[:10 * SIZE])
assert int(row(r)["rx_ring"]) < int(row(w)["tx_ring"]), "nothing unread in the ring"
kcm = socket.socket(AF_KCM, socket.SOCK_SEQPACKET, 0)
kcm.settimeout(100)
fcntl.ioctl(kcm, SIOCKCMATTACH, struct.pack("<ii", r.fileno(), bpf_return(SIZE)))
got = [kcm.recv(1000) for _ in range(10)]
for i in range(10, 30):
    w.sendall(data[i * SIZE:(i + 1) * SIZE])
    time.sleep(0.02)
got += [kcm.recv(1000) for _ in range(20)]
assert b"".join(got) == data, "bytes differ"
kcm.send(b"z" * SIZE, socket.MSG_EOR)
assert read(w, SIZE) == b"z" * SIZE
try:
    row(r)
    raise SystemExit("the socket is still ours")
except AssertionError:
    print("30 messages")
