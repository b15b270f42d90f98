# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: makes networks and guests, and ends them."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import accel, kernel as kernels, net as nets
from .cleanup import Undertaker
from .errors import LabError
from .guest import Guest
from .qemu import Machine


class Lab:
    """Use as `with Lab() as lab:`; at the end, however it comes, everything it made is gone.

    accel       "kvm" or "tcg"
    directory   temporary directory for sockets and the like, deleted at the end
    logs        directory of the logs: $VMCOMM_LOG_DIR/<name>, or below `directory`, which is then
                kept if an exception ends the lab
    At a normal end the kernel log of every guest is checked (check=False: it is not).
    """

    def __init__(self, name="lab", check=True):
        if os.geteuid() != 0:
            raise LabError("the lab makes network namespaces and tap devices: run it as root")
        self.name = name
        self.guests_made = []
        self._check = check
        self._nets = 0
        self.undertaker = Undertaker()
        self.directory = Path(tempfile.mkdtemp(prefix="vmlab-"))
        self.undertaker.directory(self.directory)
        base = os.environ.get("VMCOMM_LOG_DIR")
        self.logs = Path(base, name) if base else self.directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.accel = accel.choose()
        # SIGTERM (a runner's time limit) ends the lab like Ctrl-C.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def net(self, trunk=None):
        """A new network (lab.net.Net). Guests on it reach each other and host processes in it.

        trunk   a Net that it is joined with, as the networks of two hosts are
        """
        self._nets += 1
        vhost = self.accel == "kvm" and nets.vhost_works()
        return nets.Net(f"{self.directory.name}-{self._nets}", vhost, self.undertaker, trunk)

    def guest(self, name="guest", *, net=None, kernel=None, wait=True, **machine):
        """A new guest, booted.

        net       its network, or None
        kernel    None (Debian's generic 6.1), "6.12", a release, or a lab.kernel.Kernel
        wait      False: return at once; call guest.wait_ready() later
        machine   fields of lab.qemu.Machine: smp, memory, board, plug_slots, append, extra
        """
        guest = self.define(name, net=net, kernel=kernel, **machine)
        guest.launch()
        return guest.wait_ready() if wait else guest

    def guests(self, number, *, net=None, **options):
        """NUMBER guests g1, g2, ... booted in parallel; options as for guest()."""
        made = [self.guest(f"g{i + 1}", net=net, wait=False, **options) for i in range(number)]
        return [guest.wait_ready() for guest in made]

    def define(self, name, *, net=None, kernel=None, **machine):
        """A guest that is not started: call its launch() and wait_ready()."""
        if any(g.name == name for g in self.guests_made):
            raise LabError(f"there is a guest {name!r} already")
        if not isinstance(kernel, kernels.Kernel):
            kernel = kernels.find(kernel or os.environ.get("VMLAB_KERNEL"))
        guest = Guest(self, name, kernel, net, Machine(**machine))
        self.guests_made.append(guest)
        return guest

    def check_kernels(self, ignore=()):
        """check_kernel of every guest."""
        for guest in self.guests_made:
            guest.check_kernel(ignore=ignore)

    def close(self):
        """End everything. `with` calls it."""
        for guest in self.guests_made:
            guest.close()
        self.undertaker.finish()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        try:
            if kind is None and self._check:
                self.check_kernels()
        except LabError:
            kind = LabError
            raise
        finally:
            if kind not in (None, KeyboardInterrupt, SystemExit) and self.directory in self.logs.parents:
                self.undertaker.keep(self.directory)
                print(f"# logs are kept in {self.logs}", file=sys.stderr)
            self.close()


def wait_until(condition, what, timeout=60, interval=0.05):
    """Wait until condition() is true and return its value; LabError(what) at the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout} s: {what}")
        time.sleep(interval)
