# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts with libvirt: each a network namespace (lab.net) and a mount namespace of its own, in which
libvirtd sees private directories for everything that it keeps. QEMU runs as user libvirt-qemu.

What is /run/libvirt to libvirtd is DIRECTORY/lv/run to everybody else.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from pathlib import Path

import daemonlib
from lab import cache, initramfs, kernel as kernels, parking, paths, rootdisk
from lab.agent import Agent, connect
from lab.errors import GuestGone, LabError
from lab.guest import Guest
from lab.qemu import APPEND, Machine
from lab.qmp import Qmp
from lab.session import wait_until
from migration.hosts import GROUP, PATIENCE, PROGRAMS, Host, Mover, Site

USER = "libvirt-qemu"
NAMESPACE = "urn:vmcomm:member:1"
_PLACES = {"run": "/run/libvirt", "lib": "/var/lib/libvirt", "log": "/var/log/libvirt",
           "cache": "/var/cache/libvirt", "etc": "/etc/libvirt"}
_CACHE = "/var/lib/libvirt/lab-cache"  # the lab's, for a QEMU that may not look into root's home


class DomainHost(Host):
    """A host whose VMs are domains. vmcommd is connected to its libvirtd.

    hook_config   more lines for section [libvirt]
    """

    def __init__(self, lab, name, net, peers, attach_timeout=120, libvirt_options=""):
        self.name, self.net, self.lab = name, net, lab
        self._scratch = tempfile.TemporaryDirectory(prefix=f"vml{name}-", dir="/tmp")
        self.directory = self._scratch.name
        os.chmod(self.directory, 0o711)
        self.lv = f"{self.directory}/lv"
        self.libvirtd = None
        self.uri = f"qemu+unix:///system?socket={self.lv}/run/libvirt-sock"
        self._make_places()
        config = f"peer_listen = {net.ip4}\n\n[libvirt]\nuri = {self.uri}\n{libvirt_options}\n\n"
        for other, address in peers.items():
            config += (f"[host {other}]\naddress = {address}\n"
                       f"libvirt_uri = qemu+tcp://{address.partition(':')[0]}/system\n")
        self.daemon = daemonlib.Daemon(paths.BUILD, self.directory, config,
                                       attach_timeout=attach_timeout, prefix=net.enter([]))
        self._write_hook()
        self.start_libvirtd()
        self.daemon.start()

    # -- libvirtd --------------------------------------------------------------------------------

    def _make_places(self):
        user = pwd.getpwnam(USER)
        for place in _PLACES:
            os.makedirs(f"{self.lv}/{place}")
        for sub in ("run/lab", "lib/qemu", "lib/lab-cache", "etc/qemu/networks", "etc/hooks/qemu.d",
                    "etc/secrets", "log/qemu", "cache/qemu"):
            os.makedirs(f"{self.lv}/{sub}")
        for sub in ("run/lab", "lib/qemu", "log/qemu", "cache/qemu"):
            os.chown(f"{self.lv}/{sub}", user.pw_uid, user.pw_gid)
        with open(f"{self.lv}/etc/libvirtd.conf", "w", encoding="ascii") as f:
            f.write(f'host_uuid = "{uuid.uuid4()}"\nunix_sock_group = "root"\n'
                    'auth_unix_ro = "none"\nauth_unix_rw = "none"\nlisten_tls = 0\nlisten_tcp = 1\n'
                    f'auth_tcp = "none"\nlisten_addr = "{self.net.ip4}"\n'
                    'log_outputs = "2:file:/var/log/libvirt/libvirtd.log"\n')
        with open(f"{self.lv}/etc/qemu.conf", "w", encoding="ascii") as f:
            f.write(f'security_driver = "none"\nuser = "{USER}"\ngroup = "{USER}"\n'
                    'dynamic_ownership = 0\nremember_owner = 0\ncgroup_controllers = [ ]\n'
                    f'namespaces = [ ]\nstdio_handler = "file"\nmigration_host = "{self.net.ip4}"\n')
        with open(f"{self.lv}/start", "w", encoding="ascii") as f:
            f.write(f"set -e\nhostname vm{self.name}\nmount --make-rprivate /\n")
            for place, where in _PLACES.items():
                f.write(f"mkdir -p {where}\nmount --bind {self.lv}/{place} {where}\n")
            f.write(f"mount --bind {cache.root()} {_CACHE}\n"
                    "exec /usr/sbin/libvirtd --listen --pid-file /run/libvirt/libvirtd.pid\n")

    def _write_hook(self):
        path = f"{self.lv}/etc/hooks/qemu.d/vmcomm"
        with open(path, "w", encoding="ascii") as f:
            f.write(f"#!/bin/sh\nexec {paths.built('cli/vmcomm-libvirt-hook')} "
                    f'--config {self.daemon.config} "$@"\n')
        os.chmod(path, 0o755)

    def start_libvirtd(self):
        log = open(f"{self.directory}/libvirtd.out", "a", encoding="utf-8")
        command = self.net.enter(["unshare", "-m", "-u", "-i", "bash", f"{self.lv}/start"])
        with log:
            self.libvirtd = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log, start_new_session=True)
        self.lab.undertaker.process(self.libvirtd.pid)

        def up():
            if self.libvirtd.poll() is not None:
                raise LabError(f"libvirtd ended: {self.libvirtd_log()}")
            return self.virsh("uri", check=False).returncode == 0
        wait_until(up, "libvirtd answers", 60)

    def stop_libvirtd(self, sig=signal.SIGTERM):
        self.libvirtd.send_signal(sig)
        self.libvirtd.wait(60)

    def libvirtd_log(self):
        text = ""
        for path in (f"{self.directory}/libvirtd.out", f"{self.lv}/log/libvirtd.log"):
            with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as f:
                text += f.read()[-3000:]
        return text

    def virsh(self, *words, check=True, **kwargs):
        done = subprocess.run(["virsh", "-q", "-c", self.uri, *map(str, words)], text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=180, **kwargs)
        if check and done.returncode:
            raise LabError(f"virsh {words}: {done.stdout}{done.stderr}\n{self.log()[-3000:]}\n"
                           f"{self.libvirtd_log()}")
        return done

    def domain_state(self, name):
        """As virsh says it; an empty string if it is not defined."""
        return self.virsh("domstate", name, check=False).stdout.strip()

    def qemu_pid(self, name):
        with open(f"{self.lv}/run/qemu/{name}.pid", encoding="ascii") as f:
            return int(f.read())

    def secret(self, key_file, number=1):
        """A libvirt secret with the content of a key file. Returns its uuid."""
        name = str(uuid.uuid4())
        path = f"{self.directory}/secret.xml"
        with open(path, "w", encoding="ascii") as f:
            f.write(f"<secret ephemeral='no' private='no'><uuid>{name}</uuid><usage type='tls'>"
                    f"<name>vmcomm-{number}</name></usage></secret>")
        self.virsh("secret-define", path)
        self.virsh("secret-set-value", name, "--file", key_file, "--plain")
        return name

    def close(self):
        for name in os.listdir(f"{self.lv}/run/qemu") if os.path.isdir(f"{self.lv}/run/qemu") else ():
            if name.endswith(".pid"):
                with contextlib.suppress(OSError, ValueError):
                    os.kill(self.qemu_pid(name[:-4]), signal.SIGKILL)
        if self.libvirtd and self.libvirtd.poll() is None:
            self.libvirtd.kill()
            self.libvirtd.wait()
        self.daemon.clean_up()
        logs = self.lab.logs
        for path in (f"{self.directory}/libvirtd.out", f"{self.lv}/log/libvirtd.log",
                     self.daemon.log_path):
            with contextlib.suppress(OSError):
                shutil.copy(path, logs / f"{self.name}.{os.path.basename(path)}")
        with contextlib.suppress(OSError):
            for name in os.listdir(f"{self.lv}/log/qemu"):
                shutil.copy(f"{self.lv}/log/qemu/{name}", logs / f"{self.name}.qemu.{name}")
        self._scratch.cleanup()


