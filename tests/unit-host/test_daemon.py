#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""vmcommd without guests: admission, removal, restarts, hostile clients and a hostile QEMU.

Usage: test_daemon.py BUILD [TEST...]
"""

import json
import os
import signal
import socket
import struct
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import keeperlib as kl  # noqa: E402
from daemonlib import EXIT, Daemon, UnixServer, receive, receive_all, scratch, send  # noqa: E402
from keeperlib import Handshake, Region, wait_for  # noqa: E402

BUILD = None
VM_DOWN, VM_UP, VM_LEFT = 0, 1, 3


class Case(unittest.TestCase):
    config = ""
    attach_timeout = 60

    def setUp(self):
        self.tmp = scratch()
        self.addCleanup(self.tmp.cleanup)
        self.d = Daemon(BUILD, self.tmp.name, self.config_text(),
                        attach_timeout=self.attach_timeout)
        self.addCleanup(self.d.clean_up)
        self.before_start()
        self.d.start()

    def config_text(self):
        return self.config

    def before_start(self):
        pass

    def tearDown(self):
        if self.d.proc.poll() is None:
            self.d.stop()
        else:
            self.assertEqual(self.d.proc.returncode, -signal.SIGKILL, self.d.log()[-5000:])
        self.assertNotRegex(self.d.log(), "Sanitizer|runtime error")

    def group(self, name="blue", slots=4, memory="16M"):
        return self.d.ctl("group", "add", name, "--slots", slots, "--memory", memory)["group"]

    def add(self, name, address, *args, group="blue", expect=0):
        return self.d.ctl("vm", "add", name, "--group", group, "--key-file",
                          self.d.group_key(group), "--address", address, *args, expect=expect)

    def remove(self, name, group="blue"):
        return self.d.ctl("vm", "remove", name, "--key-file", self.d.group_key(group))

    def qemu(self, name, slots=4):
        """Connect to a VM's socket as its QEMU would."""
        h = Handshake(self.d.vm(name)["socket"]).read(slots)
        self.addCleanup(h.close)
        wait_for(lambda: self.d.vm(name)["state"] != "waiting")
        return h

    def guest(self, h, incarnation=1234):
        """Write what a module would into the control area."""
        r = Region(h.memory)
        self.addCleanup(r.close)
        slot = h.id
        r.put32(r.ctl(slot) + 20, VM_UP)
        r.put64(r.ctl(slot) + 24, r.row(slot)["generation"])
        r.put64(r.ctl(slot), incarnation)
        return r


