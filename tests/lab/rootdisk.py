# SPDX-License-Identifier: GPL-2.0-or-later
"""A read-only disk with chosen programs of the host, for guests that migrate.

QEMU does not migrate a guest whose root is a 9p mount. So such a guest has its root on a virtio disk:
an ext4 image with busybox and the programs below, each with the libraries that ldd names, made once for
each set of programs and kept in the cache. Files of the build are given to the guest with put().
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import cache
from .errors import LabError

# Programs, and whole directories (with a / at the end) that some of them need.
PROGRAMS = (
    "/bin/sh /bin/bash /bin/cat /bin/chmod /bin/mkdir /bin/sleep /bin/grep /bin/rm /bin/cp "
    "/bin/ls /bin/dd /bin/kill /usr/bin/env /usr/bin/id /usr/bin/sha256sum /usr/bin/head "
    "/usr/bin/tail /usr/bin/awk /usr/bin/seq /usr/bin/date /usr/bin/setpriv /usr/bin/timeout "
    "/sbin/insmod /sbin/rmmod /bin/ss /bin/ip /usr/bin/iperf3 /usr/bin/redis-server "
    "/usr/bin/redis-cli /usr/bin/redis-benchmark /usr/sbin/sshd /usr/bin/ssh /usr/bin/ssh-keygen "
    "/usr/bin/rsync /usr/bin/python3 /usr/lib/python3.11/ /etc/ssl/openssl.cnf /etc/nsswitch.conf /etc/services /etc/protocols").split()
POSTGRES = ["/usr/lib/postgresql/15/", "/usr/share/postgresql/15/", "/usr/share/zoneinfo/UTC",
            "/usr/lib/locale/C.utf8/"]
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/bin/false\n"
                  "postgres:x:101:101::/tmp:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\npostgres:x:101:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:1::::::\nsshd:*:1::::::\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
# PostgreSQL's just-in-time compiler is 100 MB of LLVM; the others are as large and of no use.
_LEFT_OUT = {"bitcode", "llvmjit.so", "test", "idlelib", "lib2to3", "ensurepip", "__pycache__"}
_LIBRARY = re.compile(r"(/\S+) \(0x")


def build(programs=(), postgres=False):
    """Path of the (cached) image with PROGRAMS besides the usual ones."""
    wanted = [*PROGRAMS, *programs, *(POSTGRES if postgres else [])]
    files = sorted({str(p) for name in wanted for p in _files(name)})
    missing = [name for name in wanted if not os.path.exists(name)]
    if missing:
        raise LabError(f"not installed, needed in guests that migrate: {' '.join(missing)}")
    stamps = "".join(f"{f} {os.stat(f).st_size} {os.stat(f).st_mtime_ns}\n" for f in files)
    return cache.entry("rootdisk", cache.digest(Path(__file__), stamps),
                       lambda out: _write(out, files))


def _files(name):
    """NAME, what is below it, and the libraries of all that."""
    path = Path(name)
    found = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    found = [p for p in found if not _LEFT_OUT & set(p.parts)]
    elf = [p for p in found if p.exists() and _is_elf(p)]
    for p in elf:
        text = subprocess.run(["ldd", str(p)], capture_output=True, text=True, check=False).stdout
        found += [Path(lib) for lib in _LIBRARY.findall(text)]
    # Loaded by name, so that ldd does not know them.
    found += [Path(p) for p in ("/lib/x86_64-linux-gnu/libnss_files.so.2",
                                "/lib/x86_64-linux-gnu/libgcc_s.so.1") if os.path.exists(p)]
    return found


def _is_elf(path):
    with open(path, "rb") as f:
        return f.read(4) == b"\x7fELF"


def _write(out, files):
    with tempfile.TemporaryDirectory(prefix="vmlab-root-") as stage:
        root = Path(stage)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
        for name in ("dev", "proc", "sys", "run", "tmp", "root", "var", "etc"):
            (root / name).mkdir()
        (root / "tmp").chmod(0o1777)
        for file in files:
            # Merged /usr: /bin is a link to /usr/bin there as here.
            to = root / os.path.relpath(os.path.realpath(os.path.dirname(file)), "/")
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, to / os.path.basename(file))
        busybox = root / "usr/bin/busybox"
        shutil.copy2("/bin/busybox", busybox)
        for applet in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True,
                                     check=True).stdout.split():
            if not (root / "usr/bin" / applet).exists() and not (root / "usr/sbin" / applet).exists():
                (root / "usr/bin" / applet).symlink_to("busybox")
        for name, text in _ACCOUNTS.items():
            (root / name).write_text(text)
        size = sum(p.stat().st_size for p in root.rglob("*") if p.is_file() and not p.is_symlink())
        blocks = size // 1024 * 5 // 4 + 16384
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-b", "1024", "-d", stage,
                        "-E", "root_owner=0:0", str(out), f"{blocks}k"], check=True,
                       stdout=subprocess.DEVNULL)
