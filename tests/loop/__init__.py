# SPDX-License-Identifier: GPL-2.0-or-later
"""Helpers of the suites semantics and loop."""
