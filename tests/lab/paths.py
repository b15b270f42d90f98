# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the product's own files are. A guest sees them at the same paths as the host."""

import os
from pathlib import Path

from .errors import LabError

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("VMCOMM_BUILD") or ROOT / "build")


def module(kernel, kind="module"):
    """vmcomm.ko for a lab.kernel.Kernel, as scripts/build.sh KIND RELEASE makes it.

    kind "checked": it checks each access to shared memory (guest/linux/access.c).
    """
    path = BUILD / kind / kernel.release / "guest" / "linux" / "vmcomm.ko"
    return _there(path, f"scripts/build.sh {kind} {kernel.release}")


def built(name):
    """A file that meson builds, by its path below the build directory ("host/vmcommd")."""
    return _there(BUILD / name, "scripts/build.sh user")


def _there(path, command):
    if not path.exists():
        raise LabError(f"{path} is missing: run {command}")
    return path
