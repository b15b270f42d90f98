#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration between two vmcommds without guests: monitors that play QEMU, every step, every death.

Usage: test_migrate.py BUILD [TEST...]
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from daemonlib import EXIT, Daemon, free_port, UnixServer, scratch  # noqa: E402
from keeperlib import Handshake, Region, wait_for  # noqa: E402

BUILD = None
SLOTS = 4
VM_UP, VM_LEFT = 1, 3
UUID = "12345678-9abc-def0-1234-56789abcdef0"


class SimQemu:
    """A QEMU with a guest: monitor, device, migration. world: {uri: SimQemu that listens there}."""

    def __init__(self, world, path, incoming=False):
        self.world, self.path = world, path
        self.status = "inmigrate" if incoming else "running"
        self.migration = None
        self.held = False       # the memory does not get on
        self.no_plug = False
        self.no_unplug = False
        self.fail = None        # what the migration fails with
        self.mute_load = False  # the receiver dies instead of running
        self.inactive = False   # without its disks: QEMU dies when it migrates so
        self.late = False       # what ends a migration comes too late to keep it from that
        self.finishing = 0      # questions until it runs on after an undone migration
        self.cont_error = None
        self.complete_next = False  # it is through after the next question about it
        self.capabilities = {}
        self.slow = 0           # questions in "device", when everything is sent: too late to cancel
        self.twice = False      # it runs on both sides
        self.wedged = False     # cancelled just before the pause, it waits there
        self.polls = 0
        self.commands = []
        self.target = None
        self.device = None
        self.chardev = None
        self.left = False
        self.lock = threading.RLock()
        self.dead = False
        self.server = UnixServer(path, self.talk)

    def talk(self, conn):
        try:
            conn.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
            for line in conn.makefile("rb"):
                request = json.loads(line)
                with self.lock:
                    answer, events = self.run(request["execute"], request.get("arguments", {}))
                conn.sendall(json.dumps(answer | {"id": request["id"]}).encode() + b"\n")
                for event in events:
                    self.event(*event)
                if request["execute"] == "quit":
                    self.close()
        except (OSError, ValueError):
            pass

    def event(self, name, device=None, status=None):
        data = {"device": device} if device else {"status": status} if status else {}
        for conn in list(self.server.conns):
            try:
                conn.sendall(json.dumps({"event": name, "data": data}).encode() + b"\n")
            except OSError:
                pass

    def run(self, name, args):
        self.commands.append(name)
        method = getattr(self, "do_" + name.replace("-", "_"), None)
        try:
            got = method(**{k.replace("-", "_"): v for k, v in args.items()}) if method else {}
        except RuntimeError as e:
            return {"error": {"class": "GenericError", "desc": str(e)}}, []
        value, events = got if isinstance(got, tuple) else (got, [])
        return {"return": value}, events

    # -- monitor ---------------------------------------------------------------------------------

    def do_query_status(self):
        if self.finishing:
            self.finishing -= 1
            return {"status": "finish-migrate"}
        return {"status": self.status}

    def do_query_uuid(self):
        return {"UUID": UUID}

    def do_query_pci(self):
        return [{"devices": [{"qdev_id": "rp", "pci_bridge": {"bus": {}, "devices": []}}]}]

    def do_qom_list(self, path):
        return [{"name": "vmcomm0", "type": "child<ivshmem-doorbell>"}] if self.device else []

    def do_qom_get(self, path, property):
        return "vmcomm0c"

    def do_chardev_add(self, id, backend):
        self.chardev = backend["data"]["addr"]["data"]["path"]
        return {}

    def do_device_add(self, **_):
        if self.no_plug:
            raise RuntimeError("no room")
        self.device = Handshake(self.chardev).read(SLOTS)
        self.left = False
        threading.Thread(target=self.guest, args=(self.device,), daemon=True).start()
        return {}

    def do_device_del(self, id):
        if self.no_unplug:
            raise RuntimeError("the guest says no")
        self.left = True
        self.device.sock.close()
        self.device = None
        return {}, [("DEVICE_DELETED", "vmcomm0")]

    def do_query_migrate(self):
        if self.status == "inmigrate":
            uri = next((u for u, q in self.world.items() if q is self), None)
            if not uri:
                return {}
            host, port = uri.removeprefix("tcp:").rsplit(":", 1)
            return {"status": "setup", "socket-address": [{"type": "inet", "host": host, "port": port}]}
        if self.migration == "active":
            self.polls += 1
            if self.fail:
                self.undone("failed")
                return {"status": "failed", "error-desc": self.fail}
            if self.complete_next:
                self.complete()
                return {"status": "active"}
            if self.polls >= 3 and not self.held:
                return self.sent()
        elif self.migration == "device":
            self.slow -= 1
            if self.slow <= 0:
                self.complete()
        if not self.migration:
            return {}
        return {"status": self.migration, "ram": {"total": 1000, "remaining": max(0, 900 - 300 * self.polls)}}

    def do_migrate_incoming(self, uri):
        assert uri.endswith(":0")
        self.world[uri[:-1] + str(10000 + len(self.world))] = self
        return {}

    def do_migrate(self, uri):
        if self.device:
            raise RuntimeError("Migration is disabled when using feature 'peer mode' in device 'ivshmem'")
        if uri not in self.world:
            raise RuntimeError("Connection refused")
        if self.inactive:
            self.close()  # Assertion `!(bs->open_flags & BDRV_O_INACTIVE)' failed.
            raise RuntimeError("it has died")
        self.target, self.migration, self.polls = self.world[uri], "active", 0
        return {}

    def do_migrate_cancel(self):
        if self.wedged:
            self.migration, self.status = "cancelling", "finish-migrate"
        elif self.migration in ("active", "pre-switchover"):
            self.undone("cancelled")
            self.target.close()
        elif self.migration == "device":
            self.undone("cancelled")
            self.twice = True
        return {}

    def do_migrate_set_capabilities(self, capabilities):
        for c in capabilities:
            self.capabilities[c["capability"]] = c["state"]
        return {}

    def do_migrate_continue(self, state):
        if state != self.migration:
            raise RuntimeError(f"Migration not in expected state: {self.migration}")
        if state == "cancelling":
            self.wedged = False
            self.undone("cancelled")
            self.target.close()
            return {}
        assert state == "pre-switchover"
        self.migration = "device"
        if not self.slow:
            self.complete()
        return {}

    def sent(self):
        """All but the last of it: it stands still."""
        if not self.capabilities.get("pause-before-switchover"):
            self.complete()
            return {"status": "completed"}
        self.status, self.migration = "finish-migrate", "pre-switchover"
        events = [("MIGRATION", None, self.migration)] if self.capabilities.get("events") else []
        return {"status": "active"}, events

    def do_cont(self):
        if self.finishing:
            raise RuntimeError("Migration is not finalized yet")
        if self.cont_error:
            raise RuntimeError(self.cont_error)
        self.status, self.inactive = "running", False
        return {}

    def do_stop(self):
        self.status = "paused"
        return {}

    def undone(self, how):
        self.migration, self.status = how, "running"
        if self.late:
            self.inactive, self.finishing = True, 3

    def complete(self):
        self.migration, self.status, self.inactive = "completed", "postmigrate", True
        if self.target.mute_load:
            self.target.close()
        else:
            self.target.status = "running"
            self.target.event("RESUME")

    # -- guest -----------------------------------------------------------------------------------

    def guest(self, h):
        r = Region(h.memory)
        r.put32(r.ctl(h.id) + 20, VM_UP)
        r.put64(r.ctl(h.id) + 24, r.row(h.id)["generation"])
        r.put64(r.ctl(h.id) + 512 + 5 * 8, 1000)  # stat tx_ring_bytes
        r.put64(r.ctl(h.id), int.from_bytes(os.urandom(7), "little") + 1)
        while not self.left and not self.dead:
            state = r.row(h.id)["state"]
            if state == "leaving":
                r.put32(r.ctl(h.id) + 20, VM_LEFT)
            elif state == "live":
                r.put32(r.ctl(h.id) + 20, VM_UP)
            time.sleep(0.02)
        r.close()

    def close(self):
        if self.dead:
            return
        self.dead = True
        self.server.close()
        os.unlink(self.path)
        for conn in self.server.conns:
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if self.device:
            self.device.sock.close()


