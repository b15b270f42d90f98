# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains of libvirt as members, without QEMU: the hook program, and vmcommd with libvirt's test driver.

	test_libvirt.py BUILD
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

import daemonlib
from keeperlib import wait_for

BUILD = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "build"
HOOK = f"{BUILD}/cli/vmcomm-libvirt-hook"
NAMESPACE = "urn:vmcomm:member:1"
UUID = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"


def member(inside="<vmcomm:address>10.0.0.1</vmcomm:address>", group="blue"):
    return f"<vmcomm:member xmlns:vmcomm='{NAMESPACE}' group='{group}'>{inside}</vmcomm:member>"


def domain(metadata, name="web", uuid=UUID, kind="kvm", rest=""):
    return (f"<domain type='{kind}'><name>{name}</name><uuid>{uuid}</uuid><metadata>{metadata}</metadata>"
            f"<memory>8388608</memory><os><type>hvm</type></os>{rest}</domain>")


class Case(unittest.TestCase):
    options = ""
    uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"

    def setUp(self):
        scratch = daemonlib.scratch()
        self.addCleanup(scratch.cleanup)
        uri = self.uri.replace("@DIR@", scratch.name)
        section = f"[libvirt]\nuri = {uri}\n{self.options}" if uri else ""
        self.d = daemonlib.Daemon(BUILD, scratch.name, section, backend="local")
        self.addCleanup(self.d.clean_up)

    def hook(self, xml, name="web", op="prepare", sub="begin"):
        """(status, what it says)"""
        done = subprocess.run([HOOK, "--config", self.d.config, name, op, sub, "-"], input=xml, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(done.stdout, "")  # it would replace the XML of a migration
        return done.returncode, done.stderr

    def refused(self, xml, text, **kwargs):
        status, says = self.hook(xml, **kwargs)
        self.assertEqual(status, 1, says)
        self.assertTrue(says.startswith("vmcomm: "), says)
        self.assertIn(text, says)


class Hook(Case):
    def test_others_do_not_notice(self):
        self.assertEqual(self.hook(domain("")), (0, ""))
        self.assertEqual(self.hook(domain("<x:y xmlns:x='urn:x'/>")), (0, ""))
        self.assertEqual(self.hook("no XML at all"), (0, ""))
        self.assertEqual(self.hook("x" * (3 << 20)), (0, ""))
        for op, sub in (("start", "begin"), ("started", "begin"), ("stopped", "end"),
                        ("release", "end"), ("migrate", "begin"), ("prepare", "end")):
            self.assertEqual(self.hook(domain(member()), op=op, sub=sub), (0, ""))

    def test_damaged(self):
        self.refused(domain(member("")), "at least one")
        self.refused(domain(member())[:-3], "damaged")
        self.refused("<!DOCTYPE d>" + domain(member()), "document type")
        self.refused(domain(member()) + " " * (1 << 20), "larger than")

    def test_vmcommd_is_down(self):
        self.assertEqual(self.hook(domain(member())), (0, ""))

    def test_vmcommd_stands_still(self):
        self.d.start()
        self.d.proc.send_signal(signal.SIGSTOP)
        try:
            self.assertEqual(self.hook(domain(member())), (0, ""))
        finally:
            self.d.proc.send_signal(signal.SIGCONT)

    def test_group_and_addresses(self):
        self.d.start()
        self.refused(domain(member()), "no group 'blue'")
        self.d.ctl("group", "add", "blue", "--slots", "4", "--memory", "4M")
        self.assertEqual(self.hook(domain(member())), (0, ""))
        self.assertEqual(self.d.vms(), {})  # nothing is made before it runs
        key = self.d.group_key("blue")
        self.d.ctl("vm", "add", "other", "--group", "blue", "--key-file", key, "--address",
                   "10.0.0.1")
        self.refused(domain(member()), "'other' of group 'blue' has the address 10.0.0.1")
        self.refused(domain(member("<vmcomm:address>10.0.0.2</vmcomm:address>")).replace(
            ">web<", ">other<"), "exists already", name="other")
        self.refused(domain(member(), name="a b"), "name cannot be")

    def test_secret_that_cannot_be_read(self):
        # No libvirt answers: nobody can say, and that is no refusal.
        self.d.start()
        self.d.ctl("group", "add", "blue", "--slots", "4", "--memory", "4M")
        secret = f"<vmcomm:address>10.0.0.1</vmcomm:address><vmcomm:secret uuid='{UUID}'/>"
        self.assertEqual(self.hook(domain(member(secret))), (0, ""))
        self.assertIn("no connection to libvirt", self.d.log())


class Refusing(Case):
    options = "if_down = refuse\n"

    def test_vmcommd_is_down(self):
        self.refused(domain(member()), "if_down = refuse")
        self.assertEqual(self.hook(domain("")), (0, ""))

    def test_vmcommd_stands_still(self):
        self.d.start()
        self.d.proc.send_signal(signal.SIGSTOP)
        try:
            self.refused(domain(member()), "does not answer")
        finally:
            self.d.proc.send_signal(signal.SIGCONT)


class WithoutLibvirt(Case):
    uri = ""

    def test_no_section(self):
        self.d.start()
        self.d.ctl("group", "add", "blue", "--slots", "4", "--memory", "4M")
        self.assertEqual(self.hook(domain(member())), (0, ""))


class StandingStill(Case):
    uri = "qemu+unix:///system?socket=@DIR@/libvirt"

    def test_ended_while_libvirt_does_not_answer(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.d.path("libvirt"))
            s.listen(1)
            s.settimeout(60)
            self.d.start()
            conn, _ = s.accept()
            self.d.stop()
            conn.close()


class Domains(Case):
    """libvirt's test driver: domains that run, but nothing can be attached to them."""

    uri = "test://@DIR@/node.xml"

    def node(self, *domains):
        with open(self.d.path("node.xml"), "w", encoding="ascii") as f:
            f.write("<node>" + "".join(domains) + "</node>")

    def run_with(self, *domains):
        self.node(*domains)
        self.d.start()
        self.d.ctl("group", "add", "blue", "--slots", "4", "--memory", "4M")
        # It connects before there is the group: once more.
        self.d.stop()
        self.d.start()
        wait_for(lambda: "connected to libvirt" in self.d.log())

    def test_a_domain_that_runs_is_a_member(self):
        other = "11111111-2222-3333-4444-555555555555"
        self.run_with(domain(member(), kind="test"),
                      domain("", name="db", uuid=other, kind="test"))
        wait_for(lambda: "problem" in self.d.vms().get("web", {}))
        vm = self.d.vms()["web"]
        self.assertEqual((vm["uuid"], vm["group"], vm["addresses"], vm["libvirt"]),
                         (UUID, "blue", ["10.0.0.1"], True))
        self.assertIn("cannot plug the device in", vm["problem"])
        self.assertNotIn("db", self.d.vms())
        found = {f["check"]: f for f in json.loads(self.d.ctl("doctor", expect=None))["findings"]}
        self.assertIn("vmcommctl exec VM --", found["libvirt"]["advice"])
        # by command it leaves, until it starts again
        self.d.ctl("vm", "remove", "web", "--key-file", self.d.group_key("blue"))
        time.sleep(1.5)
        self.assertEqual(self.d.vms(), {})
        # started again, vmcommd looks at all; what is gone is no member any more
        self.d.stop()
        self.d.start()
        wait_for(lambda: "web" in self.d.vms())
        self.d.stop()
        self.node(domain("", name="db", uuid=other, kind="test"))
        self.d.start()
        wait_for(lambda: self.d.vms() == {})

    def test_ended_while_a_thread_is_inside_libvirt(self):
        self.node(domain(member(), kind="test"))
        for _ in range(25):
            self.d.start()
            self.d.ctl("group", "add", "blue", "--slots", "4", "--memory", "4M")  # the domain joins now
            self.d.stop()
            keepers = self.d.keepers().values()
            self.d.clean_up()
            wait_for(lambda pids=keepers: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
            for name in ("run", "state"):
                shutil.rmtree(self.d.path(name))

    def test_nonsense(self):
        self.run_with(domain(member("<vmcomm:address>10.0.0.1</vmcomm:address>", group="green"),
                             kind="test"))
        wait_for(lambda: "no group 'green'" in self.d.log())
        self.assertEqual(self.d.vms(), {})


if __name__ == "__main__":
    unittest.main()
