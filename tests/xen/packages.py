# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's Xen, unpacked into the cache.

dom0 sees the host's root file system, so it is found there at the same path. Installing the
packages would make Xen an entry of the host's boot loader and start its services.
"""

import gzip
import re
import subprocess
from pathlib import Path

from lab import cache, paths
from lab.errors import LabError


def names():
    """The packages, from the one list in scripts/deps.sh."""
    done = subprocess.run([paths.ROOT / "scripts/deps.sh", "--print", "xen"], check=True,
                          capture_output=True, text=True)
    return done.stdout.split()


def root():
    """Directory with all of them unpacked; one for each set of versions."""
    packages = names()
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", *packages],
                           capture_output=True, text=True).stdout
    files = re.findall(r"^Filename: (.*)$", shown, re.M)
    if len(files) < len(packages):
        raise LabError(f"apt knows only {len(files)} of {' '.join(packages)}: apt-get update")
    return cache.entry("xen", cache.digest(*sorted(files)), lambda out: _unpack(packages, out))


def hypervisor():
    """Xen itself; QEMU's multiboot loader wants it unpacked."""
    packed, = root().glob("boot/xen-*-amd64.gz")
    key = cache.digest(str(packed))
    return cache.entry("xen-elf", key, lambda out: out.write_bytes(gzip.decompress(packed.read_bytes())))


def _unpack(packages, out):
    out.mkdir()
    debs = out / "debs"
    debs.mkdir()
    done = subprocess.run(["apt-get", "download", "-q", *packages], cwd=debs, capture_output=True,
                          text=True)
    if done.returncode != 0:
        raise LabError(f"apt-get download: {done.stderr.strip()}")
    for deb in Path(debs).glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", deb, out], check=True)
        deb.unlink()
    debs.rmdir()
