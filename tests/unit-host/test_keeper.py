#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""vmcomm-keeper: handshake, admin protocol, stand-alone mode. Usage: test_keeper.py KEEPER"""

import errno
import os
import socket
import struct
import subprocess
import sys
import tempfile
import unittest
from fcntl import F_GET_SEALS, fcntl

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import keeperlib as kl  # noqa: E402
from keeperlib import Handshake, Keeper, Region, ring, rung, wait_for  # noqa: E402

KEEPER = None


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix="vmcomm-keeper-")
        self.dir = os.path.join(self.tmp.name, "g")
        self.cleanup = []

    def tearDown(self):
        for close in reversed(self.cleanup):
            close()
        self.tmp.cleanup()

    def keeper(self, *args, **kw):
        k = Keeper(KEEPER, self.dir, *args, **kw)
        self.cleanup.append(k.stop)
        return k

    def admin(self, k):
        a = k.admin()
        self.cleanup.append(a.close)
        return a

    def qemu(self, k, slot):
        h = Handshake(k.slot(slot)).read(k.slots)
        self.cleanup.append(h.close)
        return h


class HandshakeTest(Case):
    def test_complete_and_in_order(self):
        k = self.keeper(slots=4)
        a = self.admin(k)
        self.assertEqual(a.open(2), 0)
        h = self.qemu(k, 2)
        self.assertEqual(h.id, 2)
        peers = h.peers()
        # others and the host (number 4) first, own last
        self.assertEqual(list(peers), [0, 1, 3, 4, 2])
        self.assertTrue(all(len(fds) == kl.VECTORS for fds in peers.values()))
        self.assertTrue(h.quiet())

    def test_largest_group_never_blocks(self):
        """64 slots: nobody reads while the handshakes of all are sent, then all are complete."""
        k = self.keeper(slots=64, memory="128M")
        a = self.admin(k)
        for i in range(64):
            self.assertEqual(a.open(i, vm=bytes([i]) * 16), 0)
        hs = [Handshake(k.slot(i)) for i in range(64)]
        # The keeper answers while 64 QEMUs have read nothing yet.
        self.assertEqual(a.hello()["slots"], 64)
        for i, h in enumerate(hs):
            h.read(64)
            self.assertEqual(h.id, i)
            self.assertEqual(len(h.peers()), 65)
        for h in hs:
            h.close()

    def test_handshake_fits_the_socket_buffer(self):
        """Connected is reported although the client reads nothing: all is in the buffer."""
        k = self.keeper(slots=64, memory="128M")
        a = self.admin(k)
        a.open(0)
        h = Handshake(k.slot(0))
        self.cleanup.append(h.close)
        a.event(kl.EV_CONNECTED, 0)
        self.assertEqual(a.status(0)["connected"], 1)
        h.read(64)

    def test_memory_is_sealed(self):
        k = self.keeper(memory="16M")
        a = self.admin(k)
        a.open(0)
        h = self.qemu(k, 0)
        self.assertEqual(os.fstat(h.memory).st_size, 16 << 20)
        self.assertEqual(fcntl(h.memory, F_GET_SEALS), 1 | 2 | 4)  # SEAL, SHRINK, GROW
        with self.assertRaises(PermissionError):
            os.ftruncate(h.memory, 4096)

    def test_doorbells_connect_the_same_eventfds(self):
        k = self.keeper()
        a = self.admin(k)
        a.open(0, vm=b"a" * 16)
        a.open(1, vm=b"b" * 16)
        h0, h1 = self.qemu(k, 0), self.qemu(k, 1)
        for v in range(kl.VECTORS):
            rung(h1.peers()[1][v])
            ring(h0.peers()[1][v])
            self.assertEqual(rung(h1.peers()[1][v]), 1)
        host = a.doorbells(4)
        ring(h0.peers()[4][0])
        self.assertEqual(rung(host[0]), 1)

    def test_path_is_gone_while_taken(self):
        k = self.keeper()
        a = self.admin(k)
        a.open(0)
        self.assertTrue(os.path.exists(k.slot(0)))
        h = self.qemu(k, 0)
        self.assertFalse(os.path.exists(k.slot(0)))
        with self.assertRaises(FileNotFoundError):
            Handshake(k.slot(0))
        h.close()
        a.event(kl.EV_DISCONNECTED, 0)
        self.assertFalse(os.path.exists(k.slot(0)), "a slot in quarantine is not open")

    def test_latecomer_gets_a_decoy(self):
        """Two in the queue at the same moment: one has the region, one an empty one; none hangs."""
        k = self.keeper()
        a = self.admin(k)
        a.open(0)
        os.kill(k.proc.pid, 19)  # SIGSTOP: both connect before the keeper looks
        socks = []
        for _ in range(2):
            h = Handshake(k.slot(0))
            self.cleanup.append(h.close)
            socks.append(h)
        os.kill(k.proc.pid, 18)
        first, second = socks
        first.read(4)
        for _ in range(3 + kl.VECTORS):
            second.one()
        self.assertEqual([m[0] for m in second.messages[:3]], [0, 0, -1])
        fd = second.messages[2][1]
        self.assertEqual(os.fstat(fd).st_size, 4096)
        self.assertEqual(os.pread(fd, 4096, 0), bytes(4096))
        self.assertTrue(second.quiet(), "the decoy stays connected")
        self.assertNotEqual(os.fstat(fd).st_ino, os.fstat(first.memory).st_ino)
        self.assertEqual(a.status(0)["decoys"], 1)
        self.assertEqual(a.status(0)["connected"], 1)

    def test_credentials(self):
        k = self.keeper()
        a = self.admin(k)
        a.open(0)
        self.qemu(k, 0)
        st = a.status(0)
        self.assertEqual((st["pid"], st["uid"]), (os.getpid(), os.getuid()))

    def test_no_descriptor_leak(self):
        k = self.keeper()
        a = self.admin(k)
        before = None
        for i in range(30):
            self.assertEqual(a.open(0, generation=i + 1), 0)
            h = Handshake(k.slot(0)).read(4)
            h.close()
            a.event(kl.EV_DISCONNECTED, 0)
            self.assertEqual(a.close_slot(0), 0)
            if i == 4:
                before = k.fds()
        self.assertEqual(k.fds(), before)

    def test_client_that_talks_is_ignored(self):
        k = self.keeper()
        a = self.admin(k)
        a.open(0)
        h = self.qemu(k, 0)
        h.sock.settimeout(5)
        h.sock.sendall(b"x" * 100000)
        self.assertEqual(a.status(0)["connected"], 1)


