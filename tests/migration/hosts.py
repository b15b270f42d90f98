# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts: each a network namespace with a bridge and a vmcommd of its own; a trunk joins them.

	 host a                                   host b
	   vmcommd 10.77.0.254:7416 <--- TLS ---> vmcommd 10.77.0.253:7416
	   br0 ------------------- trunk ------------------- br0
	   tap1 tap2 tap3                                tap1
	    g1   g2   g3  ....... live migration ......> g1
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile

import daemonlib
from guests.cluster import Member
from lab import kernel, paths, rootdisk
from lab.session import wait_until

GROUP = "blue"
PATIENCE = 300
PROGRAMS = ("tests/programs/vmcomm-verify", "bench/tools/vmcomm-perf")


class Host:
    """One of them. ctl() and so on are its daemon's (daemonlib.Daemon)."""

    def __init__(self, name, net, peers, attach_timeout=60):
        self.name, self.net = name, net
        self._scratch = tempfile.TemporaryDirectory(prefix=f"vmc{name}-", dir="/tmp")
        self.directory = self._scratch.name
        config = f"peer_listen = {net.ip4}\n\n"
        for other, address in peers.items():
            config += f"[host {other}]\naddress = {address}\n"
        self.daemon = daemonlib.Daemon(paths.BUILD, self.directory, config,
                                       attach_timeout=attach_timeout, prefix=net.enter([]))
        self.daemon.start()

    def __getattr__(self, name):
        return getattr(self.daemon, name)

    def add_group(self, key_file=None, slots=4, memory="64M"):
        key = ["--key-file", key_file] if key_file else []
        self.ctl("group", "add", GROUP, "--slots", slots, "--memory", memory, *key)
        self.key_file = key_file or self.group_key(GROUP)

    def popen(self, *words, **kwargs):
        """A vmcommctl that runs on."""
        command = [f"{self.daemon.build}/cli/vmcommctl", "--socket", self.daemon.socket, *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                **kwargs)

    def close(self):
        self.daemon.clean_up()
        self._scratch.cleanup()


class Mover(Member):
    """A guest that can migrate; host is where it is."""

    def __init__(self, site, guest, host, monitor):
        super().__init__(site, guest, None)
        self.site, self.host, self.monitor = site, host, monitor
        self.receivers = 0
        self.events = []

    def add(self):
        self.host.ctl("vm", "add", self.name, "--group", GROUP, "--key-file", self.host.key_file,
                      "--address", self.ip4, "--address", self.ip6, "--qmp", self.monitor)

    def attach(self):
        self.host.ctl("vm", "attach", self.name)

    def state(self):
        return self.host.vm(self.name)["state"]

    def receiver_at(self, host):
        """Start a QEMU for it on HOST. Returns (receiver, monitor for vmcommd)."""
        self.receivers += 1
        monitor = f"{host.directory}/{self.name}.{self.receivers}.qmp"
        receiver = self.guest.receiver(host.net, ["-qmp", f"unix:{monitor},server=on,wait=off"])
        wait_until(lambda: os.path.exists(monitor), "the receiver's second monitor")
        return receiver, monitor

    def expect_at(self, host):
        """The same, registered there."""
        receiver, monitor = self.receiver_at(host)
        host.ctl("vm", "add", self.name, "--incoming", "--group", GROUP, "--key-file", host.key_file,
                 "--qmp", monitor)
        return receiver, monitor

    @contextlib.contextmanager
    def moving(self, host):
        """Around a migration to HOST; afterwards self.host is where it is."""
        receiver, monitor = self.expect_at(host)
        with self.guest.moving(receiver):
            yield
        if self.guest.qemu is receiver.qemu:
            self.host, self.monitor = host, monitor

    def migrate(self, host, expect=0, during=None, options=()):
        """To HOST with vmcommctl; during(process) is called while it runs. Returns its last object,
        or the text of its error. expect=None: it may end in any way."""
        source = self.host
        with self.moving(host):
            process = source.popen("--json", "migrate", self.name, host.name, *options)
            try:
                if during:
                    during(process)
                out, err = process.communicate(timeout=PATIENCE)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        objects = [json.loads(line) for line in out.splitlines()]
        self.events = [o for o in objects if "step" in o]
        if expect is not None and process.returncode != expect:
            raise AssertionError(f"vmcommctl migrate: status {process.returncode}, not {expect}\n"
                                 f"{out}{err}\n--- {source.name}\n{source.log()[-3000:]}\n--- "
                                 f"{host.name}\n{host.log()[-3000:]}")
        return err if process.returncode else objects[-1]["result"]


