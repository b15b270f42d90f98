# SPDX-License-Identifier: GPL-2.0-or-later
"""What the module costs connections that it does not carry: loaded against not loaded, in pairs.

A guest talks to the host side of its bridge, which is in no group. In each pair all tests run once
without the module and once with it, the order changing from pair to pair: what drifts on the
machine, and what the one leaves behind for the other, cancels. Both states begin with the module
loaded and removed, as code that was patched is translated anew.
"""

import json
import math
import statistics
import tempfile

from lab import paths

from . import measure
from .counter import WAITING, Counter
from .members import progress

TESTS = [("rr", 64), ("stream", 65536), ("crr", 64)]
PORT = 7017
# Timed: the median of five short rounds counts, after one that does not.
ROUNDS, SECONDS = 5, 0.15
# Counted: a fixed number of operations, after some that do not count.
WORK = {"rr": ("--warmup 0 --count 500", 500), "stream": ("--bytes 16777216", 256),
        "crr": ("--warmup 0 --count 150", 150)}
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


def command(net, test, size, options):
    return (f"{paths.built(measure.PERF)} {test} {net.ip4} --port {PORT} --size {size} {options}")


def in_pairs(guest, net, pairs, once, what):
    """once(test, size) in both states of each pair: test -> [{loaded: value}]."""
    other = net.popen([str(paths.built(measure.PERF)), "server", "--port", str(PORT)])
    module = paths.module(guest.kernel)
    result = {test: [] for test in TESTS}
    try:
        # The first round ever is slow: caches and translations are cold. It does not count.
        for nr in range(-1, pairs):
            values = {test: {} for test in TESTS}
            for loaded in (False, True) if nr % 2 == 0 else (True, False):
                guest.insmod(module)
                guest.sh("rmmod vmcomm")
                if loaded:
                    guest.insmod(module)
                for test in TESTS:
                    values[test][loaded] = once(*test)
                if loaded:
                    guest.sh("rmmod vmcomm")
            if nr >= 0:
                for test in TESTS:
                    result[test].append(values[test])
            if nr % 5 == 4:
                progress(f"{what}: {nr + 1} of {pairs} pairs")
    finally:
        other.terminate()
        other.wait()
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


def timed(lab, net, pairs):
    guest = lab.guest("bystander", net=net)

    def once(test, size):
        options = f"--rounds {ROUNDS + 1} --seconds {SECONDS} --warmup 20"
        rounds = json.loads(guest.run(command(net, test, size, options), timeout=120).stdout)["rounds"]
        return statistics.median(r["value"] for r in rounds[1:])

    values = in_pairs(guest, net, pairs, once, "bystander, timed")
    guest.power_off()
    return rows("bystander", values, lambda test: "MB/s" if test == "stream" else "us")


def counted(lab, net, pairs):
    """Instructions per operation, which other load on the machine does not change."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as scratch:
        counter = Counter(scratch, "counted")
        guest = lab.guest("counted", net=net, extra=counter.arguments)
        counter.read_symbols(guest)

        def once(test, size):
            options, operations = WORK[test]
            run = command(net, test, size, f"--rounds 1 {options}")
            guest.run(run, timeout=600)
            counter.command("reset")
            guest.run(run, timeout=600)
            instructions, _ = counter.read()
            return sum(n for name, n in instructions.items() if name not in WAITING) / operations

        values = in_pairs(guest, net, pairs, once, "bystander, counted")
        guest.power_off()
    return rows("bystander-counted", values, lambda test: "insn")


def describe(r):
    """One line about a row."""
    unit = "times the instructions" if r["path"] == "bystander-counted" else "times as slow"
    return (f"{r['path']} {r['test']} {r['size']}: {r['slowdown']:.4f} {unit} with the module, "
            f"95 % interval {r['slowdown_low']:.4f} to {r['slowdown_high']:.4f}; median "
            f"{r['slowdown_median']:.4f} ({r['slowdown_median_low']:.4f} to "
            f"{r['slowdown_median_high']:.4f}); {r['pairs']} pairs")