class Doorman:
    """Sets x-ignore-shared in each QEMU of HOSTS before libvirt can migrate into it.

    Under TCG both QEMUs of a migration share the guest's memory (lab.guest.Guest.receiver), which libvirt
    knows nothing of. QEMU waits for somebody at its second monitor before it begins, and finds our
    commands there.
    """

    WORDS = (b'{"execute":"qmp_capabilities"}\n{"execute":"migrate-set-capabilities","arguments":'
             b'{"capabilities":[{"capability":"x-ignore-shared","state":true}]}}\n')

    def __init__(self, hosts):
        self._hosts, self._seen, self._open = hosts, {}, []
        self._stop = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="doorman").start()

    def close(self):
        self._stop.set()

    def _run(self):
        while not self._stop.wait(0.01):
            for host in self._hosts:
                self._look(f"{host.lv}/run/lab")
            self._listen()

    def _look(self, directory):
        names = []
        with contextlib.suppress(OSError):
            names = os.listdir(directory)
        for name in names:
            path = f"{directory}/{name}"
            with contextlib.suppress(OSError):
                stamp = os.stat(path).st_ino, os.stat(path).st_ctime_ns
                if not name.endswith(".qmp") or self._seen.get(path) == stamp:
                    continue
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(path)
                sock.sendall(self.WORDS)
                sock.setblocking(False)
                self._seen[path] = stamp
                self._open.append([sock, b""])

    def _listen(self):
        """Close those that have had both answers."""
        for pair in list(self._open):
            try:
                piece = pair[0].recv(65536)
                pair[1] += piece
            except BlockingIOError:
                continue
            except OSError:
                piece = b""
            if not piece or pair[1].count(b'"return"') >= 2:
                pair[0].close()
                self._open.remove(pair)


