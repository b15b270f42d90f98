# SPDX-License-Identifier: GPL-2.0-or-later
"""Xen for tests: Debian's own hypervisor and tools, inside QEMU. docs/testing.md shows how to use it.

	packages   Debian's Xen, unpacked into the cache; nothing of it is installed on the host
	image      what a domU starts with; guest_side/ has its init and what dom0 does at boot
	host       XenHost: a lab guest that is Xen and dom0
	domain     Domain: a domU, with the same run(), put(), check_kernel() ... as a lab guest
"""

from .domain import Domain
from .host import XenHost

__all__ = ["Domain", "XenHost"]
