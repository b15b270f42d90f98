# SPDX-License-Identifier: GPL-2.0-or-later
"""The module's counters in a guest, and what changed in them."""

import time


def read(guest):
    """Counters of /proc/net/vmcomm_stat by name; reasons are named "reason:NAME"."""
    rows = (line.split() for line in guest.sh("cat /proc/net/vmcomm_stat").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def enable(guests, on):
    """Switch the module on or off in all guests."""
    for guest in guests:
        guest.sh(f"echo {int(on)} >/sys/module/vmcomm/parameters/enabled")


class Change:
    """Counters of guests since this object was made."""

    def __init__(self, *guests):
        self.guests = guests
        self.before = [read(g) for g in guests]

    def of(self, name):
        """How much NAME grew in all guests together."""
        return sum(read(g)[name] - b[name] for g, b in zip(self.guests, self.before))

    def reached(self, name, least=1, seconds=30):
        """NAME grows by LEAST, or an AssertionError: some counters move in workers."""
        end = time.monotonic() + seconds
        while self.of(name) < least:
            assert time.monotonic() < end, \
                f"counter {name} grew by {self.of(name)} instead of at least {least}; {self.text()}"
            time.sleep(0.1)

    def text(self):
        """All that changed, for a human."""
        now = [read(g) for g in self.guests]
        return ", ".join(f"{k} +{sum(n[k] - b[k] for n, b in zip(now, self.before))}"
                         for k in now[0] if any(n[k] != b[k] for n, b in zip(now, self.before)))


def wait_pair(guests, seconds=60):
    """Each guest sees another member that is up (state 2)."""
    end = time.monotonic() + seconds
    for guest in guests:
        while ":2" not in guest.sh("grep ^link /proc/net/vmcomm_stat || true"):
            assert time.monotonic() < end, f"{guest.name}: no peer came up"
            time.sleep(0.1)
