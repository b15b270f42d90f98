# SPDX-License-Identifier: GPL-2.0-or-later
"""A small client for QEMU's machine protocol, with events."""

import itertools
import json
import socket
import threading
import time

from .agent import connect
from .errors import GuestGone, LabError


class QmpError(LabError):
    """QEMU refused a command; .error_class and .desc are its words."""

    def __init__(self, command, error):
        self.error_class = error.get("class")
        self.desc = error.get("desc")
        super().__init__(f"QMP {command}: {self.desc}")


class Qmp:
    """One QMP connection. Events are kept from the start in .events (oldest first)."""

    def __init__(self, name, path, alive, timeout=30):
        self.name = name
        self.events = []
        self._changed = threading.Condition()
        self._ids = itertools.count(1)
        self._answers = {}
        self._closed = False
        self._send_lock = threading.Lock()
        self._alive = alive
        self._sock = connect(path, alive, timeout)
        threading.Thread(target=self._read, daemon=True, name=f"qmp {name}").start()
        self("qmp_capabilities")

    def __call__(self, command, timeout=60, fd=None, **arguments):
        """Run COMMAND; return its result. Underscores in argument names become dashes.

        fd   a descriptor to send along (for add-fd, getfd)
        """
        arguments = {k.replace("_", "-"): v for k, v in arguments.items()}
        number = next(self._ids)
        line = json.dumps({"execute": command, "arguments": arguments, "id": number})
        data = line.encode() + b"\n"
        try:
            with self._send_lock:
                if fd is not None:
                    sent = socket.send_fds(self._sock, [data], [fd])
                    data = data[sent:]
                self._sock.sendall(data)
        except OSError as e:
            raise GuestGone(f"[{self.name}] QMP {command}: {e}") from e
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._answers or self._closed, timeout):
                raise LabError(f"[{self.name}] QMP {command}: no answer in {timeout} s")
            if number not in self._answers:
                self._gone(command)
            answer = self._answers.pop(number)
        if "error" in answer:
            raise QmpError(command, answer["error"])
        return answer["return"]

    def _gone(self, command):
        """Raise GuestGone, with QEMU's exit status and last words as soon as there are any."""
        for _ in range(20):
            self._alive()
            time.sleep(0.05)
        raise GuestGone(f"[{self.name}] QMP {command}: QEMU is gone")

    def hmp(self, line):
        """A command of the human monitor; returns its text."""
        return self("human-monitor-command", command_line=line)

    def wait_event(self, name, timeout=60, since=0, **match):
        """Wait for an event NAME whose data has all of MATCH; return it.

        since   index into .events from which on it may be (take len(qmp.events) before the cause)
        """
        def find():
            for event in self.events[since:]:
                data = event.get("data", {})
                if event["event"] == name and all(data.get(k) == v for k, v in match.items()):
                    return event
            return None

        with self._changed:
            self._changed.wait_for(lambda: find() or self._closed, timeout)
            event = find()
        if not event:
            why = "QEMU is gone" if self._closed else f"not seen in {timeout} s"
            raise LabError(f"[{self.name}] QMP event {name} {match or ''}: {why}")
        return event

    def close(self):
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _read(self):
        with self._sock, self._sock.makefile("rb") as lines:
            try:
                for line in lines:
                    message = json.loads(line)
                    with self._changed:
                        if "event" in message:
                            message["at"] = time.monotonic()
                            self.events.append(message)
                        elif "id" in message:
                            self._answers[message["id"]] = message
                        self._changed.notify_all()
            except OSError:
                pass
        with self._changed:
            self._closed = True
            self._changed.notify_all()