class Case(unittest.TestCase):
    b_slots = SLOTS

    def setUp(self):
        self.tmp = [scratch(), scratch()]
        for t in self.tmp:
            self.addCleanup(t.cleanup)
        self.world = {}
        pa, pb = free_port(), free_port()
        self.port_b = pb
        self.a = Daemon(BUILD, self.tmp[0].name, f"peer_listen = 127.0.0.1:{pa}\n"
                        f"[host b]\naddress = 127.0.0.1:{pb}\n[host nowhere]\naddress = 127.0.0.1:1\n")
        self.b = Daemon(BUILD, self.tmp[1].name, f"peer_listen = 127.0.0.1:{pb}\n"
                        f"[host a]\naddress = 127.0.0.1:{pa}\n")
        for d in self.a, self.b:
            self.addCleanup(d.clean_up)
            d.start()
        self.a.ctl("group", "add", "blue", "--slots", SLOTS, "--memory", "16M")
        self.key = self.a.group_key("blue")
        self.group_b()
        self.qa = SimQemu(self.world, self.a.path("vm.qmp"))
        self.qb = SimQemu(self.world, self.b.path("vm.qmp"), incoming=True)
        self.addCleanup(self.qa.close)
        self.addCleanup(lambda: self.qb.close())
        self.a.ctl("vm", "add", "vm", "--group", "blue", "--key-file", self.key, "--address",
                   "10.0.0.1,fd00::1", "--uuid", UUID, "--qmp", self.qa.path)
        self.a.ctl("vm", "attach", "vm")

    def group_b(self):
        self.b.ctl("group", "add", "blue", "--slots", self.b_slots, "--memory", "16M", "--key-file",
                   self.key)

    def tearDown(self):
        for d in self.a, self.b:
            if d.proc.poll() is None:
                d.stop()
            self.assertNotRegex(d.log(), "Sanitizer|runtime error")

    def expect(self, daemon=None, qemu=None):
        (daemon or self.b).ctl("vm", "add", "vm", "--incoming", "--group", "blue", "--key-file",
                               self.key, "--qmp", (qemu or self.qb).path)

    def popen(self, *args):
        p = subprocess.Popen([f"{BUILD}/cli/vmcommctl", "--socket", self.a.socket, "--json", "migrate",
                              "vm", "b", *map(str, args)], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.kill)
        return p

    def at_a(self, attached=True):
        """It runs at the source, in shared memory, and nothing is left of the attempt."""
        wait_for(lambda: self.a.vm("vm")["state"] == "up")
        self.assertEqual(self.qa.status, "running")
        self.assertNotIn("migrates_to", self.a.vm("vm"))
        self.assertFalse(self.qa.inactive, self.qa.commands)
        self.assertFalse(self.qa.twice, self.qa.commands)
        self.assertFalse(self.qa.capabilities.get("pause-before-switchover"))
        if attached:
            self.assertIsNotNone(self.qa.device)

    def at_b(self):
        self.assertFalse(self.qa.twice, self.qa.commands)
        wait_for(lambda: self.b.vms().get("vm", {}).get("state") == "up", 40)
        wait_for(lambda: "vm" not in self.a.vms(), 40)
        wait_for(lambda: self.qa.dead)


