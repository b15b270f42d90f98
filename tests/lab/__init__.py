# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests under QEMU for vmcomm's tests, benchmarks and demo. docs/testing.md shows how to use it.

	cache      things that are made once and kept outside the checkout
	kernel     which kernel, and its ELF image
	initramfs  what a guest starts with; guest_side/ has its init and agent
	accel      KVM or TCG
	qemu, qmp  one QEMU process and its monitor
	agent      commands in a guest
	kmsg       its kernel log
	parking    a work-around for a QEMU bug after an unplug
	net        bridge and taps in a network namespace
	guest      a guest as tests use it
	session    the Lab, which makes networks and guests
	paths      the product's own files
	cleanup    nothing outlives the lab
	suite      results of a suite, one line per test
"""

from . import paths
from .errors import CommandError, GuestGone, KernelComplaint, LabError
from .session import Lab, wait_until
from .suite import Skip, Suite

__all__ = ["CommandError", "GuestGone", "KernelComplaint", "Lab", "LabError", "Skip", "Suite",
           "paths", "wait_until"]
