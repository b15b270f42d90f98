# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process: its command line, its monitor, how it ends."""

import os
import signal
import subprocess
from dataclasses import dataclass, field

from .errors import GuestGone
from .qmp import Qmp


@dataclass
class Machine:
    """What a guest is made of.

    smp, memory     virtual CPUs, MiB
    board           "q35" or "i440fx"
    plug_slots      hotplug slots kept free for ivshmem (q35: root ports, 1 GiB window each)
    append          extra words for the kernel's command line
    extra           extra QEMU arguments, as a list
    disk            path of a root disk (lab.rootdisk) instead of the host's root: it can migrate
    icount          under TCG: the guest's clock goes by its instructions, 2^icount ns for each
    ram             file that is its memory, shared with the QEMU that it migrates to; see Guest.receiver
    """

    smp: int = 1
    memory: int = 512
    board: str = "q35"
    plug_slots: int = 2
    append: str = ""
    extra: list = field(default_factory=list)
    disk: str = ""
    icount: int = None
    ram: str = ""


# No word here makes the guest's network or scheduler slower or faster than a stock boot; they
# only leave out what a guest in a test has no use for.
APPEND = ("console=ttyS0,115200 quiet loglevel=5 panic=-1 tsc=reliable no_timer_check "
           "random.trust_cpu=on log_buf_len=4M cryptomgr.notests rcupdate.rcu_expedited=1 "
           # On a busy host a guest may get no CPU for many seconds; that is no lock-up.
           "watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60")
_BOARDS = {
    "q35": ["-M", "q35,sata=off,smbus=off,usb=off,vmport=off"],
    "i440fx": ["-M", "pc,usb=off,vmport=off"],
}


def command_line(name, machine, accel, kernel_image, initramfs, files, nic=None, words=()):
    """QEMU's argument list.

    files   dict of paths: console, agent, qmp
    nic     dict of tap, mac, vhost; or None
    words   what the lab's own init is told on the kernel command line
    """
    append = " ".join([APPEND, *words, machine.append])
    args = ["qemu-system-x86_64", "-name", name, "-nodefaults", "-no-user-config",
            "-display", "none", *_BOARDS[machine.board], *accel,
            "-smp", str(machine.smp), "-m", str(machine.memory),
            "-kernel", str(kernel_image), "-initrd", str(initramfs), "-append", append,
            # A reset that nobody asked for is a crash: end then. Guest.reboot allows its own.
            "-action", "reboot=shutdown,panic=exit-failure",
            # QEMU writes the console to a file itself, so the guest never waits for a reader.
            "-chardev", f"file,id=console,path={files['console']}", "-serial", "chardev:console",
            "-chardev", f"socket,id=agent,path={files['agent']},server=on,wait=off",
            "-device", "virtio-serial-pci,max_ports=4",
            "-device", "virtserialport,chardev=agent,name=vmlab.agent",
            "-qmp", f"unix:{files['qmp']},server=on,wait=off"]
    if machine.disk:
        # Two QEMUs have it open while a guest migrates; nobody writes.
        args += ["-drive", f"file={machine.disk},if=none,id=root,format=raw,readonly=on,"
                           "file.locking=off", "-device", "virtio-blk-pci,drive=root"]
    else:
        args += ["-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,"
                            "multidevs=remap"]
    if machine.ram:
        args += ["-object", f"memory-backend-file,id=ram0,size={machine.memory}M,share=on,"
                            f"mem-path={machine.ram}", "-machine", "memory-backend=ram0"]
    if nic:
        vhost = "on" if nic["vhost"] else "off"
        args += ["-netdev", f"tap,id=net0,ifname={nic['tap']},script=no,downscript=no,vhost={vhost}",
                 "-device", f"virtio-net-pci,netdev=net0,mac={nic['mac']},romfile="]
    if machine.board == "q35":
        # A default port has room for 2 MiB only; a BAR that does not fit shows up with length 0.
        for i in range(machine.plug_slots):
            args += ["-device", f"pcie-root-port,id=slot{i},chassis={i + 1},slot={i + 1},"
                                "pref64-reserve=1G"]
    return args + machine.extra


class Qemu:
    """A running QEMU. log is the path that takes its stdout and stderr."""

    def __init__(self, name, args, log, undertaker, env=None):
        self.name = name
        self.args = args
        self.log = log
        with open(log, "w", encoding="utf-8") as out:
            out.write(" ".join(args) + "\n")
            out.flush()
            # A session of its own: Ctrl-C is for the lab, which then ends its guests.
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            start_new_session=True, env=env)
        undertaker.process(self.process.pid)
        self.qmp = None

    @property
    def pid(self):
        return self.process.pid

    def open_monitor(self, path):
        self.qmp = Qmp(self.name, path, self.must_live)

    def must_live(self):
        """Raise GuestGone with QEMU's last words if it has ended."""
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                words = "".join(f.readlines()[1:])[-2000:]
            raise GuestGone(f"[{self.name}] QEMU ended with status {self.process.returncode}: "
                            f"{words.strip() or 'no message'}")

    def signal(self, sig):
        os.kill(self.process.pid, sig)

    def wait(self, timeout=None):
        return self.process.wait(timeout)

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.qmp:
            self.qmp.close()

    def cpu_seconds(self):
        """CPU seconds used so far by the whole process (guest and device emulation)."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_kib(self):
        """Resident memory of the process."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))

    def open_files(self):
        """Number of its open descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))
