#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Xen host for vmcommd's tests: a xenstore, domains, and the programs that vmcommd starts.

The programs are the file itself under other names (see puppet()): what they do is decided here, in the
test's process, so a test can hold, break and kill them anywhere.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

HEADER = struct.Struct("<IIII")
DIRECTORY, READ, WATCH, UNWATCH, WRITE, RM, EVENT, ERROR, INTRODUCED = 1, 2, 4, 5, 11, 13, 15, 16, 17
VM_UP, VM_LEFT = 1, 3


class Xen:
    """xenstore and toolstack of a host. other: the one to which its domains migrate."""

    def __init__(self, directory):
        self.dir, self.other = directory, self
        self.lock = threading.RLock()
        self.nodes, self.watches = {"/local/domain/0/name": "Domain-0"}, []
        self.standing = set()   # domids that are suspended
        self.next_domid = 1
        self.calls = []         # command lines of xl
        self.resumed = []       # domids that vmcomm-xen-resume let run
        self.stage = None       # how far a migration is
        self.held = None        # the stage that it does not leave
        self.broken = {}        # stage: what goes wrong there
        self.stubborn = False   # the transport ignores signals
        self.pause = 0.5         # seconds after a quarter of the memory
        self.flood = False      # xl talks a lot
        self.hold_leave = False  # guests do not leave
        self.pid = None         # of the xl that migrates
        self.bin = os.path.join(directory, "bin")
        os.mkdir(self.bin)
        for name in "xl", "vmcomm-xen", "vmcomm-xen-resume":
            os.symlink(os.path.abspath(__file__), os.path.join(self.bin, name))
        self.sockets = [self.listen("xenstore", self.serve_store), self.listen("sim", self.serve_puppet)]

    def keep_in_foreground(self, on):
        """vmcomm-xen does not go to the background."""
        path = os.path.join(self.dir, "sim.foreground")
        if on:
            with open(path, "wb"):
                pass
        else:
            os.unlink(path)

    def env(self):
        return dict(XENSTORED_PATH=os.path.join(self.dir, "xenstore"), SIMXEN=os.path.join(self.dir, "sim"),
                    VMCOMM_XL=os.path.join(self.bin, "xl"), VMCOMM_XEN=os.path.join(self.bin, "vmcomm-xen"),
                    VMCOMM_XEN_RESUME=os.path.join(self.bin, "vmcomm-xen-resume"))

    def listen(self, name, serve):
        s = socket.socket(socket.AF_UNIX)
        s.bind(os.path.join(self.dir, name))
        s.listen(16)

        def accept():
            while True:
                try:
                    conn, _ = s.accept()
                except OSError:
                    return
                threading.Thread(target=self.guarded, args=(serve, conn), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        return s

    @staticmethod
    def guarded(serve, conn):
        """Whatever goes wrong in there, the other end does not wait for an answer for ever."""
        try:
            serve(conn)
        except (OSError, EOFError):
            pass
        finally:
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)  # makefile() keeps it open, too
            conn.close()

    def close(self):
        for s in self.sockets:
            s.close()

    # -- xenstore --------------------------------------------------------------------------------

    def serve_store(self, conn):
        f = conn.makefile("rb")
        try:
            while True:
                head = f.read(HEADER.size)
                if len(head) < HEADER.size:
                    return
                kind, req, tx, size = HEADER.unpack(head)
                words = f.read(size).split(b"\0")
                with self.lock:
                    try:
                        answer = self.request(conn, kind, words)
                    except KeyError:
                        kind, answer = ERROR, b"ENOENT\0"
                    conn.sendall(HEADER.pack(kind, req, tx, len(answer)) + answer)
                    if kind == WATCH:
                        self.fire(words[0].decode(), only=conn)
        finally:
            with self.lock:
                self.watches = [w for w in self.watches if w[0] is not conn]

    def request(self, conn, kind, words):
        path = words[0].decode()
        if kind == READ:
            return self.nodes[path].encode()
        if kind == DIRECTORY:
            names = {p[len(path) + 1:].split("/")[0] for p in self.nodes if p.startswith(path + "/")}
            if not names:
                raise KeyError(path)
            return b"".join(n.encode() + b"\0" for n in sorted(names))
        if kind == WRITE:
            self.write(path, words[1].decode())
        elif kind == RM:
            self.remove(path)
        elif kind == WATCH:
            self.watches.append((conn, path, words[1].decode()))
        elif kind == UNWATCH:
            self.watches.remove((conn, path, words[1].decode()))
        elif kind == INTRODUCED:
            return b"T\0" if f"/local/domain/{path}/name" in self.nodes else b"F\0"
        else:
            raise KeyError(kind)
        return b"OK\0"

    def fire(self, path, only=None):
        for conn, watched, token in list(self.watches):
            if watched != path or (only and conn is not only):
                continue
            data = f"{path}\0{token}\0".encode()
            try:
                conn.sendall(HEADER.pack(EVENT, 0, 0, len(data)) + data)
            except OSError:
                pass

    def write(self, path, value):
        self.nodes[path] = value
        self.fire(path)

    def remove(self, path):
        self.nodes = {p: v for p, v in self.nodes.items() if p != path and not p.startswith(path + "/")}

    # -- domains ---------------------------------------------------------------------------------

    def add(self, name, uuid, standing=False):
        with self.lock:
            domid = self.next_domid
            self.next_domid += 1
            self.nodes[f"/local/domain/{domid}/vm"] = f"/vm/{uuid}"
            self.nodes[f"/local/domain/{domid}/memory/target"] = "4000"
            self.write(f"/local/domain/{domid}/name", name)
            if standing:
                self.standing.add(domid)
            self.fire("@introduceDomain")
            return domid

    def destroy(self, domid):
        with self.lock:
            self.remove(f"/local/domain/{domid}")
            self.standing.discard(domid)
            self.fire("@releaseDomain")

    def name(self, domid):
        return self.nodes.get(f"/local/domain/{domid}/name")

    def paths(self):
        with self.lock:
            return list(self.nodes)

    def names(self):
        with self.lock:
            return {v: int(p.split("/")[3]) for p, v in self.nodes.items()
                    if p.startswith("/local/domain/") and p.endswith("/name")}

    def rename(self, domid, name):
        with self.lock:
            if name in self.names():
                return False
            self.write(f"/local/domain/{domid}/name", name)
            return True

    # -- programs --------------------------------------------------------------------------------

    def serve_puppet(self, conn):
        f = conn.makefile("rb")
        start = json.loads(f.readline())
        getattr(self, "run_" + start["what"].replace("-", "_"))(Puppet(conn, f), start)

    def run_vmcomm_xen(self, puppet, start):
        node = f"/local/domain/0/backend/vmcomm/{start['argv'][1]}/0/pid"
        with self.lock:
            self.write(node, str(start["pid"]))
        puppet.tell(go=1)
        while not puppet.gone(0.05):
            puppet.tell(hold=self.hold_leave)
        with self.lock:
            if self.nodes.get(node) == str(start["pid"]):
                self.remove(node)

    def run_vmcomm_xen_resume(self, puppet, start):
        *look, domid = start["argv"]
        with self.lock:
            if not self.name(int(domid)):
                puppet.tell(say=f"there is no domain {domid}", exit=2)
            elif look:
                puppet.tell(exit=int(int(domid) in self.standing))
            else:
                if int(domid) in self.standing:
                    self.resumed.append(int(domid))
                self.standing.discard(int(domid))
                puppet.tell(exit=0)

    def run_xl(self, puppet, start):
        command, *args = start["argv"]
        self.calls.append(start["argv"])
        if command == "rename":
            good = self.rename(int(args[0]), args[1])
            puppet.tell(**({"exit": 0} if good else {"say": "Can't rename domain", "exit": 1}))
        elif command == "destroy":
            self.destroy(int(args[0]))
            puppet.tell(exit=0)
        elif command == "migrate" and args[:2] == ["-s", ""]:
            self.pid = start["pid"]
            puppet.stubborn = self.stubborn
            self.migrate(puppet, int(args[2]), args[3])
        else:
            puppet.tell(say=f"xl: {start['argv']}?", exit=2)

    def reach(self, puppet, stage):
        """Return what is broken there: "fail", or what the test wants. EOFError: it was killed."""
        self.stage = stage
        while self.held == stage and not puppet.transport_ended:
            if puppet.gone(0.05):
                raise EOFError
        puppet.gone(0)
        return "fail" if puppet.transport_ended else self.broken.get(stage)

    def migrate(self, puppet, domid, rune):
        """xl migrate, in its order and words."""
        name, uuid = self.name(domid), self.nodes[f"/local/domain/{domid}/vm"][4:]
        there = None

        def failed(words):
            if there:
                self.other.destroy(there)
            self.standing.discard(domid)
            puppet.tell(say=f"{words}\nMigration failed, resuming at sender.", exit=1)

        puppet.tell(transport=rune)
        if self.reach(puppet, "begin"):
            return failed("migration transport process [9] exited with error status 255")
        there = self.other.add(f"{name}--incoming", uuid, standing=True)
        try:
            puppet.tell(helper=1024000)
            time.sleep(self.pause)
            if self.flood:
                puppet.tell(flood=200000)
            if self.reach(puppet, "memory"):
                return failed("migration sender: libxl_domain_suspend failed (rc=-3)")
            self.standing.add(domid)
            if self.reach(puppet, "stopped"):
                return failed("migration sender: libxl_domain_suspend failed (rc=-3)")
            puppet.tell(say="migration sender: Target has acknowledged transfer.")
            if not self.rename(domid, f"{name}--migratedaway"):
                return failed("cannot rename")
            puppet.tell(say="migration sender: Giving target permission to start.")
            wrong = self.reach(puppet, "go")
            if wrong == "refused":
                self.other.destroy(there)
                self.rename(domid, name)
                self.standing.discard(domid)
                return puppet.tell(say="Migration failed due to problems at target.", exit=1)
            if wrong and wrong != "lost, runs there":
                self.other.destroy(there)
            else:
                self.other.standing.discard(there)
                self.other.rename(there, name)
            if wrong:
                return puppet.tell(say="** Migration failed during final handshake **", exit=1)
        except EOFError:
            # Nothing more comes: the receiver destroys its copy.
            self.other.destroy(there)
            raise
        self.destroy(domid)
        self.stage = "done"
        return puppet.tell(say="Migration successful.", exit=0)


