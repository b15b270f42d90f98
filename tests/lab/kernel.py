# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel a guest boots, and its ELF image.

Debian's vmlinuz is a bzImage whose payload (xz in 6.1) takes seconds to unpack under TCG. It is
unpacked once on the host; QEMU then enters the ELF image through its PVH note.
"""

import bz2
import gzip
import lzma
import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import cache
from .errors import LabError

# Debian's generic flavour: it has 9p, the cloud flavour has not.
_GENERIC = re.compile(r"^vmlinuz-(\d+\.\d+)\..*-amd64$")
_OTHER_FLAVOUR = re.compile(r"-(cloud|rt)-amd64$")

_PAYLOADS = [
    (b"\x1f\x8b", gzip.decompress),
    (b"\xfd7zXZ\x00", lambda data: lzma.LZMADecompressor().decompress(data)),
    (b"BZh", bz2.decompress),
    (b"\x28\xb5\x2f\xfd", lambda data: _filter(["zstd", "-dcq"], data)),
    (b"\x02\x21\x4c\x18", lambda data: _filter(["lz4", "-dcq"], data)),
]


@dataclass(frozen=True)
class Kernel:
    """A bootable guest kernel.

    image    what QEMU boots: a bzImage, or an ELF vmlinux with a PVH note
    release  what `uname -r` prints in the guest; also names /lib/modules/RELEASE
    modular  False for a kernel with everything built in (no modules in the initramfs)
    pvh      True: unpack the image on the host and enter it by PVH (fast); False: boot it as it is
    """

    image: Path
    release: str
    modular: bool = True
    pvh: bool = True

    def boot_image(self):
        """The file for QEMU's -kernel."""
        if not self.pvh:
            return self.image
        st = self.image.stat()
        key = cache.digest(self.release, str(self.image), f"{st.st_size} {st.st_mtime_ns}")
        return cache.entry("vmlinux", key, lambda out: out.write_bytes(unpack(self.image)))


def find(choice=None):
    """The kernel for CHOICE: None (the 6.1 series), a series like "6.12", or a release.

    Raises LabError naming the package to install when there is none.
    """
    choice = choice or "6.1"
    found = []
    for path in Path("/boot").glob("vmlinuz-*"):
        m = _GENERIC.match(path.name)
        release = path.name.removeprefix("vmlinuz-")
        if not m or _OTHER_FLAVOUR.search(release):
            continue
        if choice in (m.group(1), release) and Path("/lib/modules", release).is_dir():
            found.append((_version_key(release), path, release))
    if not found:
        package = "linux-image-amd64" if choice == "6.1" else f"linux-image-{choice}-amd64"
        raise LabError(f"no guest kernel {choice!r} in /boot: run scripts/deps.sh, or "
                       f"apt-get install {package}")
    _, path, release = max(found)
    return Kernel(path, release)


def unpack(bzimage):
    """The ELF vmlinux inside a bzImage (the file's own setup header says where it is)."""
    data = bzimage.read_bytes()
    if data[:4] == b"\x7fELF":
        return data
    if data[0x202:0x206] != b"HdrS":
        raise LabError(f"{bzimage} is not a bzImage")
    setup_sects = data[0x1F1] or 4
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (setup_sects + 1) * 512 + offset
    payload = data[start:start + length]
    for magic, decompress in _PAYLOADS:
        if payload.startswith(magic):
            elf = decompress(payload)
            if elf[:4] != b"\x7fELF":
                raise LabError(f"{bzimage}: payload is not an ELF image")
            return elf
    raise LabError(f"{bzimage}: unknown payload compression {payload[:6].hex()}")


def module_files(kernel, names):
    """Files of the modules NAMES with all they need, in load order, without repeats."""
    out = []
    for name in names:
        text = subprocess.run(["modprobe", "--show-depends", "-S", kernel.release, name],
                              check=True, capture_output=True, text=True).stdout
        for line in text.splitlines():
            words = line.split()
            if words and words[0] == "insmod" and words[1] not in out:
                out.append(words[1])
    return [Path(p) for p in out]


def module_bytes(path):
    """Content of a module file, decompressed; the signature at its end is kept."""
    data = path.read_bytes()
    for magic, decompress in _PAYLOADS:
        if data.startswith(magic):
            return decompress(data)
    return data


def _filter(command, data):
    return subprocess.run(command, input=data, capture_output=True).stdout


def _version_key(release):
    return [int(n) for n in re.findall(r"\d+", release)]
