# SPDX-License-Identifier: GPL-2.0-or-later
"""Work around a QEMU bug (seen in 7.2): after an unplug of ivshmem-doorbell it polls closed files.

Without irqfd (that is, under TCG) QEMU keeps its read handlers for the device's eventfds after it
closed them. Poll then returns at once for ever: QEMU burns a core, and the guest crawls because that
loop holds QEMU's big lock most of the time. If another file gets such a number, a handler runs on
freed memory when that file is readable, and QEMU crashes. The guests' root file system opens files all
the time, and a regular file is always readable. So:

- reserve() takes numbers before there is a device, whose eventfds then get higher ones;
- release() gives them up shortly before the unplug: files opened meanwhile get the lowest free number;
- fill() takes all of them again, and with them the numbers that the device had, for good. The guest
  stands still meanwhile: for a moment those numbers are the lowest free ones.

What takes a number is an eventfd that never fires, given to QEMU by add-fd.
"""

import os

from .errors import LabError

# More than the files that a guest's programs open during an unplug and keep open.
RESERVE = 48


def eventfds(qemu):
    """The numbers of the eventfds that QEMU has open. Take it before the unplug, after release()."""
    directory = f"/proc/{qemu.pid}/fd"
    found = set()
    for number in os.listdir(directory):
        try:
            if "eventfd" in os.readlink(f"{directory}/{number}"):
                found.add(int(number))
        except FileNotFoundError:
            pass
    return found


def _take(qemu, idle):
    answer = qemu.qmp("add-fd", fd=idle)
    return answer["fdset-id"], answer["fd"]


def reserve(qemu):
    """Take RESERVE descriptors of QEMU's; returns what release() wants."""
    idle = os.eventfd(0)
    try:
        return [_take(qemu, idle) for _ in range(RESERVE)]
    finally:
        os.close(idle)


def release(qemu, reserved):
    """Shortly before an unplug: let other files have what reserve() or fill() returned."""
    for fdset, _ in reserved:
        qemu.qmp("remove-fd", fdset_id=fdset)


def fill(qemu, before):
    """Occupy the numbers of BEFORE (from eventfds()) that were closed since.

    Returns the others that it had to take on the way: the reserve for the next time.
    """
    running = qemu.qmp("query-status")["running"]
    if running:
        qemu.qmp("stop")
    closed = before - {int(number) for number in os.listdir(f"/proc/{qemu.pid}/fd")}
    others = []
    idle = os.eventfd(0)
    try:
        # The kernel hands out the lowest free number, so others come first.
        for _ in range(len(closed) + RESERVE + 100):
            if not closed:
                break
            taken = _take(qemu, idle)
            if taken[1] not in closed:
                others.append(taken)
            closed.discard(taken[1])
        while len(others) < RESERVE:
            others.append(_take(qemu, idle))
    finally:
        os.close(idle)
        if running:
            qemu.qmp("cont")
    if closed:
        raise LabError(f"[{qemu.name}] descriptors {sorted(closed)} stay closed")
    return others
