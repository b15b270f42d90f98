#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""vmcommd with backend = xen, without Xen: migration over xl, every step, every death (simxen.py).

Usage: test_xen.py BUILD [TEST...]
"""

import os
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from daemonlib import EXIT, Daemon, free_port, main_with_second_try, scratch  # noqa: E402
from keeperlib import wait_for  # noqa: E402
from simxen import Xen  # noqa: E402

BUILD = None
SLOTS = 4
UUID = "12345678-9abc-def0-1234-56789abcdef0"
OTHER = "11111111-9abc-def0-1234-56789abcdef0"


class Case(unittest.TestCase):
    """Hosts a and b; a has the member "vm", b expects it."""

    b_slots = SLOTS
    one_host = False
    transport = "transport = cat"
    name = "vm"

    def setUp(self):
        tmp = [scratch(), scratch()]
        for t in tmp:
            self.addCleanup(t.cleanup)
        self.xa = Xen(tmp[0].name)
        self.xb = self.xa if self.one_host else Xen(tmp[1].name)
        self.xa.other, self.xb.other = self.xb, self.xa
        for x in self.xa, self.xb:
            self.addCleanup(x.close)
        pa, pb = free_port(), free_port()
        self.a = Daemon(BUILD, tmp[0].name, f"peer_listen = 127.0.0.1:{pa}\n"
                        f"[host b]\naddress = 127.0.0.1:{pb}\n{self.transport}\n"
                        "[host nowhere]\naddress = 127.0.0.1:1\n", backend="xen",
                        env={**self.xa.env(), "SIMXEN_SLOTS": str(SLOTS)})
        self.b = Daemon(BUILD, tmp[1].name, f"peer_listen = 127.0.0.1:{pb}\n"
                        f"[host a]\naddress = 127.0.0.1:{pa}\n{self.transport}\n", backend="xen",
                        env={**self.xb.env(), "SIMXEN_SLOTS": str(self.b_slots)})
        for d in self.a, self.b:
            self.addCleanup(d.clean_up)
            d.start()
        self.a.ctl("group", "add", "blue", "--slots", SLOTS, "--memory", "16M")
        self.key = self.a.group_key("blue")
        self.b.ctl("group", "add", "blue", "--slots", self.b_slots, "--memory", "16M", "--key-file",
                   self.key)
        self.xa.add("another", OTHER)
        self.domid = self.xa.add(self.name, UUID)
        self.a.ctl("vm", "add", self.name, "--group", "blue", "--key-file", self.key, "--address",
                   "10.0.0.1,fd00::1", "--uuid", UUID)
        self.a.ctl("vm", "attach", self.name)

    def tearDown(self):
        for d in self.a, self.b:
            if d.proc.poll() is None:
                d.stop()
            self.assertNotRegex(d.log(), "Sanitizer|runtime error")

    def expect(self, daemon=None):
        (daemon or self.b).ctl("vm", "add", self.name, "--incoming", "--group", "blue", "--key-file",
                               self.key)

    def popen(self, *args):
        p = subprocess.Popen([f"{BUILD}/cli/vmcommctl", "--socket", self.a.socket, "--json", "migrate",
                              self.name, "b", *map(str, args)], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        for clean_up in p.stdout.close, p.stderr.close, p.kill:
            self.addCleanup(clean_up)
        return p

    def at_a(self):
        """It runs at the source, in shared memory, and nothing is left of the attempt."""
        wait_for(lambda: self.a.vm(self.name)["state"] == "up", 60)
        self.assertNotIn("migrates_to", self.a.vm(self.name))
        self.assertEqual(self.xa.names()[self.name], self.domid)
        self.assertEqual(self.xa.standing, set())
        self.assertFalse([p for p in self.xa.paths() if "/vmcomm/migrate/" in p])
        if not self.one_host:
            wait_for(lambda: not [n for n in self.xb.names() if n.startswith(self.name)])

    def at_b(self):
        wait_for(lambda: self.b.vms().get(self.name, {}).get("state") == "up", 60)
        wait_for(lambda: self.name not in self.a.vms(), 60)
        wait_for(lambda: self.domid not in self.xa.names().values())
        self.assertEqual(self.xb.standing, set())

    def fails(self, status, *words):
        text = self.a.ctl("migrate", self.name, "b", expect=EXIT[status])
        for word in words:
            self.assertIn(word, text)
        self.at_a()

    def held(self, stage):
        """A migration that has come to STAGE and stays there."""
        self.expect()
        self.xa.held = stage
        p = self.popen()
        wait_for(lambda: self.xa.stage == stage or p.poll() is not None, 60)
        self.assertIsNone(p.poll(), p.poll() is not None and p.communicate())
        return p


class Good(Case):
    def test_there_and_back(self):
        self.expect()
        self.xa.pause = 3  # vmcommd looks now and then how far it is
        self.assertEqual(self.b.vm("vm")["state"], "incoming")
        number = self.a.vm("vm")["location"]
        steps = self.a.ctl("migrate", "vm", "b")
        self.assertTrue(steps[-1]["result"]["attached"], steps)
        seen = [s.get("step") for s in steps]
        order = [s for i, s in enumerate(seen[:-1]) if s != (seen[i - 1] if i else None)]
        self.assertEqual(order, ["connect", "check", "prepare", "quiesce", "sync", "memory", "switch",
                                 "attach"], steps)
        self.assertTrue(any(s.get("total") == 4096000 and 1024000 <= s["sent"] < 1100000 for s in steps),
                        steps)
        self.at_b()
        self.assertEqual(self.xa.calls, [["migrate", "-s", "", str(self.domid),
                                          "echo $$ >&3; exec 3>&-; exec cat"]])
        vm = self.b.vm("vm")
        self.assertEqual((vm["uuid"], vm["addresses"]), (UUID, ["10.0.0.1", "fd00::1"]))
        self.assertNotEqual(vm["location"], number)
        self.assertEqual(self.b.ctl("stats", "vm")["vms"][0]["counters"]["tx_ring_bytes"], 2000)
        self.expect(self.a)
        self.assertTrue(self.b.ctl("migrate", "vm", "a")[-1]["result"]["attached"])
        self.assertEqual(self.a.vm("vm")["state"], "up")
        self.assertEqual(self.a.ctl("stats", "vm")["vms"][0]["counters"]["tx_ring_bytes"], 3000)
        self.assertEqual(self.b.vms(), {})

    def test_much_talk(self):
        self.expect()
        self.xa.flood = True
        self.assertTrue(self.a.ctl("migrate", "vm", "b")[-1]["result"]["attached"])
        self.at_b()

    def test_operators_own(self):
        """xl migrate without a word to vmcommd, inside exec: it is attached where it is then."""
        self.b.ctl("vm", "add", "vm", "--incoming", "--group", "blue", "--key-file", self.key, "--address",
                   "10.0.0.1", "--uuid", UUID)
        done = subprocess.run([f"{BUILD}/cli/vmcommctl", "--socket", self.a.socket, "exec", "vm", "--",
                               self.xa.env()["VMCOMM_XL"], "migrate", "-s", "", str(self.domid), "cat"],
                              env=self.a.env, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done)
        self.at_b()

    def test_slow_helper(self):
        """vmcommd answers while vmcomm-xen is in no hurry, and does not wait for its first process."""
        self.a.ctl("vm", "detach", "vm")
        self.xa.keep_in_foreground(True)
        self.a.ctl("vm", "attach", "vm")
        self.assertEqual(self.a.vm("vm")["state"], "up")
        self.xa.keep_in_foreground(False)


class Digits(Case):
    name = "1"

    def test_name_of_digits(self):
        """xl takes digits for a domain id: 1 is another domain's."""
        self.expect()
        self.a.ctl("migrate", "1", "b")
        self.at_b()
        self.assertIn("another", self.xa.names())


