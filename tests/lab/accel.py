# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM if a guest really boots with it, else TCG.

A /dev/kvm that opens says little: in a cloud machine it may make a VM that never gets anywhere. So
the guest kernel is booted with it for some seconds; the answer is kept until the host reboots or
QEMU or the kernel changes.
"""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from . import cache, initramfs, kernel as kernels

_PROBE_SECONDS = 10


def arguments(accel, icount=None):
    """QEMU's arguments for ACCEL ("kvm" or "tcg"); icount: see qemu.Machine."""
    if accel == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # TCG runs "rep movsb" a byte at a time; without erms the kernel copies by words (40 x faster).
    # With the default gigabyte of translated code a reset guest spends up to 20 s on overwriting
    # pages that hold stale translations; with 128 MiB it does not, and nothing else gets slower.
    thread, more = ("multi", []) if icount is None else ("single", ["-icount", f"shift={icount}"])
    return ["-accel", f"tcg,thread={thread},tb-size=128", "-cpu", "max,-erms", *more]


def choose(kernel=None):
    """ "kvm" or "tcg". VMLAB_ACCEL in the environment overrides the probe."""
    forced = os.environ.get("VMLAB_ACCEL")
    if forced in ("kvm", "tcg"):
        return forced
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    kernel = kernel or kernels.find()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
    version = subprocess.run(["qemu-system-x86_64", "--version"], check=True,
                             capture_output=True, text=True).stdout
    key = cache.digest(boot_id, version, kernel.release, Path(__file__))
    path = cache.entry("kvm", key, lambda out: out.write_text(json.dumps(_probe(kernel))))
    return "kvm" if json.loads(path.read_text())["works"] else "tcg"


def _probe(kernel):
    with tempfile.TemporaryDirectory(prefix="vmlab-probe-") as tmp:
        console = Path(tmp, "console")
        args = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
                "-M", "q35", *arguments("kvm"), "-m", "512", "-kernel", str(kernel.boot_image()),
                "-initrd", str(initramfs.build(kernel)), "-no-reboot",
                "-append", "console=ttyS0 quiet panic=-1 lab.probe", "-serial", f"file:{console}"]
        try:
            done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=_PROBE_SECONDS)
            why = done.stderr.strip() or f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            why = f"no boot in {_PROBE_SECONDS} s"
        text = console.read_text(errors="replace") if console.exists() else ""
        works = re.search(r"^LAB-PROBE-OK", text, re.M) is not None
        return {"works": works, "why": "boots" if works else why}
