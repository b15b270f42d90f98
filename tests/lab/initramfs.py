# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs: busybox, a dozen modules, our init and agent. About 5 MB, not compressed."""

import stat
import subprocess
from pathlib import Path

from . import cache, kernel as kernels
from .errors import LabError

_HERE = Path(__file__).parent
_INIT = _HERE / "guest_side" / "init"
_AGENT = _HERE / "guest_side" / "agent.c"
_BUSYBOX = Path("/bin/busybox")

# What must be there before the host's root (with all other modules) is mounted.
_MODULES = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "virtio_net"]
# The same for a guest with its root on a disk (rootdisk.py).
_DISK_MODULES = ["virtio_pci", "virtio_console", "virtio_blk", "ext4", "overlay", "virtio_net"]


def build(kernel, disk=False):
    """Path of the (cached) initramfs for KERNEL."""
    if not _BUSYBOX.exists():
        raise LabError("no /bin/busybox: apt-get install busybox-static")
    agent_file = agent()
    names = _DISK_MODULES if disk else _MODULES
    modules = kernels.module_files(kernel, names) if kernel.modular else []
    stamps = "".join(f"{p} {p.stat().st_size} {p.stat().st_mtime_ns}\n" for p in modules)
    key = cache.digest(kernel.release, _INIT, agent_file, Path(__file__), stamps,
                       str(_BUSYBOX.stat().st_mtime_ns))
    return cache.entry("initramfs", key, lambda out: _write(out, agent_file, modules))


def agent():
    """The guest agent, compiled statically so that it needs nothing of any root."""
    def compile_to(out):
        subprocess.run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s",
                        "-o", str(out), str(_AGENT)], check=True)
    return cache.entry("agent", cache.digest(_AGENT), compile_to)


def _write(out, agent, modules):
    archive = Cpio()
    for name in ("bin", "dev", "proc", "sys", "modules"):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, _BUSYBOX.read_bytes())
    archive.add("agent", stat.S_IFREG | 0o755, agent.read_bytes())
    archive.add("init", stat.S_IFREG | 0o755, _INIT.read_bytes())
    names = []
    for i, path in enumerate(modules):
        # Numbered, because the shell's glob order is then the load order.
        names.append(f"modules/{i:02}-{path.name.split('.')[0]}.ko")
        archive.add(names[-1], stat.S_IFREG | 0o644, kernels.module_bytes(path))
    out.write_bytes(archive.finish())


class Cpio:
    """A writer for the kernel's initramfs format ("newc" cpio)."""

    def __init__(self):
        self._parts = []
        self._inode = 0

    def add(self, name, mode, data=b"", rdev=(0, 0)):
        self._inode += 1
        fields = [self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(name) + 1, 0]
        head = b"070701" + "".join(f"{f:08x}" for f in fields).encode() + name.encode() + b"\0"
        self._parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]

    def finish(self):
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)