class Admission(Case):
    def test_group_life(self):
        g = self.group()
        self.assertEqual(os.stat(g["key_file"]).st_mode & 0o777, 0o600)
        self.assertEqual(len(open(g["key_file"], encoding="ascii").read().strip()), 64)
        self.assertEqual(self.d.keepers(), {}, "no memory without a member")
        self.assertIn("exists already", self.d.ctl("group", "add", "blue", expect=EXIT["conflict"]))
        self.d.ctl("group", "remove", "blue")
        self.assertFalse(os.path.exists(g["key_file"]))
        self.assertIn("'blue'", self.d.ctl("group", "show", "blue", expect=EXIT["not_found"]))

    def test_wrong_key_creates_nothing(self):
        self.group()
        key = self.d.other_key()
        text = self.d.ctl("vm", "add", "a", "--group", "blue", "--key-file", key, "--address",
                          "10.0.0.1", expect=EXIT["permission"])
        self.assertIn("wrong key: vm 'a' may not join group 'blue'", text)
        self.assertEqual((self.d.vms(), self.d.keepers()), ({}, {}))
        # nor does a request without any key
        reply = self.d.call("VmAdd", name="a", group="blue", addresses=["10.0.0.1"])[-1]
        self.assertEqual(reply["error"], "io.vmcomm.PermissionDenied")
        self.add("a", "10.0.0.1")
        self.assertEqual(self.d.vm("a")["state"], "waiting")
        secret = open(key, encoding="ascii").read().strip()
        own = open(self.d.group_key("blue"), encoding="ascii").read().strip()
        state = open(self.d.path("state/state.json"), encoding="ascii").read()
        for text in (self.d.log(), state):
            self.assertNotIn(secret, text)
            self.assertNotIn(own, text)

    def test_readable_key_file_is_refused(self):
        self.group()
        key = self.d.other_key()
        os.chmod(key, 0o644)
        text = self.d.ctl("vm", "add", "a", "--group", "blue", "--key-file", key, "--address",
                          "10.0.0.1", expect=EXIT["permission"])
        self.assertIn("chmod 600", text)

    def test_first_vm_creates_the_group(self):
        key = self.d.other_key()
        self.d.ctl("vm", "add", "a", "--group", "new", "--key-file", key, "--address", "10.0.0.1")
        g = self.d.ctl("group", "show", "new")["groups"][0]
        self.assertEqual((g["origin"], g["members"]), ("first vm", 1))
        self.d.ctl("vm", "remove", "a", "--key-file", key)
        wait_for(lambda: not self.d.keepers())
        self.assertEqual(self.d.ctl("group", "list")["groups"], [], "it goes with its last VM")

    def test_removal_needs_the_key(self):
        self.group()
        self.add("a", "10.0.0.1")
        self.add("b", "10.0.0.2")
        for args in ([], ["--key-file", self.d.other_key()]):
            text = self.d.ctl("vm", "remove", "a", *args, expect=EXIT["permission"])
            self.assertIn("permission denied: vm 'a' stays in group 'blue'", text)
        self.assertEqual(set(self.d.vms()), {"a", "b"})
        self.remove("a")
        self.assertIn("blue", self.d.keepers())
        keeper = self.d.keepers()["blue"]
        steps = self.remove("b")
        self.assertTrue(any("memory is freed" in s.get("step", "") for s in steps), steps)
        wait_for(lambda: not os.path.exists(f"/proc/{keeper}") or
                 open(f"/proc/{keeper}/stat", encoding="ascii").read().split()[2] == "Z")
        self.assertEqual(len(self.d.ctl("group", "list")["groups"]), 1, "the definition stays")

    def test_member_comes_as_its_group_goes(self):
        """The last member is removed, its QEMU still has the memory: who is added then keeps the group."""
        self.group()
        self.add("a", "10.0.0.1")
        old = self.qemu("a")
        self.remove("a")
        self.add("b", "10.0.0.2")
        time.sleep(2.5)  # vmcommd looks after its groups once a second
        old.close()
        time.sleep(2.5)
        self.assertEqual(self.d.vm("b")["state"], "waiting")
        self.qemu("b")

    def test_conflicts_and_limits(self):
        self.group(slots=2)
        self.add("a", "10.0.0.1,fd00::1")
        self.assertIn("exists already", self.add("a", "10.0.0.9", expect=EXIT["conflict"]))
        self.assertIn("fd00::1", self.add("b", "fd00::1", expect=EXIT["conflict"]))
        uuid = self.d.vm("a")["uuid"]
        self.assertIn(uuid, self.add("b", "10.0.0.2", "--uuid", uuid, expect=EXIT["conflict"]))
        self.assertIn("10.0.0.300", self.add("b", "10.0.0.300", expect=EXIT["usage"]))
        self.assertIn("relative", self.add("b", "10.0.0.2", "--qmp", "relative",
                                           expect=EXIT["usage"]))
        self.assertIn("nobody-here", self.add("b", "10.0.0.2", "--user", "nobody-here",
                                              expect=EXIT["not_found"]))
        self.add("b", "10.0.0.2")
        self.assertIn("full", self.add("c", "10.0.0.3", expect=EXIT["conflict"]))
        self.assertEqual(set(self.d.vms()), {"a", "b"})
        self.assertIn("2 members", self.d.ctl("group", "remove", "blue", expect=EXIT["conflict"]))

    def test_policy_reaches_the_region(self):
        self.d.ctl("group", "add", "blue", "--slots", "2", "--memory", "16M", "--exclude-ports",
                   "22,6000-6010", "--exclude-addresses", "10.1.0.0/16")
        self.add("a", "10.0.0.1")
        r = Region(self.qemu("a", 2).memory)
        self.addCleanup(r.close)
        self.assertEqual(r.u32(156), 3)
        self.assertEqual(struct.unpack_from("<HH", r.map, 512 + 24 + 20), (6000, 6010))
        self.assertEqual(r.map[512 + 48 + 16], 112)