class Puppet:
    """The test's end of a program."""

    def __init__(self, conn, f):
        self.conn, self.f = conn, f
        self.transport_ended = self.stubborn = False

    def tell(self, **what):
        if self.stubborn:
            what["stubborn"] = True
        try:
            self.conn.sendall(json.dumps(what).encode() + b"\n")
        except OSError:
            pass

    def gone(self, seconds):
        """Wait a bit; has it ended?"""
        self.conn.settimeout(seconds or 0.001)
        try:
            data = self.conn.recv(100)
        except TimeoutError:
            return False
        except OSError:
            return True
        self.transport_ended |= b"transport" in data
        return not data


# -- as a program --------------------------------------------------------------------------------


def guest(conn, argv):
    """vmcomm-xen and the guest behind it."""
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    from keeperlib import Handshake, Region  # pylint: disable=import-outside-toplevel
    options = dict(zip(argv[::2], argv[1::2]))
    device = Handshake(options["--slot-socket"]).read(int(os.environ["SIMXEN_SLOTS"]))
    r = Region(device.memory)
    hold, stop = [False], []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))

    def listen():
        for line in conn.makefile("rb"):
            hold[0] = json.loads(line).get("hold", hold[0])
        stop.append(1)
    threading.Thread(target=listen, daemon=True).start()
    r.put32(r.ctl(device.id) + 20, VM_UP)
    r.put64(r.ctl(device.id) + 24, r.row(device.id)["generation"])
    r.put64(r.ctl(device.id) + 512 + 5 * 8, 1000)  # stat tx_ring_bytes
    r.put64(r.ctl(device.id), int.from_bytes(os.urandom(7), "little") + 1)
    os.write(int(options["--ready-fd"]), b"r")
    os.close(int(options["--ready-fd"]))
    while not stop:
        state = r.row(device.id)["state"]
        if state == "leaving" and not hold[0]:
            r.put32(r.ctl(device.id) + 20, VM_LEFT)
        elif state == "live":
            r.put32(r.ctl(device.id) + 20, VM_UP)
        time.sleep(0.02)
    device.sock.close()
    os._exit(0)  # the thread may be reading, which the interpreter's end does not like


