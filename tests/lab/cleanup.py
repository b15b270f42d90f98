# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing a lab made outlives it, however it ends.

A small process is told of everything that must go (processes, network namespaces, directories) and
undoes it when the lab's end of a pipe closes: at a normal end, after Ctrl-C and after kill -9 alike.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path


class Undertaker:
    """The lab's handle on that process."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__], stdin=subprocess.PIPE, text=True,
            start_new_session=True)

    def process(self, pid):
        """Kill process PID (identified with its start time, so never another one) at the end."""
        self._tell("process", f"{pid} {_start_time(pid)}")

    def netns(self, name):
        """Delete network namespace NAME at the end."""
        self._tell("netns", name)

    def directory(self, path):
        """Delete the directory PATH at the end."""
        self._tell("directory", path)

    def keep(self, path):
        """Do not delete the directory PATH after all."""
        self._tell("keep", path)

    def finish(self):
        """Undo everything now and wait for it. May be called twice."""
        if not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, kind, what):
        self._process.stdin.write(f"{kind} {what}\n")
        self._process.stdin.flush()


def _start_time(pid):
    """Field 22 of /proc/PID/stat; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def _main():
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)
    todo = {"process": [], "netns": [], "directory": [], "keep": []}
    for line in sys.stdin:
        kind, what = line.rstrip("\n").split(" ", 1)
        todo[kind].append(what)
    for what in todo["process"]:
        pid, start = what.split()
        if start != "None" and _start_time(pid) == start:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
    for name in todo["netns"]:
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)
    for path in todo["directory"]:
        if path not in todo["keep"]:
            shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    _main()
