# SPDX-License-Identifier: GPL-2.0-or-later
"""A domU, used like any lab guest. Its agent is reached over its network interface."""

import subprocess
import time

from lab import net as nets
from lab.agent import Agent
from lab.errors import LabError
from lab.guest import Guest
from lab.qemu import Machine

_AGENT_PORT = 99
_FIRST = 100  # last byte of the first domU's address, minus 1


class Domain(Guest):
    """A Xen domain (made by XenHost.domain).

    kind      "pvh" or "pv"
    memory    MiB
    programs  absolute paths of the host's programs that it has besides busybox
    modules   names of kernel modules that it loads besides xen-netfront
    config    more lines for its xl configuration
    starter   command that starts it, which gets the path of that; None: xl
    xl        the configuration's path in dom0
    """

    def __init__(self, host, name, *, kind="pvh", memory=160, programs=(), modules=(),
                 config="", starter=None):
        super().__init__(host.lab, name, host.kernel, None, Machine(memory=memory))
        self.host = host
        self.net = host.net
        self.kind = kind
        self.starter = starter
        number = host.adopt(self) + _FIRST
        self.ip4 = f"{nets.PREFIX4}.{number}"
        self.ip6 = f"{nets.PREFIX6}:{number:x}"
        self.mac = f"00:16:3e:77:00:{number:02x}"
        self._relay = None
        self._gone = False
        self.xl = f"/etc/xen/{name}.cfg"
        host.put(self.xl, "\n".join([
            f'name="{name}"', f'type="{kind}"', f"memory={memory}", "vcpus=1",
            f'kernel="{host.kernel_image()}"', f'ramdisk="{host.initramfs(programs, modules)}"',
            f'extra="console=hvc0 quiet loglevel=5 panic=-1 lab.name={name} lab.ip={self.ip4}/24 '
            f'lab.ip6={self.ip6}/64 cryptomgr.notests random.trust_cpu=on '
            f'watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60"',
            f"vif=['mac={self.mac},bridge=xenbr0']", config, ""]))
        host.lab.guests_made.append(self)

    # -- life ------------------------------------------------------------------------------------

    def create(self, timeout=180):
        """Start it, paused if no other command does it."""
        self._begin = time.monotonic()
        self._launches += 1
        self._gone = False
        self.host.run(f"{self.starter or 'xl create -q -p'} {self.xl}", timeout=timeout)
        self._agent = Agent(self.name, self.log.add, self._commands)

    def connect(self):
        """Connect to its agent, through a relay in the lab's network namespace."""
        if self._relay:
            return
        path = self.lab.directory / f"{self.name}.{self._launches}.agent"
        self._relay = self.net.popen(
            ["socat", f"UNIX-LISTEN:{path}",
             f"TCP:{self.ip4}:{_AGENT_PORT},nodelay,retry=2000,interval=0.1,connect-timeout=2"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.lab.undertaker.process(self._relay.pid)
        self._agent.connect(path, lambda: None)

    def wait_ready(self, timeout=180):
        self.connect()
        try:
            self._agent.wait_boot(1, timeout, self.host.qemu.must_live)
        except LabError as e:
            raise LabError(f"{e}\n--- console of {self.name}:\n{self.console_tail()}") from e
        if self.boot_seconds is None:
            self.boot_seconds = time.monotonic() - self._begin
        return self

    def wait_again(self, timeout=120):
        """After a save and restore or a migration: wait until it runs and its agent answers."""
        self._agent.sync(timeout)

    @property
    def domid(self):
        return int(self.host.sh(f"xl domid {self.name}"))

    @property
    def alive(self):
        return self._agent is not None and not self._gone and self.host.alive

    def console_tail(self, size=3000):
        """The end of what it wrote on its console (xenconsoled keeps it in dom0)."""
        if not self.host.alive:
            return ""
        return self.host.run(f"tail -c {size} /var/log/xen/console/guest-{self.name}.log",
                             check=False).stdout

    def destroy(self):
        """xl destroy: it dies without a word."""
        self.host.run(f"xl destroy {self.name}")
        self.kill()

    def shut_down(self, timeout=120):
        """Power it off from inside and wait until it is gone."""
        self.spawn("busybox poweroff -f")
        self.host.run(f"while xl domid {self.name} >/dev/null 2>&1; do sleep 0.2; done",
                      timeout=timeout)
        self.kill()

    def kill(self):
        """Forget its agent; the domain itself is dom0's to end."""
        self._gone = True
        if self._agent:
            self._agent.close()
        if self._relay:
            self._relay.kill()
            self._relay.wait()
            self._relay = None
