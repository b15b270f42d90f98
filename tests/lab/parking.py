# SPDX-License-Identifier: GPL-2.0-or-later
"""Work around a QEMU bug (seen in 7.2): after an unplug of ivshmem-doorbell it polls closed files.

Without irqfd (that is, under TCG) QEMU keeps its read handlers for the device's eventfds after it
closed them. Poll then returns at once for ever: QEMU burns a core, and the guest crawls because that
loop holds QEMU's big lock most of the time. If another file gets such a number, a handler runs on
freed memory when that file is readable. So the closed numbers are filled, for good, with an eventfd
that never fires, given to QEMU by add-fd.
"""

import os

from .errors import LabError


def eventfds(qemu):
    """The numbers of the eventfds that QEMU has open. Take it before the unplug."""
    directory = f"/proc/{qemu.pid}/fd"
    found = set()
    for number in os.listdir(directory):
        try:
            if "eventfd" in os.readlink(f"{directory}/{number}"):
                found.add(int(number))
        except FileNotFoundError:
            pass
    return found


def fill(qemu, before):
    """Occupy the numbers of BEFORE (from eventfds()) that were closed since."""
    closed = before - {int(number) for number in os.listdir(f"/proc/{qemu.pid}/fd")}
    idle = os.eventfd(0)
    try:
        # The kernel hands out the lowest free number, so a few others may come in between.
        for _ in range(len(closed) + 100):
            if not closed:
                return
            closed.discard(qemu.qmp("add-fd", fd=idle)["fd"])
    finally:
        os.close(idle)
    raise LabError(f"[{qemu.name}] descriptors {sorted(closed)} stay closed")