class Life(Case):
    attach_timeout = 2

    def test_connect_up_gone_again(self):
        self.group()
        self.add("a", "10.0.0.1")
        first = self.d.vm("a")
        h = self.qemu("a")
        self.assertEqual(self.d.vm("a")["state"], "attached")
        self.assertEqual(self.d.vm("a")["qemu_pid"], os.getpid())
        self.guest(h)
        wait_for(lambda: self.d.vm("a")["state"] == "up")
        h.sock.close()
        wait_for(lambda: self.d.vm("a")["state"] == "waiting")
        again = self.d.vm("a")
        self.assertEqual(again["socket"], first["socket"], "the path stays for the command line")
        self.assertNotEqual(again["location"], first["location"])
        self.assertNotEqual((again["slot"], again["generation"]),
                            (first["slot"], first["generation"]))

    def test_attach_may_wait_for_the_module(self):
        self.group()
        self.add("a", "10.0.0.1")
        self.qemu("a")
        reply = self.d.call("VmAttach", name="a", wait=False)[-1]
        self.assertNotIn("error", reply)
        self.assertEqual(reply["parameters"]["vm"]["state"], "attached")
        reply = self.d.call("VmAttach", name="a")[-1]
        self.assertIn("no vmcomm module answered", reply["parameters"]["message"])

    def test_reboot_gets_a_new_location(self):
        self.group()
        self.add("a", "10.0.0.1")
        r = self.guest(self.qemu("a"))
        wait_for(lambda: self.d.vm("a")["state"] == "up")
        before = self.d.vm("a")
        r.put64(r.ctl(before["slot"]), 99)
        after = wait_for(lambda: (vm := self.d.vm("a"))["location"] != before["location"] and vm)
        self.assertEqual(after["generation"], before["generation"])
        self.assertEqual(f'{r.row(before["slot"])["number"]:016x}', after["location"])

    def test_path(self):
        """Why two VMs talk over TCP, as far as the host can know."""
        def path(a, b):
            found = self.d.ctl("vm", "path", a, b)
            return found["path"], found["reason"]
        self.group()
        self.group("red")
        self.add("a", "10.0.0.1")
        self.add("b", "10.0.0.2")
        self.add("c", "10.0.0.3", group="red")
        self.assertEqual(path("a", "c"), ("tcp", "other-group"))
        self.assertEqual(path("a", "b"), ("tcp", "no-device"))
        ha, hb = self.qemu("a"), self.qemu("b")
        r = self.guest(ha, 11)
        self.guest(hb, 22)
        wait_for(lambda: self.d.vm("b")["state"] == "up" and self.d.vm("a")["state"] == "up")
        self.assertEqual(path("a", "b"), ("tcp", "no-pair"))
        for one, other, own, peer in (ha.id, hb.id, 11, 22), (hb.id, ha.id, 22, 11):
            r.put64(r.pair(one, other), own)
            r.put64(r.pair(one, other) + 8, peer)
            r.put32(r.pair(one, other) + 16, 1)
        self.assertEqual(path("b", "a"), ("ring", "none"))
        self.assertIn("'nobody'", self.d.ctl("vm", "path", "a", "nobody",
                                             expect=EXIT["not_found"]))
        self.d.ctl("vm", "path", "a", "a", expect=EXIT["usage"])
        self.d.ctl("vm", "path", "a", expect=EXIT["usage"])

    def test_quarantine_waits_for_peers(self):
        self.group(slots=2)
        self.add("a", "10.0.0.1")
        self.add("b", "10.0.0.2")
        ha, hb = self.qemu("a", 2), self.qemu("b", 2)
        r = self.guest(ha, 11)
        self.guest(hb, 22)
        wait_for(lambda: self.d.vm("b")["state"] == "up" and self.d.vm("a")["state"] == "up")
        r.put64(r.pair(ha.id, hb.id) + 8, 22)  # a has accepted b
        hb.sock.close()
        wait_for(lambda: self.d.vm("b")["state"] == "no-slot")
        slot = self.d.ctl("group", "show", "blue")["groups"][0]["table"][hb.id]
        self.assertEqual((slot["state"], slot["held_by"]), ("gone", ha.id))
        self.assertEqual(r.u64(r.ctl(hb.id)), 22, "the memory of the dead stays readable")
        r.put64(r.pair(ha.id, hb.id) + 8, 0)
        wait_for(lambda: self.d.vm("b")["state"] == "waiting")
        self.assertEqual(r.u64(r.ctl(hb.id)), 0)
        self.assertEqual(self.d.vm("b")["generation"], 2)

    def held(self, qmp):
        """b is gone, and a, which has a device and no module, names it for ever. Return: b's slot."""
        self.group(slots=2)
        self.add("a", "10.0.0.1", "--qmp", qmp.path, "--bus", "port1")
        self.add("b", "10.0.0.2")
        ha, hb = self.qemu("a", 2), self.qemu("b", 2)
        qmp.on_delete = ha.sock.close
        r = self.guest(ha, 11)
        self.guest(hb, 22)
        wait_for(lambda: self.d.vm("b")["state"] == "up" and self.d.vm("a")["state"] == "up")
        r.put64(r.pair(ha.id, hb.id) + 8, 22)
        r.put32(r.ctl(ha.id) + 20, VM_DOWN)
        hb.sock.close()
        wait_for(lambda: self.d.vm("b")["state"] == "no-slot")
        time.sleep(1.5)  # vmcommd looks once a second
        self.assertEqual(self.d.vm("b")["state"], "no-slot")
        return hb.id

    def test_release_of_a_held_slot(self):
        qmp = FakeQmp(self.d.path("a.qmp"))
        self.addCleanup(qmp.close)
        slot = self.held(qmp)
        findings = json.loads(self.d.ctl("doctor", expect=None))["findings"]
        self.assertIn("slot", [f["check"] for f in findings])

        def plugged(socket_path):
            h = Handshake(socket_path).read(2)
            self.addCleanup(h.close)
            self.guest(h, 33)
        qmp.on_add = plugged
        steps = self.d.ctl("group", "release", "blue")
        self.assertIn(f"holds slot {slot}", steps[0]["step"])
        self.assertEqual(steps[-1], {"group": "blue", "replugged": 1})
        self.assertIn("device_del", qmp.commands)
        self.assertIn("device_add", qmp.commands)
        wait_for(lambda: self.d.vm("b")["state"] == "waiting")
        self.assertEqual(self.d.vm("a")["state"], "up")
        self.assertEqual(self.d.ctl("group", "release", "blue")["replugged"], 0)

    def test_release_needs_the_device_back(self):
        """A VM that does not unplug keeps the slot: nobody else may get its memory."""
        qmp = FakeQmp(self.d.path("a.qmp"), "refuses")
        self.addCleanup(qmp.close)
        slot = self.held(qmp)
        text = self.d.ctl("group", "release", "blue", expect=EXIT["failed"])
        self.assertIn(f"frees slot {slot}", text)
        self.assertIn(str(os.getpid()), text)
        self.assertEqual(self.d.vm("b")["state"], "no-slot")
        self.assertEqual(self.d.ctl("group", "release", "red", expect=EXIT["not_found"]).count("red"), 1)
        # the end of its QEMU does it
        qmp.on_delete()
        wait_for(lambda: self.d.vm("b")["state"] == "waiting")

    def test_kill_9_and_restart(self):
        self.group()
        self.group("red", slots=2)
        self.add("a", "10.0.0.1")
        self.add("b", "10.0.0.2")
        self.add("c", "10.0.0.3", group="red")
        ha, hb = self.qemu("a"), self.qemu("b")
        r = self.guest(ha)
        self.guest(hb, 55)
        wait_for(lambda: all(self.d.vm(n)["state"] == "up" for n in "ab"))
        before, keepers = self.d.vms(), self.d.keepers()
        self.d.kill()
        # a death that nobody but the keeper sees
        hb.sock.close()
        wait_for(lambda: r.row(hb.id)["state"] == "gone")
        self.d.start()
        self.assertEqual(self.d.keepers(), keepers)
        after = self.d.vms()
        self.assertEqual(set(after), {"a", "b", "c"})
        for key in ("slot", "generation", "location", "uuid", "state", "qemu_pid", "incarnation"):
            self.assertEqual(after["a"][key], before["a"][key], key)
        self.assertEqual(after["c"]["socket"], before["c"]["socket"])
        wait_for(lambda: self.d.vm("b")["state"] == "waiting")
        self.add("d", "10.0.0.4")
        self.qemu("d")
        self.assertEqual(self.d.vm("d")["state"], "attached")
        self.remove("c", "red")
        wait_for(lambda: set(self.d.keepers()) == {"blue"})

    def test_restart_many_times_keeps_descriptors(self):
        self.group()
        self.add("a", "10.0.0.1")
        keeper = self.d.keepers()["blue"]
        count = lambda: len(os.listdir(f"/proc/{keeper}/fd"))
        counts = []
        for _ in range(4):
            self.d.kill()
            self.d.start()
            counts.append(count())
        self.assertEqual(len(set(counts)), 1, counts)

    def test_second_daemon_is_refused(self):
        other = Daemon(BUILD, self.tmp.name)
        other.config, other.log_path = self.d.config, self.d.path("other.log")
        other.start(expect_up=False)
        self.assertEqual(other.proc.wait(20), 1)
        self.assertIn("another vmcommd", other.log())
        self.assertTrue(self.d.answers())

    def test_keeper_dies(self):
        self.group()
        self.add("a", "10.0.0.1")
        self.qemu("a")
        os.kill(self.d.keepers()["blue"], signal.SIGKILL)
        wait_for(lambda: "problem" in self.d.ctl("group", "show", "blue")["groups"][0] or
                 self.d.vm("a")["state"] == "waiting")
        self.assertIn("ended", self.d.log())
        # the next one who needs memory gets a new keeper
        self.add("b", "10.0.0.2")
        self.assertEqual(self.d.vm("b")["state"], "waiting")
        self.qemu("b")

    def test_keeper_stands_still(self):
        self.group()
        self.add("a", "10.0.0.1")
        keeper = self.d.keepers()["blue"]
        os.kill(keeper, signal.SIGSTOP)
        try:
            self.add("b", "10.0.0.2", expect=EXIT["timeout"])
            self.assertEqual(set(self.d.vms()), {"a"})
        finally:
            os.kill(keeper, signal.SIGCONT)
        wait_for(lambda: self.d.call("VmAdd", name="c", group="blue", addresses=["10.0.0.3"],
                                     key=open(self.d.group_key("blue"), encoding="ascii").read()
                                     .strip())[-1].get("error") is None, seconds=60)
        self.assertEqual(self.d.vm("c")["state"], "waiting")

    def test_damaged_state_file_is_kept(self):
        self.group()
        self.add("a", "10.0.0.1")
        self.d.stop()
        path = self.d.path("state/state.json")
        state = json.load(open(path, encoding="ascii"))
        state["vms"].append({"name": "broken"})
        json.dump(state, open(path, "w", encoding="ascii"))
        self.d.start()
        self.assertEqual(set(self.d.vms()), {"a"})
        self.assertTrue(os.path.exists(path + ".bad"))
        self.d.stop()
        open(path, "w", encoding="ascii").write("{")
        self.d.start(expect_up=False)
        self.assertEqual(self.d.proc.wait(20), 1)
        self.assertIn("state.json", self.d.log())
        os.unlink(path)
        self.d.start()

    def test_hostile_region(self):
        """A member scribbles over all that it can reach while the daemon looks."""
        self.group()
        self.add("a", "10.0.0.1")
        self.add("b", "10.0.0.2")
        ha, hb = self.qemu("a"), self.qemu("b")
        r = self.guest(ha, 11)
        self.guest(hb, 22)
        wait_for(lambda: self.d.vm("b")["state"] == "up")
        import random
        rnd = random.Random(4)
        for i in range(15):
            junk = rnd.randbytes(1 << 16)
            for area in (r.ctl(ha.id), r.ctl(hb.id), 0, r.chunk(ha.id, 0)):
                keep = r.map[area:area + 8]
                r.map[area:area + len(junk)] = junk
                if area:
                    r.map[area:area + 8] = keep  # the incarnations, or nothing is looked at
            for owner, peer in ((ha.id, hb.id), (hb.id, ha.id)):
                r.put64(r.pair(owner, peer), 11)
                for n in range(192):  # chunk numbers in and out of range
                    r.put32(r.pair(owner, peer) + 256 + 4 * n, rnd.choice([1, 2, n, 1 << 31]))
            for chunk in range(3):
                base = r.chunk(ha.id, chunk)
                r.map[base:base + (1 << 16)] = rnd.randbytes(1 << 16)
                for n in range(256):
                    r.put32(base + 256 * n, rnd.choice([1, 2, 9]))
            text = self.d.ctl("conn", "list", parse=False)
            json.loads(text)
            self.d.ctl("stats")
            self.d.ctl("vm", "list")
        self.assertTrue(self.d.answers())

    def test_connections_and_plain_rows(self):
        self.group()
        self.add("a", "10.0.0.1")
        self.add("b", "10.0.0.2")
        ha, hb = self.qemu("a"), self.qemu("b")
        r = self.guest(ha, 11)
        self.guest(hb, 22)
        wait_for(lambda: self.d.vm("b")["state"] == "up" and self.d.vm("a")["state"] == "up")
        v4 = lambda n: b"\0" * 10 + b"\xff\xff" + bytes([10, 0, 0, n])

        def half(owner, peer, idx, client, other_idx, **kw):
            r.put32(r.pair(owner, peer) + 256, 3)  # chunk 2
            at = r.chunk(owner, 2) + 256 * idx
            me, you = (1, 2) if owner == ha.id else (2, 1)
            ports = (40000, 80) if client else (80, 40000)
            # head ... ring_shift at 64, tail at 128, ports ... at 192
            r.map[at:at + 256] = struct.pack(
                "<8I16s16sQQIIIIIIQ16xQQQIII28xHHIQQQQ24x",
                2, 7, other_idx, 7, 0, 0, 2 if client else 0, kw.get("reason", 0), v4(me), v4(you),
                kw.get("head", 0), 0, kw.get("epoch", 0), 0, 0, 0, kw.get("shift", 0), 0, 0,
                kw.get("tail", 0), 0, 0, 0, 0, 0, *ports, kw.get("sleeping", 0),
                kw.get("tcp", 0), 0, kw.get("ring", 0), 0)
        half(ha.id, hb.id, 5, True, 9, head=5000, epoch=3, shift=16, ring=9000, tcp=100)
        half(hb.id, ha.id, 9, False, 5, tail=1000, sleeping=2, epoch=2, reason=18, tcp=77)
        plain = r.ctl(ha.id) + 0x10000 + 64 * 3
        r.map[plain:plain + 64] = struct.pack("<IHBB16s16sHH20x", 2, 17, hb.id, 0, v4(1), v4(2),
                                              50000, 22)
        conns = self.d.conns()
        self.assertEqual(len(conns), 2, conns)
        c, p = conns
        self.assertEqual(c["client"], {"vm": "a", "address": "10.0.0.1", "port": 40000})
        self.assertEqual(c["server"], {"vm": "b", "address": "10.0.0.2", "port": 80})
        up, down = c["to_server"], c["to_client"]
        self.assertEqual((up["path"], up["ring_bytes"], up["tcp_bytes"], up["unread"],
                          up["ring_size"], up["reason"]), ("ring", 9000, 100, 4000, 65536, "none"))
        self.assertTrue(up["receiver_sleeps"])
        self.assertEqual((down["path"], down["reason"], down["tcp_bytes"]), ("tcp", "resize", 77))
        self.assertEqual((p["state"], p["reason"], p["local"]["port"], p["remote"]["vm"]),
                         ("plain", "policy", 50000, "b"))
        table = self.d.ctl("conn", "list", "--vm", "b", parse=False)
        self.assertEqual(len(json.loads(table)["connections"]), 2)
        self.assertEqual(self.d.call("ConnList")[-1]["parameters"]["connections"], conns)

    def test_detach_leaves_first(self):
        """The guest is told to leave before its device is taken; here it says so itself."""
        qmp = FakeQmp(self.d.path("a.qmp"))
        self.addCleanup(qmp.close)
        self.group()
        self.add("a", "10.0.0.1", "--qmp", qmp.path)
        h = self.qemu("a")
        r = self.guest(h)
        wait_for(lambda: self.d.vm("a")["state"] == "up")
        qmp.on_delete = h.sock.close
        with self.d.connect() as s:
            send(s, "VmDetach", more=True, name="a")
            wait_for(lambda: r.row(h.id)["state"] == "leaving")
            # another operation has to wait
            self.assertIn("another operation", self.d.ctl("vm", "attach", "a",
                                                          expect=EXIT["conflict"]))
            r.put32(r.ctl(h.id) + 20, VM_LEFT)
            replies = receive_all(s)
        self.assertNotIn("error", replies[-1])
        steps = [x["parameters"].get("step", "") for x in replies]
        self.assertIn("the guest has left shared memory", steps)
        self.assertEqual(self.d.vm("a")["state"], "detached")
        self.assertIn("device_del", qmp.commands)
        self.assertEqual(r.row(h.id)["state"] in ("left", "free"), True)


