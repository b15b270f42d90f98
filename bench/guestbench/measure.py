# SPDX-License-Identifier: GPL-2.0-or-later
"""One measurement each, between a client and a server guest."""

import json
import statistics

from lab import paths

PERF = "bench/tools/vmcomm-perf"
PERF_PORT = 7007
IPERF_PORT = 5201


class Server:
    """The programs that answer, started once."""

    def __init__(self, guest):
        self.guest = guest
        self.jobs = [guest.spawn(f"{paths.built(PERF)} server --port {PERF_PORT}"),
                     guest.spawn(f"iperf3 -s -p {IPERF_PORT}")]
        guest.wait_listening(PERF_PORT)
        guest.wait_listening(IPERF_PORT)

    def close(self):
        for job in self.jobs:
            job.kill()


def iperf3(client, server, size, seconds, extra=""):
    """MB/s that an unmodified iperf3 moves from CLIENT to SERVER with writes of SIZE bytes."""
    result = client.run(f"iperf3 -c {server.ip4} -p {IPERF_PORT} -J -l {size} -t {seconds} {extra}",
                        timeout=60 + 20 * seconds)
    report = json.loads(result.stdout)
    return report["end"]["sum_received"]["bits_per_second"] / 8e6


def perf(client, server, test, size, seconds, extra=""):
    """One round of vmcomm-perf: its report of the round, "value" in us (rr, crr) or MB/s."""
    result = client.run(f"{paths.built(PERF)} {test} {server.ip4} --port {PERF_PORT} --rounds 1 "
                        f"--seconds {seconds} --size {size} {extra}", timeout=60 + 20 * seconds)
    return json.loads(result.stdout)["rounds"][0]


def ratio(tcp, vmcomm, lower_is_better):
    """How many times better vmcomm is, from the medians of its rounds and of TCP's."""
    a, b = statistics.median(tcp), statistics.median(vmcomm)
    return a / b if lower_is_better else b / a


def row(test, size, path, rounds, base, unit, extra=None):
    """One line of a report; BASE are the rounds of what it is compared with."""
    result = {"test": test, "size": size, "path": path, "median": statistics.median(rounds),
              "unit": unit, "ratio": ratio(base, rounds, unit != "MB/s"), "rounds": rounds}
    return result | (extra or {})
