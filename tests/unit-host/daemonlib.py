# SPDX-License-Identifier: GPL-2.0-or-later
"""A running vmcommd with its own directories, and vmcommctl for it."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

from keeperlib import wait_for

EXIT = dict(ok=0, failed=1, usage=2, not_found=3, permission=4, unreachable=5, timeout=6, conflict=7,
            cancelled=8, over_tcp=9)


class UnixServer:
    """Listens at a path and calls talk(connection) in a thread for each that comes; conns: all of them."""

    def __init__(self, path, talk):
        self.path, self.talk, self.conns = path, talk, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            self.conns.append(conn)
            threading.Thread(target=self.talk, args=(conn,), daemon=True).start()

    def close(self):
        """The connections stay. The thread ends first: closed under it, it might accept on the number that the
        listener had, which is another's by then."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()


class Daemon:
    """vmcommd in DIRECTORY (sockets below it must be short: keep it in /tmp).

    build   the build directory with host/vmcommd, host/vmcomm-keeper and cli/vmcommctl
    config  more lines for its configuration, the first ones in [daemon]
    prefix  words that go before its command line, such as those of nsenter
    env     more of its environment
    """

    def __init__(self, build, directory, config="", backend="kvm", attach_timeout=60, prefix=(), env=None):
        self.build, self.dir = str(build), str(directory)
        self.prefix = list(prefix)
        self.env = {**os.environ, **(env or {})}
        self.config = self.path("vmcomm.conf")
        self.socket = self.path("run/vmcommd.sock")
        self.log_path = self.path("vmcommd.log")
        self.proc = None
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(f"[daemon]\nbackend = {backend}\nruntime_dir = {self.path('run')}\n"
                    f"state_dir = {self.path('state')}\n"
                    f"keeper = {self.build}/host/vmcomm-keeper\n"
                    f"attach_timeout = {attach_timeout}\n\n{config}\n")

    def path(self, name):
        return os.path.join(self.dir, name)

    def start(self, expect_up=True):
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.proc = subprocess.Popen([*self.prefix, f"{self.build}/host/vmcommd", "--config",
                                          self.config],
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)
        if expect_up:
            wait_for(lambda: self.proc.poll() is not None or self.answers())
            assert self.proc.poll() is None, self.log()
        return self

    def answers(self):
        try:
            return "parameters" in self.call("Info")[-1]
        except OSError:
            return False

    def kill(self):
        """kill -9"""
        self.proc.send_signal(signal.SIGKILL)
        self.proc.wait(20)

    def stop(self):
        """SIGTERM; fails if it did not end well (a sanitizer's report)."""
        if self.proc.poll() is None:
            self.proc.terminate()
        code = self.proc.wait(30)
        assert code == 0, f"vmcommd: exit {code}\n{self.log()[-6000:]}"

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def keepers(self):
        """{group: process id}"""
        found = {}
        run = self.path("run")
        for name in os.listdir(run) if os.path.isdir(run) else []:
            try:
                with open(os.path.join(run, name, "keeper.pid"), encoding="ascii") as f:
                    found[name] = int(f.read())
            except (OSError, ValueError):
                pass
        return found

    def clean_up(self):
        """End everything, the keepers included, whatever state it is in."""
        if self.proc and self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
        for pid in self.keepers().values():
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass

    def connect(self, timeout=60):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(timeout)
        try:
            s.connect(self.socket)
        except OSError:
            s.close()
            raise
        return s

    def call(self, method, more=False, **params):
        """All replies of a method of io.vmcomm."""
        with self.connect() as s:
            send(s, method, more=more, **params)
            return receive_all(s)

    def ctl(self, *args, expect=0, parse=True):
        """vmcommctl --json ARGS: parsed output (None if there is none), or the text of its error."""
        try:
            done = subprocess.run([f"{self.build}/cli/vmcommctl", "--socket", self.socket, "--json",
                                   *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, timeout=180)
        except subprocess.TimeoutExpired as e:
            with open(f"/proc/{self.proc.pid}/stack", encoding="ascii") as f:
                stack = f.read()
            # What matters most in one line: of a long output that may be all that is seen.
            raise AssertionError(f"{args} has not ended: vmcommd in {' '.join(stack.split()[1::2][:3])}; "
                                 f"said {(e.stdout or b'')[-120:]!r} {(e.stderr or b'')[-120:]!r}; "
                                 f"log {self.log()[-120:]!r}\n{e.stdout}{e.stderr}\n{self.log()[-6000:]}") from e
        if expect is None:  # whatever it says
            return done.stdout
        assert done.returncode == expect, (args, done.returncode, done.stdout, done.stderr,
                                           self.log()[-3000:])
        if expect:
            return done.stderr
        if not parse:
            return done.stdout
        # attach, detach and remove print a line for each step
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            return [json.loads(line) for line in done.stdout.splitlines()]

    def vm(self, name):
        return self.ctl("vm", "show", name)["vms"][0]

    def vms(self):
        return {vm["name"]: vm for vm in self.ctl("vm", "list")["vms"]}

    def conns(self, *args):
        return self.ctl("conn", "list", *args)["connections"]

    def group_key(self, group):
        return self.path(f"state/keys/{group}.key")

    def other_key(self):
        """A key file with a good key that is nobody's."""
        path = self.path("other.key")
        with open(path, "w", encoding="ascii") as f:
            f.write(os.urandom(32).hex() + "\n")
        os.chmod(path, 0o600)
        return path


def send(s, method, more=False, oneway=False, **params):
    if "." not in method:
        method = "io.vmcomm." + method
    request = {"method": method, "parameters": params}
    if more:
        request["more"] = True
    if oneway:
        request["oneway"] = True
    s.sendall(json.dumps(request).encode() + b"\0")


def receive(s):
    """One message; None at the end of the connection."""
    data = bytearray()
    while not data.endswith(b"\0"):
        try:
            piece = s.recv(1)
        except ConnectionError:
            return None
        if not piece:
            return None
        data += piece
    return json.loads(data[:-1])


def receive_all(s):
    replies = []
    while True:
        reply = receive(s)
        if reply is None:
            raise ConnectionError("vmcommd closed the connection")
        replies.append(reply)
        if not reply.get("continues"):
            return replies


def free_port():
    """A TCP port of 127.0.0.1 that nobody has. None of those that the kernel gives to clients: it may do so any time."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as f:
        end = int(f.read().split()[0])
    while True:
        port = random.randrange(min(10000, end - 1000), end)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def scratch():
    return tempfile.TemporaryDirectory(prefix="vmc-", dir="/tmp")


def main_with_second_try(module):
    """As unittest.main(), but what fails is run once more, and counts if it fails again; for sys.exit().

    For failures that nobody could see again where they can be looked at: what went wrong the first time is
    printed, as lines that begin with "flaky: ".
    """
    argv = sys.argv[1:]
    loader = unittest.defaultTestLoader
    tests = (loader.loadTestsFromNames(argv, sys.modules[module]) if argv else
             loader.loadTestsFromModule(sys.modules[module]))
    first = unittest.TextTestRunner(verbosity=2).run(tests)
    failed = first.failures + first.errors
    if not failed:
        return 0
    for test, text in failed:
        for line in text.splitlines():
            print(f"flaky: {line[:600]}")
        print(f"flaky: that was {test.id()}", flush=True)
    again = unittest.TestSuite(loader.loadTestsFromName(test.id().split(".", 1)[1], sys.modules[module])
                               for test, _ in failed)
    return 0 if unittest.TextTestRunner(verbosity=2).run(again).wasSuccessful() else 1