class Good(Case):
    def test_there_and_back(self):
        self.expect()
        self.assertEqual(self.b.vm("vm")["state"], "incoming")
        before = self.a.ctl("stats", "vm")["vms"][0]["counters"]["tx_ring_bytes"]
        number = self.a.vm("vm")["location"]
        steps = self.a.ctl("migrate", "vm", "b")
        result = steps[-1]["result"]
        self.assertTrue(result["attached"], steps)
        seen = [s.get("step") for s in steps]
        order = [s for i, s in enumerate(seen[:-1]) if s != (seen[i - 1] if i else None)]
        self.assertEqual(order, ["connect", "check", "prepare", "quiesce", "sync", "memory", "switch",
                                 "attach"], steps)
        self.assertTrue(any(s.get("total") == 1000 for s in steps))
        self.at_b()
        vm = self.b.vm("vm")
        self.assertEqual(vm["uuid"], UUID)
        self.assertEqual(vm["addresses"], ["10.0.0.1", "fd00::1"])
        self.assertNotEqual(vm["location"], number)
        after = self.b.ctl("stats", "vm")["vms"][0]["counters"]["tx_ring_bytes"]
        self.assertEqual((before, after), (1000, 2000), "counters go on")
        # and back
        back = SimQemu(self.world, self.a.path("back.qmp"), incoming=True)
        self.addCleanup(back.close)
        self.expect(self.a, back)
        self.assertTrue(self.b.ctl("migrate", "vm", "a")[-1]["result"]["attached"])
        self.assertEqual(self.a.vm("vm")["state"], "up")
        self.assertEqual(self.a.ctl("stats", "vm")["vms"][0]["counters"]["tx_ring_bytes"], 3000)
        self.assertEqual(self.b.vms(), {})

    def test_runs_there_over_tcp(self):
        """Nothing undoes a migration once the VM runs there; the status says that it has no device."""
        self.qb.no_plug = True
        self.expect()
        p = self.popen()
        out, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, EXIT["over_tcp"], err)
        self.assertIn("vm runs on b, but over TCP", err)
        self.assertIn("no room", err)
        self.assertFalse(json.loads(out.splitlines()[-1])["result"]["attached"])
        self.assertEqual(self.qb.status, "running")
        wait_for(lambda: "vm" not in self.a.vms())
        wait_for(lambda: self.qa.dead)

    def test_exec(self):
        """Detached while the command runs, attached again after it; its status is ours."""
        ctl = f"{BUILD}/cli/vmcommctl"
        done = subprocess.run([ctl, "--socket", self.a.socket, "exec", "vm", "--", "sh", "-c",
                               f"{ctl} --socket {self.a.socket} --json vm show vm; exit 7"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 7, done)
        self.assertEqual(json.loads(done.stdout)["vms"][0]["state"], "detached")
        self.at_a()

    def test_exec_that_moves_it(self):
        """Somebody else's migration: it is attached where it is then."""
        self.b.ctl("vm", "add", "vm", "--incoming", "--group", "blue", "--key-file", self.key, "--qmp",
                   self.qb.path, "--address", "10.0.0.1", "--uuid", UUID)
        script = self.a.path("move.py")
        with open(script, "w", encoding="utf-8") as f:
            f.write("import json, socket, sys\ns = socket.socket(socket.AF_UNIX)\n"
                    "s.connect(sys.argv[1])\nf = s.makefile('rwb')\nf.readline()\n"
                    "for i, (c, a) in enumerate([('migrate', {'uri': 'x:1'})] +\n"
                    "                           4 * [('query-migrate', {})]):\n"
                    "    f.write(json.dumps({'execute': c, 'arguments': a, 'id': i}).encode() + b'\\n')\n"
                    "    f.flush()\n    f.readline()\n")
        self.world["x:1"] = self.qb
        done = subprocess.run([f"{BUILD}/cli/vmcommctl", "--socket", self.a.socket, "exec", "vm", "--",
                               sys.executable, script, self.qa.path], capture_output=True, text=True,
                              timeout=90)
        self.assertEqual(done.returncode, 0, done)
        self.at_b()


class Refused(Case):
    def fails(self, code, *words, host="b"):
        text = self.a.ctl("migrate", "vm", host, expect=EXIT[code])
        for word in words:
            self.assertIn(word, text)
        self.at_a()
        return text

    def test_unknown_host(self):
        self.fails("not_found", "'moon'", "[host moon]", host="moon")

    def test_unreachable(self):
        self.fails("unreachable", "step 'connect'", "nowhere", "runs here, in shared memory again",
                   host="nowhere")

    def test_not_registered(self):
        self.fails("not_found", "step 'prepare'", "--incoming")

    def test_no_group_there(self):
        self.b.ctl("group", "remove", "blue")
        self.fails("permission", "step 'connect'", "wrong key", "'blue'")
        self.assertIn("not defined here", self.b.log())

    def test_wrong_key(self):
        self.b.ctl("group", "remove", "blue")
        self.b.ctl("group", "add", "blue", "--slots", SLOTS, "--memory", "16M")
        self.fails("permission", "step 'connect'", "wrong key", "'blue'")
        for d in self.a, self.b:
            with open(self.key, encoding="ascii") as f:
                self.assertNotIn(f.read().strip(), d.log())

    def test_receiver_does_not_wait(self):
        self.expect()
        self.qb.status = "prelaunch"
        self.fails("usage", "step 'prepare'", "prelaunch", "-incoming")
        self.qb.status = "inmigrate"
        self.assertTrue(self.a.ctl("migrate", "vm", "b")[-1]["result"]["attached"])

    def test_address_taken(self):
        self.expect()
        self.b.ctl("vm", "add", "other", "--group", "blue", "--key-file", self.key, "--address",
                   "fd00::1")
        self.fails("conflict", "step 'prepare'", "fd00::1", "'other'")

    def test_guest_keeps_its_device(self):
        self.expect()
        self.qa.no_unplug = True
        self.fails("failed", "step 'quiesce'", "says no")

    def test_memory_fails(self):
        self.expect()
        self.qa.fail = "Unable to write to socket: Connection reset by peer"
        self.fails("failed", "step 'memory'", "Connection reset")
        self.assertEqual(self.b.vm("vm")["state"], "incoming")

    def test_receiver_dies_at_the_end(self):
        """Everything was sent, and the other side cannot run it: it runs on here."""
        self.expect()
        self.qb.mute_load = True
        self.fails("failed", "step 'switch'", "does not run on 'b'")
        self.assertIn("cont", self.qa.commands)

    def test_timeout(self):
        self.expect()
        self.qa.held = True
        text = self.a.ctl("migrate", "vm", "b", "--timeout", "1", expect=EXIT["timeout"])
        self.assertIn("not done within 1 s", text)
        self.at_a()

    def test_operations_wait(self):
        self.expect()
        self.qa.held = True
        p = self.popen()
        wait_for(lambda: self.qa.migration == "active")
        for words in (["vm", "attach", "vm"], ["vm", "detach", "vm"], ["migrate", "vm", "b"]):
            self.assertIn("is being migrated", self.a.ctl(*words, expect=EXIT["conflict"]))
        self.assertIn("still to come", self.b.ctl("vm", "attach", "vm", expect=EXIT["conflict"]))
        self.a.ctl("migrate", "--cancel", "vm", parse=False)
        self.assertEqual(p.wait(60), 8)
        self.at_a()


class Full(Case):
    b_slots = 2

    def test_full(self):
        for i in (2, 3):
            self.b.ctl("vm", "add", f"o{i}", "--group", "blue", "--key-file", self.key, "--address",
                       f"10.0.0.{i}")
        self.expect()
        text = self.a.ctl("migrate", "vm", "b", expect=EXIT["conflict"])
        self.assertIn("is full", text)
        self.at_a()


class Undone(Case):
    """QEMU may let a VM run without its disks after a migration that came to nothing, and dies then."""

    def next_one_works(self):
        """Another receiver, another try."""
        if self.qb.dead:
            self.qb = SimQemu(self.world, self.b.path("again.qmp"), incoming=True)
            self.addCleanup(lambda: self.qb.close())
            self.expect()
        elif not self.b.vms():
            self.expect()
        self.qa.held, self.qa.fail = False, None
        self.assertTrue(self.a.ctl("migrate", "vm", "b")[-1]["result"]["attached"])
        self.at_b()

    def begun(self, **how):
        self.expect()
        self.qa.held = True
        for name, value in how.items():
            setattr(self.qa, name, value)
        p = self.popen()
        wait_for(lambda: self.qa.migration == "active")
        return p

    def test_cancelled_late(self):
        p = self.begun(late=True)
        self.a.ctl("migrate", "--cancel", "vm", parse=False)
        self.assertEqual(p.wait(60), 8)
        self.at_a()
        self.next_one_works()

    def test_failed_late(self):
        self.expect()
        self.qa.fail, self.qa.late = "Unable to write to socket", True
        text = self.a.ctl("migrate", "vm", "b", expect=EXIT["failed"])
        self.assertIn("Unable to write", text)
        self.at_a()
        self.next_one_works()

    def test_destination_lost_late(self):
        p = self.begun(late=True)
        self.b.kill()
        self.assertNotEqual(p.wait(60), 0)
        self.at_a()
        self.b.start()
        self.next_one_works()

    def test_source_killed_and_cancelled_late(self):
        self.begun(late=True)
        self.a.kill()
        self.a.start()
        self.at_a()
        self.assertIn("migrate_cancel", self.qa.commands)
        self.next_one_works()

    def test_source_killed_and_failed_late(self):
        """It failed while nobody looked."""
        self.begun()
        self.a.kill()
        with self.qa.lock:
            self.qa.undone("failed")
            self.qa.inactive = True
        self.a.start()
        self.at_a()
        self.next_one_works()

    def test_somebody_else_left_it_so(self):
        self.qa.migration, self.qa.inactive = "cancelled", True
        self.next_one_works()

    def test_stopped_with_a_past(self):
        """Whether it has its disks cannot be seen, and it is not for vmcommd to let it run."""
        self.expect()
        self.qa.status, self.qa.migration, self.qa.inactive = "paused", "cancelled", True
        text = self.a.ctl("migrate", "vm", "b", expect=EXIT["conflict"])
        for word in "step 'memory'", "'paused'", "cancelled", "cont":
            self.assertIn(word, text)
        self.assertEqual(self.qa.status, "paused")
        self.assertFalse(self.qa.dead)
        self.assertNotIn("migrate", self.qa.commands)
        self.qa.do_cont()
        self.next_one_works()

    def test_stopped_without_one(self):
        self.qa.status = "paused"
        self.next_one_works()
        self.assertNotIn("cont", self.qa.commands)

    def test_disks_are_not_given_back(self):
        """Somebody has them: it stands still rather than die, and is told about."""
        p = self.begun(late=True)
        self.qa.cont_error = 'Failed to get "write" lock'
        self.a.ctl("migrate", "--cancel", "vm", parse=False)
        _, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 8, err)
        for word in "write", "lock", "stopped", "cont":
            self.assertIn(word, err)
        self.assertEqual(self.qa.status, "paused")
        self.qa.cont_error = None
        self.qa.do_cont()
        self.next_one_works()

    def test_refused_at_the_beginning(self):
        self.expect()
        self.qa.cont_error = 'Failed to get "write" lock'
        text = self.a.ctl("migrate", "vm", "b", expect=EXIT["failed"])
        self.assertIn("does not get its disks back", text)
        self.assertNotIn("migrate", self.qa.commands)
        self.qa.cont_error = None
        self.next_one_works()

    def test_complete_after_a_look(self):
        """vmcommd, started again, sees it migrate; it is through before it can be cancelled."""
        p = self.begun()
        self.a.kill()
        p.wait(60)
        self.qa.complete_next = True
        self.a.start()
        self.at_b()
        self.assertNotIn("cont", self.qa.commands[self.qa.commands.index("migrate"):])

    def monitor_lost(self, complete):
        p = self.begun()
        with self.qa.lock:
            if complete:
                self.qa.complete()
            for conn in list(self.qa.server.conns):
                conn.shutdown(socket.SHUT_RDWR)
        return p

    def test_monitor_lost(self):
        """Nobody knows what became of it: QEMU is asked again before anything is done."""
        p = self.monitor_lost(complete=False)
        _, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, EXIT["failed"], err)
        self.assertIn("step 'memory'", err)
        self.at_a()
        self.assertIn("migrate_cancel", self.qa.commands)
        self.next_one_works()

    def test_monitor_lost_at_the_end(self):
        p = self.monitor_lost(complete=True)
        self.assertEqual(p.wait(60), 0, self.a.log())
        self.at_b()


