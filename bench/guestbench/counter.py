# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions that a guest executes, by function: counted by a plugin of QEMU's TCG."""

import bisect
import collections
import os
import time

from lab import paths

PLUGIN = "bench/tools/tcgcount.so"
KERNEL = 1 << 63
# Only there while somebody waits; what they call is counted.
WAITING = {"vmcomm_spin", "vmcomm_spin_for", "vmcomm_spin_poll", "vmcomm_recv_spin_ready",
           "vmcomm_send_spin_ready", "vmcomm_poll_ready_any", "default_idle", "native_halt"}


class Counter:
    """The plugin in one guest."""

    def __init__(self, scratch, name):
        self.dir = os.path.join(scratch, name)
        os.mkdir(self.dir)
        self.arguments = ["-plugin", f"{paths.built(PLUGIN)},dir={self.dir}"]
        self.symbols = []

    def read_symbols(self, guest):
        for line in guest.sh("cat /proc/kallsyms").splitlines():
            address, kind, name, *_ = line.split()
            if kind in "tTwW":
                self.symbols.append((int(address, 16), name))
        self.symbols.sort()

    def command(self, word):
        with open(f"{self.dir}/new", "w", encoding="ascii") as out:
            out.write(word + "\n")
        os.rename(f"{self.dir}/new", f"{self.dir}/cmd")
        while not os.path.exists(f"{self.dir}/ack"):
            time.sleep(0.01)
        os.unlink(f"{self.dir}/ack")

    def read(self):
        """Instructions and block entries since the last reset, by function."""
        instructions, blocks = collections.Counter(), collections.Counter()
        addresses = [address for address, _ in self.symbols]
        self.command(f"{self.dir}/out")
        with open(f"{self.dir}/out", encoding="ascii") as lines:
            for line in lines:
                address, size, runs = line.split()
                at = bisect.bisect_right(addresses, int(address, 16)) - 1
                name = self.symbols[at][1] if int(address, 16) >= KERNEL and at >= 0 else "(program)"
                instructions[name] += int(size) * int(runs)
                blocks[name] += int(runs)
        return instructions, blocks
