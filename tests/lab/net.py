# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests' network: a network namespace with a bridge and one tap device per guest.

	 guest 1        guest 2        host process (Net.popen)
	   eth0           eth0              |
	    |              |                |
	  tap1 ---------- br0 ---------- 10.77.0.254, fd77::254
	          (network namespace)

Two of them can be two hosts: a trunk joins their bridges to one network, each has its own address.
"""

import json
import os
import subprocess

from .errors import LabError

PREFIX4 = "10.77.0"
PREFIX6 = "fd77:"


def vhost_works():
    """Whether the host can run the virtio-net data path in its kernel."""
    try:
        os.close(os.open("/dev/vhost-net", os.O_RDWR))
        return True
    except OSError:
        return False


class Net:
    """One bridge in a namespace of its own (made by Lab.net).

    ip4, ip6   the bridge's own addresses, where host processes of this network live
    vhost      whether guests' NICs use vhost-net
    """

    def __init__(self, name, vhost, undertaker, trunk=None):
        self.name = name
        self.vhost = vhost
        self._first = trunk._first if trunk else self
        self._members = self._first._members + 1 if trunk else 1
        self._first._members = self._members
        self.ip4 = f"{PREFIX4}.{255 - self._members}"
        self.ip6 = f"{PREFIX6}:{255 - self._members}"
        self._count = 0
        undertaker.netns(name)
        _ip("netns", "add", name)
        # No spanning tree and no snooping: a port forwards from its first frame on.
        _ip("-n", name, "-batch", "-", input="\n".join([
            "link set lo up",
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            "link set br0 addrgenmode none",
            "link set br0 up",
            f"addr add {self.ip4}/24 dev br0",
            f"addr add {self.ip6}/64 dev br0 nodad",
        ]))
        if trunk:
            port = f"trunk{self._members}"
            _ip("link", "add", port, "netns", name, "type", "veth", "peer", "name", port, "netns",
                self._first.name)
            for side in name, self._first.name:
                _ip("-n", side, "link", "set", port, "master", "br0", "up")

    def add_tap(self, number=None):
        """A new tap on the bridge. Returns (number, device name).

        number   of a guest that has a tap on another Net of the trunk, and comes here
        """
        if number is None:
            self._first._count += 1
            number = self._first._count
        if number > 200:
            raise LabError("a Net holds at most 200 guests")
        tap = f"tap{number}"
        _ip("-n", self.name, "-batch", "-", input="\n".join([
            f"tuntap add {tap} mode tap",
            f"link set {tap} addrgenmode none",
            f"link set {tap} master br0 up",
        ]))
        return number, tap

    def enter(self, command):
        """COMMAND (a list) prefixed so that it runs in this namespace, as the same process."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *command]

    def popen(self, command, **kwargs):
        """subprocess.Popen of a host process in this network; the caller ends it."""
        return subprocess.Popen(self.enter(command), **kwargs)

    def run(self, command, **kwargs):
        """subprocess.run of a host process in this network (text, output captured, checked)."""
        kwargs = {"check": True, "capture_output": True, "text": True} | kwargs
        return subprocess.run(self.enter(command), **kwargs)

    def describe(self):
        """What the NICs are, as a dict for reports: model, vhost, offloads as in use on the tap."""
        info = {"model": "virtio-net-pci", "backend": "tap + bridge", "vhost": self.vhost}
        taps = json.loads(self.run(["ip", "-j", "-d", "link", "show", "type", "tun"]).stdout or "[]")
        if taps:
            details = taps[0].get("linkinfo", {}).get("info_data", {})
            info["vnet_hdr"] = details.get("vnet_hdr")
            info["mtu"] = taps[0].get("mtu")
            features = self.run(["ethtool", "-k", taps[0]["ifname"]], check=False).stdout
            wanted = {"tx-checksumming", "scatter-gather", "tcp-segmentation-offload",
                      "generic-segmentation-offload", "generic-receive-offload"}
            for line in features.splitlines():
                key, _, value = line.partition(":")
                if key.strip() in wanted:
                    info[key.strip()] = value.strip()
        return info


def _ip(*args, **kwargs):
    done = subprocess.run(["ip", *args], capture_output=True, text=True, **kwargs)
    if done.returncode != 0:
        raise LabError(f"ip {' '.join(args)}: {done.stderr.strip()} (the lab needs root)")