class TooLate(Case):
    """Once QEMU was told to send the last of it nothing cancels a migration: it might run twice."""

    def at(self, state, **how):
        """A migration that stays in STATE."""
        self.expect()
        self.qa.slow = 1000
        for name, value in how.items():
            setattr(self.qa, name, value)
        p = self.popen()
        wait_for(lambda: self.qa.migration == state, 30)
        return p

    def go_on(self):
        self.qa.slow = 2

    def test_cancelled_in_pause(self):
        """Before it was told to go on, it runs on here."""
        self.qa.held = True
        self.expect()
        p = self.popen()
        wait_for(lambda: self.qa.migration == "active")
        with self.qa.lock:
            self.a.ctl("migrate", "--cancel", "vm", parse=False)
            self.qa.held, self.qa.polls = False, 3
        self.assertEqual(p.wait(60), 8)
        self.at_a()

    def test_cancelled_just_before_the_pause(self):
        """QEMU 7.2 waits for ever then, unless it is woken."""
        self.expect()
        self.qa.held = self.qa.wedged = True
        p = self.popen()
        wait_for(lambda: self.qa.migration == "active")
        self.a.ctl("migrate", "--cancel", "vm", parse=False)
        self.assertEqual(p.wait(60), 8)
        self.at_a()

    def test_source_killed_just_before_the_pause(self):
        self.expect()
        self.qa.held = self.qa.wedged = True
        self.popen()
        wait_for(lambda: self.qa.migration == "active")
        self.a.kill()
        self.a.start()
        self.at_a()

    def test_cancelled_after_it(self):
        p = self.at("device")
        self.a.ctl("migrate", "--cancel", "vm", parse=False)
        time.sleep(0.5)
        self.assertNotIn("migrate_cancel", self.qa.commands)
        self.go_on()
        self.assertEqual(p.wait(60), 0)
        self.at_b()

    def test_timeout_after_it(self):
        self.expect()
        self.qa.slow = 20
        self.assertTrue(self.a.ctl("migrate", "vm", "b", "--timeout", "1")[-1]["result"]["attached"])
        self.at_b()

    def test_destination_lost_after_it(self):
        p = self.at("device")
        self.b.kill()
        time.sleep(0.5)
        self.assertNotIn("migrate_cancel", self.qa.commands)
        self.go_on()
        self.b.start()
        self.assertEqual(p.wait(90), 0, self.a.log())
        self.at_b()

    def test_source_killed_after_it(self):
        self.at("device")
        self.a.kill()
        self.a.start()
        time.sleep(1)
        self.assertNotIn("migrate_cancel", self.qa.commands)
        self.go_on()
        self.at_b()

    def test_source_killed_in_pause(self):
        """It stands still until vmcommd is there again, and runs on here."""
        self.expect()
        self.qa.held = True
        p = self.popen()
        wait_for(lambda: self.qa.migration == "active")
        self.a.kill()
        p.wait(60)
        with self.qa.lock:
            self.qa.sent()
        self.assertEqual(self.qa.status, "finish-migrate")
        self.a.start()
        self.at_a()

    def test_source_ends_in_memory(self):
        """In good order: QEMU is not left to wait for a word of vmcommd."""
        self.expect()
        self.qa.held = self.qa.wedged = True
        p = self.popen()
        wait_for(lambda: self.qa.migration == "active")
        self.a.stop()
        p.wait(60)
        self.assertEqual((self.qa.migration, self.qa.status), ("cancelled", "running"))
        self.a.start()
        self.at_a()


