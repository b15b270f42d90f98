# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions of the lab. All derive from LabError."""


class LabError(Exception):
    """The lab itself cannot do what was asked (missing tool, QEMU died, time ran out)."""


class GuestGone(LabError):
    """The guest rebooted, crashed or was killed while something waited for it."""


class CommandError(LabError):
    """A command in a guest ended with another status than 0 and check was asked for."""

    def __init__(self, result):
        self.result = result
        super().__init__(f"[{result.guest}] {result.command}\n  exit status {result.returncode}"
                         f"\n  stderr: {result.stderr[-2000:].strip()}"
                         f"\n  stdout: {result.stdout[-2000:].strip()}")


class KernelComplaint(LabError):
    """The guest's kernel log has a BUG, WARNING, lockdep report or the like."""