class FakeQmp:
    """A QEMU monitor that does what it is told, or misbehaves."""

    def __init__(self, path, mode="good"):
        self.path, self.mode = path, mode
        self.commands = []
        self.on_delete = lambda: None
        self.on_add = lambda path: None
        self.chardev = None
        self.plugged = True
        self.server = UnixServer(path, self.talk)

    def talk(self, conn):
        try:
            if self.mode == "flood":
                while True:
                    conn.sendall(b"x" * 65536)
            if self.mode == "garbage":
                conn.sendall(os.urandom(1000) + b"\n")
                return
            if self.mode == "http":
                conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                return
            conn.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
            if self.mode == "hangup":
                conn.recv(1000)
                conn.close()
                return
            for line in conn.makefile("rb"):
                self.answer(conn, json.loads(line))
        except OSError:
            pass

    def answer(self, conn, request):
        name, ident = request["execute"], request["id"]
        self.commands.append(name)
        put = lambda o: conn.sendall(json.dumps(o).encode() + b"\n")
        if self.mode == "events":
            for _ in range(1000):
                put({"event": "DEVICE_DELETED", "data": {"device": "vmcomm0"}})
        if self.mode == "types":
            put({"return": 5, "id": "x"})
            put({"return": [1, {"name": 7, "type": []}, "x"], "id": ident})
            return
        devices = [{"name": "vmcomm0", "type": "child<ivshmem-doorbell>"}] if self.plugged else []
        replies = {"qom-list": devices,
                   "qom-get": "vmcomm0c", "query-pci": []}
        if name == "device_del" and self.mode == "refuses":
            put({"error": {"class": "GenericError", "desc": "it does not want to"}, "id": ident})
            return
        put({"return": replies.get(name, {}), "id": ident})
        if name == "chardev-add":
            self.chardev = request["arguments"]["backend"]["data"]["addr"]["data"]["path"]
        if name == "device_add":
            self.plugged = True
            self.on_add(self.chardev)
        if name == "device_del":
            self.plugged = False
            put({"event": "DEVICE_DELETED", "data": {"device": "vmcomm0", "path": "/x"}})
        if name == "chardev-remove":
            self.on_delete()

    def close(self):
        self.server.close()
        for conn in self.server.conns:
            conn.close()


