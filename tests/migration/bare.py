# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM without an operating system: its migration takes milliseconds, its disk is what matters."""

import os
import random
import time

from lab import accel, qemu
from lab.errors import LabError
from lab.session import wait_until

from .hosts import GROUP, PATIENCE

MEMORY = 32


def has_disks(qmp):
    """Whether QEMU holds its disks: one that gave them away has no permission on them."""
    return any(edge["perm"] for edge in qmp("x-debug-query-block-graph")["edges"])


def runs(process):
    try:
        return process.qmp("query-status")["status"] == "running"
    except LabError:
        return False


class BareVm:
    """At HOST, a member of the group that is never attached."""

    def __init__(self, lab, name, host):
        self.lab, self.name, self.host = lab, name, host
        self.number = 0
        self.disk = lab.directory / f"{name}.disk"
        self.ram = f"/dev/shm/vmlab-{os.getpid()}-{name}"
        with open(self.disk, "wb") as f:
            f.truncate(1 << 20)
        self.qemu = None
        self.qemu, monitor = self.launch(host)
        host.ctl("vm", "add", name, "--group", GROUP, "--key-file", host.key_file, "--address",
                 "10.77.0.99", "--qmp", monitor)

    def launch(self, host, extra=()):
        """A QEMU for it on HOST. Returns it and a monitor for vmcommd."""
        self.number += 1
        ours = str(self.lab.directory / f"{self.name}.{self.number}.qmp")
        theirs = f"{host.directory}/{self.name}.{self.number}.qmp"
        args = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-M",
                "q35,sata=off,smbus=off,usb=off,vmport=off", *accel.arguments(self.lab.accel), "-m",
                str(MEMORY), "-device", "pcie-root-port,id=slot0,chassis=1,slot=1",
                "-drive", f"file={self.disk},if=none,id=disk,format=raw,file.locking=off",
                "-device", "virtio-blk-pci,drive=disk",
                # Shared, so that there is next to nothing to be copied.
                "-object", f"memory-backend-file,id=ram0,size={MEMORY}M,share=on,mem-path={self.ram}",
                "-machine", "memory-backend=ram0", "-qmp", f"unix:{ours},server=on,wait=off",
                "-qmp", f"unix:{theirs},server=on,wait=off", *extra]
        process = qemu.Qemu(self.name, host.net.enter(args), self.lab.logs /
                            f"{self.name}.{self.number}.log", self.lab.undertaker)
        process.open_monitor(ours)
        process.qmp("migrate-set-capabilities",
                    capabilities=[{"capability": "x-ignore-shared", "state": True}])
        wait_until(lambda: os.path.exists(theirs), "the monitor for vmcommd")
        return process, theirs

    def migrate(self, host, during=None):
        """To HOST with vmcommctl; during(process) is called once memory is copied. Returns whether it
        is there then, and what vmcommctl said."""
        receiver, monitor = self.launch(host, ["-incoming", "defer"])
        host.ctl("vm", "add", self.name, "--incoming", "--group", GROUP, "--key-file", host.key_file,
                 "--qmp", monitor)
        process = self.host.popen("--json", "migrate", self.name, host.name)
        try:
            if during:
                for line in process.stdout:
                    if '"memory"' in line:
                        during(process)
                        break
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode in (0, 9):  # without a module in it, its device stays away
            self.qemu.kill()
            self.qemu, self.host = receiver, host
            return True, err
        self.qemu.must_live()
        time.sleep(0.2)
        assert not runs(receiver), "it runs on both sides"
        receiver.kill()
        return False, err

    def cancel_by_hand(self):
        """Begin a migration to nowhere and cancel it at once, without vmcommd. Returns whether it runs on
        without its disks."""
        qmp = self.qemu.qmp
        qmp("migrate", uri="exec:cat >/dev/null")
        time.sleep(random.random() * 0.02)
        qmp("migrate_cancel")
        status = wait_until(lambda: (s := qmp("query-migrate")["status"]) in
                            ("cancelled", "completed", "failed") and s, "it is over", interval=0.01)
        if status == "completed":
            qmp("cont")
        wait_until(lambda: qmp("query-status")["status"] == "running", "it runs on", interval=0.01)
        return not has_disks(qmp)

    def close(self):
        if self.qemu:
            self.qemu.kill()
        if os.path.exists(self.ram):
            os.unlink(self.ram)
