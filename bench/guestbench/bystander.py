# SPDX-License-Identifier: GPL-2.0-or-later
"""What the module costs connections that it does not carry: loaded against not loaded, in pairs.

A member of a group talks to somebody who is in no group:
  host     the host side of its bridge, over its virtual NIC. The host's share of the time varies, and whether the
           guest sleeps between two packets: figures of a real path, with wide intervals.
  inside   a network namespace of its own at the end of a veth pair. All runs on the guest's one processor, so
           that what the module adds is a larger part of what is measured, and little else varies.
In each pair all tests run once without the module and once with it, the order changing from pair to
pair: what drifts on the machine, and what the one leaves behind for the other, cancels. Both states
begin with the module loaded and removed, as code that was patched is translated anew.
"""

import contextlib
import json
import math
import statistics
import tempfile

from lab import paths

from . import measure
from .counter import WAITING, Counter
from .members import Members, progress

TESTS = [("rr", 64), ("stream", 65536), ("crr", 64)]
PORT = 7017
INSIDE = "172.30.2"
# Timed: the median of five short rounds counts, after one that does not.
ROUNDS, SECONDS = 5, 0.15
# Counted: a fixed number of operations, after some that do not count.
WORK = {"rr": ("--warmup 0 --count 500", 500), "stream": ("--bytes 67108864", 1024),
        "crr": ("--warmup 0 --count 150", 150)}
# Of the member's group: the more there are, the more there is to look through.
SLOTS = 64
# The guest's clock goes by its instructions, so that its timers are as many in each run.
ICOUNT = 3
# Two-sided 95 % points of Student's t by degrees of freedom; what lies between takes the larger one.
STUDENT = ((120, 1.980), (60, 2.000), (40, 2.021), (30, 2.042), (20, 2.086), (14, 2.145), (10, 2.228),
           (5, 2.571))


def interval(ratios):
    """Geometric mean of paired ratios and its 95 % interval (Student's t)."""
    logs = [math.log(r) for r in ratios]
    n, mean = len(logs), statistics.fmean(logs)
    t = next(value for freedom, value in STUDENT if n - 1 >= freedom)
    half = t * statistics.stdev(logs) / math.sqrt(n)
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def median_interval(ratios):
    """The median of paired ratios and its 95 % interval, which holds for any distribution.

    Between the order statistics k and n + 1 - k, with the largest k for which the median lies
    outside with a probability (binomial) of at most 5 %.
    """
    ordered, n = sorted(ratios), len(ratios)
    k, outside = 0, 2 * 0.5 ** n
    while outside <= 0.05:
        k += 1
        outside += 2 * math.comb(n, k) * 0.5 ** n
    return statistics.median(ordered), ordered[k - 1], ordered[n - k]


@contextlib.contextmanager
def host_end(guest, net):
    """A server on the host; its address."""
    server = net.popen([str(paths.built(measure.PERF)), "server", "--port", str(PORT)])
    # A guest with one virtual CPU has no barriers; its NIC can miss that there is something to send until it is told
    # of something else (docs/performance.md). In both states.
    ping = guest.spawn(f"exec busybox ping {net.ip4} >/dev/null")
    try:
        yield net.ip4
    finally:
        ping.kill()
        server.terminate()
        server.wait()


@contextlib.contextmanager
def inside_end(guest, net):
    """A server in another network namespace of the guest; its address."""
    inside = "ip netns exec bystander"
    guest.sh("ip netns add bystander; ip link add v0 type veth peer name v1 netns bystander; "
             f"ip addr add {INSIDE}.1/24 dev v0; ip link set v0 up; "
             f"{inside} ip addr add {INSIDE}.2/24 dev v1; {inside} ip link set v1 up")
    server = guest.spawn(f"exec {inside} {paths.built(measure.PERF)} server --port {PORT}")
    try:
        guest.sh(f"until {inside} ss -Hltn sport = :{PORT} | grep -q .; do sleep 0.1; done", timeout=60)
        yield f"{INSIDE}.2"
    finally:
        server.kill()
        server.wait(check=False)
        guest.sh("ip netns del bystander")


