# SPDX-License-Identifier: GPL-2.0-or-later
"""Host side of the guest agent (guest_side/agent.c has the protocol): commands in a guest."""

import contextlib
import itertools
import re
import signal as signals
import socket
import struct
import threading
import time
from dataclasses import dataclass

from .errors import CommandError, GuestGone, LabError

_EXEC, _STDIN, _SIGNAL, _SYNC, _POWER = range(1, 6)
_HELLO, _STARTED, _STDOUT, _STDERR, _STDIN_ACK, _EXIT, _KMSG, _SYNCED = range(64, 72)
_MAGIC = b"\x7fvmlab-hello-01\n"
_HEADER = struct.Struct("<III")
_CHUNK = 65536
_WINDOW = 4 * _CHUNK  # bytes of standard input that the agent may hold for one command

POWER_REBOOT = 0x01234567
POWER_OFF = 0x4321FEDC


@dataclass
class Result:
    """How a command ended. returncode is negative (-signal) for one killed by a signal."""

    guest: str
    command: str
    returncode: int
    raw_stdout: bytes
    raw_stderr: bytes
    seconds: float

    @property
    def stdout(self):
        return self.raw_stdout.decode(errors="replace")

    @property
    def stderr(self):
        return self.raw_stderr.decode(errors="replace")

    def check(self):
        """Return self, or raise CommandError if the command failed."""
        if self.returncode != 0:
            raise CommandError(self)
        return self


class Job:
    """A command that runs in a guest (made by Guest.spawn). Safe to use from any thread."""

    def __init__(self, agent, number, command, stdout):
        self.command = command
        self.pid = None
        self.returncode = None
        self._agent = agent
        self._id = number
        self._sink = stdout
        self._out = bytearray()
        self._err = bytearray()
        self._room = _WINDOW
        self._begin = time.monotonic()
        self._seconds = None
        self._gone = None
        self._changed = agent.changed

    def poll(self):
        """The exit status, or None while it runs."""
        self._raise_if_gone()
        return self.returncode

    def wait(self, timeout=120, check=False):
        """Wait for the end; return a Result. Raises LabError at the timeout (the job goes on)."""
        self._wait_for(lambda: self.returncode is not None, timeout, "did not end")
        result = self.result()
        return result.check() if check else result

    def wait_output(self, pattern, timeout=60, stream="stdout"):
        """Wait until PATTERN (a regex) is in what was written so far; return the match.

        Raises LabError when the command ends or time runs out without it.
        """
        regex = re.compile(pattern, re.M)
        found = []

        def look():
            data = bytes(self._out if stream == "stdout" else self._err)
            found[:] = [regex.search(data.decode(errors="replace"))]
            return found[0] or self.returncode is not None

        self._wait_for(look, timeout, f"did not print {pattern!r}")
        if not found[0]:
            raise LabError(f"{self._label()} ended without printing {pattern!r}: "
                           f"{self.stdout[-1000:]}{self.stderr[-1000:]}")
        return found[0]

    def result(self):
        """A Result with what is known now."""
        seconds = self._seconds or time.monotonic() - self._begin
        return Result(self._agent.name, self.command, self.returncode, bytes(self._out),
                      bytes(self._err), seconds)

    def kill(self, sig=signals.SIGKILL):
        """Send SIG to the command's process group; nothing happens if it has ended."""
        if self.returncode is None and not self._gone:
            self._agent.send(self._id, _SIGNAL, struct.pack("<I", int(sig)))

    def write(self, data, timeout=120):
        """Give DATA to its standard input (needs spawn(..., stdin=True))."""
        for at in range(0, len(data), _CHUNK):
            piece = data[at:at + _CHUNK]
            self._wait_for(lambda: self._room >= len(piece) or self.returncode is not None,
                           timeout, "did not read its input")
            if self.returncode is not None:
                return
            with self._changed:
                self._room -= len(piece)
            self._agent.send(self._id, _STDIN, piece)

    def close_stdin(self):
        """End of its standard input."""
        self._agent.send(self._id, _STDIN, b"")

    @property
    def stdout(self):
        return self._out.decode(errors="replace")

    @property
    def stderr(self):
        return self._err.decode(errors="replace")

    def _label(self):
        return f"[{self._agent.name}] {self.command}"

    def _raise_if_gone(self):
        if self._gone and self.returncode is None:
            raise GuestGone(f"{self._label()}: {self._gone}")

    def _wait_for(self, condition, timeout, what):
        with self._changed:
            done = self._changed.wait_for(lambda: self._gone or condition(), timeout)
        if not done:
            raise LabError(f"{self._label()} {what} in {timeout} s: "
                           f"{self.stdout[-1000:]}{self.stderr[-1000:]}")
        if not condition():
            self._raise_if_gone()

    # Called by the agent's reader thread with the lock held.

    def _take(self, frame_type, data):
        if frame_type == _STARTED:
            self.pid = struct.unpack("<I", data)[0]
        elif frame_type == _STDOUT:
            if self._sink:
                self._sink(data)
            else:
                self._out += data
        elif frame_type == _STDERR:
            self._err += data
        elif frame_type == _STDIN_ACK:
            self._room += struct.unpack("<I", data)[0]
        elif frame_type == _EXIT:
            status = struct.unpack("<I", data)[0]
            self.returncode = -(status & 0x7F) if status & 0x7F else status >> 8 & 0xFF
            self._seconds = time.monotonic() - self._begin


