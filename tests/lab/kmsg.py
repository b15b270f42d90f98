# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's kernel log, and the search for complaints in it."""

import re

# What no test may leave in a kernel log.
COMPLAINT = re.compile(
    r"\bBUG\b|\bWARNING\b|\bOops\b|\bKASAN\b|\bKCSAN\b|\bKFENCE\b|\bUBSAN\b|\bODEBUG\b|\blockdep\b(?! checking is enabled)"
    r"|scheduling while atomic|suspicious|general protection fault|Kernel panic|unable to handle"
    r"|INFO: .*(?:lock|stall|hung)|refcount_t: |Call Trace:|page allocation failure")


class KernelLog:
    """All messages of one guest since its boot, in order, written to a file as they come."""

    def __init__(self, path):
        self.lines = []
        self._file = open(path, "w", buffering=1, encoding="utf-8")

    def add(self, record):
        """Add one raw record of /dev/kmsg."""
        head, _, rest = record.decode(errors="replace").partition(";")
        fields = head.split(",")
        try:
            level, stamp = int(fields[0]) & 7, int(fields[2]) / 1e6
        except (ValueError, IndexError):
            level, stamp = 4, 0.0
        # After the first newline come KEY=value lines of the device model.
        text = rest.split("\n", 1)[0]
        self.note(f"<{level}>[{stamp:12.6f}] {text}")

    def note(self, line):
        self.lines.append(line)
        self._file.write(line + "\n")

    def text(self, since=0):
        return "\n".join(self.lines[since:])

    def complaints(self, since=0, ignore=()):
        """Lines from index SINCE on that match COMPLAINT and none of the regexes in IGNORE."""
        return [line for line in self.lines[since:]
                if COMPLAINT.search(line) and not any(re.search(i, line) for i in ignore)]

    def close(self):
        self._file.close()
