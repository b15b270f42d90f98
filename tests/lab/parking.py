# SPDX-License-Identifier: GPL-2.0-or-later
"""Work around a QEMU bug (seen in 7.2): after an unplug of ivshmem-doorbell it polls closed files.

Without irqfd (that is, under TCG) QEMU keeps its read handlers for the device's eventfds after it
closed them. Poll then returns at once for ever: QEMU burns a core, and the guest crawls because that
loop holds QEMU's big lock most of the time. If another file gets such a number, a handler runs on
freed memory when that file is readable, and QEMU crashes. The guests' root file system opens files all
the time, and so does a device that is plugged in again. So QEMU runs with a library preloaded that
keeps each number of an eventfd occupied, for good, when QEMU closes it (parking.c). With KVM there is
nothing to work around, and nothing is preloaded.
"""

import os
import subprocess
from pathlib import Path

from . import cache

_SOURCE = Path(__file__).with_name("parking.c")


def library():
    """Path of the (cached) library."""
    def compile_to(out):
        subprocess.run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                        "-o", str(out), str(_SOURCE)], check=True)
    return cache.entry("parking", cache.digest(_SOURCE), compile_to)


def environment(accel):
    """QEMU's environment."""
    return os.environ | ({"LD_PRELOAD": str(library())} if accel == "tcg" else {})