class Agent:
    """The channel to one guest's agent. A thread reads it all the time.

    name      the guest's name, for messages
    on_kmsg   called with each raw /dev/kmsg record (bytes)
    log       file object that gets one line per command
    """

    def __init__(self, name, on_kmsg, log):
        self.name = name
        self.changed = threading.Condition(threading.RLock())
        self.boots = 0
        self.hello = None
        self._on_kmsg = on_kmsg
        self._log = log
        self._ids = itertools.count(1)
        self._jobs = {}
        self._synced = set()
        self._sock = self._reader = None
        self._held = False
        self._send_lock = threading.Lock()
        self._buffer = bytearray()
        self._hunting = True

    def connect(self, path, alive, timeout=30):
        """Connect to QEMU's socket PATH; alive() must raise when QEMU is dead."""
        self._start(connect(path, alive, timeout))

    def _start(self, sock):
        self._sock = sock
        self._reader = threading.Thread(target=self._read, args=(sock,), daemon=True,
                                        name=f"agent {self.name}")
        self._reader.start()

    @contextlib.contextmanager
    def held(self):
        """Nothing is on its way to the guest, and nothing is sent: it may change its QEMU."""
        self.sync()
        self._held = True
        try:
            with self._send_lock:
                yield
        finally:
            with self.changed:
                self._held = False
                if not self._reader.is_alive():
                    self._lost()

    def hand_over(self, sock, end_old):
        """The guest went to another QEMU, whose agent socket is SOCK. Call it while held().

        end_old   ends the old QEMU: what it still had for us is read first
        """
        old, reader = self._sock, self._reader
        self._sock = sock
        end_old()
        reader.join()
        old.close()
        self._start(sock)

    def expect_reboot(self):
        """The guest's present life ends: commands fail, bytes are skipped up to the next hello."""
        with self.changed:
            self._hunting = True
            self._abandon("the guest rebooted")

    def wait_boot(self, number, timeout, alive):
        """Wait until the guest said hello for the NUMBERth time; alive() raises if it cannot."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while self.boots < number:
                alive()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise LabError(f"[{self.name}] did not boot in {timeout} s")
                self.changed.wait(min(left, 0.2))

    def start(self, argv, *, cwd="", env=None, stdin=False, stdout=None, label=None):
        """Start ARGV; see Guest.spawn."""
        number = next(self._ids)
        strings = [cwd, *argv, *(f"{k}={v}" for k, v in (env or {}).items())]
        payload = struct.pack("<II", len(argv), len(env or {}))
        payload += b"".join(s.encode() + b"\0" for s in strings)
        job = Job(self, number, label or " ".join(argv), stdout)
        with self.changed:
            if self._hunting:
                raise GuestGone(f"[{self.name}] is not up: cannot run {job.command}")
            self._jobs[number] = job
        self.send(number, _EXEC, payload)
        if not stdin:
            self.send(number, _STDIN, b"")
        return job

    def sync(self, timeout=60):
        """Wait until all kernel messages up to now are here."""
        number = next(self._ids)
        self.send(number, _SYNC, b"")
        with self.changed:
            ok = self.changed.wait_for(lambda: number in self._synced or self._hunting, timeout)
            if number in self._synced:
                self._synced.discard(number)
            elif ok:
                raise GuestGone(f"[{self.name}] is gone")
            else:
                raise LabError(f"[{self.name}] agent did not answer in {timeout} s")

    def power(self, how):
        """reboot(2) in the guest, at once, without any shutdown."""
        self.send(0, _POWER, struct.pack("<I", how))

    def send(self, number, frame_type, data):
        try:
            with self._send_lock:
                self._sock.sendall(_HEADER.pack(len(data), number, frame_type) + data)
        except OSError as e:
            raise GuestGone(f"[{self.name}] agent channel: {e}") from e

    def close(self):
        if self._sock:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _read(self, sock):
        while True:
            try:
                data = sock.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                break
            with self.changed:
                self._buffer += data
                self._parse()
                self.changed.notify_all()
        sock.close()
        with self.changed:
            if sock is self._sock and not self._held:
                self._lost()

    def _lost(self):
        self._hunting = True
        self._abandon("the guest is gone")

    def _parse(self):
        buf = self._buffer
        if self._hunting:
            at = buf.find(_MAGIC)
            if at < 0:
                del buf[:-len(_MAGIC)]
                return
            del buf[:at + len(_MAGIC)]
            self._hunting = False
        at = 0
        while len(buf) - at >= _HEADER.size:
            length, number, frame_type = _HEADER.unpack_from(buf, at)
            end = at + _HEADER.size + length
            if len(buf) < end:
                break
            self._dispatch(number, frame_type, bytes(buf[at + _HEADER.size:end]))
            at = end
        del buf[:at]

    def _dispatch(self, number, frame_type, data):
        if frame_type == _HELLO:
            self.hello = data.decode().split()
            self.boots += 1
        elif frame_type == _KMSG:
            self._on_kmsg(data)
        elif frame_type == _SYNCED:
            self._synced.add(number)
        elif number in self._jobs:
            job = self._jobs[number]
            job._take(frame_type, data)
            if frame_type == _EXIT:
                result = job.result()
                self._log.write(f"{result.seconds:8.2f} s  status {result.returncode:4}  "
                                f"{job.command}\n")
                self._log.flush()

    def _abandon(self, why):
        for job in self._jobs.values():
            if job.returncode is None:
                job._gone = why
        self._jobs.clear()
        self.changed.notify_all()


def connect(path, alive, timeout):
    """A stream socket connected to the unix socket PATH, as soon as somebody listens there."""
    deadline = time.monotonic() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
            return sock
        except OSError:
            sock.close()
            alive()
            if time.monotonic() > deadline:
                raise LabError(f"nobody listens at {path}") from None
            time.sleep(0.02)