class Ssh(Case):
    transport = ""

    def test_default(self):
        # There is no such host: what matters is what it was asked to do.
        self.xa.broken["begin"] = "fail"
        self.expect()
        self.fails("failed", "step 'memory'")
        self.assertRegex(self.xa.calls[0][4], r"exec ssh -o BatchMode=yes .* 127\.0\.0\.1 xl migrate-receive$")


class OneHost(Case):
    one_host = True

    def test_two_vmcommds(self):
        """Both hosts are the same one: the name changes hands."""
        self.expect()
        self.assertTrue(self.a.ctl("migrate", "vm", "b")[-1]["result"]["attached"])
        self.at_b()
        self.assertEqual(list(self.xa.names()).count("vm"), 1)


class Bad(Case):
    def test_nobody_there(self):
        text = self.a.ctl("migrate", "vm", "nowhere", expect=EXIT["unreachable"])
        self.assertIn("step 'connect'", text)
        self.at_a()
        self.assertEqual(self.xa.calls, [])

    def test_not_expected(self):
        self.fails("not_found", "step 'prepare'", "vm add vm --incoming")

    def test_wrong_key(self):
        self.b.ctl("group", "remove", "blue")
        self.b.ctl("group", "add", "blue", "--slots", SLOTS, "--memory", "16M")
        self.fails("permission", "step 'connect'", "wrong key", "'blue'")

    def test_another_domain_of_its_name(self):
        self.expect()
        self.xb.add("vm", OTHER)
        text = self.a.ctl("migrate", "vm", "b", expect=EXIT["conflict"])
        self.assertIn("another UUID", text)
        wait_for(lambda: self.a.vm("vm")["state"] == "up", 60)

    def test_bandwidth(self):
        self.expect()
        text = self.a.ctl("migrate", "vm", "b", "--bandwidth", "10M", expect=EXIT["failed"])
        self.assertIn("cannot limit the bandwidth", text)
        self.at_a()

    def test_no_transport(self):
        """The command does not work: xl fails before anything is sent."""
        self.expect()
        self.xa.broken["begin"] = "fail"
        self.fails("failed", "step 'memory'", "transport process", "it runs here, in shared memory again")
        self.assertEqual(self.b.vm("vm")["state"], "incoming")

    def test_no_xl(self):
        self.expect()
        os.unlink(self.xa.env()["VMCOMM_XL"])
        self.fails("failed", "step 'memory'", "xl")

    def test_fails_before_it_left(self):
        self.expect()
        for stage in "memory", "stopped":
            self.xa.broken = {stage: "fail"}
            self.fails("failed", "step 'memory'", "libxl_domain_suspend failed")

    def test_refused_at_the_end(self):
        """The destination cannot let it run: xl takes it back."""
        self.expect()
        self.xa.broken["go"] = "refused"
        self.fails("failed", "step 'memory'", "problems at target")

    def test_lost_and_it_runs_there(self):
        self.expect()
        self.xa.broken["go"] = "lost, runs there"
        self.assertTrue(self.a.ctl("migrate", "vm", "b")[-1]["result"]["attached"])
        self.at_b()

    def test_lost_and_it_runs_nowhere(self):
        """xl here does not know; vmcommd there does."""
        self.expect()
        self.xa.broken["go"] = "lost"
        self.fails("failed", "step 'switch'", "does not run on 'b'")
        self.assertEqual(self.xa.resumed, [self.domid])

    def test_stranger(self):
        """A domain with our domain's name is not touched."""
        self.expect()
        self.xa.nodes[f"/local/domain/{self.domid}/vm"] = f"/vm/{OTHER}"
        text = self.a.ctl("migrate", "vm", "b", expect=None)
        del text
        self.assertEqual(self.xa.calls, [])