PLACES = {"host": host_end, "inside": inside_end}


def command(address, test, size, options):
    return f"{paths.built(measure.PERF)} {test} {address} --port {PORT} --size {size} {options}"


def in_pairs(guest, pairs, once, what):
    """once(test, size) in both states of each pair: test -> [{loaded: value}]."""
    module = paths.module(guest.kernel)
    result = {test: [] for test in TESTS}
    guest.sh("rmmod vmcomm")
    # The first round ever is slow: caches and translations are cold. It does not count.
    for nr in range(-1, pairs):
        values = {test: {} for test in TESTS}
        for loaded in (False, True) if nr % 2 == 0 else (True, False):
            guest.insmod(module)
            if not loaded:
                guest.sh("rmmod vmcomm")
            for test in TESTS:
                values[test][loaded] = once(*test)
            if loaded:
                guest.sh("rmmod vmcomm")
        if nr >= 0:
            for test in TESTS:
                result[test].append(values[test])
        if nr % 5 == 4:
            progress(f"{what}: {nr + 1} of {pairs} pairs")
    return result


def rows(path, pairs, unit):
    """Lines of the report; above 1: the module makes the bystander slower."""
    report = []
    for test, size in TESTS:
        values, speed = pairs[test, size], unit(test) == "MB/s"
        ratios = [p[False] / p[True] if speed else p[True] / p[False] for p in values]
        mean, low, high = interval(ratios)
        middle, middle_low, middle_high = median_interval(ratios)
        base = [p[False] for p in values]
        report.append(measure.row(test, size, path, [p[True] for p in values], base, unit(test), {
            "unloaded_rounds": base, "pairs": len(values), "slowdown": mean, "slowdown_low": low,
            "slowdown_high": high, "slowdown_median": middle, "slowdown_median_low": middle_low,
            "slowdown_median_high": middle_high}))
    return report


def timed(lab, net, pairs, place):
    with Members(lab, 1, net, prefix=f"timed-{place}-", slots=SLOTS) as group:
        guest = group.members[0].guest

        def once(test, size):
            options = f"--rounds {ROUNDS + 1} --seconds {SECONDS} --warmup 20"
            result = guest.run(command(address, test, size, options), timeout=120)
            rounds = json.loads(result.stdout)["rounds"]
            return statistics.median(r["value"] for r in rounds[1:])

        with PLACES[place](guest, net) as address:
            values = in_pairs(guest, pairs, once, f"bystander, {place}, timed")
        guest.power_off()
    return rows(f"bystander-{place}", values, lambda test: "MB/s" if test == "stream" else "us")


def counted(lab, net, pairs, place):
    """Instructions per operation, which other load on the machine does not change."""
    with contextlib.ExitStack() as stack:
        counter = Counter(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmc-")), "counted")
        group = stack.enter_context(Members(lab, 1, net, prefix=f"counted-{place}-", slots=SLOTS,
                                            extra=counter.arguments, icount=ICOUNT))
        guest = group.members[0].guest
        counter.read_symbols(guest)

        def once(test, size):
            options, operations = WORK[test]
            run = command(address, test, size, f"--rounds 1 {options}")
            guest.run(run, timeout=600)
            counter.command("reset")
            guest.run(run, timeout=600)
            instructions, _ = counter.read()
            return sum(n for name, n in instructions.items() if name not in WAITING) / operations

        address = stack.enter_context(PLACES[place](guest, net))
        values = in_pairs(guest, pairs, once, f"bystander, {place}, counted")
        stack.close()
        guest.power_off()
    return rows(f"bystander-{place}-counted", values, lambda test: "insn")


def describe(r):
    """One line about a row."""
    unit = "times the instructions" if r["path"].endswith("counted") else "times as slow"
    return (f"{r['path']} {r['test']} {r['size']}: {r['slowdown']:.4f} {unit} with the module, "
            f"95 % interval {r['slowdown_low']:.4f} to {r['slowdown_high']:.4f}; median "
            f"{r['slowdown_median']:.4f} ({r['slowdown_median_low']:.4f} to "
            f"{r['slowdown_median_high']:.4f}); {r['pairs']} pairs")