class DomainQemu:
    """A QEMU that libvirtd started; what lab.qemu.Qemu can do with one."""

    def __init__(self, host, name):
        self.host, self.name = host, name
        self.pid = host.qemu_pid(name)
        host.lab.undertaker.process(self.pid)
        self.qmp = None
        self.process = self

    def poll(self):
        """As subprocess has it: None while it lives."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii") as f:
                return None if f.read().rsplit(")", 1)[1].split()[0] not in "ZX" else 1
        except OSError:
            return 1

    def open_monitor(self, path):
        self.qmp = Qmp(self.name, path, self.must_live)

    def must_live(self):
        if self.poll() is not None:
            text = ""
            with contextlib.suppress(OSError), \
                    open(f"{self.host.lv}/log/qemu/{self.name}.log", encoding="utf-8") as f:
                text = f.read()[-2000:]
            raise GuestGone(f"[{self.name}] QEMU ended: {text}")

    def signal(self, sig):
        os.kill(self.pid, sig)

    def wait(self, timeout=60):
        wait_until(lambda: self.poll() is not None, f"{self.name}: QEMU ends", timeout)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, signal.SIGKILL)
        self.wait()
        if self.qmp:
            self.qmp.close()


class DomainGuest(Guest):
    """A guest that is a domain, on a DomainHost.

    member    the inside of <metadata>
    ports     PCIe root ports beside that of the NIC
    reserve   their windows; None: QEMU's default
    board     as in lab.qemu
    bare      for `virsh start --paused`: no NIC, no disk, and a memory that has to be copied
    """

    def __init__(self, lab, name, host, machine, *, member="", ports=3, reserve="1G",
                 bare=False):
        super().__init__(lab, name, kernels.find(os.environ.get("VMLAB_KERNEL")), host.net, machine)
        self.host, self.member, self.ports, self.reserve, self.bare = host, member, ports, reserve, bare
        self.uuid = str(uuid.uuid4())
        self.console = Path(f"{host.lv}/run/lab/{name}.console")
        if machine.ram:
            user = pwd.getpwnam(USER)
            os.chown(os.path.dirname(machine.ram), user.pw_uid, user.pw_gid)
        if bare and machine.ram:
            with open(machine.ram, "wb") as f:
                f.write(os.urandom(machine.memory << 20))
            os.chmod(machine.ram, 0o666)

    def xml(self):
        machine, q35 = self.machine, self.machine.board == "q35"
        accel = self.lab.accel
        image = str(initramfs.build(self.kernel, bool(machine.disk)))

        def seen(path):
            return str(path).replace(str(cache.root()), _CACHE)
        cpu = ("<cpu mode='maximum'><feature policy='disable' name='erms'/></cpu>" if accel == "tcg"
               else "<cpu mode='host-passthrough'/>")
        ports = "".join(f"<controller type='pci' index='{i + 1}' model='pcie-root-port'/>"
                        for i in range(self.ports + 1)) if q35 else ""
        root = "<controller type='pci' index='0' model='pcie-root'/>" if q35 else ""
        lab = f"/run/libvirt/lab/{self.name}"
        args = ["-action", "reboot=shutdown,panic=exit-failure",
                "-chardev", f"socket,id=labagent,path={lab}.agent,server=on,wait=off",
                "-device", "virtio-serial-pci,max_ports=4,addr=0x1c",
                "-device", "virtserialport,chardev=labagent,name=vmlab.agent",
                # See Doorman.
                "-qmp", f"unix:{lab}.qmp,server=on,wait={'on' if machine.ram else 'off'}"]
        nic = ("" if self.bare else f"<interface type='bridge'><source bridge='br0'/><mac address='{self.mac}'/>"
               "<model type='virtio'/><driver name='qemu'/><rom enabled='no'/></interface>")
        if not self.bare:
            args += ["-drive", f"file={seen(machine.disk)},if=none,id=labroot,format=raw,readonly=on,"
                               "file.locking=off", "-device", "virtio-blk-pci,drive=labroot,addr=0x1d"]
        if machine.ram:
            share = "off" if self.bare else "on"
            args += ["-object", f"memory-backend-file,id=ram0,size={machine.memory}M,share={share},"
                                f"mem-path={machine.ram}", "-machine", "memory-backend=ram0"]
        if q35 and self.reserve:
            args += ["-global", f"pcie-root-port.pref64-reserve={self.reserve}"]
        more = "".join(f"<qemu:arg value='{a}'/>" for a in args)
        if accel == "tcg":
            more += f"<qemu:env name='LD_PRELOAD' value='{seen(parking.library())}'/>"
        tcg = "<tcg><tb-cache unit='MiB'>128</tb-cache></tcg>" if accel == "tcg" else ""
        append = " ".join([APPEND, *self._words, machine.append])
        return f"""<domain type='{'kvm' if accel == 'kvm' else 'qemu'}'
  xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{self.name}</name><uuid>{self.uuid}</uuid>
  <metadata>{self.member}</metadata>
  <memory unit='MiB'>{machine.memory}</memory><vcpu>{machine.smp}</vcpu>
  <os><type arch='x86_64' machine='{'q35' if q35 else 'pc'}'>hvm</type>
    <kernel>{seen(self.kernel.boot_image())}</kernel><initrd>{seen(image)}</initrd>
    <cmdline>{append}</cmdline></os>
  <features><acpi/>{tcg}</features>{cpu}
  <clock offset='utc'/><on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    {root}{ports}<controller type='usb' model='none'/>
    {nic}
    <serial type='file'><source path='{lab}.console'/><target port='0'/></serial>
    <memballoon model='none'/><video><model type='none'/></video><audio id='1' type='none'/>
  </devices>
  <qemu:commandline>{more}</qemu:commandline>