class HostileQemu(Case):
    def attach_error(self, mode):
        path = self.d.path(f"{mode}.qmp")
        qmp = FakeQmp(path, mode)
        self.addCleanup(qmp.close)
        self.add("a", "10.0.0.1", "--qmp", path)
        reply = self.d.call("VmAttach", name="a")[-1]
        self.assertIn("error", reply, mode)
        text = reply["parameters"]["message"]
        self.assertTrue(self.d.answers())
        self.remove("a")
        return text

    def test_monitors(self):
        self.group()
        self.assertIn("more than 1 MiB", self.attach_error("flood"))
        self.assertIn("JSON", self.attach_error("garbage"))
        self.assertIn("JSON", self.attach_error("http"))
        self.assertIn("closed its monitor", self.attach_error("hangup"))
        self.assertIn("vm 'a'", self.attach_error("types"))
        self.assertIn("vm 'a'", self.attach_error("events"))

    def test_no_monitor(self):
        self.group()
        self.add("a", "10.0.0.1", "--qmp", "/nonexistent/qmp")
        text = self.d.ctl("vm", "attach", "a", expect=EXIT["failed"])
        self.assertIn("/nonexistent/qmp", text)
        self.assertEqual(self.d.vm("a")["state"], "waiting")
        self.add("b", "10.0.0.2")
        text = self.d.ctl("vm", "attach", "b", expect=EXIT["failed"])
        self.assertIn("-chardev socket", text)