class Full(Case):
    b_slots = 2

    def test_full(self):
        for i in (2, 3):
            self.b.ctl("vm", "add", f"o{i}", "--group", "blue", "--key-file", self.key, "--address",
                       f"10.0.0.{i}")
        self.expect()
        self.fails("conflict", "is full")


class Interrupted(Case):
    def interrupt(self, p, step):
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 8, (out, err, self.a.log()[-3000:]))
        self.assertIn(f"step '{step}': cancelled", err)
        self.at_a()
        wait_for(lambda: "slot" not in self.b.vm("vm"), 20)

    def test_in_quiesce(self):
        self.expect()
        self.xa.hold_leave = True
        p = self.popen()
        wait_for(lambda: self.a.vm("vm")["state"] == "migrating", 60)
        p.send_signal(signal.SIGINT)
        self.xa.hold_leave = False
        out, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 8, (out, err))
        self.at_a()

    def test_in_begin(self):
        self.interrupt(self.held("begin"), "memory")

    def test_in_memory(self):
        self.interrupt(self.held("memory"), "memory")
        # and another time it works
        self.xa.held = None
        self.assertTrue(self.a.ctl("migrate", "vm", "b")[-1]["result"]["attached"])

    def test_while_it_stands(self):
        self.interrupt(self.held("stopped"), "memory")

    def test_stubborn_transport(self):
        """It does not end when asked to: xl is killed, and the domain let run."""
        self.xa.stubborn = True
        self.interrupt(self.held("stopped"), "memory")
        self.assertEqual(self.xa.resumed, [self.domid])

    def test_too_late(self):
        """It has been given away: who has it is for the other vmcommd to say, whatever was wanted."""
        p = self.held("go")
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        # The simulated receiver gives up when the transport ends.
        self.assertEqual(p.returncode, 1, (out, err))
        self.assertIn("does not run on 'b'", err)
        self.at_a()

    def test_timeout(self):
        self.expect()
        self.xa.held = "memory"
        text = self.a.ctl("migrate", "vm", "b", "--timeout", "1", expect=EXIT["timeout"])
        self.assertIn("not done within 1 s", text)
        self.at_a()

    def test_xl_killed(self):
        for stage in "memory", "stopped":
            p = self.held(stage)
            os.kill(self.xa.pid, signal.SIGKILL)
            out, err = p.communicate(timeout=60)
            self.assertEqual(p.returncode, 1, (out, err))
            self.assertIn("killed by signal 9", err)
            self.at_a()
            self.xa.stage = None
        self.assertEqual(self.xa.resumed, [self.domid])

    def killed_source(self, stage, how=lambda: None):
        p = self.held(stage)
        self.a.kill()
        self.assertEqual(p.wait(60), EXIT["unreachable"])
        how()
        self.a.start()

    def let_go(self):
        self.xa.held = None
        wait_for(lambda: self.b.vms()["vm"]["state"] == "up", 60)

    def test_source_killed(self):
        for stage in "memory", "stopped":
            self.killed_source(stage)
            self.at_a()
            self.xa.stage = None

    def test_source_and_xl_killed(self):
        self.killed_source("stopped", lambda: os.kill(self.xa.pid, signal.SIGKILL))
        self.at_a()
        self.assertEqual(self.xa.resumed, [self.domid])

    def test_source_killed_and_it_moves(self):
        """It moved while nobody looked: b attaches it by itself, a forgets it when it is back."""
        self.killed_source("memory", self.let_go)
        self.at_b()

    def test_source_killed_in_the_last_moment(self):
        """xl is killed after it gave the domain away: a asks b, and ends what is left here."""
        self.xa.broken["go"] = "lost, runs there"
        self.killed_source("go", self.let_go)
        self.at_b()
        self.assertIn(["destroy", str(self.domid)], self.xa.calls)

    def test_destination_killed(self):
        p = self.held("memory")
        self.b.kill()
        self.assertNotEqual(p.wait(60), 0)
        self.at_a()

    def test_destination_killed_at_the_end(self):
        p = self.held("go")
        self.xa.broken["go"] = "lost, runs there"
        self.xa.held = None
        wait_for(lambda: "vm" in self.xb.names())
        self.b.kill()
        self.b.start()
        self.assertEqual(p.wait(90), 0, self.a.log())
        self.at_b()


if __name__ == "__main__":
    BUILD = os.path.abspath(sys.argv.pop(1))
    sys.exit(main_with_second_try(__name__))