class Site:
    """Hosts a, b, perhaps c; MOVERS guests that can migrate, STAYERS that cannot, all at a at first.

    snapshots   the movers have a disk for QEMU's snapshots (and do not migrate)
    """

    def __init__(self, lab, movers=1, stayers=2, *, hosts=2, memory=256, postgres=False, join=True,
                 snapshots=False):
        self.lab = lab
        self._stack = contextlib.ExitStack()
        nets = {"a": lab.net()}
        for name in "bc"[:hosts - 1]:
            nets[name] = lab.net(trunk=nets["a"])
        disk = str(rootdisk.build(postgres=postgres))
        guests, monitors = [], []
        self.hosts = []
        for name, net in nets.items():
            others = {n: o.ip4 for n, o in nets.items() if n != name}
            self.hosts.append(Host(name, net, others | {"nowhere": f"{net.ip4}:1"}))
            self._stack.callback(self.hosts[-1].close)
            self.hosts[-1].add_group(self.hosts[0].key_file if net is not nets["a"] else None)
        self.a, self.b = self.hosts[:2]
        for i in range(movers + stayers):
            name = f"g{i + 1}"
            monitors.append(f"{self.a.directory}/{name}.0.qmp")
            options = {"disk": disk, "memory": memory} if i < movers else {"memory": max(memory, 512)}
            if i < movers and snapshots:
                image = lab.directory / f"{name}.snapshots"
                subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"],
                               check=True)
                options["extra"] = ["-drive", f"file={image},if=none,id=snapshots,format=qcow2"]
            guests.append(lab.define(name, net=nets["a"], **options))
            if i < movers and snapshots:
                guests[-1].machine.ram = ""  # in the snapshot, not shared
            guests[-1].launch(["-qmp", f"unix:{monitors[-1]},server=on,wait=off"])
        self.members = [Mover(self, g, self.a, m) for g, m in zip(guests, monitors)]
        self.movers, self.stayers = self.members[:movers], self.members[movers:]
        for member in self.members:
            member.guest.wait_ready()
            self._provide(member)
        if join:
            self.join(self.members)

    def _provide(self, member):
        module = str(paths.module(member.guest.kernel))
        if member.guest.machine.disk:
            for path in [str(paths.built(p)) for p in PROGRAMS] + [module]:
                with open(path, "rb") as f:
                    member.guest.put(path, f.read(), 0o755)
            self._provide_tls(member.guest)
        else:
            member.guest.run("modprobe tls")
        member.guest.insmod(module)

    @staticmethod
    def _provide_tls(guest):
        """The kernel's TLS, and what it would load by itself when it gets a key."""
        for path in kernel.module_files(guest.kernel, ["ctr", "ghash_generic", "gcm", "tls"]):
            guest.put(f"/tmp/{path.name}", kernel.module_bytes(path))
            guest.run(f"insmod /tmp/{path.name}", check=False)
            guest.run(f"rm /tmp/{path.name}")

    def join(self, members):
        for member in members:
            member.add()
            member.attach()
        self.wait_pairs(members)

    def wait_pairs(self, members=None, timeout=PATIENCE):
        """Until each has shared memory with all others on its host."""
        for m in members or self.members:
            others = sum(o.host is m.host and o is not m for o in self.members)
            wait_until(lambda m=m, n=others: len(m.pairs_up()) >= n, f"{m.name}: {others} pairs up",
                       timeout, 0.2)

    def close(self):
        for member in self.members:
            member.guest.kill()
        self._stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def kill_9(host):
    host.daemon.proc.send_signal(signal.SIGKILL)
    host.daemon.proc.wait(20)