class Strangers(Case):
    def test_garbage_and_many(self):
        """Who shows no key gets nowhere, and keeps nobody else from it."""
        conns = []
        for i in range(40):
            s = socket.create_connection(("127.0.0.1", self.port_b))
            self.addCleanup(s.close)
            try:
                s.sendall(os.urandom(2000) if i % 2 else b"GET / HTTP/1.1\r\n\r\n")
            except OSError:
                pass
            conns.append(s)
        for s in conns:
            s.settimeout(20)
            try:
                while s.recv(1000):
                    pass
            except ConnectionError:
                pass
        # and those that say nothing are forgotten, too
        quiet = [socket.create_connection(("127.0.0.1", self.port_b)) for _ in range(8)]
        for s in quiet:
            s.settimeout(30)
            try:
                while s.recv(1000):
                    pass
            except ConnectionError:
                pass
            s.close()
        self.assertTrue(self.b.answers())
        self.expect()
        self.assertTrue(self.a.ctl("migrate", "vm", "b")[-1]["result"]["attached"])


class Interrupted(Case):
    def test_ctrl_c(self):
        self.expect()
        self.qa.held = True
        p = self.popen()
        wait_for(lambda: self.qa.migration == "active")
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 8, (out, err))
        self.assertIn("step 'memory': cancelled", err)
        self.at_a()
        wait_for(lambda: "slot" not in self.b.vm("vm"), 20)

    def test_caller_goes_away(self):
        self.expect()
        self.qa.held = True
        p = self.popen()
        wait_for(lambda: self.qa.migration == "active")
        p.kill()
        p.wait()
        self.qa.held = False
        self.at_b()

    def killed_source(self, when, how=lambda: None):
        self.expect()
        self.qa.held = True
        p = self.popen()
        wait_for(when, 60)
        self.a.kill()
        self.assertEqual(p.wait(60), EXIT["unreachable"])
        how()
        self.a.start()

    def test_source_killed_in_quiesce(self):
        self.killed_source(lambda: "device_del" in self.qa.commands)
        self.at_a()

    def test_source_killed_in_memory(self):
        self.killed_source(lambda: self.qa.migration == "active")
        self.at_a()
        self.assertIn("migrate_cancel", self.qa.commands)

    def test_source_killed_before_the_end(self):
        """It moved while nobody looked: b attaches it by itself, a forgets it when it is back."""
        self.killed_source(lambda: self.qa.migration == "active",
                           lambda: (self.qa.complete(), wait_for(
                               lambda: self.b.vm("vm")["state"] == "up", 60)))
        self.at_b()

    def test_source_killed_and_its_qemu_gone(self):
        self.killed_source(lambda: self.qa.migration == "active",
                           lambda: (self.qa.complete(), self.qa.close()))
        self.at_b()

    def test_destination_killed_in_memory(self):
        self.expect()
        self.qa.held = True
        p = self.popen()
        wait_for(lambda: self.qa.migration == "active")
        self.b.kill()
        self.assertNotEqual(p.wait(60), 0)
        self.at_a()

    def test_destination_killed_at_the_end(self):
        """The memory has gone over in the same moment: a asks until b is back."""
        self.expect()
        self.qa.held = True
        p = self.popen()
        wait_for(lambda: self.qa.migration == "active")
        with self.qa.lock:
            self.b.kill()
            self.qa.complete()
        time.sleep(1)
        self.b.start()
        self.assertEqual(p.wait(90), 0, self.a.log())
        self.at_b()

    def test_destination_killed_while_it_attaches(self):
        self.expect()
        real = self.qb.do_device_add
        gate = threading.Event()

        def slow(**args):
            gate.wait(20)
            return real(**args)

        self.qb.do_device_add = slow
        p = self.popen()
        wait_for(lambda: "device_add" in self.qb.commands, 30)
        self.b.kill()
        gate.set()
        self.b.start()
        self.assertEqual(p.wait(90), 0, self.a.log())
        self.at_b()

    def test_destination_killed_before_it_attaches(self):
        self.expect()
        real = self.qb.do_chardev_add

        def dies(**args):
            self.qb.do_chardev_add = real
            self.b.kill()
            raise RuntimeError("nobody hears that")

        self.qb.do_chardev_add = dies
        p = self.popen()
        wait_for(lambda: self.b.proc.poll() is not None, 60)
        self.b.start()
        self.assertEqual(p.wait(90), 0, self.a.log())
        self.at_b()


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main(verbosity=2)
