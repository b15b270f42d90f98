# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache outside the checkout: things that take seconds to make and never change.

Every entry is a file or a directory whose name carries a hash of all that it was made from, so an
entry is never updated: a changed input makes a new one. Two labs that start at the same moment
build an entry once (flock), and a half-made entry is never visible (rename at the end).
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

_UNUSED_DAYS = 30


def root():
    """The cache directory: ${XDG_CACHE_HOME:-~/.cache}/vmcomm, made if missing."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(base) / "vmcomm"
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*parts):
    """A short stable hash of strings, bytes and the contents of Path objects."""
    h = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            part = part.read_bytes()
        elif isinstance(part, str):
            part = part.encode()
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return h.hexdigest()[:16]


@contextlib.contextmanager
def lock(name):
    """Hold the cache-wide lock NAME; the kernel drops it if the holder dies."""
    with open(root() / f".{name}.lock", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def entry(kind, key, build):
    """Path of the entry KIND-KEY; on a miss build(path) is called to make it."""
    path = root() / f"{kind}-{key}"
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
        return path
    with lock(kind):
        if path.exists():
            return path
        _prune(kind)
        tmp = Path(tempfile.mkdtemp(prefix=".new-", dir=root()))
        try:
            build(tmp / "x")
            os.rename(tmp / "x", path)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
    return path


def _prune(kind):
    """Delete entries of KIND that nobody used for long."""
    limit = time.time() - _UNUSED_DAYS * 86400
    for path in root().glob(f"{kind}-*"):
        if path.stat().st_mtime < limit:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
