# SPDX-License-Identifier: GPL-2.0-or-later
"""A real region keeper in stand-alone mode: no vmcommd, the slots are open from the start."""

import os
import subprocess
import tempfile

from lab import paths
from lab.errors import LabError
from lab.session import wait_until


class Keeper:
    """vmcomm-keeper for one group.

    addresses   of each slot: a list of lists of addresses
    directory   of its sockets
    """

    def __init__(self, lab, addresses, memory="64M", slots=None, gid="test"):
        self.directory = tempfile.mkdtemp(prefix="keeper-", dir=lab.directory)
        self.log = lab.logs / f"keeper-{os.path.basename(self.directory)}.log"
        command = [paths.built("host/vmcomm-keeper"), "--gid", gid, "--dir", self.directory,
                   "--memory", memory, "--slots", str(slots or max(2, len(addresses)))]
        for slot, of_slot in enumerate(addresses):
            command += ["--open", f"{slot}={','.join(of_slot)}"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        lab.undertaker.process(self.process.pid)
        for slot in range(len(addresses)):
            wait_until(lambda s=slot: os.path.exists(self.socket(s)) or self._dead(),
                       f"the keeper's socket {slot}")

    def _dead(self):
        if self.process.poll() is None:
            return False
        raise LabError(f"the keeper ended: {self.log.read_text()[-1000:]}")

    def socket(self, slot):
        """The socket that the QEMU of the VM in SLOT connects to."""
        return os.path.join(self.directory, f"slot-{slot}.sock")

    def allocated(self):
        """KiB of the region that have pages."""
        for fd in os.listdir(f"/proc/{self.process.pid}/fd"):
            path = f"/proc/{self.process.pid}/fd/{fd}"
            try:
                if "memfd" in os.readlink(path):
                    return os.stat(path).st_blocks // 2
            except OSError:
                continue
        raise LabError("the keeper has no memfd")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory_kib(self):
        """Private memory of the process, without the region."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("RssAnon:"))

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