class RowTest(Case):
    def test_header(self):
        k = self.keeper(gid="blue")
        a = self.admin(k)
        r = Region(a.memory())
        self.cleanup.append(r.close)
        self.assertEqual(r.magic, 0x316d6d6f636d7600)
        self.assertEqual((r.slots, r.gid, r.size), (4, "blue", 16 << 20))
        hello = a.hello()
        self.assertEqual((hello["protocol"], hello["pid"], hello["epoch"]),
                         (1, k.proc.pid, r.epoch))

    def test_states_follow_the_connection(self):
        k = self.keeper()
        a = self.admin(k)
        r = Region(a.memory())
        self.cleanup.append(r.close)
        self.assertEqual(r.row(1)["state"], "free")
        self.assertEqual(a.open(1, generation=5, number=99), 0)
        row = r.row(1)
        self.assertEqual((row["state"], row["generation"], row["number"], row["vectors"]),
                         ("joining", 5, 99, 4))
        self.assertEqual(row["addrs"], [b"\0" * 10 + b"\xff\xff" + bytes([10, 0, 0, 1])])
        h = self.qemu(k, 1)
        a.event(kl.EV_CONNECTED, 1)
        self.assertEqual(r.row(1)["state"], "live")
        h.close()
        a.event(kl.EV_DISCONNECTED, 1)
        self.assertEqual(r.row(1)["state"], "gone")
        self.assertEqual(a.close_slot(1), 0)
        self.assertEqual(r.row(1)["state"], "free")
        self.assertEqual(r.row(1)["seq"] % 2, 0)

    def test_leaving_becomes_left(self):
        k = self.keeper()
        a = self.admin(k)
        a.open(1)
        h = self.qemu(k, 1)
        a.event(kl.EV_CONNECTED, 1)
        self.assertEqual(a.row(kl.SET_ROW, 1, state="leaving"), 0)
        h.close()
        a.event(kl.EV_DISCONNECTED, 1)
        self.assertEqual(a.status(1)["state"], "left")

    def test_peers_are_rung_without_vmcommd(self):
        """A death is announced by the keeper alone: nobody is on the admin socket."""
        k = self.keeper("--open", "0=10.0.0.1", "--open", "1=10.0.0.2")
        h0, h1 = self.qemu(k, 0), self.qemu(k, 1)
        r = Region(h0.memory)
        self.cleanup.append(r.close)
        wait_for(lambda: r.row(1)["state"] == "live")
        own = h0.peers()[0]
        rung(own[1])
        generation = r.row(1)["generation"]
        # h0 names slot 1's occupant: so it stays gone until h0 lets go
        r.put64(r.ctl(1), 0x1234)
        r.put64(r.pair(0, 1) + 8, 0x1234)
        h1.close()
        wait_for(lambda: rung(own[1]))
        self.assertEqual(r.row(1)["state"], "gone")
        self.assertEqual(r.row(1)["generation"], generation)
        # ... and is given back when it has
        r.put64(r.pair(0, 1) + 8, 0)
        wait_for(lambda: r.row(1)["state"] == "joining")
        self.assertEqual(r.row(1)["generation"], generation + 1)
        self.assertEqual(r.u64(r.ctl(1)), 0, "memory of the old occupant is zeroed")

    def test_stale_and_illegal_changes_are_refused(self):
        k = self.keeper()
        a = self.admin(k)
        self.assertEqual(a.row(kl.SET_ROW, 0), -errno.ESTALE)
        self.assertEqual(a.open(0, generation=3), 0)
        self.assertEqual(a.open(0, generation=4), -errno.EBUSY)
        self.assertEqual(a.row(kl.SET_ROW, 0, generation=2), -errno.ESTALE)
        self.assertEqual(a.row(kl.SET_ROW, 0, generation=3, state="left"), -errno.EINVAL)
        self.assertEqual(a.row(kl.SET_ROW, 0, generation=3, state="joining", number=5), 0)
        self.assertEqual(a.status(0)["number"], 5)
        h = self.qemu(k, 0)
        self.assertEqual(a.close_slot(0), -errno.EBUSY)
        h.close()
        a.event(kl.EV_DISCONNECTED, 0)
        # vmcommd that did not notice the death cannot bring the dead back
        self.assertEqual(a.row(kl.SET_ROW, 0, generation=3, state="live"), -errno.EINVAL)
        self.assertEqual(a.close_slot(0), 0)
        self.assertEqual(a.open(0, generation=3), -errno.ESTALE)
        self.assertEqual(a.open(9, generation=3), -errno.EINVAL)

    def test_memory_is_zeroed_for_the_next(self):
        k = self.keeper()
        a = self.admin(k)
        a.open(0)
        h = self.qemu(k, 0)
        r = Region(h.memory)
        self.cleanup.append(r.close)
        spots = [r.ctl(0), r.ctl(0) + r.ctl_stride - 8, r.chunk(0, 0), r.chunk(0, r.chunks) - 8]
        other = r.ctl(1)
        for spot in spots + [other]:
            r.put64(spot, 0xdeadbeef)
        r.put32(r.reclaim_ack(0, 3), 7)
        h.sock.close()
        a.event(kl.EV_DISCONNECTED, 0)
        self.assertEqual(r.u64(spots[0]), 0xdeadbeef, "survivors still read it")
        a.close_slot(0)
        a.open(0, generation=2)
        self.assertEqual([r.u64(spot) for spot in spots], [0] * 4)
        self.assertEqual(r.u32(r.reclaim_ack(0, 3)), 0)
        self.assertEqual(r.u64(other), 0xdeadbeef, "a neighbour's memory is not touched")

    def test_reclaim_gives_pages_back(self):
        k = self.keeper()
        a = self.admin(k)
        a.open(0)
        h = self.qemu(k, 0)
        r = Region(h.memory)
        self.cleanup.append(r.close)
        blocks = lambda: os.fstat(h.memory).st_blocks
        size = 1 << r.chunk_shift
        for c in range(4):
            r.map[r.chunk(0, c):r.chunk(0, c) + size] = b"z" * size
        full = blocks()
        r.put32(r.reclaim(0, 1), 1)
        r.put32(r.reclaim(0, 2), 2)  # even: nothing is asked
        ring(h.peers()[4][1])
        wait_for(lambda: r.u32(r.reclaim_ack(0, 1)) == 1)
        # the request word's and the acknowledgement's pages are new
        self.assertLess(blocks(), full - size // 512 + 3 * 8 + 1)
        self.assertEqual(r.u64(r.chunk(0, 1)), 0)
        self.assertNotEqual(r.u64(r.chunk(0, 2)), 0)
        # by the timer, without a doorbell
        r.put32(r.reclaim(0, 3), 9)
        wait_for(lambda: r.u32(r.reclaim_ack(0, 3)) == 9)

    def test_policy(self):
        k = self.keeper()
        a = self.admin(k)
        r = Region(a.memory())
        self.cleanup.append(r.close)
        entry = bytes(16) + bytes([0, 0, 0, 0]) + struct.pack("=HH", 22, 22)
        body = struct.pack("=II", 1, 0) + entry + bytes(24 * 63)
        self.assertEqual(a.call(kl.POLICY, 0, body)[0], 0)
        self.assertEqual(r.u32(152) % 2, 0)
        self.assertEqual(r.u32(156), 1)
        self.assertEqual(struct.unpack_from("<HH", r.map, 512 + 20), (22, 22))
        bad = struct.pack("=II", 65, 0) + bytes(24 * 64)
        self.assertEqual(a.call(kl.POLICY, 0, bad)[0], -errno.EINVAL)

    def test_what_the_host_wrote_is_put_right(self):
        """Every member can write everywhere; who joins later must find header and rows."""
        k = self.keeper()
        a = self.admin(k)
        r = Region(a.memory())
        self.cleanup.append(r.close)
        entry = bytes(16) + bytes([0, 0, 0, 0]) + struct.pack("=HH", 22, 22)
        self.assertEqual(a.call(kl.POLICY, 0, struct.pack("=II", 1, 0) + entry + bytes(24 * 63))[0],
                         0)
        self.assertEqual(a.open(1), 0)
        self.qemu(k, 1)
        wait_for(lambda: r.row(1)["state"] == "live")
        header, row = r.map[0:4096], r.row(1)
        for off in range(0, 4096, 4):
            r.put32(off, 0xdeadbeef)
        for off in (0, 4, 8, 24, 40, 44, 48, 60):
            r.put32(r.table_off + 256 + off, 3)
        r.put32(r.table_off + 2 * 256, 1)  # a row that seems to be written all the time
        wait_for(lambda: r.map[0:4096] == header)
        wait_for(lambda: {**r.row(1), "seq": 0} == {**row, "seq": 0} and r.row(1)["seq"] % 2 == 0)
        wait_for(lambda: r.u32(r.table_off + 2 * 256) % 2 == 0)
        r.put32(24, 0)
        wait_for(lambda: r.u32(24) == k.slots)


class AdminTest(Case):
    def test_wrong_requests(self):
        k = self.keeper()
        a = self.admin(k)
        self.assertEqual(a.call(200)[0], -errno.EOPNOTSUPP)
        self.assertEqual(a.call(kl.OPEN)[0], -errno.EBADMSG)
        self.assertEqual(a.call(kl.STATUS, 0, b"x")[0], -errno.EBADMSG)
        result, _, fds = a.call(kl.GET_EVENTS, 5)
        self.assertEqual((result, fds), (-errno.EINVAL, []))
        b = self.admin(k)
        b.raw(b"short")
        with self.assertRaises((EOFError, ConnectionError)):
            b.packet()
        c = self.admin(k)
        c.raw(os.urandom(100000 % 65536))
        self.assertEqual(a.hello()["slots"], 4)

    def test_client_that_does_not_read_is_dropped(self):
        k = self.keeper()
        lazy = self.admin(k)
        a = self.admin(k)
        lazy.sock.setblocking(False)
        for serial in range(20000):
            try:
                lazy.raw(kl.HEADER.pack(kl.STATUS, serial + 1, 0, 0))
            except (BlockingIOError, BrokenPipeError, ConnectionError):
                if serial % 100 == 0:
                    break
        self.assertEqual(a.hello()["slots"], 4)

    def test_too_many_clients(self):
        k = self.keeper()
        clients = [self.admin(k) for _ in range(8)]
        for c in clients:
            c.hello()
        ninth = self.admin(k)
        with self.assertRaises((EOFError, ConnectionError)):
            ninth.hello()
        self.assertEqual(clients[0].hello()["slots"], 4)

    def test_second_keeper_is_refused(self):
        k = self.keeper()
        r = subprocess.run([KEEPER, "--gid", "test", "--dir", self.dir], stderr=subprocess.PIPE,
                           text=True, timeout=20)
        self.assertEqual(r.returncode, 1)
        self.assertIn("runs already", r.stderr)
        self.assertIn(str(k.proc.pid), r.stderr)
        self.assertEqual(self.admin(k).hello()["pid"], k.proc.pid)

    def test_shutdown(self):
        k = self.keeper()
        a = self.admin(k)
        a.open(0)
        self.qemu(k, 0)
        self.assertEqual(a.call(kl.SHUTDOWN, 0)[0], -errno.EBUSY)
        self.assertEqual(a.call(kl.SHUTDOWN, 1)[0], 0)
        self.assertEqual(k.proc.wait(20), 0)
        self.assertEqual(os.listdir(self.dir), [])

    def test_daemonize_returns_when_ready(self):
        log = os.path.join(self.tmp.name, "log")
        with open(log, "w") as f:
            subprocess.run([KEEPER, "--gid", "d", "--dir", self.dir, "--daemonize"], check=True,
                           timeout=20, stderr=f)
        a = kl.Admin(os.path.join(self.dir, "keeper.sock"))
        self.assertEqual(a.hello()["gid"].rstrip(b"\0"), b"d")
        self.assertEqual(a.call(kl.SHUTDOWN, 0)[0], 0)
        wait_for(lambda: not os.path.exists(os.path.join(self.dir, "keeper.pid")))

    def test_usage_errors_name_the_value(self):
        for args, word in [(["--gid", "a/b"], "a/b"), (["--memory", "65M"], "65M"),
                           (["--slots", "65"], "65"), (["--open", "0=10.0.0"], "0=10.0.0"),
                           (["--open", "9=10.0.0.1"], "9"), (["--chunk", "5"], "'5'")]:
            r = subprocess.run([KEEPER, "--gid", "x", "--dir", self.dir, *args],
                               stderr=subprocess.PIPE, text=True, timeout=20)
            self.assertEqual(r.returncode, 2, args)
            self.assertIn(word, r.stderr)
        r = subprocess.run([KEEPER, "--gid", "x", "--dir", self.dir, "--slots", "64", "--memory",
                            "4M"], stderr=subprocess.PIPE, text=True, timeout=20)
        self.assertEqual(r.returncode, 1)
        self.assertIn("too little", r.stderr)


if __name__ == "__main__":
    KEEPER = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