class Configured(Case):
    def before_start(self):
        for name, digit in (("blue", "a"), ("wrong", "b")):
            path = self.d.path(name + ".key")
            with open(path, "w", encoding="ascii") as f:
                f.write(digit * 64 + "\n")
            os.chmod(path, 0o600)

    def config_text(self):
        d = self.tmp.name
        return (f"[group blue]\nkey_file = {d}/blue.key\nslots = 4\nmemory = 16M\n"
                f"[vm a]\ngroup = blue\nkey_file = {d}/blue.key\naddress = 10.0.0.1\n"
                f"[vm b]\ngroup = blue\nkey_file = {d}/wrong.key\naddress = 10.0.0.2\n"
                f"[vm c]\ngroup = own\nkey_file = {d}/wrong.key\naddress = 10.0.0.3\n")

    def test_admission_at_start(self):
        vms = self.d.vms()
        self.assertEqual({n: vm["state"] for n, vm in vms.items()},
                         {"a": "waiting", "b": "refused", "c": "waiting"})
        self.assertIn("wrong key: vm 'b'", vms["b"]["problem"])
        self.assertIn("wrong key: vm 'b'", self.d.log())
        self.assertIn("wrong key", self.d.ctl("vm", "attach", "b", expect=EXIT["permission"]))
        self.assertIn("own", self.d.keepers())

    def test_identity_survives_restart(self):
        before = self.d.vm("a")
        self.d.kill()
        self.d.start()
        after = self.d.vm("a")
        for key in ("uuid", "slot", "generation", "location"):
            self.assertEqual(after[key], before[key], key)

    def test_configured_group_stays(self):
        key = self.d.path("blue.key")
        self.d.ctl("vm", "remove", "a", "--key-file", key)
        self.d.ctl("vm", "remove", "b", "--key-file", key)
        wait_for(lambda: "blue" not in self.d.keepers())
        self.assertIn("blue", [g["name"] for g in self.d.ctl("group", "list")["groups"]])
        self.assertIn(".conf", self.d.ctl("group", "remove", "blue", expect=EXIT["permission"]))


