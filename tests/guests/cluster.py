# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that are members of one group, and what they say about it."""

import json
import os
import re
import signal

from lab import paths
from lab.errors import GuestGone, KernelComplaint, LabError
from lab.session import wait_until

from .keeper import Keeper

# A busy host may starve everybody for long; these only end what hangs for ever.
PATIENCE = 300
PAIR_UP = 2


def access_is_checked(guest):
    """The module in GUEST checks its accesses to shared memory, and tells of one that is wrong."""
    parameters = "/sys/module/vmcomm/parameters"
    number = int(guest.sh(f"cat {parameters}/access_checks"))
    assert number > 1000, f"only {number} accesses were checked"
    since = guest.log_position()
    guest.sh(f"echo 1 >{parameters}/access_break")
    try:
        guest.check_kernel(since=since)
    except KernelComplaint as e:
        assert "vmcomm: write of 8 bytes at 0x0 of the region" in str(e), e
    else:
        raise AssertionError("a wrong access was not reported")
    finally:
        guest.forgive_kernel()
    return number


class Member:
    """One guest and its slot. What is not found here is asked of the guest (run, sh, spawn...)."""

    def __init__(self, cluster, guest, slot):
        self.cluster = cluster
        self.guest = guest
        self.slot = slot

    def __getattr__(self, name):
        return getattr(self.guest, name)

    # -- module and device -----------------------------------------------------------------------

    def load(self, **parameters):
        self.guest.insmod(paths.module(self.guest.kernel, self.cluster.kind), **parameters)

    def unload(self):
        """Seconds that it took."""
        return self.guest.run("rmmod vmcomm", timeout=PATIENCE).seconds

    def loaded(self):
        return self.guest.run("test -e /sys/module/vmcomm", check=False).returncode == 0

    def plug(self):
        # The slot opens again when all peers let go of its last occupant.
        path = self.cluster.keeper.socket(self.slot)
        wait_until(lambda: os.path.exists(path), f"{path}: the slot is open again", PATIENCE)
        self.guest.plug(path)

    def join(self, **parameters):
        """Load the module and plug the device."""
        self.load(**parameters)
        self.plug()

    def enable(self, on):
        self.guest.sh(f"echo {int(on)} >/sys/module/vmcomm/parameters/enabled")

    # -- counters --------------------------------------------------------------------------------

    def counters(self):
        """/proc/net/vmcomm_stat as a dict of numbers; `reason:...` included."""
        text = self.guest.sh("cat /proc/net/vmcomm_stat")
        return {key: int(value) for key, value in re.findall(r"^(\S+) (\d+)$", text, re.M)}

    def reasons(self):
        return {k[7:]: v for k, v in self.counters().items() if k.startswith("reason:") and v}

    def pairs_up(self):
        """Slots of the peers with which shared memory can be used."""
        text = self.guest.run("cat /proc/net/vmcomm_stat", check=False).stdout
        return {int(slot) for line in text.splitlines() if line.startswith("link:ivshmem")
                for slot, state in re.findall(r" (\d+):(\d+)", line) if int(state) == PAIR_UP}

    def connections(self):
        """Wrapped connections: a list of dicts by the head line of /proc/net/vmcomm."""
        lines = self.guest.sh("cat /proc/net/vmcomm").splitlines()
        names = lines[0].split()
        return [dict(zip(names, line.split())) for line in lines[1:]]

    def wait_no_connections(self, timeout=PATIENCE):
        """Until no socket is wrapped any more: FIN, TIME_WAIT and the last reference are through."""
        wait_until(lambda: not self.connections(), f"{self.name}: no wrapped connections left",
                   timeout, 0.3)

    def diagnosis(self):
        """For humans, when something hangs: connections, counters, blocked tasks, what test programs do."""
        self.guest.run("echo w >/proc/sysrq-trigger", check=False)
        # "refused" or nothing at all: is it the virtual NIC that hangs?
        knocks = " ".join(f"timeout 3 bash -c '</dev/tcp/{m.guest.ip4}/9' 2>&1; echo knocked: $?;"
                          for m in self.cluster.members if m is not self)
        stacks = ("for t in $(grep -lE '^vmcomm-(verify|etecho)' /proc/[0-9]*/task/*/comm); do "
                  "echo $t; head -8 ${t%comm}stack; done")
        out = self.guest.run("head -80 /proc/net/vmcomm; grep -v ' 0$' /proc/net/vmcomm_stat; "
                             f"ss -tnmoi | head -170; ip -s link show eth0; {stacks}; {knocks}",
                             check=False).stdout
        return f"--- {self.name}\n{out}\n" + "\n".join(self.guest.log.lines[-60:])

    def memory(self):
        """KiB that the guest's kernel uses itself (no file caches, no programs), slab, vmalloc."""
        text = self.guest.sh("sync; echo 3 >/proc/sys/vm/drop_caches; cat /proc/meminfo /proc/zoneinfo")
        info = {k: int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
        others = "MemFree", "Buffers", "Cached", "AnonPages", "SReclaimable"
        # Tens of MiB may be in the lists of free pages that each CPU has; MemFree is without them.
        lists = 4 * sum(int(n) for n in re.findall(r"^ +count: +(\d+)", text, re.M))
        return {"used": info["MemTotal"] - sum(info[k] for k in others) - lists,
                "slab": info["SUnreclaim"], "vmalloc": info["VmallocUsed"]}

    def tcp_sockets(self):
        """TCP sockets that exist, closed and forgotten ones included."""
        return int(self.guest.sh("awk '/^TCP:/ {print $9}' /proc/net/sockstat"))


def wait_pairs(members):
    """Until each of MEMBERS has shared memory with all others."""
    for m in members:
        others = {o.slot for o in members if o is not m}
        wait_until(lambda m=m, o=others: m.pairs_up() >= o,
                   f"{m.name}: pairs with slots {others} up", PATIENCE, 0.1)


class Cluster:
    """A keeper and NUMBER members on one network.

    members    list of Member; slot i is members[i]
    outsiders  more guests on the network that are no members

    memory is the region's size, memory_mib that of each guest; module: parameters of the module;
    join=False: neither module nor device yet; keeper: Host has vmcommd, too; kind: which build of the
    module (lab.paths.module); more: addresses that the first member has besides its interface's; the
    rest goes to Lab.guest.
    """

    def __init__(self, lab, number=2, *, outsiders=0, memory="64M", slots=None, join=True, net=None,
                 module=(), kind="module", memory_mib=512, keeper=Keeper, more=(), **machine):
        self.lab = lab
        self.kind = kind
        self.net = net or lab.net()
        base = len(lab.guests_made)
        guests = [lab.guest(f"g{base + i + 1}", net=self.net, wait=False, memory=memory_mib, **machine)
                  for i in range(number + outsiders)]
        addresses = [[g.ip4, g.ip6] for g in guests[:number]]
        addresses[0] += more
        self.keeper = keeper(lab, addresses, memory, slots)
        for g in guests:
            g.wait_ready()
        self.members = [Member(self, g, i) for i, g in enumerate(guests[:number])]
        self.outsiders = guests[number:]
        self.wait_network()
        if join:
            for m in self.members:
                m.join(**dict(module))
            self.wait_up()

    def wait_network(self):
        """IPv6 works when the link's carrier was noticed, a second after boot."""
        for m in self.members[:1]:
            for other in self.members[1:]:
                for address in other.ip4, other.ip6:
                    m.run(f"until busybox ping -c1 -W1 {address}; do sleep 0.1; done",
                          timeout=PATIENCE)

    def wait_up(self, members=None):
        """Until all members (or MEMBERS) have shared memory with each other."""
        wait_pairs(members or self.members)

    def close(self):
        """End the guests and the keeper (a lab's end does, too)."""
        for m in self.members:
            m.guest.kill()
        for g in self.outsiders:
            g.kill()
        self.keeper.close()


class Traffic:
    """vmcomm-verify between two guests, one server for all runs. PREFIX: words before the commands."""

    _port = 7100

    def __init__(self, client, server, ip6=False, prefix=""):
        Traffic._port += 1
        self.client, self.server, self.port = client, server, Traffic._port
        self.address = server.ip6 if ip6 else server.ip4
        self.program = f"{prefix} {paths.built('tests/programs/vmcomm-verify')}"
        self.daemon = None

    def start(self):
        self.daemon = self.server.spawn(f"ulimit -n 20000; exec {self.program} server "
                                        f"--port {self.port}")
        self.server.wait_listening(self.port, PATIENCE)
        return self

    def command(self, *options):
        words = " ".join(str(o) for o in options)
        return (f"ulimit -n 20000; exec {self.program} client {self.address} --port {self.port} "
                f"{words}")

    def begin(self, *options):
        """Start a client; returns its job. See finish()."""
        if not self.daemon:
            self.start()
        return self.client.spawn(self.command(*options))

    @staticmethod
    def stop_sending(job):
        """Tell a client that runs for --seconds to end its streams and check them."""
        job.kill(signal.SIGTERM)

    def finish(self, job, timeout=PATIENCE):
        """The client's report; raises if a byte was wrong."""
        try:
            result = job.wait(timeout, check=False)
        except GuestGone:
            raise
        except LabError as e:
            states = "\n".join(g.diagnosis() for g in (self.client, self.server)
                               if isinstance(g, Member))
            raise LabError(f"{e}\n{states}") from e
        if result.returncode != 0:
            raise AssertionError(f"verify: status {result.returncode}\n{result.stdout[-3000:]}"
                                 f"{result.stderr[-3000:]}")
        return json.loads(result.stdout)

    def run(self, *options, timeout=PATIENCE):
        return self.finish(self.begin(*options), timeout)

    def stop(self):
        if self.daemon:
            self.daemon.kill()
            self.daemon.wait(check=False)
            self.daemon = None