def obey(conn):
    """xl and the like."""
    child = None
    for line in conn.makefile("rb"):
        order = json.loads(line)
        if "say" in order:
            print(order["say"], file=sys.stderr, flush=True)
        if "flood" in order:
            for _ in range(order["flood"] // 1000):
                print("\x1b[31m" + 990 * "flood ", file=sys.stderr)
        if "transport" in order:
            rune = ("trap '' TERM; " if order.get("stubborn") else "") + order["transport"]
            child = subprocess.Popen(["sh", "-c", rune], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     pass_fds=(3,))
            threading.Thread(target=lambda: (child.wait(), conn.sendall(b"transport\n")),
                             daemon=True).start()
        if "helper" in order:
            parent, helper = os.getpid(), os.fork()
            if not helper:
                conn.close()
                send(order["helper"], parent)
        if "exit" in order:
            os._exit(order["exit"])
    if child:
        child.kill()
    os._exit(1)


def call_me(name):
    with open("/proc/self/comm", "w", encoding="ascii") as f:
        f.write(name)


def send(size, parent):
    """libxl-save-helper."""
    call_me("libxl-save-helper")
    with open("/dev/null", "wb", buffering=0) as null:
        null.write(bytes(size))
    while os.getppid() == parent:
        time.sleep(0.05)
    os._exit(0)


def puppet(what, argv):
    if what == "vmcomm-xen" and os.fork():
        while os.path.exists(os.environ["SIMXEN"] + ".foreground"):
            time.sleep(0.02)
        os._exit(0)
    call_me(what)
    conn = socket.socket(socket.AF_UNIX)
    conn.connect(os.environ["SIMXEN"])
    conn.sendall(json.dumps(dict(what=what, argv=argv, pid=os.getpid())).encode() + b"\n")
    if what == "vmcomm-xen":
        conn.recv(100)
        guest(conn, argv)
    else:
        obey(conn)


if __name__ == "__main__":
    puppet(os.path.basename(sys.argv[0]), sys.argv[1:])