class Clients(Case):
    def test_malformed(self):
        for junk in (b"\0", b"{\0", b"[]\0", b"5\0", b'{"method": 5}\0', b'{"method": "x", '
                     b'"parameters": []}\0', b"\xff\xfe\0", b"GET / HTTP/1.1\r\n\r\n\0",
                     b"[" * 100000 + b"\0"):
            with self.d.connect() as s:
                s.sendall(junk)
                self.assertIsNone(receive(s), junk[:40])
        self.assertTrue(self.d.answers())

    def test_errors_are_answers(self):
        for method, params, error in (
                ("io.vmcomm.Nothing", {}, "org.varlink.service.MethodNotFound"),
                ("VmList", {"name": "x"}, "io.vmcomm.NotFound"),
                ("VmList", {"name": 5}, "io.vmcomm.Invalid"),
                ("GroupAdd", {}, "io.vmcomm.Invalid"),
                ("GroupAdd", {"name": "../x"}, "io.vmcomm.Invalid"),
                ("GroupAdd", {"name": "n" * 5000}, "io.vmcomm.Invalid"),
                ("GroupAdd", {"name": "x", "slots": -1}, "io.vmcomm.Invalid"),
                ("GroupAdd", {"name": "x", "slots": 1 << 62}, "io.vmcomm.Invalid"),
                ("GroupAdd", {"name": "x", "slots": 64, "memory": 4 << 20}, "io.vmcomm.Full"),
                ("GroupAdd", {"name": "x", "memory": 5 << 20}, "io.vmcomm.Invalid"),
                ("GroupAdd", {"name": "x", "key": "short"}, "io.vmcomm.Invalid"),
                ("VmAdd", {"name": "a", "group": "g", "key": "a" * 64}, "io.vmcomm.Invalid"),
                ("VmAdd", {"name": "a", "group": "g", "key": "a" * 64, "addresses": [5]},
                 "io.vmcomm.Invalid"),
                ("VmAdd", {"name": "a", "group": "g", "key": "a" * 64, "addresses": ["1.1.1.1"],
                           "qmp": "/" + "q" * 300}, "io.vmcomm.Invalid")):
            with self.d.connect() as s:
                send(s, method, **params)
                reply = receive(s)
                self.assertEqual(reply.get("error"), error, (method, params, reply))
        self.assertEqual(self.d.ctl("group", "list")["groups"], [], "nothing was left behind")

    def test_pipelined_and_half_closed(self):
        with self.d.connect() as s:
            for _ in range(5):
                send(s, "Info")
            s.shutdown(socket.SHUT_WR)
            for _ in range(5):
                self.assertIn("version", receive(s)["parameters"])
            self.assertIsNone(receive(s))

    def test_oneway_gets_no_answer(self):
        with self.d.connect() as s:
            send(s, "Info", oneway=True)
            send(s, "GroupList")
            self.assertIn("groups", receive(s)["parameters"])

    def test_service_interface(self):
        with self.d.connect() as s:
            send(s, "org.varlink.service.GetInterfaceDescription", interface="io.vmcomm")
            text = receive(s)["parameters"]["description"]
        for method in ("Info", "GroupAdd", "VmAttach", "ConnList", "Stats"):
            self.assertIn(f"method {method}(", text)

    def test_oversized_request(self):
        with self.d.connect() as s:
            with self.assertRaises((ConnectionError, AssertionError)):
                s.sendall(b'{"method": "' + b"x" * (3 << 20))
                self.assertIsNotNone(receive(s))
        # just under the limit is served
        with self.d.connect() as s:
            send(s, "Info", filler="x" * ((1 << 20) - 200))
            self.assertIn("version", receive(s)["parameters"])

    def test_slow_writer_is_dropped(self):
        with self.d.connect(timeout=60) as s:
            s.sendall(b'{"method": ')
            self.assertTrue(self.d.answers())
            self.assertIsNone(receive(s), "the connection ends by itself")

    def test_slow_reader_is_dropped(self):
        self.d.ctl("group", "add", "g", "--slots", "64", "--memory", "64M")
        with self.d.connect() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.setblocking(False)
            request = json.dumps({"method": "io.vmcomm.GroupList"}).encode() + b"\0"

            def send_more():
                try:
                    while True:
                        s.send(request * 100)
                except BlockingIOError:
                    pass
                except ConnectionError:
                    return True
                self.assertTrue(self.d.answers())
                return False
            wait_for(send_more, seconds=60)
        # dropped for its replies or for its time, whichever limit it meets first
        self.assertRegex(self.d.log(), "is too slow|does not take its replies")

    def test_too_many_clients(self):
        held = [self.d.connect() for _ in range(64)]
        for s in held:
            self.addCleanup(s.close)
        send(held[63], "Info")
        self.assertIn("version", receive(held[63])["parameters"])
        with self.d.connect() as s:
            try:
                send(s, "Info")
            except ConnectionError:
                pass
            else:
                self.assertIsNone(receive(s))
        held[0].close()
        wait_for(self.d.answers)

    def test_client_goes_away_in_the_middle(self):
        self.d.ctl("group", "add", "g", "--slots", "2", "--memory", "16M")
        qmp = FakeQmp(self.d.path("q"), "good")
        self.addCleanup(qmp.close)
        self.d.ctl("vm", "add", "a", "--group", "g", "--key-file", self.d.group_key("g"),
                   "--address", "10.0.0.1", "--qmp", qmp.path)
        for _ in range(20):
            s = self.d.connect()
            send(s, "VmAttach", more=True, name="a")
            s.close()
            s = self.d.connect()
            send(s, "ConnList", more=True)
            s.close()
        self.assertTrue(self.d.answers())

    def test_unreachable_exit_code(self):
        self.d.stop()
        self.assertIn("does not answer", self.d.ctl("vm", "list", expect=EXIT["unreachable"]))
        self.d.start()

    def test_usage_exit_code(self):
        for args in (["bogus"], ["vm"], ["vm", "fly"], ["vm", "show"], ["vm", "list", "--slots",
                     "4"], ["group", "add", "x", "--memory", "12Q"], ["vm", "add", "a"]):
            self.d.ctl(*args, expect=EXIT["usage"])


if __name__ == "__main__":
    BUILD = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
