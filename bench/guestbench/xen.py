# SPDX-License-Identifier: GPL-2.0-or-later
"""Xen domains that are members of one group, and libxenvchan between them."""

import statistics

from lab import paths
from lab.session import wait_until
from xen import Domain, XenHost

from . import measure
from .members import progress

VCHAN = "bench/tools/vmcomm-vchan"
DIR = "/run/vmcomm-bench"
PATIENCE = 300
ROWS = [("stream", 65536), ("rr", 64), ("rr", 16384), ("crr", 64)]
PAIR_UP = ":2"


class Pair:
    """Two domains of KIND ("pv" or "pvh") that share memory."""

    def __init__(self, host, ctl, kind):
        self.kind = kind
        self._ctl = ctl
        programs = [str(paths.built(measure.PERF)), str(paths.built(VCHAN)), "/usr/bin/iperf3"]
        self.domains = host.start(*[
            Domain(host, f"{kind}{i}", kind=kind, programs=programs,
                   modules=["xen-evtchn", "xen-gntdev", "xen-gntalloc"]) for i in (1, 2)])
        for d in self.domains:
            d.insmod(host.copy_module(d))
        ctl(f"group add {kind}")
        for d in self.domains:
            ctl(f"vm add {d.name} --group {kind} --key-file {DIR}/state/keys/{kind}.key "
                f"--address {d.ip4}")
            ctl(f"vm attach {d.name}")
        for d in self.domains:
            wait_until(lambda d=d: PAIR_UP in d.sh("grep ^link:xen /proc/net/vmcomm_stat"),
                       f"{d.name}: shared memory", PATIENCE, 0.5)

    def enable(self, on):
        for d in self.domains:
            d.sh(f"echo {int(on)} >/sys/module/vmcomm/parameters/enabled")

    def vchan(self, test, size, rounds, seconds):
        """Rounds of libxenvchan between the two; an empty list where it has no such test."""
        if test == "crr":
            return []
        a, b = self.domains
        job = b.spawn(f"{paths.built(VCHAN)} server {a.domid}")
        job.wait_output("listening", PATIENCE, stream="stderr")
        values = []
        for _ in range(rounds):
            result = a.run(f"{paths.built(VCHAN)} client {b.domid} {test} --size {size} "
                           f"--seconds {seconds}", timeout=60 + 20 * seconds)
            values.append(measure.json.loads(result.stdout)["rounds"][0]["value"])
        job.kill()
        job.wait(check=False)
        return values


def rows(lab, net, args, row):
    """Rows of the report. ROW makes one: see bench/guests."""
    report = []
    host = XenHost(lab, net=net, memory=1408)
    host.launch()
    host.wait_ready()
    host.run(f"mkdir -p {DIR}")
    host.put(f"{DIR}/vmcomm.conf",
             f"[daemon]\nbackend = xen\nruntime_dir = {DIR}/run\nstate_dir = {DIR}/state\n"
             f"keeper = {paths.built('host/vmcomm-keeper')}\nattach_timeout = 120\n")
    host.spawn(f"exec {paths.built('host/vmcommd')} --config {DIR}/vmcomm.conf >{DIR}/log 2>&1",
               env={"VMCOMM_XEN": str(paths.built("host/vmcomm-xen"))})

    def ctl(words, **options):
        return host.run(f"{paths.built('cli/vmcommctl')} --socket {DIR}/run/vmcommd.sock {words}",
                        timeout=PATIENCE, **options)
    wait_until(lambda: ctl("group list", check=False).returncode == 0, "vmcommd answers", PATIENCE)
    for kind in args.kinds:
        pair = Pair(host, ctl, kind)
        progress(f"{kind}: two domains share memory")
        a, b = pair.domains
        server = measure.Server(b)
        for test, size in ROWS:
            if args.only and args.only not in f"{test}-{size}":
                continue
            values = {"tcp": [], "vmcomm": []}
            for nr in range(args.rounds):
                for path in ("tcp", "vmcomm") if nr % 2 == 0 else ("vmcomm", "tcp"):
                    pair.enable(path == "vmcomm")
                    values[path].append(measure.perf(a, b, test, size, args.seconds)["value"])
            values["vchan"] = pair.vchan(test, size, args.rounds, args.seconds)
            for path, rounds in values.items():
                if rounds:
                    report.append(row(test, size, path, rounds, values["tcp"],
                                      "MB/s" if test == "stream" else "us", {"kind": kind}))
                    progress(f"{kind} {test} {size}: {path} {statistics.median(rounds):.1f}, "
                             f"{report[-1]['ratio']:.2f}x netfront")
        server.close()
        for d in pair.domains:
            d.destroy()
    return report