</domain>
"""

    def define(self):
        path = f"{self.host.directory}/{self.name}.xml"
        with open(path, "w", encoding="ascii") as f:
            f.write(self.xml())
        self.host.virsh("define", path)

    def _take_up(self, host):
        """Its QEMU runs on HOST."""
        self.host, self.net = host, host.net
        self._files = {k: f"{host.lv}/run/lab/{self.name}.{k}" for k in ("agent", "qmp", "console")}
        with open(self._files["console"], "a", encoding="ascii"):
            pass
        self.console = Path(self._files["console"])
        if self.lab.accel == "tcg" and not self.machine.ram:
            raise LabError("a guest under TCG needs its memory in a file")
        return DomainQemu(host, self.name)

    def launch(self, extra=()):
        """virsh start, of a domain that is defined."""
        self._begin = time.monotonic()
        self._stopped = self._last_words_read = False
        if self._agent:
            self._agent.close()
        if self.machine.ram and os.path.exists(self.machine.ram):
            os.truncate(self.machine.ram, 0)
        self.host.virsh("start", self.name)
        self.qemu = self._take_up(self.host)
        self._agent = Agent(self.name, self.log.add, self._commands)

    @contextlib.contextmanager
    def leaving(self):
        """Around what takes the device away and may move the domain or replace its QEMU; commands
        wait meanwhile, jobs go on. At the end it may run on any host of the site."""
        hosts = self.site.hosts
        old, found, stop = self.qemu, {}, threading.Event()

        def look():
            # The guest must not wait for somebody at its port for long.
            while not stop.wait(0.01):
                for host in hosts:
                    with contextlib.suppress(OSError, ValueError, LabError):
                        pid = host.qemu_pid(self.name)
                        if pid != old.pid and pid not in found:
                            found[pid] = connect(f"{host.lv}/run/lab/{self.name}.agent",
                                                 lambda: None, 1)
        looker = threading.Thread(target=look, daemon=True)
        with self._agent.held():
            looker.start()
            try:
                yield
            finally:
                new = self._where()
                if new and new.pid != old.pid:
                    wait_until(lambda: new.pid in found, "the agent's socket", 30)
                stop.set()
                looker.join()
                if new and new.pid != old.pid:
                    self.qemu = new
                    new.open_monitor(self._files["qmp"])
                    self._agent.hand_over(found.pop(new.pid), old.kill)
                for sock in found.values():
                    sock.close()

    def _where(self):
        for host in self.site.hosts:
            if host.domain_state(self.name) in ("running", "paused"):
                return self.qemu if host is self.host and host.qemu_pid(self.name) == self.qemu.pid \
                    else self._take_up(host)
        return None


def member_xml(group, addresses, secret=None):
    """<vmcomm:member>"""
    inside = "".join(f"<vmcomm:address>{a}</vmcomm:address>" for a in addresses)
    if secret:
        inside += f"<vmcomm:secret uuid='{secret}'/>"
    return (f"<vmcomm:member xmlns:vmcomm='{NAMESPACE}' group='{group}'>{inside}</vmcomm:member>")


class DomainMover(Mover):
    """A member that is a domain."""

    def __init__(self, site, guest):
        super().__init__(site, guest, guest.host, None)

    @property
    def host(self):
        return self.guest.host

    @host.setter
    def host(self, value):
        pass

    @contextlib.contextmanager
    def moving(self, host):
        with self.guest.leaving():
            yield


class DomainSite(Site):
    """Hosts a and b, NUMBER domains at a that are members."""

    def __init__(self, lab, number=2, *, memory=256, start=True):  # pylint: disable=super-init-not-called
        self.lab = lab
        self._stack = contextlib.ExitStack()
        nets = {"a": lab.net()}
        nets["b"] = lab.net(trunk=nets["a"])
        self.hosts = []
        for name, net in nets.items():
            others = {n: o.ip4 for n, o in nets.items() if n != name}
            self.hosts.append(DomainHost(lab, name, net, others | {"nowhere": f"{net.ip4}:1"}))
            self._stack.callback(self.hosts[-1].close)
            self.hosts[-1].add_group(self.hosts[0].key_file if net is not nets["a"] else None)
        self.a, self.b = self.hosts
        self.doorman = Doorman(self.hosts) if lab.accel == "tcg" else None
        self.disk = str(rootdisk.build())
        self.members = [DomainMover(self, self.domain(f"g{i + 1}", memory=memory))
                        for i in range(number)]
        self.movers, self.stayers = self.members[:1], self.members[1:]
        if start:
            self.start(self.members)

    def domain(self, name, *, memory=256, group=GROUP, secret=None, **options):
        """Define a domain on host a that says it is a member."""
        board = options.pop("board", "q35")
        guest = DomainGuest(self.lab, name, self.a, Machine(disk=self.disk, memory=memory, board=board),
                            **options)
        self.lab.guests_made.append(guest)
        guest.site = self
        guest.member = member_xml(group, [guest.ip4, guest.ip6], secret) if group else ""
        guest.define()
        return guest

    def start(self, members):
        for m in members:
            m.guest.launch()
        for m in members:
            m.guest.wait_ready()
            self._provide(m)
        self.wait_pairs(members)

    def _provide(self, member):
        module = str(paths.module(member.guest.kernel))
        for path in [str(paths.built(p)) for p in PROGRAMS] + [module]:
            with open(path, "rb") as f:
                member.guest.put(path, f.read(), 0o755)
        member.guest.insmod(module)

    def close(self):
        super().close()
        if self.doorman:
            self.doorman.close()
