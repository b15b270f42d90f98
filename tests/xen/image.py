# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domU starts with: busybox, our agent, some programs of the host with their libraries."""

import stat
import subprocess
from pathlib import Path

from lab import cache, initramfs, kernel as kernels
from lab.errors import LabError

_INIT = Path(__file__).parent / "guest_side" / "domu-init"
_BUSYBOX = Path("/bin/busybox")
_MODULES = ["xen-netfront"]


def build(kernel, programs=(), modules=()):
    """Path of the (cached) initramfs for domUs with KERNEL; programs are absolute paths, modules names
    of more kernel modules that it loads."""
    agent = initramfs.agent()
    modules = kernels.module_files(kernel, [*_MODULES, *modules])
    files = _closure([Path(p) for p in programs])
    stamps = "".join(f"{p} {p.stat().st_size} {p.stat().st_mtime_ns}\n"
                     for p in [*modules, *files, _BUSYBOX])
    key = cache.digest(_INIT, agent, Path(__file__), stamps)
    return cache.entry("domu", key, lambda out: _write(out, agent, modules, files))


def _closure(programs):
    """PROGRAMS and the shared libraries that they need."""
    found = {}
    for program in programs:
        if not program.exists():
            raise LabError(f"no {program} on this host for the domU")
        found[program] = None
        # Fails for static programs, which need nothing.
        words = subprocess.run(["ldd", program], capture_output=True, text=True).stdout.split()
        found.update({Path(w): None for w in words if w.startswith("/")})
    return list(found)


def _write(out, agent, modules, files):
    archive = initramfs.Cpio()
    directories = {"bin", "dev", "proc", "sys", "run", "tmp", "root", "modules"}
    links = {}
    for path in files:
        # /lib and the like are symbolic links into /usr: here they are directories.
        directories.update(str(p)[1:] for p in path.parents if p != Path("/"))
        links[str(path)[1:]] = path.read_bytes()
    for name in sorted(directories):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, _BUSYBOX.read_bytes())
    archive.add("agent", stat.S_IFREG | 0o755, agent.read_bytes())
    archive.add("init", stat.S_IFREG | 0o755, _INIT.read_bytes())
    for name, data in links.items():
        archive.add(name, stat.S_IFREG | 0o755, data)
    for i, path in enumerate(modules):
        archive.add(f"modules/{i:02}-{path.name.split('.')[0]}.ko", stat.S_IFREG | 0o644,
                    kernels.module_bytes(path))
    out.write_bytes(archive.finish())
