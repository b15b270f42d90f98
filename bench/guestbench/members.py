# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that are members of one group: a real vmcommd, told by vmcommctl."""

import sys
import tempfile

import daemonlib
from guests.cluster import Member, wait_pairs
from lab import paths

GROUP = "bench"


class Members:
    """NUMBER guests on NET, booted, with the module loaded, attached to one group.

    prefix    of the guests' names
    slots     of the group, at least
    extra     more words for their QEMUs
    machine   more of lab.Machine
    members   guests.cluster.Member for each, in the order of their slots
    """

    def __init__(self, lab, number, net, memory="64M", prefix="g", extra=(), slots=2, **machine):
        self._scratch = tempfile.TemporaryDirectory(prefix="vmc-")
        self.daemon = daemonlib.Daemon(paths.BUILD, self._scratch.name)
        monitors = [f"{self._scratch.name}/{i + 1}.qmp" for i in range(number)]
        guests = [lab.define(f"{prefix}{i + 1}", net=net,
                             extra=["-qmp", f"unix:{monitor},server=on,wait=off", *extra], **machine)
                  for i, monitor in enumerate(monitors)]
        for guest in guests:
            guest.launch()
        self.daemon.start()
        for guest in guests:
            guest.wait_ready()
            guest.insmod(paths.module(guest.kernel))
        self.members = [Member(self, guest, slot) for slot, guest in enumerate(guests)]
        self.ctl("group", "add", GROUP, "--slots", max(slots, number), "--memory", memory)
        for guest, monitor in zip(guests, monitors):
            self.ctl("vm", "add", guest.name, "--group", GROUP, "--key-file",
                     self.daemon.group_key(GROUP), "--address", guest.ip4, "--address", guest.ip6,
                     "--qmp", monitor)
            self.ctl("vm", "attach", guest.name)
        wait_pairs(self.members)

    def ctl(self, *words):
        progress("vmcommctl " + " ".join(str(w).replace(self._scratch.name, "...") for w in words))
        return self.daemon.ctl(*words)

    def enable(self, on):
        """Switch the module's use of shared memory on or off in all guests."""
        for member in self.members:
            member.enable(on)

    def set(self, parameter, value):
        """A parameter of the module in all guests."""
        for member in self.members:
            member.sh(f"echo {value} >/sys/module/vmcomm/parameters/{parameter}")

    def close(self):
        self.daemon.clean_up()
        self._scratch.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def progress(text):
    """One line about what is going on, on standard error."""
    print(f"# {text}", file=sys.stderr, flush=True)
