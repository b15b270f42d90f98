# SPDX-License-Identifier: GPL-2.0-or-later
"""vmcommd with one group, in place of a region keeper in stand-alone mode."""

import os
import sys
import threading
import time

from lab import paths

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "unit-host"))
import daemonlib  # noqa: E402


class Host:
    """vmcommd and the group "test"; VM "vm-N" is in slot N. For Cluster(keeper=Host).

    addresses   of each VM: a list of lists of addresses
    """

    def __init__(self, lab, addresses, memory="64M", slots=None):
        self.scratch = daemonlib.scratch()
        self.daemon = daemonlib.Daemon(paths.BUILD, self.scratch.name).start()
        lab.undertaker.process(self.daemon.proc.pid)
        self.daemon.ctl("group", "add", "test", "--slots", slots or max(2, len(addresses)), "--memory",
                        memory)
        for slot, of_slot in enumerate(addresses):
            vm = self.daemon.ctl("vm", "add", f"vm-{slot}", "--group", "test", "--key-file",
                                 self.daemon.group_key("test"), "--address", ",".join(of_slot))["vm"]
            assert vm["slot"] == slot, vm
        for pid in self.daemon.keepers().values():
            lab.undertaker.process(pid)

    def socket(self, slot):
        """The socket that the QEMU of the VM in SLOT connects to."""
        return self.daemon.vm(f"vm-{slot}")["socket"]

    def watch(self):
        """with host.watch() as seen: ... - what `vmcommctl conn list` says meanwhile."""
        return Watch(self.daemon)

    def close(self):
        self.daemon.stop()
        self.daemon.clean_up()
        self.scratch.cleanup()


class Watch:
    """`vmcommctl conn list` again and again. Connections that end between two looks are missed, and
    the last bytes of each: what it has seen is a lower bound."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.rows = {}
        self.error = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        try:
            while not self.over.is_set():
                for row in self.daemon.conns():
                    if row["state"] == "open":
                        self.note(row)
                # vmcommctl and vmcommd need a core that guests use, too.
                time.sleep(0.05)
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def note(self, row):
        ends = tuple((row[k]["vm"], row[k]["address"], row[k]["port"]) for k in ("client", "server"))
        for key, sender in ("to_server", ends[0][0]), ("to_client", ends[1][0]):
            if row[key]:
                old = self.rows.get((ends, key), {"ring_bytes": 0})
                self.rows[ends, key] = {"sender": sender, "ring_bytes": max(old["ring_bytes"],
                                                                            row[key]["ring_bytes"]),
                                        "reason": row[key]["reason"]}

    def ring_bytes(self, vm):
        """Bytes in rings of all connections that VM sent."""
        return sum(r["ring_bytes"] for r in self.rows.values() if r["sender"] == vm)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        if self.error:
            raise self.error
