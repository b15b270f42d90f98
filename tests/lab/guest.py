# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest: boot, commands, devices, death."""

import contextlib
import json
import os
import signal
import tempfile
import time

from . import accel, initramfs, net as nets, parking, qemu
from .agent import POWER_OFF, POWER_REBOOT, Agent, connect
from .errors import KernelComplaint, LabError
from .kmsg import KernelLog


class Receiver:
    """A QEMU that waits for a guest (made by Guest.receiver)."""

    def __init__(self, process, net, nic, files, agent):
        self.qemu, self.net, self.nic, self.files, self.agent = process, net, nic, files, agent

    def has_it(self):
        """Whether the guest lives in it."""
        try:
            return self.qemu.qmp("query-status")["status"] != "inmigrate"
        except LabError:
            return False

    def close(self):
        self.qemu.kill()
        self.agent.close()


class Guest:
    """A virtual machine that runs the host's programs (made by Lab.guest and Lab.guests).

    name       also its host name
    ip4, ip6   its addresses on its Net (None without one)
    mac        its hardware address
    kernel     the lab.kernel.Kernel it runs
    qmp        the monitor (lab.qmp.Qmp): guest.qmp("query-status"), guest.qmp.wait_event(...)
    qemu       the process (lab.qemu.Qemu): pid, cpu_seconds(), memory_kib(), open_files()
    log        its kernel messages since boot (lab.kmsg.KernelLog)
    boot_seconds   from QEMU's start to the agent's hello
    """

    def __init__(self, lab, name, kernel, net, machine):
        self.lab = lab
        self.name = name
        self.kernel = kernel
        self.net = net
        self.machine = machine
        self.ip4 = self.ip6 = self.mac = None
        self.boot_seconds = None
        self.qemu = None
        self.log = KernelLog(lab.logs / f"{name}.kernel.log")
        self._commands = open(lab.logs / f"{name}.commands.log", "w", encoding="utf-8")
        self._agent = None
        self._launches = 0
        self._forgiven = 0
        self._stopped = False
        self._last_words_read = False
        self._nic = None
        self._words = [f"lab.name={name}"]
        if net:
            number, tap = net.add_tap()
            self.mac = f"52:54:00:77:00:{number:02x}"
            self.ip4 = f"{nets.PREFIX4}.{number}"
            self.ip6 = f"{nets.PREFIX6}:{number:x}"
            self._nic = {"tap": tap, "mac": self.mac, "vhost": net.vhost}
            self._words += [f"lab.ip={self.ip4}/24", f"lab.ip6={self.ip6}/64"]
            self._number, self._taps = number, {net: tap}
        if machine.disk:
            self._words.append("lab.disk")
            if lab.accel == "tcg" and not os.environ.get("VMLAB_COPY_RAM"):
                directory = tempfile.mkdtemp(prefix="vmlab-ram-", dir="/dev/shm")
                lab.undertaker.directory(directory)
                machine.ram = f"{directory}/{name}"

    # -- life ------------------------------------------------------------------------------------

    def launch(self, extra=()):
        """Start QEMU and return at once; wait_ready() waits for the boot.

        extra   more QEMU arguments, for example ["-incoming", "defer"]
        """
        self._begin = time.monotonic()
        self._stopped = self._last_words_read = False
        self.qemu, self._files = self._start_qemu(self.net, self._nic, extra)
        self.console = self._files["console"]
        self._agent = Agent(self.name, self.log.add, self._commands)

    def _start_qemu(self, net, nic, extra):
        self._launches += 1
        run = self.lab.directory / f"{self.name}.{self._launches}"
        files = {"agent": f"{run}.agent", "qmp": f"{run}.qmp",
                 "console": self.lab.logs / f"{self.name}.console.{self._launches}.log"}
        args = self.command_line(files, nic) + list(extra)
        if net:
            args = net.enter(args)
        log = self.lab.logs / f"{self.name}.qemu{'' if self._launches == 1 else self._launches}.log"
        return qemu.Qemu(self.name, args, log, self.lab.undertaker,
                         parking.environment(self.lab.accel)), files

    def cable(self, plugged):
        """Its NIC's: without it, what is sent there or comes from there is lost."""
        self.net.run(["ip", "link", "set", self._nic["tap"], "up" if plugged else "down"])

    # -- migration -------------------------------------------------------------------------------

    def receiver(self, net, extra=()):
        """A second QEMU for this guest, on NET, that waits for it (-incoming defer). See moving().

        Under TCG both share the guest's memory and only the devices' state is sent: QEMU 7.2 misses
        pages that a busy guest writes while they are sent (its dirty bits are racy without KVM), and
        the guest crashes at the destination. VMLAB_COPY_RAM=1 sends it all the same.
        """
        if net not in self._taps:
            self._taps[net] = net.add_tap(self._number)[1]
        nic = self._nic | {"tap": self._taps[net], "vhost": net.vhost}
        process, files = self._start_qemu(net, nic, ["-incoming", "defer", *extra])
        process.open_monitor(files["qmp"])
        self._share_ram(process)
        return Receiver(process, net, nic, files, connect(files["agent"], process.must_live, 30))

    def _share_ram(self, process):
        if self.machine.ram:
            process.qmp("migrate-set-capabilities",
                        capabilities=[{"capability": "x-ignore-shared", "state": True}])

    @contextlib.contextmanager
    def moving(self, receiver):
        """Around a migration into RECEIVER by somebody else (vmcommd): commands wait meanwhile.

        If the guest runs in the receiver at the block's end, that is its QEMU from then on, and the
        old one is killed if it has not ended. Otherwise the receiver is killed. Jobs go on either way.
        """
        with self._agent.held():
            try:
                yield
            finally:
                if receiver.has_it():
                    old, self.qemu = self.qemu, receiver.qemu
                    self.net, self._nic, self._files = receiver.net, receiver.nic, receiver.files
                    self.console = receiver.files["console"]
                    self._agent.hand_over(receiver.agent, old.kill)
                else:
                    receiver.close()

    def command_line(self, files, nic=None):
        """QEMU's arguments; files has the paths of agent, qmp and console."""
        image = initramfs.build(self.kernel, bool(self.machine.disk))
        return qemu.command_line(self.name, self.machine,
                                 accel.arguments(self.lab.accel, self.machine.icount),
                                 self.kernel.boot_image(), image, files, nic or self._nic,
                                 self._words)

    def connect(self):
        """Connect to monitor and agent. Called by wait_ready."""
        if not self.qemu.qmp:
            self.qemu.open_monitor(self._files["qmp"])
            self._share_ram(self.qemu)
            self._agent.connect(self._files["agent"], self.qemu.must_live)

    def wait_ready(self, timeout=120):
        """Wait until commands can run. Raises LabError with the console's end if they never can."""
        try:
            self.connect()
            self._agent.wait_boot(self._agent.boots or 1, timeout, self.qemu.must_live)
        except LabError as e:
            raise LabError(f"{e}\n--- console of {self.name}:\n{self.console_tail()}") from e
        if self.boot_seconds is None:
            self.boot_seconds = time.monotonic() - self._begin
        return self

    def reboot(self, timeout=120, how="guest"):
        """Reset the machine under everything that runs, wait until it is up again.

        how   "guest": reboot(2) in it without any shutdown but that of the network (agent.c says
              why); "reset": the machine's reset button
        """
        self.qmp("set-action", reboot="reset")
        boots, events = self._agent.boots, len(self.qmp.events)
        self.log.note(f"--- lab: reboot ({how})")
        if how == "guest":
            self._agent.power(POWER_REBOOT)
        else:
            self.qmp("system_reset")
        self.qmp.wait_event("RESET", since=events)
        self._agent.expect_reboot()
        self._agent.wait_boot(boots + 1, timeout, self.qemu.must_live)
        self.qmp("set-action", reboot="shutdown")

    def power_off(self, timeout=60):
        """End it from inside, at once; wait for QEMU's end."""
        self._agent.power(POWER_OFF)
        self.qemu.wait(timeout)
        self.kill()

    def kill(self):
        """kill -9 of QEMU: a host crash as seen by the others. Harmless if it is dead."""
        if self.qemu:
            self.qemu.kill()
            self._agent.close()

    def stop(self):
        """SIGSTOP to QEMU: the guest hangs, its memory and devices stay."""
        self._stopped = True
        self.qemu.signal(signal.SIGSTOP)

    def cont(self):
        """SIGCONT after stop()."""
        self.qemu.signal(signal.SIGCONT)
        self._stopped = False

    @contextlib.contextmanager
    def stopped(self):
        """with guest.stopped(): ... - it hangs meanwhile."""
        self.stop()
        try:
            yield
        finally:
            self.cont()

    @property
    def alive(self):
        return self.qemu is not None and self.qemu.process.poll() is None

    @property
    def qmp(self):
        return self.qemu.qmp

    # -- commands --------------------------------------------------------------------------------

    def spawn(self, command, *, cwd="", env=None, stdin=False, stdout=None):
        """Start COMMAND in the guest; return a lab.agent.Job at once.

        command   a string for /bin/sh, or a list of arguments; runs as root in its own session
        env       dict of more environment variables
        stdin     False: at its end from the start; True: use job.write() and job.close_stdin()
        stdout    function called with each piece (bytes) instead of keeping all of it in memory
        """
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else [str(a) for a in command]
        label = command if isinstance(command, str) else " ".join(argv)
        return self._agent.start(argv, cwd=cwd, env=env, stdin=stdin, stdout=stdout, label=label)

    def run(self, command, *, input=None, timeout=120, check=True, **options):
        """Run COMMAND to its end; return a lab.agent.Result (returncode, stdout, stderr, seconds).

        input     bytes or str for its standard input
        check     raise CommandError unless it ended with status 0
        options   as for spawn
        """
        job = self.spawn(command, stdin=input is not None, **options)
        if input is not None:
            job.write(input.encode() if isinstance(input, str) else input, timeout)
            job.close_stdin()
        try:
            return job.wait(timeout, check)
        except BaseException:
            if self.alive and not self._stopped:
                with contextlib.suppress(LabError):
                    job.kill()
            raise

    def sh(self, command, **options):
        """Standard output of COMMAND, stripped."""
        return self.run(command, **options).stdout.strip()

    def put(self, path, data, mode=0o644):
        """Write DATA (bytes or str) to PATH in the guest."""
        self.run(["/bin/sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"',
                  "put", path, f"{mode:o}"], input=data)

    def get(self, path):
        """Content of the guest's file PATH, as bytes."""
        return self.run(["cat", path]).raw_stdout

    def wait_listening(self, port, timeout=60):
        """Wait until a program in the guest listens on TCP port PORT (IPv4 or IPv6).

        Better than waiting for its output, which many programs buffer when it is no terminal.
        """
        self.run(f"until grep -qE '^ *[0-9]+: [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A ' "
                 "/proc/net/tcp /proc/net/tcp6; do sleep 0.05; done", timeout=timeout)

    def insmod(self, path, **parameters):
        """Load the module file PATH (a path on the host) with its parameters."""
        self.run(["insmod", path, *(f"{k}={v}" for k, v in parameters.items())])

    # -- kernel log ------------------------------------------------------------------------------

    def log_position(self):
        """A position in the kernel log, after all messages up to now; for check_kernel(since=)."""
        self._agent.sync()
        return len(self.log.lines)

    def sent_bytes(self):
        """What its NIC has sent so far, by the host's counter of its tap."""
        net, tap = next(iter(self._taps.items()))
        shown = json.loads(net.run(["ip", "-s", "-j", "link", "show", "dev", tap]).stdout)
        return shown[0]["stats64"]["rx"]["bytes"]

    def check_kernel(self, since=0, ignore=()):
        """Raise KernelComplaint if the kernel logged a BUG, WARNING, stall or the like.

        Works for a dead or stopped guest too, with what it sent before.
        ignore   regexes of lines that are expected
        """
        if self.alive and not self._stopped:
            with contextlib.suppress(LabError):
                self._agent.sync()
        if not self.alive:
            self._read_last_words()
        found = self.log.complaints(max(since, self._forgiven), ignore)
        if found:
            first = self.log.lines.index(found[0], max(since, self._forgiven))
            context = "\n".join(self.log.lines[max(0, first - 3):first + 40])
            raise KernelComplaint(f"[{self.name}] {len(found)} complaints of the kernel, "
                                  f"the first with its surroundings:\n{context}")

    def forgive_kernel(self):
        """Leave all up to now out of later checks: it was provoked."""
        with contextlib.suppress(LabError):
            self.check_kernel()
        self._forgiven = len(self.log.lines)

    def _read_last_words(self):
        """Add to the kernel log what a dead guest could only print on its console."""
        if self._last_words_read:
            return
        self._last_words_read = True
        known = {line.partition(">")[2] for line in self.log.lines}
        for line in self.console_tail(100000).splitlines():
            if line.startswith("[") and line not in known:
                self.log.note(f"<console>{line}")

    def console_tail(self, size=3000):
        """The end of the serial console (kernel warnings and worse; the last words of a crash)."""
        try:
            return self.console.read_text(errors="replace")[-size:]
        except OSError:
            return ""

    # -- ivshmem ---------------------------------------------------------------------------------

    def plug(self, socket_path, *, vectors=4, slot=0, name="vmcomm"):
        """Add an ivshmem-doorbell device served at the unix socket SOCKET_PATH.

        slot   which hotplug slot (q35)
        """
        address = {"type": "unix", "data": {"path": str(socket_path)}}
        self.qmp("chardev-add", id=f"{name}-chr",
                 backend={"type": "socket", "data": {"addr": address, "server": False}})
        bus = f"slot{slot}" if self.machine.board == "q35" else "pci.0"
        try:
            self.qmp("device_add", driver="ivshmem-doorbell", id=name, chardev=f"{name}-chr",
                     vectors=vectors, bus=bus)
        except LabError:
            self.qmp("chardev-remove", id=f"{name}-chr")
            raise

    def unplug(self, name="vmcomm", timeout=60):
        """Ask the guest to let go of the device, wait until it is gone, drop its socket."""
        with self.unplugging(name, timeout):
            self.qmp("device_del", id=name)
        self.qmp("chardev-remove", id=f"{name}-chr")

    @contextlib.contextmanager
    def unplugging(self, name="vmcomm", timeout=60):
        """Around an unplug of device NAME by somebody else (vmcommd): wait until it is gone."""
        events = len(self.qmp.events)
        yield
        self.qmp.wait_event("DEVICE_DELETED", timeout, since=events, device=name)

    # -- end -------------------------------------------------------------------------------------

    def close(self):
        """Called by the lab at its end."""
        self.kill()
        self.log.close()
        self._commands.close()
